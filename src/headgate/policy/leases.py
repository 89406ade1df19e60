"""Leases: how nodes that share budgets through one database spend from them, never too much together.

For one budget in one period, every node has a lease: the most that it may have spent and reserved.

    at every moment, for each node:   spent + reserved <= lease
    in the database:                  sum of the leases <= budget

A lease counts everything since the period began, also what is spent.  So an ask names a whole amount, and may
be repeated after a connection broke.  `grant` is the database's rule and `Leases` is the node's side.

Note: a lease only shrinks when its node asks for less, which it does after it has lowered its own.  A node
that was killed has its lease until it is back, or until it is forgotten (`headgate nodes forget`).
"""

from collections.abc import Iterator

import msgspec

LEASE_S = 60.0  # without an answer of the database a lease ends; by the node's monotonic clock
EARLY_S = 2.0  # a node stops so long before that
AHEAD_S = 5.0  # of what an owner spends is leased ahead
TIMES = 4  # while less than that is left, in requests like the last one, each asks for itself
REQUESTS = 150  # a lease pays for so many requests like the last one, while there is plenty
PART = 8  # of what is free, this part is leased ahead at most
IDLE_S = 3.0  # without a request the unused rest of a lease goes back
RECALL_S = 2.0  # after another node asked for it, nothing is leased ahead
SPENT_S = 0.5  # the database is not asked again so soon, once there is nothing left
KEPT_S = 1.0  # what was asked for a request that waits is not given back before


class LeaseId(msgspec.Struct, frozen=True, order=True):
    """Names one owner's budget in one period."""

    what: str  # "key" or "account"
    owner: str
    period: str  # its kind, its zone and its first day


class Ask(msgspec.Struct, frozen=True):
    """What a node wants to have of a budget in all, since the period began."""

    id: LeaseId
    used: int  # spent and reserved by this node
    spent: int
    need: int  # the least that is of use, in all; what is above is leased ahead
    want: int
    period: str = "total"
    zone: str = "UTC"
    since_s: float = 0.0
    until_s: float | None = None


class Answer(msgspec.Struct, frozen=True):
    """What the node has now, and how the budget stands over all nodes."""

    granted: int
    limit: int | None  # None: the terms are not those that the node knows
    free: int = 0  # in no lease; below zero: the budget was lowered
    idle: int = 0  # in the leases of other nodes, and not used as far as these have reported
    others_spent: int = 0
    others_held: int = 0  # in the leases of other nodes, and not spent


class Other(msgspec.Struct, frozen=True):
    """The lease of another node, as the database has it."""

    granted: int
    used: int
    spent: int


def grant(limit: int, mine: int, ask: Ask, others: list[Other], nodes: int) -> Answer:
    """Decide what a node gets that has `mine` so far; `nodes` is how many live."""
    leased = sum([each.granted for each in others])
    room = limit - leased
    want = max(ask.want, ask.used)
    if want <= mine:
        granted = want
    else:
        ahead = max(0, room - ask.used) // (2 * max(1, nodes))
        granted = max(mine, ask.used, min(room, want, max(ask.need, ask.used + ahead)))
    spent = sum([each.spent for each in others])
    return Answer(
        granted,
        limit,
        room - granted,
        sum([max(0, each.granted - each.used) for each in others]),
        spent,
        leased - spent,
    )


class Lease(msgspec.Struct, eq=False):
    """What a node knows of one lease of its own."""

    id: LeaseId
    granted: int = 0
    until_s: float = 0.0  # monotonic
    answer: Answer | None = None  # the last one
    last: int = 0  # what the last request reserved
    active_s: float = -1e9  # when that was
    rate: float = 0.0  # nano-dollars a second, lately
    recalled_s: float = -1e9
    heard_s: float = -1e9  # when `answer` came
    owed: int = 0  # what was asked for requests that have not come back yet
    kept_s: float = -1e9  # until when that does not go back
    spent_s: float = -1e9  # when the database had too little


