"""Gemini generateContent: bytes in, bytes out, in both directions."""

import base64
import itertools
import json
from typing import Any

import msgspec
import pytest
from google.genai import types
from google.genai.chats import _validate_response
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from headgate.chat import (
    Choice,
    Delta,
    Event,
    Failed,
    Finish,
    FinishReason,
    Format,
    Grammar,
    Media,
    Message,
    PartStart,
    PartStop,
    Reasoning,
    Reply,
    Request,
    Sampling,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    collect,
    replay,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ModelCard, ReplyFacts, RequestTarget
from headgate.dialects.gemini.dialect import GeminiDialect
from headgate.dialects.gemini.signatures import decode_signature, encode_signature
from headgate.errors import MODEL_OUTPUT, STATUS, Failure, Refused
from headgate.stream import sse

GEMINI = GeminiDialect()
FACTS = ReplyFacts("1", "MiniMax-M2", 1700000000)
ASK = Request("MiniMax-M2", (Message("user", (Text("hi"),)),), stream=True)
SSE = RequestTarget()
STREAM, JSON = "text/event-stream", "application/json"
LEVELS = Capabilities(thinking_switch="effort", thinking_off=True)
BUDGET = Capabilities(thinking_switch="budget", thinking_off=True)
SIGNED = base64.b64encode(b"\x12\x07Google\xff").decode()


def ask(*contents: Any, stream: bool = False, **fields: Any) -> Request:
    body = {"contents": list(contents) or [{"role": "user", "parts": [{"text": "hi"}]}], **fields}
    return GEMINI.decode_request(json.dumps(body).encode(), RequestTarget("m", stream))


def refused(*contents: Any, **fields: Any) -> Failure:
    with pytest.raises(Refused) as caught:
        ask(*contents, **fields)
    return caught.value.failure


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def called(name: str, id: str = "", **args: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args} | ({"id": id} if id else {})}


def answered(name: str, said: Any = "ok", id: str = "") -> dict[str, Any]:
    response = said if isinstance(said, dict) else {"output": said}
    return {"functionResponse": {"name": name, "response": response} | ({"id": id} if id else {})}


def send(request: Request, capabilities: Capabilities = LEVELS) -> Any:
    return json.loads(GEMINI.encode_request(request, capabilities, "up", False))


def encode(events: list[Event], target: RequestTarget = SSE) -> bytes:
    return GEMINI.encoder(ASK, FACTS, target).feed(events)


def decode(*pieces: bytes, media: str = STREAM) -> list[Event]:
    decoder = GEMINI.decoder(LEVELS, media, "s")
    events = [e for piece in pieces for e in decoder.feed(piece)] + decoder.close()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    assert grammar.ended
    return events


