"""Filters between decoder and encoder: what a reply must still become that no upstream does for us.

The only place that changes a reply's events on their way: `Stops` ends it at a stop sequence,
`Fences` takes Markdown fences off emulated structured output, `Keepers` are there for what thought
must outlive the reply, `Show` decides how much of it is seen.  Lists of events in, lists out, the grammar of chat.py on both sides.

Note: the order in `build` matters.  Stop sequences are looked for in the text as the
model wrote it, so before its fences go, and before `Show` may put thinking into the text.  A filter
that ends the reply says Finish while the upstream still talks; whoever reads it disconnects.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal

from headgate.chat import Delta, Event, Failed, Finish, PartStart, PartStop, Pieces, Tool
from headgate.stream.recovery import CallRecovery, Coerce
from headgate.stream.stops import StopScanner
from headgate.stream.thinking import tagged
from headgate.stream.thought_calls import ThoughtCalls
from headgate.stream.translate import Filter

_TEXT = PartStart("text")
_STOP = PartStop()


class Stops:
    """Ends the reply where its text reaches a stop sequence, which is not shown.

    Only text is searched: not thinking, and not the arguments of calls.  A sequence that begins in
    one part and ends in the next is not found, as there is no text between them to cut.
    """

    def __init__(self, scanner: StopScanner) -> None:
        self._scanner = scanner
        self._open = False  # a text part is
        self.done = False  # the reply was ended here; the upstream may be cancelled

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if self.done:
                break
            if self._open and type(event) is Delta:
                text, hit = self._scanner.feed(event.text)
                if text:
                    out.append(Delta(text))
                if hit is not None:
                    # What the upstream counted, if it ever says so, comes after; we do not wait.
                    out += (_STOP, Finish("stop_sequence", None, hit))
                    self.done = True
                continue
            if type(event) is PartStart:
                self._open = event.kind == "text"
            elif self._open and isinstance(event, PartStop | Failed):
                if rest := self._scanner.close():
                    out.append(Delta(rest))
                self._open = False
            out.append(event)
        return out


# A fence at the very start of a text: bounded in every piece, so that little is ever held back.
_FENCE = re.compile(r"\s{0,32}```[\w+.-]{0,16}[ \t]{0,8}(?:\r?\n|(?=[{\[]))")
_FENCE_BEGUN = re.compile(r"\s{0,32}(?:`{0,2}|```[\w+.-]{0,16}[ \t]{0,8}\r?)")
# Models caught in a loop write blank lines without end; more of them than this are passed on.
_MAX_HELD = 256  # characters


class _Unfence:
    """Takes the fence from around one text; a text that does not begin with a fence is unchanged."""

    def __init__(self) -> None:
        self._state: Literal["before", "inside", "bare"] = "before"
        self._held = ""

    def feed(self, text: str) -> str:
        if self._state == "bare":
            return text
        text = self._held + text
        if self._state == "before":
            fence = _FENCE.match(text)
            if fence is not None:
                self._state, text = "inside", text[fence.end() :]
            elif _FENCE_BEGUN.fullmatch(text):
                self._held = text
                return ""
            else:
                self._state, self._held = "bare", ""
                return text
        cut = max(_closing(text), len(text) - _MAX_HELD)
        self._held = text[cut:]
        return text[:cut]

    def close(self) -> str:
        rest, self._held = self._held, ""
        return "" if self._state == "inside" and rest.strip() == "```" else rest


def _closing(text: str) -> int:
    """Where the longest end of `text` begins that may be a closing fence, or become one."""
    body = text.rstrip()
    ticks = len(body) - len(body.rstrip("`"))
    if ticks > 3:
        return len(body) - 3
    return len(body[: len(body) - ticks].rstrip())


class Fences:
    """Takes "```json" and "```" off the texts of a reply that shall be JSON."""

    def __init__(self) -> None:
        self._text: _Unfence | None = None

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            text = self._text
            if text is not None and type(event) is Delta:
                if piece := text.feed(event.text):
                    out.append(Delta(piece))
                continue
            if type(event) is PartStart:
                self._text = _Unfence() if event.kind == "text" else None
            elif text is not None and isinstance(event, PartStop | Failed):
                if rest := text.close():
                    out.append(Delta(rest))
                self._text = None
            out.append(event)
        return out


class _Hidden:
    """Thinking that nobody asked to see: gone, or (`signed`) an empty part with its signature."""

    def __init__(self, signed: bool) -> None:
        self._signed = signed
        self._part: PartStart | None = None  # the open thinking part, not yet told

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if self._part is None:
                if type(event) is PartStart and event.kind == "thinking":
                    self._part = event
                else:
                    out.append(event)
                continue
            match event:
                case PartStop(signature):
                    if self._signed and signature:
                        out += (self._part, event)
                    self._part = None
                case Failed():
                    out.append(event)
                case _:
                    pass
        return out


_BEFORE, _AFTER = tagged("\0").split("\0")


class _Inline:
    """Thinking as tags in the text, as MiniMax writes it without `reasoning_split`.

    Thinking and the text that follows become one part, so the stop of the thinking waits for what
    comes next.  Thinking without a word is left out.
    """

    def __init__(self) -> None:
        self._thinking: Literal["no", "silent", "told"] = "no"
        self._unstopped = False  # a text part is open whose PartStop was held back

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if self._thinking == "no":
                if type(event) is PartStart and event.kind == "thinking":
                    self._thinking = "silent"
                elif type(event) is PartStart and event.kind == "text" and self._unstopped:
                    self._unstopped = False
                else:
                    self._stop(out)
                    out.append(event)
                continue
            match event:
                case Delta(text):
                    if self._thinking == "silent" and text:
                        self._thinking = "told"
                        if not self._unstopped:
                            out.append(_TEXT)
                        self._unstopped = False
                        out.append(Delta(_BEFORE))
                    if text:
                        out.append(event)
                case PartStop():
                    if self._thinking == "told":
                        out.append(Delta(_AFTER))
                        self._unstopped = True
                    self._thinking = "no"
                case _:  # Failed, the only other event inside a part
                    self._stop(out)
                    out.append(event)
        return out

    def _stop(self, out: list[Event]) -> None:
        if self._unstopped:
            out.append(_STOP)
            self._unstopped = False


class Collectors:
    """Filters that are there for the reply's thinking, asleep until there is some.

    Before it they would change nothing, and what they were to remember they are then told at once.
    """

    def __init__(self, make: Callable[[], Sequence[Filter]]) -> None:
        self._make = make
        self._collectors: Sequence[Filter] = ()
        self._before: list[Event] = []  # with the deltas of a part as one
        self._pieces = Pieces()  # of the open part

    def feed(self, events: list[Event]) -> list[Event]:
        if not self._collectors:
            for event in events:
                if type(event) is PartStart and event.kind == "thinking":
                    break
            else:
                self._keep(events)
                return events
            self._collectors = self._make()
            self._join()
            for keeper in self._collectors:
                keeper.feed(self._before)
            self._before = []
        for keeper in self._collectors:
            events = keeper.feed(events)
        return events

    def _keep(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is Delta:
                self._pieces.add(event.text)
                continue
            self._join()
            self._before.append(event)

    def _join(self) -> None:
        if text := self._pieces.take():
            self._before.append(Delta(text))


def Show(show: str) -> Filter:
    """The filter for a `Reasoning.show` other than "yes"."""
    return _Inline() if show == "inline" else _Hidden(signed=show == "omit")


def build(
    show: str,
    stops: tuple[str, ...],
    fences: bool,
    collectors: Callable[[], Sequence[Filter]] | None = None,
    *,
    tools: Sequence[Tool] = (),
    seed: str = "",
    tool_call_recovery: bool = False,
    coerce: bool = False,
    searching: Filter | None = None,
    last: Sequence[Filter] = (),
) -> list[Filter]:
    """The filters of one reply, in their order; none when there is nothing to do.

    `keepers` makes those that see the reply as the client will replay it, with all of its thinking.
    `searching` sees the calls of the reply as the model meant them, `last` what the client gets.
    """
    out: list[Filter] = []
    if tool_call_recovery and tools:
        out += (ThoughtCalls(tools, seed), CallRecovery(tools, seed))
    if coerce and tools:
        out.append(Coerce(tools))
    if searching is not None:
        out.append(searching)
    if stops:
        out.append(Stops(StopScanner(stops)))
    if fences:
        out.append(Fences())
    if collectors is not None:
        out.append(Collectors(collectors))
    if show != "yes":
        out.append(Show(show))
    out += last
    return out


__all__ = ["Collectors", "Fences", "Filter", "Show", "Stops", "build"]
