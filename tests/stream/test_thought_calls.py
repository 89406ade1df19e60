"""Calls at the end of a model's thinking become calls; calls that it only thinks about stay text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import (
    Delta,
    Event,
    Failed,
    Finish,
    PartStart,
    PartStop,
    Reply,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    collect,
)
from headgate.errors import Failure
from headgate.stream.filters import build

TOOLS = (Tool("f"), Tool("g"))
BLOCK = '<minimax:tool_call>\n<invoke name="f">\n<parameter name="k">v</parameter>\n</invoke>\n</minimax:tool_call>'
STOPPED = Finish("stop")
UNKNOWN = BLOCK.replace('"f"', '"other"')


def said(*parts: tuple[str, str], end: Event = STOPPED, cuts: int = 7) -> list[Event]:
    """What comes out of a reply with these parts, each in pieces of `cuts` characters."""
    events: list[Event] = [Start("1", "m")]
    for kind, text in parts:
        events.append(PartStart(kind, "own", "g") if kind == "tool_call" else PartStart(kind))  # type: ignore[arg-type]
        events += [Delta(text[i : i + cuts]) for i in range(0, len(text), cuts)]
        events.append(PartStop("sig" if kind == "thinking" else ""))
    events.append(end)
    filters = build("yes", (), False, tools=TOOLS, seed="s", tool_call_recovery=True)
    out: list[Event] = []
    for event in events:
        batch = [event]
        for each in filters:
            batch = each.feed(batch)
        out += batch
    return out


def reply(*parts: tuple[str, str], cuts: int = 7) -> Reply:
    got = collect(said(*parts, cuts=cuts))
    assert isinstance(got, Reply)
    return got


@given(st.integers(1, 200), st.sampled_from(["", "\n", "\n\n  "]))
def test_a_block_that_ends_the_thinking_is_a_call(cuts: int, blank: str) -> None:
    got = reply(("thinking", f"I call f.\n{BLOCK}{blank}"), cuts=cuts)
    assert got.parts == (
        Thinking("I call f.\n", "sig"),
        ToolCall("call_s_t1", "f", '{"k":"v"}'),
    )
    assert got.finish.reason == "tool_calls"


def test_a_blank_text_after_it_changes_nothing() -> None:
    got = reply(("thinking", BLOCK + BLOCK), ("text", "\n\n"))
    assert [type(part) for part in got.parts] == [Thinking, ToolCall, ToolCall]


@pytest.mark.parametrize(
    "parts",
    [
        (("thinking", f"Maybe {BLOCK} but first I look."),),
        (("thinking", f"Maybe {BLOCK}"), ("text", "Done.")),
        (("thinking", f"Maybe {BLOCK}"), ("tool_call", "{}")),
        (("thinking", f"Maybe {BLOCK}"), ("thinking", "no"), ("text", "Done.")),
        (("thinking", f"```\n{BLOCK}\n```"),),
        (("thinking", UNKNOWN),),
        (("thinking", BLOCK[:-4]),),
    ],
    ids=["it goes on", "a text", "a call", "more thinking", "code", "another tool", "cut"],
)
def test_what_is_only_thought_stays_to_the_byte(parts: tuple[tuple[str, str], ...]) -> None:
    got = reply(*parts)
    assert len(got.parts) == len(parts)
    for part, (kind, text) in zip(got.parts, parts, strict=True):
        match part:
            case Thinking():
                assert (kind, part.text, part.signature) == ("thinking", text, "sig")
            case Text():
                assert (kind, part.text) == ("text", text)
            case _:
                assert kind == "tool_call"


def test_a_reply_that_breaks_off_keeps_its_thinking() -> None:
    failed = Failed(Failure("upstream", "cut"))
    out = said(("thinking", f"Hm {BLOCK}"), end=failed)
    assert "".join(e.text for e in out if isinstance(e, Delta)) == f"Hm {BLOCK}"
    assert out[-1] == failed
    out = said(("thinking", f"Hm {BLOCK}"), end=Finish("length"))
    assert not any(isinstance(e, PartStart) and e.kind == "tool_call" for e in out)
