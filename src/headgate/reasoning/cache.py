"""Reasoning of recent turns, for clients that return none of it.

The only place that keeps what a model thought after its reply was sent: in memory, per key, for
an hour after it was last needed, the longest unused first to go.  Most frameworks that speak
OpenAI's chat protocol replay content and tool calls only; without this MiniMax's models would
start every step of a tool loop without their plan.

A turn is found by the id of any of its calls, or else by what came just before it: see
`_Search._find`.  Note:
- a key may serve an application with many users, and ids may be as poor as "call_0".  So without a
  random id a turn is given back only where the conversation before it is the same too, the
  system's words included: never by its own words alone;
- clients rewrite ids, join texts, and send parallel calls in messages of their own.  Calls are
  compared by their arguments when the ids are strange, texts without white space, and a turn is
  handed out in pieces as its calls turn up;
- a turn that comes back with its thinking in one piece is put right as well, when the pieces were
  signed or stood apart; so is one of whose thinking the ends were trimmed, or only the end came back.

A known weakness: the bound is for all keys together, so a busy key shortens the memory of others.
"""

import re
import secrets
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate

import msgspec

from headgate.chat import (
    Delta,
    Event,
    Finish,
    Message,
    Part,
    PartStart,
    PartStop,
    Pieces,
    Request,
    Text,
    Thinking,
    ToolCall,
)
from headgate.dialects.anthropic.upstream_request import wire_id
from headgate.reasoning.fingerprints import (
    MAX_SLOTS,
    ConversationPlace,
    call_digest,
    root_digest,
    system_digest,
    text_digest,
)
from headgate.reasoning.kept_turns import Call, Stated, Turn, packed_turn, turn_of, unpacked

DEFAULT_MAX_BYTES = 64 << 20
DEFAULT_TTL_S = 3600.0
# A turn above this would push out too many others; it is 250 000 tokens of thinking.
MAX_TURN_BYTES = 1 << 20
MAX_GATHERED = 4 << 20  # characters of a reply; only its thinking counts as the turn's size
_MAX_MESSAGES = 4096  # the last of a request; a window of 10^6 tokens holds no more turns
MAX_ALIKE = 64  # turns looked at after the same words: "hi" opens many conversations
_MAX_LOOKS = 50_000  # at kept turns, for one request; a long session needs two for each turn
USE_IS_NEWS = 6  # of the time that a turn lives: after this part of it others hear that it is used

_RUNS = re.compile("[0-9A-Za-z]+")  # of an id
# Characters that differ in a run that was drawn: one of eight hexadecimal digits has fewer once in 1500.
_MIN_DISTINCT = 4


class ReplyCollector:
    """A filter of replies that changes nothing: it gathers the parts, `()` until the finish.

    It must stand after the filters that change what the client gets (stops, fences) and before
    those that take thinking away.
    """

    def __init__(self) -> None:
        self.parts: tuple[Text | Thinking | ToolCall, ...] = ()
        self._parts: list[Text | Thinking | ToolCall] = []
        self._open = PartStart("text")
        self._pieces = Pieces()
        self._size = 0  # characters; a turn above the bound is not kept, so it is not gathered

    def feed(self, events: list[Event]) -> list[Event]:
        if self._size > MAX_GATHERED:
            return events
        for event in events:
            kind = type(event)
            if kind is Delta:
                text = event.text  # type: ignore[union-attr]  # kind says so
                self._size += len(text)
                self._pieces.add(text)
            elif kind is PartStart:
                self._open = event  # type: ignore[assignment]
            elif kind is PartStop:
                self._close(event.signature)  # type: ignore[union-attr]
            elif kind is Finish:
                self.parts = tuple(self._parts)
        if self._size > MAX_GATHERED:
            self.parts, self._parts, self._pieces = (), [], Pieces()
        return events

    def _close(self, signature: str) -> None:
        text, part = self._pieces.take(), self._open
        match part.kind:
            case "text":
                self._parts.append(Text(text))
            case "thinking":
                self._parts.append(Thinking(text, signature))
            case "tool_call":
                self._parts.append(ToolCall(part.id, part.name, text))


