"""Reasoning comes back byte for byte: three turns of `make retention`, for each official SDK.

The bench itself (retention/run.py) plays ten turns and the frameworks too, and writes
docs/retention.md.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import Gateway

sys.path.append(str(Path(__file__).parent.parent / "evals" / "reasoning"))

from clients import CLIENTS
from playing import directly, played, serving
from scripted_replies import AGAIN, FORMS, Talk, Upstream, as_sent, script

TURNS = 3
# These return all of it themselves, as text with its signature or sealed.
STATELESS = (
    "Anthropic SDK, content blocks as they are",
    "Anthropic SDK, `display: omitted` (Claude Code)",
    "google-genai, chat object",
    "google-genai, contents, thoughts not asked for",
    "google-genai, thought parts dropped (Gemini CLI)",
    "Responses, output items as they are",
    "Responses, `encrypted_content` only (Codex)",
)
WHOLE = dict.fromkeys(FORMS, (TURNS, ""))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream().running() as running:
        yield running


@pytest.fixture(scope="module")
def remembering(upstream: Upstream) -> Iterator[Gateway]:
    with serving(upstream, memory=True) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def forgetful(upstream: Upstream) -> Iterator[Gateway]:
    with serving(upstream, memory=False) as gateway:
        yield gateway


@pytest.mark.parametrize("name", CLIENTS)
def test_no_client_loses_reasoning(name: str, upstream: Upstream, remembering: Gateway) -> None:
    assert played(upstream, remembering, directly(name), TURNS) == WHOLE


@pytest.mark.parametrize("name", STATELESS)
def test_what_is_sealed_comes_back_without_any_memory(
    name: str, upstream: Upstream, forgetful: Gateway
) -> None:
    assert played(upstream, forgetful, directly(name), TURNS) == WHOLE


def test_the_witness_sees_what_is_lost_changed_moved_or_unsigned() -> None:
    """Else a table of hundreds would say nothing."""
    for form in FORMS:
        turns = [as_sent(t, form) for t in script(TURNS)]
        right = [("user", "Go."), *(p for t in turns for p in t), ("user", AGAIN)]

        def kept(seen: list[tuple[object, ...]], form: str = form) -> list[bool]:
            talk = Talk(form, TURNS)
            talk.seen.append(seen)
            return talk.kept()

        assert kept(right) == [True] * TURNS
        assert kept([p for p in right if p != turns[0][0]]) == [False, True, True]
        spoilt = [("think", f"{p[1]} ") if p == turns[2][0] else p for p in right]
        assert kept(spoilt) == [True, True, False]
        moved = [right[0], right[2], right[1], *right[3:]]
        assert kept(moved)[0] is False
    assert Talk("details", TURNS).kept() == [False] * TURNS
