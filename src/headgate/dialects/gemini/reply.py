"""This module encodes replies of Gemini generateContent to clients: streamed, as an array, whole, and errors.

The only place for what those clients read, as `gemini.py` is for what they send.  Sources as there.

Note:
- a stream holds nothing but `data: ` lines: comments, `event:` lines and `[DONE]` each crash some
  SDK; without `alt=sse` it is one JSON array;
- a last chunk without text would make google-genai's chats forget the whole turn;
- calls are sent whole, and one whose arguments are no object shows in the reason alone;
- the cost stands in `usageMetadata`, streamed and whole: google-genai 1.0, 1.16 and 3.6 for Python
  drop what they do not know, @google/genai 2.32 shows it, none warns (measured 2026-11-25).

Needed by a client: a stream that fails ends with the error twice, as an event and then as a line
that is none (`{"error": ...}` without `data: `). @google/genai, the SDK of gemini-cli, raises an
error only on a chunk that is JSON by itself; readers of event streams take the event, and pass over
a line without a known field name, as the standard asks of them.
"""

from collections.abc import Sequence

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
    Request,
    Searched,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.gemini.errors import blocked_out, error_out
from headgate.dialects.gemini.signatures import encode_signature
from headgate.dialects.gemini.upstream_request import compact
from headgate.errors import Failure
from headgate.money import cost_out
from headgate.stream import sse

_Json = dict[str, object]

_FINISH_OUT: dict[FinishReason, str] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "length": "MAX_TOKENS",
    "context_full": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}
_MALFORMED = "MALFORMED_FUNCTION_CALL"


