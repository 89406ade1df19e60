"""OpenAI Chat Completions: bytes in, bytes out, in both directions."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from headgate.chat import (
    Choice,
    Delta,
    Event,
    Failed,
    Finish,
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
from headgate.dialects.openai.dialect import OpenAIDialect
from headgate.errors import STATUS, Failure, Refused
from headgate.stream import sse

OPENAI = OpenAIDialect()
FACTS = ReplyFacts("1", "MiniMax-M2", 1700000000)
ASK = Request("MiniMax-M2", (Message("user", (Text("hi"),)),), stream=True)
STREAM = "text/event-stream"
MINIMAX = Capabilities(
    reasoning_form="details",
    reasoning_split=True,
    thinking_switch="adaptive",
    thinking_off=True,
    parallel_switch=True,
    service_tier=True,
)


def ask(**fields: Any) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return OPENAI.decode_request(json.dumps(body).encode(), RequestTarget())


def history(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return ask(messages=list(messages)).messages


def send(request: Request, capabilities: Capabilities = MINIMAX, stream: bool = False) -> Any:
    return json.loads(OPENAI.encode_request(request, capabilities, "up", stream))


def encode(events: list[Event], request: Request = ASK) -> bytes:
    return OPENAI.encoder(request, FACTS, RequestTarget()).feed(events)


def decode(*pieces: bytes, media: str = STREAM, can: Capabilities = MINIMAX) -> list[Event]:
    decoder = OPENAI.decoder(can, media, "s")
    events = [e for piece in pieces for e in decoder.feed(piece)] + decoder.close()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    assert grammar.ended
    return events


def chunks(*deltas: Any, reason: str | None = "stop", done: bool = True) -> bytes:
    """A stream of such deltas, with the finish in a chunk of its own."""
    out = [{"id": "u", "model": "up", "choices": [{"index": 0, "delta": d}]} for d in deltas]
    if reason:
        out.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    data = b"".join(sse.encode(json.dumps(c).encode()) for c in out)
    return data + (b"data: [DONE]\n\n" if done else b"")


def read(*deltas: Any, can: Capabilities = MINIMAX, **how: Any) -> Reply:
    reply = collect(decode(chunks(*deltas, **how), can=can))
    assert isinstance(reply, Reply), reply
    return reply


def failure(data: bytes, media: str = STREAM) -> Failure:
    failed = collect(decode(data, media=media))
    assert isinstance(failed, Failed), failed
    return failed.failure


# --- requests: from clients --------------------------------------------------------------------

# Trimmed from bodies recorded 2026-11: openai-python 3.54, opencode, langchain 1.4.
RECORDED = {
    "python with every parameter": b'{"model":"MiniMax-M2","service_tier":"auto","messages":[{"role":"developer","content":"be brief"},{"role":"user","content":[{"type":"text","text":"x"}]}],"frequency_penalty":0.1,"logit_bias":{"1":1},"logprobs":false,"max_completion_tokens":50,"metadata":{"a":"b"},"n":1,"parallel_tool_calls":false,"presence_penalty":0.1,"prompt_cache_key":"k","reasoning_effort":"low","safety_identifier":"s","seed":1,"stop":["END"],"store":false,"temperature":0.2,"tool_choice":"auto","tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}}],"top_p":0.9,"user":"u1","verbosity":"low"}',
    "python's replayed tool calls": b'{"model":"MiniMax-M2","messages":[{"role":"user","content":"x"},{"content":null,"refusal":null,"role":"assistant","annotations":[],"audio":null,"function_call":null,"tool_calls":[{"id":"call_4c72","function":{"arguments":"{\\"city\\": \\"Paris\\"}","name":"get_weather"},"type":"function"}]},{"role":"tool","tool_call_id":"call_4c72","content":"sunny in Paris"}],"tools":[]}',
    "opencode with thinking": b'{"model":"MiniMax-M2","max_tokens":32000,"top_p":0.95,"messages":[{"role":"system","content":"s"},{"role":"user","content":"x"},{"role":"assistant","content":"Writing.","reasoning_content":"I should write.","tool_calls":[{"id":"call_6","type":"function","function":{"name":"write","arguments":"{}"}}]},{"role":"tool","tool_call_id":"call_6","content":"Wrote."}],"tool_choice":"auto","stream":true,"stream_options":{"include_usage":true}}',
    "langchain with a schema": b'{"model":"MiniMax-M2","stream":false,"messages":[{"content":"x","role":"user"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"age":{"type":"integer"}}},"name":"Person","strict":true}}}',
}


@pytest.mark.parametrize("name", RECORDED)
def test_what_real_clients_send_is_understood_and_can_be_sent_on(name: str) -> None:
    request = OPENAI.decode_request(RECORDED[name], RequestTarget())
    assert send(request)["messages"]


def test_every_parameter_arrives() -> None:
    request = OPENAI.decode_request(RECORDED["python with every parameter"], RequestTarget())
    assert request.messages[0] == Message("system", (Text("be brief"),))
    assert request.sampling == Sampling(50, 0.2, 0.9, None, 1, 0.1, 0.1, ("END",))
    assert request.choice == Choice(parallel=False)
    assert request.tools[0].strict and bytes(request.tools[0].parameters) == b'{"type":"object"}'
    assert request.reasoning == Reasoning("on", effort="low")
    assert (request.session, request.service_tier, request.want_usage) == ("k", "", True)
    assert request.warnings == ("logit_bias", "verbosity")


REFUSED = {
    "n": ({"n": 2}, "n"),
    "logprobs": ({"logprobs": True}, "logprobs"),
    "audio": ({"audio": {"voice": "x"}}, "audio"),
    "spoken replies": ({"modalities": ["text", "audio"]}, "modalities"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "function_call": ({"function_call": "auto"}, "function_call"),
    "a forced server tool": (
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        "tool_choice.web_search",
    ),
    "a sound": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "messages[0].content[0].input_audio",
    ),
    "a file": (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        "messages[0].content[0].file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    fields, param = REFUSED[name]
    with pytest.raises(Refused) as refused:
        ask(**fields)
    assert refused.value.failure.code == "unsupported_parameter"
    assert refused.value.failure.param == f"$.{param}"
    assert param in refused.value.failure.message


WEATHER = {"type": "function", "function": {"name": "f"}}
BAD_IMAGE = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
INVALID = {
    "no messages": ({"messages": []}, "$.messages"),
    "negative tokens": ({"max_completion_tokens": -2}, "$.max_completion_tokens"),
    "tokens as text": ({"max_tokens": "five"}, "$.max_tokens"),
    "half a token": ({"max_tokens": 1.5}, "$.max_tokens"),
    "true tokens": ({"max_tokens": True}, "$.max_tokens"),
    "too hot": ({"temperature": 2.1}, "$.temperature"),
    "too cold": ({"temperature": -0.1}, "$.temperature"),
    "top_p": ({"top_p": 1.1}, "$.top_p"),
    "five stops": ({"stop": list("abcde")}, "$.stop"),
    "a missing tool": (
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "$.tool_choice.function.name",
    ),
    "a call without tools": ({"tool_choice": "required"}, "$.tool_choice"),
    "a local file": (
        {"messages": [{"role": "user", "content": [BAD_IMAGE]}]},
        "$.messages[0].content[0].image_url.url",
    ),
    "a schema that is no object": (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]},
        "$.tools[0].function.parameters",
    ),
    "a deep schema": (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": None}}]},
        "$.tools[0].function.parameters",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_wrong_is_refused_with_its_address(name: str) -> None:
    fields, param = INVALID[name]
    if name == "a deep schema":
        deep: dict[str, Any] = {}
        for _ in range(70):
            deep = {"a": deep}
        fields = {"tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]}
    with pytest.raises(Refused) as refused:
        ask(**fields)
    assert (refused.value.failure.kind, refused.value.failure.param) == ("invalid", param)


def test_max_completion_tokens_wins_over_max_tokens() -> None:
    assert ask(max_tokens=5, max_completion_tokens=7).sampling.max_tokens == 7
    assert ask(max_tokens=5).sampling.max_tokens == 5


def test_usage_is_wanted_in_a_stream_only_when_asked_for() -> None:
    assert not ask(stream=True).want_usage
    assert ask(stream=True, stream_options={"include_usage": True}).want_usage
    assert ask().want_usage


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({}, Reasoning()),
        ({"thinking": {"type": "adaptive"}}, Reasoning("on")),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, Reasoning("on", budget_tokens=9)),
        ({"thinking": {"type": "disabled"}}, Reasoning("off")),
        ({"reasoning_effort": "none"}, Reasoning("off", effort="none")),
        ({"reasoning_effort": "high"}, Reasoning("on", effort="high")),
        ({"reasoning_split": False}, Reasoning(show="inline")),
        ({"reasoning_split": True}, Reasoning()),
    ],
)
def test_the_vendors_words_for_thinking_are_understood(
    fields: dict[str, Any], reasoning: Reasoning
) -> None:
    assert ask(**fields).reasoning == reasoning


HM = Thinking("hm")
REASONED = {
    "details before content": (
        {"reasoning_details": [{"text": "h"}, {"text": "m"}], "reasoning_content": "no"},
        (HM, Text("x")),
    ),
    "a signature": (
        {"reasoning_details": [{"text": "hm"}, {"signature": "s"}]},
        (Thinking("hm", "s"), Text("x")),
    ),
    "two signed blocks": (
        {"reasoning_details": [{"text": "a", "signature": "1"}, {"text": "b", "signature": "2"}]},
        (Thinking("a", "1"), Thinking("b", "2"), Text("x")),
    ),
    "DeepSeek's field": ({"reasoning_content": "hm", "reasoning": "no"}, (HM, Text("x"))),
    "vLLM's field": ({"reasoning": "hm"}, (HM, Text("x"))),
    "details of which only the last piece came back": (
        {"reasoning_details": [{"index": 0, "text": "m"}], "reasoning_content": "hm"},
        (HM, Text("x")),
    ),
    "empty details": ({"reasoning_details": [{}], "reasoning": "hm"}, (HM, Text("x"))),
    "tags": ({"content": "<think>\nhm\n</think>\n\nx"}, (HM, Text("x"))),
    "told twice": (
        {"content": "<think>hm</think>x", "reasoning_content": "hm"},
        (HM, Text("x")),
    ),
    "tags in the answer": ({"content": "x <think>"}, (Text("x <think>"),)),
}


@pytest.mark.parametrize("name", REASONED)
def test_thinking_in_the_history_is_read_from_any_form(name: str) -> None:
    fields, parts = REASONED[name]
    assert history({"role": "assistant", "content": "x", **fields})[0].parts == parts


def test_allowed_tools_filter_the_tools() -> None:
    other = {"type": "function", "function": {"name": "g"}}
    allowed = {"mode": "required", "tools": [other]}
    request = ask(
        tools=[WEATHER, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed}
    )
    assert [t.name for t in request.tools] == ["g"]
    assert request.choice == Choice("required")


def test_a_tool_without_parameters_takes_none() -> None:
    assert send(ask(tools=[WEATHER]))["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {},
    }


def test_images_come_by_address_or_by_value() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": "data:image/png;base64,aGk="},
        {"type": "video_url", "video_url": {"url": "https://x/a.mp4"}},
    ]
    assert history({"role": "user", "content": parts})[0].parts == (
        Media("image", url="https://x/a.png", detail="low"),
        Media("image", media_type="image/png", data="aGk="),
        Media("video", url="https://x/a.mp4"),
    )


# --- requests: to upstreams --------------------------------------------------------------------

WORD = st.text('abcé \u2028\n"{}漢😀', min_size=1, max_size=8).map(lambda s: "w" + s)
TEXT = WORD.map(Text)
IMAGE = st.sampled_from(
    [Media("image", url="https://x/a"), Media("video", media_type="video/mp4", data="aGk=")]
)
CALL = st.builds(ToolCall, WORD, WORD, st.sampled_from(['{"a": 1}', "{", ""]))
USER = st.lists(TEXT | IMAGE, min_size=1, max_size=3)
SYSTEM = st.lists(TEXT, min_size=1, max_size=2)
ASSISTANT = st.tuples(
    st.lists(st.builds(Thinking, WORD, WORD), max_size=2),
    st.lists(TEXT, max_size=1),
    st.lists(CALL, max_size=2),
).map(lambda p: [*p[0], *p[1], *p[2]])
RESULT = st.builds(ToolResult, WORD, st.lists(TEXT, max_size=1).map(tuple)).map(lambda r: [r])
MESSAGE = st.one_of(
    st.tuples(st.just("user"), USER),
    st.tuples(st.just("system"), SYSTEM),
    st.tuples(st.just("assistant"), ASSISTANT),
    st.tuples(st.just("tool"), RESULT),
).map(lambda m: Message(m[0], tuple(m[1])))  # type: ignore[arg-type]
UNIT = st.none() | st.sampled_from([0.0, 0.5, 1.0])
COUNT = st.none() | st.integers(1, 9)
SAMPLING = st.builds(
    Sampling, COUNT, UNIT, UNIT, COUNT, COUNT, UNIT, UNIT, st.lists(WORD, max_size=4).map(tuple)
)
SCHEMA = msgspec.Raw(b'{"type":"object"}')
FORMATS = st.sampled_from([None, Format("object"), Format("schema", "n", SCHEMA, True)])
CHOICES = st.sampled_from([Choice(), Choice("none"), Choice("required"), Choice("named", "f")])
TOOLED = st.tuples(CHOICES, st.sampled_from([None, True, False])).map(
    lambda c: {
        "tools": (Tool("f", "d", SCHEMA, True), Tool("g")),
        "choice": msgspec.structs.replace(c[0], parallel=c[1]),
    }
)


@given(
    st.lists(MESSAGE, min_size=1, max_size=5),
    st.booleans(),
    TOOLED | st.just({}),
    SAMPLING,
    st.sampled_from(["default", "on", "off"]),
    FORMATS,
    st.sampled_from(["", "priority"]),
)
@settings(max_examples=120, deadline=None)
def test_a_request_survives_the_way_to_another_gateway(
    messages: list[Message],
    stream: bool,
    tooled: dict[str, Any],
    sampling: Sampling,
    mode: Any,
    format: Format | None,
    tier: str,
) -> None:
    request = Request(
        "m",
        tuple(messages),
        stream=stream,
        sampling=sampling,
        reasoning=Reasoning(mode),
        format=format,
        service_tier=tier,
        **tooled,
    )
    body = OPENAI.encode_request(request, MINIMAX, "m", stream)
    assert OPENAI.decode_request(body, RequestTarget()) == request
    assert OPENAI.encode_request(request, MINIMAX, "m", stream) == body


THOUGHT = Request("m", (Message("assistant", (Thinking("hm", "s"), Text("x"))),))
FORMS: dict[Any, dict[str, Any]] = {
    "details": {
        "content": "x",
        "reasoning_details": [
            {
                "text": "hm",
                "id": "reasoning-text-1",
                "index": 0,
                "signature": "s",
                "type": "reasoning.text",
                "format": "MiniMax-response-v1",
            }
        ],
    },
    "tags": {"content": "<think>\nhm\n</think>\n\nx"},
    "reasoning": {"content": "x", "reasoning": "hm"},
    "reasoning_content": {"content": "x", "reasoning_content": "hm"},
    "none": {"content": "x"},
}


@pytest.mark.parametrize("form", FORMS)
def test_thinking_goes_back_in_the_upstreams_own_form(form: Any) -> None:
    sent = send(THOUGHT, Capabilities(reasoning_form=form))["messages"]
    assert sent == [{"role": "assistant", **FORMS[form]}]


SWITCHED: list[tuple[dict[str, Any], Reasoning, dict[str, Any]]] = [
    ({"thinking_switch": "adaptive", "thinking_off": True}, Reasoning(), {}),
    (
        {"thinking_switch": "adaptive", "thinking_off": True},
        Reasoning("on"),
        {"thinking": {"type": "adaptive"}},
    ),
    (
        {"thinking_switch": "adaptive", "thinking_off": True},
        Reasoning("off"),
        {"thinking": {"type": "disabled"}},
    ),
    ({"thinking_switch": "adaptive"}, Reasoning("off"), {}),
    (
        {"thinking_switch": "template"},
        Reasoning("off"),
        {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    ),
    ({"thinking_switch": "effort"}, Reasoning("on", effort="high"), {"reasoning_effort": "high"}),
    ({"thinking_switch": "effort"}, Reasoning("on"), {"reasoning_effort": "medium"}),
    ({"thinking_switch": "effort"}, Reasoning("off"), {"reasoning_effort": "none"}),
    ({}, Reasoning("off"), {}),
]


@pytest.mark.parametrize(("can", "reasoning", "sent"), SWITCHED)
def test_thinking_is_switched_in_the_upstreams_own_words(
    can: dict[str, Any], reasoning: Reasoning, sent: dict[str, Any]
) -> None:
    request = msgspec.structs.replace(ASK, reasoning=reasoning)
    words = {"thinking", "chat_template_kwargs", "reasoning_effort"}
    body = send(request, Capabilities(**can))
    assert {k: v for k, v in body.items() if k in words} == sent


def test_a_turn_of_calls_alone_has_empty_content_not_null() -> None:
    request = Request("m", (Message("assistant", (ToolCall("1", "f", "{}"),)),))
    assert send(request)["messages"][0]["content"] == ""


def test_an_image_in_a_result_is_shown_after_the_run_of_results() -> None:
    image = Media("image", media_type="image/png", data="aGk=")
    results = (
        Message("tool", (ToolResult("1", (Text("see"), image)),)),
        Message("tool", (ToolResult("2", (Text("no"),), is_error=True),)),
        Message("tool", (ToolResult("3", (Text("Error: no"),), is_error=True),)),
    )
    for after in ((), (Message("user", (Text("go"),)),)):
        sent = send(Request("m", results + after))["messages"]
        assert [m["role"] for m in sent] == ["tool"] * 3 + ["user"] * (1 + len(after))
        assert [m["content"] for m in sent[:3]] == [
            "see\n[image attached below]",
            "Error: no",
            "Error: no",
        ]
        assert sent[3]["content"] == [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
        ]


def test_usage_is_asked_of_upstreams_that_know_it() -> None:
    assert send(ASK, stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in send(ASK, Capabilities(stream_usage=False), stream=True)
    assert "stream" not in send(ASK)


def test_the_bound_of_tokens_has_the_upstreams_name() -> None:
    request = msgspec.structs.replace(ASK, sampling=Sampling(max_tokens=5))
    assert send(request)["max_completion_tokens"] == 5
    assert send(request, Capabilities(max_tokens_field="max_tokens"))["max_tokens"] == 5


# --- replies: laws -----------------------------------------------------------------------------

PIECES = st.lists(WORD, min_size=1, max_size=3)
USAGE = st.builds(Usage, *[st.integers(9, 99)] * 2, *[st.integers(1, 9)] * 3)
REASONS: Any = st.sampled_from(["stop", "length", "content_filter"])


@st.composite
def replies(draw: Any) -> tuple[list[Event], Reply]:
    """Events of a reply in the order of OpenAI's message, cut into deltas, and what they mean."""
    events: list[Event] = [Start("chatcmpl-1", "MiniMax-M2")]
    kinds = ["thinking"] * draw(st.integers(0, 2)) + ["text"] * draw(st.integers(0, 1))
    for kind in kinds:
        events.append(PartStart(kind))  # type: ignore[arg-type]
        # The first piece is long and new, so that no later one looks like its snapshot.
        first = ["The user wants "] if kind == "thinking" else []
        events += map(Delta, [*first, *draw(PIECES)])
        events.append(PartStop(draw(WORD) if kind == "thinking" else ""))
    calls = draw(st.integers(0, 2))
    for n in range(calls):
        events += [PartStart("tool_call", f"call_{n}", draw(WORD))]
        events += [*map(Delta, ['{"a', '": "', "\\u00e9", '"}']), PartStop()]
    reason = draw(REASONS)
    if calls and reason == "stop":
        reason = "tool_calls"
    events.append(Finish(reason, draw(USAGE)))
    reply = collect(events)
    assert isinstance(reply, Reply)
    return events, reply


