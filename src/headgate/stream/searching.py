"""Filters of replies that search the web: calls of the gateway's own tool, and what is cited.

`SearchCalls` takes the calls of the gateway's tool out of a reply and keeps the whole round, for the
next one.  `Citations` reads the numbers of results, `[1]` or `[2, 3]`, in the text that a client gets;
the text stays as it is.  `Continued` takes the start off the rounds after the first.
"""

import re
from collections.abc import Mapping

from headgate.chat import (
    Cited,
    Delta,
    Event,
    Finish,
    Found,
    PartStart,
    PartStop,
    Pieces,
    Start,
    Text,
    Thinking,
    ToolCall,
)


class SearchCalls:
    """Takes calls of the tool `name` out; `parts` has all that the model said in this round."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.calls: list[ToolCall] = []
        self.others = False  # the model also called a tool of the client's
        self.parts: list[Text | Thinking | ToolCall] = []
        self._open: PartStart | None = None
        self._pieces = Pieces()
        self._hidden = False

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if type(event) is Delta:
                self._pieces.add(event.text)
            elif type(event) is PartStart:
                self._open = event
                self._hidden = event.kind == "tool_call" and event.name == self._name
            elif type(event) is PartStop:
                self._close(event.signature)
                if self._hidden:
                    self._hidden = False
                    continue
            elif self._hidden and not isinstance(event, Finish):  # Failed ends the part as it is
                self._hidden = False
            if not self._hidden:
                out.append(event)
        return out

    def _close(self, signature: str) -> None:
        part, text = self._open, self._pieces.take()
        assert part is not None
        match part.kind:
            case "text":
                self.parts.append(Text(text))
            case "thinking":
                self.parts.append(Thinking(text, signature))
            case "tool_call":
                call = ToolCall(part.id, part.name, text)
                self.parts.append(call)
                if self._hidden:
                    self.calls.append(call)
                else:
                    self.others = True


_MARK = re.compile(r"[\[【]\s{0,2}(\d{1,3}(?:\s{0,2}[,，、]\s{0,2}\d{1,3}){0,9})\s{0,2}[\]】]")
_LONGEST = 80  # characters of a mark
MAX_CITED = 200  # in one reply


class Citations:
    """Says after a piece of text which of these results it names."""

    def __init__(self, results: Mapping[int, Found]) -> None:
        self._results = results
        self._text = False  # a text part is open
        self._at = 0  # characters of it so far
        self._tail = ""
        self._count = 0

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            out.append(event)
            if type(event) is PartStart:
                self._text, self._at, self._tail = event.kind == "text", 0, ""
            elif type(event) is Delta and self._text:
                self._look(event.text, out)
        return out

    def _look(self, piece: str, out: list[Event]) -> None:
        seen = self._tail + piece
        begins = self._at - len(self._tail)
        self._at += len(piece)
        done = 0
        for mark in _MARK.finditer(seen):
            done = mark.end()
            for number in re.findall(r"\d+", mark[1]):
                found = self._results.get(int(number))
                if found is not None and self._count < MAX_CITED:
                    self._count += 1
                    out.append(Cited(begins + mark.start(), begins + mark.end(), found))
        rest = seen[done:]
        at = max(rest.rfind("["), rest.rfind("【"))
        self._tail = rest[at:] if at >= 0 and len(rest) - at <= _LONGEST else ""


class Continued:
    """A round after the first: its start is none of the reply's."""

    def feed(self, events: list[Event]) -> list[Event]:
        return [event for event in events if type(event) is not Start]
