"""Inbound HTTP/1.1: bytes from clients' sockets to one handler call per request, and back.

Built on httptools (llhttp), which reads the heads, and an asyncio Protocol.  The only place that reads
client sockets.  Note: it keeps reading while a handler runs, because only a read tells
that the client has gone, and the handler's task is then cancelled at once, before as after the first
byte, unless it has said that it wants to end (`drains`).
One sweep a second serves all timers, as a timer per request costs more than the request.

Note: one request at a time is parsed and answered.  What a client sends behind it stays unparsed, up
to a bound at which reading pauses, until the answer has been sent and the client has taken it.
"""

import asyncio
import os
import socket as sockets
import sys
import time
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from typing import Protocol, cast

import httptools
import msgspec

from headgate.bounds import DECODED_BYTES, DECODED_RATIO, RATIO_FREE_BYTES
from headgate.errors import Failure, Refused
from headgate.net import codings, guard
from headgate.net.certificates import Certificates
from headgate.net.chunks import Chunks
from headgate.net.connections import Connections
from headgate.net.handshakes import Handshakes
from headgate.net.heads import Head, Heads, cut
from headgate.net.proxies import Header, Proxies
from headgate.net.tls import TlsLayer


class Limits(msgspec.Struct, frozen=True):
    """What one listener has bounds for, so that a client cannot hold it."""

    header_bytes: int = 65536
    header_s: float = 10.0  # from a connection's or request's first byte to the end of its head
    idle_s: float = 75.0  # between requests; nginx's default keepalive_timeout
    body_bytes: int = 32 << 20
    body_grace_s: float = 10.0  # after it a body must keep to the rate below
    body_min_bytes_per_s: int = 1024
    write_stall_s: float = 30.0  # a client that takes nothing for so long is gone
    write_high_bytes: int = 16384
    connections: int = 10000
    connections_per_peer: int = 2000
    hosts: tuple[str, ...] = ()  # host names answered for; empty: any
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For or Forwarded counts
    forwarded_header: Header = "auto"  # which of the two


_LIMITS = Limits()
Headers = Sequence[tuple[str, str]]
Refuse = Callable[[Failure, str, Mapping[str, str]], tuple[int, list[tuple[str, str]], bytes]]
MAX_HELD_BYTES = 4096  # sent behind the request that is answered; then reading pauses
MAX_HELD_BYTES_IN_ALL = 64 << 20  # over all connections; then one that sends more is closed
MAX_UNASKED_BYTES = 65536  # of a body that the handler has not asked for; then reading pauses
CHUNKED_STEP = 65536  # what a body of unknown length reserves beyond what has come of it
MAX_HEADERS = 128  # of one request; Apache takes 100, and a client sends some 20
SMALL_BYTES = 1024  # pieces of a body below this are joined as they come
JOIN_BYTES = 65536  # up to here copying a body behind its head is cheaper than a second write
UNSENT_BYTES = 65536  # of one connection, beyond what is on its way, that the system keeps
TURN_BYTES = 262144  # of a compressed body that are decoded in one turn of the loop, some 1 ms
RETIRED_IDLE_S = 5.0  # of a connection whose edge is followed by another
BACKLOG = 1024  # connections that the system completes before we accept them
SWEPT_AT_ONCE = 500  # connections, some 0.5 ms
HEALTH = frozenset(("/livez", "/readyz"))  # answered on reserved connections (connections.py)
END_S = 5.0  # at the end of a drain: for handlers that were cancelled, to say so and be recorded
HURRY_S = 0.7  # the same when the operator does not want to wait
SENT_S = 0.5  # for their last bytes to leave
DRAIN_POLL_S = 0.02
LINGER_S = 5.0  # how long a refused body is read on, unkept, so that its sender sees the answer
_ESTABLISHED = 1  # tcpi_state, the first byte of struct tcp_info (linux/tcp.h)
_PHRASES = {s.value: s.phrase for s in HTTPStatus}
# For what the parser or the guard refuses; the dialects' own statuses do not fit.
_STATUS = {"bad_http": 400, "header_too_large": 431, "expectation_failed": 417}


