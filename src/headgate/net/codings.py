"""Content codings of request bodies: gzip, deflate and zstd, in pieces of bounded size.

RFC 9110, 8.4.1 (gzip, x-gzip, deflate) and RFC 9659 (zstd, whose window is at most 8 MB).  No I/O:
`pieces` yields what a body holds, and its caller counts, waits and stops where it must.

Note: `deflate` is the zlib format (RFC 9110); some clients send the bare one, and both are read.
"""

import zlib
from collections.abc import Callable, Iterator

PIECE_BYTES = 65536  # of what was decoded; some 0.2 ms of work
_SLICE_BYTES = 16384  # of what is decoded: what zlib has not read yet is copied with each piece
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
    try:
        for at in range(0, len(body), _SLICE_BYTES):
            rest = bytes(view[at : at + _SLICE_BYTES])
            while rest:
                if inflater.eof:  # "a gzip file consists of a series of members" (RFC 1952, 2.2)
                    if window_bits != 31:
                        raise ValueError("bytes follow its end")
                    inflater = zlib.decompressobj(window_bits)
                piece = inflater.decompress(rest, PIECE_BYTES)
                rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                if piece:
                    yield piece
        while not inflater.eof and (piece := inflater.decompress(b"", PIECE_BYTES)):
            yield piece
    except zlib.error as error:
        raise ValueError("it cannot be read") from error
    if not inflater.eof:
        raise ValueError("it is cut short")


def _zstd(body: bytes) -> Iterator[bytes]:
    import zstandard  # 2 ms, for the few who send it

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    try:
        reader = decompressor.stream_reader(body, _SLICE_BYTES, read_across_frames=True)
        while piece := reader.read(PIECE_BYTES):
            yield piece
    except zstandard.ZstdError as error:
        raise ValueError("it cannot be read") from error


_CODINGS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
CODINGS = frozenset(_CODINGS)
