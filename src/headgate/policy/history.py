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

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from headgate import jsontext
from headgate.chat import Media, Message, Part, Request, Text, Thinking, ToolCall, ToolResult
from headgate.dialects import unreadable
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import DialectFacts
from headgate.dialects.registry import FACTS, OPENAI
from headgate.errors import invalid

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
    turns = _Turns(capabilities.input, warnings)
    for message in messages:
        turns.add(message)
    messages = turns.close()
    if not capabilities.multi_system:
        # Of the wires without room for more than one, only the one of blocks has cache marks.
        messages = _one_system(messages, warnings, cut=capabilities.reasoning_form == "blocks")
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
            if not _said(parts):
                return False
        elif role == "assistant":
            if last == "assistant":  # it may be one turn in pieces
                return False
            calls = [p for p in parts if type(p) is ToolCall]
            waiting = [c.id for c in reversed(calls)]
            if not (calls or _said(parts)) or len(set(waiting)) < len(waiting):
                return False
            if waiting and not callable:
                return False
            for part in parts:
                if type(part) is ToolCall:
                    if part.as_object is None and not jsontext.is_object(part.arguments):
                        return False
                elif type(part) is Text:
                    if part.is_empty:
                        return False
                elif type(part) is not Thinking or not (part.text or part.signature):
                    return False
        elif role == "tool" or message.is_blank or last not in ("", more):
            return False
        last = role
    return not waiting and last in ("user", "tool")


def _said(parts: Sequence[Part]) -> bool:
    """Whether there is text or media, and no text that is blank."""
    said = False
    for part in parts:
        if type(part) is Text:
            if part.is_blank:
                return False
            said = True
        elif type(part) is Media:
            said = True
    return said


# --- single messages -----------------------------------------------------------------------------


def _spoken(messages: Iterable[Message], facts: DialectFacts, warnings: list[str]) -> list[Message]:
    """The messages that say something, each valid by itself."""
    out: list[Message] = []
    empty = False
    for message in messages:
        match message.role:
            case "system":
                if not message.is_blank:
                    out.append(message)
            case "user":
                said = _user(message, out)
                if said.parts:
                    out.append(said)
                else:
                    warnings.append("history: empty user message dropped")
                    empty = True
            case "assistant":
                said = _assistant(message, warnings)
                if said.parts:
                    out.append(said)
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
    return _kept(message, tuple(parts))


def _marked(part: Part, cache: str) -> Part:
    """The part with a cache breakpoint after it; one that it has stays."""
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
    return _kept(message, tuple(parts))


def _call(call: ToolCall, warnings: list[str]) -> ToolCall:
    if call.as_object is not None:
        return call
    arguments = call.arguments
    if not arguments.strip() or arguments.strip() == "null":
        return msgspec.structs.replace(call, source="{}")  # a tool without parameters
    if jsontext.is_object(arguments):
        return call
    if "\\u" in arguments:
        whole = jsontext.without_lone_surrogates(arguments.encode()).decode()
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


def _kept(message: Message, parts: tuple[Part, ...]) -> Message:
    return message if parts == message.parts else Message(message.role, parts)


# --- turns: calls and their results --------------------------------------------------------------


NO_RESULT = "[no result of this call was recorded]"
_LOST_RESULT = "[The result of an earlier tool call]"


