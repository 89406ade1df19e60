"""This module converts between Google's form of JSON Schema and the standard one."""

import re
from typing import Any

import msgspec
from msgspec import Raw

from headgate import jsontext
from headgate.dialects.fields import schema_of
from headgate.dialects.gemini.names import camel
from headgate.dialects.gemini.request_wire import schema_decoder
from headgate.errors import invalid

# Google's names of types in a schema that should be JSON Schema; Gemini CLI's router sends them.
_GOOGLES_TYPE = re.compile(
    rb'"type"\s*:\s*\[?\s*"(?:STRING|NUMBER|INTEGER|BOOLEAN|ARRAY|OBJECT|NULL|TYPE_UNSPECIFIED)"'
)


def compact(raw: Raw, where: str) -> Raw:
    if _GOOGLES_TYPE.search(bytes(raw)):
        text = bytes(schema_of(raw, where))
        try:
            schema = _lower_types(schema_decoder.decode(text))
        except msgspec.ValidationError as error:
            raise invalid(f"{str(error).partition(' - at ')[0]} - at `{where}`", where) from None
        return schema_of(Raw(jsontext.encode(schema)), where)
    return Raw(msgspec.json.format(bytes(schema_of(raw, where)), indent=-1))


# Keywords of JSON Schema below which there are schemas, by name or in a list or alone.
_NAMED_SCHEMAS = frozenset(
    ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
)
_SCHEMAS = frozenset(
    (
        "items",
        "prefixItems",
        "anyOf",
        "allOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "additionalProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "contains",
        "propertyNames",
        "additionalItems",
    )
)


def _lower_types(schema: Any) -> Any:  # Any: JSON in, JSON out
    """JSON Schema with Google's names of types in lower case; values and names are not touched."""
    if isinstance(schema, list):
        return [_lower_types(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, str):
            if value == "TYPE_UNSPECIFIED":
                continue
            value = value.lower()
        elif key == "type" and isinstance(value, list):
            value = [t.lower() if isinstance(t, str) else t for t in value]
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            value = {name: _lower_types(inner) for name, inner in value.items()}
        elif key in _SCHEMAS:
            value = _lower_types(value)
        elif key == "nullable":
            continue
        out[key] = value
    return _nullable(out) if schema.get("nullable") is True else out


def googles(raw: Raw, where: str) -> Raw:
    """Return Google's Schema as JSON Schema; its values were counted, so that few are built."""
    text = bytes(schema_of(raw, where))
    try:
        schema = json_schema(schema_decoder.decode(text), where)
    except msgspec.ValidationError as error:
        raise invalid(f"{str(error).partition(' - at ')[0]} - at `{where}`", where) from None
    return schema_of(Raw(jsontext.encode(schema)), where)


_INT64S = frozenset(
    ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
)
_INT64 = re.compile(r"-?[0-9]{1,19}")
_INSIDE = frozenset(("items", "anyOf", "additionalProperties", "prefixItems"))


def json_schema(schema: Any, where: str) -> Any:  # Any: JSON in, JSON out
    """Google's Schema as JSON Schema: types in lower case, `nullable` as a type, int64s as numbers."""
    if isinstance(schema, list):
        return [json_schema(s, where) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for raw, value in schema.items():
        key = camel(raw)
        match key:
            case "propertyOrdering" | "nullable":
                continue
            case "type" if isinstance(value, str):
                if value == "TYPE_UNSPECIFIED":
                    continue
                value = value.lower()
            case "type" if isinstance(value, list):
                value = [t.lower() if isinstance(t, str) else t for t in value]
            case "properties" | "defs" if isinstance(value, dict):
                value = {name: json_schema(inner, where) for name, inner in value.items()}
            case _ if key in _INSIDE:
                value = json_schema(value, where)
            case _ if key in _INT64S and isinstance(value, str):
                value = _int64(value, f"{where}...{key}")
            case "ref" if isinstance(value, str):
                value = value.replace("#/defs/", "#/$defs/", 1)
        out[{"defs": "$defs", "ref": "$ref"}.get(key, key)] = value
    return _nullable(out) if schema.get("nullable") is True else out


def _int64(text: str, where: str) -> int:
    """An int64 that proto JSON writes as a string."""
    if not _INT64.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise invalid(f"Expected a whole number of 64 bits in `{where.removeprefix('$.')}`.", where)
    return int(text)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema
