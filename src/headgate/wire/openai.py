"""OpenAI Chat Completions: the wire most clients speak, and MiniMax's own main one.

The only place for its words.  Sources, read 2026-11: developers.openai.com/api/reference (types of
openai 3.54), platform.minimax.io/docs "text-chat-openai" and "errorcode", docs.vllm.ai and
docs.sglang.ai (reasoning outputs), MiniMax-M2 README (2025-10).

What will surprise:
- thinking has no place in OpenAI's types; MiniMax's `reasoning_details` and DeepSeek's
  `reasoning_content` are both written, and every known form is read;
- an upstream may tell the same thinking twice, in tags and in a field: the first channel that
  said something is believed for the whole reply (`_Channel`);
- usage comes after `finish_reason`, so the end is held back until usage, [DONE] or the close;
- HTTP 200 may carry an error (`base_resp`), in a body or in a chunk.

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
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target
from headgate.wire.thinking import CLOSE, Steps, TagSplitter, tagged

# --- wire types: what clients send -------------------------------------------------------------

_MAX_STOPS = 4  # "Up to 4 sequences" (OpenAI reference)
_NOT_GIVEN = (b"", b"null", b"[]")
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


class _DetailIn(Struct, frozen=True):
    text: str | None = None
    signature: str | None = None
    index: int | None = None


class _MessageIn(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_PartIn] | None = None
    name: str | None = None
    tool_calls: list[_ToolCallIn] | None = None
    tool_call_id: str | None = None
    reasoning_details: list[_DetailIn] | None = None
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


# --- wire types: what upstreams get ------------------------------------------------------------


class _FunctionCall(Struct, frozen=True):
    name: str
    arguments: str


class _ToolCall(Struct, frozen=True):
    id: str
    function: _FunctionCall
    type: str = "function"


class _Detail(Struct, frozen=True):
    text: str
    id: str
    index: int
    signature: str | UnsetType = UNSET
    type: str = "reasoning.text"
    format: str = "MiniMax-response-v1"


class _MessageOut(Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | list[_Json]
    tool_call_id: str | None = None
    reasoning_details: list[_Detail] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


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


# --- wire types: what upstreams answer, read with tolerance ------------------------------------


class _FunctionDelta(Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: str | _Json | None = None  # an object from some self-hosted parsers


class _CallDelta(Struct, frozen=True, gc=False):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None


class _DeltaIn(Struct, frozen=True, gc=False):
    content: str | None = None
    refusal: str | None = None
    reasoning_details: list[_DetailIn] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_CallDelta] | None = None


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


class _BaseResp(Struct, frozen=True, gc=False):
    status_code: int | None = None
    status_msg: str | None = None


class _ReplyIn(Struct, frozen=True, gc=False):
    """A chunk, or a whole reply: they differ in `delta` and `message` only."""

    id: str | None = None
    model: str | None = None
    choices: list[_ChoiceDelta] | None = None
    usage: _UsageIn | None = None
    error: Raw = _NOTHING
    base_resp: _BaseResp | None = None
    output_sensitive: bool | None = None


class _ErrorIn(Struct, frozen=True):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    http_code: str | int | None = None


class _Envelope(Struct, frozen=True):
    error: Raw = _NOTHING
    base_resp: _BaseResp | None = None
    detail: Raw = _NOTHING  # FastAPI's
    message: str | None = None  # older vLLM: the error without an envelope
    type: str | None = None
    code: str | int | None = None


_reply_decoder = msgspec.json.Decoder(_ReplyIn)
_error_decoder = msgspec.json.Decoder(_ErrorIn)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


# --- wire types: what clients get --------------------------------------------------------------


class _ReplyMessage(Struct, frozen=True):
    content: str | None
    role: str = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning_details: list[_Detail] | UnsetType = UNSET
    tool_calls: list[_ToolCall] | UnsetType = UNSET


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
    usage: _Json


# --- requests: from clients --------------------------------------------------------------------


def _request(wire: _RequestIn) -> Request:
    _refuse(wire)
    stream = bool(wire.stream)
    tools, choice = _tools(wire)
    warnings = []
    if wire.logit_bias:
        warnings.append("logit_bias")
    if _given(wire.reasoning):
        warnings.append("reasoning")
    if wire.service_tier in ("flex", "scale", "fast"):
        warnings.append("service_tier")
    return Request(
        model=wire.model,
        messages=tuple(_message(m, f"$.messages[{i}]") for i, m in enumerate(wire.messages)),
        stream=stream,
        want_usage=not stream
        or (wire.stream_options is not None and wire.stream_options.include_usage is True),
        tools=tools,
        choice=choice,
        sampling=_sampling(wire),
        reasoning=_reasoning(wire),
        format=_format(wire.response_format),
        service_tier=wire.service_tier if wire.service_tier in ("priority", "standard") else "",
        session=wire.prompt_cache_key or "",
        warnings=tuple(warnings),
    )


def _given(raw: Raw) -> bool:
    return bytes(raw) not in _NOT_GIVEN


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
    for name in ("audio", "prediction", "web_search_options"):
        if _given(getattr(wire, name)):
            raise unsupported(f"$.{name}")
    if _given(wire.functions):
        raise unsupported("$.functions", "Use `tools`.")
    if _given(wire.function_call):
        raise unsupported("$.function_call", "Use `tool_choice`.")


def _sampling(wire: _RequestIn) -> Sampling:
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
        stop=tuple(s for s in stop if s),  # "" would stop every reply before its first character
    )


def _reasoning(wire: _RequestIn) -> Reasoning:
    """MiniMax's own switch wins over an effort; an effort other than none asks for thinking."""
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


