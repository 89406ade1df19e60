"""Replies of OpenAI Responses, to clients: streamed and whole, and how they fail.

The only place for what those clients read, as `responses.py` is for what they send.  Sources as
there.  Errors with a status of their own are those of Chat Completions.

Note:
- the response repeats much of its request (`Echo`), three times in a stream, as OpenAI's does; only
  the last has the usage, and the cost;
- thinking is a summary where one was asked for, else the reasoning's `content`: clients that want
  one do not look at the other.  A signature is the `encrypted_content` of either;
- calls are given back in the client's words, not in those that the model was sent;
- Codex takes `response.failed` apart by its code, and waits as long as "try again in Ns" says.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from headgate import jsontext
from headgate.chat import (
    Cited,
    Delta,
    Event,
    Finish,
    FinishReason,
    PartStart,
    PartStop,
    Reply,
    Request,
    Searched,
    Start,
    Usage,
    replay,
)
from headgate.dialects import unknown
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.fields import unwrapped
from headgate.dialects.responses.errors import error_out
from headgate.dialects.responses.upstream import flat
from headgate.errors import Failure
from headgate.money import cost_out

_Json = dict[str, object]

# --- wire types ----------------------------------------------------------------------------------


class Echo(Struct, frozen=True):
    """What a reply repeats of its request, with OpenAI's own defaults for what was not said."""

    instructions: str | None = None
    tools: Sequence[Struct] = ()  # in the client's own words, as the choice
    tool_choice: str | Struct = "auto"
    parallel_tool_calls: bool = True
    temperature: float = 1.0
    top_p: float = 1.0
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    text: _Json = msgspec.field(default_factory=lambda: {"format": {"type": "text"}})
    reasoning: dict[str, str | None] = msgspec.field(
        default_factory=lambda: {"effort": None, "summary": None}
    )
    metadata: dict[str, str] = {}
    service_tier: str = "default"
    truncation: str = "disabled"
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    store: bool = False
    background: bool = False
    previous_response_id: str | None = None
    top_logprobs: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def summarized(self) -> bool:
        return self.reasoning.get("summary") not in (None, "none")


def storing(request: Request, previous: str, store: bool) -> Request:
    """The request whose reply says that it is stored, and after which response it comes."""
    assert isinstance(request.echo, Echo)
    echo = msgspec.structs.replace(request.echo, store=store, previous_response_id=previous or None)
    return msgspec.structs.replace(request, echo=echo)


class CompactingEcho(Echo, frozen=True):
    """That of a request whose reply is a summary of its conversation, as one item."""


class _Piece(Struct, frozen=True):
    type: str
    text: str


class _Annotation(Struct, frozen=True):
    start_index: int
    end_index: int
    title: str
    url: str
    type: str = "url_citation"


class _OutputText(Struct, frozen=True):
    text: str
    type: str = "output_text"
    annotations: tuple[_Annotation, ...] = ()
    logprobs: tuple[()] = ()


class _MessageItem(Struct, frozen=True):
    id: str
    content: tuple[_OutputText, ...] = ()
    status: str = "in_progress"
    type: str = "message"
    role: str = "assistant"


class _ReasoningItem(Struct, frozen=True):
    id: str
    summary: tuple[_Piece, ...] = ()
    content: tuple[_Piece, ...] | UnsetType = UNSET
    encrypted_content: str | None = None
    type: str = "reasoning"


