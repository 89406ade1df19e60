"""Budgets: exactly what fits is admitted, and nothing is lost or spent twice."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.policy.budget_refusal import BudgetRefusal
from headgate.policy.budgets import Budgets
from headgate.policy.keys import Key
from headgate.policy.owner_budget import PAST_PERIODS, Owner, Reservation, Settled
from headgate.policy.periods import (
    Budget,
    begins_s,
    ends_s,
    nano_of,
    period_of,
    written_on,
    zone_of,
)

KEY: Owner = ("key", "k")
ACCOUNT: Owner = ("account", "")
DOLLAR = 10**9


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone_of(zone), fold=fold).timestamp()


def of(nano: int, period: Any = "total", zone: str = "UTC", now_s: float = 0.0) -> Budgets:
    return Budgets({KEY: Budget(nano, period, zone)}, {}, now_s)


def held(budgets: Budgets, nano: int | None, now_s: float = 0.0) -> Reservation:
    found = budgets.reserve("k", nano, now_s)
    assert isinstance(found, Reservation), found
    return found


def refused(budgets: Budgets, nano: int, now_s: float = 0.0) -> BudgetRefusal:
    found = budgets.reserve("k", nano, now_s)
    assert isinstance(found, BudgetRefusal), found
    return found


def spend(budgets: Budgets, nano: int, now_s: float = 0.0) -> None:
    budgets.settle(held(budgets, nano, now_s), nano)


def spent(budgets: Budgets, now_s: float = 0.0, owner: Owner = KEY) -> int:
    return budgets.standing(owner, now_s).spent_nano


# --- reserve, settle, release --------------------------------------------------------------------


def test_of_500_requests_at_once_on_a_budget_for_37_exactly_37_are_admitted() -> None:
    budgets = of(37 * 1_000_003 + 1_000_002)
    holds = [budgets.reserve("k", 1_000_003, 0.0) for _ in range(500)]
    admitted = [h for h in holds if isinstance(h, Reservation)]
    assert len(admitted) == 37
    for hold in admitted:
        budgets.settle(hold, 1_000_003)
    assert spent(budgets) == 37 * 1_000_003
    assert refused(budgets, 1_000_003).left_nano == 1_000_002


def test_holds_that_come_back_let_others_in_until_the_money_is_spent() -> None:
    budgets = of(37)
    waiting, done = 500, 0
    while True:
        running = []
        while waiting and isinstance(hold := budgets.reserve("k", 2, 0.0), Reservation):
            running.append(hold)
            waiting -= 1
        if not running:
            break
        for hold in running:
            budgets.settle(hold, 1)
            done += 1
    assert done == 36 and spent(budgets) == 36  # each had to hold 2


def test_after_10_000_mixed_outcomes_nothing_is_held_and_all_that_was_spent_is_known() -> None:
    chance = random.Random(4)
    budgets = Budgets({KEY: Budget(5000, "day"), ACCOUNT: Budget(40_000, "month")}, {}, 0.0)
    now, cost, running, refusals = 0.0, 0, [], 0
    for _ in range(10_000):
        now += chance.choice([0, 1, 60, 3600])
        hold = budgets.reserve("k", chance.choice([None, 0, 10, 300]), now)
        if isinstance(hold, BudgetRefusal):
            refusals += 1
        else:
            running.append(hold)
        while len(running) > 20 or (running and chance.random() < 0.5):
            hold = running.pop(chance.randrange(len(running)))
            match chance.randrange(4):
                case 0:
                    budgets.settle(hold, 0)
                case 1:
                    cost += budgets.settle(hold, hold.nano // 2).nano
                case 2:
                    cost += budgets.settle(hold, hold.nano + 1).nano
                case _:
                    budgets.settle(hold, None)
            budgets.settle(hold, 10**6)
            budgets.settle(hold, 0)
    for hold in running:
        budgets.settle(hold, 0)
    assert refusals > 100 and cost > 100_000
    assert budgets.held_nano == budgets.open == 0
    assert budgets.standing(KEY, now).held_nano == budgets.standing(ACCOUNT, now).held_nano == 0


def test_a_cost_above_the_hold_is_charged_in_full_and_reported() -> None:
    budgets = of(100)
    assert budgets.settle(held(budgets, 90), 130) == Settled(130, overrun_nano=40)
    assert (spent(budgets), budgets.overrun_nano) == (130, 40)
    answer = refused(budgets, 1)
    assert (answer.left_nano, answer.too_large) == (0, False)
    budgets.settle(held(budgets, 0), 0)  # what costs nothing still passes


def test_an_unknown_price_is_admitted_costs_nothing_here_and_is_reported() -> None:
    budgets = of(100)
    spend(budgets, 100)
    assert budgets.settle(held(budgets, None), None) == Settled(0, unpriced=True)
    assert (spent(budgets), budgets.unpriced) == (100, 1)


def test_a_second_settlement_changes_nothing_and_says_what_the_first_one_said() -> None:
    budgets = of(100)
    hold = held(budgets, 50)
    first = budgets.settle(hold, 60)
    assert budgets.settle(hold, 5) is first
    budgets.settle(hold, 0)
    assert (spent(budgets), budgets.held_nano, budgets.overrun_nano) == (60, 0, 10)
    hold = held(budgets, 40)
    budgets.settle(hold, 0)
    assert budgets.settle(hold, 40) == Settled(0)
    assert spent(budgets) == 60


def test_what_the_account_cannot_pay_is_not_held_from_the_key_either() -> None:
    budgets = Budgets({KEY: Budget(100), ("account", "a"): Budget(50)}, {}, 0.0)
    answer = budgets.reserve("k", 60, 0.0, "a")
    assert isinstance(answer, BudgetRefusal) and answer.what == "account" and answer.too_large
    assert budgets.standing(KEY, 0.0).held_nano == 0
    assert isinstance(
        budgets.reserve("k", 60, 0.0, "b"), Reservation
    )  # an account without a budget
    answer = budgets.reserve("k", 45, 0.0, "a")
    assert isinstance(answer, BudgetRefusal) and answer.what == "key"
    assert isinstance(budgets.reserve("other", 50, 0.0, "a"), Reservation)
    assert isinstance(budgets.reserve("another", 1, 0.0, "a"), BudgetRefusal)


# --- what the client is told ----------------------------------------------------------------------


def test_a_request_larger_than_the_whole_budget_is_told_so() -> None:
    failure = refused(of(DOLLAR), DOLLAR + 1).failure()
    assert (failure.kind, failure.code) == ("no_credit", "insufficient_quota")
    assert failure.should_retry is False
    assert failure.message == (
        "This request may cost up to 1.000000001 USD, which is more than the budget of this key,"
        " 1.00 USD. Send less, or allow less output."
    )


def test_a_refusal_says_what_is_left_what_is_held_and_when_it_resets() -> None:
    now = at("2028-02-29T10:00", "America/New_York")
    budgets = of(10 * DOLLAR, "month", "America/New_York", now)
    spend(budgets, 7 * DOLLAR, now)
    answer = refused(budgets, 5 * DOLLAR, now)
    assert answer.failure().message == (
        "This request may cost up to 5.00 USD, and of the budget of this key, 10.00 USD a month,"
        " 3.00 USD are left. It resets at 2028-03-01T05:00:00Z."
    )
    held(budgets, DOLLAR, now)
    answer = refused(budgets, 5 * DOLLAR, now)
    assert (answer.left_nano, answer.held_nano, answer.too_large) == (2 * DOLLAR, DOLLAR, False)
    told = answer.failure().message
    assert "2.00 USD are left while running requests have reserved 1.00 USD." in told
    assert answer.resets_at_s is not None
    refused(budgets, 5 * DOLLAR, answer.resets_at_s - 0.001)
    held(budgets, 5 * DOLLAR, answer.resets_at_s)


def test_a_total_never_resets() -> None:
    budgets = of(10)
    spend(budgets, 10)
    answer = refused(budgets, 1, 4e9)
    assert answer.resets_at_s is None and "resets" not in answer.failure().message


def test_money_that_is_only_reserved_is_worth_another_try_and_money_that_is_spent_is_not() -> None:
    budgets = of(10 * DOLLAR)
    hold = held(budgets, 9 * DOLLAR)
    reserved = refused(budgets, 2 * DOLLAR).failure()
    assert (reserved.kind, reserved.code) == ("rate_limit", "budget_reserved")
    assert reserved.should_retry and reserved.retry_after_s
    assert "running requests have reserved 9.00 USD" in reserved.message
    too_large = refused(budgets, 11 * DOLLAR).failure()
    assert (too_large.kind, too_large.should_retry) == ("no_credit", False)
    budgets.settle(hold, 9 * DOLLAR)
    spent_up = refused(budgets, 2 * DOLLAR).failure()
    assert (spent_up.kind, spent_up.code) == ("no_credit", "insufficient_quota")
    assert spent_up.should_retry is False and spent_up.retry_after_s is None


def test_a_hold_is_extended_as_far_as_the_budget_goes() -> None:
    budgets = of(10)
    hold, other = held(budgets, 4), held(budgets, 3)
    assert budgets.extend(hold, 4) is not None
    assert budgets.extend(hold, 3) is None
    assert (hold.nano, budgets.held_nano, refused(budgets, 1).left_nano) == (7, 10, 0)
    assert budgets.settle(hold, 7) == Settled(7)
    budgets.settle(other, 0)
    assert (spent(budgets), budgets.held_nano) == (7, 0)


def test_a_request_of_yesterday_extends_what_it_holds_of_yesterday() -> None:
    now = at("2026-06-15T23:59")
    budgets = of(10, "day", now_s=now)
    late = held(budgets, 8, now)
    held(budgets, 10, now + 120)
    assert budgets.extend(late, 3) is not None
    assert budgets.extend(late, 2) is None
    budgets.settle(late, 10)
    assert spent(budgets, now + 120) == 0


# --- days and months -------------------------------------------------------------------------------

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


@pytest.mark.parametrize(
    ("zone", "period", "now", "resets", "hours"),
    [
        (BERLIN, "day", "2026-03-29T00:00", "2026-03-30T00:00", 23),
        (BERLIN, "day", "2026-10-25T00:00", "2026-10-26T00:00", 25),
        (BERLIN, "month", "2026-10-01T00:00", "2026-11-01T00:00", 31 * 24 + 1),
        (NEW_YORK, "day", "2026-03-08T00:00", "2026-03-09T00:00", 23),
        (NEW_YORK, "day", "2026-11-01T00:00", "2026-11-02T00:00", 25),
        (NEW_YORK, "month", "2026-02-01T00:00", "2026-03-01T00:00", 28 * 24),
        ("UTC", "month", "2028-02-01T00:00", "2028-03-01T00:00", 29 * 24),
        ("UTC", "day", "2028-02-28T00:00", "2028-02-29T00:00", 24),
        ("UTC", "day", "2028-02-29T00:00", "2028-03-01T00:00", 24),
        ("UTC", "month", "2100-02-01T00:00", "2100-03-01T00:00", 28 * 24),
        ("UTC", "month", "2026-12-01T00:00", "2027-01-01T00:00", 31 * 24),
        ("UTC", "day", "2026-12-31T00:00", "2027-01-01T00:00", 24),
        # Clocks that change at midnight: a day without one, a day with two, a day that was not.
        ("America/Sao_Paulo", "day", "2018-11-03T00:00", "2018-11-04T01:00", 24),
        ("America/Havana", "day", "2026-10-31T00:00", "2026-11-01T00:00", 24),
        ("America/St_Johns", "day", "2010-11-06T00:00", "2010-11-07T00:00", 24),
        ("Pacific/Apia", "day", "2011-12-29T00:00", "2011-12-31T00:00", 24),
    ],
)
def test_a_period_resets_once_at_its_end_and_not_before(
    zone: str, period: Any, now: str, resets: str, hours: int
) -> None:
    start, end = at(now, zone), at(resets, zone)
    assert end - start == hours * 3600
    budget = Budget(10, period, zone)
    assert begins_s(budget, start) == begins_s(budget, end - 1) == start
    assert begins_s(budget, end) == end
    budgets = of(10, period, zone, start)
    spend(budgets, 10, start)
    for second in range(0, hours * 3600, 900):
        assert refused(budgets, 1, start + second).resets_at_s == end
    refused(budgets, 1, end - 0.001)
    spend(budgets, 10, end)
    for second in range(0, 20 * 3600, 900):  # through an hour that comes twice as well
        refused(budgets, 1, end + second)


def test_an_hour_that_comes_twice_over_midnight_does_not_reset_twice() -> None:
    """At 00:01 on 2010-11-07 the clocks of St. John's went back to 23:01 of the day before."""
    zone = "America/St_Johns"
    first = at("2010-11-07T00:00", zone)
    budget = Budget(10, "day", zone)
    days = [period_of(budget, first + s).day for s in (-1, 0, 59, 61, 3599, 3661)]
    assert days == [6, 7, 7, 6, 6, 7]
    budgets = of(10, "day", zone, first - 1)
    spend(budgets, 10, first - 1)
    spend(budgets, 10, first)
    for second in range(0, 86400, 60):
        refused(budgets, 1, first + second)


