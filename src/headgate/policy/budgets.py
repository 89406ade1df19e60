"""Budgets: what a key or an account may spend, held before an upstream is contacted.

The only place that decides whether there is money for a request.  It works on integer nano-dollars
and on the time that is passed in (Unix seconds); what was spent before comes from the ledger.  A
request holds the most it may cost, and is settled to what it did cost.

    at each reserve:  spent + held <= budget

Note:
- a cost belongs to the day or month in which its request was admitted, as in the ledger, which
  sums by the time a request began: one that runs past midnight is charged to the old day;
- the period follows the clock in both directions, and each one keeps its own sum: a clock that goes
  back finds what was spent then.  A period that the clock may have been in before, and of which
  nothing is known here, is for the ledger: its owner is in `behind` until `follow` brings the sum.
  Until then, nothing is admitted for it but what costs nothing;
- requests that run and hold what is left differ from money that is spent: the first refusal
  is worth another try in a moment, the second is not;
- a cost above what was held is charged in full.  It is reported as `overrun_nano`, and until the
  next period (or a larger budget) nothing is admitted but what costs nothing;
- an unknown price holds nothing and costs nothing here; it is reported, and the ledger says null;
- keys without a budget are counted as well, so that one which is given later knows what is open.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from headgate.errors import Failure
from headgate.policy.keys import Account, Key, Period
from headgate.policy.pricing import NANO, usd

MAX_NANO = 10**18  # a thousand million dollars; sums of it still fit SQLite's integers
PAST_PERIODS = 4  # that an owner's clock may go back to without asking the ledger
RESERVED_RETRY_S = 2.0  # nobody knows when the requests that run will end
UNKNOWN_RETRY_S = 5.0  # as long as SQLite waits for a lock
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


def ends_s(budget: Budget, now_s: float) -> float | None:
    """When the period of `now_s` is over; None for a total."""
    return _ends_s(budget, period_of(budget, now_s))


class _Period(msgspec.Struct, eq=False):
    """One period of one owner.  Holds keep theirs, also when the owner is in the next one."""

    first: date
    spent: int = 0
    held: int = 0
    # The most that this node may spend and hold (policy/leases.py); None: it has the budget for itself.
    lease: int | None = None

    def left(self, budget: Budget) -> int:
        """What is neither spent nor held, and may be."""
        most = budget.nano if self.lease is None else min(budget.nano, self.lease)
        return most - self.spent - self.held


class PeriodView(msgspec.Struct, frozen=True):
    """How an owner with a budget stands in one period, for its lease."""

    owner: Owner
    budget: Budget
    first: date
    spent: int
    held: int

    @property
    def used(self) -> int:
        return self.spent + self.held


class _OwnerBudget(msgspec.Struct, eq=False):
    budget: Budget | None
    term: _Period
    latest: date  # the first day of the latest period that the clock has been in
    past: dict[date, _Period] = {}  # other periods that it has been in, by their first day

    def enter(self, term: _Period) -> None:
        """Make it the current period, and keep the one that it follows."""
        self.past[self.term.first] = self.term
        if len(self.past) > PAST_PERIODS:  # but not one that a running request will be charged to
            idle = next((first for first, past in self.past.items() if not past.held), None)
            if idle is not None:
                del self.past[idle]
        self.term, self.latest = term, max(self.latest, term.first)


class Reservation(msgspec.Struct, eq=False):
    """Must be settled, whatever becomes of the request."""

    id: str  # of the exchange, as in the ledger; "": of none that will be there
    nano: int
    began_s: float
    owners: tuple[Owner, ...]
    terms: tuple[_Period, ...]
    settled: "Settled | None" = None


class Room(msgspec.Struct, frozen=True, gc=False):
    """What a key and its account may still spend; None: neither has a budget."""

    left_nano: int | None = None  # neither spent nor held
    unspent_nano: int | None = None  # not spent; requests that run may hold some of it
    unknown: bool = False  # only the ledger knows what was spent in the period of now: see `follow`


class Settled(msgspec.Struct, frozen=True, gc=False):
    """`overrun_nano`: what the request cost above what it held."""

    nano: int
    overrun_nano: int = 0
    unpriced: bool = False


class BudgetRefusal(msgspec.Struct, frozen=True, gc=False):
    what: What
    asked_nano: int
    left_nano: int  # neither spent nor held
    held_nano: int  # by requests that run; some of it may come back
    spent_nano: int
    limit_nano: int
    period: Period
    resets_at_s: float | None  # None: never
    unknown: bool = False  # only the ledger knows what was spent in the period of now

    @property
    def too_large(self) -> bool:
        """Even a budget of which nothing is spent would not do."""
        return self.asked_nano > self.limit_nano

    @property
    def only_reserved(self) -> bool:
        """The money is not spent: requests that run hold it, and may give it back."""
        return self.held_nano > 0 and self.spent_nano + self.asked_nano <= self.limit_nano

    def failure(self) -> Failure:
        if self.unknown:
            return Failure(
                "unavailable",
                f"The gateway cannot read now what was spent of the budget of this {self.what};"
                " try again shortly.",
                code="storage_unavailable",
                retry_after_s=UNKNOWN_RETRY_S,
            )
        per = {"total": "", "day": " a day", "month": " a month"}[self.period]
        budget = f"the budget of this {self.what}, {usd(self.limit_nano)} USD{per}"
        text = f"This request may cost up to {usd(self.asked_nano)} USD, "
        if self.only_reserved:
            text += (
                f"and of {budget}, {usd(self.left_nano)} USD are left while running requests have"
                f" reserved {usd(self.held_nano)} USD."
                f" Please try again in {math.ceil(RESERVED_RETRY_S)}s."
            )
            return Failure(
                "rate_limit",
                text,
                code="budget_reserved",
                retry_after_s=RESERVED_RETRY_S,
                should_retry=True,
            )
        if self.too_large:
            text += f"which is more than {budget}. Send less, or allow less output."
        else:
            text += f"and of {budget}, {usd(self.left_nano)} USD are left"
            if self.held_nano:
                text += f" while running requests have reserved {usd(self.held_nano)} USD"
            text += "."
            if self.resets_at_s is not None:
                at = datetime.fromtimestamp(self.resets_at_s, UTC)
                text += f" It resets at {at:%Y-%m-%dT%H:%M:%SZ}."
        return Failure("no_credit", text, code="insufficient_quota", should_retry=False)


class BudgetStatus(msgspec.Struct, frozen=True, gc=False):
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
        # Owners whose clock went to a period that only the ledger knows: see `follow`.
        self.behind: set[Owner] = set()
        # By the exchange's id: settled at a cost, and maybe not in the ledger yet.
        self._uncommitted: dict[str, Reservation] = {}
        self._readers = 0  # of the ledger's sums
        self._late: list[str] = []  # committed while there were some
        self._purses: dict[Owner, _OwnerBudget] = {
            owner: _OwnerBudget(budget, _Period(first, spent.get(owner, 0)), first)
            for owner, budget in budgets.items()
            for first in (period_of(budget, now_s),)
        }

    def change(
        self,
        owner: Owner,
        budget: Budget | None,
        spent_nano: int,
        now_s: float,
        recorded: Collection[str] = (),
    ) -> None:
        """Give another budget, or none, to an owner; what is held stays held.

        `spent_nano`: what the ledger says was spent since `begins_s` of the new budget.  It counts
        when the period is another one; for the same one, the sums here are newer and stay.
        `recorded`: which of `uncommitted` the ledger had when it was asked; the others are added.
        """
        purse = self._purse(owner, now_s)
        old, purse.budget = purse.budget, budget
        if budget is None or (old and (old.period, old.zone) == (budget.period, budget.zone)):
            return
        # The requests that run may have begun before the new period: counted, to be on the safe side.
        purse.term.first = purse.latest = period_of(budget, now_s)
        purse.term.spent = spent_nano + self._missing(owner, budget, purse.term.first, recorded)
        purse.term.lease = None  # of another budget
        purse.past = {}
        self.behind.discard(owner)

    def follow(
        self, owner: Owner, spent_nano: int, now_s: float, recorded: Collection[str] = ()
    ) -> None:
        """Enter the period of `now_s`, of which the ledger says `spent_nano`; as in `change`."""
        self.behind.discard(owner)
        purse = self._purses.get(owner)
        if purse is None or purse.budget is None:
            return
        first = period_of(purse.budget, now_s)
        if first != purse.term.first:
            purse.enter(_Period(first))
        purse.term.spent = spent_nano + self._missing(owner, purse.budget, first, recorded)

    def uncommitted(self) -> list[str]:
        """The ids of exchanges that are settled here, and that the ledger may not have yet.

        It may be called in another thread.
        """
        return list(self._uncommitted)

    def committed(self, id: str) -> None:
        """The ledger has the row of this exchange."""
        if self._readers:
            self._late.append(id)
        else:
            self._uncommitted.pop(id, None)

    def begin_read(self) -> None:
        """Keep in `uncommitted` what the ledger commits, until `end_read`: its sums are being read."""
        self._readers += 1

    def end_read(self) -> None:
        """The sums were read and passed to `change` or `follow`, or could not be read."""
        self._readers -= 1
        if not self._readers:
            for id in self._late:
                self._uncommitted.pop(id, None)
            self._late.clear()

    def _missing(self, owner: Owner, budget: Budget, first: date, recorded: Collection[str]) -> int:
        """What was settled here in the period that begins on `first`, and the ledger did not have."""
        return sum(
            hold.settled.nano
            for hold in self._uncommitted.values()
            if hold.settled is not None
            and owner in hold.owners
            and hold.id not in recorded
            and period_of(budget, hold.began_s) == first
        )

    def room(self, key_id: str, now_s: float, account: str = "") -> Room:
        """What the key and its account may still spend."""
        left: int | None = None
        unspent: int | None = None
        unknown = False
        for owner in _owners(key_id, account):
            purse = self._purse(owner, now_s)
            if purse.budget is not None:
                unknown = unknown or owner in self.behind
                mine = purse.budget.nano - purse.term.spent
                unspent = mine if unspent is None else min(unspent, mine)
                mine = purse.term.left(purse.budget)
                left = mine if left is None else min(left, mine)
        return _BOUNDLESS if left is None else Room(left, unspent, unknown)

    def view(self, owner: Owner, now_s: float) -> PeriodView | None:
        """The period of `now_s`; None without a budget, and while only the ledger knows it."""
        purse = self._purse(owner, now_s)
        if purse.budget is None or owner in self.behind:
            return None
        term = purse.term
        return PeriodView(owner, purse.budget, term.first, term.spent, term.held)

    def budgeted(self) -> list[Owner]:
        """The owners that have a budget."""
        return [owner for owner, purse in self._purses.items() if purse.budget is not None]

    def lease(self, view: PeriodView, nano: int) -> None:
        """Let this node spend and hold no more than that in the period of the view, its own included."""
        term = self._purses[view.owner].term
        if term.first == view.first:
            term.lease = nano

    def reserve(
        self, key_id: str, nano: int | None, now_s: float, account: str = "", id: str = ""
    ) -> Reservation | BudgetRefusal:
        """Hold the most that a request may cost, from the key and its account, or from neither."""
        amount = max(0, nano or 0)
        owners = _owners(key_id, account)
        purses = [self._purse(owner, now_s) for owner in owners]
        terms = tuple([purse.term for purse in purses])
        refused = _refusal(owners, purses, terms, amount, self.behind)
        if refused is not None:
            return refused
        return self.hold(key_id, amount, now_s, account, id)

    def hold(
        self, key_id: str, nano: int, now_s: float, account: str = "", id: str = ""
    ) -> Reservation:
        """Hold an amount that was reserved before, by a process that is no more, whatever is left."""
        owners = _owners(key_id, account)
        terms = tuple([self._purse(owner, now_s).term for owner in owners])
        for term in terms:
            term.held += nano
        self.held_nano += nano
        self.open += 1
        return Reservation(id, nano, now_s, owners, terms)

    def extend(self, hold: Reservation, nano: int | None) -> BudgetRefusal | None:
        """Hold so much more for the same request, in the period in which it began."""
        amount = max(0, nano or 0)
        purses = [self._purses[owner] for owner in hold.owners]
        refused = _refusal(hold.owners, purses, hold.terms, amount)
        if refused is None:
            for term in hold.terms:
                term.held += amount
            hold.nano += amount
            self.held_nano += amount
        return refused

    def settle(self, hold: Reservation, nano: int | None) -> Settled:
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
        if cost and hold.id:
            self._uncommitted[hold.id] = hold
        return settled

    def standing(self, owner: Owner, now_s: float) -> BudgetStatus:
        purse = self._purse(owner, now_s)
        budget, term = purse.budget, purse.term
        if budget is None:
            return BudgetStatus(term.spent, term.held, None, "total", None)
        ends_s = _ends_s(budget, term.first)
        return BudgetStatus(term.spent, term.held, budget.nano, budget.period, ends_s)

    def _purse(self, owner: Owner, now_s: float) -> _OwnerBudget:
        purse = self._purses.get(owner)
        if purse is None:
            purse = self._purses[owner] = _OwnerBudget(None, _Period(date.min), date.min)
        elif purse.budget is not None and purse.budget.period != "total":
            first = period_of(purse.budget, now_s)
            if first != purse.term.first:
                self._turn(owner, purse, first)
            elif self.behind:
                self.behind.discard(owner)
        return purse

    def _turn(self, owner: Owner, purse: _OwnerBudget, first: date) -> None:
        """Enter the period that begins on `first`, unless only the ledger knows what was spent in it."""
        known = purse.past.pop(first, None)
        if known is None and first <= purse.latest:
            self.behind.add(owner)
            return
        self.behind.discard(owner)
        purse.enter(known or _Period(first))


_BOUNDLESS = Room()


def _owners(key_id: str, account: str) -> tuple[Owner, Owner]:
    return ("key", key_id), ("account", account)


def _refusal(
    owners: Sequence[Owner],
    purses: Sequence[_OwnerBudget],
    terms: Sequence[_Period],
    amount: int,
    unknown: Collection[Owner] = (),
) -> BudgetRefusal | None:
    """Of the first owner whose budget does not hold so much more; nothing always fits."""
    if not amount:
        return None
    for owner, purse, term in zip(owners, purses, terms, strict=True):
        budget = purse.budget
        if budget is None:
            continue
        if owner in unknown or amount > term.left(budget):
            return BudgetRefusal(
                owner[0],
                amount,
                max(0, term.left(budget)),
                term.held,
                term.spent,
                budget.nano,
                budget.period,
                _ends_s(budget, term.first),
                owner in unknown,
            )
    return None
