"""Anthropic Messages as MiniMax and Anthropic answer it: the upstream's side of the wire.

Requests to upstreams and replies from them; `anthropic.py` holds what clients send,
`anthropic_reply.py` what they get.  Sources, read 2026-11: MiniMax's OpenAPI of its Anthropic path
(M3 era), the types of the anthropic SDK 2.12, docs.claude.com "messages streaming" and "extended
thinking".

Note:
- input tokens here exclude what was cached or written to the cache, `chat.Usage` includes it;
- usage comes twice and is cumulative: MiniMax's start often says zero, others leave out at the end
  what did not change, and a gateway's start may be an estimate that its end corrects;
- a stream whose end lacks message_stop is whole when message_delta gave a stop_reason.

Known losses: `Format.name`, and the name of a tool on its results.
"""

import msgspec
from msgspec import Raw

from headgate import jsontext
from headgate.bounds import MAX_COUNT, REPLY_PARTS, reply_too_large
from headgate.chat import (
    FinishReason,
    Request,
    Usage,
)
from headgate.dialects import mended_replies, upstream_json, vendor_errors
from headgate.dialects import usage as usages
from headgate.dialects.anthropic.upstream_request import wire_request
from headgate.dialects.anthropic.upstream_wire import (
    BlockIn,
    DeltaIn,
    EventIn,
    MessageIn,
    UsageIn,
    event_decoder,
    message_decoder,
    usage_decoder,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.decoder import Decoder
from headgate.dialects.repeated import RepeatedChunk

_Json = dict[str, object]

# --- requests: to upstreams ----------------------------------------------------------------------


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """Return the body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(wire_request(request, capabilities, model, stream))


# --- replies: from upstreams ---------------------------------------------------------------------

_FINISH_IN: dict[str, FinishReason] = {
    "end_turn": "stop",
    "pause_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "context_full",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_WITHHELD = "1027"  # MiniMax: "output sensitive"


def _count(n: int | None) -> int:
    return n if n is not None and 0 <= n <= MAX_COUNT else 0


class _Counts:
    """Tokens as reported so far, by the start and then by the end of a reply."""

    def __init__(self) -> None:
        self.fresh = self.written = self.read = self.output = self.thought = 0
        self._reported: set[str] = set()  # main counts that could be read
        self._doubted: set[str] = set()  # and those that could not

    def add(self, raw: Raw) -> None:
        wire = usages.read(raw, usage_decoder, UsageIn) if raw else None
        if wire is None:
            return
        self._doubt("input", wire.input_tokens)
        self._doubt("output", wire.output_tokens)
        if _count(wire.input_tokens) or _count(wire.cache_read_input_tokens):
            # The later word on the input is the true one, field by field.  A larger number at the
            # start is no reason to keep it: it may be an estimate, or include what was cached.
            if wire.input_tokens is not None:
                self.fresh = _count(wire.input_tokens)
            if wire.cache_read_input_tokens is not None:
                self.read = _count(wire.cache_read_input_tokens)
        if wire.cache_creation_input_tokens is not None:
            self.written = _count(wire.cache_creation_input_tokens) or self.written
        self.output = max(self.output, _count(wire.output_tokens))  # cumulative: never the sum
        details = wire.output_tokens_details
        self.thought = max(self.thought, _count(details.thinking_tokens) if details else 0)

    def _doubt(self, name: str, count: int | None) -> None:
        if usages.known(count):
            self._reported.add(name)
        elif count is not None and name not in self._reported:
            self._doubted.add(name)

    @property
    def input(self) -> int:
        return min(self.fresh + self.written + self.read, MAX_COUNT)

    def usage(self) -> Usage | None:
        """None for zeros: an upstream that counts nothing has reported nothing."""
        if self._doubted - self._reported:
            return None  # nobody knows it
        return usages.usage_of(self.input, self.output, self.read, self.written, self.thought)


def _delta_alone(payload: bytes) -> DeltaIn | None:
    """Return the delta of an event that is one of a block."""
    try:
        wire = event_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return wire.delta if wire.type == "content_block_delta" else None


def _text_in(payload: bytes) -> str | None:
    """Return the text of an event that reports nothing else."""
    delta = _delta_alone(payload)
    return None if delta is None else delta.text


def _thinking_in(payload: bytes) -> str | None:
    """Return the thinking of an event that reports nothing else."""
    delta = _delta_alone(payload)
    return None if delta is None or delta.text or delta.partial_json else delta.thinking


class AnthropicDecoder(Decoder):
    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._counts = _Counts()
        self._open: set[int] = set()  # indices of blocks between start and stop
        self._calls: set[int] = set()  # indices of calls; the upstream's own tools are none
        self._inputs: dict[int, str] = {}  # arguments given whole at a block's start
        self._stated = False
        self._reason: FinishReason | None = None
        self._stop = ""
        self._texts = RepeatedChunk(b"text", _text_in)
        self._thoughts = RepeatedChunk(b"thinking", _thinking_in)

    def payload(self, payload: bytes) -> None:
        if text := self._texts.read(payload):
            self._stated = True
            self.say(text)
            return
        if text := self._thoughts.read(payload):
            self.framer.thinking(text)
            return
        if not payload.strip() or payload.startswith(b"[DONE]"):
            return
        wire = upstream_json.decode(event_decoder, payload, EventIn)
        if wire.type == "content_block_delta" and wire.delta is not None:
            self._delta(wire.index or 0, wire.delta)
            if wire.delta.text:
                self._texts.learn(payload)
            elif wire.delta.thinking:
                self._thoughts.learn(payload)
            return
        if self._failed(wire.error, wire.base_resp):
            return
        match wire.type:
            case "content_block_start" if wire.content_block is not None:
                self._begin(wire.index or 0, wire.content_block)
            case "content_block_stop":
                self._end(wire.index or 0)
            case "message_start" if wire.message is not None:
                self._counts.add(wire.message.usage)
                self.framer.start(
                    wire.message.id or "",
                    wire.message.model or "",
                    self._counts.input,
                    self._counts.read,
                    self._counts.written,
                )
            case "message_delta":
                self._counts.add(wire.usage)
                if wire.delta is not None:
                    self._finish(wire.delta.stop_reason, wire.delta.stop_sequence)
            case "message_stop":
                self.eof()
                if not self.framer.ended:
                    failure = jsontext.garbage("message_stop without a stop_reason")
                    self.framer.fail(failure, self._counts.usage())
            case "error":
                self.framer.fail(jsontext.garbage("an error without words"), self._counts.usage())
            # Others are passed over: pings, and whatever comes next month.

    def mended(self, body: bytes, whole: bool) -> bytes | None:
        return mended_replies.mended(body, mended_replies.anthropic, mended_replies.ANTHROPIC)

    def whole(self, body: bytes) -> None:
        wire = upstream_json.decode(message_decoder, body, MessageIn)
        self._counts.add(wire.usage)
        if self._failed(wire.error, wire.base_resp):
            return
        if wire.content is None and wire.stop_reason is None:
            raise ValueError("no content")
        counts = self._counts
        self.framer.start(
            wire.id or "", wire.model or "", counts.input, counts.read, counts.written
        )
        for index, block in enumerate(wire.content or ()):
            self._begin(index, block)
            self._end(index)
        self._finish(wire.stop_reason, wire.stop_sequence)
        self.eof()
        if not self.framer.ended:
            self.framer.fail(jsontext.garbage("no stop_reason"), self._counts.usage())

    def eof(self) -> None:
        if self._reason is not None:
            self.end_text()
            self.framer.finish(self._reason, self._counts.usage(), self._stop)

    def _failed(self, error: Raw, base: vendor_errors.BaseResp | None) -> bool:
        failure = vendor_errors.failure_within(error, base)
        if failure is None:
            return False
        if self._stated and failure.upstream_code == _WITHHELD:
            self._reason = "content_filter"
            self.eof()
        else:
            self.framer.fail(failure, self._counts.usage())
        return True

    def _finish(self, reason: str | None, sequence: str | None) -> None:
        if reason:
            self._reason = _FINISH_IN.get(reason, "stop")
            self._stop = (sequence or "") if self._reason == "stop_sequence" else ""

    def _begin(self, index: int, wire: BlockIn) -> None:
        self._open.add(index)
        if len(self._open) > REPLY_PARTS.most:
            self.framer.fail(reply_too_large(REPLY_PARTS))
            return
        match wire.type:
            case "text":
                self._stated = self._stated or bool(wire.text)
                self.end_text()
                self.say(wire.text or "")
            case "thinking" | "reasoning":
                self.end_text()
                self.framer.thinking(wire.thinking or wire.reasoning or wire.text or "")
                if wire.signature:
                    self.framer.signature(wire.signature)
            case "tool_use":
                self._stated = True
                self.end_text()
                self._calls.add(index)
                self.framer.call(index, wire.id or "", wire.name or "", "")
                if arguments := _arguments(wire.input):
                    self.framer.size += len(arguments)
                    self._inputs[index] = arguments

    def _delta(self, index: int, wire: DeltaIn) -> None:
        if wire.text:
            self._stated = True
            self.say(wire.text)
        elif wire.partial_json and (index in self._calls or index not in self._open):
            # Of a block that never began, they are the arguments of the call before it.
            if self._calls:
                self._inputs.pop(index, None)  # the deltas say it again
                self.framer.call(index, "", "", wire.partial_json)
        elif wire.thinking:
            self.framer.thinking(wire.thinking)
        elif wire.signature:
            self.framer.signature(wire.signature)

    def _end(self, index: int) -> None:
        if arguments := self._inputs.pop(index, ""):
            self.framer.call(index, "", "", arguments)
        self._open.discard(index)
        if self._tags is not None:
            self.end_text()
        if not self._open:  # else another block is still coming, and the framer waits for it
            self.framer.close_part()


def _arguments(raw: Raw) -> str:
    """The input of a call as JSON text; "" for an empty one, as every stream begins with."""
    if bytes(raw) in (b"", b"null", b"{}"):
        return ""
    if bytes(raw).startswith(b'"'):
        return msgspec.json.decode(raw, type=str)  # some servers leave it as the model wrote it
    return bytes(raw).decode()
