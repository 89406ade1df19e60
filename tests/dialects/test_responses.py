"""OpenAI Responses: bytes in, bytes out, in both directions."""

import json
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

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
    WebSearch,
    collect,
    replay,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ModelCard, ReplyFacts, RequestTarget
from headgate.dialects.responses.dialect import ResponsesDialect
from headgate.errors import STATUS, Failure, Refused
from headgate.stream import sse

RESPONSES = ResponsesDialect()
FACTS = ReplyFacts("1", "MiniMax-M2", 1700000000)
ASK = Request("MiniMax-M2", (Message("user", (Text("hi"),)),), stream=True)
STREAM = "text/event-stream"
MINIMAX = Capabilities(
    thinking_switch="adaptive",
    thinking_off=True,
    thinking_default="off",
    parallel_switch=True,
    service_tier=True,
    multi_system=True,
)
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
RECORDED = sorted((Path(__file__).parent.parent / "fixtures" / "responses").glob("*.json"))


def ask(**fields: Any) -> Request:
    body = {"model": "m", "input": "hi", **fields}
    return RESPONSES.decode_request(json.dumps(body).encode(), RequestTarget())


def history(*items: dict[str, Any]) -> tuple[Message, ...]:
    return ask(input=list(items)).messages


def send(request: Request, capabilities: Capabilities = MINIMAX, stream: bool = False) -> Any:
    return json.loads(RESPONSES.encode_request(request, capabilities, "up", stream))


def encode(events: list[Event], request: Request = ASK) -> bytes:
    return RESPONSES.encoder(request, FACTS, RequestTarget()).feed(events)


def decode(*pieces: bytes, media: str = STREAM) -> list[Event]:
    decoder = RESPONSES.decoder(MINIMAX, media, "s")
    events = [e for piece in pieces for e in decoder.feed(piece)] + decoder.close()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return events


def frames(data: bytes) -> list[Any]:
    return [json.loads(p) for p in sse.EventReader().feed(data)]


def stream(*events: dict[str, Any]) -> bytes:
    """Events as an upstream sends them, without what nobody needs to read them."""
    return b"".join(sse.encode(json.dumps(e).encode()) for e in events)


COMPLETED = {
    "type": "response.completed",
    "response": {"id": "r", "usage": {"input_tokens": 3, "output_tokens": 2}},
}


def read(*events: dict[str, Any], end: dict[str, Any] = COMPLETED) -> Reply:
    reply = collect(decode(stream(*events, end)))
    assert isinstance(reply, Reply)
    return reply


def failure(data: bytes, media: str = STREAM) -> Failure:
    failed = collect(decode(data, media=media))
    assert isinstance(failed, Failed)
    return failed.failure


# --- requests: from clients --------------------------------------------------------------------


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.stem)
def test_what_real_clients_send_is_understood_and_can_be_sent_on(path: Path) -> None:
    request = RESPONSES.decode_request(path.read_bytes(), RequestTarget())
    sent = RESPONSES.encode_request(request, MINIMAX, "m", True)
    assert RESPONSES.decode_request(sent, RequestTarget()).messages == request.messages


def test_codex_is_understood_whole() -> None:
    path = next(p for p in RECORDED if p.stem.startswith("codex"))
    request = RESPONSES.decode_request(path.read_bytes(), RequestTarget())
    assert [m.role for m in request.messages[-2:]] == ["assistant", "tool"]
    turn = request.messages[-2].parts
    assert turn[0] == Thinking("I should write the file.")
    call = turn[-1]
    assert isinstance(call, ToolCall) and call.name == "exec_command"
    assert [t.name for t in request.tools if t.namespace] == [
        "multi_agent_v1__close_agent",
        "multi_agent_v1__resume_agent",
        "multi_agent_v1__send_input",
    ]
    assert request.warnings == ()
    assert request.search == WebSearch()
    assert request.session


