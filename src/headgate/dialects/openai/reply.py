"""This module encodes replies of OpenAI Chat Completions to clients: streamed, whole, and errors.

The only place for what those clients read, as `openai.py` is for what they send.  Sources as there.
Note: a chunk is put together from bytes, as most of it is the same each time.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import UNSET, Raw

from headgate import jsontext
from headgate.chat import (
    Cited,
    Delta,
    Event,
    Finish,
    FinishReason,
    Found,
    PartStart,
    PartStop,
    Reply,
    ReplyPart,
    Request,
    Searched,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.fields import unwrapped
from headgate.dialects.openai.errors import event_out
from headgate.dialects.openai.reply_wire import (
    Annotation,
    Custom,
    CustomCall,
    ReplyChoice,
    ReplyMessage,
    ReplyOut,
    UrlCitation,
)
from headgate.dialects.openai.upstream_request import WireCall, calls, details
from headgate.errors import Failure
from headgate.money import dollars
from headgate.stream import sse

_Json = dict[str, object]


# --- replies: to clients -------------------------------------------------------------------------

_FINISH_OUT: dict[FinishReason, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "context_full": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def _usage(usage: Usage, cost_nano: int | None) -> bytes:
    """Return the usage as JSON."""
    cost = b"" if cost_nano is None else b',"cost":' + dollars(cost_nano).encode()
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":'
        b'{"cached_tokens":%d,"cache_write_tokens":%d},"completion_tokens_details":'
        b'{"reasoning_tokens":%d}%b}'
        % (
            usage.input,
            usage.output,
            usage.input + usage.output,
            usage.cached,
            usage.cache_write,
            usage.reasoning,
            cost,
        )
    )


def _calls(parts: Sequence[ToolCall], request: Request) -> list[WireCall | CustomCall]:
    """Calls as the client declared their tools: functions, or freeform ones."""
    custom = _custom_names(request)
    return [
        CustomCall(p.id, Custom(p.name, unwrapped(p.arguments)))
        if p.name in custom
        else calls([p])[0]
        for p in parts
    ]


def _custom_names(request: Request) -> frozenset[str]:
    return frozenset([t.name for t in request.tools if t.custom])


def reply_out(reply: Reply, request: Request, facts: ReplyFacts) -> bytes:
    """The body of a reply that is not streamed."""
    return jsontext.encode(_reply(reply, request, facts))


def _reply(reply: Reply, request: Request, facts: ReplyFacts) -> ReplyOut:
    if len(reply.parts) == 1 and type(one := reply.parts[0]) is Text and not one.citations:
        message = ReplyMessage(one.text)
    else:
        thoughts = [p for p in reply.parts if isinstance(p, Thinking)]
        text = "".join([p.text for p in reply.parts if isinstance(p, Text)])
        stated = _calls([p for p in reply.parts if isinstance(p, ToolCall)], request)
        message = ReplyMessage(
            content=None if stated and not text else text,
            reasoning_content="".join([t.text for t in thoughts]) or UNSET,
            reasoning_details=details(thoughts) or UNSET,
            tool_calls=stated or UNSET,
            annotations=_annotations(reply.parts),
        )
    return ReplyOut(
        id=f"chatcmpl-{facts.id}",
        object="chat.completion",
        created=facts.created,
        model=facts.model,
        choices=[ReplyChoice(message, _FINISH_OUT[reply.finish.reason])],
        usage=Raw(_usage(reply.usage, reply.cost_nano)),
    )


def _annotation(found: Found, start: int, end: int) -> Annotation:
    return Annotation(UrlCitation(start, end, found.title, found.url))


def _annotations(parts: Sequence[ReplyPart]) -> list[Annotation]:
    """Return what the text cites; where it cites nothing, all that was found stands at its end.

    This wire has no other place for the pages that a reply was written from.
    """
    out: list[Annotation] = []
    found: list[Found] = []
    size = 0
    for part in parts:
        if isinstance(part, Searched):
            found += part.results
        elif isinstance(part, Text):
            out += [_annotation(c.found, size + c.start, size + c.end) for c in part.citations]
            size += len(part.text)
    return out or [_annotation(result, size, size) for result in found]


class OpenAIEncoder:
    """Only the text of a chunk is encoded anew; the rest of its bytes are the same each time."""

    def __init__(self, request: Request, facts: ReplyFacts, target: RequestTarget) -> None:
        facts_json = jsontext.encode(
            {
                "id": f"chatcmpl-{facts.id}",
                "object": "chat.completion.chunk",
                "created": facts.created,
                "model": facts.model,
            }
        )
        self._head = b"data: " + facts_json[:-1]
        self._before = self._head + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]}\n\n'
        self._want_usage = request.want_usage
        self._open: Literal["text", "thinking", "tool_call", "custom"] = "text"
        self._custom = _custom_names(request) if request.tools else frozenset[str]()
        self._input: list[str] = []  # the arguments of an open freeform call
        self._thoughts = 0
        self._calls = 0
        self._searching = request.search is not None  # the reply may search the web
        self._found: list[Found] = []
        self._cited = False
        self._size = 0  # characters of the content of a reply that may search
        self._before_part = 0  # of them, those before the open part
        # Around the JSON text of a delta of the open part:
        self._opening = self._content = self._before + b'{"content":'
        self._closing = self._content_end = b"}" + self._after

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:  # nearly all are, and `match` asks for its fields by name
                if self._open == "custom":
                    self._input.append(event.text)
                elif self._open == "thinking":
                    out.append(self._thinking(jsontext.encode(event.text)))
                else:
                    out += (self._opening, jsontext.encode(event.text), self._closing)
                    if self._searching and self._open == "text":
                        self._size += len(event.text)
                continue
            match event:
                case PartStart():
                    self._before_part = self._size
                    out.append(self._start(event))
                case PartStop(signature):
                    if self._open == "custom":
                        out.append(self._freeform())
                    elif signature:
                        out.append(self._chunk(self._detail(b'""', signature)))
                case Cited(start, end, found):
                    self._cited = True
                    base = self._before_part
                    out.append(self._sources([_annotation(found, base + start, base + end)]))
                case Searched():
                    self._found += event.results
                case Start():
                    out.append(self._chunk(b'{"role":"assistant","content":""}'))
                case Finish():
                    out += self._finish(event)
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        return (sse.encode(jsontext.encode(event_out(failure))),)

    def _chunk(self, delta: bytes) -> bytes:
        return self._before + delta + self._after

    def _start(self, part: PartStart) -> bytes:
        self._open = part.kind
        if part.kind == "thinking":
            self._thoughts += 1
            return b""
        if part.kind == "text":
            self._opening, self._closing = self._content, self._content_end
            return b""
        index, self._calls = self._calls, self._calls + 1
        if part.name in self._custom:
            self._open = "custom"
            self._input.clear()
            custom = {"name": part.name, "input": ""}
            freeform = {"index": index, "id": part.id, "type": "custom", "custom": custom}
            return self._chunk(jsontext.encode({"tool_calls": [freeform]}))
        self._opening = (
            self._before + b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index
        )
        self._closing = b"}}]}" + self._after
        function = {"name": part.name, "arguments": ""}
        call = {"index": index, "id": part.id, "type": "function", "function": function}
        return self._chunk(jsontext.encode({"tool_calls": [call]}))

    def _freeform(self) -> bytes:
        """The input of a freeform call in one piece, as it is known once its wrapping is whole."""
        text = unwrapped("".join(self._input))
        call = {"index": self._calls - 1, "custom": {"input": text}}
        return self._chunk(jsontext.encode({"tool_calls": [call]}))

    def _thinking(self, stated: bytes) -> bytes:
        return self._chunk(b'{"reasoning_content":' + stated + b"," + self._detail(stated)[1:])

    def _detail(self, stated: bytes, signature: str = "") -> bytes:
        signed = b',"signature":' + jsontext.encode(signature) if signature else b""
        return (
            b'{"reasoning_details":[{"type":"reasoning.text","id":"reasoning-text-%d",'
            b'"format":"MiniMax-response-v1","index":%d,"text":'
            % (self._thoughts, self._thoughts - 1)
            + stated
            + signed
            + b"}]}"
        )

    def _sources(self, annotations: list[Annotation]) -> bytes:
        return self._chunk(jsontext.encode({"annotations": annotations}))

    def _finish(self, finish: Finish) -> Iterator[bytes]:
        if self._found and not self._cited:
            size = self._size
            yield self._sources([_annotation(found, size, size) for found in self._found])
        reason = _FINISH_OUT[finish.reason].encode()
        yield self._before + b'{},"logprobs":null,"finish_reason":"' + reason + b'"}]}\n\n'
        if self._want_usage:
            usage = _usage(finish.usage or Usage(), finish.cost_nano)
            yield self._head + b',"choices":[],"usage":' + usage + b"}\n\n"
        yield b"data: [DONE]\n\n"
