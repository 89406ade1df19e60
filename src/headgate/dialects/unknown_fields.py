"""Parameters of a request that its protocol does not have: left out with a warning, never in silence.

The types of a request (each dialect's `request_wire`) forbid unknown fields where clients put parameters.  A body
that is refused for one is read anew without them, so that usual requests pay nothing.  What clients send often and
loses nothing is a field of those types, and gets no warning.
"""

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw, Struct

from headgate import jsontext
from headgate.chat import Request
from headgate.dialects.unknown import named, warned
from headgate.errors import Refused

Fields = dict[str, Raw]
Places = Mapping[str, frozenset[str]]  # the address of an object: the names that it may have
_ASKS_NOTHING = (b"null", b"[]", b"{}", b'""')
_UNKNOWN = "Object contains unknown field"  # as msgspec says it


def names_of(struct: type[Struct]) -> frozenset[str]:
    """Return the names that the fields of a type have in JSON."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(struct))


def is_for(refused: Refused, place: str) -> bool:
    """Whether it is a refusal of a field that the object at `place` does not have."""
    failure = refused.failure
    return failure.param.startswith(place) and failure.message.startswith(_UNKNOWN)


def read(
    reader: Callable[[bytes], Request],
    body: bytes,
    places: Places,
    rewrite: Callable[[Fields, list[str]], None] | None = None,
) -> Request:
    """What `reader` makes of the body without the fields that are unknown at `places`.

    `rewrite` may first put what it knows of other vendors' fields at the top into the protocol's own.
    """
    warnings: list[str] = []
    for _ in places:
        try:
            request = reader(body)
        except Refused as refused:
            place = refused.failure.param
            if place not in places or not is_for(refused, place):
                raise
            try:
                jsontext.check_duplicates(body)
                steps = place.split(".")[1:]
                body = bytes(_without(Raw(body), steps, "", places[place], warnings, rewrite))
            except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeError):
                raise refused from None
        else:
            return request.warn(*warned(warnings)) if warnings else request
    return reader(body).warn(*warned(warnings))


def _without(
    raw: Raw,
    steps: list[str],
    prefix: str,
    known: frozenset[str],
    warnings: list[str],
    rewrite: Callable[[Fields, list[str]], None] | None,
) -> Raw:
    fields = msgspec.json.decode(raw, type=Fields)
    if steps:
        first, *rest = steps
        fields[first] = _without(fields[first], rest, f"{prefix}{first}.", known, warnings, None)
        return Raw(msgspec.json.encode(fields))
    if rewrite is not None:
        rewrite(fields, warnings)
    for name in [name for name in fields if name not in known]:
        if bytes(fields.pop(name)) not in _ASKS_NOTHING:
            warnings.append(f"{prefix}{named(name)}")
    return Raw(msgspec.json.encode(fields))
