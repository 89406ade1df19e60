"""OpenAI Chat Completions as MiniMax, vLLM, SGLang and OpenAI answer it: the upstream's side of the wire.

Requests to upstreams and replies from them; `openai.py` holds what clients send and get.  Sources,
read 2026-11: platform.minimax.io/docs "text-chat-openai", docs.vllm.ai and docs.sglang.ai (reasoning
outputs), MiniMax-M2 README (2025-10).

Note:
- an upstream may tell the same thinking twice, in tags and in a field: the first channel that
  said something is believed for the whole reply (`_Channel`);
- usage comes after `finish_reason`, so the end is held back until usage, [DONE] or the close;
- HTTP 200 may carry an error (`base_resp`), in a body or in a chunk.
"""

from typing import Literal

import msgspec
from msgspec import Raw

from headgate import jsontext
from headgate.chat import (
    FinishReason,
    Request,
    Usage,
)
from headgate.dialects import mended_replies, openai_api, upstream_json, vendor_errors
from headgate.dialects import usage as usages
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.decoder import Decoder
from headgate.dialects.openai import mending
from headgate.dialects.openai.upstream_request import wire_request
from headgate.dialects.openai.upstream_wire import (
    CallDelta,
    ChoiceDelta,
    DeltaIn,
    FunctionDelta,
    PieceIn,
    ReplyIn,
    Stated,
    UsageIn,
    decode_reply,
    reply_decoder,
    usage_decoder,
)
from headgate.dialects.repeated import RepeatedChunk
from headgate.errors import Failure
from headgate.stream.thinking import CLOSE, ClosingTags, Steps, TagSplitter

_Json = dict[str, object]

