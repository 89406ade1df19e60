"""The turns of Gemini's conversations, from clients: contents to messages.

The only place for what a turn of theirs holds.  Sources as in `gemini.py`.

Note:
- calls may come without ids, so that results find them by name and order;
- streams are often kept as they came, so that pieces of a text or of thinking become one part.
"""

import hashlib
from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from headgate import bounds, jsontext
from headgate.chat import Media, Message, Part, Text, Thinking, ToolCall, ToolResult
from headgate.dialects import malformed, unreadable
from headgate.dialects.gemini.names import camel
from headgate.dialects.gemini.upstream import bytes_of, decode_signature
from headgate.dialects.jsonstrings import string, string_or_none
from headgate.errors import Refused, invalid, unsupported

SENTINEL = "skip_thought_signature_validator"  # gemini-cli 0.61, for turns that had no signature

# --- wire types ----------------------------------------------------------------------------------

_NULL = Raw(b"null")


class _BlobIn(Struct, frozen=True, gc=False, rename="camel"):
    data: str = ""
    mime_type: str = ""


class _FileIn(Struct, frozen=True, gc=False, rename="camel"):
    file_uri: str = ""
    mime_type: str | None = None


class _CallIn(Struct, frozen=True, gc=False):
    name: str = ""
    args: Raw = _NULL
    id: str | None = None


class _ResultIn(Struct, frozen=True, gc=False):
    name: str = ""
    response: Raw = _NULL
    id: str | None = None
    parts: "list[_PartIn] | None" = None


class _CodeIn(Struct, frozen=True, gc=False):
    code: str | None = None


class _OutcomeIn(Struct, frozen=True, gc=False):
    output: str | None = None


class _PartIn(Struct, frozen=True, gc=False, rename="camel"):
    text: Raw = _NULL  # a string or null; see dialects/jsonstrings.py
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: _BlobIn | None = None
    file_data: _FileIn | None = None
    function_call: _CallIn | None = None
    function_response: _ResultIn | None = None
    executable_code: _CodeIn | None = None
    code_execution_result: _OutcomeIn | None = None
    tool_call: Raw = _NULL
    tool_response: Raw = _NULL
    # Ignored with a warning, see `_HINTS`:
    media_resolution: Raw = _NULL
    media_processing: Raw = _NULL
    video_metadata: Raw = _NULL
    audio_transcription: Raw = _NULL


class _TypedPartIn(_PartIn, frozen=True, gc=False, rename="camel"):
    text: str | None = None  # type: ignore[assignment]  # checked, where `_PartIn` passes over it


class ContentIn(Struct, frozen=True, gc=False):
    parts: str | _PartIn | list[_PartIn] | None = None  # one part that is no list is common
    role: str | None = None


PART_TYPES = (_BlobIn, _FileIn, _CallIn, _ResultIn, _CodeIn, _OutcomeIn, _PartIn, ContentIn)
_part_decoder = msgspec.json.Decoder(_TypedPartIn)
_response_decoder = msgspec.json.Decoder(dict[str, Raw])
# Results of which only a key or two matter; what has more is sent as JSON.
_MAX_RESPONSE_VALUES = 10_000


# --- contents to messages --------------------------------------------------------------------------


def mended(raw: Raw, warnings: list[str]) -> Raw | None:
    """A turn of the history with a role and parts that can be read."""
    if malformed.is_text(raw):
        return raw
    fields = malformed.fields_of(raw)
    if fields is None:
        warnings.append("history: malformed turn skipped")
        return None
    out: dict[str, Raw] = {}
    role, parts = fields.get("role", _NULL), fields.get("parts", _NULL)
    if malformed.is_text(role) or bytes(role) == b"null":
        out["role"] = role
    else:
        warnings.append("history: malformed role read as user")
    if not (malformed.is_list(parts) or malformed.is_text(parts) or bytes(parts) == b"null"):
        parts = Raw(b"[" + bytes(parts) + b"]")
    if malformed.is_list(parts):
        each = [_mended_part(part, warnings) for part in msgspec.json.decode(parts, type=list[Raw])]
        parts = Raw(msgspec.json.encode([part for part in each if part is not None]))
    out["parts"] = parts
    return Raw(msgspec.json.encode(out))


