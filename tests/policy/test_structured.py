"""Structured output in words: what is valid, what is said of what is not, and the one more try."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from headgate.chat import Finish, Format, Message, Reply, Request, Text, Thinking, ToolCall
from headgate.policy.schemas import check, fault
from headgate.policy.structured import extract, repair_request, repairable, settle

OBJECT = Format("object")
SECRET = "zebra"  # stands for what the reply says


def schema(**keywords: object) -> Format:
    return Format("schema", "n", Raw(json.dumps(keywords).encode()))


def fits(**property: object) -> Format:
    """Any object whose `a`, if it has one, is as said."""
    return schema(type="object", properties={"a": property})


# --- valid or not ---


@pytest.mark.parametrize("text", ["{}", ' {"a": [1, {}]}\n', '{"é":"\\u00e9"}'])
def test_any_object_is_an_object(text: str) -> None:
    assert check(text, OBJECT) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at `#`: it is empty"),
        (" \n", "at `#`: it is empty"),
        ("zebra", "at `#`: it is not one JSON value"),
        ('{"a":1', "at `#`: it is not one JSON value"),
        ('{"a":NaN}', "at `#`: it is not one JSON value"),
        ("{} {}", "at `#`: it is not one JSON value"),
        ("[" * 5000, "at `#`: it is not one JSON value"),
        ("[]", "at `#`: it must be of type object"),
    ],
)
def test_what_is_no_object_is_said_to_be_none(text: str, reason: str) -> None:
    assert check(text, OBJECT) == reason


FORMAT = schema(
    type="object",
    properties={
        "list": {"type": "array", "items": {"$ref": "#/$defs/N"}, "maxItems": 3},
        "map": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        "one": {"enum": ["x", "y"]},
        "same": {"const": 1},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "like": {"type": "string", "pattern": "^a+$"},
        "a/b~c": {"not": {}},
    },
    required=["list"],
    additionalProperties=False,
    **{"$defs": {"N": {"type": "integer", "minimum": 3}}},
)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"list": [3, 4]}, None),
        ({}, "at `#`: the property `list` is missing"),
        ({"list": [3, SECRET]}, "at `#/list/1`: it must be of type integer"),
        ({"list": [2]}, "at `#/list/0`: `minimum` is 3"),
        ({"list": [3, 3, 3, 3]}, "at `#/list`: `maxItems` is 3"),
        ({"list": [], SECRET: 1}, "at `#`: it has a property that is not allowed"),
        ({"list": [], "map": {SECRET: 1}}, "at `#/map/*`: it must be of type null or string"),
        ({"list": [], "one": SECRET}, 'at `#/one`: it must be one of ["x", "y"]'),
        ({"list": [], "same": SECRET}, "at `#/same`: it must be 1"),
        (
            {"list": [], "either": 1},
            "at `#/either`: it fits not one of the alternatives of `anyOf`",
        ),
        ({"list": [], "like": SECRET}, 'at `#/like`: `pattern` is "^a+$"'),
        ({"list": [], "a/b~c": 1}, "at `#/a~1b~0c`: it does not satisfy `not`"),
    ],
)
def test_a_reason_names_the_place_and_the_keyword(value: object, reason: str | None) -> None:
    assert check(json.dumps(value), FORMAT) == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([SECRET, "list", "map", "one", "same", "either", "like"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=9,
)


@given(JSON)
def test_a_reason_never_repeats_the_reply(value: object) -> None:
    reason = check(json.dumps(value), FORMAT)
    assert reason is None or (SECRET not in reason and len(reason) <= 300)


def test_a_reason_is_short_and_the_same_each_time() -> None:
    long = fits(enum=["x" * 5000])
    reason = check('{"a":1}', long)
    assert reason is not None and len(reason) <= 300
    assert reason == check('{"a":1}', long)


# --- schemas that mean harm, or nothing ---


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=a)(a+)+\\1$", "(a|a)*b"])
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    format = fits(pattern=pattern)
    assert fault(format) is None
    assert check(json.dumps({"a": "a" * 5000 + "!"}), format) is not None


DOUBLING = {
    f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
    for n in range(60)
}


@pytest.mark.parametrize(
    "format",
    [
        schema(**{"$ref": "http://127.0.0.1:1/schema"}),
        schema(**{"$ref": "file:///etc/hostname"}),
        schema(**{"$ref": "other.json#/x"}),
        schema(**{"$ref": "#/$defs/none"}),
        schema(**{"$schema": "http://127.0.0.1:1/draft"}),
        schema(**{"$defs": {**DOUBLING, "d60": {}}, "$ref": "#/$defs/d0"}),
        schema(type="strange"),
        fits(pattern="("),
        fits(pattern="(a{1000}){1000}"),
        Format("schema", "n", Raw(b"[]")),
        Format("schema", "n", Raw(b'{"type":')),
        Format("schema", "n", Raw(b'{"items":' * 2000 + b"{}" + b"}" * 2000)),
    ],
)
def test_a_schema_that_cannot_be_used_makes_no_reply_valid(format: Format) -> None:
    said = fault(format)
    assert said is not None and said.startswith("The JSON Schema cannot be used: ")
    assert check("{}", format) == "at `#`: the JSON Schema cannot be used"


@pytest.mark.parametrize(
    "format",
    [
        OBJECT,
        schema(),
        FORMAT,
        schema(**{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}),
        schema(properties={"next": {"$ref": "#"}}),
        schema(
            **{
                "$ref": "#/definitions/A",
                "definitions": {"A": {"anyOf": [{"$ref": "#/definitions/A"}, {}]}},
            }
        ),
        schema(properties={"$ref": {"type": "string"}, "default": {}}),
        fits(format="uuid"),
    ],
)
def test_ordinary_and_circular_schemas_can_be_used(format: Format) -> None:
    assert fault(format) is None
    assert check('{"list":[]}', format) is None


def test_formats_are_not_checked() -> None:
    assert check('{"a":"no date"}', fits(type="string", format="date")) is None


def test_the_library_is_imported_only_when_used() -> None:
    code = "import sys, headgate.policy.structured; sys.exit('jsonschema_rs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- taking the answer out ---


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('```\n{"a": 1}```', '{"a": 1}'),
        ('Here you are:\n\n```json\n{\n "a": 1\n}\n```\nAnything else?', '{\n "a": 1\n}'),
        ('Sure! {"a": {"b": "}"}} is it.', '{"a": {"b": "}"}}'),
        ('{"a": 1}\n\nI chose 1.', '{"a": 1}'),
        ('Use {braces} so: {"a": 1}', '{"a": 1}'),
        ('As in {"x":1}:\n```json\n{"a": 1}\n```', '{"a": 1}'),
    ],
)
def test_the_one_object_is_taken_out_of_its_wrapping(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        '{"a": 1} or {"a": 2}',
        '```json\n{"a":1}\n```\n```json\n{"a":2}\n```',
        '{"a": 1',
        'so {"a": NaN}',
        "{" * 3000,
        '{"a":' * 3000,
        "[1]",
        '"{}"',
        "```json\n[1]\n```",
    ],
)
def test_where_it_is_unclear_the_text_stays(text: str) -> None:
    assert extract(text) == text


@given(JSON, st.sampled_from([None, 1]), st.sampled_from(["", " ", "\n"]))
def test_what_is_json_already_stays_to_the_byte(
    value: object, indent: int | None, pad: str
) -> None:
    text = pad + json.dumps(value, indent=indent) + pad
    assert extract(text) == text


# --- whole replies ---


def reply(*parts: Text | Thinking | ToolCall, reason: str = "stop") -> Reply:
    return Reply(parts, Finish(reason), "id", "m")  # type: ignore[arg-type]  # a FinishReason


def test_a_valid_reply_settles_as_it_is() -> None:
    said = reply(Thinking("hm", "s"), Text('{"list"'), Text(":[]}"))
    settled, reason = settle(said, FORMAT)
    assert settled is said and reason is None


def test_a_wrapped_reply_settles_to_its_answer() -> None:
    settled, reason = settle(reply(Thinking("hm", "s"), Text('So: {"list":[]}')), FORMAT)
    assert settled == reply(Thinking("hm", "s"), Text('{"list":[]}')) and reason is None


def test_a_reply_that_is_not_valid_settles_with_its_reason() -> None:
    settled, reason = settle(reply(Text("So: {}")), FORMAT)
    assert settled.parts == (Text("{}"),) and reason == "at `#`: the property `list` is missing"
    assert settle(reply(), FORMAT)[1] == "at `#`: it is empty"


def test_a_reply_that_calls_tools_is_not_judged() -> None:
    said = reply(Text("Let me look. {}"), ToolCall("c", "f", "{}"))
    assert settle(said, FORMAT) == (said, None)


def test_only_a_reply_that_ended_by_itself_is_worth_another_try() -> None:
    assert repairable(reply())
    assert not any(
        repairable(reply(reason=r)) for r in ("length", "context_full", "content_filter")
    )


REQUEST = Request("m", (Message("system", (Text("s"),)), Message("user", (Text("q"),))))


def test_another_try_appends_the_reply_and_what_was_wrong_with_it() -> None:
    said = reply(Thinking("hm", "s"), Text(""), Text("{}"))
    again = repair_request(REQUEST, said, "at `#/a`: it is missing")
    assert again.messages[:2] == REQUEST.messages
    assert again.messages[2:] == (
        Message("assistant", (Thinking("hm", "s"), Text("{}"))),
        Message(
            "user",
            (
                Text(
                    "Your reply is not what was asked for: at `#/a`: it is missing. Answer again with"
                    " the corrected JSON object and nothing else: no prose around it and no Markdown"
                    " fences."
                ),
            ),
        ),
    )
    assert again == repair_request(REQUEST, said, "at `#/a`: it is missing")


@pytest.mark.parametrize("parts", [(), (Thinking("hm"),), (Text(" \n"),)])
def test_a_reply_without_words_is_not_repeated(parts: tuple[Text | Thinking, ...]) -> None:
    again = repair_request(REQUEST, reply(*parts), "at `#`: it is empty")
    assert [m.role for m in again.messages] == ["system", "user", "user"]