def test_every_parameter_arrives() -> None:
    request = ask(
        instructions="be kind",
        stream=True,
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.25,
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}},
        reasoning={"effort": "low", "summary": "auto"},
        service_tier="priority",
        prompt_cache_key="k",
    )
    assert msgspec.structs.replace(request, echo=None) == Request(
        "m",
        (Message("system", (Text("be kind"),)), Message("user", (Text("hi"),))),
        stream=True,
        tools=(Tool("f", "", msgspec.Raw(b'{"type": "object"}'), True),),
        choice=Choice("named", "f", False),
        sampling=Sampling(9, 0.5, 0.25),
        reasoning=Reasoning("on", effort="low"),
        format=Format("schema", "n", msgspec.Raw(b'{"a": 1}'), True),
        service_tier="priority",
        session="k",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("conversation", "conv_1"),
        ("prompt", {"id": "pmpt_1"}),
        ("top_logprobs", 3),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        ask(**{field: value})
    assert refused.value.failure.param == f"$.{field}"
    assert refused.value.failure.code == "unsupported_parameter"
    assert ask(**{field: None}).warnings == ()


@pytest.mark.parametrize(
    "type",
    [
        "file_search",
        "code_interpreter",
        "image_generation",
        "mcp",
        "computer",
        "local_shell",
        "shell",
    ],
)
def test_hosted_tools_are_left_out_unless_one_is_forced(type: str) -> None:
    request = ask(tools=[{"type": type}])
    assert (request.tools, request.warnings) == ((), (f"tools.{type}",))
    with pytest.raises(Refused, match=rf"`tool_choice\.{type}` is not supported"):
        ask(tools=[{"type": type}], tool_choice={"type": type})


@pytest.mark.parametrize("type", ["web_search", "web_search_preview", "web_search_2025_08_26"])
def test_web_search_is_a_wish_that_the_gateway_may_serve(type: str) -> None:
    request = ask(tools=[{"type": type, "filters": {"allowed_domains": ["a.example"]}}])
    assert request.tools == ()
    assert request.search == WebSearch(allowed=("a.example",))
    forced = ask(tools=[{"type": type}], tool_choice={"type": type})
    assert forced.search == WebSearch(forced=True)
    allowed = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}],
    }
    function = {"type": "function", "name": "f"}
    assert ask(tools=[{"type": type}, function], tool_choice=allowed).search is None


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"store": True}, "store"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
)
def test_hints_are_ignored_and_told(fields: Any, warning: str) -> None:
    assert ask(**fields).warnings == (warning,)


def test_what_asks_for_nothing_is_ignored_in_silence() -> None:
    request = ask(
        store=False,
        include=["reasoning.encrypted_content"],
        client_metadata={"a": "b"},
        truncation="disabled",
        metadata={},
        user="u",
        stream_options={"include_obfuscation": False},
        a_field_of_next_year=None,
    )
    assert request.warnings == ()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "$.input"),
    ({"input": [{"type": "message", "content": "x"}]}, "$.input[0].role"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        "$.input[0].content[0].input_file",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "$.input[0].content[0].file_id",
    ),
    ({"temperature": 2.1}, "$.temperature"),
    ({"top_p": -1}, "$.top_p"),
    ({"tools": [{"type": "function"}]}, "$.tools[0].name"),
    ({"tool_choice": {"type": "function", "name": "f"}}, "$.tool_choice.name"),
    ({"tool_choice": {"type": "web_search_preview"}}, "$.tool_choice.web_search_preview"),
    ({"tool_choice": "required"}, "$.tool_choice"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "$.text.format"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_wrong_is_refused_with_its_address(fields: Any, param: str) -> None:
    with pytest.raises(Refused) as refused:
        ask(**fields)
    assert refused.value.failure.kind == "invalid"
    assert refused.value.failure.param == param


def test_two_tools_of_one_flat_name_are_refused() -> None:
    inner = {"type": "function", "name": "b"}
    with pytest.raises(Refused, match="Two tools"):
        ask(
            tools=[
                {"type": "function", "name": "a__b"},
                {"type": "namespace", "name": "a", "tools": [inner]},
            ]
        )


def test_the_items_of_one_turn_are_one_message() -> None:
    assert history(
        {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "sealed"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "ok"}],
        },
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "2", "name": "patch", "input": 'a"\n'},
        {"type": "function_call", "call_id": "3", "name": "g", "namespace": "ns", "arguments": ""},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "two"},
        {
            "type": "function_call_output",
            "call_id": "3",
            "output": [
                {"type": "input_text", "text": "three"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            ],
        },
    ) == (
        Message("user", (Text("go"),)),
        Message(
            "assistant",
            (
                Thinking("", "sealed"),
                Text("ok"),
                ToolCall("1", "f", "{}"),
                ToolCall("2", "patch", '{"input":"a\\"\\n"}'),
                ToolCall("3", "ns__g", ""),
            ),
        ),
        Message("tool", (ToolResult("1", (Text("one"),)),)),
        Message("tool", (ToolResult("2", (Text("two"),)),)),
        Message(
            "tool",
            (ToolResult("3", (Text("three"), Media("image", "", "image/png", "AAAA"))),),
        ),
    )


@pytest.mark.parametrize(
    ("item", "parts"),
    [
        ({"content": [{"type": "reasoning_text", "text": "hm"}], "summary": []}, ("hm", "")),
        ({"summary": [{"text": "a"}, {"text": "b"}], "content": None}, ("a\n\nb", "")),
        ({"summary": [{"text": "a"}], "encrypted_content": "s"}, ("a", "s")),
        ({"summary": [], "encrypted_content": None}, None),
    ],
)
def test_thinking_is_read_from_where_the_client_kept_it(item: Any, parts: Any) -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    turn = history({"role": "user", "content": "x"}, {"type": "reasoning", **item}, call)[-1]
    assert turn.parts[:-1] == ((Thinking(*parts),) if parts else ())


