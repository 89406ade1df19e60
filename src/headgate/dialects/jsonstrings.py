"""Strings of a client's body that stay JSON, as nobody needs to look at most of them.

JSON strings have one form in all protocols, so a long text goes from the client's body to the upstream's
without being decoded.  A wire struct types such a field `Raw` and asks here what it holds; a wrong type
is refused in the same words as for typed fields.

What is returned is a copy, as a `Raw` of a decoder keeps the whole body in memory, with the pictures in it.

Note: msgspec validates what it passes over (escapes, control characters, surrogate pairs) except for
UTF-8, which `jsontext.decode_request` does.
"""

from typing import TypeVar

import msgspec
from msgspec import Raw

from headgate.errors import invalid

T = TypeVar("T")

ABSENT = Raw(b"")
_EMPTY = (b"", b"null", b'""')
_QUOTE = ord('"')

_string_decoder = msgspec.json.Decoder(str | None)


def string(raw: Raw, place: str, field: str) -> Raw | None:
    """Return a field's JSON string; None where it is empty, null or missing.

    `place` is the address of the object that has the field; an error names both.
    """
    view = memoryview(raw)
    if view.nbytes > 2 and view[0] == _QUOTE:
        return raw.copy()
    if view.nbytes > 4 or bytes(raw) not in _EMPTY:
        decoded(_string_decoder, raw, f"{place}.{field}")
    return None


def string_or_list(
    raw: Raw, decoder: "msgspec.json.Decoder[str | list[T] | None]", place: str, field: str
) -> Raw | list[T] | None:
    """Return a field's JSON string, or its list as the decoder reads it; None where it is empty."""
    view = memoryview(raw)
    if view.nbytes > 2 and view[0] == _QUOTE:
        return raw.copy()
    if view.nbytes <= 4 and bytes(raw) in _EMPTY:
        return None
    found = decoded(decoder, raw, f"{place}.{field}")
    return None if isinstance(found, str) else found


def string_or_none(raw: Raw) -> Raw | None:
    """Return a field's JSON string; None where it is empty or something else."""
    view = memoryview(raw)
    return raw.copy() if view.nbytes > 2 and view[0] == _QUOTE else None


def decoded(decoder: "msgspec.json.Decoder[T]", raw: Raw, where: str) -> T:
    """Return the value of a field; Refused with its place in the body where it has another type."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        place = where + place.strip("`").removeprefix("$")
        raise invalid(f"{message} - at `{place}`", place) from None


def may_hold(raw: Raw, character: bytes) -> bool:
    """Whether a JSON string may hold this ASCII character, plain or escaped."""
    json = bytes(raw)
    return json.find(character) >= 0 or json.find(b"\\u00") >= 0