class Payer(Protocol):
    """Who is charged for the body of a request; edge/overload.py has those of the API."""

    def reserve(self, total: int) -> None:
        """Hold so many bytes, in place of what is held so far; what it raises refuses the request."""

    def charge(self, cpu_s: float) -> None:
        """Count work on the event loop that was done for it."""

    async def turn(self) -> None:
        """Wait until its work may go on."""


class Inbound:
    """One request and its answer."""

    # What most requests never change stands here, and costs none of them anything.
    started = False  # the response's head was written
    ended = False
    gone = False  # the client left before the end
    drains = False  # and its handler is not cancelled then; set once the body is read
    extra = b""  # header lines of every answer beside its own: CORS
    keep_alive = True
    body_done = False
    _expect = False
    _chunked = False
    _bodiless = False  # the answer has no body, whatever is written
    _size = 0
    _limit = 0  # bytes of the body that are kept; 0: the listener's bound
    _reserved = sys.maxsize  # bytes of the body; with more the reader is woken to reserve them
    _chunks: Chunks | None = None  # reads the request's body, if it is chunked
    _client = ""
    _waiter: "asyncio.Future[None] | None" = None
    _failure: Failure | None = None

    def __init__(
        self, conn: "_Connection", head: Head, headers: dict[str, str], length: int
    ) -> None:
        self._conn = conn
        self.head = head
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = headers
        self.version = head.version
        self.peer = conn.peer
        self._length = length  # of the body, as the head says; -1: it does not
        self._pieces: list[bytes | bytearray] = []

    @property
    def client(self) -> str:
        """The client's address: the socket's peer, or what a trusted proxy there reports."""
        if not self._conn.proxied:
            return self.peer
        if not self._client:
            self._client = self._conn.server.proxies.client(self.peer, self.headers)
        return self._client

    async def body(self, max_bytes: int | None = None, payer: "Payer | None" = None) -> bytes:
        """The whole body, decoded; Refused when it is too large, too slow or broken.

        `payer` reserves the body's size before it is read, and again as a body of unknown length
        grows and ends; what it raises ends the reading.  It is charged the work on a compressed body.
        With it the body is handed over once, and does not stay in memory for as long as the answer takes.
        """
        limit = self._conn.server.limits.body_bytes if max_bytes is None else max_bytes
        self._limit = limit
        coding = self.headers.get("content-encoding", "")
        if coding and (coding := _coding(coding)):
            return await self._decoded(await self._received(limit, payer), coding, limit, payer)
        return await self._received(limit, payer)

    async def _decoded(self, body: bytes, coding: str, limit: int, payer: "Payer | None") -> bytes:
        """What a compressed body holds; others have their turn after each few pieces of it."""
        out: list[bytes] = []
        size, reserved, began_s = 0, 0, time.thread_time()
        limit = min(limit, DECODED_BYTES.most)
        most = max(RATIO_FREE_BYTES, DECODED_RATIO.most * len(body))
        try:
            for piece in codings.pieces(coding, body):
                size += len(piece)
                if size > limit:
                    raise Refused(_too_large(limit))
                if size > most:
                    raise Refused(
                        Failure(
                            "too_large",
                            f"The body grows to more than {DECODED_RATIO.most} {DECODED_RATIO.unit}"
                            f" when it is decoded (content-encoding: {coding}). Send it as it is.",
                        )
                    )
                if size > reserved:
                    reserved = size + TURN_BYTES
                    if payer is None:
                        await asyncio.sleep(0)
                    else:
                        payer.reserve(len(body) + reserved)
                        payer.charge(time.thread_time() - began_s)
                        await payer.turn()
                    began_s = time.thread_time()
                out.append(piece)
        except ValueError as error:
            raise Refused(
                Failure("invalid", f"The body is not valid {coding}: {error} (content-encoding).")
            ) from None
        finally:
            if payer is not None:
                payer.charge(time.thread_time() - began_s)
        if payer is not None:
            payer.reserve(size)
            self._pieces = []
        return b"".join(out)

    async def _received(self, limit: int, payer: "Payer | None") -> bytes:
        """The body as it was sent."""
        if self._length > limit:
            raise Refused(_too_large(limit))
        if payer is not None:
            if self._length >= 0:
                payer.reserve(self._length)
            elif self.body_done:
                payer.reserve(self._size)
            else:
                self._reserved = self._size + CHUNKED_STEP
                payer.reserve(self._reserved)
        if self._expect and not self.body_done and not self._size:
            self._conn.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expect = False
        if not self.body_done:
            self._conn.since = self._conn.server.now()  # until here its sender may have been paused
        while not self.body_done and self._size <= limit and self._failure is None:
            self._waiter = self._conn.server.future()
            self._conn.resume_reading()
            await self._waiter
            if self._size > self._reserved and payer is not None:
                self._reserved = self._size + CHUNKED_STEP
                payer.reserve(self._reserved)
        if self._reserved != sys.maxsize and payer is not None:
            payer.reserve(self._size)
        self._waiter = None
        if self._failure is not None:
            raise Refused(self._failure)
        if self._size > limit:
            raise Refused(_too_large(limit))
        pieces = self._pieces
        if payer is not None:
            self._pieces = []
        if len(pieces) == 1 and isinstance(pieces[0], bytes):
            return pieces[0]
        return b"".join(pieces)

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        """The whole answer at once; RuntimeError when there is one already.

        `headers` may be what guard.header_block has made of them.
        """
        length = len(body)
        if self._without_body(status):
            body = b""
        framing = b"" if self._unframed(status) else b"content-length: %d\r\n" % length
        if len(body) <= JOIN_BYTES:
            out = self._head(status, headers, framing, body)
            if not self.gone:
                self._conn.transport.write(out)
        else:
            out = self._head(status, headers, framing, b"")
            if not self.gone:
                self._conn.transport.write(out)
                self._conn.transport.write(body)
        self._finish()

    def start(self, status: int, headers: Headers | bytes) -> None:
        """Begin a streamed answer; `write` and `end` follow."""
        self._bodiless = self._without_body(status)
        how = b""
        if not self._unframed(status):
            if self.version == "1.1":
                self._chunked = not self._bodiless
                how = b"transfer-encoding: chunked\r\n"
            else:
                self.keep_alive = False  # HTTP/1.0 ends an answer of unknown length by closing
        head = self._head(status, headers, how, b"")
        if not self.gone:
            self._conn.transport.write(head)

    def write(self, data: bytes) -> None:
        if data and not self.gone and not self.ended and not self._bodiless:
            if self._chunked:
                self._conn.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._conn.transport.write(data)

    def _without_body(self, status: int) -> bool:
        return self.method == "HEAD" or self._unframed(status)

    @staticmethod
    def _unframed(status: int) -> bool:
        """Whether an answer with this status never has a body, nor a header that frames one.

        "Any response to a HEAD request and any response with a 1xx (Informational), 204 (No Content),
        or 304 (Not Modified) status code is always terminated by the first empty line after the
        header fields" (RFC 9112, 6.3).
        """
        return status in (204, 304) or status < 200

    def plain(self, body: bytes) -> bool:
        """Whether it came with just this body, and the connection goes on after it as if new."""
        return (
            self.body_done
            and self._length == len(body)
            and b"".join(self._pieces) == body
            and self.keep_alive
            and self.version == "1.1"
            and not self._expect
            and "upgrade" not in self.headers
        )

    @property
    def uncertified(self) -> bool:
        """Whether clients are asked for a certificate, and this one showed none."""
        return self._conn.server.asks_clients and not self._conn.transport.get_extra_info(
            "certified"
        )

    @property
    def expired(self) -> bool:
        """Whether the server is stopping, and the time of running requests is over."""
        return self._conn.server.expired

    @property
    def paused(self) -> bool:
        """Whether the client reads more slowly than we write: then wait for `drain`."""
        return self._conn.write_paused

    async def drain(self) -> None:
        if self._conn.write_paused:
            await self._conn.writable()

    def end(self) -> None:
        if not self.ended:
            if self._chunked and not self.gone:
                self._conn.transport.write(b"0\r\n\r\n")
            self._finish()

    def abort(self) -> None:
        """Close without the end of the answer: the client must see that it is not whole."""
        self.ended = True
        self.keep_alive = False
        self._conn.closing = True
        self._conn.transport.abort()

    def _head(self, status: int, headers: Headers | bytes, framing: bytes, body: bytes) -> bytes:
        """The head of the answer, and the body that follows it at once."""
        if self.started or self.ended:
            raise RuntimeError("this request has an answer already")
        block = headers if isinstance(headers, bytes) else guard.header_block(headers)
        self.started = True
        server = self._conn.server
        if not self.body_done or server.stopping:
            self.keep_alive = False
        close = b"" if self.keep_alive else b"connection: close\r\n"
        if self.keep_alive and self.version != "1.1":
            close = b"connection: keep-alive\r\n"
        line = server.lines.get(status) or server.line(status)
        return b"%b%b%b%b%b\r\n%b" % (line, block, self.extra, framing, close, body)

    def _finish(self) -> None:
        self.ended = True
        self._pieces = []

    # what the connection reports

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._reserved:
            self._wake()
        if self._size > (self._limit or self._conn.server.limits.body_bytes):
            self._wake()
        elif not self.ended:
            pieces = self._pieces
            if len(data) >= SMALL_BYTES:
                pieces.append(data)
            elif pieces and isinstance(pieces[-1], bytearray):
                pieces[-1] += data
            else:
                # Small pieces that follow are joined to it: else each would cost its 33 bytes and more.
                pieces.append(bytearray(data) if pieces else data)
            if self._size > MAX_UNASKED_BYTES and self._waiter is None:
                self._conn.pause_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: Failure) -> None:
        self._failure = failure
        self._wake()


