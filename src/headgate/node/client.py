"""An edge's side of admission: what it asks its node, and what it remembers of the answers.

A request whose key has limits asks once before its body is read; the tokens, the budget and the intent
are one message, which is committed before it is answered.

Note: a refusal by a rate holds for the seconds that it names, whatever happens meanwhile, so it is
repeated here without asking the node again.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import date

import msgspec

from headgate.catalog.models import Price
from headgate.errors import Failure, Refused
from headgate.node.news import News
from headgate.node.wire import (
    BEGIN,
    COLLECT,
    DROP,
    ENTER,
    EXTEND,
    FORGET,
    KEEP,
    LEAVE,
    OPEN,
    PACE,
    PACED,
    RECALL,
    REPORT,
    STANDING,
    STORE,
    UNPACED,
    Begin,
    Begun,
    Bounds,
    Collect,
    Collected,
    Drop,
    Enter,
    Entered,
    Extend,
    Extended,
    Forget,
    Held,
    Hello,
    Keep,
    Leave,
    Open,
    Opened,
    Pace,
    Paced,
    PacedTurn,
    Recall,
    Recalled,
    Report,
    Settled,
    Standing,
    Standings,
    Store,
    StoreAnswer,
    Unpaced,
)
from headgate.policy import limit_kinds, limits
from headgate.policy.idempotency import Saved, Slot, Verdict
from headgate.policy.keys import Key
from headgate.policy.limit_headers import LimitStatus
from headgate.policy.limit_kinds import Limit, Scope
from headgate.policy.metrics_merge import Sample
from headgate.policy.pricing import Tariff
from headgate.policy.reservations import Grant
from headgate.policy.stored_responses import KeptBounds, Missing
from headgate.storage.errors import StoreError
from headgate.storage.rows import IntentRecord
from headgate.storage.sqlite.entries import encode_intent
from headgate.storage.sqlite.ledger import Ledger

# Of the output that a request allows, how much its tokens-a-minute limit reserves: clients ask for
# far more than they get, and what comes above it is charged at the end.
RESERVED_OUTPUT = 4096
LOOKUP_PATIENCE_S = 0.5
MAX_TARIFFS = 256  # of a model, tier and day each; the days pass
MAX_REFUSED = 4096  # keys whose refusals are remembered; then all are forgotten
_EPOCH = date(1970, 1, 1).toordinal()

_encode = msgspec.json.Encoder().encode
_decode_entered = msgspec.json.Decoder(Entered).decode
_decode_opened = msgspec.json.Decoder(Opened).decode
_decode_extended = msgspec.json.Decoder(Extended).decode
_decode_settled = msgspec.json.Decoder(Settled).decode
_decode_paced = msgspec.json.Decoder(PacedTurn).decode
_decode_collected = msgspec.json.Decoder(Collected).decode
_decode_stored = msgspec.json.Decoder(StoreAnswer).decode
_decode_recalled = msgspec.json.Decoder(Recalled).decode
_decode_begun = msgspec.json.Decoder(Begun).decode
_decode_standings = msgspec.json.Decoder(Standings).decode
LEASE_AGAIN_S = (0.004, 0.006, 0.008, 0.015)  # the database answers in a few milliseconds
_NOTHING: dict[str, LimitStatus] = {}


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What one call of a model may take at most of its key's budget."""

    tariff: Tariff | None  # None: it costs nothing
    input: int  # the upper bound, in tokens
    asked: int | None  # the client's max_tokens
    most: int  # output tokens when nobody limits them

    @property
    def nano(self) -> int | None:
        """The most that it may cost as it was sent."""
        if self.tariff is None:
            return 0
        wanted = self.most if self.asked is None else min(self.asked, self.most)
        return self.tariff.worst_case(self.input, wanted).nano

    @property
    def bounds(self) -> Bounds | None:
        if self.tariff is None:
            return None
        return Bounds(self.tariff.tiers, self.input, self.asked, self.most)


class LimitReached(Refused):
    """A limit of the key has no room; `standings` is what is left of all of them."""

    def __init__(self, failure: Failure, standings: dict[str, LimitStatus]) -> None:
        super().__init__(failure)
        self.standings = standings


