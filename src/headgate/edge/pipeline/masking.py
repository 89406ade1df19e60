"""The filter that puts masked values back into a reply, before anything else sees it."""

from headgate.chat import Delta, Event, Failed, PartStart, PartStop
from headgate.policy.masking import Masker, Restorer


class Restore:
    """Puts back what policy/masking.py replaced: in text, in thinking and in the arguments of calls."""

    done = False  # it ends no reply

    def __init__(self, masker: Masker) -> None:
        self._values = masker.values
        self._open: Restorer | None = None

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if type(event) is Delta and self._open is not None:
                if text := self._open.feed(event.text):
                    out.append(Delta(text))
                continue
            if type(event) is PartStart:
                self._open = Restorer(self._values, json=event.kind == "tool_call")
            elif isinstance(event, PartStop | Failed) and self._open is not None:
                if rest := self._open.close():
                    out.append(Delta(rest))
                self._open = None
            out.append(event)
        return out
