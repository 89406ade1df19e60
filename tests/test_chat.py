"""The hub: the grammar of a reply, and that collect and replay undo each other."""

import pytest

from headgate.chat import (
    BrokenGrammar,
    Delta,
    Failed,
    Finish,
    Grammar,
    PartStart,
    PartStop,
    Reply,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    collect,
    replay,
)
from headgate.errors import STATUS, Failure

REPLY = Reply(
    (Thinking("hm", "sig"), Text("Hello"), ToolCall("call_1", "f", '{"a":1}')),
    Finish("tool_calls", Usage(input=3, output=5, reasoning=1)),
    "id",
    "m",
)
WRONG = {
    "a delta without a part": [Start(), Delta("x")],
    "a part inside a part": [Start(), PartStart("text"), PartStart("text")],
    "a part before the start": [PartStart("text")],
    "a stop without a part": [Start(), PartStop()],
    "a finish inside a part": [Start(), PartStart("text"), Finish("stop")],
    "two starts": [Start(), Start()],
    "anything after the finish": [Start(), Finish("stop"), PartStart("text")],
    "anything after a failure": [Failed(Failure("upstream", "x")), Start()],
}


@pytest.mark.parametrize("name", WRONG)
def test_the_grammar_refuses(name: str) -> None:
    grammar = Grammar()
    *fine, last = WRONG[name]
    for event in fine:
        grammar.check(event)
    with pytest.raises(BrokenGrammar):
        grammar.check(last)


def test_a_replayed_reply_is_collected_as_it_was() -> None:
    grammar = Grammar()
    for event in replay(REPLY):
        grammar.check(event)
    assert collect(replay(REPLY)) == REPLY


def test_a_failure_keeps_what_was_spent() -> None:
    failed = Failed(Failure("upstream", "cut"), Usage(input=1))
    assert collect([Start(), PartStart("text"), Delta("x"), failed]) == failed


def test_a_sequence_without_an_end_is_a_bug() -> None:
    with pytest.raises(BrokenGrammar):
        collect([Start()])


def test_a_warning_is_kept_once() -> None:
    assert Request("m", ()).warn("seed").warn("seed", "n").warnings == ("seed", "n")


def test_every_kind_has_a_status_of_an_error() -> None:
    assert all(400 <= status <= 599 for status in STATUS.values())
