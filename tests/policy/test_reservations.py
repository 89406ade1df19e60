"""What a request reserves: never less than it may cost, and as much output as its budget pays for."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.catalog.models import Price, models
from headgate.policy import reservations
from headgate.policy.budgets import Budgets
from headgate.policy.owner_budget import Reservation, Room
from headgate.policy.periods import Budget
from headgate.policy.pricing import UNBOUNDED, Tariff
from headgate.policy.reservations import USEFUL_OUTPUT, USUAL_OUTPUT, Outputs, grant

ON = date(2026, 11, 30)
M2 = Tariff(models()["MiniMax-M2"].prices, "", ON)
M3 = Tariff(models()["MiniMax-M3"].prices, "", ON)
DOLLAR = 10**9


def room(left: int, unspent: int | None = None) -> Room:
    return Room(left, left if unspent is None else unspent)


# --- how much output a sum of money pays for ---------------------------------------------------------


@given(
    st.sampled_from(["MiniMax-M2", "MiniMax-M3", "MiniMax-M2.7-highspeed"]),
    st.sampled_from(["", "priority"]),
    st.integers(0, 1_200_000),
    st.integers(0, 3 * DOLLAR),
)
def test_the_output_that_is_granted_costs_at_most_the_money_and_one_token_more_costs_more(
    model: str, tier: str, input: int, nano: int
) -> None:
    tariff = Tariff(models()[model].prices, tier, ON)
    tokens = tariff.output_for(input, nano)
    assert tokens is not None
    if tokens < 0:
        assert (tariff.worst_case(input, 0).nano or 0) > nano
        return
    assert (tariff.worst_case(input, tokens).nano or 0) <= nano
    assert (tariff.worst_case(input, tokens + 1).nano or 0) > nano


def test_output_that_is_free_is_unbounded_and_an_unknown_price_pays_for_nothing_known() -> None:
    free = Tariff([Price(date(2026, 1, 1), "1", "0")], "", ON)
    assert free.output_for(10, 10**6) == UNBOUNDED
    assert free.output_for(10, 100) == -1
    assert Tariff([], "", ON).output_for(1, 1) is None


# --- grants ------------------------------------------------------------------------------------------


def test_without_a_budget_all_that_is_possible_is_held_and_nothing_is_lowered() -> None:
    found = grant(M2, 100, None, 131_072, USUAL_OUTPUT, Room())
    assert (found.max_tokens, found.nano) == (None, M2.worst_case(100, 131_072).nano)
    assert grant(Tariff([], "", ON), 1, 5, 9, USUAL_OUTPUT, room(1)).nano is None


def test_a_key_with_half_a_dollar_calls_the_largest_model_without_max_tokens() -> None:
    found = grant(M3, 2000, None, 524_288, USUAL_OUTPUT, room(DOLLAR // 2))
    assert found.max_tokens is not None and found.max_tokens > USUAL_OUTPUT
    assert found.nano is not None and found.nano <= DOLLAR // 2


@pytest.mark.parametrize("model", ["MiniMax-M2", "MiniMax-M3"])
def test_twenty_in_parallel_on_two_dollars_are_all_served(model: str) -> None:
    tariff, most = Tariff(models()[model].prices, "", ON), models()[model].max_output
    budgets = Budgets({("key", "k"): Budget(2 * DOLLAR)}, {}, 0.0)
    for _ in range(20):
        found = grant(tariff, 30_000, None, most, USUAL_OUTPUT, budgets.room("k", 0.0))
        assert found.max_tokens is None or found.max_tokens > 4 * USUAL_OUTPUT
        assert isinstance(budgets.reserve("k", found.nano, 0.0), Reservation)


def test_one_that_says_nothing_gets_what_is_usual_even_where_its_share_is_less() -> None:
    left = M2.worst_case(100, 20_000).nano
    assert left is not None
    assert grant(M2, 100, None, 131_072, 9000, room(left)).max_tokens == 9000
    assert grant(M2, 100, None, 131_072, 50_000, room(left)).max_tokens == 20_000


def test_what_is_asked_is_reserved_in_full_and_lowered_only_where_the_money_is_spent() -> None:
    full, less = M2.worst_case(100, 8000).nano, M2.worst_case(100, 3000).nano
    assert full is not None and less is not None
    assert grant(M2, 100, 8000, 131_072, 1, room(full)) == reservations.Grant(full)
    assert grant(M2, 100, 8000, 131_072, 1, room(less)) == reservations.Grant(less, 3000)
    # Others have reserved what is missing: it is asked for, and refused for a moment.
    assert grant(M2, 100, 8000, 131_072, 1, room(less, full)) == reservations.Grant(full)


@pytest.mark.parametrize(("asked", "least"), [(8000, USEFUL_OUTPUT), (100, 100), (None, 256)])
def test_where_nothing_useful_can_be_paid_the_least_that_can_be_served_is_asked_for(
    asked: int | None, least: int
) -> None:
    needed = M2.worst_case(100, least).nano
    assert needed is not None
    found = grant(M2, 100, asked, 131_072, USUAL_OUTPUT, room(needed - 1))
    assert found.nano == needed
    served = grant(M2, 100, asked, 131_072, USUAL_OUTPUT, room(needed))
    assert served.nano == needed and served.max_tokens == (None if asked == least else least)


@given(
    st.sampled_from([M2, M3]),
    st.integers(0, 1_000_000),
    st.one_of(st.none(), st.integers(1, 600_000)),
    st.integers(1, 200_000),
    st.integers(0, 3 * DOLLAR),
    st.integers(0, DOLLAR),
)
def test_a_grant_covers_all_that_it_allows(
    tariff: Tariff, input: int, asked: int | None, usual: int, left: int, held: int
) -> None:
    """Whatever an upstream reports within the bounds costs at most what was reserved."""
    most = 524_288
    found = grant(tariff, input, asked, most, usual, room(left, left + held))
    allowed = found.max_tokens
    if allowed is None:
        allowed = most if asked is None else min(asked, most)
    else:
        assert allowed < (most if asked is None else asked)
    assert found.nano == tariff.worst_case(input, allowed).nano
    assert allowed >= min(USEFUL_OUTPUT, asked or USEFUL_OUTPUT)


# --- what replies usually are ------------------------------------------------------------------------


def test_the_usual_output_follows_the_longest_of_recent_replies_and_forgets_them() -> None:
    outputs = Outputs()
    assert outputs.usual("k", "m") == USUAL_OUTPUT
    for output in (50, 6000, 20):
        outputs.learn("k", "m", output)
    assert 2 * 5800 < outputs.usual("k", "m") <= 2 * 6000
    assert outputs.usual("k", "other") == outputs.usual("other", "m") == USUAL_OUTPUT
    for _ in range(200):
        outputs.learn("k", "m", 20)
    assert outputs.usual("k", "m") == USUAL_OUTPUT


def test_what_is_remembered_of_replies_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "MAX_KNOWN", 3)
    outputs = Outputs()
    for n in range(10):
        outputs.learn(f"k{n}", "m", 9000)
        outputs.learn("busy", "m", 9000)
    assert outputs.usual("k0", "m") == USUAL_OUTPUT
    assert outputs.usual("busy", "m") == outputs.usual("k9", "m") == 18_000
