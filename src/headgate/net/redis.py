"""A connection to Redis or Valkey: commands that travel together, and an answer soon or none.

The protocol is RESP2 (redis.io/docs/latest/develop/reference/protocol-spec, read 2026-11), as much of it as
a cache needs.  `Redis.ask` never waits for a connection: a background task makes it (`connect`), and while
there is none, or the server was too slow, the answer is None at once.

Note: hand-written, as the client libraries bring pools, retries and threads that a cache must not wait for.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import msgspec

ASK_S = 0.25  # for the answers of one round trip; then the connection is closed
CONNECT_S = 2.0
MAX_BULK = 4 << 20  # bytes of one value
MAX_ARRAY = 1 << 16  # elements of one answer
MAX_DEPTH = 4
MAX_LINE = 64 << 10
MAX_UNSENT = 16 << 20  # bytes that the server does not take

Reply = bytes | int | list["Reply"] | None


class RedisError(Exception):
    """What the server, or the way to it, has against it."""


class Address(msgspec.Struct, frozen=True):
    """Where a server is, and who asks."""

    host: str
    port: int = 6379
    tls: bool = False
    user: str = ""
    password: str = ""
    database: int = 0

    @property
    def shown(self) -> str:
        """Return the address without user and password."""
        return f"redis{'s' if self.tls else ''}://{self.host}:{self.port}/{self.database}"


def parsed(url: str) -> Address:
    """Read `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`; ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "valkey", "valkeys") or not parts.hostname:
        raise ValueError("no address of a server")
    number = parts.path.strip("/") or "0"
    if not (number.isascii() and number.isdigit() and len(number) < 6):
        raise ValueError("the database is a number")
    return Address(
        parts.hostname,
        parts.port or 6379,
        parts.scheme in ("rediss", "valkeys"),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        int(number),
    )


def encode(command: Sequence[bytes]) -> bytes:
    """Write one command."""
    pieces = [b"*%d\r\n" % len(command)]
    for word in command:
        pieces += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(pieces)


class Replies:
    """Reads replies from bytes as they come."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._seen = 0  # of an unfinished reply, so that it is not read again with each piece

    def feed(self, data: bytes) -> list[Reply | RedisError]:
        """Return the replies that are complete now; RedisError when they are none."""
        self._data += data
        if len(self._data) < self._seen:
            return []
        out: list[Reply | RedisError] = []
        at = 0
        while True:
            found = self._reply(at, 0)
            if isinstance(found, int):
                self._seen = found - at
                break
            value, at = found
            out.append(value)
        del self._data[:at]
        return out

    def _reply(self, at: int, depth: int) -> tuple[Reply | RedisError, int] | int:
        """The reply that begins there and its end; or how far there must be bytes at least."""
        line_end = self._data.find(b"\r\n", at)
        if line_end < 0:
            if len(self._data) - at > MAX_LINE:
                raise RedisError("a line is too long")
            return len(self._data) + 1
        kind, line, after = (
            self._data[at : at + 1],
            bytes(self._data[at + 1 : line_end]),
            line_end + 2,
        )
        if kind == b"+":
            return line, after
        if kind == b"-":
            return RedisError(line.decode("utf-8", "replace")[:200]), after
        try:
            number = int(line)
        except ValueError:
            raise RedisError("the server does not speak RESP") from None
        if kind == b":":
            return number, after
        if kind == b"$":
            if number < 0:
                return None, after
            if number > MAX_BULK:
                raise RedisError("a value is too large")
            end = after + number
            if len(self._data) < end + 2:
                return end + 2
            return bytes(self._data[after:end]), end + 2
        if kind != b"*" or number > MAX_ARRAY or depth >= MAX_DEPTH:
            raise RedisError("the server does not speak RESP")
        if number < 0:
            return None, after
        items: list[Reply] = []
        for _ in range(number):
            found = self._reply(after, depth + 1)
            if isinstance(found, int):
                return found
            value, after = found
            items.append(None if isinstance(value, RedisError) else value)
        return items, after


class _Connection(asyncio.Protocol):
    """One connection, whose commands are answered in their order."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._replies = Replies()
        self._waiting: deque[asyncio.Future[Reply]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        try:
            found = self._replies.feed(data)
        except RedisError as error:
            self.close(error)
            return
        for value in found:
            if not self._waiting:
                self.close(RedisError("an answer to nothing"))
                return
            future = self._waiting.popleft()
            if future.done():
                continue
            if isinstance(value, RedisError):
                future.set_exception(value)
                future.exception()  # read here, as its caller may have left
            else:
                future.set_result(value)

    def connection_lost(self, error: Exception | None) -> None:
        self.close(RedisError(str(error) if error else "the server closed the connection"))

    def send(self, commands: Sequence[Sequence[bytes]]) -> "list[asyncio.Future[Reply]]":
        """Send commands together; RedisError when they cannot be."""
        transport = self.transport
        if transport is None:
            raise RedisError("there is no connection")
        if transport.get_write_buffer_size() > MAX_UNSENT:
            self.close(RedisError("the server takes nothing"))
            raise RedisError("the server takes nothing")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in commands]
        self._waiting += futures
        transport.write(b"".join(map(encode, commands)))
        return futures

    def close(self, error: RedisError) -> None:
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
                future.exception()


class Redis:
    """A server that may be away at any time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: _Connection | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.transport is not None

    async def connect(self) -> None:
        """Make the connection, if there is none; RedisError."""
        if self.connected:
            return
        address, loop = self.address, asyncio.get_running_loop()
        context = ssl.create_default_context() if address.tls else None
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    _Connection, address.host, address.port, ssl=context
                )
                first: list[list[bytes]] = []
                if address.password:
                    user = [address.user.encode()] if address.user else []
                    first.append([b"AUTH", *user, address.password.encode()])
                if address.database:
                    first.append([b"SELECT", str(address.database).encode()])
                first.append([b"PING"])
                try:
                    for future in connection.send(first):
                        await future
                except BaseException:
                    connection.close(RedisError("not accepted"))
                    raise
        except (OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise RedisError(f"{address.shown}: {why}") from None
        except RedisError as error:
            raise RedisError(f"{address.shown}: {error}") from None
        self._connection = connection

    def send(self, commands: Sequence[Sequence[bytes]]) -> "list[asyncio.Future[Reply]]":
        """Send commands together without waiting; none when there is no connection."""
        connection = self._connection
        if connection is None:
            return []
        try:
            return connection.send(commands)
        except RedisError:
            return []

    async def answers(self, futures: "Sequence[asyncio.Future[Reply]]") -> list[Reply] | None:
        """Return what was answered; None: nothing in time, and the connection is given up."""
        if not futures:
            return None
        connection = self._connection
        try:
            async with asyncio.timeout(ASK_S):
                return [await future for future in futures]
        except TimeoutError:
            if connection is not None:
                connection.close(RedisError("no answer in time"))
            return None
        except RedisError:
            return None

    async def ask(self, commands: Sequence[Sequence[bytes]]) -> list[Reply] | None:
        """Send commands together and return their answers; None: there are none."""
        return await self.answers(self.send(commands)) if commands else []

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(RedisError("closed"))
