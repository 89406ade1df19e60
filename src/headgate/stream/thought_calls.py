"""Tool calls that a model wrote at the end of its thinking, made calls.

Models leave the closing tag of their thinking out now and then; what follows, a call in their own
format, is then read as thinking by the server and the turn ends with nothing to do.  Only whole blocks
are taken with which the reply ends: thinking that goes on, a text, or a call of the reply's own after
them show that the model was thinking about calls, and everything stays as it was written.
"""

from collections.abc import Sequence

import msgspec

from headgate.chat import Delta, Event, Finish, PartStart, PartStop, Tool
from headgate.stream.blocks import Blocks, Written
from headgate.stream.recovery import is_plain

_STOP = PartStop()


class ThoughtCalls:
    """`seed` makes the ids of the calls: unique for the reply, the same each run."""

    def __init__(self, tools: Sequence[Tool], seed: str = "") -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._seed = seed
        self._blocks: Blocks | None = None  # of the open thinking part
        self._held: list[str | Written] = []  # blocks at the end of it, and blanks between
        self._after: list[Event] = []  # since that part's end; empty while nothing is held

    def feed(self, events: list[Event]) -> list[Event]:
        if self._blocks is None and not self._after:
            for event in events:
                if type(event) is PartStart and event.kind == "thinking":
                    break
            else:
                return events
        out: list[Event] = []
        for event in events:
            if self._after:
                self._follow(event, out)
            elif self._blocks is None:
                if type(event) is PartStart and event.kind == "thinking" and self._tools:
                    self._blocks = Blocks(self._tools)
                out.append(event)
            elif type(event) is Delta:
                text = event.text
                if self._blocks.calm and not self._held and is_plain(text):
                    out.append(event)
                else:
                    self._notify(self._blocks.feed(text), out)
            else:
                self._notify(self._blocks.close(), out)
                self._blocks = None
                if type(event) is PartStop and self._held:
                    self._after.append(event)
                else:
                    self._release(out)
                    out.append(event)
        return out

    def _notify(self, pieces: Sequence[str | Written], out: list[Event]) -> None:
        for piece in pieces:
            if isinstance(piece, Written) or (self._held and piece.isspace()):
                self._held.append(piece)
                continue
            self._release(out)
            out.append(Delta(piece))

    def _follow(self, event: Event, out: list[Event]) -> None:
        """What comes after the thinking decides whether it ended with calls."""
        if type(event) is Finish and event.reason == "stop":
            out.append(self._after[0])  # the end of the thinking; a blank text after it goes
            calls = [
                call for piece in self._held if isinstance(piece, Written) for call in piece.calls
            ]
            for number, call in enumerate(calls, 1):
                id = f"call_{self._seed}_t{number}"
                out += (PartStart("tool_call", id, call.name), Delta(call.arguments), _STOP)
            out.append(msgspec.structs.replace(event, reason="tool_calls"))
            self._held, self._after = [], []
            return
        self._after.append(event)
        blank = type(event) is Delta and (not event.text or event.text.isspace())
        text = type(event) is PartStart and event.kind == "text"
        if blank or text or type(event) is PartStop:
            return
        self._release(out)
        after, self._after = self._after, []
        if type(event) is PartStart:  # it may be the next thinking
            out += after[:-1]
            out += self.feed([event])
        else:
            out += after

    def _release(self, out: list[Event]) -> None:
        """What was held is thinking as it was written."""
        stated = "".join(p.text if isinstance(p, Written) else p for p in self._held)
        self._held = []
        if stated:
            out.append(Delta(stated))


__all__ = ["ThoughtCalls"]
