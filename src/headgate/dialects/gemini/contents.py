"""The turns of Gemini's conversations, from clients: contents to messages.

The only place for what a turn of theirs holds.  Sources as in `gemini.py`.

Note:
- calls may come without ids, so that results find them by name and order;
- streams are often kept as they came, so that pieces of a text or of thinking become one part.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from headgate import bounds
from headgate.chat import Media, Message, Text, ToolCall, ToolResult
from headgate.dialects import unreadable
from headgate.dialects.gemini.content_wire import (
    ContentIn,
    PartIn,
    ResultIn,
)
from headgate.dialects.gemini.parts import (
    NamedResults,
    answered_calls,
    blob,
    call_of,
    file_of,
    joined_texts,
    note_hints,
    read_text,
    rendered,
    response_of,
    signed_by,
)
from headgate.dialects.gemini.signatures import decode_signature
from headgate.dialects.gemini.turn import TurnParts
from headgate.errors import Refused, unsupported

# --- contents to messages --------------------------------------------------------------------------


def _parts_of(wire: str | ContentIn) -> Sequence[PartIn]:
    if isinstance(wire, str):
        return (PartIn(_string(wire)),)
    parts = wire.parts
    if isinstance(parts, list):
        return parts
    if parts is None:
        return ()
    return (PartIn(_string(parts)) if isinstance(parts, str) else parts,)


def _string(text: str) -> Raw:
    return Raw(msgspec.json.encode(text))


def system_of(
    wire: str | ContentIn | None, notes: list[str], turn: int | None = None
) -> tuple[Message, ...]:
    """Return the system's text; `turn` is its place among the contents, where it stands there."""
    param = "$.systemInstruction" if turn is None else f"$.contents[{turn}]"
    parts = _parts_of(wire) if wire is not None else ()
    bounds.check_size(parts, bounds.PARTS, f"{param}.parts")
    for k, p in enumerate(parts):
        media = p.inline_data or p.file_data
        if media is not None and turn is None:
            raise unsupported(f"{param}.parts[{k}]", "System instructions are text.")
        if media is not None:
            what = unreadable.name_of("file", media.mime_type or "")
            notes.append(unreadable.skipped(f"{what} in a turn of the system"))
    sources: list[str | Raw] = []
    for k, p in enumerate(parts):
        source = read_text(p, f"{param}.parts[{k}]")
        if source is None:
            source = rendered(p)
            if not source:
                notes.append("systemInstruction: part without text skipped")
        sources.append(source)
    text = joined_texts(sources)
    return (Message("system", (Text(text),)),) if text else ()


def messages_of(contents: Sequence[str | ContentIn], notes: list[str]) -> list[Message]:
    """The messages of all turns; what is skipped or kept in another form is added to `notes`."""
    bounds.check_size(contents, bounds.MESSAGES, "$.contents")
    tally = bounds.Tally()
    history = _History(tally, notes)
    end = len(contents) - 1
    for i, content in enumerate(contents):
        parts = _parts_of(content)
        tally.add(parts, f"$.contents[{i}].parts")
        history.asked = i == end  # only what the reply is for may be refused
        match None if isinstance(content, str) else content.role:
            case "model":
                history.model(parts, i)
            case None | "" | "user" | "function":
                history.user(parts, i)
            case "system":  # not Google's; what we ourselves send to upstreams that take it
                assert not isinstance(content, str)
                history.out += system_of(content, notes, i)
            case role:
                notes.append(f"history: role {unreadable.plain(role)} read as user")
                history.user(parts, i)
    return history.out


