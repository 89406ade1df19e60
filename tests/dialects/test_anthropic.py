"""Anthropic Messages: bytes in, bytes out, in both directions."""

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic.types import ErrorResponse, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from anthropic.types import Message as SdkMessage
from hypothesis import given, settings
from hypothesis import strategies as st
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
    collect,
    replay,
)
from headgate.dialects.anthropic.dialect import AnthropicDialect
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ModelCard, ReplyFacts, RequestTarget
from headgate.errors import STATUS, Failure, Refused
from headgate.stream import sse

ANTHROPIC = AnthropicDialect()
FACTS = ReplyFacts("1", "MiniMax-M2", 1700000000)
ASK = Request("MiniMax-M2", (Message("user", (Text("hi"),)),), stream=True)
STREAM = "text/event-stream"
MINIMAX = Capabilities(reasoning_form="blocks", thinking_switch="adaptive", service_tier=True)
SDK_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def ask(headers: dict[str, str] | None = None, **fields: Any) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget(headers=headers or {}))


def history(*messages: tuple[str, Any]) -> tuple[Message, ...]:
    return ask(messages=[{"role": role, "content": content} for role, content in messages]).messages


def refused(**fields: Any) -> Failure:
    with pytest.raises(Refused) as caught:
        ask(**fields)
    return caught.value.failure


def send(request: Request, capabilities: Capabilities = MINIMAX, stream: bool = False) -> Any:
    return json.loads(ANTHROPIC.encode_request(request, capabilities, "up", stream))


def encode(events: list[Event], facts: ReplyFacts = FACTS) -> bytes:
    return ANTHROPIC.encoder(ASK, facts, RequestTarget()).feed(events)


def decode(*pieces: bytes, media: str = STREAM) -> list[Event]:
    decoder = ANTHROPIC.decoder(MINIMAX, media, "s")
    events = [e for piece in pieces for e in decoder.feed(piece)] + decoder.close()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    assert grammar.ended
    return events


def frames(data: bytes) -> list[Any]:
    """The events' data; each is checked to be named by its `event:` line, as the SDKs need."""
    values = [json.loads(p) for p in sse.EventReader().feed(data)]
    lines = data.split(b"\n")
    assert [line[7:].decode() for line in lines if line.startswith(b"event: ")] == [
        v["type"] for v in values
    ]
    return values


def stream(*events: Any, end: bool = True, **ending: Any) -> bytes:
    """A stream of such events between its start and its end."""
    message = {"id": "u", "model": "up", "usage": {"input_tokens": 0, "output_tokens": 0}}
    delta = {"stop_reason": "end_turn", **ending}
    ends = [{"type": "message_delta", "delta": delta, "usage": None}, {"type": "message_stop"}]
    all_ = [{"type": "message_start", "message": message}, *events, *(ends if end else [])]
    return b"".join(sse.encode(json.dumps(e).encode()) for e in all_)