def chunk(*parts: Any, reason: str = "", **fields: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return sse.encode(
        json.dumps({"candidates": [candidate], **fields}, ensure_ascii=False).encode()
    )


def read(*pieces: bytes, media: str = STREAM) -> Reply:
    reply = collect(decode(*pieces, media=media))
    assert isinstance(reply, Reply), reply
    return reply


def failure(data: bytes, media: str = STREAM) -> Failure:
    failed = collect(decode(data, media=media))
    assert isinstance(failed, Failed), failed
    return failed.failure


def frames(data: bytes) -> list[Any]:
    """The chunks of a stream in which nothing but `data: ` lines and blank ones may stand."""
    out = []
    for line in data.decode().split("\n"):
        if line:
            assert line.startswith("data: ")
            out.append(json.loads(line[6:]))
    return out


# --- requests: from clients --------------------------------------------------------------------

# Trimmed from bodies recorded 2026-11: google-genai 3.4 (Python), @google/genai 3.1, gemini-cli 0.61.
RECORDED = {
    "python with every parameter": b'{"contents": [{"parts": [{"text": "x"}], "role": "user"}], "systemInstruction": {"parts": [{"text": "brief"}], "role": "user"}, "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}], "tools": [{"functionDeclarations": [{"description": "d", "name": "get_weather", "parameters": {"properties": {"city": {"type": "STRING"}}, "required": ["city"], "type": "OBJECT"}}]}], "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}, "generationConfig": {"temperature": 0.1, "topP": 0.9, "topK": 20.0, "candidateCount": 1, "maxOutputTokens": 100, "stopSequences": ["END"], "presencePenalty": 0.1, "frequencyPenalty": 0.1, "seed": 1, "thinkingConfig": {"include_thoughts": true, "thinking_budget": 1024}}}',
    "python's replayed calls": b'{"contents": [{"parts": [{"text": "x"}], "role": "user"}, {"parts": [{"functionCall": {"id": "fc_73", "args": {"city": "Paris"}, "name": "get_weather"}}, {"functionCall": {"id": "fc_21", "args": {"city": "Tokyo"}, "name": "get_weather"}}], "role": "model"}, {"parts": [{"functionResponse": {"name": "get_weather", "response": {"result": "sunny"}}}, {"functionResponse": {"name": "get_weather", "response": {"result": "rain"}}}], "role": "user"}], "tools": [{"functionDeclarations": [{"description": "d", "name": "get_weather", "parameters_json_schema": {"type": "object", "properties": {"city": {"type": "string"}}}, "response_json_schema": {"type": "string"}}]}], "generationConfig": {}}',
    "python forcing a tool": b'{"contents": [{"parts": [{"text": "x"}], "role": "user"}], "tools": [{"functionDeclarations": [{"name": "get_weather", "parameters": {"properties": {"city": {"type": "STRING"}}, "type": "OBJECT"}}]}], "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["get_weather"], "mode": "ANY"}}, "generationConfig": {}}',
    "python with a schema": b'{"contents": [{"parts": [{"text": "x"}], "role": "user"}], "generationConfig": {"responseMimeType": "application/json", "responseSchema": {"properties": {"name": {"title": "Name", "type": "STRING"}}, "property_ordering": ["name"], "required": ["name"], "title": "Person", "type": "OBJECT"}}}',
    "python counting": b'{"contents": [{"parts": [{"text": "hello"}], "role": "user"}]}',
    "javascript's replayed thought": b'{"contents": [{"parts": [{"text": "x"}], "role": "user"}, {"parts": [{"text": "I need the weather.", "thought": true}, {"functionCall": {"args": {"city": "Paris"}, "id": "fc_c7", "name": "get_weather"}, "thoughtSignature": "em9vLXNpZ25hdHVyZQ=="}], "role": "model"}, {"parts": [{"functionResponse": {"id": "fc_c7", "name": "get_weather", "response": {"r": "sunny"}}}], "role": "user"}], "generationConfig": {}}',
    "gemini-cli": b'{"contents": [{"parts": [{"text": "x"}, {"text": "y"}], "role": "user"}, {"parts": [{"text": "Writing."}, {"functionCall": {"id": "fc_6d", "args": {"file_path": "/p.1"}, "name": "write_file"}, "thoughtSignature": "skip_thought_signature_validator"}, {"functionCall": {"id": "fc_68", "args": {"file_path": "/p.2"}, "name": "write_file"}}], "role": "model"}, {"parts": [{"functionResponse": {"name": "write_file", "response": {"output": "Wrote 1"}, "id": "fc_6d"}}, {"functionResponse": {"name": "write_file", "response": {"output": "Wrote 2"}, "id": "fc_68"}}], "role": "user"}], "systemInstruction": {"parts": [{"text": "s"}], "role": "user"}, "tools": [{"functionDeclarations": [{"name": "write_file", "description": "d", "parametersJsonSchema": {"type": "object", "properties": {"file_path": {"type": "string"}}}}]}], "generationConfig": {"temperature": 1, "topP": 0.95, "topK": 64, "thinkingConfig": {"includeThoughts": true}}}',
}


@pytest.mark.parametrize("name", RECORDED)
def test_what_real_clients_send_is_understood_and_can_be_sent_on(name: str) -> None:
    request = GEMINI.decode_request(RECORDED[name], RequestTarget("m"))
    assert GEMINI.decode_request(
        GEMINI.encode_request(request, BUDGET, "m", False), RequestTarget("m")
    )
    assert send(request)["contents"]


def test_every_parameter_arrives() -> None:
    request = GEMINI.decode_request(
        RECORDED["python with every parameter"], RequestTarget("m", True)
    )
    assert request == Request(
        "m",
        (Message("system", (Text("brief"),)), Message("user", (Text("x"),))),
        stream=True,
        tools=(
            Tool(
                "get_weather",
                "d",
                Raw(
                    b'{"properties":{"city":{"type":"string"}},"required":["city"],"type":"object"}'
                ),
            ),
        ),
        sampling=Sampling(100, 0.1, 0.9, 20, 1, 0.1, 0.1, ("END",)),
        reasoning=Reasoning("on", "yes", budget_tokens=1024),
        warnings=("safetySettings",),
    )


def test_gemini_clis_history_arrives_without_its_sentinel() -> None:
    request = GEMINI.decode_request(RECORDED["gemini-cli"], RequestTarget("m"))
    assert request.messages[1:] == (
        Message("user", (Text("xy"),)),
        Message(
            "assistant",
            (
                Text("Writing."),
                ToolCall("fc_6d", "write_file", '{"file_path":"/p.1"}'),
                ToolCall("fc_68", "write_file", '{"file_path":"/p.2"}'),
            ),
        ),
        Message("tool", (ToolResult("fc_6d", (Text("Wrote 1"),), name="write_file"),)),
        Message("tool", (ToolResult("fc_68", (Text("Wrote 2"),), name="write_file"),)),
    )


def test_names_come_in_snake_case_too_but_the_callers_own_are_left_alone() -> None:
    schema = {"type": "object", "properties": {"file_path": {"type": "string", "min_length": 1}}}
    request = ask(
        user({"inline_data": {"mime_type": "image/png", "data": "aGk="}}),
        model({"function_call": {"name": "f", "args": {"file_path": {"a_b": 1}}}}),
        user({"function_response": {"name": "f", "response": {"the_result": {"c_d": 2}}}}),
        system_instruction={"parts": [{"text": "s"}]},
        tools=[{"function_declarations": [{"name": "f", "parameters_json_schema": schema}]}],
        tool_config={"function_calling_config": {"mode": "ANY"}},
        generation_config={
            "max_output_tokens": 7,
            "response_mime_type": "application/json",
            "response_json_schema": {"title": "a_b", "x_y": {}},
        },
    )
    system, first, call, result = (m.parts[0] for m in request.messages)
    assert system == Text("s") and isinstance(first, Media)
    assert isinstance(call, ToolCall) and call.arguments == '{"file_path":{"a_b":1}}'
    assert isinstance(result, ToolResult) and result.parts == (Text('{"the_result":{"c_d":2}}'),)
    assert json.loads(bytes(request.tools[0].parameters)) == schema
    assert request.choice == Choice("required")
    assert request.sampling.max_tokens == 7
    assert request.format is not None and b'"x_y"' in bytes(request.format.schema)


HI = (Message("user", (Text("hi"),)),)


@pytest.mark.parametrize(
    "contents",
    [
        "hi",
        {"parts": [{"text": "hi"}]},
        {"parts": {"text": "hi"}},
        {"parts": "hi"},
        ["hi"],
        [{"role": "user", "parts": [{"text": "h"}, {"text": "i"}]}],
        [{"role": "", "parts": [{"text": "hi"}, {"text": ""}]}],
    ],
)
def test_loose_contents_are_understood(contents: Any) -> None:
    body = json.dumps({"contents": contents, "generationConfig": None}).encode()
    assert GEMINI.decode_request(body, RequestTarget("m")).messages == HI
    body = json.dumps({"generateContentRequest": {"contents": contents}}).encode()
    assert GEMINI.decode_request(body, RequestTarget("m")).messages == HI


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "two candidates": (
        {"generationConfig": {"candidateCount": 2}},
        "generationConfig.candidateCount",
    ),
    "logprobs": (
        {"generationConfig": {"response_logprobs": True}},
        "generationConfig.responseLogprobs",
    ),
    "spoken replies": (
        {"generationConfig": {"responseModalities": ["TEXT", "AUDIO"]}},
        "generationConfig.responseModalities",
    ),
    "a voice": ({"generationConfig": {"speechConfig": {}}}, "generationConfig.speechConfig"),
    "XML": (
        {"generationConfig": {"responseMimeType": "text/xml"}},
        "generationConfig.responseMimeType",
    ),
    "a cache": ({"cachedContent": "cachedContents/1"}, "cachedContent"),
    "a film": (
        {"contents": [user({"inlineData": {"mimeType": "video/mp4", "data": "aGk="}})]},
        "contents[0].parts[0].inlineData.mimeType",
    ),
    "a document": (
        {
            "contents": [
                user({"fileData": {"fileUri": "https://x/a", "mimeType": "application/pdf"}})
            ]
        },
        "contents[0].parts[0].fileData.mimeType",
    ),
    "an uploaded file": (
        {"contents": [user({"fileData": {"fileUri": "files/1"}})]},
        "contents[0].parts[0].fileData.fileUri",
    ),
    "a system picture": (
        {"systemInstruction": {"parts": [{"inlineData": {}}]}},
        "systemInstruction.parts[0]",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    fields, param = UNSUPPORTED[name]
    made = refused(**fields)
    assert (made.code, made.param) == ("unsupported_parameter", f"$.{param}")
    assert param in made.message


FUNCTION = {"functionDeclarations": [{"name": "f"}, {"name": "g"}]}


def config(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


def forced(mode: str, *names: str) -> dict[str, Any]:
    return {"functionCallingConfig": {"mode": mode, "allowedFunctionNames": list(names)}}


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no contents": ({"contents": []}, "$.contents"),
    "contents that are a number": ({"contents": 1}, "$.contents"),
    "text that is a number": ({"contents": [user({"text": 1})]}, "$.contents[0].parts[0].text"),
    "negative tokens": (config(max_output_tokens=-2), "$.generationConfig.maxOutputTokens"),
    "tokens as text": (config(maxOutputTokens="five"), "$.generationConfig.maxOutputTokens"),
    "half a token": (config(maxOutputTokens=1.5), "$.generationConfig.maxOutputTokens"),
    "true tokens": (config(maxOutputTokens=True), "$.generationConfig.maxOutputTokens"),
    "too hot": (config(temperature=2.1), "$.generationConfig.temperature"),
    "topP": (config(topP=1.1), "$.generationConfig.topP"),
    "an empty stop": (config(stopSequences=[""]), "$.generationConfig.stopSequences"),
    "a schema that is a text": (
        config(responseJsonSchema="x"),
        "$.generationConfig.responseJsonSchema",
    ),
    "a name in both cases": (config(topP=1, top_p=0.5), "$"),
    "a function without a name": (
        {"tools": [{"functionDeclarations": [{}]}]},
        "$.tools[0].functionDeclarations[0]",
    ),
    "a call without tools": (
        {"toolConfig": forced("ANY")},
        "$.toolConfig.functionCallingConfig.mode",
    ),
    "a missing tool": (
        {"tools": [FUNCTION], "toolConfig": forced("ANY", "h")},
        "$.toolConfig.functionCallingConfig.allowedFunctionNames",
    ),
    "a picture that is no base64": (
        {"contents": [user({"inlineData": {"mimeType": "image/png", "data": "?"}})]},
        "$.contents[0].parts[0].inlineData.data",
    ),
    "a text that is no UTF-8": (
        {"contents": [user({"inlineData": {"mimeType": "text/plain", "data": "/w=="}})]},
        "$.contents[0].parts[0].inlineData.data",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_wrong_is_refused_with_its_address(name: str) -> None:
    fields, param = INVALID[name]
    made = refused(**fields)
    assert (made.kind, made.param, made.code) == ("invalid", param, "")


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b'{"contents":' + b"[" * 200_000])
def test_no_body_is_anything_but_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        GEMINI.decode_request(body, RequestTarget("m"))


def test_a_deep_body_is_refused() -> None:
    deep: Any = {}
    for _ in range(70):
        deep = {"a": deep}
    for contents in (
        [model({"functionCall": {"name": "f", "args": deep}})],
        [user({"functionResponse": {"id": "c", "name": "f", "response": deep}})],
    ):
        assert "64 levels" in refused(*contents).message


@pytest.mark.parametrize(
    ("wire", "reasoning"),
    [
        (None, Reasoning(show="omit")),
        ({}, Reasoning(show="omit")),
        ({"includeThoughts": True}, Reasoning()),
        ({"includeThoughts": False, "thinkingBudget": 0}, Reasoning("off", "omit")),
        ({"thinkingBudget": -1}, Reasoning("on", "omit")),
        ({"thinkingBudget": 9}, Reasoning("on", "omit", budget_tokens=9)),
        ({"thinkingLevel": "minimal"}, Reasoning("off", "omit", "minimal")),
        ({"thinking_level": "HIGH"}, Reasoning("on", "omit", "high")),
    ],
)
def test_the_words_for_thinking_are_understood(wire: Any, reasoning: Reasoning) -> None:
    assert ask(generationConfig={"thinkingConfig": wire}).reasoning == reasoning


@pytest.mark.parametrize(
    ("mode", "allowed", "choice", "left"),
    [
        ("AUTO", [], Choice(), "fg"),
        ("auto", ["f"], Choice(), "fg"),
        ("VALIDATED", ["f"], Choice(), "f"),
        ("NONE", [], Choice("none"), "fg"),
        ("ANY", [], Choice("required"), "fg"),
        ("ANY", ["g"], Choice("named", "g"), "fg"),
        ("ANY", ["g", "f"], Choice("required"), "fg"),
    ],
)
def test_allowed_names_are_a_named_choice_or_a_filter(
    mode: str, allowed: list[str], choice: Choice, left: str
) -> None:
    request = ask(tools=[FUNCTION], toolConfig=forced(mode, *allowed))
    assert (request.choice, "".join(t.name for t in request.tools)) == (choice, left)


def test_googles_schema_becomes_a_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "property_ordering": ["a"],
        "properties": {
            "min_items": {"type": "ARRAY", "min_items": "1", "items": {"type": "INTEGER"}},
            "type": {"type": "STRING", "enum": ["OBJECT"], "nullable": True},
            "one": {"anyOf": [{"type": "NUMBER"}, {"ref": "#/defs/a_b"}], "nullable": True},
        },
        "defs": {"a_b": {"type": "BOOLEAN"}},
        "required": ["min_items"],
    }
    tools = [{"functionDeclarations": [{"name": "f", "parameters": schema}, {"name": "g"}]}]
    f, g = (json.loads(bytes(t.parameters)) for t in ask(tools=tools).tools)
    assert f == {
        "type": "object",
        "properties": {
            "min_items": {"type": "array", "minItems": 1, "items": {"type": "integer"}},
            "type": {"type": ["string", "null"], "enum": ["OBJECT", None]},
            "one": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/a_b"}, {"type": "null"}]},
        },
        "$defs": {"a_b": {"type": "boolean"}},
        "required": ["min_items"],
    }
    assert g == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("fields", "format"),
    [
        ({"responseMimeType": "text/plain"}, None),
        ({"responseMimeType": "application/json"}, Format("object")),
        (
            {
                "responseMimeType": "text/x.enum",
                "responseSchema": {"type": "STRING", "enum": ["a"]},
            },
            Format("schema", "response", Raw(b'{"type":"string","enum":["a"]}'), True),
        ),
        (
            {"responseJsonSchema": {"type": "object"}},
            Format("schema", "response", Raw(b'{"type":"object"}'), True),
        ),
    ],
)
def test_a_mime_type_and_a_schema_are_a_format(fields: Any, format: Format | None) -> None:
    assert ask(generationConfig=fields).format == format