def test_a_clock_that_is_put_back_resets_nothing_and_brings_nothing_back() -> None:
    now = at("2026-06-15T00:30")
    budgets = of(10, "day", now_s=now)
    spend(budgets, 6, now)
    assert refused(budgets, 1, now - 3600).unknown
    assert refused(budgets, 1, now - 40 * 86400).unknown
    assert refused(budgets, 5, now + 3600).left_nano == 4
    budgets.follow(KEY, 9, now - 3600)
    assert refused(budgets, 2, now - 3600).left_nano == 1
    spend(budgets, 4, now + 3600)
    refused(budgets, 1, now + 3600)
    spend(budgets, 10, now + 86400)


def test_a_clock_that_jumped_ahead_and_came_back_resets_as_ever() -> None:
    now = at("2026-06-15T12:00")
    budgets = of(10, "day", now_s=now)
    spend(budgets, 6, now)
    spend(budgets, 9, now + 40 * 86400)
    assert refused(budgets, 5, now).left_nano == 4  # what was spent today still is
    assert not budgets.behind
    assert refused(budgets, 2, now + 40 * 86400).left_nano == 1  # and what was spent then
    refused(budgets, 5, now)
    assert budgets.room("k", now + 86400).unknown  # the clock may have been in tomorrow on its way
    budgets.follow(KEY, 0, now + 86400)
    spend(budgets, 10, now + 86400)
    refused(budgets, 1, now + 86400)


