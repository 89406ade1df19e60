"""Parameters of a request that its protocol does not have: left out with a warning, never in silence.

The types of a request (each dialect's `request_wire`) forbid unknown fields where clients put parameters.  A body
that is refused for one is read anew without them, so that usual requests pay nothing.  What clients send often and
loses nothing is a field of those types, and gets no warning.
"""

import re
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw, Struct

from headgate import jsontext
from headgate.chat import Request
from headgate.dialects.unknown import named, warned
from headgate.errors import Refused

Fields = dict[str, Raw]
# The address of an object, with [] for any place in a list: the names that it may have.
Places = Mapping[str, frozenset[str]]
_INDEX = re.compile(r"\[\d+\]")
# Of Gemini's countTokens: a whole request, whose places are the same.
_OUTER = "generateContentRequest"
_ASKS_NOTHING = (b"null", b"[]", b"{}", b'""')
_MOST = 4_096  # warnings that are collected, before those that are the same are joined
_UNKNOWN = "Object contains unknown field"  # as msgspec says it


def names_of(struct: type[Struct]) -> frozenset[str]:
    """Return the names that the fields of a type have in JSON."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(struct))


def is_for(refused: Refused, place: str) -> bool:
    """Whether it is a refusal of a field that the object at `place` does not have."""
    failure = refused.failure
    return failure.param.startswith(place) and failure.message.startswith(_UNKNOWN)


def is_at(refused: Refused, places: Places) -> bool:
    """Whether it is a refusal of a field that the object at one of the places does not have."""
    return is_for(refused, "$") and _place_of(refused) in places


def _place_of(refused: Refused) -> str:
    place = _INDEX.sub("[]", refused.failure.param)
    outer = f"$.{_OUTER}"
    return "$" + place.removeprefix(outer) if place.startswith(outer) else place


def read(
    reader: Callable[[bytes], Request],
    body: bytes,
    places: Places,
    rewrite: Callable[[Fields, list[str]], None] | None = None,
    silent: frozenset[str] = frozenset(),
) -> Request:
    """What `reader` makes of the body without the fields that are unknown at `places`.

    `rewrite` may first put what it knows of other vendors' fields at the top into the protocol's own.
    Fields that are `silent` are the vendor's own, which no warning names; they are rare.
    """
    warnings: list[str] = []
    for _ in places:
        try:
            request = reader(body)
        except Refused as refused:
            if not is_at(refused, places):
                raise
            place = _place_of(refused)
            try:
                jsontext.check_duplicates(body)
                steps = place.split(".")[1:]
                names = places[place], silent
                whole = _without(Raw(body.strip()), steps, "", names, warnings, rewrite)
                if _OUTER in places["$"]:
                    whole = _without(whole, [_OUTER, *steps], "", names, warnings, None)
                body = bytes(whole)
            except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeError):
                raise refused from None
        else:
            return request.warn(*warned(warnings)) if warnings else request
    return reader(body).warn(*warned(warnings))


def _without(
    raw: Raw,
    steps: list[str],
    prefix: str,
    names: tuple[frozenset[str], frozenset[str]],  # known, and silent
    warnings: list[str],
    rewrite: Callable[[Fields, list[str]], None] | None,
) -> Raw:
    """Return a value without the fields that the objects below it do not have."""
    if bytes(memoryview(raw)[:1]) != b"{":
        return raw
    fields = msgspec.json.decode(raw, type=Fields)
    if steps:
        first, *rest = steps
        name = first.removesuffix("[]")
        if name in fields:
            within, inner = fields[name], f"{prefix}{first}."
            if first.endswith("[]") and bytes(memoryview(within)[:1]) == b"[":
                each = msgspec.json.decode(within, type=list[Raw])
                fields[name] = Raw(
                    msgspec.json.encode(
                        [_without(one, rest, inner, names, warnings, None) for one in each]
                    )
                )
            else:
                fields[name] = _without(within, rest, inner, names, warnings, None)
        return Raw(msgspec.json.encode(fields))
    if rewrite is not None:
        rewrite(fields, warnings)
    known, silent = names
    for name in [name for name in fields if name not in known]:
        if bytes(fields.pop(name)) not in _ASKS_NOTHING and name not in silent:
            warning = f"{prefix}{named(name)}"
            if warning not in warnings[-1:] and len(warnings) < _MOST:
                warnings.append(warning)
    return Raw(msgspec.json.encode(fields))