def _mended_part(raw: Raw, warnings: list[str]) -> Raw | None:
    """A part without the fields that have another type than Google's."""
    try:
        _part_decoder.decode(raw)
    except msgspec.ValidationError:
        pass
    else:
        return raw
    if malformed.is_text(raw):
        return Raw(msgspec.json.encode({"text": raw}))
    kept: dict[str, Raw] = {}
    for name, value in (malformed.fields_of(raw) or {}).items():
        try:
            _part_decoder.decode(msgspec.json.encode({name: value}))
        except msgspec.ValidationError:
            warnings.append(unreadable.skipped(f"malformed {unreadable.plain(name)}"))
        else:
            kept[name] = value
    if not kept:
        warnings.append(unreadable.skipped("malformed part"))
        return None
    return Raw(msgspec.json.encode(kept))


def _parts_of(wire: str | ContentIn) -> Sequence[_PartIn]:
    if isinstance(wire, str):
        return (_PartIn(_string(wire)),)
    parts = wire.parts
    if isinstance(parts, list):
        return parts
    if parts is None:
        return ()
    return (_PartIn(_string(parts)) if isinstance(parts, str) else parts,)


def _string(text: str) -> Raw:
    return Raw(msgspec.json.encode(text))


def _read_text(p: _PartIn, where: str) -> str | Raw | None:
    """The text of a part; None where it has none, which is not the same as an empty one."""
    text = string(p.text, where, "text")
    return "" if text is None and bytes(p.text) != b"null" else text


def _joined(sources: Sequence[str | Raw]) -> str | Raw:
    """One text of several; the JSON string as it is where there is only one."""
    if len(sources) == 1:
        return sources[0]
    return "".join([s if isinstance(s, str) else Text(s).text for s in sources])


_HINTS = ("media_resolution", "media_processing", "video_metadata", "audio_transcription")


def _note_hints(p: _PartIn, notes: list[str]) -> None:
    if (
        p.media_resolution is _NULL
        and p.media_processing is _NULL
        and p.video_metadata is _NULL
        and p.audio_transcription is _NULL
    ):
        return
    notes += [camel(name) for name in _HINTS if bytes(getattr(p, name)) != b"null"]


def system_of(
    wire: str | ContentIn | None, notes: list[str], turn: int | None = None
) -> tuple[Message, ...]:
    """The system's text; `turn` is its place among the contents, where it stands there."""
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
        source = _read_text(p, f"{param}.parts[{k}]")
        if source is None:
            source = _rendered(p)
            if not source:
                notes.append("systemInstruction: part without text skipped")
        sources.append(source)
    text = _joined(sources)
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