def test_a_period_that_nobody_here_knows_is_asked_of_the_ledger() -> None:
    """The process was started while the clock was ahead."""
    ahead = at("2026-07-25T12:00")
    budgets = of(10, "day", now_s=ahead)
    spend(budgets, 9, ahead)
    now = ahead - 40 * 86400
    assert budgets.room("k", now).unknown
    answer = refused(budgets, 1, now)
    assert (answer.unknown, answer.failure().kind) == (True, "unavailable")
    spend(budgets, 0, now)  # what costs nothing is always admitted
    assert budgets.behind == {KEY}
    budgets.follow(KEY, 3, now)
    assert refused(budgets, 8, now).left_nano == 7
    assert not budgets.behind
    assert refused(budgets, 1, now + 86400).unknown
    budgets.follow(KEY, 0, now + 86400)
    spend(budgets, 10, now + 86400)


def test_a_period_that_was_forgotten_has_no_money_until_the_ledger_says_so() -> None:
    now = at("2026-06-15T12:00")
    budgets = of(10, "day", now_s=now)
    spend(budgets, 10, now)
    for days in range(1, 2 + PAST_PERIODS):
        spend(budgets, 1, now + days * 86400)
    budgets.follow(
        KEY, 0, now - 86400
    )  # before all of them, and then forward into the forgotten one
    spend(budgets, 1, now - 86400)
    assert refused(budgets, 1, now).unknown
    assert budgets.standing(KEY, now - 86400).spent_nano == 1
    assert not budgets.behind  # the period of now is known again
    assert budgets.room("k", now).unknown
    budgets.follow(KEY, 10, now)
    assert not refused(budgets, 1, now).unknown


