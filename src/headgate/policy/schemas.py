"""Judging a reply against the schema that was asked for, with bounds on its size."""

import json
from typing import TYPE_CHECKING

import msgspec

from headgate import jsontext
from headgate.bounds import VALUES_BASE
from headgate.chat import Format

if TYPE_CHECKING:
    import jsonschema_rs

_BACKTRACKS = 10_000  # of a regular expression with look-around; some 10 ms
_PATTERN_BYTES = 1 << 20  # of one compiled regular expression
# Schemas with every reference written out: doubling ones reach 2^40 in forty lines.  One takes 10 ns.
_MAX_SCHEMA = 2_000_000
_MAX_REASON = 300  # characters
_MAX_POINTER = 160


_decoder = msgspec.json.Decoder()


def decode(text: str) -> object:
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

    root = decode(schema.decode())
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
        value = decode(text)
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
    stated = f"at `{_pointer(error.instance_path, known)}`: {_words(error.kind, known)}"
    return stated[:_MAX_REASON]


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
