"""What upstreams of every dialect say in odd ways, and what the client must get of it."""

import json
from typing import Any

import pytest

from headgate.chat import Failed, Searched, Text, Thinking, ToolCall, collect
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import DIALECTS
from headgate.stream import sse

Said = tuple[Text | Thinking | ToolCall | Searched, ...]


def read(dialect: str, *events: Any) -> Said:
    decoder = DIALECTS[dialect].decoder(Capabilities(), "text/event-stream", "s")
    data = b"".join(sse.encode(json.dumps(e).encode()) for e in events)
    reply = collect([*decoder.feed(data), *decoder.close()])
    assert not isinstance(reply, Failed), reply
    return reply.parts


def openai(*deltas: dict[str, Any]) -> Said:
    chunks = [{"choices": [{"index": 0, "delta": d}]} for d in deltas]
    return read("openai", *chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]})


def texts(dialect: str, pieces: list[str]) -> Said:
    match dialect:
        case "openai":
            return openai(*({"content": p} for p in pieces))
        case "anthropic":
            return read(
                "anthropic",
                {"type": "message_start", "message": {"id": "u", "model": "m"}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
                *(
                    {"type": "content_block_delta", "index": 0, "delta": {"text": p}}
                    for p in pieces
                ),
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
                {"type": "message_stop"},
            )
        case "gemini":
            return read(
                "gemini",
                *({"candidates": [{"content": {"parts": [{"text": p}]}}]} for p in pieces),
                {"candidates": [{"finishReason": "STOP"}]},
            )
        case _:
            item = {"type": "message", "id": "i", "content": [{"text": "".join(pieces)}]}
            return read(
                "responses",
                {
                    "type": "response.output_item.added",
                    "output_index": 0,
                    "item": {"type": "message"},
                },
                *(
                    {"type": "response.output_text.delta", "output_index": 0, "delta": p}
                    for p in pieces
                ),
                {"type": "response.output_item.done", "output_index": 0, "item": item},
                {"type": "response.completed", "response": {"status": "completed"}},
            )


FOUR = ["openai", "anthropic", "gemini", "responses"]
TAGGED = {
    "a block": ("<thinking>\nhm\n</thinking>\n\nHello", (Thinking("hm"), Text("Hello"))),
    "the older tag": ("<think>hm</think>Hello", (Thinking("hm"), Text("Hello"))),
    "a closing tag first": ("</thinking>\n\nHello", (Text("Hello"),)),
    "a closing tag alone in its line": ("A.\n</thinking>\n\nB", (Text("A.\n\n\nB"),)),
    "tags in a fence": (
        "```\n<thinking>\nx\n</thinking>\n```\nend",
        (Text("```\n<thinking>\nx\n</thinking>\n```\nend"),),
    ),
    "a closing tag in a fence": (
        "A\n```\n</thinking>\n```\nend",
        (Text("A\n```\n</thinking>\n```\nend"),),
    ),
    "tags in the answer": ("Use <thinking> so.", (Text("Use <thinking> so."),)),
    "a block that never closes": ("<thinking>hm", (Thinking("hm"),)),
    "the beginning of a tag": ("<thin", (Text("<thin"),)),
}


@pytest.mark.parametrize("dialect", FOUR)
@pytest.mark.parametrize("name", TAGGED)
def test_thinking_tags_in_a_text_are_thinking_wherever_they_are_cut(
    name: str, dialect: str
) -> None:
    said, parts = TAGGED[name]
    assert texts(dialect, list(said)) == parts
    for cut in range(len(said) + 1):
        assert texts(dialect, [p for p in (said[:cut], said[cut:]) if p]) == parts, cut


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_closing_tag_that_leaked_into_a_field_is_taken_off_wherever_it_is_cut(field: str) -> None:
    said = "hm\n</thinking>"
    for cut in range(1, len(said)):
        parts = openai({field: said[:cut]}, {field: said[cut:]}, {"content": "Hello"})
        assert parts[-1] == Text("Hello")
        assert isinstance(parts[0], Thinking) and parts[0].text.rstrip("\n") == "hm", cut


def test_contents_that_are_lists_are_read() -> None:
    assert openai(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
    ) == (Thinking("hm"), Text("Hello"))
    assert openai(
        {"reasoning_content": [{"type": "text", "text": "hm"}]}, {"content": "Hello"}
    ) == (Thinking("hm"), Text("Hello"))


def call(index: int | None, id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    piece = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [piece]}


PIECES: dict[str, list[dict[str, Any]]] = {
    "another index": [
        call(0, "a", "f", ""),
        call(1, None, None, '{"x":'),
        call(1, None, None, "1}"),
    ],
    "another index, the same id": [call(0, "a", "f", ""), call(1, "a", None, '{"x":1}')],
    "another id": [call(0, "a", "f", ""), call(0, "b", None, '{"x":'), call(0, "c", None, "1}")],
    "no index, another id": [call(None, "a", "f", '{"x":'), call(None, "b", None, "1}")],
    "no index": [call(0, "a", "f", '{"x":'), call(None, None, None, "1}")],
    "encoded twice": [call(0, "a", "f", '"{\\"x\\":'), call(0, None, None, '1}"')],
    "encoded three times": [call(0, "a", "f", json.dumps(json.dumps('{"x":1}')))],
}


WHOLE = {"name": "f", "arguments": '{"x":1}'}
ODD_CALLS: dict[str, dict[str, Any]] = {
    "no list": {"tool_calls": {"index": 0, "id": "a", "function": WHOLE}},
    "no function": {"tool_calls": [{"index": 0, "id": "a", **WHOLE}]},
    "a number for an id": {"tool_calls": [{"index": 0, "id": 17, "function": WHOLE}]},
    "a text for an index": {"tool_calls": [{"index": "0", "id": "a", "function": WHOLE}]},
    "an object": {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]},
    "the field of 2023": {"function_call": WHOLE},
}


