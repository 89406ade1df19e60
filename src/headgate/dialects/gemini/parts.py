"""The parts of generateContent, from clients: calls, results, media and texts."""

import hashlib
from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from headgate import bounds, jsontext
from headgate.chat import Media, Text, ToolCall
from headgate.dialects.gemini.content_wire import (
    NULL,
    SENTINEL,
    BlobIn,
    CallIn,
    FileIn,
    PartIn,
    ResultIn,
    response_decoder,
)
from headgate.dialects.gemini.names import camel
from headgate.dialects.gemini.signatures import bytes_of
from headgate.dialects.jsonstrings import string, string_or_none
from headgate.errors import invalid, unsupported

# Results of which only a key or two matter; what has more is sent as JSON.
_MAX_RESPONSE_VALUES = 10_000


def read_text(p: PartIn, where: str) -> str | Raw | None:
    """Return the text of a part; None where it has none, which is not the same as an empty one."""
    text = string(p.text, where, "text")
    return "" if text is None and bytes(p.text) != b"null" else text


def joined_texts(sources: Sequence[str | Raw]) -> str | Raw:
    """Return one text of several; the JSON string as it is where there is only one."""
    if len(sources) == 1:
        return sources[0]
    return "".join([s if isinstance(s, str) else Text(s).text for s in sources])


_HINTS = ("media_resolution", "media_processing", "video_metadata", "audio_transcription")


def note_hints(p: PartIn, notes: list[str]) -> None:
    if (
        p.media_resolution is NULL
        and p.media_processing is NULL
        and p.video_metadata is NULL
        and p.audio_transcription is NULL
    ):
        return
    notes += [camel(name) for name in _HINTS if bytes(getattr(p, name)) != b"null"]


NamedResults = list[tuple[str, ResultIn]]


def answered_calls(calls: Sequence[ToolCall], results: Sequence[ResultIn]) -> list[int | None]:
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
            stated = bounds.call_id(r.id or "") if by == "id" else bounds.called_name(r.name)
            queue = places.get(stated)
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


def signed_by(p: PartIn) -> str:
    stated = p.thought_signature or ""
    return "" if stated == SENTINEL else stated


def call_of(wire: CallIn, turn: int, k: int, where: str) -> ToolCall:
    """A call of the history; one without a name is none, and is shown as text."""
    args, name = _args(wire.args, f"{where}.args"), bounds.called_name(wire.name)
    if wire.id:
        return ToolCall(bounds.call_id(wire.id), name, args)
    # The same each time the history is replayed, or the upstream's prompt cache would miss.
    stated = args.encode() if isinstance(args, str) else bytes(args)
    hashed = hashlib.sha256(name.encode() + stated).hexdigest()[:8]
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


def response_of(raw: Raw, where: str) -> tuple[str | Raw, bool]:
    """What a tool answered, as text or its JSON string, and whether that is an error."""
    text = bytes(raw).strip()
    alone = ""
    if text.startswith(b'"'):  # no object, as Google would want it
        return string_or_none(raw) or "", False
    if not text.startswith(b"{"):
        jsontext.check_depth(text, f"{where}.response")
        return "" if text == b"null" else msgspec.json.format(text, indent=-1).decode(), False
    if jsontext.within(text, _MAX_RESPONSE_VALUES):
        fields = response_decoder.decode(text)
        if len(fields) == 1:
            (alone, value), *_ = fields.items()
            if alone in _ALONE and bytes(value).startswith(b'"'):
                return string_or_none(value) or "", alone == "error"
    text_out = _object(raw, f"{where}.response").decode()
    return "" if text_out == "{}" else text_out, alone == "error"


_ALONE = frozenset(("output", "result", "error"))


def rendered(p: PartIn) -> str:
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


def blob(wire: BlobIn, where: str) -> Text | Media:
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
        stated = wire.data.rstrip("=").replace("-", "+").replace("_", "/")
        return Media("image", media_type=kind, data=stated + "=" * (-len(stated) % 4))
    try:
        return Text(data.decode())
    except UnicodeDecodeError:
        raise invalid("The text is not UTF-8.", f"{where}.data") from None


def file_of(wire: FileIn, where: str) -> Media:
    kind = (wire.mime_type or "").lower()
    if kind and not kind.startswith("image/"):
        raise unsupported(f"{where}.mimeType", f"`{kind[:40]}` is not taken; send images.")
    if not wire.file_uri.startswith(("http://", "https://")):
        raise unsupported(f"{where}.fileUri", "Send images by http(s) address or inline.")
    return Media("image", url=wire.file_uri, media_type=kind)
