"""Filters: a reply cut at its stop, without its fences, with as much thinking as was asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ToolCall,
    Usage,
    collect,
    replay,
)
from headgate.errors import Failure
from headgate.stream.filters import Fences, Show, Stops, build
from headgate.stream.stops import StopScanner
from headgate.stream.translate import Filter

CUT = Failed(Failure("upstream", "cut"))
USAGE = Usage(input=3, output=5)


def run(filters: list[Filter], batches: list[list[Event]]) -> list[Event]:
    """What comes out, with the grammar checked between any two filters."""
    grammars = [Grammar() for _ in filters]
    out: list[Event] = []
    for events in batches:
        for each, grammar in zip(filters, grammars, strict=True):
            events = each.feed(list(events))
            for event in events:
                grammar.check(event)
        out += events
    return out


def reply(*parts: Text | Thinking | ToolCall) -> Reply:
    return Reply(parts, Finish("stop", USAGE))


def through(filters: list[Filter], *parts: Text | Thinking | ToolCall) -> Reply:
    out = collect(run(filters, [[e] for e in replay(reply(*parts))]))
    assert isinstance(out, Reply)
    return out


def texts(filter: Filter, *pieces: str) -> list[str]:
    """What is shown after each piece of a text, and at its end."""
    filter.feed([Start(), PartStart("text")])
    shown = [filter.feed([Delta(p)]) for p in pieces]
    shown.append(filter.feed([PartStop()]))
    return ["".join(e.text for e in events if isinstance(e, Delta)) for events in shown]


# --- any reply, cut anywhere ---

WORDS = st.text(st.sampled_from(list("ab`{}\n j")), max_size=14)
PARTS = st.one_of(
    st.builds(Text, WORDS),
    st.builds(Thinking, WORDS, st.sampled_from(["", "sig"])),
    st.builds(ToolCall, st.just("c"), st.just("f"), WORDS),
)
FILTERS = st.tuples(
    st.sampled_from(["yes", "omit", "no", "inline"]),
    st.sampled_from([(), ("ab",), ("a", "b\n", "```")]),
    st.booleans(),
)
ENDS: st.SearchStrategy[Finish | Failed] = st.sampled_from(
    [Finish("stop", USAGE), Finish("length"), CUT]
)


@st.composite
def sequences(draw: st.DrawFn) -> list[Event]:
    out: list[Event] = [Start("id", "m")]
    for part in draw(st.lists(PARTS, max_size=5)):
        match part:
            case Text(text):
                out.append(PartStart("text"))
            case Thinking(text):
                out.append(PartStart("thinking"))
            case ToolCall():
                text = part.arguments
                out.append(PartStart("tool_call", "c", "f"))
        while text:
            n = draw(st.integers(1, len(text)))
            out.append(Delta(text[:n]))
            text = text[n:]
        out.append(PartStop(part.signature if isinstance(part, Thinking) else ""))
    end: Finish | Failed = draw(ENDS)
    if isinstance(end, Failed):
        out = out[: draw(st.integers(0, len(out)))]
    return [*out, end]


def whole(events: list[Event]) -> list[Event]:
    """The same reply with each part's text in one piece."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Delta) and isinstance(out[-1], Delta):
            out[-1] = Delta(out[-1].text + event.text)
        else:
            out.append(event)
    return out


@given(sequences(), FILTERS, st.integers(1, 7))
def test_a_reply_is_one_after_every_filter(
    events: list[Event], kinds: tuple[str, tuple[str, ...], bool], size: int
) -> None:
    batches = [events[i : i + size] for i in range(0, len(events), size)]
    out = run(build(*kinds), batches)
    assert isinstance(out[-1], Finish | Failed)


@given(sequences(), FILTERS)
def test_how_a_reply_was_cut_changes_nothing(
    events: list[Event], kinds: tuple[str, tuple[str, ...], bool]
) -> None:
    one_by_one = run(build(*kinds), [[e] for e in events])
    at_once = run(build(*kinds), [whole(events)])
    assert whole(one_by_one) == whole(at_once)


@given(sequences(), st.sampled_from(["omit", "no", "inline"]))
def test_text_and_calls_survive_every_way_of_showing(events: list[Event], show: str) -> None:
    def said(events: list[Event]) -> list[object]:
        kinds: list[object] = []
        open_ = ""
        for e in events:
            if isinstance(e, PartStart):
                open_ = e.kind
            elif (isinstance(e, Delta) and open_ == "tool_call") or (
                isinstance(e, Delta) and open_ == "text" and show != "inline"
            ):
                kinds.append(e)
        return kinds

    assert said(run(build(show, (), False), [events])) == said(events)


def joined(events: list[Event]) -> list[Event]:
    """The same events with the deltas of a part as one."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Delta) and out and isinstance(out[-1], Delta):
            out[-1] = Delta(out[-1].text + event.text)
        elif event != Delta(""):
            out.append(event)
    return out


class Seen:
    """A keeper that remembers what it saw, and signs what was thought."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def feed(self, events: list[Event]) -> list[Event]:
        self.events += events
        return [PartStop("mine") if e == PartStop("sig") else e for e in events]


@given(sequences(), st.integers(1, 7))
def test_keepers_see_all_of_a_reply_that_thinks_and_none_of_another(
    events: list[Event], size: int
) -> None:
    always, kept = Seen(), Seen()
    keepers = build("yes", (), False, lambda: (kept,))
    batches = [events[i : i + size] for i in range(0, len(events), size)]
    out = run(keepers, batches)
    if PartStart("thinking") in events:
        assert joined(kept.events) == joined(events)
        assert out == run([always], batches)
    else:
        assert kept.events == []
        assert out == events