def _format(wire: _FormatIn | None) -> Format | None:
    if wire is None or wire.type == "text":
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
    tools = tuple(_tool(t, f"$.tools[{i}]") for i, t in enumerate(wire.tools or ()))
    said, parallel = wire.tool_choice, wire.parallel_tool_calls
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
    if not _given(function.parameters):
        return tool
    _check_schema(function.parameters, f"{param}.function.parameters")
    return msgspec.structs.replace(tool, parameters=function.parameters)


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
    if _given(wire.function_call):
        raise unsupported(f"{param}.function_call", "Use `tool_calls`.")
    thoughts = _thoughts(wire)
    texts = list(_texts(wire, param))
    if texts and isinstance(wire.content, str):
        inline, rest = _untag(wire.content)
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


def _untag(content: str) -> tuple[str, str]:
    splitter = TagSplitter()
    (thinking, text), (late, rest) = splitter.feed(content), splitter.close()
    return thinking + late, text + rest


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


# --- requests: to upstreams --------------------------------------------------------------------


def _request_out(
    request: Request, capabilities: Capabilities, model: str, stream: bool
) -> _RequestOut:
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
        tools=[_tool_out(t) for t in request.tools] or None,
        tool_choice=_choice_out(request.choice) if request.tools else None,
        parallel_tool_calls=parallel,
        response_format=_format_out(request.format),
        reasoning_split=True if capabilities.reasoning_split else None,
        thinking=thinking,
        chat_template_kwargs=template,
        reasoning_effort=effort,
        service_tier=tier or None,
    )


def _switch(
    reasoning: Reasoning, capabilities: Capabilities
) -> tuple[dict[str, str] | None, dict[str, bool] | None, str | None]:
    """`thinking`, `chat_template_kwargs` and `reasoning_effort`: at most one of them."""
    on = reasoning.mode == "on"
    if reasoning.mode != "default":
        match capabilities.thinking_switch:
            case "adaptive" if capabilities.thinking_off:
                # "enabled" would be 400 (2013); M2.x always thinks and is told nothing.
                return {"type": "adaptive" if on else "disabled"}, None, None
            case "template":
                # Templates disagree on the name; one they do not know does nothing.
                return None, {"enable_thinking": on, "thinking": on}, None
            case "effort":
                return None, None, (reasoning.effort or "medium") if on else "none"
    return None, None, None


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
                        out.append(_MessageOut("tool", _result_out(part), part.call_id))
                        attached += [p for p in part.parts if isinstance(p, Media)]
            case "assistant":
                out.append(_assistant_out(message, capabilities))
            case _:
                said = [p for p in message.parts if isinstance(p, Text | Media)]
                out.append(_MessageOut(message.role, _content_out(said)))
    if attached:
        out.append(_MessageOut("user", _content_out(attached)))
    return out


