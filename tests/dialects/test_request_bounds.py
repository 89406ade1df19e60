"""What is above a bound is refused by its name and count in every dialect; history is kept."""

import json
from typing import Any

import msgspec
import pytest

from headgate import bounds, jsontext
from headgate.bounds import CALL_ID, NAME, PARTS, STOP, TOOLS
from headgate.chat import Failed, Finish, Reply, ToolCall, ToolResult, collect
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.errors import Refused
from headgate.stream import sse
from test_growth import CLIENTS, allowed, body, called, tools, user

TARGET = RequestTarget("m", True)


def refused(client: str, value: dict[str, Any]) -> str:
    with pytest.raises(Refused) as caught:
        DIALECTS[client].decode_request(json.dumps(value).encode(), TARGET)
    assert caught.value.failure.kind == "invalid"
    return f"{caught.value.failure.message} {caught.value.failure.param}"


@pytest.mark.parametrize("client", CLIENTS)
def test_more_tools_than_the_bound_are_refused(client: str) -> None:
    words = refused(client, body(client, [user(client, "hi")], tools=tools(client, TOOLS.most + 1)))
    assert "$.tools" in words and "2049" in words and "2048" in words


@pytest.mark.parametrize("client", CLIENTS)
def test_more_parts_than_the_bound_are_refused(client: str) -> None:
    words = refused(client, body(client, [user(client, *["a"] * (PARTS.most + 1))]))
    assert "[0]" in words and "100001" in words and "100000" in words


@pytest.mark.parametrize("client", ["openai", "responses", "gemini"])
def test_more_allowed_tools_than_the_bound_are_refused(client: str) -> None:
    asked = body(client, [user(client, "hi")], tools=tools(client, 2), **allowed(client, 2049))
    assert "2049" in refused(client, asked)


STOPS = {"openai": "stop", "anthropic": "stop_sequences", "gemini": "stopSequences"}


@pytest.mark.parametrize("client", STOPS)
def test_stop_sequences_are_bounded_in_number_and_length(client: str) -> None:
    for stops, word in ((["a"] * 17, "17"), (["a" * (STOP.most + 1)], str(STOP.most + 1))):
        field: dict[str, Any] = {STOPS[client]: stops}
        more = {"generationConfig": field} if client == "gemini" else field
        words = refused(client, body(client, [user(client, "hi")], **more))
        assert word in words and STOPS[client] in words


@pytest.mark.parametrize("client", CLIENTS)
def test_a_long_name_is_refused_in_a_tool_and_shortened_in_the_history(client: str) -> None:
    name, id = "n" * 2000, "i" * 2000
    described = json.dumps(tools(client, 1)).replace('"f0"', f'"{name}"')
    words = refused(client, body(client, [user(client, "hi")], tools=json.loads(described)))
    assert "name" in words and "2000" in words and str(NAME.most) in words
    turns = json.loads(json.dumps(called(client, 1, name)).replace('"c0"', f'"{id}"'))
    raw = json.dumps(body(client, [user(client, "hi"), *turns])).encode()
    request = DIALECTS[client].decode_request(raw, TARGET)
    parts = [p for m in request.messages for p in m.parts]
    (call,) = [p for p in parts if isinstance(p, ToolCall)]
    (result,) = [p for p in parts if isinstance(p, ToolResult)]
    assert call.id == result.call_id
    assert len(call.id) == CALL_ID.most
    assert len(call.name) == NAME.most


def test_short_forms_of_different_ids_differ() -> None:
    assert bounds.call_id("i" * 300 + "a") != bounds.call_id("i" * 300 + "b")
    assert bounds.call_id("i" * CALL_ID.most) == "i" * CALL_ID.most


@pytest.mark.parametrize("client", CLIENTS)
def test_a_body_of_more_values_than_its_bytes_may_have_is_refused(client: str) -> None:
    empty: Any = [{} for _ in range(400_000)]
    assert "JSON values" in refused(client, body(client, [user(client, "hi")], x=empty))
    text = json.dumps(body(client, [user(client, "{}," * 400_000)])).encode()
    assert DIALECTS[client].decode_request(text, TARGET)


@pytest.mark.parametrize(
    ("text", "most", "fits"),
    [
        (b"[1,2,3]", 1, False),
        (b'["1,2,3,{[{[,,,,,,,,,,,,"]', 2, True),
        (b'["\\",\\",\\\\",2,3,4,5,6,7,8,9]', 3, False),
        ('["中,文,,,,,,,,,,,,,,,,,,,,,,,,"]', 2, True),
        (b'["",' + b'"",' * 100 + b'""]', 20, False),
    ],
)
def test_values_are_counted_outside_of_strings(text: bytes | str, most: int, fits: bool) -> None:
    assert jsontext.within(text, most) is fits


