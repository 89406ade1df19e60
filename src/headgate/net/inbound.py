"""One request of a client and its answer: the body that is read, the response that is written."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from headgate.bounds import DECODED_BYTES, DECODED_RATIO, RATIO_FREE_BYTES
from headgate.errors import Failure, Refused
from headgate.net import codings, guard
from headgate.net.chunks import Chunks
from headgate.net.heads import Head
from headgate.net.proxies import Proxies
from headgate.net.server_limits import (
    CHUNKED_STEP,
    JOIN_BYTES,
    MAX_UNASKED_BYTES,
    SMALL_BYTES,
    TURN_BYTES,
    Limits,
)

Headers = Sequence[tuple[str, str]]


class BodyOwner(Protocol):
    """Who is charged for the body of a request; edge/overload.py has those of the API."""

    def reserve(self, total: int) -> None:
        """Hold so many bytes, in place of what is held so far; what it raises refuses the request."""

    def charge(self, cpu_s: float) -> None:
        """Count work on the event loop that was done for it."""

    async def turn(self) -> None:
        """Wait until its work may go on."""


class InboundServer(Protocol):
    """What a request reads of the server that took it."""

    @property
    def limits(self) -> Limits: ...
    @property
    def proxies(self) -> Proxies: ...
    @property
    def asks_clients(self) -> bool: ...
    @property
    def expired(self) -> bool: ...
    @property
    def stopping(self) -> bool: ...
    @property
    def lines(self) -> dict[int, bytes]: ...
    @property
    def now(self) -> Callable[[], float]: ...
    def line(self, status: int) -> bytes: ...
    def future(self) -> "asyncio.Future[None]": ...


class InboundConnection(Protocol):
    """What a request reads of its connection, and does with it."""

    closing: bool
    since: float

    @property
    def server(self) -> InboundServer: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def peer(self) -> str: ...
    @property
    def proxied(self) -> bool: ...
    @property
    def write_paused(self) -> bool: ...
    async def writable(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


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
        self, conn: InboundConnection, head: Head, headers: dict[str, str], length: int
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

    async def body(
        self, max_bytes: int | None = None, body_owner: "BodyOwner | None" = None
    ) -> bytes:
        """Return the whole body, decoded; Refused when it is too large, too slow or broken.

        `payer` reserves the body's size before it is read, and again as a body of unknown length
        grows and ends; what it raises ends the reading.  It is charged the work on a compressed body.
        With it the body is handed over once, and does not stay in memory for as long as the answer takes.
        """
        limit = self._conn.server.limits.body_bytes if max_bytes is None else max_bytes
        self._limit = limit
        coding = self.headers.get("content-encoding", "")
        if coding and (coding := _coding(coding)):
            return await self._decoded(
                await self._received(limit, body_owner), coding, limit, body_owner
            )
        return await self._received(limit, body_owner)

    async def _decoded(
        self, body: bytes, coding: str, limit: int, body_owner: "BodyOwner | None"
    ) -> bytes:
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
                    if body_owner is None:
                        await asyncio.sleep(0)
                    else:
                        body_owner.reserve(len(body) + reserved)
                        body_owner.charge(time.thread_time() - began_s)
                        await body_owner.turn()
                    began_s = time.thread_time()
                out.append(piece)
        except ValueError as error:
            raise Refused(
                Failure("invalid", f"The body is not valid {coding}: {error} (content-encoding).")
            ) from None
        finally:
            if body_owner is not None:
                body_owner.charge(time.thread_time() - began_s)
        if body_owner is not None:
            body_owner.reserve(size)
            self._pieces = []
        return b"".join(out)

    async def _received(self, limit: int, body_owner: "BodyOwner | None") -> bytes:
        """The body as it was sent."""
        if self._length > limit:
            raise Refused(_too_large(limit))
        if body_owner is not None:
            if self._length >= 0:
                body_owner.reserve(self._length)
            elif self.body_done:
                body_owner.reserve(self._size)
            else:
                self._reserved = self._size + CHUNKED_STEP
                body_owner.reserve(self._reserved)
        if self._expect and not self.body_done and not self._size:
            self._conn.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expect = False
        if not self.body_done:
            self._conn.since = self._conn.server.now()  # until here its sender may have been paused
        while not self.body_done and self._size <= limit and self._failure is None:
            self._waiter = self._conn.server.future()
            self._conn.resume_reading()
            await self._waiter
            if self._size > self._reserved and body_owner is not None:
                self._reserved = self._size + CHUNKED_STEP
                body_owner.reserve(self._reserved)
        if self._reserved != sys.maxsize and body_owner is not None:
            body_owner.reserve(self._size)
        self._waiter = None
        if self._failure is not None:
            raise Refused(self._failure)
        if self._size > limit:
            raise Refused(_too_large(limit))
        pieces = self._pieces
        if body_owner is not None:
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
    """Return the coding of a body, empty for none; Refused when it is not one that is read here."""
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
