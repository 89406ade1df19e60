"""A field that a protocol does not have is read where it says something, else named in a warning; never lost in silence."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from headgate.chat import Request, Text, Thinking, ToolCall, ToolResult
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS

Json = dict[str, Any]  # bodies as clients send them
SCHEMA = {"type": "object", "properties": {}}
BODIES: dict[str, Json] = {
    "openai": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": "x", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}] * 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    },
    "responses": {
        "model": "m",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "id": "x", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "r"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"role": "user", "content": "x"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "text"}},
    },
    "anthropic": {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "r"}]},
        ],
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    },
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
    },
}  # fmt: skip
# Where a client puts parameters, and each message and item.
OBJECTS = {
    "openai": r"\$(\.messages\[\d\]|\.tools\[\d\]\.function|\.response_format(\.json_schema)?)?",
    "responses": r"\$(\.input\[\d\]|\.reasoning|\.text(\.format)?)?",
    "anthropic": r"\$(\.messages\[\d\]|\.tools\[\d\]|\.thinking|\.output_config(\.format)?)?",
    "gemini": r"\$(\.generationConfig(\.thinkingConfig)?|\.toolConfig(\.functionCallingConfig)?|\.tools\[\d\]\.functionDeclarations\[\d\])?",
}


def places(value: Any, place: str = "$") -> Iterator[str]:
    if isinstance(value, dict):
        yield place
        for name, inner in value.items():
            yield from places(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from places(inner, f"{place}[{n}]")


def having(body: Json, place: str, fields: Json) -> Json:
    """A copy of the body with fields added to the object at a place."""
    at: Any = copy.deepcopy(body)
    whole = at
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        at = at[name] if name else at[int(number)]
    at.update(fields)
    return whole


def read(dialect: str, body: Json) -> Request:
    return DIALECTS[dialect].decode_request(json.dumps(body).encode(), RequestTarget("m", False))


EACH = [
    (dialect, place)
    for dialect, body in BODIES.items()
    for place in places(body)
    if re.fullmatch(OBJECTS[dialect], place)
]


@pytest.mark.parametrize(("dialect", "place"), EACH)
def test_an_unknown_field_is_named_and_changes_nothing_else(dialect: str, place: str) -> None:
    usual = read(dialect, BODIES[dialect])
    request = read(dialect, having(BODIES[dialect], place, {"next_year": {"a": 1}}))
    (warning,) = [w for w in request.warnings if w not in usual.warnings]
    assert warning.endswith("next_year")
    assert (request.messages, request.tools, request.reasoning, request.sampling) == (
        usual.messages,
        usual.tools,
        usual.reasoning,
        usual.sampling,
    )


@pytest.mark.parametrize(("dialect", "place"), EACH)
def test_an_unknown_field_that_is_empty_says_nothing(dialect: str, place: str) -> None:
    usual = read(dialect, BODIES[dialect])
    assert read(dialect, having(BODIES[dialect], place, {"next_year": None})).warnings == (
        usual.warnings
    )


def test_a_field_may_have_any_name_and_the_warnings_stay_few() -> None:
    names = {f"f{n}": n for n in range(1_000)} | {"\r\nset-cookie: a": 1, "ü" * 5_000: 1}
    warnings = read("openai", {**BODIES["openai"], **names}).warnings
    assert len(warnings) <= 33 and sum(map(len, warnings)) < 2_000
    assert all(w.isascii() and w.isprintable() for w in warnings)


THOUGHTS: list[tuple[str, Any]] = [
    ("thinking_blocks", [{"type": "thinking", "thinking": "I look.", "signature": "s"}]),
    ("reasoning_content", "I look."),
    ("reasoning_text", "I look."),
    ("reasoning", "I look."),
    ("thinking", "I look."),
    ("thought", "I look."),
    ("reasoning_details", [{"type": "reasoning.text", "text": "I look."}]),
]
CALLED = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]


def answered(dialect: str, **beside: Any) -> Request:
    """A history whose assistant has said "Well." and has these fields beside it."""
    user, said = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well."}
    result: Json = {"role": "tool", "tool_call_id": "c", "content": "r"}
    if dialect == "responses":
        result = {"type": "function_call_output", "call_id": "c", "output": "r"}
    turns = [user, {**said, **beside}, *([result] if "tool_calls" in beside else []), user]
    name = "input" if dialect == "responses" else "messages"
    return (
        read(dialect, {"model": "m", "max_tokens": 9, name: turns})
        if (dialect != "responses")
        else read(dialect, {"model": "m", name: turns})
    )


@pytest.mark.parametrize(("name", "value"), THOUGHTS)
@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic"])
def test_reasoning_beside_a_message_is_kept(dialect: str, name: str, value: Any) -> None:
    request = answered(dialect, **{name: value})
    parts = [part for message in request.messages for part in message.parts]
    (thought,) = [part for part in parts if isinstance(part, Thinking)]
    assert thought.text == "I look."
    if name == "thinking_blocks":
        assert thought.signature == "s"
    assert [p.text for p in parts if isinstance(p, Text)] == ["Hi", "Well.", "Hi"]
    assert not any(name in warning for warning in request.warnings)


@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic"])
def test_calls_beside_a_message_and_their_results_are_kept(dialect: str) -> None:
    request = answered(dialect, tool_calls=CALLED)
    parts = [part for message in request.messages for part in message.parts]
    (call,) = [part for part in parts if isinstance(part, ToolCall)]
    (result,) = [part for part in parts if isinstance(part, ToolResult)]
    assert (call.id, call.name, json.loads(call.arguments)) == ("c", "f", {"a": 1})
    assert result.call_id == "c"


@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_a_refusal_is_what_the_model_said(dialect: str) -> None:
    request = answered(dialect, content=None, refusal="I will not.")
    texts = [p.text for m in request.messages for p in m.parts if isinstance(p, Text)]
    assert texts == ["Hi", "I will not.", "Hi"]


@pytest.mark.parametrize(
    ("fields", "mode", "effort"),
    [
        ({"enable_thinking": False}, "off", ""),
        ({"enable_thinking": True}, "on", ""),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "off", ""),
        ({"chat_template_kwargs": {"thinking": True}}, "on", ""),
        ({"think": False}, "off", ""),
        ({"think": "high"}, "on", "high"),
        ({"extra_body": {"enable_thinking": False}}, "off", ""),
        ({"enable_thinking": False, "reasoning_effort": "high"}, "on", "high"),
    ],
    ids=str,
)
def test_switches_of_servers_for_open_models_are_read(fields: Json, mode: str, effort: str) -> None:
    request = read("openai", {**BODIES["openai"], **fields})
    assert (request.reasoning.mode, request.reasoning.effort) == (mode, effort)
    assert request.warnings == ()


def test_tools_are_counted_by_kind_of_place_and_the_header_stays_short() -> None:
    tool = {"name": "f", "input_schema": SCHEMA, "next_year": 1}
    body = {**BODIES["anthropic"], "tools": [{**tool, "name": f"f{n}"} for n in range(500)]}
    assert read("anthropic", body).warnings == ("tools[].next_year",)
    many = [{**tool, "name": f"f{n}", f"field{n}": 1} for n in range(500)]
    warnings = read("anthropic", {**body, "tools": many}).warnings
    assert len(warnings) <= 33 and sum(map(len, warnings)) < 2_000


def test_what_vendors_know_of_a_tool_is_silent() -> None:
    of_tool = ("allowed_callers", "cache_control", "defer_loading", "input_examples", "strict")
    tool = {"name": "f", "input_schema": SCHEMA, "max_characters": 9, "eager_input_streaming": True}
    values: Json = {
        "allowed_callers": ["direct"],
        "cache_control": {"type": "ephemeral"},
        "defer_loading": True,
        "input_examples": [{}],
        "strict": False,
    }
    assert set(of_tool) == set(values)
    request = read("anthropic", {**BODIES["anthropic"], "tools": [{**tool, **values}]})
    assert not [w for w in request.warnings if w.startswith("tools[].") and "strict" not in w]


def test_a_flat_tool_of_chat_may_have_any_field() -> None:
    flat = {"type": "function", "name": "f", "parameters": SCHEMA, "next_year": 1}
    request = read("openai", {**BODIES["openai"], "tools": [flat]})
    assert [tool.name for tool in request.tools] == ["f"]
    assert [w for w in request.warnings if w.endswith("next_year")] == [
        "tools[].function.next_year"
    ]


def test_a_request_that_is_counted_may_have_any_field_too() -> None:
    tool = {"functionDeclarations": [{"name": "f", "next_year": 1}]}
    config = {"thinkingConfig": {"next_year": 1}}
    inner = {**BODIES["gemini"], "model": "m", "tools": [tool], "generationConfig": config}
    request = read("gemini", {"generateContentRequest": {**inner, "next_year": 1}})
    assert [tool.name for tool in request.tools] == ["f"]
    assert len([w for w in request.warnings if w.endswith("next_year")]) == 3


@pytest.mark.parametrize("dialect", BODIES)
def test_a_body_with_white_space_is_read_alike(dialect: str) -> None:
    body = json.dumps({**BODIES[dialect], "next_year": 1}, indent=2)
    request = DIALECTS[dialect].decode_request(f"\n {body}\n".encode(), RequestTarget("m", False))
    assert "next_year" in request.warnings