class _Turns:
    """Puts results directly after the turn that called, in the order of its calls."""

    def __init__(self, seen: Collection[str], warnings: list[str]) -> None:
        self._seen = seen  # kinds of media that the model takes
        self._warnings = warnings
        self._out: list[Message] = []
        # Of the assistant turn whose results are looked for:
        self._pieces: list[Message] = []  # the messages that it came in; none before the first turn
        self._calls: dict[str, None] = {}  # ids, in their order
        self._again: dict[str, deque[str]] = {}  # of an id that came twice, the ids given instead
        self._renamed = 0  # calls whose ids came twice
        self._said = False  # text that is more than blank
        self._results: dict[str, Message] = {}
        self._between: list[Message] = []  # what else came since that turn

    def add(self, message: Message) -> None:
        match message.role:
            case "assistant":
                self._begin(message)
            case "tool":
                for part in message.parts:
                    if isinstance(part, ToolResult):
                        self._result(part, message)
            case _:
                (self._between if self._pieces else self._out).append(message)

    def close(self) -> list[Message]:
        self._end()
        return self._out

    def _begin(self, message: Message) -> None:
        # Text without a call ends a turn; else it may come in pieces: parallel calls apart, or
        # thinking apart.
        if self._results or self._between or (self._said and not self._calls):
            self._end()
        parts: list[Part] = []
        for part in message.parts:
            if type(part) is ToolCall:
                part = self._called(part)
            elif type(part) is Text and not self._said:
                self._said = not part.is_blank
            parts.append(part)
        self._pieces.append(_kept(message, tuple(parts)))

    def _called(self, call: ToolCall) -> ToolCall:
        """The call, under an id that no other call of its turn has."""
        id = call.id
        if id in self._calls:
            while id in self._calls:  # the number only grows, so that this is linear
                self._renamed += 1
                id = f"{call.id[:200]}_again{self._renamed}"
            self._again.setdefault(call.id, deque()).append(id)
            self._warnings.append("history: repeated id of a tool call made unique")
            call = msgspec.structs.replace(call, id=id)
        self._calls[id] = None
        return call

    def _result(self, result: ToolResult, message: Message) -> None:
        id = result.call_id
        if id not in self._calls:
            if not self._pieces:
                self._warnings.append("history: orphan tool result dropped")
                return
            self._warnings.append("history: tool result without its call kept as text")
            self._between.append(Message("user", _shown(result, self._seen, self._warnings)))
            return
        if id in self._results:
            if again := self._again.get(id):
                id = again.popleft()
                result = msgspec.structs.replace(result, call_id=id)
                message = Message("tool", (result,))
            else:
                self._warnings.append("history: duplicate tool result dropped")
        if self._between:
            self._warnings.append("history: tool result moved to its call")
        self._results[id] = message if len(message.parts) == 1 else Message("tool", (result,))

    def _end(self) -> None:
        pieces = self._pieces
        if not pieces:
            return
        if self._calls or self._said:
            turn = pieces[0]
            if len(pieces) > 1:
                turn = Message("assistant", tuple([part for m in pieces for part in m.parts]))
            self._out.append(turn)
        else:
            self._warnings.append("history: assistant message of thinking only dropped")
        for id in self._calls:
            found = self._results.get(id)
            if found is None:
                self._warnings.append("history: missing tool result replaced by a note")
                found = Message("tool", (ToolResult(id, (Text(NO_RESULT),), is_error=True),))
            self._out.append(found)
        self._out += self._between
        self._pieces, self._said, self._calls, self._again = [], False, {}, {}
        self._results, self._between = {}, []


def _shown(result: ToolResult, seen: Collection[str], warnings: list[str]) -> tuple[Part, ...]:
    """A result as the text of a user, for a model that is not shown its call."""
    parts: list[Part] = [Text(_LOST_RESULT)]
    for part in result.parts:
        if type(part) is Media and part.kind not in seen:
            what = unreadable.name_of(part.kind)
            warnings.append(unreadable.warning_of(what))
            part = unreadable.note_of(what, part.cache)
        parts.append(Text(f"\n{part.text}", part.cache) if type(part) is Text else part)
    return tuple(parts)


def _without_calls(
    messages: list[Message], seen: Collection[str], warnings: list[str]
) -> list[Message]:
    """The messages with calls and results as text, for a model that has no tools."""
    out: list[Message] = []
    for message in messages:
        if message.role == "tool":
            parts = [
                p for r in message.parts if type(r) is ToolResult for p in _shown(r, seen, warnings)
            ]
            message = Message("user", tuple(parts))
        elif any(type(p) is ToolCall for p in message.parts):
            warnings.append("history: tool calls kept as text")
            said = [
                Text(f"[called {p.name}: {p.arguments}]") if type(p) is ToolCall else p
                for p in message.parts
            ]
            message = Message(message.role, tuple(said))
        out.append(message)
    return out


# --- system messages -----------------------------------------------------------------------------


def _one_system(messages: list[Message], warnings: list[str], *, cut: bool) -> list[Message]:
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
    """One text, a blank line between the messages; with `cut`, in pieces that keep cache marks."""
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


__all__ = ["repair"]
