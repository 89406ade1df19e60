"""A route whose upstream fails is opened, is not asked, and is closed by one probe."""

import pytest

from headgate.policy.breaker import (
    EARLY_S,
    IN_A_ROW,
    MAX_OPEN_S,
    MAX_RECENT,
    MAX_ROUTES,
    OF_AT_LEAST,
    OPEN_S,
    RETRY_MOST,
    WINDOW_S,
    Breaker,
    Quality,
    Retries,
    first,
    quality,
)
from headgate.policy.cooldown import PROBE_S


def state(breaker: Breaker, now_s: float, place: str = "a") -> Quality:
    pause = breaker.pause(place)
    return quality([] if pause is None else [pause], breaker.demoted(place, now_s), now_s)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        breaker.failed("a", "upstream", now_s)
    return breaker


def probe(breaker: Breaker, now_s: float) -> None:
    pause = breaker.pause("a")
    assert pause is not None
    pause.begin_probe(now_s)


def test_a_route_with_no_failure_is_good() -> None:
    assert state(Breaker(), 0.0) == "good"


def test_failures_in_a_row_open_a_route_and_say_so_once() -> None:
    breaker = Breaker()
    said = []
    for n in range(IN_A_ROW + 2):
        assert state(breaker, 0.0) == ("good" if n < IN_A_ROW else "shut"), n
        said.append(breaker.failed("a", "overloaded", 0.0))
    assert said.count(True) == 1 and said[IN_A_ROW - 1]
    standing = breaker.standing("a", 10.0)
    assert (standing.state, standing.paused_s) == ("open", OPEN_S - 10.0)


def test_an_answer_in_between_ends_the_row() -> None:
    breaker = Breaker()
    for _ in range(IN_A_ROW - 1):
        breaker.failed("a", "upstream", 0.0)
    breaker.passed("a", 0.0)
    breaker.failed("a", "upstream", 0.0)
    assert state(breaker, 0.0) == "good"


def test_the_slow_ones_of_many_that_were_sent_together_are_no_row() -> None:
    """A hundred requests begin together; some are answered, then twenty time out."""
    breaker = Breaker()
    for _ in range(30):
        breaker.passed("a", 0.5)
    for _ in range(19):
        breaker.failed("a", "timeout", 1.0, began_s=0.0)
    assert state(breaker, 1.0) == "good"
    for _ in range(IN_A_ROW):
        breaker.failed("a", "timeout", 1.2, began_s=0.6)
    assert breaker.standing("a", 1.2).state == "open"


def test_half_of_many_is_enough_though_never_in_a_row() -> None:
    breaker = Breaker()
    for n in range(OF_AT_LEAST):
        breaker.failed("a", "timeout", n * 0.1)
        breaker.passed("a", n * 0.1)
    breaker.failed("a", "timeout", OF_AT_LEAST * 0.1)
    assert breaker.standing("a", OF_AT_LEAST * 0.1).state == "open"


def test_the_same_share_over_a_longer_time_is_not() -> None:
    breaker = Breaker()
    for n in range(OF_AT_LEAST):
        breaker.failed("a", "timeout", n * WINDOW_S / 4)
        breaker.passed("a", n * WINDOW_S / 4)
    assert state(breaker, OF_AT_LEAST * WINDOW_S / 4) == "good"


@pytest.mark.parametrize(
    "kind",
    [
        "invalid",
        "context_length",
        "rate_limit",
        "not_found",
        "blocked",
        "upstream_auth",
        "upstream_quota",
        "upstream_config",
    ],
)
def test_what_a_request_or_a_key_brought_upon_itself_does_not_count(kind: str) -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.failed("a", kind, 0.0)  # type: ignore[arg-type]
    assert state(breaker, 0.0) == "good"


def test_after_the_pause_one_request_probes_and_the_others_do_not() -> None:
    breaker = opened()
    assert state(breaker, OPEN_S - 0.001) == "early"
    assert state(breaker, OPEN_S) == "due"
    probe(breaker, OPEN_S)
    assert state(breaker, OPEN_S) == "shut"
    breaker.passed("a", OPEN_S, probe=True)
    assert state(breaker, OPEN_S) == "good"


def test_a_probe_that_came_to_nothing_is_another_ones() -> None:
    breaker = opened()
    probe(breaker, OPEN_S)
    breaker.left("a")
    assert state(breaker, OPEN_S) == "due"


def test_a_probe_that_hangs_keeps_no_other_from_probing_for_long() -> None:
    breaker = opened()
    probe(breaker, OPEN_S)
    assert state(breaker, OPEN_S + PROBE_S - 0.001) == "shut"
    assert state(breaker, OPEN_S + PROBE_S) == "due"