class ReasoningCache:
    """`now` is seconds of one monotonic clock, never less than before.

    `origin` names the upstream that a signature is for: another one gets the text only.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, ttl_s: float = DEFAULT_TTL_S) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        # The longest unused first.  As all live equally long after use, it also expires first.
        self._turns: OrderedDict[int, Turn] = OrderedDict()
        self._index: dict[tuple[str, str | bytes], list[Turn]] = {}
        self._keys: dict[str, int] = {}  # turns of each key that has any
        self._names: dict[str, Turn] = {}
        # Given what other edges should keep too, and which turns are in use.
        self.on_kept: Callable[[str, bytes], None] | None = None
        self.on_used: Callable[[list[str]], None] | None = None
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._turns)

    def keep(
        self,
        key_id: str,
        request: Request,
        parts: Sequence[Text | Thinking | ToolCall],
        now: float,
        origin: str = "",
    ) -> None:
        """Remember the thinking of a finished reply, given with the request that it answers."""
        self._expire(now)
        if not any(type(p) is Thinking and (p.text or p.signature) for p in parts):
            return
        turn = turn_of(key_id, request, parts, origin)
        if turn is None or turn.size > min(MAX_TURN_BYTES, self._max_bytes):
            return
        if self.on_kept is not None:
            turn.name, turn.shared = secrets.token_hex(8), now
            with suppress(UnicodeEncodeError):  # halves of surrogate pairs stay here
                self.on_kept(turn.name, packed_turn(turn))
        self._add(key_id, turn, now)

    def take(self, data: bytes, now: float, key_id: str = "") -> bool:
        """Keep a turn that another edge has kept, if it is of this key (""); whether it is new here."""
        turn = unpacked(data)
        if turn.name in self._names or (key_id and turn.handles[0][0] != key_id):
            return False
        turn.shared = now
        self._expire(now)
        self._add(turn.handles[0][0], turn, now)
        return True

    def knows(self, name: str) -> bool:
        """Whether a turn is here, by its name."""
        return name in self._names

    def packed(self, name: str) -> bytes | None:
        """Return a turn as other edges take it; None when it is not here."""
        turn = self._names.get(name)
        return None if turn is None else packed_turn(turn)

    def used(self, names: Sequence[str], now: float) -> None:
        """Keep turns for longer, as another edge has used them."""
        for name in names:
            turn = self._names.get(name)
            if turn is not None:
                turn.expires, turn.shared = now + self._ttl_s, now
                self._turns.move_to_end(id(turn))

    def _add(self, key_id: str, turn: Turn, now: float) -> None:
        turn.expires = now + self._ttl_s
        self._turns[id(turn)] = turn
        if turn.name:
            self._names[turn.name] = turn
        self._keys[key_id] = self._keys.get(key_id, 0) + 1
        self.bytes += turn.size
        for handle in turn.handles:
            alike = self._index.setdefault(handle, [])
            if len(alike) == MAX_ALIKE:  # no more are looked at
                del alike[0]
            alike.append(turn)
        while self.bytes > self._max_bytes:
            self._drop()

    def recall(
        self,
        key_id: str,
        request: Request,
        now: float,
        origin: str = "",
        missed: list[str | bytes] | None = None,
    ) -> tuple[Request, int]:
        """The request with thinking put back where it stood, and how many turns had lost it.

        `missed` is given the handles of turns that came without thinking and are not known here.
        """
        self._expire(now)
        if missed is None and key_id not in self._keys:
            return request, 0
        search = _Search(self._index, key_id, request.messages, origin)
        messages: list[Message] = []
        restored = 0
        first = len(request.messages) - _MAX_MESSAGES
        for n, message in enumerate(request.messages):
            search.place.add(message)
            if message.role == "assistant" and n >= first and len(message.parts) <= MAX_SLOTS:
                reported, lost = search.restored(message)
                restored += lost and reported is not message
                if missed is not None and lost and reported is message and message.parts:
                    missed.append(search.place.digest)
                    missed += [wire_id(p.id) for p in message.parts if type(p) is ToolCall]
                message = reported
            messages.append(message)
        news = []
        for turn in search.used:
            turn.expires = now + self._ttl_s
            self._turns.move_to_end(id(turn))
            if turn.name and now - turn.shared > self._ttl_s / USE_IS_NEWS:
                turn.shared = now
                news.append(turn.name)
        if news and self.on_used is not None:
            self.on_used(news)
        if not search.used:
            return request, 0
        return msgspec.structs.replace(request, messages=tuple(messages)), restored

    def _expire(self, now: float) -> None:
        while self._turns and next(iter(self._turns.values())).expires <= now:
            self._drop()

    def _drop(self) -> None:
        _, turn = self._turns.popitem(last=False)
        self._names.pop(turn.name, None)
        self.bytes -= turn.size
        for handle in turn.handles:
            alike = [t for t in self._index.get(handle, ()) if t is not turn]
            if alike:
                self._index[handle] = alike
            else:
                self._index.pop(handle, None)
        key_id = turn.handles[0][0]
        self._keys[key_id] -= 1
        if not self._keys[key_id]:
            del self._keys[key_id]


# --- how it is found -----------------------------------------------------------------------------


class _Search:
    """One request's way through the memory: which turns it has, and what of them is placed."""

    def __init__(
        self,
        index: dict[tuple[str, str | bytes], list[Turn]],
        key_id: str,
        messages: Sequence[Message],
        origin: str,
    ) -> None:
        self._index = index
        self._key_id = key_id
        self._messages = messages
        self._origin = origin
        self.place = ConversationPlace()
        self.used: dict[Turn, int] = {}  # and the first of its slots that is not placed
        self._looks = _MAX_LOOKS

    @cached_property
    def _system(self) -> bytes:
        return system_digest(self._messages)

    @cached_property
    def _root(self) -> bytes:
        return root_digest(self._messages)

    def restored(self, message: Message) -> tuple[Message, bool]:
        """The message, last added to `place`, with its thinking or as it is; whether it had none."""
        thoughts = [p for p in message.parts if type(p) is Thinking and (p.text or p.signature)]
        calls = _Calls(message.parts)
        turn = self._find(message, calls)
        if turn is None:
            return message, not thoughts
        rest = [p for p in message.parts if type(p) is not Thinking]
        done = self.used.get(turn, 0)
        thought = "".join([p.text for p in thoughts])
        if thoughts and not done and turn.worn(thought):
            thoughts = []
        if thoughts:
            # What it holds must not be put before the next piece of the turn once more.
            self.used[turn] = _covered(turn, message.parts, calls, done)
            if turn.plain or not turn.thinks(thought):
                return message, False
        parts = _whole(turn, rest, calls) if not done else None
        if parts is not None:
            done = len(turn.slots)
        elif thoughts:
            return message, False
        else:
            parts, done = _placed(turn, rest, calls, done)
        self.used[turn] = done
        if len(parts) == len(rest):
            return message, not thoughts
        if turn.origin != self._origin:
            plain = (Thinking(p.text) if type(p) is Thinking else p for p in parts)
            parts = [p for p in plain if type(p) is not Thinking or p.text]
        return Message("assistant", tuple(parts)), not thoughts

    def _alike(self, handle: str | bytes) -> list[Turn]:
        """The turns of a handle, while this request may look at more of them."""
        found = self._index.get((self._key_id, handle), [])
        self._looks -= len(found)
        return found if self._looks >= 0 else []

    def _find(self, message: Message, calls: "_Calls") -> Turn | None:
        """The turn that this message is, or is a piece of; the latest, when there are several.

        By a call's id: where the same came before it, or else (clients shorten old results and
        cut off what is oldest) where the call says the same.  If the id is no random one, the
        conversation must have begun in the same way too, down to the system's words.
        Without a known id: where the same came before it after the same system's words, and
        the text or a call is the same.
        """
        for n, name in enumerate(calls.names):
            alike = self._alike(name)
            if not alike:
                continue
            random = _is_random(name)
            if not random:
                alike = [t for t in alike if t.system == self._system]
            there = self._likest([t for t in alike if t.before == self.place.digest])
            if len(there) == 1:
                return there[0]
            if there:
                return _same(there, calls.all_digests(), b"") or there[-1]
            if not random:
                alike = [t for t in alike if t.root == self._root]
            if alike and (turn := _same(alike, {calls.digest(n)}, b"")):
                return turn
        alike = self._alike(self.place.digest)
        if not alike:
            return None
        alike = self._likest([t for t in alike if t.system == self._system])
        if not alike:
            return None
        if calls.calls and not any([turn.digests for turn in alike]):
            return None  # what the calls say need not be worked out
        texts = [p.text for p in message.parts if type(p) is Text and p.text]
        return _same(alike, calls.all_digests(), text_digest(texts) if texts else b"")

    def _likest(self, turns: list[Turn]) -> list[Turn]:
        """Those of conversations that began as this one did; all of them, if none did.

        Tools often answer the same ("ok") in different conversations of one key.
        """
        if len(turns) < 2:
            return turns
        return [t for t in turns if t.root == self._root] or turns


