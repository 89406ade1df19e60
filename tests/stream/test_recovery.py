"""Tool-call recovery: calls written as text become calls however they are cut; text about calls stays text.

The blocks are as seen in MiniMax-M2.5#10, pi#368 and MiniMax-M3#31 (read 2026-11), with other names.
"""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from headgate.chat import (
    Delta,
    Event,
    Failed,
    Finish,
    Grammar,
    PartStart,
    PartStop,
    Reply,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    Usage,
    collect,
    replay,
)
from headgate.errors import Failure
from headgate.stream.blocks import NS
from headgate.stream.recovery import CallRecovery, Coerce
from headgate.stream.translate import Filter

USAGE = Usage(input=3, output=5)
CUT = Failed(Failure("upstream", "cut"))


def tool(name: str, **properties: object) -> Tool:
    schema = {"type": "object", "properties": properties}
    return Tool(name, "", Raw(json.dumps(schema).encode()))


WRITE = tool("write", path={"type": "string"}, text={"type": "string"})
READ = tool(
    "read",
    path={"type": "string"},
    line={"type": "integer"},
    share={"type": "number"},
    deep={"type": "boolean"},
    tags={"type": "array", "items": {"type": "string"}},
    sizes={"type": "array", "items": {"type": "integer"}},
    where={"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}},
    maybe={"anyOf": [{"type": "integer"}, {"type": "null"}]},
    free={},
    kind={"enum": ["1", "a"]},
)
TOOLS = (READ, WRITE)


def m2(*calls: tuple[str, dict[str, str]], tag: str = "minimax:tool_call") -> str:
    """A block as M2's chat template writes it."""
    lines = [f"<{tag}>"]
    for name, arguments in calls:
        lines.append(f'<invoke name="{name}">')
        lines += [f'<parameter name="{k}">{v}</parameter>' for k, v in arguments.items()]
        lines.append("</invoke>")
    return "\n".join([*lines, f"</{tag}>"])


def m3(*calls: tuple[str, dict[str, str]]) -> str:
    """A block as M3 writes it, the token before every tag."""
    out = f"{NS}<tool_call>\n"
    for name, arguments in calls:
        out += f'{NS}<invoke name="{name}">'
        out += "".join(f"{NS}<{k}>{v}{NS}</{k}>" for k, v in arguments.items())
        out += f"{NS}</invoke>\n"
    return f"{out}{NS}</tool_call>"


def run(filter: Filter, batches: list[list[Event]]) -> list[Event]:
    """What comes out, its grammar checked."""
    grammar = Grammar()
    out: list[Event] = []
    for events in batches:
        out += filter.feed(list(events))
    for event in out:
        grammar.check(event)
    return out


def salvage(*pieces: str, reason: str = "stop", tools: tuple[Tool, ...] = TOOLS) -> Reply:
    events: list[Event] = [Start(), PartStart("text"), *map(Delta, pieces), PartStop()]
    events.append(Finish(reason, USAGE))  # type: ignore[arg-type]  # a FinishReason
    reply = collect(run(CallRecovery(tools, "seed"), [[e] for e in events]))
    assert isinstance(reply, Reply)
    return reply


def arguments(text: str) -> dict[str, object]:
    (call,) = (p for p in salvage(text).parts if isinstance(p, ToolCall))
    return dict(json.loads(call.arguments))


# --- blocks ---


def test_a_block_in_the_text_becomes_a_call() -> None:
    text = '<minimax:tool_call>\n<invoke name="read">\n<parameter name="path">a.py</parameter>\n</invoke>\n</minimax:tool_call>'
    assert salvage(text).parts == (ToolCall("call_seed_x1", "read", '{"path":"a.py"}'),)


def test_a_block_of_m3_becomes_a_call() -> None:
    text = (
        "Let me read it.]<]minimax[>[<tool_call>\n"
        ']<]minimax[>[<invoke name="read">]<]minimax[>[<path>C:\\main.rs]<]minimax[>[</path>'
        "]<]minimax[>[<line>130]<]minimax[>[</line>]<]minimax[>[</invoke>\n"
        "]<]minimax[>[</tool_call>"
    )
    assert salvage(text).parts == (
        Text("Let me read it."),
        ToolCall("call_seed_x1", "read", '{"path":"C:\\\\main.rs","line":130}'),
    )


@pytest.mark.parametrize("block", [m2, m3])
def test_several_invokes_are_parallel_calls_with_ids_of_their_own(block: object) -> None:
    text = block(("read", {"path": "a"}), ("write", {"path": "b", "text": "c"}))  # type: ignore[operator]
    assert salvage(text).parts == (
        ToolCall("call_seed_x1", "read", '{"path":"a"}'),
        ToolCall("call_seed_x2", "write", '{"path":"b","text":"c"}'),
    )


def test_text_before_between_and_after_blocks_is_kept() -> None:
    block = m2(("read", {"path": "a"}))
    parts = salvage(f"First.\n{block}\n\nthen\n{block} Done.\n").parts
    assert [
        p.text if isinstance(p, Text) else p.name for p in parts if not isinstance(p, Thinking)
    ] == [
        "First.\n",
        "read",
        "\n\nthen\n",
        "read",
        " Done.\n",
    ]


def test_white_space_around_blocks_makes_no_text() -> None:
    block = m2(("read", {"path": "a"}))
    parts = salvage(f"\n\n{block}\n{block}\n").parts
    assert [type(p) for p in parts] == [ToolCall, ToolCall]


def test_a_call_without_parameters_has_an_empty_object() -> None:
    assert arguments(m2(("read", {}))) == {}
    assert arguments(m3(("read", {}))) == {}


@pytest.mark.parametrize("reason", ["stop", "stop_sequence"])
def test_a_reply_that_stopped_for_a_salvaged_call_says_so(reason: str) -> None:
    finish = salvage(m2(("read", {})), reason=reason).finish
    assert finish == Finish("tool_calls", USAGE)


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
def test_other_reasons_stay(reason: str) -> None:
    assert salvage(m2(("read", {})), reason=reason).finish.reason == reason


def test_a_reply_without_a_block_keeps_its_reason() -> None:
    assert salvage("hello").finish == Finish("stop", USAGE)


def test_a_later_unknown_tool_passes_as_a_call() -> None:
    parts = salvage(m2(("read", {}), ("fly", {"to": "3"}))).parts
    assert parts[1] == ToolCall("call_seed_x2", "fly", '{"to":"3"}')


@pytest.mark.parametrize("quote", ["'", ""])
def test_names_may_be_quoted_in_other_ways(quote: str) -> None:
    assert arguments(m2(("read", {"path": "a"})).replace('"', quote)) == {"path": "a"}


@pytest.mark.parametrize("drop", ["all", "first", "inner", "closing"])
def test_the_token_of_m3_may_be_lost(drop: str) -> None:
    text = m3(("read", {"path": "a", "line": "1"}), ("write", {"text": "x"}))
    match drop:
        case "all":
            text = text.replace(NS, "")
        case "first":
            text = text.removeprefix(NS)
        case "inner":
            text = text.replace(f"{NS}<invoke", "<invoke").replace(f"{NS}</invoke", "</invoke")
        case _:
            text = text.replace(f"{NS}</path>", "</path>").replace(f"{NS}</text>", "</text>")
    parts = salvage(text).parts
    assert [(p.name, p.arguments) for p in parts if isinstance(p, ToolCall)] == [
        ("read", '{"path":"a","line":1}'),
        ("write", '{"text":"x"}'),
    ]


# --- values ---


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("path", "3", "3"),
        ("path", " true\n", " true\n"),
        ("path", '{"a":1}', '{"a":1}'),
        ("line", "3", 3),
        ("line", " -3\n", -3),
        ("line", "3.0", 3),
        ("line", "3.5", "3.5"),
        ("line", "three", "three"),
        ("share", "0.5", 0.5),
        ("share", "NaN", "NaN"),
        ("deep", "true", True),
        ("deep", "False", False),
        ("deep", "yes", "yes"),
        ("tags", '["a","b"]', ["a", "b"]),
        ("tags", "['a']", "['a']"),
        ("where", '\n{"n": 1}\n', {"n": 1}),
        ("where", "[1]", "[1]"),
        ("maybe", "null", None),
        ("maybe", "7", 7),
        ("free", "7", "7"),
        ("free", "[7]", [7]),
        ("kind", "1", "1"),
        ("undeclared", "7", "7"),
    ],
)
@pytest.mark.parametrize("block", [m2, m3])
def test_a_value_has_its_declared_type(block: object, key: str, text: str, value: object) -> None:
    assert arguments(block(("read", {key: text}))) == {key: value}  # type: ignore[operator]


