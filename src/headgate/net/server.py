"""Inbound HTTP/1.1: bytes from clients' sockets to one handler call per request, and back.

Built on httptools (llhttp) and an asyncio Protocol.  The only place that reads client sockets.
What will surprise: it keeps reading while a handler runs, because only a read tells that the
client has gone, and the handler's task is then cancelled at once, before as after the first byte,
unless it has said that it wants to end (`drains`);
what a client sends meanwhile (pipelining) is parsed, kept up to a bound, and answered in its turn.
One sweep a second serves all timers, as a timer per request costs more than the request.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from typing import cast

import httptools
import msgspec

from headgate.errors import Failure, Refused
from headgate.net import guard
from headgate.net.heads import Head, Heads, cut


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one listener (promises.md T6-T8)."""

    header_bytes: int = 65536
    header_s: float = 10.0  # from a connection's or request's first byte to the end of its head
    idle_s: float = 75.0  # between requests; nginx's default keepalive_timeout
    body_bytes: int = 32 << 20
    body_grace_s: float = 10.0  # after it a body must keep to the rate below
    body_min_bytes_per_s: int = 1024
    write_stall_s: float = 30.0  # a client that takes nothing for so long is gone
    write_high_bytes: int = 65536
    connections: int = 10000
    connections_per_peer: int = 2000
    hosts: tuple[str, ...] = ()  # host names answered for; empty: any


_LIMITS = Limits()
Headers = Sequence[tuple[str, str]]
Refuse = Callable[[Failure, str, Mapping[str, str]], tuple[int, list[tuple[str, str]], bytes]]
MAX_WAITING = 16  # requests that came while one is answered
MAX_WAITING_BYTES = 65536  # of their bodies
CHUNK_OVERHEAD = 65536  # bytes of chunk sizes and extensions that are no body
LINGER_S = 5.0  # how long a refused body is read on, unkept, so that its sender sees the answer
_PHRASES = {s.value: s.phrase for s in HTTPStatus}
# For what the parser or the guard refuses; the dialects' own statuses do not fit.
_STATUS = {"bad_http": 400, "header_too_large": 431, "expectation_failed": 417}


class Inbound:
    """One request and its answer."""

    # What most requests never change stands here, and costs none of them anything.
    started = False  # the response's head was written
    ended = False
    gone = False  # the client left before the end
    drains = False  # and its handler is not cancelled then; set once the body is read
    keep_alive = True
    body_done = False
    _expect = False
    _chunked = False
    _size = 0
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
        self._pieces: list[bytes] = []

    async def body(self, max_bytes: int | None = None) -> bytes:
        """The whole body; Refused when it is too large, too slow, broken or compressed."""
        limit = self._conn.server.limits.body_bytes if max_bytes is None else max_bytes
        coding = self.headers.get("content-encoding", "identity").lower()
        if coding not in ("identity", ""):
            raise Refused(
                Failure("media_type", "Compressed bodies are not taken; send it as it is.")
            )
        if self._length > limit:
            raise Refused(_too_large(limit))
        if self._expect and not self.body_done and not self._size:
            self._conn.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expect = False
        while not self.body_done and self._size <= limit and self._failure is None:
            self._waiter = self._conn.server.future()
            self._conn.resume_reading()
            await self._waiter
        self._waiter = None
        if self._failure is not None:
            raise Refused(self._failure)
        if self._size > limit:
            raise Refused(_too_large(limit))
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        """The whole answer at once; RuntimeError when there is one already.

        `headers` may be what guard.header_block has made of them.
        """
        if self.method == "HEAD":
            body, length = b"", len(body)
        else:
            length = len(body)
        out = self._head(status, headers, b"content-length: %d\r\n" % length, body)
        if not self.gone:
            self._conn.transport.write(out)
        self._finish()

    def start(self, status: int, headers: Headers | bytes) -> None:
        """Begin a streamed answer; `write` and `end` follow."""
        self._chunked = self.version == "1.1"
        if not self._chunked:
            self.keep_alive = False  # HTTP/1.0 ends an answer of unknown length by closing
        how = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        head = self._head(status, headers, how, b"")
        if not self.gone:
            self._conn.transport.write(head)

    def write(self, data: bytes) -> None:
        if data and not self.gone and not self.ended and self.method != "HEAD":
            if self._chunked:
                self._conn.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._conn.transport.write(data)

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
    def paused(self) -> bool:
        """Whether the client reads more slowly than we write: then wait for `drain`."""
        return self._conn.write_paused

    async def drain(self) -> None:
        if self._conn.write_paused:
            await self._conn.writable()

    def end(self) -> None:
        if not self.ended:
            if self._chunked and self.method != "HEAD" and not self.gone:
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
        return b"%b%b%b%b\r\n%b" % (line, block, framing, close, body)

    def _finish(self) -> None:
        self.ended = True
        self._pieces = []

    # what the connection reports

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._conn.server.limits.body_bytes:
            self._wake()
        elif not self.ended:
            self._pieces.append(data)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: Failure) -> None:
        self._failure = failure
        self._wake()


