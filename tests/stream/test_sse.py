"""Server-sent events: where an event ends, whatever the bytes are cut into."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.stream.sse import EventReader, EventTooLarge, encode

STREAM = (
    b"\xef\xbb\xbf: a comment\n\ndata: one\n\nevent: x\ndata:two\r\n\r\ndata: three\ndata: lines\n\n"
    b"id: 7\n\ndata\n\n: OPENROUTER PROCESSING\n\ndata: \xc3\xa9\xe2\x80\xa8\n\ndata: [DONE]\n"
)
PAYLOADS = [b"one", b"two", b"three\nlines", b"", b"\xc3\xa9\xe2\x80\xa8", b"[DONE]"]


def read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader()
    out = [payload for piece in pieces for payload in reader.feed(piece)]
    return out + reader.close()


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_reads_the_same_cut_at_any_byte(cut: int) -> None:
    assert read([STREAM[:cut], STREAM[cut:]]) == PAYLOADS


def test_a_stream_reads_the_same_byte_by_byte() -> None:
    assert read([bytes([b]) for b in STREAM]) == PAYLOADS
    crlf = STREAM.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert read([bytes([b]) for b in crlf]) == PAYLOADS


def test_a_line_cut_short_does_not_count() -> None:
    assert read([b'data: whole\n\ndata: {"cut']) == [b"whole"]


def test_an_event_past_the_bound_is_refused() -> None:
    reader = EventReader(max_event_bytes=100)
    with pytest.raises(EventTooLarge):
        for _ in range(20):
            reader.feed(b"data: 1234")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), max_size=5))
def test_what_is_encoded_is_read(texts: list[str]) -> None:
    stream = b"".join(encode(t.encode(), b"x") for t in texts)
    assert read([stream]) == [t.encode() for t in texts]
