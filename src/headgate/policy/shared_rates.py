"""Requests and tokens a minute over several nodes: each draws rights from one level that all share.

    in the database:  one leaky bucket for each limit of a key, as `policy/limits.py` has it
    on each node:     rights that were drawn from it and are used within HOLD_S

What nodes admit within a window is never more than the limit and what comes back in HOLD_S.  `draw` is the
database's rule and `Rate` is the node's side.

Note: below about one request a second nothing is drawn ahead, so that no right lies idle on a node; each
request then waits for one answer of the database.  While it is away each node has its share of the limit.
"""

import math
from collections import deque
from typing import Literal

import msgspec

from headgate.policy.bucket import Bucket
from headgate.policy.limit_kinds import NS
from headgate.policy.limits import LimitSlot

HOLD_NS = 2 * NS  # rights that are not used by then go back
AGAIN_NS = NS // 2  # after a refusal the database is not asked again so soon
FLUSH_NS = NS // 4  # what goes back or was taken too much waits so long for company
PACE_NS = 5 * NS  # over so long a key's pace is measured
STRICT = 1.0  # requests a second; below it nothing is drawn ahead
MAX_NEEDS = 500  # of one ask
SHORTEST_WAIT_NS = NS // 10  # of a refusal

NeedState = Literal["new", "asked", "granted", "refused"]
Look = Literal["granted", "waiting", "unavailable"]


class Right(msgspec.Struct, frozen=True):
    """Leave to admit so many requests or tokens, and the bucket just after it was drawn."""

    items: int
    kept: float
    epoch: int  # below zero: it was not drawn from the database, and nothing goes back there
    until_ns: int = 0


class RateAsk(msgspec.Struct, frozen=True):
    """What a node wants of one limit, and what it gives back."""

    slot: LimitSlot
    most: int
    window_ns: int
    charge: int = 0  # taken already, beyond what was drawn
    returned: tuple[Right, ...] = ()
    needs: tuple[int, ...] = ()  # of requests that wait, the first one first
    ahead: int = 0


class RateAnswer(msgspec.Struct, frozen=True):
    """Which needs are granted, how much is drawn ahead, and the bucket after that."""

    granted: tuple[bool, ...]
    ahead: int
    level: int
    kept: float
    epoch: int


