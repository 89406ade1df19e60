"""History rules: what a conversation must look like before any upstream will take it.

The only place that repairs a client's history.  It follows MiniMax's list of histories that end in
an opaque `2013` (chat verifier of platform.minimax.io; openclaw#19386, MiniMax-M2#51 and #76,
pi#5468, read 2026-11).  A history is never refused, as its user cannot take it back: it is repaired
and `Request.warnings` name each repair.  Only a request that asks nothing is refused, in the words of
the caller's protocol.

Note:
- a call's results are looked for up to the next assistant turn, as ids may repeat in later turns;
- a result without its call is dropped before the first assistant turn, where a client that cuts off
  the start of its history leaves one; anywhere else it is shown to the model as the user's text;
- a call without its result gets one that says so, as vendors refuse a call that nothing answers;
- a model without tools is shown calls and results as text;
- a blank text is dropped, its cache mark moves to what stands before it;
- a last message of the assistant's is continued: by the upstream, or asked for in words;
- a turn that only thought is joined to the assistant turn that follows at once, else dropped:
  templates show the thinking of earlier turns to nobody, and MiniMax refuses empty content;
- a refusal names the list, not the place in it: the messages here are not numbered as the client's.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from headgate import jsontext, utf8
from headgate.chat import Media, Message, Part, Request, Text, Thinking, ToolCall, ToolResult
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import DialectFacts
from headgate.dialects.registry import FACTS, OPENAI
from headgate.errors import invalid
from headgate.policy.system_messages import one_system
from headgate.policy.turns import TurnBuilder, kept_part, shown_call

# What stands for a prefill where the upstream has none.
CONTINUE = (
    "Continue your last message exactly where it stopped. Do not repeat any of it, and do not"
    " comment on the interruption."
)


def repair(request: Request, capabilities: Capabilities, dialect: str) -> Request:
    """The request with a history that the upstream takes; Refused only when it asks nothing.

    Gives back the same messages when there was nothing to do; repairing twice changes nothing.
    """
    if _sound(request.messages, capabilities):
        return request
    facts = FACTS.get(dialect, OPENAI.facts)
    warnings: list[str] = []
    messages = _spoken(request.messages, facts, warnings)
    if not capabilities.tools:
        messages = _without_calls(messages, capabilities.input, warnings)
    turns = TurnBuilder(capabilities.input, warnings)
    for message in messages:
        turns.add(message)
    messages = turns.close()
    if not capabilities.multi_system:
        # Of the wires without room for more than one, only the one of blocks has cache marks.
        messages = one_system(messages, warnings, cut=capabilities.reasoning_form == "blocks")
    if all(m.role == "system" for m in messages):
        raise invalid(facts.no_messages, facts.messages)
    if messages[-1].role == "assistant" and not capabilities.prefill:
        # A prefill, or what was shown of a stream that was cut (Kimi, opencode).
        messages.append(Message("user", (Text(CONTINUE),)))
        warnings.append("history: continuation of the last assistant message asked for in words")
    return msgspec.structs.replace(request, messages=tuple(messages)).warn(*dict.fromkeys(warnings))


def _sound(messages: Sequence[Message], capabilities: Capabilities) -> bool:
    """Whether there is surely nothing to do, as nearly always; False only means to look closely."""
    if not messages:
        return False
    waiting: list[str] = []  # calls whose results must come next, the last of them first
    last = ""
    callable = capabilities.tools
    more = "system" if capabilities.multi_system else ""  # what a system message may follow
    for message in messages:
        role, parts = message.role, message.parts
        if waiting:
            one = parts[0] if role == "tool" and len(parts) == 1 else None
            if type(one) is not ToolResult or one.call_id != waiting.pop():
                return False
        elif role == "user":
            if not _stated(parts):
                return False
        elif role == "assistant":
            if last == "assistant":  # it may be one turn in pieces
                return False
            stated = blank = False
            for part in parts:
                kind = type(part)
                if kind is ToolCall:
                    if not _has_object(part):  # type: ignore[arg-type]  # by kind, as below
                        return False
                    waiting.append(part.id)  # type: ignore[union-attr]
                elif kind is Text:
                    if not part.is_blank:  # type: ignore[union-attr]
                        stated = True
                    elif part.is_empty:  # type: ignore[union-attr]
                        return False
                    else:
                        blank = True
                elif kind is not Thinking or not (part.text or part.signature):  # type: ignore[union-attr]
                    return False
            if not waiting:
                if blank or not stated:
                    return False
            elif not callable or (len(waiting) > 1 and len(set(waiting)) < len(waiting)):
                return False
            waiting.reverse()
        elif role == "tool" or message.is_blank or last not in ("", more):
            return False
        last = role
    return not waiting and last in ("user", "tool")


def _has_object(call: ToolCall) -> bool:
    """Whether a call's arguments are a JSON object."""
    return call.as_object is not None or jsontext.is_object(call.arguments)