def test_nothing_is_built_when_there_is_nothing_to_do() -> None:
    assert build("yes", (), False) == []


# --- thinking ---

THOUGHT, ANSWER, CALL = Thinking("hm", "sig"), Text("Hello"), ToolCall("c", "f", "{}")


def test_unwanted_thinking_is_gone() -> None:
    assert through([Show("no")], THOUGHT, ANSWER, CALL).parts == (ANSWER, CALL)


def test_omitted_thinking_keeps_its_signature_only() -> None:
    assert through([Show("omit")], THOUGHT, ANSWER).parts == (Thinking("", "sig"), ANSWER)


def test_omitted_thinking_without_a_signature_is_gone() -> None:
    assert through([Show("omit")], Thinking("hm"), ANSWER).parts == (ANSWER,)


def test_inline_thinking_is_one_text_with_the_answer() -> None:
    shown = through([Show("inline")], THOUGHT, ANSWER, CALL)
    assert shown.parts == (Text("<think>\nhm\n</think>\n\nHello"), CALL)


def test_inline_thinking_before_a_call_is_a_text_of_its_own() -> None:
    shown = through([Show("inline")], THOUGHT, CALL)
    assert shown.parts == (Text("<think>\nhm\n</think>\n\n"), CALL)


def test_inline_thinking_without_a_word_leaves_no_tags() -> None:
    assert through([Show("inline")], Thinking("", "sig"), ANSWER).parts == (ANSWER,)


def test_inline_thinking_is_shown_as_it_comes() -> None:
    show = Show("inline")
    show.feed([Start(), PartStart("thinking")])
    assert show.feed([Delta("hm")]) == [PartStart("text"), Delta("<think>\n"), Delta("hm")]


@pytest.mark.parametrize("show", ["omit", "no", "inline"])
def test_a_failure_inside_thinking_is_told(show: str) -> None:
    out = run([Show(show)], [[Start(), PartStart("thinking"), Delta("h")], [CUT]])
    assert out[-1] == CUT


# --- stops ---


def test_a_stop_sequence_ends_the_reply_with_its_name() -> None:
    stops = Stops(StopScanner(("END",)))
    assert not stops.done
    out = run(
        [stops], [[Start(), PartStart("text"), Delta("one E")], [Delta("ND two"), PartStop()]]
    )
    assert whole(out) == [
        Start(),
        PartStart("text"),
        Delta("one "),
        PartStop(),
        Finish("stop_sequence", None, "END"),
    ]
    assert stops.done
    assert stops.feed([PartStart("text"), Delta("x"), PartStop(), Finish("stop")]) == []


def test_a_stop_sequence_in_thinking_or_arguments_ends_nothing() -> None:
    parts = (Thinking("END"), ToolCall("c", "f", '{"a":"END"}'), Text("fine"))
    assert through(build("yes", ("END",), False), *parts) == reply(*parts)


def test_a_stop_sequence_is_not_found_across_parts() -> None:
    assert through(build("yes", ("END",), False), Text("E"), Text("ND")).parts == (
        Text("E"),
        Text("ND"),
    )


def test_text_held_back_for_a_stop_comes_when_the_reply_fails() -> None:
    out = run(build("yes", ("END",), False), [[Start(), PartStart("text"), Delta("EN"), CUT]])
    assert out == [Start(), PartStart("text"), Delta("EN"), CUT]


def test_the_tags_of_inline_thinking_are_not_searched_for_stops() -> None:
    shown = through(build("inline", ("think",), False), THOUGHT, ANSWER)
    assert shown.parts == (Text("<think>\nhm\n</think>\n\nHello"),)
    assert shown.finish.reason == "stop"


# --- fences ---


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('```json\n{"a":1}\n```', '{"a":1}'),
        ('\n\n```json\r\n{"a":1}\n\n```\n', '{"a":1}'),
        ('```\n{"a":1}```', '{"a":1}'),
        ('```json {"a":1} ```', '{"a":1}'),
        ('```{"a":1}```', '{"a":1}'),
        ('{"a":1}', '{"a":1}'),
        ('  {"a":1}\n', '  {"a":1}\n'),
        ('```json\n{"a":"```"}\n```', '{"a":"```"}'),
        ('```json\n{"a":"x\n', '{"a":"x\n'),  # cut short by the length: nothing is lost
        ("Here it is:\n```json\n{}\n```", "Here it is:\n```json\n{}\n```"),  # prose is not a fence
        ("", ""),
        ("``", "``"),
    ],
)
def test_a_fence_around_a_text_is_taken_off(written: str, shown: str) -> None:
    assert "".join(texts(Fences(), written)) == shown
    assert "".join(texts(Fences(), *written)) == shown


def test_json_without_a_fence_is_not_held_back() -> None:
    assert texts(Fences(), '{"a":', "1}") == ['{"a":', "1}", ""]


def test_json_inside_a_fence_streams() -> None:
    assert texts(Fences(), "```js", 'on\n{"a":', "1}", "\n`", "``") == [
        "",
        '{"a":',
        "1}",
        "",
        "",
        "",
    ]


def test_blank_lines_without_end_are_passed_on() -> None:
    shown = texts(Fences(), "```json\n{", "\n" * 1000)
    assert len("".join(shown[:-1])) > 700
    assert "".join(shown) == "{" + "\n" * 1000


def test_fences_in_arguments_stay() -> None:
    call = ToolCall("c", "f", "```json\n{}\n```")
    assert through([Fences()], call).parts == (call,)