def block(index: int, kind: str, *deltas: dict[str, str], **fields: Any) -> list[Any]:
    start = {"type": "content_block_start", "index": index}
    return [
        {**start, "content_block": {"type": kind, **fields}},
        *({"type": "content_block_delta", "index": index, "delta": d} for d in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def read(data: bytes, media: str = STREAM) -> Reply:
    reply = collect(decode(data, media=media))
    assert isinstance(reply, Reply), reply
    return reply


def failure(data: bytes, media: str = STREAM) -> Failure:
    failed = collect(decode(data, media=media))
    assert isinstance(failed, Failed), failed
    return failed.failure


# --- requests: from clients --------------------------------------------------------------------

# Bodies recorded 2026-11, long texts cut; the files are named by client and version.
FIXTURES = sorted((Path(__file__).parent.parent / "fixtures" / "anthropic").glob("*.json"))
RECORDED = {
    f"{path.stem}/{name}": body
    for path in FIXTURES
    for name, body in json.loads(path.read_text()).items()
}


@pytest.mark.parametrize("name", RECORDED)
def test_what_real_clients_send_is_understood_and_can_be_sent_on(name: str) -> None:
    body = json.dumps(RECORDED[name]).encode()
    if "thread" in RECORDED[name]:
        with pytest.raises(Refused):
            ANTHROPIC.decode_request(body, RequestTarget())
        return
    request = ANTHROPIC.decode_request(body, RequestTarget())
    sent = send(request)
    assert sent["messages"] and "x-anthropic-billing-header" not in json.dumps(sent)
    assert ANTHROPIC.decode_request(json.dumps(sent).encode(), RequestTarget()).messages == tuple(
        m for m in request.messages if m.parts
    )


def test_claude_code_is_understood_in_full() -> None:
    body = RECORDED["claude-code-2.1.330/001-text"]
    request = ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget())
    assert request.session == "00000000-0000-0000-0000-000000000000"
    assert request.reasoning == Reasoning("on", "omit", body["output_config"]["effort"])
    assert request.warnings == ("context_management",)
    assert len(request.tools) == len(body["tools"])
    assert [m.role for m in request.messages].count("system") == len(body["system"]) - 1 + sum(
        m["role"] == "system" for m in body["messages"]
    )


def test_every_parameter_arrives() -> None:
    request = ask(
        max_tokens=5,
        temperature=1,
        top_p=0.9,
        top_k=3,
        stop_sequences=["END"],
        stream=True,
        service_tier="priority",
        metadata={"user_id": "u"},
        tools=[{"name": "f", "strict": True, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
        something_new={"a": 1},
    )
    assert request.sampling == Sampling(5, 1.0, 0.9, 3, stop=("END",))
    assert (request.stream, request.service_tier, request.session) == (True, "priority", "u")
    assert request.tools == (Tool("f", strict=True, cache="5m"),)
    assert request.choice == Choice("named", "f", False)
    schema = msgspec.Raw(b'{"type": "object"}')
    assert request.format == Format("schema", "response", schema, True)
    assert request.warnings == ("something_new",)


def test_the_older_place_of_a_schema_is_honoured_too() -> None:
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    assert ask(output_format=schema).format == ask(output_config={"format": schema}).format


IMAGE = {"type": "image", "source": {"type": "file", "file_id": "f"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a server tool that is forced": (
        {
            "tools": [{"name": "f"}, {"type": "web_fetch_20250910", "name": "w"}],
            "tool_choice": {"type": "tool", "name": "w"},
        },
        "tools[1].type",
    ),
    "MCP servers": ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers"),
    "an uploaded image": (
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        "messages[0].content[0].source.type",
    ),
    "a PDF": (
        {"messages": [{"role": "user", "content": [PDF]}]},
        "messages[0].content[0].source.type",
    ),
    "an upload": (
        {"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]},
        "messages[0].content[0].type",
    ),
    "an image in the system prompt": ({"system": [IMAGE]}, "system[0].type"),
    "another format": ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    fields, param = REFUSED[name]
    made = refused(**fields)
    assert (made.code, made.param) == ("unsupported_parameter", f"$.{param}")
    assert param in made.message


def said(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


DEEP: Any = {}
for _ in range(70):
    DEEP = {"a": DEEP}
INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no content": ({"messages": [{"role": "user"}]}, "$.messages[0]"),
    "negative tokens": ({"max_tokens": -2}, "$.max_tokens"),
    "tokens as text": ({"max_tokens": "five"}, "$.max_tokens"),
    "half a token": ({"max_tokens": 1.5}, "$.max_tokens"),
    "true tokens": ({"max_tokens": True}, "$.max_tokens"),
    "too hot": ({"temperature": 2.1}, "$.temperature"),
    "top_p": ({"top_p": 1.1}, "$.top_p"),
    "an empty stop": ({"stop_sequences": [""]}, "$.stop_sequences"),
    "a missing tool": (
        {"tools": [{"name": "f"}], "tool_choice": {"type": "tool", "name": "g"}},
        "$.tool_choice.name",
    ),
    "a call without tools": ({"tool_choice": {"type": "any"}}, "$.tool_choice"),
    "a tool without a name": ({"tools": [{"type": "custom"}]}, "$.tools[0].name"),
    "a schema that is no object": (
        {"tools": [{"name": "f", "input_schema": 1}]},
        "$.tools[0].input_schema",
    ),
    "a deep schema": (
        {"tools": [{"name": "f", "input_schema": DEEP}]},
        "$.tools[0].input_schema",
    ),
    "a deep input": (
        said({"type": "tool_use", "id": "1", "name": "f", "input": DEEP}, role="assistant"),
        "$.messages[0].content[0].input",
    ),
    "a text that is a number": (
        said({"type": "text", "text": "x"}, {"type": "text", "text": 1}),
        "$.messages[0].content[1].text",
    ),
    "a text without text": (said({"type": "text"}), "$.messages[0].content[0].text"),
    "a block that is a string": (said("x"), "$.messages[0].content[0]"),
    "a local file": (
        said({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}),
        "$.messages[0].content[0].source.url",
    ),
    "an image of text": (
        said(
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "text/html", "data": "aGk="},
            }
        ),
        "$.messages[0].content[0].source",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_wrong_is_refused_with_its_address(name: str) -> None:
    fields, param = INVALID[name]
    made = refused(**fields)
    assert (made.kind, made.param, made.code) == ("invalid", param, "")


BROKEN = {
    "a byte that is no UTF-8": b'{"type":"text","text":"\xff"}',
    "a byte in an input": b'{"type":"tool_use","id":"1","name":"f","input":{"a":"\xff"}}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_text_that_is_no_text_is_refused(name: str) -> None:
    body = b'{"model":"m","messages":[{"role":"assistant","content":[' + BROKEN[name] + b"]}]}"
    with pytest.raises(Refused) as caught:
        ANTHROPIC.decode_request(body, RequestTarget())
    assert caught.value.failure.code == "invalid_json"


def test_a_thread_is_refused_in_the_words_that_make_the_sdk_go_on_without() -> None:
    made = refused(thread={"type": "create"})
    status, body = ANTHROPIC.encode_failure(made, "r")
    assert (status, json.loads(body)["error"]["details"]) == (
        400,
        {"error_code": "thread_unsupported_request"},
    )
    assert ask(thread=None).messages


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({}, Reasoning("off", "no")),
        ({"thinking": {"type": "disabled"}}, Reasoning("off", "no")),
        ({"thinking": {"type": "adaptive"}}, Reasoning("on", "yes")),
        ({"thinking": {"type": "between_tools"}}, Reasoning("on", "yes")),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9, "display": "omitted"}},
            Reasoning("on", "omit", budget_tokens=9),
        ),
        ({"output_config": {"effort": "low"}}, Reasoning("off", "no", "low")),
    ],
)
def test_thinking_is_off_and_hidden_unless_it_is_asked_for(
    fields: dict[str, Any], reasoning: Reasoning
) -> None:
    assert ask(**fields).reasoning == reasoning


@pytest.mark.parametrize(
    ("headers", "user", "session"),
    [
        ({}, "u", "u"),
        ({}, '{"session_id": "s", "device_id": "d"}', "s"),
        ({}, '{"device_id": "d"}', '{"device_id": "d"}'),
        ({}, "{me}", "{me}"),
        ({}, '{"a":' * 5000, ('{"a":' * 60)[:256]),
        ({"x-claude-code-session-id": "h"}, "u", "h"),
    ],
)
def test_the_session_is_found(headers: dict[str, str], user: str, session: str) -> None:
    assert ask(headers, metadata={"user_id": user}).session == session


def test_the_billing_line_is_dropped_from_the_first_system_block_only() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1.330;"
    blocks = [{"type": "text", "text": t} for t in (line, "one", line)]
    assert [m.text for m in ask(system=blocks).messages] == ["one", line, "hi"]
    assert ask(system="one").messages[0] == Message("system", (Text("one"),))
    assert [m.role for m in ask(system="").messages] == ["user"]


def test_results_come_before_what_else_a_turn_says() -> None:
    turn = [
        {"type": "text", "text": "see"},
        {"type": "tool_result", "tool_use_id": "2", "content": "two"},
        {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
        {"type": "tool_result", "tool_use_id": "1", "is_error": True},
    ]
    assert history(("user", turn)) == (
        Message("tool", (ToolResult("2", (Text("two"),)),)),
        Message("tool", (ToolResult("1", is_error=True),)),
        Message("user", (Text("see"), Media("image", "https://x/a.png"))),
    )


RESULTS: list[tuple[Any, tuple[Any, ...]]] = [
    (None, ()),
    ("", ()),
    ([], ()),
    ("x", (Text("x"),)),
    ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], (Text("a"), Text("b"))),
    (
        [
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
            }
        ],
        (Media("image", media_type="image/png", data="aGk="),),
    ),
    ([{"type": "tool_reference", "tool_name": "f"}], (Text("[tool_reference: f]"),)),
    ([{"type": "browser_state", "content": {"a": 1}}], (Text("[browser_state]"),)),
    (
        [{"type": "browser_state", "title": 1, "content": [1, {"type": 2, "text": "t"}]}],
        (Text("[browser_state]\nt"),),
    ),
    (
        [
            {
                "type": "search_result",
                "source": "https://x",
                "title": "T",
                "content": [{"type": "text", "text": "found"}],
            }
        ],
        (Text("[search_result: T]\nfound"),),
    ),
    (
        [{"type": "document", "title": 'A "b"', "source": {"type": "text", "data": "d"}}],
        (Text('<document title="A \\"b\\"">\nd\n</document>'),),
    ),
    (
        [
            {
                "type": "document",
                "source": {"type": "content", "content": [{"type": "text", "text": "d"}]},
            }
        ],
        (Text("<document>\nd\n</document>"),),
    ),
]


