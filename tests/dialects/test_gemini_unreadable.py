"""What a Gemini client sends that no model reads: noted, skipped or kept, never the end of a session."""

import json
from typing import Any

import pytest

from headgate.chat import Media, Message, Request, Text, ToolCall, ToolResult
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS

GEMINI = DIALECTS["gemini"]


def decoded(*contents: Any, **fields: Any) -> Request:
    body = {"contents": list(contents), **fields}
    return GEMINI.decode_request(json.dumps(body).encode(), RequestTarget("m"))


def user(*parts: Any) -> Any:
    return {"role": "user", "parts": list(parts)}


def model(*parts: Any) -> Any:
    return {"role": "model", "parts": list(parts)}


NOTED: dict[str, tuple[Any, str]] = {
    "a PDF": ({"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}}, "a PDF"),
    "a PDF by address": (
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/a.pdf"}},
        "a PDF",
    ),
    "a sound": ({"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}, "an audio file"),
    "a film": ({"inlineData": {"mimeType": "video/mp4", "data": "aGk="}}, "a video"),
    "an uploaded picture": (
        {"fileData": {"mimeType": "image/png", "fileUri": "files/1"}},
        "a picture",
    ),
    "a picture that is no base64": (
        {"inlineData": {"mimeType": "image/png", "data": "?"}},
        "a picture",
    ),
    "a part of next month": ({"hologram": {"x": 1}}, "a part of an unknown kind"),
}
CALL = {"functionCall": {"id": "1", "name": "f", "args": {}}}


@pytest.mark.parametrize("name", NOTED)
def test_what_a_function_returned_and_no_model_reads_becomes_a_note(name: str) -> None:
    part, what = NOTED[name]
    response = {"id": "1", "name": "f", "response": {"output": "one page"}, "parts": [part]}
    request = decoded(model(CALL), user({"functionResponse": response}))
    note = f"[{what} was returned here; this model cannot read it]"
    result = ToolResult("1", (Text("one page"), Text(note)), name="f")
    assert request.messages[1] == Message("tool", (result,))
    assert request.warnings == (f"tool result: {what} replaced by a note",)


def test_a_picture_that_a_function_returned_stays_a_picture() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    response = {"id": "1", "name": "f", "response": {}, "parts": [part]}
    request = decoded(model(CALL), user({"functionResponse": response}))
    result = ToolResult("1", (Media("image", media_type="image/png", data="aGk="),), name="f")
    assert (request.messages[1].parts, request.warnings) == ((result,), ())


def test_parts_of_unknown_kinds_are_skipped_with_a_warning() -> None:
    request = decoded(
        user({"text": "hi"}, {"hologram": {"x": 1}}), model({"hologram": {}}, {"text": "a"})
    )
    assert request.messages == (
        Message("user", (Text("hi"),)),
        Message("assistant", (Text("a"),)),
    )
    assert request.warnings == ("history: part of an unknown kind skipped",)


def test_what_a_hosted_tool_left_is_kept_as_text_with_a_warning() -> None:
    request = decoded(model({"executableCode": {"code": "1+1"}}))
    assert request.messages == (Message("assistant", (Text("```\n1+1\n```"),)),)
    assert request.warnings == ("history: part of a hosted tool kept as text",)


def test_a_picture_by_the_model_is_skipped_with_a_warning() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    request = decoded(model({"text": "here"}, picture))
    assert request.messages == (Message("assistant", (Text("here"),)),)
    assert request.warnings == ("history: a picture in a turn of the model skipped",)


def test_calls_and_results_in_turns_of_the_wrong_role_are_no_end() -> None:
    result = {"functionResponse": {"id": "1", "name": "f", "response": {"output": "x"}}}
    request = decoded(model(CALL, result), user({"text": "and?"}, CALL))
    assert request.messages == (
        Message("assistant", (ToolCall("1", "f", "{}"),)),
        Message("tool", (ToolResult("1", (Text("x"),), name="f"),)),
        Message("user", (Text("and?[functionCall f: {}]"),)),
    )
    assert len(request.warnings) == 2


def test_an_unknown_role_is_read_as_the_users() -> None:
    request = decoded({"role": "critic", "parts": [{"text": "no"}]})
    assert request.messages == (Message("user", (Text("no"),)),)
    assert request.warnings == ("history: role critic read as user",)


@pytest.mark.parametrize("args", ['{"a":1}', {"a": 1}])
def test_arguments_that_are_encoded_twice_are_read(args: Any) -> None:
    request = decoded(model({"functionCall": {"id": "1", "name": "f", "args": args}}))
    assert request.messages[0].parts == (ToolCall("1", "f", '{"a":1}'),)


HINTS: dict[str, tuple[dict[str, Any], str]] = {
    "a mode": (
        {"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}},
        "functionCallingConfig.mode (MAYBE read as AUTO)",
    ),
    "a level": (
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "ULTRA"}}},
        "thinkingLevel (ULTRA read as MAX)",
    ),
    "a modality": (
        {"generationConfig": {"responseModalities": ["TEXT", "SMELL"]}},
        "responseModalities (SMELL ignored)",
    ),
    "safety": ({"safetySettings": [{"category": "X"}]}, "safetySettings"),
    "a resolution": ({"generationConfig": {"mediaResolution": "LOW"}}, "mediaResolution"),
    "a behavior": (
        {"tools": [{"functionDeclarations": [{"name": "f", "behavior": "NON_BLOCKING"}]}]},
        "functionDeclarations.behavior",
    ),
}


@pytest.mark.parametrize("name", HINTS)
def test_hints_that_cannot_be_had_are_ignored_with_a_warning(name: str) -> None:
    fields, warning = HINTS[name]
    assert decoded(user({"text": "hi"}), **fields).warnings == (warning,)


UPPER = {
    "type": "OBJECT",
    "properties": {"type": {"type": "STRING", "enum": ["OBJECT", "A"]}, "n": {"type": "INTEGER"}},
    "required": ["type"],
}
LOWER = {
    "type": "object",
    "properties": {"type": {"type": "string", "enum": ["OBJECT", "A"]}, "n": {"type": "integer"}},
    "required": ["type"],
}


def test_json_schemas_with_googles_names_of_types_are_read() -> None:
    """Gemini CLI's router asks for its decision so."""
    request = decoded(
        user({"text": "hi"}),
        generationConfig={"responseMimeType": "application/json", "responseJsonSchema": UPPER},
        tools=[{"functionDeclarations": [{"name": "f", "parametersJsonSchema": UPPER}]}],
    )
    assert request.format is not None
    assert json.loads(bytes(request.format.schema)) == LOWER
    assert json.loads(bytes(request.tools[0].parameters)) == LOWER
