"""The outbound client against loopback upstreams that are written byte by byte."""

import asyncio
import itertools
import os
import socket

import pytest

from headgate.net.client import most_connections
from headgate.net.client_errors import Broken, NoConnection, Stale, TimedOut, Timeouts
from headgate.net.dial import ConnectTimedOut, NotSent
from headgate.net.upstream_connection import Response
from loopback import (
    CALM,
    CHUNKED,
    OK,
    Run,
    answering,
    client,
    closing,
    hear,
    post,
    stated,
    stays,
    upstream,
)
from waiting import PATIENCE_S, pause, until


def test_a_request_is_these_bytes(run: Run) -> None:
    heard: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await hear(reader))
        writer.write(OK)

    async def main() -> None:
        async with upstream(play) as up, client() as c:
            response = await c.send("POST", up.url + "?a=b#c", {"x-a": "b c"}, b"{}", CALM)
            assert (response.status, await response.read(), await response.read()) == (
                200,
                b"hi",
                b"",
            )
            assert heard == [
                b"POST /v1/x?a=b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-length: 2\r\n"
                b"accept-encoding: identity\r\nconnection: keep-alive\r\nx-a: b c\r\n\r\n{}"
                % up.port
            ]

    run(main())


def test_a_large_body_arrives_whole(run: Run) -> None:
    heard: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await hear(reader))
        writer.write(OK)

    async def main() -> None:
        async with upstream(play) as up, client() as c:
            body = bytes(range(256)) * 20000
            assert await (await post(c, up.url, body=body)).read_all() == b"hi"
            assert heard[0].endswith(b"\r\n\r\n" + body)

    run(main())


# -- the pool


def test_a_connection_serves_again(run: Run) -> None:
    async def main() -> None:
        empty = b"HTTP/1.1 204 No Content\r\n\r\n"
        chunked = CHUNKED + b"2\r\nhi\r\n0\r\n\r\n"
        async with upstream(answering(OK, empty, chunked, OK)) as up, client() as c:
            for expected in (b"hi", b"", b"hi", b"hi"):
                assert await (await post(c, up.url)).read_all() == expected
            assert up.connections == 1

    run(main())


def test_the_connection_used_last_is_used_first(run: Run) -> None:
    order: list[int] = []
    numbers = itertools.count(1)

    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            n = next(numbers)
            while await hear(reader):
                order.append(n)
                await until(lambda: n == 1 or any(c._idle.values()))  # the second, after the first
                writer.write(OK)

        async with upstream(play) as up, client() as c:
            for _, response in [
                (await r.read_all(), r)
                for r in await asyncio.gather(post(c, up.url), post(c, up.url))
            ]:
                assert response.status == 200
            for _ in range(3):
                await (await post(c, up.url)).read_all()
            assert order[2:] == [2, 2, 2]  # the one that was answered later

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        OK + b"excess",
        OK + OK,
        OK + b"\r\n",
        OK + b"\n",
        OK + b"\r\n\r\n\r\n",
        OK + b"H",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhi\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n",
        CHUNKED + b"2\r\nhi\r\n0\r\n\r\n\r\n",
        CHUNKED + b"2\r\nhi\r\n0\r\nx: y\r\n\r\n\n",
        CHUNKED + b"0\r\n\r\nHTTP/1.1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=0\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=1, max=9\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=60, max=0\r\n\r\nhi",
    ],
)
def test_a_connection_that_cannot_serve_again_is_closed(run: Run, answer: bytes) -> None:
    async def main() -> None:
        async with upstream(answering(answer)) as up, client() as c:
            for n in (1, 2):
                body = await (await post(c, up.url)).read_all()
                assert body.strip() in (b"hi", b"")
                assert up.connections == n

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=60, max=100\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\r\nhi\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        CHUNKED + b"2\r\nhi\r\n0\r\n\r\n",
        CHUNKED + b"6\r\nhi\r\n\r\n\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nhi\r\n0\r\nx: y\r\n\r\n",
    ],
)
def test_a_connection_whose_answer_ends_where_its_bytes_end_serves_again(
    run: Run, answer: bytes
) -> None:
    async def main() -> None:
        async with upstream(answering(*[answer] * 5)) as up, client() as c:
            for _ in range(5):
                await (await post(c, up.url)).read_all()
            assert up.connections == 1

    run(main())


