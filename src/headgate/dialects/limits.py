"""The limit of a reply's tokens where a client writes it in another way than its protocol.

Clients mean no limit by 0 (a form's empty field, proto3's default) and by -1 (llama.cpp's word for it), and send
whole numbers as floats and as strings.  A number above every model's output limits nothing.  Any other value is
refused by the dialect, which names the field.

Note: 0 asks Anthropic's API to fill the prompt cache without a reply (anthropic 2.12, `max_tokens`).  No
upstream of ours has that, and one token comes nearest.
"""

import re
from collections.abc import Callable

import msgspec
from msgspec import Raw

from headgate import jsontext
from headgate.bounds import MAX_TOKENS_BOUND
from headgate.chat import Request
from headgate.errors import Refused

Fields = dict[str, Raw]
Path = tuple[str, ...]  # from the body to the limit

# A whole number in any of the forms; its digits are bounded, as those of a client's number are not.
_WHOLE = re.compile(rb'"?(-?[0-9]{1,40})(?:\.0{1,20})?"?')


def read(
    reader: Callable[[bytes], Request], body: bytes, *paths: Path, of_zero: int | None = None
) -> Request:
    """What `reader` makes of the body, with the limits at `paths` as whole numbers if it must.

    Only a body that is refused for its limit is looked into.  `of_zero` is what a limit of 0 becomes; None: no
    limit.
    """
    try:
        return reader(body)
    except Refused as refused:
        if refused.failure.param.rpartition(".")[2] not in {path[-1] for path in paths}:
            raise
        warnings: list[str] = []
        try:
            jsontext.check_duplicates(body)
            fields = msgspec.json.decode(body, type=Fields)
            for path in paths:
                _mend(fields, path, path, of_zero, warnings)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise refused from None
        again = msgspec.json.encode(fields)
    return reader(again).warn(*warnings)


def _mend(
    fields: Fields, path: Path, whole: Path, of_zero: int | None, warnings: list[str]
) -> None:
    """Write the limit at `path` below `fields` in the protocol's own way."""
    name, *rest = path
    raw = bytes(fields.get(name, b"")).strip()
    if rest and raw.startswith(b"{"):
        inner = msgspec.json.decode(raw, type=Fields)
        _mend(inner, tuple(rest), whole, of_zero, warnings)
        fields[name] = Raw(msgspec.json.encode(inner))
    elif not rest and (found := _WHOLE.fullmatch(raw)):
        value, place = int(found[1]), ".".join(whole)
        if value == 0 and of_zero is not None:
            fields[name] = Raw(msgspec.json.encode(of_zero))
            warnings.append(f"{place} (0 sent as {of_zero})")
        elif value in (0, -1) or value > MAX_TOKENS_BOUND:
            del fields[name]
            warnings.append(place)
        elif value > 0:
            fields[name] = Raw(msgspec.json.encode(value))
