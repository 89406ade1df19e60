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

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from headgate import jsontext
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
from headgate.dialects import openai_api, vendor_errors
from headgate.dialects import usage as usages
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import Decoder
from headgate.dialects.openai import mending
from headgate.dialects.repeated import RepeatedChunk
from headgate.errors import Failure
from headgate.stream.thinking import CLOSE, ClosingTags, Steps, TagSplitter, tagged

_Json = dict[str, object]

# --- wire types: what upstreams get --------------------------------------------------------------


class _FunctionCall(Struct, frozen=True):
    name: str
    arguments: str | Raw


class WireCall(Struct, frozen=True):
    id: str
    function: _FunctionCall
    type: str = "function"


class WireDetail(Struct, frozen=True):
    text: str
    id: str
    index: int
    signature: str | UnsetType = UNSET
    type: str = "reasoning.text"
    format: str = "MiniMax-response-v1"


class _MessageOut(Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | Raw | list[_Json]
    tool_call_id: str | None = None
    reasoning_details: list[WireDetail] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[WireCall] | None = None


class _RequestOut(Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[_MessageOut]
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    tools: list[_Json] | None = None
    tool_choice: str | _Json | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Json | None = None
    reasoning_split: bool | None = None
    thinking: dict[str, str] | None = None
    chat_template_kwargs: dict[str, bool] | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None


# --- wire types: what upstreams answer, read with tolerance --------------------------------------


class DetailIn(Struct, frozen=True):
    text: str | None = None
    summary: str | None = None
    signature: str | None = None
    index: int | None = None


class _FunctionDelta(Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: str | _Json | None = None  # an object from some self-hosted parsers


class _CallDelta(Struct, frozen=True, gc=False):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None
    # Beside the id, as in Responses, where there is no `function`.
    name: str | None = None
    arguments: str | _Json | None = None


class _PieceIn(Struct, frozen=True):
    """A part of a content that is a list: text, or thinking, whose text may be a list again."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    thinking: "str | list[_PieceIn] | None" = None
    reasoning: str | None = None
    content: "str | list[_PieceIn] | None" = None
    summary: "str | list[_PieceIn] | None" = None


_Said = str | list[_PieceIn]


class _DeltaIn(Struct, frozen=True):
    content: _Said | None = None
    refusal: str | None = None
    reasoning_details: list[DetailIn] | None = None
    reasoning_content: _Said | None = None
    reasoning: _Said | None = None
    tool_calls: list[_CallDelta] | None = None
    function_call: _FunctionDelta | None = None  # of 2023


class _ChoiceDelta(Struct, frozen=True, gc=False):
    index: int | None = None
    delta: _DeltaIn | None = None
    message: _DeltaIn | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM: the stop sequence, or the id of a stop token


class _InputDetails(Struct, frozen=True, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct, frozen=True, gc=False):
    reasoning_tokens: int | None = None


class _UsageIn(Struct, frozen=True, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _ReplyIn(Struct, frozen=True, gc=False):
    """A chunk, or a whole reply: they differ in `delta` and `message` only."""

    id: str | None = None
    model: str | None = None
    choices: list[_ChoiceDelta] | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None
    output_sensitive: bool | None = None


_reply_decoder = msgspec.json.Decoder(_ReplyIn)
_decode_reply = _reply_decoder.decode
_usage_decoder = msgspec.json.Decoder(_UsageIn)


# --- requests: to upstreams ----------------------------------------------------------------------


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """The body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(_request(request, capabilities, model, stream))


def _request(request: Request, capabilities: Capabilities, model: str, stream: bool) -> _RequestOut:
    sampling, short = request.sampling, capabilities.max_tokens_field == "max_tokens"
    usage = stream and capabilities.stream_usage
    tier = request.service_tier if capabilities.service_tier else ""
    parallel = request.choice.parallel if request.tools and capabilities.parallel_switch else None
    thinking, template, effort = _switch(request.reasoning, capabilities)
    return _RequestOut(
        model=model,
        messages=_messages_out(request.messages, capabilities),
        stream=True if stream else None,
        stream_options={"include_usage": True} if usage else None,
        max_completion_tokens=None if short else sampling.max_tokens,
        max_tokens=sampling.max_tokens if short else None,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=sampling.stop or None,
        tools=[_tool_out(t) for t in request.tools] if request.tools else None,
        tool_choice=_choice_out(request.choice) if request.tools else None,
        parallel_tool_calls=parallel,
        response_format=_format_out(request.format) if request.format is not None else None,
        reasoning_split=True if capabilities.reasoning_split else None,
        thinking=thinking,
        chat_template_kwargs=template,
        reasoning_effort=effort,
        service_tier=tier or None,
    )


def _switch(
    reasoning: Reasoning, capabilities: Capabilities
) -> tuple[dict[str, str] | None, dict[str, bool] | None, str | None]:
    """`thinking`, `chat_template_kwargs` and `reasoning_effort`; the effort is one that is known here."""
    effort = reasoning.effort if capabilities.efforts and reasoning.effort != "none" else ""
    if reasoning.mode != "default":
        on = reasoning.mode == "on"
        match capabilities.thinking_switch:
            case "adaptive" if capabilities.thinking_off:
                # "enabled" would be 400 (2013); M2.x always thinks and is sent nothing.
                return {"type": "adaptive" if on else "disabled"}, None, effort or None
            case "template":
                # Templates disagree on the name; one they do not know does nothing.
                return None, {"enable_thinking": on, "thinking": on}, effort or None
            case "effort":
                return None, None, (reasoning.effort or "medium") if on else "none"
    return None, None, effort or None


def _tool_out(tool: Tool) -> _Json:
    function: _Json = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters  # missing: `function parameters is empty (2013)`
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice_out(choice: Choice) -> str | _Json | None:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return None if choice.mode == "auto" else choice.mode


def _format_out(format: Format | None) -> _Json | None:
    if format is None:
        return None
    if format.kind == "object":
        return {"type": "json_object"}
    schema: _Json = {"name": format.name or "reply", "schema": format.schema}
    if format.strict:
        schema["strict"] = True
    return {"type": "json_schema", "json_schema": schema}


def _messages_out(messages: Sequence[Message], capabilities: Capabilities) -> list[_MessageOut]:
    out: list[_MessageOut] = []
    attached: list[Media] = []  # media of tool results, shown after the run of tool messages
    for message in messages:
        if attached and message.role != "tool":
            out.append(_MessageOut("user", _content_out(attached)))
            attached = []
        match message.role:
            case "tool":
                for part in message.parts:
                    if isinstance(part, ToolResult):
                        out.append(_MessageOut("tool", openai_api.result_text(part), part.call_id))
                        if len(part.parts) > 1 or (part.parts and type(part.parts[0]) is Media):
                            attached += [p for p in part.parts if isinstance(p, Media)]
            case "assistant":
                out.append(_assistant_out(message, capabilities))
            case _ if len(message.parts) == 1 and type(one := message.parts[0]) is Text:
                out.append(_MessageOut(message.role, one.source))
            case _:
                said = [p for p in message.parts if isinstance(p, Text | Media)]
                out.append(_MessageOut(message.role, _content_out(said)))
    if attached:
        out.append(_MessageOut("user", _content_out(attached)))
    return out


def _content_out(parts: Sequence[Text | Media]) -> str | Raw | list[_Json]:
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].source
    out: list[_Json] = []
    for part in parts:
        if isinstance(part, Text):
            out.append({"type": "text", "text": part.source})
            continue
        name = f"{part.kind}_url"
        url = {"url": part.address}
        if part.detail:
            url["detail"] = part.detail
        out.append({"type": name, name: url})
    return out


def _assistant_out(message: Message, capabilities: Capabilities) -> _MessageOut:
    thoughts: list[Thinking] = []
    texts: list[Text] = []
    called: list[ToolCall] = []
    for part in message.parts:
        if isinstance(part, Text):
            texts.append(part)
        elif isinstance(part, ToolCall):
            called.append(part)
        elif isinstance(part, Thinking):
            thoughts.append(part)
    text = texts[0].source if len(texts) == 1 else "".join([t.text for t in texts])
    if not thoughts:
        return _MessageOut("assistant", text, tool_calls=calls(called) or None)
    thinking, form = "".join(t.text for t in thoughts), capabilities.reasoning_form
    return _MessageOut(
        "assistant",
        # null content beside tool calls is refused by MiniMax
        tagged(thinking) + "".join([t.text for t in texts])
        if form == "tags" and thinking
        else text,
        reasoning_details=(details(thoughts) or None) if form == "details" else None,
        reasoning_content=(thinking or None) if form == "reasoning_content" else None,
        reasoning=(thinking or None) if form == "reasoning" else None,
        tool_calls=calls(called) or None,
    )


def details(thoughts: Sequence[Thinking]) -> list[WireDetail]:
    said = [t for t in thoughts if t.text or t.signature]
    return [
        WireDetail(t.text, f"reasoning-text-{i + 1}", i, t.signature or UNSET)
        for i, t in enumerate(said)
    ]


def calls(parts: Sequence[Part]) -> list[WireCall]:
    """The calls among the parts of a message or of a reply."""
    return [
        WireCall(p.id, _FunctionCall(p.name, p.as_string)) for p in parts if type(p) is ToolCall
    ]


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


def _read(data: bytes) -> _ReplyIn:
    """Return a chunk or a whole reply of which something is not as it should be; ValueError."""
    try:
        return jsontext.decode_upstream(_reply_decoder, data, _ReplyIn)
    except ValueError:
        if (mended := mending.mended(data)) is None:
            raise
        return jsontext.decode_upstream(_reply_decoder, mended, _ReplyIn)


def _usage_in(raw: Raw) -> Usage | None:
    """None for zeros too: MiniMax puts them into chunks that know nothing yet."""
    wire = usages.read(raw, _usage_decoder, _UsageIn)
    if wire is None:
        return None
    read, written = wire.prompt_tokens_details, wire.completion_tokens_details
    return usages.usage_of(
        wire.prompt_tokens,
        wire.completion_tokens,
        read.cached_tokens if read else 0,
        read.cache_write_tokens if read else 0,
        written.reasoning_tokens if written else 0,
    )


def _text_alone(payload: bytes) -> str | None:
    """Return the text of a chunk that reports nothing but a text."""
    try:
        wire = _decode_reply(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if (
        vendor_errors.failure_within(wire.error, wire.base_resp) is not None
        or wire.output_sensitive
    ):
        return None
    choices = wire.choices or []
    if (wire.usage and _usage_in(wire.usage) is not None) or len(choices) != 1:
        return None
    choice = choices[0]
    delta = choice.delta
    if choice.index or choice.finish_reason or choice.message is not None or delta is None:
        return None
    if delta.tool_calls or delta.function_call or delta.reasoning_details:
        return None
    if delta.reasoning_content or delta.reasoning:
        return None
    return delta.content if isinstance(delta.content, str) else None


class OpenAIDecoder(Decoder):
    _steps: Steps | None = None  # of the thinking that is coming
    _detail: int | None = None  # the index of the detail that `_steps` follows
    _channel: _Channel = ""
    _said = False
    _reason: FinishReason | None = None
    _stop = ""
    _usage: Usage | None = None

    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._splitter = TagSplitter(capabilities.starts_thinking)
        self._closing = ClosingTags()  # of the thinking that `_steps` reads
        self._repeated = RepeatedChunk(b"content", _text_alone)

    def payload(self, payload: bytes) -> None:
        text = self._repeated.read(payload)
        if text and self._steps is None and self._splitter.plain(text):
            self._said = True
            self.framer.text(text)
            return
        if payload.startswith(b"[DONE]"):
            self.eof()
            if not self.framer.ended:
                self.framer.fail(jsontext.garbage("[DONE] without a finish_reason"), self._usage)
            return
        try:
            wire = _decode_reply(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not payload.strip():
                return
            wire = _read(payload)
        self._reply(wire)
        self._repeated.learn(payload)

    def whole(self, body: bytes) -> None:
        self._reply(_read(body))
        self.eof()
        if not self.framer.ended:
            self.framer.fail(jsontext.garbage("no finish_reason"), self._usage)

    def eof(self) -> None:
        if self._reason is not None and not self.framer.ended:
            self._settle()
            self.framer.finish(self._reason, self._usage, self._stop)

    def _reply(self, wire: _ReplyIn) -> None:
        usage = _usage_in(wire.usage) if wire.usage else None
        if usage is not None:
            self._usage = usage
        if (wire.error or wire.base_resp is not None) and (
            failure := vendor_errors.failure_within(wire.error, wire.base_resp)
        ) is not None:
            if self._said and failure.upstream_code == str(_WITHHELD):
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

    def _choice(self, wire: _ChoiceDelta) -> None:
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
                self._said = True
                self.framer.text(text)  # all that most chunks are
            else:
                self._delta(delta)
        if wire.message is not None and not self._said:
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

    def _delta(self, wire: _DeltaIn) -> None:
        if wire.reasoning_details or wire.reasoning_content or wire.reasoning:
            self._think(wire)
        content = wire.content or wire.refusal
        if isinstance(content, list):
            self._pieces(content)
        elif content:
            self._said = True
            self._text(*self._splitter.feed(content))
        if wire.tool_calls:
            self._said = True
            self._settle()
            for call in wire.tool_calls:
                self._call(call)
        elif wire.function_call is not None:
            self._said = True
            self._settle()
            self._call(_CallDelta(0, None, wire.function_call))

    def _pieces(self, pieces: list[_PieceIn]) -> None:
        """A content that is a list of parts (Mistral's, and servers that pass theirs on)."""
        for piece in pieces:
            thought = piece.thinking or piece.reasoning
            if thought is None and piece.type in _THINKING_PARTS:
                thought = piece.text or piece.content or piece.summary
            if thought:
                self._channel = self._channel or "field"
                self._said = True
                self._thought(_text_of(thought))
            elif text := piece.text or piece.refusal or _text_of(piece.content):
                self._said = True
                self._text(*self._splitter.feed(text))

    def _think(self, wire: _DeltaIn) -> None:
        for detail in wire.reasoning_details or ():
            text, signature = detail.text or detail.summary, detail.signature
            if not (text or signature) or self._channel not in ("", "details"):
                continue
            self._channel, self._said = "details", True
            if detail.index != self._detail:
                self._rest()
                self._detail = detail.index
            self._thought(text or "")
            if signature:
                self._rest()
                self.framer.signature(signature)
        text = _text_of(wire.reasoning_content or wire.reasoning)
        if text and self._channel in ("", "field"):
            self._channel, self._said = "field", True
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

    def _call(self, wire: _CallDelta) -> None:
        function = wire.function or _FunctionDelta(wire.name, wire.arguments)
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


def _text_of(said: _Said | None) -> str:
    """The text of a field that is a text or a list of parts."""
    if said is None or isinstance(said, str):
        return said or ""
    return "".join(p.text or _text_of(p.thinking or p.content) for p in said)


def _untailed(piece: str) -> str:
    """A closing tag that leaked out of the template into a reasoning field."""
    if piece.endswith(CLOSE):
        return piece[: piece.rindex("</")].removesuffix("\n")
    return piece
