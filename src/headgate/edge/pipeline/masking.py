"""The filter that puts masked values back into a reply, before anything else sees it."""

import msgspec

from headgate.chat import Delta, Event, Failed, Finish, PartStart, PartStop
from headgate.policy.masking import Masker, Restorer


class Restore:
    """Puts back what policy/masking.py replaced: in text, in thinking and in the arguments of calls."""

    done = False  # it ends no reply

    def __init__(self, masker: Masker, *, json_text: bool = False) -> None:
        """`json_text`: the reply's text is JSON, as with a format that was requested."""
        self._values = masker.values
        self._json_text = json_text
        self._open: Restorer | None = None

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if type(event) is Delta and self._open is not None:
                if text := self._open.feed(event.text):
                    out.append(Delta(text))
                continue
            if type(event) is PartStart:
                json = event.kind == "tool_call" or (self._json_text and event.kind == "text")
                self._open = Restorer(self._values, json=json)
            elif isinstance(event, PartStop | Failed) and self._open is not None:
                if rest := self._open.close():
                    out.append(Delta(rest))
                self._open = None
            elif isinstance(event, Finish) and event.stop_sequence:
                event = msgspec.structs.replace(
                    event, stop_sequence=self._restored(event.stop_sequence)
                )
            out.append(event)
        return out

    def _restored(self, text: str) -> str:
        restorer = Restorer(self._values)
        return restorer.feed(text) + restorer.close()
