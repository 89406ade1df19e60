"""What Chunks takes for a chunked body, llhttp takes for the same one; and its work is bounded."""

import itertools

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import Refused
from headgate.net.chunks import MAX_SMALL_CHUNKS, MAX_TRAILER_BYTES, Chunks

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(pieces: list[bytes]) -> tuple[bytes, bytes] | None:
    """The body and what stands behind it; None when it is refused or not at its end."""
    chunks, body, wire = Chunks(), bytearray(), b"".join(pieces)
    behind = 0
    try:
        for piece in pieces:
            at = chunks.feed(piece, 0, body.extend)
            behind += len(piece) - at
    except Refused:
        return None
    return (bytes(body), wire[len(wire) - behind :]) if chunks.done else None


class Parsed:
    """What llhttp makes of the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.done = False
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(HEAD)
            parser.feed_data(data)
        except httptools.HttpParserError:
            pass

    def on_body(self, body: bytes) -> None:
        if not self.done:
            self.body += body

    def on_message_complete(self) -> None:
        self.done = True


PARTS = (
    b"2\r\nhi\r\n",
    b"1;a=b\r\nx\r\n",
    b"A\r\n0123456789\r\n",
    b"002\r\n\r\n\r\n",
    b"0\r\n",
    b"\r\n",
    b"X-T: 1\r\n",
    b"2\nhi\r\n",
    b"2 \r\nhi\r\n",
    b"0x2\r\nhi\r\n",
    b"-1\r\n",
    b"2\r\nhi",
    b"\r",
    b"\n",
    b"GET / HTTP/1.1\r\n",
    b" folded\r\n",
    b"2;\x00\r\nhi\r\n",
    b"+2\r\nhi\r\n",
    b'2;a="\r\n"\r\nhi\r\n',
)


@given(st.lists(st.sampled_from(PARTS), max_size=6), st.sets(st.integers(1, 60), max_size=6))
def test_what_is_taken_is_what_llhttp_takes_however_it_is_cut(
    parts: list[bytes], cuts: set[int]
) -> None:
    for wire in (b"".join(parts), b"".join(parts) + b"0\r\n\r\n"):
        at = [0, *sorted(c for c in cuts if c < len(wire)), len(wire)]
        found = read([wire[a:b] for a, b in itertools.pairwise(at)])
        assert found == read([wire[i : i + 1] for i in range(len(wire))])
        if found is not None:
            parsed = Parsed(wire)
            assert parsed.done and parsed.body == found[0]


def test_the_end_of_the_body_is_found_in_the_middle_of_a_packet() -> None:
    assert read([b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\nGET /"]) == (b"hi", b"GET /")


def test_large_chunks_may_be_many_and_small_ones_may_not() -> None:
    chunks, taken = Chunks(), bytearray()
    large = b"400\r\n" + b"a" * 1024 + b"\r\n"
    for _ in range(3 * MAX_SMALL_CHUNKS):
        chunks.feed(large, 0, lambda _: None)
    chunks = Chunks()
    small = b"1\r\na\r\n"
    chunks.feed(small * MAX_SMALL_CHUNKS, 0, taken.extend)
    with pytest.raises(Refused) as refused:
        chunks.feed(small * 1000, 0, taken.extend)
    assert "small chunks" in refused.value.failure.message


@pytest.mark.parametrize(
    "wire", [b"2;" + b"e" * 300, b"0\r\n" + b"T: " + b"t" * 9000, b"0\r\n" + b"T:\r\n" * 65]
)
@pytest.mark.parametrize("step", [1, 100_000])
def test_lines_that_are_no_body_are_bounded(wire: bytes, step: int) -> None:
    chunks = Chunks()
    with pytest.raises(Refused):
        for at in range(0, len(wire), step):
            chunks.feed(wire[at : at + step], 0, lambda _: None)
    assert len(chunks._line) <= MAX_TRAILER_BYTES
