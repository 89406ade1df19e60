"""A complete answer is read whatever types its fields have, from an upstream of each protocol."""

import json
from typing import Any

import pytest

from headgate.chat import Failed, Reply, Text, Thinking, ToolCall, collect
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import DIALECTS

Json = dict[str, Any]
SAID = {"type": "text", "text": "Hello"}
ANTHROPIC: Json = {"type": "message", "role": "assistant", "stop_reason": "end_turn"}
RESPONSES: Json = {"object": "response", "status": "completed"}


def message(content: Any, **more: Any) -> Json:
    return {**ANTHROPIC, "content": content, **more}


def output(content: Any, *before: Any) -> Json:
    return {**RESPONSES, "output": [*before, {"type": "message", "content": content}]}


def candidate(content: Any, **more: Any) -> Json:
    return {"candidates": [{"content": content, "finishReason": "STOP", **more}]}


def choice(**fields: Any) -> Json:
    return {"choices": [{"finish_reason": "stop", **fields}]}


HELLO: list[tuple[str, Any]] = [
    ("openai", choice(message="Hello")),
    ("openai", choice(text="Hello")),
    ("openai", choice(message={"content": [SAID]})),
    ("openai", choice(message={"content": {"text": "Hello"}})),
    ("openai", choice(message={"content": "Hello"}, finish_reason=None)),
    ("openai", {"choices": {"message": {"content": "Hello"}, "finish_reason": "stop"}}),
    ("openai", {"data": choice(message={"content": "Hello"})}),
    ("openai", [choice(message={"content": "Hello"})]),
    ("anthropic", message("Hello")),
    ("anthropic", message(SAID)),
    ("anthropic", message(["Hel", "lo"])),
    ("anthropic", message([{"text": "Hello"}])),
    ("anthropic", message([{"type": "output_text", "text": "Hello"}])),
    ("anthropic", message([{"type": "text", "text": {"value": "Hello"}}])),
    ("anthropic", message([SAID], stop_reason=None)),
    ("anthropic", message([SAID], stop_reason=5, id=7, model=["m"])),
    ("anthropic", {"message": message([SAID])}),
    ("anthropic", [message([SAID])]),
    ("responses", {**RESPONSES, "output": "Hello"}),
    ("responses", {**RESPONSES, "output": {"type": "message", "content": "Hello"}}),
    ("responses", {**RESPONSES, "output": None, "output_text": "Hello"}),
    ("responses", {**RESPONSES, "output_text": "Hello"}),
    ("responses", output("Hello")),
    ("responses", output({"type": "output_text", "text": "Hello"})),
    ("responses", output(["Hel", "lo"])),
    ("responses", output("Hello", {"type": "hologram", "summary": 5})),
    ("responses", {**output("Hello"), "status": None, "incomplete_details": "x"}),
    ("responses", {**RESPONSES, "output": [{"role": "assistant", "content": "Hello"}]}),
    ("responses", {"response": output("Hello")}),
    ("gemini", candidate({"parts": {"text": "Hello"}})),
    ("gemini", candidate({"parts": "Hello"})),
    ("gemini", candidate({"parts": ["Hel", "lo"]})),
    ("gemini", candidate("Hello")),
    ("gemini", candidate([{"text": "Hello"}])),
    ("gemini", candidate({"parts": [{"text": "Hello", "thoughtSignature": 5}]})),
    ("gemini", candidate({"parts": [{"functionCall": "f"}, {"text": "Hello"}]})),
    ("gemini", candidate({"parts": [{"text": "Hello"}]}, finishReason=1)),
    ("gemini", candidate({"parts": [{"text": "Hello"}]}, finishReason=None)),
    ("gemini", {"candidates": [{"content": {"parts": [{"text": "Hello"}]}, "finish_reason": "STOP"}]}),
    ("gemini", {"candidates": {"content": {"parts": [{"text": "Hello"}]}, "finishReason": "STOP"}}),
    ("gemini", {"response": candidate({"parts": [{"text": "Hello"}]})}),
]  # fmt: skip
THOUGHT: list[tuple[str, Any]] = [
    ("anthropic", message([{"type": "thinking", "text": "T"}, SAID])),
    ("anthropic", message([{"type": "reasoning", "reasoning": "T"}, SAID])),
    ("anthropic", message("Hello", reasoning_content="T")),
    ("responses", output("Hello", {"type": "reasoning", "summary": "T"})),
    ("responses", output("Hello", {"type": "reasoning", "summary": ["T"]})),
    ("responses", output("Hello", {"type": "reasoning", "summary": {"text": "T"}})),
    ("responses", output("Hello", {"type": "reasoning", "content": "T"})),
    ("responses", output("Hello", {"type": "reasoning", "text": "T"})),
    ("gemini", candidate({"parts": [{"thought": "T"}, {"text": "Hello"}]})),
    ("gemini", candidate({"parts": [{"text": "T", "thought": "true"}, {"text": "Hello"}]})),
]
CALLED: list[tuple[str, Any]] = [
    ("anthropic", message({"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}})),
    ("anthropic", message(None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": '{"a":1}'}}], stop_reason=None)),
    ("anthropic", message([{"type": "function_call", "id": "c", "name": "f", "arguments": '{"a":1}'}])),
    ("responses", {**RESPONSES, "output": {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"a": 1}}}),
    ("responses", {**RESPONSES, "output": [{"type": "tool_call", "id": "c", "name": "f", "arguments": '{"a":1}'}]}),
    ("gemini", candidate({"parts": {"functionCall": {"name": "f", "id": "c", "args": {"a": 1}}}})),
    ("gemini", candidate({"parts": [{"function_call": {"name": "f", "id": "c", "args": '{"a":1}'}}]})),
]  # fmt: skip


def read(dialect: str, body: bytes, media: str = "application/json") -> Reply | Failed:
    decoder = DIALECTS[dialect].decoder(Capabilities(), media, "s")
    return collect([*decoder.feed(body), *decoder.close()])


def answer(dialect: str, body: Any) -> Reply:
    reply = read(dialect, json.dumps(body).encode())
    assert isinstance(reply, Reply), reply
    return reply


@pytest.mark.parametrize(("dialect", "body"), HELLO)
def test_a_text_is_read_in_any_shape(dialect: str, body: Any) -> None:
    reply = answer(dialect, body)
    assert "".join(part.text for part in reply.parts if isinstance(part, Text)) == "Hello"
    assert len(reply.parts) == 1 and reply.finish.reason == "stop"


@pytest.mark.parametrize(("dialect", "body"), THOUGHT)
def test_reasoning_is_read_in_any_shape(dialect: str, body: Any) -> None:
    thought, text = answer(dialect, body).parts
    assert isinstance(thought, Thinking) and isinstance(text, Text)
    assert (thought.text, text.text) == ("T", "Hello")


@pytest.mark.parametrize(("dialect", "body"), CALLED)
def test_a_call_is_read_in_any_shape(dialect: str, body: Any) -> None:
    reply = answer(dialect, body)
    (call,) = reply.parts
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, json.loads(call.arguments)) == ("c", "f", {"a": 1})
    assert reply.finish.reason == "tool_calls"


STREAMS: list[tuple[str, list[Json]]] = [
    ("anthropic", [
        {"type": "message_start", "message": {"id": 5, "content": "", "model": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": "Hel"},
        {"type": "content_block_delta", "index": 0.0, "delta": "lo"},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]),
    ("responses", [
        {"type": "response.created", "response": {"id": 5, "output": "", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": ""}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": ["Hel"]},
        {"type": "response.output_text.delta", "output_index": 0, "delta": {"text": "lo"}},
        {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "content": "Hello"}},
        {"type": "response.completed", "response": {**RESPONSES, "output": "Hello"}},
    ]),
    ("gemini", [
        {"candidates": {"content": {"parts": "Hel"}}},
        {"candidates": [{"content": "lo", "index": "0"}]},
        {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]},
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "events"), STREAMS)
def test_an_event_of_another_shape_is_no_end_of_a_stream(dialect: str, events: list[Json]) -> None:
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    reply = read(dialect, data.encode(), "text/event-stream")
    assert isinstance(reply, Reply), reply
    assert [part.text for part in reply.parts if isinstance(part, Text)] == ["Hello"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"5", b'"x"', b"[[[]]]", b"null", b"[" * 500, b'{"data":{"data":{}}}', b"<html>"]
)  # fmt: skip
def test_what_is_no_answer_stays_none(dialect: str, body: bytes) -> None:
    reply = read(dialect, body)
    assert isinstance(reply, Failed) and reply.failure.kind == "upstream"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_of_the_upstream_stays_its_own(dialect: str) -> None:
    body = {"error": {"message": "Rate limit.", "code": 429, "status": "RESOURCE_EXHAUSTED"}}
    reply = read(
        dialect, json.dumps({**body, "content": "x", "choices": [], "output": ""}).encode()
    )
    assert isinstance(reply, Failed) and reply.failure.kind == "rate_limit"
