"""Laws over all pairs of dialects: whatever an upstream says, every client reads the same.

Each dialect plays both sides here: its encoder is the upstream, its decoder the client's SDK.
"""

import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from headgate.chat import (
    Choice,
    Event,
    Failed,
    Finish,
    Grammar,
    Media,
    Message,
    Reasoning,
    Reply,
    Request,
    Sampling,
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
from headgate.dialects.contract import Dialect, ReplyFacts, RequestTarget
from headgate.dialects.registry import ANTHROPIC, DIALECTS, GEMINI, OPENAI
from headgate.errors import STATUS, Failure
from headgate.stream.translate import Translator, Whole

NAMES = sorted(DIALECTS)
PAIRS = list(itertools.product(NAMES, NAMES))
FACTS = ReplyFacts("1a2b", "MiniMax-M2", 1700000000, 50)
MODEL = "MiniMax-M2"
ASK = Request(MODEL, (Message("user", (Text("hi"),)),), stream=True, reasoning=Reasoning("on"))
ALL = Capabilities(
    input=("text", "image"),
    reasoning_form="details",
    thinking_switch="adaptive",
    thinking_off=True,
    stop=True,
    tool_choice=("none", "required", "named"),
    parallel_switch=True,
    response_format=True,
    seed=True,
    penalties=True,
    top_k=True,
    multi_system=True,
    service_tier=True,
)
BLOCKS = Capabilities(
    **{f: getattr(ALL, f) for f in ALL.__struct_fields__} | {"reasoning_form": "blocks"}
)

# Text that has broken a stream reader somewhere, and ordinary text.
nasty = st.sampled_from(
    [
        "\n\ndata: [DONE]\n\n",
        "event: message_stop",
        "\r",
        "\u2028",
        "\u2029",
        "\x85",
        '"}]}',
        "\\",
        "</think>",
        "\x00",
        "😀",
        "é",
        "{",
        "[{",
        "\n,\n",
        "data:",
        ": ping",
    ]
)
words = (
    st.lists(
        nasty | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    )
    .map("".join)
    .filter(lambda text: "think>" not in text.replace("</think>", "") and "```" not in text)
)  # see `without_lone_tags`
arguments = st.dictionaries(
    st.text("abc_", min_size=1, max_size=3), words | st.integers(-9, 9), max_size=3
)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    """Thinking, then text, then calls: the order that every wire can carry."""
    import msgspec

    parts: list[Text | Thinking | ToolCall] = []
    if draw(st.booleans()):
        parts.append(Thinking("Hm. " + draw(words) + "."))
    if draw(st.booleans()):
        parts.append(Text("So: " + draw(words)))
    for i in range(draw(st.integers(0, 3))):
        said = msgspec.json.encode(draw(arguments)).decode()
        parts.append(ToolCall(f"call_{i}", draw(st.sampled_from(["get_a", "get_b"])), said))
    if not parts:
        parts.append(Text("ok"))
    calls = any(isinstance(p, ToolCall) for p in parts)
    reason = "tool_calls" if calls else draw(st.sampled_from(["stop", "length"]))
    cached, reasoning = draw(st.integers(0, 50)), draw(st.integers(0, 20))
    usage = Usage(
        cached + draw(st.integers(1, 99)),
        reasoning + draw(st.integers(1, 99)),
        cached,
        0,
        reasoning,
    )
    return Reply(tuple(parts), Finish(reason, usage), "up", MODEL)  # type: ignore[arg-type]


def plain(reply: Reply) -> tuple[object, ...]:
    """What all wires carry: parts without ids and signatures, arguments as values, the end."""
    import json

    parts: list[object] = []
    for part in reply.parts:
        match part:
            case Text(text):
                parts.append(("text", text))
            case Thinking(text):
                parts.append(("thinking", text))
            case ToolCall():
                parts.append((part.name, json.loads(part.arguments)))
    finish = reply.finish
    return (*parts, finish.reason, finish.usage)


def without_lone_tags(reply: Reply) -> Reply:
    """What is left of a reply of an upstream: a line that is a closing tag alone is the end of thinking
    that the upstream did not mark (stream/thinking.py), unless the text has opening tags or code."""
    parts = [
        Text(LONE_TAG.sub("", part.text)) if isinstance(part, Text) else part
        for part in reply.parts
    ]
    return structs.replace(reply, parts=tuple(parts))


LONE_TAG = re.compile(r"^</(?:mm:)?think(?:ing)?>(?=\n)", re.MULTILINE)


def lone_tags(law: Callable[..., None]) -> Callable[..., None]:
    """Explicit cases beside the generated ones, which have them once in thousands."""
    for text in (
        "So: a\n</think>\nb", "So: \n</mm:think>\n", "So: \n</thinking>\n</think>\n\n", "So: a\n</think>",
        "So: a\n</think>b", "So: a</think>\n", "So: \n </think>\n", "So: \r</think>\n", "So: \n</think>\r\n",
    ):  # fmt: skip
        reply = Reply((Text(text),), Finish("stop", Usage(5, 5)), "up", MODEL)
        law = example(reply=reply)(law)
    return law


def streamed(dialect: Dialect, events: list[Event]) -> bytes:
    return dialect.encoder(ASK, FACTS, RequestTarget(MODEL, True)).feed(events)


def read(dialect: Dialect, data: bytes, cuts: list[int] | None = None) -> list[Event]:
    """Events of `data`, fed in pieces cut at `cuts`; the grammar is checked."""
    decoder = dialect.decoder(ALL, "text/event-stream", "s")
    events: list[Event] = []
    marks = [0, *sorted(c % (len(data) + 1) for c in cuts or ()), len(data)]
    for a, b in itertools.pairwise(marks):
        events += decoder.feed(data[a:b])
    events += decoder.close()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return events


def whole(events: list[Event]) -> Reply:
    reply = collect(events)
    assert isinstance(reply, Reply), reply
    return reply


def translated(upstream: Dialect, client: Dialect, data: bytes) -> tuple[bytes, Finish | Failed]:
    encoder = client.encoder(ASK, FACTS, RequestTarget(MODEL, True))
    translator = Translator(upstream.decoder(ALL, "text/event-stream", "s"), [], encoder)
    out = translator.feed(data) + translator.close()
    assert translator.end is not None
    if isinstance(translator.end, Failed):
        out += b"".join(encoder.fail(translator.end.failure))
    else:
        out += encoder.feed([translator.end])
    return out, translator.end


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(reply=replies(), cuts=st.lists(st.integers(0, 10**6), max_size=20))
def test_any_split_of_the_bytes_reads_the_same(name: str, reply: Reply, cuts: list[int]) -> None:
    data = streamed(DIALECTS[name], list(replay(reply)))
    assert plain(whole(read(DIALECTS[name], data, cuts))) == plain(without_lone_tags(reply))


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@settings(max_examples=40, deadline=None)
@given(reply=replies())
@lone_tags
def test_any_upstream_reads_the_same_to_any_client(
    upstream: str, client: str, reply: Reply
) -> None:
    data = streamed(DIALECTS[upstream], list(replay(reply)))
    out, _ = translated(DIALECTS[upstream], DIALECTS[client], data)
    assert plain(whole(read(DIALECTS[client], out))) == plain(without_lone_tags(reply))


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@settings(max_examples=40, deadline=None)
@given(reply=replies())
@lone_tags
def test_streamed_and_whole_replies_agree(upstream: str, client: str, reply: Reply) -> None:
    up, down = DIALECTS[upstream], DIALECTS[client]
    sink = Whole()
    translator = Translator(up.decoder(ALL, "application/json", "s"), [], sink)
    translator.feed(up.encode_reply(reply, ASK, FACTS))
    translator.close()
    assert isinstance(translator.end, Finish)
    sink.feed([translator.end])
    assert sink.collector.reply is not None
    body = down.encode_reply(sink.collector.reply, ASK, FACTS)
    decoder = down.decoder(ALL, "application/json", "s")
    assert plain(whole(decoder.feed(body) + decoder.close())) == plain(without_lone_tags(reply))


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@settings(max_examples=25, deadline=None)
@given(reply=replies(), cut=st.integers(0, 10**6))
def test_a_stream_that_just_stops_is_told_to_the_client(
    upstream: str, client: str, reply: Reply, cut: int
) -> None:
    events = list(replay(reply))
    data = streamed(DIALECTS[upstream], events[:-1])  # all but the end
    out, end = translated(DIALECTS[upstream], DIALECTS[client], data[: cut % (len(data) + 1)])
    assert isinstance(end, Failed)
    assert isinstance(read(DIALECTS[client], out)[-1], Failed)


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@pytest.mark.parametrize("kind", sorted(set(STATUS) - {"client_gone"}))
def test_a_failure_in_the_stream_reaches_the_client(upstream: str, client: str, kind: str) -> None:
    up = DIALECTS[upstream]
    encoder = up.encoder(ASK, FACTS, RequestTarget(MODEL, True))
    begun = encoder.feed(list(replay(Reply((Text("So"),), Finish("stop"))))[:3])
    data = begun + b"".join(encoder.fail(Failure(kind, "It failed.")))  # type: ignore[arg-type]
    out, end = translated(up, DIALECTS[client], data)
    assert isinstance(end, Failed)
    assert isinstance(read(DIALECTS[client], out)[-1], Failed)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=300), media=st.sampled_from(["text/event-stream", "application/json"])
)
def test_no_bytes_of_an_upstream_raise(name: str, data: bytes, media: str) -> None:
    decoder = DIALECTS[name].decoder(ALL, media, "s")
    events = decoder.feed(b"data: " + data + b"\n\n") + decoder.close()
    assert isinstance(events[-1], Failed | Finish)


