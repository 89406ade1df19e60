"""The node's leases of budgets and limits that it shares with other nodes (`database`): who asks and waits.

Decisions about budgets are in policy/leases.py, those about limits in shared_limits.py; here they meet the
database and the clock.  Asks of one turn travel together, and one transaction is under way at a time.

Note: when the database is away, requests go on inside what is leased, and then get 503.
"""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable
from itertools import islice

import msgspec

from headgate.errors import Failure
from headgate.node.shared_limits import SharedLimiter
from headgate.policy import periods
from headgate.policy.budget_refusal import BudgetRefusal
from headgate.policy.budgets import Budgets
from headgate.policy.leases import Ask, LeaseId, Leases
from headgate.policy.owner_budget import Owner, PeriodView
from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres import limits as shared_limits
from headgate.storage.postgres.database import Connection
from headgate.storage.postgres.leases import CHANNEL, Replaced, draw, prune, register

TICK_S = 0.25  # between two looks at leases that no request waits for
GAP_S = 0.01  # between two transactions
BATCH = 200  # asks of one transaction
REFILL = 4  # a lease that pays for fewer requests like this one is looked at at once
WAIT_S = 0.5  # a request waits at most so long for money of other nodes
KNOWN = 10_000  # leases of which more is known than that nothing is leased
PRUNE_S = 3600.0
AGAIN_S = (0.1, 0.3, 1.0)  # after failures in a row
AWAY_RETRY_S = 5.0
SLOW_S = 1.0  # the database is away when it has not answered for so long
LOOK_S = 5.0  # between two looks at which nodes live


class Waiting(msgspec.Struct, frozen=True):
    """The request is to be sent again in a moment: the database has been asked."""


def lease_id(view: PeriodView) -> LeaseId:
    budget = view.budget
    period = f"{budget.period} {budget.zone} {view.first.isoformat()}"
    return LeaseId(*view.owner, period)


