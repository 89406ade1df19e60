"""Outbound HTTP/1.1: one request to an upstream, its answer read as it comes, connections kept.

The only place in Headgate that speaks HTTP to upstreams (`net/dial.py` reaches them).  Follows RFC
9112 (6.3 body length, 9.3 persistence), https://www.rfc-editor.org/rfc/rfc9112 (read 2026-11-25);
httptools (llhttp) parses.

What a failed exchange means for money is in the class of its exception:

    NotSent             the upstream's application saw nothing: DNS, connect, TLS, proxy
      ConnectTimedOut   the same, as it took longer than `connect_s`
      NoConnection      the same, as this client already has as many connections as it may have
    Broken              sent, and then the connection ended or the answer was no HTTP
      Stale             the same, but a kept connection ended at once and without a byte of an answer
    TimedOut            sent, and then silence (`what`: first_token, stall, total)

Note: a connection owns its one timer, and the timer is only ever set earlier, never
pushed back; when it fires it looks whether anything is due and sleeps on.  So a chunk of a stream
costs no timer, and neither does a small request on a kept connection.  A stall is not counted while
we ourselves paused the socket for a slow reader.  Everything ends by `transport.abort()`: to an
upstream that still computes, a polite TLS shutdown would be a delay that costs tokens.
"""

import asyncio
import functools
import re
import resource
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final, Literal, cast

import httptools
import msgspec

from headgate.net.dial import (
    ConnectTimedOut,
    DialTarget,
    Key,
    NotSent,
    Proxies,
    Proxy,
    dial,
    reason,
    target_of,
)

__all__ = [
    "Broken",
    "Client",
    "ConnectTimedOut",
    "NoConnection",
    "NotSent",
    "Prepared",
    "Response",
    "Stale",
    "TimedOut",
    "Timeouts",
    "most_connections",
]

MAX_UNREAD_BYTES = 64 << 10  # of one answer; above it the socket is paused, for a slow reader
# What one read may bring: else a slow reader of a fast upstream holds 256 kB of it, and the system
# megabytes more.  At 200 ms to the upstream it is some 300 kB/s for one reply, thousands of tokens.
RECEIVE_BUFFER_BYTES = 64 << 10
MAX_OVERHEAD_BYTES = 64 << 10  # head, chunk sizes, trailers between two body bytes; Envoy: 60 KiB
JOIN_BYTES = 64 << 10  # up to here copying a body behind its head is cheaper than a second write

# A kept connection that ends within this time of the request being written, without a byte of an
# answer, was closed before the request was read; after longer the upstream may have worked on it.
STALE_S = 1.0
# An idle connection is given up this long before the time that the upstream announced for it.
HINT_MARGIN_S = 1.0
MIN_IDLE_S = 0.05  # a connection that may be kept for less is not kept
RESERVED_FILES = 256  # descriptors for the listener, the database and the log
MAX_ORIGINS = 1024  # whose idle time is remembered; there are as many as upstreams

Phase = Literal["connect", "first_token", "stall", "total"]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # but the line feed between two
# What decides the framing or the connection is set here and by nobody else.
_OURS: Final = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "keep-alive",
        "expect",
        "upgrade",
        "te",
        "trailer",
        "proxy-authorization",
        "proxy-connection",
    )
)
_HINT: Final = re.compile(r"\b(timeout|max)\s*=\s*\"?(\d{1,9})\b", re.I)
_FOREVER: Final = float("inf")
_NO_HEADERS: Final[dict[str, str]] = {}  # of an answer whose head is not here yet


class Timeouts(msgspec.Struct, frozen=True):
    connect_s: float = 10.0  # name, TCP, proxy and TLS together
    first_token_s: float = 60.0  # request written -> first body byte, or the head of an empty body
    stall_s: float = 120.0  # between two pieces of a body
    total_s: float = 600.0  # from the call of `send` to the last byte


class Broken(Exception):
    """The connection ended, or the answer was no HTTP, after the request was written."""


