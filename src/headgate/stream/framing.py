"""Loose deltas to one open part at a time: the only place where framing happens.

Upstreams interleave: two calls by turns, text between the pieces of a call's arguments, a name
that comes after them.  The Framer keeps the parts in the order in which they first appeared; the
first is open and streams, the others wait.  A waiting part gets its turn as soon as the one before
it is surely complete: text and thinking when anything follows, a call when its arguments are a
whole JSON object, all at the end.  So no encoder ever asks which part is open.
"""

from collections import deque

from headgate import jsontext
from headgate.bounds import (
    REPLY_CALLS,
    REPLY_CHARS,
    REPLY_NAME,
    REPLY_PARTS,
    call_id,
    reply_too_large,
)
from headgate.chat import (
    Delta,
    Event,
    Failed,
    Finish,
    FinishReason,
    PartStart,
    PartStop,
    Start,
    Usage,
)
from headgate.errors import Failure
from headgate.stream.open_parts import Call, Run

MAX_CALLS = REPLY_CALLS.most
MAX_NAME = REPLY_NAME.most


class Framer:
    """Takes what a decoder reads, in any order; `take` gives the events it made.

    `seed` makes the ids of calls that came without one: unique for the reply, the same each run.
    """

    def __init__(self, seed: str = "") -> None:
        self.seed = seed
        self._out: list[Event] = []
        self._queue: deque[Run | Call] = deque()  # the first is the open one
        self._calls = 0
        self._last: Call | None = None
        self._by_index: dict[int, Call] = {}  # the last call of each
        self._by_id: dict[str, Call] = {}  # the first call of each
        self._by_both: dict[tuple[str, int | None], Call] = {}  # the first of each
        self._ids: set[str] = set()
        self.parts = 0
        self.size = 0  # characters of the reply so far
        self.started = self.ended = False
        self.failure: Failure | None = None

    def take(self) -> list[Event]:
        """The events since the last call, which end where the reply became too large."""
        if self.size > REPLY_CHARS.most:
            self.fail(reply_too_large(REPLY_CHARS))
        out, self._out = self._out, []
        return out

    def start(
        self,
        id: str = "",
        model: str = "",
        input_tokens: int = 0,
        cached: int = 0,
        cache_write: int = 0,
    ) -> None:
        """Report that the reply began; later calls are ignored."""
        if not self.started and not self.ended:
            self.started = True
            self._out.append(Start(id, model, input_tokens, cached, cache_write))

    def text(self, piece: str) -> None:
        if piece:
            self.size += len(piece)
            queue = self._queue
            if len(queue) == 1 and type(first := queue[0]) is Run and first.kind == "text":
                self._out.append(Delta(piece))  # nearly always
            else:
                self._run("text", piece)

    def thinking(self, piece: str) -> None:
        if piece:
            self.size += len(piece)
            self._run("thinking", piece)

    def signature(self, signature: str) -> None:
        """Sign the thinking that came last; alone, it makes an empty thinking part."""
        last = self._queue[-1] if self._queue else None
        if not isinstance(last, Run) or last.kind != "thinking":
            last = self._append(Run("thinking"))
        self.size += len(signature)
        last.signature.append(signature)

    def call(self, index: int | None, id: str, name: str, arguments: str) -> None:
        """A piece of a tool call; every argument but one may be missing in any one piece."""
        if self.ended:
            return
        self.start()
        call = self._find(index, id, name)
        if call is not None and index is None and not (id or call.id) and name and arguments:
            # Neither index nor id (older Ollama): a named piece after a whole call is the next one.
            call = None if call.whole() else call
        if call is None:
            if self._calls >= MAX_CALLS:
                self.fail(reply_too_large(REPLY_CALLS))
                return
            call = Call(self._calls, index, id)
            self._calls += 1
            self._known(call)
            self._append(call)
        if id and not call.id and not call.opened:
            call.id = id
            self._known(call)
        if name and not call.opened and name != call.name:
            # A name may come in pieces, in growing ones, or whole again with every piece.
            call.name = name if name.startswith(call.name) else call.name + name
            if len(call.name) > MAX_NAME:
                self.fail(jsontext.garbage(f"a tool's name of more than {MAX_NAME} characters"))
                return
        if arguments and not call.repeated(arguments) and (arguments := call.fresh(arguments)):
            self.size += len(arguments)
            call.add(arguments)
        if self._queue and self._queue[0] is call:
            self._stream_call(call)
        elif self._queue:
            self._advance()

    def close_part(self) -> None:
        """The upstream said itself that the part that came last is complete."""
        while self._queue:
            self._close_first()

    def finish(
        self, reason: FinishReason, usage: Usage | None = None, stop_sequence: str = ""
    ) -> None:
        if self.ended:
            return
        self.start()
        self.close_part()
        if self.ended:  # a call without a name
            return
        self.ended = True
        if self._calls and reason in ("stop", "stop_sequence"):
            reason = "tool_calls"  # some upstreams say "stop"; agents would stop working
        elif reason == "tool_calls" and not self._calls:
            reason = "stop"
        self._out.append(Finish(reason, usage, stop_sequence))

    def fail(self, failure: Failure, usage: Usage | None = None) -> None:
        if not self.ended:
            self.ended, self.failure = True, failure
            self._queue.clear()
            self._out.append(Failed(failure, usage))

    def _run(self, kind: str, piece: str) -> None:
        queue = self._queue
        last = queue[-1] if queue else None
        if type(last) is Run and last.kind == kind and not last.signature:
            if len(queue) == 1:
                self._out.append(Delta(piece))
            else:
                last.pieces.append(piece)
                self._advance()
            return
        run = Run(kind)
        if queue or self.ended:
            run.pieces.append(piece)
            self._append(run)
        else:  # it is open at once
            self.start()
            self._count()
            if self.ended:
                return
            queue.append(run)
            self._out += (PartStart(kind), Delta(piece))  # type: ignore[arg-type]  # as in _open

    def _count(self) -> None:
        """Return one more part."""
        self.parts += 1
        if self.parts > REPLY_PARTS.most:
            self.fail(reply_too_large(REPLY_PARTS))

    def _append(self, item: "Run | Call") -> "Run":
        if self.ended:  # what else stood in the chunk of the end
            return item  # type: ignore[return-value]
        self.start()
        self._count()
        self._queue.append(item)
        if self.ended:  # it was one part too many
            self._queue.clear()
        elif len(self._queue) == 1:
            self._open(item)
        else:
            self._advance()
        return item  # type: ignore[return-value]  # callers that use it passed a Run

    def _known(self, call: Call) -> None:
        """Make a call known by its index and its id."""
        if self._last is None or call.number > self._last.number:
            self._last = call
        if call.index is not None:
            last = self._by_index.get(call.index)
            if last is None or call.number > last.number:
                self._by_index[call.index] = call
        if call.id:
            self._by_id.setdefault(call.id, call)
            self._by_both.setdefault((call.id, call.index), call)

    def _find(self, index: int | None, id: str, name: str) -> Call | None:
        """The call that a piece belongs to; None for a new one.

        A piece without a name never begins a call while the one before it can take it: vendors give
        its arguments another index, or another id (sglang#23071).
        """
        if id:
            if index is None:
                found = self._by_id.get(id)
            else:
                either = (self._by_both.get((id, None)), self._by_both.get((id, index)))
                found = min(filter(None, either), key=lambda c: c.number, default=None)
                if found is None and not name:
                    found = self._by_id.get(id)
            if found is not None:
                return found
        last = self._last
        if index is not None:
            call = self._by_index.get(index)
            if call is None:
                return None if id or name else last
            # The same index with another id is another call (ccNexus #89).
            other = id and call.id and call.id != id
            return None if other and (name or not call.name or call.whole()) else call
        if not id:
            return last
        unfinished = not name and last is not None and last.name and not last.whole()
        return last if unfinished else None

    def _advance(self) -> None:
        """Close first parts that are surely complete, and open those that waited."""
        while len(self._queue) > 1:
            first = self._queue[0]
            if type(first) is Call and not (first.name and first.whole()):
                return
            self._close_first()

    def _open(self, item: "Run | Call") -> None:
        if type(item) is Run:
            self._out.append(PartStart(item.kind))  # type: ignore[arg-type]  # text or thinking
            self._out.extend(map(Delta, item.pieces))
            item.pieces.clear()
        elif type(item) is Call:
            self._stream_call(item)

    def _stream_call(self, call: Call) -> None:
        if not call.opened:
            if not (call.name and call.pieces):
                return  # the name may still be coming
            self._open_call(call)
        if call.quoted:
            return  # only the whole of it can be decoded
        self._out.extend(map(Delta, call.pieces))
        call.pieces.clear()

    def _open_call(self, call: Call) -> None:
        call.opened = True
        number = call.number + 1
        id = call_id(call.id) or f"call_{self.seed}_{number}"
        if id in self._ids:
            id = f"{id}_{number}"
        self._ids.add(id)
        self._out.append(PartStart("tool_call", id, call.name))

    def _close_first(self) -> None:
        first = self._queue.popleft()
        if type(first) is Call:
            if not first.opened:
                if not first.name:
                    self.fail(jsontext.garbage("a tool call without a name"))
                    return
                self._open_call(first)
            if first.quoted and (once := jsontext.decoded_once("".join(first.stated))) is not None:
                first.pieces = [once]
            self._out.extend(map(Delta, first.pieces))
            first.pieces.clear()
            if not "".join(first.stated).strip():
                self._out.append(Delta("{}"))
            self._out.append(PartStop())
        elif type(first) is Run:
            self._out.append(PartStop("".join(first.signature)))
        if self._queue:
            self._open(self._queue[0])
