"""Content codings: bytes in, bounded pieces out, whatever the sender made of them."""

import contextlib
import gzip
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from headgate.net.codings import CODINGS, PIECE_BYTES, pieces

ENCODED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("coding", sorted(CODINGS))
@pytest.mark.parametrize("body", [b"", b"{}", b"a" * 500_000, bytes(range(256)) * 2000])
def test_what_was_encoded_comes_out_in_pieces_of_bounded_size(coding: str, body: bytes) -> None:
    out = list(pieces(coding, ENCODED[coding](body)))
    assert b"".join(out) == body
    assert all(0 < len(piece) <= PIECE_BYTES for piece in out)


@pytest.mark.parametrize("coding", sorted(CODINGS))
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_value_error(coding: str, data: bytes) -> None:
    for body in (data, ENCODED[coding](b"hello")[:4] + data):
        with contextlib.suppress(ValueError):
            assert sum(map(len, pieces(coding, body))) < 1 << 20


def zstd_bodies() -> dict[str, bytes]:
    text = b"".join(b"%d " % n for n in range(60_000))
    checked = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
    streamed = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    flushed = b"".join(
        streamed.compress(text[at : at + 999]) + streamed.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for at in range(0, len(text), 999)
    )
    noise = bytes(range(256)) * 3
    return {
        "short": zstandard.compress(b"{}"),
        "blocks": zstandard.compress(text),
        "checksum": checked.compress(text),
        "flushed": flushed + streamed.flush(),
        "runs": zstandard.compress(b"a" * 300_000),
        "raw": zstandard.ZstdCompressor(level=-100).compress(noise),
        "frames": zstandard.compress(text) + zstandard.compress(b"more"),
        "skipped": zstandard.compress(b"x") + b"\x5f\x2a\x4d\x18\x03\0\0\0abc",
    }


CUT = {
    "gzip": [gzip.compress(b"hello " * 9999), gzip.compress(b"a") + gzip.compress(b"b" * 999)],
    "deflate": [zlib.compress(b"hello " * 9999), zlib.compress(bytes(99))[2:-4]],
    "zstd": list(zstd_bodies().values()),
}


@pytest.mark.parametrize("coding", sorted(CUT))
def test_a_body_that_is_cut_anywhere_is_said_to_be_cut_short(coding: str) -> None:
    for body in CUT[coding]:
        whole = b"".join(pieces(coding, body))
        step = 1 + len(body) // 500
        for end in {*range(0, len(body), step), *range(max(0, len(body) - 12), len(body))}:
            said, out = "", b""
            try:
                for piece in pieces(coding, body[:end]):
                    out += piece
            except ValueError as error:
                said = str(error)
            # Between two frames or members nothing can tell that there was more.
            assert said == "it is cut short" or out in (b"x", b"a", whole[:-4]), (end, said)
            assert whole.startswith(out)


def test_a_zstd_body_of_very_many_blocks_is_refused() -> None:
    block = b"\x40\0\0abcdefgh"  # eight bytes as they are
    body = zstandard.compress(b"")[:4] + b"\0\x58" + block * 70_000 + b"\x01\0\0"
    with pytest.raises(ValueError, match="blocks"):
        list(pieces("zstd", body))


def test_members_of_gzip_follow_each_other() -> None:
    assert b"".join(pieces("gzip", gzip.compress(b"a", mtime=0) * 1000)) == b"a" * 1000


def test_a_window_above_the_bound_of_the_rfc_is_refused() -> None:
    large = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    )
    streamed = large.compressobj()
    body = streamed.compress(b"a" * (1 << 24)) + streamed.flush()
    with pytest.raises(ValueError, match="cannot be read"):
        list(pieces("zstd", body))


@pytest.mark.parametrize(
    ("coding", "unit"),
    [
        ("gzip", gzip.compress(b"", mtime=0)),
        ("deflate", b"\0\0\0\xff\xff"),  # stored blocks without a byte
        ("zstd", zstandard.compress(b"")),
        ("zstd", b"\x50\x2a\x4d\x18\0\0\0\0"),  # frames to be skipped
    ],
)
def test_what_is_long_and_holds_nothing_is_refused_before_it_is_read(
    coding: str, unit: bytes
) -> None:
    """4 MB of it would hold the loop for 0.1 to 0.7 s, without a piece after which others have their turn."""
    with pytest.raises(ValueError, match=r"next to nothing|members"):
        list(pieces(coding, unit * (4_000_000 // len(unit))))


def test_a_file_of_very_many_members_is_refused() -> None:
    with pytest.raises(ValueError, match="members"):
        list(pieces("gzip", gzip.compress(b"a" * 40, mtime=0) * 5000))
