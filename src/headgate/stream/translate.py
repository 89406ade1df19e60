"""One reply on its way: upstream bytes -> events -> filters -> client bytes, as they come.

The only place where a decoder meets an encoder.  It holds back the end: `end` is set to Finish or
Failed, and the terminal frame is made by whoever owns the exchange once the end is recorded.
Note: a filter may end the reply before the upstream does (a stop sequence was
found); then `end` is set while the upstream still talks, and the caller closes its connection; and a
reply's Start is held until something follows.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from headgate.chat import BrokenGrammar, Collector, Delta, Event, Failed, Finish, Start


class ReplySource(Protocol):
    """The decoder of an upstream's reply, as far as a translator needs it."""

    def feed(self, data: bytes) -> list[Event]: ...
    def close(self) -> list[Event]: ...


class Sink(Protocol):
    """The encoder of a client's reply, as far as a translator needs it."""

    def feed(self, events: Sequence[Event]) -> bytes: ...


class Filter(Protocol):
    def feed(self, events: list[Event]) -> list[Event]: ...


class Whole:
    """The encoder of a reply that is not streamed: collects, and writes nothing before the end.

    `began` is called once, when the first part of the reply has come.
    """

    def __init__(self, began: Callable[[], None] | None = None) -> None:
        self.collector = Collector()
        self._began = began

    def feed(self, events: Sequence[Event]) -> bytes:
        if self._began is not None:
            self._began()
            self._began = None
        self.collector.feed(events)
        return b""


class Translator:
    """`ascii` and `other` count the characters that the upstream wrote, for estimates of usage."""

    end: Finish | Failed | None = None
    began = False
    fed = False  # the sink has been given something of the reply
    begun = Start()  # as the upstream said it, with its input where it says that at once
    ascii = 0
    other = 0
    _held: Sequence[Event] = ()

    def __init__(self, decoder: ReplySource, filters: Sequence[Filter], sink: Sink) -> None:
        self._decoder = decoder
        self._filters = filters
        self._sink = sink

    def feed(self, data: bytes) -> bytes:
        return self._pass(self._decoder.feed(data))

    def close(self) -> bytes:
        """Return the upstream closed; `end` is set afterwards, whatever it sent."""
        out = self._pass(self._decoder.close())
        if self.end is None:  # its reader would wait forever
            raise BrokenGrammar("the sequence has no end")
        return out

    def _pass(self, events: list[Event]) -> bytes:
        if self.end is not None or not events:
            return b""
        for event in events:
            if type(event) is Delta:
                text = event.text
                if text.isascii():
                    self.ascii += len(text)
                else:
                    self.other += len(text)
            elif type(event) is Start:
                self.began = True
                self.begun = event
        for each in self._filters:
            events = each.feed(events)
        if self._held:
            events = [*self._held, *events]
            self._held = ()
        if not events:
            return b""
        last = events[-1]
        kind = type(last)
        if kind is Finish or kind is Failed:
            self.end = last  # type: ignore[assignment]  # kind says so
            del events[-1]
        if len(events) == 1 and type(events[0]) is Start and kind is not Finish:
            # A Start alone tells the client nothing, and what follows may still be an error that
            # deserves a status of its own.
            self._held = events
            return b""
        if not events:
            return b""
        self.fed = True
        return self._sink.feed(events)