names = st.sampled_from(["get_a", "get_b"])


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """What all wires can carry of a conversation with tools."""
    import msgspec

    messages = [Message("system", (Text("Be brief. " + draw(words)),))]
    for turn in range(draw(st.integers(1, 3))):
        messages.append(Message("user", (Text("Q: " + draw(words)),)))
        parts: list[Thinking | Text | ToolCall] = []
        if draw(st.booleans()):
            parts.append(Thinking("Hm. " + draw(words) + "."))
        parts.append(Text("A: " + draw(words)))
        calls = [
            ToolCall(f"call_{turn}_{i}", draw(names), msgspec.json.encode(draw(arguments)).decode())
            for i in range(draw(st.integers(0, 2)))
        ]
        messages.append(Message("assistant", (*parts, *calls)))
        for call in calls:
            result = ToolResult(call.id, (Text("R: " + draw(words)),), name=call.name)
            messages.append(Message("tool", (result,)))
    picture = Media("image", media_type="image/png", data="aGk=")
    messages.append(Message("user", (Text("Q"), picture) if draw(st.booleans()) else (Text("Q"),)))
    schema = msgspec.Raw(b'{"type":"object","properties":{"a":{"type":"string"}}}')
    tools = (Tool("get_a", "A.", schema), Tool("get_b", "B.", schema))
    choice = draw(
        st.sampled_from([Choice(), Choice("required"), Choice("named", "get_a"), Choice("none")])
    )
    sampling = Sampling(
        draw(st.integers(1, 9999)),
        draw(st.none() | st.sampled_from([0.0, 0.5, 1.0])),
        draw(st.none() | st.sampled_from([0.1, 1.0])),
        stop=tuple(draw(st.lists(st.sampled_from(["END", "\n\n"]), max_size=2, unique=True))),
    )
    return Request(
        MODEL, tuple(messages), draw(st.booleans()), tools=tools, choice=choice, sampling=sampling
    )