def test_pictures_come_by_address_or_by_value_and_texts_are_read() -> None:
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": "-_8"}},  # Python's alphabet, no padding
        {"fileData": {"fileUri": "https://x/a.png", "mimeType": "image/png"}},
        {"text": "a"},
        {"inlineData": {"mimeType": "text/csv", "data": "YixjCg=="}},
    ]
    assert ask(user(*parts)).messages[0].parts == (
        Media("image", media_type="image/png", data="+/8="),
        Media("image", url="https://x/a.png", media_type="image/png"),
        Text("ab,c\n"),
    )


def test_what_googles_own_tools_left_is_text() -> None:
    request = ask(
        model(
            {"executableCode": {"language": "PYTHON", "code": "1+1"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
        )
    )
    assert request.messages[0].text == "```\n1+1\n```2"


# --- calls and results -------------------------------------------------------------------------


def results(*contents: Any) -> list[tuple[str, str]]:
    """Which call each result answers, by the calls' city, and its text."""
    cities, out = {}, []
    for message in ask(*contents).messages:
        for part in message.parts:
            if isinstance(part, ToolCall):
                cities[part.id] = json.loads(part.arguments)["city"]
            elif isinstance(part, ToolResult):
                text = part.parts[0]
                assert isinstance(text, Text)
                out.append((cities[part.call_id], text.text))
    return out


MATCHED: dict[str, tuple[list[Any], list[Any], list[tuple[str, str]]]] = {
    "no ids, one function twice": (
        [called("f", city="A"), called("f", city="B")],
        [answered("f", "1"), answered("f", "2")],
        [("A", "1"), ("B", "2")],
    ),
    "no ids, swapped": (
        [called("f", city="A"), called("g", city="B")],
        [answered("g", "1"), answered("f", "2")],
        [("B", "1"), ("A", "2")],
    ),
    "ids, swapped": (
        [called("f", "1", city="A"), called("f", "2", city="B")],
        [answered("f", "b", "2"), answered("f", "a", "1")],
        [("B", "b"), ("A", "a")],
    ),
    "one id": (
        [called("f", "1", city="A"), called("f", "2", city="B")],
        [answered("f", "b"), answered("f", "a", "1")],
        [("B", "b"), ("A", "a")],
    ),
    "ids in the results only": (
        [called("f", city="A"), called("g", city="B")],
        [answered("g", "b", "9"), answered("f", "a", "8")],
        [("B", "b"), ("A", "a")],
    ),
    "no names": (
        [called("f", city="A"), called("g", city="B")],
        [answered("", "a"), answered("", "b")],
        [("A", "a"), ("B", "b")],
    ),
}


@pytest.mark.parametrize("name", MATCHED)
def test_results_find_their_calls(name: str) -> None:
    calls, answers, expected = MATCHED[name]
    assert results(model(*calls), user(*answers)) == expected
    spread = [user(a) for a in answers]
    if name != "one id":  # a turn of its own knows nothing of the next
        assert results(model(*calls), *spread) == expected


def test_a_call_without_an_id_gets_the_same_one_each_time() -> None:
    turns = [user({"text": "x"}), model(called("f", city="A"), called("f", city="A"))]
    first, again = (
        ask(*turns),
        ask(*turns, user(answered("f"), answered("f")), model({"text": "y"})),
    )
    calls = first.messages[1].parts
    assert calls == again.messages[1].parts
    assert isinstance(calls[0], ToolCall) and isinstance(calls[1], ToolCall)
    assert calls[0].id != calls[1].id and calls[0].id.startswith("call_1_0_")


def test_a_result_too_many_is_kept_as_the_users_text() -> None:
    request = ask(model(called("f")), user(answered("f"), answered("f")))
    assert [m.role for m in request.messages] == ["assistant", "tool", "user"]
    assert "ok" in request.messages[-1].text
    assert "history: functionResponse without its call kept as text" in request.warnings


def test_a_call_without_a_name_is_shown_as_text() -> None:
    request = ask(user({"text": "a"}), model(called("")), user({"text": "b"}))
    assert "[functionCall" in request.messages[1].text
    assert request.warnings == ("history: functionCall without a name kept as text",)


def test_a_result_with_an_id_of_no_call_is_left_to_the_rules_of_history() -> None:
    result = ask(user(answered("f", id="lost"))).messages[0].parts[0]
    assert isinstance(result, ToolResult) and result.call_id == "lost"


@pytest.mark.parametrize(
    ("response", "parts", "is_error"),
    [
        ({"output": "x"}, (Text("x"),), False),
        ({"result": "x"}, (Text("x"),), False),
        ({"error": "x"}, (Text("x"),), True),
        ({"error": {"a": 1}}, (Text('{"error":{"a":1}}'),), True),
        ({"output": {"a": 1}}, (Text('{"output":{"a":1}}'),), False),
        ({"output": "x", "error": "y"}, (Text('{"output":"x","error":"y"}'),), False),
        ({"r": "sunny"}, (Text('{"r":"sunny"}'),), False),
        ({"output": ""}, (), False),
        ({}, (), False),
    ],
)
def test_a_plain_response_is_plain_text(response: Any, parts: Any, is_error: bool) -> None:
    result = ask(model(called("f", "1")), user(answered("f", response, "1"))).messages[1].parts[0]
    assert result == ToolResult("1", parts, is_error, "f")


def test_results_come_before_what_the_user_adds() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    answer = answered("f", id="1")
    answer["functionResponse"]["parts"] = [picture]
    request = ask(model(called("f", "1")), user({"text": "and "}, answer, {"text": "now?"}))
    media = Media("image", media_type="image/png", data="aGk=")
    assert request.messages[1:] == (
        Message("tool", (ToolResult("1", (Text("ok"), media), name="f"),)),
        Message("user", (Text("and now?"),)),
    )


# --- signatures --------------------------------------------------------------------------------

THOUGHT = {"text": "hm", "thought": True}
THOUGHTS: dict[str, tuple[list[Any], tuple[Any, ...]]] = {
    "on the call, thought told": (
        [THOUGHT, called("f", "1") | {"thoughtSignature": SIGNED}],
        (Thinking("hm", SIGNED), ToolCall("1", "f", "{}")),
    ),
    "on the call, thought not told": (
        [called("f", "1") | {"thoughtSignature": SIGNED}],
        (Thinking("", SIGNED), ToolCall("1", "f", "{}")),
    ),
    "on the second call": (
        [called("f", "1"), called("g", "2") | {"thoughtSignature": SIGNED}],
        (ToolCall("1", "f", "{}"), Thinking("", SIGNED), ToolCall("2", "g", "{}")),
    ),
    "on text": (
        [THOUGHT, {"text": "x", "thoughtSignature": SIGNED}, {"text": "y"}],
        (Thinking("hm", SIGNED), Text("xy")),
    ),
    "after the text": (
        [{"text": "x"}, {"text": "", "thoughtSignature": SIGNED}],
        (Text("x"), Thinking("", SIGNED)),
    ),
    "on the thought itself": ([THOUGHT | {"thoughtSignature": SIGNED}], (Thinking("hm", SIGNED),)),
    "thought in pieces": (
        [{"text": "h", "thought": True}, {"text": "m", "thought": True}, {"text": "x"}],
        (Thinking("hm"), Text("x")),
    ),
    "two thoughts": (
        [THOUGHT, {"text": "", "thoughtSignature": SIGNED}, THOUGHT, {"text": "x"}],
        (Thinking("hm", SIGNED), Thinking("hm"), Text("x")),
    ),
    "the sentinel": (
        [called("f", "1") | {"thoughtSignature": "skip_thought_signature_validator"}],
        (ToolCall("1", "f", "{}"),),
    ),
    "no base64": ([{"text": "x", "thoughtSignature": "sig!!"}], (Text("x"),)),
}


@pytest.mark.parametrize("name", THOUGHTS)
def test_a_signature_signs_the_thinking_before_it(name: str) -> None:
    parts, expected = THOUGHTS[name]
    assert ask(model(*parts)).messages[0].parts == expected


SIGNATURE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.binary(min_size=1).map(lambda b: base64.b64encode(b).decode()),
    st.binary(min_size=1).map(lambda b: base64.urlsafe_b64encode(b).decode()),
    st.sampled_from(["hg1.eJw.a-b_", "ab12" * 16, "skip_thought_signature_validator", "aGc6eA=="]),
)


@given(signature=SIGNATURE)
@settings(max_examples=100, deadline=None)
def test_a_client_gives_back_the_signature_it_got(signature: str) -> None:
    """Also when it decodes and encodes it on the way, in the other alphabet, as Python's SDK does."""
    wire = encode_signature(signature)
    data = base64.b64decode(wire, validate=True)
    assert base64.b64encode(data).decode() == wire
    assert decode_signature(wire) == signature
    assert decode_signature(base64.urlsafe_b64encode(data).decode().rstrip("=")) == signature
    assert decode_signature(encode_signature(wire)) == wire  # a gateway before a gateway


@given(data=st.binary(min_size=1), form=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_upstream_gets_back_the_very_signature_it_gave(data: bytes, form: int) -> None:
    data = b"hg:" * (form == 3) + data
    native = (base64.urlsafe_b64encode if form == 1 else base64.b64encode)(data).decode()
    native = native.rstrip("=") if form == 2 else native
    part = called("f", "1") | {"thoughtSignature": native}
    reply = read(chunk(THOUGHT, part, reason="STOP"))
    shown = json.loads(GEMINI.encode_reply(reply, ASK, FACTS))["candidates"][0]["content"]
    content = types.Content.model_validate(shown)  # and as the SDK would send it
    again = ask(json.loads(content.model_dump_json(exclude_none=True, by_alias=True)))
    assert send(again)["contents"][0]["parts"][1]["thoughtSignature"] == native


# --- requests: to upstreams --------------------------------------------------------------------

WORD = st.text('abcé \u2028\n"{}漢😀', min_size=1, max_size=8).map(lambda s: "w" + s)
TEXT = WORD.map(Text)
IMAGE = st.sampled_from(
    [
        Media("image", url="https://x/a"),
        Media("image", url="https://x/a", media_type="image/png"),
        Media("image", media_type="image/png", data="aGk="),
    ]
)
CALL = st.builds(ToolCall, WORD, WORD, st.sampled_from(['{"a":1}', '{"a":[1.5,null]}', "{}"]))
USER: st.SearchStrategy[list[Any]] = st.tuples(st.lists(IMAGE, max_size=2), TEXT).map(
    lambda p: [*p[0], p[1]]
)
SIGN = st.sampled_from(["hg1.a-b", "x", SIGNED, "ab12" * 16])
ASSISTANT: st.SearchStrategy[list[Any]] = st.tuples(
    st.lists(st.builds(Thinking, st.just("") | WORD, SIGN), max_size=2),
    st.lists(TEXT, max_size=1),
    st.lists(CALL, max_size=2, unique_by=lambda c: c.id),
).map(lambda p: [*p[0], *p[1], *p[2]])
TOOLS = (
    Tool("f", "F.", Raw(b'{"type":"object","properties":{"a":{}}}')),
    Tool("g"),
)
RESULT: st.SearchStrategy[tuple[Any, ...]] = st.tuples(
    st.lists(TEXT, max_size=1), st.lists(IMAGE, max_size=1)
).map(lambda p: (*p[0], *p[1]))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    messages = [Message("system", (draw(TEXT),))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(USER))))
        parts = tuple(draw(ASSISTANT))
        messages.append(Message("assistant", parts))
        for c in parts:
            if isinstance(c, ToolCall):
                said = ToolResult(c.id, draw(RESULT), draw(st.booleans()), c.name)
                messages.append(Message("tool", (said,)))
    tools = draw(st.sampled_from([(), TOOLS]))
    choices = [Choice(), Choice("none"), Choice("required"), Choice("named", "g")]
    return Request(
        "m",
        tuple(messages),
        stream=draw(st.booleans()),
        tools=tools,
        choice=draw(st.sampled_from(choices)) if tools else Choice(),
        sampling=draw(
            st.sampled_from([Sampling(), Sampling(5, 0.5, 0.9, 40, 1, 0.1, -0.1, ("END",))])
        ),
        reasoning=draw(
            st.sampled_from(
                [
                    Reasoning(),
                    Reasoning(show="omit"),
                    Reasoning("on"),
                    Reasoning("on", "omit", "high"),
                    Reasoning("on", budget_tokens=2048),
                    Reasoning("off", "omit", "minimal"),
                ]
            )
        ),
        format=draw(
            st.sampled_from(
                [
                    None,
                    Format("object"),
                    Format("schema", "response", Raw(b'{"type":"object"}'), True),
                ]
            )
        ),
    )