@pytest.mark.parametrize("name", ODD_CALLS)
def test_a_call_of_another_shape_is_a_call(name: str) -> None:
    (made,) = openai(ODD_CALLS[name])
    assert isinstance(made, ToolCall)
    assert (made.name, made.arguments) == ("f", '{"x":1}')


def test_a_call_of_2023_may_come_in_pieces() -> None:
    pieces = [{"function_call": {"name": "f"}}, {"function_call": {"arguments": '{"x":'}}]
    (made,) = openai(*pieces, {"function_call": {"arguments": "1}"}})
    assert isinstance(made, ToolCall) and made.arguments == '{"x":1}'


def test_arguments_that_are_summed_up_at_the_end_are_not_said_twice() -> None:
    pieces = [call(0, "a", "f", '{"x":'), call(0, None, None, "1}")]
    assert openai(*pieces, call(0, "a", "f", '{"x":1}')) == (ToolCall("a", "f", '{"x":1}'),)
    assert openai(*pieces, call(0, "b", "f", '{"x":1}')) == (
        ToolCall("a", "f", '{"x":1}'),
        ToolCall("b", "f", '{"x":1}'),
    )


ODD_TEXTS: dict[str, dict[str, Any]] = {
    "an object": {"content": {"type": "text", "text": "Hello"}},
    "a list of texts": {"content": ["Hel", "lo"]},
    "thinking in an object": {"reasoning": {"content": "hm"}, "content": "Hello"},
    "thinking in a list of texts": {"reasoning_content": ["h", "m"], "content": "Hello"},
    "details without a list": {"reasoning_details": {"text": "hm"}, "content": "Hello"},
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_texts_of_other_types_are_read(name: str) -> None:
    parts = openai(ODD_TEXTS[name])
    said = [p.text for p in parts if isinstance(p, Text | Thinking)]
    assert said in (["Hello"], ["hm", "Hello"])
    assert len(said) == 1 + any(key.startswith("reasoning") for key in ODD_TEXTS[name])


@pytest.mark.parametrize("content", [{"zz": 1}, ["a", {"zz": 1}], True])
def test_what_has_no_text_is_no_silent_loss(content: Any) -> None:
    with pytest.raises(AssertionError, match="could not be read"):
        openai({"content": content})


@pytest.mark.parametrize(
    ("reason", "finish"), [("MAX_TOKENS", "length"), ("model_length", "length"), (7, "stop")]
)
def test_reasons_in_other_words_are_understood(reason: Any, finish: str) -> None:
    decoder = DIALECTS["openai"].decoder(Capabilities(), "text/event-stream", "s")
    chunk = {"choices": [{"delta": {"content": "Hello"}, "finish_reason": reason}]}
    reply = collect([*decoder.feed(sse.encode(json.dumps(chunk).encode())), *decoder.close()])
    assert not isinstance(reply, Failed) and reply.finish.reason == finish


def test_names_that_are_numbers_and_lists_that_are_null_harm_no_answer() -> None:
    assert read(
        "anthropic",
        {"type": "message_start", "message": {"id": 7, "model": 3, "content": None}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": 5, "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"partial_json": '{"id":1}'}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ) == (ToolCall("5", "f", '{"id":1}'),)
    item = {"type": "message", "id": 4, "content": None}
    assert read(
        "responses",
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_text.delta", "output_index": 0, "item_id": 4, "delta": "Hello"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": 9, "status": "completed"}},
    ) == (Text("Hello"),)
    call = {"id": 5, "name": "f", "args": {"id": 1, "x": None}}
    (made,) = read(
        "gemini",
        {
            "responseId": 7,
            "candidates": [
                {"content": {"parts": [{"functionCall": call}]}, "finishReason": "STOP"}
            ],
        },
    )
    assert isinstance(made, ToolCall) and json.loads(made.arguments) == {"id": 1, "x": None}


