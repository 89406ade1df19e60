"""One connection of a client: bytes from its socket to requests, one at a time."""

import asyncio
import socket as sockets
from collections.abc import Callable, Mapping, Sequence
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from typing import Protocol, cast

import httptools

from headgate.errors import Failure, Refused
from headgate.net import guard
from headgate.net.chunks import Chunks
from headgate.net.connections import Connections
from headgate.net.heads import Head, Heads, cut
from headgate.net.inbound import Inbound, InboundServer
from headgate.net.server_limits import (
    ESTABLISHED,
    HEALTH,
    LINGER_S,
    MAX_HEADERS,
    MAX_HELD_BYTES,
    MAX_HELD_BYTES_IN_ALL,
    MAX_UNASKED_BYTES,
    PHRASES,
    STATUS,
)

Refuse = Callable[[Failure, str, Mapping[str, str]], tuple[int, list[tuple[str, str]], bytes]]


class ConnectionServer(InboundServer, Protocol):
    """What a connection reads of its server, and asks of it."""

    held_bytes: int

    @property
    def hosts(self) -> frozenset[bytes]: ...
    @property
    def heads(self) -> Heads: ...
    @property
    def book(self) -> "Connections[Connection]": ...
    @property
    def tasks(self) -> "set[asyncio.Task[None]]": ...
    @property
    def refuse(self) -> Refuse: ...
    @property
    def again(self) -> Callable[[Inbound], bool] | None: ...
    def admit(self, conn: "Connection") -> bool: ...
    def forget(self, conn: "Connection") -> None: ...
    def run(self, conn: "Connection", inbound: Inbound) -> "asyncio.Task[None]": ...
    def cancel(self, task: "asyncio.Task[None]") -> None: ...


