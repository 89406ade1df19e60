"""What an edge and the others tell each other by way of their node: upstreams, turns, and that keys have changed."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec

from headgate.node import wire
from headgate.node.wire import (
    EVENTS_NOTICE,
    HAPPENED,
    HEALTH_NOTICE,
    KEYS_NOTICE,
    TURN,
    TURNS_NOTICE,
    USED,
    USED_NOTICE,
    Happened,
)
from headgate.policy.health import HealthEvent, HealthSnapshot, HealthState
from headgate.reasoning.cache import ReasoningCache
from headgate.storage.sqlite.ledger import Ledger

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_decode_snapshot = msgspec.msgpack.Decoder(HealthSnapshot).decode
_decode_turns = msgspec.msgpack.Decoder(list[bytes]).decode
_decode_names = msgspec.msgpack.Decoder(list[str]).decode
_decode_events = msgspec.msgpack.Decoder(list[HealthEvent]).decode


class News:
    """Passes what this edge has seen and kept to the others, and takes in what they have."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.state: HealthState | None = None  # of this edge
        self.cache: ReasoningCache | None = None  # of this edge
        self.greeted = asyncio.Event()  # the node has said what it knows
        self._keys_changed = asyncio.Event()  # since the edge read them last
        self._kept_elsewhere: Callable[[str, bytes], None] | None = None
        self._used_elsewhere: Callable[[list[str]], None] | None = None

    async def keys_change(self, within_s: float) -> None:
        """Return when the node has said that the keys have changed, or after so long."""
        if within_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._keys_changed.wait(), within_s)
        self._keys_changed.clear()  # what changes while they are read is looked at once more

    def publish(self, event: HealthEvent) -> None:
        self._ledger.notify(HAPPENED, "", _encode(Happened(event)))

    def notice(self, data: bytes) -> None:
        """Apply what the node says."""
        if data.startswith(KEYS_NOTICE):
            self._keys_changed.set()
        elif self.state is None:
            return
        elif data.startswith(HEALTH_NOTICE):
            self.state.restore(_decode_snapshot(data[1:]))
            self.greeted.set()
        elif data.startswith(TURNS_NOTICE):
            if self.cache is not None:
                for turn in _decode_turns(data[1:]):
                    self.cache.take(turn, time.monotonic())
        elif data.startswith(USED_NOTICE):
            if self.cache is not None:
                self.cache.used(_decode_names(data[1:]), time.monotonic())
        elif data.startswith(EVENTS_NOTICE):
            for event in _decode_events(data[1:]):
                self.state.apply(event)

    def share(self, cache: ReasoningCache) -> None:
        """Let other edges have the turns that this one keeps, and this one theirs."""
        self.cache = cache
        cache.on_kept = self._kept
        cache.on_used = self._used

    def _kept(self, name: str, data: bytes) -> None:
        self._ledger.notify(TURN, "", _encode(wire.KeepTurn(name, data)))
        if self._kept_elsewhere is not None:
            self._kept_elsewhere(name, data)

    def _used(self, names: list[str]) -> None:
        self._ledger.notify(USED, "", _encode(wire.Used(names)))
        if self._used_elsewhere is not None:
            self._used_elsewhere(names)

    def share_with_nodes(
        self, kept: Callable[[str, bytes], None], used: Callable[[list[str]], None]
    ) -> None:
        """Have these called, too, for each turn that this edge keeps, and for those that it uses."""
        self._kept_elsewhere, self._used_elsewhere = kept, used

    def catch_up(self) -> None:
        """Take in at once what the node has sent: a turn that ended elsewhere is known here then."""
        self._ledger.catch_up()

    def snapshot(self) -> bytes:
        return b"" if self.state is None else _pack(self.state.snapshot())
