"""Structured output that was asked for in words only: is the reply what the schema says, and if not?

The only place that judges a reply against a caller's JSON Schema, and the only one that takes an
answer out of the prose around it.  A reply that does not fit is asked for once more where the
operator allows it, and is never passed off as valid.

Schemas come from callers, so a validator must be safe with them.  `jsonschema-rs` 0.61 (read and
measured 2026-11) fetches nothing with `offline`, bounds its regular expressions (a fancy one gives
up after `_BACKTRACKS`, a plain one is linear) and stops at references that go in circles.
`jsonschema` and `fastjsonschema` match with `re`, which one pattern can stop forever, and the
latter runs code that it makes of the schema.  It is imported at the first use: 17 ms.

Note:
- a reason is for a model and a log, so it names places and keywords, in the caller's own words only:
  a key that the reply made up is shown as `*`;
- `format` is not checked, as JSON Schema makes it an annotation and models were sent no more;
- an answer is taken out of its prose only where it is the one JSON object there;
- a schema that would take too long is refused (`_MAX_SCHEMA`), except one whose alternatives refer
  back to it more than once for the same place: with a reply as deep it is slow.  Known.
"""

import json
import re
from typing import TYPE_CHECKING

import msgspec

from headgate import jsontext
from headgate.bounds import VALUES_BASE
from headgate.chat import Format, Message, Reply, Request, Text, Thinking, ToolCall

if TYPE_CHECKING:
    import jsonschema_rs

_BACKTRACKS = 10_000  # of a regular expression with look-around; some 10 ms
_PATTERN_BYTES = 1 << 20  # of one compiled regular expression
# Schemas with every reference written out: doubling ones reach 2^40 in forty lines.  One takes 10 ns.
_MAX_SCHEMA = 2_000_000
_MAX_REASON = 300  # characters
_MAX_POINTER = 160
_MAX_TEXT = 1 << 20  # characters; an answer is taken out of no longer prose
_MAX_TRIES = 64  # braces in prose that begin no object; each may cost the length of the text

_decoder = msgspec.json.Decoder()


def _decode(text: str) -> object:
    """JSON as a strict reader sees it; ValueError when it is none."""
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate") from None


def _validator(schema: bytes) -> "jsonschema_rs.Validator":
    """Raises ValueError when it cannot be used."""
    import jsonschema_rs  # here, as most gateways never need it

    root = _decode(schema.decode())
    if not isinstance(root, dict):
        raise ValueError("it is not an object")
    try:
        if _Sizes(root).of(root) > _MAX_SCHEMA:
            raise ValueError("it is too large with its references written out")
    except RecursionError:
        raise ValueError("its references go too deep") from None
    try:
        return jsonschema_rs.validator_for(
            root,
            offline=True,
            validate_formats=False,
            pattern_options=jsonschema_rs.FancyRegexOptions(
                backtrack_limit=_BACKTRACKS, size_limit=_PATTERN_BYTES
            ),
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(error.message) from None


class _Sizes:
    """How many schemas one becomes with its references written out, circles cut."""

    MAPS = ("properties", "patternProperties", "dependentSchemas")
    OTHERS = (
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "items",
        "prefixItems",
        "contains",
        "additionalItems",
        "additionalProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    )

    def __init__(self, root: object) -> None:
        self._root = root
        self._known: dict[int, int] = {}  # by the identity of what is referred to

    def of(self, schema: object) -> int:
        if isinstance(schema, list):
            return sum(map(self.of, schema))
        if not isinstance(schema, dict):
            return 1
        parts = [schema[key] for key in self.OTHERS if key in schema]
        for key in self.MAPS:
            if isinstance(some := schema.get(key), dict):
                parts += some.values()
        size = 1 + sum(map(self.of, parts))
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(ref := schema.get(key), str):
                size += self._referred(ref)
        return size

    def _referred(self, ref: str) -> int:
        found = self._find(ref)
        if id(found) not in self._known:
            self._known[id(found)] = 0  # while it is looked at: a circle ends here
            self._known[id(found)] = self.of(found)
        return self._known[id(found)]

    def _find(self, ref: str) -> object:
        at = self._root
        start, *steps = ref.split("/")
        for step in steps:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(at, list) and step.isdecimal() and len(step) < 6 and int(step) < len(at):
                at = at[int(step)]
            elif isinstance(at, dict) and step in at:
                at = at[step]
            else:
                start = ""
        if start != "#":
            raise ValueError("a reference in it is not to a place in it, as in `#/$defs/name`")
        return at


def fault(format: Format) -> str | None:
    """Why the caller's schema can judge nothing, in words for the caller; None when it can.

    To be asked before the request is sent: the tokens of the reply would be spent for nothing.
    """
    if format.kind == "object":
        return None
    try:
        _validator(bytes(format.schema))
    except ValueError as error:
        return f"The JSON Schema cannot be used: {error}"[:_MAX_REASON]
    return None


def check(text: str, format: Format) -> str | None:
    """None when the text is the JSON that was asked for, else one reason why not.

    The reason has a JSON pointer to the place (as RFC 6901 section 6 writes it: `#` is all of it),
    and nothing of the reply.
    """
    if not jsontext.within(text, VALUES_BASE):
        return f"at `#`: it has more than {VALUES_BASE} values"
    try:
        value = _decode(text)
    except ValueError:
        return "at `#`: it is not one JSON value" if text.strip() else "at `#`: it is empty"
    if format.kind == "object":
        return None if isinstance(value, dict) else "at `#`: it must be of type object"
    schema = bytes(format.schema)
    try:
        validator = _validator(schema)
    except ValueError:
        return "at `#`: the JSON Schema cannot be used"
    error = next(iter(validator.iter_errors(value)), None)
    if error is None:
        return None
    known = _Words(schema)
    said = f"at `{_pointer(error.instance_path, known)}`: {_words(error.kind, known)}"
    return said[:_MAX_REASON]


class _Words:
    """The strings that the caller's schema holds: what may be repeated."""

    def __init__(self, schema: bytes) -> None:
        self._strings: set[str] = set()
        waiting: list[object] = [_decoder.decode(schema)]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                self._strings.add(value)
            elif isinstance(value, dict):
                self._strings.update(value)
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)

    def show(self, word: str) -> str:
        return word if word in self._strings else "*"


def _pointer(path: "list[str | int]", known: _Words) -> str:
    steps = [
        str(step)
        if isinstance(step, int)
        else known.show(step).replace("~", "~0").replace("/", "~1")
        for step in path
    ]
    pointer = "#" + "".join(f"/{step}" for step in steps)
    return pointer if len(pointer) <= _MAX_POINTER else f"{pointer[: _MAX_POINTER - 4]}/..."


def _words(kind: "jsonschema_rs.ValidationErrorKind", known: _Words) -> str:
    """What the keyword asks for; its value is the caller's own, save where the reply is in it."""
    match kind.name, kind.value:
        case "type", str(name):
            return f"it must be of type {name}"
        case "type", [*names]:
            return f"it must be of type {' or '.join(map(str, names))}"
        case "required", str(name):
            return f"the property `{known.show(name)}` is missing"
        case "additionalProperties" | "unevaluatedProperties", _:
            return "it has a property that is not allowed"
        case "enum", [*options]:
            return f"it must be one of {_json(options)}"
        case "const", value:
            return f"it must be {_json(value)}"
        case "anyOf" | "oneOf", _:
            return f"it fits not one of the alternatives of `{kind.name}`"
        case (
            "minimum"
            | "maximum"
            | "exclusiveMinimum"
            | "exclusiveMaximum"
            | "multipleOf"
            | "minLength"
            | "maxLength"
            | "minItems"
            | "maxItems"
            | "minProperties"
            | "maxProperties"
            | "pattern",
            value,
        ):
            return f"`{kind.name}` is {_json(value)}"
        case _:
            return f"it does not satisfy `{known.show(kind.name)}`"


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:96]} ..."


