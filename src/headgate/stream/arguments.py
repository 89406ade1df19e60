"""What the arguments of a call should be, by the schema of its tool.

The only place that reads a schema for what a text stands for, and that mends arguments which the
declared schema would refuse, where only one meaning is possible: `"3"` for an integer.

Note: of alternatives that differ none is followed, and a schema that cannot be read
says nothing, so that what is not surely meant stays as the model wrote it, to the byte.
"""

import re
from collections.abc import Sequence

import msgspec

from headgate.chat import Tool

MAX_DEPTH = 32  # of values within values
MAX_COERCED = 1 << 18  # characters; longer arguments stay as they were written
_MAX_PARTS = 64  # alternatives of one schema that are read; references may go in circles


class _Schema(msgspec.Struct, frozen=True):
    """What we read of a schema; a keyword that is not as it should be makes it say nothing."""

    type: str | tuple[str, ...] = ()
    properties: dict[str, msgspec.Raw] = {}
    items: msgspec.Raw = msgspec.Raw(b"")
    additionalProperties: msgspec.Raw = msgspec.Raw(b"")
    anyOf: tuple[msgspec.Raw, ...] = ()
    oneOf: tuple[msgspec.Raw, ...] = ()
    allOf: tuple[msgspec.Raw, ...] = ()
    enum: tuple[object, ...] = ()
    const: object = msgspec.UNSET
    nullable: bool = False  # OpenAPI's
    defs: dict[str, msgspec.Raw] = msgspec.field(default={}, name="$defs")
    definitions: dict[str, msgspec.Raw] = {}
    ref: str = msgspec.field(default="", name="$ref")


_schema_decoder = msgspec.json.Decoder(_Schema)
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_array = msgspec.json.Decoder(list[msgspec.Raw])
_any_decoder = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
_SILENT = _Schema()
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,307})(?:\.[0-9]{1,307})?(?:[eE][+-]?[0-9]{1,2})?")
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]{0,307}))(?:\.0{1,16})?")
_KINDS = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}


class Type:
    """A schema with its references followed: what it allows, and where its parts are."""

    __slots__ = ("_element", "_members", "_others", "_root", "enum", "schema", "types")

    def __init__(self, raw: bytes | msgspec.Raw, root: "_Schema | None" = None) -> None:
        stated = self._read(raw)
        self._root = stated if root is None else root
        schemas = self._flat(stated)
        self.types = self._types(schemas)  # what a value may be; empty when no schema has any
        self.enum = _members(next((s.enum for s in schemas if s.enum), ()))
        # What was asked for before; a schema is read once, however many values it is asked for.
        self._members: dict[str, Type] = {}
        self._others: Type | None = None
        self._element: Type | None = None
        objects = [s for s in schemas if s.properties]
        arrays = [s for s in schemas if s.items]
        # Of alternatives that differ we follow none: which is meant is not ours to guess.
        self.schema = _Schema(
            properties=objects[0].properties if len(objects) == 1 else {},
            items=arrays[0].items if len(arrays) == 1 else msgspec.Raw(b""),
            additionalProperties=objects[0].additionalProperties
            if len(objects) == 1
            else stated.additionalProperties,
        )

    @staticmethod
    def _read(raw: bytes | msgspec.Raw) -> _Schema:
        try:
            return _schema_decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError):  # `true`, or no schema
            return _SILENT

    def _flat(self, schema: _Schema) -> list[_Schema]:
        """The schema and all that it is made of, without what is inside of values."""
        out = [schema]
        for each in out:  # it grows
            parts = [*each.anyOf, *each.oneOf, *each.allOf]
            if each.ref:
                where, _, name = each.ref.rpartition("/")
                root, nothing = self._root, msgspec.Raw(b"")
                tables = {"#/$defs": root.defs, "#/definitions": root.definitions}
                parts.append(tables.get(where, {}).get(name, nothing))
            if len(out) + len(parts) > _MAX_PARTS:
                return [*out, _SILENT]  # what we cannot follow is silent, as a reference elsewhere
            out += map(self._read, parts)
        return out

    @staticmethod
    def _types(schemas: Sequence[_Schema]) -> frozenset[str]:
        out: set[str] = set()
        for n, schema in enumerate(schemas):
            stated = (schema.type,) if isinstance(schema.type, str) else schema.type
            if schema.nullable:
                out.add("null")
            if stated:
                out.update(stated)
            elif schema.enum:
                out.update(_KINDS[type(v)] for v in schema.enum)
            elif schema.const is not msgspec.UNSET:
                out.add(_KINDS[type(schema.const)])
            elif schema.properties:
                out.add("object")
            elif schema.items:
                out.add("array")
            elif n and not (schema.ref or schema.anyOf or schema.oneOf or schema.allOf):
                out.add("string")  # an alternative that allows anything allows what was written
        return frozenset(out)

    def member(self, name: str) -> "Type":
        raw = self.schema.properties.get(name)
        if raw is None:
            if self._others is None:
                raw = self.schema.additionalProperties
                self._others = Type(raw, self._root) if raw else ANY
            return self._others
        known = self._members.get(name)
        if known is None:
            known = self._members[name] = Type(raw, self._root) if raw else ANY
        return known

    def element(self) -> "Type":
        if self._element is None:
            raw = self.schema.items
            self._element = Type(raw, self._root) if raw else ANY
        return self._element

    def literal(self, text: str) -> str | None:
        """The JSON that a text stands for when it stands for anything but itself."""
        types, text = self.types, text.strip()
        found = None
        if text == "null":
            found = "null" if "null" in types else None
        elif "integer" in types and (whole := _INTEGER.fullmatch(text)):
            found = whole[1]
        elif "number" in types and _NUMBER.fullmatch(text):
            found = text
        elif "boolean" in types and text.lower() in ("true", "false"):
            found = text.lower()  # Python's True as well
        elif text[:1] in ("{", "["):
            kind = "object" if text[0] == "{" else "array"
            # A schema that says nothing still does not want a list as a string.
            if (not types or kind in types) and _kind(text) == kind:
                found = text
        return found if found is None or not self.enum or self._is_one(found) else None

    def _is_one(self, found: str) -> bool:
        value = _any_decoder.decode(found)
        if isinstance(self.enum, frozenset) and isinstance(value, list | dict):
            return False
        return value in self.enum


