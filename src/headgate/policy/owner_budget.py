"""One owner's budget: its periods and what is reserved in them."""

from datetime import date
from typing import Literal

import msgspec

from headgate.policy.key_terms import Period
from headgate.policy.periods import Budget

PAST_PERIODS = 4  # that an owner's clock may go back to without asking the ledger


What = Literal["key", "account"]
Owner = tuple[What, str]


class _Period(msgspec.Struct, eq=False):
    """Adds up one period of one owner.  Reservations keep theirs, also when the owner is in the next one."""

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


class OwnerBudget(msgspec.Struct, eq=False):
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


class BudgetStatus(msgspec.Struct, frozen=True, gc=False):
    """`limit_nano` None: no budget."""

    spent_nano: int
    held_nano: int  # in this period
    limit_nano: int | None
    period: Period
    resets_at_s: float | None


BOUNDLESS = Room()
