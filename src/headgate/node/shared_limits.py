"""Limits of keys over all nodes that share a database: the node's side, which `Admissions` asks.

Decisions are in policy/shared_rates.py and policy/shared_slots.py; the database is asked by node/leasing.py.
Limits of what costs only this machine (token counts, look-ups) stay with policy/limits.py.

Note: while the database is away, what was drawn is used up, and then each node admits its share of a limit:
the limit divided by the nodes that lived when the database was last heard of.
"""

import math
from collections.abc import Callable, Sequence

import msgspec

from headgate.errors import Failure
from headgate.policy.limit_headers import LimitStatus
from headgate.policy.limit_kinds import LIMITS, NS, Limit
from headgate.policy.limits import SWEEP, LimitRefusal, LimitSlot
from headgate.policy.shared_rates import Rate, RateAsk, Right
from headgate.policy.shared_slots import SlotAsk, Slots
from headgate.storage.postgres.limits import Drawn

WAIT_S = 2.0  # a request waits at most so long; after half of it the database counts as away
AWAY_RETRY_S = 5.0
TICK_NS = NS // 4  # between two looks at what no request waits for


class Asks(msgspec.Struct, frozen=True):
    """What a node asks the database for in one turn."""

    rates: list[RateAsk]
    slots: list[SlotAsk]


class SharedAdmission(msgspec.Struct, eq=False):
    """A request's place within its key's limits: it must be settled, whatever becomes of the request."""

    owner: str
    token_limits: tuple[Limit, ...]
    slots: tuple[Slots, ...]
    taken: tuple[tuple[Rate, list[Right]], ...] = ()
    settled: bool = False


def is_shared(limits: Sequence[Limit]) -> bool:
    """Whether these limits are one over all nodes."""
    return any(LIMITS[limit.kind].scope == "exchange" for limit in limits)


