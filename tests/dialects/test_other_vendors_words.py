"""Choices of a tool, results and marks in the words of another vendor are read, in each protocol."""

import codecs
import json
from typing import Any

import pytest

from headgate.chat import Choice, Request, Text, ToolResult
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS

SCHEMA = {"type": "object", "properties": {}}
USER = {"role": "user", "content": "Hi"}
Json = dict[str, Any]  # bodies as clients send them

BODIES: dict[str, Json] = {
    "openai": {
        "model": "m",
        "messages": [USER],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    },
    "responses": {
        "model": "m",
        "input": "Hi",
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
    },
    "anthropic": {
        "model": "m",
        "max_tokens": 9,
        "messages": [USER],
        "tools": [{"name": "f", "input_schema": SCHEMA}],
    },
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}],
    },
}
STATED = ("openai", "responses", "anthropic")
FORCED, NAMED, FREE = Choice("required"), Choice("named", "f"), Choice("auto")


def read(dialect: str, body: bytes) -> Request:
    return DIALECTS[dialect].decode_request(body, RequestTarget("m"))


@pytest.mark.parametrize(
    ("stated", "choice"),
    [
        ("auto", FREE),
        ("none", Choice("none")),
        ("required", FORCED),
        ("any", FORCED),
        ({"type": "auto"}, FREE),
        ({"type": "none"}, Choice("none")),
        ({"type": "required"}, FORCED),
        ({"type": "any"}, FORCED),
        ({"type": "tool", "name": "f"}, NAMED),
        ({"type": "function", "name": "f"}, NAMED),
        ({"type": "function", "function": {"name": "f"}}, NAMED),
    ],
    ids=str,
)
@pytest.mark.parametrize("dialect", STATED)
def test_a_choice_is_read_in_each_vendors_words(
    dialect: str, stated: object, choice: Choice
) -> None:
    body = {**BODIES[dialect], "tool_choice": stated}
    request = read(dialect, json.dumps(body).encode())
    assert (request.choice, request.warnings) == (choice, ())


@pytest.mark.parametrize("stated", ["warp", {"type": "warp"}], ids=str)
@pytest.mark.parametrize("dialect", STATED)
def test_an_unknown_word_is_no_choice_and_an_unknown_object_of_openai_is_refused(
    dialect: str, stated: object
) -> None:
    body = json.dumps({**BODIES[dialect], "tool_choice": stated}).encode()
    if isinstance(stated, dict) and dialect != "anthropic":
        with pytest.raises(Exception, match=r"tool_choice\.warp"):
            read(dialect, body)
        return
    request = read(dialect, body)
    assert request.choice == FREE
    assert request.warnings[0].startswith("tool_choice")


def test_gemini_takes_openais_word_and_tools_without_their_list() -> None:
    body = {**BODIES["gemini"], "tools": BODIES["gemini"]["tools"][0]}
    body["toolConfig"] = {"functionCallingConfig": {"mode": "required"}}
    request = read("gemini", json.dumps(body).encode())
    assert [tool.name for tool in request.tools] == ["f"]
    assert (request.choice, request.warnings) == (FORCED, ())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_byte_order_mark_in_front_is_passed_over(dialect: str) -> None:
    body = json.dumps(BODIES[dialect]).encode()
    assert read(dialect, codecs.BOM_UTF8 + body) == read(dialect, body)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ({"found": [1, 2]}, ['{"found":[1,2]}']),
        (4.5, ["4.5"]),
        (True, ["true"]),
        ({"type": "text", "text": "r"}, ["r"]),
        (["a", {"type": "text", "text": "b"}], ["a", "b"]),
    ],
    ids=str,
)
def test_a_tools_result_of_another_type_is_no_end_of_a_session(
    content: object, texts: list[str]
) -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": content}
    messages = [
        USER,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    body = json.dumps({**BODIES["anthropic"], "messages": messages}, separators=(",", ":"))
    (part,) = read("anthropic", body.encode()).messages[-1].parts
    assert isinstance(part, ToolResult)
    assert [each.text for each in part.parts if isinstance(each, Text)] == texts


def test_a_prediction_only_makes_a_reply_sooner_and_is_left_out() -> None:
    body = {**BODIES["openai"], "prediction": {"type": "content", "content": "x"}}
    assert read("openai", json.dumps(body).encode()).warnings == ("prediction",)
