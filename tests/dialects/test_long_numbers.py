"""A number of thousands of digits, which is JSON, never reaches an upstream whose reader would fail on it."""

import json
from typing import Any

import pytest

import efforts
from headgate import jsontext
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.edge.fitting import fitted_request
from headgate.errors import Refused

_J = dict[str, Any]
PLACE = 123454321
LONG = "9" * 5_000
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "maximum": PLACE}}}
CALLED = {"a": PLACE}
HI = {"role": "user", "content": "hi"}
GEMINI_HI = {"role": "user", "parts": [{"text": "hi"}]}
CHAT: _J = {"model": efforts.FLASH, "messages": [HI]}
MESSAGES: _J = {**CHAT, "max_tokens": 9}
# The client, and the number in a schema of its request.
SCHEMAS: list[tuple[str, _J]] = [
    ("openai", {**CHAT, "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}),
    ("openai", {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}),
    ("responses", {"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]}),
    ("responses", {"input": "hi", "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}}),
    ("anthropic", {**MESSAGES, "tools": [{"name": "f", "input_schema": SCHEMA}]}),
    ("anthropic", {**MESSAGES, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    ("gemini", {"contents": [GEMINI_HI], "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}]}),
    ("gemini", {"contents": [GEMINI_HI], "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]}]}),
    ("gemini", {"contents": [GEMINI_HI], "generationConfig": {"responseMimeType": "application/json", "responseSchema": SCHEMA}}),
]  # fmt: skip
# The same in the arguments of a call in the history, which its user cannot take back.
HISTORIES: dict[str, _J] = {
    "openai": {**CHAT, "messages": [
        HI,
        {"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps(CALLED)}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]},
    "responses": {"input": [
        HI,
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": json.dumps(CALLED)},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
    ]},
    "anthropic": {**MESSAGES, "messages": [
        HI,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": CALLED}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]},
    ]},
    "gemini": {"contents": [
        GEMINI_HI,
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": CALLED}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": CALLED}}]},
    ]},
}  # fmt: skip
UPSTREAMS = efforts.upstreams()


def sent(client: str, body: _J, number: str, column: str) -> tuple[bytes, tuple[str, ...]]:
    data = json.dumps({"model": efforts.FLASH, **body} if client == "responses" else body)
    data = data.replace(str(PLACE), number)
    target = RequestTarget(efforts.FLASH, False)
    request = DIALECTS[client].decode_request(data.encode(), target)
    route = UPSTREAMS[column]
    request = fitted_request(request, route, client, 0, "", {}).request
    upstream = DIALECTS[route.upstream.dialect]
    return upstream.encode_request(request, route.capabilities, route.name, False), request.warnings


@pytest.mark.parametrize(("client", "body"), SCHEMAS)
def test_in_a_schema_it_is_refused_by_name(client: str, body: _J) -> None:
    with pytest.raises(Refused) as refused:
        sent(client, body, LONG, "M3.1-Flash, chat")
    failure = refused.value.failure
    assert failure.kind == "invalid" and "9999" not in failure.message


@pytest.mark.parametrize("column", UPSTREAMS)
@pytest.mark.parametrize("client", HISTORIES)
def test_in_the_arguments_of_an_earlier_call_it_is_kept_as_text(client: str, column: str) -> None:
    body, warnings = sent(client, HISTORIES[client], LONG, column)
    json.loads(body)  # Python's own reader takes up to 4,300 digits
    assert LONG.encode() in body
    assert "history: invalid JSON arguments wrapped" in warnings


@pytest.mark.parametrize("client", HISTORIES)
def test_a_usual_number_stays_one(client: str) -> None:
    body, warnings = sent(client, HISTORIES[client], "9" * 18, "M3.1-Flash, Messages")
    assert b'{"a":' + b"9" * 18 + b"}" in body.replace(b" ", b"")
    assert not any(w.startswith("history") for w in warnings)


def test_digits_in_a_string_are_no_number() -> None:
    assert not jsontext.has_long_number(b'{"a":"%b"}' % (b"9" * 9_000))
    for at in range(0, 1_000, 7):
        assert jsontext.has_long_number(b'{"a":"%b","b":%b}' % (b"x" * at, b"9" * 2_000))
