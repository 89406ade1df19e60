"""OpenAI Chat Completions: the wire most clients speak, and MiniMax's own main one.

The only place for its words.  Sources, read 2026-11: developers.openai.com/api/reference (types of
openai 3.54), platform.minimax.io/docs "text-chat-openai" and "errorcode", docs.vllm.ai and
docs.sglang.ai (reasoning outputs), MiniMax-M2 README (2025-10).

`openai_upstream.py` holds the other side, what upstreams get and send.  What will surprise:
thinking has no place in OpenAI's types; MiniMax's `reasoning_details` and DeepSeek's
`reasoning_content` are both written, and every known form is read.

Known losses: this wire has no `is_error` (it becomes "Error: ..."), no cache breakpoints, and no
order between text and tool calls; halves of a surrogate pair in two chunks become U+FFFD.
"""

import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from headgate.chat import (
    Choice,
    Delta,
    Event,
    Finish,
    FinishReason,
    Format,
    Media,
    Message,
    PartStart,
    PartStop,
    Reasoning,
    Reply,
    Request,
    Sampling,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from headgate.errors import STATUS, Failure, Kind, invalid, unsupported
from headgate.wire import jsontext, sse, vendor
from headgate.wire.bounds import given
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target
from headgate.wire.money import dollars
from headgate.wire.openai_upstream import (
    DetailIn,
    OpenAIDecoder,
    WireCall,
    WireDetail,
    calls,
    details,
    request_out,
)
from headgate.wire.thinking import untagged

# --- wire types: what clients send ---------------------------------------------------------------

_MAX_STOPS = 4  # "Up to 4 sequences" (OpenAI reference)
_NOTHING = Raw(b"")
_Json = dict[str, object]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]


class _Url(Struct, frozen=True):
    url: str
    detail: str | None = None


class _PartIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _Url | str | None = None  # a bare string is common among clients of vLLM
    video_url: _Url | str | None = None


class _FunctionCallIn(Struct, frozen=True):
    name: str
    arguments: str = ""


class _ToolCallIn(Struct, frozen=True):
    id: str
    type: str = "function"
    function: _FunctionCallIn | None = None


class _MessageIn(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_PartIn] | None = None
    name: str | None = None
    tool_calls: list[_ToolCallIn] | None = None
    tool_call_id: str | None = None
    reasoning_details: list[DetailIn] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: Raw = _NOTHING