class _CallItem(Struct, frozen=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str = ""
    status: str = "in_progress"
    type: str = "function_call"


class _CustomItem(Struct, frozen=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str = ""
    status: str = "in_progress"
    type: str = "custom_tool_call"


class _SearchItem(Struct, frozen=True):
    id: str
    call_id: str
    arguments: Raw = Raw(b"{}")
    status: str = "in_progress"
    execution: str = "client"
    type: str = "tool_search_call"


class _WebSearchItem(Struct, frozen=True):
    id: str
    action: _Json
    status: str = "completed"
    type: str = "web_search_call"


class _CompactionItem(Struct, frozen=True):
    id: str
    encrypted_content: str
    type: str = "compaction"


_Item = (
    _MessageItem
    | _ReasoningItem
    | _CallItem
    | _CustomItem
    | _SearchItem
    | _WebSearchItem
    | _CompactionItem
)


# --- replies ---------------------------------------------------------------------------------------

# reason: (status, incomplete_details.reason)
_FINISH_OUT: dict[FinishReason, tuple[str, str]] = {
    "stop": ("completed", ""),
    "stop_sequence": ("completed", ""),
    "tool_calls": ("completed", ""),
    "length": ("incomplete", "max_output_tokens"),
    "context_full": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}


def usage_out(usage: Usage, cost_nano: int | None) -> _Json:
    out: _Json = {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
    return out | cost_out(cost_nano)


class _Frame:
    """The response object around its output: what is the same each time is encoded once."""

    def __init__(self, request: Request, facts: ReplyFacts) -> None:
        self.echo = request.echo if isinstance(request.echo, Echo) else Echo()
        head: _Json = {"id": f"resp_{facts.id}", "object": "response", "created_at": facts.created}
        self._head = jsontext.encode({**head, "model": facts.model})[:-1] + b","
        self._tail = b"," + jsontext.encode(self.echo)[1:]

    def response(
        self,
        status: str,
        output: Sequence[_Item] = (),
        usage: _Json | None = None,
        incomplete: str = "",
        error: _Json | None = None,
    ) -> bytes:
        middle: _Json = {
            "status": status,
            "completed_at": None,  # no clock is read here, and nobody needs it
            "error": error,
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            "output": output,
            "usage": usage,
        }
        return self._head + jsontext.encode(middle)[1:-1] + self._tail

    def finished(self, output: list[_Item], finish: Finish) -> tuple[str, bytes]:
        """The status, and the response with it; the item that was cut short says so."""
        status, incomplete = _FINISH_OUT[finish.reason]
        if (
            incomplete
            and output
            and not isinstance(output[-1], _ReasoningItem | _WebSearchItem | _CompactionItem)
        ):
            output = [*output[:-1], msgspec.structs.replace(output[-1], status="incomplete")]
        usage = usage_out(finish.usage or Usage(), finish.cost_nano)
        return status, self.response(status, output, usage, incomplete)


class ResponsesEncoder:
    """Each part is an item of its own.  Only the text of a delta is encoded anew."""

    def __init__(self, request: Request, facts: ReplyFacts, target: RequestTarget) -> None:
        self._frame = _Frame(request, facts)
        self._tools = {t.name: t for t in request.tools}
        self._id = facts.id
        self.output: list[_Item] = []
        self._sequence = 0
        self._started = False
        self.response = b""  # once it is finished
        self._part = PartStart("text")
        self._pieces: list[str] = []
        self._annotations: list[_Annotation] = []  # of the open text
        self._summary: list[str] | None = None  # of a reply that is one compaction item
        if isinstance(request.echo, CompactingEcho):
            self._summary = []
        self._item = ""  # id of the open item
        self._opened = False  # its content part was announced
        # Around the number and the JSON text of a delta of the open part:
        self._opening = self._between = self._closing = b""

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:  # nearly all are, and `match` asks for its fields by name
                text = event.text
                self._pieces.append(text)
                if not text:
                    continue
                if not self._opened:
                    self._open_content(out)
                if self._opening:
                    number, self._sequence = self._sequence, self._sequence + 1
                    said = jsontext.encode(text)
                    out += (self._opening, b"%d" % number, self._between, said, self._closing)
                continue
            match event:
                case PartStart():
                    self._start(event, out)
                case PartStop(signature):
                    self._stop(signature, out)
                case Cited():
                    self._cited(event, out)
                case Searched():
                    self._searched(event, out)
                case Start():
                    self._begin(out)
                case Finish():
                    self.end(out)
                    status, self.response = self._frame.finished(self.output, event)
                    self._lifecycle(out, status, self.response)
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        out: list[bytes] = []
        if not self._started:
            # The SDKs' accumulators want `response.created` before anything else.
            self._begin(out)
        response = self._frame.response("failed", self.output, error=error_out(failure))
        self._lifecycle(out, "failed", response)
        return (b"".join(out),)

    # --- the frames ---

    def _begin(self, out: list[bytes]) -> None:
        self._started = True
        response = self._frame.response("in_progress")
        self._lifecycle(out, "created", response)
        self._lifecycle(out, "in_progress", response)

    def _lifecycle(self, out: list[bytes], name: str, response: bytes) -> None:
        self._write(out, f"response.{name}".encode(), b'"response":' + response)

    def _event(self, out: list[bytes], kind: str, **fields: object) -> None:
        """An event of the open item."""
        place = {"item_id": self._item, "output_index": len(self.output), **fields}
        self._write(out, f"response.{kind}".encode(), jsontext.encode(place)[1:-1])

    def _write(self, out: list[bytes], name: bytes, fields: bytes) -> None:
        number, self._sequence = self._sequence, self._sequence + 1
        head = b"event: %b\ndata: {" % name + b'"type":"%b","sequence_number":%d,' % (name, number)
        out += (head, fields, b"}\n\n")

    def _item_event(self, out: list[bytes], name: str, item: _Item) -> None:
        fields = {"output_index": len(self.output), "item": item}
        self._write(out, f"response.output_item.{name}".encode(), jsontext.encode(fields)[1:-1])

    def _deltas(self, name: str, **fields: object) -> None:
        place = {"item_id": self._item, "output_index": len(self.output), **fields}
        kind = f"response.{name}.delta".encode()
        self._opening = b"event: %b\ndata: {" % kind + b'"type":"%b","sequence_number":' % kind
        self._between = b"," + jsontext.encode(place)[1:-1] + b',"delta":'
        self._closing = b',"logprobs":[]}\n\n' if name == "output_text" else b"}\n\n"

    # --- the parts ---

    def _start(self, part: PartStart, out: list[bytes]) -> None:
        self._part, self._pieces, self._annotations = part, [], []
        self._opening = b""
        if self._summary is not None:
            self._opened = True  # nothing of it is shown but the item at its end
            return
        number = len(self.output)
        item: _Item
        match part.kind:
            case "text":
                self._item = f"msg_{self._id}_{number}"
                item = _MessageItem(self._item)
            case "thinking":
                self._item = f"rs_{self._id}_{number}"
                item = _ReasoningItem(self._item)
            case "tool_call":
                item = self._call("", "in_progress")
                self._item = item.id
        self._item_event(out, "added", item)
        self._opened = part.kind == "tool_call"
        if part.kind == "text":
            self._open_content(out)
        elif isinstance(item, _CallItem):
            self._deltas("function_call_arguments")

    def _open_content(self, out: list[bytes]) -> None:
        """Announce the part inside the item: at once for text, with its first word for thinking."""
        self._opened = True
        if self._part.kind == "text":
            self._event(out, "content_part.added", content_index=0, part=_OutputText(""))
            self._deltas("output_text", content_index=0)
        elif self._frame.echo.summarized:
            part = _Piece("summary_text", "")
            self._event(out, "reasoning_summary_part.added", summary_index=0, part=part)
            self._deltas("reasoning_summary_text", summary_index=0)
        else:
            part = _Piece("reasoning_text", "")
            self._event(out, "content_part.added", content_index=0, part=part)
            self._deltas("reasoning_text", content_index=0)

    def _stop(self, signature: str, out: list[bytes]) -> None:
        text = "".join(self._pieces)
        if self._summary is not None:
            if self._part.kind == "text":
                self._summary.append(text)
            return
        item: _Item
        match self._part.kind:
            case "text":
                part = _OutputText(text, annotations=tuple(self._annotations))
                self._event(out, "output_text.done", content_index=0, text=text, logprobs=())
                self._event(out, "content_part.done", content_index=0, part=part)
                item = _MessageItem(self._item, (part,), "completed")
            case "thinking":
                item = self._thought(text, signature, out)
            case "tool_call":
                item = self._called(text, out)
        self._item_event(out, "done", item)
        self.output.append(item)

    def end(self, out: list[bytes]) -> None:
        """The item of a reply that is a summary; nothing for any other."""
        if self._summary is None:
            return
        summary = "".join(self._summary).strip()
        item = _CompactionItem(f"cmp_{self._id}", unknown.compacted(summary))
        self._item_event(out, "added", item)
        self._item_event(out, "done", item)
        self.output.append(item)

    def _cited(self, cited: Cited, out: list[bytes]) -> None:
        found = cited.found
        annotation = _Annotation(cited.start, cited.end, found.title, found.url)
        place = {"content_index": 0, "annotation_index": len(self._annotations)}
        self._event(out, "output_text.annotation.added", **place, annotation=annotation)
        self._annotations.append(annotation)

    def _searched(self, searched: Searched, out: list[bytes]) -> None:
        """A search is an item of its own, with the pages that it found as its sources."""
        self._item = f"ws_{self._id}_{len(self.output)}"
        sources = [{"type": "url", "url": found.url} for found in searched.results]
        action: _Json = {"type": "search", "query": searched.query, "queries": [searched.query]}
        status = "failed" if searched.error else "completed"
        item = _WebSearchItem(self._item, action, "in_progress")
        self._item_event(out, "added", item)
        for name in ("in_progress", "searching", "completed"):
            self._event(out, f"web_search_call.{name}")
        item = _WebSearchItem(self._item, action | {"sources": sources}, status)
        self._item_event(out, "done", item)
        self.output.append(item)

    def _thought(self, text: str, signature: str, out: list[bytes]) -> _ReasoningItem:
        sealed = signature or None
        if not text:
            return _ReasoningItem(self._item, encrypted_content=sealed)
        if self._frame.echo.summarized:
            piece = _Piece("summary_text", text)
            self._event(out, "reasoning_summary_text.done", summary_index=0, text=text)
            self._event(out, "reasoning_summary_part.done", summary_index=0, part=piece)
            return _ReasoningItem(self._item, (piece,), encrypted_content=sealed)
        piece = _Piece("reasoning_text", text)
        self._event(out, "reasoning_text.done", content_index=0, text=text)
        self._event(out, "content_part.done", content_index=0, part=piece)
        return _ReasoningItem(self._item, (), (piece,), sealed)

    def _call(self, arguments: str, status: str) -> _CallItem | _CustomItem | _SearchItem:
        """The call in the client's own words: its namespace, and freeform where the tool is."""
        part, number = self._part, len(self.output)
        tool = self._tools.get(part.name)
        name, namespace = part.name, UNSET if tool is None or not tool.namespace else tool.namespace
        if namespace is not UNSET:
            name = name.removeprefix(flat(namespace, ""))
        if tool is not None and tool.search:
            query = Raw(
                jsontext.one_line(arguments.encode()) if jsontext.is_object(arguments) else b"{}"
            )
            return _SearchItem(f"tsc_{self._id}_{number}", part.id, query, status)
        if tool is not None and tool.custom:
            id = f"ctc_{self._id}_{number}"
            return _CustomItem(id, part.id, name, namespace, unwrapped(arguments), status)
        return _CallItem(f"fc_{self._id}_{number}", part.id, name, namespace, arguments, status)

    def _called(self, arguments: str, out: list[bytes]) -> _CallItem | _CustomItem | _SearchItem:
        # Codex runs a call as soon as its item is done, so one that was cut short must say so.
        item = self._call(arguments, "completed" if jsontext.is_object(arguments) else "incomplete")
        if isinstance(item, _SearchItem):
            return item  # it has no events of its own
        if isinstance(item, _CustomItem):
            if item.input:
                self._event(out, "custom_tool_call_input.delta", delta=item.input)
            self._event(out, "custom_tool_call_input.done", input=item.input)
        else:
            self._event(out, "function_call_arguments.done", name=item.name, arguments=arguments)
        return item


def reply_out(reply: Reply, request: Request, facts: ReplyFacts) -> bytes:
    """The body of a reply that is not streamed."""
    encoder = ResponsesEncoder(request, facts, RequestTarget())
    encoder.feed([e for e in replay(reply) if not isinstance(e, Start | Finish)])
    encoder.end([])
    return _Frame(request, facts).finished(encoder.output, reply.finish)[1]
