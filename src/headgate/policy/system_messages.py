"""System messages become one at the beginning, and reminders where the others stood."""

from collections.abc import Iterator

import msgspec

from headgate.chat import Message, Text


def one_system(messages: list[Message], warnings: list[str], *, cut: bool) -> list[Message]:
    """One system message, first: more are 2013 "invalid chat setting", elsewhere "invalid role".

    What stands after the first user message keeps its place instead, inside the user's text, as
    Claude Code writes it; moved to the front it would change the prefix that upstreams cache.
    """
    leading: list[Message] = []
    rest: list[Message] = []
    waiting: list[str] = []
    begun = False
    for message in messages:
        if message.role == "system":
            if begun:
                waiting.append(message.text)
            else:
                leading.append(message)
            continue
        if waiting and message.role == "user":
            message = _before(_reminder(waiting), message)
        elif waiting:
            _after(_reminder(waiting), rest)
        if waiting:
            warnings.append("history: system message folded into user text")
            waiting = []
        begun = begun or message.role == "user"
        rest.append(message)
    if waiting:
        _after(_reminder(waiting), rest)
        warnings.append("history: system message folded into user text")
    if len(leading) > 1:
        leading = [Message("system", tuple(_paragraphs(leading, cut)))]
    return leading + rest


def _paragraphs(messages: list[Message], cut: bool) -> Iterator[Text]:
    """Return one text, a blank line between the messages; with `cut`, in pieces that keep cache marks."""
    pieces: list[str] = []
    last = messages[-1]
    for message in messages:
        marks = [p.cache for p in message.parts if isinstance(p, Text) and p.cache]
        pieces.append(message.text)
        if message is not last:
            pieces.append("\n\n")
        if (cut and marks) or message is last:
            yield Text("".join(pieces), marks[-1] if marks else "")
            pieces.clear()


def _reminder(texts: list[str]) -> str:
    return "\n\n".join(f"<system-reminder>\n{text}\n</system-reminder>" for text in texts)


def _before(reminder: str, user: Message) -> Message:
    first = user.parts[0]
    if isinstance(first, Text):
        first = msgspec.structs.replace(first, source=f"{reminder}\n\n{first.text}")
        return Message("user", (first, *user.parts[1:]))
    return Message("user", (Text(reminder), *user.parts))


def _after(reminder: str, messages: list[Message]) -> None:
    """At the end of the user's message just before, or as a user's message of its own."""
    if not messages or messages[-1].role != "user":
        messages.append(Message("user", (Text(reminder),)))
        return
    *parts, last = messages[-1].parts
    if isinstance(last, Text):
        last = msgspec.structs.replace(last, source=f"{last.text}\n\n{reminder}")
        messages[-1] = Message("user", (*parts, last))
    else:
        messages[-1] = Message("user", (*parts, last, Text(reminder)))
