"""A key or a model that an upstream refused is left alone for as long as it says, within bounds."""

import math

import pytest

from headgate.errors import Failure
from headgate.policy.cooldown import (
    BY_KIND,
    DAY_S,
    HOUR_S,
    MAX_PAUSES,
    MIN_S,
    MINUTE_S,
    PROBE_S,
    Cooldowns,
    rule_of,
    seconds,
)

LIMITED = Failure("rate_limit", "m", retry_after_s=30.0)
AUTH = Failure("upstream_auth", "m", upstream_code="401")


@pytest.mark.parametrize(
    ("failure", "scope", "pause_s"),
    [
        (Failure("rate_limit", "m", retry_after_s=30.0), "model", 30.0),
        (Failure("rate_limit", "m", upstream_code="1002"), "model", 2.0),
        (Failure("rate_limit", "m", retry_after_s=0.0), "model", MIN_S),
        (Failure("rate_limit", "m", retry_after_s=1e9), "model", HOUR_S),
        (Failure("rate_limit", "m", retry_after_s=-5.0), "model", 2.0),
        (Failure("rate_limit", "m", retry_after_s=math.nan), "model", 2.0),
        (Failure("rate_limit", "m", retry_after_s=math.inf), "model", 2.0),
        (Failure("upstream_quota", "m", upstream_code="1008"), "account", 5 * MINUTE_S),
        (Failure("upstream_quota", "m", upstream_code="402"), "account", 5 * MINUTE_S),
        (Failure("upstream_quota", "m", upstream_code="2056"), "account", 10 * MINUTE_S),
        (
            Failure("upstream_quota", "m", upstream_code="2056", retry_after_s=18000.0),
            "account",
            18000.0,
        ),
        (
            Failure("upstream_quota", "m", upstream_code="2056", retry_after_s=1e9),
            "account",
            7 * DAY_S,
        ),
        (Failure("upstream_quota", "m", upstream_code="2061"), "model", 10 * MINUTE_S),
        (AUTH, "account", MINUTE_S),
        (
            Failure("upstream_auth", "m", code="upstream_forbidden", upstream_code="403"),
            "model",
            30.0,
        ),
        (Failure("upstream_config", "m", upstream_code="404"), "model", 30.0),
        (Failure("overloaded", "m", retry_after_s=9.0), "model", 9.0),
    ],
)
def test_what_is_paused_and_for_how_long(failure: Failure, scope: str, pause_s: float) -> None:
    rule = rule_of(failure)
    assert rule is not None
    assert (rule.scope, seconds(rule, failure.retry_after_s, 1)) == (scope, pause_s)


@pytest.mark.parametrize(
    "kind", ["overloaded", "upstream", "timeout", "invalid", "blocked", "no_credit"]
)
def test_other_failures_pause_nothing(kind: str) -> None:
    cooldowns = Cooldowns()
    assert not cooldowns.refused("a", "a\nm", Failure(kind, "m"), 0.0)  # type: ignore[arg-type]
    assert not cooldowns.pauses


def test_the_default_doubles_up_to_its_most() -> None:
    for rule in BY_KIND.values():
        waits = [seconds(rule, None, n) for n in range(1, 5000)]
        assert waits[1] == min(2 * waits[0], rule.most_s)
        assert max(waits) == rule.most_s


def test_a_burst_of_refusals_is_one() -> None:
    cooldowns = Cooldowns()
    said = [cooldowns.refused("a", "a\nm", AUTH, n * 0.01) for n in range(50)]
    assert said == [True] + [False] * 49
    pause = cooldowns.pauses["a"]
    assert (pause.times, pause.until_s) == (1, MINUTE_S)


def test_a_longer_time_of_the_upstreams_own_holds() -> None:
    cooldowns = Cooldowns()
    cooldowns.refused("a", "a\nm", LIMITED, 0.0)
    cooldowns.refused("a", "a\nm", Failure("rate_limit", "m", retry_after_s=50.0), 1.0)
    cooldowns.refused("a", "a\nm", Failure("rate_limit", "m", retry_after_s=5.0), 2.0)
    assert cooldowns.pauses["a\nm"].until_s == 51.0


def test_a_refused_probe_pauses_for_longer_and_an_answered_one_ends_the_pause() -> None:
    cooldowns = Cooldowns()
    cooldowns.refused("a", "a\nm", AUTH, 0.0)
    pause = cooldowns.pauses["a"]
    assert pause.state(MINUTE_S - 0.001) == "shut"
    assert pause.state(MINUTE_S) == "due"
    pause.begin_probe(MINUTE_S)
    assert pause.state(MINUTE_S) == "shut"
    assert not cooldowns.refused("a", "a\nm", AUTH, MINUTE_S + 1)
    pause = cooldowns.pauses["a"]
    assert pause.until_s == MINUTE_S + 1 + 2 * MINUTE_S
    cooldowns.answered("a", "a\nm")
    assert not cooldowns.pauses


def test_a_probe_that_hangs_or_was_left_lets_another_probe() -> None:
    cooldowns = Cooldowns()
    cooldowns.refused("a", "a\nm", AUTH, 0.0)
    pause = cooldowns.pauses["a"]
    pause.begin_probe(MINUTE_S)
    assert pause.wait_s(MINUTE_S) == PROBE_S
    assert pause.state(MINUTE_S + PROBE_S) == "due"
    pause.begin_probe(MINUTE_S)
    cooldowns.left("a", "a\nm")
    assert pause.state(MINUTE_S) == "due"


def test_a_lone_key_is_not_asked_before_the_time_that_its_upstream_said() -> None:
    cooldowns = Cooldowns()
    cooldowns.refused("a", "a\nm", LIMITED, 0.0)
    assert cooldowns.pauses["a\nm"].state(29.999) == "shut"
    assert cooldowns.pauses["a\nm"].wait_s(10.0) == 20.0


def test_a_lone_key_is_tried_after_a_second_where_the_upstream_said_no_time() -> None:
    cooldowns = Cooldowns()
    for n in range(6):
        if pause := cooldowns.pauses.get("a\nm"):
            pause.begin_probe(1.0 * n)
        cooldowns.refused("a", "a\nm", Failure("rate_limit", "m"), 1.0 * n)
        assert cooldowns.pauses["a\nm"].wait_s(1.0 * n) == 1.0
    assert cooldowns.pauses["a\nm"].until_s == 5.0 + MINUTE_S


@pytest.mark.parametrize(
    ("failure", "wait_s"),
    [
        (Failure("upstream_config", "m"), 30.0),
        (AUTH, MINUTE_S),
        (Failure("upstream_quota", "m", upstream_code="1008"), MINUTE_S),
        (Failure("upstream_quota", "m", upstream_code="2056"), 5 * MINUTE_S),
    ],
)
def test_what_only_the_operator_can_repair_is_tried_later(failure: Failure, wait_s: float) -> None:
    cooldowns = Cooldowns()
    cooldowns.refused("a", "a\nm", failure, 0.0)
    (pause,) = cooldowns.pauses.values()
    assert pause.wait_s(0.0) == wait_s


def test_what_is_remembered_is_bounded() -> None:
    cooldowns = Cooldowns()
    for n in range(MAX_PAUSES + 100):
        cooldowns.refused(str(n), "", AUTH, 0.0)
    assert len(cooldowns.pauses) == MAX_PAUSES