class SharedLimiter:
    """The limits of all keys as one node knows them.  Times are nanoseconds of its monotonic clock."""

    def __init__(self, wake: Callable[[], None], away: Callable[[], bool]) -> None:
        """`wake` is called when the database has to be asked; `away` says whether it cannot be."""
        self._wake = wake
        self._away = away
        self._rates: dict[LimitSlot, Rate] = {}
        self._slots: dict[LimitSlot, Slots] = {}
        self._busy: dict[LimitSlot, None] = {}  # that are looked at every TICK_NS
        self._urgent: dict[LimitSlot, None] = {}  # that are looked at in the next turn
        self._ticked_ns = -TICK_NS
        self._sweep = SWEEP
        self._asked: Asks | None = None
        self.nodes, self.rank = 1, 0

    # --- requests

    def enter(
        self, request: str, owner: str, limits: Sequence[Limit], now_ns: int, waited_s: float
    ) -> SharedAdmission | LimitRefusal | Failure | None:
        """Take one request and its slots from all limits, or say when to come back.

        None: nothing was taken, and the request is to come back in a moment.  Limits of tokens are only
        asked whether one token is left.
        """
        rates: list[Rate] = []
        slots: list[Slots] = []
        token_limits: list[Limit] = []
        looks: list[tuple[Limit, str | float]] = []
        for limit in limits:
            slot, takes = (owner, limit.model, limit.kind), LIMITS[limit.kind].takes
            if takes == "slot":
                found = self._slots_of(slot, limit.most, now_ns)
                slots.append(found)
                looks.append((limit, self._look_slot(found, request, now_ns)))
                continue
            rate = self._rate_of(slot, limit.most, now_ns)
            if takes == "tokens":
                token_limits.append(limit)
                looks.append((limit, rate.exhausted_ns(now_ns) if limit.most else math.inf))
            else:
                rates.append(rate)
                looks.append((limit, self._look(rate, request, 1, now_ns)))
        refused = self._judge(looks, 0, waited_s)
        if refused is not None:
            if not isinstance(refused, bool):
                for rate in rates:
                    rate.drop(request)
                for found in slots:
                    found.drop(request)
                return refused
            return None
        for rate in rates:
            rate.claim(request, 1, now_ns)
        for found in slots:
            found.claim(request)
        return SharedAdmission(owner, tuple(token_limits), tuple(slots))

    def resume(self, owner: str, limits: Sequence[Limit], now_ns: int) -> SharedAdmission:
        """The place of a request that is running already: its slots are taken, its rate was."""
        slots = []
        for limit in limits:
            if LIMITS[limit.kind].takes == "slot":
                found = self._slots_of((owner, limit.model, limit.kind), limit.most, now_ns)
                found.claim("")
                slots.append(found)
        return SharedAdmission(owner, (), tuple(slots))

    def take(
        self, admission: SharedAdmission, request: str, tokens: int, now_ns: int, waited_s: float
    ) -> LimitRefusal | Failure | bool:
        """Take an estimate of the request's tokens: True; or False: it is to come back in a moment."""
        if not admission.token_limits:
            return True
        tokens = max(0, tokens)
        rates = []
        looks: list[tuple[Limit, str | float]] = []
        for limit in admission.token_limits:
            slot = (admission.owner, limit.model, limit.kind)
            rate = self._rate_of(slot, limit.most, now_ns)
            rates.append(rate)
            looks.append((limit, self._look(rate, request, tokens, now_ns)))
        refused = self._judge(looks, tokens, waited_s)
        if refused is not None:
            if isinstance(refused, bool):
                return False
            for rate in rates:
                rate.drop(request)
            return refused
        taken = [(rate, rate.claim(request, tokens, now_ns)) for rate in rates]
        admission.taken = tuple(taken)
        return True

    def settle(self, admission: SharedAdmission, tokens: int) -> None:
        """Give back or charge what the estimate was wrong by, and end its concurrency: once."""
        if admission.settled:
            return
        admission.settled = True
        for found in admission.slots:
            found.leave()
            self._busy[found.slot] = None
        for rate, rights in admission.taken:
            # One that was forgotten meanwhile is known again.
            self._rates.setdefault(rate.slot, rate).settle(rights, tokens)
            self._busy[rate.slot] = None

    def standings(self, owner: str, limits: Sequence[Limit], now_ns: int) -> dict[str, LimitStatus]:
        """By header word: what is left, as far as this node has heard."""
        found: dict[str, LimitStatus] = {}
        for limit in limits:
            kind = LIMITS[limit.kind]
            if kind.header:
                rate = self._rate_of((owner, limit.model, limit.kind), limit.most, now_ns)
                left, reset_ns = rate.standing()
                other = found.get(kind.header)
                if other is None or left < other.remaining:
                    found[kind.header] = LimitStatus(limit.most, left, reset_ns)
        return found

    def _judge(
        self, looks: list[tuple[Limit, str | float]], asked: int, waited_s: float
    ) -> LimitRefusal | Failure | bool | None:
        """What becomes of a request; None: it has all, True: it waits."""
        waits = [(wait, limit) for limit, wait in looks if isinstance(wait, float | int)]
        longest_ns, refused = max(waits, key=lambda each: each[0], default=(0, None))
        if refused is not None and longest_ns > 0:
            return LimitRefusal(refused, asked, longest_ns / NS)
        if any(look == "unavailable" for _, look in looks):
            return _unavailable()
        if any(look == "waiting" for _, look in looks):
            self._wake()
            return True if waited_s < WAIT_S else _unavailable()
        return None

    def _look(self, rate: Rate, request: str, items: int, now_ns: int) -> str | float:
        self._busy[rate.slot] = None
        if self._away():
            return rate.look_alone(request, items, self._share(rate.most), now_ns)
        look = rate.look(request, items, now_ns)
        if look == "waiting":
            self._urgent[rate.slot] = None
        return look

    def _look_slot(self, slots: Slots, request: str, now_ns: int) -> str | float:
        self._busy[slots.slot] = None
        if self._away():
            return slots.look_alone(request, self._share(slots.most), now_ns)
        look = slots.look(request, now_ns)
        if look == "waiting":
            self._urgent[slots.slot] = None
        return look

    def _share(self, most: int) -> int:
        """This node's part of a limit, so that those of all nodes are the limit."""
        return most // self.nodes + (self.rank < most % self.nodes)

    def _rate_of(self, slot: LimitSlot, most: int, now_ns: int) -> Rate:
        found = self._rates.get(slot)
        if found is None:
            if len(self._rates) >= self._sweep:
                self._forget(now_ns)
            window_ns = LIMITS[slot[2]].window_ns
            found = self._rates[slot] = Rate(slot, most, window_ns, now_ns)
        found.advance(most, now_ns)
        return found

    def _slots_of(self, slot: LimitSlot, most: int, now_ns: int) -> Slots:
        found = self._slots.get(slot)
        if found is None:
            found = self._slots[slot] = Slots(slot, most, now_ns)
        found.most = most
        return found

    def _forget(self, now_ns: int) -> None:
        for rate in self._rates.values():
            rate.advance(rate.most, now_ns)
        self._rates = {slot: rate for slot, rate in self._rates.items() if not rate.idle}
        self._sweep = max(SWEEP, 2 * len(self._rates))

    # --- the database

    def asks(self, now_ns: int) -> Asks:
        """What has to be asked for now; it must be answered, or have failed, before the next."""
        rates, slots = [], []
        looked, self._urgent = self._urgent, {}
        if now_ns >= self._ticked_ns + TICK_NS:
            self._ticked_ns, looked = now_ns, dict(self._busy)
        for slot in looked:
            rate = self._rates.get(slot)
            if rate is not None:
                rate.advance(rate.most, now_ns)
                if (ask := rate.ask(now_ns)) is not None:
                    rates.append(ask)
                elif rate.quiet:
                    self._busy.pop(slot, None)
                continue
            found = self._slots.get(slot)
            if found is None:
                self._busy.pop(slot, None)
            elif (asked := found.ask(now_ns)) is not None:
                slots.append(asked)
            elif found.idle:
                self._busy.pop(slot, None)
                del self._slots[slot]
        self._asked = Asks(rates, slots)
        return self._asked

    def answered(self, answers: Drawn, sent_ns: int, now_ns: int) -> None:
        """Take the answers to the last asks."""
        asked, self._asked = self._asked, None
        self.nodes, self.rank = answers.nodes, answers.rank
        if asked is None:
            return
        for ask, answer in zip(asked.rates, answers.rates, strict=True):
            if (rate := self._rates.get(ask.slot)) is not None:
                rate.answered(ask, answer, now_ns)
        for each, granted in zip(asked.slots, answers.slots, strict=True):
            self._slots[each.slot].answered(granted, sent_ns, now_ns)

    def failed(self) -> None:
        """The last asks had no answer."""
        asked, self._asked = self._asked, None
        if asked is not None:
            for ask in asked.rates:
                if (rate := self._rates.get(ask.slot)) is not None:
                    rate.failed()
            for each in asked.slots:
                self._slots[each.slot].failed()

    def recalled(self, owner: str, now_ns: int) -> None:
        """Another node needs slots of this owner."""
        for slot, found in self._slots.items():
            if slot[0] == owner:
                found.recalled(now_ns)
                self._busy[slot] = self._urgent[slot] = None

    def end(self) -> None:
        """Use nothing more of what was drawn: another process has it."""
        for rate in self._rates.values():
            rate.end()
        for found in self._slots.values():
            found.end()


def _unavailable() -> Failure:
    return Failure(
        "unavailable",
        "The limits of this key are shared by several gateways, and their database cannot be reached now;"
        " try again shortly.",
        code="storage_unavailable",
        retry_after_s=AWAY_RETRY_S,
        should_retry=True,
    )
