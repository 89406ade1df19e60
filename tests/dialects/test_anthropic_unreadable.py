"""What a Messages client sends that no model reads: noted, skipped or kept, never the end of a session."""

import json
from typing import Any

import pytest

from headgate.chat import Media, Message, Request, Text, ToolCall, ToolResult
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS

ANTHROPIC = DIALECTS["anthropic"]


def decoded(*messages: Any, **fields: Any) -> Request:
    body = {"model": "m", "max_tokens": 9, "messages": list(messages), **fields}
    return ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget())


def result(*content: Any) -> Request:
    block = {"type": "tool_result", "tool_use_id": "1", "content": list(content)}
    return decoded({"role": "user", "content": [block]})


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
NOTED: dict[str, tuple[Any, str]] = {
    "a PDF": ({"type": "document", "source": PDF, "title": "a.pdf"}, "a PDF"),
    "a PDF by address": (
        {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
        "a document",
    ),
    "a document by id": (
        {"type": "document", "source": {"type": "file", "file_id": "f"}},
        "a document",
    ),
    "a picture by id": ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "a picture"),
    "a picture of another type": (
        {"type": "image", "source": {"type": "base64", "media_type": "text/html", "data": "aGk="}},
        "a picture",
    ),
    "a local picture": (
        {"type": "image", "source": {"type": "url", "url": "file:///a.png"}},
        "a picture",
    ),
    "a sound": (
        {"type": "audio", "source": {"type": "base64", "media_type": "audio/wav", "data": "aGk="}},
        "an audio file",
    ),
    "an upload": ({"type": "container_upload", "file_id": "f"}, "a file"),
    "a kind of next month": ({"type": "hologram", "x": 1}, "a block of the type `hologram`"),
    "a text that is a number": ({"type": "text", "text": 1}, "a block of the type `text`"),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_a_tool_returned_and_no_model_reads_becomes_a_note(name: str) -> None:
    block, what = NOTED[name]
    request = result({"type": "text", "text": "Read 1 page"}, block)
    note = f"[{what} was returned here; this model cannot read it]"
    assert request.messages == (
        Message("tool", (ToolResult("1", (Text("Read 1 page"), Text(note))),)),
    )
    assert request.warnings == (f"tool result: {what} replaced by a note",)


def test_a_picture_that_a_tool_returned_stays_a_picture() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    request = result({"type": "image", "source": source})
    assert request.messages[0].parts == (
        ToolResult("1", (Media("image", media_type="image/png", data="aGk="),)),
    )
    assert request.warnings == ()


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_an_unknown_block_is_kept_as_text_or_skipped(role: str) -> None:
    request = decoded(
        {
            "role": role,
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "hologram", "x": 1},
                {"type": "compaction", "content": "what was before"},
            ],
        }
    )
    assert request.messages == (
        Message(role, (Text("hi"), Text("[compaction]\nwhat was before"))),  # type: ignore[arg-type]
    )
    assert request.warnings == (
        "history: compaction block kept as text",
        "history: hologram block skipped",
    )


def test_a_picture_in_an_assistants_turn_is_skipped_with_a_warning() -> None:
    image = {"type": "image", "source": {"type": "file", "file_id": "f"}}
    content = [{"type": "text", "text": "here"}, image]
    request = decoded({"role": "assistant", "content": content})
    assert request.messages == (Message("assistant", (Text("here"),)),)
    assert request.warnings == ("history: image block skipped",)


def test_skipped_thinking_is_named() -> None:
    request = decoded(
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}
    )
    assert request.warnings == ("history: redacted_thinking block skipped",)


def test_an_unknown_role_is_read_as_the_users() -> None:
    request = decoded({"role": "critic", "content": "no"}, {"role": "developer", "content": "yes"})
    assert request.messages == (Message("user", (Text("no"),)), Message("system", (Text("yes"),)))
    assert request.warnings == ("history: role critic read as user",)


@pytest.mark.parametrize(
    ("input", "arguments"),
    [('{"a": 1}', '{"a": 1}'), ([1], "[1]"), ("cut {", "cut {"), (None, "{}"), (5, "5")],
)
def test_the_input_of_a_call_in_history_is_read_whatever_it_is(input: Any, arguments: str) -> None:
    call = {"type": "tool_use", "id": "1", "name": "f", "input": input}
    request = decoded({"role": "assistant", "content": [call]})
    assert request.messages[0].parts == (ToolCall("1", "f", arguments),)


def test_hints_of_next_month_are_mapped_or_ignored_with_a_warning() -> None:
    request = decoded(
        {"role": "user", "content": "hi"},
        tools=[{"name": "f"}],
        thinking={"type": "deep"},
        tool_choice={"type": "maybe"},
        service_tier="flex",
        context_management={"edits": []},
        speed="fast",
    )
    assert (request.reasoning.mode, request.choice.mode) == ("on", "auto")
    assert set(request.warnings) == {
        "thinking.type (deep read as adaptive)",
        "tool_choice (maybe read as auto)",
        "service_tier",
        "context_management",
        "speed",
    }


def test_a_lone_surrogate_in_a_result_costs_no_more_than_itself() -> None:
    half = chr(92) + "ud83d"
    body = json.dumps(
        {
            "model": "m",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "content": [{"type": "text", "text": "cut HALF"}],
                        }
                    ],
                }
            ],
        }
    ).replace("HALF", half)
    request = ANTHROPIC.decode_request(body.encode(), RequestTarget())
    assert request.messages[0].parts == (ToolResult("1", (Text("cut \ufffd"),)),)
    assert request.warnings == ("lone surrogates (replaced by U+FFFD)",)