class Admission(msgspec.Struct, eq=False):
    """What a request has entered with: it must be left, whatever becomes of the request."""

    number: int  # 0: nothing of its key is limited
    owner: str
    limits: tuple[Limit, ...] = ()
    standings: dict[str, LimitStatus] = _NOTHING
    id: str = ""  # of its exchange, once that is open


class _RefusedUntil(msgspec.Struct):
    limits: tuple[Limit, ...]
    until_s: float
    failure: Failure
    standings: dict[str, LimitStatus]


class UpstreamTurn(msgspec.Struct, eq=False):
    """Leave to contact an upstream after `wait_s`; or when to come back, as that is too long."""

    number: int
    wait_s: float
    retry_after_s: float | None = None


class Pacing:
    """Turns at upstreams with limits, which are the node's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._numbers = itertools.count(1)

    async def ask(
        self,
        account: str,
        model: str,
        rpm: int | None,
        tpm: int | None,
        tokens: int,
        patience_s: float,
    ) -> UpstreamTurn:
        """A turn for a request of up to `tokens`; StoreError when there is no node."""
        number = next(self._numbers)
        message = _encode(Pace(number, account, model, rpm, tpm, tokens, patience_s))
        data = await self._ledger.ask(PACE, "", message, (UNPACED, _encode(Unpaced(number))))
        found = _decode_paced(data)
        return UpstreamTurn(number, found.wait_s, found.retry_after_s)

    def settle(self, turn: UpstreamTurn, tokens: int) -> None:
        """Count what it really took in the place of the estimate."""
        self._ledger.notify(PACED, "", _encode(Paced(turn.number, tokens)))

    def cancel(self, turn: UpstreamTurn) -> None:
        """It was not used after all."""
        self._ledger.notify(UNPACED, "", _encode(Unpaced(turn.number)))


class Keeping:
    """The requests of this edge that run with an Idempotency-Key, which the node knows."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._numbers = itertools.count(1)
        self.running: dict[int, Begin] = {}

    async def begin(self, slot: Slot, fingerprint: bytes) -> int | Saved | Verdict:
        """A number for a request that may run; else the reply that it had, or why it may not.

        StoreError when there is no node.
        """
        number = next(self._numbers)
        message = Begin(number, *slot, fingerprint)
        undo = (DROP, _encode(Drop(number)))
        data = await self._ledger.ask(BEGIN, "", _encode(message), undo)
        if data:
            found = _decode_begun(data)
            return found.saved or found.verdict or "running"
        self.running[number] = message
        return number

    def keep(self, number: int, reply: Saved | Verdict) -> None:
        """Keep the reply, or why there is none."""
        self.running.pop(number, None)
        message = Keep(number, reply) if isinstance(reply, Saved) else Keep(number, None, reply)
        self._ledger.notify(KEEP, "", _encode(message))
        self._ledger.flush()  # before the client has its last byte and may ask again elsewhere

    def drop(self, number: int) -> None:
        """It came to nothing: the key is free again."""
        if self.running.pop(number, None) is not None:
            self._ledger.notify(DROP, "", _encode(Drop(number)))
            self._ledger.flush()


class Storing:
    """The responses that the node keeps for all edges; they are opaque to it and to this class."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def store(
        self, owner: str, id: str, previous: str, data: bytes, bounds: KeptBounds
    ) -> bool:
        """Keep a response; whether it is kept.  StoreError when there is no node."""
        message = Store(owner, id, previous, data, bounds)
        return _decode_stored(await self._ledger.ask(STORE, "", _encode(message))).done

    async def recall(self, owner: str, id: str, *, alone: bool = False) -> list[bytes] | Missing:
        """Return a response with those before it, the first one first; StoreError without a node."""
        data = await self._ledger.ask(RECALL, "", _encode(Recall(owner, id, alone)))
        found = _decode_recalled(data)
        return found.missing or found.found

    async def forget(self, owner: str, id: str) -> bool:
        """Forget a response; whether it was there.  StoreError when there is no node."""
        return _decode_stored(await self._ledger.ask(FORGET, "", _encode(Forget(owner, id)))).done


class MetricsOfAll:
    """What the edges have counted: each leaves its samples with the node for the pages of the others."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def report(self, samples: list[Sample]) -> None:
        self._ledger.notify(REPORT, "", _encode(Report(samples)))

    async def others(self) -> list[list[Sample]]:
        """The samples of the other edges, and of those that have ended; none when there is no node."""
        try:
            data = await self._ledger.ask(COLLECT, "", _encode(Collect()))
        except StoreError:
            return []
        return _decode_collected(data).others