def _is_random(id: str) -> bool:
    """Whether nobody else has this id: a run of it looks drawn, not counted ("call_0", "f_ls_0").

    Zeros in front of a counter make it no rarer ("call_000000000001").
    """
    return any(
        (len(run) >= 8 and not run.isdigit()) or len(run) >= 12
        for run in _RUNS.findall(id)
        if any(map(str.isdigit, run))
        and len(run.lstrip("0")) > 5
        and len(set(run)) >= _MIN_DISTINCT
    )


def _same(turns: Sequence[Turn], digests: set[bytes], text: bytes) -> Turn | None:
    """The latest of the turns that made any of these calls, or (without calls) said this text."""
    for turn in reversed(turns):
        if not turn.digests.isdisjoint(digests):
            return turn
        if not digests and text and turn.text == text:
            return turn
    return None


class _Calls:
    """The calls of one message: their ids, and what each says, which is worked out when asked for."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.calls = [p for p in parts if type(p) is ToolCall]
        self.names = [wire_id(c.id) for c in self.calls]
        self._digests: list[bytes | None] = [None] * len(self.calls)

    def digest(self, n: int) -> bytes:
        found = self._digests[n]
        if found is None:
            found = self._digests[n] = call_digest(self.calls[n])
        return found

    def all_digests(self) -> set[bytes]:
        return {self.digest(n) for n in range(len(self.calls))}

    def slots(self, turn: Turn) -> list[int | None]:
        """For each call which slot of the turn it is: by its id, or else by what it says."""
        by_id: dict[str, int] = {}
        by_digest: dict[bytes, int] = {}
        for n, slot in enumerate(turn.slots):
            if type(slot) is Call:
                by_id.setdefault(slot.id, n)
                by_digest.setdefault(slot.digest, n)
        return [
            by_id[name] if name in by_id else by_digest.get(self.digest(n))
            for n, name in enumerate(self.names)
        ]


# --- where it is put -----------------------------------------------------------------------------


def _whole(turn: Turn, parts: Sequence[Part], calls: _Calls) -> list[Part] | None:
    """The turn as the model made it, from a message that holds all of it; else None."""
    texts = [p for p in parts if type(p) is Text and p.text]
    if len(calls.calls) + len(texts) != len(parts):
        return None
    slots = [s for s in turn.slots if type(s) is Call]
    if len(calls.calls) != len(slots):
        return None
    stated = [s.length for s in turn.slots if type(s) is Stated]
    if len(stated) != len(texts) or len(texts) > 1:
        joined = "".join([t.text for t in texts])
        if len(joined) != sum(stated):
            if len(stated) != len(texts):
                return None  # trimmed, and joined: there is no telling where to part it
        elif text_digest([joined]) != turn.text:
            return None
        elif [len(t.text) for t in texts] != stated:
            last = len(stated) - 1
            texts = [
                Text(joined[end - length : end], texts[-1].cache if n == last else "")
                for n, (end, length) in enumerate(zip(accumulate(stated), stated, strict=True))
            ]
    out: list[Part] = []
    matched = iter(_matched(slots, calls))
    spoken = iter(texts)
    for slot in turn.slots:
        match slot:
            case Thinking():
                out.append(slot)
            case Stated():
                out.append(next(spoken))
            case Call():
                out.append(next(matched))
    return out


def _matched(slots: Sequence[Call], calls: _Calls) -> list[ToolCall]:
    """For each slot its call: by id, by what it says, else the next that is left."""
    ids: dict[str, deque[int]] = {}
    label_text: dict[bytes, deque[int]] = {}
    for n, name in enumerate(calls.names):
        ids.setdefault(name, deque()).append(n)
    taken = [False] * len(calls.calls)
    left = 0

    def first(queue: deque[int] | None) -> int | None:
        while queue:
            n = queue.popleft()
            if not taken[n]:
                return n
        return None

    out: list[ToolCall] = []
    for slot in slots:
        found = first(ids.get(slot.id))
        if found is None and len(slots) - len(out) > 1:
            if not label_text:
                for k in range(len(calls.calls)):
                    label_text.setdefault(calls.digest(k), deque()).append(k)
            found = first(label_text.get(slot.digest))
        if found is None:
            while taken[left]:
                left += 1
            found = left
        taken[found] = True
        out.append(calls.calls[found])
    return out


def _placed(turn: Turn, parts: Sequence[Part], calls: _Calls, done: int) -> tuple[list[Part], int]:
    """A piece of the turn with the thinking that stood before it, from slot `done` on."""
    slots = turn.slots
    out: list[Part] = []

    def advance(to: int) -> None:
        nonlocal done
        out.extend(s for s in slots[done:to] if type(s) is Thinking)
        done = max(done, to)

    places = calls.slots(turn)
    own = set(places)
    # From each slot on, the next that is text or one of this message's calls.
    stops = [len(slots)] * (len(slots) + 1)
    for n in range(len(slots) - 1, -1, -1):
        stops[n] = n if type(slots[n]) is Stated or n in own else stops[n + 1]
    place = iter(places)
    for part in parts:
        if type(part) is ToolCall:
            at = next(place)
            if at is not None:
                advance(at)
                done = max(done, at + 1)
        elif type(part) is Text and part.text:
            # Up to the text; but not past a call that comes later in this message.
            stop = stops[done]
            if stop < len(slots):
                advance(stop)
                done += type(slots[stop]) is Stated
        out.append(part)
    if all(type(s) is Thinking for s in slots[done:]):
        advance(len(slots))
    return out, done


def _covered(turn: Turn, parts: Sequence[Part], calls: _Calls, done: int) -> int:
    """How far into the turn a message reaches that brought thinking of its own."""
    if turn.thinks("".join([p.text for p in parts if type(p) is Thinking])):
        return len(turn.slots)
    thoughts: dict[str, list[int]] = {}
    texts: list[int] = []
    for n, slot in enumerate(turn.slots):
        if type(slot) is Thinking:
            thoughts.setdefault(slot.text, []).append(n)
        elif type(slot) is Stated:
            texts.append(n)
    place = iter(calls.slots(turn))
    for part in parts:
        at: int | None
        match part:
            case Thinking(text):
                at = _next(thoughts.get(text, ()), done)
            case ToolCall():
                at = next(place)
            case _:
                at = _next(texts, done)
        if at is not None and at >= done:
            done = at + 1
    return done


def _next(places: Sequence[int], done: int) -> int | None:
    """The first of the places, which are in order, that is not before `done`."""
    n = bisect_left(places, done)
    return places[n] if n < len(places) else None
