"""Earlier turns whose JSON has another shape than the protocol's: they are mended, never refused.

A dialect calls `mended` after it refused a body, so that usual requests pay nothing.  The last turn
stays as it came: its sender can change it, and gets the place of the fault.
"""

from collections.abc import Callable

import msgspec
from msgspec import Raw

from headgate import bounds, jsontext
from headgate.errors import Refused

Fields = dict[str, Raw]


def mended(
    body: bytes, refused: Refused, name: str, mend: Callable[[Raw, list[str]], Raw | None]
) -> tuple[bytes, tuple[str, ...]]:
    """The body with the turns of its list `name` mended, and the warnings; else `refused` again.

    `mend` gets each turn but the last; None stands for a turn that is left out.
    """
    failure, warnings = refused.failure, list[str]()
    if failure.kind != "invalid" or not failure.param.startswith(f"$.{name}["):
        raise refused
    try:
        fields = msgspec.json.decode(body, type=Fields)
        turns = msgspec.json.decode(fields[name], type=list[Raw])
        jsontext.check_duplicates(body)
        bounds.check_size(turns, bounds.MESSAGES, f"$.{name}")
        earlier = [turn for raw in turns[:-1] if (turn := mend(raw, warnings)) is not None]
    except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeError):
        raise refused from None
    if [bytes(turn) for turn in earlier] == [bytes(turn) for turn in turns[:-1]]:
        raise refused
    fields[name] = Raw(msgspec.json.encode([*earlier, *turns[-1:]]))
    return msgspec.json.encode(fields), tuple(dict.fromkeys(warnings))


def fields_of(raw: Raw) -> Fields | None:
    """Return the fields of an object; None for any other value."""
    return msgspec.json.decode(raw, type=Fields) if bytes(raw).startswith(b"{") else None


def is_text(raw: Raw | None) -> bool:
    return raw is not None and bytes(raw).startswith(b'"')


def is_list(raw: Raw | None) -> bool:
    return raw is not None and bytes(raw).startswith(b"[")
