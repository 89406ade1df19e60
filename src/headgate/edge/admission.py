"""Who may go on: limits and budgets of keys, asked before an upstream is, and settled once after.

A request enters (rate and slot) before its body is read, is admitted (tokens and budget) once its
size is known, and is settled at its end.

The only place where policy/limits.py and policy/budgets.py meet the clock, the books and the keys.
Both live in this process's memory and are exact for one edge.  What was spent before comes from the
ledger at start, and when a clock goes back; what the limits counted is forgotten by a restart.
Note: a key and its rotations are one payer, and what it spent before it came to its account is not the account's.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import date

import msgspec

from headgate.catalog.catalog import Model
from headgate.edge.reads import Reads, unavailable
from headgate.errors import Refused
from headgate.policy import budgets, limits, reservations
from headgate.policy.budgets import Budget, Budgets, Owner, Reservation, Room
from headgate.policy.keys import Account, Key
from headgate.policy.limits import Admission, Limit, Limiter, Scope
from headgate.policy.pricing import Tariff
from headgate.policy.reservations import Grant, Outputs
from headgate.storage.sqlite.reports import END_OF_TIME_S, UsageReader

# Of the output that a request allows, how much its tokens-a-minute limit reserves: clients ask for
# far more than they get, and what comes above it is charged at the end.
RESERVED_OUTPUT = 4096
FOLLOW_AGAIN_S = 1.0  # after the ledger could not be read; who asks meanwhile is refused at once
MAX_TARIFFS = 256  # of a model, tier and day each; the days pass
_EPOCH = date(1970, 1, 1).toordinal()


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What one call of a model may take at most of its key's budget."""

    id: str  # of the exchange
    began_s: float
    model: str
    tariff: Tariff | None  # None: it costs nothing
    input: int  # the upper bound, in tokens
    asked: int | None  # the client's max_tokens
    most: int  # output tokens when nobody limits them


class Admitted(msgspec.Struct, eq=False):
    admission: Admission | None  # the request's place; None: the key has no limits
    hold: Reservation
    max_tokens: int | None = None  # what the budget pays for; None: all that the request allows


class Spent(msgspec.Struct, frozen=True):
    """What owners have spent of budgets that are new or have changed, as the ledger says it."""

    at_s: float
    owners: list[tuple[Owner, Budget | None, int]]  # nano-dollars, in the period of `at_s`
    recorded: set[str]  # the exchanges settled here lately whose rows are in these sums
    names: dict[Owner, set[str]] = {}  # of every owner in the ledger