class Connection(asyncio.Protocol):
    __slots__ = (
        "_buffer",
        "_drained",
        "_fed",
        "_headers",
        "_held",
        "_linger_until",
        "_parser",
        "_progress",
        "_read_paused",
        "_reserved",
        "_scanned",
        "_surplus",
        "_target",
        "_task",
        "_unsent",
        "closing",
        "current",
        "peer",
        "proxied",
        "server",
        "since",
        "transport",
        "used",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, server: ConnectionServer) -> None:
        self.server = server
        self.peer = ""
        self.proxied = False  # the peer is a proxy that is trusted to name its clients
        self.closing = False
        self.used = False  # a request has come
        self.write_paused = False
        self.current: Inbound | None = None  # the one that is read and answered
        self.since = 0.0  # when what we wait for began, by the loop's clock
        self._task: asyncio.Task[None] | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._target: list[bytes] = []
        self._buffer = bytearray()  # a head that is not whole, or what came behind the request
        self._scanned = 0  # bytes of it in which no head ends
        self._fed = 0  # bytes of it that the parser has had
        self._held = 0  # bytes of it that are counted among all that is held
        self._read_paused = False
        self._reserved = False  # may ask for health only
        self._surplus = False  # something came that is not read as a request
        self._drained: asyncio.Future[None] | None = None
        self._linger_until = 0.0  # closed, but read on so long; 0: not so
        self._unsent = 0  # bytes in the write buffer at the last sweep
        self._progress = 0.0  # when it last shrank

    @property
    def settled(self) -> bool:
        return self.transport.get_write_buffer_size() == 0

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self.proxied = self.server.proxies.trusts(self.peer)
        self.since = self._progress = self.server.now()
        raw: socket | None = transport.get_extra_info("socket")
        if raw is not None and raw.family.name.startswith("AF_INET"):
            raw.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(high=self.server.limits.write_high_bytes)
        self._reserved = self.server.admit(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.forget(self)
        self._lose()
        self._drop_input()
        self._parser = None  # it and we hold each other

    def eof_received(self) -> bool:
        # A client that closed its side has gone; no known client only half-closes.
        if self.current is not None and not self.current.ended:
            self._lose()
            self.transport.abort()
        return False

    def _lose(self) -> None:
        self.closing = True
        self.write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        inbound = self.current
        if inbound is not None and not inbound.ended and not inbound.gone:
            inbound.gone = True
            if self._task is not None and not inbound.drains:
                self.server.cancel(self._task)

    def evict(self) -> None:
        """Close at once an idle connection whose place another one needs."""
        self._lose()
        self.transport.abort()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self.current is None and not self.closing:
            self._next()

    @property
    def busy(self) -> bool:
        """Whether a request is answered, or its head is on its way."""
        return self.current is not None or self._fed > 0 or bool(self._buffer)

    async def writable(self) -> None:
        if self._drained is None or self._drained.done():
            self._drained = self.server.future()
        await asyncio.shield(self._drained)

    def data_received(self, data: bytes) -> None:
        inbound = self.current
        if self.closing:
            self._surplus = True  # read and dropped, so that the sender gets to see our answer
        elif inbound is None:
            if self._buffer or self.write_paused:
                self._buffer += data
                self._next()
            else:
                self._begin(data)
        elif inbound.body_done:
            self._hold(data)
        else:
            self._read_body(inbound, data)

    def _begin(self, data: bytes) -> None:
        """Between requests: one that comes whole, with a head that is known, is not parsed."""
        self.since = self.server.now()
        heads, request = self.server.heads, cut(data)
        if request is None:
            self._buffer += data
            self._next()
            return
        known = heads.find(request)
        if known is None:
            self._buffer += data
            self._next()
            first = self.current
            if first is not None and not self._buffer and first.plain(request.body):
                heads.keep(request, first.head)
            return
        inbound = Inbound(self, *known, len(request.body))
        inbound._pieces.append(request.body)
        inbound._size = inbound._length
        inbound.body_done = True
        again = self.server.again
        if again is None or self._reserved:
            self._run(inbound)
            return
        self.used, self.current = True, inbound
        if again(inbound):
            self.done(inbound)
        else:
            self._run(inbound)

    def _parse(self) -> None:
        """Read one request from the buffer and run its handler; what is behind it stays there.

        The parser is given a head and nothing that follows it, so it stops where the request's head
        ends.  A head that comes in small pieces is given to it in larger ones, as it joins what it
        gets of one line again and again; but the first piece at once, which may be no HTTP at all.
        """
        buffer, limit = self._buffer, self.server.limits.header_bytes
        end = buffer.find(b"\r\n\r\n", self._scanned, limit)
        if end < 0:
            size = len(buffer)
            if size >= limit:
                self._stop(_head_too_large())
            elif not self._fed or size - self._fed >= 4096:
                piece = bytes(buffer[self._fed :])
                self._fed, self._scanned = size, max(0, size - 3)
                self._feed(piece)
            else:
                self._scanned = max(0, size - 3)
            return
        end += 4
        piece = bytes(buffer[self._fed : end])
        del buffer[:end]
        self._fed = self._scanned = 0
        if not self._feed(piece):
            return
        inbound = self.current
        if self.closing:
            pass  # it is answered already
        elif inbound is None:  # an empty line, and no request before it
            self._stop(_no_request())
        elif not inbound.body_done and buffer:
            piece = bytes(buffer)
            buffer.clear()
            self._read_body(inbound, piece)

    def _feed(self, data: bytes) -> bool:
        """Give the parser a part of a head; False when that was not one, and was refused."""
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Java's client offers h2c by default; we go on with HTTP/1.1.
            self._parser = None
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Refused):
                raise
            self._stop(cause.failure)
            return False
        except httptools.HttpParserError:
            self._stop(_no_request())
            return False
        return True

    def _read_body(self, inbound: Inbound, data: bytes) -> None:
        chunks = inbound._chunks
        if inbound._failure is not None:
            self._surplus = True
            return
        if chunks is None:
            end = inbound._length - inbound._size
            inbound._take(data if end >= len(data) else data[:end])
            done = inbound._size == inbound._length
        else:
            try:
                end = chunks.feed(data, 0, inbound._take)
            except Refused as refused:
                self._stop(refused.failure)
                return
            done = chunks.done
        if done:
            inbound.body_done = True
            inbound._wake()
            if end < len(data):
                self._hold(data[end:])

    def _hold(self, data: bytes) -> None:
        """Keep what came behind the request that is answered, unparsed."""
        inbound = self.current
        if inbound is not None and not inbound.keep_alive:
            self._surplus = True  # this was to be the last one
            return
        self._buffer += data
        self._bound_input()

    def _bound_input(self) -> None:
        """Read on, unless what is held waits for its turn and is more than a client needs."""
        held, server, inbound = len(self._buffer), self.server, self.current
        server.held_bytes += held - self._held
        self._held = held
        if server.held_bytes > MAX_HELD_BYTES_IN_ALL:
            self.evict()
        elif held > MAX_HELD_BYTES and (
            self.write_paused if inbound is None else inbound.body_done
        ):
            self.pause_reading()
        elif inbound is None or inbound.body_done or inbound._size <= MAX_UNASKED_BYTES:
            self.resume_reading()

    def _drop_input(self) -> None:
        self.server.held_bytes -= self._held
        self._held = self._fed = self._scanned = 0
        self._buffer = bytearray()

    # httptools

    def on_message_begin(self) -> None:
        self._headers = []
        self._target = []

    def on_url(self, url: bytes) -> None:
        self._target.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) >= MAX_HEADERS:
            raise Refused(_head_too_large())
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, server = self._parser, self.server
        assert parser is not None
        if self.current is not None:
            raise Refused(_no_request())  # the parser found an end where we found none
        version = parser.get_http_version()
        head, target = self._headers, b"".join(self._target)
        method = parser.get_method()
        failure = guard.check(method, target, version, head, server.hosts)
        if failure is not None:
            raise Refused(failure)
        headers = _joined(head)
        if not target.startswith(b"/"):  # the absolute form, of our own host
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path, _, query = target.decode("ascii").partition("?")
        length = int(headers.get("content-length", -1))
        understood = Head(method.decode("ascii"), path, query, headers, version)
        inbound = Inbound(self, understood, headers, length)
        inbound.keep_alive = parser.should_upgrade() or parser.should_keep_alive()
        inbound._expect = "expect" in headers
        if "transfer-encoding" in headers:
            inbound._chunks = Chunks()
        elif length <= 0:
            inbound.body_done = True
        if not inbound.body_done:
            self._parser = (
                None  # which would take what follows for a body; the next head gets another
            )
        self.since = server.now()
        self._run(inbound)

    # the request's life

    def _run(self, inbound: Inbound) -> None:
        self.used = True
        self.current = inbound
        self.server.book.busy(self)
        if self._reserved:
            inbound.keep_alive = False
            if inbound.path not in HEALTH:
                full = "Too many connections; try again shortly."
                failure = Failure("overloaded", full, retry_after_s=1.0)
                inbound.respond(*self.server.refuse(failure, inbound.path, inbound.headers))
                self.done(inbound)
                return
        self._task = self.server.run(self, inbound)

    def done(self, inbound: Inbound) -> None:
        """The handler returned: the next request, or the end of the connection."""
        if self._task is not None:
            self.server.tasks.discard(self._task)
        self.current = self._task = None
        if self.closing or self.transport.is_closing():
            return
        if not inbound.keep_alive or not inbound.body_done:
            self.close(linger=not inbound.body_done)
        elif self.server.stopping:
            self.close()
        else:
            self.since = self.server.now()
            self.server.book.idle(self)
            if self._buffer or self._read_paused:
                self._next()

    def _next(self) -> None:
        """Read the next request, unless the client does not take the answers before it."""
        if self._buffer and not self.write_paused:
            self._parse()
        if not self.closing:
            self._bound_input()

    def close(self, linger: bool = False) -> None:
        """Close once what was written is sent; `linger`: the client is still sending.

        A socket closed on unread bytes resets the connection, and the answer is lost with it.
        """
        if self.closing:
            return
        self.closing = True
        unread = linger or self._surplus or self._read_paused
        self._drop_input()
        self.server.book.idle(self)
        if unread and self.transport.can_write_eof():
            self.resume_reading()
            self.transport.write_eof()
            self._linger_until = self.server.now() + LINGER_S
        else:
            self.transport.close()

    def _stop(self, failure: Failure) -> None:
        """What follows cannot be read."""
        inbound = self.current
        if inbound is not None:  # its body broke: its handler learns it, and answers
            inbound.keep_alive = False
            inbound._fail(failure)
            self.resume_reading()
        else:
            self._refuse(failure)

    def _refuse(self, failure: Failure) -> None:
        """Answer what no handler will see, and close."""
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in self._headers}
        path = b"".join(self._target).decode("latin-1").partition("?")[0]
        status, lines, body = self.server.refuse(failure, path, headers)
        status = STATUS.get(failure.code, status)
        line = f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\n".encode()
        framing = f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        if self._target and self._parser is not None and self._parser.get_method() == b"HEAD":
            body = b""
        self.transport.write(line + guard.header_block(lines) + framing + body)
        self.close(linger=True)

    def sweep(self, now: float) -> None:
        """Called about once a second: whoever let a deadline pass is sent away."""
        limits, inbound = self.server.limits, self.current
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._progress = now
        self._unsent = unsent
        stalled = unsent and now - self._progress > limits.write_stall_s
        if stalled or (self._read_paused and self._left()):
            self._lose()
            self.transport.abort()
        elif self.closing:
            patience_s = limits.write_stall_s if unsent else 0.0
            if self._linger_until and now > self._linger_until + patience_s:
                self.transport.abort()
        elif inbound is None:
            waited = now - self.since
            if self.write_paused:
                pass
            elif self._buffer or not self.used:
                if waited > limits.header_s:
                    late = "The request's head took too long."
                    self._refuse(Failure("request_timeout", late))
            elif waited > limits.idle_s:
                self.close()
        elif not inbound.body_done and inbound._waiter is not None:
            waited = now - self.since
            if (
                waited > limits.body_grace_s
                and inbound._size < waited * limits.body_min_bytes_per_s
            ):
                inbound.keep_alive = False
                inbound._fail(Failure("request_timeout", "The body came too slowly."))

    def _left(self) -> bool:
        """Whether the client has gone, which a paused connection does not notice; known on Linux."""
        raw: socket | None = self.transport.get_extra_info("socket")
        if raw is None or not self.peer or not hasattr(sockets, "TCP_INFO"):
            return False
        try:
            return raw.getsockopt(IPPROTO_TCP, sockets.TCP_INFO, 1)[0] != ESTABLISHED
        except OSError:
            return True

    def pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()


def _joined(head: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers by name; those that are repeated are joined by ", "."""
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head}
    if len(headers) < len(head):
        values: dict[bytes, list[bytes]] = {}
        for name, value in head:
            values.setdefault(name, []).append(value)
        headers = {n.decode("ascii"): b", ".join(v).decode("latin-1") for n, v in values.items()}
    return headers


def _no_request() -> Failure:
    return Failure("invalid", "This cannot be read as a request.", code="bad_http")


def _head_too_large() -> Failure:
    return Failure("too_large", "The request's head is too large.", code="header_too_large")