def draw(bucket: Bucket, ask: RateAsk, nodes: int) -> RateAnswer:
    """Decide what a node gets of a bucket, which is up to date; `nodes` is how many live."""
    window_ns = bucket.window_ns
    if bucket.most != ask.most:
        bucket.limit(ask.most)
    for right in ask.returned:
        bucket.level -= bucket.share(right.items * window_ns, right.kept, right.epoch)
    bucket.level = max(bucket.level, min(bucket.level + ask.charge * window_ns, 2 * bucket.size))
    granted = []
    for need in ask.needs:
        fits = not bucket.wait_ns(need * window_ns)
        granted.append(fits)
        if fits:
            bucket.level += need * window_ns
    ahead = 0
    if all(granted):
        room = max(0, bucket.size - bucket.level) // window_ns
        ahead = min(ask.ahead, room // (2 * max(1, nodes)))
        bucket.level += ahead * window_ns
    return RateAnswer(tuple(granted), ahead, bucket.level, bucket.kept, bucket.epoch)


class _Need(msgspec.Struct):
    items: int
    since_ns: int
    state: NeedState = "new"
    rights: list[Right] = []


class Rate:
    """What a node has of one limit.  Times are nanoseconds of its monotonic clock."""

    def __init__(self, slot: LimitSlot, most: int, window_ns: int, now_ns: int) -> None:
        self.slot = slot
        self.seen = Bucket(most, window_ns, now_ns)  # the database's, as it was last heard of
        self._share: Bucket | None = None  # of this node, while the database is away
        self._alone = 0  # taken of it
        self._absence = 0  # the database's last or present one, counted from 1
        self._rights: deque[Right] = deque()
        self._have = 0
        self._owed = 0  # taken beyond what was drawn
        self._returned: list[Right] = []
        self._needs: dict[str, _Need] = {}
        self._asked: list[tuple[str, _Need]] = []  # of the ask that is under way
        self._pace = self._requests = 0.0  # items and requests a second, lately
        self._active_ns = self._flushed_ns = now_ns
        self._refused_ns = self._full_ns = now_ns - 2 * AGAIN_NS

    @property
    def most(self) -> int:
        return self.seen.most

    @property
    def idle(self) -> bool:
        """Whether nothing of it has to be kept."""
        return self.quiet and not self.seen.level

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to ask for until its next request."""
        used = self._have or self._owed or self._returned or self._needs
        return not used and self._share is None

    def advance(self, most: int, now_ns: int) -> None:
        """Let time pass; `most` is the limit from now on."""
        self.seen.advance(now_ns)
        if self.seen.most != most:
            self.seen.limit(most)
        while self._rights and self._rights[0].until_ns <= now_ns:
            self._give_back(self._rights.popleft())
        if self._needs:
            late = [n for n, need in self._needs.items() if need.since_ns < now_ns - HOLD_NS]
            for request in late:
                self.drop(request)

    # --- requests

    def look(self, request: str, items: int, now_ns: int) -> Look | float:
        """Whether a request has its rights; else for how many nanoseconds it has to wait."""
        window_ns = self.seen.window_ns
        need = self._needs.get(request)
        if need is not None and need.items != items:
            self.drop(request)
            need = None
        if items > self.most or not self.most:
            return math.inf
        if need is not None and need.state != "refused":
            return "granted" if need.state == "granted" else "waiting"
        wait_ns = self.seen.wait_ns(items * window_ns)
        if need is not None:
            self.drop(request)
            self._refused_ns = now_ns
            return max(wait_ns, SHORTEST_WAIT_NS)
        if self._have >= items:
            return "granted"
        if wait_ns and now_ns < self._refused_ns + AGAIN_NS:
            return max(wait_ns, SHORTEST_WAIT_NS)
        self._needs[request] = _Need(items, now_ns, "new", [])
        return "waiting"

    def look_alone(self, request: str, items: int, share: int, now_ns: int) -> Look | float:
        """The same while the database is away, and this node may admit `share` a window."""
        need = self._needs.get(request)
        if (need is not None and need.state == "granted") or self._have >= items:
            return "granted"
        if items > self.most or not self.most:
            return math.inf
        bucket = self._share
        if bucket is None:
            # It begins full, as what was drawn before may just have been used.
            bucket = self._share = Bucket(share, self.seen.window_ns, now_ns)
            bucket.level = bucket.size
            self._absence += 1
        bucket.advance(now_ns)
        bucket.limit(share)
        wait_ns = bucket.wait_ns(items * bucket.window_ns)
        if not wait_ns:
            return "granted"
        return "unavailable" if math.isinf(wait_ns) else wait_ns

    def exhausted_ns(self, now_ns: int) -> float:
        """How long until one item is there, if the database has just answered that there is none."""
        if self._have or now_ns >= self._refused_ns + AGAIN_NS:
            return 0
        return self.seen.wait_ns(self.seen.window_ns)

    def claim(self, request: str, items: int, now_ns: int) -> list[Right]:
        """Take the rights of a request whose look was granted."""
        gap_ns = min(max(now_ns - self._active_ns, NS // 1000), PACE_NS)
        fade = gap_ns / PACE_NS
        self._pace += (items * NS / gap_ns - self._pace) * fade
        self._requests += (NS / gap_ns - self._requests) * fade
        self._active_ns = now_ns
        need = self._needs.pop(request, None)
        if need is not None and need.state == "granted":
            return need.rights
        if self._have < items:
            assert self._share is not None
            self._share.level += items * self._share.window_ns
            self._alone += items
            return [Right(items, 0.0, -self._absence)]
        return self._take(items)

    def drop(self, request: str) -> None:
        """Forget a request that takes nothing; its rights are anybody's."""
        need = self._needs.pop(request, None)
        if need is not None and need.rights:
            self._rights.extendleft(reversed(need.rights))
            self._have += sum(right.items for right in need.rights)

    def settle(self, rights: list[Right], items: int) -> None:
        """Give back or charge what an estimate was wrong by."""
        left = max(0, items)
        for right in rights:
            used = min(left, right.items)
            left -= used
            if used < right.items and right.epoch >= 0:
                self._returned.append(Right(right.items - used, right.kept, right.epoch))
            elif used < right.items and right.epoch == -self._absence:  # if it is not charged yet
                self._alone = max(0, self._alone - (right.items - used))
        if left:
            now = min(left, self._have)
            self._take(now)
            self._owed = min(self._owed + left - now, 2 * self.most)

    def standing(self) -> tuple[int, int]:
        """How much is left as far as this node knows, and in how many nanoseconds all is back."""
        seen = self.seen
        if not seen.most:
            return 0, 0
        level = max(0, seen.level + (self._owed - self._have) * seen.window_ns)
        left = max(0, seen.size - level) // seen.window_ns
        return min(left, seen.most), -(-level // seen.most)

    # --- the database

    def ask(self, now_ns: int) -> RateAsk | None:
        """What has to be asked for now; None: nothing."""
        needs = [each for each in self._needs.items() if each[1].state == "new"][:MAX_NEEDS]
        target = 0
        recent = now_ns < self._active_ns + HOLD_NS and now_ns > self._full_ns + AGAIN_NS
        if recent and self._requests >= STRICT:
            target = int(self._pace * HOLD_NS / NS)
        flush = (self._returned or self._owed) and now_ns >= self._flushed_ns + FLUSH_NS
        alone, self._alone = self._alone, 0
        if self._share is not None:  # the database is back
            # What was taken is owed, and not the level, which began full.
            self._share = None
            self._owed = min(self._owed + alone, 2 * self.most)
        if not (needs or flush or alone or self._have < target // 4):
            return None
        self._asked = needs
        for _, need in needs:
            need.state = "asked"
        returned, self._returned = (
            tuple(self._returned),
            [],
        )  # once: a lost answer may have taken it
        self._flushed_ns = now_ns
        items = tuple([need.items for _, need in needs])
        ahead = max(0, target - self._have)
        seen = self.seen
        return RateAsk(self.slot, seen.most, seen.window_ns, self._owed, returned, items, ahead)

    def answered(self, ask: RateAsk, answer: RateAnswer, now_ns: int) -> None:
        """Take what was drawn."""
        self._owed = max(0, self._owed - ask.charge)
        self.seen.at_ns, self.seen.level = now_ns, answer.level
        until_ns = now_ns + HOLD_NS
        for (request, need), granted in zip(self._asked, answer.granted, strict=True):
            need.state = "granted" if granted else "refused"
            if granted:
                right = Right(need.items, answer.kept, answer.epoch, until_ns)
                if self._needs.get(request) is need:
                    need.rights = [right]
                else:  # its client has left
                    self._rights.append(right)
                    self._have += right.items
        self._asked = []
        if answer.ahead:
            self._rights.append(Right(answer.ahead, answer.kept, answer.epoch, until_ns))
            self._have += answer.ahead
        if ask.ahead > answer.ahead:
            self._full_ns = now_ns  # little is left: each request asks for itself

    def failed(self) -> None:
        """Ask again for those that wait: the answer was lost."""
        for _, need in self._asked:
            need.state = "new"
        self._asked = []

    def end(self) -> None:
        """Use nothing more: another process has what was drawn."""
        self._rights.clear()
        self._have = 0

    # --- rights

    def _take(self, items: int) -> list[Right]:
        taken: list[Right] = []
        self._have -= items
        while items:
            right = self._rights.popleft()
            if right.items > items:
                left = Right(right.items - items, right.kept, right.epoch, right.until_ns)
                self._rights.appendleft(left)
                right = Right(items, right.kept, right.epoch, right.until_ns)
            taken.append(right)
            items -= right.items
        return taken

    def _give_back(self, right: Right) -> None:
        self._have -= right.items
        self._returned.append(Right(right.items, right.kept, right.epoch))