@pytest.mark.parametrize("client", CLIENTS)
def test_no_frame_of_a_stream_holds_a_newline_of_the_request(client: str) -> None:
    """A pretty-printed schema, in tools and in the format, repeated in each event of Responses."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    more: dict[str, Any] = {"tools": tools(client, 1, schema)}
    if client == "responses":
        more["text"] = {"format": {"type": "json_schema", "name": "s", "schema": schema}}
        more["metadata"] = {"a": "b\nc"}
    raw = json.dumps(body(client, [user(client, "hi")], **more), indent=2).encode()
    request = DIALECTS[client].decode_request(raw, TARGET)
    encoder = DIALECTS[client].encoder(request, ReplyFacts("id", "m", 1), TARGET)
    decoder = DIALECTS["openai"].decoder(Capabilities(), "text/event-stream", "s")
    data = sse.encode(b'{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}')
    events = [*decoder.feed(data), *decoder.close()]
    for frame in encoder.feed(events).split(b"\n\n"):
        lines = [line for line in frame.split(b"\n") if line]
        if client == "gemini" and not lines:
            continue
        for line in lines:
            assert line.startswith((b"data: ", b"event: ", b"[", b",", b"]", b"{"))
            if line.startswith(b"data: {"):
                msgspec.json.decode(line[6:])


# --- replies ---------------------------------------------------------------------------------------


def _chunks(*deltas: dict[str, Any]) -> bytes:
    wrapped = ({"choices": [{"index": 0, "delta": d}]} for d in deltas)
    return b"".join(sse.encode(json.dumps(w).encode()) for w in wrapped)


def _fed(data: list[bytes], media: str = "text/event-stream") -> Failed | Reply:
    decoder = DIALECTS["openai"].decoder(Capabilities(), media, "s")
    events = [event for piece in data for event in decoder.feed(piece)]
    return collect([*events, *decoder.close()])


def failure(reply: Failed | Reply) -> str:
    assert isinstance(reply, Failed)
    assert (reply.failure.kind, reply.failure.should_retry) == ("upstream", False)
    return reply.failure.message


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_reply_of_too_many_characters_fails(field: str) -> None:
    pieces = [_chunks({field: f"{n} " + "x" * 500_000}) for n in range(40)]
    assert "16777216 characters" in failure(_fed(pieces))


def test_calls_that_wait_for_their_turn_count_as_well() -> None:
    def part(n: int, arguments: str) -> dict[str, Any]:
        function = {"name": "f", "arguments": arguments}
        return {"tool_calls": [{"index": n, "id": f"c{n}", "function": function}]}

    data = [_chunks(part(0, "{"), *([part(1, "x" * 500_000)] * 40))]
    assert "16777216 characters" in failure(_fed(data))


def test_a_reply_of_too_many_parts_fails() -> None:
    pair = _chunks({"content": "a"}, {"reasoning_content": "b"})
    assert "20000 parts" in failure(_fed([pair * 11_000]))


def test_a_reply_of_too_many_calls_fails() -> None:
    calls = [
        {"tool_calls": [{"index": n, "id": f"c{n}", "function": {"name": "f", "arguments": "{}"}}]}
        for n in range(513)
    ]
    assert "512 tool calls" in failure(_fed([_chunks(*calls)]))


def test_a_whole_reply_of_too_many_bytes_fails() -> None:
    data = [b"x" * (1 << 20)] * 33
    assert "33554432 bytes" in failure(_fed(data, "application/json"))


def test_a_reply_within_the_bounds_is_whole() -> None:
    reply = _fed(
        [
            _chunks({"content": "x" * 900_000}) * 18,
            sse.encode(b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'),
        ]
    )
    assert isinstance(reply, Reply) and isinstance(reply.finish, Finish)


@pytest.mark.parametrize("dialect", CLIENTS)
def test_a_reply_that_is_both_malformed_and_deep_fails_as_the_upstreams_fault(dialect: str) -> None:
    decoder = DIALECTS[dialect].decoder(Capabilities(), "text/event-stream", "s")
    data = sse.encode(b'{"a":"\\ud800","b":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    found = collect([*decoder.feed(data), *decoder.close()])
    assert isinstance(found, Failed) and found.failure.kind == "upstream"
