"""Turns of a conversation, with each tool call and its result in the right place."""

from collections import deque
from collections.abc import Collection

import msgspec

from headgate.chat import Media, Message, Part, Text, ToolCall, ToolResult
from headgate.dialects import unreadable


def kept_part(message: Message, parts: tuple[Part, ...]) -> Message:
    return message if parts == message.parts else Message(message.role, parts)


NO_RESULT = "[no result of this call was recorded]"
_LOST_RESULT = "[The result of an earlier tool call]"


class TurnBuilder:
    """Puts results directly after the turn that called, in the order of its calls."""

    def __init__(self, seen: Collection[str], warnings: list[str]) -> None:
        self._seen = seen  # kinds of media that the model takes
        self._warnings = warnings
        self._out: list[Message] = []
        # Of the assistant turn whose results are looked for:
        self._pieces: list[Message] = []  # the messages that it came in; none before the first turn
        self._calls: dict[str, None] = {}  # ids, in their order
        self._again: dict[str, deque[str]] = {}  # of an id that came twice, the ids given instead
        self._renamed = 0  # calls whose ids came twice
        self._stated = False  # text that is more than blank
        self._results: dict[str, Message] = {}
        self._between: list[Message] = []  # what else came since that turn

    def add(self, message: Message) -> None:
        match message.role:
            case "assistant":
                self._begin(message)
            case "tool":
                for part in message.parts:
                    if isinstance(part, ToolResult):
                        self._result(part, message)
            case _:
                (self._between if self._pieces else self._out).append(message)

    def close(self) -> list[Message]:
        self._end()
        return self._out

    def _begin(self, message: Message) -> None:
        # Text without a call ends a turn; else it may come in pieces: parallel calls apart, or
        # thinking apart.
        if self._results or self._between or (self._stated and not self._calls):
            self._end()
        parts: list[Part] = []
        for part in message.parts:
            if type(part) is ToolCall:
                part = self._called(part)
            elif type(part) is Text and not self._stated:
                self._stated = not part.is_blank
            parts.append(part)
        self._pieces.append(kept_part(message, tuple(parts)))

    def _called(self, call: ToolCall) -> ToolCall:
        """The call, under an id that no other call of its turn has."""
        id = call.id
        if id in self._calls:
            while id in self._calls:  # the number only grows, so that this is linear
                self._renamed += 1
                id = f"{call.id[:200]}_again{self._renamed}"
            self._again.setdefault(call.id, deque()).append(id)
            self._warnings.append("history: repeated id of a tool call made unique")
            call = msgspec.structs.replace(call, id=id)
        self._calls[id] = None
        return call

    def _result(self, result: ToolResult, message: Message) -> None:
        id = result.call_id
        if id not in self._calls:
            if not self._pieces:
                self._warnings.append("history: orphan tool result dropped")
                return
            self._warnings.append("history: tool result without its call kept as text")
            self._between.append(Message("user", shown_call(result, self._seen, self._warnings)))
            return
        if id in self._results:
            if again := self._again.get(id):
                id = again.popleft()
                result = msgspec.structs.replace(result, call_id=id)
                message = Message("tool", (result,))
            else:
                self._warnings.append("history: duplicate tool result dropped")
        if self._between:
            self._warnings.append("history: tool result moved to its call")
        self._results[id] = message if len(message.parts) == 1 else Message("tool", (result,))

    def _end(self) -> None:
        pieces = self._pieces
        if not pieces:
            return
        if self._calls or self._stated:
            turn = pieces[0]
            if len(pieces) > 1:
                turn = Message("assistant", tuple([part for m in pieces for part in m.parts]))
            self._out.append(turn)
        else:
            self._warnings.append("history: assistant message of thinking only dropped")
        for id in self._calls:
            found = self._results.get(id)
            if found is None:
                self._warnings.append("history: missing tool result replaced by a note")
                found = Message("tool", (ToolResult(id, (Text(NO_RESULT),), is_error=True),))
            self._out.append(found)
        self._out += self._between
        self._pieces, self._stated, self._calls, self._again = [], False, {}, {}
        self._results, self._between = {}, []


def shown_call(result: ToolResult, seen: Collection[str], warnings: list[str]) -> tuple[Part, ...]:
    """A result as the text of a user, for a model that is not shown its call."""
    parts: list[Part] = [Text(_LOST_RESULT)]
    for part in result.parts:
        if type(part) is Media and part.kind not in seen:
            what = unreadable.name_of(part.kind)
            warnings.append(unreadable.warning_of(what))
            part = unreadable.note_of(what, part.cache)
        parts.append(Text(f"\n{part.text}", part.cache) if type(part) is Text else part)
    return tuple(parts)
