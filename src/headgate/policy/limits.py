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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from headgate.errors import Failure
from headgate.policy.keys import Key

NS = 10**9
MINUTE_NS = 60 * NS
CONCURRENCY_RETRY_S = 1.0
SWEEP = 1024  # buckets; below it empty ones stay

# A count of tokens is cheap and agents ask for two dozen at a time; a key that may generate often may
# count several times as often.
COUNTS_PER_REQUEST, MIN_COUNTS, DEFAULT_COUNTS, COUNTS_AT_A_TIME = 5, 30, 1200, 32
LOOKUPS = 600  # lists, reports and cards a minute: more than any client was seen to ask for

Takes = Literal["request", "tokens", "slot"]
Scope = Literal["exchange", "count", "lookup"]  # which kind of request a limit is for


class LimitKind(msgspec.Struct, frozen=True):
    """What can be limited: what one request takes of it, and in how long `most` comes back."""

    name: str
    says: str  # "the limit is 60 {says}"
    most: Callable[[Key], int | None]
    takes: Takes
    window_ns: int = MINUTE_NS
    header: str = ""  # "x-ratelimit-limit-{header}"; "": in none
    scope: Scope = "exchange"


def _counts_a_minute(key: Key) -> int:
    return DEFAULT_COUNTS if key.rpm is None else max(MIN_COUNTS, COUNTS_PER_REQUEST * key.rpm)


# A new limit is a row.
LIMITS: dict[str, LimitKind] = {
    kind.name: kind
    for kind in (
        LimitKind(
            "requests", "requests a minute", lambda key: key.rpm, "request", header="requests"
        ),
        LimitKind("tokens", "tokens a minute", lambda key: key.tpm, "tokens", header="tokens"),
        LimitKind("concurrency", "requests at a time", lambda key: key.concurrency, "slot"),
        LimitKind("counts", "token counts a minute", _counts_a_minute, "request", scope="count"),
        LimitKind(
            "counting", "token counts at a time", lambda _: COUNTS_AT_A_TIME, "slot", scope="count"
        ),
        LimitKind("lookups", "look-ups a minute", lambda _: LOOKUPS, "request", scope="lookup"),
    )
}


class Limit(msgspec.Struct, frozen=True, gc=False):
    kind: str  # of LIMITS
    most: int
    model: str = ""  # counted for this one apart; "": for all together


def of_key(key: Key, scope: Scope = "exchange") -> tuple[Limit, ...]:
    """The limits of a key for one kind of request."""
    found = ((kind.name, kind.most(key)) for kind in LIMITS.values() if kind.scope == scope)
    return tuple(Limit(name, most) for name, most in found if most is not None)


class LimitRefusal(msgspec.Struct, frozen=True, gc=False):
    """Which limit asks for the longest wait, and how long: math.inf when no wait would help."""

    limit: Limit
    asked: int
    retry_after_s: float

    def failure(self) -> Failure:
        most, says, model = self.limit.most, LIMITS[self.limit.kind].says, self.limit.model
        what = f"{most} {says}" + (f" for {model}" if model else "")
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


