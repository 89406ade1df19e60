"""Upstreams on loopback that are written byte by byte, and a client to speak to them."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from headgate.net.client import Client
from headgate.net.client_errors import Timeouts
from headgate.net.upstream_connection import Response
from waiting import PATIENCE_S

Run = Callable[[Coroutine[Any, Any, None]], None]
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CALM = Timeouts(PATIENCE_S, PATIENCE_S, PATIENCE_S, 2 * PATIENCE_S)


async def hear(reader: asyncio.StreamReader) -> bytes:
    """One request as it came; b"" when the client has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + await reader.readexactly(length)


class Upstream:
    """Plays `play` on each connection and remembers what happened to it."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.port = 0
        self.connections = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.gone = asyncio.Event()  # a client closed its connection

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await self.play(reader, writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for _ in range(3):  # turns of the loop in which the transports let go
            await asyncio.sleep(0)

    async def wait_gone(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        self.gone.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/x"


@contextlib.asynccontextmanager
async def upstream(play: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    up = Upstream(play)
    server = await asyncio.start_server(up.accept, "127.0.0.1", 0, ssl=tls)
    up.port = server.sockets[0].getsockname()[1]
    try:
        yield up
    finally:
        server.close()
        await up.close()


@contextlib.asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Client]:
    made = Client(**{"proxies": {}, **options})
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def rounds() -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A function that returns when bytes have gone around another connection of this loop.

    What was on its way on any connection before the call has been seen when it returns a few times.
    """

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def one_round() -> None:
        writer.write(b".")
        await reader.readexactly(1)

    try:
        yield one_round
    finally:
        writer.close()
        server.close()


async def stays(state: Callable[[], object], count: int = 30) -> None:
    """Wait until the state has not changed while other connections went on."""
    async with rounds() as one_round:
        still, last = 0, state()
        while still < count:
            await one_round()
            still = still + 1 if state() == last else 0
            last = state()


def answering(*answers: bytes) -> Play:
    """One answer per request of a connection, then the connection stays open."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            if not await hear(reader):
                return
            writer.write(answer)
        await reader.read()

    return play


def closing(answer: bytes) -> Play:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        writer.write(answer)

    return play


async def post(c: Client, url: str, timeouts: Timeouts = CALM, body: bytes = b"{}") -> Response:
    return await c.send("POST", url, {"content-type": "application/json"}, body, timeouts)


async def stated(play: Play, timeouts: Timeouts = CALM) -> tuple[int, dict[str, str], bytes]:
    async with upstream(play) as up, client() as c:
        response = await post(c, up.url, timeouts)
        return response.status, response.headers, await response.read_all()
