"""Limits: how fast a client may ask, and how fast we may ask an upstream.

The only place that counts requests and tokens against time.  `Limiter` is for our clients, `Pacer`
for the published limits of an upstream, which says neither what is left nor when to come back
(MiniMax sends no header for either).  Time is passed in, as nanoseconds of a clock that does not go back
(`time.monotonic_ns`); a clock that does costs no one anything and gives no one more than a burst.

Rates are GCRA (ITU-T I.371, annex A) in its form as a leaky bucket: what was taken is a level that
sinks with the rate, and a request that would lift it above one window's worth is refused, with the
time after which it would not.  All of it is whole numbers: a request or token is as many units as
its window has nanoseconds, so that a limit of `most` a window drains `most` units a nanosecond.

Note:
- a request takes its place (rate and slot) before its body is read, and its tokens once they are known.
  Who is refused a place has lost nothing.  Who has one and is then refused, for tokens, a budget or a
  fault of the request, still counts as a request, as at OpenAI: "unsuccessful requests contribute to
  your per-minute limit" (developers.openai.com/cookbook, how to handle rate limits; read 2026-11);
- tokens are reserved from an estimate and the difference is given back at the end, but only the
  part that time has not given back already.  What drained is taken to have come from all open
  reservations alike (`Bucket.share`); this never gives back more than an exact replay would;
- tokens above the estimate are charged, up to a debt of one window: the longest wait is then two
  windows, and for limits a minute that is what SDKs wait at most (120 s);
- a key's first minute can be twice its limit: a full burst, and what a minute brings;
- nothing tells when somebody else's request will end, so the wait for `concurrency` is a guess.
"""

import math
from collections.abc import Sequence

import msgspec

from headgate.errors import Failure
from headgate.policy.bucket import Bucket
from headgate.policy.limit_headers import LimitStatus
from headgate.policy.limit_kinds import LIMITS, NS, Limit

CONCURRENCY_RETRY_S = 1.0
SWEEP = 1024  # buckets; below it empty ones stay


class LimitRefusal(msgspec.Struct, frozen=True, gc=False):
    """Which limit asks for the longest wait, and how long: math.inf when no wait would help."""

    limit: Limit
    asked: int
    retry_after_s: float

    def failure(self) -> Failure:
        most, label_text, model = (
            self.limit.most,
            LIMITS[self.limit.kind].label_text,
            self.limit.model,
        )
        what = f"{most} {label_text}" + (f" for {model}" if model else "")
        if math.isinf(self.retry_after_s):
            if not most:
                return Failure(
                    "rate_limit", f"The limit of this key is {what}.", should_retry=False
                )
            return Failure(
                "invalid",
                f"This request may take {self.asked} tokens, with those it may generate, and the"
                f" limit of this key is {what}. Send less, or allow less output.",
                code="rate_limit_exceeded",
                should_retry=False,
            )
        # Codex reads the wait in these words.
        again = f"Please try again in {max(1, math.ceil(self.retry_after_s))}s."
        return Failure(
            "rate_limit",
            f"The limit of this key is {what}. {again}",
            retry_after_s=self.retry_after_s,
        )


def later(failure: Failure, left_s: float) -> Failure:
    """The same refusal, when so many seconds of its wait are left."""
    before = f"{max(1, math.ceil(failure.retry_after_s or 0.0))}s."
    message = failure.message.removesuffix(before) + f"{max(1, math.ceil(left_s))}s."
    return msgspec.structs.replace(failure, message=message, retry_after_s=left_s)


LimitSlot = tuple[str, str, str]  # key, model, kind


class BucketLevel(msgspec.Struct, frozen=True, array_like=True):
    """How full a bucket is, for another process of the machine."""

    slot: LimitSlot
    most: int
    window_ns: int
    at_ns: int
    level: int


class _Taken(msgspec.Struct):
    """Tokens that were reserved, and the bucket as it was just then."""

    slot: LimitSlot
    bucket: Bucket
    kept: float
    epoch: int


class LimitAdmission(msgspec.Struct, eq=False):
    """A request's place within its key's limits: it must be settled, whatever becomes of the request."""

    token_limits: tuple[Limit, ...]
    key_id: str
    slots: tuple[LimitSlot, ...]
    tokens: int = 0
    taken: tuple[_Taken, ...] = ()
    settled: bool = False