@given(request=requests())
@settings(max_examples=80, deadline=None)
def test_a_request_sent_on_is_the_request_that_came(request: Request) -> None:
    body = GEMINI.encode_request(request, LEVELS, "m", request.stream)
    assert body == GEMINI.encode_request(request, LEVELS, "m", request.stream)
    assert GEMINI.decode_request(body, RequestTarget("m", request.stream)) == request
    types.Content.model_validate(json.loads(body)["contents"][0])


def test_results_are_named_after_their_calls_and_are_one_turn() -> None:
    messages = (
        Message("assistant", (ToolCall("1", "f", '{\n "a": 1.0\n}'), ToolCall("2", "g", "{bad"))),
        Message("tool", (ToolResult("1", (Text("x"),)),)),
        Message("tool", (ToolResult("2", (Text("y"),), True),)),
        Message("user", (Text("go"),)),
        Message("user", (Text("on"),)),
    )
    sent = GEMINI.encode_request(Request("m", messages), LEVELS, "up", False)
    assert b'"args":{"a":1.0}' in sent
    contents = json.loads(sent)["contents"]
    assert [c["role"] for c in contents] == ["model", "user", "user"]
    assert contents[1]["parts"] == [
        {"functionResponse": {"id": "1", "name": "f", "response": {"output": "x"}}},
        {"functionResponse": {"id": "2", "name": "g", "response": {"error": "y"}}},
        {"text": "go"},
    ]