class _FunctionIn(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Raw = _NOTHING
    strict: bool | None = None


class _ToolIn(Struct, frozen=True):
    type: str = "function"
    function: _FunctionIn | None = None


class _Named(Struct, frozen=True):
    name: str


class _AllowedTool(Struct, frozen=True):
    type: str = "function"
    function: _Named | None = None


class _Allowed(Struct, frozen=True):
    mode: Literal["auto", "required"] = "auto"
    tools: list[_AllowedTool] = []


class _ChoiceIn(Struct, frozen=True):
    type: str = "function"
    function: _Named | None = None
    allowed_tools: _Allowed | None = None


class _SchemaIn(Struct, frozen=True):
    name: str = ""
    schema: Raw = Raw(b"{}")
    strict: bool | None = None


class _FormatIn(Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _SchemaIn | None = None


class _ThinkingIn(Struct, frozen=True):
    type: Literal["adaptive", "enabled", "disabled"]
    budget_tokens: int | None = None


class _StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class _RequestIn(Struct, frozen=True):
    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[_MessageIn], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: int | None = None  # vLLM's
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    stop: str | list[str] | None = None
    tools: list[_ToolIn] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    response_format: _FormatIn | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    thinking: _ThinkingIn | None = None  # MiniMax's
    reasoning_split: bool | None = None  # MiniMax's
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    # Refused when they ask for something, see `_refuse`:
    n: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    audio: Raw = _NOTHING
    prediction: Raw = _NOTHING
    web_search_options: Raw = _NOTHING
    functions: Raw = _NOTHING
    function_call: Raw = _NOTHING
    # Ignored with a warning:
    logit_bias: dict[str, float] | None = None
    reasoning: Raw = _NOTHING  # OpenRouter's


_request_decoder = msgspec.json.Decoder(_RequestIn)
# What a request asks for that says nothing of it; frozen, and so for all of them the same.
_USUAL_CHOICE, _USUAL_REASONING, _USUAL_SAMPLING = Choice(), Reasoning(), Sampling()


# --- wire types: what clients get ----------------------------------------------------------------


class _ReplyMessage(Struct, frozen=True):
    content: str | None
    role: str = "assistant"
    refusal: None = None
    annotations: tuple[()] = ()  # as OpenAI always writes it; strict checkers look for it
    reasoning_content: str | UnsetType = UNSET
    reasoning_details: list[WireDetail] | UnsetType = UNSET
    tool_calls: list[WireCall] | UnsetType = UNSET


class _ReplyChoice(Struct, frozen=True):
    message: _ReplyMessage
    finish_reason: str
    index: int = 0
    logprobs: None = None


class _ReplyOut(Struct, frozen=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[_ReplyChoice]
    usage: Raw


# --- requests: from clients ----------------------------------------------------------------------


def _request(wire: _RequestIn) -> Request:
    _refuse(wire)
    stream = bool(wire.stream)
    tools, choice = _tools(wire)
    warnings = []
    if wire.logit_bias:
        warnings.append("logit_bias")
    if wire.reasoning and given(wire.reasoning):
        warnings.append("reasoning")
    if wire.service_tier in ("flex", "scale", "fast"):
        warnings.append("service_tier")
    return Request(
        model=wire.model,
        messages=_messages(wire.messages),
        stream=stream,
        want_usage=not stream
        or (wire.stream_options is not None and wire.stream_options.include_usage is True),
        tools=tools,
        choice=choice,
        sampling=_sampling(wire),
        reasoning=_reasoning(wire),
        format=_format(wire.response_format) if wire.response_format is not None else None,
        service_tier=wire.service_tier if wire.service_tier in ("priority", "standard") else "",
        session=wire.prompt_cache_key or "",
        warnings=tuple(warnings),
    )


def _refuse(wire: _RequestIn) -> None:
    """What changes the meaning of the reply and cannot be honoured, by name."""
    if wire.n is not None and wire.n > 1:
        raise unsupported("$.n", "Send one request per reply.")
    if wire.logprobs:
        raise unsupported("$.logprobs")
    if wire.top_logprobs:
        raise unsupported("$.top_logprobs")
    if wire.modalities and wire.modalities != ["text"]:
        raise unsupported("$.modalities", "Only text comes out.")
    if wire.audio or wire.prediction or wire.web_search_options:
        for name in ("audio", "prediction", "web_search_options"):
            if given(getattr(wire, name)):
                raise unsupported(f"$.{name}")
    if wire.functions and given(wire.functions):
        raise unsupported("$.functions", "Use `tools`.")
    if wire.function_call and given(wire.function_call):
        raise unsupported("$.function_call", "Use `tool_choice`.")


def _sampling(wire: _RequestIn) -> Sampling:
    if (
        wire.max_tokens is None
        and wire.max_completion_tokens is None
        and wire.temperature is None
        and wire.top_p is None
        and wire.top_k is None
        and wire.seed is None
        and wire.presence_penalty is None
        and wire.frequency_penalty is None
        and wire.stop is None
    ):
        return _USUAL_SAMPLING
    stop = [wire.stop] if isinstance(wire.stop, str) else wire.stop or []
    if len(stop) > _MAX_STOPS:
        raise invalid(f"`stop` takes up to {_MAX_STOPS} sequences, got {len(stop)}.", "$.stop")
    return Sampling(
        # "max_tokens: deprecated in favor of max_completion_tokens" (OpenAI reference)
        max_tokens=wire.max_tokens
        if wire.max_completion_tokens is None
        else wire.max_completion_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        seed=wire.seed,
        presence_penalty=wire.presence_penalty,
        frequency_penalty=wire.frequency_penalty,
        stop=tuple([s for s in stop if s]),  # "" would stop every reply before its first character
    )


def _reasoning(wire: _RequestIn) -> Reasoning:
    """MiniMax's own switch wins over an effort; an effort other than none asks for thinking."""
    if wire.thinking is None and wire.reasoning_effort is None and wire.reasoning_split is None:
        return _USUAL_REASONING
    mode: Literal["default", "on", "off"] = "default"
    if wire.thinking is not None:
        mode = "off" if wire.thinking.type == "disabled" else "on"
    elif wire.reasoning_effort is not None:
        mode = "off" if wire.reasoning_effort == "none" else "on"
    return Reasoning(
        mode=mode,
        show="inline" if wire.reasoning_split is False else "yes",
        effort=wire.reasoning_effort or "",
        budget_tokens=wire.thinking.budget_tokens if wire.thinking is not None else None,
    )


def _format(wire: _FormatIn) -> Format | None:
    if wire.type == "text":
        return None
    if wire.type == "json_object":
        return Format("object")
    schema, where = wire.json_schema, "$.response_format.json_schema"
    if schema is None:
        raise invalid("`response_format.json_schema` is missing.", where)
    _check_schema(schema.schema, f"{where}.schema")
    return Format("schema", schema.name, schema.schema, bool(schema.strict))


def _check_schema(schema: Raw, param: str) -> None:
    if not bytes(schema).startswith(b"{"):
        raise invalid(f"Expected `object` - at `{param}`", param)
    jsontext.check_depth(schema, param)


def _tools(wire: _RequestIn) -> tuple[tuple[Tool, ...], Choice]:
    said, parallel = wire.tool_choice, wire.parallel_tool_calls
    if wire.tools is None and said is None and parallel is None:
        return (), _USUAL_CHOICE
    tools = tuple(_tool(t, f"$.tools[{i}]") for i, t in enumerate(wire.tools or ()))
    if said is None:
        return tools, Choice(parallel=parallel)
    if isinstance(said, _ChoiceIn):
        names = {t.name for t in tools}
        if said.type == "allowed_tools" and said.allowed_tools is not None:
            allowed = {t.function.name for t in said.allowed_tools.tools if t.function is not None}
            if unknown := sorted(allowed - names):
                raise invalid(
                    f"The tool `{unknown[0]}` is not in `tools`.", "$.tool_choice.allowed_tools"
                )
            tools = tuple(t for t in tools if t.name in allowed)
            said = said.allowed_tools.mode
        elif said.type == "function" and said.function is not None:
            if said.function.name not in names:
                raise invalid(
                    f"The tool `{said.function.name}` is not in `tools`.",
                    "$.tool_choice.function.name",
                )
            return tools, Choice("named", said.function.name, parallel)
        else:
            raise unsupported(f"$.tool_choice.{said.type}", "Use a function.")
    if said == "required" and not tools:
        raise invalid("`tool_choice` asks for a call but `tools` is empty.", "$.tool_choice")
    return tools, Choice(said, parallel=parallel)


def _tool(wire: _ToolIn, param: str) -> Tool:
    if wire.type != "function":
        raise unsupported(f"{param}.{wire.type}", "Only tools of type `function` are.")
    function = wire.function
    if function is None:
        raise invalid(f"Object missing required field `function` - at `{param}`", param)
    tool = Tool(function.name, function.description or "", strict=function.strict is True)
    if not given(function.parameters):
        return tool
    _check_schema(function.parameters, f"{param}.function.parameters")
    return msgspec.structs.replace(tool, parameters=function.parameters)


def _messages(wires: Sequence[_MessageIn]) -> tuple[Message, ...]:
    out = []
    for n, wire in enumerate(wires):
        said = wire.content
        if wire.role == "user" and type(said) is str and said:
            out.append(Message("user", (Text(said),)))
        else:
            out.append(_message(wire, f"$.messages[{n}]"))
    return tuple(out)


def _message(wire: _MessageIn, param: str) -> Message:
    match wire.role:
        case "system" | "developer":
            return Message("system", tuple(_texts(wire, param)))
        case "user":
            return Message("user", tuple(_parts(wire, param)))
        case "tool":
            if not wire.tool_call_id:
                raise invalid("A tool message needs `tool_call_id`.", f"{param}.tool_call_id")
            result = ToolResult(wire.tool_call_id, tuple(_parts(wire, param)), name=wire.name or "")
            return Message("tool", (result,))
        case "assistant":
            return _assistant(wire, param)
        case _:
            raise unsupported(f"{param}.role", "Use role `tool` instead of `function`.")


def _assistant(wire: _MessageIn, param: str) -> Message:
    if given(wire.function_call):
        raise unsupported(f"{param}.function_call", "Use `tool_calls`.")
    thoughts = _thoughts(wire)
    texts = list(_texts(wire, param))
    if texts and isinstance(wire.content, str):
        inline, rest = untagged(wire.content)
        if inline and not thoughts:
            thoughts = [Thinking(inline)]
        if inline and "".join(t.text for t in thoughts) == inline:  # told twice: said once
            texts = [Text(rest)] if rest else []
    calls = []
    for i, call in enumerate(wire.tool_calls or ()):
        where = f"{param}.tool_calls[{i}]"
        if call.type != "function" or call.function is None:
            raise unsupported(f"{where}.{call.type}", "Only calls of functions are.")
        calls.append(ToolCall(call.id, call.function.name, call.function.arguments))
    return Message("assistant", (*thoughts, *texts, *calls))


def _thoughts(wire: _MessageIn) -> list[Thinking]:
    """A signature ends a part; unsigned pieces are one part, as streams are often kept."""
    thoughts, text = [], ""
    for detail in wire.reasoning_details or ():
        text += detail.text or ""
        if detail.signature:
            thoughts.append(Thinking(text, detail.signature))
            text = ""
    if text:
        thoughts.append(Thinking(text))
    if not thoughts and (text := wire.reasoning_content or wire.reasoning or ""):
        thoughts.append(Thinking(text))
    return thoughts


def _texts(wire: _MessageIn, param: str) -> Iterator[Text]:
    for i, part in enumerate(_parts(wire, param)):
        if not isinstance(part, Text):
            raise invalid(f"A {wire.role} message holds text only.", f"{param}.content[{i}]")
        yield part


def _parts(wire: _MessageIn, param: str) -> Iterator[Text | Media]:
    if wire.content is None:
        return
    if isinstance(wire.content, str):
        if wire.content:
            yield Text(wire.content)
        return
    for i, part in enumerate(wire.content):
        where = f"{param}.content[{i}]"
        match part.type:
            case "text" | "refusal":
                if text := part.text or part.refusal:
                    yield Text(text)
            case "image_url" if part.image_url is not None:
                yield _media("image", part.image_url, f"{where}.image_url")
            case "video_url" if part.video_url is not None:
                yield _media("video", part.video_url, f"{where}.video_url")
            case "image_url" | "video_url":
                raise invalid(f"Object missing required field `{part.type}` - at `{where}`", where)
            case _:
                raise unsupported(f"{where}.{part.type}", "Send text or images.")


def _media(kind: Literal["image", "video"], wire: _Url | str, param: str) -> Media:
    url, detail = (wire, "") if isinstance(wire, str) else (wire.url, wire.detail or "")
    if url.startswith(("https://", "http://")):
        return Media(kind, url=url, detail=detail)
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise invalid(f"Expected an http(s) or base64 data URL - at `{param}.url`", f"{param}.url")
    try:
        empty = not binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        empty = True
    if empty:
        raise invalid(f"The data is not base64 - at `{param}.url`", f"{param}.url")
    media_type = head[5:].partition(";")[0].lower()
    return Media(kind, media_type=media_type, data=data, detail=detail)


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
    """As JSON."""
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


def _reply_out(reply: Reply, facts: Facts) -> _ReplyOut:
    if len(reply.parts) == 1 and type(one := reply.parts[0]) is Text:
        message = _ReplyMessage(one.text)
    else:
        thoughts = [p for p in reply.parts if isinstance(p, Thinking)]
        text = "".join([p.text for p in reply.parts if isinstance(p, Text)])
        said = calls([p for p in reply.parts if isinstance(p, ToolCall)])
        message = _ReplyMessage(
            content=None if said and not text else text,
            reasoning_content="".join([t.text for t in thoughts]) or UNSET,
            reasoning_details=details(thoughts) or UNSET,
            tool_calls=said or UNSET,
        )
    return _ReplyOut(
        id=f"chatcmpl-{facts.id}",
        object="chat.completion",
        created=facts.created,
        model=facts.model,
        choices=[_ReplyChoice(message, _FINISH_OUT[reply.finish.reason])],
        usage=Raw(_usage(reply.usage, reply.cost_nano)),
    )


class OpenAIEncoder:
    """Only the text of a chunk is encoded anew; the rest of its bytes are the same each time."""

    def __init__(self, request: Request, facts: Facts) -> None:
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
        self._open: Literal["text", "thinking", "tool_call"] = "text"
        self._thoughts = 0
        self._calls = 0
        # Around the JSON text of a delta of the open part:
        self._opening = self._content = self._before + b'{"content":'
        self._closing = self._content_end = b"}" + self._after

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            match event:
                case Delta(text):
                    said = jsontext.encode(text)
                    if self._open == "thinking":
                        out.append(self._thinking(said))
                    else:
                        out += (self._opening, said, self._closing)
                case PartStart():
                    out.append(self._start(event))
                case PartStop(signature):
                    if signature:
                        out.append(self._chunk(self._detail(b'""', signature)))
                case Start():
                    out.append(self._chunk(b'{"role":"assistant","content":""}'))
                case Finish():
                    out += self._finish(event)
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        return (sse.encode(jsontext.encode(_error(failure))),)

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
        self._opening = (
            self._before + b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index
        )
        self._closing = b"}}]}" + self._after
        function = {"name": part.name, "arguments": ""}
        call = {"index": index, "id": part.id, "type": "function", "function": function}
        return self._chunk(jsontext.encode({"tool_calls": [call]}))

    def _thinking(self, said: bytes) -> bytes:
        return self._chunk(b'{"reasoning_content":' + said + b"," + self._detail(said)[1:])

    def _detail(self, said: bytes, signature: str = "") -> bytes:
        signed = b',"signature":' + jsontext.encode(signature) if signature else b""
        return (
            b'{"reasoning_details":[{"type":"reasoning.text","id":"reasoning-text-%d",'
            b'"format":"MiniMax-response-v1","index":%d,"text":'
            % (self._thoughts, self._thoughts - 1)
            + said
            + signed
            + b"}]}"
        )

    def _finish(self, finish: Finish) -> Iterator[bytes]:
        reason = _FINISH_OUT[finish.reason].encode()
        yield self._before + b'{},"logprobs":null,"finish_reason":"' + reason + b'"}]}\n\n'
        if self._want_usage:
            usage = _usage(finish.usage or Usage(), finish.cost_nano)
            yield self._head + b',"choices":[],"usage":' + usage + b"}\n\n"
        yield b"data: [DONE]\n\n"


# --- errors --------------------------------------------------------------------------------------

# kind: (type, code).  The status is errors.STATUS, but for `no_credit`: OpenAI says 429.
_ERRORS: dict[Kind, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "context_length": ("invalid_request_error", "context_length_exceeded"),
    "blocked": ("invalid_request_error", "content_filter"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "media_type": ("invalid_request_error", "unsupported_media_type"),
    "not_found": ("invalid_request_error", "model_not_found"),
    "method": ("invalid_request_error", "method_not_allowed"),
    "conflict": ("invalid_request_error", "conflict"),
    "request_timeout": ("timeout", "request_timeout"),
    "unauthenticated": ("invalid_request_error", "invalid_api_key"),
    "forbidden": ("permission_error", "model_not_allowed"),
    "no_credit": ("insufficient_quota", "insufficient_quota"),
    "rate_limit": ("rate_limit_error", "rate_limit_exceeded"),
    "internal": ("server_error", None),
    "unavailable": ("server_error", "service_unavailable"),
    "upstream": ("upstream_error", None),
    "upstream_auth": ("upstream_error", "upstream_auth"),
    "overloaded": ("server_error", "overloaded"),
    "timeout": ("timeout", "timeout"),
    "client_gone": ("server_error", "client_closed_request"),
}


def _error(failure: Failure) -> _Json:
    type_, code = _ERRORS[failure.kind]
    error: _Json = {
        "message": failure.message,
        "type": type_,
        # OpenAI writes `messages[0].role`, without the root
        "param": failure.param.removeprefix("$").removeprefix(".") or None,
        "code": failure.code or code,
    }
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return {"error": error}


# --- the dialect ---------------------------------------------------------------------------------


class OpenAIDialect:
    name: ClassVar[str] = "openai"
    capsules: ClassVar[Literal["signed", "shown", "always"]] = "signed"
    stream_type: ClassVar[str] = "text/event-stream"
    array_type: ClassVar[str] = "application/json"
    keepalive: ClassVar[bytes] = b": keepalive\n\n"

    def decode_request(self, body: bytes, target: Target) -> Request:
        return _request(jsontext.decode_request(_request_decoder, body))

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return OpenAIEncoder(request, facts)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        return jsontext.encode(_reply_out(reply, facts))

    def encode_count(self, tokens: int) -> bytes:
        """As Responses answers; Chat Completions has no such question."""
        return jsontext.encode({"object": "response.input_tokens", "input_tokens": tokens})

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        status = 429 if failure.kind == "no_credit" else STATUS[failure.kind]
        return status, jsontext.encode(_error(failure))

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        return False

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return jsontext.encode({"object": "list", "data": [_card(card) for card in cards]})

    def encode_model(self, card: ModelCard) -> bytes:
        return jsontext.encode(_card(card))

    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        return jsontext.encode(request_out(request, capabilities, model, stream))

    def request_path(self, model: str, stream: bool) -> str:
        return "/chat/completions"

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder:
        return OpenAIDecoder(capabilities, media, seed)

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return vendor.read_failure(status, headers, body)


def _card(card: ModelCard) -> _Json:
    return {"id": card.id, "object": "model", "created": card.created, "owned_by": "minimax"}