def test_a_request_that_runs_while_the_clock_jumps_is_charged_to_its_own_period() -> None:
    now = at("2026-06-15T12:00")
    budgets = of(10, "day", now_s=now)
    hold = held(budgets, 8, now)
    for days in range(1, 20):  # far more periods than are kept
        spend(budgets, 1, now + days * 86400)
    assert budgets.standing(KEY, now).held_nano == 8
    budgets.settle(hold, 7)
    assert refused(budgets, 4, now).left_nano == 3


def test_a_request_that_runs_past_midnight_is_charged_to_the_day_it_began() -> None:
    now = at("2026-06-15T23:59")
    budgets = of(10, "day", now_s=now)
    late = held(budgets, 8, now)
    assert isinstance(budgets.reserve("k", 10, now + 120), Reservation)
    assert budgets.held_nano == 18
    budgets.settle(late, 9)
    assert (spent(budgets, now + 120), budgets.held_nano) == (0, 10)
    assert budgets.standing(KEY, now + 120).held_nano == 10


# --- another budget, another start -------------------------------------------------------------------


def test_another_amount_holds_at_once_and_what_is_spent_and_held_counts() -> None:
    budgets = of(100)
    spend(budgets, 30)
    hold = held(budgets, 30)
    budgets.change(KEY, Budget(50), 12345, 0.0)  # the sum here is newer than the ledger's
    assert (refused(budgets, 1).left_nano, spent(budgets)) == (0, 30)
    budgets.settle(hold, 5)
    assert refused(budgets, 16).left_nano == 15
    budgets.change(KEY, Budget(1000), 0, 0.0)
    assert refused(budgets, 966).left_nano == 965


