"""History rules: what a conversation must look like before any upstream will take it.

The only place that repairs or refuses a client's history.  It follows MiniMax's list of histories
that end in an opaque `2013` (chat verifier of platform.minimax.io; openclaw#19386, MiniMax-M2#51
and #76, pi#5468, read 2026-11) and the wording of the vendors' own refusals, as clients match it.
Where the meaning is clear we repair and say so in `Request.warnings`; where it is not we refuse in
the caller's words, before the upstream does it in none.

What will surprise:
- a call's results are looked for up to the next assistant turn, as ids may repeat in later turns;
- a result without its call is dropped only before the first assistant turn, where a client that
  cuts off the start of its history leaves one; anywhere else it is the client's mistake;
- a blank text is dropped, its cache mark moves to what stands before it;
- a last message of the assistant's is continued: by the upstream, or asked for in words;
- a turn that only thought is joined to the assistant turn that follows at once, else dropped:
  templates show the thinking of earlier turns to nobody, and MiniMax refuses empty content;
- a refusal names the list, not the place in it: the hub's messages are not numbered as the client's.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from headgate import jsontext
from headgate.chat import Media, Message, Part, Request, Text, Thinking, ToolCall, ToolResult
from headgate.dialects.capabilities import Capabilities
from headgate.errors import Refused, invalid


class _Words(msgspec.Struct, frozen=True):
    """How one protocol's own servers refuse; `{ids}` are the calls at fault."""

    param: str
    nothing: str
    missing: str
    unknown: str
    lone_system: bool = False  # whether a prompt may be all system


_OPENAI = _Words(
    "$.messages",
    "`messages` needs at least one message.",
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
    " 'tool_call_id'. The following tool_call_ids did not have response messages: {ids}",
    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with"
    " 'tool_calls'. These tool_call_ids were not called there: {ids}",
    lone_system=True,
)
_WORDS: dict[str, _Words] = {
    "openai": _OPENAI,
    "responses": _Words(
        "$.input",
        "`input` needs at least one item.",
        "No tool output found for function call {ids}.",
        "No tool call found for function call output with call_id {ids}.",
    ),
    "anthropic": _Words(
        "$.messages",
        "messages: at least one message is required",
        "`tool_use` ids were found without `tool_result` blocks immediately after: {ids}. Each"
        " `tool_use` block must have a corresponding `tool_result` block in the next message.",
        "unexpected `tool_use_id` found in `tool_result` blocks: {ids}. Each `tool_result` block"
        " must have a corresponding `tool_use` block in the previous message.",
    ),
    "gemini": _Words(
        "$.contents",
        "* GenerateContentRequest.contents: contents is not specified",
        "Please ensure that the number of function response parts is equal to the number of"
        " function call parts of the function call turn. Without a response: {ids}",
        "Please ensure that function response turn comes immediately after a function call turn."
        " Without a call there: {ids}",
    ),
}


# What stands for a prefill where the upstream has none.
CONTINUE = (
    "Continue your last message exactly where it stopped. Do not repeat any of it, and do not"
    " comment on the interruption."
)


def repair(request: Request, capabilities: Capabilities, dialect: str) -> Request:
    """The request with a history that the upstream takes, or Refused in the dialect's words.

    Gives back the same messages when there was nothing to do; repairing twice changes nothing.
    """
    if _sound(request.messages, capabilities):
        return request
    words = _WORDS.get(dialect, _OPENAI)
    warnings: list[str] = []
    messages = _spoken(request.messages, words, warnings)
    turns = _Turns(words, warnings)
    for message in messages:
        turns.add(message)
    messages = turns.close()
    if not capabilities.multi_system:
        # Of the wires without room for more than one, only the one of blocks has cache marks.
        messages = _one_system(messages, warnings, cut=capabilities.reasoning_form == "blocks")
    if all(m.role == "system" for m in messages):
        raise invalid(words.nothing, words.param)
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
            for part in parts:
                if type(part) is ToolCall:
                    if not jsontext.is_object(part.arguments):
                        return False
                elif type(part) is Text:
                    if not part.text:
                        return False
                elif type(part) is not Thinking or not (part.text or part.signature):
                    return False
        elif role == "tool" or not message.text.strip() or last not in ("", more):
            return False
        last = role
    return not waiting and last in ("user", "tool")


def _said(parts: Sequence[Part]) -> bool:
    """Whether there is text or media, and no text that is blank."""
    said = False
    for part in parts:
        if type(part) is Text:
            if not part.text or part.text.isspace():
                return False
            said = True
        elif type(part) is Media:
            said = True
    return said


# --- single messages -----------------------------------------------------------------------------


def _spoken(messages: Iterable[Message], words: _Words, warnings: list[str]) -> list[Message]:
    """The messages that say something, each valid by itself."""
    out: list[Message] = []
    empty = False
    for message in messages:
        match message.role:
            case "system":
                if message.text.strip():
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
            "A user message is empty: user messages must have non-empty content.", words.param
        )
    if out and words.lone_system and all(m.role == "system" for m in out):
        # OpenAI answers such a prompt; an upstream of another kind cannot even be sent it.
        out[-1] = Message("user", out[-1].parts)
        warnings.append("history: lone system message sent as user message")
    return out


