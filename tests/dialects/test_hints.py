"""Hints of another type than the protocol's are left out with a warning, in Messages and Gemini."""

import json
from typing import Any

import pytest

from headgate.chat import Request
from headgate.dialects.contract import RequestTarget
from headgate.dialects.hints import MOST
from headgate.dialects.registry import ANTHROPIC, GEMINI
from headgate.errors import Refused

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def messages(**fields: Any) -> Request:
    body = {"model": "m", "max_tokens": 9, "messages": [USER], **fields}
    return ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget("m"))


def generate(**fields: Any) -> Request:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **fields}
    return GEMINI.decode_request(json.dumps(body).encode(), RequestTarget("m"))


@pytest.mark.parametrize("value", [5, True, [1], "next"])
@pytest.mark.parametrize("name", ["service_tier", "metadata", "thinking", "output_config", "top_k"])
def test_a_hint_of_messages_costs_no_more_than_itself(name: str, value: Any) -> None:
    if (name, value) in (("top_k", 5), ("service_tier", "next")):
        return
    request = messages(**{name: value}, tools=[TOOL])
    assert request.warnings == (name,)
    assert request.messages[0].text == "hi" and request.tools


def test_what_stands_in_a_hint_is_left_out_alone() -> None:
    request = messages(output_config={"effort": 5, "format": None}, metadata={"user_id": 7})
    assert set(request.warnings) == {
        "output_config.effort (unknown ignored)",
        "metadata.user_id",
    }
    request = messages(thinking={"type": "enabled", "budget_tokens": "many"})
    assert (request.reasoning.mode, request.warnings) == ("on", ("thinking.budget_tokens",))


def test_hints_of_tools_and_blocks_are_left_out_wherever_they_stand() -> None:
    odd = {**TOOL, "cache_control": 5}
    block = {"type": "text", "text": "hi", "cache_control": "yes"}
    request = messages(tools=[TOOL | {"name": "g"}, odd], messages=[{**USER, "content": [block]}])
    assert [tool.name for tool in request.tools] == ["g", "f"]
    assert request.messages[0].text == "hi"
    assert "tools.cache_control" in request.warnings


@pytest.mark.parametrize("config", ["generationConfig", "generation_config"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thinkingConfig", 5),
        ("thinking_config", "on"),
        ("thinkingConfig", {"thinkingLevel": 5}),
        ("thinking_config", {"thinking_level": [1]}),
        ("thinkingConfig", {"includeThoughts": "yes"}),
        ("seed", "lucky"),
        ("topK", True),
        ("top_k", {}),
    ],
)
def test_a_hint_of_gemini_costs_no_more_than_itself(config: str, name: str, value: Any) -> None:
    request = generate(**{config: {name: value, "temperature": 0.5}})
    assert request.warnings
    assert request.warnings[0].startswith(("generationConfig.", "thinkingLevel (unknown ignored)"))
    assert request.sampling.temperature == 0.5


@pytest.mark.parametrize(
    ("call", "fields", "param"),
    [
        (messages, {"system": 5, "top_k": "x"}, "$.system"),
        (messages, {"tool_choice": 5, "metadata": 5}, "$.tool_choice"),
        (messages, {"stop_sequences": 5}, "$.stop_sequences"),
        (generate, {"systemInstruction": 5}, "$.systemInstruction"),
        (
            generate,
            {"generationConfig": {"seed": "x", "candidateCount": 3}},
            "$.generationConfig.candidateCount",
        ),
    ],
)
def test_what_is_no_hint_is_refused_also_beside_one(call: Any, fields: Any, param: str) -> None:
    with pytest.raises(Refused) as refused:
        call(**fields)
    assert refused.value.failure.param == param


def test_a_request_is_read_anew_for_a_bounded_number_of_hints() -> None:
    tools = [{**TOOL, "name": f"f{n}", "cache_control": n} for n in range(MOST)]
    assert len(messages(tools=tools).tools) == MOST
    with pytest.raises(Refused):
        messages(tools=[*tools, {**TOOL, "cache_control": 5}])


def test_a_field_that_is_given_twice_is_refused_also_beside_a_hint() -> None:
    body = b'{"model":"m","model":"n","max_tokens":5,"top_k":"x","messages":[{"role":"user","content":"x"}]}'
    with pytest.raises(Refused):
        ANTHROPIC.decode_request(body, RequestTarget())