def _members(values: tuple[object, ...]) -> frozenset[object] | tuple[object, ...]:
    """The values of an `enum`, to be looked up in one step where none is a list or an object."""
    try:
        return frozenset(values)
    except TypeError:
        return values[:_MAX_PARTS]


ANY = Type(b"{}")  # whose schema says nothing


def _kind(text: str | msgspec.Raw) -> str:
    """Return the kind of a JSON text; empty when it is none."""
    try:
        return _KINDS[type(_any_decoder.decode(text))]
    except (msgspec.DecodeError, RecursionError):
        return ""


def coerce(arguments: str, tool: Tool) -> str:
    """The arguments as the tool's schema wants them; the very same text where nothing is clear."""
    if len(arguments) > MAX_COERCED:
        return arguments
    try:
        mended = _mended(arguments.encode(), Type(tool.parameters), 0)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return arguments
    return arguments if mended is None else mended.decode()


def _mended(raw: bytes, wanted: Type, depth: int) -> bytes | None:
    """The value as it should be, or None where it is best left alone.

    Only what is wrong is written anew: the rest keeps its bytes, and so its numbers their digits.
    """
    types, first = wanted.types, raw.lstrip()[:1]
    if depth > MAX_DEPTH:
        return None
    if first == b'"' and types and "string" not in types:
        literal = wanted.literal(_any_decoder.decode(raw))
        if literal is None:
            return None
        found = literal.encode()
        return _mended(found, wanted, depth + 1) or found
    if first == b"{" and (wanted.schema.properties or wanted.schema.additionalProperties):
        fields = _raw_object.decode(raw)
        changed = {
            k: new
            for k, v in fields.items()
            if (new := _mended(bytes(v), wanted.member(k), depth + 1)) is not None
        }
        return (
            _encode({k: msgspec.Raw(changed.get(k, v)) for k, v in fields.items()})
            if changed
            else None
        )
    if first == b"[" and wanted.schema.items:
        item = wanted.element()
        values = [bytes(v) for v in _raw_array.decode(raw)]
        news = [_mended(v, item, depth + 1) for v in values]
        if all(new is None for new in news):
            return None
        return _encode(
            [msgspec.Raw(v if n is None else n) for v, n in zip(values, news, strict=True)]
        )
    return None