@given(replies(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_anywhere_reads_the_same(
    made: tuple[list[Event], Reply], data: st.DataObject
) -> None:
    events, reply = made
    sent = encode(events)
    assert collect(decode(sent)) == reply
    at = data.draw(st.integers(0, len(sent)))
    assert collect(decode(sent[:at], sent[at:])) == reply
    assert collect(decode(*(sent[i : i + 1] for i in range(len(sent))))) == reply


@given(replies())
@settings(max_examples=60, deadline=None)
def test_a_whole_reply_and_a_stream_are_the_same(made: tuple[list[Event], Reply]) -> None:
    reply = made[1]
    whole = OPENAI.encode_reply(reply, ASK, FACTS)
    assert collect(decode(whole, media="application/json")) == reply
    ChatCompletion.model_validate_json(whole)


@given(replies(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_before_its_finish_fails(
    made: tuple[list[Event], Reply], data: st.DataObject
) -> None:
    sent = encode(made[0])
    last = sent.rindex(b"\n\n", 0, sent.index(b'"finish_reason":"'))
    at = data.draw(st.integers(0, last + 2))
    assert isinstance(collect(decode(sent[:at])), Failed)


NASTY = "\r\n\n\rdata: [DONE]\n\nevent: x\n\u2028\u2029\x85\x00</think>"


def test_text_cannot_leave_its_event() -> None:
    parts = (Thinking(NASTY + "."), Text(NASTY), ToolCall("call_" + NASTY, NASTY, '{"a":1}'))
    reply = Reply(parts, Finish("tool_calls", Usage(1, 1)), "chatcmpl-1", "MiniMax-M2")
    sent = encode(list(replay(reply)))
    assert len(sent.decode().splitlines()) == sent.count(b"\n")
    assert sent.count(b"\n\n") == sent.count(b"data: {") + 1
    assert collect(decode(sent)) == reply


# --- replies: to clients -----------------------------------------------------------------------

HELLO = Reply((Thinking("hm", "s"), Text("Hello")), Finish("stop", Usage(5, 3, 2, 0, 1)))


def frames(data: bytes) -> list[Any]:
    return [p if p == b"[DONE]" else json.loads(p) for p in sse.EventReader().feed(data)]


def test_a_stream_shows_role_thinking_text_finish_usage_done() -> None:
    sent = frames(encode(list(replay(HELLO))))
    assert sent[-1] == b"[DONE]"
    detail = {
        "type": "reasoning.text",
        "id": "reasoning-text-1",
        "format": "MiniMax-response-v1",
        "index": 0,
    }
    assert [c["choices"][0]["delta"] for c in sent[:-2]] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm", "reasoning_details": [{**detail, "text": "hm"}]},
        {"reasoning_details": [{**detail, "text": "", "signature": "s"}]},
        {"content": "Hello"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in sent[:-2]] == [None] * 4 + ["stop"]
    assert sent[-2]["choices"] == []
    assert sent[-2]["usage"]["total_tokens"] == 8
    assert not any("usage" in c for c in sent[:-2])
    assert {(c["id"], c["created"], c["model"]) for c in sent[:-1]} == {
        ("chatcmpl-1", 1700000000, "MiniMax-M2")
    }
    for chunk in sent[:-1]:
        ChatCompletionChunk.model_validate(chunk)


def test_nobody_gets_a_usage_chunk_unasked() -> None:
    request = msgspec.structs.replace(ASK, want_usage=False)
    assert all(c == b"[DONE]" or c["choices"] for c in frames(encode(list(replay(HELLO)), request)))


def test_a_whole_reply_is_what_the_sdk_expects() -> None:
    reply = ChatCompletion.model_validate_json(OPENAI.encode_reply(HELLO, ASK, FACTS))
    message, usage = reply.choices[0].message, reply.usage
    assert (message.content, message.refusal, message.tool_calls) == ("Hello", None, None)
    assert message.model_extra is not None and message.model_extra["reasoning_content"] == "hm"
    assert usage is not None and usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (5, 2)


@pytest.mark.parametrize(
    ("parts", "content"),
    [((), ""), ((ToolCall("1", "f", "{}"),), None), ((Text("x"), ToolCall("1", "f", "{}")), "x")],
)
def test_content_is_null_only_beside_calls(parts: Any, content: str | None) -> None:
    body = OPENAI.encode_reply(Reply(parts, Finish("stop")), ASK, FACTS)
    assert json.loads(body)["choices"][0]["message"]["content"] == content


def test_omitted_thinking_still_carries_its_signature() -> None:
    body = OPENAI.encode_reply(Reply((Thinking("", "s"),), Finish("stop")), ASK, FACTS)
    message = json.loads(body)["choices"][0]["message"]
    assert message["reasoning_details"][0]["signature"] == "s"
    assert "reasoning_content" not in message


def test_models_are_listed_as_the_sdk_expects() -> None:
    card = ModelCard("MiniMax-M2", "M2", 1700000000, 204800, 65536)
    listed = json.loads(OPENAI.encode_models([card], {}))
    assert listed["object"] == "list"
    assert Model.model_validate(listed["data"][0]).id == "MiniMax-M2"
    assert json.loads(OPENAI.encode_model(card)) == listed["data"][0]


# --- replies: from upstreams -------------------------------------------------------------------


def detail(text: str, **more: Any) -> dict[str, Any]:
    return {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": text, **more}]}


LONG = "The user says hello."
TOLD: dict[str, tuple[list[dict[str, Any]], tuple[Any, ...]]] = {
    "a role that is empty": ([{"role": "", "content": "x"}], (Text("x"),)),
    "both fields": (
        [{**detail("The user "), "reasoning_content": "The user "}, detail("says hello.")],
        (Thinking(LONG),),
    ),
    "two names of one field": (
        [{"reasoning": "The user "}, {"reasoning_content": "says hello."}],
        (Thinking(LONG),),
    ),
    "snapshots": (
        [detail("The user "), detail(LONG), {"content": "x"}],
        (Thinking(LONG), Text("x")),
    ),
    "a summary": ([detail("The user "), detail("says hello."), detail(LONG)], (Thinking(LONG),)),
    "a tag that leaked": (
        [detail("The user "), detail("says hello.\n</think>")],
        (Thinking(LONG),),
    ),
    "tags": ([{"content": "<thi"}, {"content": "nk>\nhm\n</think>\n\nx"}], (HM, Text("x"))),
    "mirrored": (
        [
            {"content": "<think>" + LONG, "reasoning_content": LONG},
            {"content": "</think>x"},
        ],
        (Thinking(LONG), Text("x")),
    ),
    "a tag later": ([{"content": "x<think>y"}], (Text("x<think>y"),)),
    "an object as arguments": (
        [{"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]}],
        (ToolCall("1", "f", '{"a":1}'),),
    ),
    "calls by turns, without ids": (
        [
            {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a"'}}]},
            {"tool_calls": [{"index": 1, "function": {"name": "g"}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        ],
        (ToolCall("call_s_1", "f", '{"a":1}'), ToolCall("call_s_2", "g", "{}")),
    ),
    "text held before a call": (
        [{"content": "<"}, {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f"}}]}],
        (Text("<"), ToolCall("1", "f", "{}")),
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_odd_streams_are_read_as_they_are_meant(name: str) -> None:
    deltas, parts = TOLD[name]
    assert read(*deltas).parts == parts


def test_text_that_begins_inside_the_block_is_thinking() -> None:
    can = Capabilities(starts_thinking=True)
    assert read({"content": "hm\n</think>\n\nx"}, can=can).parts == (HM, Text("x"))


def test_a_last_chunk_with_the_whole_message_is_not_doubled() -> None:
    last = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    data = chunks({"content": "Hello"}, reason=None, done=False)
    reply = collect(decode(data + sse.encode(json.dumps(last).encode())))
    assert isinstance(reply, Reply) and reply.parts == (Text("Hello"),)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("function_call", "stop"),
        ("content_filter", "content_filter"),
        ("something new", "stop"),
    ],
)
def test_finish_reasons_are_mapped(said: str, reason: str) -> None:
    assert read({"content": "x"}, reason=said).finish.reason == reason


def test_stop_beside_calls_means_tool_calls() -> None:
    call = {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}]}
    assert read(call).finish.reason == "tool_calls"


def test_vllm_says_which_stop_sequence_it_found() -> None:
    body = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop","stop_reason":"END"}]}'
    reply = collect(decode(body, media="application/json"))
    assert isinstance(reply, Reply)
    assert reply.finish == Finish("stop_sequence", None, "END")


def test_a_finish_without_done_is_an_end_and_done_without_a_finish_is_not() -> None:
    assert read({"content": "x"}, done=False).parts == (Text("x"),)
    assert failure(chunks({"content": "x"}, reason=None)).kind == "upstream"
    assert failure(chunks({"content": "x"}, reason=None, done=False)).kind == "upstream"
    assert failure(chunks({"content": "x"}, reason="error")).kind == "upstream"


def test_usage_may_come_late_and_zeros_are_no_usage() -> None:
    zeros = b'data: {"choices":[],"usage":{"total_tokens":0,"prompt_tokens":0}}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"prompt_tokens_details":null}}\n\n'
    data = zeros + chunks({"content": "x"}, done=False)
    for last, expected in ((zeros, None), (usage, Usage(7, 2)), (b"", None)):
        reply = collect(decode(data + last + b"data: [DONE]\n\n"))
        assert isinstance(reply, Reply) and reply.finish.usage == expected


def test_withheld_output_ends_in_content_filter() -> None:
    data = chunks({"content": "x"}, reason=None, done=False)
    for last in (
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"output_sensitive":true}\n\n',
        b'data: {"choices":null,"base_resp":{"status_code":1027,"status_msg":"output new_sensitive"}}\n\n',
    ):
        reply = collect(decode(data + last))
        assert isinstance(reply, Reply)
        assert (reply.parts, reply.finish.reason) == ((Text("x"),), "content_filter")


INSIDE = {
    "rate_limit": b'{"choices":null,"base_resp":{"status_code":1002,"status_msg":"rate limit"}}',
    "overloaded": b'{"type":"error","error":{"type":"overloaded_error","message":"high load"}}',
    "invalid": b'{"error":{"type":"bad_request_error","message":"invalid params (2013)"}}',
    "context_length": b'{"error":{"message":"maximum context length is 9","code":400}}',
    "upstream": b'{"error":"sorry"}',
    "blocked": b'{"choices":null,"base_resp":{"status_code":1027,"status_msg":"sensitive"}}',
}


@pytest.mark.parametrize("kind", INSIDE)
def test_an_error_inside_a_good_status_fails_the_reply(kind: str) -> None:
    assert failure(sse.encode(INSIDE[kind])).kind == kind
    assert failure(INSIDE[kind], media="application/json").kind == kind


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices":null}', b'{"choices":[]}'])
def test_a_whole_reply_without_an_answer_fails(body: bytes) -> None:
    assert failure(body, media="application/json").kind == "upstream"


def test_a_lone_surrogate_is_replaced_and_a_pair_is_kept() -> None:
    data = b'data: {"choices":[{"delta":{"content":"a\\ud83d \\ud83d\\ude00"},"finish_reason":"stop"}]}\n\n'
    events = decode(data)
    reply = collect(events)
    assert isinstance(reply, Reply) and reply.parts == (Text("a\ufffd \U0001f600"),)
    assert b"[DONE]" in encode(events)


# --- errors ------------------------------------------------------------------------------------

ERRORS = {  # protocols.md 3.11, as OpenAI's own API and SDK have them
    "invalid": (400, "invalid_request_error", None),
    "context_length": (400, "invalid_request_error", "context_length_exceeded"),
    "blocked": (400, "invalid_request_error", "content_filter"),
    "too_large": (413, "invalid_request_error", "request_too_large"),
    "media_type": (415, "invalid_request_error", "unsupported_media_type"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "method": (405, "invalid_request_error", "method_not_allowed"),
    "conflict": (409, "invalid_request_error", "conflict"),
    "request_timeout": (408, "timeout", "request_timeout"),
    "unauthenticated": (401, "invalid_request_error", "invalid_api_key"),
    "forbidden": (403, "permission_error", "model_not_allowed"),
    "no_credit": (429, "insufficient_quota", "insufficient_quota"),
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
    "internal": (500, "server_error", None),
    "unavailable": (503, "server_error", "service_unavailable"),
    "upstream": (502, "upstream_error", None),
    "upstream_auth": (424, "upstream_error", "upstream_auth"),
    "upstream_quota": (424, "upstream_error", "upstream_quota"),
    "upstream_config": (424, "upstream_error", "upstream_config"),
    "overloaded": (503, "server_error", "overloaded"),
    "timeout": (504, "timeout", "timeout"),
    "client_gone": (499, "server_error", "client_closed_request"),
}


@pytest.mark.parametrize("kind", STATUS)
def test_each_kind_of_failure_has_its_words(kind: Any) -> None:
    status, body = OPENAI.encode_failure(Failure(kind, "No.", param="$.a[0].b"), "r")
    expected = ERRORS[kind]
    assert (status, json.loads(body)) == (
        expected[0],
        {"error": {"message": "No.", "type": expected[1], "param": "a[0].b", "code": expected[2]}},
    )


def test_a_finer_code_and_the_upstreams_number_are_told() -> None:
    made = Failure("invalid", "No.", code="unsupported_parameter", upstream_code="2013")
    error = json.loads(OPENAI.encode_failure(made, "r")[1])["error"]
    assert (error["code"], error["upstream_code"]) == ("unsupported_parameter", "2013")
    assert error["param"] is None


def test_a_failed_stream_ends_in_an_error_without_done() -> None:
    encoder = OPENAI.encoder(ASK, FACTS, RequestTarget())
    sent = encoder.feed([Start(), PartStart("text"), Delta("x")])
    pieces = encoder.fail(Failure("overloaded", "Later."))
    assert frames(b"".join(pieces)) == [
        {
            "error": {
                "message": "Later.",
                "type": "server_error",
                "param": None,
                "code": "overloaded",
            }
        }
    ]
    assert isinstance(collect(decode(sent, *pieces)), Failed)


ENVELOPES = [
    (400, b'{"type":"error","error":{"message":"invalid params, x (2013)"}}', "invalid", "2013"),
    (400, b'{"error":{"message":"context window exceeds limit (2013)"}}', "context_length", "2013"),
    (500, b'{"base_resp":{"status_code":1002,"status_msg":"rpm"}}', "rate_limit", "1002"),
    (401, b'{"error":{"message":"login fail (1004)"}}', "upstream_auth", "1004"),
    (422, b'{"detail":"bad field"}', "invalid", "422"),
    (422, b'{"detail":[{"loc":["body"],"msg":"x"}]}', "invalid", "422"),
    (
        400,
        b'{"object":"error","message":"no","type":"BadRequestError","code":400}',
        "invalid",
        "400",
    ),
    (400, b'{"error":"no"}', "invalid", "400"),
    (502, b"<html>nginx at 10.0.0.7</html>", "upstream", "502"),
    (400, b"secret host 10.0.0.7", "invalid", "400"),
    (503, b"", "overloaded", "503"),
    (400, b'{"error":[1]}', "invalid", "400"),
]


@pytest.mark.parametrize(("status", "body", "kind", "code"), ENVELOPES)
def test_every_envelope_of_an_error_is_opened(
    status: int, body: bytes, kind: str, code: str
) -> None:
    made = OPENAI.decode_failure(status, {"retry-after": "3"}, body)
    assert (made.kind, made.upstream_code, made.retry_after_s) == (kind, code, 3)
    assert "10.0.0.7" not in made.message


def test_our_own_errors_are_understood_by_another_gateway() -> None:
    status, body = OPENAI.encode_failure(Failure("context_length", "maximum context length"), "r")
    assert OPENAI.decode_failure(status, {}, body).kind == "context_length"
