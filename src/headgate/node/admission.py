"""Who may go on: limits and budgets of keys, asked before an upstream is, and settled once after.

A request enters (rate and slot) before its body is read, is admitted (tokens and budget) once its
size is known, and is settled at its end.  This is the only place where policy/limits.py and
policy/budgets.py meet the clock, the ledger and the keys.  Both live in the memory of the node and are
exact for all its edges; with `database` they are leased, and exact for all nodes (leasing.py, shared_limits.py).

Note: what was spent before comes from the ledger at start, and when a clock goes back; what the limits
counted is handed over to the next node (handover.py), and forgotten when this one is killed.  A key and its rotations are one owner, and what it spent before it
came to its account is not the account's.
"""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from headgate.errors import Failure
from headgate.node import shared_limits
from headgate.node.leasing import Leasing, Waiting
from headgate.node.shared_limits import SharedAdmission
from headgate.node.wire import Bounds
from headgate.policy import budget_refusal, owner_budget, periods, reservations
from headgate.policy.budgets import Budgets
from headgate.policy.keys import Account, Key
from headgate.policy.limit_headers import LimitStatus
from headgate.policy.limit_kinds import Limit
from headgate.policy.limits import BucketLevel, LimitAdmission, Limiter, LimitRefusal
from headgate.policy.owner_budget import Owner, Reservation, Room
from headgate.policy.periods import Budget
from headgate.policy.pricing import Tariff
from headgate.policy.reservations import Grant, Outputs
from headgate.storage.errors import LedgerFault
from headgate.storage.figures import END_OF_TIME_S
from headgate.storage.interface import OwnReports

FOLLOW_AGAIN_S = 1.0  # after the ledger could not be read; who asks meanwhile is refused at once


Place = LimitAdmission | SharedAdmission  # of this node alone, or over all nodes


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What one exchange may take at most of its key's budget."""

    id: str
    owner: str
    account: str
    model: str
    began_s: float
    nano: int | None  # as it was sent; None: nobody knows
    bounds: Bounds | None = None  # None: no budget was known where it came from


class Admitted(msgspec.Struct, eq=False):
    demand: Demand
    admission: Place | None  # the request's place; None: the key has no limits
    hold: Reservation
    max_tokens: int | None = None  # what the budget pays for; None: all that the request allows
    limits: tuple[Limit, ...] = ()  # that it has entered with


class Spent(msgspec.Struct, frozen=True):
    """What owners have spent of budgets that are new or have changed, as the ledger says it."""

    at_s: float
    owners: list[tuple[Owner, Budget | None, int]]  # nano-dollars, in the period of `at_s`
    recorded: set[str]  # the exchanges settled here lately whose rows are in these sums
    names: dict[Owner, set[str]] = {}  # of every owner in the ledger