def test_numbers_keep_their_digits() -> None:
    (call,) = salvage(m2(("read", {"line": "123456789012345678901", "share": "0.10"}))).parts
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"line":123456789012345678901,"share":0.10}'


def test_objects_and_arrays_may_be_tags_in_m3() -> None:
    text = m3(
        (
            "read",
            {
                "tags": f"{NS}<item>a{NS}</item>{NS}<item>2{NS}</item>",
                "sizes": f"\n{NS}<item>1{NS}</item>\n{NS}<item>2{NS}</item>\n",
                "where": f"{NS}<n>5{NS}</n>{NS}<s>6{NS}</s>",
                "free": f"{NS}<free>{NS}<free>x{NS}</free>{NS}</free>",
            },
        )
    )
    assert arguments(text) == {
        "tags": ["a", "2"],
        "sizes": [1, 2],
        "where": {"n": 5, "s": "6"},
        "free": {"free": {"free": "x"}},
    }
    assert arguments(m3(("read", {"tags": "", "where": "", "path": ""}))) == {
        "tags": [],
        "where": {},
        "path": "",
    }


@pytest.mark.parametrize(
    "content",
    [
        "<parameter>\n  <hello></hello>\n</parameter>",  # vllm#44060
        "a</parameter>b",
        "</invoke></minimax:tool_call>",
        "<minimax:tool_call>",
        "</minimax:tool_call> in `code` and\n```\nfences",
        "<text>x</text>",
        "</path>",
        "&lt;&amp;",
        "\n  indented\n",
        "]<]",
        'é\u2028"\\\n',
    ],
)
@pytest.mark.parametrize("block", [m2, m3])
def test_a_file_that_mentions_the_tags_is_written_whole(block: object, content: str) -> None:
    text = block(("write", {"text": content, "path": "p"}))  # type: ignore[operator]
    assert arguments(text) == {"text": content, "path": "p"}