def test_items_of_hosted_tools_in_the_history_are_left_out_and_told() -> None:
    request = ask(input=[{"role": "user", "content": "x"}, {"type": "web_search_call", "id": "w"}])
    assert len(request.messages) == 1
    assert request.warnings == ("input.web_search_call",)


TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}},
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Do not wrap the patch in JSON.",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
    },
    {
        "type": "namespace",
        "name": "ns",
        "description": "d",
        "tools": [{"type": "function", "name": "g"}, {"type": "custom", "name": "c"}],
    },
    {"type": "web_search"},
]


def test_freeform_and_nested_tools_become_functions() -> None:
    request = ask(tools=TOOLS)
    assert [(t.name, t.custom, t.namespace) for t in request.tools] == [
        ("f", False, ""),
        ("apply_patch", True, ""),
        ("ns__g", False, "ns"),
        ("ns__c", True, "ns"),
    ]
    schema = json.loads(bytes(request.tools[1].parameters))
    assert schema["required"] == ["input"]
    assert "lark grammar:\nstart: x" in schema["properties"]["input"]["description"]
    assert request.tools[1].description.startswith("Do not wrap the patch in JSON.\n\nPut ")
    assert request.warnings == ("tools.custom.format",)
    assert request.search is not None


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
        ({"type": "function", "name": "g", "namespace": "ns"}, "ns__g"),
        ({"type": "function", "name": "g"}, "ns__g"),
        ({"type": "function", "name": "ns__g"}, "ns__g"),
    ],
)
def test_a_choice_names_a_tool_in_the_clients_words(said: Any, choice: str) -> None:
    assert ask(tools=TOOLS, tool_choice=said).choice == Choice("named", choice)


def test_allowed_tools_filter_the_tools() -> None:
    allowed = [
        {"type": "function", "name": "f"},
        {"type": "web_search"},
        {"type": "namespace", "name": "ns"},
    ]
    said = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    request = ask(tools=TOOLS, tool_choice=said)
    assert [t.name for t in request.tools] == ["f", "ns__g", "ns__c"]
    assert request.choice == Choice("required")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, Reasoning()),
        ({"summary": "auto"}, Reasoning()),
        ({"effort": "none"}, Reasoning("off", effort="none")),
        ({"effort": "xhigh"}, Reasoning("on", effort="xhigh")),
    ],
)
def test_an_effort_switches_thinking(said: Any, meant: Reasoning) -> None:
    assert ask(reasoning=said).reasoning == meant


# --- requests: to upstreams --------------------------------------------------------------------

WORD = st.text("abcXYZ_09", min_size=1, max_size=6)
TEXT = st.text(max_size=12).filter(bool).map(Text)
IMAGE = st.sampled_from(
    [
        Media("image", "https://a.example/b.png", detail="low"),
        Media("image", "", "image/png", "AAAA"),
    ]
)
USER = st.lists(TEXT | IMAGE, min_size=1, max_size=3)
CALL = st.builds(ToolCall, WORD, WORD, st.just('{"a":1}'))
SIGNED = st.builds(Thinking, st.text(max_size=9), WORD)
ASSISTANT = st.lists(
    st.one_of(TEXT, CALL, SIGNED, TEXT.map(lambda t: Thinking(t.text))), min_size=1
)
RESULT = st.builds(ToolResult, WORD, st.lists(TEXT, max_size=1).map(tuple)).map(lambda r: [r])
LATER = st.one_of(
    st.tuples(st.just("user"), USER),
    st.tuples(st.just("system"), TEXT.map(lambda t: [t])),
    st.tuples(st.just("tool"), RESULT),
).map(lambda m: Message(m[0], tuple(m[1])))  # type: ignore[arg-type]
TURN = ASSISTANT.map(lambda parts: Message("assistant", tuple(parts)))
UNIT = st.none() | st.sampled_from([0.0, 0.5, 1.0])
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
    st.lists(st.tuples(LATER, TURN | st.none()), min_size=1, max_size=4),
    st.booleans(),
    TOOLED | st.just({}),
    st.builds(Sampling, st.none() | st.integers(1, 9), UNIT, UNIT),
    st.sampled_from([Reasoning(), Reasoning("off", effort="none"), Reasoning("on", effort="low")]),
    FORMATS,
    st.sampled_from(["", "priority"]),
)
@settings(max_examples=120, deadline=None)
def test_a_request_survives_the_way_to_another_gateway(
    turns: list[tuple[Message, Message | None]],
    stream: bool,
    tooled: dict[str, Any],
    sampling: Sampling,
    reasoning: Reasoning,
    format: Format | None,
    tier: str,
) -> None:
    request = Request(
        "m",
        tuple(m for pair in turns for m in pair if m is not None),
        stream=stream,
        sampling=sampling,
        reasoning=reasoning,
        format=format,
        service_tier=tier,
        session="k",
        **tooled,
    )
    body = RESPONSES.encode_request(request, MINIMAX, "m", stream)
    read = RESPONSES.decode_request(body, RequestTarget())
    assert msgspec.structs.replace(read, echo=None) == request
    assert RESPONSES.encode_request(request, MINIMAX, "m", stream) == body


