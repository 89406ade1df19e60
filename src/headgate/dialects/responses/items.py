"""This module decodes the items of OpenAI Responses from clients to messages."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from headgate import bounds, jsontext
from headgate.chat import WEB_SEARCH, Media, Message, Part, Text, Thinking, ToolCall, ToolResult
from headgate.dialects import fields
from headgate.dialects.found import NOT_KEPT
from headgate.dialects.jsonstrings import decoded, may_hold, string, string_or_list, string_or_none
from headgate.dialects.responses.request_wire import (
    ActionIn,
    Content,
    ItemIn,
    RequestIn,
    ToolIn,
    arguments_decoder,
    content_decoder,
)
from headgate.dialects.responses.tools import SEARCH
from headgate.dialects.responses.upstream import flat
from headgate.errors import invalid, unsupported
from headgate.stream.thinking import untagged

# Items of hosted tools in the history: the messages around them have it, as far as they matter.
_SILENT = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "compaction_trigger")
)


def messages_of(wire: RequestIn, searching: bool, warnings: list[str]) -> tuple[Message, ...]:
    """Return the messages; `searching`: searches of the history are calls, whose results are not kept."""
    out: list[Message] = []
    if wire.instructions:
        out.append(Message("system", (Text(wire.instructions),)))
    if isinstance(wire.input, str):
        out.append(Message("user", (Text(wire.input),) if wire.input else ()))
        return tuple(out)
    bounds.check_size(wire.input, bounds.MESSAGES, "$.input")
    tally = bounds.Tally()
    turn: list[Part] = []  # of the assistant: the items of one turn are one message
    for i, item in enumerate(wire.input):
        where = f"$.input[{i}]"
        content = string_or_list(item.content, content_decoder, where, "content")
        if isinstance(content, list):
            tally.add(content, f"{where}.content")
        output = string_or_list(item.output, content_decoder, where, "output")
        if isinstance(output, list):
            tally.add(output, f"{where}.output")
        if item.summary:
            tally.add(item.summary, f"{where}.summary")
        if searching and item.type == "web_search_call" and (call := _searched(item)):
            out.append(Message("assistant", (*turn, call)))
            out.append(Message("tool", (ToolResult(call.id, (Text(NOT_KEPT),)),)))
            turn = []
            continue
        if item.type in _SILENT:
            warnings.append(f"input.{item.type}")
            continue
        if item.type == "additional_tools":
            continue
        if item.type in ("tool_search_call", "tool_search_output") and not item.call_id:
            warnings.append(f"input.{item.type}")
            continue  # a hosted search: the model sees what it found among its tools
        parts, message = _item(item, content, output, where)
        turn += parts
        if message is not None:
            if turn:
                out.append(Message("assistant", tuple(turn)))
                turn = []
            out.append(message)
    if turn:
        out.append(Message("assistant", tuple(turn)))
    return tuple(out)


_action_decoder = msgspec.json.Decoder(ActionIn)
_strings_decoder = msgspec.json.Decoder(list[str])


def _searched(wire: ItemIn) -> ToolCall | None:
    """The call of an earlier search; None for one that cannot be read."""
    if not bytes(wire.id).startswith(b'"') or not bytes(wire.action).startswith(b"{"):
        return None
    action = _action_decoder.decode(wire.action)
    query = bytes(action.query)
    if not query.startswith(b'"'):
        try:
            query = msgspec.json.encode(_strings_decoder.decode(action.queries)[0])
        except (msgspec.MsgspecError, IndexError):
            return None
    id = bounds.call_id(msgspec.json.decode(wire.id, type=str))
    return ToolCall(id, WEB_SEARCH, f'{{"query":{query.decode()}}}')


def _item(
    wire: ItemIn, content: Content, output: Content, where: str
) -> tuple[list[Part], Message | None]:
    """The parts that an item adds to the assistant's turn, or the message that it is."""
    match wire.type:
        case "message" | None:
            return _message(wire, content, where)
        case "reasoning":
            return _thinking(wire, content), None
        case "tool_search_call":
            text = _arguments(wire.arguments, where)
            return [ToolCall(bounds.call_id(wire.call_id or ""), SEARCH, text)], None
        case "tool_search_output":
            id = bounds.call_id(wire.call_id or "")
            return [], Message("tool", (ToolResult(id, (Text(_found(wire.tools or ())),)),))
        case "function_call" | "custom_tool_call":
            if not (wire.call_id and wire.name):
                missing = "name" if wire.call_id else "call_id"
                raise invalid(
                    f"Object missing required field `{missing}` - at `{where}`",
                    f"{where}.{missing}",
                )
            if wire.type == "custom_tool_call":
                arguments: str | Raw = fields.wrapped(wire.input or "")
            else:
                arguments = _arguments(wire.arguments, where)
            name = bounds.called_name(flat(wire.namespace or "", wire.name))
            return [ToolCall(bounds.call_id(wire.call_id), name, arguments)], None
        case "function_call_output" | "custom_tool_call_output":
            if not wire.call_id:
                raise invalid(
                    f"Object missing required field `call_id` - at `{where}`", f"{where}.call_id"
                )
            id = bounds.call_id(wire.call_id)
            result = ToolResult(id, tuple(_parts(output, f"{where}.output")))
            return [], Message("tool", (result,))
        case "item_reference":
            raise unsupported(f"{where}.item_reference", "Nothing is stored; send the item itself.")
        case _:
            raise unsupported(f"{where}.{wire.type}", "Send messages, reasoning and calls.")