@pytest.mark.parametrize(("content", "parts"), RESULTS)
def test_a_result_may_say_its_content_in_any_way(content: Any, parts: tuple[Any, ...]) -> None:
    turn = [{"type": "tool_result", "tool_use_id": "1", "content": content}]
    assert history(("user", turn)) == (Message("tool", (ToolResult("1", parts),)),)


def test_an_assistants_turn_keeps_its_order_and_drops_what_nobody_can_read() -> None:
    turn = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "", "signature": "t"},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
        {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "server_tool_use", "id": "2", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "2", "content": {"error_code": "x"}},
    ]
    assert history(("assistant", turn)) == (
        Message(
            "assistant",
            (
                Thinking("hm", "s"),
                Thinking("", "t"),
                ToolCall("1", "f", '{"a": 1}'),
                Text("x", "1h"),
                Text("[server_tool_use: web_search]"),
                Text("[web_search_tool_result]"),
            ),
        ),
    )


def test_a_system_message_in_the_middle_stays_there() -> None:
    roles = [m.role for m in history(("user", "a"), ("system", "b"), ("assistant", "c"))]
    assert roles == ["user", "system", "assistant"]


# --- requests: to upstreams --------------------------------------------------------------------

WORD = st.text('abcé \u2028\n"{}漢😀', min_size=1, max_size=8).map(lambda s: "w" + s)
CACHE = st.sampled_from(["", "5m", "1h"])
ID = st.text("abcXYZ019_-", min_size=1, max_size=8)
TEXT = st.builds(Text, WORD, CACHE)
PICTURE = st.sampled_from(
    [
        Media("image", url="https://x/a", cache="5m"),
        Media("image", media_type="image/png", data="aGk="),
        Media("video", media_type="video/mp4", data="aGk="),
    ]
)
ARGUMENTS = st.sampled_from(['{"a":1}', "{}", '{"\\u00e9":"漢"}'])
CALL = st.builds(ToolCall, ID, WORD, ARGUMENTS, CACHE)
USER = st.lists(TEXT | PICTURE, min_size=1, max_size=3).map(lambda p: Message("user", tuple(p)))
SPOKEN = st.tuples(
    st.lists(st.builds(Thinking, WORD, WORD), max_size=2),
    st.lists(TEXT | CALL, min_size=1, max_size=3),
).map(lambda p: Message("assistant", (*p[0], *p[1])))
RESULT = st.builds(
    ToolResult,
    ID,
    st.lists(TEXT | PICTURE, max_size=2).map(tuple),
    st.booleans(),
    st.just(""),
    CACHE,
).map(lambda r: Message("tool", (r,)))
SYSTEM = TEXT.map(lambda t: Message("system", (t,)))
# One turn of each side: the wire has no two turns of the user's in a row.
TURN = st.tuples(st.lists(RESULT, max_size=2), USER, SPOKEN).map(lambda t: [*t[0], t[1], t[2]])
HISTORY = st.tuples(st.lists(SYSTEM, max_size=2), st.lists(TURN, min_size=1, max_size=2)).map(
    lambda h: (*h[0], *(m for turn in h[1] for m in turn))
)
UNIT = st.none() | st.sampled_from([0.0, 0.5, 1.0])
SAMPLING = st.builds(
    lambda tokens, heat, top_p, top_k, stop: Sampling(tokens, heat, top_p, top_k, stop=stop),
    st.integers(1, 9),
    UNIT,
    UNIT,
    st.none() | st.integers(1, 9),
    st.lists(WORD, max_size=3).map(tuple),
)
SCHEMA = msgspec.Raw(b'{"type":"object"}')
TOOLED = st.tuples(
    st.sampled_from(
        [
            Choice(),
            Choice(parallel=False),
            Choice("none"),
            Choice("required", parallel=True),
            Choice("named", "f"),
        ]
    ),
    CACHE,
).map(lambda t: {"choice": t[0], "tools": (Tool("f", "d", SCHEMA, True), Tool("g", cache=t[1]))})


