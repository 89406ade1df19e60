"""A turn that is kept: its reasoning, what stood beside it, and its packed form."""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from headgate.chat import Request, Text, Thinking, ToolCall
from headgate.dialects.anthropic.upstream_request import wire_id
from headgate.reasoning.fingerprints import (
    MAX_SLOTS,
    ConversationPlace,
    call_digest,
    root_digest,
    system_digest,
    text_digest,
)

_TURN_COST = 900  # bytes of the structures around one turn; tracemalloc says a little less
_PART_COST = 200  # of a call with its id, its digest and its place in the index


class Call(msgspec.Struct, frozen=True, gc=False):
    id: str
    digest: bytes  # of its name and arguments


class Stated(msgspec.Struct, frozen=True, gc=False):
    length: int  # in characters, of a text


class Turn(msgspec.Struct, eq=False):
    """One turn as the model made it: its thinking, and where the rest of it stood."""

    slots: tuple[Thinking | Call | Stated, ...]
    text: bytes  # the digest of all its text
    system: bytes  # of the system messages that the conversation begins with
    root: bytes  # of its first user message
    before: bytes  # of what came since the assistant spoke last
    handles: list[tuple[str, str | bytes]]
    size: int
    origin: str
    digests: frozenset[bytes] = frozenset()  # of its calls
    thought_size: int = 0  # characters of its thinking
    expires: float = 0.0
    name: str = ""  # by which other edges know it
    shared: float = 0.0  # when others last heard that it is used

    @property
    def thought(self) -> str:
        return "".join(s.text for s in self.slots if type(s) is Thinking)

    def thinks(self, text: str) -> bool:
        """Whether all of its thinking is this text."""
        return len(text) == self.thought_size and text == self.thought

    def worn(self, text: str) -> bool:
        """Whether this text is its thinking less white space at the ends, or the end of it alone.

        Qwen Code 0.24 trims what it returns, Copilot CLI 1.0.102 keeps the last piece of a stream.
        """
        if not 0 < len(text) < self.thought_size:
            return False
        own = self.thought
        return own.endswith(text) or own.strip() == text.strip()

    @property
    def plain(self) -> bool:
        """Whether its thinking is one unsigned piece at the start, as most clients return it."""
        thoughts = [s for s in self.slots if type(s) is Thinking]
        return len(thoughts) == 1 and not thoughts[0].signature and self.slots[0] is thoughts[0]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(
    tuple[str, list[Any], bytes, bytes, bytes, bytes, list[Any], int, str]
).decode


def packed_turn(turn: Turn) -> bytes:
    slots: list[Any] = []  # Any: as unpacked takes them
    for slot in turn.slots:
        match slot:
            case Thinking(text, signature):
                slots.append((text, signature))
            case Call(id, digest):
                slots.append((id, digest))
            case Stated(length):
                slots.append(length)
    return _pack(
        (
            turn.name,
            slots,
            turn.text,
            turn.system,
            turn.root,
            turn.before,
            turn.handles,
            turn.size,
            turn.origin,
        )
    )


def handles(data: bytes) -> list[tuple[str, str | bytes]]:
    """Return by what a packed turn is found: pairs of a key's id, and the place or the id of a call."""
    return [(key, handle) for key, handle in _unpack(data)[6]]


def unpacked(data: bytes) -> Turn:
    name, packed, text, system, root, before, handles, size, origin = _unpack(data)
    slots: list[Thinking | Call | Stated] = []
    for slot in packed:
        if type(slot) is int:
            slots.append(Stated(slot))
        elif type(slot[1]) is bytes:
            slots.append(Call(slot[0], slot[1]))
        else:
            slots.append(Thinking(slot[0], slot[1]))
    return Turn(
        tuple(slots),
        text,
        system,
        root,
        before,
        [(key, handle) for key, handle in handles],
        size,
        origin,
        frozenset(c.digest for c in slots if type(c) is Call),
        sum(len(s.text) for s in slots if type(s) is Thinking),
        name=name,
    )


def turn_of(
    key_id: str, request: Request, parts: Sequence[Text | Thinking | ToolCall], origin: str
) -> Turn | None:
    slots: list[Thinking | Call | Stated] = []
    size = _TURN_COST
    for part in parts:
        match part:
            case Thinking(text, signature):
                if text or signature:
                    slots.append(part)
                    size += _PART_COST + sys.getsizeof(text) + sys.getsizeof(signature)
            case Text(text):
                if text:
                    slots.append(Stated(len(text)))
                    size += _PART_COST
            case ToolCall():
                slots.append(Call(wire_id(part.id), call_digest(part)))
                size += _PART_COST + len(part.id)
    calls = [s for s in slots if type(s) is Call]
    texts = [p.text for p in parts if type(p) is Text]
    if len(slots) > MAX_SLOTS or not (calls or any(texts)):
        return None
    place = ConversationPlace()
    for message in request.messages:
        place.add(message)
    before = place.digest
    handles: list[tuple[str, str | bytes]] = [(key_id, before)]
    handles += ((key_id, name) for name in dict.fromkeys(c.id for c in calls))
    return Turn(
        tuple(slots),
        text_digest(texts),
        system_digest(request.messages),
        root_digest(request.messages),
        before,
        handles,
        size,
        origin,
        frozenset(c.digest for c in calls),
        sum(len(s.text) for s in slots if type(s) is Thinking),
    )
