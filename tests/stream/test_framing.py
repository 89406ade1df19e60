"""Loose deltas to one open part at a time."""

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import Delta, Event, Failed, Finish, Grammar, Text, Thinking, ToolCall, collect
from headgate.errors import Failure
from headgate.stream.framing import MAX_CALLS, MAX_NAME, Framer


def done(framer: Framer, reason: str = "stop") -> list[Event]:
    framer.finish(reason)  # type: ignore[arg-type]
    events = framer.take()
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return events


def parts(framer: Framer) -> tuple[object, ...]:
    return collect(done(framer)).parts  # type: ignore[union-attr]


def test_text_between_the_pieces_of_a_call_does_not_split_the_call() -> None:
    """B03: other gateways make a second, nameless call of the rest."""
    f = Framer("s")
    f.call(0, "c1", "read", '{"path":')
    f.text("by the way")
    f.call(0, "", "", '"a"}')
    assert parts(f) == (ToolCall("c1", "read", '{"path":"a"}'), Text("by the way"))


def test_five_calls_by_turns_stay_five_calls() -> None:
    f = Framer("s")
    for i in range(5):
        f.call(i, f"c{i}", f"f{i}", "")
    for piece in ('{"n"', ":", "1}"):
        for i in range(5):
            f.call(i, "", "", piece)
    assert parts(f) == tuple(ToolCall(f"c{i}", f"f{i}", '{"n":1}') for i in range(5))


def test_two_calls_with_one_index_and_two_ids_are_two_calls() -> None:
    f = Framer("s")
    f.call(0, "a", "f", "{}")
    f.call(0, "b", "g", "{}")
    assert parts(f) == (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))


def test_empty_arguments_become_an_empty_object() -> None:
    f = Framer("s")
    f.call(0, "a", "f", "")
    assert parts(f) == (ToolCall("a", "f", "{}"),)


def test_a_missing_id_is_made_and_is_the_same_each_time() -> None:
    ids = set()
    for _ in range(2):
        f = Framer("seed")
        f.call(0, "", "f", "{}")
        ids.add(parts(f)[0].id)  # type: ignore[attr-defined]
    assert ids == {"call_seed_1"}


def test_a_late_name_is_waited_for() -> None:
    f = Framer("s")
    f.call(0, "a", "", '{"x":1}')
    assert f.take()[1:] == []
    f.call(0, "", "f", "")
    assert parts_after(f) == ToolCall("a", "f", '{"x":1}')


def parts_after(f: Framer) -> object:
    from headgate.chat import Start

    return collect([Start(), *f_events(f)]).parts[0]  # type: ignore[union-attr]


def f_events(f: Framer) -> list[Event]:
    f.finish("tool_calls")
    return f.take()


def test_stop_with_a_call_present_is_tool_calls() -> None:
    """B05: agents stop working on end_turn."""
    f = Framer("s")
    f.call(0, "a", "f", "{}")
    assert isinstance(end := done(f, "stop")[-1], Finish) and end.reason == "tool_calls"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_cut_reply_keeps_its_reason(reason: str) -> None:
    f = Framer("s")
    f.call(0, "a", "f", '{"x"')
    assert isinstance(end := done(f, reason)[-1], Finish) and end.reason == reason


def test_a_call_without_a_name_is_a_failure() -> None:
    f = Framer("s")
    f.call(0, "a", "", "{}")
    f.finish("tool_calls")
    assert isinstance(f.take()[-1], Failed)


def test_thinking_and_text_keep_their_order_and_signature() -> None:
    f = Framer("s")
    f.thinking("a")
    f.thinking("b")
    f.signature("sig")
    f.text("c")
    f.thinking("d")
    assert parts(f) == (Thinking("ab", "sig"), Text("c"), Thinking("d"))


def test_nothing_comes_after_the_end() -> None:
    f = Framer("s")
    f.finish("stop")
    f.finish("length")
    assert len(f.take()) == 2


def test_calls_with_neither_index_nor_id_are_told_apart_by_being_whole() -> None:
    f = Framer("s")
    f.call(None, "", "f", '{"a":')
    f.call(None, "", "f", "1}")  # the name again, as some repeat it
    f.call(None, "", "f", '{"a":2}')
    f.call(None, "", "g", "{}")
    assert parts(f) == (
        ToolCall("call_s_1", "f", '{"a":1}'),
        ToolCall("call_s_2", "f", '{"a":2}'),
        ToolCall("call_s_3", "g", "{}"),
    )


