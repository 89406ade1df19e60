"""The chunked transfer coding of requests: bytes in, the body's bytes out, no I/O.

Follows RFC 9112, 7.1, https://www.rfc-editor.org/rfc/rfc9112 (read 2026-11-30), in its strict reading:
lines end in CRLF, sizes are plain hexadecimal digits, and nothing else is let through.

Note: it reports where the body ends.  llhttp does not, so a request behind the body would be parsed
before its turn.  Trailers are checked and dropped, as nobody asked for them.
"""

import re
from collections.abc import Callable

from headgate.errors import Failure, Refused

MAX_LINE_BYTES = 256  # of a chunk's size and extension; a signed chunk has some 85 bytes
MAX_TRAILER_BYTES = 8192
MAX_TRAILERS = 64
# A chunk costs about a microsecond whatever its size.  Clients send 4 to 64 KiB in one; a body of
# a few kilobytes may come byte by byte.
MAX_SMALL_CHUNKS = 16384
MIN_MEAN_BYTES = 256  # of the chunks beyond these

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*)?\r")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r")


class Chunks:
    """One chunked body as it comes; `feed` raises Refused for what is no such body."""

    __slots__ = (
        "_after_data",
        "_count",
        "_left",
        "_line",
        "_size",
        "_trailer_bytes",
        "_trailers",
        "done",
    )

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # bytes of the present chunk that have not come
        self._after_data = False  # the line end behind a chunk's data is next
        self._line = b""  # the beginning of a line whose end has not come
        self._size = 0
        self._count = 0
        self._trailers = -1  # lines of trailers so far; -1: the last chunk has not come
        self._trailer_bytes = 0

    def feed(self, data: bytes | bytearray, at: int, take: Callable[[bytes], None]) -> int:
        """Give `take` the body's bytes from `at` on; returns the position behind what was read."""
        size = len(data)
        while at < size and not self.done:
            if self._left:
                piece = bytes(data[at : at + self._left])
                at += len(piece)
                self._left -= len(piece)
                take(piece)
                continue
            most = (MAX_LINE_BYTES if self._trailers < 0 else MAX_TRAILER_BYTES) - len(self._line)
            end = data.find(b"\n", at, at + most)
            if end < 0:
                self._line += bytes(data[at : at + most])
                if size - at >= most or (self._after_data and self._line != b"\r"):
                    raise Refused(self._wrong())
                return size
            line = self._line + data[at:end]
            self._line = b""
            at = end + 1
            if self._after_data:
                if line != b"\r":
                    raise Refused(self._wrong())
                self._after_data = False
            elif self._trailers < 0:
                self._begin(line)
            elif line == b"\r":
                self.done = True
            else:
                self._trailer(line)
        return at

    def _begin(self, line: bytes) -> None:
        """Read the line before a chunk's data."""
        found = _SIZE.fullmatch(line)
        if found is None:
            raise Refused(self._wrong())
        self._left = int(found[1], 16)
        if not self._left:
            self._trailers = 0
            return
        self._after_data = True
        self._size += self._left
        self._count += 1
        if self._count > MAX_SMALL_CHUNKS + self._size // MIN_MEAN_BYTES:
            raise Refused(
                _bad("The body comes in too many small chunks; send larger ones, or its length.")
            )

    def _trailer(self, line: bytes) -> None:
        self._trailers += 1
        self._trailer_bytes += len(line) + 1
        if self._trailers > MAX_TRAILERS or self._trailer_bytes > MAX_TRAILER_BYTES:
            raise Refused(self._wrong())
        if not _TRAILER.fullmatch(line):
            raise Refused(_bad("A trailer is not a header."))

    def _wrong(self) -> Failure:
        if self._trailers < 0:
            return _bad("The body is not valid in the chunked transfer coding.")
        return Failure(
            "too_large",
            f"Trailers are not used here; at most {MAX_TRAILERS} in {MAX_TRAILER_BYTES} bytes are read.",
            code="header_too_large",
        )


def _bad(message: str) -> Failure:
    return Failure("invalid", message, code="bad_http")