class Admissions:
    def __init__(self, books: UsageReader, reads: Reads) -> None:
        self._books = books
        self._reads = reads
        self._following = asyncio.Lock()
        self._unread_s = -math.inf  # when the ledger could not be read, by the monotonic clock
        self._limiter = Limiter()
        self._budgets = Budgets({}, {}, time.time())
        self._outputs = Outputs()
        self._known: dict[Owner, Budget | None] = {}
        self._names: dict[Owner, set[str]] = {}  # of each owner in the ledger
        self._tariffs: dict[tuple[str, str, int], Tariff] = {}
        # By the key's id and what is asked for.
        self._limits: dict[tuple[str, Scope], tuple[Key, tuple[Limit, ...]]] = {}

    def load(self, keys: Iterable[Key], accounts: Iterable[Account] = ()) -> None:
        """The keys and accounts as they are now; LedgerFault when the books cannot be read."""
        with self.reading():
            self.apply(self.read(keys, accounts))

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Around `read` and `apply`: what the ledger commits meanwhile is neither missed nor counted twice."""
        self._budgets.begin_read()
        try:
            yield
        finally:
            self._budgets.end_read()

    def read(self, keys: Iterable[Key], accounts: Iterable[Account] = ()) -> Spent:
        """What those have spent whose budget has changed; may run in a thread, inside `reading`."""
        found: dict[Owner, Budget | None] = {}
        names: dict[Owner, set[str]] = {}
        # The last of a family counts: a change is written to all of it (storage/sqlite/database.py).
        for key in keys:
            names.setdefault(("key", key.payer), set()).add(key.id)
            found["key", key.payer] = budgets.written_on(key)
        for account in accounts:
            names["account", account.id] = {account.id}
            found["account", account.id] = budgets.written_on(account)
        fresh = {o: b for o, b in found.items() if o not in self._known or self._known[o] != b}
        return self._sums(fresh, names, time.time())

    def _sums(
        self, owners: Mapping[Owner, Budget | None], names: dict[Owner, set[str]], now_s: float
    ) -> Spent:
        """What the ledger says that each owner has spent of its budget in the period of `now_s`.

        The ledger is asked once for each beginning and end of a period, however many owners there are.
        """
        periods: dict[Owner, tuple[float, float]] = {}
        for owner, budget in owners.items():
            if budget is not None:
                until_s = budgets.ends_s(budget, now_s)
                periods[owner] = (budgets.begins_s(budget, now_s), until_s or END_OF_TIME_S)
        if not periods:
            return Spent(now_s, [(owner, None, 0) for owner in owners], set(), names)
        moments = {(owner[0], at_s) for owner, both in periods.items() for at_s in both}
        with self._books.snapshot():
            # Listed once the snapshot is there: so none that it holds is missing from the list.
            recorded = self._books.recorded(self._budgets.uncommitted())
            sums = self._books.spent(moments)
        spent: list[tuple[Owner, Budget | None, int]] = []
        for owner, budget in owners.items():
            nano = 0
            if owner in periods:
                since, until = (sums[owner[0], at_s] for at_s in periods[owner])
                nano = sum([since.get(n, 0) - until.get(n, 0) for n in names[owner]])
            spent.append((owner, budget, nano))
        return Spent(now_s, spent, recorded, names)

    def apply(self, spent: Spent) -> None:
        """Put changed budgets in force."""
        self._limits.clear()
        self._names = spent.names
        for owner, budget, nano in spent.owners:
            self._budgets.change(owner, budget, nano, spent.at_s, spent.recorded)
            self._known[owner] = budget

    def enter(self, key: Key, scope: Scope = "exchange") -> Admission | None:
        """Take the key's rate and a slot, before the request's body is read; Refused when there is none.

        What is taken must be left again, whatever becomes of the request; None: nothing is limited.
        """
        mine = self._of(key, scope)
        if not mine:
            return None
        found = self._limiter.enter(key.payer, mine, time.monotonic_ns())
        if isinstance(found, limits.LimitRefusal):
            raise Refused(found.failure())
        return found

    def leave(self, admission: Admission | None) -> None:
        """End what `enter` took, tokens included; nothing changes if it was settled before."""
        if admission is not None and not admission.settled:
            self._limiter.settle(admission, 0, time.monotonic_ns())

    async def admit(
        self,
        key: Key,
        admission: Admission | None,
        input: int,
        max_output: int | None,
        demand: Demand,
    ) -> Admitted:
        """Take the tokens and hold the most it may cost; Refused when there is too little.

        `admission` is what `enter` returned for this request; who is refused here must still leave.
        `input` is the estimate that a limit of tokens counts; `demand` has the bounds for budgets.
        It waits only for the ledger, after the clock was put back.
        """
        room = self._budgets.room(key.payer, demand.began_s, key.account)
        if room.unknown and demand.tariff is not None:
            await self.follow_clock(key, demand.began_s)
            room = self._budgets.room(key.payer, demand.began_s, key.account)
        if admission is not None:
            tokens = input + min(max_output or RESERVED_OUTPUT, RESERVED_OUTPUT)
            refusal = self._limiter.take(admission, tokens, time.monotonic_ns())
            if refusal is not None:
                raise Refused(refusal.failure())
        granted = self._granted(key, demand, room)
        hold = self._budgets.reserve(
            key.payer, granted.nano, demand.began_s, key.account, demand.id
        )
        if isinstance(hold, budgets.BudgetRefusal):
            self.leave(admission)
            raise Refused(hold.failure())
        return Admitted(admission, hold, granted.max_tokens)

    def extend(self, ticket: Admitted, key: Key, demand: Demand, spent_nano: int) -> Grant | None:
        """Reserve another call of the same exchange, whose calls so far cost `spent_nano`.

        None when the budget has no room for it; nothing is changed then.
        """
        hold = ticket.hold
        room = self._budgets.room(key.payer, demand.began_s, key.account)
        if room.unknown and demand.tariff is not None:
            return None
        if room.left_nano is not None and room.unspent_nano is not None:
            # What was reserved and is not needed any more pays for the other call.
            left = room.left_nano + hold.nano - spent_nano
            room = Room(left, room.unspent_nano - spent_nano)
        granted = self._granted(key, demand, room)
        more = spent_nano + (granted.nano or 0) - hold.nano
        return None if self._budgets.extend(hold, more) else granted

    def _granted(self, key: Key, demand: Demand, room: Room) -> Grant:
        if demand.tariff is None:
            return Grant(0)
        usual = self._outputs.usual(key.payer, demand.model)
        return reservations.grant(
            demand.tariff, demand.input, demand.asked, demand.most, usual, room
        )

    async def follow_clock(self, key: Key, now_s: float) -> None:
        """Have what was spent of the key's budgets in the period of now; Refused when it cannot be read.

        The ledger is asked, once for all who wait, when the clock went to a period of which nothing
        is known here.
        """
        async with self._following:
            if not self._budgets.room(key.payer, now_s, key.account).unknown:
                return
            if time.monotonic() < self._unread_s + FOLLOW_AGAIN_S:
                raise unavailable()
            behind = {owner: self._known.get(owner) for owner in self._budgets.behind}
            names = self._names
            with self.reading():
                try:
                    spent = await self._reads(lambda: self._sums(behind, names, now_s))
                except Refused:
                    self._unread_s = time.monotonic()
                    raise
                for owner, budget, nano in spent.owners:
                    if self._known.get(owner) == budget:  # else it was changed meanwhile
                        self._budgets.follow(owner, nano, now_s, spent.recorded)

    def settle(self, ticket: Admitted, tokens: int, nano: int | None) -> None:
        """What the request took in the end; a second time changes nothing."""
        if ticket.admission is not None:
            self._limiter.settle(ticket.admission, tokens, time.monotonic_ns())
        self._budgets.settle(ticket.hold, nano)

    def committed(self, id: str) -> None:
        """The ledger has the row of this exchange."""
        self._budgets.committed(id)

    def replied(self, key: Key, model: str, output: int) -> None:
        """Learn how long a reply was that came to its end."""
        self._outputs.learn(key.payer, model, output)

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

    def standing(self, key: Key) -> budgets.BudgetStatus:
        return self._budgets.standing(("key", key.payer), time.time())

    def account_standing(self, key: Key) -> budgets.BudgetStatus | None:
        """That of the key's account; None when it has none."""
        if not key.account:
            return None
        return self._budgets.standing(("account", key.account), time.time())

    def _of(self, key: Key, scope: Scope = "exchange") -> tuple[Limit, ...]:
        found = self._limits.get((key.id, scope))
        if found is None or found[0] is not key:  # a request may outlive its key's terms
            found = self._limits[key.id, scope] = (key, limits.of_key(key, scope))
        return found[1]