def _coding(value: str) -> str:
    """The coding of a body, empty for none; Refused when it is not one that is read here."""
    coding = value.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding not in codings.CODINGS:
        known = ", ".join(sorted(codings.CODINGS - {"x-gzip"}))
        raise Refused(
            Failure(
                "media_type",
                f"This `content-encoding` is not taken; send the body as it is, or as {known}.",
            )
        )
    return coding


def _too_large(limit: int) -> Failure:
    return Failure("too_large", f"The body is larger than {limit} bytes.")


class _Connection(asyncio.Protocol):
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

    def __init__(self, server: "Server") -> None:
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
            self.server._tasks.discard(self._task)
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
        status = _STATUS.get(failure.code, status)
        line = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
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
            return raw.getsockopt(IPPROTO_TCP, sockets.TCP_INFO, 1)[0] != _ESTABLISHED
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


class _Listener:
    """A listening socket of the event loop, and the same one kept by us."""

    __slots__ = ("attached", "kept", "reported", "server")

    def __init__(
        self, server: asyncio.AbstractServer, attached: socket | TransportSocket, kept: socket
    ) -> None:
        self.server = server
        self.attached = attached  # its number is negative once the event loop has closed it
        self.kept = kept
        self.reported = False


class Server:
    """`handler` answers each request; `refuse` words what is wrong before there is one to hand over.

    `again` may answer a request whose head it knows at once, without a task; it returns whether it did.
    """

    def __init__(
        self,
        handler: Callable[[Inbound], Awaitable[None]],
        limits: Limits = _LIMITS,
        refuse: Refuse | None = None,
        report: Callable[[str], None] | None = None,
        again: Callable[[Inbound], bool] | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """`report` is given what the operator should hear of the listeners.

        With `certificates` its clients speak TLS.
        """
        self.again = again
        self.certificates = certificates
        self.asks_clients = certificates is not None and certificates.asks_clients
        self.handshakes = Handshakes()
        self.limits = limits
        self.report: Callable[[str], None] = report or _unheard
        self.hosts = frozenset(h.encode() for h in limits.hosts)
        self.stopping = False  # answers close their connections
        self.expired = False  # handlers are cancelled as their time is over
        self.lines: dict[
            int, bytes
        ] = {}  # the first two of an answer, by its status: the date is one
        self.heads = Heads()
        self.refuse: Refuse = refuse or _plain
        self._handler = handler
        self.book: Connections[_Connection] = Connections(
            limits.connections, limits.connections_per_peer
        )
        self.proxies = Proxies(limits.trusted_proxies, limits.forwarded_header)
        self.held_bytes = 0  # of all connections, behind the requests that are answered
        self._open = self.book.open
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[_Listener] = []
        self._reviving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.now: Callable[[], float] = time.monotonic  # the loop's own clock, once there is one

    @property
    def connections(self) -> int:
        return len(self._open)

    @property
    def running(self) -> int:
        return len(self._tasks)

    def line(self, status: int) -> bytes:
        """Status line and date; `lines` keeps them until the next sweep."""
        text = (
            f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\ndate: {formatdate(usegmt=True)}\r\n"
        )
        line = self.lines[status] = text.encode()
        return line

    def future(self) -> "asyncio.Future[None]":
        assert (
            self._loop is not None
        )  # asking for the running one costs a system call (Python 3.11)
        return self._loop.create_future()

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        assert self._loop is not None
        self._loop.call_later(delay_s, call)

    async def listen(self, host: str, port: int, sock: socket | None = None) -> int:
        """Accept connections; returns the port, which the system chose if `port` is 0."""
        self._loop = loop = asyncio.get_running_loop()
        self.now = loop.time

        if sock is not None:
            listener = await loop.create_server(self._made, sock=sock, backlog=BACKLOG)
        else:
            listener = await loop.create_server(self._made, host, port, backlog=BACKLOG)
        self._keep(listener)
        if self._timer is None:
            self._sweep()
        return int(listener.sockets[0].getsockname()[1])

    def _made(self) -> asyncio.Protocol:
        connection = _Connection(self)
        if self.certificates is None:
            return connection
        return TlsLayer(connection, self.certificates, self.handshakes, self.refuse)

    def _keep(self, listener: asyncio.Server) -> None:
        """Keep each listening socket a second time, so that it can be listened on again."""
        for each in listener.sockets:
            kept = socket(fileno=os.dup(each.fileno()))
            if kept.family.name.startswith("AF_INET") and hasattr(sockets, "TCP_NOTSENT_LOWAT"):
                # Else the system holds megabytes for a client that reads slowly.
                kept.setsockopt(IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._listeners.append(_Listener(listener, each, kept))

    def stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.server.close()
            listener.kept.close()
        self._listeners.clear()

    def _revive(self) -> None:
        """Listen again where the event loop closed a listener, as uvloop does on an error of it."""
        if self._reviving is not None and not self._reviving.done():
            return
        dead = [each for each in self._listeners if each.attached.fileno() < 0]
        if dead:
            assert self._loop is not None
            if not dead[0].reported:
                dead[0].reported = True
                self.report("The system closed a listener; it is opened again.")
            self._reviving = self._loop.create_task(self._listen_again(dead[0]))

    async def _listen_again(self, dead: "_Listener") -> None:
        assert self._loop is not None
        try:
            sock = dead.kept.dup()
        except OSError:  # no descriptor is free: the next sweep tries again
            return
        try:
            listener = await self._loop.create_server(self._made, sock=sock, backlog=BACKLOG)
            self._keep(listener)
        except OSError:
            sock.close()
            return
        self._listeners.remove(dead)
        dead.kept.close()

    async def retire(self, until: asyncio.Event) -> None:
        """Answer on the connections there are, each of which ends with its answer, until none is left.

        One that stays idle for RETIRED_IDLE_S is closed, as a client may be about to use it.  `until` ends
        the waiting, once it is set; call `stop_accepting` before.
        """
        self.stopping = True
        idle_until = self.now() + RETIRED_IDLE_S
        while self._open and not until.is_set():
            if self.now() >= idle_until:
                for conn in list(self._open):
                    if not conn.busy:
                        conn.close()
            await asyncio.sleep(DRAIN_POLL_S)

    async def drain(self, grace_s: float, hurry: asyncio.Event | None = None) -> None:
        """Let running requests end within `grace_s` seconds, then cancel the rest.

        Those get END_S to send an error of their own protocol.  `hurry` ends all waiting, once it is set.
        """
        self.stopping = True
        for conn in list(self._open):
            if not conn.busy:
                conn.close()
        await self._until(self._over, grace_s, hurry)
        self.expired = True
        for task in list(self._tasks):
            self.cancel(task)
        await self._until(lambda: not self._tasks, HURRY_S if _set(hurry) else END_S, None)
        for conn in list(self._open):
            conn.close()
        # What was written is sent by the loop; a client that reads nothing is not waited for.
        await self._until(lambda: not self._open, SENT_S, hurry)
        if self._timer is not None:
            self._timer.cancel()

    def _over(self) -> bool:
        return not self._tasks and not any(conn.busy for conn in self._open)

    async def _until(
        self, over: Callable[[], bool], within_s: float, hurry: asyncio.Event | None
    ) -> None:
        until = self.now() + within_s
        while not over() and self.now() < until and not _set(hurry):
            await asyncio.sleep(DRAIN_POLL_S)

    # for connections

    def admit(self, conn: _Connection) -> bool:
        """Count a new connection; True when there is room only for a question about health."""
        exempt = conn.proxied or not conn.peer  # a unix socket has no peer
        admitted = self.book.admit(conn, conn.peer, exempt=exempt)
        if admitted.evict is not None:
            admitted.evict.evict()
        return admitted.reserved

    def forget(self, conn: _Connection) -> None:
        self.book.forget(conn)

    def run(self, conn: _Connection, inbound: Inbound) -> "asyncio.Task[None]":
        assert self._loop is not None
        task = self._loop.create_task(self._handle(conn, inbound))
        self._tasks.add(task)
        return task

    def cancel(self, task: "asyncio.Task[None]") -> None:
        """One that is cancelled before its first step never comes to its own end."""
        task.add_done_callback(self._tasks.discard)
        task.cancel()

    async def _handle(self, conn: _Connection, inbound: Inbound) -> None:
        try:
            await self._handler(inbound)
            if not (inbound.ended or inbound.gone):
                raise RuntimeError("the handler did not end its answer")
        except asyncio.CancelledError:
            if inbound.ended or inbound.gone:
                pass
            elif self.expired and not inbound.started:
                failure = Failure(
                    "unavailable",
                    "The gateway is shutting down.",
                    code="shutting_down",
                    retry_after_s=1,
                    should_retry=True,
                )
                inbound.extra = b""
                inbound.respond(*self.refuse(failure, inbound.path, inbound.headers))
            else:
                inbound.abort()  # the end of what is cut must not look like one
        except Exception as error:
            if inbound.ended or inbound.gone:
                pass
            elif inbound.started:
                inbound.abort()
            else:
                inbound.extra = (
                    b""  # as `refuse` adds it, for requests that never came to a handler
                )
                known = error.failure if isinstance(error, Refused) else None
                failure = known or Failure("internal", "The gateway failed on this request.")
                inbound.respond(*self.refuse(failure, inbound.path, inbound.headers))
        finally:
            conn.done(inbound)

    def _sweep(self) -> None:
        self.lines.clear()
        self.book.tick()
        self._revive()
        assert self._loop is not None
        limits = self.limits
        shortest = min(limits.header_s, limits.idle_s, limits.body_grace_s, limits.write_stall_s)
        self._timer = self._loop.call_later(min(1.0, shortest / 4), self._sweep)
        self._sweep_some(list(self._open))

    def _sweep_some(self, conns: list[_Connection]) -> None:
        """Look at some of the connections now and at the rest in the loop's next turns."""
        assert self._loop is not None
        now = self.now()
        for conn in conns[-SWEPT_AT_ONCE:]:
            if conn in self._open:
                conn.sweep(now)
        del conns[-SWEPT_AT_ONCE:]
        if conns:
            self._loop.call_soon(self._sweep_some, conns)


def _unheard(text: str) -> None:
    pass


def _set(event: asyncio.Event | None) -> bool:
    return event is not None and event.is_set()


def _plain(
    failure: Failure, path: str, headers: Mapping[str, str]
) -> tuple[int, list[tuple[str, str]], bytes]:
    body = msgspec.json.encode({"error": {"message": failure.message, "type": failure.kind}})
    return failure.status, [("content-type", "application/json")], body
