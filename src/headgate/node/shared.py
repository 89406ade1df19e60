"""What edges share beside money: how upstreams do and are paced, replies of Idempotency-Keys, responses."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from headgate.node import wire
from headgate.node.handover import HandedOver
from headgate.node.wire import (
    Begin,
    Begun,
    Collect,
    Collected,
    Drop,
    Forget,
    Happened,
    Hello,
    Keep,
    Pace,
    Paced,
    PacedTurn,
    Recall,
    Recalled,
    Report,
    Store,
    StoreAnswer,
    Unpaced,
)
from headgate.policy import metrics_merge
from headgate.policy.health import HealthEvent, HealthSnapshot, HealthState
from headgate.policy.idempotency import Saved, Slot, Table
from headgate.policy.metrics_merge import Sample
from headgate.policy.pacing import PacedTurn as Turn
from headgate.policy.pacing import Pacer, PacerRefusal, UpstreamLimits
from headgate.policy.stored_responses import StoredResponses
from headgate.reasoning.turns import Turns

PIECE_BYTES = 1 << 20  # of the turns that an edge is sent at its start
MAX_TURNS = 4096  # of one edge; then those of more than a minute ago are forgotten

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HealthSnapshot).decode


class Sharer:
    """What one edge has of the things that are shared."""

    def __init__(self) -> None:
        self.turns: dict[int, Turn] = {}
        self.running: dict[int, Slot] = {}
        self.samples: list[Sample] = []


class Shared:
    """The state of one machine's upstreams and Idempotency-Keys."""

    def __init__(self) -> None:
        self._health = HealthState()
        self._pacer = Pacer()
        self._table = Table()
        self.own_samples: Callable[[], list[Sample]] = list  # of the node itself
        self._sharers: dict[int, Sharer] = {}  # by id(), those that have reported
        self._turns = Turns()
        self._responses = StoredResponses()
        self.fresh_turns: list[tuple[Sharer, bytes]] = []  # that the other edges do not have yet
        self.used_turns: list[tuple[Sharer, list[str]]] = []
        self._ended: list[Sample] = []  # of edges that have ended
        self.events: list[tuple[Sharer, HealthEvent]] = []  # that the other edges do not know yet

    def hand_over(self, state: HandedOver) -> None:
        """Write down what the next node should know."""
        state.turns = self._turns.kept(time.monotonic())
        state.replies, state.pace = self._table.kept(), self._pacer.lines()
        state.health, state.ended = self._health.snapshot(), self._ended
        state.responses = self._responses.kept()

    def take_over(self, state: HandedOver) -> None:
        """Go on where the node before this one has ended."""
        self._turns.restore(state.turns)
        self._table.restore(state.replies)
        self._pacer.restore(state.pace)
        self._responses.restore(state.responses)
        self._ended = state.ended
        if state.health is not None:
            self._health.restore(state.health)

    def hello(self, sharer: Sharer, stated: Hello) -> bytes:
        """Take in what an edge knows; the answer is what it should know."""
        now_s = time.monotonic()
        for begun in stated.running:
            slot = (begun.key, begun.text)
            if self._table.look(slot, begun.fingerprint, now_s) is None:
                self._table.start(slot, begun.fingerprint, now_s)
            sharer.running[begun.number] = slot
        if stated.health and self._health.blank:
            self._health.restore(_decode(stated.health))
        return _encode(self._health.snapshot())

    def gone(self, sharer: Sharer) -> None:
        """End what runs on an edge that has gone; the ledger knows how it ended."""
        for slot in sharer.running.values():
            self._table.drop(slot)
        sharer.running.clear()
        if self._sharers.pop(id(sharer), None) is not None:
            self._ended = metrics_merge.added(self._ended, metrics_merge.lasting(sharer.samples))

    def all_turns(self) -> list[bytes]:
        """What an edge that begins should know, packed in pieces of some size."""
        pieces: list[bytes] = []
        some: list[bytes] = []
        size = 0
        for data in self._turns.all(time.monotonic()):
            some.append(data)
            size += len(data)
            if size >= PIECE_BYTES:
                pieces.append(_encode(some))
                some, size = [], 0
        return [*pieces, _encode(some)] if some else pieces

    @property
    def news(self) -> bool:
        """Whether there is something that other edges do not know."""
        return bool(self.events or self.fresh_turns or self.used_turns)

    def take_news(self, sharers: Iterable[Sharer]) -> list[tuple[Sharer, bytes]]:
        """The notices for these edges of what the others have seen and kept since the last time."""
        events, self.events = self.events, []
        turns, self.fresh_turns = self.fresh_turns, []
        used, self.used_turns = self.used_turns, []
        out: list[tuple[Sharer, bytes]] = []
        for sharer in sharers:
            if theirs := [event for source, event in events if source is not sharer]:
                out.append((sharer, wire.EVENTS_NOTICE + _encode(theirs)))
            if kept := [data for source, data in turns if source is not sharer]:
                out.append((sharer, wire.TURNS_NOTICE + _encode(kept)))
            if names := [n for source, some in used if source is not sharer for n in some]:
                out.append((sharer, wire.USED_NOTICE + _encode(names)))
        return out

    def decide(self, sharer: Sharer, message: Any) -> Any:
        """The answer to a message (None: plain success).  Any: those of wire.py."""
        match message:
            case Happened():
                self._health.apply(message.event)
                self.events.append((sharer, message.event))
            case Pace():
                return self._pace(sharer, message)
            case Paced():
                turn = sharer.turns.pop(message.number, None)
                if turn is not None:
                    self._pacer.settle(turn, message.tokens)
            case Unpaced():
                turn = sharer.turns.pop(message.number, None)
                if turn is not None:
                    self._pacer.cancel(turn)
            case wire.KeepTurn():
                self._turns.keep(message.name, message.data, time.monotonic())
                self.fresh_turns.append((sharer, message.data))
            case wire.Used():
                self._turns.used(message.names, time.monotonic())
                self.used_turns.append((sharer, message.names))
            case Report():
                sharer.samples = message.samples
                self._sharers[id(sharer)] = sharer
            case Collect():
                others = [s.samples for s in self._sharers.values() if s is not sharer]
                more = (self._ended, self.own_samples())
                return Collected([*others, *[samples for samples in more if samples]])
            case Begin():
                return self._begin(sharer, message)
            case Keep():
                slot = sharer.running.pop(message.number, None)
                if slot is not None:
                    self._table.end(slot, message.saved or message.verdict)
            case Drop():
                slot = sharer.running.pop(message.number, None)
                if slot is not None:
                    self._table.drop(slot)
            case Store():
                named = (message.owner, message.id)
                now_s = time.monotonic()
                kept = self._responses.keep(
                    named, message.previous, message.data, message.bounds, now_s
                )
                return StoreAnswer(kept)
            case Recall():
                return self._recall(message)
            case Forget():
                return StoreAnswer(self._responses.drop((message.owner, message.id)))
        return None

    def _recall(self, asked: Recall) -> Recalled:
        slot, now_s = (asked.owner, asked.id), time.monotonic()
        if asked.alone:
            one = self._responses.one(slot, now_s)
            return Recalled([], "unknown") if one is None else Recalled([one])
        found = self._responses.chain(slot, now_s)
        return Recalled([], found) if isinstance(found, str) else Recalled(found)

    def _begin(self, sharer: Sharer, asked: Begin) -> Begun | None:
        slot, now_s = (asked.key, asked.text), time.monotonic()
        found = self._table.look(slot, asked.fingerprint, now_s)
        if found is None:
            self._table.start(slot, asked.fingerprint, now_s)
            sharer.running[asked.number] = slot
            return None
        return Begun(found) if isinstance(found, Saved) else Begun(None, found)

    def _pace(self, sharer: Sharer, asked: Pace) -> PacedTurn:
        pace = UpstreamLimits(asked.rpm, asked.tpm)
        turn = self._pacer.ask(
            asked.account, asked.model, pace, asked.tokens, time.monotonic_ns(), asked.patience_s
        )
        if isinstance(turn, PacerRefusal):
            return PacedTurn(0.0, turn.retry_after_s)
        if len(sharer.turns) >= MAX_TURNS:
            sharer.turns = {n: t for n, t in sharer.turns.items() if t.counted}
        sharer.turns[asked.number] = turn
        return PacedTurn(turn.wait_s)
