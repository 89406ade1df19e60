"""This module decodes the messages of Chat Completions from clients."""

import binascii
from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Raw

from headgate import bounds
from headgate.chat import Media, Message, Text, Thinking, ToolCall, ToolResult
from headgate.dialects.fields import given, wrapped
from headgate.dialects.jsonstrings import decoded, may_hold, string, string_or_list, string_or_none
from headgate.dialects.openai.request_wire import (
    NOTHING,
    MessageIn,
    PartIn,
    Url,
    arguments_decoder,
    content_decoder,
)
from headgate.errors import invalid, unsupported
from headgate.stream.thinking import untagged

_Content = Raw | list[PartIn] | None


def messages_of(wires: Sequence[MessageIn]) -> tuple[Message, ...]:
    bounds.check_size(wires, bounds.MESSAGES, "$.messages")
    tally = bounds.Tally()
    out = []
    for n, wire in enumerate(wires):
        if wire.tool_calls is None and (plain := _of_one_text(wire)) is not None:
            out.append(plain)
            continue
        param = f"$.messages[{n}]"
        content = string_or_list(wire.content, content_decoder, param, "content")
        if type(content) is list:
            tally.add(content, f"{param}.content")
        if wire.tool_calls:
            tally.add(wire.tool_calls, f"{param}.tool_calls")
        if wire.reasoning_details:
            tally.add(wire.reasoning_details, f"{param}.reasoning_details")
        out.append(_message(wire, content, param))
    return tuple(out)


def _of_one_text(wire: MessageIn) -> Message | None:
    """The message of a user or of a tool that is one string, as most are; None for any other."""
    if wire.role == "user":
        content = string_or_none(wire.content)
        return None if content is None else Message("user", (Text(content),))
    if wire.role == "tool" and wire.tool_call_id:
        content = string_or_none(wire.content)
        return None if content is None else _result(wire, wire.tool_call_id, (Text(content),))
    return None


def _result(wire: MessageIn, id: str, parts: tuple[Text | Media, ...]) -> Message:
    name = bounds.called_name(wire.name) if wire.name else ""
    return Message("tool", (ToolResult(bounds.call_id(id), parts, name=name),))


def _message(wire: MessageIn, content: _Content, param: str) -> Message:
    match wire.role:
        case "system" | "developer":
            return Message("system", tuple(_texts(wire, content, param)))
        case "user":
            return Message("user", tuple(_parts(content, param)))
        case "tool":
            if not wire.tool_call_id:
                raise invalid("A tool message needs `tool_call_id`.", f"{param}.tool_call_id")
            return _result(wire, wire.tool_call_id, tuple(_parts(content, param)))
        case "assistant":
            return _assistant(wire, content, param)
        case _:
            raise unsupported(f"{param}.role", "Use role `tool` instead of `function`.")


def _assistant(wire: MessageIn, content: _Content, param: str) -> Message:
    if wire.function_call is not NOTHING and given(wire.function_call):
        raise unsupported(f"{param}.function_call", "Use `tool_calls`.")
    thoughts = _thoughts(wire)
    texts = [Text(content)] if type(content) is Raw else list(_texts(wire, content, param))
    if type(content) is Raw and may_hold(content, b"<"):
        inline, rest = untagged(texts[0].text)
        if inline and not thoughts:
            thoughts = [Thinking(inline)]
        if inline and "".join(t.text for t in thoughts) == inline:  # it came twice: it is sent once
            texts = [Text(rest)] if rest else []
    calls = []
    for i, call in enumerate(wire.tool_calls or ()):
        arguments: str | Raw
        if call.function is not None:
            name, stated = call.function.name, string_or_none(call.function.arguments)
            if stated is None:
                where = f"{param}.tool_calls[{i}].function.arguments"
                arguments = _no_string(call.function.arguments, where)
            else:
                arguments = stated
        elif call.custom is not None:
            name, arguments = call.custom.name, wrapped(call.custom.input)
        else:
            where = f"{param}.tool_calls[{i}]"
            raise unsupported(f"{where}.{call.type}", "Only calls of functions are.")
        calls.append(ToolCall(bounds.call_id(call.id), bounds.called_name(name), arguments))
    if not texts and wire.refusal is not NOTHING and (text := string_or_none(wire.refusal)):
        texts = [Text(text)]
    return Message("assistant", (*thoughts, *texts, *calls))


def _no_string(arguments: Raw, where: str) -> str:
    """The text of arguments that are missing; Refused where they are of another type."""
    return decoded(arguments_decoder, arguments, where) if bytes(arguments) else ""


def _thoughts(wire: MessageIn) -> list[Thinking]:
    """A signature ends a part; unsigned pieces are one part, as streams are often kept."""
    if wire.reasoning_details is None and not (wire.reasoning_content or wire.reasoning):
        return []
    thoughts: list[Thinking] = []
    pieces: list[str] = []
    for detail in wire.reasoning_details or ():
        pieces.append(detail.text or "")
        if detail.signature:
            thoughts.append(Thinking("".join(pieces), detail.signature))
            pieces.clear()
    text, plain = "".join(pieces), wire.reasoning_content or wire.reasoning or ""
    if not thoughts and len(plain) > len(text) and text in plain:
        text = plain  # clients that replace details of the same `index` keep the last piece alone
    if text:
        thoughts.append(Thinking(text))
    return thoughts


def _texts(wire: MessageIn, content: _Content, param: str) -> Iterator[Text]:
    for i, part in enumerate(_parts(content, param)):
        if not isinstance(part, Text):
            raise invalid(f"A {wire.role} message holds text only.", f"{param}.content[{i}]")
        yield part


def _parts(content: _Content, param: str) -> Iterator[Text | Media]:
    if content is None:
        return
    if isinstance(content, Raw):
        yield Text(content)
        return
    for i, part in enumerate(content):
        where = f"{param}.content[{i}]"
        text = string(part.text, where, "text") or string(part.refusal, where, "refusal")
        match part.type:
            case "text" | "refusal":
                if text is not None:
                    yield Text(text)
            case "image_url" if part.image_url is not None:
                yield _media("image", part.image_url, f"{where}.image_url")
            case "video_url" if part.video_url is not None:
                yield _media("video", part.video_url, f"{where}.video_url")
            case "image_url" | "video_url":
                raise invalid(f"Object missing required field `{part.type}` - at `{where}`", where)
            case _:
                raise unsupported(f"{where}.{part.type}", "Send text or images.")


def _media(kind: Literal["image", "video"], wire: Url | str, param: str) -> Media:
    url, detail = (wire, "") if isinstance(wire, str) else (wire.url, wire.detail or "")
    if url.startswith(("https://", "http://")):
        return Media(kind, url=url, detail=detail)
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise invalid(f"Expected an http(s) or base64 data URL - at `{param}.url`", f"{param}.url")
    try:
        empty = not binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        empty = True
    if empty:
        raise invalid(f"The data is not base64 - at `{param}.url`", f"{param}.url")
    media_type = head[5:].partition(";")[0].lower()
    return Media(kind, media_type=media_type, data=data, detail=detail)