def _result_out(result: ToolResult) -> str:
    text = "\n".join(
        p.text if isinstance(p, Text) else f"[{p.kind} attached below]" for p in result.parts
    )
    if result.is_error and not text.startswith("Error: "):
        return f"Error: {text}"
    return text


def _content_out(parts: Sequence[Text | Media]) -> str | list[_Json]:
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    out: list[_Json] = []
    for part in parts:
        if isinstance(part, Text):
            out.append({"type": "text", "text": part.text})
            continue
        name = f"{part.kind}_url"
        url = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
        if part.detail:
            url["detail"] = part.detail
        out.append({"type": name, name: url})
    return out


def _assistant_out(message: Message, capabilities: Capabilities) -> _MessageOut:
    thoughts = [p for p in message.parts if isinstance(p, Thinking)]
    thinking, text = "".join(t.text for t in thoughts), message.text
    form = capabilities.reasoning_form
    return _MessageOut(
        "assistant",
        # null content beside tool calls is refused by MiniMax
        tagged(thinking) + text if form == "tags" and thinking else text,
        reasoning_details=(_details(thoughts) or None) if form == "details" else None,
        reasoning_content=(thinking or None) if form == "reasoning_content" else None,
        reasoning=(thinking or None) if form == "reasoning" else None,
        tool_calls=_calls([p for p in message.parts if isinstance(p, ToolCall)]) or None,
    )


def _details(thoughts: Sequence[Thinking]) -> list[_Detail]:
    said = [t for t in thoughts if t.text or t.signature]
    return [
        _Detail(t.text, f"reasoning-text-{i + 1}", i, t.signature or UNSET)
        for i, t in enumerate(said)
    ]


def _calls(calls: Sequence[ToolCall]) -> list[_ToolCall]:
    return [_ToolCall(c.id, _FunctionCall(c.name, c.arguments)) for c in calls]


# --- replies: from upstreams -------------------------------------------------------------------

_FINISH_IN: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
# OpenRouter and vLLM say so when their engine gave up; the text is not the whole answer.
_BROKEN = ("error", "abort")
_WITHHELD = 1027  # MiniMax: "output sensitive"
_Channel = Literal["", "details", "field", "tags"]


def _usage_in(wire: _UsageIn | None) -> Usage | None:
    """None for zeros too: MiniMax puts them into chunks that know nothing yet."""
    if wire is None or not (wire.prompt_tokens or wire.completion_tokens):
        return None
    read, written = wire.prompt_tokens_details, wire.completion_tokens_details
    return Usage(
        input=wire.prompt_tokens or 0,
        output=wire.completion_tokens or 0,
        cached=(read.cached_tokens or 0) if read else 0,
        cache_write=(read.cache_write_tokens or 0) if read else 0,
        reasoning=(written.reasoning_tokens or 0) if written else 0,
    )