@given(
    HISTORY,
    st.booleans(),
    TOOLED | st.just({}),
    SAMPLING,
    st.sampled_from([Reasoning("on"), Reasoning("off", "no")]),
    st.sampled_from([None, Format("schema", "response", SCHEMA, True)]),
    st.sampled_from(["", "priority"]),
)
@settings(max_examples=100, deadline=None)
def test_a_request_survives_the_way_to_another_gateway(
    messages: tuple[Message, ...],
    streamed: bool,
    tooled: dict[str, Any],
    sampling: Sampling,
    reasoning: Reasoning,
    format: Format | None,
    tier: str,
) -> None:
    request = Request(
        "m",
        messages,
        stream=streamed,
        sampling=sampling,
        reasoning=reasoning,
        format=format,
        service_tier=tier,
        **tooled,
    )
    body = ANTHROPIC.encode_request(request, MINIMAX, "m", streamed)
    assert ANTHROPIC.decode_request(body, RequestTarget()) == request
    assert ANTHROPIC.encode_request(request, MINIMAX, "m", streamed) == body


def test_no_blank_text_is_sent() -> None:
    """Anthropic refuses: "text content blocks must contain non-whitespace text"."""
    blank = Text(" \n", "5m")
    sent = send(
        Request(
            "m",
            (
                Message("system", (Text("s"), Text(" "))),
                Message("user", (Text("hi"),)),
                Message("assistant", (blank, ToolCall("1", "f", "{}"), blank)),
                Message("tool", (ToolResult("1", (Text("\n"),)),)),
                Message("assistant", (ToolCall("2", "f", "{}"),)),
                Message("tool", (ToolResult("2", (Text("x"), Text(" "))),)),
            ),
        )
    )
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
    assert sent["system"] == [{"type": "text", "text": "s"}]
    assert sent["messages"][1]["content"] == [{**call, "cache_control": {"type": "ephemeral"}}]
    assert sent["messages"][2]["content"][0]["content"] == ""
    assert sent["messages"][4]["content"][0]["content"] == [{"type": "text", "text": "x"}]


def test_results_and_what_follows_them_stand_in_one_turn() -> None:
    sent = send(
        Request(
            "m",
            (
                Message("system", (Text("a"),)),
                Message("system", (Text("b", "5m"),)),
                Message("user", (Text("q"),)),
                Message("assistant", (ToolCall("f:1", "f", '{"a":'),)),
                Message("tool", (ToolResult("f:1", (Text("r"),), is_error=True),)),
                Message("tool", (ToolResult("2"),)),
                Message("user", (Text("go"),)),
            ),
        )
    )
    assert sent["max_tokens"] == 32000
    assert sent["system"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
    ]
    call = {"type": "tool_use", "id": "f_3a_1", "name": "f", "input": {"_raw": '{"a":'}}
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": [call]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "f_3a_1", "content": "r", "is_error": True},
                {"type": "tool_result", "tool_use_id": "2", "content": ""},
                {"type": "text", "text": "go"},
            ],
        },
    ]


def test_thinking_goes_back_only_to_upstreams_that_take_blocks() -> None:
    request = Request("m", (Message("assistant", (Thinking("hm", "s"), Text("x"))),))
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    text = {"type": "text", "text": "x"}
    assert send(request)["messages"][0]["content"] == [thinking, text]
    assert send(request, Capabilities())["messages"][0]["content"] == [text]
    alone = Request("m", (*ASK.messages, Message("assistant", (Thinking("hm", "s"),))))
    assert [m["role"] for m in send(alone, Capabilities())["messages"]] == ["user"]


SWITCHED: list[tuple[Any, Reasoning, int | None, Any]] = [
    ("adaptive", Reasoning(), None, None),
    ("adaptive", Reasoning("on"), None, {"type": "adaptive"}),
    ("adaptive", Reasoning("off"), None, {"type": "disabled"}),
    ("none", Reasoning("on"), None, None),
    ("budget", Reasoning("off"), None, {"type": "disabled"}),
    ("budget", Reasoning("on"), None, {"type": "enabled", "budget_tokens": 8192}),
    ("budget", Reasoning("on", effort="low"), None, {"type": "enabled", "budget_tokens": 2048}),
    ("budget", Reasoning("on", budget_tokens=9), None, {"type": "enabled", "budget_tokens": 1024}),
    ("budget", Reasoning("on"), 3000, {"type": "enabled", "budget_tokens": 2999}),
    ("budget", Reasoning("on"), 1024, {"type": "disabled"}),
]


@pytest.mark.parametrize(("switch", "reasoning", "max_tokens", "sent"), SWITCHED)
def test_thinking_is_switched_in_the_upstreams_own_words(
    switch: Any, reasoning: Reasoning, max_tokens: int | None, sent: Any
) -> None:
    request = Request("m", ASK.messages, sampling=Sampling(max_tokens), reasoning=reasoning)
    assert send(request, Capabilities(thinking_switch=switch)).get("thinking") == sent


def test_any_object_is_asked_for_by_the_schema_of_an_object() -> None:
    sent = send(msgspec.structs.replace(ASK, format=Format("object")))
    assert sent["output_config"]["format"] == {"type": "json_schema", "schema": {"type": "object"}}
    assert "stream" not in sent and send(ASK, stream=True)["stream"] is True


# --- replies: laws -----------------------------------------------------------------------------