# --- taking the answer out ------------------------------------------------------------------------

_FENCED = re.compile(r"```[\w+.-]{0,16}[ \t]{0,8}\r?\n(.*?)\r?\n?[ \t]{0,8}```", re.DOTALL)
_loose = json.JSONDecoder()


def extract(text: str) -> str:
    """The one JSON object in a text that is wrapped in prose or fences; else the text unchanged.

    A text that is JSON already is what it is, to the byte.
    """
    if len(text) > _MAX_TEXT or _is_json(text):
        return text
    blocks = [b for b in (m[1].strip() for m in _FENCED.finditer(text)) if _is_object(b)]
    if not blocks:
        blocks = _objects(text)
    return blocks[0] if len(blocks) == 1 else text


def _objects(text: str) -> list[str]:
    """The outermost objects that stand in the text, the first two of them."""
    out: list[str] = []
    at = 0
    for _ in range(_MAX_TRIES):
        at = text.find("{", at)
        if at < 0 or len(out) == 2:
            return out
        try:
            _, end = _loose.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if _is_object(text[at:end]):  # as the strict reader sees it, without NaN
            out.append(text[at:end])
        at = end
    return []  # too many braces to say which one is meant


def _is_json(text: str) -> bool:
    try:
        _decode(text)
    except ValueError:
        return False
    return True


def _is_object(text: str) -> bool:
    return text.startswith("{") and _is_json(text)


# --- a whole reply --------------------------------------------------------------------------------


def settle(reply: Reply, format: Format) -> tuple[Reply, str | None]:
    """The reply with its answer taken out, and why it still is not valid; None when it is.

    A reply that calls tools has no answer yet, and is left alone.
    """
    if any(isinstance(part, ToolCall) for part in reply.parts):
        return reply, None
    text = "".join(part.text for part in reply.parts if isinstance(part, Text))
    answer = extract(text)
    if answer != text:
        others = tuple(part for part in reply.parts if not isinstance(part, Text))
        reply = msgspec.structs.replace(reply, parts=(*others, Text(answer)))
    return reply, check(answer, format)


def repairable(reply: Reply) -> bool:
    """Whether asking once more may help: not for a reply that was cut, or was filtered."""
    return reply.finish.reason == "stop"


def repair_request(request: Request, reply: Reply, reason: str) -> Request:
    """The one more try: the request as it was sent, the reply that was bad, and what was wrong.

    `request` is the fitted one, so that the schema's instruction is in its system text, and all that
    came before is the same to the byte and may be cached.
    """
    parts = tuple(
        p for p in reply.parts if isinstance(p, Thinking) or (isinstance(p, Text) and p.text)
    )
    # MiniMax refuses empty content (2013), and thinking alone is no content.
    said = any(isinstance(p, Text) and not p.text.isspace() for p in parts)
    wish = (
        f"Your reply is not what was asked for: {reason}. Answer again with the corrected JSON"
        " object and nothing else: no prose around it and no Markdown fences."
    )
    messages = (Message("assistant", parts),) if said else ()
    return msgspec.structs.replace(
        request, messages=(*request.messages, *messages, Message("user", (Text(wish),)))
    )


__all__ = ["check", "extract", "fault", "repair_request", "repairable", "settle"]
