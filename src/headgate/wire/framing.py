"""Loose deltas to one open part at a time: the only place where framing happens.

Upstreams interleave: two calls by turns, text between the pieces of a call's arguments, a name
that comes after them.  The Framer keeps the parts in the order in which they first appeared; the
first is open and streams, the others wait.  A waiting part gets its turn as soon as the one before
it is surely complete: text and thinking when anything follows, a call when its arguments are a
whole JSON object, all at the end.  So no encoder ever asks which part is open.
"""

from collections import deque

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
from headgate.wire import jsontext

# More than any reply has, and few enough that looking through them costs nothing.
MAX_CALLS = 512
MAX_NAME = 1024  # characters of a tool's name; OpenAI and Anthropic take 64 and 128


class _Run:
    """A stretch of text or thinking."""

    __slots__ = ("kind", "pieces", "signature")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.signature = ""


class _Call:
    """A tool call: `said` is all of its arguments so far, `pieces` what was not passed on yet."""

    __slots__ = ("_credit", "_size", "_whole", "id", "index", "name", "opened", "pieces", "said")

    def __init__(self, index: int | None, id: str) -> None:
        self.index = index
        self.id = id
        self.name = ""
        self.opened = False
        self.pieces: list[str] = []
        self.said: list[str] = []
        self._size = 0  # characters of `said`
        self._whole: bool | None = False  # None: not known since the last piece
        self._credit = 0  # characters that may be read to find out

    def add(self, arguments: str) -> None:
        self.said.append(arguments)
        self.pieces.append(arguments)
        self._size += len(arguments)
        self._credit += 16 * len(arguments)
        self._whole = None

    def whole(self) -> bool:
        """Whether the arguments are surely one JSON object.

        Who asks at each of many pieces is told late rather than at the cost of a square.
        """
        if self._whole is None:
            self._credit += 256
            if self._credit >= self._size:
                self._credit -= self._size
                self._whole = jsontext.is_object("".join(self.said))
        return bool(self._whole)


class Framer:
    """Takes what a decoder reads, in any order; `take` gives the events it made.

    `seed` makes the ids of calls that came without one: unique for the reply, the same each run.
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._out: list[Event] = []
        self._queue: deque[_Run | _Call] = deque()  # the first is the open one
        self._calls: list[_Call] = []
        self._ids: set[str] = set()
        self.started = False
        self.ended = False

    def take(self) -> list[Event]:
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
            queue = self._queue
            if len(queue) == 1 and type(first := queue[0]) is _Run and first.kind == "text":
                self._out.append(Delta(piece))  # nearly always
            else:
                self._run("text", piece)

    def thinking(self, piece: str) -> None:
        if piece:
            self._run("thinking", piece)

    def signature(self, signature: str) -> None:
        """Sign the thinking that came last; alone, it makes an empty thinking part."""
        last = self._queue[-1] if self._queue else None
        if not isinstance(last, _Run) or last.kind != "thinking":
            last = self._append(_Run("thinking"))
        last.signature += signature

    def call(self, index: int | None, id: str, name: str, arguments: str) -> None:
        """A piece of a tool call; every argument but one may be missing in any one piece."""
        if self.ended:
            return
        self.start()
        call = self._find(index, id)
        if call is not None and index is None and not (id or call.id) and name and arguments:
            # Neither index nor id (older Ollama): a named piece after a whole call is the next one.
            call = None if call.whole() else call
        if call is None:
            if len(self._calls) >= MAX_CALLS:
                self.fail(jsontext.garbage(f"more than {MAX_CALLS} tool calls"))
                return
            call = _Call(index, id)
            self._calls.append(call)
            self._append(call)
        if id and not call.opened:
            call.id = id
        if name and not call.opened and name != call.name:
            call.name += name  # a name may come in pieces, or whole again with every piece
            if len(call.name) > MAX_NAME:
                self.fail(jsontext.garbage(f"a tool's name of more than {MAX_NAME} characters"))
                return
        if arguments:
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
            self.ended = True
            self._queue.clear()
            self._out.append(Failed(failure, usage))

    def _run(self, kind: str, piece: str) -> None:
        queue = self._queue
        last = queue[-1] if queue else None
        if type(last) is _Run and last.kind == kind and not last.signature:
            if len(queue) == 1:
                self._out.append(Delta(piece))
            else:
                last.pieces.append(piece)
                self._advance()
            return
        run = _Run(kind)
        if queue or self.ended:
            run.pieces.append(piece)
            self._append(run)
        else:  # it is open at once
            self.start()
            queue.append(run)
            self._out += (PartStart(kind), Delta(piece))  # type: ignore[arg-type]  # as in _open

    def _append(self, item: "_Run | _Call") -> "_Run":
        if self.ended:  # what else stood in the chunk of the end
            return item  # type: ignore[return-value]
        self.start()
        self._queue.append(item)
        if len(self._queue) == 1:
            self._open(item)
        else:
            self._advance()
        return item  # type: ignore[return-value]  # callers that use it passed a _Run

    def _find(self, index: int | None, id: str) -> _Call | None:
        """The call that a piece belongs to; None for a new one."""
        if id:
            for call in self._calls:
                if call.id == id and (index is None or call.index in (None, index)):
                    return call
        if index is not None:
            for call in reversed(self._calls):
                if call.index == index:
                    # The same index with another id is another call (ccNexus #89).
                    return None if id and call.id and call.id != id else call
            return None
        if not id and self._calls:
            return self._calls[-1]
        return None

    def _advance(self) -> None:
        """Close first parts that are surely complete, and open those that waited."""
        while len(self._queue) > 1:
            first = self._queue[0]
            if type(first) is _Call and not (first.name and first.whole()):
                return
            self._close_first()

    def _open(self, item: "_Run | _Call") -> None:
        if type(item) is _Run:
            self._out.append(PartStart(item.kind))  # type: ignore[arg-type]  # text or thinking
            self._out.extend(map(Delta, item.pieces))
            item.pieces.clear()
        elif type(item) is _Call:
            self._stream_call(item)

    def _stream_call(self, call: _Call) -> None:
        if not call.opened:
            if not (call.name and call.pieces):
                return  # the name may still be coming
            self._open_call(call)
        self._out.extend(map(Delta, call.pieces))
        call.pieces.clear()

    def _open_call(self, call: _Call) -> None:
        call.opened = True
        number = self._calls.index(call) + 1
        id = call.id or f"call_{self._seed}_{number}"
        if id in self._ids:
            id = f"{id}_{number}"
        self._ids.add(id)
        self._out.append(PartStart("tool_call", id, call.name))

    def _close_first(self) -> None:
        first = self._queue.popleft()
        if type(first) is _Call:
            if not first.opened:
                if not first.name:
                    self.fail(jsontext.garbage("a tool call without a name"))
                    return
                self._open_call(first)
            self._out.extend(map(Delta, first.pieces))
            first.pieces.clear()
            if not "".join(first.said).strip():
                self._out.append(Delta("{}"))
            self._out.append(PartStop())
        elif type(first) is _Run:
            self._out.append(PartStop(first.signature))
        if self._queue:
            self._open(self._queue[0])