def _usage(usage: Usage, cost_nano: int | None) -> _Json:
    out: _Json = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(0, usage.output - usage.reasoning),
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cached:
        out["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        out["thoughtsTokenCount"] = usage.reasoning
    return out | cost_out(cost_nano)


def _text_out(text: str, signature: str = "") -> bytes:
    signed = _signed(signature) if signature else b""
    return b'{"text":' + jsontext.encode(text) + signed + b"}"


def _thought_out(text: str) -> bytes:
    return b'{"text":' + jsontext.encode(text) + b',"thought":true}'


def _call_out(call: ToolCall, signature: str) -> bytes | None:
    """The part of a whole call, or None when its arguments are no JSON object."""
    args = compact(call.arguments)
    if args is None:
        return None
    stated = jsontext.encode({"id": call.id, "name": call.name, "args": args})
    return b'{"functionCall":' + stated + (_signed(signature) if signature else b"") + b"}"


def _signed(signature: str) -> bytes:
    return b',"thoughtSignature":"' + encode_signature(signature).encode() + b'"'


class _Grounding:
    """What a reply says of the searches that it was written from (`groundingMetadata`)."""

    def __init__(self) -> None:
        self._queries: list[str] = []
        self._chunks: dict[str, tuple[int, _Json]] = {}  # by address: number and chunk
        self._supports: list[_Json] = []
        self._text: list[str] = []  # of the open text
        self._before = 0  # bytes of the texts before it

    def add(self, event: Event) -> None:
        match event:
            case Searched():
                self._queries.append(event.query)
                for found in event.results:
                    self._chunk(found)
            case Cited():
                self._cited(event)

    def say(self, text: str) -> None:
        self._text.append(text)

    def end_text(self) -> None:
        self._before += len("".join(self._text).encode())
        self._text.clear()

    def _chunk(self, found: Found) -> int:
        known = self._chunks.get(found.url)
        if known is None:
            web: _Json = {"uri": found.url, "title": found.title}
            known = self._chunks[found.url] = len(self._chunks), {"web": web}
        return known[0]

    def _cited(self, cited: Cited) -> None:
        """One sentence's support; Google's places are bytes of the whole text."""
        text = "".join(self._text)
        self._text = [text]
        start = max(text.rfind(". ", 0, cited.start) + 2, text.rfind("\n", 0, cited.start) + 1)
        start = 0 if start == 1 and not text.startswith("\n") else start
        stated = text[start : cited.start].rstrip()
        begins = self._before + len(text[:start].encode())
        segment: _Json = {
            "startIndex": begins,
            "endIndex": begins + len(stated.encode()),
            "text": stated,
        }
        number = self._chunk(cited.found)
        self._supports.append({"segment": segment, "groundingChunkIndices": [number]})

    def out(self) -> bytes:
        """Return the searches as a field of the candidate; empty when nothing was searched."""
        if not self._queries:
            return b""
        stated: _Json = {
            "webSearchQueries": self._queries,
            "groundingChunks": [chunk for _, chunk in self._chunks.values()],
            "groundingSupports": self._supports,
        }
        return b',"groundingMetadata":' + jsontext.encode(stated)


def _candidate(parts: Sequence[bytes], reason: str = "", more: bytes = b"") -> bytes:
    finish = b',"finishReason":"' + reason.encode() + b'"' if reason else b""
    head = b'{"candidates":[{"content":{"role":"model","parts":['
    return head + b",".join(parts) + b"]}" + finish + more + b',"index":0}]'


def _facts(facts: ReplyFacts) -> bytes:
    return b"," + jsontext.encode({"modelVersion": facts.model, "responseId": facts.id})[1:]


def count_out(tokens: int) -> bytes:
    """The answer to countTokens."""
    return jsontext.encode({"totalTokens": tokens})


def reply_out(reply: Reply, request: Request, facts: ReplyFacts) -> bytes:
    """The body of a reply that is not streamed."""
    parts: list[bytes] = []
    reason, signature = _FINISH_OUT[reply.finish.reason], ""
    grounding = _Grounding()
    for p in reply.parts:
        if isinstance(p, Searched):
            grounding.add(p)
            continue
        if isinstance(p, Text):
            grounding.say(p.text)
            for cited in p.citations:
                grounding.add(cited)
            grounding.end_text()
        if isinstance(p, Thinking):
            if signature:
                parts.append(_text_out("", signature))
            if p.text:
                parts.append(_thought_out(p.text))
            signature = p.signature
            continue
        part = _text_out(p.text, signature) if isinstance(p, Text) else _call_out(p, signature)
        if part is None:
            reason = (
                _MALFORMED if reason == "STOP" else reason
            )  # a cut call has its cause as reason
            continue
        signature = ""
        parts.append(part)
    if signature or not parts:
        parts.append(_text_out("", signature))
    usage = b',"usageMetadata":' + jsontext.encode(_usage(reply.usage, reply.cost_nano))
    return _candidate(parts, reason, grounding.out()) + usage + _facts(facts)


class GeminiEncoder:
    """Only the text of a chunk is encoded anew; the rest of its bytes are the same each time."""

    def __init__(self, request: Request, facts: ReplyFacts, target: RequestTarget) -> None:
        searching = request.search is not None  # the reply may search the web
        self._array = target.array
        self._facts = _facts(facts)
        self._id = facts.id
        self._next = b"[" if target.array else b"data: "
        self._part = PartStart("text")
        self._pieces: list[str] = []  # of a call's arguments: calls are sent whole
        self._signature = ""  # of thinking, for the next part that is none
        self._malformed = False
        self._reported = False  # something was sent
        self._grounding = _Grounding() if searching else None

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Delta:  # nearly all are, and `match` asks for its fields by name
                if self._part.kind == "text":
                    if self._grounding is not None:
                        self._grounding.say(event.text)
                    out.append(self._chunk(_text_out(event.text, self._take())))
                elif self._part.kind == "thinking":
                    out.append(self._chunk(_thought_out(event.text)))
                else:
                    self._pieces.append(event.text)
                continue
            match event:
                case PartStart(kind):
                    if kind == "thinking" and self._signature:
                        out.append(self._chunk(_text_out("", self._take())))
                    self._part, self._pieces = event, []
                case Searched() | Cited():
                    if self._grounding is not None:
                        self._grounding.add(event)
                case PartStop(signature):
                    if self._grounding is not None and self._part.kind == "text":
                        self._grounding.end_text()
                    if self._part.kind == "thinking":
                        self._signature = signature
                    elif self._part.kind == "tool_call":
                        out.append(self._call())
                case Finish():
                    out.append(self._finish(event))
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        """Two forms of events: gemini-cli's SDK raises only on the second, without `data: `."""
        if failure.kind == "blocked" and not self._reported:
            # The reply to a blocked prompt, in the form of a stream.
            last = self._next + jsontext.encode(blocked_out(self._id))
            return (last + (b"]" if self._array else b"\n\n"),)
        error = jsontext.encode(error_out(failure))
        if self._array:
            return (self._next + error + b"]",)
        return sse.encode(error), error + b"\n\n"

    def _take(self) -> str:
        signature, self._signature = self._signature, ""
        return signature

    def _chunk(self, part: bytes, reason: str = "", usage: bytes = b"", more: bytes = b"") -> bytes:
        text = self._next + _candidate((part,), reason, more) + usage + self._facts
        self._reported = True
        if not self._array:
            return text + b"\n\n"
        self._next = b"\n,\n"
        return text

    def _call(self) -> bytes:
        call = ToolCall(self._part.id, self._part.name, "".join(self._pieces))
        part = _call_out(call, self._signature)
        if part is None:
            self._malformed = True
            return b""
        self._signature = ""
        return self._chunk(part)

    def _finish(self, finish: Finish) -> bytes:
        reason = _FINISH_OUT[finish.reason]
        if self._malformed and reason == "STOP":
            reason = _MALFORMED  # a call that was cut short has its cause as reason instead
        reported = _usage(finish.usage or Usage(), finish.cost_nano)
        usage = b',"usageMetadata":' + jsontext.encode(reported)
        # With `parts: []`, google-genai's chats would call the turn invalid and forget it.
        more = self._grounding.out() if self._grounding is not None else b""
        last = self._chunk(_text_out("", self._take()), reason, usage, more)
        return last + b"]" if self._array else last