class Admissions:
    """Is the edge's side; `version` is that of the keys that it has read, `budgeted` whether a key has a budget."""

    def __init__(
        self,
        ledger: Ledger,
        version: Callable[[], int],
        budgeted: Callable[[Key], bool],
    ) -> None:
        self._ledger = ledger
        self._version = version
        self._budgeted = budgeted
        self._numbers = itertools.count(1)
        self._entered: dict[int, Admission] = {}
        self._refused: dict[tuple[str, Scope], _RefusedUntil] = {}
        # By the prices' place in memory, which the entry keeps, so that it is nobody else's.
        self._tariffs: dict[tuple[int, str, int], tuple[tuple[Price, ...], Tariff]] = {}
        # By the key's id and what is asked for.
        self._limits: dict[tuple[str, Scope], tuple[Key, tuple[Limit, ...]]] = {}
        self.keeping = Keeping(ledger)
        self.storing = Storing(ledger)
        self.pacing = Pacing(ledger)
        self.news = News(ledger)
        self.metrics = MetricsOfAll(ledger)
        ledger.hello = self._hello
        ledger.on_notice = self.news.notice

    def _hello(self) -> bytes:
        held = tuple([Held(e.number, e.owner, e.limits, e.id) for e in self._entered.values()])
        running = tuple(self.keeping.running.values())
        return _encode(Hello(self._ledger.instance, held, running, self.news.snapshot()))

    async def enter(self, key: Key, scope: Scope = "exchange") -> Admission:
        """Take the key's rate and a slot, before the request's body is read.

        LimitReached when there is none, StoreError when there is no node.  A lookup, which costs
        nothing, does not wait for a node that waits for its disk.
        """
        if scope != "lookup":
            return await self._enter(key, scope)
        try:
            async with asyncio.timeout(LOOKUP_PATIENCE_S):
                return await self._enter(key, scope)
        except TimeoutError:  # `ask` has taken back what it asked for
            return Admission(0, key.owner)

    async def _enter(self, key: Key, scope: Scope) -> Admission:
        mine = self.limits_of(key, scope)
        owner = key.owner
        if not mine:
            return Admission(0, owner)
        if self._refused:
            self._refuse_again(owner, scope, mine)
        number = next(self._numbers)
        undo = (LEAVE, _encode(Leave(number)))
        message = Enter(number, owner, mine)
        answer = _decode_entered(await self._ledger.ask(ENTER, "", _encode(message), undo))
        if answer.again:
            answer = await self._drawn(message, undo)
        if answer.refused is None:
            found = self._entered[number] = Admission(number, owner, mine, answer.standings)
            return found
        if answer.exact_s:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            until_s = time.monotonic() + answer.exact_s
            self._refused[owner, scope] = _RefusedUntil(
                mine, until_s, answer.refused, answer.standings
            )
        raise LimitReached(answer.refused, answer.standings)

    async def _drawn(self, message: Enter, undo: tuple[int, bytes]) -> Entered:
        """Send it again until the node has drawn from the limits in the database, or has not."""
        began_s = time.monotonic()
        for turn in itertools.count():
            await asyncio.sleep(_again_s(turn))
            waited_s = time.monotonic() - began_s
            message = msgspec.structs.replace(message, waited_s=waited_s)
            data = await self._ledger.ask(ENTER, "", _encode(message), undo)
            answer = _decode_entered(data)
            if not answer.again:
                return answer
        raise AssertionError

    def _refuse_again(self, owner: str, scope: Scope, mine: tuple[Limit, ...]) -> None:
        known = self._refused.get((owner, scope))
        if known is None:
            return
        left_s = known.until_s - time.monotonic()
        if left_s <= 0 or known.limits != mine:
            del self._refused[owner, scope]
            return
        raise LimitReached(limits.later(known.failure, left_s), known.standings)

    def leave(self, admission: Admission) -> None:
        """End what `enter` took; nothing changes if its row is on its way."""
        if self._entered.pop(admission.number, None) is not None:
            self._ledger.notify(LEAVE, "", _encode(Leave(admission.number)))

    async def admit(
        self,
        key: Key,
        admission: Admission,
        input: int,
        max_output: int | None,
        demand: Demand,
        intent: IntentRecord,
    ) -> int | None:
        """Take the tokens, hold the most it may cost, and commit the intent.

        The answer is the max_tokens that the budget pays for, where that is less than the request
        allows.  Refused when a limit or a budget has too little, StoreError when nothing can be
        written; both have left what the request entered with.
        """
        tokens = input + min(max_output or RESERVED_OUTPUT, RESERVED_OUTPUT)
        number = admission.number
        message = Open(
            intent.request_id,
            self._ledger.instance,
            msgspec.Raw(encode_intent(intent)),
            key.owner,
            key.account,
            intent.model,
            intent.started_at,
            number,
            tokens,
            demand.nano,
            self._version(),
            demand.bounds if self._budgeted(key) else None,
        )
        admission.id = intent.request_id
        try:
            data = await self._ledger.open_with(intent.request_id, OPEN, _encode(message))
        except BaseException:
            self._entered.pop(number, None)
            raise
        if not data:
            return None
        answer = _decode_opened(data)
        if answer.again:
            answer = await self._leased(admission, message)
        admission.standings = answer.standings
        if answer.refused is not None:
            self._entered.pop(number, None)
            raise Refused(answer.refused)
        return answer.max_tokens

    async def _leased(self, admission: Admission, message: Open) -> Opened:
        """Send it again until the node has leased its budget from the database, or has not."""
        began_s = time.monotonic()
        for turn in itertools.count():
            try:
                await asyncio.sleep(_again_s(turn))
            except BaseException:
                self.leave(admission)
                raise
            message.waited_s = time.monotonic() - began_s
            try:
                data = await self._ledger.open_with(message.id, OPEN, _encode(message))
            except BaseException:
                self._entered.pop(admission.number, None)
                raise
            answer = _decode_opened(data) if data else Opened()
            if not answer.again:
                return answer
        raise AssertionError

    async def extend(self, key: Key, id: str, demand: Demand, spent_nano: int) -> Grant | None:
        """Reserve another call of the same exchange, whose calls so far cost `spent_nano`.

        None when the budget has no room for it, or nobody can be asked.
        """
        message = Extend(
            id,
            demand.nano,
            spent_nano,
            self._version(),
            demand.bounds if self._budgeted(key) else None,
        )
        try:
            answer = _decode_extended(await self._ledger.ask(EXTEND, id, _encode(message)))
        except StoreError:
            return None
        return Grant(None, answer.max_tokens) if answer.granted else None

    def settling(self, admission: Admission) -> None:
        """Note that the row of its exchange is on its way, which ends what it has entered with."""
        self._entered.pop(admission.number, None)

    def settled(self, admission: Admission, answer: bytes) -> None:
        """Note what the node has answered to the row."""
        if answer:
            admission.standings = _decode_settled(answer).standings

    async def standing(self, key: Key) -> Standings:
        """How the key and its account stand; StoreError when nobody can be asked."""
        message = _encode(Standing(key.owner, key.account))
        return _decode_standings(await self._ledger.ask(STANDING, "", message))

    def tariff(self, prices: tuple[Price, ...], service_tier: str, at_s: float) -> Tariff:
        """Return what a route costs on that day (Unix seconds), at that tier."""
        day = int(at_s // 86400)
        known = self._tariffs.get((id(prices), service_tier, day))
        if known is None:
            if len(self._tariffs) >= MAX_TARIFFS:
                self._tariffs.clear()
            on = date.fromordinal(_EPOCH + day)
            known = prices, Tariff(prices, service_tier, on)
            self._tariffs[id(prices), service_tier, day] = known
        return known[1]

    def limits_of(self, key: Key, scope: Scope = "exchange") -> tuple[Limit, ...]:
        found = self._limits.get((key.id, scope))
        if found is None or found[0] is not key:  # a request may outlive its key's terms
            found = self._limits[key.id, scope] = (key, limit_kinds.of_key(key, scope))
        return found[1]

    def forget_keys(self) -> None:
        """Read the limits of each key anew, as the keys have changed."""
        self._limits.clear()


def _again_s(turn: int) -> float:
    return LEASE_AGAIN_S[min(turn, len(LEASE_AGAIN_S) - 1)]
