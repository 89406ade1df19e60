"""The content blocks of Anthropic Messages, from clients: blocks to parts."""

import json
from collections.abc import Iterator
from contextlib import suppress

import msgspec
from msgspec import Raw

from headgate import bounds
from headgate.chat import Media, Text, ToolResult
from headgate.dialects import unreadable
from headgate.dialects.anthropic.request_wire import (
    NOTHING,
    BlockIn,
    CacheControl,
    Rendered,
    block_decoder,
    blocks_decoder,
    list_decoder,
    rendered_decoder,
    typed_decoder,
)
from headgate.dialects.fields import media_of
from headgate.dialects.jsonstrings import string, string_or_none
from headgate.errors import Refused, invalid, unsupported

_BRACKET = ord("[")


_RENDERED = frozenset(
    ("search_result", "tool_reference", "browser_state", "server_tool_use", "mcp_tool_use")
)


SHOWN = ("text", "image", "video", "document")


def kept_of(block: BlockIn, notes: list[str]) -> Iterator[Text]:
    """What a turn of this role does not hold: its text, or a warning only."""
    what = f"{unreadable.plain(block.type)} block"
    stated = string_or_none(block.text) or block.thinking or string_or_none(block.content)
    if block.type == "document" and block.source is not None and block.source.type == "text":
        stated = block.source.data
    if block.type == "tool_use" and not stated:
        stated = f"[called {block.name or 'a tool'}: {bytes(block.input).decode()}]"
    text = Text(stated or "", cache_of(block.cache_control))
    if not text.is_blank:
        notes.append(unreadable.kept_as_text(what))
        yield text
    else:
        notes.append(unreadable.skipped(what))


def result_of(block: BlockIn, param: str, tally: bounds.Tally, notes: list[str]) -> ToolResult:
    """Return what a tool returned; a note stands for each block that cannot be read."""
    parts: list[Text | Media] = []
    stated = string_or_none(block.content)
    if stated is not None:
        parts.append(Text(stated))
    elif memoryview(block.content)[0] == _BRACKET:
        parts = _returned_list(block.content, f"{param}.content", tally, notes)
    elif bytes(block.content) not in (b"", b"null", b'""'):
        parts = [_returned_value(block.content, f"{param}.content", notes)]
    cache = cache_of(block.cache_control)
    id = bounds.call_id(block.tool_use_id or "")
    return ToolResult(id, tuple(parts), bool(block.is_error), cache=cache)


def _returned_list(
    content: Raw, param: str, tally: bounds.Tally, notes: list[str]
) -> list[Text | Media]:
    with suppress(msgspec.ValidationError):
        blocks = blocks_decoder.decode(content)
        if all([block.type == "text" for block in blocks]):
            tally.add(blocks, param)
            with suppress(Refused):
                return [_text(b, f"{param}[{i}]") for i, b in enumerate(blocks)]
    raws = list_decoder.decode(content)
    tally.add(raws, param)
    return [_returned(raw, f"{param}[{i}]", notes) for i, raw in enumerate(raws)]


def _returned_value(content: Raw, param: str, notes: list[str]) -> Text | Media:
    """One block that stands without its list, or what a tool returned as JSON."""
    with suppress(msgspec.ValidationError):
        if kind_of(content):
            return _returned(content, param, notes)
    notes.append(unreadable.kept_as_text("tool result of another type"))
    return Text(bytes(content).decode())


def _returned(raw: Raw, param: str, notes: list[str]) -> Text | Media:
    """One block of a tool's result, or a note in its place."""
    if bytes(raw).startswith(b'"'):
        return Text(raw.copy())
    kind = what = cache = ""
    try:
        kind = kind_of(raw)
        block = block_of(raw, param, notes)
        cache, source = cache_of(block.cache_control), block.source
        media_type = (source.media_type or "") if source is not None else ""
        what = unreadable.name_of(kind, media_type)
        if block.type in SHOWN:
            return shown_of(block, param, notes)
        stated = Text(string_or_none(block.text) or string_or_none(block.content) or "", cache)
        if not stated.is_blank:
            notes.append(f"tool result: {unreadable.plain(kind)} block kept as text")
            return stated
    except msgspec.DecodeError as error:  # an unpaired surrogate in its kind
        raise invalid(f"The text is not valid JSON: {error}", param, "invalid_json") from None
    except Refused as refused:
        if refused.failure.code == "invalid_json":  # it is read once more, without the surrogates
            raise
    what = what or unreadable.name_of(kind)
    notes.append(unreadable.warning_of(what))
    return unreadable.note_of(what, cache)


def shown_of(block: BlockIn, param: str, notes: list[str]) -> Text | Media:
    """What a user or a tool can show the model."""
    match block.type:
        case "text":
            return _text(block, param)
        case "image" | "video":  # films are MiniMax's addition
            return _media(block, param)
        case "document":
            return _document(block, param, notes)
    raise unsupported(f"{param}.type", f"`{block.type[:40]}` cannot stand here.")


def cache_of(wire: CacheControl | None) -> str:
    if wire is None:
        return ""
    return "1h" if wire.ttl == "1h" else "5m"