@pytest.mark.parametrize(
    ("reasoning", "can", "wire"),
    [
        (Reasoning("on", effort="high"), BUDGET, {"thinkingBudget": 16384}),
        (Reasoning("on", effort="high"), LEVELS, {"thinkingLevel": "HIGH"}),
        (Reasoning("on", effort="max"), LEVELS, {"thinkingLevel": "XHIGH"}),
        (Reasoning("on"), BUDGET, {"thinkingBudget": -1}),
        (Reasoning("off"), BUDGET, {"thinkingBudget": 0}),
        (Reasoning("off"), LEVELS, {"thinkingLevel": "MINIMAL"}),
        (Reasoning("on", effort="low"), Capabilities(), {}),
        (Reasoning("on", budget_tokens=7), LEVELS, {"thinkingBudget": 7}),
    ],
)
def test_thinking_is_switched_in_the_models_words(
    reasoning: Reasoning, can: Capabilities, wire: dict[str, Any]
) -> None:
    request = msgspec.structs.replace(ASK, reasoning=reasoning)
    assert send(request, can)["generationConfig"]["thinkingConfig"] == {
        "includeThoughts": True,
        **wire,
    }


def test_thinking_that_is_shown_inline_must_be_asked_for() -> None:
    request = msgspec.structs.replace(ASK, reasoning=Reasoning(show="inline"))
    assert send(request)["generationConfig"]["thinkingConfig"]["includeThoughts"] is True


