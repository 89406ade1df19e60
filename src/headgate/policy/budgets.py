"""Budgets: what a key or an account may spend, held before an upstream is contacted.

The only place that decides whether there is money for a request.  It works on integer nano-dollars
and on the time that is passed in (Unix seconds); what was spent before comes from the ledger.  A
request holds the most it may cost, and is settled to what it did cost.

    at each reserve:  spent + held <= budget

What will surprise:
- a cost belongs to the day or month in which its request was admitted, as in the ledger, which
  sums by the time a request began: one that runs past midnight is charged to the old day;
- a period only ever gives way to a later one.  A clock that is put back, or a zone whose clocks go
  back over midnight, brings nothing back and resets nothing;
- a cost above what was held is charged in full.  It is reported as `overrun_nano`, and until the
  next period (or a larger budget) nothing is admitted but what costs nothing;
- an unknown price holds nothing and costs nothing here; it is reported, and the ledger says null;
- keys without a budget are counted as well, so that one which is given later knows what is open.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from headgate.errors import Failure
from headgate.policy.keys import Account, Key, Period
from headgate.policy.pricing import NANO, usd

MAX_NANO = 10**18  # a thousand million dollars; sums of it still fit SQLite's integers
_DOLLARS = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?", re.ASCII)

What = Literal["key", "account"]
Owner = tuple[What, str]


class Budget(msgspec.Struct, frozen=True, gc=False):
    nano: int
    period: Period = "total"
    zone: str = "UTC"  # in which days and months begin


def written_on(owner: Key | Account) -> Budget | None:
    """The budget that is written on a key, or on an account."""
    if owner.budget_nano is None:
        return None
    return Budget(owner.budget_nano, owner.budget_period, owner.budget_zone)


def nano_of(text: str) -> int:
    """Dollars as an exact decimal, "12.50"; ValueError for anything else."""
    found = _DOLLARS.fullmatch(text)
    if found is None:
        raise ValueError(
            f"`{text[:32]}` is no amount in dollars; write 12.50 (up to nine decimals)."
        )
    return int(found[1]) * NANO + int((found[2] or "").ljust(9, "0"))


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """The time zone of that name in the IANA's database; ValueError when there is none here."""
    if name == "UTC":  # also on a system without the database
        return UTC
    try:
        return ZoneInfo(name)
    # It reads files of that name: a directory, a name that is too long, a NUL
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"no time zone `{name[:64]}` is known here; write UTC or one like Europe/Berlin."
        ) from error


def period_of(budget: Budget, now_s: float) -> date:
    """The first day of the period that `now_s` is in; for a total it is always the same."""
    if budget.period == "total":
        return date.min
    day = datetime.fromtimestamp(now_s, zone_of(budget.zone)).date()
    return day if budget.period == "day" else day.replace(day=1)


def begins_s(budget: Budget, now_s: float) -> float:
    """Since when the ledger's sums count for this budget: the beginning of the period of `now_s`."""
    return 0.0 if budget.period == "total" else _midnight(budget, period_of(budget, now_s))


def _ends_s(budget: Budget, first: date) -> float | None:
    """When the period that began on `first` is over."""
    if budget.period == "total":
        return None
    after = first + timedelta(days=1 if budget.period == "day" else 31)
    return _midnight(budget, after if budget.period == "day" else after.replace(day=1))