class _History:
    """Decodes contents to messages and remembers the calls of the last model turn that wait for results."""

    def __init__(self, tally: bounds.Tally, notes: list[str]) -> None:
        self.out: list[Message] = []
        self.asked = False  # the turn is the last one
        self._notes = notes
        self._waiting: list[ToolCall] = []
        self._tally = tally

    def model(self, parts: Sequence[PartIn], i: int) -> None:
        turn = TurnParts()
        self._waiting = []
        results: NamedResults = []
        for k, p in enumerate(parts):
            where = f"$.contents[{i}].parts[{k}]"
            note_hints(p, self._notes)
            signature = decode_signature(stated) if (stated := signed_by(p)) else ""
            text = read_text(p, where)
            if p.thought and p.function_call is None:
                turn.think(text or "", signature)
                continue
            if signature:
                turn.think("", signature)
            if p.function_call is not None:
                call = call_of(p.function_call, i, k, f"{where}.functionCall")
                if call.name:
                    self._waiting.append(call)
                    turn.add(call)
                else:
                    self._notes.append(unreadable.kept_as_text("functionCall without a name"))
                    turn.say(f"[functionCall: {call.arguments}]")
            elif p.inline_data is not None or p.file_data is not None:
                media = p.inline_data or p.file_data
                assert media is not None
                what = unreadable.name_of("file", media.mime_type or "")
                self._notes.append(unreadable.skipped(f"{what} in a turn of the model"))
            elif p.function_response is not None:
                results.append((f"{where}.functionResponse", p.function_response))
                self._notes.append("history: functionResponse moved out of a turn of the model")
            else:
                turn.say(text or self._kept(p, text))
        self.out.append(Message("assistant", turn.close()))
        if results and (lost := self._results(results)):
            self.out.append(Message("user", tuple(lost)))

    def _kept(self, p: PartIn, text: str | Raw | None) -> str:
        """The text of a part that has none of its own, with a warning."""
        stated = rendered(p)
        if stated:
            self._notes.append(unreadable.kept_as_text("part of a hosted tool"))
        elif text is None and not p.thought_signature:
            self._notes.append(unreadable.skipped("part of an unknown kind"))
        return stated

    def user(self, parts: Sequence[PartIn], i: int) -> None:
        turn = TurnParts()
        results: NamedResults = []
        # What stands beside or behind a function's response is what the function returned.
        asked = self.asked and not any([p.function_response is not None for p in parts])
        asked = asked and not (self.out and self.out[-1].role == "tool")
        for k, p in enumerate(parts):
            where = f"$.contents[{i}].parts[{k}]"
            note_hints(p, self._notes)
            text = read_text(p, where)
            if p.function_response is not None:
                results.append((f"{where}.functionResponse", p.function_response))
            elif p.inline_data is not None or p.file_data is not None:
                media = self._attached(p, where, asked)
                if isinstance(media, Text):
                    turn.say(media.source)
                else:
                    turn.add(media)
            elif p.function_call is not None:
                call = call_of(p.function_call, i, k, f"{where}.functionCall")
                turn.say(f"[functionCall {call.name}: {call.arguments}]")
                self._notes.append(unreadable.kept_as_text("functionCall in a turn of the user"))
            else:
                turn.say(self._kept(p, text) if text is None else text)
        if results:
            turn.lead(self._results(results))
        stated = turn.close()
        if stated or not results:
            self.out.append(Message("user", stated))

    def _attached(self, p: PartIn, where: str, asked: bool) -> Text | Media:
        """Return what a user attached; in an earlier turn, a note stands for what cannot be read."""
        media = p.inline_data or p.file_data
        assert media is not None
        try:
            if p.inline_data is not None:
                return blob(p.inline_data, f"{where}.inlineData")
            assert p.file_data is not None
            return file_of(p.file_data, f"{where}.fileData")
        except Refused:
            if asked:
                raise
        what = unreadable.name_of("file", media.mime_type or "")
        self._notes.append(unreadable.replaced(what))
        return unreadable.attached(what)

    def _results(self, results: NamedResults) -> list[Text | Media]:
        """By id, else by name in their order, else by position; each call is answered once.

        The answer is what results hold that no call waits for, which the user sends.
        """
        lost: list[Text | Media] = []
        found = answered_calls(self._waiting, [r for _, r in results])
        taken = {n for n in found if n is not None}
        left = [call for n, call in enumerate(self._waiting) if n not in taken]
        for (where, r), n in zip(results, found, strict=True):
            id = r.id if n is None else self._waiting[n].id  # not there: policy/history.py's
            if not id:
                self._notes.append("history: functionResponse without its call kept as text")
                lost.append(Text(f"[The response of {r.name[:64] or 'a function'}]\n"))
                lost += self._result(r, "", where).parts
                continue
            self.out.append(Message("tool", (self._result(r, bounds.call_id(id), where),)))
        self._waiting = left
        return lost

    def _result(self, wire: ResultIn, id: str, where: str) -> ToolResult:
        text, is_error = response_of(wire.response, where)
        parts: list[Text | Media] = [Text(text)] if text else []
        if wire.parts:
            self._tally.add(wire.parts, f"{where}.parts")
        for k, p in enumerate(wire.parts or ()):
            note_hints(p, self._notes)
            parts.append(self._returned(p, f"{where}.parts[{k}]"))
        return ToolResult(id, tuple(parts), is_error, bounds.called_name(wire.name))

    def _returned(self, p: PartIn, where: str) -> Text | Media:
        """One part of a function's response, or a note in its place."""
        media = p.inline_data or p.file_data
        try:
            if p.inline_data is not None:
                return blob(p.inline_data, f"{where}.inlineData")
            if p.file_data is not None:
                return file_of(p.file_data, f"{where}.fileData")
            if text := read_text(p, where):
                return Text(text)
        except Refused:
            pass
        what = "a part of an unknown kind"
        if media is not None:
            what = unreadable.name_of("file", media.mime_type or "")
        self._notes.append(unreadable.warning_of(what))
        return unreadable.note_of(what)
