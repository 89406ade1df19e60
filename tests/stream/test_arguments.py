"""Arguments are mended where a schema leaves one meaning, and keep their bytes everywhere else."""

import json

import pytest
from msgspec import Raw

from headgate.chat import Tool
from headgate.stream.arguments import Type, coerce

PROPERTIES: dict[str, object] = dict(
    n={"type": "integer"},
    x={"type": "number"},
    b={"type": "boolean"},
    s={"type": "string"},
    o={"type": "object", "properties": {"n": {"type": "integer"}}},
    a={"type": "array", "items": {"type": "boolean"}},
    u={"type": ["string", "integer"]},
    any={"anyOf": [{"type": "integer"}, {}]},
    q={"anyOf": [{"type": "integer"}, {"type": "null"}]},
    e={"type": "integer", "enum": [1, 2]},
    m={"type": "object", "additionalProperties": {"type": "integer"}},
)
RUN = Tool("run", "", Raw(json.dumps({"type": "object", "properties": PROPERTIES}).encode()))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('{"b": "true", "s": "true"}', '{"b":true,"s":"true"}'),
        ('{"n": "3"}', '{"n":3}'),
        ('{"n": "12345678901234567890123"}', '{"n":12345678901234567890123}'),
        ('{"x": "1e3", "n": 1.50}', '{"x":1e3,"n":1.50}'),
        ('{"o": "{\\"n\\": \\"3\\"}"}', '{"o":{"n":3}}'),
        ('{"o": {"n": "3", "k": "3"}}', '{"o":{"n":3,"k":"3"}}'),
        ('{"a": "[true]"}', '{"a":[true]}'),
        ('{"a": [true, "false"]}', '{"a":[true,false]}'),
        ('{"q": "null"}', '{"q":null}'),
        ('{"e": "2"}', '{"e":2}'),
        ('{"m": {"k": "2"}}', '{"m":{"k":2}}'),
        ('"{\\"n\\": 1}"', '{"n": 1}'),
    ],
)
def test_a_value_of_the_wrong_type_is_mended_where_its_meaning_is_clear(
    said: str, meant: str
) -> None:
    assert coerce(said, RUN) == meant


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{}",
        ' { "n" : 3 , "x":1.0 } ',
        '{"n": "three"}',
        '{"n": "3.5"}',
        '{"b": "yes", "a": "x", "o": "{"}',
        '{"b": 1}',
        '{"s": 3, "u": "3", "any": "3"}',
        '{"e": "3"}',
        '{"o": "[1]"}',
        '{"unknown": "3"}',
        '{"n": "3"',
        "[" * 2000,
        '"text"',
        "null",
    ],
)
def test_what_is_not_clear_keeps_its_bytes(said: str) -> None:
    assert coerce(said, RUN) == said


@pytest.mark.parametrize(
    ("schema", "text", "literal"),
    [
        ({"type": "integer"}, " 7 ", "7"),
        ({"type": "integer"}, "7.0", "7"),
        ({"type": "integer"}, "7.5", None),
        ({"type": "string"}, "7", None),
        ({"type": ["string", "integer"]}, "7", "7"),
        ({"type": "boolean"}, "True", "true"),
        ({"type": "integer", "nullable": True}, "null", "null"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}, "1e3", "1e3"),
        ({}, "[1]", "[1]"),
        ({}, "7", None),
        ({"type": "array"}, "{}", None),
        ({"enum": [1, 2]}, "2", "2"),
        ({"enum": [1, 2]}, "3", None),
    ],
)
def test_a_text_stands_for_what_its_schema_allows(
    schema: object, text: str, literal: str | None
) -> None:
    assert Type(json.dumps(schema).encode()).literal(text) == literal
