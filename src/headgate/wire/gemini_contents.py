"""The turns of Gemini's conversations, from clients: contents to messages.

The only place for what a turn of theirs holds.  Sources as in `gemini.py`.

What will surprise:
- calls may come without ids, so that results find them by name and order;
- streams are often kept as they came, so that pieces of a text or of thinking become one part.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from headgate.chat import Media, Message, Part, Text, Thinking, ToolCall, ToolResult
from headgate.errors import invalid, unsupported
from headgate.wire import jsontext
from headgate.wire.gemini_upstream import bytes_of, decode_signature

SENTINEL = "skip_thought_signature_validator"  # gemini-cli 0.61, for turns that had no signature

# --- wire types ----------------------------------------------------------------------------------

# `Any` below: JSON of the caller's own, carried and not read.


class _BlobIn(Struct, frozen=True, rename="camel"):
    data: str = ""
    mime_type: str = ""


class _FileIn(Struct, frozen=True, rename="camel"):
    file_uri: str = ""
    mime_type: str | None = None


class _CallIn(Struct, frozen=True):
    name: str = ""
    args: dict[str, Any] | None = None
    id: str | None = None


class _ResultIn(Struct, frozen=True):
    name: str = ""
    response: dict[str, Any] | None = None
    id: str | None = None
    parts: "list[_PartIn] | None" = None


class _PartIn(Struct, frozen=True, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: _BlobIn | None = None
    file_data: _FileIn | None = None
    function_call: _CallIn | None = None
    function_response: _ResultIn | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None


class ContentIn(Struct, frozen=True):
    parts: list[_PartIn] | None = None
    role: str | None = None


# --- contents to messages --------------------------------------------------------------------------


def system_of(wire: ContentIn | None, param: str = "$.systemInstruction") -> tuple[Message, ...]:
    parts = (wire.parts if wire is not None else None) or ()
    for k, p in enumerate(parts):
        if p.text is None:
            raise unsupported(f"{param}.parts[{k}]", "System instructions are text.")
    text = "".join(p.text or "" for p in parts)
    return (Message("system", (Text(text),)),) if text else ()


def messages_of(contents: Sequence[ContentIn]) -> list[Message]:
    history = _History()
    for i, content in enumerate(contents):
        match content.role:
            case "model":
                history.model(content, i)
            case None | "" | "user" | "function":
                history.user(content, i)
            case "system":  # not Google's; what we ourselves send to upstreams that take it
                history.out += system_of(content, f"$.contents[{i}]")
            case role:
                where = f"$.contents[{i}].role"
                raise invalid(f"Unknown role `{role[:40]}`: expected user or model.", where)
    return history.out


class _History:
    """Contents to messages; remembers the calls of the last model turn that wait for results."""

    def __init__(self) -> None:
        self.out: list[Message] = []
        self._waiting: list[ToolCall] = []

    def model(self, content: ContentIn, i: int) -> None:
        parts: list[Part] = []
        self._waiting = []
        for k, p in enumerate(content.parts or ()):
            where = f"$.contents[{i}].parts[{k}]"
            signature = decode_signature(said) if (said := _signed_by(p)) else ""
            if p.thought and p.function_call is None:
                _think(parts, p.text or "", signature)
                continue
            if signature:
                _think(parts, "", signature)
            if p.function_call is not None:
                call = _call(p.function_call, i, k, f"{where}.functionCall")
                self._waiting.append(call)
                parts.append(call)
            elif p.inline_data is not None or p.file_data is not None:
                raise unsupported(where, "A turn of the model holds text and calls.")
            elif p.function_response is not None:
                raise invalid(
                    "A functionResponse belongs in a turn of the role `user`.",
                    f"{where}.functionResponse",
                )
            else:
                _say(parts, p.text or _rendered(p))
        self.out.append(Message("assistant", tuple(parts)))

    def user(self, content: ContentIn, i: int) -> None:
        parts: list[Part] = []
        results: list[tuple[str, _ResultIn]] = []
        for k, p in enumerate(content.parts or ()):
            where = f"$.contents[{i}].parts[{k}]"
            if p.function_response is not None:
                results.append((f"{where}.functionResponse", p.function_response))
            elif p.inline_data is not None:
                blob = _blob(p.inline_data, f"{where}.inlineData")
                if isinstance(blob, Text):
                    _say(parts, blob.text)
                else:
                    parts.append(blob)
            elif p.file_data is not None:
                parts.append(_file(p.file_data, f"{where}.fileData"))
            elif p.function_call is not None:
                raise invalid(
                    "A functionCall belongs in a turn of the role `model`.", f"{where}.functionCall"
                )
            elif p.text is None and not (rendered := _rendered(p)):
                raise invalid("A part needs text, data, a call or a result.", where)
            else:
                _say(parts, rendered if p.text is None else p.text)
        self._results(results)
        if parts or not results:
            self.out.append(Message("user", tuple(parts)))

    def _results(self, results: list[tuple[str, _ResultIn]]) -> None:
        """By id, else by name in their order, else by position; each call is answered once."""
        left = self._waiting
        found: dict[str, str] = {}
        for by in ("id", "name", "position"):
            for where, r in results:
                if where in found:
                    continue
                match by:
                    case "id":
                        call = next((c for c in left if c.id == r.id), None)
                    case "name":
                        call = next((c for c in left if c.name == r.name), None)
                    case _:
                        call = left[0] if left and not r.id else None
                if call is not None:
                    found[where] = call.id
                    left.remove(call)
        for where, r in results:
            id = found.get(where) or r.id  # of a call that is not there: policy/history.py's
            if not id:
                raise invalid(
                    "Please ensure that the number of function response parts is equal to the"
                    " number of function call parts of the function call turn: no call waits for"
                    f" the response of `{r.name[:64]}`.",
                    where,
                )
            self.out.append(Message("tool", (_result(r, id, where),)))


def _signed_by(p: _PartIn) -> str:
    said = p.thought_signature or ""
    return "" if said == SENTINEL else said


def _think(parts: list[Part], text: str, signature: str) -> None:
    """Streams are often kept as they came: pieces are one thinking, up to its signature."""
    last = parts[-1] if parts else None
    if isinstance(last, Thinking) and not last.signature:
        parts[-1] = Thinking(last.text + text, signature)
    elif text or signature:
        parts.append(Thinking(text, signature))


def _say(parts: list[Part], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, Text):
        parts[-1] = Text(last.text + text)
    elif text:
        parts.append(Text(text))


def _call(wire: _CallIn, turn: int, k: int, where: str) -> ToolCall:
    if not wire.name:
        raise invalid("A functionCall needs a name.", f"{where}.name")
    args = jsontext.encode(wire.args or {}).decode()
    if wire.id:
        return ToolCall(wire.id, wire.name, args)
    # The same each time the history is replayed, or the upstream's prompt cache would miss.
    hashed = hashlib.sha256(f"{wire.name}{args}".encode()).hexdigest()[:8]
    return ToolCall(f"call_{turn}_{k}_{hashed}", wire.name, args)


def _result(wire: _ResultIn, id: str, where: str) -> ToolResult:
    value = wire.response or {}
    alone = next(iter(value)) if len(value) == 1 else ""
    parts: list[Text | Media] = []
    text = value.get(alone)
    if alone not in ("output", "result", "error") or not isinstance(text, str):
        text = jsontext.encode(value).decode() if value else ""
    if text:
        parts.append(Text(text))
    for k, p in enumerate(wire.parts or ()):
        if p.inline_data is not None:
            parts.append(_blob(p.inline_data, f"{where}.parts[{k}].inlineData"))
        elif p.file_data is not None:
            parts.append(_file(p.file_data, f"{where}.parts[{k}].fileData"))
        else:
            raise unsupported(f"{where}.parts[{k}]", "Send inlineData or fileData.")
    return ToolResult(id, tuple(parts), alone == "error", wire.name)


def _rendered(p: _PartIn) -> str:
    """What Google's own tools left in a history, as text."""
    if p.executable_code is not None:
        return f"```\n{p.executable_code.get('code', '')}\n```"
    if p.code_execution_result is not None:
        return str(p.code_execution_result.get("output", ""))
    other = p.tool_call or p.tool_response
    return jsontext.encode(other).decode() if other else ""


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
