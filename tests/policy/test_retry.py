"""What follows a failed attempt, as a table."""

from typing import Any

import pytest

from headgate.errors import FINAL, OPERATORS, REPEATABLE, STATUS, Failure
from headgate.policy.retry import (
    MAX_ATTEMPTS,
    After,
    decide,
    demotes,
    final,
    paused,
    shown,
)

UPSTREAM = Failure("upstream", "m")
LIMITED = Failure("rate_limit", "m")
UNSENT = Failure("upstream", "m", should_retry=True, upstream_code="not_sent")
CONNECT = Failure("upstream", "m", should_retry=True, upstream_code="connect")
STALE = Failure("upstream", "m", should_retry=True, upstream_code="stale")
BROKEN = Failure("upstream", "m", should_retry=False, upstream_code="broken")


def after(failure: Failure, **fields: Any) -> After:
    return After(failure, **{"attempts": 1, "allowed": 2, **fields})


TABLE: list[tuple[After, str]] = [
    # a good route is asked, whatever the budget and the number of attempts say
    (after(UPSTREAM, others="good"), "other"),
    (after(UPSTREAM, others="good", attempts=2), "other"),
    (after(UPSTREAM, others="good", attempts=5, budget=False), "other"),
    (after(UPSTREAM, others="good", attempts=MAX_ATTEMPTS), "stop"),
    # attempts = 1: another route only where the upstream surely did no work
    (after(UPSTREAM, others="good", allowed=1), "stop"),
    (after(UNSENT, others="good", allowed=1), "other"),
    (after(LIMITED, others="good", allowed=1), "other"),
    (after(UNSENT, allowed=1), "stop"),
    # a doubtful one, and the same one again, within the budget and the number of attempts only
    (after(UPSTREAM, others="doubtful"), "other"),
    (after(UPSTREAM, others="doubtful", budget=False), "stop"),
    (after(UPSTREAM, others="doubtful", attempts=2), "stop"),
    (after(UPSTREAM), "same"),
    (after(Failure("overloaded", "m")), "same"),
    (after(UNSENT), "same"),
    (after(UPSTREAM, budget=False), "stop"),
    (after(UPSTREAM, attempts=2), "stop"),
    (after(UPSTREAM, closed=False), "stop"),
    # a connect time-out has taken long enough; a refusal stays one
    (after(CONNECT), "stop"),
    (after(CONNECT, others="good"), "other"),
    (after(LIMITED), "stop"),
    (after(Failure("upstream_auth", "m")), "stop"),
    (after(Failure("upstream_auth", "m"), others="good", budget=False), "other"),
    (after(Failure("upstream_quota", "m"), others="good", attempts=7), "other"),
    # a stale connection is replaced once, and counts
    (after(STALE), "fresh"),
    (after(STALE, allowed=1, budget=False), "fresh"),
    (after(STALE, fresh=True, allowed=1), "stop"),
    (after(STALE, attempts=MAX_ATTEMPTS), "stop"),
    # the upstream may have worked
    (after(BROKEN, others="good"), "stop"),
]


@pytest.mark.parametrize(("situation", "decision"), TABLE)
def test_what_follows_a_failed_attempt(situation: After, decision: str) -> None:
    assert decide(situation) == decision


@pytest.mark.parametrize("kind", sorted(FINAL))
def test_what_would_fail_everywhere_is_tried_nowhere_else(kind: Any) -> None:
    assert decide(after(Failure(kind, "m"), others="good")) == "stop"


def test_only_what_overdraws_the_budget_by_a_fault_demotes() -> None:
    assert demotes(after(UPSTREAM, others="good", budget=False))
    assert not demotes(after(UPSTREAM, others="good"))
    assert not demotes(after(LIMITED, others="good", budget=False))


def test_the_client_is_shown_what_it_may_repeat_rather_than_what_it_may_not() -> None:
    auth = Failure("upstream_auth", "m")
    assert shown(None, auth) is auth
    assert shown(UPSTREAM, auth) is UPSTREAM
    assert shown(auth, UPSTREAM) is UPSTREAM
    assert shown(UPSTREAM, LIMITED) is LIMITED


@pytest.mark.parametrize("kind", STATUS)
def test_a_client_is_told_to_repeat_only_what_can_help(kind: Any) -> None:
    made = final(Failure(kind, "m"), 3.0)
    expected = False if kind in OPERATORS else True if kind in REPEATABLE else None
    assert made.should_retry is expected
    assert made.retry_after_s == (3.0 if kind in REPEATABLE else None)


def test_what_the_upstream_may_have_worked_on_is_not_to_be_repeated() -> None:
    assert final(BROKEN, 3.0) == BROKEN


def test_the_longer_wait_holds() -> None:
    assert final(Failure("rate_limit", "m", retry_after_s=9.0), 3.0).retry_after_s == 9.0
    assert final(Failure("rate_limit", "m", retry_after_s=1.0), 3.0).retry_after_s == 3.0
    assert final(Failure("rate_limit", "m", retry_after_s=1.0), None).retry_after_s == 1.0


@pytest.mark.parametrize(
    ("kind", "status", "retry"),
    [
        ("upstream", 503, True),
        ("timeout", 503, True),
        ("overloaded", 503, True),
        ("rate_limit", 429, True),
        ("upstream_auth", 424, False),
        ("upstream_quota", 424, False),
        ("upstream_config", 424, False),
    ],
)
def test_while_nothing_may_be_asked_the_answer_says_why_and_until_when(
    kind: Any, status: int, retry: bool
) -> None:
    made = paused("MiniMax-M3", "up", kind, "1002", 4.0)
    assert (made.status, made.should_retry, made.upstream_code) == (status, retry, "1002")
    assert made.retry_after_s == (4.0 if retry else None)
    assert "MiniMax-M3" in made.message
