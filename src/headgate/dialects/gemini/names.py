"""Gemini's names of fields in camelCase, for bodies that have some of them in snake_case.

proto JSON takes both, mixed in one body.  Nearly all clients write camelCase, and their bytes are
left as they are; the others' are written anew, token by token, without building their values.
"""

import re
from collections.abc import Iterable

from headgate import jsontext
from headgate.errors import invalid

# What stands below these keys is the caller's own: its names are not ours to change.
_OPAQUE = frozenset(
    (
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
        "executableCode",
        "codeExecutionResult",
    )
)
_TOKEN = re.compile(rb'("(?:[^"\\]++|\\.)*+")(?:(\s*:\s*)(null\b)?)?|[][{}]', re.DOTALL)


def camel(key: str) -> str:
    if "_" not in key:
        return key
    first, *rest = key.split("_")
    return first + "".join(w[:1].upper() + w[1:] for w in rest) if first else key


class Finder:
    """Looks for any of these names, in snake_case, as a key of some object."""

    def __init__(self, names: Iterable[str]) -> None:
        words = sorted({name.encode() for name in names if "_" in name})
        ends = sorted({word.rpartition(b"_")[2] for word in words})
        # Underscores are fewer than quotes, so the ends of the names are looked for first.
        self._ends = re.compile(b"_(?:" + b"|".join(ends) + rb')"\s*:')
        self._words = re.compile(b'"(?:' + b"|".join(words) + rb')"\s*:')

    def found(self, body: bytes) -> bool:
        return self._ends.search(body) is not None and self._words.search(body) is not None


def in_camel_case(body: bytes) -> bytes:
    """The body with every name of ours in camelCase; Refused when one object has a name twice.

    A key whose value is null counts as absent, and loses its name.
    """
    out: list[bytes] = []
    done = 0  # bytes of the body that are in `out`
    seen: list[set[str]] = []  # the names of each open object, the innermost last
    opaque = 0  # the depth that ends what is the caller's own; 0 outside of it
    begins = False  # the next token begins what is the caller's own, if it is a bracket
    for token in _TOKEN.finditer(body):
        key = token[1]
        if key is None:
            if token[0] in b"{[":
                if len(seen) >= jsontext.MAX_DEPTH:
                    raise invalid(f"Nested deeper than {jsontext.MAX_DEPTH} levels.", "$")
                seen.append(set())
                if begins and not opaque:
                    opaque = len(seen)
            elif seen:
                if len(seen) == opaque:
                    opaque = 0
                seen.pop()
        elif not opaque and token[2] is not None and seen:
            name = camel(key[1:-1].decode("utf-8", "replace"))
            if token[3] is not None:
                name = "_"
            elif name in seen[-1]:
                raise invalid(
                    f"The key `{name[:64]}` is given twice in one object; send it once.", "$"
                )
            else:
                seen[-1].add(name)
            if b"_" in key or name == "_":
                out += (body[done : token.start()], b'"' + name.encode() + b'"')
                done = token.end(1)
            begins = name in _OPAQUE
            continue
        begins = False
    out.append(body[done:])
    return b"".join(out)