def carried(request: Request) -> object:
    """The parts of a request that every wire carries, ids by their order."""
    import json

    ids: dict[str, int] = {}
    out: list[object] = []
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text(text):
                    out.append((message.role, text))
                case Thinking(text):
                    out.append(("thinking", text))
                case Media():
                    out.append(("image", part.media_type, part.data))
                case ToolCall():
                    ids[part.id] = len(ids)
                    out.append(("call", ids[part.id], part.name, json.loads(part.arguments)))
                case ToolResult():
                    out.append(("result", ids[part.call_id], [p.text for p in part.parts]))  # type: ignore[union-attr]
    tools = [(t.name, t.description, json.loads(bytes(t.parameters))) for t in request.tools]
    s = request.sampling
    choice = (request.choice.mode, request.choice.name)
    return out, tools, choice, s.max_tokens, s.temperature, s.top_p, s.stop, request.stream


@pytest.mark.parametrize("path", list(itertools.product(NAMES, repeat=2)), ids="-".join)
@settings(max_examples=40, deadline=None)
@given(request=requests())
def test_requests_survive_the_wire(path: tuple[str, ...], request: Request) -> None:
    """Through one dialect and then another: what a client says reaches the upstream."""
    if "responses" in path:  # it has no stop sequences
        sampling = structs.replace(request.sampling, stop=())
        request = structs.replace(request, sampling=sampling)
    expected = carried(request)
    for name in path:
        dialect = DIALECTS[name]
        body = dialect.encode_request(
            request, BLOCKS if dialect is ANTHROPIC else ALL, MODEL, request.stream
        )
        assert body == dialect.encode_request(
            request, BLOCKS if dialect is ANTHROPIC else ALL, MODEL, request.stream
        )
        request = dialect.decode_request(body, RequestTarget(MODEL, request.stream))
    assert carried(request) == expected


def test_the_table_has_the_dialects_it_is_named_for() -> None:
    assert {OPENAI.name, ANTHROPIC.name, GEMINI.name} <= set(DIALECTS)
