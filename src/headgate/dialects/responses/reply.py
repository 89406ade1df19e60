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

from msgspec import UNSET, Raw

from headgate import jsontext
from headgate.chat import (
    Cited,
    Delta,
    Event,
    Finish,
    PartStart,
    PartStop,
    Reply,
    Request,
    Searched,
    Start,
    replay,
)
from headgate.dialects import compaction
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.fields import unwrapped
from headgate.dialects.responses.errors import error_out
from headgate.dialects.responses.frame import Frame
from headgate.dialects.responses.reply_wire import (
    Annotation,
    CallItem,
    CompactingEcho,
    CompactionItem,
    CustomItem,
    Item,
    MessageItem,
    OutputText,
    Piece,
    ReasoningItem,
    SearchItem,
    WebSearchItem,
)
from headgate.dialects.responses.upstream import flat
from headgate.errors import Failure

_Json = dict[str, object]

# --- replies ---------------------------------------------------------------------------------------


class ResponsesEncoder:
    """Each part is an item of its own.  Only the text of a delta is encoded anew."""

    def __init__(self, request: Request, facts: ReplyFacts, target: RequestTarget) -> None:
        self._frame = Frame(request, facts)
        self._tools = {t.name: t for t in request.tools}
        self._id = facts.id
        self.output: list[Item] = []
        self._sequence = 0
        self._started = False
        self.response = b""  # once it is finished
        self._part = PartStart("text")
        self._pieces: list[str] = []
        self._annotations: list[Annotation] = []  # of the open text
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
                    stated = jsontext.encode(text)
                    out += (self._opening, b"%d" % number, self._between, stated, self._closing)
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

    def _item_event(self, out: list[bytes], name: str, item: Item) -> None:
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
        item: Item
        match part.kind:
            case "text":
                self._item = f"msg_{self._id}_{number}"
                item = MessageItem(self._item)
            case "thinking":
                self._item = f"rs_{self._id}_{number}"
                item = ReasoningItem(self._item)
            case "tool_call":
                item = self._call("", "in_progress")
                self._item = item.id
        self._item_event(out, "added", item)
        self._opened = part.kind == "tool_call"
        if part.kind == "text":
            self._open_content(out)
        elif isinstance(item, CallItem):
            self._deltas("function_call_arguments")

    def _open_content(self, out: list[bytes]) -> None:
        """Announce the part inside the item: at once for text, with its first word for thinking."""
        self._opened = True
        if self._part.kind == "text":
            self._event(out, "content_part.added", content_index=0, part=OutputText(""))
            self._deltas("output_text", content_index=0)
        elif self._frame.echo.summarized:
            part = Piece("summary_text", "")
            self._event(out, "reasoning_summary_part.added", summary_index=0, part=part)
            self._deltas("reasoning_summary_text", summary_index=0)
        else:
            part = Piece("reasoning_text", "")
            self._event(out, "content_part.added", content_index=0, part=part)
            self._deltas("reasoning_text", content_index=0)

    def _stop(self, signature: str, out: list[bytes]) -> None:
        text = "".join(self._pieces)
        if self._summary is not None:
            if self._part.kind == "text":
                self._summary.append(text)
            return
        item: Item
        match self._part.kind:
            case "text":
                part = OutputText(text, annotations=tuple(self._annotations))
                self._event(out, "output_text.done", content_index=0, text=text, logprobs=())
                self._event(out, "content_part.done", content_index=0, part=part)
                item = MessageItem(self._item, (part,), "completed")
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
        item = CompactionItem(f"cmp_{self._id}", compaction.compacted(summary))
        self._item_event(out, "added", item)
        self._item_event(out, "done", item)
        self.output.append(item)

    def _cited(self, cited: Cited, out: list[bytes]) -> None:
        found = cited.found
        annotation = Annotation(cited.start, cited.end, found.title, found.url)
        place = {"content_index": 0, "annotation_index": len(self._annotations)}
        self._event(out, "output_text.annotation.added", **place, annotation=annotation)
        self._annotations.append(annotation)

    def _searched(self, searched: Searched, out: list[bytes]) -> None:
        """A search is an item of its own, with the pages that it found as its sources."""
        self._item = f"ws_{self._id}_{len(self.output)}"
        sources = [{"type": "url", "url": found.url} for found in searched.results]
        action: _Json = {"type": "search", "query": searched.query, "queries": [searched.query]}
        status = "failed" if searched.error else "completed"
        item = WebSearchItem(self._item, action, "in_progress")
        self._item_event(out, "added", item)
        for name in ("in_progress", "searching", "completed"):
            self._event(out, f"web_search_call.{name}")
        item = WebSearchItem(self._item, action | {"sources": sources}, status)
        self._item_event(out, "done", item)
        self.output.append(item)

    def _thought(self, text: str, signature: str, out: list[bytes]) -> ReasoningItem:
        sealed = signature or None
        if not text:
            return ReasoningItem(self._item, encrypted_content=sealed)
        if self._frame.echo.summarized:
            piece = Piece("summary_text", text)
            self._event(out, "reasoning_summary_text.done", summary_index=0, text=text)
            self._event(out, "reasoning_summary_part.done", summary_index=0, part=piece)
            return ReasoningItem(self._item, (piece,), encrypted_content=sealed)
        piece = Piece("reasoning_text", text)
        self._event(out, "reasoning_text.done", content_index=0, text=text)
        self._event(out, "content_part.done", content_index=0, part=piece)
        return ReasoningItem(self._item, (), (piece,), sealed)

    def _call(self, arguments: str, status: str) -> CallItem | CustomItem | SearchItem:
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
            return SearchItem(f"tsc_{self._id}_{number}", part.id, query, status)
        if tool is not None and tool.custom:
            id = f"ctc_{self._id}_{number}"
            return CustomItem(id, part.id, name, namespace, unwrapped(arguments), status)
        return CallItem(f"fc_{self._id}_{number}", part.id, name, namespace, arguments, status)

    def _called(self, arguments: str, out: list[bytes]) -> CallItem | CustomItem | SearchItem:
        # Codex runs a call as soon as its item is done, so one that was cut short must say so.
        item = self._call(arguments, "completed" if jsontext.is_object(arguments) else "incomplete")
        if isinstance(item, SearchItem):
            return item  # it has no events of its own
        if isinstance(item, CustomItem):
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
    return Frame(request, facts).finished(encoder.output, reply.finish)[1]