PIECES = st.lists(WORD, min_size=1, max_size=3)
USAGE = st.builds(
    lambda fresh, cached, written, said, thought: Usage(
        fresh + cached + written, said + thought, cached, written, thought
    ),
    st.integers(1, 99),
    st.integers(0, 99),
    st.integers(0, 99),
    st.integers(1, 9),
    st.integers(0, 9),
)
ENDS: Any = st.sampled_from(
    [
        ("stop", ""),
        ("stop_sequence", "END"),
        ("length", ""),
        ("context_full", ""),
        ("content_filter", ""),
    ]
)


@st.composite
def replies(draw: Any) -> tuple[list[Event], Reply]:
    """Events of a reply, its parts in any order, cut into deltas, and what they mean."""
    events: list[Event] = [Start("msg_1", "MiniMax-M2")]
    kinds = draw(st.lists(st.sampled_from(["thinking", "text", "tool_call"]), max_size=5))
    for n, kind in enumerate(kinds):
        if kind == "tool_call":
            pieces = draw(st.sampled_from([["{}"], ['{"a', '": "', "\\u00e9", '"}']]))
            events += [PartStart(kind, f"call_{n}", draw(WORD)), *map(Delta, pieces), PartStop()]
        else:
            omitted = kind == "thinking" and draw(st.booleans())
            events += [PartStart(kind), *map(Delta, [] if omitted else draw(PIECES))]
            events.append(PartStop(draw(WORD) if kind == "thinking" else ""))
    reason, sequence = draw(ENDS)
    if "tool_call" in kinds and reason in ("stop", "stop_sequence"):
        reason, sequence = "tool_calls", ""
    events.append(Finish(reason, draw(USAGE), sequence))
    reply = collect(events)
    assert isinstance(reply, Reply)
    return events, reply


@given(replies(), st.data(), st.integers(0, 500))
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_anywhere_reads_the_same(
    made: tuple[list[Event], Reply], data: st.DataObject, estimate: int
) -> None:
    events, reply = made
    sent = encode(events, msgspec.structs.replace(FACTS, input_estimate=estimate))
    assert collect(decode(sent)) == reply
    at = data.draw(st.integers(0, len(sent)))
    assert collect(decode(sent[:at], sent[at:])) == reply
    assert collect(decode(*(sent[i : i + 1] for i in range(len(sent))))) == reply


@given(replies())
@settings(max_examples=60, deadline=None)
def test_a_whole_reply_and_a_stream_are_the_same_and_valid_for_the_sdk(
    made: tuple[list[Event], Reply],
) -> None:
    events, reply = made
    whole = ANTHROPIC.encode_reply(reply, ASK, FACTS)
    assert read(whole, media="application/json") == reply
    SdkMessage.model_validate_json(whole)
    for frame in frames(encode(events)):
        SDK_EVENT.validate_python(frame)


@given(replies())
@settings(max_examples=40, deadline=None)
def test_blocks_are_numbered_and_open_one_at_a_time(made: tuple[list[Event], Reply]) -> None:
    sent = frames(encode(made[0]))
    inner = [f for f in sent if "index" in f]
    assert [sent[0]["type"], sent[-2]["type"], sent[-1]["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    starts = [n for n, f in enumerate(inner) if f["type"] == "content_block_start"]
    for count, (a, b) in enumerate(itertools.pairwise([*starts, len(inner)])):
        assert {f["index"] for f in inner[a:b]} == {count}
        assert inner[b - 1]["type"] == "content_block_stop"


@given(replies(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_before_its_end_fails(
    made: tuple[list[Event], Reply], data: st.DataObject
) -> None:
    sent = encode(made[0])
    at = data.draw(st.integers(0, sent.index(b'data: {"type":"message_delta"')))
    assert isinstance(collect(decode(sent[:at])), Failed)


NASTY = "\r\n\n\rdata: [DONE]\n\nevent: x\n\u2028\u2029\x85\x00</think>"


def test_text_cannot_leave_its_event() -> None:
    parts = (Thinking(NASTY, NASTY), Text(NASTY), ToolCall("call_1", NASTY, '{"a":"\u2028"}'))
    reply = Reply(parts, Finish("tool_calls", Usage(1, 1)), "msg_1", "MiniMax-M2")
    sent = encode(list(replay(reply)))
    assert len(sent.decode().splitlines()) == sent.count(b"\n")
    assert sent.count(b"\n\n") == sent.count(b"data: {")
    assert read(sent) == reply


# --- replies: to clients -----------------------------------------------------------------------

HELLO = Reply(
    (Thinking("hm", "s"), Text("Hello"), ToolCall("a:b", "f", "{}")),
    Finish("tool_calls", Usage(10, 3, 2, 3, 1)),
)
USED = {
    "input_tokens": 5,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 2,
    "output_tokens": 3,
    "output_tokens_details": {"thinking_tokens": 1},
}


def test_a_stream_is_what_anthropic_sends() -> None:
    sent = frames(encode([Start("u", "up", 7), *list(replay(HELLO))[1:]]))
    assert [(f["type"], f.get("content_block") or f.get("delta")) for f in sent[1:-1]] == [
        ("content_block_start", {"type": "thinking", "thinking": "", "signature": ""}),
        ("content_block_delta", {"type": "thinking_delta", "thinking": "hm"}),
        ("content_block_delta", {"type": "signature_delta", "signature": "s"}),
        ("content_block_stop", None),
        ("content_block_start", {"type": "text", "text": ""}),
        ("content_block_delta", {"type": "text_delta", "text": "Hello"}),
        ("content_block_stop", None),
        ("content_block_start", {"type": "tool_use", "id": "a_3a_b", "name": "f", "input": {}}),
        ("content_block_delta", {"type": "input_json_delta", "partial_json": "{}"}),
        ("content_block_stop", None),
        ("message_delta", {"stop_reason": "tool_use", "stop_sequence": None}),
    ]
    message = sent[0]["message"]
    assert (message["id"], message["model"], message["role"]) == (
        "msg_1",
        "MiniMax-M2",
        "assistant",
    )
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["input_tokens"] == 7
    assert sent[-2]["usage"] == USED


def test_the_input_is_estimated_until_it_is_known() -> None:
    facts = msgspec.structs.replace(FACTS, input_estimate=9)
    sent = frames(encode([Start(), Finish("stop")], facts))
    assert sent[0]["message"]["usage"]["input_tokens"] == 9
    assert sent[1]["usage"]["input_tokens"] == 9


def test_a_whole_reply_is_what_the_sdk_expects() -> None:
    body = json.loads(ANTHROPIC.encode_reply(HELLO, ASK, FACTS))
    assert body == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "MiniMax-M2",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Hello", "citations": []},
            {
                "type": "tool_use",
                "id": "a_3a_b",
                "name": "f",
                "input": {},
                "caller": {"type": "direct"},
            },
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            **USED,
            "cache_creation": None,
            "inference_geo": None,
            "server_tool_use": None,
            "service_tier": None,
        },
    }
    SdkMessage.model_validate(body)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a":', {"_raw": '{"a":'}),
        ("[1]", {"_raw": "[1]"}),
    ],
)
def test_the_input_of_a_call_is_always_an_object(arguments: str, value: Any) -> None:
    reply = Reply((ToolCall("1", "f", arguments),), Finish("tool_calls"))
    body = json.loads(ANTHROPIC.encode_reply(reply, ASK, FACTS))
    assert body["content"][0]["input"] == value