def test_references_in_the_schema_are_followed() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"$ref": "#/$defs/N"},
            "x": {"$ref": "http://x/y"},
            "c": {"$ref": "#/$defs/C"},
        },
        "$defs": {"N": {"type": "integer"}, "C": {"$ref": "#/$defs/C"}},
    }
    read = Tool("read", "", Raw(json.dumps(schema).encode()))
    (call,) = salvage(m2(("read", {"n": "1", "x": "1", "c": "1"})), tools=(read,)).parts
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"n":1,"x":"1","c":"1"}'


def test_references_that_multiply_do_not_hold_up_a_call() -> None:
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 30} for n in range(30)}
    schema = {"properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": defs}
    read = Tool("read", "", Raw(json.dumps(schema).encode()))
    (call,) = salvage(m2(("read", {"x": "1"})), tools=(read,)).parts
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"x":"1"}'


@pytest.mark.parametrize(
    "schema",
    [b"true", b'{"properties":[]}', b"{", b'{"type":12}', b'{"properties":{"line":false}}'],
)
def test_a_schema_that_is_none_makes_strings(schema: bytes) -> None:
    (call,) = salvage(m2(("read", {"line": "1"})), tools=(Tool("read", "", Raw(schema)),)).parts
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"line":"1"}'


# --- what stays text ---

