"""TLS of clients' connections, over real sockets: handshakes, what is no TLS, back-pressure, the end."""

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from certs import Authority
from headgate.net.certificates import CertificateFiles, Certificates
from headgate.net.handshakes import Handshakes
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from headgate.net.server_limits import Limits
from loopback import Run
from waiting import until

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = 3 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server")


class Served:
    def __init__(self, server: Server, port: int, certificates: Certificates, ca: Path) -> None:
        self.server, self.port, self.certificates, self._ca = server, port, certificates, ca

    def trusting(self, **versions: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._ca))
        for name, version in versions.items():
            setattr(context, name, version)
        return context

    async def connect(
        self, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context or self.trusting(), server_hostname="localhost"
        )

    async def ask(self, data: bytes = GET, context: ssl.SSLContext | None = None) -> bytes:
        """Send a request and read its whole answer, which has a content-length."""
        reader, writer = await self.connect(context)
        try:
            writer.write(data)
            return await answer(reader)
        finally:
            writer.transport.abort()


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def handler(inbound: Inbound) -> None:
    body = await inbound.body()
    if inbound.path == "/big":
        inbound.respond(200, [], b"b" * BIG)
    elif inbound.path == "/stream":
        inbound.start(200, [])
        for _ in range(BIG // 1024):
            inbound.write(b"s" * 1024)
            await inbound.drain()
        inbound.end()
    else:
        said = f"{inbound.path} {inbound.uncertified} {len(body)}"
        inbound.respond(200, [], said.encode())


@contextlib.asynccontextmanager
async def serving(
    authority: Authority, pair: tuple[Path, Path], client_ca: str = "", **limits: Any
) -> AsyncIterator[Served]:
    certificates = Certificates(CertificateFiles(str(pair[0]), str(pair[1]), client_ca))
    server = Server(handler, Limits(**limits), certificates=certificates)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield Served(server, port, certificates, authority.cert)
    finally:
        server.stop_accepting()
        await server.drain(0.1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_and_answers_pass_in_both_versions(
    run: Run, authority: Authority, pair: tuple[Path, Path], version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        async with serving(authority, pair) as served:
            context = served.trusting(minimum_version=version, maximum_version=version)
            context.set_alpn_protocols(["h2", "http/1.1"])
            reader, writer = await served.connect(context)
            shown = writer.get_extra_info("ssl_object")
            assert shown.selected_alpn_protocol() == "http/1.1"
            for size in (0, 5, 200_000):  # one connection, one after the other
                head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
                writer.write(head + b"p" * size)
                assert (await answer(reader)).endswith(b"/a False %d" % size)
            writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await answer(reader)).endswith(b"b" * BIG)
            writer.close()
            await until(lambda: not served.server.connections)
            assert served.server.handshakes.counts["done"] == 1

    run(main())


def test_older_versions_of_tls_are_refused(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(authority, pair) as served:
            context = served.trusting()
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await served.ask(context=context)
            await until(lambda: served.server.handshakes.counts["failed"] == 1)
            assert await served.ask()

    with pytest.warns(DeprecationWarning):
        run(main())


def test_a_stream_is_held_back_by_a_client_that_does_not_read(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(authority, pair) as served:
            reader, writer = await served.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: any(c.write_paused for c in served.server._open))
            (conn,) = served.server._open
            assert conn.transport.get_write_buffer_size() < 128 << 10
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            size = 0
            while not (data := await reader.read(65536)).endswith(b"0\r\n\r\n"):
                assert data
                size += len(data)
            assert size + len(data) > BIG
            writer.transport.abort()

    run(main())


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (GET, b"https://"),
        (b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", b"https://"),
        (b"A" * 9000, b"https://"),  # a line without end
        (b"\x00\x01\x02", b""),
        (b"\x80\x2e\x01\x00\x02", b""),  # SSL 2
        (b"\x16\x03\x01\xff\xff" + b"x" * 100, b""),  # a record larger than any
    ],
)
def test_what_is_no_tls_is_answered_in_words_or_closed(
    run: Run, authority: Authority, pair: tuple[Path, Path], sent: bytes, said: bytes
) -> None:
    async def main() -> None:
        async with serving(authority, pair) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(sent)
            got = b""
            with contextlib.suppress(ConnectionError):
                got = await reader.read()
            if said:
                assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n") and said in got
                assert b"connection: close" in got
            else:
                assert got == b""
            writer.close()
            await until(lambda: not served.server.connections)
            counts = served.server.handshakes.counts
            assert counts["plain_http" if said else "not_tls"] == 1 and not counts["done"]

    run(main())


def test_a_silent_and_a_slow_client_are_counted_and_sent_away_as_plain_ones(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(authority, pair, header_s=0.3) as served:
            silent = await asyncio.open_connection("127.0.0.1", served.port)
            slow = await asyncio.open_connection("127.0.0.1", served.port)
            slow[1].write(b"\x16\x03\x01\x02\x00")  # the head of a record that never comes
            await until(lambda: served.server.connections == 2)
            for reader, writer in (silent, slow):
                assert await reader.read() == b""  # closed by the server
                writer.close()
            await until(lambda: not served.server.connections)

    run(main())


def test_clients_in_the_handshake_count_and_give_way_to_others(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(authority, pair, connections=4, connections_per_peer=4) as served:
            silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(4)]
            await until(lambda: served.server.connections == 4)
            for _ in range(3):
                assert b" 200 " in await served.ask()
            assert served.server.connections <= 4
            for _, writer in silent:
                writer.close()

    run(main())


def test_a_hello_without_end_is_bounded(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(authority, pair) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"x" * (16384 - 4)
            writer.write(record * 40)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            await until(lambda: not served.server.connections)
            assert served.server.handshakes.counts["failed"] == 1

    run(main())


def test_handshakes_take_turns_and_peers_rotate() -> None:
    order: list[str] = []

    class Layer:
        def __init__(self, name: str, gone: bool = False) -> None:
            self.name, self.gone = name, gone

        def step(self) -> bool:
            if not self.gone:
                order.append(self.name)
            return not self.gone

    async def main() -> None:
        turns = Handshakes()
        for name in ("a1", "a2", "a3"):
            turns.ask(Layer(name), "a")  # type: ignore[arg-type]
        turns.ask(Layer("b1"), "b")  # type: ignore[arg-type]
        turns.ask(Layer("c1", gone=True), "c")  # type: ignore[arg-type]
        seen = []
        while len(order) < 4:
            seen.append(len(order))
            await asyncio.sleep(0)
        assert seen == sorted(seen) and max(b - a for a, b in itertools.pairwise(seen)) <= 1
        assert order == ["a1", "b1", "a2", "a3"]

    asyncio.run(main())


def test_a_client_certificate_is_taken_from_its_authority_only(
    run: Run, authority: Authority, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    good = authority.issue("client", client=True)
    bad = Authority(tmp_path, "stranger").issue("client", client=True)

    async def main() -> None:
        async with serving(authority, pair, str(authority.cert)) as served:
            assert (await served.ask()).endswith(b"/a True 0")  # none: the application says so
            context = served.trusting()
            context.load_cert_chain(*good)
            assert (await served.ask(context=context)).endswith(b"/a False 0")
            context = served.trusting()
            context.load_cert_chain(*bad)
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await served.ask(context=context)
            await until(lambda: served.server.handshakes.counts["failed"] == 1)

    run(main())


def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    fresh = authority.issue("fresh")

    async def main() -> None:
        async with serving(authority, pair) as served:
            reader, writer = await served.connect()
            renewed = Certificates(CertificateFiles(str(fresh[0]), str(fresh[1])))
            served.certificates.context = renewed.context
            other, late = await served.connect()
            shown = late.get_extra_info("peercert")["subjectAltName"][0]
            assert shown == ("DNS", "fresh.test")
            for stream in ((reader, writer), (other, late)):
                stream[1].write(GET)
                assert b" 200 " in await answer(stream[0])
                stream[1].transport.abort()

    run(main())


def test_the_end_of_a_connection_is_told_in_tls(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    """Without close_notify a client cannot tell the end of an answer from a cut."""

    async def main() -> None:
        async with serving(authority, pair) as served:
            ask = b"GET /a HTTP/1.0\r\nHost: x\r\n\r\n"
            got = await asyncio.to_thread(blocking, served, ask)
            assert got.endswith(b"/a False 0")

    run(main())


def blocking(served: Served, ask: bytes) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", served.port)) as raw,
        served.trusting().wrap_socket(
            raw, server_hostname="localhost", suppress_ragged_eofs=False
        ) as sock,
    ):
        sock.sendall(ask)
        out = b""
        while data := sock.recv(65536):  # SSLEOFError for a cut
            out += data
        return out


def test_a_body_that_is_refused_does_not_lose_its_answer(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(authority, pair, body_bytes=1000) as served:
            reader, writer = await served.connect()
            writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")
            writer.write(b"p" * 2_000_000)
            assert (await answer(reader)).startswith(b"HTTP/1.1 413 ")
            writer.transport.abort()

    run(main())


def test_a_client_that_leaves_ends_its_request(
    run: Run, authority: Authority, pair: tuple[Path, Path]
) -> None:
    async def main() -> None:
        async with serving(authority, pair) as served:
            for leave in ("abort", "close"):
                _, writer = await served.connect()
                writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
                await until(lambda: served.server.running)
                getattr(writer.transport, leave)()
                await until(lambda: not served.server.running and not served.server.connections)

    run(main())