def test_the_path_names_the_model_and_the_method() -> None:
    assert GEMINI.request_path("m", False) == "/models/m:generateContent"
    assert GEMINI.request_path("m", True) == "/models/m:streamGenerateContent?alt=sse"


# --- replies: to clients, and from upstreams that speak as we do -------------------------------


@st.composite
def replies(draw: st.DrawFn) -> tuple[list[Event], Reply]:
    """The events of a reply, its deltas cut anywhere, and the reply itself."""
    parts = [p for p in draw(ASSISTANT) if not (isinstance(p, Thinking) and not p.text)]
    parts = [
        msgspec.structs.replace(p, id=f"call_{i}") if isinstance(p, ToolCall) else p
        for i, p in enumerate(parts)
    ]
    calls = any(isinstance(p, ToolCall) for p in parts)
    reasons: list[FinishReason] = ["stop", "length", "content_filter"]
    reason: FinishReason = "tool_calls" if calls else draw(st.sampled_from(reasons))
    usage = draw(st.sampled_from([None, Usage(7, 5, 3, 0, 2), Usage(1, 1)]))
    reply = Reply(tuple(parts), Finish(reason, usage), "1", "MiniMax-M2")
    events: list[Event] = []
    for event in replay(reply):
        if isinstance(event, Delta):
            at = draw(st.integers(0, len(event.text)))
            events += [Delta(t) for t in (event.text[:at], event.text[at:]) if t]
        else:
            events.append(event)
    return events, reply


@given(made=replies(), cuts=st.lists(st.integers(0, 5000), max_size=8))
@settings(max_examples=80, deadline=None)
def test_any_cut_of_the_bytes_reads_the_same(
    made: tuple[list[Event], Reply], cuts: list[int]
) -> None:
    sent = encode(made[0])
    marks = [0, *sorted(c % (len(sent) + 1) for c in cuts), len(sent)]
    assert collect(decode(*(sent[a:b] for a, b in itertools.pairwise(marks)))) == made[1]


@given(made=replies())
@settings(max_examples=60, deadline=None)
def test_whole_array_and_stream_are_the_same_reply(made: tuple[list[Event], Reply]) -> None:
    events, reply = made
    whole = GEMINI.encode_reply(reply, ASK, FACTS)
    assert read(whole, media=JSON) == reply
    assert read(encode(events, RequestTarget(array=True)), media=JSON) == reply
    assert read(encode(events)) == reply