BLOCK = m2(("read", {"path": "a"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "The `<minimax:tool_call>` tag opens a block.",
        "The <minimax:tool_call> tag opens a block.",
        "Look:\n```xml\n" + BLOCK + "\n```\nDone.",
        "Look:\n~~~~\n" + BLOCK + "\n~~~\n~~~~\nDone.",
        "````\n```\n" + BLOCK + "\n```\n````",
        "So `" + BLOCK.replace("\n", "") + "` it is.",
        "```\n" + m3(("read", {})),
        BLOCK[:-1],
        BLOCK.replace("</invoke>", ""),
        BLOCK.replace("</parameter>", ""),
        BLOCK.replace("read", "unheard-of"),
        BLOCK.replace("</invoke>", "</invoke> and so on"),
        m3(("read", {"path": "a"}))[:-3],
        f"{NS}{NS}a ]<] {NS}",
        '<tool_call>\n{"name": "read", "arguments": {}}\n</tool_call>',
        "<table><tr><td>1</td></tr></table> [a]",
        "<minimax:tool_call></minimax:tool_call>",
        "<minimax:tool_call><invoke",
    ],
)
def test_a_text_that_only_mentions_the_format_stays_text(text: str) -> None:
    assert salvage(text).parts == (Text(text),)
    assert salvage(*text).parts == (Text(text),)
    assert salvage(text).finish.reason == "stop"


def test_a_block_after_closed_code_is_salvaged() -> None:
    before = "Use `<minimax:tool_call>` and a lone ` here\n```\n<tool_call>\n```\n"
    assert salvage(before + BLOCK).parts[0] == Text(before)
    assert len(salvage(before + BLOCK).parts) == 2


def test_a_block_after_a_mention_is_salvaged() -> None:
    before = "A <minimax:tool_call> is <tool_call><invoke: "
    assert len(salvage(before + BLOCK).parts) == 2
    assert len(salvage(*before, *BLOCK).parts) == 2


def test_without_tools_nothing_is_salvaged() -> None:
    assert salvage(BLOCK, tools=()).parts == (Text(BLOCK),)


def test_thinking_and_calls_are_not_searched() -> None:
    said = Reply((Thinking(BLOCK, "s"), ToolCall("c", "f", BLOCK)), Finish("tool_calls", USAGE))
    assert collect(run(CallRecovery(TOOLS), [[e] for e in replay(said)])) == said


def test_a_block_that_is_too_long_stays_text() -> None:
    text = m2(("write", {"text": "x" * (1 << 18)})) + " after"
    assert salvage(text).parts == (Text(text),)
    pieces = [text[i : i + 1000] for i in range(0, len(text), 1000)]
    assert salvage(*pieces).parts == (Text(text),)


# --- holding back ---


def shown(*pieces: str) -> list[str]:
    """The text that is shown after each piece."""
    filter = CallRecovery(TOOLS)
    filter.feed([Start(), PartStart("text")])
    return [
        "".join(e.text for e in filter.feed([Delta(p)]) if isinstance(e, Delta)) for p in pieces
    ]


@pytest.mark.parametrize(
    ("pieces", "out"),
    [
        (("a < b", " and", " c"), ["a < b", " and", " c"]),
        (("a <", "b", "[1]", " x"), ["a ", "<b", "[1", "] x"]),
        (("a <mini", "ature>"), ["a ", "<miniature>"]),
        (("a <minimax:tool_call>", "\n", "is"), ["a ", "", "<minimax:tool_call>\nis"]),
        (('a<tool_call><invoke name="no', 'pe"><k>'), ["a", '<tool_call><invoke name="nope"><k>']),
        (("``", "`\n<mini", "max"), ["``", "`\n<mini", "max"]),
    ],
)
def test_no_more_is_held_than_may_become_a_block(pieces: tuple[str, ...], out: list[str]) -> None:
    assert shown(*pieces) == out


def test_plain_text_passes_as_the_very_same_events() -> None:
    filter = CallRecovery(TOOLS)
    filter.feed([Start(), PartStart("text"), Delta("x")])
    event = Delta("plain, if long; text")
    (out,) = filter.feed([event])
    assert out is event


def test_a_cut_reply_shows_what_was_held() -> None:
    text = BLOCK[:60]
    out = run(CallRecovery(TOOLS), [[Start(), PartStart("text"), Delta(text), CUT]])
    assert out == [Start(), PartStart("text"), Delta(text), CUT]


def test_a_reply_cut_before_its_first_word_is_as_it_came() -> None:
    events: list[Event] = [Start(), PartStart("text"), CUT]
    assert run(CallRecovery(TOOLS), [events]) == events


# --- any text, cut anywhere ---

PIECES = st.sampled_from(
    [
        BLOCK,
        m2(("read", {"line": "2"}), ("no", {})),
        m3(("read", {"tags": f"{NS}<item>a{NS}</item>"})),
        m3(("write", {"text": "</text>"})).replace(NS, ""),
        BLOCK[:40],
        BLOCK[25:],
        "`",
        "```",
        "~~~",
        "\n",
        " ",
        "a",
        "]",
        NS,
        "<",
        "<tool_call>",
        "<minimax:tool_call>",
        '<invoke name="read">',
        "</invoke>",
        "</minimax:tool_call>",
        '<parameter name="path">',
        "</parameter>",
    ]
)
TEXTS = st.lists(PIECES, max_size=7).map("".join)


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({c % (len(text) + 1) for c in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


@given(TEXTS, st.lists(st.integers(0, 2000), max_size=30))
@example(BLOCK, list(range(200)))
def test_the_cuts_change_nothing(text: str, cuts: list[int]) -> None:
    assert salvage(*split(text, cuts)) == salvage(text)


@given(TEXTS)
def test_a_text_in_single_characters_is_the_same(text: str) -> None:
    assert salvage(*text) == salvage(text)


@given(TEXTS)
def test_text_without_a_whole_block_is_the_same_to_the_byte(text: str) -> None:
    reply = salvage(*text)
    if not any(isinstance(p, ToolCall) for p in reply.parts):
        assert reply.parts == (Text(text),)


@given(TEXTS, st.lists(st.integers(0, 2000), max_size=9), st.integers(0, 40), st.integers(1, 5))
def test_a_cut_reply_is_one_after_the_filter(
    text: str, cuts: list[int], length: int, size: int
) -> None:
    events: list[Event] = [Start(), PartStart("text"), *map(Delta, split(text, cuts)), PartStop()]
    events = [*events[:length], CUT]
    run(CallRecovery(TOOLS), [events[i : i + size] for i in range(0, len(events), size)])


# --- coercion ---

RUN = tool("run", n={"type": "integer"}, b={"type": "boolean"})


def coerced(*events: Event) -> list[Event]:
    return run(Coerce((RUN,)), [[Start()], *([e] for e in events)])[1:]


def test_the_arguments_of_a_call_come_at_its_end() -> None:
    call = PartStart("tool_call", "c", "run")
    out = coerced(call, Delta('{"n"'), Delta(':"3"}'), PartStop(), Finish("tool_calls"))
    assert out == [call, Delta('{"n":3}'), PartStop(), Finish("tool_calls")]


def test_calls_of_other_tools_and_text_stream_as_they_came() -> None:
    events = [
        PartStart("text"),
        Delta("a"),
        Delta("b"),
        PartStop(),
        PartStart("tool_call", "c", "other"),
        Delta('{"n"'),
        Delta(':"3"}'),
        PartStop(),
        Finish("stop"),
    ]
    assert coerced(*events) == events


def test_a_cut_call_keeps_what_came_of_it() -> None:
    call = PartStart("tool_call", "c", "run")
    assert coerced(call, Delta('{"b":'), Delta('"true"'), CUT) == [call, Delta('{"b":"true"'), CUT]


def test_a_filter_counts_what_it_changed() -> None:
    filter = Coerce((RUN,))
    for said in ('{"n":"3"}', '{"n":3}'):
        filter.feed([PartStart("tool_call", "c", "run"), Delta(said), PartStop()])
    assert filter.count == 1
    salvaging = CallRecovery(TOOLS)
    salvaging.feed([Start(), PartStart("text"), Delta(BLOCK), PartStop()])
    assert salvaging.count == 1
