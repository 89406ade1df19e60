"""TLS of clients' connections: between the socket's transport and the connection that reads HTTP.

A `TlsLayer` is the protocol of the socket and the transport of the connection.  It encrypts in memory
(`ssl.MemoryBIO`), so the connection is counted, timed, evicted and closed from its first moment, exactly
as a plain one, and back-pressure is the socket's own.  asyncio's TLS shows a connection only after its
handshake: until then a silent client would be counted by nobody.

Note: a silent or slow client costs a buffer.  OpenSSL is asked once the first record is whole, and
handshakes take turns (handshakes.py).
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from headgate.errors import Failure
from headgate.net import guard
from headgate.net.certificates import Certificates
from headgate.net.connections import peer_name
from headgate.net.handshakes import Handshakes

MAX_RECORD_BYTES = 5 + 16384 + 2048  # RFC 8446, 5.1 and 5.2, with the header
MAX_HANDSHAKE_BYTES = 128 << 10  # of a client: its hello and its certificates
READ_BYTES = 65536  # decrypted at once
_HANDSHAKE = 0x16  # the type of a client's first record
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # with which HTTP's methods begin

Refusal = Callable[[Failure, str, Mapping[str, str]], tuple[int, list[tuple[str, str]], bytes]]

PLAIN = Failure(
    "invalid",
    "This port speaks TLS, and the request came as plain HTTP. Begin the address with https://.",
    code="tls_required",
)


class Connection(Protocol):
    """What the layer needs of the protocol that reads HTTP (net/server.py)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class TlsLayer(asyncio.Protocol):
    __slots__ = (
        "_asked",
        "_bytes",
        "_certificates",
        "_closing",
        "_first",
        "_handshakes",
        "_in",
        "_object",
        "_out",
        "_paused",
        "_pausing",
        "_ready",
        "_refuse",
        "certified",
        "connection",
        "raw",
    )

    raw: asyncio.Transport

    def __init__(
        self,
        connection: Connection,
        certificates: Certificates,
        handshakes: Handshakes,
        refuse: Refusal,
    ) -> None:
        self.connection = connection
        self._certificates = certificates
        self._handshakes = handshakes
        self._refuse = refuse
        self._first: bytearray | None = bytearray()  # until the first record is whole
        self._bytes = 0  # of the handshake
        self._object: ssl.SSLObject | None = None
        self._in = self._out = _NOTHING
        self._ready = False  # the handshake is done
        self._asked = False  # a turn for the handshake
        self._closing = False
        self._paused = False  # the connection wants nothing more for now
        self._pausing = False  # and we have told the socket
        self.certified = False  # the client has shown a certificate, and it is good

    # asyncio.Protocol, for the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.raw = cast(asyncio.Transport, transport)
        self.connection.connection_made(cast(asyncio.Transport, self))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ready and self._object is not None:
            self._handshakes.count("left")
        self._closing = True
        self.connection.connection_lost(error)
        self._object = None
        self._in = self._out = _NOTHING

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def eof_received(self) -> bool | None:
        if not self._ready:
            return False
        return self.connection.eof_received()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            if self._ready:
                self.connection.data_received(b"")  # it learns that something came, not what
            return
        if self._ready:
            self._in.write(data)
            self._read()
            return
        self._bytes += len(data)
        if self._bytes > MAX_HANDSHAKE_BYTES:
            self._handshakes.count("failed")
            self.abort()
            return
        first = self._first
        if first is None:
            self._in.write(data)
            self._turn()
            return
        first += data
        if first[0] != _HANDSHAKE:
            self._plain(first)
        elif len(first) >= 5:
            whole = 5 + int.from_bytes(first[3:5], "big")
            if whole > MAX_RECORD_BYTES:
                self._handshakes.count("not_tls")
                self.abort()
            elif len(first) >= whole:
                self._begin(bytes(first))

    # the handshake

    def _begin(self, first: bytes) -> None:
        self._first = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._in.write(first)
        self._turn()

    def _turn(self) -> None:
        if not self._asked:
            self._asked = True
            peer = self.raw.get_extra_info("peername")
            self._handshakes.ask(self, peer_name(str(peer[0])) if isinstance(peer, tuple) else "")

    def step(self) -> bool:
        """Go on with the handshake; False when the client has gone meanwhile."""
        self._asked = False
        if self._closing or self._ready:
            return False
        if self._object is None:
            context = self._certificates.context
            self._object = context.wrap_bio(self._in, self._out, server_side=True)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return True
        except ssl.SSLError:
            self._flush()  # the alert
            self._handshakes.count("failed")
            self._closing = True
            self.raw.close()
            return True
        self._ready = True
        self._handshakes.count("done")
        if self._certificates.asks_clients:
            self.certified = self._object.getpeercert(binary_form=True) is not None
        self._flush()
        self._read()
        return True

    def _plain(self, first: bytearray) -> None:
        """Answer a request of plain HTTP in words; whatever else is no TLS is closed."""
        if first[0] not in _LETTERS:
            self._handshakes.count("not_tls")
            self.abort()
            return
        end = first.find(b"\r\n")
        if end < 0 and len(first) < guard.MAX_TARGET_BYTES:
            return  # the request's line is on its way; the server's timers bound it
        self._handshakes.count("plain_http")
        target = bytes(first[: max(end, 0)]).split(b" ")
        path = target[1].decode("latin-1").partition("?")[0] if len(target) == 3 else "/"
        status, headers, body = self._refuse(PLAIN, path, {})
        framing = f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        line = f"HTTP/1.1 {status} Bad Request\r\n".encode()
        self.raw.write(line + guard.header_block(headers) + framing + body)
        self._first, self._closing = None, True
        if self.raw.can_write_eof():
            self.raw.write_eof()
        # The server's timer for heads ends the connection, if its client does not.

    # bytes

    def _read(self) -> None:
        """Hand over what has come, until the connection wants no more for now."""
        tls = self._object
        while tls is not None and not self._closing and not self._paused:
            try:
                data = tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError:
                self.abort()
                return
            if not data:  # the client's close_notify
                self.connection.eof_received()
                self.close()
                return
            self.connection.data_received(data)
            if not (self._in.pending or tls.pending()):
                break  # else the next read raises, which costs as much as a request's encryption
        if self._out.pending:
            self._flush()  # an answer to a key update

    def _flush(self) -> None:
        if self._out.pending and not self.raw.is_closing():
            self.raw.write(self._out.read())

    # asyncio.Transport, for the connection

    def write(self, data: bytes) -> None:
        if self._ready and not self._closing and self._object is not None:
            with contextlib.suppress(ssl.SSLError):
                self._object.write(data)
            self.raw.write(self._out.read())

    def pause_reading(self) -> None:
        self._paused = True
        if not self._pausing:
            self._pausing = True
            self.raw.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if self._pausing:
            self._pausing = False
            self.raw.resume_reading()
        if self._ready and not self._closing:
            asyncio.get_running_loop().call_soon(self._read)

    def close(self) -> None:
        self._end()
        self.raw.close()

    def abort(self) -> None:
        self._closing = True
        self.raw.abort()

    def _end(self) -> None:
        """Send close_notify: without it the client cannot tell the end from a cut (RFC 8446, 6.1)."""
        if self._closing or not self._ready or self._object is None:
            self._closing = True
            return
        self._closing = True
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        self._flush()

    def can_write_eof(self) -> bool:
        return self._ready and bool(self.raw.can_write_eof())

    def write_eof(self) -> None:
        self._end()
        self.raw.write_eof()

    def is_closing(self) -> bool:
        return bool(self.raw.is_closing())

    def get_write_buffer_size(self) -> int:
        return int(self.raw.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.raw.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # Any: as asyncio has it
        if name == "certified":
            return self.certified
        return self.raw.get_extra_info(name, default)


_NOTHING = ssl.MemoryBIO()  # never written to