@given(made=replies(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_before_its_finish_fails(
    made: tuple[list[Event], Reply], data: st.DataObject
) -> None:
    sent = encode(made[0])
    at = data.draw(st.integers(0, len(sent) - 2))
    assert isinstance(collect(decode(sent[:at])), Failed)


@given(made=replies())
@settings(max_examples=40, deadline=None)
def test_each_chunk_is_what_the_sdk_expects(made: tuple[list[Event], Reply]) -> None:
    """`_validate_response` decides whether google-genai's chats keep the turn in their history."""
    for sent in (*frames(encode(made[0])), *json.loads(encode(made[0], RequestTarget(array=True)))):
        assert _validate_response(types.GenerateContentResponse.model_validate(sent))
    whole = GEMINI.encode_reply(made[1], ASK, FACTS)
    assert _validate_response(types.GenerateContentResponse.model_validate_json(whole))


NASTY = "\r\n\n\rdata: [DONE]\n\nevent: x\n\u2028\u2029\x85\x00</think>"


def test_text_cannot_leave_its_event() -> None:
    said = '{\n"a":\r\n' + json.dumps(NASTY) + "}"
    parts = (Thinking(NASTY + "."), Text(NASTY), ToolCall("call_" + NASTY, NASTY, said))
    reply = Reply(parts, Finish("tool_calls", Usage(1, 1)), "1", "MiniMax-M2")
    sent = encode(list(replay(reply)))
    assert len(sent.decode().splitlines()) == sent.count(b"\n")
    got = read(sent)
    assert got.parts[:2] == parts[:2]
    call = got.parts[2]
    assert isinstance(call, ToolCall) and json.loads(call.arguments) == {"a": NASTY}


WEATHER = ToolCall("c1", "get_weather", '{"city":"Paris"}')
HELLO = Reply(
    (Thinking("hm", SIGNED), Text("Hello"), WEATHER), Finish("tool_calls", Usage(5, 3, 2, 0, 1))
)
USAGE = {
    "promptTokenCount": 5,
    "candidatesTokenCount": 2,
    "totalTokenCount": 8,
    "cachedContentTokenCount": 2,
    "thoughtsTokenCount": 1,
}


def test_a_stream_shows_thought_text_whole_calls_and_the_end() -> None:
    events: list[Event] = [
        Start(),
        PartStart("thinking"),
        Delta("hm"),
        PartStop(SIGNED),
        PartStart("text"),
        Delta("Hel"),
        Delta("lo"),
        PartStop(),
        PartStart("tool_call", "c1", "get_weather"),
        Delta('{"city":'),
        Delta('"Paris"}'),
        PartStop(),
        HELLO.finish,
    ]
    sent = frames(encode(events))
    assert [c["candidates"][0]["content"]["parts"] for c in sent] == [
        [{"text": "hm", "thought": True}],
        [{"text": "Hel", "thoughtSignature": SIGNED}],
        [{"text": "lo"}],
        [{"functionCall": {"id": "c1", "name": "get_weather", "args": {"city": "Paris"}}}],
        [{"text": ""}],
    ]
    assert [c["candidates"][0].get("finishReason") for c in sent] == [None] * 4 + ["STOP"]
    assert [c.get("usageMetadata") for c in sent] == [None] * 4 + [USAGE]
    assert {(c["responseId"], c["modelVersion"]) for c in sent} == {("1", "MiniMax-M2")}


def test_a_whole_reply_is_what_the_sdk_expects() -> None:
    body = GEMINI.encode_reply(HELLO, ASK, FACTS)
    reply = types.GenerateContentResponse.model_validate_json(body)
    assert reply.candidates is not None and reply.candidates[0].content is not None
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP
    parts = reply.candidates[0].content.parts
    assert parts is not None and reply.function_calls is not None
    assert [p.thought_signature for p in parts] == [None, base64.b64decode(SIGNED), None]
    assert (parts[0].text, parts[0].thought, parts[1].text) == ("hm", True, "Hello")
    assert reply.function_calls[0].args == {"city": "Paris"}
    assert json.loads(body)["usageMetadata"] == USAGE


def test_an_empty_reply_has_an_empty_text() -> None:
    empty = Reply((), Finish("stop", Usage(1)))
    for body in (
        json.loads(GEMINI.encode_reply(empty, ASK, FACTS)),
        *frames(encode(list(replay(empty)))),
    ):
        assert body["candidates"][0]["content"] == {"role": "model", "parts": [{"text": ""}]}


def test_an_array_is_one_json_value_with_its_error_inside() -> None:
    target = RequestTarget(array=True)
    sent = encode(list(replay(HELLO)), target)
    assert sent.startswith(b"[{") and sent.endswith(b"}]") and sent.count(b"}\n,\n{") == 3
    assert len(json.loads(sent)) == 4
    encoder = GEMINI.encoder(ASK, FACTS, target)
    begun = encoder.feed([Start(), PartStart("text"), Delta("x")]) + GEMINI.facts.keepalive
    (end,) = encoder.fail(Failure("overloaded", "Later."))
    assert json.loads(begun + end)[1]["error"]["status"] == "UNAVAILABLE"
    assert failure(begun + end, JSON).kind == "overloaded"
    (alone,) = GEMINI.encoder(ASK, FACTS, target).fail(Failure("timeout", "Late."))
    assert json.loads(GEMINI.facts.keepalive + alone)[0]["error"]["code"] == 504


def test_arguments_that_are_no_object_end_in_malformed_function_call() -> None:
    for bad in ('{"a":', "[1]", '"x"', "null"):
        reply = Reply((Text("x"), ToolCall("1", "f", bad)), Finish("tool_calls", Usage(1, 1)))
        whole = json.loads(GEMINI.encode_reply(reply, ASK, FACTS))["candidates"][0]
        last = frames(encode(list(replay(reply))))[-1]["candidates"][0]
        assert whole["content"]["parts"] == [{"text": "x"}]
        assert whole["finishReason"] == last["finishReason"] == "MALFORMED_FUNCTION_CALL"


def test_two_signatures_are_both_told() -> None:
    reply = Reply((Thinking("a", SIGNED), Thinking("b", "x"), WEATHER), Finish("tool_calls"))
    assert read(GEMINI.encode_reply(reply, ASK, FACTS), media=JSON).parts == reply.parts
    assert read(encode(list(replay(reply)))).parts == reply.parts


CARDS = [ModelCard(f"M{i}", f"M {i}", 1700000000, 204800, 65536, description="d") for i in range(5)]


def test_models_are_listed_in_pages_as_the_sdk_expects() -> None:
    names, query = [], {"pageSize": "2"}
    while True:
        page = json.loads(GEMINI.encode_models(CARDS, query))
        names += [m["name"] for m in page["models"]]
        if "nextPageToken" not in page:
            break
        query = {"page_size": "2", "page_token": page["nextPageToken"]}
    assert names == [f"models/M{i}" for i in range(5)]
    card = json.loads(GEMINI.encode_model(CARDS[0]))
    assert card == json.loads(GEMINI.encode_models(CARDS, {}))["models"][0]
    assert (card["baseModelId"], card["thinking"]) == ("M0", True)
    assert (
        types.Model.model_validate(
            {k: card[k] for k in ("name", "displayName", "inputTokenLimit")}
        ).input_token_limit
        == 204800
    )


@pytest.mark.parametrize(
    "query", [{"pageToken": "x"}, {"pageSize": "-1"}, {"page_token": "9" * 99}]
)
def test_a_page_that_is_no_number_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Refused):
        GEMINI.encode_models(CARDS, query)


def test_a_count_is_what_the_sdk_expects() -> None:
    sent = GEMINI.encode_count(7)
    assert types.CountTokensResponse.model_validate_json(sent).total_tokens == 7


# --- replies: from upstreams -------------------------------------------------------------------


def test_googles_own_stream_is_read() -> None:
    usage = {"promptTokenCount": 9, "totalTokenCount": 9}
    full = usage | {
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
        "cachedContentTokenCount": 4,
    }
    reply = read(
        chunk(
            {"text": "h", "thought": True}, usageMetadata=usage, responseId="r", modelVersion="g"
        ),
        chunk({"text": "m", "thought": True}, usageMetadata=usage),
        chunk({"text": "Hel"}, usageMetadata=usage),
        chunk({"text": "lo"}),
        b"\n",
        chunk({"text": "", "thoughtSignature": SIGNED}),
        chunk({"functionCall": {"name": "f", "args": {"a": "é"}}}, {"functionCall": {"name": "g"}}),
        b'data: {"candidates":[{"finishReason":"STOP","index":0}],"usageMetadata":'
        + json.dumps(full).encode()
        + b"}\n\n",
    )
    assert reply == Reply(
        (
            Thinking("hm"),
            Text("Hello"),
            Thinking("", SIGNED),
            ToolCall("call_s_1", "f", '{"a":"é"}'),
            ToolCall("call_s_2", "g", "{}"),
        ),
        Finish("tool_calls", Usage(9, 5, 4, 0, 2)),
        "r",
        "g",
    )


def test_googles_indented_bodies_become_compact_arguments() -> None:
    body = {
        "candidates": [
            {"content": {"parts": [called("f", "1", a=[1.0, {"b": None}])]}, "finishReason": "STOP"}
        ]
    }
    for text in (json.dumps(body, indent=2), json.dumps([body], indent=2)):
        assert read(text.encode(), media=JSON).parts == (
            ToolCall("1", "f", '{"a":[1.0,{"b":null}]}'),
        )


ODD = {
    "nulls": b'data: {"candidates":[{"content":{"parts":null},"finishReason":null}],"usageMetadata":{"promptTokenCount":null},"error":null}\n\n',
    "a chunk of nothing": b"data: {}\n\n",
    "an empty event": b"data: \n\n",
    "a finish that was not said": b'data: {"candidates":[{"finishReason":"FINISH_REASON_UNSPECIFIED"}]}\n\n',
    "a second candidate": b'data: {"candidates":[{"index":1,"content":{"parts":[{"text":"no"}]},"finishReason":"SAFETY"}]}\n\n',
    "usage beyond belief": b'data: {"usageMetadata":{"promptTokenCount":-1,"candidatesTokenCount":5}}\n\n',
    "a comment": b": ping\n\n",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_chunks_do_no_harm(name: str) -> None:
    usage = {"promptTokenCount": 2, "candidatesTokenCount": 1}
    end = chunk(reason="STOP", usageMetadata=usage)
    reply = read(chunk({"text": "x"}), ODD[name], end, ODD[name], b"data: [DONE]\n\n")
    assert (reply.parts, reply.finish) == ((Text("x"),), Finish("stop", Usage(2, 1)))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_finish_reasons_are_mapped(said: str, reason: str) -> None:
    assert read(chunk({"text": "x"}, reason=said)).finish.reason == reason


def test_a_reply_that_broke_off_fails() -> None:
    broken = failure(chunk({"text": "x"}, reason="MALFORMED_FUNCTION_CALL"))
    assert (broken.kind, broken.code) == ("upstream", MODEL_OUTPUT)
    assert failure(chunk({"text": "x"})).kind == "upstream"


def test_a_refused_prompt_is_blocked_in_both_directions() -> None:
    status, body = GEMINI.encode_failure(Failure("blocked", "No."), "r")
    reply = types.GenerateContentResponse.model_validate_json(body)
    assert status == 200 and reply.prompt_feedback is not None and not reply.candidates
    assert reply.prompt_feedback.block_reason == types.BlockedReason.SAFETY
    assert failure(body, JSON).kind == "blocked"
    assert failure(sse.encode(body)).kind == "blocked"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b"[1]", b'{"candidates":[]}', b'{"candidates":1}']
)
def test_a_whole_reply_without_an_answer_fails(body: bytes) -> None:
    assert failure(body, JSON).kind == "upstream"