def _text(block: BlockIn, param: str) -> Text:
    if block.type != "text":
        raise unsupported(f"{param}.type", f"`{block.type[:40]}` cannot stand here.")
    text = string(block.text, param, "text")
    if text is None and bytes(block.text) == b"null":
        raise invalid("A text block needs `text`.", f"{param}.text")
    return Text(text or "", cache_of(block.cache_control))


def _media(block: BlockIn, param: str) -> Media:
    source, kind, cache = block.source, block.type, cache_of(block.cache_control)
    if source is not None and source.type == "url":
        media = media_of(kind, source.url or "", "", f"{param}.source.url")
        return msgspec.structs.replace(media, cache=cache)
    if source is None or source.type != "base64":
        raise unsupported(f"{param}.source.type", "Send it as `base64` or `url`.")
    media_type = source.media_type or ""
    if not source.data or not media_type.startswith(f"{kind}/"):
        raise invalid(f"Expected `data` and a `media_type` {kind}/....", f"{param}.source")
    return Media("image" if kind == "image" else "video", "", media_type, source.data, cache=cache)


def _document(block: BlockIn, param: str, notes: list[str]) -> Text:
    source = block.source
    if source is None or source.type not in ("text", "content"):
        raise unsupported(f"{param}.source.type", "Send documents as text.")
    text = source.data or ""
    if source.type == "content":
        text = source.content if isinstance(source.content, str) else ""
        if isinstance(source.content, list):
            bounds.check_size(source.content, bounds.PARTS, f"{param}.source.content")
            place = f"{param}.source.content"
            blocks = [block_of(raw, f"{place}[{i}]", notes) for i, raw in enumerate(source.content)]
            text = "\n".join(_text(b, f"{place}[{i}]").text for i, b in enumerate(blocks))
    title = f" title={json.dumps(block.title, ensure_ascii=False)}" if block.title else ""
    return Text(f"<document{title}>\n{text}\n</document>", cache_of(block.cache_control))


def readable(raw: Raw, param: str, notes: list[str]) -> BlockIn:
    """A block of the history; one with fields of other types is its text, or skipped later."""
    try:
        return block_of(raw, param, notes)
    except Refused as refused:
        if refused.failure.code == "invalid_json":  # read once more, without the surrogates
            raise
    rendered = rendered_decoder.decode(raw) if bytes(raw).startswith(b"{") else Rendered()
    kind = string_of(rendered.type)
    stated = _rendering(rendered)
    text = Raw(msgspec.json.encode(stated)) if "\n" in stated else NOTHING
    return BlockIn(kind or "unknown", text)


def block_of(raw: Raw, param: str, notes: list[str]) -> BlockIn:
    """A block in its own type; one that the model can only be shown as text is text here."""
    try:
        try:
            typed_decoder.decode(raw)  # for the words of what it refuses
            block = block_decoder.decode(raw)
            if block.type in BLOCKS:
                return block
            kind = block.type
        except msgspec.ValidationError as error:
            kind = kind_of(raw)
            message, _, place = str(error).partition(" - at ")
            place = param + place.strip("`").removeprefix("$")
            if kind in BLOCKS or not kind:
                raise invalid(f"{message} - at `{place}`", place) from None
        rendered = _rendering(rendered_decoder.decode(raw))
        if not _is_rendered(kind) and "\n" not in rendered:
            return BlockIn(kind)  # nothing of it can be read
        notes.append(unreadable.kept_as_text(f"{unreadable.plain(kind)} block"))
        return BlockIn("text", Raw(msgspec.json.encode(rendered)))
    except msgspec.DecodeError as error:  # an unpaired surrogate
        raise invalid(f"The text is not valid JSON: {error}", param, "invalid_json") from None


# Kinds that are read in their own types, or refused by their names.
BLOCKS = frozenset(
    (
        "text",
        "image",
        "video",
        "document",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "container_upload",
        "audio",
        "input_audio",
        "file",
    )
)


def kind_of(raw: Raw) -> str:
    return string_of(rendered_decoder.decode(raw).type) if bytes(raw).startswith(b"{") else ""


def _is_rendered(kind: str) -> bool:
    """Search results of the client, and what Anthropic's own tools left in a history."""
    return kind in _RENDERED or (kind.endswith("_tool_result") and kind != "tool_result")


def _rendering(wire: Rendered) -> str:
    names = map(string_of, (wire.title, wire.tool_name, wire.name, wire.source))
    title = next((name for name in names if name), "")
    stated = [string_of(wire.text), string_of(wire.thinking), string_of(wire.content)]
    if bytes(wire.content).startswith(b"["):
        for raw in list_decoder.decode(wire.content):
            if bytes(raw).startswith(b"{"):
                inner = rendered_decoder.decode(raw)
                stated += (string_of(inner.title), string_of(inner.text))
    kind = string_of(wire.type)
    head = f"[{kind}: {title}]" if title else f"[{kind}]"
    return "\n".join([head, *filter(None, stated)])


def string_of(raw: Raw) -> str:
    return msgspec.json.decode(raw, type=str) if bytes(raw).startswith(b'"') else ""