class _Turn:
    """The parts of one turn.  Streams are often kept as they came: pieces are joined again."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._text: list[str | Raw] = []
        self._thought: list[str | Raw] = []

    def say(self, text: str | Raw) -> None:
        if text:
            if self._thought:
                self._flush()
            self._text.append(text)

    def think(self, text: str | Raw, signature: str) -> None:
        """Pieces are one thinking, up to its signature."""
        if self._text:
            self._flush()
        if text:
            self._thought.append(text)
        if signature:
            self.parts.append(Thinking(self._thoughts(), signature))

    def add(self, part: Part) -> None:
        self._flush()
        self.parts.append(part)

    def lead(self, parts: Sequence[Text | Media]) -> None:
        """Put these before all others."""
        self._flush()
        self.parts[:0] = parts

    def close(self) -> tuple[Part, ...]:
        self._flush()
        return tuple(self.parts)

    def _thoughts(self) -> str:
        text = Text(_joined(self._thought)).text
        self._thought.clear()
        return text

    def _flush(self) -> None:
        if self._text:
            self.parts.append(Text(_joined(self._text)))
            self._text.clear()
        if self._thought:
            self.parts.append(Thinking(self._thoughts()))


_Results = list[tuple[str, _ResultIn]]


class _History:
    """Contents to messages; remembers the calls of the last model turn that wait for results."""

    def __init__(self, tally: bounds.Tally, notes: list[str]) -> None:
        self.out: list[Message] = []
        self.asked = False  # the turn is the last one
        self._notes = notes
        self._waiting: list[ToolCall] = []
        self._tally = tally

    def model(self, parts: Sequence[_PartIn], i: int) -> None:
        turn = _Turn()
        self._waiting = []
        results: _Results = []
        for k, p in enumerate(parts):
            where = f"$.contents[{i}].parts[{k}]"
            _note_hints(p, self._notes)
            signature = decode_signature(said) if (said := _signed_by(p)) else ""
            text = _read_text(p, where)
            if p.thought and p.function_call is None:
                turn.think(text or "", signature)
                continue
            if signature:
                turn.think("", signature)
            if p.function_call is not None:
                call = _call(p.function_call, i, k, f"{where}.functionCall")
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

    def _kept(self, p: _PartIn, text: str | Raw | None) -> str:
        """The text of a part that has none of its own, with a warning."""
        said = _rendered(p)
        if said:
            self._notes.append(unreadable.kept_as_text("part of a hosted tool"))
        elif text is None and not p.thought_signature:
            self._notes.append(unreadable.skipped("part of an unknown kind"))
        return said

    def user(self, parts: Sequence[_PartIn], i: int) -> None:
        turn = _Turn()
        results: _Results = []
        # What stands beside or behind a function's response is what the function returned.
        asked = self.asked and not any([p.function_response is not None for p in parts])
        asked = asked and not (self.out and self.out[-1].role == "tool")
        for k, p in enumerate(parts):
            where = f"$.contents[{i}].parts[{k}]"
            _note_hints(p, self._notes)
            text = _read_text(p, where)
            if p.function_response is not None:
                results.append((f"{where}.functionResponse", p.function_response))
            elif p.inline_data is not None or p.file_data is not None:
                media = self._attached(p, where, asked)
                if isinstance(media, Text):
                    turn.say(media.source)
                else:
                    turn.add(media)
            elif p.function_call is not None:
                call = _call(p.function_call, i, k, f"{where}.functionCall")
                turn.say(f"[functionCall {call.name}: {call.arguments}]")
                self._notes.append(unreadable.kept_as_text("functionCall in a turn of the user"))
            else:
                turn.say(self._kept(p, text) if text is None else text)
        if results:
            turn.lead(self._results(results))
        said = turn.close()
        if said or not results:
            self.out.append(Message("user", said))

    def _attached(self, p: _PartIn, where: str, asked: bool) -> Text | Media:
        """What a user attached; in an earlier turn, a note stands for what cannot be read."""
        media = p.inline_data or p.file_data
        assert media is not None
        try:
            if p.inline_data is not None:
                return _blob(p.inline_data, f"{where}.inlineData")
            assert p.file_data is not None
            return _file(p.file_data, f"{where}.fileData")
        except Refused:
            if asked:
                raise
        what = unreadable.name_of("file", media.mime_type or "")
        self._notes.append(unreadable.replaced(what))
        return unreadable.attached(what)

    def _results(self, results: _Results) -> list[Text | Media]:
        """By id, else by name in their order, else by position; each call is answered once.

        The answer is what results hold that no call waits for, which the user sends.
        """
        lost: list[Text | Media] = []
        found = _answered(self._waiting, [r for _, r in results])
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

    def _result(self, wire: _ResultIn, id: str, where: str) -> ToolResult:
        text, is_error = _response(wire.response, where)
        parts: list[Text | Media] = [Text(text)] if text else []
        if wire.parts:
            self._tally.add(wire.parts, f"{where}.parts")
        for k, p in enumerate(wire.parts or ()):
            _note_hints(p, self._notes)
            parts.append(self._returned(p, f"{where}.parts[{k}]"))
        return ToolResult(id, tuple(parts), is_error, bounds.called_name(wire.name))

    def _returned(self, p: _PartIn, where: str) -> Text | Media:
        """One part of a function's response, or a note in its place."""
        media = p.inline_data or p.file_data
        try:
            if p.inline_data is not None:
                return _blob(p.inline_data, f"{where}.inlineData")
            if p.file_data is not None:
                return _file(p.file_data, f"{where}.fileData")
            if text := _read_text(p, where):
                return Text(text)
        except Refused:
            pass
        what = "a part of an unknown kind"
        if media is not None:
            what = unreadable.name_of("file", media.mime_type or "")
        self._notes.append(unreadable.warning_of(what))
        return unreadable.note_of(what)


def _answered(calls: Sequence[ToolCall], results: Sequence[_ResultIn]) -> list[int | None]:
    """For each result which of the calls it answers; None for one without a call."""
    if len(calls) == 1 and len(results) == 1:  # nearly always, and the same in fewer steps
        call, r = calls[0], results[0]
        same = bounds.called_name(r.name) == call.name or bounds.call_id(r.id or "") == call.id
        return [0] if same or not r.id else [None]
    found: list[int | None] = [None] * len(results)
    taken: set[int] = set()
    for by in ("id", "name"):
        places: dict[str, deque[int]] = {}
        for n, call in enumerate(calls):
            places.setdefault(call.id if by == "id" else call.name, deque()).append(n)
        for k, r in enumerate(results):
            if found[k] is not None:
                continue
            said = bounds.call_id(r.id or "") if by == "id" else bounds.called_name(r.name)
            queue = places.get(said)
            while queue:
                n = queue.popleft()
                if n not in taken:
                    taken.add(n)
                    found[k] = n
                    break
        if len(taken) == len(results):
            return found
    left = (n for n in range(len(calls)) if n not in taken)
    for k, r in enumerate(results):
        if found[k] is None and not r.id:
            found[k] = next(left, None)
    return found