def _arguments(raw: Raw, where: str) -> str | Raw:
    if (stated := string_or_none(raw)) is not None:
        return stated
    value = decoded(arguments_decoder, raw, f"{where}.arguments") if bytes(raw) else None
    return jsontext.encode(value).decode() if isinstance(value, dict) else ""


def _found(tools: Sequence[ToolIn]) -> str:
    """What a search found, by the names that the model calls; their schemas are declared."""
    names: list[str] = []
    for tool in tools:
        inner = tool.tools or () if tool.type == "namespace" else (tool,)
        namespace = tool.name or "" if tool.type == "namespace" else ""
        names += [flat(namespace, each.name) for each in inner if each.name]
    return jsontext.encode({"tools": names}).decode()


def _message(wire: ItemIn, content: Content, where: str) -> tuple[list[Part], Message | None]:
    match wire.role:
        case "user":
            return [], Message("user", tuple(_parts(content, f"{where}.content")))
        case "system" | "developer" | "assistant":
            parts = _parts(content, f"{where}.content")
            for i, part in enumerate(parts):
                if not isinstance(part, Text):
                    raise invalid(
                        f"A {wire.role} message holds text only.", f"{where}.content[{i}]"
                    )
            if wire.role == "assistant":
                return [p for part in parts for p in _spoken(part)], None
            return [], Message("system", tuple(parts))
        case None if wire.type is None:
            raise unsupported(f"{where}.item_reference", "Nothing is stored; send the item itself.")
        case None:
            raise invalid(f"Object missing required field `role` - at `{where}`", f"{where}.role")
        case _:
            raise invalid(
                f"Expected one of user, assistant, system, developer - at `{where}.role`",
                f"{where}.role",
            )


def _spoken(part: Part) -> list[Part]:
    """Return a text of the assistant; pydantic-ai writes reasoning it has no item for in tags of its own."""
    if not isinstance(part, Text):
        return [part]
    if isinstance(part.source, Raw) and not may_hold(part.source, b"<"):
        return [part]
    if not part.text.lstrip().startswith("<"):
        return [part]
    thinking, rest = untagged(part.text)
    if not thinking:
        return [part]
    return [Thinking(thinking), Text(rest)] if rest else [Thinking(thinking)]


def _thinking(wire: ItemIn, content: Content) -> list[Part]:
    """The text, if the client kept it, and what was sealed; the text has one of two places."""
    if isinstance(content, Raw):
        text = _text_of(content)
    else:
        text = "".join([_text_of(p.text) for p in content or ()])
    text = text or "\n\n".join([_text_of(p.text) for p in wire.summary or ()])
    text = text or wire.text or ""
    signature = wire.encrypted_content or ""
    return [Thinking(text, signature)] if text or signature else []


def _text_of(raw: Raw) -> str:
    found = string_or_none(raw)
    return "" if found is None else Text(found).text


def _parts(content: Content, where: str) -> list[Text | Media]:
    if content is None:
        return []
    if isinstance(content, Raw):
        return [Text(content)]
    out: list[Text | Media] = []
    for i, part in enumerate(content):
        at = f"{where}[{i}]"
        text = string(part.text, at, "text") or string(part.refusal, at, "refusal")
        match part.type:
            case "input_text" | "output_text" | "text" | "refusal":
                if text is not None:
                    out.append(Text(text))
            case "input_image" if part.image_url:
                detail = part.detail or ""
                out.append(fields.media_of("image", part.image_url, detail, f"{at}.image_url"))
            case "input_image":
                raise unsupported(f"{at}.file_id", "Nothing is stored; send `image_url`.")
            case _:
                raise unsupported(f"{at}.{part.type}", "Send text or images.")
    return out