def test_a_call_that_is_asked_for_at_each_piece_gives_way_in_the_end() -> None:
    """Whether it is whole is looked at seldom: 2000 looks at a long call would cost a square."""
    f = Framer("s")
    f.call(0, "a", "f", '{"x":"' + "y" * 100_000)
    for _ in range(2000):
        f.call(1, "b", "g", " ")
    f.call(0, "", "", '"}')
    f.call(1, "", "", "{}")
    assert Delta("{}") in f.take()


def test_nothing_follows_an_end() -> None:
    """Found while fuzzing: a chunk with two choices, of which the first broke off."""
    ends: list[Callable[[Framer], None]] = [
        lambda f: f.fail(Failure("upstream", "x")),
        lambda f: f.finish("stop"),
    ]
    for end in ends:
        f = Framer("s")
        f.text("a")
        end(f)
        f.take()
        f.start("id")
        f.text("b")
        f.thinking("c")
        f.signature("d")
        f.call(0, "e", "f", "{}")
        f.close_part()
        f.finish("stop")
        assert f.take() == []


def test_calls_and_names_without_end_are_refused() -> None:
    many, long = Framer("s"), Framer("s")
    for i in range(MAX_CALLS + 1):
        many.call(i, f"c{i}", "f", "{}")
    for _ in range(MAX_NAME):
        long.call(0, "c", "ab", "")
        long.call(0, "c", "c", "")
    assert isinstance(many.take()[-1], Failed) and isinstance(long.take()[-1], Failed)


ARGUMENTS = '{"path":"a\\"b","lines":[1, 22, 333],"text":"{\\"x\\": \\"ü👋\\"}","n":{"a":{}}}'


def growing(whole: str, cuts: list[int]) -> list[str]:
    return [whole[:end] for end in (*sorted(cuts), len(whole))]


@given(st.lists(st.integers(0, len(ARGUMENTS)), max_size=12), st.booleans(), st.booleans())
def test_arguments_that_come_anew_with_each_piece_are_one_object(
    cuts: list[int], twice: bool, named: bool
) -> None:
    whole = json.dumps(ARGUMENTS) if twice else ARGUMENTS
    f = Framer("s")
    for n, piece in enumerate(growing(whole, cuts)):
        f.call(0, "c" if n == 0 else "", "read" if n == 0 or named else "", piece)
    assert parts(f) == (ToolCall("c", "read", ARGUMENTS),)


@given(st.lists(st.integers(0, len(ARGUMENTS)), max_size=12), st.booleans(), st.booleans())
def test_arguments_in_pieces_stay_what_they_are(
    cuts: list[int], twice: bool, repeated: bool
) -> None:
    whole = json.dumps(ARGUMENTS) if twice else ARGUMENTS
    ends = [0, *sorted(cuts), len(whole)]
    f = Framer("s")
    f.call(0, "c", "read", "")
    for start, end in itertools.pairwise(ends):
        f.call(0, "", "", whole[start:end])
    if repeated:
        f.call(0, "c", "read", whole)
    assert parts(f) == (ToolCall("c", "read", ARGUMENTS),)


def test_growing_arguments_are_passed_on_as_they_grow() -> None:
    f = Framer("s")
    f.call(0, "c", "read", '{"a"')
    f.take()
    f.call(0, "", "", '{"a": "b')
    assert f.take() == [Delta(': "b')]
    f.call(0, "", "", '{"a": "b"}')
    assert f.take() == [Delta('"}')]


@pytest.mark.parametrize(
    "pieces", [("get_", "get_weather"), ("get_", "weather"), ("get_weather",) * 3]
)
def test_a_name_may_come_in_pieces_or_growing_or_again(pieces: tuple[str, ...]) -> None:
    f = Framer("s")
    for name in pieces:
        f.call(0, "c", name, "")
    f.call(0, "", "", "{}")
    assert parts(f) == (ToolCall("c", "get_weather", "{}"),)


@pytest.mark.parametrize("empty", ["{}", "null", " {} "])
def test_an_empty_object_before_the_arguments_is_none_of_them(empty: str) -> None:
    f = Framer("s")
    f.call(0, "c", "read", empty)
    for piece in ('{"a"', ":1}"):
        f.call(0, "", "", piece)
    assert parts(f) == (ToolCall("c", "read", '{"a":1}'),)


def test_an_empty_object_alone_is_the_arguments_and_ends_a_call() -> None:
    f = Framer("s")
    f.call(None, "", "first", "{}")
    f.call(None, "", "second", "{}")
    f.call(None, "", "third", '{"a":1}')
    assert [(p.name, p.arguments) for p in parts(f) if isinstance(p, ToolCall)] == [
        ("first", "{}"),
        ("second", "{}"),
        ("third", '{"a":1}'),
    ]
