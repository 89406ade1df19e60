"""Who may go on: limits and budgets of keys, asked before an upstream is, and settled once after.

The only place where policy/limits.py and policy/budgets.py meet the clock, the books and the keys.
Both live in this process's memory and are exact for one edge.  What was spent before comes from the
ledger at start; what the limits counted is forgotten by a restart.  What will surprise: a key and
its rotations are one payer.
"""

import time
from collections.abc import Iterable

import msgspec

from headgate.errors import Refused
from headgate.policy import budgets, limits
from headgate.policy.budgets import Budget, Budgets, Hold
from headgate.policy.keys import Key
from headgate.policy.limits import Admission, Limit, Limiter
from headgate.store.books import Books

# Of the output that a request allows, how much its tokens-a-minute limit reserves: clients ask for
# far more than they get, and what comes above it is charged at the end.
RESERVED_OUTPUT = 4096


class Ticket(msgspec.Struct, eq=False):
    admission: Admission
    hold: Hold


class Admissions:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._limiter = Limiter()
        self._budgets = Budgets({}, {}, time.time())
        self._known: dict[str, Budget | None] = {}  # by payer
        self._limits: dict[Key, tuple[Limit, ...]] = {}

    def load(self, keys: Iterable[Key]) -> None:
        """The keys as they are now; LedgerFault when the books cannot be read."""
        now_s = time.time()
        families: dict[str, list[Key]] = {}
        for key in keys:
            families.setdefault(key.payer, []).append(key)
        self._limits.clear()
        for payer, family in families.items():
            # A change of terms is written to all of a family (store/sqlite.py).
            budget = budgets.of_key(family[-1])
            if payer in self._known and self._known[payer] == budget:
                continue
            spent = self._spent(family, budget, now_s) if budget is not None else 0
            self._budgets.change(("key", payer), budget, spent, now_s)
            self._known[payer] = budget

    def _spent(self, family: list[Key], budget: Budget, now_s: float) -> int:
        ids = {key.id for key in family}
        since_s = budgets.begins_s(budget, now_s)
        if not since_s:
            return sum(b.spent_nano for b in self._books.balances() if b.key in ids)
        return sum(s.cost_nano for s in self._books.usage("key", since_s) if s.name in ids)

    def admit(self, key: Key, input: int, max_output: int | None, nano: int | None) -> Ticket:
        """Take from the limits and hold the most it may cost; Refused when there is too little."""
        tokens = input + min(max_output or RESERVED_OUTPUT, RESERVED_OUTPUT)
        taken = self._limiter.admit(key.payer, self._of(key), tokens, time.monotonic_ns())
        if isinstance(taken, limits.Refusal):
            raise Refused(taken.failure())
        hold = self._budgets.reserve(key.payer, nano, time.time())
        if isinstance(hold, budgets.Refusal):
            self._limiter.settle(taken, 0, time.monotonic_ns())
            raise Refused(hold.failure())
        return Ticket(taken, hold)

    def settle(self, ticket: Ticket, tokens: int, nano: int | None) -> None:
        """What the request took in the end; a second time changes nothing."""
        self._limiter.settle(ticket.admission, tokens, time.monotonic_ns())
        self._budgets.settle(ticket.hold, nano)

    def headers(self, key: Key, dialect: str) -> list[tuple[str, str]]:
        """What is left of the key's limits, in the words of the client's protocol."""
        mine = self._of(key)
        if not mine:
            return []
        standings = self._limiter.standings(key.payer, mine, time.monotonic_ns())
        return limits.headers(dialect, standings, time.time())

    def standing(self, key: Key) -> budgets.Standing:
        return self._budgets.standing(("key", key.payer), time.time())

    def _of(self, key: Key) -> tuple[Limit, ...]:
        found = self._limits.get(key)
        if found is None:
            found = self._limits[key] = limits.of_key(key)
        return found