class OpenAIDecoder(Decoder):
    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._splitter = TagSplitter(capabilities.starts_thinking)
        self._steps = Steps()
        self._detail: int | None = None  # the index of the detail that `_steps` follows
        self._channel: _Channel = ""
        self._said = False
        self._reason: FinishReason | None = None
        self._stop = ""
        self._usage: Usage | None = None

    def payload(self, payload: bytes) -> None:
        if payload.startswith(b"[DONE]"):
            self.eof()
            if not self.framer.ended:
                self.framer.fail(jsontext.garbage("[DONE] without a finish_reason"), self._usage)
            return
        if payload.strip():
            self._reply(jsontext.decode_upstream(_reply_decoder, payload, _ReplyIn))

    def whole(self, body: bytes) -> None:
        self._reply(jsontext.decode_upstream(_reply_decoder, body, _ReplyIn))
        self.eof()
        if not self.framer.ended:
            self.framer.fail(jsontext.garbage("no finish_reason"), self._usage)

    def eof(self) -> None:
        if self._reason is not None and not self.framer.ended:
            self._settle()
            self.framer.finish(self._reason, self._usage, self._stop)

    def _reply(self, wire: _ReplyIn) -> None:
        if (usage := _usage_in(wire.usage)) is not None:
            self._usage = usage
        if (failure := _failed(wire)) is not None:
            if self._said and failure.upstream_code == str(_WITHHELD):
                self._reason = "content_filter"
                self.eof()
            else:
                self.framer.fail(failure, self._usage)
            return
        if wire.choices or wire.id:
            self.framer.start(wire.id or "", wire.model or "")
        for choice in wire.choices or ():
            if not choice.index:  # one reply was asked for
                self._choice(choice)
        if wire.output_sensitive:
            self._reason = "content_filter"
        if self._reason is not None and usage is not None:
            self.eof()

    def _choice(self, wire: _ChoiceDelta) -> None:
        if wire.delta is not None:
            self._delta(wire.delta)
        if wire.message is not None and not self._said:
            self._delta(wire.message)  # a last chunk may repeat what the deltas said
        reason = wire.finish_reason
        if reason and self._reason is None:
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
        if text := wire.content or wire.refusal:
            self._said = True
            thinking, text = self._splitter.feed(text)
            self._text(thinking, text)
        if wire.tool_calls:
            self._said = True
            self._settle()
            for call in wire.tool_calls:
                self._call(call)

    def _think(self, wire: _DeltaIn) -> None:
        for detail in wire.reasoning_details or ():
            text, signature = detail.text, detail.signature
            if not (text or signature) or self._channel not in ("", "details"):
                continue
            self._channel, self._said = "details", True
            if detail.index != self._detail:
                self._rest()
                self._detail = detail.index
            self.framer.thinking(self._steps.feed(_untailed(text or "")))
            if signature:
                self._rest()
                self.framer.signature(signature)
        text = wire.reasoning_content or wire.reasoning
        if text and self._channel in ("", "field"):
            self._channel, self._said = "field", True
            self.framer.thinking(self._steps.feed(_untailed(text)))

    def _text(self, thinking: str, text: str) -> None:
        if thinking and self._channel in ("", "tags"):
            self._channel = "tags"
            self.framer.thinking(thinking)
        if text:
            if self._channel:
                self._rest()
            self.framer.text(text)

    def _call(self, wire: _CallDelta) -> None:
        function = wire.function or _FunctionDelta()
        arguments = function.arguments or ""
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        self.framer.call(wire.index, wire.id or "", function.name or "", arguments)

    def _rest(self) -> None:
        """Thinking that was held back; whatever comes next is not a step of it."""
        self.framer.thinking(self._steps.close())
        self._steps = Steps()

    def _settle(self) -> None:
        """All that was held back."""
        self._rest()
        self._text(*self._splitter.close())


def _untailed(piece: str) -> str:
    """A closing tag that leaked out of the template into a reasoning field."""
    if piece.endswith(CLOSE):
        return piece[: piece.rindex("</")].removesuffix("\n")
    return piece


# --- replies: to clients -----------------------------------------------------------------------