def _signed_by(p: _PartIn) -> str:
    said = p.thought_signature or ""
    return "" if said == SENTINEL else said


def _call(wire: _CallIn, turn: int, k: int, where: str) -> ToolCall:
    """A call of the history; one without a name is none, and is shown as text."""
    args, name = _args(wire.args, f"{where}.args"), bounds.called_name(wire.name)
    if wire.id:
        return ToolCall(bounds.call_id(wire.id), name, args)
    # The same each time the history is replayed, or the upstream's prompt cache would miss.
    said = args.encode() if isinstance(args, str) else bytes(args)
    hashed = hashlib.sha256(name.encode() + said).hexdigest()[:8]
    return ToolCall(f"call_{turn}_{k}_{hashed}", name, args)


def _args(raw: Raw, where: str) -> str | Raw:
    """The arguments of a call in a history; what is no object is for policy/history.py to repair."""
    text = bytes(raw).strip()
    if text.startswith(b'"'):  # some clients keep them as the model wrote them
        return msgspec.json.decode(text, type=str)
    if text.startswith(b"{") or text == b"null":
        found = _object(raw, where)
        if jsontext.has_long_number(found):
            return found.decode()
        return Raw(found) if found else "{}"
    jsontext.check_depth(text, where)
    return text.decode()


def _object(raw: Raw, where: str) -> bytes:
    """A JSON object of the caller's own as compact text; empty for null."""
    text = bytes(raw).strip()
    if text == b"null":
        return b""
    if not text.startswith(b"{"):
        raise invalid(f"Expected `object | null` - at `{where}`", where)
    jsontext.check_depth(text, where)
    return msgspec.json.format(text, indent=-1)


def _response(raw: Raw, where: str) -> tuple[str | Raw, bool]:
    """What a tool answered, as text or its JSON string, and whether that is an error."""
    text = bytes(raw).strip()
    alone = ""
    if text.startswith(b'"'):  # no object, as Google would want it
        return string_or_none(raw) or "", False
    if not text.startswith(b"{"):
        jsontext.check_depth(text, f"{where}.response")
        return "" if text == b"null" else msgspec.json.format(text, indent=-1).decode(), False
    if jsontext.within(text, _MAX_RESPONSE_VALUES):
        fields = _response_decoder.decode(text)
        if len(fields) == 1:
            (alone, value), *_ = fields.items()
            if alone in _ALONE and bytes(value).startswith(b'"'):
                return string_or_none(value) or "", alone == "error"
    text_out = _object(raw, f"{where}.response").decode()
    return "" if text_out == "{}" else text_out, alone == "error"


_ALONE = frozenset(("output", "result", "error"))


def _rendered(p: _PartIn) -> str:
    """What Google's own tools left in a history, as text."""
    if p.executable_code is not None:
        return f"```\n{p.executable_code.code or ''}\n```"
    if p.code_execution_result is not None:
        return p.code_execution_result.output or ""
    for raw in (p.tool_call, p.tool_response):
        text = bytes(raw)
        if text not in (b"null", b"{}"):
            return msgspec.json.format(text, indent=-1).decode()
    return ""


def _blob(wire: _BlobIn, where: str) -> Text | Media:
    kind = wire.mime_type.lower()
    if not kind.startswith(("image/", "text/")):
        raise unsupported(
            f"{where}.mimeType", f"`{wire.mime_type[:40]}` is not taken; send text or images."
        )
    data = bytes_of(wire.data)
    if not data:
        raise invalid("The data is not base64.", f"{where}.data")
    if kind.startswith("image/"):
        # google-genai for Python writes the URL's alphabet, which no other protocol takes.
        said = wire.data.rstrip("=").replace("-", "+").replace("_", "/")
        return Media("image", media_type=kind, data=said + "=" * (-len(said) % 4))
    try:
        return Text(data.decode())
    except UnicodeDecodeError:
        raise invalid("The text is not UTF-8.", f"{where}.data") from None


def _file(wire: _FileIn, where: str) -> Media:
    kind = (wire.mime_type or "").lower()
    if kind and not kind.startswith("image/"):
        raise unsupported(f"{where}.mimeType", f"`{kind[:40]}` is not taken; send images.")
    if not wire.file_uri.startswith(("http://", "https://")):
        raise unsupported(f"{where}.fileUri", "Send images by http(s) address or inline.")
    return Media("image", url=wire.file_uri, media_type=kind)