def test_what_arrived_on_an_idle_connection_is_never_taken_for_the_next_answer(run: Run) -> None:
    """Also when the loop has not read it yet: it is looked for before the connection is used."""

    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(OK)
            writers.append(writer)
            await up.wait_gone(reader)

        writers: list[asyncio.StreamWriter] = []
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        async with upstream(play) as up, client() as c:
            assert await (await post(c, up.url)).read_all() == b"hi"
            there = socket.socket(fileno=os.dup(writers[0].get_extra_info("socket").fileno()))
            there.send(evil)
            there.close()
            assert await (await post(c, up.url)).read_all() == b"hi"
            assert up.connections == 2

    run(main())


def test_an_idle_connection_lives_no_longer_than_its_upstream_announced(run: Run) -> None:
    hinted = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=7\r\n\r\nhi"

    async def main() -> None:
        async with upstream(answering(hinted)) as up, client() as c:
            await (await post(c, up.url)).read_all()
            (conn,) = c.open
            assert conn.idle_s == 6.0
            assert conn._timer_at <= conn.idle_at + 6.0

    run(main())


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Timeout\r\n\r\n", None])
def test_an_idle_connection_that_gets_data_or_eof_is_dropped(
    run: Run, unasked: bytes | None
) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(OK)
            await go.wait()
            if unasked is None:
                writer.write_eof()
            else:
                writer.write(unasked)
            await up.wait_gone(reader)

        go = asyncio.Event()
        async with upstream(play) as up, client() as c:
            await (await post(c, up.url)).read_all()
            assert c._idle and up.connections == 1
            go.set()
            await up.gone.wait()
            await (await post(c, up.url)).read_all()
            assert up.connections == 2

    run(main())