def test_a_budget_that_is_given_later_knows_what_was_already_open() -> None:
    budgets = Budgets({}, {}, 0.0)
    hold = held(budgets, 60)
    spend(budgets, 10)
    budgets.change(KEY, Budget(100, "day"), 10, 0.0)
    assert refused(budgets, 31).left_nano == 30
    budgets.settle(hold, 70)
    assert spent(budgets) == 80
    budgets.change(KEY, None, 0, 0.0)
    spend(budgets, 10**12)
    assert budgets.standing(KEY, 0.0).limit_nano is None
    budgets.change(KEY, Budget(100, "day"), 95, 0.0)
    assert refused(budgets, 6).left_nano == 5


def test_another_period_counts_what_the_ledger_says_of_it() -> None:
    now = at("2026-06-15T12:00")
    budgets = of(100, "month", now_s=now)
    spend(budgets, 90, now)
    budgets.change(KEY, Budget(100, "day"), 20, now)
    assert refused(budgets, 81, now).left_nano == 80
    spend(budgets, 80, now)
    budgets.change(KEY, Budget(100, "day", BERLIN), 97, now)
    answer = refused(budgets, 4, now)
    assert (answer.left_nano, answer.resets_at_s) == (3, at("2026-06-16T00:00", BERLIN))


def test_a_cost_that_is_settled_and_not_committed_is_not_lost_when_the_period_changes() -> None:
    now = at("2026-06-15T12:00")
    budgets = of(100, "month", now_s=now)
    for id, began in (("old", now - 86400), ("late", now), ("new", now)):
        hold = budgets.reserve("k", 10, began, id=id)
        assert isinstance(hold, Reservation)
        budgets.settle(hold, 10)
    assert sorted(budgets.uncommitted()) == ["late", "new", "old"]
    # The ledger has the row of "new" already, and its answer is still on the way.
    budgets.change(KEY, Budget(100, "day"), 10, now, recorded={"new"})
    assert spent(budgets, now) == 20
    for id in ("old", "late", "new"):
        budgets.committed(id)
    budgets.change(KEY, Budget(100, "month"), 30, now)
    assert spent(budgets, now) == 30 and not budgets.uncommitted()


def test_what_the_ledger_says_is_spent_from_the_start() -> None:
    budgets = Budgets({KEY: Budget(100), ACCOUNT: Budget(500)}, {KEY: 60, ACCOUNT: 450}, 0.0)
    assert refused(budgets, 41).left_nano == 40
    assert isinstance(budgets.reserve("other", 51, 0.0), BudgetRefusal)
    held(budgets, 40)


def test_the_budget_of_a_key_is_what_is_written_on_it() -> None:
    assert written_on(Key("a", "n", 0.0)) is None
    key = Key("a", "n", 0.0, budget_nano=0, budget_period="day", budget_zone=BERLIN)
    assert written_on(key) == Budget(0, "day", BERLIN)