# --- requests: to upstreams ----------------------------------------------------------------------


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """Return the body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(wire_request(request, capabilities, model, stream))


# --- replies: from upstreams ---------------------------------------------------------------------

_FINISH_IN: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
# OpenRouter, vLLM and DeepSeek say so when their engine gave up; the text is not the whole answer.
_BROKEN = frozenset(("error", "abort", "insufficient_system_resource"))
_WITHHELD = 1027  # MiniMax: "output sensitive"
_Channel = Literal["", "details", "field", "tags"]


def _read(data: bytes) -> ReplyIn:
    """Return a chunk or a whole reply of which something is not as it should be; ValueError."""
    try:
        return upstream_json.decode(reply_decoder, data, ReplyIn)
    except ValueError:
        if (mended := mending.mended(data)) is None:
            raise
        return upstream_json.decode(reply_decoder, mended, ReplyIn)


def _usage_in(raw: Raw) -> Usage | None:
    """None for zeros too: MiniMax puts them into chunks that know nothing yet."""
    wire = usages.read(raw, usage_decoder, UsageIn)
    if wire is None:
        return None
    return openai_api.usage_of(
        wire.prompt_tokens,
        wire.completion_tokens,
        wire.prompt_tokens_details,
        wire.completion_tokens_details,
    )


def _text_alone(wire: ReplyIn) -> str | None:
    """Return the text of a chunk that reports nothing but a text."""
    choices = wire.choices or []
    delta = choices[0].delta if len(choices) == 1 else None
    if delta is None or not isinstance(delta.content, str) or not delta.content:
        return None  # as most chunks that are read whole: they come first here
    choice = choices[0]
    if choice.index or choice.finish_reason or choice.message is not None:
        return None
    if delta.tool_calls or delta.function_call or delta.reasoning_details:
        return None
    if delta.reasoning_content or delta.reasoning:
        return None
    if wire.output_sensitive or (wire.usage and _usage_in(wire.usage) is not None):
        return None
    if vendor_errors.failure_within(wire.error, wire.base_resp) is not None:
        return None
    return delta.content


def _text_in(payload: bytes) -> str | None:
    try:
        return _text_alone(decode_reply(payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class OpenAIDecoder(Decoder):
    _steps: Steps | None = None  # of the thinking that is coming
    _detail: int | None = None  # the index of the detail that `_steps` follows
    _channel: _Channel = ""
    _stated = False
    _reason: FinishReason | None = None
    _stop = ""
    _usage: Usage | None = None

    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._splitter = TagSplitter(capabilities.starts_thinking)
        self._closing = ClosingTags()  # of the thinking that `_steps` reads
        self._repeated = RepeatedChunk(b"content", _text_in)

    def payload(self, payload: bytes) -> None:
        text = self._repeated.read(payload)
        if text and self._steps is None and self._splitter.plain(text):
            self._stated = True
            self.framer.text(text)
            return
        if payload.startswith(b"[DONE]"):
            self.eof()
            if not self.framer.ended:
                self.framer.fail(jsontext.garbage("[DONE] without a finish_reason"), self._usage)
            return
        try:
            wire = decode_reply(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not payload.strip():
                return
            wire = _read(payload)
        self._reply(wire)
        if _text_alone(wire):
            self._repeated.learn(payload)

    def mended(self, body: bytes, whole: bool) -> bytes | None:
        # Chunks of a stream are mended where they are read.
        if not whole:
            return None
        return mended_replies.mended(body, mended_replies.openai_whole, mended_replies.OPENAI)

    def whole(self, body: bytes) -> None:
        self._reply(_read(body))
        self.eof()
        if not self.framer.ended:
            self.framer.fail(jsontext.garbage("no finish_reason"), self._usage)

    def eof(self) -> None:
        if self._reason is not None and not self.framer.ended:
            self._settle()
            self.framer.finish(self._reason, self._usage, self._stop)

    def _reply(self, wire: ReplyIn) -> None:
        usage = _usage_in(wire.usage) if wire.usage else None
        if usage is not None:
            self._usage = usage
        if (wire.error or wire.base_resp is not None) and (
            failure := vendor_errors.failure_within(wire.error, wire.base_resp)
        ) is not None:
            if self._stated and failure.upstream_code == str(_WITHHELD):
                self._reason = "content_filter"
                self.eof()
            else:
                self.framer.fail(failure, self._usage)
            return
        if not self.framer.started and (wire.choices or wire.id):
            self.framer.start(wire.id or "", wire.model or "")
        for choice in wire.choices or ():
            if not choice.index:  # one reply was asked for
                self._choice(choice)
        if wire.output_sensitive:
            self._reason = "content_filter"
        if self._reason is not None and usage is not None:
            self.eof()

    def _choice(self, wire: ChoiceDelta) -> None:
        delta = wire.delta
        if delta is not None:
            text = delta.content
            if (
                type(text) is str
                and text
                and self._splitter.plain(text)
                and self._steps is None
                and not (delta.tool_calls or delta.reasoning_details or delta.function_call)
                and not (delta.reasoning_content or delta.reasoning)
            ):
                self._stated = True
                self.framer.text(text)  # all that most chunks are
            else:
                self._delta(delta)
        if wire.message is not None and not self._stated:
            self._delta(wire.message)  # a last chunk may repeat what the deltas said
        reason = wire.finish_reason
        if reason and self._reason is None:
            reason = reason.lower()
            if reason in _BROKEN:
                failure = Failure("upstream", "The upstream broke off its reply.")
                self.framer.fail(failure, self._usage)
                return
            self._reason = _FINISH_IN.get(reason, "stop")
            if self._reason == "stop" and isinstance(wire.stop_reason, str):
                self._reason, self._stop = "stop_sequence", wire.stop_reason

    def _delta(self, wire: DeltaIn) -> None:
        if wire.reasoning_details or wire.reasoning_content or wire.reasoning:
            self._think(wire)
        content = wire.content or wire.refusal
        if isinstance(content, list):
            self._pieces(content)
        elif content:
            self._stated = True
            self._text(*self._splitter.feed(content))
        if wire.tool_calls:
            self._stated = True
            self._settle()
            for call in wire.tool_calls:
                self._call(call)
        elif wire.function_call is not None:
            self._stated = True
            self._settle()
            self._call(CallDelta(0, None, wire.function_call))

    def _pieces(self, pieces: list[PieceIn]) -> None:
        """A content that is a list of parts (Mistral's, and servers that pass theirs on)."""
        for piece in pieces:
            thought = piece.thinking or piece.reasoning
            if thought is None and piece.type in _THINKING_PARTS:
                thought = piece.text or piece.content or piece.summary
            if thought:
                self._channel = self._channel or "field"
                self._stated = True
                self._thought(_text_of(thought))
            elif text := piece.text or piece.refusal or _text_of(piece.content):
                self._stated = True
                self._text(*self._splitter.feed(text))

    def _think(self, wire: DeltaIn) -> None:
        for detail in wire.reasoning_details or ():
            text, signature = detail.text or detail.summary, detail.signature
            if not (text or signature) or self._channel not in ("", "details"):
                continue
            self._channel, self._stated = "details", True
            if detail.index != self._detail:
                self._rest()
                self._detail = detail.index
            self._thought(text or "")
            if signature:
                self._rest()
                self.framer.signature(signature)
        text = _text_of(wire.reasoning_content or wire.reasoning)
        if text and self._channel in ("", "field"):
            self._channel, self._stated = "field", True
            self._thought(text)

    def _thought(self, piece: str) -> None:
        if self._steps is None:
            self._steps = Steps()
            self._closing = ClosingTags()
        self.framer.thinking(self._closing.feed(self._steps.feed(_untailed(piece))))

    def _text(self, thinking: str, text: str) -> None:
        if thinking and self._channel in ("", "tags"):
            self._channel = "tags"
            self.framer.thinking(thinking)
        if text:
            if self._channel:
                self._rest()
            self.framer.text(text)

    def _call(self, wire: CallDelta) -> None:
        function = wire.function or FunctionDelta(wire.name, wire.arguments)
        arguments = function.arguments or ""
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        self.framer.call(wire.index, wire.id or "", function.name or "", arguments)

    def _rest(self) -> None:
        """Thinking that was held back; whatever comes next is not a step of it."""
        if self._steps is not None:
            rest = self._closing.feed(self._steps.close())
            self.framer.thinking(rest + self._closing.close())
            self._steps = None

    def _settle(self) -> None:
        """All that was held back."""
        self._rest()
        self._text(*self._splitter.close())


# Types of parts that hold thinking, in the words of several vendors.
_THINKING_PARTS = frozenset(
    ("thinking", "reasoning", "reasoning_text", "reasoning_content", "summary_text", "thought")
)


def _text_of(stated: Stated | None) -> str:
    """The text of a field that is a text or a list of parts."""
    if stated is None or isinstance(stated, str):
        return stated or ""
    return "".join(p.text or _text_of(p.thinking or p.content) for p in stated)


def _untailed(piece: str) -> str:
    """Return a closing tag that leaked out of the template into a reasoning field."""
    if piece.endswith(CLOSE):
        return piece[: piece.rindex("</")].removesuffix("\n")
    return piece
