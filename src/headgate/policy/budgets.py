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

from collections.abc import Collection, Mapping
from datetime import date

from headgate.policy.budget_refusal import BudgetRefusal, _refusal
from headgate.policy.owner_budget import (
    BOUNDLESS,
    BudgetStatus,
    Owner,
    OwnerBudget,
    PeriodView,
    Reservation,
    Room,
    Settled,
    _Period,
)
from headgate.policy.periods import Budget, end_of, period_of


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
        self._purses: dict[Owner, OwnerBudget] = {
            owner: OwnerBudget(budget, _Period(first, spent.get(owner, 0)), first)
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
        spending_of = self._spending_of(owner, now_s)
        old, spending_of.budget = spending_of.budget, budget
        if budget is None or (old and (old.period, old.zone) == (budget.period, budget.zone)):
            return
        # The requests that run may have begun before the new period: counted, to be on the safe side.
        spending_of.term.first = spending_of.latest = period_of(budget, now_s)
        spending_of.term.spent = spent_nano + self._missing(
            owner, budget, spending_of.term.first, recorded
        )
        spending_of.term.lease = None  # of another budget
        spending_of.past = {}
        self.behind.discard(owner)

    def follow(
        self, owner: Owner, spent_nano: int, now_s: float, recorded: Collection[str] = ()
    ) -> None:
        """Enter the period of `now_s`, of which the ledger says `spent_nano`; as in `change`."""
        self.behind.discard(owner)
        spending_of = self._purses.get(owner)
        if spending_of is None or spending_of.budget is None:
            return
        first = period_of(spending_of.budget, now_s)
        if first != spending_of.term.first:
            spending_of.enter(_Period(first))
        spending_of.term.spent = spent_nano + self._missing(
            owner, spending_of.budget, first, recorded
        )

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
            spending_of = self._spending_of(owner, now_s)
            if spending_of.budget is not None:
                unknown = unknown or owner in self.behind
                mine = spending_of.budget.nano - spending_of.term.spent
                unspent = mine if unspent is None else min(unspent, mine)
                mine = spending_of.term.left(spending_of.budget)
                left = mine if left is None else min(left, mine)
        return BOUNDLESS if left is None else Room(left, unspent, unknown)

    def view(self, owner: Owner, now_s: float) -> PeriodView | None:
        """Return the period of `now_s`; None without a budget, and while only the ledger knows it."""
        spending_of = self._spending_of(owner, now_s)
        if spending_of.budget is None or owner in self.behind:
            return None
        term = spending_of.term
        return PeriodView(owner, spending_of.budget, term.first, term.spent, term.held)

    def budgeted(self) -> list[Owner]:
        """The owners that have a budget."""
        return [
            owner for owner, spending_of in self._purses.items() if spending_of.budget is not None
        ]

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
        purses = [self._spending_of(owner, now_s) for owner in owners]
        terms = tuple([spending_of.term for spending_of in purses])
        refused = _refusal(owners, purses, terms, amount, self.behind)
        if refused is not None:
            return refused
        return self.hold(key_id, amount, now_s, account, id)

    def hold(
        self, key_id: str, nano: int, now_s: float, account: str = "", id: str = ""
    ) -> Reservation:
        """Hold an amount that was reserved before, by a process that is no more, whatever is left."""
        owners = _owners(key_id, account)
        terms = tuple([self._spending_of(owner, now_s).term for owner in owners])
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
        spending_of = self._spending_of(owner, now_s)
        budget, term = spending_of.budget, spending_of.term
        if budget is None:
            return BudgetStatus(term.spent, term.held, None, "total", None)
        ends_s = end_of(budget, term.first)
        return BudgetStatus(term.spent, term.held, budget.nano, budget.period, ends_s)

    def _spending_of(self, owner: Owner, now_s: float) -> OwnerBudget:
        spending_of = self._purses.get(owner)
        if spending_of is None:
            spending_of = self._purses[owner] = OwnerBudget(None, _Period(date.min), date.min)
        elif spending_of.budget is not None and spending_of.budget.period != "total":
            first = period_of(spending_of.budget, now_s)
            if first != spending_of.term.first:
                self._turn(owner, spending_of, first)
            elif self.behind:
                self.behind.discard(owner)
        return spending_of

    def _turn(self, owner: Owner, spending_of: OwnerBudget, first: date) -> None:
        """Enter the period that begins on `first`, unless only the ledger knows what was spent in it."""
        known = spending_of.past.pop(first, None)
        if known is None and first <= spending_of.latest:
            self.behind.add(owner)
            return
        self.behind.discard(owner)
        spending_of.enter(known or _Period(first))


def _owners(key_id: str, account: str) -> tuple[Owner, Owner]:
    return ("key", key_id), ("account", account)
