"""The turns of Anthropic Messages, from clients: the system text and the messages."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
from msgspec import Raw, Struct

from headgate import bounds, jsontext
from headgate.chat import (
    WEB_SEARCH,
    Found,
    Media,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from headgate.dialects import malformed, unreadable
from headgate.dialects.anthropic.content import (
    SHOWN,
    block_of,
    cache_of,
    kept_of,
    kind_of,
    readable,
    result_of,
    shown_of,
    string_of,
)
from headgate.dialects.anthropic.request_wire import (
    NOTHING,
    BlockIn,
    MessageIn,
    block_decoder,
    list_decoder,
)
from headgate.dialects.found import listed, opened
from headgate.errors import Refused, unsupported

# Claude Code's first system block; older versions changed it with each request, which spoils every
# cache of prefixes.  Only Anthropic itself takes it out (llm-gateway-protocol).
_BILLING = re.compile(r"x-anthropic-billing-header:", re.I)


def system_of(wire: str | list[Raw] | None, notes: list[str]) -> Iterator[Message]:
    """One message for each block: whoever joins them puts a blank line between."""
    if isinstance(wire, list):
        bounds.check_size(wire, bounds.MESSAGES, "$.system")
    if isinstance(wire, str):
        if wire:
            yield Message("system", (Text(wire),))
        return
    for i, raw in enumerate(wire or ()):
        param = f"$.system[{i}]"
        block = readable(raw, param, notes)
        if block.type in unreadable.ATTACHMENTS:
            raise unsupported(f"{param}.type", f"`{block.type}` cannot stand here.")
        for text in _reported([(block, param)], notes):
            if i or not _BILLING.match(text.text):
                yield Message("system", (text,))


def messages_of(wires: Sequence[MessageIn], notes: list[str], searching: bool) -> Iterator[Message]:
    """Return the messages; `searching`: searches of the history are calls with their results."""
    bounds.check_size(wires, bounds.MESSAGES, "$.messages")
    tally = bounds.Tally()
    end = len(wires) - 1
    for i, wire in enumerate(wires):
        param = f"$.messages[{i}]"
        # Only what the reply is for may be refused; all before it is history.
        asked = i == end and wire.role not in ("assistant", "system", "developer")
        blocks: list[BlockIn] = []
        if isinstance(wire.content, str):
            if wire.content:
                yield Message(*_stated(wire.role, wire.content, notes))
                continue
        else:
            tally.add(wire.content, f"{param}.content")
            if searching and wire.role == "assistant":
                yield from _searched(wire.content, param, notes)
                continue
            blocks = _read_blocks(wire.content, f"{param}.content", notes, asked)
        places = [(block, f"{param}.content[{k}]") for k, block in enumerate(blocks)]
        match wire.role:
            case "user":
                # What stands beside or behind a tool's result is what the tool returned.
                own = asked and not any(map(_answers, wires[max(0, i - 1) : i + 1]))
                yield from _user(places, tally, notes, own)
            case "assistant":
                yield Message("assistant", tuple(_assistant(places, notes)))
            case "system" | "developer":
                yield Message("system", tuple(_reported(places, notes)))
            case role:
                notes.append(f"history: role {unreadable.plain(role)} read as user")
                yield from _user(places, tally, notes, asked)


def mended_message(raw: Raw, warnings: list[str]) -> Raw | None:
    """A message of the history with a role and a content that can be read."""
    fields = malformed.fields_of(raw)
    if fields is None:
        warnings.append("history: malformed message skipped")
        return None
    role, content = fields.get("role"), fields.get("content")
    if malformed.is_text(role) and (malformed.is_text(content) or malformed.is_list(content)):
        return raw
    warnings.append("history: malformed message mended")
    if not malformed.is_text(role):
        role = Raw(b'"user"')
    if content is not None and bytes(content).startswith(b"{"):
        content = Raw(b"[" + bytes(content) + b"]")
    elif not malformed.is_text(content) and not malformed.is_list(content):
        content = Raw(b'""')
    return Raw(msgspec.json.encode({"role": role, "content": content}))


def _stated(role: str, text: str, notes: list[str]) -> tuple[Role, tuple[Text]]:
    """The role and the parts of a message that is one text."""
    parts = (Text(text),)
    match role:
        case "user" | "assistant":
            return role, parts
        case "system" | "developer":
            return "system", parts
    notes.append(f"history: role {unreadable.plain(role)} read as user")
    return "user", parts


def _read_blocks(
    wires: Sequence[BlockIn | Raw], param: str, notes: list[str], asked: bool
) -> list[BlockIn]:
    read = block_of if asked else readable
    return [
        wire if isinstance(wire, BlockIn) else read(wire, f"{param}[{k}]", notes)
        for k, wire in enumerate(wires)
    ]


def _answers(wire: MessageIn) -> bool:
    """Whether a turn of the user holds the result of a tool."""
    if wire.role != "user" or isinstance(wire.content, str):
        return False
    for block in wire.content:
        if isinstance(block, BlockIn):
            if block.type == "tool_result":
                return True
        elif b'"tool_result"' in bytes(block):
            return True
    return False


def _reported(places: list[tuple[BlockIn, str]], notes: list[str]) -> Iterator[Text]:
    """The texts of a message that holds nothing else."""
    for block, _ in places:
        if block.type == "text" and malformed.is_text(block.text):
            yield Text(block.text.copy(), cache_of(block.cache_control))
        else:
            yield from kept_of(block, notes)


def _user(
    places: list[tuple[BlockIn, str]], tally: bounds.Tally, notes: list[str], asked: bool
) -> Iterator[Message]:
    """Results are messages of their own, before what else the turn says."""
    parts: list[Part] = []
    results = 0
    for block, param in places:
        if block.type == "tool_result":
            result = result_of(block, param, tally, notes)
            if result.call_id:
                results += 1
                yield Message("tool", (result,))
            else:
                notes.append("history: tool_result without tool_use_id kept as text")
                parts += result.parts
        elif block.type in SHOWN or block.type in unreadable.ATTACHMENTS:
            if asked:
                parts.append(shown_of(block, param, notes))
            else:
                parts += _seen_before(block, param, notes)
        else:
            parts.extend(kept_of(block, notes))
    if parts or not results:
        yield Message("user", tuple(parts))


def _seen_before(block: BlockIn, param: str, notes: list[str]) -> Iterator[Text | Media]:
    """What a user attached in an earlier turn; a note stands for what cannot be read."""
    if block.type == "text":
        yield from _reported([(block, param)], notes)
        return
    try:
        yield shown_of(block, param, notes)
    except Refused:
        source = block.source
        media_type = (source.media_type or "") if source is not None else ""
        what = unreadable.name_of(block.type, media_type)
        notes.append(unreadable.replaced(what))
        yield unreadable.attached(what, cache_of(block.cache_control))


def _assistant(places: list[tuple[BlockIn, str]], notes: list[str]) -> Iterator[Part]:
    for block, param in places:
        match block.type:
            case "thinking":
                yield Thinking(block.thinking or "", block.signature or "")
            case "redacted_thinking":
                notes.append(unreadable.skipped("redacted_thinking block"))
            case "tool_use" if block.id and block.name:
                yield _call(block, param)
            case _:
                yield from _reported([(block, param)], notes)


class _ResultIn(Struct, frozen=True):
    """One result of an earlier search; of any type, as it is history."""

    url: Raw = NOTHING
    title: Raw = NOTHING
    encrypted_content: Raw = NOTHING
    page_age: Raw = NOTHING


_result_decoder = msgspec.json.Decoder(_ResultIn)


def _searched(content: Sequence[BlockIn | Raw], param: str, notes: list[str]) -> Iterator[Message]:
    """A turn that may have searched the web, as the rounds that it was made of."""
    parts: list[Part] = []
    for k, raw in enumerate(content):
        if isinstance(raw, BlockIn):  # of a kind that is no search
            parts.extend(_assistant([(raw, f"{param}.content[{k}]")], notes))
            continue
        kind = kind_of(raw)
        if kind in ("server_tool_use", "web_search_tool_result"):
            with suppress(msgspec.MsgspecError):  # one of another shape is kept as text
                block = block_decoder.decode(raw)
                if kind == "server_tool_use" and block.name == WEB_SEARCH and block.id:
                    parts.append(_call(block, f"{param}.content[{k}]"))
                    continue
                if kind == "web_search_tool_result" and block.tool_use_id and parts:
                    yield Message("assistant", tuple(parts))
                    parts = []
                    yield Message("tool", (_results(block),))
                    continue
        place = f"{param}.content[{k}]"
        parts.extend(_assistant([(readable(raw, place, notes), place)], notes))
    yield Message("assistant", tuple(parts))


def _results(block: BlockIn) -> ToolResult:
    found: list[Found] = []
    listing = malformed.is_list(block.content)
    for raw in list_decoder.decode(block.content) if listing else ():
        if bytes(raw).startswith(b"{"):
            wire = _result_decoder.decode(raw)
            snippet = opened(string_of(wire.encrypted_content))
            age = string_of(wire.page_age)
            found.append(Found(string_of(wire.url), string_of(wire.title), snippet, age))
    id = bounds.call_id(block.tool_use_id or "")
    return ToolResult(id, (Text(listed(found)),))


def _call(block: BlockIn, param: str) -> ToolCall:
    assert block.id
    assert block.name
    id, name, cache = bounds.call_id(block.id), bounds.called_name(block.name), block.cache_control
    json = bytes(block.input)
    jsontext.check_depth(json, f"{param}.input")
    # Some clients keep it as the model wrote it; policy/history.py repairs what no upstream reads.
    if json.startswith((b"{", b'"')) and not jsontext.has_long_number(json):
        return ToolCall(id, name, block.input.copy(), cache_of(cache))
    return ToolCall(id, name, "{}" if json == b"null" else json.decode(), cache_of(cache))