class Admissions:
    def __init__(self, ledger_reports: OwnReports, leasing: Leasing | None = None) -> None:
        """`leasing`: budgets are shared with other nodes; None: this node has them for itself."""
        self._ledger_reports = ledger_reports
        self._leasing = leasing
        self._limiter = Limiter()
        self._unread_s = -math.inf  # when the ledger could not be read, by the monotonic clock
        self._budgets = Budgets({}, {}, time.time())
        if leasing is not None:
            leasing.budgets = self._budgets
        self._outputs = Outputs()
        self._known: dict[Owner, Budget | None] = {}
        self._names: dict[Owner, set[str]] = {}  # of each owner in the ledger

    def handed_over(self) -> tuple[list[BucketLevel], list[tuple[str, str, float]]]:
        """What the limits have counted, and how long replies were: the ledger does not know it."""
        return self._limiter.levels(time.monotonic_ns()), self._outputs.known()

    def take_over(self, levels: list[BucketLevel], outputs: list[tuple[str, str, float]]) -> None:
        """Go on with what another node has counted."""
        self._limiter.restore(levels)
        self._outputs.restore(outputs)

    def load(self, keys: Iterable[Key], accounts: Iterable[Account] = ()) -> None:
        """The keys and accounts as they are now; LedgerFault when the database cannot be read."""
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
            names.setdefault(("key", key.owner), set()).add(key.id)
            found["key", key.owner] = periods.written_on(key)
        for account in accounts:
            names["account", account.id] = {account.id}
            found["account", account.id] = periods.written_on(account)
        fresh = {o: b for o, b in found.items() if o not in self._known or self._known[o] != b}
        return self._sums(fresh, names, time.time())

    def _sums(
        self, owners: Mapping[Owner, Budget | None], names: dict[Owner, set[str]], now_s: float
    ) -> Spent:
        """What the ledger says that each owner has spent of its budget in the period of `now_s`.

        The ledger is asked once for each beginning and end of a period, however many owners there are.
        """
        spans: dict[Owner, tuple[float, float]] = {}
        for owner, budget in owners.items():
            if budget is not None:
                until_s = periods.ends_s(budget, now_s)
                spans[owner] = (periods.begins_s(budget, now_s), until_s or END_OF_TIME_S)
        if not spans:
            return Spent(now_s, [(owner, None, 0) for owner in owners], set(), names)
        moments = {(owner[0], at_s) for owner, both in spans.items() for at_s in both}
        with self._ledger_reports.snapshot():
            # Listed once the snapshot is there: so none that it holds is missing from the list.
            recorded = self._ledger_reports.recorded(self._budgets.uncommitted())
            sums = self._ledger_reports.spent(moments)
        spent: list[tuple[Owner, Budget | None, int]] = []
        for owner, budget in owners.items():
            nano = 0
            if owner in spans:
                since, until = (sums[owner[0], at_s] for at_s in spans[owner])
                nano = sum([since.get(n, 0) - until.get(n, 0) for n in names[owner]])
            spent.append((owner, budget, nano))
        return Spent(now_s, spent, recorded, names)

    def apply(self, spent: Spent) -> None:
        """Put changed budgets in force."""
        self._names = spent.names
        for owner, budget, nano in spent.owners:
            self._budgets.change(owner, budget, nano, spent.at_s, spent.recorded)
            self._known[owner] = budget
        if self._leasing is not None and spent.owners:
            self._leasing.rescan()

    def enter(
        self, owner: str, mine: tuple[Limit, ...], request: str = "", waited_s: float = 0.0
    ) -> Place | LimitRefusal | Failure | Waiting:
        """Take the rate and a slot of these limits; what is taken must be left again.

        Waiting: nothing was taken, and the limits have to be drawn first; `request` then comes back.
        """
        now_ns = time.monotonic_ns()
        if self._leasing is None or not shared_limits.is_shared(mine):
            return self._limiter.enter(owner, mine, now_ns)
        return self._leasing.limits.enter(request, owner, mine, now_ns, waited_s) or Waiting()

    def resume(self, owner: str, mine: tuple[Limit, ...]) -> Place:
        """The place of a request that another node let in: its slots count, its rate does not."""
        if self._leasing is None or not shared_limits.is_shared(mine):
            return self._limiter.resume(owner, mine)
        return self._leasing.limits.resume(owner, mine, time.monotonic_ns())

    def leave(self, admission: Place | None) -> None:
        """End what `enter` took, tokens included; nothing changes if it was settled before."""
        if admission is not None:
            self._end(admission, 0)

    def _end(self, admission: Place, tokens: int) -> None:
        if not isinstance(admission, SharedAdmission):
            self._limiter.settle(admission, tokens, time.monotonic_ns())
        elif self._leasing is not None:
            self._leasing.limits.settle(admission, tokens)

    def _take(
        self, place: Place, demand: Demand, tokens: int, waited_s: float
    ) -> Failure | Waiting | None:
        now_ns = time.monotonic_ns()
        if isinstance(place, SharedAdmission):
            assert self._leasing is not None
            taken = self._leasing.limits.take(place, demand.id, tokens, now_ns, waited_s)
            if isinstance(taken, bool):
                return None if taken else Waiting()
            return taken.failure() if isinstance(taken, LimitRefusal) else taken
        refusal = self._limiter.take(place, tokens, now_ns)
        return None if refusal is None else refusal.failure()

    def admit(
        self, demand: Demand, admission: Place | None, tokens: int, waited_s: float = 0.0
    ) -> Admitted | Failure | Waiting:
        """Take the tokens and hold the most it may cost; who is refused has left.

        `admission` is what `enter` returned for this request; `tokens` is the estimate that a limit
        of tokens counts.  Waiting: nothing was taken, and the budget or tokens have to be leased
        first; `waited_s` is for how long the request has come back for that.
        """
        if self._leasing is not None:
            early = self._leased(self._leasing, demand, waited_s)
            if early is not None:
                if isinstance(early, Failure):
                    self.leave(admission)
                return early
        if admission is not None:
            refusal = self._take(admission, demand, tokens, waited_s)
            if isinstance(refusal, Failure):
                self.leave(admission)
            if refusal is not None:
                return refusal
        granted = self._granted(demand, self._room(demand))
        hold = self._budgets.reserve(
            demand.owner, granted.nano, demand.began_s, demand.account, demand.id
        )
        if isinstance(hold, budget_refusal.BudgetRefusal):
            self.leave(admission)
            if self._leasing is not None:
                owner = (hold.what, demand.owner if hold.what == "key" else demand.account)
                hold = self._leasing.explained(hold, owner, demand.began_s)
            return hold.failure()
        return Admitted(demand, admission, hold, granted.max_tokens)

    def _leased(
        self, leasing: Leasing, demand: Demand, waited_s: float
    ) -> Failure | Waiting | None:
        nano = max(0, demand.nano or 0)
        if nano:
            self._room(demand)  # where the clock went to another period, the ledger is asked first
        owners: tuple[Owner, ...] = (("key", demand.owner), ("account", demand.account))
        found = [
            leasing.check(owner, demand.id, nano, demand.began_s, waited_s) for owner in owners
        ]
        refused = [each for each in found if isinstance(each, Failure)]
        return refused[0] if refused else next((each for each in found if each is not None), None)

    def held_before(self, demand: Demand, nano: int) -> Admitted:
        """The reservation of an exchange that another node has admitted: it is held in any case."""
        hold = self._budgets.hold(demand.owner, nano, demand.began_s, demand.account, demand.id)
        return Admitted(demand, None, hold)

    def extend(self, ticket: Admitted, demand: Demand, spent_nano: int) -> Grant | None:
        """Reserve another call of the same exchange, whose calls so far cost `spent_nano`.

        None when the budget has no room for it; nothing is changed then.
        """
        if self._leasing is not None:  # its lease may have ended meanwhile
            for owner in ticket.hold.owners:
                self._leasing.check(owner, demand.id, 0, demand.began_s, 0.0)
        hold, room = ticket.hold, self._room(demand)
        if room.unknown and demand.nano != 0:
            return None
        if room.left_nano is not None and room.unspent_nano is not None:
            # What was reserved and is not needed any more pays for the other call.
            left = room.left_nano + hold.nano - spent_nano
            room = Room(left, room.unspent_nano - spent_nano)
        granted = self._granted(demand, room)
        more = spent_nano + (granted.nano or 0) - hold.nano
        return None if self._budgets.extend(hold, more) else granted

    def _granted(self, demand: Demand, room: Room) -> Grant:
        bounds = demand.bounds
        if bounds is None or room.left_nano is None or room.unknown:
            return Grant(demand.nano)
        tariff = Tariff.of_tiers(bounds.tiers)
        usual = self._outputs.usual(demand.owner, demand.model)
        return reservations.grant(tariff, bounds.input, bounds.asked, bounds.most, usual, room)

    def _room(self, demand: Demand) -> Room:
        room = self._budgets.room(demand.owner, demand.began_s, demand.account)
        if room.unknown and demand.nano != 0:
            self.follow_clock(demand.began_s)
            room = self._budgets.room(demand.owner, demand.began_s, demand.account)
        return room

    def follow_clock(self, now_s: float) -> None:
        """Read what was spent in the period of now, where a clock went to one that only the ledger knows.

        Until it can be read, whatever costs something is refused.  Note: this reads on the node's loop,
        as a clock rarely jumps and every message after it needs the answer.
        """
        if not self._budgets.behind or time.monotonic() < self._unread_s + FOLLOW_AGAIN_S:
            return
        behind = {owner: self._known.get(owner) for owner in self._budgets.behind}
        with self.reading():
            try:
                spent = self._sums(behind, self._names, now_s)
            except LedgerFault:
                self._unread_s = time.monotonic()
                return
            for owner, _, nano in spent.owners:
                self._budgets.follow(owner, nano, now_s, spent.recorded)

    def settle(self, ticket: Admitted, tokens: int, nano: int | None) -> None:
        """What the request took in the end; a second time changes nothing."""
        if ticket.admission is not None:
            self._end(ticket.admission, tokens)
        self._budgets.settle(ticket.hold, nano)

    def committed(self, id: str) -> None:
        """The ledger has the row of this exchange."""
        self._budgets.committed(id)

    def replied(self, owner: str, model: str, output: int) -> None:
        """Learn how long a reply was that came to its end."""
        self._outputs.learn(owner, model, output)

    def standings(self, owner: str, mine: tuple[Limit, ...]) -> dict[str, LimitStatus]:
        """What is left of these limits, by the word of its header."""
        if self._leasing is None or not shared_limits.is_shared(mine):
            return self._limiter.standings(owner, mine, time.monotonic_ns())
        return self._leasing.limits.standings(owner, mine, time.monotonic_ns())

    def standing(self, owner: Owner) -> owner_budget.BudgetStatus:
        now_s = time.time()
        found = self._budgets.standing(owner, now_s)
        if self._budgets.behind:
            self.follow_clock(now_s)
            found = self._budgets.standing(owner, now_s)
        if self._leasing is not None:
            more = self._leasing.others_spent(owner, now_s)
            found = msgspec.structs.replace(found, spent_nano=found.spent_nano + more)
        return found
