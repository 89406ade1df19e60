"""The responses that are kept for `previous_response_id`: whose, for how long, and which go first.

Each has the items of one turn and names the one before it, so that a conversation costs the sum of its turns, not the
square of it.  A turn that is used keeps those before it alive.  Times are seconds of one steady clock; the data are
opaque here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import msgspec

COST = 400  # bytes beside the data of one response
# Turns of one conversation that are read at a time, and their bytes: what a body may hold, compressed.
MOST_TURNS = 2048
MOST_CHAIN_BYTES = 8 << 20
MOST_BYTES = 2 << 20  # of one response; its turn alone is some 8 MB of text then

Slot = tuple[str, str]  # the owner of the API key, the response's id
Missing = Literal["unknown", "too_large"]


class KeptBounds(msgspec.Struct, array_like=True, frozen=True):
    """What may be kept, as the operator sets it."""

    keep_s: float
    per_owner: int
    most_bytes: int  # of all together


class KeptResponse(msgspec.Struct, array_like=True, frozen=True):
    """A response as a node gives it to the one that takes over."""

    owner: str
    id: str
    previous: str
    data: bytes
    until_s: float
    keep_s: float


class _Entry(msgspec.Struct):
    previous: str
    data: bytes
    until_s: float
    keep_s: float

    @property
    def size(self) -> int:
        return len(self.data) + COST


class StoredResponses:
    """The longest unused one goes first: of its owner, and of all."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Slot, _Entry] = OrderedDict()  # the longest unused first
        self._of: dict[str, OrderedDict[str, None]] = {}  # ids by owner, in the same order
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def keep(
        self, slot: Slot, previous: str, data: bytes, bounds: KeptBounds, now_s: float
    ) -> bool:
        """Keep a response; whether it could be."""
        self._expire(now_s)
        if len(data) > MOST_BYTES or len(data) + COST > bounds.most_bytes:
            return False
        self.drop(slot)
        owner, id = slot
        entry = _Entry(previous, data, now_s + bounds.keep_s, bounds.keep_s)
        self._entries[slot] = entry
        theirs = self._of.setdefault(owner, OrderedDict())
        theirs[id] = None
        self.bytes += entry.size
        while len(theirs) > bounds.per_owner:
            self.drop((owner, next(iter(theirs))))
        while self.bytes > bounds.most_bytes:
            self.drop(next(iter(self._entries)))
        return slot in self._entries

    def kept(self) -> list[KeptResponse]:
        """Return all that is kept, the longest unused first."""
        return [
            KeptResponse(owner, id, e.previous, e.data, e.until_s, e.keep_s)
            for (owner, id), e in self._entries.items()
        ]

    def restore(self, responses: Sequence[KeptResponse]) -> None:
        """Take in what the node before this one kept."""
        for r in responses:
            self.drop((r.owner, r.id))
            entry = _Entry(r.previous, r.data, r.until_s, r.keep_s)
            self._entries[r.owner, r.id] = entry
            self._of.setdefault(r.owner, OrderedDict())[r.id] = None
            self.bytes += entry.size

    def one(self, slot: Slot, now_s: float) -> bytes | None:
        """Return one response; None when it is not there, or no longer."""
        entry = self._entries.get(slot)
        return entry.data if entry is not None and entry.until_s > now_s else None

    def chain(self, slot: Slot, now_s: float) -> list[bytes] | Missing:
        """Return a response and those before it, the first one first; each is kept for longer."""
        owner, id = slot
        found: list[tuple[Slot, _Entry]] = []
        size = 0
        while id:
            entry = self._entries.get((owner, id))
            if entry is None or entry.until_s <= now_s:
                return "unknown"
            size += len(entry.data)
            if len(found) >= MOST_TURNS or size > MOST_CHAIN_BYTES:
                return "too_large"
            found.append(((owner, id), entry))
            id = entry.previous
        for each, entry in reversed(found):
            entry.until_s = now_s + entry.keep_s
            self._entries.move_to_end(each)
            self._of[owner].move_to_end(each[1])
        return [entry.data for _, entry in reversed(found)]

    def drop(self, slot: Slot) -> bool:
        """Forget a response; whether it was there."""
        entry = self._entries.pop(slot, None)
        if entry is None:
            return False
        self.bytes -= entry.size
        owner, id = slot
        theirs = self._of[owner]
        del theirs[id]
        if not theirs:
            del self._of[owner]
        return True

    def _expire(self, now_s: float) -> None:
        """Drop what has expired from the front; others are found when they are asked for."""
        while self._entries:
            slot, entry = next(iter(self._entries.items()))
            if entry.until_s > now_s:
                return
            self.drop(slot)