class Leases:
    """Keeps all leases of one node."""

    def __init__(self) -> None:
        self._leases: dict[LeaseId, Lease] = {}

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def __len__(self) -> int:
        return len(self._leases)

    def lease(self, id: LeaseId) -> Lease:
        found = self._leases.get(id)
        if found is None:
            found = self._leases[id] = Lease(id)
        return found

    def limit(self, id: LeaseId, used: int, now_s: float) -> int:
        """The most that the node may have spent and reserved; once the lease has ended, what it has."""
        lease = self._leases.get(id)
        if lease is None:
            return 0
        return lease.granted if now_s < lease.until_s - EARLY_S else min(used, lease.granted)

    def requested(self, id: LeaseId, nano: int, now_s: float) -> None:
        """Note that a request reserves so much."""
        lease = self.lease(id)
        gap_s = min(max(now_s - lease.active_s, 0.001), AHEAD_S)
        fade = gap_s / AHEAD_S
        lease.rate += (nano / gap_s - lease.rate) * fade
        lease.last, lease.active_s = nano, now_s
        lease.owed = max(0, lease.owed - nano)

    def hopeless(self, id: LeaseId, need: int, left: int, now_s: float) -> bool:
        """Whether the database has just said that there is not so much, and nobody could return any.

        `left` is what this node has and does not use.
        """
        lease = self._leases.get(id)
        if lease is None or lease.answer is None or now_s >= lease.spent_s + SPENT_S:
            return False
        return need > left + max(0, lease.answer.free)

    def target(self, lease: Lease, used: int, now_s: float) -> int:
        """What the lease should be while no request waits for more."""
        answer = lease.answer
        if now_s > lease.active_s + IDLE_S or now_s < lease.recalled_s + RECALL_S:
            return used
        if answer is not None and answer.free < TIMES * lease.last:
            return used  # little is left: each request asks for itself, so that nothing lies idle
        least = TIMES * lease.last
        ahead = max(REQUESTS * lease.last, int(AHEAD_S * lease.rate))
        if answer is not None:  # no more than what the database would give, or each look would ask
            ahead = min(ahead, max(0, answer.free + lease.granted - used) // PART)
        return used + max(least, ahead)

    def due(self, lease: Lease, used: int, now_s: float) -> int | None:
        """The amount to ask for now, though no request waits; None: all is well."""
        target = self.target(lease, used, now_s)
        if used > lease.granted:
            return max(target, used)
        unused, ahead = lease.granted - used, target - used
        keep = max(ahead, lease.owed if now_s < lease.kept_s else 0)
        if unused > 2 * keep:
            return used + keep
        if ahead and unused < ahead // 4:
            return target
        if ahead and now_s > lease.until_s - LEASE_S / 2:
            return max(target, lease.granted)
        return None

    def asking(self, ask: Ask) -> None:
        """Lower the lease before less is asked for: the database may give the rest to others."""
        lease = self.lease(ask.id)
        lease.granted = min(lease.granted, max(ask.want, ask.used))

    def answered(self, ask: Ask, answer: Answer, sent_s: float, now_s: float) -> None:
        """Take the answer to an ask that was sent at `sent_s`."""
        lease = self.lease(ask.id)
        lease.granted, lease.answer = answer.granted, answer
        lease.until_s, lease.heard_s = sent_s + LEASE_S, now_s
        if answer.granted < ask.need and not answer.idle and answer.limit is not None:
            lease.spent_s = now_s
        elif answer.granted >= ask.need:
            lease.spent_s = -1e9
            if ask.need > ask.used:
                lease.owed, lease.kept_s = ask.need - ask.used, now_s + KEPT_S

    def recalled(self, what: str, owner: str, now_s: float) -> None:
        """Another node needs what is not used here."""
        for lease in self._leases.values():
            if lease.id.what == what and lease.id.owner == owner:
                lease.recalled_s = now_s

    def end(self) -> None:
        """Spend nothing more: another process has the leases."""
        for lease in self._leases.values():
            lease.granted = 0

    def forget(self, keep: set[LeaseId]) -> None:
        """Drop what is known of other leases: they have ended, or nothing is left of them."""
        for id in [id for id in self._leases if id not in keep]:
            del self._leases[id]
