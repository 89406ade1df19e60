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

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from headgate import jsontext
from headgate.bounds import MAX_COUNT, REPLY_PARTS, reply_too_large
from headgate.chat import (
    Choice,
    FinishReason,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from headgate.dialects import usage as usages
from headgate.dialects import vendor_errors
from headgate.dialects.capabilities import BUDGETS, Capabilities
from headgate.dialects.contract import Decoder
from headgate.dialects.repeated import RepeatedChunk

_Json = dict[str, object]

# --- wire types: what upstreams get --------------------------------------------------------------


class _MessageOut(Struct, frozen=True):
    role: str
    content: list[_Json]


class _RequestOut(Struct, frozen=True, omit_defaults=True):
    model: str
    max_tokens: int
    messages: list[_MessageOut]
    system: list[_Json] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] | None = None
    tools: list[_Json] | None = None
    tool_choice: _Json | None = None
    output_config: _Json | None = None
    thinking: _Json | None = None
    service_tier: str | None = None


# --- wire types: what upstreams answer, read with tolerance --------------------------------------


class _OutputDetails(Struct, frozen=True, gc=False):
    thinking_tokens: int | None = None


class _UsageIn(Struct, frozen=True, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _BlockIn(Struct, frozen=True, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"")


class _MessageIn(Struct, frozen=True, gc=False):
    """A whole reply, or the skeleton in message_start."""

    id: str | None = None
    model: str | None = None
    content: list[_BlockIn] | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    stop_reason: str | None = None
    stop_sequence: str | None = None
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


class _DeltaIn(Struct, frozen=True, gc=False):
    """Of a block (text, thinking, signature, partial_json) or of the message (stop_...)."""

    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _EventIn(Struct, frozen=True, gc=False):
    type: str = ""
    index: int | None = None
    message: _MessageIn | None = None
    content_block: _BlockIn | None = None
    delta: _DeltaIn | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


_event_decoder = msgspec.json.Decoder(_EventIn)
_usage_decoder = msgspec.json.Decoder(_UsageIn)
_message_decoder = msgspec.json.Decoder(_MessageIn)


# --- requests: to upstreams ----------------------------------------------------------------------

DEFAULT_MAX_TOKENS = 32000  # this protocol demands a number; what Claude Code itself sends
USUAL_BUDGET = BUDGETS["medium"]
MIN_BUDGET = 1024  # "must be >= 1024 and less than max_tokens" (extended thinking, 2026-11)
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """The body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(_request(request, capabilities, model, stream))


def _request(request: Request, capabilities: Capabilities, model: str, stream: bool) -> _RequestOut:
    sampling, messages = request.sampling, request.messages
    max_tokens = DEFAULT_MAX_TOKENS if sampling.max_tokens is None else sampling.max_tokens
    signed = capabilities.reasoning_form == "blocks"
    first = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    tier = request.service_tier if capabilities.service_tier else ""
    return _RequestOut(
        model=model,
        max_tokens=max_tokens,
        system=[b for m in messages[:first] for b in _blocks_out(m.parts, signed)] or None,
        messages=_messages_out(messages[first:], signed),
        stream=True if stream else None,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        stop_sequences=sampling.stop or None,
        tools=[_tool_out(t) for t in request.tools] or None,
        tool_choice=_choice_out(request.choice) if request.tools else None,
        output_config=_output_config(request, capabilities),
        thinking=_switch(request.reasoning, capabilities, max_tokens),
        service_tier=tier or None,
    )


def _output_config(request: Request, capabilities: Capabilities) -> _Json | None:
    out: _Json = dict(_format_out(request.format) or {})
    reasoning = request.reasoning
    if capabilities.efforts and reasoning.effort not in ("", "none") and reasoning.mode != "off":
        out["effort"] = reasoning.effort  # one of those that are known here
    return out or None


def _switch(reasoning: Reasoning, capabilities: Capabilities, max_tokens: int) -> _Json | None:
    """Said whenever it is known: what an upstream does unasked differs between models."""
    if reasoning.mode == "default":
        return None
    match capabilities.thinking_switch:
        case "adaptive":
            return {"type": "adaptive" if reasoning.mode == "on" else "disabled"}
        case "budget":
            if reasoning.mode == "off" or max_tokens <= MIN_BUDGET:
                return {"type": "disabled"}
            budget = reasoning.budget_tokens or BUDGETS.get(reasoning.effort, USUAL_BUDGET)
            budget = max(MIN_BUDGET, min(budget, max_tokens - 1))
            return {"type": "enabled", "budget_tokens": budget}
    return None


def _tool_out(tool: Tool) -> _Json:
    out: _Json = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["input_schema"] = tool.parameters
    if tool.strict:
        out["strict"] = True
    return _marked(out, tool.cache)


def _choice_out(choice: Choice) -> _Json | None:
    if choice.mode == "auto" and choice.parallel is None:
        return None
    out: _Json = {"type": _CHOICES[choice.mode]}
    if choice.mode == "named":
        out["name"] = choice.name
    if choice.parallel is not None and choice.mode != "none":
        out["disable_parallel_tool_use"] = not choice.parallel
    return out


def _format_out(format: Format | None) -> _Json | None:
    if format is None:
        return None
    schema: object = format.schema if format.kind == "schema" else {"type": "object"}
    return {"format": {"type": "json_schema", "schema": schema}}


def _messages_out(messages: Sequence[Message], signed: bool) -> list[_MessageOut]:
    """What follows the last result is sent in the same turn: roles must take turns."""
    out: list[_MessageOut] = []
    for message in messages:
        blocks = _blocks_out(message.parts, signed)
        role = "user" if message.role == "tool" else message.role
        if not blocks:
            continue  # a turn of thinking that this upstream is not shown
        if out and out[-1].role == role == "user":
            out[-1].content.extend(blocks)
        else:
            out.append(_MessageOut(role, blocks))
    return out


def _blocks_out(parts: Sequence[Part], signed: bool) -> list[_Json]:
    out: list[_Json] = []
    for part in parts:
        block = _block_out(part, signed)
        if block is not None:
            out.append(block)
        elif type(part) is Text and part.cache and out and out[-1]["type"] != "thinking":
            _marked(out[-1], part.cache)
    return out


def _block_out(part: Part, signed: bool) -> _Json | None:
    match part:
        case Text():
            # "text content blocks must be non-empty", "must contain non-whitespace text"
            if part.is_blank:
                return None
            return _marked({"type": "text", "text": part.source}, part.cache)
        case Media():
            source: _Json = {"type": "url", "url": part.url}
            if not part.url:
                source = {"type": "base64", "media_type": part.media_type, "data": part.data}
            # `video` is MiniMax's own kind of block
            return _marked({"type": part.kind, "source": source}, part.cache)
        case Thinking(text, signature):
            if not signed or not (text or signature):
                return None
            return {"type": "thinking", "thinking": text, "signature": signature}
        case ToolCall():
            return _marked(call_out(part), part.cache)
        case ToolResult():
            result: _Json = {"type": "tool_result", "tool_use_id": wire_id(part.call_id)}
            plain = len(part.parts) == 1 and part.parts[0]
            if isinstance(plain, Text) and not plain.cache:
                result["content"] = "" if plain.is_blank else plain.source
            else:
                result["content"] = _blocks_out(part.parts, signed) or ""
            if part.is_error:
                result["is_error"] = True
            return _marked(result, part.cache)


def _marked(block: _Json, cache: str) -> _Json:
    if cache == "5m":
        block["cache_control"] = {"type": "ephemeral"}
    elif cache:
        block["cache_control"] = {"type": "ephemeral", "ttl": cache}
    return block


def call_out(call: ToolCall) -> _Json:
    """The block of a call; arguments that are no JSON object are kept as text in one."""
    value: object = call.as_object
    if value is None:
        arguments = call.arguments
        value = {"_raw": arguments} if arguments.strip() else {}
        if jsontext.is_object(arguments):
            value = Raw(arguments.encode())
    return {"type": "tool_use", "id": wire_id(call.id), "name": call.name, "input": value}


_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def wire_id(id: str) -> str:
    """An id that this protocol takes (`^[a-zA-Z0-9_-]+$`): other characters as their code in hex."""
    if id.isascii() and id.replace("_", "").replace("-", "").isalnum():
        return id  # nearly always, and faster to see
    return _NOT_IN_IDS.sub(lambda found: f"_{ord(found[0]):x}_", id)


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
        self._told: set[str] = set()  # main counts that could be read
        self._doubted: set[str] = set()  # and those that could not

    def tell(self, raw: Raw) -> None:
        wire = usages.read(raw, _usage_decoder, _UsageIn) if raw else None
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
            self._told.add(name)
        elif count is not None and name not in self._told:
            self._doubted.add(name)

    @property
    def input(self) -> int:
        return min(self.fresh + self.written + self.read, MAX_COUNT)

    def usage(self) -> Usage | None:
        """None for zeros: an upstream that counts nothing has reported nothing."""
        if self._doubted - self._told:
            return None  # nobody knows it
        return usages.usage_of(self.input, self.output, self.read, self.written, self.thought)


def _delta_alone(payload: bytes) -> _DeltaIn | None:
    """Return the delta of an event that is one of a block."""
    try:
        wire = _event_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return wire.delta if wire.type == "content_block_delta" else None


def _text_alone(payload: bytes) -> str | None:
    """Return the text of an event that reports nothing else."""
    delta = _delta_alone(payload)
    return None if delta is None else delta.text


def _thinking_alone(payload: bytes) -> str | None:
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
        self._said = False
        self._reason: FinishReason | None = None
        self._stop = ""
        self._texts = RepeatedChunk(b"text", _text_alone)
        self._thoughts = RepeatedChunk(b"thinking", _thinking_alone)

    def payload(self, payload: bytes) -> None:
        if text := self._texts.read(payload):
            self._said = True
            self.say(text)
            return
        if text := self._thoughts.read(payload):
            self.framer.thinking(text)
            return
        if not payload.strip() or payload.startswith(b"[DONE]"):
            return
        wire = jsontext.decode_upstream(_event_decoder, payload, _EventIn)
        if wire.type == "content_block_delta" and wire.delta is not None:
            self._delta(wire.index or 0, wire.delta)
            self._texts.learn(payload)
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
                self._counts.tell(wire.message.usage)
                self.framer.start(
                    wire.message.id or "",
                    wire.message.model or "",
                    self._counts.input,
                    self._counts.read,
                    self._counts.written,
                )
            case "message_delta":
                self._counts.tell(wire.usage)
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

    def whole(self, body: bytes) -> None:
        wire = jsontext.decode_upstream(_message_decoder, body, _MessageIn)
        self._counts.tell(wire.usage)
        if self._failed(wire.error, wire.base_resp):
            return
        if wire.content is None:
            raise ValueError("no content")
        counts = self._counts
        self.framer.start(
            wire.id or "", wire.model or "", counts.input, counts.read, counts.written
        )
        for index, block in enumerate(wire.content):
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
        if self._said and failure.upstream_code == _WITHHELD:
            self._reason = "content_filter"
            self.eof()
        else:
            self.framer.fail(failure, self._counts.usage())
        return True

    def _finish(self, reason: str | None, sequence: str | None) -> None:
        if reason:
            self._reason = _FINISH_IN.get(reason, "stop")
            self._stop = (sequence or "") if self._reason == "stop_sequence" else ""

    def _begin(self, index: int, wire: _BlockIn) -> None:
        self._open.add(index)
        if len(self._open) > REPLY_PARTS.most:
            self.framer.fail(reply_too_large(REPLY_PARTS))
            return
        match wire.type:
            case "text":
                self._said = self._said or bool(wire.text)
                self.end_text()
                self.say(wire.text or "")
            case "thinking":
                self.end_text()
                self.framer.thinking(wire.thinking or "")
                if wire.signature:
                    self.framer.signature(wire.signature)
            case "tool_use":
                self._said = True
                self.end_text()
                self._calls.add(index)
                self.framer.call(index, wire.id or "", wire.name or "", "")
                if arguments := _arguments(wire.input):
                    self.framer.size += len(arguments)
                    self._inputs[index] = arguments

    def _delta(self, index: int, wire: _DeltaIn) -> None:
        if wire.text:
            self._said = True
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
