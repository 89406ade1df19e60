"""The connection to Redis or Valkey: its bytes, and a server that is slow, rude or away."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from certs import Authority
from headgate.net import redis
from headgate.net.redis import Address, Redis, RedisError, Replies, encode, parsed
from redis_server import PASSWORD, RedisServer


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address("h")),
        ("rediss://u:p%40ss@h:7000/3", Address("h", 7000, True, "u", "p@ss", 3)),
        ("valkey://:secret@[::1]:1/", Address("::1", 1, False, "", "secret", 0)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parsed(url) == address
    assert "p@ss" not in address.shown and "secret" not in address.shown


@pytest.mark.parametrize("url", ["http://h", "redis://", "redis://h/x", "redis://h:99999", "h"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parsed(url)


def test_a_command_is_written_with_the_lengths_of_its_words() -> None:
    assert encode([b"SET", b"a", b"x\r\ny"]) == b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nx\r\ny\r\n"


ALL = b"+OK\r\n:7\r\n$-1\r\n*-1\r\n$4\r\na\r\nb\r\n*3\r\n$1\r\nx\r\n:-1\r\n*1\r\n$0\r\n\r\n"
VALUES = [b"OK", 7, None, None, b"a\r\nb", [b"x", -1, [b""]]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_replies_are_the_same_in_pieces_of_any_size(size: int) -> None:
    replies, found = Replies(), []
    for at in range(0, len(ALL), size):
        found += replies.feed(ALL[at : at + size])
    assert found == VALUES


def test_an_error_is_one_reply_and_the_next_one_follows() -> None:
    error, after = Replies().feed(b"-WRONGTYPE no\r\n+OK\r\n")
    assert isinstance(error, RedisError) and str(error) == "WRONGTYPE no"
    assert after == b"OK"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"$99999999999\r\n",
        b"*99999999\r\n",
        b":x\r\n",
        b"*1\r\n" * 9 + b":1\r\n",
        b"+" + b"x" * (redis.MAX_LINE + 2),
    ],
)
def test_what_no_server_of_ours_sends_is_refused(data: bytes) -> None:
    with pytest.raises(RedisError):
        Replies().feed(data)


def test_a_large_value_in_small_pieces_is_not_read_again_with_each() -> None:
    replies = Replies()
    looked = 0
    before = replies._reply

    def counted(at: int, depth: int) -> object:
        nonlocal looked
        looked += 1
        return before(at, depth)

    replies._reply = counted  # type: ignore[method-assign, assignment]
    value = b"x" * 1_000_000
    data = b"$%d\r\n%b\r\n" % (len(value), value)
    found = [
        each for at in range(0, len(data), 1000) for each in replies.feed(data[at : at + 1000])
    ]
    assert found == [value]
    assert looked < 10


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def served(handler: Handler, work: Callable[[Redis], Awaitable[None]]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            client = Redis(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
            try:
                await work(client)
            finally:
                client.close()

    asyncio.run(run())


async def greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"PING\r\n")
    writer.write(b"+PONG\r\n")


def test_a_server_that_does_not_answer_is_given_up_and_nobody_waits_for_it_again() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeted(reader, writer)
        await reader.read()
        writer.close()

    async def work(client: Redis) -> None:
        await client.connect()
        assert await client.ask([[b"GET", b"a"]]) is None
        assert not client.connected
        assert client.send([[b"GET", b"a"]]) == []

    served(silent, work)


def test_answers_come_in_the_order_of_the_commands() -> None:
    async def two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeted(reader, writer)
        await reader.readuntil(b"b\r\n")
        writer.write(b"$1\r\nA\r\n$1\r\nB\r\n")
        await reader.read()
        writer.close()

    async def work(client: Redis) -> None:
        await client.connect()
        first = asyncio.ensure_future(client.ask([[b"GET", b"a"]]))
        second = asyncio.ensure_future(client.ask([[b"GET", b"b"]]))
        assert [await first, await second] == [[b"A"], [b"B"]]

    served(two, work)


def test_a_server_that_wants_another_password_is_no_connection() -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING\r\n")
        writer.write(b"-NOAUTH Authentication required.\r\n")
        await reader.read()
        writer.close()

    async def work(client: Redis) -> None:
        with pytest.raises(RedisError, match="NOAUTH"):
            await client.connect()
        assert not client.connected

    served(refusing, work)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    async def run() -> None:
        client = Redis(Address("127.0.0.1", 1, password="hidden"))
        with pytest.raises(RedisError) as caught:
            await client.connect()
        assert "redis://127.0.0.1:1/0" in str(caught.value)
        assert "hidden" not in str(caught.value)
        assert await client.ask([[b"PING"]]) is None

    asyncio.run(run())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[RedisServer]:
    running = RedisServer(authority.issue("redis"))
    yield running
    running.end()


async def pinged(url: str) -> object:
    """What a real server answers at an address."""
    client = Redis(parsed(url))
    try:
        await client.connect()
        return await client.ask([[b"PING"]])
    finally:
        client.close()


def test_a_server_with_tls_and_a_user_answers(
    authority: Authority, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    assert asyncio.run(pinged(server.tls_url)) == [b"PONG"]


def test_a_certificate_of_an_unknown_authority_is_refused(server: RedisServer) -> None:
    with pytest.raises(RedisError, match="certificate"):
        asyncio.run(pinged(server.tls_url))


@pytest.mark.parametrize("change", [("gate", "gat"), (PASSWORD, "wrong")])
def test_a_wrong_user_or_password_is_reported_without_them(
    authority: Authority,
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str],
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    with pytest.raises(RedisError) as refused:
        asyncio.run(pinged(server.tls_url.replace(*change)))
    assert PASSWORD not in str(refused.value) and "wrong" not in str(refused.value)[40:]
