"""Hints whose JSON has another type than the protocol's: they are left out with a warning, never refused.

For Messages and Gemini, as dialects/unknown.py does it for OpenAI's protocols.  What is a hint is the dialect's
own list, of addresses as a refusal has them; `[]` stands for any place in a list.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from headgate import jsontext
from headgate.chat import Request
from headgate.errors import Refused

MOST = 8  # hints of one request, as the body is read anew for each
_STEP = re.compile(r"\.([A-Za-z_]+)|\[(\d+)\]")


def read(reader: Callable[[bytes], Request], body: bytes, known: Collection[str]) -> Request:
    """What `reader` makes of the body without the hints that it refuses; Refused for all else."""
    warnings: list[str] = []
    for _ in range(MOST):
        try:
            request = reader(body)
        except Refused as refused:
            address = refused.failure.param
            name = re.sub(r"\[\d+\]", "[]", address.removeprefix("$."))
            if refused.failure.kind != "invalid" or refused.failure.code or name not in known:
                raise
            without = _without(body, _STEP.findall(address.removeprefix("$")), refused)
            warnings.append(name.replace("[]", ""))
            body = without
        else:
            return request.warn(*warnings) if warnings else request
    return reader(body).warn(*warnings)


def _without(body: bytes, steps: list[tuple[str, str]], refused: Refused) -> bytes:
    """The body without the field at these steps, in either spelling of its names."""
    try:
        tree: Any = msgspec.json.decode(body)  # Any: a client's JSON
        jsontext.check_duplicates(body)
        at = tree
        for name, number in steps[:-1]:
            at = at[int(number)] if number else at[_spelled(at, name)]
        del at[_spelled(at, steps[-1][0])]
    except (msgspec.MsgspecError, LookupError, TypeError, RecursionError, UnicodeError):
        raise refused from None
    return msgspec.json.encode(tree)


def _spelled(fields: dict[str, Any], name: str) -> str:
    """The name as the client wrote it: Gemini's may be in snake case."""
    if name in fields:
        return name
    return re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", name)
