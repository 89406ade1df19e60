"""A route whose upstream fails rests, is tried last, and comes back by one request."""

import msgspec
import pytest

from headgate.policy.breaker import (
    IN_A_ROW,
    MAX_REST_S,
    OF_AT_LEAST,
    REST_S,
    RETRY_MOST,
    WINDOW_S,
    Breaker,
    Retries,
)  # fmt: skip


class At(msgspec.Struct, frozen=True):
    place: str


A, B = At("a"), At("b")


def order(breaker: Breaker, now_s: float) -> list[At]:
    """In which order A and B are tried now; every trial is left."""
    plan, tried = [A, B], []
    while plan:
        route, trial = breaker.take(plan, now_s)
        tried.append(route)
        if trial:
            breaker.left(route.place)
    return tried


def broken(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        breaker.failed("a", "upstream", now_s)
    return breaker


def test_a_route_with_no_failure_keeps_its_place() -> None:
    assert order(Breaker(), 0.0) == [A, B]


def test_failures_in_a_row_send_a_route_to_the_end() -> None:
    breaker = Breaker()
    for n in range(IN_A_ROW):
        assert order(breaker, 0.0) == [A, B], n
        breaker.failed("a", "overloaded", 0.0)
    assert order(breaker, 0.0) == [B, A]
    assert breaker.standing("a", 10.0) == breaker.standing("a", 10.0)
    assert breaker.standing("a", 10.0).state == "resting"
    assert breaker.standing("a", 10.0).resting_s == REST_S - 10.0


def test_an_answer_in_between_ends_the_row() -> None:
    breaker = Breaker()
    for _ in range(IN_A_ROW - 1):
        breaker.failed("a", "upstream", 0.0)
    breaker.passed("a", 0.0)
    breaker.failed("a", "upstream", 0.0)
    assert order(breaker, 0.0) == [A, B]


def test_half_of_many_is_enough_though_never_in_a_row() -> None:
    breaker = Breaker()
    for n in range(OF_AT_LEAST):
        breaker.failed("a", "timeout", n * 0.1)
        breaker.passed("a", n * 0.1)
    breaker.failed("a", "timeout", OF_AT_LEAST * 0.1)
    assert order(breaker, OF_AT_LEAST * 0.1) == [B, A]


def test_the_same_share_over_a_longer_time_is_not() -> None:
    breaker = Breaker()
    for n in range(OF_AT_LEAST):
        breaker.failed("a", "timeout", n * WINDOW_S / 4)
        breaker.passed("a", n * WINDOW_S / 4)
    assert order(breaker, OF_AT_LEAST * WINDOW_S / 4) == [A, B]


@pytest.mark.parametrize(
    "kind", ["invalid", "context_length", "rate_limit", "not_found", "blocked"]
)
def test_what_a_request_brought_upon_itself_does_not_count(kind: str) -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.failed("a", kind, 0.0)  # type: ignore[arg-type]
    assert order(breaker, 0.0) == [A, B]


def test_after_the_rest_one_request_tries_and_the_others_do_not() -> None:
    breaker = broken()
    assert breaker.take([A, B], REST_S - 0.001) == (B, False)
    assert breaker.take([A, B], REST_S) == (A, True)
    assert breaker.take([A, B], REST_S) == (B, False)
    breaker.passed("a", REST_S)
    assert breaker.take([A, B], REST_S) == (A, False)


def test_a_trial_that_came_to_nothing_is_another_ones() -> None:
    breaker = broken()
    assert breaker.take([A, B], REST_S) == (A, True)
    breaker.left("a")
    assert breaker.take([A, B], REST_S) == (A, True)


def test_a_route_behind_one_that_answers_is_on_no_trial() -> None:
    """It is asked only when its turn comes; else it would be on trial for ever."""
    breaker = broken()
    for _ in range(3):
        assert breaker.take([B, A], REST_S) == (B, False)
    assert breaker.take([A, B], REST_S) == (A, True)


def test_of_two_that_rested_one_request_tries_one() -> None:
    breaker = broken()
    for _ in range(IN_A_ROW):
        breaker.failed("b", "upstream", 0.0)
    assert breaker.take([A, B], REST_S) == (A, True)
    assert breaker.take([A, B], REST_S) == (B, True)
    assert breaker.take([A, B], REST_S) == (A, False)


def test_each_rest_is_longer_up_to_the_longest() -> None:
    breaker, now_s = broken(), 0.0
    for n in range(2, 20):
        now_s += breaker.standing("a", now_s).resting_s
        assert breaker.standing("a", now_s).state == "half"
        assert breaker.take([A, B], now_s) == (A, True)
        breaker.failed("a", "upstream", now_s)
        assert breaker.standing("a", now_s).resting_s == min(REST_S * n, MAX_REST_S)


def test_the_last_route_is_tried_though_it_rests() -> None:
    assert broken().take([A], 0.0) == (A, False)


def test_retries_end_and_come_back_with_requests() -> None:
    retries = Retries()
    for _ in range(int(RETRY_MOST)):
        assert retries.spend("a")
    assert not retries.spend("a")
    assert retries.spend("b")
    for _ in range(5):
        retries.earned("a")
    assert retries.spend("a")
    assert not retries.spend("a")
