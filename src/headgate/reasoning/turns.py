"""The turns that a node keeps for its edges: those that begin get them all.

The node does not look into them (cache.py does); it keeps them as long as an edge does, the longest unused first
to go.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from headgate.reasoning.cache import DEFAULT_MAX_BYTES, DEFAULT_TTL_S

KeptTurn = tuple[str, float, bytes]  # name, when it expires, what it is
_TURN_COST = 300  # bytes beside its data


class Turns:
    """`now` is seconds of one monotonic clock."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, ttl_s: float = DEFAULT_TTL_S) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._turns: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # when it expires
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._turns)

    def keep(self, name: str, data: bytes, now: float) -> None:
        """Keep one turn."""
        self._expire(now)
        if name in self._turns or len(data) > self._max_bytes:
            return
        self._turns[name] = (now + self._ttl_s, data)
        self.bytes += len(data) + _TURN_COST
        while self.bytes > self._max_bytes:
            self._drop()

    def used(self, names: Sequence[str], now: float) -> None:
        """Keep turns for longer."""
        for name in names:
            found = self._turns.get(name)
            if found is not None:
                self._turns[name] = (now + self._ttl_s, found[1])
                self._turns.move_to_end(name)

    def all(self, now: float) -> Iterable[bytes]:
        """Those that are kept, the longest unused first."""
        self._expire(now)
        return [data for _, data in self._turns.values()]

    def kept(self, now: float) -> list[KeptTurn]:
        """Those that are kept, for another process of the machine."""
        self._expire(now)
        return [(name, until, data) for name, (until, data) in self._turns.items()]

    def restore(self, kept: Iterable[KeptTurn]) -> None:
        """Go on with those that another process has kept."""
        for name, until, data in kept:
            self._turns[name] = (until, data)
            self.bytes += len(data) + _TURN_COST

    def _expire(self, now: float) -> None:
        while self._turns and next(iter(self._turns.values()))[0] <= now:
            self._drop()

    def _drop(self) -> None:
        _, (_, data) = self._turns.popitem(last=False)
        self.bytes -= len(data) + _TURN_COST