def test_a_reply_that_says_nothing_has_no_blocks() -> None:
    body = json.loads(ANTHROPIC.encode_reply(Reply((), Finish("stop")), ASK, FACTS))
    assert (body["content"], body["stop_reason"]) == ([], "end_turn")


CARDS = [ModelCard(f"m{n}", f"M {n}", 1700000000, 204800, 65536) for n in range(5)]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, ["m0", "m1", "m2", "m3", "m4"], False),
        ({"limit": "2"}, ["m0", "m1"], True),
        ({"limit": "2", "after_id": "m1"}, ["m2", "m3"], True),
        ({"limit": "2", "after_id": "m2"}, ["m3", "m4"], False),
        ({"limit": "2", "before_id": "m3"}, ["m1", "m2"], True),
        ({"limit": "3", "before_id": "m3"}, ["m0", "m1", "m2"], False),
        ({"after_id": "m4"}, [], False),
        ({"limit": "1000", "after_id": "unknown"}, ["m0", "m1", "m2", "m3", "m4"], False),
    ],
)
def test_models_are_listed_by_pages(query: dict[str, str], ids: list[str], more: bool) -> None:
    listed = json.loads(ANTHROPIC.encode_models(CARDS, query))
    assert [m["id"] for m in listed["data"]] == ids
    assert listed["has_more"] is more
    assert (listed["first_id"], listed["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    for model in listed["data"]:
        ModelInfo.model_validate(model)


def test_a_limit_that_is_no_number_is_refused() -> None:
    with pytest.raises(Refused):
        ANTHROPIC.encode_models(CARDS, {"limit": "all"})


def test_a_model_tells_its_bounds() -> None:
    shown = json.loads(ANTHROPIC.encode_model(CARDS[0]))
    assert shown.pop("capabilities")["structured_outputs"] == {"supported": True}
    assert shown == {
        "type": "model",
        "id": "m0",
        "display_name": "M 0",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": 204800,
        "max_tokens": 65536,
    }


def test_a_count_is_what_the_sdk_expects() -> None:
    assert MessageTokensCount.model_validate_json(ANTHROPIC.encode_count(7)).input_tokens == 7


# --- replies: from upstreams -------------------------------------------------------------------


def text(piece: str) -> dict[str, str]:
    return {"type": "text_delta", "text": piece}


def args(piece: str) -> dict[str, str]:
    return {"type": "input_json_delta", "partial_json": piece}


SIGNED = {"type": "signature_delta", "signature": "s"}
HM = {"type": "thinking_delta", "thinking": "hm"}
F = {"id": "1", "name": "f", "input": {}}
G = {"id": "2", "name": "g", "input": {}}
(F0, *F1), (G0, *G1) = (
    block(0, "tool_use", args('{"a"'), args(":1}"), **F),
    block(1, "tool_use", args("{"), args("}"), **G),
)
TOLD: dict[str, tuple[list[Any], tuple[Any, ...]]] = {
    "two texts": (
        [*block(0, "text", text("a")), *block(1, "text", text("b"))],
        (Text("a"), Text("b")),
    ),
    "a text given at the start": (block(0, "text", text("b"), text="a"), (Text("ab"),)),
    "signed thinking": (block(0, "thinking", HM, SIGNED, thinking=""), (Thinking("hm", "s"),)),
    "omitted thinking": (block(0, "thinking", SIGNED, thinking=""), (Thinking("", "s"),)),
    "two thoughts": (
        [*block(0, "thinking", HM), *block(1, "thinking", HM)],
        (Thinking("hm"), Thinking("hm")),
    ),
    "an input given at the start": (
        block(0, "tool_use", id="1", name="f", input={"a": 1}),
        (ToolCall("1", "f", '{"a": 1}'),),
    ),
    "an input told twice": (
        block(0, "tool_use", args('{"a":1}'), id="1", name="f", input={"a": 1}),
        (ToolCall("1", "f", '{"a":1}'),),
    ),
    "an input as text": (
        block(0, "tool_use", id="1", name="f", input='{"a":1}'),
        (ToolCall("1", "f", '{"a":1}'),),
    ),
    "no input": (block(0, "tool_use", **F), (ToolCall("1", "f", "{}"),)),
    "an input cut short": (
        [*block(0, "tool_use", args('{"a'), **F), *block(1, "text", text("b"))],
        (ToolCall("1", "f", '{"a'), Text("b")),
    ),
    "calls by turns": (
        [F0, F1[0], G0, G1[0], F1[1], F1[2], G1[1], G1[2]],
        (ToolCall("1", "f", '{"a":1}'), ToolCall("2", "g", "{}")),
    ),
    "pings and news": (
        [
            {"type": "ping"},
            *block(0, "redacted_thinking", data="x"),
            *block(1, "server_tool_use", args('{"q":1}'), id="9", name="w")[:1],
            {"type": "content_block_stop", "index": 1},
            {"type": "message_news", "news": []},
            *block(2, "text", text("a")),
        ],
        (Text("a"),),
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_odd_streams_are_read_as_they_are_meant(name: str) -> None:
    events, parts = TOLD[name]
    assert read(stream(*events)).parts == parts


def test_the_input_of_a_server_tool_is_not_taken_for_a_call() -> None:
    events = block(0, "server_tool_use", args('{"q":1}'), id="9", name="web_search")
    assert read(stream(*events, *block(1, "text", text("a")))).parts == (Text("a"),)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", Finish("stop")),
        ("pause_turn", Finish("stop")),
        ("max_tokens", Finish("length")),
        ("model_context_window_exceeded", Finish("context_full")),
        ("refusal", Finish("content_filter")),
        ("stop_sequence", Finish("stop_sequence", None, "END")),
        ("tool_use", Finish("stop")),
        ("something new", Finish("stop")),
    ],
)
def test_stop_reasons_are_mapped(reason: str, finish: Finish) -> None:
    sequence = "END" if reason == "stop_sequence" else None
    data = stream(*block(0, "text", text("x")), stop_reason=reason, stop_sequence=sequence)
    assert read(data).finish == finish


def test_end_turn_beside_calls_means_tool_calls() -> None:
    assert read(stream(*block(0, "tool_use", **F))).finish.reason == "tool_calls"


def test_a_stop_reason_without_message_stop_is_an_end_and_the_reverse_is_not() -> None:
    said = block(0, "text", text("x"))
    data = stream(*said)
    assert read(data[: data.rindex(b"data: ")]).parts == (Text("x"),)
    assert failure(stream(*said, end=False)).kind == "upstream"
    assert failure(stream(*said, {"type": "message_stop"}, end=False)).kind == "upstream"
    assert failure(stream(*said, stop_reason=None)).kind == "upstream"


def counts(*numbers: int | None) -> dict[str, Any]:
    names = (
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    )
    return {n: x for n, x in zip(names, numbers, strict=False) if x is not None}


@pytest.mark.parametrize(
    ("start", "end", "usage"),
    [
        (counts(0, 0), counts(5, 2), Usage(5, 2)),
        (counts(5, 1), counts(None, 2), Usage(5, 2)),
        (counts(5, 1), counts(5, 2), Usage(5, 2)),
        (counts(5, 1, 7, 2), counts(None, 3), Usage(14, 3, 7, 2)),
        (counts(5, 1, 7, 2), counts(5, 3, 7, 2), Usage(14, 3, 7, 2)),
        (counts(5, 1), counts(0, 3), Usage(5, 3)),
        (counts(99, 0, 0, 0), counts(20, 3, 70, 2), Usage(92, 3, 70, 2)),  # first an estimate
        (
            counts(5, 1),
            {**counts(5, 4), "output_tokens_details": {"thinking_tokens": 3}},
            Usage(5, 4, reasoning=3),
        ),
        (counts(0, 0), counts(0, 0), None),
        (counts(5, 1), counts(10**12, -4), Usage(5, 1)),
        ({}, {}, None),
    ],
)
def test_counts_that_come_twice_are_not_added(
    start: dict[str, Any], end: dict[str, Any], usage: Usage | None
) -> None:
    events = [
        {"type": "message_start", "message": {"usage": start}},
        *block(0, "text", text("x")),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
        {"type": "message_stop"},
    ]
    data = b"".join(sse.encode(json.dumps(e).encode()) for e in events)
    assert read(data).finish.usage == usage


def test_the_start_tells_what_the_input_costs() -> None:
    usage = counts(5, 1, 7, 2)
    start = {"type": "message_start", "message": {"id": "u", "model": "up", "usage": usage}}
    decoder = ANTHROPIC.decoder(MINIMAX, STREAM, "s")
    assert decoder.feed(sse.encode(json.dumps(start).encode())) == [Start("u", "up", 14, 7, 2)]


INSIDE = {
    "rate_limit": b'{"base_resp":{"status_code":1002,"status_msg":"rate limit"}}',
    "overloaded": b'{"type":"error","error":{"type":"overloaded_error","message":"high load"}}',
    "invalid": b'{"type":"error","error":{"type":"invalid_request_error","message":"no (2013)"}}',
    "context_length": b'{"type":"error","error":{"message":"prompt is too long: 9 > 8"}}',
    "upstream": b'{"type":"error","error":{"type":"api_error","message":"boom"}}',
    "blocked": b'{"base_resp":{"status_code":1026,"status_msg":"sensitive"}}',
}


@pytest.mark.parametrize("kind", INSIDE)
def test_an_error_inside_a_good_status_fails_the_reply(kind: str) -> None:
    assert failure(sse.encode(INSIDE[kind])).kind == kind
    assert failure(INSIDE[kind], media="application/json").kind == kind
    said = block(0, "text", text("x"))
    assert failure(stream(*said, end=False) + sse.encode(INSIDE[kind])).kind == kind


def test_withheld_output_ends_in_content_filter() -> None:
    last = sse.encode(b'{"base_resp":{"status_code":1027,"status_msg":"output new_sensitive"}}')
    reply = read(stream(*block(0, "text", text("x")), end=False) + last)
    assert (reply.parts, reply.finish.reason) == ((Text("x"),), "content_filter")
    assert failure(last).kind == "blocked"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"content":null}', b'{"content":[]}', b'{"type":"error"}'],
)
def test_a_whole_reply_without_an_answer_fails(body: bytes) -> None:
    assert failure(body, media="application/json").kind == "upstream"


