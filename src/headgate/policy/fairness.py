"""Fairness under load: who may hold how much of a bounded resource, whose work starts next, and when to refuse.

Pure decisions; edge/overload.py applies them.  An owner is a key with its rotations, or the address
of a client without one.

- `Share` bounds a quantity (requests in flight, bytes of bodies) in all and per owner, by what is
  free, so that those who hold much shut nobody out.
- `FairQueue` orders work by the CPU time that its owners have used: start-time fair queueing (Goyal,
  Vin and Cheng, SIGCOMM 1996).  An owner that was idle begins level with the others, without credit.
- `Delay` says when work waits too long, in the manner of CoDel (RFC 8289): not at the first late
  start, but once starts have been late for an interval without a break.

Note: queues shorten only as their work starts.  New work is refused, waiting work is not: it is
bounded by the requests in flight, and answering it costs less than having its client ask again.
"""

from collections import deque
from heapq import heappop, heappush
from typing import Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")

TARGET_S = 0.05  # a start that is later than this is late
INTERVAL_S = 1.0  # of late starts before anything is refused; a burst is over by then
MAX_WAITING = 512  # of one owner; a burst of so many is worked off in 0.1 to 0.2 s
ALERT_S = 10.0  # after a refusal, the next one needs no interval
RESERVE = 8  # an eighth more than the bound, which no owner can fill alone
MAX_IDLE_OWNERS = 1024  # with more, what those without work have used is forgotten

Full = Literal["", "owner", "all"]


class Share:
    """A bounded quantity of which owners hold parts.

    One owner alone may hold all of `most`.  Above it there is a reserve of an eighth, and an owner may
    take more only while it then holds no more than `most / reserve` (8) times what is left free of both.
    So two owners that want all get 8/17 of it each and ten a tenth, and whatever they hold, some
    is left for the next one: dynamic thresholds (Choudhury and Hahne, IEEE/ACM ToN 1998).
    """

    def __init__(self, most: int, owner_most: int) -> None:
        """`owner_most`: what one owner may hold, however much is free."""
        self.most = most
        self.held = 0
        self._owner_most = owner_most
        self._reserve = max(1, most // RESERVE)
        self._little = max(1, self._reserve // 32)
        self._owners: dict[str, int] = {}

    def of(self, owner: str) -> int:
        return self._owners.get(owner, 0)

    def take(self, owner: str, amount: int) -> Full:
        """Take `amount` more; "owner" or "all": nothing was taken, as this bound is reached.

        An owner that holds nothing may take more than `owner_most`, if it fits in all.
        """
        before = self._owners.get(owner, 0)
        mine, held = before + amount, self.held + amount
        free = self.most + self._reserve - held
        if free < 0 or (mine * self._reserve > self.most * free and mine > self._little):
            return "all"
        if before and mine > self._owner_most:
            return "owner"
        self._owners[owner] = mine
        self.held = held
        return ""

    def give_back(self, owner: str, amount: int) -> None:
        left = self._owners[owner] - amount
        self.held -= amount
        if left:
            self._owners[owner] = left
        else:
            del self._owners[owner]


class Delay(msgspec.Struct):
    """How late work has started of late, and whether that is too much; times in seconds."""

    late_since_s: float | None = None
    refused_s: float | None = None  # the last time that it was too much

    def started(self, waited_s: float, now_s: float) -> None:
        if waited_s < TARGET_S:
            self.late_since_s = None
        elif self.late_since_s is None:
            self.late_since_s = now_s

    def refuses(self, now_s: float) -> bool:
        """Whether new work is refused now."""
        if self.late_since_s is None:
            return False
        alert = self.refused_s is not None and now_s - self.refused_s < ALERT_S
        if not alert and now_s - self.late_since_s < INTERVAL_S:
            return False
        self.refused_s = now_s
        return True


class _Waiting(msgspec.Struct, Generic[T], gc=False):
    item: T
    since_s: float


class _Owner(msgspec.Struct, Generic[T]):
    used_s: float = 0.0  # CPU seconds, counted from where the queue was when it was last idle
    waiting: "deque[_Waiting[T]]" = msgspec.field(default_factory=deque)
    delay: Delay = msgspec.field(default_factory=Delay)


class FairQueue(Generic[T]):
    """Work that waits, and what its owners have used."""

    def __init__(self) -> None:
        self._owners: dict[str, _Owner[T]] = {}
        self._heap: list[tuple[float, int, str]] = []  # (used, order of arrival, owner) if it waits
        self._order = 0
        self._now_used_s = 0.0  # what the owner had used whose work started last
        self._length = 0
        self._sweep = MAX_IDLE_OWNERS
        self.delay = Delay()  # of all owners together

    def __len__(self) -> int:
        return self._length

    def start(self, owner: str, cpu_s: float) -> None:
        """Count work that starts without waiting."""
        found = self._owners.get(owner) or self._owner(owner)
        used_s = found.used_s
        if used_s < self._now_used_s:
            used_s = self._now_used_s
        if not self._length:  # else the others that wait are not level with this one
            self._now_used_s = used_s
        found.used_s = used_s + cpu_s

    def charge(self, owner: str, cpu_s: float) -> None:
        """Count what work took in truth, above what was counted at its start (or below, if negative)."""
        found = self._owners.get(owner)
        if found is not None:
            found.used_s += cpu_s

    def push(self, owner: str, item: T, now_s: float) -> None:
        found = self._owners.get(owner) or self._owner(owner)
        if not found.waiting:
            found.used_s = max(found.used_s, self._now_used_s)
            self._enter(owner, found)
        found.waiting.append(_Waiting(item, now_s))
        self._length += 1

    def pop(self, cpu_s: float, now_s: float) -> tuple[str, T]:
        """The work that starts next, of the owner that has used the least; it must not be empty.

        `cpu_s` is what such work takes by experience.
        """
        while True:
            used_s, _, owner = heappop(self._heap)
            found = self._owners[owner]
            if found.used_s <= used_s:
                break
            self._enter(owner, found)  # it was charged since
        first = found.waiting.popleft()
        self._length -= 1
        self._now_used_s = max(self._now_used_s, found.used_s)
        found.used_s += cpu_s
        waited_s = now_s - first.since_s
        self.delay.started(waited_s, now_s)
        found.delay.started(waited_s, now_s)
        if found.waiting:
            self._enter(owner, found)
        else:
            found.delay.late_since_s = None
        if not self._length:
            self.delay.late_since_s = None
        return owner, first.item

    def refuses(self, owner: str, now_s: float) -> bool:
        """Whether new work of this owner is refused: too much of it waits, or its starts are late."""
        if not self._length:
            return False
        found = self._owners.get(owner)
        waiting = len(found.waiting) if found is not None else 0
        if found is not None and waiting:
            return waiting >= MAX_WAITING or found.delay.refuses(now_s)
        # Without work that waits, an owner is only refused when there are very many owners.
        return self._length >= MAX_WAITING and self.delay.refuses(now_s)

    def _enter(self, owner: str, found: _Owner[T]) -> None:
        self._order += 1
        heappush(self._heap, (found.used_s, self._order, owner))

    def _owner(self, owner: str) -> _Owner[T]:
        if len(self._owners) >= self._sweep:
            self._owners = {name: each for name, each in self._owners.items() if each.waiting}
            self._sweep = max(MAX_IDLE_OWNERS, 2 * len(self._owners))
        found = self._owners[owner] = _Owner()
        return found