TEXT_SHAPES = {
    "an object": {"text": "Hello"},
    "an annotated object": {"value": "Hello", "annotations": []},
    "a list of texts": ["Hel", "lo"],
    "a list of objects": [{"text": "Hel"}, {"value": "lo"}],
}


@pytest.mark.parametrize("odd", TEXT_SHAPES.values(), ids=list(TEXT_SHAPES))
@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_texts_of_another_type_are_read_in_every_protocol(odd: Any, kind: str) -> None:
    made = Text("Hello") if kind == "text" else Thinking("Hello")
    assert read(
        "anthropic",
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": kind, kind: ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": f"{kind}_delta", kind: odd}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ) == (made,)
    event = "output_text" if kind == "text" else "reasoning_text"
    item = {"type": "message" if kind == "text" else "reasoning", "id": "i"}
    assert read(
        "responses",
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": f"response.{event}.delta", "output_index": 0, "item_id": "i", "delta": odd},
        {"type": "response.completed", "response": {"id": "r", "status": "completed"}},
    ) == (made,)
    part = {"text": odd, "thought": kind == "thinking"}
    assert read(
        "gemini",
        {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]},
    ) == (made,)


@pytest.mark.parametrize("name", PIECES)
def test_pieces_without_a_name_belong_to_the_call_before(name: str) -> None:
    assert openai(*PIECES[name]) == (ToolCall("a", "f", '{"x":1}'),)


def test_parallel_calls_stay_apart() -> None:
    assert openai(
        call(0, "a", "f", '{"x":1}'), call(1, "b", "g", '{"y"'), call(1, None, None, ":2}")
    ) == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", '{"y":2}'))


def test_a_string_that_is_no_object_stays_as_the_model_wrote_it() -> None:
    assert openai(call(0, "a", "f", '"x"')) == (ToolCall("a", "f", '"x"'),)


def test_pieces_without_a_name_belong_to_the_call_before_in_every_dialect() -> None:
    assert read(
        "anthropic",
        {"type": "message_start", "message": {"id": "u", "model": "m"}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"partial_json": '{"x":1}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ) == (ToolCall("a", "f", '{"x":1}'),)
    assert read(
        "responses",
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"type": "function_call", "call_id": "a", "name": "f"},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"x":1}'},
        {"type": "response.completed", "response": {"status": "completed"}},
    ) == (ToolCall("a", "f", '{"x":1}'),)
    calls = [{"functionCall": {"name": "f", "id": "a"}}, {"functionCall": {"args": '{"x":1}'}}]
    assert read(
        "gemini", {"candidates": [{"content": {"parts": calls}, "finishReason": "STOP"}]}
    ) == (ToolCall("a", "f", '{"x":1}'),)