def _user(message: Message, before: list[Message]) -> Message:
    """Without blank texts, which vendors refuse; their cache marks stay, on what stands before."""
    parts: list[Part] = []
    for part in message.parts:
        if type(part) is not Text or not (not part.text or part.text.isspace()):
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
            case Text(text) if not text:
                pass
            case Thinking("", ""):
                pass
            case _:
                parts.append(part)
    if all(type(p) is Text and not p.text.strip() for p in parts):
        parts = []
    return _kept(message, tuple(parts))


def _call(call: ToolCall, warnings: list[str]) -> ToolCall:
    arguments = call.arguments
    if not arguments.strip() or arguments.strip() == "null":
        return msgspec.structs.replace(call, arguments="{}")  # a tool without parameters
    if jsontext.is_object(arguments):
        return call
    if "\\u" in arguments:
        whole = jsontext.without_lone_surrogates(arguments.encode()).decode()
        if whole != arguments and jsontext.is_object(whole):
            warnings.append("history: lone surrogates in arguments replaced")
            return msgspec.structs.replace(call, arguments=whole)
    once = jsontext.decoded_once(arguments)
    if once is not None:
        warnings.append("history: arguments encoded twice decoded")
        return msgspec.structs.replace(call, arguments=once)
    # Cut short or miswritten by the model.  Closing the braces would make it say something that
    # it did not; wrapped, it reads as the failed call it was (MiniMax answers 2013 to the bare one).
    warnings.append("history: invalid JSON arguments wrapped")
    return msgspec.structs.replace(call, arguments=jsontext.encode({"_raw": arguments}).decode())


def _kept(message: Message, parts: tuple[Part, ...]) -> Message:
    return message if parts == message.parts else Message(message.role, parts)


# --- turns: calls and their results --------------------------------------------------------------


class _Turns:
    """Puts results directly after the turn that called, in the order of its calls."""

    def __init__(self, words: _Words, warnings: list[str]) -> None:
        self._words = words
        self._warnings = warnings
        self._out: list[Message] = []
        # Of the assistant turn whose results are looked for:
        self._pieces: list[Message] = []  # the messages that it came in; none before the first turn
        self._calls: dict[str, None] = {}  # ids, in their order
        self._said = False  # text that is more than blank
        self._results: dict[str, Message] = {}
        self._between: list[Message] = []  # what else was said since that turn

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
        self._pieces.append(message)
        twice: list[str] = []
        for part in message.parts:
            if type(part) is ToolCall:
                if part.id in self._calls:
                    twice.append(part.id)
                self._calls[part.id] = None
            elif type(part) is Text and not self._said:
                self._said = bool(part.text.strip())
        if twice:
            raise invalid(
                f"The ids of tool calls must be unique within a turn: {_listed(twice)}.",
                self._words.param,
            )

    def _result(self, result: ToolResult, message: Message) -> None:
        id = result.call_id
        if id not in self._calls:
            if not self._pieces:
                self._warnings.append("history: orphan tool result dropped")
                return
            raise self._refusal(self._words.unknown, [id])
        if id in self._results:
            self._warnings.append("history: duplicate tool result dropped")
        if self._between:
            self._warnings.append("history: tool result moved to its call")
        self._results[id] = message if len(message.parts) == 1 else Message("tool", (result,))

    def _end(self) -> None:
        pieces = self._pieces
        if not pieces:
            return
        missing = [id for id in self._calls if id not in self._results]
        if missing:
            raise self._refusal(self._words.missing, missing)
        if self._calls or self._said:
            turn = pieces[0]
            if len(pieces) > 1:
                turn = Message("assistant", tuple([part for m in pieces for part in m.parts]))
            self._out.append(turn)
        else:
            self._warnings.append("history: assistant message of thinking only dropped")
        self._out += [self._results[id] for id in self._calls]
        self._out += self._between
        self._pieces, self._said, self._calls = [], False, {}
        self._results, self._between = {}, []

    def _refusal(self, message: str, ids: list[str]) -> Refused:
        return invalid(message.format(ids=_listed(ids)), self._words.param)


def _listed(ids: list[str]) -> str:
    """A few of the ids, each bounded: they are the client's, and go into a message and the log."""
    shown = ", ".join(id[:64] for id in ids[:8])
    return f"{shown}, and {len(ids) - 8} more" if len(ids) > 8 else shown


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
        first = msgspec.structs.replace(first, text=f"{reminder}\n\n{first.text}")
        return Message("user", (first, *user.parts[1:]))
    return Message("user", (Text(reminder), *user.parts))


def _after(reminder: str, messages: list[Message]) -> None:
    """At the end of the user's message just before, or as a user's message of its own."""
    if not messages or messages[-1].role != "user":
        messages.append(Message("user", (Text(reminder),)))
        return
    *parts, last = messages[-1].parts
    if isinstance(last, Text):
        last = msgspec.structs.replace(last, text=f"{last.text}\n\n{reminder}")
        messages[-1] = Message("user", (*parts, last))
    else:
        messages[-1] = Message("user", (*parts, last, Text(reminder)))


__all__ = ["repair"]