def test_a_request_has_minimaxs_own_form() -> None:
    turn = (Thinking(""), Thinking("hm"), Text("x"), ToolCall("1", "f", "{}"))
    result = ToolResult("1", (Text("bad"), Media("image", "http://a/b")), is_error=True)
    request = Request(
        "m",
        (
            Message("system", (Text("a"), Text("b"))),
            Message("user", (Text("go"),)),
            Message("assistant", turn),
            Message("tool", (result,)),
            Message("user", (Text("on"),)),
        ),
        sampling=Sampling(5),
    )
    assert send(request, stream=True) == {
        "model": "up",
        "input": [
            {"type": "message", "role": "user", "content": "go"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}],
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "x", "annotations": []}],
            },
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "1",
                "output": "Error: bad\n[image attached below]",
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_image", "image_url": "http://a/b"}],
            },
            {"type": "message", "role": "user", "content": "on"},
        ],
        "instructions": "a\n\nb",
        "stream": True,
        "max_output_tokens": 5,
    }


@pytest.mark.parametrize(
    ("asked", "capabilities", "sent"),
    [
        (Reasoning(), MINIMAX, None),
        (Reasoning("on"), MINIMAX, "medium"),
        (Reasoning("on", effort="max"), MINIMAX, "high"),
        (Reasoning("on", effort="max"), Capabilities(thinking_switch="effort"), "max"),
        (Reasoning("off"), MINIMAX, "none"),
        (Reasoning("off"), Capabilities(thinking_switch="effort"), None),
        (Reasoning("on", effort="low"), Capabilities(), None),
    ],
)
def test_thinking_is_switched_by_an_effort(
    asked: Reasoning, capabilities: Capabilities, sent: str | None
) -> None:
    request = msgspec.structs.replace(ASK, reasoning=asked)
    assert send(request, capabilities).get("reasoning", {}).get("effort") == sent


def test_thinking_stays_here_when_the_upstream_has_no_place_for_it() -> None:
    request = Request("m", (Message("assistant", (Thinking("hm"), Text("x"))),))
    kinds = [i["type"] for i in send(request, Capabilities(reasoning_form="none"))["input"]]
    assert kinds == ["message"]


def test_a_film_is_refused() -> None:
    with pytest.raises(Refused):
        send(Request("m", (Message("user", (Media("video", "http://a/b"), Text("x"))),)))


# --- replies: laws -----------------------------------------------------------------------------

PIECES = st.lists(WORD, min_size=1, max_size=3)
USAGE = st.builds(Usage, *[st.integers(9, 99)] * 2, *[st.integers(1, 9)] * 3)
REASONS: Any = st.sampled_from(["stop", "length", "content_filter"])
ASKS = [ASK, ask(tools=TOOLS, reasoning={"summary": "auto"})]


@st.composite
def replies(draw: Any) -> tuple[list[Event], Reply]:
    """Events of a reply with its parts in any order, cut into deltas, and what they mean."""
    events: list[Event] = [Start("resp_1", "MiniMax-M2")]
    called = False
    for n, kind in enumerate(
        draw(st.lists(st.sampled_from(["text", "thinking", "call"]), max_size=4))
    ):
        if kind == "call":
            called = True
            name = draw(st.sampled_from(["f", "ns__g", "apply_patch", "ns__c", "unknown"]))
            events += [PartStart("tool_call", f"call_{n}", name)]
            events += [*map(Delta, ['{"input"', ':"', "\u00e9", '"}']), PartStop()]
            continue
        events.append(PartStart(kind))
        signature = draw(st.just("") | WORD) if kind == "thinking" else ""
        pieces = draw(st.lists(WORD, max_size=2)) if signature else draw(PIECES)
        events += [*map(Delta, pieces), PartStop(signature)]
    reason = draw(REASONS)
    if called and reason == "stop":
        reason = "tool_calls"
    events.append(Finish(reason, draw(USAGE)))
    reply = collect(events)
    assert isinstance(reply, Reply)
    return events, reply


