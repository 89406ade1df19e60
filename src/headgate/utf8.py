"""Bytes that should be UTF-8, and the halves of surrogate pairs that JSON lets through."""

import re
from collections.abc import Iterator

_SLICE = 1 << 16  # bytes that are looked at together, so that their pieces are few
_CHECKED = 1 << 12  # the same, where most are looked at for ASCII only


def check(text: bytes) -> None:
    """Raise UnicodeDecodeError for what is no UTF-8.

    It is decoded in slices, and only those that are not ASCII, as the whole text of a large body would take
    twice its memory for nothing.
    """
    if text.isascii():
        return
    for piece in _characters(text, _CHECKED):
        if not piece.isascii():
            try:
                piece.decode()
            except UnicodeDecodeError:
                text.decode()  # whose error names the place in the whole text
                raise


# An escaped half that its other half does not follow, or does not precede, where no escaped
# backslash is left.
_LONE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB]..\\u[dD][c-fC-F]..))",
    re.DOTALL,
)
_HIGH = re.compile(rb"\\u[dD][89abAB]..", re.DOTALL)
_LOW = re.compile(rb"\\u[dD][c-fC-F]")
_LONE_BYTES = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")


def without_lone_surrogates(body: bytes) -> bytes:
    """The body with U+FFFD for each half of a surrogate pair that stands alone; the same if there is none.

    JavaScript cuts strings between the halves; such a text stays in its client's history for good.
    Slices of the body are looked at one by one, as each call keeps Python's lock: 23 MB of lone
    halves take 0.6 s, and other threads wait for 2 ms at a time.
    """
    if (b"\\ud" in body or b"\\uD" in body) and b"\0" not in body:  # a NUL is no JSON
        bare = body.replace(b"\\\\", b"\0\0")
        slices = [bare[at:end] for at, end in _slices(bare)]
        whole = [_LONE.sub(rb"\\ufffd", piece) for piece in slices]
        if whole != slices:
            body = b"".join(whole).replace(b"\0\0", b"\\\\")
    if b"\xed" in body and not body.isascii():
        slices = list(_characters(body, _SLICE))
        whole = [_LONE_BYTES.sub(b"\xef\xbf\xbd", piece) for piece in slices]
        if whole != slices:
            body = b"".join(whole)
    return body


def _slices(bare: bytes) -> Iterator[tuple[int, int]]:
    """Where slices begin and end, none within an escape or a surrogate pair."""
    at, size = 0, len(bare)
    while at < size:
        end = bare.find(b"\\", at + _SLICE)
        if end < 0:
            end = size
        elif _LOW.match(bare, end) and _HIGH.match(bare, end - 6, end):
            end += 6
        yield at, end
        at = end


def _characters(body: bytes, slice_size: int) -> Iterator[bytes]:
    """Slices of a body, none of which ends within a character."""
    at, size = 0, len(body)
    while at < size:
        end = at + slice_size
        for _ in range(3):
            end += end < size and 0x80 <= body[end] < 0xC0
        yield body[at:end]
        at = end


def whole_text(text: str) -> str:
    """Surrogates, which JSON can smuggle in and UTF-8 cannot carry, joined or replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
