"""Requests at a time over several nodes: each holds some of a limit's slots, never more than all in sum.

A node keeps a slot for IDLE_NS after its request, as the next one comes soon, and gives it back at once
when another node needs it.  Slots of a node that is silent are free again after LEASE_S.
"""

import math
from typing import Literal

import msgspec

from headgate.policy.limit_kinds import NS
from headgate.policy.limits import CONCURRENCY_RETRY_S, LimitSlot

LEASE_S = 15.0  # slots that were not renewed are free, by the database's clock
EARLY_S = 2.0  # a node gives none of them away so long before that
RENEW_NS = 7 * NS
IDLE_NS = 3 * NS
RECALL_NS = NS  # after another node asked for slots, none is kept without a use
WAIT_NS = NS // 2  # a request waits at most so long for slots of other nodes
AGAIN_NS = NS // 2  # after a refusal the database is not asked again so soon
FRESH_S = 0.3  # what another node reported is true for so long
AHEAD = 4  # for so many requests that run one more slot is asked for

Look = Literal["granted", "waiting", "unavailable"]
_State = Literal["new", "asked", "granted", "refused"]


class SlotAsk(msgspec.Struct, frozen=True):
    """How many slots of one limit a node uses, needs at least and wants to have."""

    slot: LimitSlot
    most: int
    used: int
    need: int
    want: int


class OtherSlots(msgspec.Struct, frozen=True):
    """What another node has, and how long ago it reported that."""

    held: int
    used: int
    age_s: float


class SlotAnswer(msgspec.Struct, frozen=True):
    """How many slots the node holds from now on, and how many the others may not need."""

    held: int
    idle: int


def draw(ask: SlotAsk, others: list[OtherSlots], nodes: int) -> SlotAnswer:
    """Decide how many slots a node gets; `nodes` is how many live."""
    room = ask.most - sum([each.held for each in others])
    ahead = max(0, room - ask.need) // (2 * max(1, nodes))
    held = max(ask.used, min(room, ask.want, ask.need + ahead))
    idle = sum([each.held - (each.used if each.age_s < FRESH_S else 0) for each in others])
    return SlotAnswer(held, idle)


class _Need(msgspec.Struct):
    since_ns: int
    state: _State = "new"


class Slots:
    """What a node has of one limit.  Times are nanoseconds of its monotonic clock."""

    def __init__(self, slot: LimitSlot, most: int, now_ns: int) -> None:
        self.slot = slot
        self.most = most
        self.used = 0
        self._held = 0
        self._until_ns = self._turned_ns = now_ns
        self._peak = self._peak_before = 0  # of the slots in use, lately
        self._needs: dict[str, _Need] = {}
        self._asked: list[tuple[str, _Need]] = []
        self._recalled_ns = self._refused_ns = now_ns - 10 * NS
        self._report = False

    @property
    def idle(self) -> bool:
        """Whether nothing of it has to be kept."""
        return not (self.used or self._held or self._needs)

    @property
    def _owed(self) -> int:
        return sum(need.state == "granted" for need in self._needs.values())

    def look(self, request: str, now_ns: int) -> Look | float:
        """Whether a request has its slot; else for how many nanoseconds it should wait: a guess."""
        if not self.most:
            return math.inf
        need = self._needs.get(request)
        if need is not None:
            if need.state == "granted":
                return "granted"
            if need.state != "refused":
                return "waiting"
            self.drop(request)
            self._refused_ns = now_ns
            return CONCURRENCY_RETRY_S * NS
        if now_ns < self._until_ns and self.used + self._owed < self._held:
            return "granted"
        if now_ns < self._refused_ns + AGAIN_NS:
            return CONCURRENCY_RETRY_S * NS
        self._needs[request] = _Need(now_ns)
        return "waiting"

    def look_alone(self, request: str, share: int, now_ns: int) -> Look | float:
        """The same while the database is away, and this node may use `share` slots."""
        if not self.most:
            return math.inf
        mine = max(share, self._held if now_ns < self._until_ns else 0)
        if self.used < mine:
            return "granted"
        return CONCURRENCY_RETRY_S * NS if mine else "unavailable"

    def claim(self, request: str) -> None:
        """Use the slot of a request whose look was granted."""
        self._needs.pop(request, None)
        self.used += 1
        self._peak = max(self._peak, self.used)

    def drop(self, request: str) -> None:
        """Forget a request that takes nothing."""
        self._needs.pop(request, None)

    def leave(self) -> None:
        """End the use of one slot."""
        self.used -= 1

    def recalled(self, now_ns: int) -> None:
        """Another node needs what is not used here."""
        self._recalled_ns, self._report = now_ns, True

    def ask(self, now_ns: int) -> SlotAsk | None:
        """What has to be asked for now; None: nothing."""
        late = [n for n, need in self._needs.items() if need.since_ns < now_ns - 4 * WAIT_NS]
        for request in late:
            self.drop(request)
        needs = [each for each in self._needs.items() if each[1].state == "new"]
        need = self.used + self._owed + len(needs)
        if now_ns >= self._turned_ns + IDLE_NS:
            gone = now_ns >= self._turned_ns + 2 * IDLE_NS
            self._peak_before = self.used if gone else self._peak
            self._peak, self._turned_ns = self.used, now_ns
        want = need
        if now_ns >= self._recalled_ns + RECALL_NS:
            want = max(need, min(self._held, max(self._peak, self._peak_before)))
            if needs:
                want = max(want, need + need // AHEAD)
        renew = need and now_ns > self._until_ns - (int(LEASE_S - EARLY_S) * NS - RENEW_NS)
        if not (needs or renew or want != self._held or self._report):
            return None
        self._report = False
        self._asked = needs
        for _, each in needs:
            each.state = "asked"
        # At once, and not when it is sent: what is given back may be another node's by then.
        self._held = min(self._held, max(want, self.used))
        return SlotAsk(self.slot, self.most, self.used, need, want)

    def answered(self, answer: SlotAnswer, sent_ns: int, now_ns: int) -> None:
        """Take the answer to an ask that was sent at `sent_ns`."""
        self._held = answer.held
        self._until_ns = sent_ns + int(LEASE_S - EARLY_S) * NS
        free = answer.held - self.used - self._owed
        for request, need in self._asked:
            if self._needs.get(request) is not need:
                continue
            if free > 0:
                need.state = "granted"
                free -= 1
            elif answer.idle > 0 and now_ns < need.since_ns + WAIT_NS:
                need.state = "new"
            else:
                need.state = "refused"
        self._asked = []

    def failed(self) -> None:
        """Ask again for those that wait: the answer was lost."""
        for _, need in self._asked:
            need.state = "new"
        self._asked = []

    def end(self) -> None:
        """Give no slot away any more: another process has them."""
        self._held = 0
