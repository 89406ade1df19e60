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


def broken(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        breaker.failed("a", "upstream", now_s)
    return breaker


def test_a_route_with_no_failure_keeps_its_place() -> None:
    assert Breaker().order([A, B], 0.0) == [A, B]


def test_failures_in_a_row_send_a_route_to_the_end() -> None:
    breaker = Breaker()
    for n in range(IN_A_ROW):
        assert breaker.order([A, B], 0.0) == [A, B], n
        breaker.failed("a", "overloaded", 0.0)
    assert breaker.order([A, B], 0.0) == [B, A]
    assert breaker.standing("a", 10.0) == breaker.standing("a", 10.0)
    assert breaker.standing("a", 10.0).state == "resting"
    assert breaker.standing("a", 10.0).resting_s == REST_S - 10.0


def test_an_answer_in_between_ends_the_row() -> None:
    breaker = Breaker()
    for _ in range(IN_A_ROW - 1):
        breaker.failed("a", "upstream", 0.0)
    breaker.passed("a", 0.0)
    breaker.failed("a", "upstream", 0.0)
    assert breaker.order([A, B], 0.0) == [A, B]


def test_half_of_many_is_enough_though_never_in_a_row() -> None:
    breaker = Breaker()
    for n in range(OF_AT_LEAST):
        breaker.failed("a", "timeout", n * 0.1)
        breaker.passed("a", n * 0.1)
    breaker.failed("a", "timeout", OF_AT_LEAST * 0.1)
    assert breaker.order([A, B], OF_AT_LEAST * 0.1) == [B, A]


def test_the_same_share_over_a_longer_time_is_not() -> None:
    breaker = Breaker()
    for n in range(OF_AT_LEAST):
        breaker.failed("a", "timeout", n * WINDOW_S / 4)
        breaker.passed("a", n * WINDOW_S / 4)
    assert breaker.order([A, B], OF_AT_LEAST * WINDOW_S / 4) == [A, B]


@pytest.mark.parametrize(
    "kind", ["invalid", "context_length", "rate_limit", "not_found", "blocked"]
)
def test_what_a_request_brought_upon_itself_does_not_count(kind: str) -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.failed("a", kind, 0.0)  # type: ignore[arg-type]
    assert breaker.order([A, B], 0.0) == [A, B]


def test_after_the_rest_one_request_tries_and_the_others_do_not() -> None:
    breaker = broken()
    assert breaker.order([A, B], REST_S - 0.001) == [B, A]
    assert breaker.order([A, B], REST_S) == [A, B]
    assert breaker.order([A, B], REST_S) == [B, A]
    breaker.passed("a", REST_S)
    assert breaker.order([A, B], REST_S) == [A, B]


def test_a_trial_whose_client_left_is_another_ones() -> None:
    breaker = broken()
    assert breaker.order([A, B], REST_S) == [A, B]
    breaker.left("a")
    assert breaker.order([A, B], REST_S) == [A, B]


def test_each_rest_is_longer_up_to_the_longest() -> None:
    breaker, now_s = broken(), 0.0
    for n in range(2, 20):
        now_s += breaker.standing("a", now_s).resting_s
        assert breaker.standing("a", now_s).state == "half"
        breaker.order([A, B], now_s)
        breaker.failed("a", "upstream", now_s)
        assert breaker.standing("a", now_s).resting_s == min(REST_S * n, MAX_REST_S)


def test_the_last_route_is_tried_though_it_rests() -> None:
    assert broken().order([A], 0.0) == [A]


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