@given(replies(), st.sampled_from(ASKS), st.data())
@settings(max_examples=80, deadline=None)
def test_a_stream_cut_anywhere_reads_the_same(
    made: tuple[list[Event], Reply], request: Request, data: st.DataObject
) -> None:
    events, reply = made
    sent = encode(events, request)
    assert collect(decode(sent)) == reply
    at = data.draw(st.integers(0, len(sent)))
    assert collect(decode(sent[:at], sent[at:])) == reply
    assert collect(decode(*(sent[i : i + 1] for i in range(len(sent))))) == reply


@given(replies(), st.sampled_from(ASKS))
@settings(max_examples=80, deadline=None)
def test_a_whole_reply_and_a_stream_are_the_same(
    made: tuple[list[Event], Reply], request: Request
) -> None:
    events, reply = made
    whole = RESPONSES.encode_reply(reply, request, FACTS)
    assert collect(decode(whole, media="application/json")) == reply
    assert frames(encode(events, request))[-1]["response"] == json.loads(whole)
    Response.model_validate_json(whole)


@given(replies(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_before_its_end_fails(
    made: tuple[list[Event], Reply], data: st.DataObject
) -> None:
    sent = encode(made[0])
    at = data.draw(st.integers(0, sent.rindex(b"event: ")))
    assert isinstance(collect(decode(sent[:at])), Failed)


@given(replies(), st.sampled_from(ASKS))
@settings(max_examples=80, deadline=None)
def test_the_sdk_knows_every_event_and_puts_them_together(
    made: tuple[list[Event], Reply], request: Request
) -> None:
    events, reply = made
    sent = encode(events, request)
    for number, (frame, line) in enumerate(
        zip(frames(sent), [x for x in sent.split(b"\n") if x.startswith(b"event: ")], strict=True)
    ):
        assert EVENT.validate_python(frame).sequence_number == number
        assert line == b"event: " + frame["type"].encode()
    said = through_the_sdk(sent)
    assert said.output_text == "".join(p.text for p in reply.parts if isinstance(p, Text))
    assert len(said.output) == len(reply.parts)
    status = "incomplete" if reply.finish.reason in ("length", "content_filter") else "completed"
    assert said.status == status


def through_the_sdk(sent: bytes) -> Any:
    """What `client.responses.stream` made of the bytes; Any: a generic of the SDK."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": STREAM}, content=sent)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    with (
        openai.OpenAI(api_key="k", base_url="http://stub.test/v1", http_client=http) as client,
        client.responses.stream(model="m", input="hi") as stream,
    ):
        last: Any = None
        for event in stream:
            last = event
    return last.response


NASTY = "\r\n\n\rdata: [DONE]\n\nevent: x\n\u2028\u2029\x85\x00</think>"


@pytest.mark.parametrize("request_", ASKS, ids=["content", "summary"])
def test_text_cannot_leave_its_event(request_: Request) -> None:
    parts = (Thinking(NASTY, NASTY), Text(NASTY), ToolCall("call_" + NASTY, NASTY, '{"a":1}'))
    reply = Reply(parts, Finish("tool_calls", Usage(1, 1)), "resp_1", "MiniMax-M2")
    sent = encode(list(replay(reply)), request_)
    assert len(sent.decode().splitlines()) == sent.count(b"\n")
    assert sent.count(b"\n\n") == sent.count(b"\ndata: {")
    assert collect(decode(sent)) == reply


# --- replies: to clients -----------------------------------------------------------------------

HELLO = Reply((Thinking("hm", "s"), Text("Hello")), Finish("stop", Usage(5, 3, 2, 0, 1)))


def test_a_stream_has_openais_order_of_events() -> None:
    kinds = [f["type"].removeprefix("response.") for f in frames(encode(list(replay(HELLO))))]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_thinking_is_a_summary_where_one_was_asked_for() -> None:
    request = ask(reasoning={"summary": "auto"})
    out = frames(encode(list(replay(HELLO)), request))
    assert [f["type"].removeprefix("response.") for f in out[3:7]] == [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]
    assert out[7]["item"] == {
        "id": "rs_1_0",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "s",
        "type": "reasoning",
    }


def test_omitted_thinking_still_carries_its_signature() -> None:
    out = frames(encode([Start(), PartStart("thinking"), PartStop("s")]))
    assert [f["type"] for f in out[2:]] == [
        "response.output_item.added",
        "response.output_item.done",
    ]
    assert out[-1]["item"]["encrypted_content"] == "s"
    assert out[-1]["item"]["summary"] == []


CALLS = (
    ToolCall("1", "f", "{}"),
    ToolCall("2", "apply_patch", '{"input":"*** Begin\\n"}'),
    ToolCall("3", "ns__g", "{}"),
    ToolCall("4", "ns__c", '{"input":"x"}'),
)


def test_calls_are_given_back_in_the_clients_words() -> None:
    request = ask(tools=TOOLS)
    reply = Reply(CALLS, Finish("tool_calls"))
    output = json.loads(RESPONSES.encode_reply(reply, request, FACTS))["output"]
    assert [(i["type"], i["call_id"], i["name"], i.get("namespace")) for i in output] == [
        ("function_call", "1", "f", None),
        ("custom_tool_call", "2", "apply_patch", None),
        ("function_call", "3", "g", "ns"),
        ("custom_tool_call", "4", "c", "ns"),
    ]
    assert output[1]["input"] == "*** Begin\n"
    sent = frames(encode(list(replay(reply)), request))
    inputs = [f for f in sent if f["type"].startswith("response.custom_tool_call_input")]
    assert [(f["type"][-5:], f.get("delta", f.get("input"))) for f in inputs] == [
        ("delta", "*** Begin\n"),
        (".done", "*** Begin\n"),
        ("delta", "x"),
        (".done", "x"),
    ]
    # What the client sends back is what the model said.
    assert history({"role": "user", "content": "x"}, *output)[1].parts == CALLS


@pytest.mark.parametrize(
    ("arguments", "input"),
    [("*** Begin", "*** Begin"), ('"*** Begin"', "*** Begin"), ('{"patch":1}', '{"patch":1}')],
)
def test_a_freeform_call_that_forgot_its_wrapping_is_understood(arguments: str, input: str) -> None:
    reply = Reply((ToolCall("1", "apply_patch", arguments),), Finish("tool_calls"))
    output = json.loads(RESPONSES.encode_reply(reply, ask(tools=TOOLS), FACTS))["output"]
    assert output[0]["input"] == input


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("stop_sequence", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("context_full", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_a_reply_that_was_cut_short_is_incomplete(reason: Any, status: str, why: Any) -> None:
    last = frames(encode([Start(), PartStart("text"), Delta("x"), PartStop(), Finish(reason)]))[-1]
    assert last["type"] == f"response.{status}"
    assert last["response"]["status"] == last["response"]["output"][-1]["status"] == status
    assert last["response"]["incomplete_details"] == why
    assert last["response"]["usage"]["total_tokens"] == 0


def test_a_call_with_half_its_arguments_is_not_completed() -> None:
    out = frames(encode([Start(), PartStart("tool_call", "1", "f"), Delta('{"a'), PartStop()]))
    assert out[-1]["item"]["status"] == "incomplete"


def test_a_reply_repeats_its_request() -> None:
    request = ask(
        tools=TOOLS,
        tool_choice={"type": "function", "name": "f"},
        instructions="be kind",
        metadata={"a": "b"},
        parallel_tool_calls=False,
        temperature=0.5,
        store=True,
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
    )
    reply = json.loads(RESPONSES.encode_reply(HELLO, request, FACTS))
    said = Response.model_validate(reply)
    assert said.instructions == "be kind"
    assert said.metadata == {"a": "b"}
    assert (said.parallel_tool_calls, said.temperature, said.top_p) == (False, 0.5, 1.0)
    assert [t.type for t in said.tools] == ["function", "custom", "namespace"]
    assert reply["tools"][0] == {**TOOLS[0], "strict": False}
    assert reply["tools"][1] == TOOLS[1]
    assert reply["tool_choice"] == {"type": "function", "name": "f"}
    assert reply["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
    assert reply["reasoning"] == {"effort": "low", "summary": "auto"}
    assert reply["store"] is False
    created = frames(encode([Start()], request))[0]["response"]
    assert created["tools"] == reply["tools"]
    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)


def test_a_whole_reply_is_what_the_sdk_expects() -> None:
    said = Response.model_validate_json(RESPONSES.encode_reply(HELLO, ASK, FACTS))
    assert (said.id, said.model, said.created_at) == ("resp_1", "MiniMax-M2", 1700000000)
    assert said.output_text == "Hello"
    assert said.usage is not None
    assert said.usage.model_dump(exclude_none=True) == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
    }


def test_models_are_listed_as_the_sdk_expects() -> None:
    card = ModelCard("m", "M", 1, 2, 3)
    listed = json.loads(RESPONSES.encode_models([card], {}))
    assert listed["data"] == [json.loads(RESPONSES.encode_model(card))]
    assert listed["data"][0]["id"] == "m"


# --- replies: from upstreams -------------------------------------------------------------------


def delta(kind: str, text: str, index: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": text, **more}


def done(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def added(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


SAID = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
THOUGHT = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "hm"}],
}
CALLED = {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a":1}'}
PARTS = (Thinking("hm"), Text("Hello"), ToolCall("1", "f", '{"a":1}'))
WHOLE = {"type": "response.completed", "response": {"output": [THOUGHT, SAID, CALLED]}}
ODD: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "deltas alone": (
        [
            delta("reasoning_text", "hm"),
            delta("output_text", "Hel", 1),
            delta("output_text", "lo", 1),
            added(2, **CALLED),
        ],
        COMPLETED,
    ),
    "whole items alone": ([done(0, **THOUGHT), done(1, **SAID), done(2, **CALLED)], COMPLETED),
    "nothing but the end": ([], WHOLE),
    "all three": (
        [
            added(0, **{**THOUGHT, "content": []}),
            delta("reasoning_text", "h"),
            delta("reasoning_text", "m"),
            done(0, **THOUGHT),
            delta("output_text", "Hello", 1),
            done(1, **SAID),
            added(2, **{**CALLED, "arguments": ""}),
            delta("function_call_arguments", '{"a":', 2),
            delta("function_call_arguments", "1}", 2),
            done(2, **CALLED),
        ],
        WHOLE,
    ),
    "half in deltas, half in the end": (
        [delta("reasoning_text", "hm"), delta("output_text", "He", 1)],
        WHOLE,
    ),
    "thinking told twice": (
        [
            delta("reasoning_summary_text", "hm"),
            delta("reasoning_text", "hm"),
            done(0, **{**THOUGHT, "summary": [{"text": "hm"}]}),
            done(1, **SAID),
            done(2, **CALLED),
        ],
        COMPLETED,
    ),
    "ids instead of indexes": (
        [
            delta("reasoning_text", "hm", None, item_id="a"),
            delta("output_text", "Hello", None, item_id="b"),
            {"type": "response.output_item.done", "item": {**SAID, "id": "b"}},
            {"type": "response.output_item.added", "item": {**CALLED, "id": "c", "arguments": ""}},
            delta("function_call_arguments", '{"a":1}', None, item_id="c"),
        ],
        COMPLETED,
    ),
    "no names at all": (
        [
            {"type": "response.reasoning_text.delta", "delta": "h"},
            {"type": "response.reasoning_text.delta", "delta": "m"},
            {"type": "response.output_text.delta", "delta": "Hel"},
            {"type": "response.output_text.delta", "delta": "lo"},
        ],
        WHOLE,
    ),
    "names only at the end": (
        [
            {"type": "response.reasoning_text.delta", "delta": "hm"},
            {"type": "response.output_item.done", "item": {**THOUGHT, "id": "a"}},
            {"type": "response.output_text.delta", "delta": "Hel"},
            {"type": "response.output_item.done", "item": {**SAID, "id": "b"}},
            {"type": "response.output_item.done", "item": {**CALLED, "id": "c"}},
        ],
        WHOLE,
    ),
    "items of hosted tools between": (
        [
            done(0, type="web_search_call", id="w"),
            done(1, **THOUGHT),
            delta("output_text", "Hello", 2),
            done(2, **SAID),
            done(3, **CALLED),
        ],
        {"type": "response.completed", "response": {"output": [{"type": "web_search_call"}]}},
    ),
    "events nobody knows": (
        [{"type": "response.queued"}, {"type": "response.new"}, {"x": 1}, done(0, **THOUGHT)],
        WHOLE,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_an_upstream_leaves_out_is_found_elsewhere(name: str) -> None:
    events, end = ODD[name]
    reply = read(*events, end=end)
    assert reply.parts == PARTS
    assert reply.finish.reason == "tool_calls"


def test_done_after_the_end_and_blank_events_are_nothing() -> None:
    sent = b"data: \n\ndata: [DONE]\n\n" + stream(delta("output_text", "x"), COMPLETED)
    assert collect(decode(sent + b"data: [DONE]\n\n")) == read(delta("output_text", "x"))


def test_calls_by_turns_are_kept_apart() -> None:
    reply = read(
        added(0, type="function_call", call_id="1", name="f"),
        added(1, type="function_call", call_id="2", name="g"),
        delta("function_call_arguments", '{"a"', 0),
        delta("function_call_arguments", '{"b"', 1),
        delta("function_call_arguments", ":1}", 0),
        done(0, type="function_call", call_id="1", name="f", arguments='{"a":1}'),
        delta("function_call_arguments", ":2}", 1),
        done(1, type="function_call", call_id="2", name="g", arguments='{"b":2}'),
    )
    assert reply.parts == (ToolCall("1", "f", '{"a":1}'), ToolCall("2", "g", '{"b":2}'))


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert read(done(0, type="function_call", call_id="1", name="f", arguments="")).parts == (
        ToolCall("1", "f", "{}"),
    )


def test_the_parts_of_a_summary_are_paragraphs() -> None:
    reply = read(
        delta("reasoning_summary_text", "a", summary_index=0),
        delta("reasoning_summary_text", "b", summary_index=1),
        done(0, type="reasoning", summary=[{"text": "a"}, {"text": "b"}], encrypted_content="s"),
    )
    assert reply.parts == (Thinking("a\n\nb", "s"),)


@pytest.mark.parametrize(
    ("why", "reason"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "length")],
)
def test_an_incomplete_reply_says_why(why: Any, reason: str) -> None:
    end = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": why}}}
    assert read(delta("output_text", "x"), end=end).finish == Finish(reason)  # type: ignore[arg-type]
    whole = {"status": "incomplete", "output": [SAID], **end["response"]}  # type: ignore[dict-item]
    reply = collect(decode(json.dumps(whole).encode(), media="application/json"))
    assert isinstance(reply, Reply) and reply.finish.reason == reason


def test_usage_that_cannot_be_is_not_believed() -> None:
    for usage in ({"input_tokens": 0, "output_tokens": 0}, {"input_tokens": -1}, None):
        end = {"type": "response.completed", "response": {"usage": usage}}
        assert read(delta("output_text", "x"), end=end).finish.usage is None


# --- errors ------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "flat": ({"type": "error", "code": "server_error", "message": "x"}, "upstream"),
    "wrapped": ({"type": "error", "error": {"code": "rate_limit_exceeded"}}, "rate_limit"),
    "bare": ({"error": {"message": "high traffic detected"}}, "overloaded"),
    "minimax": (
        {"error": {"message": "invalid params (2013)", "code": "invalid_prompt"}},
        "invalid",
    ),
    "base_resp": ({"base_resp": {"status_code": 1002, "status_msg": "slow"}}, "rate_limit"),
    "failed": (
        {
            "type": "response.failed",
            "response": {"error": {"code": "context_length_exceeded", "message": "too long"}},
        },
        "context_length",
    ),
    "failed without a word": ({"type": "response.failed", "response": {}}, "upstream"),
    "cut": ({"type": "response.created", "response": {"id": "r"}}, "upstream"),
    "completed without a response": ({"type": "response.completed"}, "upstream"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_wrapping_of_an_error_is_opened(name: str) -> None:
    event, kind = BROKEN[name]
    assert failure(stream(delta("output_text", "x"), event)).kind == kind


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"<html>",
        b'{"status":"failed"}',
        b'{"status":"in_progress","output":[]}',
        b'{"base_resp":{"status_code":1002}}',
        b'{"error":{"message":"no","code":"server_error"}}',
    ],
)
def test_a_whole_reply_without_an_answer_fails(body: bytes) -> None:
    assert failure(body, "application/json").status >= 429


@pytest.mark.parametrize("kind", STATUS)
def test_each_kind_of_failure_has_its_words(kind: Any) -> None:
    status, body = RESPONSES.encode_failure(Failure(kind, "why", upstream_code="1002"), "r")
    assert status == (429 if kind == "no_credit" else STATUS[kind])
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code", "upstream_code"}
    failed = Failure(kind, "why", upstream_code="1002")
    (sent,) = RESPONSES.encoder(ASK, FACTS, RequestTarget()).fail(failed)
    last = frames(sent)[-1]
    assert last["response"]["error"]["upstream_code"] == "1002"
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["message"] == "why"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("context_length", "context_length_exceeded"),
        ("no_credit", "insufficient_quota"),
        ("rate_limit", "rate_limit_exceeded"),
        ("overloaded", "server_is_overloaded"),
        ("upstream", "server_error"),
        ("blocked", "invalid_prompt"),
    ],
)
def test_a_failed_stream_has_the_code_that_codex_knows(kind: Any, code: str) -> None:
    encoder = RESPONSES.encoder(ASK, FACTS, RequestTarget())
    sent = encoder.feed([Start(), PartStart("text"), Delta("x")])
    sent += b"".join(encoder.fail(Failure(kind, "why", retry_after_s=1.5)))
    out = frames(sent)
    assert [f["sequence_number"] for f in out] == list(range(len(out)))
    assert out[-1]["response"]["error"]["code"] == code
    assert out[-1]["response"]["output"] == []
    assert through_the_sdk(sent).status == "failed"


def test_a_rate_limit_says_in_words_how_long_to_wait() -> None:
    limit = Failure("rate_limit", "Too fast.", retry_after_s=1.2)
    told = "Too fast. Please try again in 2s."
    for said in (limit, msgspec.structs.replace(limit, message=told)):
        body = RESPONSES.encode_failure(said, "r")[1]
        assert json.loads(body)["error"]["message"] == told
    (sent,) = RESPONSES.encoder(ASK, FACTS, RequestTarget()).fail(limit)
    assert failure(sent).kind == "rate_limit"
    assert failure(sent).retry_after_s == 2.0


def test_an_error_page_is_read_as_everywhere() -> None:
    body = b'{"error":{"message":"invalid params, context window exceeds limit (2013)"}}'
    read = RESPONSES.decode_failure(400, {}, body)
    assert (read.kind, read.upstream_code) == ("context_length", "2013")


def test_the_path_is_below_the_base_url() -> None:
    assert RESPONSES.request_path("m", True) == "/responses"