def _too_large(limit: int) -> Failure:
    return Failure("too_large", f"The body is larger than {limit} bytes.")


class _Connection(asyncio.Protocol):
    __slots__ = (
        "_drained", "_fed", "_headers", "_incoming", "_midway", "_parser", "_poison", "_progress",
        "_read_paused", "_resumed", "_since", "_target", "_task", "_unsent", "_upgrade",
        "_waiting", "closing", "current", "peer", "server", "transport", "used", "write_paused",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.peer = ""
        self.closing = False
        self.used = False  # a request has come
        self.write_paused = False
        self.current: Inbound | None = None  # the one that is answered
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Inbound] = deque()  # the ones whose turn has not come
        self._incoming: Inbound | None = None  # the one whose body is read
        self._poison: Failure | None = None  # what could not be parsed after them
        self._parser = httptools.HttpRequestParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._fed = 0  # bytes of the head, or of the body with its framing, so far
        self._midway = False  # the parser is inside a request; also when `_fed` does not tell
        self._upgrade = False
        self._resumed = False
        self._read_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._since = 0.0  # when what we wait for began, by the loop's clock
        self._unsent = 0  # bytes in the write buffer at the last sweep
        self._progress = 0.0  # when it last shrank

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._since = self._progress = self.server.now()
        raw: socket | None = transport.get_extra_info("socket")
        if raw is not None and raw.family.name.startswith("AF_INET"):
            raw.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(high=self.server.limits.write_high_bytes)
        if not self.server.admit(self):
            full = "Too many connections; try again shortly."
            self._refuse(Failure("overloaded", full, retry_after_s=1.0))

    def connection_lost(self, error: Exception | None) -> None:
        self.server.forget(self)
        self._lose()

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
        self._waiting.clear()
        inbound = self.current
        if inbound is not None and not inbound.ended and not inbound.gone:
            inbound.gone = True
            if self._task is not None and not inbound.drains:
                self.server.cancel(self._task)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def writable(self) -> None:
        if self._drained is None or self._drained.done():
            self._drained = self.server.future()
        await asyncio.shield(self._drained)

    def data_received(self, data: bytes) -> None:
        if (
            self.current is None
            and self._incoming is None
            and not self._fed
            and not self._midway
            and not self.closing
            and self._poison is None
        ):
            self._begin(data)
        else:
            self._feed(data)

    def _begin(self, data: bytes) -> None:
        """Between requests: one that comes whole, with a head that is known, is not parsed."""
        heads, request = self.server.heads, cut(data)
        if request is None:
            self._feed(data)
            return
        known = heads.find(request)
        if known is None:
            self._feed(data)
            first = self.current
            alone = not (self._fed or self._midway or self._waiting)
            if alone and first is not None and first.plain(request.body):
                heads.keep(request, first.head)
            return
        inbound = Inbound(self, *known, len(request.body))
        inbound._pieces.append(request.body)
        inbound._size = inbound._length
        inbound.body_done = True
        self.used = True
        self._since = self.server.now()
        self._run(inbound)

    def _feed(self, data: bytes) -> None:
        while True:
            if self.closing or self._poison is not None:
                return  # read and dropped, so that the sender gets to see our answer
            if self._incoming is None and not self._fed:
                self._since = self.server.now()
            self._fed += len(data)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as found:
                data = data[found.args[0] :]
            except httptools.HttpParserCallbackError as error:
                cause = error.__context__
                if not isinstance(cause, Refused):
                    raise
                self._stop(cause.failure)
                return
            except httptools.HttpParserError:
                self._stop(Failure("invalid", "This cannot be read as a request.", code="bad_http"))
                return
            else:
                self._check_size()
                return
            # Not in the handler above: an error's __context__ would be the upgrade then.
            self._decline()
            if not data:
                return

    def _check_size(self) -> None:
        inbound = self._incoming
        if inbound is None:
            if self._fed > self.server.limits.header_bytes:
                self._stop(_head_too_large())
        elif self._fed - inbound._size > CHUNK_OVERHEAD + 8 * inbound._size:
            self._stop(Failure("invalid", "More framing than body was sent.", code="bad_http"))
        elif inbound is not self.current and (
            inbound._size > MAX_WAITING_BYTES or len(self._waiting) >= MAX_WAITING
        ):
            self._pause_reading()

    def _decline(self) -> None:
        """Go on with HTTP/1.1 where an upgrade was offered (Java's client offers h2c by default).

        llhttp takes the request for finished there; a second parser, told only of the body's
        framing, reads the body.
        """
        inbound = self._incoming
        assert inbound is not None
        coding, length = inbound.headers.get("transfer-encoding"), max(0, inbound._length)
        framing = f"content-length: {length}" if coding is None else "transfer-encoding: chunked"
        self._upgrade, self._resumed = False, True
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(f"{inbound.method} / HTTP/1.1\r\n{framing}\r\n\r\n".encode())
        self._fed = 0

    # httptools

    def on_message_begin(self) -> None:
        self._midway = True
        self._headers = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._incoming is None:  # what comes after a body are trailers, which nobody asked for
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._resumed:
            return
        parser, server = self._parser, self.server
        version = parser.get_http_version()
        head = self._headers
        if len(self._target) + sum([len(n) + len(v) for n, v in head]) > server.limits.header_bytes:
            raise Refused(_head_too_large())
        method = parser.get_method()
        failure = guard.check(method, self._target, version, head, server.hosts)
        if failure is not None:
            raise Refused(failure)
        headers: dict[str, str] = {}
        for name, value in head:
            key, text = name.decode("ascii"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        target = self._target
        if not target.startswith(b"/"):  # the absolute form, of our own host
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path, _, query = target.decode("ascii").partition("?")
        length = int(headers.get("content-length", -1))
        understood = Head(method.decode("ascii"), path, query, headers, version)
        inbound = Inbound(self, understood, headers, length)
        inbound.keep_alive = parser.should_keep_alive()
        inbound._expect = "expect" in headers
        if parser.should_upgrade():
            self._upgrade = True
            inbound.keep_alive = True
        self._incoming = inbound
        self._fed = 0
        self._since = server.now()
        self.used = True
        if self.current is None:
            self._run(inbound)
        else:
            self._waiting.append(inbound)

    def on_body(self, body: bytes) -> None:
        assert self._incoming is not None
        self._incoming._take(body)

    def on_message_complete(self) -> None:
        if self._upgrade:
            return
        inbound, self._incoming = self._incoming, None
        self._fed = 0
        self._midway = False
        self._resumed = False
        if inbound is not None:
            inbound.body_done = True
            inbound._wake()

    # the request's life

    def _run(self, inbound: Inbound) -> None:
        self.current = inbound
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
        elif self._waiting:
            self._run(self._waiting.popleft())
            self.resume_reading()
        elif self._poison is not None:
            self._refuse(self._poison)
        elif self.server.stopping:
            self.close()
        else:
            self._since = self.server.now()
            self.resume_reading()

    def close(self, linger: bool = False) -> None:
        """Close once what was written is sent; `linger`: the client is still sending.

        A socket closed on unread bytes resets the connection, and the answer is lost with it.
        """
        if self.closing:
            return
        self.closing = True
        if linger and self.transport.can_write_eof():
            self.resume_reading()
            self.transport.write_eof()
            self.server.later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()

    def _stop(self, failure: Failure) -> None:
        """What follows cannot be read; requests that stand before it still get their answers."""
        inbound = self._incoming
        self._poison = failure
        if inbound is not None:  # its body broke: its handler is told, and answers
            inbound.keep_alive = False
            inbound._fail(failure)
        elif self.current is None:
            self._refuse(failure)

    def _refuse(self, failure: Failure) -> None:
        """Answer what no handler will see, and close."""
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in self._headers}
        path = self._target.decode("latin-1").partition("?")[0]
        status, lines, body = self.server.refuse(failure, path, headers)
        status = _STATUS.get(failure.code, status)
        line = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
        framing = f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        self.transport.write(line + guard.header_block(lines) + framing + body)
        self.close(linger=True)

    def sweep(self, now: float) -> None:
        """Called about once a second: whoever let a deadline pass is sent away."""
        limits, inbound = self.server.limits, self.current
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._progress = now
        self._unsent = unsent
        if unsent and now - self._progress > limits.write_stall_s:
            self._lose()
            self.transport.abort()
        elif self.closing:
            pass
        elif inbound is None:
            waited = now - self._since
            if self._fed or self._midway or not self.used:
                if waited > limits.header_s:
                    late = "The request's head took too long."
                    self._refuse(Failure("request_timeout", late))
            elif waited > limits.idle_s:
                self.close()
        elif self._incoming is inbound and inbound._waiter is not None:
            waited = now - self._since
            if (
                waited > limits.body_grace_s
                and inbound._size < waited * limits.body_min_bytes_per_s
            ):
                inbound.keep_alive = False
                inbound._fail(Failure("request_timeout", "The body came too slowly."))

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()


