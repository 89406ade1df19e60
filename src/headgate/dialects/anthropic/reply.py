"""This module encodes replies of Anthropic Messages to clients: streamed, whole, and errors.

The only place for what those clients read, as `anthropic.py` is for what they send.  Sources as
there.

Note:
- the input's tokens stand in the first event, as an estimate where no upstream has told them by
  then, and once more in `message_delta`;
- the cost stands in `message_delta` alone: SDKs that add up a stream (anthropic 2.14,
  @anthropic-ai/sdk 1.14) show it in that event, and leave it out of the sum.
"""

from collections.abc import Iterator, Sequence

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
    ReplyPart,
    Request,
    Searched,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from headgate.dialects.anthropic.errors import error_out
from headgate.dialects.anthropic.upstream_request import call_out, wire_id
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.found import sealed
from headgate.errors import Failure
from headgate.money import cost_out
from headgate.stream import sse

_Json = dict[str, object]

_FINISH_OUT: dict[FinishReason, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "context_full": "model_context_window_exceeded",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

_UNKNOWN = ("cache_creation", "inference_geo", "server_tool_use", "service_tier")


def _usage(usage: Usage, cost_nano: int | None = None, searches: int = 0) -> _Json:
    out: _Json = {
        "input_tokens": max(0, usage.input - usage.cached - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        out["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if searches:
        out["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": 0}
    return out | cost_out(cost_nano)


def _ending(finish: Finish) -> _Json:
    return {
        "stop_reason": _FINISH_OUT[finish.reason],
        "stop_sequence": finish.stop_sequence or None,
    }


def _message_out(facts: ReplyFacts, usage: _Json) -> _Json:
    """A reply that has said nothing yet; each key stands where Anthropic puts it."""
    return {
        "id": f"msg_{facts.id}",
        "type": "message",
        "role": "assistant",
        "model": facts.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        # Strict checkers (llm-comply) ask for what Anthropic always sends, if only as null.
        "stop_details": None,
        "container": None,
        "usage": usage | {name: None for name in _UNKNOWN if name not in usage},
    }


def _block_out(part: Text | Thinking | ToolCall) -> _Json:
    match part:
        case Text(text):
            # `citations: null` breaks the AI SDK 6, none at all fails llm-comply
            citations = [_citation(cited) for cited in part.citations]
            return {"type": "text", "text": text, "citations": citations}
        case Thinking(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case ToolCall():
            return call_out(part) | _CALLER


_CALLER: _Json = {"caller": {"type": "direct"}}  # the model itself
_MAX_CITED = 150  # characters of a citation's text, as Anthropic cuts it


def _search_id(searched: Searched) -> str:
    return f"srvtoolu_{wire_id(searched.id)}"


def _search_out(searched: Searched) -> tuple[_Json, _Json]:
    """The call of a search and its result."""
    id = _search_id(searched)
    call: _Json = {"type": "server_tool_use", "id": id, "name": "web_search"}
    content: object = [
        {
            "type": "web_search_result",
            "title": found.title,
            "url": found.url,
            "encrypted_content": sealed(found.snippet),
            "page_age": found.age or None,
        }
        for found in searched.results
    ]
    if searched.error:
        content = {"type": "web_search_tool_result_error", "error_code": searched.error}
    result: _Json = {"type": "web_search_tool_result", "tool_use_id": id, "content": content}
    return call | {"input": {"query": searched.query}} | _CALLER, result | _CALLER


def _citation(cited: Cited) -> _Json:
    found = cited.found
    return {
        "type": "web_search_result_location",
        "url": found.url,
        "title": found.title,
        "encrypted_index": sealed(found.url),
        "cited_text": found.snippet[:_MAX_CITED],
    }


def _blocks_out(part: ReplyPart) -> tuple[_Json, ...]:
    return _search_out(part) if isinstance(part, Searched) else (_block_out(part),)


def count_out(tokens: int) -> bytes:
    """The answer to count_tokens."""
    return jsontext.encode({"input_tokens": tokens})


def reply_out(reply: Reply, request: Request, facts: ReplyFacts) -> bytes:
    """The body of a reply that is not streamed."""
    searches = sum(isinstance(part, Searched) for part in reply.parts)
    out = _message_out(facts, _usage(reply.usage, reply.cost_nano, searches))
    out["content"] = [block for part in reply.parts for block in _blocks_out(part)]
    return jsontext.encode(out | _ending(reply.finish))


def _frame(event: _Json) -> bytes:
    # The SDKs read the type from the line `event:` too.
    return sse.encode(jsontext.encode(event), str(event["type"]).encode())


_DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_call": (b"input_json_delta", b"partial_json"),
}


class AnthropicEncoder:
    """Only the text of a delta is encoded anew; the rest of its bytes are the same in a block."""

    def __init__(self, request: Request, facts: ReplyFacts, target: RequestTarget) -> None:
        self._facts = facts
        self._input = facts.input_estimate
        self._index = -1
        self._searches = 0
        self._opening = b""  # of a delta of the open block, up to its JSON text

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:  # nearly all are, and `match` asks for its fields by name
                out += (self._opening, jsontext.encode(event.text), b"}}\n\n")
                continue
            match event:
                case PartStart():
                    out.append(self._start(event))
                case PartStop(signature):
                    if signature:
                        out.append(self._signature(signature))
                    out.append(_frame({"type": "content_block_stop", "index": self._index}))
                case Cited():
                    out.append(
                        self._delta({"type": "citations_delta", "citation": _citation(event)})
                    )
                case Searched():
                    out += self._search(event)
                case Start():
                    self._input = event.input_tokens or self._input
                    message = _message_out(self._facts, _usage(Usage(self._input)))
                    out.append(_frame({"type": "message_start", "message": message}))
                case Finish():
                    usage = _usage(
                        event.usage or Usage(self._input), event.cost_nano, self._searches
                    )
                    ending: _Json = {"type": "message_delta", "delta": _ending(event)}
                    out.append(_frame(ending | {"usage": usage}))
                    out.append(_frame({"type": "message_stop"}))
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        return (_frame(error_out(failure, self._facts.id)),)

    def _start(self, part: PartStart) -> bytes:
        self._index += 1
        type_, field = _DELTAS[part.kind]
        self._opening = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (self._index, type_, field)
        )
        block: _Json = {"type": "text", "text": ""}
        if part.kind == "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif part.kind == "tool_call":
            block = {"type": "tool_use", "id": wire_id(part.id), "name": part.name, "input": {}}
        return _frame({"type": "content_block_start", "index": self._index, "content_block": block})

    def _search(self, searched: Searched) -> Iterator[bytes]:
        self._searches += 1
        call, result = _search_out(searched)
        query = jsontext.encode(call["input"]).decode()
        for block, piece in ((call | {"input": {}}, query), (result, "")):
            self._index += 1
            yield _frame(
                {"type": "content_block_start", "index": self._index, "content_block": block}
            )
            if piece:
                yield self._delta({"type": "input_json_delta", "partial_json": piece})
            yield _frame({"type": "content_block_stop", "index": self._index})

    def _signature(self, signature: str) -> bytes:
        return self._delta({"type": "signature_delta", "signature": signature})

    def _delta(self, delta: _Json) -> bytes:
        return _frame({"type": "content_block_delta", "index": self._index, "delta": delta})