def test_an_error_without_words_is_a_failure_all_the_same() -> None:
    assert failure(sse.encode(b'{"type":"error"}')).kind == "upstream"


def test_a_lone_surrogate_is_replaced_and_a_pair_is_kept() -> None:
    delta = b'{"type":"content_block_delta","index":0,"delta":{"text":"a\\ud83d \\ud83d\\ude00"}}'
    start = b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    end = b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}'
    events = decode(b"".join(map(sse.encode, (start, delta, end))))
    reply = collect(events)
    assert isinstance(reply, Reply) and reply.parts == (Text("a\ufffd \U0001f600"),)
    assert b"message_stop" in encode(events)


# --- errors ------------------------------------------------------------------------------------

ERRORS = {  # protocols.md 3.11, as Anthropic's own API and SDK have them
    "invalid": (400, "invalid_request_error"),
    "context_length": (400, "invalid_request_error"),
    "blocked": (400, "invalid_request_error"),
    "too_large": (413, "request_too_large"),
    "media_type": (415, "invalid_request_error"),
    "not_found": (404, "not_found_error"),
    "method": (405, "invalid_request_error"),
    "conflict": (409, "conflict_error"),
    "request_timeout": (408, "invalid_request_error"),
    "unauthenticated": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "no_credit": (402, "billing_error"),
    "rate_limit": (429, "rate_limit_error"),
    "internal": (500, "api_error"),
    "unavailable": (503, "api_error"),
    "upstream": (502, "api_error"),
    "upstream_auth": (424, "api_error"),
    "upstream_quota": (424, "api_error"),
    "upstream_config": (424, "api_error"),
    "overloaded": (529, "overloaded_error"),
    "timeout": (504, "timeout_error"),
    "client_gone": (499, "api_error"),
}


