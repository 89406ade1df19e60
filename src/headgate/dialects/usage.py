"""What upstreams report of usage, read so that no mistake in it can harm the answer.

Each dialect has its struct of counts.  One that does not fit it (floats, texts, lists, numbers of
thirty digits) is read field by field, and what is no count is -1 there.  `usage_of` makes a
`chat.Usage` of the counts, or None where the main ones are not known: then the gateway estimates.
"""

import math
import types
import typing
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from headgate.bounds import MAX_COUNT, USAGE_BYTES
from headgate.chat import Usage

T = TypeVar("T", bound=Struct)

UNREADABLE = -1
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_value_decoder = msgspec.json.Decoder()
_DIGITS = 10  # of MAX_COUNT


def read(raw: Raw, decoder: "msgspec.json.Decoder[T]", type_: type[T]) -> T | None:
    """The counts of a usage object; None where it has none."""
    text = bytes(raw)
    if text in (b"", b"null"):
        return None
    if len(text) > USAGE_BYTES.most:
        return _read(b"{}", type_)
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _read(text, type_)


def _read(text: bytes, type_: type[T]) -> T:
    """The struct of a usage object, with -1 for each count that cannot be read."""
    try:
        stated = _fields_decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        stated = {}
    known: dict[str, object] = {}
    for field in msgspec.structs.fields(type_):
        value = bytes(stated.get(field.encode_name, b"null"))
        inner = _struct_in(field.type)
        if inner is not None:
            known[field.name] = _read(value, inner) if value.startswith(b"{") else None
        elif value != b"null":
            known[field.name] = _count(value)
    return type_(**known)


def _struct_in(annotation: object) -> type[Struct] | None:
    if isinstance(annotation, types.UnionType):
        for each in typing.get_args(annotation):
            if isinstance(each, type) and issubclass(each, Struct):
                return each
    return None


def _count(value: bytes) -> int:
    """A count of tokens as some upstream may write it: 12.0, "12"; else -1."""
    try:
        number = _value_decoder.decode(value)
        if isinstance(number, str) and len(number) <= _DIGITS and number.isascii():
            number = int(number) if number.isdigit() else None
        if isinstance(number, float) and math.isfinite(number):
            number = math.ceil(number)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return UNREADABLE
    if type(number) is int and 0 <= number <= MAX_COUNT:
        return number
    return UNREADABLE


def known(count: int | None) -> bool:
    """Whether a count was reported and can be believed."""
    return count is not None and 0 <= count <= MAX_COUNT


def usage_of(
    input: int | None,
    output: int | None,
    cached: int | None = 0,
    cache_write: int | None = 0,
    reasoning: int | None = 0,
) -> Usage | None:
    """The usage of these counts; None for zeros, and where a main count cannot be believed.

    Upstreams that know nothing yet report zeros.  A part is never larger than what it is part of.
    """
    whole, stated = input or 0, output or 0
    if not (0 <= whole <= MAX_COUNT and 0 <= stated <= MAX_COUNT and (whole or stated)):
        return None
    return Usage(
        whole, stated, _part(cached, whole), _part(cache_write, whole), _part(reasoning, stated)
    )


def _part(count: int | None, of: int) -> int:
    return 0 if count is None or count < 0 else min(count, of)