def _head_too_large() -> Failure:
    return Failure("too_large", "The request's head is too large.", code="header_too_large")


class Server:
    """`handler` answers each request; `refuse` words what is wrong before there is one to hand over."""

    def __init__(
        self,
        handler: Callable[[Inbound], Awaitable[None]],
        limits: Limits = _LIMITS,
        refuse: Refuse | None = None,
    ) -> None:
        self.limits = limits
        self.hosts = frozenset(h.encode() for h in limits.hosts)
        self.stopping = False
        self.lines: dict[
            int, bytes
        ] = {}  # the first two of an answer, by its status: the date is one
        self.heads = Heads()
        self.refuse: Refuse = refuse or _plain
        self._handler = handler
        self._open: set[_Connection] = set()
        self._peers: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
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

        def made() -> _Connection:
            return _Connection(self)

        if sock is not None:
            listener = await loop.create_server(made, sock=sock, backlog=1024)
        else:
            listener = await loop.create_server(made, host, port, backlog=1024)
        self._listeners.append(listener)
        if self._timer is None:
            self._sweep()
        return int(listener.sockets[0].getsockname()[1])

    def stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def drain(self, grace_s: float) -> None:
        """Let running requests end within `grace_s` seconds, then cancel the rest."""
        self.stopping = True
        for conn in list(self._open):
            if conn.current is None:
                conn.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            self.cancel(task)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for conn in list(self._open):
            conn.close()
        if self._timer is not None:
            self._timer.cancel()

    # for connections

    def admit(self, conn: _Connection) -> bool:
        peer = self._peers.get(conn.peer, 0)
        limits = self.limits
        full = len(self._open) >= limits.connections or peer >= limits.connections_per_peer
        self._open.add(conn)
        self._peers[conn.peer] = peer + 1
        return not full

    def forget(self, conn: _Connection) -> None:
        self._open.discard(conn)
        left = self._peers.get(conn.peer, 1) - 1
        if left > 0:
            self._peers[conn.peer] = left
        else:
            self._peers.pop(conn.peer, None)

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
            if not (inbound.ended or inbound.gone):
                inbound.abort()  # the server is stopping, and the time for this one is over
        except Exception as error:
            if inbound.ended or inbound.gone:
                pass
            elif inbound.started:
                inbound.abort()
            else:
                known = error.failure if isinstance(error, Refused) else None
                failure = known or Failure("internal", "The gateway failed on this request.")
                inbound.respond(*self.refuse(failure, inbound.path, inbound.headers))
        finally:
            conn.done(inbound)

    def _sweep(self) -> None:
        self.lines.clear()
        now = self.now()
        for conn in list(self._open):
            conn.sweep(now)
        assert self._loop is not None
        limits = self.limits
        shortest = min(limits.header_s, limits.idle_s, limits.body_grace_s, limits.write_stall_s)
        self._timer = self._loop.call_later(min(1.0, shortest / 4), self._sweep)


def _plain(
    failure: Failure, path: str, headers: Mapping[str, str]
) -> tuple[int, list[tuple[str, str]], bytes]:
    body = msgspec.json.encode({"error": {"message": failure.message, "type": failure.kind}})
    return failure.status, [("content-type", "application/json")], body