class Limiter:
    """The state of all keys: as much of it as there were requests within the last two windows."""

    def __init__(self) -> None:
        self._buckets: dict[LimitSlot, Bucket] = {}
        self._running: dict[LimitSlot, int] = {}
        self._sweep = SWEEP

    def enter(
        self, key_id: str, limits: Sequence[Limit], now_ns: int
    ) -> LimitAdmission | LimitRefusal:
        """Take one request and its slots from all limits, or say when to come back.

        Who waits for `retry_after_s` passes, if others took nothing meanwhile; the wait for a
        `concurrency` is a guess.  Limits of tokens are only asked whether one token is left.
        """
        rates: list[Bucket] = []
        slots: list[LimitSlot] = []
        token_limits: list[Limit] = []
        refused: Limit | None = None
        longest_ns: float = 0
        for limit in limits:
            kind = LIMITS[limit.kind]
            slot = (key_id, limit.model, limit.kind)
            wait_ns: float = 0
            if kind.takes == "slot":
                slots.append(slot)
                if self._running.get(slot, 0) >= limit.most:
                    wait_ns = CONCURRENCY_RETRY_S * NS if limit.most else math.inf
            else:
                bucket = self._bucket(slot, limit.most, now_ns)
                wait_ns = bucket.wait_ns(kind.window_ns)
                if kind.takes == "tokens":
                    token_limits.append(limit)
                else:
                    rates.append(bucket)
            if wait_ns > longest_ns:
                refused, longest_ns = limit, wait_ns
        if refused is not None:
            return LimitRefusal(refused, 0, whole_seconds(longest_ns))
        for bucket in rates:
            bucket.level += bucket.window_ns
        for slot in slots:
            self._running[slot] = self._running.get(slot, 0) + 1
        return LimitAdmission(tuple(token_limits), key_id, tuple(slots))

    def resume(self, key_id: str, limits: Sequence[Limit]) -> LimitAdmission:
        """The place of a request that is running already: its slots are taken, its rate was."""
        slots = [
            (key_id, limit.model, limit.kind)
            for limit in limits
            if LIMITS[limit.kind].takes == "slot"
        ]
        for slot in slots:
            self._running[slot] = self._running.get(slot, 0) + 1
        return LimitAdmission((), key_id, tuple(slots))

    def take(self, admission: LimitAdmission, tokens: int, now_ns: int) -> LimitRefusal | None:
        """Take an estimate of the request's tokens, or say when to come back; None: taken.

        One that is larger than a whole limit never passes.
        """
        if not admission.token_limits:
            return None
        tokens = max(0, tokens)
        rates: list[tuple[LimitSlot, Bucket, int]] = []
        refused: Limit | None = None
        longest_ns: float = 0
        for limit in admission.token_limits:
            kind = LIMITS[limit.kind]
            slot = (admission.key_id, limit.model, limit.kind)
            bucket = self._bucket(slot, limit.most, now_ns)
            units = tokens * kind.window_ns
            rates.append((slot, bucket, units))
            wait_ns = bucket.wait_ns(units)
            if wait_ns > longest_ns:
                refused, longest_ns = limit, wait_ns
        if refused is not None:
            return LimitRefusal(refused, tokens, whole_seconds(longest_ns))
        taken = []
        for slot, bucket, units in rates:
            bucket.level += units
            taken.append(_Taken(slot, bucket, bucket.kept, bucket.epoch))
        admission.tokens, admission.taken = tokens, tuple(taken)
        return None

    def settle(self, admission: LimitAdmission, tokens: int, now_ns: int) -> None:
        """Give back or charge what the estimate was wrong by, and end its concurrency: once."""
        if admission.settled:
            return
        admission.settled = True
        for slot in admission.slots:
            left = self._running[slot] - 1
            if left:
                self._running[slot] = left
            else:
                del self._running[slot]
        more = max(0, tokens) - admission.tokens
        for taken in admission.taken:
            bucket = self._buckets.get(taken.slot)
            if more > 0:
                bucket = bucket or self._bucket(taken.slot, taken.bucket.most, now_ns)
                bucket.advance(now_ns)
                bucket.level = min(bucket.level + more * bucket.window_ns, 2 * bucket.size)
            elif bucket is taken.bucket:  # another one: ours was empty and is forgotten
                bucket.advance(now_ns)
                bucket.level -= bucket.share(-more * bucket.window_ns, taken.kept, taken.epoch)

    def standings(
        self, key_id: str, limits: Sequence[Limit], now_ns: int
    ) -> dict[str, LimitStatus]:
        """By header word: of several limits that share it, the one with the least left."""
        found: dict[str, LimitStatus] = {}
        for limit in limits:
            kind = LIMITS[limit.kind]
            if not kind.header:
                continue
            bucket = self._bucket((key_id, limit.model, limit.kind), limit.most, now_ns)
            left = max(0, bucket.size - bucket.level) // bucket.window_ns
            reset_ns = -(-bucket.level // bucket.most) if bucket.most else 0
            other = found.get(kind.header)
            if other is None or left < other.remaining:
                found[kind.header] = LimitStatus(limit.most, left, reset_ns)
        return found

    def running(self, key_id: str) -> int:
        """How many of a key's requests count against its concurrency limits now."""
        return max((n for slot, n in self._running.items() if slot[0] == key_id), default=0)

    def _bucket(self, slot: LimitSlot, most: int, now_ns: int) -> Bucket:
        bucket = self._buckets.get(slot)
        if bucket is None:
            if len(self._buckets) >= self._sweep:
                self._forget_the_empty(now_ns)
            window_ns = LIMITS[slot[2]].window_ns
            bucket = self._buckets[slot] = Bucket(most, window_ns, now_ns)
            return bucket
        bucket.advance(now_ns)  # until now with the limit that held until now
        if bucket.most != most:
            bucket.limit(most)
        return bucket

    def levels(self, now_ns: int) -> list[BucketLevel]:
        """How full the buckets are that are not empty."""
        self._forget_the_empty(now_ns)
        return [
            BucketLevel(slot, b.most, b.window_ns, b.at_ns, b.level)
            for slot, b in self._buckets.items()
        ]

    def restore(self, levels: Sequence[BucketLevel]) -> None:
        """Go on with the buckets of another process; what it had reserved stays taken."""
        for found in levels:
            kind = LIMITS.get(found.slot[2])
            if kind is not None and kind.window_ns == found.window_ns:
                self._buckets[found.slot] = Bucket(
                    found.most, found.window_ns, found.at_ns, found.level
                )

    def _forget_the_empty(self, now_ns: int) -> None:
        for bucket in self._buckets.values():
            bucket.advance(now_ns)
        self._buckets = {slot: b for slot, b in self._buckets.items() if b.level}
        self._sweep = max(SWEEP, 2 * len(self._buckets))


def whole_seconds(ns: float) -> float:
    """As seconds, and never less: a nanosecond too early is refused again."""
    seconds = ns / NS
    return seconds if seconds * NS >= ns else math.nextafter(seconds, math.inf)
