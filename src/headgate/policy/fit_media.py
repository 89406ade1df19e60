"""What the caller attached against the media that one route reads."""

from collections.abc import Mapping, Sequence

import msgspec

from headgate.chat import Media, Message, Part, Request, Text, ToolResult
from headgate.dialects import unreadable
from headgate.dialects.capabilities import Capabilities
from headgate.errors import invalid


def fit_media(
    request: Request,
    capabilities: Capabilities,
    notes: list[str],
    takers: Mapping[str, tuple[str, ...]],
) -> Request:
    """Put a note in place of media that the model does not take; refuse those of the last message.

    MiniMax drops pictures without a word. What a tool returned, and what a user attached before,
    stays in its client's history, which a refusal would end.
    """
    messages: list[Message] | None = None
    last = asked_last(request.messages)
    for n, message in enumerate(request.messages):
        if not _has_media(message):  # nearly all
            continue
        changed = False
        parts: list[Part] = []
        for part in message.parts:
            if type(part) is Media and part.kind not in capabilities.input:
                if n == last:
                    model = request.model[:64]
                    others = [m for m in takers.get(part.kind, ()) if m.lower() != model.lower()]
                    hint = f"use {' or '.join(others[:2])}" if others else "send text only"
                    raise invalid(
                        f"The model `{model}` does not take {part.kind}s (`{part.kind}`); {hint}.",
                        "$.messages",
                    )
                what = unreadable.name_of(part.kind)
                notes.append(unreadable.replaced(what))
                part = unreadable.attached(what, part.cache)
                changed = True
            elif type(part) is ToolResult and any(
                type(p) is Media and p.kind not in capabilities.input for p in part.parts
            ):
                part = _noted(part, capabilities, notes)
                changed = True
            parts.append(part)
        if changed:
            messages = list(request.messages) if messages is None else messages
            messages[n] = Message(message.role, tuple(parts))
    if messages is None:
        return request
    return msgspec.structs.replace(request, messages=tuple(messages))


def asked_last(messages: Sequence[Message]) -> int:
    """Return the place of the user's message that the reply is for; -1 when it is for something else.

    Only what it holds can still be taken back by its user; anything before it is history.  What follows the
    result of a tool is the agent's: many attach there what the tool returned.
    """
    last = -1
    for n in range(len(messages) - 1, -1, -1):
        role = messages[n].role
        if role == "system":
            continue
        if last >= 0:
            return -1 if role == "tool" else last
        if role != "user":
            return -1
        last = n
    return last


def _has_media(message: Message) -> bool:
    for part in message.parts:
        kind = type(part)
        if kind is Media:
            return True
        if kind is ToolResult:
            for p in part.parts:  # type: ignore[union-attr]  # by kind
                if type(p) is Media:
                    return True
    return False


def _noted(result: ToolResult, capabilities: Capabilities, notes: list[str]) -> ToolResult:
    """The result with a note in place of each picture or video that the model does not take."""
    parts: list[Text | Media] = []
    for part in result.parts:
        if type(part) is Media and part.kind not in capabilities.input:
            what = unreadable.name_of(part.kind)
            notes.append(unreadable.warning_of(what))
            parts.append(unreadable.note_of(what, part.cache))
        else:
            parts.append(part)
    return msgspec.structs.replace(result, parts=tuple(parts))