@pytest.mark.parametrize("kind", STATUS)
def test_each_kind_of_failure_has_its_words(kind: Any) -> None:
    status, body = ANTHROPIC.encode_failure(Failure(kind, "No.", upstream_code="7"), "r")
    message = "prompt is too long: No." if kind == "context_length" else "No."
    error = {"type": ERRORS[kind][1], "message": message, "upstream_code": "7"}
    assert (status, json.loads(body)) == (
        ERRORS[kind][0],
        {"type": "error", "error": error, "request_id": "r"},
    )
    if kind not in ("too_large", "conflict"):  # in Anthropic's documents, not in the SDK's types
        ErrorResponse.model_validate_json(body)


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        ("No.", "$.a[0].b", "a[0].b: No."),
        ("`n` is not supported.", "$.n", "`n` is not supported."),
        ("Expected `str` - at `$.n`", "$.n", "Expected `str` - at `$.n`"),
        ("The body is not valid JSON.", "$", "The body is not valid JSON."),
    ],
)
def test_the_place_is_told_once(message: str, param: str, told: str) -> None:
    body = ANTHROPIC.encode_failure(Failure("invalid", message, param=param), "r")[1]
    assert json.loads(body)["error"]["message"] == told


def test_what_makes_claude_code_compact_stands_first() -> None:
    for message in ("prompt is too long: 9 tokens > 8 maximum", "maximum context length is 8"):
        made = Failure("context_length", message)
        told = json.loads(ANTHROPIC.encode_failure(made, "r")[1])["error"]["message"]
        assert told.startswith("prompt is too long: ") and told.count("too long") == 1


def test_a_failed_stream_ends_in_an_error_without_message_stop() -> None:
    encoder = ANTHROPIC.encoder(ASK, FACTS, RequestTarget())
    sent = encoder.feed([Start(), PartStart("text"), Delta("x")])
    pieces = encoder.fail(Failure("overloaded", "Later."))
    error = {"type": "overloaded_error", "message": "Later."}
    assert frames(b"".join(pieces)) == [{"type": "error", "error": error, "request_id": "1"}]
    failed = collect(decode(sent, *pieces))
    assert isinstance(failed, Failed) and failed.failure.kind == "overloaded"


ENVELOPES = [
    (400, b'{"type":"error","error":{"message":"invalid params, x (2013)"}}', "invalid", "2013"),
    (400, b'{"error":{"message":"context window exceeds limit (2013)"}}', "context_length", "2013"),
    (500, b'{"base_resp":{"status_code":1002,"status_msg":"rpm"}}', "rate_limit", "1002"),
    (
        401,
        b'{"type":"error","error":{"type":"authentication_error","message":"k"}}',
        "upstream_auth",
        "authentication_error",
    ),
    (
        529,
        b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}',
        "overloaded",
        "overloaded_error",
    ),
    (502, b"<html>nginx at 10.0.0.7</html>", "upstream", "502"),
]


@pytest.mark.parametrize(("status", "body", "kind", "code"), ENVELOPES)
def test_every_envelope_of_an_error_is_opened(
    status: int, body: bytes, kind: str, code: str
) -> None:
    made = ANTHROPIC.decode_failure(status, {"retry-after": "3"}, body)
    assert (made.kind, made.upstream_code, made.retry_after_s) == (kind, code, 3)
    assert "10.0.0.7" not in made.message


def test_our_own_errors_are_understood_by_another_gateway() -> None:
    status, body = ANTHROPIC.encode_failure(Failure("context_length", "maximum context"), "r")
    assert ANTHROPIC.decode_failure(status, {}, body).kind == "context_length"
