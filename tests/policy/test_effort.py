"""Effort from each client's knob to each upstream's, nothing of it lost without a warning."""

from typing import Any

import pytest

import efforts
from headgate.chat import Reasoning
from headgate.dialects.capabilities import EFFORTS, Capabilities
from headgate.policy.effort import fit_effort, nearest, of_budget

UPSTREAMS = efforts.upstreams()
CASES = [
    (client, name, knob, column)
    for client, knobs in efforts.knobs().items()
    for name, knob in knobs.items()
    for column in UPSTREAMS
]


def wish(knob: dict[str, Any]) -> object:
    """The degree that a client's knob names, in our words or in tokens; None: only on or off."""
    for name, value in knob.items():
        if isinstance(value, dict):
            if (inner := wish(value)) is not None:
                return inner
        elif name in ("reasoning_effort", "effort", "thinkingLevel"):
            return str(value).lower()
        elif name in ("budget_tokens", "thinkingBudget"):
            return value
    return None


def degree(sent: dict[str, Any]) -> object:
    return wish(sent)


@pytest.mark.parametrize(("client", "name", "knob", "column"), CASES)
def test_a_degree_arrives_as_it_was_or_its_caller_is_warned(
    client: str, name: str, knob: dict[str, Any], column: str
) -> None:
    sent, warnings = efforts.sent(client, knob, UPSTREAMS[column])
    asked, got = wish(knob), degree(sent)
    off = asked in ("none", 0) or knob.get("thinking") == {"type": "disabled"}
    if off and (sent.get("thinking") == {"type": "disabled"} or got in ("none", 0)):
        return  # switched off, as it was asked to be
    if asked is None and not off:
        return
    same = asked is not None and got == asked
    # A number of tokens for a word is this wire's only knob, and stands for exactly this word.
    stands = isinstance(got, int) and isinstance(asked, str) and of_budget(got) == asked
    assert same or stands or warnings, (sent, warnings)
    assert not (same and warnings), (sent, warnings)


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
@pytest.mark.parametrize(
    "column", ["M3.1-Flash, chat", "M3.1-Flash, Messages", "M3.1-Flash, Responses"]
)
def test_flash_gets_its_effort_on_each_of_its_paths(column: str, effort: str) -> None:
    words = {
        "M3.1-Flash, chat": {"reasoning_effort": effort},
        "M3.1-Flash, Messages": {"output_config": {"effort": effort}},
        "M3.1-Flash, Responses": {"reasoning": {"effort": effort}},
    }
    for client, knob in (
        ("openai", {"reasoning_effort": effort}),
        ("responses", {"reasoning": {"effort": effort}}),
        ("anthropic", {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}),
    ):
        assert efforts.sent(client, knob, UPSTREAMS[column]) == (words[column], ())


def test_flash_is_never_sent_what_it_answers_with_400() -> None:
    """`thinking: disabled` on chat and the efforts none and minimal are 2013 there."""
    for client, _, knob, column in CASES:
        if column == "M3.1-Flash, chat":
            sent, _ = efforts.sent(client, knob, UPSTREAMS[column])
            assert "thinking" not in sent
            assert sent.get("reasoning_effort", "low") in EFFORTS[1:]


def test_a_model_that_thinks_anyway_thinks_at_its_least_when_told_not_to() -> None:
    flash = UPSTREAMS["M3.1-Flash, chat"]
    for client, knob in (
        ("openai", {"thinking": {"type": "disabled"}}),
        ("openai", {"reasoning_effort": "none"}),
        ("anthropic", {}),
        ("gemini", {"thinkingBudget": 0}),
    ):
        sent, warnings = efforts.sent(client, knob, flash)
        assert sent == {"reasoning_effort": "low"}
        assert warnings == ("thinking (cannot be switched off; effort low)",)


def test_the_operators_effort_is_for_requests_that_name_none() -> None:
    flash, m3 = UPSTREAMS["M3.1-Flash, chat"], UPSTREAMS["M3, chat"]
    assert efforts.sent("openai", {}, flash) == ({}, ())
    assert efforts.sent("openai", {}, flash, "medium") == ({"reasoning_effort": "medium"}, ())
    assert efforts.sent("openai", {}, flash, "minimal") == ({"reasoning_effort": "low"}, ())
    asked = efforts.sent("openai", {"reasoning_effort": "high"}, flash, "low")
    assert asked == ({"reasoning_effort": "high"}, ())
    assert efforts.sent("openai", {}, m3, "medium") == ({}, ())
    # Claude Code's small requests ask for no thinking: the operator's effort is meant for them, too.
    assert efforts.sent("anthropic", {}, flash, "medium")[0] == {"reasoning_effort": "medium"}


def test_m3_thinks_over_responses_only_when_asked_to() -> None:
    m3 = UPSTREAMS["M3, chat"]
    assert efforts.sent("responses", {}, m3) == ({"thinking": {"type": "disabled"}}, ())
    asked = efforts.sent("responses", {"reasoning": {"effort": "high"}}, m3)
    assert asked == ({"thinking": {"type": "adaptive"}}, ("reasoning.effort",))
    assert efforts.sent("openai", {}, m3) == ({}, ())
    assert efforts.sent("responses", {}, UPSTREAMS["M2.7, chat"]) == ({}, ())


def test_a_budget_that_max_tokens_cuts_is_named() -> None:
    can, notes = Capabilities(thinking_switch="budget"), list[str]()
    asked = Reasoning("on", budget_tokens=9000)
    out = fit_effort(asked, can, notes, client="anthropic", wire="anthropic", max_tokens=4000)
    assert out.budget_tokens == 3999
    assert notes == ["thinking.budget_tokens (lowered to 3999 tokens)"]
    notes.clear()
    out = fit_effort(asked, can, notes, client="anthropic", wire="anthropic", max_tokens=1000)
    assert out.mode == "off" and notes == ["thinking (max_tokens leaves no room)"]
    notes.clear()
    small = Reasoning("on", budget_tokens=10)
    out = fit_effort(small, can, notes, client="anthropic", wire="anthropic", max_tokens=None)
    assert out.budget_tokens == 1024 and notes == ["thinking.budget_tokens (raised to 1024 tokens)"]


def test_the_nearest_word_is_taken_and_the_lower_of_two() -> None:
    assert nearest("minimal", ("low", "high")) == "low"
    assert nearest("max", ("low", "medium")) == "medium"
    assert nearest("high", ("medium", "xhigh")) == "medium"
    assert [of_budget(n) for n in (1, 1025, 10_000, 20_000, 28_672, 31_999)] == list(EFFORTS)