def test_an_answer_to_a_request_from_before_closes_nothing() -> None:
    breaker = opened()
    breaker.passed("a", 1.0)
    breaker.passed("a", OPEN_S + 1)
    assert breaker.standing("a", OPEN_S + 1).state == "half_open"


def test_failures_of_requests_from_before_do_not_lengthen_the_pause() -> None:
    breaker = opened()
    for _ in range(50):
        breaker.failed("a", "upstream", 1.0)
    assert breaker.standing("a", 1.0).paused_s == OPEN_S - 1.0


def test_a_lone_route_is_probed_after_one_second_and_then_at_most_every_five() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(6):
        pause = breaker.pause("a")
        assert pause is not None
        waits.append(pause.wait_s(now_s))
        assert state(breaker, now_s + waits[-1] - 0.001) == "shut"
        now_s += waits[-1]
        assert state(breaker, now_s) == "early"
        probe(breaker, now_s)
        breaker.failed("a", "upstream", now_s, probe=True)
    assert waits == [1.0, 2.0, 4.0, EARLY_S, EARLY_S, EARLY_S]


def test_each_pause_is_longer_up_to_the_longest() -> None:
    breaker, now_s = opened(), 0.0
    for n in range(2, 20):
        now_s += breaker.standing("a", now_s).paused_s
        assert breaker.standing("a", now_s).state == "half_open"
        probe(breaker, now_s)
        breaker.failed("a", "upstream", now_s, probe=True)
        assert breaker.standing("a", now_s).paused_s == min(OPEN_S * n, MAX_OPEN_S)


def test_a_demoted_route_is_so_for_a_while_and_longer_each_time() -> None:
    breaker = Breaker()
    breaker.demote("a", 0.0)
    breaker.demote("a", 1.0)
    assert state(breaker, OPEN_S - 0.001) == "demoted"
    assert state(breaker, OPEN_S) == "good"
    breaker.demote("a", OPEN_S)
    assert state(breaker, 3 * OPEN_S - 0.001) == "demoted"
    assert state(breaker, 3 * OPEN_S) == "good"


def test_what_is_remembered_is_bounded() -> None:
    breaker = Breaker()
    for n in range(MAX_ROUTES + 100):
        breaker.failed(str(n), "upstream", 0.0)
    assert len(breaker.lines) == MAX_ROUTES
    for _ in range(2 * MAX_RECENT):
        breaker.passed(str(MAX_ROUTES), 0.0)
        breaker.failed(str(MAX_ROUTES), "upstream", 0.0)
    assert len(breaker.lines[str(MAX_ROUTES)].recent) <= MAX_RECENT
    breaker.passed("50000", 0.0)
    assert "50000" not in breaker.lines


def test_a_route_that_is_well_again_is_forgotten() -> None:
    breaker = Breaker()
    breaker.failed("a", "upstream", 0.0)
    breaker.passed("a", WINDOW_S + 1)
    assert not breaker.lines


@pytest.mark.parametrize(
    ("qualities", "may_probe", "taken"),
    [
        (["good", "good"], True, 0),
        (["shut", "good"], True, 1),
        (["early", "good"], True, 1),
        (["demoted", "good"], True, 1),
        (["due", "good"], True, 0),
        (["due", "good"], False, 1),
        (["good", "due"], True, 0),
        (["due", "demoted"], False, 1),
        (["shut", "demoted", "early"], False, 1),
        (["shut", "due", "early"], False, 1),
        (["early", "due"], False, 1),
        (["shut", "early"], False, 1),
        (["shut", "shut"], True, None),
        ([], True, None),
    ],
)
def test_the_best_route_is_asked_first(
    qualities: list[Quality], may_probe: bool, taken: int | None
) -> None:
    assert first(qualities, may_probe) == taken


def test_retries_end_and_come_back_with_requests() -> None:
    retries = Retries()
    for _ in range(int(RETRY_MOST)):
        assert retries.left("a")
        retries.spend("a")
    assert not retries.left("a")
    assert not retries.left("b")  # the gateway's own budget is used up as well
    for _ in range(5):
        retries.earned("a")
    assert retries.left("a")
    retries.spend("a")
    assert not retries.left("a")


def test_the_gateways_budget_can_be_overdrawn_by_so_much() -> None:
    retries = Retries()
    for _ in range(1000):
        retries.spend()
    for _ in range(5 * int(RETRY_MOST)):
        assert not retries.left()
        retries.earned("a")
    for _ in range(6):
        retries.earned("a")
    assert retries.left()