def _stated(parts: Sequence[Part]) -> bool:
    """Whether there is text or media, and no text that is blank."""
    stated = False
    for part in parts:
        if type(part) is Text:
            if part.is_blank:
                return False
            stated = True
        elif type(part) is Media:
            stated = True
    return stated


# --- single messages -----------------------------------------------------------------------------


def _spoken(messages: Iterable[Message], facts: DialectFacts, warnings: list[str]) -> list[Message]:
    """Return the messages that say something, each valid by itself."""
    out: list[Message] = []
    empty = False
    for message in messages:
        match message.role:
            case "system":
                if not message.is_blank:
                    out.append(message)
            case "user":
                stated = _user(message, out)
                if stated.parts:
                    out.append(stated)
                else:
                    warnings.append("history: empty user message dropped")
                    empty = True
            case "assistant":
                stated = _assistant(message, warnings)
                if stated.parts:
                    out.append(stated)
                else:
                    warnings.append("history: empty assistant message dropped")
            case "tool":
                out.append(message)
    if empty and all(m.role == "system" for m in out):
        raise invalid(
            "A user message is empty: user messages must have non-empty content.", facts.messages
        )
    if out and facts.lone_system and all(m.role == "system" for m in out):
        # OpenAI answers such a prompt; an upstream of another kind cannot even be sent it.
        out[-1] = Message("user", out[-1].parts)
        warnings.append("history: lone system message sent as user message")
    return out


def _user(message: Message, before: list[Message]) -> Message:
    """Without blank texts, which vendors refuse; their cache marks stay, on what stands before."""
    parts: list[Part] = []
    for part in message.parts:
        if type(part) is not Text or not part.is_blank:
            parts.append(part)
        elif part.cache and parts:
            parts[-1] = _marked(parts[-1], part.cache)
        elif part.cache and before and before[-1].role in ("user", "tool"):
            last = before[-1]
            moved = (*last.parts[:-1], _marked(last.parts[-1], part.cache))
            before[-1] = Message(last.role, moved)
    return kept_part(message, tuple(parts))


def _marked(part: Part, cache: str) -> Part:
    """Return the part with a cache breakpoint after it; one that it has stays."""
    if isinstance(part, Thinking) or part.cache:
        return part
    return msgspec.structs.replace(part, cache=cache)


def _assistant(message: Message, warnings: list[str]) -> Message:
    """Without empty parts, and with arguments that are JSON objects."""
    parts: list[Part] = []
    for part in message.parts:
        match part:
            case ToolCall():
                parts.append(_call(part, warnings))
            case Text() if part.is_empty:
                pass
            case Thinking("", ""):
                pass
            case _:
                parts.append(part)
    if all(type(p) is Text and p.is_blank for p in parts):
        parts = []
    return kept_part(message, tuple(parts))


def _call(call: ToolCall, warnings: list[str]) -> ToolCall:
    if call.as_object is not None:
        return call
    arguments = call.arguments
    if not arguments.strip() or arguments.strip() == "null":
        return msgspec.structs.replace(call, source="{}")  # a tool without parameters
    if jsontext.is_object(arguments):
        return call
    if "\\u" in arguments:
        whole = utf8.without_lone_surrogates(arguments.encode()).decode()
        if whole != arguments and jsontext.is_object(whole):
            warnings.append("history: lone surrogates in arguments replaced")
            return msgspec.structs.replace(call, source=whole)
    once = jsontext.decoded_once(arguments)
    if once is not None:
        warnings.append("history: arguments encoded twice decoded")
        return msgspec.structs.replace(call, source=once)
    # Cut short or miswritten by the model.  Closing the braces would make it say something that
    # it did not; wrapped, it reads as the failed call it was (MiniMax answers 2013 to the bare one).
    warnings.append("history: invalid JSON arguments wrapped")
    return msgspec.structs.replace(call, source=jsontext.encode({"_raw": arguments}).decode())


# --- turns: calls and their results --------------------------------------------------------------


def _without_calls(
    messages: list[Message], seen: Collection[str], warnings: list[str]
) -> list[Message]:
    """The messages with calls and results as text, for a model that has no tools."""
    out: list[Message] = []
    for message in messages:
        if message.role == "tool":
            parts = [
                p
                for r in message.parts
                if type(r) is ToolResult
                for p in shown_call(r, seen, warnings)
            ]
            message = Message("user", tuple(parts))
        elif any(type(p) is ToolCall for p in message.parts):
            warnings.append("history: tool calls kept as text")
            stated = [
                Text(f"[called {p.name}: {p.arguments}]") if type(p) is ToolCall else p
                for p in message.parts
            ]
            message = Message(message.role, tuple(stated))
        out.append(message)
    return out


# --- system messages -----------------------------------------------------------------------------


__all__ = ["repair"]
