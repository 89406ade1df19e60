"""The hub: one model of a conversation, which every dialect is translated to and from.

This file is the only place for the words the rest of the code is written in: a `Request` of
`Message`s of `Part`s goes one way, a framed sequence of `Event`s comes back.  The grammar of a
reply, stated here, checked by `Grammar`, and tested over every dialect in tests/test_laws.py:

    reply := Start (PartStart (Delta | Cited)* PartStop | Searched)* Finish   the model answered
           | [Start] ... Failed                                              it did not

One part is open between PartStart and PartStop; nothing follows Finish or Failed.

Note: tool results are messages of their own (role "tool"), in the order of the
calls they answer, whatever the client's protocol does; `Usage.input` includes what was cached and
`Usage.output` includes reasoning, as OpenAI counts and Anthropic and Gemini do not.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import msgspec

from headgate.errors import Failure

_decode_string = msgspec.json.Decoder(str).decode
_QUOTE = ord('"')
_LONGEST_ESCAPE = 12  # of one character, a surrogate pair
# What begins a JSON string with something else than white space: ASCII but for quote and backslash.
_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b'"\\')


class Found(msgspec.Struct, frozen=True, gc=False):
    """One result of a web search."""

    url: str
    title: str
    snippet: str
    age: str = ""  # of the page, in the provider's words


class Cited(msgspec.Struct, frozen=True, gc=False):
    """The open text names a result of a search in its characters from `start` to `end`; an event too."""

    start: int
    end: int
    found: Found


class _Patterns(msgspec.StructMeta):
    """Structs whose positional patterns give what is decoded: `case Text(text)`, not its source."""

    @property
    def __match_args__(cls) -> tuple[str, ...]:  # type: ignore[override]  # a field of its base
        matched: tuple[str, ...] = cls.MATCHED  # type: ignore[attr-defined]  # both have it
        return matched


class Text(
    msgspec.Struct, frozen=True, gc=False, eq=False, repr_omit_defaults=True, metaclass=_Patterns
):
    """A text, which may still be the JSON string that it came as.

    JSON strings have one form in all protocols, so an encoder writes `source` as it is, and only
    what looks at the text decodes it, once.  `Raw` must be one valid JSON string.
    """

    MATCHED: ClassVar[tuple[str, ...]] = ("text", "cache")

    source: str | msgspec.Raw
    cache: str = (
        ""  # a cache breakpoint after this part: "", "5m" or "1h" (Anthropic's cache_control)
    )
    citations: tuple[Cited, ...] = ()  # of a reply that searched the web
    _decoded: str | None = None  # of a source that is JSON, once somebody has looked at it

    @property
    def text(self) -> str:
        source = self.source
        if isinstance(source, str):
            return source
        text = self._decoded
        if text is None:
            text = _decode_string(source)
            msgspec.structs.force_setattr(self, "_decoded", text)
        return text

    @property
    def is_empty(self) -> bool:
        source = self.source
        return not source if isinstance(source, str) else memoryview(source).nbytes == 2

    @property
    def is_blank(self) -> bool:
        """Whether it is empty or white space only."""
        source = self.source
        if not isinstance(source, str):
            first = memoryview(source)[1]
            if first in _PLAIN:  # decoded only where it may be blank
                return False
            source = self.text
        return not source or source.isspace()

    def head(self, size: int) -> str:
        """Return its first `size` characters; a long text is not decoded for them."""
        source = self.source
        if isinstance(source, str) or self._decoded is not None:
            return self.text[:size]
        # With room for escapes, which are longer than what they stand for.
        begin = bytes(memoryview(source)[: 1 + size + size // 4])
        for end in range(len(begin), max(size, _LONGEST_ESCAPE), -4):
            tail = begin[end - _LONGEST_ESCAPE : end]
            if tail.isascii() and b"\\" not in tail and b'"' not in tail:
                # What follows is not within an escape or a character, so the text may end here.
                head = _decode_string(begin[:end] + b'"')
                if len(head) >= size:
                    return head[:size]
                break
        return self.text[:size]

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is Text
            and self.text == other.text
            and self.cache == other.cache
            and self.citations == other.citations
        )

    def __hash__(self) -> int:
        return hash((self.text, self.cache))


class Media(msgspec.Struct, frozen=True, gc=False):
    """Holds a picture or a film, by value or by address; we never fetch the address ourselves."""

    kind: Literal["image", "video"]
    url: str = ""  # http(s); empty when `data` is given
    media_type: str = ""  # "image/png"; known only for `data`
    data: str = ""  # standard base64
    detail: str = ""  # OpenAI's low | high | auto; empty when not said
    cache: str = ""

    @property
    def address(self) -> str:
        """One URL for it, for wires that have a single field: its own, or a data URL."""
        return self.url or f"data:{self.media_type};base64,{self.data}"


class Thinking(msgspec.Struct, frozen=True, gc=False):
    text: str
    signature: str = (
        ""  # opaque: the upstream's own, or ours (reasoning/sealing.py); replayed unchanged
    )


class ToolCall(
    msgspec.Struct, frozen=True, gc=False, eq=False, repr_omit_defaults=True, metaclass=_Patterns
):
    """A call; its arguments may still be the JSON that they came as.

    `source` is the text of the arguments as the model wrote it, which may be invalid JSON; or, as
    `Raw`, the JSON string of that text (OpenAI's form), or else a valid JSON object
    (Anthropic's and Gemini's form).
    """

    MATCHED: ClassVar[tuple[str, ...]] = ("id", "name", "arguments", "cache")

    id: str
    name: str
    source: str | msgspec.Raw
    cache: str = ""
    _decoded: str | None = None  # the text of a source that is JSON, once somebody has looked at it

    @property
    def arguments(self) -> str:
        """Return the JSON text of the arguments as the model wrote it; it may be invalid."""
        source = self.source
        if isinstance(source, str):
            return source
        text = self._decoded
        if text is None:
            string = memoryview(source)[0] == _QUOTE
            text = _decode_string(source) if string else bytes(source).decode()
            msgspec.structs.force_setattr(self, "_decoded", text)
        return text

    @property
    def as_string(self) -> str | msgspec.Raw:
        """The arguments for wires that have them as a string: their text, or its JSON."""
        source = self.source
        if isinstance(source, str) or memoryview(source)[0] == _QUOTE:
            return source
        return self.arguments

    @property
    def as_object(self) -> msgspec.Raw | None:
        """The valid JSON object that the arguments came as, or None where they were a string."""
        source = self.source
        return None if isinstance(source, str) or memoryview(source)[0] == _QUOTE else source

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is ToolCall
            and (self.id, self.name, self.cache) == (other.id, other.name, other.cache)
            and self.arguments == other.arguments
        )

    def __hash__(self) -> int:
        return hash((self.id, self.name, self.arguments, self.cache))


class ToolResult(msgspec.Struct, frozen=True, gc=False):
    call_id: str
    parts: tuple[Text | Media, ...] = ()
    is_error: bool = False
    name: str = ""  # of the function; Gemini asks for it, others leave it out
    cache: str = ""


class Searched(msgspec.Struct, frozen=True, gc=False):
    """A web search that the gateway made for the model; of a reply, and an event of its own."""

    id: str  # of the call
    query: str
    results: tuple[Found, ...] = ()
    error: str = ""  # why there are none, in the words of Anthropic's error codes


Part = Text | Media | Thinking | ToolCall | ToolResult
Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """`system` and `tool` hold Text and ToolResult only; `user` Text and Media; `assistant` the rest."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(p.text for p in self.parts if type(p) is Text)

    @property
    def is_blank(self) -> bool:
        """Whether its texts are empty or white space only."""
        return all(p.is_blank for p in self.parts if type(p) is Text)


class Tool(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b'{"type":"object","properties":{}}')  # JSON Schema
    strict: bool = False
    custom: bool = (
        False  # a freeform tool of Responses, offered as a function with one string `input`
    )
    namespace: str = ""  # of Responses; `name` is then "namespace__name", so that it is unique
    cache: str = ""
    search: bool = False  # the tool search that a client of Responses executes itself


WEB_SEARCH = "web_search"  # the name of the tool that the gateway executes


class WebSearch(msgspec.Struct, frozen=True, gc=False):
    """A client's wish that the model may search the web, as it is served by the gateway."""

    forced: bool = False  # the model must search
    most: int | None = None  # searches in one reply; None: not said
    allowed: tuple[str, ...] = ()  # domains; empty: all
    blocked: tuple[str, ...] = ()


class Choice(msgspec.Struct, frozen=True, gc=False):
    """How freely the model may call tools: `named` means exactly the tool `name`."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""
    parallel: bool | None = None  # None: not said


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """Holds what the caller asked for; None and () where nothing was given."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """Whether the model shall think, and what the client shall see of it.

    `show` is "yes" (text), "omit" (an empty block that only carries the signature), "no", or
    "inline" (`<think>` tags in the text, for clients that sent `reasoning_split: false`).
    """

    mode: Literal["default", "on", "off"] = "default"
    show: Literal["yes", "omit", "no", "inline"] = "yes"
    effort: str = ""  # none, minimal, low, medium, high, xhigh, max; empty when not said
    budget_tokens: int | None = None  # Anthropic's and Gemini's; None when not said


class Format(msgspec.Struct, frozen=True):
    """Structured output: any JSON object, or one that fits `schema`."""

    kind: Literal["object", "schema"]
    name: str = ""
    schema: msgspec.Raw = msgspec.Raw(b"{}")
    strict: bool = False


class Preferences(msgspec.Struct, frozen=True):
    """Which of the operator's routes a caller prefers; names are in lower case (policy/preferences.py)."""

    sort: str = ""  # price, throughput, latency; "": the operator's order
    only: tuple[str, ...] | None = None  # names of upstreams; None: any
    ignore: tuple[str, ...] = ()
    regions: tuple[str, ...] | None = None  # of data; None: any


class Request(msgspec.Struct, frozen=True):
    model: str  # as the client wrote it
    messages: tuple[Message, ...]
    stream: bool = False
    want_usage: bool = True  # False only for OpenAI streams that did not ask
    tools: tuple[Tool, ...] = ()
    choice: Choice = Choice()
    sampling: Sampling = Sampling()
    reasoning: Reasoning = Reasoning()
    format: Format | None = None
    service_tier: str = ""
    session: str = ""  # the client's own id of its conversation: affinity and reports, never rights
    user: str = ""  # the end user that the client names: reports only
    tags: tuple[str, ...] = ()  # labels of the client's own: reports only
    warnings: tuple[str, ...] = ()  # fields that were ignored, repaired or emulated, so far
    search: WebSearch | None = None
    echo: object = None  # what the client's dialect must repeat in its reply; nobody else reads it
    preferences: Preferences | None = None  # for its routes; None: it names none

    def warn(self, *fields: str) -> "Request":
        if not fields:
            return self
        warnings = tuple(dict.fromkeys(self.warnings + fields))
        return msgspec.structs.replace(self, warnings=warnings)


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Counts the tokens of one exchange. `estimated` marks numbers that no upstream reported."""

    input: int = 0  # includes cached and cache_write
    output: int = 0  # includes reasoning
    cached: int = 0  # part of input
    cache_write: int = 0  # part of input
    reasoning: int = 0  # part of output
    estimated: bool = False


FinishReason = Literal[
    "stop", "stop_sequence", "length", "context_full", "tool_calls", "content_filter"
]


class Start(msgspec.Struct, frozen=True, gc=False):
    id: str = ""  # the upstream's own; the client is shown ours
    model: str = ""  # as the upstream named it
    input_tokens: int = 0  # when the upstream says it at once (Anthropic); else 0
    cached: int = 0  # part of them
    cache_write: int = 0  # part of them


class PartStart(msgspec.Struct, frozen=True, gc=False):
    kind: Literal["text", "thinking", "tool_call"]
    id: str = ""  # of a tool call
    name: str = ""  # of a tool call, whole


class Delta(msgspec.Struct, frozen=True, gc=False):
    text: str  # of the open part: text, thinking, or a piece of the arguments' JSON


class PartStop(msgspec.Struct, frozen=True, gc=False):
    signature: str = ""  # of a thinking part


class Finish(msgspec.Struct, frozen=True, gc=False):
    reason: FinishReason
    usage: Usage | None = None  # None: the upstream reported none
    stop_sequence: str = ""
    cost_nano: int | None = None  # nano-dollars that the client pays; None: not known, or not told


class Failed(msgspec.Struct, frozen=True, gc=False):
    failure: Failure
    usage: Usage | None = None  # what was spent before it failed, if reported


Event = Start | PartStart | Delta | Cited | PartStop | Searched | Finish | Failed
ReplyPart = Text | Thinking | ToolCall | Searched


class Reply(msgspec.Struct, frozen=True):
    """A whole reply: what `collect` makes of a sequence that ended in Finish."""

    parts: tuple[ReplyPart, ...]
    finish: Finish
    id: str = ""
    model: str = ""

    @property
    def usage(self) -> Usage:
        return self.finish.usage or Usage(estimated=True)

    @property
    def cost_nano(self) -> int | None:
        return self.finish.cost_nano


class BrokenGrammar(AssertionError):
    """A decoder or filter produced a sequence that is no reply: a bug of ours, never a peer's."""


class Grammar:
    """Checks the sequence of a reply, one event at a time."""

    def __init__(self) -> None:
        self.open: PartStart | None = None
        self.started = False
        self.ended = False

    def check(self, event: Event) -> None:
        kind = type(event)
        if self.ended:
            raise BrokenGrammar(f"{event!r} after the end")
        if kind is Start:
            wrong = self.started
            self.started = True
        elif kind is PartStart:
            wrong = not self.started or self.open is not None
            self.open = event  # type: ignore[assignment]  # narrowed by kind
        elif kind is Delta:
            wrong = self.open is None
        elif kind is Cited:
            wrong = self.open is None or self.open.kind != "text"
        elif kind is Searched:
            wrong = not self.started or self.open is not None
        elif kind is PartStop:
            wrong = self.open is None
            self.open = None
        elif kind is Finish:
            wrong = not self.started or self.open is not None
            self.ended = True
        else:
            wrong = False  # Failed may come at any time
            self.ended = True
        if wrong:
            raise BrokenGrammar(f"{event!r} out of place")


class Pieces:
    """A text that comes in pieces, held in little more memory than the text itself.

    Small strings cost fifty bytes each, so they are joined once there are many.
    """

    __slots__ = ("_joined", "_new")

    _MANY = 1024

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._new: list[str] = []

    def add(self, piece: str) -> None:
        new = self._new
        new.append(piece)
        if len(new) >= self._MANY:
            self._joined.append("".join(new))
            new.clear()

    def take(self) -> str:
        """Return the whole text; afterwards there is none."""
        text = "".join((*self._joined, *self._new))
        self._joined.clear()
        self._new.clear()
        return text


class Collector:
    """Puts a reply together from its events; `reply` is set after Finish, `failed` after Failed."""

    reply: Reply | None = None
    failed: Failed | None = None
    _start = Start()
    _open: PartStart | None = None

    def __init__(self) -> None:
        self.parts: list[ReplyPart] = []
        self._pieces = Pieces()
        self._cited: list[Cited] = []

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            if type(event) is Delta:  # nearly all are, and `match` asks each class in turn
                self._pieces.add(event.text)
                continue
            match event:
                case PartStart():
                    self._open = event
                case PartStop():
                    self._close(event.signature)
                case Cited():
                    self._cited.append(event)
                case Searched():
                    self.parts.append(event)
                case Start():
                    self._start = event
                case Finish():
                    self.reply = Reply(tuple(self.parts), event, self._start.id, self._start.model)
                case Failed():
                    if self._open is not None:
                        self._close("")
                    self.failed = event

    def _close(self, signature: str) -> None:
        assert self._open is not None
        text, part = self._pieces.take(), self._open
        self._open = None
        if part.kind == "text":
            self.parts.append(Text(text, citations=tuple(self._cited)))
            self._cited.clear()
        elif part.kind == "thinking":
            self.parts.append(Thinking(text, signature))
        else:
            self.parts.append(ToolCall(part.id, part.name, text))


def collect(events: Iterable[Event]) -> Reply | Failed:
    """Return the whole reply of a finished sequence, or its failure."""
    collector = Collector()
    collector.feed(events)
    if collector.failed is not None:
        return collector.failed
    if collector.reply is None:
        raise BrokenGrammar("the sequence has no end")
    return collector.reply


def replay(reply: Reply) -> Iterator[Event]:
    """The events of a whole reply, each part in one piece: collect(replay(r)) == r."""
    yield Start(reply.id, reply.model)
    for part in reply.parts:
        if isinstance(part, Searched):
            yield part
            continue
        citations: tuple[Cited, ...] = ()
        if isinstance(part, Text):
            yield PartStart("text")
            text, signature, citations = part.text, "", part.citations
        elif isinstance(part, Thinking):
            yield PartStart("thinking")
            text, signature = part.text, part.signature
        else:
            yield PartStart("tool_call", part.id, part.name)
            text, signature = part.arguments, ""
        if text:
            yield Delta(text)
        yield from citations
        yield PartStop(signature)
    yield reply.finish