class Leasing:
    """Draws and returns the leases of one node, over its connection to the database."""

    def __init__(self, url: str, node_id: str, report: Callable[[str], None]) -> None:
        """`report` is given a line when the database goes away and when it is back."""
        self.budgets: Budgets | None = None  # of the Admissions
        self._url = url
        self._node_id = node_id
        self._report = report
        self._leases = Leases()
        self._db: Connection | None = None
        self._away = False
        self._woken = asyncio.Event()
        self._needs: dict[LeaseId, dict[str, int]] = {}  # of requests that wait, by their ids
        self._busy: dict[LeaseId, Owner] = {}  # that are looked at in each turn
        self._began: dict[LeaseId, float] = {}  # when the last request began that waits
        self._process = secrets.token_hex(8)
        self._registered = self._scanned = False
        self._pruned_s = self._looked_s = -1e9
        self._sent_s = math.inf  # when what is under way was sent
        self.limits = SharedLimiter(self._woken.set, self._is_away)

    # --- requests

    def check(
        self, owner: Owner, id: str, nano: int, began_s: float, waited_s: float
    ) -> Waiting | Failure | None:
        """Whether the node has enough of the owner's budget; None: it has, or nobody has.

        The budget then holds no more than the lease.
        """
        assert self.budgets is not None
        view = self.budgets.view(owner, began_s)
        if view is None:
            return None
        now_s = time.monotonic()
        lease = lease_id(view)
        most = self._leases.limit(lease, view.used, now_s)
        self.budgets.lease(view, most)
        if not nano:
            return None
        left = most - view.used
        if nano <= left:
            self._leases.requested(lease, nano, now_s)
            self._busy[lease] = owner
            if left < REFILL * nano:
                self._woken.set()
            return None
        if nano > view.budget.nano or self._leases.hopeless(lease, nano, left, now_s):
            return None
        if self._is_away():
            return _away(owner)
        if waited_s < WAIT_S:
            self._busy[lease], self._began[lease] = owner, began_s
            self._needs.setdefault(lease, {})[id] = nano
            self._woken.set()
            return Waiting()
        found = self._leases.lease(lease)
        if found.heard_s < now_s - WAIT_S or found.answer is None or found.answer.limit is None:
            return _away(owner)
        return None

    def explained(self, refusal: BudgetRefusal, owner: Owner, now_s: float) -> BudgetRefusal:
        """The refusal with what all nodes have spent and reserved."""
        assert self.budgets is not None
        view = self.budgets.view(owner, now_s)
        answer = self._leases.lease(lease_id(view)).answer if view is not None else None
        if view is None or answer is None or refusal.unknown:
            return refusal
        held = view.held + answer.others_held
        spent = view.spent + answer.others_spent
        left = max(0, refusal.limit_nano - held - spent)
        return msgspec.structs.replace(refusal, left_nano=left, held_nano=held, spent_nano=spent)

    def others_spent(self, owner: Owner, now_s: float) -> int:
        """What other nodes have spent of the budget, as the database last said."""
        assert self.budgets is not None
        view = self.budgets.view(owner, now_s)
        answer = self._leases.lease(lease_id(view)).answer if view is not None else None
        return answer.others_spent if answer is not None else 0

    def _is_away(self) -> bool:
        """Whether the database cannot be asked now."""
        return self._away or time.monotonic() > self._sent_s + SLOW_S

    def rescan(self) -> None:
        """Look at all budgets: keys have changed."""
        self._scanned = False
        self._woken.set()

    # --- the database

    async def work(self) -> float:
        """Ask for what is needed, and wait until something is; StoreError."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), TICK_S)
        self._woken.clear()
        self._sent_s = time.monotonic()
        try:
            with database.faults(self._url):
                await self._ask()
        except StoreError as error:
            if isinstance(error, Replaced):
                self._leases.end()
                self.limits.end()
            self.limits.failed()
            await self.close()
            if not self._away:
                self._away = True
                self._report(f"budgets and limits go on inside what is leased, for now: {error}")
            raise
        finally:
            self._sent_s = math.inf
        if self._away:
            self._away = False
            self._report("budgets and limits are leased from the database again.")
        return GAP_S

    async def _ask(self) -> None:
        db = self._db
        if db is None or db.is_closed():
            db = self._db = await database.connect(self._url)
            await db.add_listener(CHANNEL, self._recalled)
            if not self._registered:
                await register(db, self._node_id, self._process)
                self._registered = True
        now_s = time.monotonic()
        if now_s > self._pruned_s + PRUNE_S:
            await prune(db)
            await shared_limits.prune(db)
            self._pruned_s = now_s
        await self._draw_limits(db)
        asks = iter(self._asks())
        while batch := list(islice(asks, BATCH)):
            sent_s = time.monotonic()
            answers = await draw(db, self._node_id, self._process, batch)
            heard_s = time.monotonic()
            for ask, answer in zip(batch, answers, strict=True):
                self._leases.answered(ask, answer, sent_s, heard_s)

    async def _draw_limits(self, db: Connection) -> None:
        sent_s, sent_ns = time.monotonic(), time.monotonic_ns()
        asks = self.limits.asks(sent_ns)
        if not asks.rates and not asks.slots and sent_s < self._looked_s + LOOK_S:
            return
        self._looked_s = sent_s
        found = await shared_limits.draw(db, self._node_id, self._process, asks.rates, asks.slots)
        self.limits.answered(found, sent_ns, time.monotonic_ns())

    def _recalled(self, _: object, __: int, ___: str, payload: str) -> None:
        what, _space, owner = payload.partition(" ")
        if what == "slots":
            self.limits.recalled(owner, time.monotonic_ns())
        self._leases.recalled(what, owner, time.monotonic())
        self._woken.set()

    def _asks(self) -> list[Ask]:
        """What is needed now: for requests that wait, and for leases that are too large or too small."""
        assert self.budgets is not None
        now_s, wall_s = time.monotonic(), time.time()
        needs, self._needs = self._needs, {}
        if not self._scanned:
            self._scanned = True
            self._scan(wall_s)
        out: list[Ask] = []
        for id, owner in list(self._busy.items()):
            # A request that waits may have begun in the period before.
            at_s = self._began.pop(id, wall_s) if id in needs else wall_s
            view = self.budgets.view(owner, at_s)
            if view is None or lease_id(view) != id:
                del self._busy[id]
                continue
            lease = self._leases.lease(id)
            waiting = sum(needs[id].values()) if id in needs else 0
            need = view.used + waiting
            due = self._leases.due(lease, view.used, now_s)
            if not waiting and due is None:
                if lease.granted == view.used and not view.held:
                    del self._busy[id]  # all is spent or given back, until its next request
                continue
            if waiting:
                want = max(need, self._leases.target(lease, need, now_s), lease.granted)
            else:
                want = due if due is not None else need
            budget = view.budget
            out.append(
                Ask(
                    id,
                    view.used,
                    view.spent,
                    need,
                    want,
                    budget.period,
                    budget.zone,
                    periods.begins_s(budget, at_s),
                    periods.ends_s(budget, at_s),
                )
            )
            # At once, and not when it is sent: what is given back may be another node's by then.
            self._leases.asking(out[-1])
        if len(self._leases) > KNOWN:
            self._leases.forget(set(self._busy))
        return out

    def _scan(self, wall_s: float) -> None:
        """Find the budgets of which something is spent, so that other nodes hear of it."""
        assert self.budgets is not None
        for owner in self.budgets.budgeted():
            view = self.budgets.view(owner, wall_s)
            if view is not None and view.used:
                self._busy.setdefault(lease_id(view), owner)

    async def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.terminate()


def _away(owner: Owner) -> Failure:
    return Failure(
        "unavailable",
        f"The budget of this {owner[0]} is shared by several gateways, and their database cannot be"
        " reached now; try again shortly.",
        code="storage_unavailable",
        retry_after_s=AWAY_RETRY_S,
        should_retry=True,
    )
