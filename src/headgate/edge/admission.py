"""Who may go on: limits and budgets of keys, asked before an upstream is, and settled once after.

The only place where policy/limits.py and policy/budgets.py meet the clock, the books and the keys.
Both live in this process's memory and are exact for one edge.  What was spent before comes from the
ledger at start; what the limits counted is forgotten by a restart.  What will surprise: a key and
its rotations are one payer, and what it spent before it came to its account is not the account's.
"""

import time
from collections.abc import Iterable
from datetime import date

import msgspec

from headgate.catalog.catalog import Model
from headgate.errors import Refused
from headgate.policy import budgets, limits
from headgate.policy.budgets import Budget, Budgets, Hold, Owner
from headgate.policy.keys import Account, Key
from headgate.policy.limits import Admission, Limit, Limiter
from headgate.policy.pricing import Tariff
from headgate.store.books import Books

# Of the output that a request allows, how much its tokens-a-minute limit reserves: clients ask for
# far more than they get, and what comes above it is charged at the end.
RESERVED_OUTPUT = 4096
MAX_TARIFFS = 256  # of a model, tier and day each; the days pass
_EPOCH = date(1970, 1, 1).toordinal()


class Ticket(msgspec.Struct, eq=False):
    admission: Admission | None  # None: the key has no limits
    hold: Hold


class Spent(msgspec.Struct, frozen=True):
    """What owners had spent of budgets that are new or have changed, when the books were asked."""

    at_s: float
    owners: list[tuple[Owner, Budget | None, int]]


class Admissions:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._limiter = Limiter()
        self._budgets = Budgets({}, {}, time.time())
        self._known: dict[Owner, Budget | None] = {}
        self._tariffs: dict[tuple[str, str, int], Tariff] = {}
        self._limits: dict[str, tuple[Key, tuple[Limit, ...]]] = {}  # by the key's id

    def load(self, keys: Iterable[Key], accounts: Iterable[Account] = ()) -> None:
        """The keys and accounts as they are now; LedgerFault when the books cannot be read."""
        self.apply(self.read(keys, accounts))

    def read(self, keys: Iterable[Key], accounts: Iterable[Account] = ()) -> Spent:
        """What those have spent whose budget has changed; may run in a thread.

        The books are asked once for each beginning of a period, however many keys there are.
        """
        now_s = time.time()
        found: dict[Owner, tuple[Budget | None, set[str]]] = {}
        # The last of a family counts: a change is written to all of it (store/sqlite.py).
        for key in keys:
            _, names = found.get(("key", key.payer), (None, set()))
            names.add(key.id)
            found["key", key.payer] = (budgets.written_on(key), names)
        for account in accounts:
            found["account", account.id] = (budgets.written_on(account), {account.id})
        fresh = {o: f for o, f in found.items() if o not in self._known or self._known[o] != f[0]}
        since = {
            (owner[0], budgets.begins_s(budget, now_s))
            for owner, (budget, _) in fresh.items()
            if budget is not None
        }
        sums = self._books.spent(since)
        spent: list[tuple[Owner, Budget | None, int]] = []
        for owner, (budget, names) in fresh.items():
            nano = 0
            if budget is not None:
                of = sums[owner[0], budgets.begins_s(budget, now_s)]
                nano = sum([of.get(name, 0) for name in names])
            spent.append((owner, budget, nano))
        return Spent(now_s, spent)

    def apply(self, spent: Spent) -> None:
        """Put changed budgets in force."""
        self._limits.clear()
        for owner, budget, nano in spent.owners:
            self._budgets.change(owner, budget, nano, spent.at_s)
            self._known[owner] = budget

    def admit(self, key: Key, input: int, max_output: int | None, nano: int | None) -> Ticket:
        """Take from the limits and hold the most it may cost; Refused when there is too little."""
        taken, mine = None, self._of(key)
        if mine:
            tokens = input + min(max_output or RESERVED_OUTPUT, RESERVED_OUTPUT)
            found = self._limiter.admit(key.payer, mine, tokens, time.monotonic_ns())
            if isinstance(found, limits.Refusal):
                raise Refused(found.failure())
            taken = found
        hold = self._budgets.reserve(key.payer, nano, time.time(), key.account)
        if isinstance(hold, budgets.Refusal):
            if taken is not None:
                self._limiter.settle(taken, 0, time.monotonic_ns())
            raise Refused(hold.failure())
        return Ticket(taken, hold)

    def settle(self, ticket: Ticket, tokens: int, nano: int | None) -> None:
        """What the request took in the end; a second time changes nothing."""
        if ticket.admission is not None:
            self._limiter.settle(ticket.admission, tokens, time.monotonic_ns())
        self._budgets.settle(ticket.hold, nano)

    def headers(self, key: Key, dialect: str) -> list[tuple[str, str]]:
        """What is left of the key's limits, in the words of the client's protocol."""
        mine = self._of(key)
        if not mine:
            return []
        standings = self._limiter.standings(key.payer, mine, time.monotonic_ns())
        return limits.headers(dialect, standings, time.time())

    def tariff(self, model: Model, service_tier: str, at_s: float) -> Tariff:
        """What the model costs on that day (Unix seconds), at that tier."""
        day = int(at_s // 86400)
        known = self._tariffs.get((model.id, service_tier, day))
        if known is None:
            if len(self._tariffs) >= MAX_TARIFFS:
                self._tariffs.clear()
            on = date.fromordinal(_EPOCH + day)
            known = Tariff(model.prices, service_tier, on)
            self._tariffs[model.id, service_tier, day] = known
        return known

    def standing(self, key: Key) -> budgets.Standing:
        return self._budgets.standing(("key", key.payer), time.time())

    def account_standing(self, key: Key) -> budgets.Standing | None:
        """That of the key's account; None when it has none."""
        if not key.account:
            return None
        return self._budgets.standing(("account", key.account), time.time())

    def _of(self, key: Key) -> tuple[Limit, ...]:
        found = self._limits.get(key.id)
        if found is None or found[0] is not key:  # a request may outlive its key's terms
            found = self._limits[key.id] = (key, limits.of_key(key))
        return found[1]