_FINISH_OUT: dict[FinishReason, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "context_full": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def _usage(usage: Usage) -> _Json:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _reply_out(reply: Reply, facts: Facts) -> _ReplyOut:
    thoughts = [p for p in reply.parts if isinstance(p, Thinking)]
    text = "".join(p.text for p in reply.parts if isinstance(p, Text))
    calls = _calls([p for p in reply.parts if isinstance(p, ToolCall)])
    message = _ReplyMessage(
        content=None if calls and not text else text,
        reasoning_content="".join(t.text for t in thoughts) or UNSET,
        reasoning_details=_details(thoughts) or UNSET,
        tool_calls=calls or UNSET,
    )
    return _ReplyOut(
        id=f"chatcmpl-{facts.id}",
        object="chat.completion",
        created=facts.created,
        model=facts.model,
        choices=[_ReplyChoice(message, _FINISH_OUT[reply.finish.reason])],
        usage=_usage(reply.usage),
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
            usage = jsontext.encode(_usage(finish.usage or Usage()))
            yield self._head + b',"choices":[],"usage":' + usage + b"}\n\n"
        yield b"data: [DONE]\n\n"


# --- errors ------------------------------------------------------------------------------------

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


def _failed(wire: _ReplyIn) -> Failure | None:
    """The error inside a reply with status 200."""
    if _given(wire.error):
        return _read_error(wire.error, 200, None)
    base = wire.base_resp
    if base is not None and base.status_code:
        return vendor.failure_of(200, base.status_msg or "", base.status_code)
    return None


def _read_error(raw: Raw, status: int, retry_after_s: float | None) -> Failure:
    if bytes(raw).startswith(b"{"):
        error = jsontext.decode_upstream(_error_decoder, bytes(raw), _ErrorIn)
    else:
        text = msgspec.json.decode(raw)
        error = _ErrorIn(text if isinstance(text, str) else None)
    if status == 200:  # the real one may be told inside: MiniMax as http_code, vLLM as code
        told = str(error.http_code or error.code)
        status = int(told) if told.isdigit() and 400 <= int(told) < 600 else status
    return vendor.failure_of(
        status, error.message or "", error.code, error.type or "", retry_after_s
    )


def _envelope(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    after = vendor.retry_after(headers)
    try:
        wire = jsontext.decode_upstream(_envelope_decoder, body, _Envelope)
        if _given(wire.error):
            return _read_error(wire.error, status, after)
    except (ValueError, msgspec.MsgspecError):
        return vendor.failure_of(
            status, "", retry_after_s=after
        )  # a proxy's page is not for clients
    base = wire.base_resp
    if base is not None and base.status_code:
        return vendor.failure_of(
            status, base.status_msg or "", base.status_code, retry_after_s=after
        )
    message = wire.message or ""
    if not message and bytes(wire.detail).startswith(b'"'):
        message = msgspec.json.decode(wire.detail, type=str)
    return vendor.failure_of(status, message, wire.code, wire.type or "", after)


# --- the dialect -------------------------------------------------------------------------------


class OpenAIDialect:
    name: ClassVar[str] = "openai"
    stream_type: ClassVar[str] = "text/event-stream"
    keepalive: ClassVar[bytes] = b": keepalive\n\n"

    def decode_request(self, body: bytes, target: Target) -> Request:
        return _request(jsontext.decode_request(_request_decoder, body))

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return OpenAIEncoder(request, facts)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        return jsontext.encode(_reply_out(reply, facts))

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        status = 429 if failure.kind == "no_credit" else STATUS[failure.kind]
        return status, jsontext.encode(_error(failure))

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return jsontext.encode({"object": "list", "data": [_card(card) for card in cards]})

    def encode_model(self, card: ModelCard) -> bytes:
        return jsontext.encode(_card(card))

    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        return jsontext.encode(_request_out(request, capabilities, model, stream))

    def request_path(self, model: str, stream: bool) -> str:
        return "/chat/completions"

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder:
        return OpenAIDecoder(capabilities, media, seed)

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return _envelope(status, headers, body)


def _card(card: ModelCard) -> _Json:
    return {"id": card.id, "object": "model", "created": card.created, "owned_by": "minimax"}


OPENAI = OpenAIDialect()
