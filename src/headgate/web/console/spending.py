"""What keys and accounts have spent of their budgets, for the pages.

The only place of the console that sets a budget against the ledger.  Note: a budget is a
key's with all of its rotations, and counts what it spent as another account's too, as the gateway
does; so these sums are not narrowed to an account, the keys that are shown are.
"""

from collections.abc import Iterable

from headgate.policy import periods
from headgate.policy.budgets import Budgets
from headgate.policy.keys import Account, Key
from headgate.policy.owner_budget import BudgetStatus, What
from headgate.policy.periods import Budget
from headgate.storage.figures import Balance
from headgate.storage.interface import Reports


class Spending:
    """Asks the ledger at most once for each beginning of a period, however many keys there are."""

    def __init__(self, ledger_reports: Reports, now_s: float) -> None:
        self._ledger_reports = ledger_reports
        self._now_s = now_s
        self._sums: dict[tuple[What, float], dict[str, int]] = {}
        self._balances: list[Balance] | None = None
        self._ever: dict[tuple[What, str], tuple[int, int, int]] = {}

    def standing(self, what: What, ids: Iterable[str], owner: Key | Account) -> BudgetStatus:
        """Of the owner's budget, or of all time where there is none; `ids`: who spends from it."""
        budget = periods.written_on(owner)
        spent = self._spent(what, ids, budget)
        if budget is None:
            return BudgetStatus(spent, 0, None, "total", None)
        mine = (what, owner.id)
        return Budgets({mine: budget}, {mine: spent}, self._now_s).standing(mine, self._now_s)

    def ever(self, what: What, id: str) -> tuple[int, int, int]:
        """Requests, those without a price, nano-dollars, since ever."""
        if not self._ever:
            for b in self._all():
                owners: tuple[tuple[What, str], ...] = (("key", b.key_id), ("account", b.account))
                for owner in owners:
                    requests, unpriced, nano = self._ever.get(owner, (0, 0, 0))
                    sums = (requests + b.requests, unpriced + b.unpriced, nano + b.spent_nano_usd)
                    self._ever[owner] = sums
        return self._ever.get((what, id), (0, 0, 0))

    def _all(self) -> list[Balance]:
        if self._balances is None:
            self._balances = self._ledger_reports.balances()
        return self._balances

    def _spent(self, what: What, ids: Iterable[str], budget: Budget | None) -> int:
        since_s = 0.0 if budget is None else periods.begins_s(budget, self._now_s)
        if (what, since_s) not in self._sums:
            sums = self._sums[what, since_s] = {}
            if since_s:
                sums |= self._ledger_reports.spent([(what, since_s)])[what, since_s]
            else:  # kept by key and account already
                for b in self._all():
                    id = b.key_id if what == "key" else b.account
                    sums[id] = sums.get(id, 0) + b.spent_nano_usd
        found = self._sums[what, since_s]
        return sum(found.get(id, 0) for id in ids)