# --- texts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("12", 12 * DOLLAR),
        ("12.5", 12_500_000_000),
        ("0.1", 100_000_000),
        ("0.000000001", 1),
        ("999999999.999999999", 10**18 - 1),
        ("007.10", 7_100_000_000),
    ],
)
def test_dollars_are_exact(text: str, nano: int) -> None:
    assert nano_of(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".5",
        "5.",
        "-1",
        "+1",
        "1e3",
        "1,5",
        "1_000",
        "0.0000000001",
        "nan",
        "٣",
        "1 ",
        "$1",
        "1\n",
        "9" * 99,
    ],
)
def test_anything_else_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        nano_of(text)


@pytest.mark.parametrize(
    "name", ["", "Mars/Base", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b", "x" * 5000]
)
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone_of(name)


@given(
    st.sampled_from([BERLIN, NEW_YORK, "UTC", "Pacific/Apia", "America/Havana", "Asia/Kathmandu"]),
    st.sampled_from(["day", "month"]),
    st.floats(0, 4e9),
)
@settings(deadline=None)
def test_the_moment_of_a_reset_is_the_first_of_the_next_period(
    zone: str, period: Any, now: float
) -> None:
    budget = Budget(0, period, zone)
    resets = Budgets({KEY: budget}, {}, now).standing(KEY, now).resets_at_s
    assert resets is not None and begins_s(budget, now) <= now < resets
    first = period_of(budget, now)
    assert period_of(budget, resets - 0.01) <= first < period_of(budget, resets)
    assert begins_s(budget, resets) == resets
    after = datetime.fromtimestamp(now, ZoneInfo(zone)).date() + timedelta(days=32)
    assert datetime.fromtimestamp(resets, UTC).date() <= after


# --- a state machine against a ledger and a list ------------------------------------------------------


class Term:
    """A period of one owner, as the model knows it."""

    def __init__(self, first: date, spent: int) -> None:
        self.first, self.spent = first, spent


class Open:
    def __init__(self, hold: Reservation, began_s: float, terms: dict[Owner, Term]) -> None:
        self.hold, self.began_s, self.terms = hold, began_s, terms


class Machine(RuleBasedStateMachine):
    """The model: a ledger of rows (when they began, what they cost) and a list of what runs.

    Rows are settled first and committed later, in any order; only those that are committed are in
    the ledger.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = at("2026-10-24T20:00", BERLIN)  # the night in which the clocks go back
        self.budgets_of: dict[Owner, Budget] = {
            KEY: Budget(100, "day", BERLIN),
            ACCOUNT: Budget(300, "month", NEW_YORK),
        }
        self.rows: list[tuple[float, int]] = []
        self.uncommitted: list[tuple[float, int, Reservation]] = []
        self.open: list[Open] = []
        self.ids = 0
        self.start()

    def ledger(self, budget: Budget) -> int:
        since, until = begins_s(budget, self.now), ends_s(budget, self.now)
        return sum(c for began, c in self.rows if began >= since and (not until or began < until))

    def settled(self, budget: Budget) -> int:
        """What was spent in the period of now, in the ledger or not."""
        first = period_of(budget, self.now)
        late = sum(c for began, c, _ in self.uncommitted if period_of(budget, began) == first)
        return self.ledger(budget) + late

    def start(self) -> None:
        self.rows += [(began, cost) for began, cost, _ in self.uncommitted]
        self.uncommitted.clear()
        sums = {owner: self.ledger(budget) for owner, budget in self.budgets_of.items()}
        self.budgets = Budgets(self.budgets_of, sums, self.now)
        self.term = {o: Term(period_of(b, self.now), sums[o]) for o, b in self.budgets_of.items()}
        self.known = {o: {t.first: t} for o, t in self.term.items()}

    def turn_page(self) -> None:
        for owner, budget in self.budgets_of.items():
            self.budgets.standing(owner, self.now)
            first = period_of(budget, self.now)
            if owner in self.budgets.behind:
                self.budgets.follow(owner, self.ledger(budget), self.now)
                assert owner not in self.budgets.behind
                self.known[owner][first] = Term(first, self.settled(budget))
            elif first not in self.known[owner]:
                assert first > max(self.known[owner])
                self.known[owner][first] = Term(first, 0)
            self.term[owner] = self.known[owner][first]

    def held(self, owner: Owner) -> int:
        return sum(o.hold.nano for o in self.open if o.terms[owner] is self.term[owner])

    @rule(nano=st.one_of(st.none(), st.integers(0, 120)))
    def reserve(self, nano: int | None) -> None:
        self.turn_page()
        amount = nano or 0
        left = {o: b.nano - self.term[o].spent - self.held(o) for o, b in self.budgets_of.items()}
        assert self.budgets.room("k", self.now).left_nano == min(left.values())
        self.ids += 1
        answer = self.budgets.reserve("k", nano, self.now, id=str(self.ids))
        if isinstance(answer, Reservation):
            assert not amount or amount <= min(left.values())
            self.open.append(Open(answer, self.now, dict(self.term)))
            return
        owner = KEY if answer.what == "key" else ACCOUNT
        assert amount > left[owner]
        assert answer.left_nano == max(0, left[owner])
        assert answer.held_nano == self.held(owner)
        assert answer.too_large == (amount > self.budgets_of[owner].nano)
        enough = self.term[owner].spent + amount <= self.budgets_of[owner].nano
        assert answer.only_reserved == enough

    @precondition(lambda self: self.open)
    @rule(data=st.data(), nano=st.integers(0, 60))
    def extend(self, data: Any, nano: int) -> None:
        self.turn_page()
        more = data.draw(st.sampled_from(self.open))
        fits = all(
            t.spent + sum(o.hold.nano for o in self.open if o.terms[owner] is t) + nano
            <= self.budgets_of[owner].nano
            for owner, t in more.terms.items()
        )
        before = more.hold.nano
        refused = self.budgets.extend(more.hold, nano)
        assert (refused is None) == (fits or not nano)
        assert more.hold.nano == before + (nano if refused is None else 0)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), over=st.integers(-120, 10))
    def settle(self, data: Any, over: int) -> None:
        done = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        cost = max(0, done.hold.nano + over)
        settled = self.budgets.settle(done.hold, cost)
        assert settled == Settled(cost, max(0, cost - done.hold.nano))
        self.budgets.settle(done.hold, 0)
        self.uncommitted.append((done.began_s, cost, done.hold))
        for term in done.terms.values():
            term.spent += cost

    @precondition(lambda self: self.uncommitted)
    @rule(data=st.data())
    def commit(self, data: Any) -> None:
        at = data.draw(st.integers(0, len(self.uncommitted) - 1))
        began, cost, hold = self.uncommitted.pop(at)
        self.rows.append((began, cost))
        self.budgets.committed(hold.id)

    @precondition(lambda self: self.open)
    @rule()
    def release(self) -> None:
        done = self.open.pop()
        self.budgets.settle(done.hold, 0)
        assert self.budgets.settle(done.hold, 50) == Settled(0)

    @rule(seconds=st.sampled_from([0.5, 1800, 3600, 40_000, 86_400, 31 * 86_400]))
    def forward(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.5, 3600, 86_400]))
    def back(self, seconds: float) -> None:
        self.now -= seconds

    @rule(
        owner=st.sampled_from([KEY, ACCOUNT]),
        nano=st.integers(0, 300),
        period=st.sampled_from(["total", "day", "month"]),
        zone=st.sampled_from([BERLIN, NEW_YORK]),
        same=st.booleans(),
    )
    def change(self, owner: Owner, nano: int, period: Any, zone: str, same: bool) -> None:
        self.turn_page()
        old = self.budgets_of[owner]
        new = Budget(nano, old.period, old.zone) if same else Budget(nano, period, zone)
        self.budgets.change(owner, new, self.ledger(new), self.now)
        self.budgets_of[owner] = new
        if (old.period, old.zone) != (new.period, new.zone):
            term = self.term[owner]
            term.first, term.spent = period_of(new, self.now), self.settled(new)
            self.known[owner] = {term.first: term}

    @precondition(lambda self: all(began <= self.now for began, *_ in self.rows + self.uncommitted))
    @rule(share=st.integers(0, 4))
    def crash(self, share: int) -> None:
        """What ran is recovered at a part of what it reserved; the next process knows the ledger only."""
        began = [o.began_s for o in self.open]
        if any(b > self.now for b in began):
            return
        self.rows += [(o.began_s, o.hold.nano * share // 4) for o in self.open]
        self.open.clear()
        self.start()

    @invariant()
    def agree(self) -> None:
        self.turn_page()
        assert self.budgets.open == len(self.open)
        assert self.budgets.held_nano == sum(o.hold.nano for o in self.open)
        for owner, budget in self.budgets_of.items():
            standing = self.budgets.standing(owner, self.now)
            assert standing.spent_nano == self.term[owner].spent
            assert standing.held_nano == self.held(owner)
            assert standing.limit_nano == budget.nano
            assert (standing.resets_at_s is None) == (budget.period == "total")


# --- keys that share accounts, and move ---------------------------------------------------------------

KEYS, ACCOUNTS = ("k0", "k1", "k2"), ("", "red", "blue")


class Teams(RuleBasedStateMachine):
    """The model: for every owner a list of what was paid, and one of what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.limit: dict[Owner, int | None] = {}
        self.account = dict.fromkeys(KEYS, "")
        self.paid: list[tuple[tuple[Owner, Owner], int]] = []
        self.open: list[tuple[tuple[Owner, Owner], Reservation]] = []
        self.budgets = Budgets({}, {}, 0.0)

    def owners(self, key: str) -> tuple[Owner, Owner]:
        return ("key", key), ("account", self.account[key])

    def spent(self, owner: Owner) -> int:
        return sum(cost for owners, cost in self.paid if owner in owners)

    def held(self, owner: Owner) -> int:
        return sum(hold.nano for owners, hold in self.open if owner in owners)

    @rule(key=st.sampled_from(KEYS), account=st.sampled_from(ACCOUNTS))
    def move(self, key: str, account: str) -> None:
        self.account[key] = account

    @rule(
        owner=st.sampled_from(
            [*(("key", k) for k in KEYS), *(("account", a) for a in ACCOUNTS if a)]
        ),
        nano=st.one_of(st.none(), st.integers(0, 200)),
    )
    def change(self, owner: Owner, nano: int | None) -> None:
        self.limit[owner] = nano
        budget = None if nano is None else Budget(nano)
        self.budgets.change(owner, budget, self.spent(owner), 0.0)

    @rule(key=st.sampled_from(KEYS), nano=st.integers(0, 80))
    def reserve(self, key: str, nano: int) -> None:
        owners = self.owners(key)
        left = {
            owner: limit - self.spent(owner) - self.held(owner)
            for owner in owners
            if (limit := self.limit.get(owner)) is not None
        }
        short = [owner for owner in owners if nano and nano > left.get(owner, nano)]
        answer = self.budgets.reserve(key, nano, 0.0, self.account[key])
        if isinstance(answer, Reservation):
            assert not short
            self.open.append((owners, answer))
        else:
            assert answer.what == short[0][0]
            assert answer.left_nano == max(0, left[short[0]])
            assert f"of this {answer.what}" in answer.failure().message

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.integers(0, 4))
    def settle(self, data: Any, share: int) -> None:
        """A request is paid by who it was admitted for, wherever its key has gone meanwhile."""
        owners, hold = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        cost = hold.nano * share // 4
        self.budgets.settle(hold, cost)
        self.budgets.settle(hold, 10**6)
        self.paid.append((owners, cost))

    @invariant()
    def nothing_is_lost_and_nothing_is_paid_twice(self) -> None:
        assert self.budgets.held_nano == sum(hold.nano for _, hold in self.open)
        assert self.budgets.open == len(self.open)
        for owner in [*(("key", k) for k in KEYS), *(("account", a) for a in ACCOUNTS)]:
            standing = self.budgets.standing(owner, 0.0)  # type: ignore[arg-type]  # both literals
            assert standing.spent_nano == self.spent(owner)  # type: ignore[arg-type]
            assert standing.held_nano == self.held(owner)  # type: ignore[arg-type]


TestTeams = Teams.TestCase
TestTeams.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