@pytest.mark.parametrize("args", [b"[1]", b"1", b'"x"'])
def test_arguments_that_are_no_object_are_no_reply(args: bytes) -> None:
    body = (
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":'
        + args
        + b"}}]}}]}"
    )
    assert failure(sse.encode(body)).kind == "upstream"


def test_a_lone_surrogate_is_replaced_and_a_pair_is_kept() -> None:
    body = b'{"candidates":[{"content":{"parts":[{"text":"a\\ud83d \\ud83d\\ude00"},{"functionCall":{"name":"f","args":{"a":"\\ud83d"}}}]},"finishReason":"STOP"}]}'
    reply = read(sse.encode(body))
    assert reply.parts == (Text("a\ufffd \U0001f600"), ToolCall("call_s_1", "f", '{"a":"\ufffd"}'))
    assert GEMINI.encode_reply(reply, ASK, FACTS)


# --- errors ------------------------------------------------------------------------------------

ERRORS = {  # protocols.md 3.11
    "invalid": (400, "INVALID_ARGUMENT", None),
    "context_length": (400, "INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED"),
    "too_large": (413, "INVALID_ARGUMENT", "REQUEST_TOO_LARGE"),
    "media_type": (415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    "not_found": (404, "NOT_FOUND", None),
    "method": (405, "UNIMPLEMENTED", None),
    "conflict": (409, "ABORTED", None),
    "request_timeout": (408, "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT"),
    "unauthenticated": (401, "UNAUTHENTICATED", "API_KEY_INVALID"),
    "forbidden": (403, "PERMISSION_DENIED", None),
    "no_credit": (429, "RESOURCE_EXHAUSTED", "INSUFFICIENT_CREDITS"),
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
    "internal": (500, "INTERNAL", None),
    "unavailable": (503, "UNAVAILABLE", None),
    "upstream": (503, "UNAVAILABLE", "UPSTREAM_ERROR"),
    "upstream_auth": (424, "FAILED_PRECONDITION", "UPSTREAM_AUTH"),
    "upstream_quota": (424, "FAILED_PRECONDITION", "UPSTREAM_QUOTA"),
    "upstream_config": (424, "FAILED_PRECONDITION", "UPSTREAM_CONFIG"),
    "overloaded": (503, "UNAVAILABLE", "OVERLOADED"),
    "timeout": (504, "DEADLINE_EXCEEDED", None),
    "client_gone": (499, "CANCELLED", None),
}


@pytest.mark.parametrize("kind", sorted(set(STATUS) - {"blocked"}))
def test_each_kind_of_failure_has_its_words(kind: Any) -> None:
    status, body = GEMINI.encode_failure(Failure(kind, "No."), "r")
    http, word, reason = ERRORS[kind]
    error = {"code": http, "message": "No.", "status": word}
    if reason:
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "headgate",
        }
        error["details"] = [info]
    assert (status, json.loads(body)) == (http, {"error": error})


def test_where_when_and_what_the_upstream_said_are_told() -> None:
    made = Failure("rate_limit", "Slow.", "$.a[0].b", "too_fast", 2.5, upstream_code="1002")
    assert json.loads(GEMINI.encode_failure(made, "r")[1])["error"] == {
        "code": 429,
        "message": "a[0].b: Slow.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"},
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "TOO_FAST",
                "domain": "headgate",
            },
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "a[0].b", "description": "Slow."}],
            },
        ],
        "upstream_code": "1002",
    }


def test_a_failed_stream_ends_in_an_error_told_twice() -> None:
    encoder = GEMINI.encoder(ASK, FACTS, RequestTarget())
    sent = encoder.feed([Start(), PartStart("text"), Delta("x")])
    first, second = encoder.fail(Failure("overloaded", "Later."))
    assert first == b"data: " + second and second.endswith(b"}\n\n")
    assert json.loads(second)["error"]["code"] == 503
    assert isinstance(collect(decode(sent, first, second)), Failed)


def google(code: int, status: str, message: str = "m", *details: Any) -> bytes:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return json.dumps({"error": error}, indent=2).encode()


INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "googleapis.com"}
PAGES = [
    (400, google(400, "INVALID_ARGUMENT"), "invalid"),
    (
        400,
        google(400, "INVALID_ARGUMENT", "API key not valid.", INFO | {"reason": "API_KEY_INVALID"}),
        "upstream_auth",
    ),
    (
        400,
        google(
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        ),
        "context_length",
    ),
    (403, google(403, "PERMISSION_DENIED"), "upstream_auth"),
    (404, google(404, "NOT_FOUND"), "upstream_config"),
    (429, google(429, "RESOURCE_EXHAUSTED"), "rate_limit"),
    (500, google(500, "INTERNAL"), "upstream"),
    (503, google(503, "UNAVAILABLE"), "overloaded"),
    (504, google(504, "DEADLINE_EXCEEDED"), "timeout"),
    (429, b"[" + google(429, "RESOURCE_EXHAUSTED") + b"\n]\n", "rate_limit"),
    (502, b"<html>nginx at 10.0.0.7</html>", "upstream"),
    (503, b"", "overloaded"),
    (400, b'{"error":{"code":"x","message":10007}}', "invalid"),
    (400, b'{"error":"no"}', "invalid"),
    (500, b'{"base_resp":{"status_code":1002,"status_msg":"rpm"}}', "rate_limit"),
]


@pytest.mark.parametrize(("status", "body", "kind"), PAGES)
def test_every_error_page_is_understood(status: int, body: bytes, kind: str) -> None:
    made = GEMINI.decode_failure(status, {"retry-after": "3"}, body)
    assert (made.kind, made.retry_after_s) == (kind, 3)
    assert "10.0.0.7" not in made.message


@pytest.mark.parametrize("page", [p for p in PAGES if b'"status"' in p[1] and b"[\n" not in p[1]])
def test_an_error_inside_a_good_status_fails_the_reply(page: tuple[int, bytes, str]) -> None:
    body = json.dumps(json.loads(page[1])).encode()
    if body.startswith(b"{"):
        assert failure(chunk({"text": "x"}) + sse.encode(body)).kind == page[2]
    assert failure(page[1], JSON).kind == page[2]


def test_an_error_without_a_code_is_told_by_its_word() -> None:
    assert failure(b'data: {"error":{"status":"RESOURCE_EXHAUSTED"}}\n\n').kind == "rate_limit"
    assert failure(b'data: {"error":"no"}\n\n').kind == "upstream"


def test_the_wait_stands_in_the_details() -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}
    body = google(429, "RESOURCE_EXHAUSTED", "m", INFO | {"reason": "R"}, retry)
    assert GEMINI.decode_failure(429, {}, body).retry_after_s == 3.5
    assert GEMINI.decode_failure(429, {}, body.replace(b"3.5s", b"soon")).retry_after_s is None


def test_our_own_errors_are_understood_by_another_gateway() -> None:
    made = Failure("context_length", "Too long.", code="context_length_exceeded")
    status, body = GEMINI.encode_failure(made, "r")
    assert GEMINI.decode_failure(status, {}, body).kind == "context_length"
