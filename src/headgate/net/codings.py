"""Content codings of request bodies: gzip, deflate and zstd, in pieces of bounded size.

RFC 9110, 8.4.1 (gzip, x-gzip, deflate) and RFC 9659 (zstd, whose window is at most 8 MB).  No I/O:
`pieces` yields what a body holds, and its caller counts, waits and stops where it must.

Note: `deflate` is the zlib format (RFC 9110); some clients send the bare one, and both are read.
"""

import io
import zlib
from collections.abc import Callable, Iterator

PIECE_BYTES = 65536  # of what was decoded; some 0.2 ms of work
_SLICE_BYTES = 16384  # of what is decoded: what zlib has not read yet is copied with each piece
_MEMBERS = 4096  # of a gzip file; each costs some 3 us, and 32 MB of empty ones 5 s
_IDLE_BYTES = 131072  # that may bring nothing, beside twice what comes out: no data needs more
_ZSTD_BLOCKS = (
    65536  # of a body, whose headers are read in some 20 ms; a zstd block has up to 128 kB
)
_ZSTD_SKIPPED = 0x184D2A50  # to 0x184D2A5F: frames without data
_ZSTD_WINDOW_BYTES = 8 << 20  # "decoders MUST support ... up to and including 8 MB" (RFC 9659)


def pieces(coding: str, body: bytes) -> Iterator[bytes]:
    """What `body` holds, in pieces; ValueError when it is broken or cut short."""
    return _CODINGS[coding](body)


def _gzip(body: bytes) -> Iterator[bytes]:
    return _inflated(body, 31)


def _deflate(body: bytes) -> Iterator[bytes]:
    zlib_format = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _inflated(body, 15 if zlib_format else -15)


def _inflated(body: bytes, window_bits: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(window_bits)
    view = memoryview(body)
    members, size = 1, 0
    try:
        for at in range(0, len(body), _SLICE_BYTES):
            if at > 2 * size + _IDLE_BYTES:
                raise ValueError("it is long and holds next to nothing")
            rest = bytes(view[at : at + _SLICE_BYTES])
            while rest:
                if inflater.eof:  # "a gzip file consists of a series of members" (RFC 1952, 2.2)
                    if window_bits != 31:
                        raise ValueError("bytes follow its end")
                    members += 1
                    if members > _MEMBERS:
                        raise ValueError(f"it has more than {_MEMBERS} members")
                    inflater = zlib.decompressobj(window_bits)
                piece = inflater.decompress(rest, PIECE_BYTES)
                rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                if piece:
                    size += len(piece)
                    yield piece
        while not inflater.eof and (piece := inflater.decompress(b"", PIECE_BYTES)):
            yield piece
    except zlib.error as error:
        raise ValueError("it cannot be read") from error
    if not inflater.eof:
        raise ValueError("it is cut short")


class _Source(io.BytesIO):
    """A body for zstd's reader, which reads on and on where frames are empty or skipped."""

    size = 0  # of what has come out

    def read(self, size: int | None = -1, /) -> bytes:
        if self.seek(0, io.SEEK_CUR) > 2 * self.size + _IDLE_BYTES:
            raise ValueError("it is long and holds next to nothing")
        return super().read(size)


def _zstd(body: bytes) -> Iterator[bytes]:
    import zstandard  # 2 ms, for the few who send it

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    try:
        source = _Source(body)
        reader = decompressor.stream_reader(source, _SLICE_BYTES, read_across_frames=True)
        while piece := reader.read(PIECE_BYTES):
            source.size += len(piece)
            yield piece
    except zstandard.ZstdError as error:
        raise ValueError("it cannot be read") from error
    if _zstd_is_cut(body):  # the reader takes the end of its source for the end of the data
        raise ValueError("it is cut short")


def _zstd_is_cut(body: bytes) -> bool:
    """Whether the last frame of a body is not whole, by the headers of its blocks (RFC 8878, 3.1).

    What there is of it has been decoded without an error.
    """
    at, blocks = 0, 0
    while at < len(body):
        magic = int.from_bytes(body[at : at + 4], "little")
        if magic & 0xFFFFFFF0 == _ZSTD_SKIPPED:
            blocks += 1
            at += 8 + int.from_bytes(body[at + 4 : at + 8], "little")
        else:
            descriptor = int.from_bytes(body[at + 4 : at + 5], "little")
            single = descriptor >> 5 & 1  # then there is no byte for the window
            size_bytes = (single, 2, 4, 8)[descriptor >> 6]
            at += 6 - single + (0, 1, 2, 4)[descriptor & 3] + size_bytes
            last = 0
            while not last and at < len(body):
                header = int.from_bytes(body[at : at + 3], "little")
                last = header & 1
                run = header >> 1 & 3 == 1  # one byte that is repeated
                at += 3 + (1 if run else header >> 3)
                blocks += 1
                if blocks > _ZSTD_BLOCKS:
                    break
            if not last:
                at = len(body) + 1
            at += 4 if descriptor & 4 else 0  # the checksum
        if blocks > _ZSTD_BLOCKS:
            raise ValueError(f"it has more than {_ZSTD_BLOCKS} blocks")
    return at > len(body) or not body


_CODINGS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
CODINGS = frozenset(_CODINGS)
