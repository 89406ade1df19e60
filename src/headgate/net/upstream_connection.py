"""One connection to an upstream, and the response that is read from it."""

import asyncio
import re
import select
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

import httptools

from headgate.net.client_errors import Broken, Phase, Stale, TimedOut, Timeouts
from headgate.net.dial import Key

MAX_UNREAD_BYTES = 64 << 10  # of one answer; above it the socket is paused, for a slow reader
# What one read may bring: else a slow reader of a fast upstream holds 256 kB of it, and the system
# megabytes more.  At 200 ms to the upstream it is some 300 kB/s for one reply, thousands of tokens.
RECEIVE_BUFFER_BYTES = 64 << 10
MAX_OVERHEAD_BYTES = 64 << 10  # head, chunk sizes, trailers between two body bytes; Envoy: 60 KiB
JOIN_BYTES = 64 << 10  # up to here copying a body behind its head is cheaper than a second write


# An idle connection is given up this long before the time that the upstream announced for it.
HINT_MARGIN_S = 1.0
MIN_IDLE_S = 0.05  # a connection that may be kept for less is not kept


TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # but the line feed between two


_HINT: Final = re.compile(r"\b(timeout|max)\s*=\s*\"?(\d{1,9})\b", re.I)
_FOREVER: Final = float("inf")
_NO_HEADERS: Final[dict[str, str]] = {}  # of an answer whose head is not here yet


class Response:
    """An answer whose head is here and whose body may still be coming."""

    # What most answers never change stands here, and costs none of them anything.
    status = 0
    _began = False
    _ended = False
    _aborted = False
    _paused = False
    _halted = False  # `take` returned False
    _error: Exception | None = None
    _raised: Exception | None = None  # by `take`
    _take: Callable[[bytes], bool] | None = None  # of `pump`, while it waits
    _waiter: "asyncio.Future[None] | None" = None  # of `send` first, of `read` then
    _unread = 0

    def __init__(self, conn: "Connection", timeouts: Timeouts, now: float, total_at: float):
        self.headers: dict[str, str] = (
            _NO_HEADERS  # names in lower case; repeated ones joined by ", "
        )
        self._loop = conn._loop
        self._conn: Connection | None = conn  # None once the connection is no longer ours
        self._timeouts = timeouts
        self._total_at = total_at
        self._last = now  # when the request was written, then when the last body bytes came
        self._pieces: list[bytes] = []

    async def read(self) -> bytes:
        """Return the next bytes of the body as they came; b"" at its end.  Broken, TimedOut.

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
        """Return the whole rest of the body; Broken, and the connection closed, when it is larger."""
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


class Connections(Protocol):
    """What a connection reads of the client that keeps it, and reports to it."""

    open: "set[Connection]"
    stale_s: float

    def keep(self, conn: "Connection") -> None: ...
    def forget(self, conn: "Connection") -> None: ...
    def release(self, conn: "Connection") -> None: ...
    def went_stale(self, conn: "Connection") -> None: ...
    def idle_most_s(self, key: Key) -> float: ...


class Connection(asyncio.Protocol):
    """One connection to one origin: at most one answer at a time, idle in the pool between."""

    def __init__(self, client: Connections, key: Key) -> None:
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
        self._keep = False  # as the present answer's head has it, so far
        self._until_close = False
        self._head: list[tuple[bytes, bytes]] = []
        self._overhead = 0
        self._chunked = False
        self._head_is_new = False  # the answer's head ended in the present `data_received`
        self._idle_most_s = _FOREVER  # as the upstream announced with `Keep-Alive: timeout=`
        self._poll: select.poll | None = None  # whether something arrived that nobody asked for
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
            self._client.keep(self)
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
        self._client.forget(self)
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
        self._client.open.add(self)
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._client.open.discard(self)
        self._client.release(self)
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
            self._client.went_stale(self)
            self.fail(Stale("a kept connection had ended"))
        else:
            self.fail(Broken("the connection ended before the answer did"))


def _ends_cleanly(data: bytes) -> bool:
    """Whether a finished answer without a body, or with a chunked one, ends with these bytes.

    It ends with one empty line; where the read is too short to see what stands before it, it is
    taken not to end there.
    """
    return data.endswith(b"\r\n\r\n") and len(data) > 4 and data[-5] not in b"\r\n"


def _decoded(head: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """A head's fields by lower-case name; Broken for control characters in them.

    Bytes above ASCII have no meaning that all agree on (RFC 9110, 5.5) and become U+FFFD.
    """
    if not head:
        return {}
    raw_names, raw_values = zip(*head, strict=True)
    names = b"\n".join(raw_names).decode("ascii", "replace").lower().split("\n")
    values = b"\n".join(raw_values).decode("ascii", "replace")
    if _CONTROL.search(values) or not all(map(TOKEN.fullmatch, names)):
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