class TimedOut(Exception):
    """The upstream was silent for too long after the request was written."""

    def __init__(self, what: Phase) -> None:
        super().__init__(f"timed out: {what}")
        self.what: Phase = what


class Stale(Broken):
    """The other side had closed a kept connection before it read the request, which can be sent again."""


class NoConnection(NotSent):
    """The client has no room for one more connection to this origin, or to any."""


class Response:
    """An answer whose head is here and whose body may still be coming."""

    # What most answers never change stands here, and costs none of them anything.
    status = 0
    _began = False
    _ended = False
    _aborted = False
    _paused = False
    _halted = False  # `take` said False
    _error: Exception | None = None
    _raised: Exception | None = None  # by `take`
    _take: Callable[[bytes], bool] | None = None  # of `pump`, while it waits
    _waiter: "asyncio.Future[None] | None" = None  # of `send` first, of `read` then
    _unread = 0

    def __init__(self, conn: "_Connection", timeouts: Timeouts, now: float, total_at: float):
        self.headers: dict[str, str] = (
            _NO_HEADERS  # names in lower case; repeated ones joined by ", "
        )
        self._loop = conn._loop
        self._conn: _Connection | None = conn  # None once the connection is no longer ours
        self._timeouts = timeouts
        self._total_at = total_at
        self._last = now  # when the request was written, then when the last body bytes came
        self._pieces: list[bytes] = []

    async def read(self) -> bytes:
        """The next bytes of the body as they came; b"" at its end.  Broken, TimedOut.

        What came before a failure is still given out before the failure is raised.  Cancelling
        the task that waits here closes the connection.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            await self._wait()
        return self._taken()

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        """Give `take` each piece of the body as it comes, until it says False or the body ends.

        What a loop over `read` does, without a turn of the event loop for each piece: `take` is
        called by the socket's own callback.  What it raises is raised here; else as `read`.
        """
        while True:
            while self._pieces:
                if not take(self._taken()):
                    return
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._take = take
            try:
                await self._wait()
            finally:
                self._take = None
            if self._raised is not None:
                raise self._raised
            if self._halted:
                self._halted = False
                return

    def _taken(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._paused and self._conn is not None:
            self._conn.resume()
        return data

    def _arrived(self) -> None:
        """Something came: to whom it may concern."""
        if self._take is not None and self._pieces:
            try:
                more = self._take(self._taken())
            except Exception as error:  # raised where `pump` was called
                self._raised, more = error, False
            if more and not self._ended:
                return
            self._take, self._halted = None, not more
            if not self._ended and self._conn is not None:
                self._conn.pause()  # whoever takes waits for somebody; what comes would only pile up
        self._wake()

    async def read_all(self, max_bytes: int = 64 << 20) -> bytes:
        """The whole rest of the body; Broken, and the connection closed, when it is larger."""
        pieces: list[bytes] = []
        left = max_bytes
        while data := await self.read():
            left -= len(data)
            if left < 0:
                self.abort()
                raise Broken(f"the body is larger than {max_bytes} bytes")
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def complete(self) -> bool:
        """Whether all of the body came and was read."""
        return self._ended and not self._pieces

    def abort(self) -> None:
        """Close the connection at once, if it still serves this answer; unread bytes are lost."""
        if self._aborted:
            return
        self._aborted = True
        self._pieces.clear()
        self._unread = 0
        if self._conn is not None:
            self._conn.fail(Broken("aborted"))
        elif self._error is None:
            self._error = Broken("aborted")

    async def _wait(self) -> None:
        if self._paused and self._conn is not None:
            self._conn.resume()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _due(self) -> tuple[float, Phase]:
        """When this answer is late, and for what, if nothing more comes."""
        when = self._total_at
        what: Phase = "total"
        if self._paused:
            return when, what  # the silence is ours
        if self._began:
            silent: float = self._last + self._timeouts.stall_s
            return (silent, "stall") if silent < when else (when, what)
        silent = self._last + self._timeouts.first_token_s
        return (silent, "first_token") if silent < when else (when, what)


class _Connection(asyncio.Protocol):
    """One connection to one origin: at most one answer at a time, idle in the pool between."""

    def __init__(self, client: "Client", key: Key) -> None:
        self.key = key
        self.idle_at = 0.0  # since when it is in the pool
        self.taken_at = 0.0  # when it was last taken out of it
        self.counted = False  # among its client's connections
        self.transport: asyncio.Transport | None = None
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._body: list[bytes] = []  # what one `data_received` brought of it
        self.on_body = self._body.append  # for the parser; a method of ours would cost more
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._used = False  # it has carried an answer before the present one
        self._heard = False  # bytes of the present answer have come
        self._complete = False
        self._keep = False  # as far as the present answer's head tells
        self._until_close = False
        self._head: list[tuple[bytes, bytes]] = []
        self._overhead = 0
        self._chunked = False
        self._head_is_new = False  # the answer's head ended in the present `data_received`
        self._idle_most_s = _FOREVER  # as the upstream announced with `Keep-Alive: timeout=`
        self._poll: select.poll | None = (
            None  # tells whether something arrived that nobody asked for
        )
        self._unsent: int | None = None  # of an upload the transport has not taken, when last seen
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _FOREVER

    # -- one exchange

    async def exchange(
        self, head: bytes, body: bytes, timeouts: Timeouts, total_at: float
    ) -> Response:
        """Write the request and wait for the answer's head."""
        assert self.transport is not None
        self.taken_at = now = self._loop.time()
        response = self._response = Response(self, timeouts, now, total_at)
        self._heard = self._complete = self._keep = self._until_close = False
        self._head.clear()
        self._overhead = 0
        self._unsent = None
        if len(body) <= JOIN_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        due = min(total_at, now + timeouts.first_token_s)
        if self._timer_at > due:
            self._watch(due)
        response._waiter = self._loop.create_future()
        try:
            await response._waiter
        except asyncio.CancelledError:
            response.abort()
            raise
        response._waiter = None
        if response._error is not None and not response.status:
            raise response._error
        return response

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.drop()  # nobody asked: an idle upstream's 408, or worse
            return
        self._heard = True
        self._head_is_new = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                why = error.__context__
                self.fail(why if isinstance(why, Broken) else Broken("the answer is no HTTP/1.1"))
                return
            self._keep = False  # more than an answer came: this one is whole, the rest nobody's
        body = self._body
        if not body:
            self._overhead += len(data)
            if self._complete and self._keep and not _ends_cleanly(data):
                self._keep = False
            if self._overhead > MAX_OVERHEAD_BYTES and not self._complete:
                self.fail(Broken("the answer's head or its framing is too large"))
                return
        else:
            piece = body[0] if len(body) == 1 else b"".join(body)
            body.clear()
            if self._complete and self._keep and not self._ends_with(data, len(piece)):
                self._keep = False
            response._pieces.append(piece)
            response._unread += len(piece)
            self._overhead = 0
            response._last = now = self._loop.time()
            if not response._began:
                response._began = True
                if self._timer_at > now + response._timeouts.stall_s:
                    self._watch(now + response._timeouts.stall_s)
        if self._complete:
            self._finish(response)
        elif response._unread > MAX_UNREAD_BYTES:
            self.pause()
        if response._pieces or response._ended or (response.status and not response._began):
            response._arrived()

    def _ends_with(self, data: bytes, body_bytes: int) -> bool:
        """Whether a finished answer ends where the bytes that were read end.

        llhttp skips line breaks between two answers without a word; any other byte begins an answer
        that nobody asked for, which `on_message_begin` refuses.
        """
        if self._chunked:
            return _ends_cleanly(data)
        if not self._head_is_new:
            return len(data) == body_bytes
        return data.find(b"\r\n\r\n") + 4 + body_bytes == len(data)

    def on_message_begin(self) -> None:
        if self._complete:
            raise Broken("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head.append((name, value))  # of trailers too, which have no use here

    def on_headers_complete(self) -> None:
        response = self._response
        assert response is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            if status == 101:
                raise Broken("the upstream switched protocols unasked")
            self._head.clear()
            return
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Broken("the answer is no HTTP/1.1")
        headers = _decoded(self._head)
        self._head.clear()
        coding = headers.get("transfer-encoding")
        if coding is not None and (coding.lower() != "chunked" or version == "1.0"):
            raise Broken("the answer's transfer-encoding is not plain `chunked`")
        if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise Broken("the answer is compressed, against the request")
        # RFC 9112, 6.3: "Otherwise, this is a response message without a declared message body
        # length, so the message body length is determined by the number of octets received prior
        # to the server closing the connection."
        # XX: such a body cut short by the network over TLS looks complete; its reader must know.
        self._until_close = (
            coding is None and "content-length" not in headers and status not in (204, 304)
        )
        self._chunked = coding is not None
        self._head_is_new = True
        self._keep = self._parser.should_keep_alive()
        if self._keep and (hint := headers.get("keep-alive")) is not None:
            self._hinted(hint)
        response.headers = headers
        response.status = status

    def _hinted(self, hint: str) -> None:
        """Obey `Keep-Alive: timeout=5, max=100`: RFC 2068, 19.7.1.1."""
        for name, text in _HINT.findall(hint):
            most = int(text)
            if name.lower() == "max":
                self._keep = self._keep and most > 0
            else:
                self._idle_most_s = most - HINT_MARGIN_S
                self._keep = self._keep and self._idle_most_s >= MIN_IDLE_S

    def on_message_complete(self) -> None:
        assert self._response is not None
        if self._response.status:  # not for 1xx
            self._complete = True

    def _finish(self, response: Response) -> None:
        """The answer is whole: let go of it, and keep the connection if it can serve again."""
        self._response = None
        response._conn = None
        response._ended = True
        transport = self.transport
        # An answer that came before the whole request was taken leaves a connection in the middle
        # of that request.
        if self._keep and transport is not None and not transport.get_write_buffer_size():
            if response._paused:
                transport.resume_reading()
            self._used = True
            self._client._keep(self)
        else:
            self.drop()

    def fail(self, error: Exception) -> None:
        """Close at once, and tell who waits for the answer."""
        response = self._response
        self._response = None
        self.drop()
        if response is not None:
            response._conn = None
            response._error = error
            response._wake()

    def drop(self) -> None:
        """Close at once; what is unwritten stays so."""
        self._client._forget(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is not None:
            self.transport.abort()

    # -- flow control

    def pause(self) -> None:
        if self._response is not None and not self._response._paused:
            self._response._paused = True
            assert self.transport is not None
            self.transport.pause_reading()

    def resume(self) -> None:
        response = self._response
        assert response is not None and self.transport is not None
        response._paused = False
        response._last = self._loop.time()
        self.transport.resume_reading()
        self._watch(response._due()[0])

    def pause_writing(self) -> None:
        if self.transport is not None:
            self._unsent = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._unsent = None
        if self._response is not None and not self._response._began:
            self._response._last = self._loop.time()  # only now the request is written

    # -- time

    @property
    def idle_s(self) -> float:
        """How long it may be kept without being used."""
        return min(self._client.idle_most_s(self.key), self._idle_most_s)

    def quiet(self) -> bool:
        """Whether nothing has arrived on the idle connection, neither bytes nor its end."""
        transport = self.transport
        assert transport is not None
        if transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def _watch(self, when: float) -> None:
        """Look at the clock at `when` at the latest."""
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, _FOREVER
        now = self._loop.time()
        response = self._response
        if response is None:
            when = self.idle_at + self.idle_s
            if now >= when:
                self.drop()
            else:
                self._watch(when)
            return
        if self._unsent is not None and self.transport is not None:
            size = self.transport.get_write_buffer_size()
            if size < self._unsent:  # a long upload that moves is no silence
                self._unsent = size
                response._last = now
        when, what = response._due()
        if now >= when:
            self.fail(TimedOut(what))
        else:
            self._watch(when)

    # -- the connection's own life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._client._open.add(self)
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._client._open.discard(self)
        self._client._release(self)
        del self._parser  # it and we hold each other

    def _ended(self, exc: Exception | None) -> None:
        response = self._response
        if response is None:
            self.drop()
        elif response.status and self._until_close and exc is None:
            self._keep = False
            self._finish(response)
            response._wake()
        elif (
            self._used
            and not self._heard
            and self._loop.time() - response._last <= self._client.stale_s
        ):
            self._client._went_stale(self)
            self.fail(Stale("a kept connection had ended"))
        else:
            self.fail(Broken("the connection ended before the answer did"))


def _ends_cleanly(data: bytes) -> bool:
    """Whether a finished answer without a body, or with a chunked one, ends with these bytes.

    It ends with one empty line; where the read is too short to see what stands before it, it is
    taken not to end there.
    """
    return data.endswith(b"\r\n\r\n") and len(data) > 4 and data[-5] not in b"\r\n"


def most_connections() -> int:
    """How many connections fit into this process's files, with as many left for clients."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 16
    return max(64, (soft - RESERVED_FILES) // 2)


def _decoded(head: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """A head's fields by lower-case name; Broken for control characters in them.

    Bytes above ASCII have no meaning that all agree on (RFC 9110, 5.5) and become U+FFFD.
    """
    if not head:
        return {}
    raw_names, raw_values = zip(*head, strict=True)
    names = b"\n".join(raw_names).decode("ascii", "replace").lower().split("\n")
    values = b"\n".join(raw_values).decode("ascii", "replace")
    if _CONTROL.search(values) or not all(map(_TOKEN.fullmatch, names)):
        raise Broken("a header of the answer has control characters")
    lines = values.split("\n")
    if len(names) != len(head) or len(lines) != len(head):
        raise Broken("a header of the answer has control characters")
    headers = dict(zip(names, lines, strict=True))
    if len(headers) < len(head):
        headers = {}
        for name, value in zip(names, lines, strict=True):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class Prepared(msgspec.Struct, frozen=True):
    """A request but for its body: where it goes, and its head before and after the length."""

    target: DialTarget
    proxy: Proxy | None
    before: bytes
    after: bytes


class Client:
    """Sends requests and keeps the connections between them; of one event loop."""

    def __init__(
        self,
        *,
        idle_s: float = 30.0,
        max_idle_per_origin: int = 64,
        proxies: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        unix: str = "",
        stale_s: float = STALE_S,
        max_open: int | None = None,
        max_per_origin: int | None = None,
    ) -> None:
        """`proxies`: by scheme, and `no` with a list of hosts; None: as the environment says.

        `unix`: a socket to which every request goes, whatever host its URL names.
        `max_open`: connections in all; None: as many as the limit of files allows.
        `max_per_origin`: None: three quarters of them, so that one origin cannot take all.
        """
        self.idle_s = idle_s
        self.stale_s = stale_s
        self._max_open = most_connections() if max_open is None else max_open
        self._max_per_origin = (
            max(1, self._max_open * 3 // 4) if max_per_origin is None else max_per_origin
        )
        self._count: dict[Key, int] = {}  # connections to each origin, those being made included
        self._total = 0
        # How long the connections of an origin stay alive, where it proved to be less than `idle_s`.
        self._idle_most: dict[Key, float] = {}
        self._max_idle = max_idle_per_origin
        self._proxies = Proxies(proxies)
        self._ssl = ssl_context
        self._unix = unix
        self._idle: dict[Key, list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self.known: dict[int, object] = {}  # its users': what goes with a request, made once
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> Response:
        """Send one request; returns when the head of its answer came, whatever its status.

        NotSent, Broken, TimedOut; ValueError for what must not go on the wire.  Redirects are not
        followed, compressed answers are Broken.  A kept connection that turns out to have been
        closed is replaced once; `send_prepared` raises Stale instead, so that its caller can count.
        """
        request = self.prepared(method, url, headers)
        try:
            return await self.send_prepared(request, body, timeouts)
        except Stale:
            pass
        try:
            return await self.send_prepared(request, body, timeouts, fresh=True)
        except NotSent:
            raise Broken("a kept connection had ended and no new one could be made") from None

    def prepared(self, method: str, url: str, headers: Mapping[str, str]) -> Prepared:
        """All of a request but its body, for `send_prepared`; ValueError as `send`."""
        target = target_of(url)
        proxy = self._proxies.before(target.key)
        return Prepared(target, proxy, *_fixed(method, target, proxy, tuple(headers.items())))

    async def send_prepared(
        self, request: Prepared, body: bytes, timeouts: Timeouts, *, fresh: bool = False
    ) -> Response:
        """As `send`, for a request that goes out again and again; Stale is raised, not repaired.

        RFC 9112, 9.3.1 asks for care with repeating a POST.  Stale is raised only where the
        connection ended within `stale_s` of the request being written and not one byte of an answer
        came.  `fresh`: do not use a kept connection.
        """
        target, proxy = request.target, request.proxy
        head = b"%bcontent-length: %d%b" % (request.before, len(body), request.after)
        if self._closed:
            raise NotSent("the client is closed")
        if self._loop is None:  # asking costs a system call each time (Python 3.11)
            self._loop = asyncio.get_running_loop()
        total_at = self._loop.time() + timeouts.total_s
        conn = None if fresh else self._take(target.key)
        if conn is None:
            conn = await self._connect(target, proxy, timeouts.connect_s)
        return await conn.exchange(head, body, timeouts, total_at)

    async def close(self) -> None:
        """Close every connection, also those that serve; their readers get Broken."""
        self._closed = True
        for conn in tuple(self._open):
            conn.fail(Broken("the client was closed"))
        for _ in range(8):  # turns of the loop in which the transports let go
            if not self._open:
                break
            await asyncio.sleep(0)

    # -- the pool

    def _take(self, key: Key) -> _Connection | None:
        """The connection used last: the likeliest to be alive, and the others can age."""
        idle = self._idle.get(key)
        while idle:
            conn = idle.pop()
            if conn.quiet():
                if self._idle_most:
                    self._learn(conn)
                return conn
            conn.drop()  # bytes that nobody asked for would be taken for the next answer
        return None

    def _keep(self, conn: _Connection) -> None:
        idle = self._idle.get(conn.key)
        if idle is None:
            idle = self._idle[conn.key] = []
        idle_s = conn.idle_s
        if self._closed or len(idle) >= self._max_idle or idle_s < MIN_IDLE_S:
            conn.drop()
            return
        idle.append(conn)
        conn.idle_at = now = conn._loop.time()
        if conn._timer_at > now + idle_s:
            conn._watch(now + idle_s)

    def idle_most_s(self, key: Key) -> float:
        """How long connections to this origin may be idle."""
        return self._idle_most.get(key, self.idle_s) if self._idle_most else self.idle_s

    def _went_stale(self, conn: _Connection) -> None:
        """Keep the origin's connections for half as long as this one was idle; drop the older ones.

        An upstream that closes every kept connection is soon asked on new ones only.
        """
        idle_s = max(0.0, conn.taken_at - conn.idle_at) / 2
        if len(self._idle_most) >= MAX_ORIGINS and conn.key not in self._idle_most:
            self._idle_most.pop(next(iter(self._idle_most)))
        self._idle_most[conn.key] = min(self.idle_most_s(conn.key) / 2, idle_s)
        for other in self._idle.pop(conn.key, []):
            other.drop()

    def _learn(self, conn: _Connection) -> None:
        """A connection that was idle for nearly as long as is allowed, and lives: allow twice that."""
        most_s = self._idle_most.get(conn.key)
        if most_s is not None and conn._loop.time() - conn.idle_at >= most_s / 2:
            if 2 * most_s >= self.idle_s:
                del self._idle_most[conn.key]
            else:
                self._idle_most[conn.key] = 2 * most_s

    def _forget(self, conn: _Connection) -> None:
        idle = self._idle.get(conn.key)
        if idle and conn in idle:
            idle.remove(conn)

    def _make_room(self, key: Key) -> None:
        """Close an idle connection of another origin if need be; NoConnection when there is none."""
        if self._count.get(key, 0) >= self._max_per_origin:
            raise NoConnection("too many connections to this upstream")
        if self._total < self._max_open:
            return
        for idle in self._idle.values():
            if idle:
                idle[0].drop()  # the oldest; its descriptor is free at the loop's next turn
                return
        raise NoConnection("too many connections to upstreams")

    def _admit(self, conn: _Connection) -> None:
        """Count a connection from when it begins to be made."""
        conn.counted = True
        self._count[conn.key] = self._count.get(conn.key, 0) + 1
        self._total += 1

    def _release(self, conn: _Connection) -> None:
        """Count it no longer."""
        if conn.counted:
            conn.counted = False
            self._total -= 1
            left = self._count[conn.key] - 1
            if left:
                self._count[conn.key] = left
            else:
                del self._count[conn.key]

    # -- dialling

    async def _connect(
        self, target: DialTarget, proxy: Proxy | None, connect_s: float
    ) -> _Connection:
        self._make_room(target.key)
        conn = _Connection(self, target.key)
        self._admit(conn)
        try:
            async with asyncio.timeout(connect_s):
                tls = target.key[0] == "https" or (proxy is not None and proxy.tls)
                if self._unix:
                    await asyncio.get_running_loop().create_unix_connection(
                        lambda: conn, self._unix
                    )
                else:
                    await dial(conn, target, proxy, self._context() if tls else None)
        except BaseException as error:
            conn.drop()
            if conn.transport is None:
                self._release(conn)
            match error:
                case TimeoutError():
                    raise ConnectTimedOut(f"no connection within {connect_s} s") from None
                case OSError() | UnicodeError():  # TLS's and DNS's errors are OSErrors
                    raise NotSent(reason(error)) from None
                case _:
                    raise
        if self._closed or conn.transport is None or conn.transport.is_closing():
            conn.drop()
            self._open.discard(conn)
            if conn.transport is None:
                self._release(conn)
            raise NotSent("the connection ended at once")
        return conn

    def _context(self) -> ssl.SSLContext:
        if self._ssl is None:  # made late: reading the system's certificates takes some 20 ms
            self._ssl = ssl.create_default_context()
            self._ssl.set_alpn_protocols(["http/1.1"])
        return self._ssl


@functools.lru_cache(maxsize=256)  # an upstream gets the same head each time, but for the length
def _fixed(
    method: str, target: DialTarget, proxy: Proxy | None, headers: tuple[tuple[str, str], ...]
) -> tuple[bytes, bytes]:
    """The request's head around its length; ValueError names what is wrong in it, never a value."""
    # An answer to HEAD has a length and no body, which llhttp cannot know; it has no use here.
    if not _TOKEN.fullmatch(method) or method in ("HEAD", "CONNECT"):
        raise ValueError("the method cannot be sent")
    path, authorization = target.path, ""
    if proxy is not None and target.key[0] == "http":
        # RFC 9112, 3.2.2: "When making a request to a proxy, other than a CONNECT [...], a client
        # MUST send the target URI in "absolute-form" as the request-target."
        path, authorization = f"http://{target.authority}{path}", proxy.authorization
    before = f"{method} {path} HTTP/1.1\r\nhost: {target.authority}\r\n{authorization}"
    lines = ["\r\naccept-encoding: identity\r\nconnection: keep-alive\r\n"]
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name[:64]!a} is no header name")
        if name.lower() in _OURS:
            raise ValueError(f"the header `{name}` is the client's own")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header `{name}` has characters it must not have")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return before.encode("ascii"), "".join(lines).encode("ascii")