def test_idle_connections_age_and_are_counted(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            await until(lambda: up.connections % 3 == 0)
            writer.write(OK)
            await up.wait_gone(reader)

        async with upstream(play) as up:
            for idle_s in (PATIENCE_S, 0.05):
                async with client(idle_s=idle_s, max_idle_per_origin=1) as c:
                    for response in await asyncio.gather(*(post(c, up.url) for _ in range(3))):
                        await response.read_all()
                    if idle_s == PATIENCE_S:
                        assert sum(map(len, c._idle.values())) == 1
                    else:
                        await until(lambda c=c: not c.open)  # type: ignore[misc]
                        assert not any(c._idle.values())

    run(main())


def test_a_kept_connection_that_died_is_replaced_once(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = up.connections == 1
            await hear(reader)
            writer.write(OK)
            await hear(reader)
            if not first:
                writer.write(OK)

        async with upstream(play) as up, client() as c:
            for _ in range(2):
                assert await (await post(c, up.url)).read_all() == b"hi"
            assert up.connections == 2

    run(main())


def test_a_replacement_that_dies_too_is_broken(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = up.connections == 1
            await hear(reader)
            if first:
                writer.write(OK)
                await hear(reader)

        async with upstream(play) as up, client() as c:
            await (await post(c, up.url)).read_all()
            with pytest.raises(Broken):
                await post(c, up.url)
            assert up.connections == 2

    run(main())


def test_what_an_upstream_worked_on_before_it_closed_is_not_sent_again(run: Run) -> None:
    """The bound is moved instead of the clock: the connection ends later than `stale_s`."""

    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(OK)
            await hear(reader)
            heard.append(1)

        heard: list[int] = []
        async with upstream(play) as up, client(stale_s=-1.0) as c:
            await (await post(c, up.url)).read_all()
            with pytest.raises(Broken) as caught:
                await post(c, up.url)
            assert not isinstance(caught.value, Stale)
            assert (up.connections, heard) == (1, [1])

    run(main())


def test_who_counts_attempts_hears_of_a_stale_connection_and_asks_on_a_new_one(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(OK)
            await hear(reader)

        async with upstream(play) as up, client() as c:
            request = c.prepared("POST", up.url, {})
            await (await c.send_prepared(request, b"{}", CALM)).read_all()
            with pytest.raises(Stale):
                await c.send_prepared(request, b"{}", CALM)
            response = await c.send_prepared(request, b"{}", CALM, fresh=True)
            assert await response.read_all() == b"hi"
            assert up.connections == 2

    run(main())


def test_an_upstream_that_ends_every_kept_connection_is_soon_asked_on_new_ones(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(OK)
            await hear(reader)

        async with upstream(play) as up, client() as c:
            request, stale = c.prepared("POST", up.url, {}), 0
            for _ in range(50):
                try:
                    response = await c.send_prepared(request, b"{}", CALM)
                except Stale:
                    stale += 1
                    response = await c.send_prepared(request, b"{}", CALM, fresh=True)
                await response.read_all()
            assert stale <= 10

    run(main())


def test_connections_to_one_origin_are_bounded_and_come_back(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await hear(reader):
                await go.wait()
                writer.write(OK)

        go = asyncio.Event()
        async with upstream(play) as up, client(max_per_origin=2) as c:
            running = [asyncio.create_task(post(c, up.url)) for _ in range(2)]
            await until(lambda: up.connections == 2)
            for _ in range(5):
                with pytest.raises(NoConnection):
                    await post(c, up.url)
            go.set()
            for task in running:
                assert await (await task).read_all() == b"hi"
            assert await (await post(c, up.url)).read_all() == b"hi"
            assert up.connections == 2

    run(main())


def test_an_idle_connection_makes_room_for_one_to_another_origin(run: Run) -> None:
    async def main() -> None:
        async with (
            upstream(answering(OK)) as a,
            upstream(answering(CHUNKED)) as b,
            client(max_open=1) as c,
        ):
            assert await (await post(c, a.url)).read_all() == b"hi"
            response = await post(c, b.url)
            with pytest.raises(NoConnection):
                await post(c, a.url)
            response.abort()

    run(main())


def test_connections_that_failed_or_ended_are_counted_no_more(run: Run) -> None:
    async def main() -> None:
        async with upstream(closing(b"")) as up, client() as c:
            for _ in range(5):
                with pytest.raises(Broken):
                    await post(c, up.url)
            url = up.url
            assert most_connections() >= 64
        async with client() as c:
            for _ in range(5):
                with pytest.raises(NotSent):
                    await post(c, url)
            assert (c._total, c._count) == (0, {})
        async with upstream(answering(OK)) as up, client() as c:
            await (await post(c, up.url)).read_all()
            assert c._total == 1
            await c.close()
            await until(lambda: not c.open)
            assert (c._total, c._count) == (0, {})

    run(main())


def test_a_flood_of_interim_answers_is_broken(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(Broken):
            await stated(closing(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000))

    run(main())


def test_a_kept_connection_that_began_to_answer_is_not_replaced(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(OK)
            await hear(reader)
            writer.write(b"HTTP/1.1 2")

        async with upstream(play) as up, client() as c:
            await (await post(c, up.url)).read_all()
            with pytest.raises(Broken):
                await post(c, up.url)
            assert up.connections == 1

    run(main())


# -- framing


def test_a_chunked_body_may_be_split_anywhere(run: Run) -> None:
    answer = CHUNKED + b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nx-t: u\r\n\r\n"

    async def main() -> None:
        for cut in range(1, len(answer)):
            pieces: list[bytes] = [answer[:cut], answer[cut:]]

            async def play(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                pieces: list[bytes] = pieces,
            ) -> None:
                await hear(reader)
                for piece in pieces:
                    writer.write(piece)
                    await pause(0.001, "so that most of the pieces arrive apart")

            status, headers, body = await stated(play)
            assert (status, body, "x-t" in headers) == (200, b"hello world", False)

    run(main())


def test_bytes_are_read_as_they_come(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(CHUNKED)
            for piece in (b"1\r\na\r\n", b"1\r\nb\r\n1\r\nc\r\n", b"0\r\n\r\n"):
                await turn.acquire()
                writer.write(piece)
            await reader.read()

        turn = asyncio.Semaphore(0)
        async with upstream(play) as up, client() as c:
            response = await post(c, up.url)
            got = []
            for _ in range(3):
                turn.release()
                got.append(await response.read())
            assert got == [b"a", b"bc", b""]

    run(main())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + OK, b"hi"),
        (b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\na", b"a"),
    ],
)
def test_a_body_ends_where_the_head_says(run: Run, answer: bytes, expected: bytes) -> None:
    async def main() -> None:
        _, headers, body = await stated(closing(answer))
        assert body == expected and "link" not in headers

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
        b"HTTP/1.1 200 OK\r\nA: b\x01\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nA: b\x7f\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000,
        CHUNKED + b"1\r\na\r\n",
        CHUNKED + b"zz\r\na\r\n",
        CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
        CHUNKED + b"1;" + b"x" * 200_000 + b"\r\na\r\n0\r\n\r\n",
        CHUNKED + b"0\r\nA: " + b"b" * 200_000,
    ],
)
def test_bad_framing_is_broken(run: Run, answer: bytes) -> None:
    async def main() -> None:
        with pytest.raises(Broken):
            await stated(closing(answer))

    run(main())


def test_what_came_before_a_cut_is_read_before_the_cut_is_told(run: Run) -> None:
    async def main() -> None:
        async with upstream(closing(CHUNKED + b"2\r\nhi\r\n")) as up, client() as c:
            response = await post(c, up.url)
            assert await response.read() == b"hi"
            for _ in range(2):
                with pytest.raises(Broken):
                    await response.read()

    run(main())


def test_a_redirect_is_an_answer_like_any(run: Run) -> None:
    async def main() -> None:
        moved = b"HTTP/1.1 307 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
        async with upstream(answering(moved)) as up, client() as c:
            response = await post(c, up.url)
            assert (response.status, response.headers["location"]) == (307, "/x")
            assert await response.read_all() == b"" and up.connections == 1

    run(main())


def test_repeated_headers_are_joined_and_non_ascii_is_marked(run: Run) -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nA: b\r\na: c\r\nX: \xc3\xa9\r\nContent-Length: 0\r\n\r\n"
        _, headers, _ = await stated(closing(answer))
        assert headers == {"a": "b, c", "x": "��", "content-length": "0"}

    run(main())


def test_a_body_above_the_bound_is_broken_and_its_connection_closed(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(CHUNKED + b"6\r\n123456\r\n")
            await up.wait_gone(reader)

        async with upstream(play) as up, client() as c:
            response = await post(c, up.url)
            with pytest.raises(Broken, match="larger than 5 bytes"):
                await response.read_all(5)
            await up.gone.wait()

    run(main())


# -- what must not be sent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\nb: c"),
        ("x", "a\n"),
        ("x", "\0"),
        ("x", "é"),
        ("x\r\ny", "a"),
        ("", "a"),
        ("Host", "other"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
    ],
)
def test_a_header_that_could_change_the_request_is_refused(run: Run, name: str, value: str) -> None:
    async def main() -> None:
        async with upstream(answering(OK)) as up, client() as c:
            with pytest.raises(ValueError):
                await c.send("POST", up.url, {name: value}, b"", CALM)
            assert up.connections == 0

    run(main())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "h/x",
        "http://",
        "http://h/a b",
        "http://h/\r\nx",
        "http://h:99999/",
        "http://secret@h/",
        "http://[::1/",
        "http://h/é",
    ],
)
def test_a_url_that_is_no_plain_one_is_refused_without_being_repeated(run: Run, url: str) -> None:
    async def main() -> None:
        async with client() as c:
            with pytest.raises(ValueError) as refused:
                await post(c, url)
            assert "secret" not in str(refused.value)

    run(main())


# -- time, and people leaving


def test_a_refused_connection_is_not_sent(run: Run) -> None:
    async def main() -> None:
        async with upstream(answering(OK)) as up:
            url = up.url
        async with client() as c:
            with pytest.raises(NotSent):
                await post(c, url)
            with pytest.raises(NotSent):
                await post(c, "http://no-such-host.invalid/")

    run(main())


def test_a_slow_connect_is_not_sent(run: Run) -> None:
    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await up.wait_gone(reader)  # never answers TLS's hello

        async with upstream(mute) as up, client() as c:
            with pytest.raises(ConnectTimedOut) as late:
                await post(c, f"https://127.0.0.1:{up.port}/", Timeouts(connect_s=0.05))
            assert late.value.what == "connect"
            await up.gone.wait()

    run(main())


@pytest.mark.parametrize(
    ("what", "sent"),
    [
        ("first_token", b""),
        ("first_token", CHUNKED),
        ("first_token", CHUNKED + b"1;"),
        ("stall", CHUNKED + b"2\r\nhi\r\n"),
        ("stall", CHUNKED + b"2\r\nhi\r\n1"),
        ("total", CHUNKED + b"2\r\nhi\r\n"),
        ("total", b""),
    ],
)
def test_silence_ends_in_the_timeout_that_is_due(run: Run, what: str, sent: bytes) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(sent)
            await up.wait_gone(reader)

        soon_s = 0.5 if sent else 0.05  # within it, what was sent has to be read
        soon = Timeouts(
            first_token_s=0.05 if what == "first_token" else PATIENCE_S,
            stall_s=0.05 if what == "stall" else PATIENCE_S,
            total_s=soon_s if what == "total" else 2 * PATIENCE_S,
        )
        async with upstream(play) as up, client() as c:
            with pytest.raises(TimedOut) as late:
                await (await post(c, up.url, soon)).read_all()
            assert late.value.what == what
            await up.gone.wait()

    run(main())


def test_a_stream_that_moves_is_not_stalled(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(CHUNKED)
            for _ in range(20):
                await pause(0.1, "a slow model: in all it takes longer than the time-out")
                writer.write(b"1\r\na\r\n")
            writer.write(b"0\r\n\r\n")

        _, _, body = await stated(play, Timeouts(first_token_s=1.5, stall_s=1.5))
        assert body == b"a" * 20

    run(main())


def test_an_upload_that_moves_is_no_silence_and_one_that_stops_is(run: Run) -> None:
    body = b"x" * (24 << 20)

    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(24 if up.connections == 1 else 0):
                await reader.readexactly(1 << 20)
                await pause(0.07, "a slow reader: in all it takes longer than the time-out")
            if up.connections == 1:
                writer.write(OK)
            else:
                await up.gone.wait()

        async with upstream(play) as up, client() as c:
            calm = Timeouts(first_token_s=1.2)
            assert await (await post(c, up.url, calm, body)).read_all() == b"hi"
            await c.close()
        async with upstream(play) as up, client() as c:
            up.connections = 1  # from the second on it does not read
            with pytest.raises(TimedOut) as late:
                await post(c, up.url, calm, body)
            assert late.value.what == "first_token"

    run(main())


def test_a_kept_connection_has_the_timeouts_of_its_present_request(run: Run) -> None:
    async def main() -> None:
        async with upstream(answering(OK)) as up, client() as c:
            await (await post(c, up.url)).read_all()
            with pytest.raises(TimedOut):
                await post(c, up.url, Timeouts(first_token_s=0.05))
            assert up.connections == 1

    run(main())


@pytest.mark.parametrize("sent", [b"", CHUNKED, CHUNKED + b"2\r\nhi\r\n"])
@pytest.mark.parametrize("how", ["cancel", "abort"])
def test_leaving_closes_the_upstream_at_once(run: Run, sent: bytes, how: str) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(sent)
            heard.set()
            await up.wait_gone(reader)

        heard = asyncio.Event()
        got: list[Response] = []

        async def work() -> None:
            got.append(await post(c, up.url))
            while await got[0].read():
                pass

        async with upstream(play) as up, client() as c:
            task = asyncio.create_task(work())
            await heard.wait()
            await stays(lambda: (len(got), len(up.tasks)))  # what was sent has arrived
            if how == "abort" and got:
                got[0].abort()
                got[0].abort()
                with pytest.raises(Broken):
                    await task
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await up.gone.wait()
            if got:
                with pytest.raises(Broken):
                    await got[0].read()

    run(main())


def test_a_late_abort_does_not_touch_the_connections_next_answer(run: Run) -> None:
    async def main() -> None:
        async with upstream(answering(OK, OK)) as up, client() as c:
            first = await post(c, up.url)
            second = await post(c, up.url)
            first.abort()
            assert await second.read_all() == b"hi" and up.connections == 1
            with pytest.raises(Broken):
                await first.read()

    run(main())


def test_a_reader_who_does_not_read_stops_the_upstream(run: Run) -> None:
    total = 32 << 20

    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            while sum(written) < total:
                writer.write(b"x" * 65536)
                await writer.drain()
                written.append(65536)

        written: list[int] = []
        async with upstream(play) as up, client() as c:
            response = await post(c, up.url, Timeouts(stall_s=0.5))
            await stays(lambda: len(written))
            await pause(0.8, "a client that reads nothing for longer than the time-out")
            assert sum(written) < total  # the kernel's buffers and ours are full
            # Ours: the bound, and one read of the loop above it.  And no stall: the silence is ours.
            assert response._unread <= (256 << 10) * 2
            assert len(await response.read_all()) == total

    run(main())


def test_an_early_answer_does_not_leave_half_a_request_in_the_pool(run: Run) -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n")
            await answered.wait()
            await up.wait_gone(reader)

        async with upstream(play) as up, client() as c:
            response = await post(c, up.url, body=b"x" * (32 << 20))
            answered.set()
            assert response.status == 413 and await response.read() == b""
            assert not any(c._idle.values())

    run(main())


def test_a_closed_client_breaks_its_readers_and_sends_no_more(run: Run) -> None:
    async def main() -> None:
        async with upstream(answering(CHUNKED)) as up, client() as c:
            response = await post(c, up.url)
            await c.close()
            assert not c.open
            with pytest.raises(Broken):
                await response.read()
            with pytest.raises(NotSent):
                await post(c, up.url)

    run(main())


# -- pump


def test_pumped_pieces_are_those_that_are_read(run: Run) -> None:
    answer = CHUNKED + b"1\r\na\r\n1\r\nb\r\n3\r\ncde\r\n0\r\n\r\n"

    async def main() -> None:
        for cut in range(len(CHUNKED), len(answer)):

            async def play(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: int = cut
            ) -> None:
                await hear(reader)
                writer.write(answer[:cut])
                await pause(0.001, "so that most of the pieces arrive apart")
                writer.write(answer[cut:])
                await reader.read()

            async with upstream(play) as up, client() as c:
                response = await post(c, up.url)
                got: list[bytes] = []
                await response.pump(lambda data, got=got: got.append(data) or True)  # type: ignore[misc]
                assert b"".join(got) == b"abcde"
                assert response.complete

    run(main())


def test_a_pump_that_was_halted_goes_on_where_it_stopped(run: Run) -> None:
    async def main() -> None:
        answer = CHUNKED + b"1\r\na\r\n" + b"2\r\nbc\r\n0\r\n\r\n"

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            for i in range(len(CHUNKED), len(answer) + 1):
                writer.write(answer[:i] if i == len(CHUNKED) else answer[i - 1 : i])
                await asyncio.sleep(0)
            await reader.read()

        async with upstream(play) as up, client() as c:
            response = await post(c, up.url)
            got = b""

            def one(data: bytes) -> bool:
                nonlocal got
                got += data
                return False

            while not response.complete:
                await response.pump(one)
            assert got == b"abc"

    run(main())


def test_what_a_pump_raises_and_what_the_upstream_breaks_is_raised_from_it(run: Run) -> None:
    async def main() -> None:
        def refuse(data: bytes) -> bool:
            raise KeyError(data)

        async with upstream(answering(OK)) as up, client() as c:
            response = await post(c, up.url)
            with pytest.raises(KeyError):
                await response.pump(refuse)
        got: list[bytes] = []
        async with upstream(closing(CHUNKED + b"2\r\nhi\r\n")) as up, client() as c:
            response = await post(c, up.url)
            with pytest.raises(Broken):
                await response.pump(lambda data: got.append(data) or True)  # type: ignore[func-returns-value]
            assert got == [b"hi"]

    run(main())


def test_cancelling_a_pump_closes_the_connection(run: Run) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(CHUNKED + b"1\r\na\r\n")
            await up.wait_gone(reader)

        async with upstream(play) as up, client() as c:
            response = await post(c, up.url)
            came = asyncio.Event()
            task = asyncio.create_task(response.pump(lambda data: came.set() or True))  # type: ignore[func-returns-value]
            await came.wait()
            task.cancel()
            await up.gone.wait()

    run(main())