def _midnight(budget: Budget, day: date) -> float:
    """The first moment of a day.

    `fold=0`, the default, is the first of two midnights, and for one that the clocks skip it is the
    moment at which they do (PEP 495).
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone_of(budget.zone)).timestamp()


class _Term(msgspec.Struct, eq=False):
    """One period of one owner.  Holds keep theirs, also when the owner is in the next one."""

    first: date
    spent: int = 0
    held: int = 0


class _Purse(msgspec.Struct, eq=False):
    budget: Budget | None
    term: _Term


class Hold(msgspec.Struct, eq=False):
    """Must be settled or released, whatever becomes of the request."""

    nano: int
    terms: tuple[_Term, ...]
    settled: "Settled | None" = None


class Settled(msgspec.Struct, frozen=True, gc=False):
    """`overrun_nano`: what the request cost above what it held."""

    nano: int
    overrun_nano: int = 0
    unpriced: bool = False


class Refusal(msgspec.Struct, frozen=True, gc=False):
    what: What
    asked_nano: int
    left_nano: int  # neither spent nor held
    held_nano: int  # by requests that run; some of it may come back
    limit_nano: int
    period: Period
    resets_at_s: float | None  # None: never

    @property
    def too_large(self) -> bool:
        """Even a budget of which nothing is spent would not do."""
        return self.asked_nano > self.limit_nano

    def failure(self) -> Failure:
        per = {"total": "", "day": " a day", "month": " a month"}[self.period]
        budget = f"the budget of this {self.what}, {usd(self.limit_nano)} USD{per}"
        text = f"This request may cost up to {usd(self.asked_nano)} USD, "
        if self.too_large:
            text += f"which is more than {budget}. Send less, or allow less output."
        else:
            text += f"and of {budget}, {usd(self.left_nano)} USD are left"
            if self.held_nano:
                text += f" while requests that run hold {usd(self.held_nano)} USD"
            text += "."
            if self.resets_at_s is not None:
                at = datetime.fromtimestamp(self.resets_at_s, UTC)
                text += f" It resets at {at:%Y-%m-%dT%H:%M:%SZ}."
        return Failure("no_credit", text, code="insufficient_quota", should_retry=False)


class Standing(msgspec.Struct, frozen=True, gc=False):
    """`limit_nano` None: no budget."""

    spent_nano: int
    held_nano: int  # in this period
    limit_nano: int | None
    period: Period
    resets_at_s: float | None


class Budgets:
    """All budgets and what is spent and held of them.  `held_nano`: by all open holds together."""

    def __init__(
        self, budgets: Mapping[Owner, Budget], spent: Mapping[Owner, int], now_s: float
    ) -> None:
        """`spent`: for each owner, the ledger's sum since `begins_s` of its budget."""
        self.held_nano = 0
        self.open = 0
        self.overrun_nano = 0  # since the start, as the next
        self.unpriced = 0
        self._purses: dict[Owner, _Purse] = {
            owner: _Purse(budget, _Term(period_of(budget, now_s), spent.get(owner, 0)))
            for owner, budget in budgets.items()
        }

    def change(self, owner: Owner, budget: Budget | None, spent_nano: int, now_s: float) -> None:
        """Give another budget, or none, to an owner; what is held stays held.

        `spent_nano`: what the ledger says was spent since `begins_s` of the new budget.  It counts
        when the period is another one; for the same one, the sums here are newer and stay.  A row
        that is settled here and not committed yet is missing from it: wait for those first.
        """
        purse = self._purse(owner, now_s)
        old, purse.budget = purse.budget, budget
        if budget is None or (old and (old.period, old.zone) == (budget.period, budget.zone)):
            return
        # The requests that run may have begun before the new period: counted, to be on the safe side.
        purse.term.first = period_of(budget, now_s)
        purse.term.spent = spent_nano

    def reserve(
        self, key_id: str, nano: int | None, now_s: float, account: str = ""
    ) -> Hold | Refusal:
        """Hold the most that a request may cost, from the key and its account, or from neither."""
        amount = max(0, nano or 0)
        whats: tuple[Owner, ...] = (("key", key_id), ("account", account))
        terms = []
        for owner in whats:
            purse = self._purse(owner, now_s)
            term, budget = purse.term, purse.budget
            if amount and budget is not None and term.spent + term.held + amount > budget.nano:
                return Refusal(
                    owner[0],
                    amount,
                    max(0, budget.nano - term.spent - term.held),
                    term.held,
                    budget.nano,
                    budget.period,
                    _ends_s(budget, term.first),
                )
            terms.append(term)
        for term in terms:
            term.held += amount
        self.held_nano += amount
        self.open += 1
        return Hold(amount, tuple(terms))

    def settle(self, hold: Hold, nano: int | None) -> Settled:
        """Spend what the request did cost; None: unknown.  Once: then it says what it said first."""
        if hold.settled is not None:
            return hold.settled
        cost = max(0, nano or 0)
        overrun = max(0, cost - hold.nano)
        settled = hold.settled = Settled(cost, overrun, nano is None)
        for term in hold.terms:
            term.held -= hold.nano
            term.spent += cost
        self.held_nano -= hold.nano
        self.open -= 1
        self.overrun_nano += overrun
        self.unpriced += nano is None
        return settled

    def release(self, hold: Hold) -> None:
        """Nothing was spent."""
        self.settle(hold, 0)

    def standing(self, owner: Owner, now_s: float) -> Standing:
        purse = self._purse(owner, now_s)
        budget, term = purse.budget, purse.term
        if budget is None:
            return Standing(term.spent, term.held, None, "total", None)
        ends_s = _ends_s(budget, term.first)
        return Standing(term.spent, term.held, budget.nano, budget.period, ends_s)

    def _purse(self, owner: Owner, now_s: float) -> _Purse:
        purse = self._purses.get(owner)
        if purse is None:
            purse = self._purses[owner] = _Purse(None, _Term(date.min))
        elif purse.budget is not None and purse.budget.period != "total":
            first = period_of(purse.budget, now_s)
            if first > purse.term.first:
                purse.term = _Term(first)
        return purse