class Bucket(msgspec.Struct):
    """What was taken of one limit, as a level that sinks with time."""

    most: int
    window_ns: int
    at_ns: int
    level: int = 0  # units
    # Of a unit that was taken when `kept` was k, exp(kept - k) is still there, unless the bucket
    # was empty in between: each time it is, an `epoch` ends.
    kept: float = 0.0
    epoch: int = 0

    @property
    def size(self) -> int:
        return self.most * self.window_ns

    def advance(self, now_ns: int) -> None:
        gone_ns = now_ns - self.at_ns
        self.at_ns = now_ns  # also back: else a clock that was put right would stand still for us
        if gone_ns > 0 and self.level:
            self._drain(gone_ns * self.most)

    def limit(self, most: int) -> None:
        """Go on with another limit; what was taken stays taken."""
        self.most = most
        if self.level > 2 * self.size:  # the rest is forgiven, and with it what would come back
            self.level, self.kept = 2 * self.size, 0.0
            self.epoch += 1

    def _drain(self, units: int) -> None:
        if units >= self.level:
            self.level, self.kept = 0, 0.0
            self.epoch += 1
        else:
            self.kept += math.log((self.level - units) / self.level)
            self.level -= units

    def share(self, units: int, kept: float, epoch: int) -> int:
        """What is still there of `units` that were taken then."""
        if epoch != self.epoch:
            return 0
        return min(self.level, units * round(math.exp(min(0.0, self.kept - kept)) * 2**52) >> 52)

    def wait_ns(self, units: int) -> float:
        """How long until `units` fit: 0, or a whole number, or never."""
        over = self.level + units - self.size
        if over <= 0 and self.most:
            return 0
        return math.inf if units > self.size or not self.most else -(-over // self.most)


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


class Admission(msgspec.Struct, eq=False):
    """A request's place within its key's limits: it must be settled, whatever becomes of the request."""

    token_limits: tuple[Limit, ...]
    key_id: str
    slots: tuple[LimitSlot, ...]
    tokens: int = 0
    taken: tuple[_Taken, ...] = ()
    settled: bool = False


class LimitStatus(msgspec.Struct, frozen=True, gc=False):
    """What a client may know of one of its rates; `reset_ns`: until all of it is back."""

    limit: int
    remaining: int
    reset_ns: int


class Limiter:
    """The state of all keys: as much of it as there were requests within the last two windows."""

    def __init__(self) -> None:
        self._buckets: dict[LimitSlot, Bucket] = {}
        self._running: dict[LimitSlot, int] = {}
        self._sweep = SWEEP

    def enter(self, key_id: str, limits: Sequence[Limit], now_ns: int) -> Admission | LimitRefusal:
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
            return LimitRefusal(refused, 0, _seconds(longest_ns))
        for bucket in rates:
            bucket.level += bucket.window_ns
        for slot in slots:
            self._running[slot] = self._running.get(slot, 0) + 1
        return Admission(tuple(token_limits), key_id, tuple(slots))

    def resume(self, key_id: str, limits: Sequence[Limit]) -> Admission:
        """The place of a request that is running already: its slots are taken, its rate was."""
        slots = [
            (key_id, limit.model, limit.kind)
            for limit in limits
            if LIMITS[limit.kind].takes == "slot"
        ]
        for slot in slots:
            self._running[slot] = self._running.get(slot, 0) + 1
        return Admission((), key_id, tuple(slots))

    def take(self, admission: Admission, tokens: int, now_ns: int) -> LimitRefusal | None:
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
            return LimitRefusal(refused, tokens, _seconds(longest_ns))
        taken = []
        for slot, bucket, units in rates:
            bucket.level += units
            taken.append(_Taken(slot, bucket, bucket.kept, bucket.epoch))
        admission.tokens, admission.taken = tokens, tuple(taken)
        return None

    def settle(self, admission: Admission, tokens: int, now_ns: int) -> None:
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


def headers(
    words: Literal["openai", "anthropic", ""], standings: Mapping[str, LimitStatus], wall_s: float
) -> list[tuple[str, str]]:
    """What is left, in the `words` of the client's protocol; "": it has none.

    OpenAI: developers.openai.com/api/docs/guides/rate-limits; Anthropic: platform.claude.com/docs,
    rate limits, response headers (both read 2026-11).  `wall_s`: Unix seconds of now.
    """
    out: list[tuple[str, str]] = []
    for word, standing in standings.items():
        limit, remaining = str(standing.limit), str(standing.remaining)
        if words == "anthropic":
            name = f"anthropic-ratelimit-{word}"
            back = datetime.fromtimestamp(math.ceil(wall_s + standing.reset_ns / NS), UTC)
            reset = back.strftime("%Y-%m-%dT%H:%M:%SZ")
            out += [
                (f"{name}-limit", limit),
                (f"{name}-remaining", remaining),
                (f"{name}-reset", reset),
            ]
        elif words == "openai":
            out += [
                (f"x-ratelimit-limit-{word}", limit),
                (f"x-ratelimit-remaining-{word}", remaining),
                (f"x-ratelimit-reset-{word}", duration(standing.reset_ns)),
            ]
    return out


def duration(ns: int) -> str:
    """As Go and OpenAI write it, "12ms", "1.5s", "6m0s"; never less than it is."""
    ms = -(-ns // 10**6)
    if 0 < ms < 1000:
        return f"{ms}ms"
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}.{ms:03d}".rstrip("0").rstrip(".") + "s" if ms else f"{seconds}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _seconds(ns: float) -> float:
    """As seconds, and never less: a nanosecond too early is refused again."""
    seconds = ns / NS
    return seconds if seconds * NS >= ns else math.nextafter(seconds, math.inf)


# --- towards an upstream ---------------------------------------------------------------------


class UpstreamLimits(msgspec.Struct, frozen=True, gc=False):
    """What an upstream publishes for one model and account; None: it does not."""

    rpm: int | None = None
    tpm: int | None = None


class PacedTurn(msgspec.Struct, eq=False):
    """Leave to contact the upstream after `wait_s`."""

    wait_s: float
    at_ns: int
    tokens: int
    line: "_Line"
    counted: bool = True


class PacerRefusal(msgspec.Struct, frozen=True, gc=False):
    """The wait would be longer than the caller has patience for."""

    retry_after_s: float


class _Line(msgspec.Struct, eq=False):
    turns: deque[PacedTurn]  # in the order of their times, of which some are still to come
    tokens: int = 0  # of all turns


class LineOfTurns(msgspec.Struct, frozen=True, array_like=True):
    """The turns of an upstream's account and model, for another process of the machine."""

    account: str
    model: str
    turns: list[tuple[int, int]]  # when, in nanoseconds, and how many tokens


class Pacer:
    """Lets through what fits any 60 seconds, first come, first served.

    A sliding window and not GCRA: the upstreams do not say how they count, and what never exceeds
    the limit in any minute is right for a fixed minute, a sliding one and a bucket of that size.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], _Line] = {}

    def ask(
        self,
        account: str,
        model: str,
        pace: UpstreamLimits,
        tokens: int,
        now_ns: int,
        patience_s: float,
    ) -> PacedTurn | PacerRefusal:
        """A turn for a request of up to `tokens`, or Later, which takes nothing."""
        line = self._lines.get((account, model))
        if line is None:
            line = self._lines[account, model] = _Line(deque())
        turns = line.turns
        while turns and turns[0].at_ns <= now_ns - MINUTE_NS:
            self._uncount(turns.popleft())
        tokens = max(0, tokens)
        if pace.tpm is not None:
            tokens = min(tokens, pace.tpm)  # one that is larger than all goes alone
        at_ns = max(now_ns, turns[-1].at_ns) if turns else now_ns
        if pace.rpm and len(turns) >= pace.rpm:
            at_ns = max(at_ns, turns[-pace.rpm].at_ns + MINUTE_NS)
        if pace.tpm is not None and line.tokens + tokens > pace.tpm:
            within = tokens
            for turn in reversed(turns):
                within += turn.tokens
                if within > pace.tpm:
                    at_ns = max(at_ns, turn.at_ns + MINUTE_NS)
                    break
        wait_s = _seconds(at_ns - now_ns)
        if wait_s > patience_s:
            return PacerRefusal(wait_s)
        turn = PacedTurn(wait_s, at_ns, tokens, line)
        turns.append(turn)
        line.tokens += tokens
        return turn

    def settle(self, turn: PacedTurn, tokens: int) -> None:
        """Count what it really took in the place of the estimate."""
        if turn.counted:
            turn.line.tokens += tokens - turn.tokens
            turn.tokens = tokens

    def cancel(self, turn: PacedTurn) -> None:
        """It was not used after all; those behind it keep the times they got."""
        if turn.counted:
            turn.line.turns.remove(turn)
            self._uncount(turn)

    def _uncount(self, turn: PacedTurn) -> None:
        turn.counted = False
        turn.line.tokens -= turn.tokens

    def lines(self) -> list[LineOfTurns]:
        """The turns of the last minute, and those to come."""
        return [
            LineOfTurns(account, model, [(turn.at_ns, turn.tokens) for turn in line.turns])
            for (account, model), line in self._lines.items()
        ]

    def restore(self, lines: Sequence[LineOfTurns]) -> None:
        """Go on with the turns that another process has given."""
        for found in lines:
            line = self._lines[found.account, found.model] = _Line(deque())
            for at_ns, tokens in found.turns:
                line.turns.append(PacedTurn(0.0, at_ns, tokens, line))
                line.tokens += tokens
