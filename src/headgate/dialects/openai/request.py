"""OpenAI Chat Completions: the wire most clients speak, and MiniMax's own main one.

The only place for its words.  Sources, read 2026-11: developers.openai.com/api/reference (types of
openai 3.54), platform.minimax.io/docs "text-chat-openai" and "errorcode", docs.vllm.ai and
docs.sglang.ai (reasoning outputs), MiniMax-M2 README (2025-10).

`openai_reply.py` has what clients get back, `openai_upstream.py` the other side, what upstreams get
and send.  Note: thinking has no place in OpenAI's types; MiniMax's `reasoning_details`
and DeepSeek's `reasoning_content` are both written, and every known form is read.

Known losses: this wire has no `is_error` (it becomes "Error: ..."), no cache breakpoints, and no
order between text and tool calls; halves of a surrogate pair in two chunks become U+FFFD.
"""

import binascii
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from headgate import bounds, jsontext
from headgate.bounds import OPENAI_STOPS, Int64
from headgate.chat import (
    Choice,
    Format,
    Media,
    Message,
    Reasoning,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    WebSearch,
)
from headgate.dialects import fields, limits, provider, unknown
from headgate.dialects.contract import (
    RequestTarget,
)
from headgate.dialects.fields import (
    carried,
    check_sampling,
    first_given,
    given,
    read_whole,
    wrapped,
)
from headgate.dialects.jsonstrings import decoded, may_hold, string, string_or_list, string_or_none
from headgate.dialects.openai.upstream import DetailIn
from headgate.errors import Refused, invalid, unsupported
from headgate.stream.thinking import untagged

# --- wire types: what clients send ---------------------------------------------------------------

_NOTHING = Raw(b"")
_Json = dict[str, object]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]


class _Url(Struct, frozen=True):
    url: str
    detail: str | None = None


class _PartIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str
    text: Raw = _NOTHING  # a string or null; see dialects/jsonstrings.py
    refusal: Raw = _NOTHING
    image_url: _Url | str | None = None  # a bare string is common among clients of vLLM
    video_url: _Url | str | None = None


class _FunctionCallIn(Struct, frozen=True):
    name: str
    arguments: Raw = _NOTHING  # a string


class _CustomCallIn(Struct, frozen=True):
    name: str
    input: str = ""


class _ToolCallIn(Struct, frozen=True):
    id: str
    type: str = "function"
    function: _FunctionCallIn | None = None
    custom: _CustomCallIn | None = None


class _MessageIn(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Raw = _NOTHING  # a string, a list of `_PartIn`, or null
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
    # The schema under the names of Anthropic and of MCP:
    input_schema: Raw = _NOTHING
    inputSchema: Raw = _NOTHING


class _CustomIn(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    format: Raw = _NOTHING


class _ToolIn(Struct, frozen=True):
    type: str = "function"
    function: _FunctionIn | None = None
    custom: _CustomIn | None = None


class _Named(Struct, frozen=True):
    name: str


class _AllowedTool(Struct, frozen=True):
    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None


class _Allowed(Struct, frozen=True):
    mode: Literal["auto", "required"] = "auto"
    tools: list[_AllowedTool] = []


class _ChoiceIn(Struct, frozen=True):
    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None
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
    budget_tokens: Int64 | None = None


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
    top_k: Int64 | None = None  # vLLM's
    seed: Int64 | None = None
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
    user: str | None = None
    safety_identifier: str | None = None
    # Refused when they ask for something, see `_refuse`:
    n: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Int64 | None = None
    modalities: list[str] | None = None
    audio: Raw = _NOTHING
    prediction: Raw = _NOTHING
    web_search_options: Raw = _NOTHING
    functions: Raw = _NOTHING
    function_call: Raw = _NOTHING
    # Ignored with a warning:
    store: bool | None = None
    verbosity: str | None = None
    logit_bias: Raw = _NOTHING
    reasoning: Raw = _NOTHING  # OpenRouter's
    provider: Raw = _NOTHING  # OpenRouter's: preferences among the upstreams


_request_decoder = msgspec.json.Decoder(_RequestIn)
_content_decoder = msgspec.json.Decoder(str | list[_PartIn] | None)
_arguments_decoder = msgspec.json.Decoder(str)
# What a request asks for that says nothing of it; frozen, and so for all of them the same.
_USUAL_CHOICE, _USUAL_REASONING, _USUAL_SAMPLING = Choice(), Reasoning(), Sampling()


# --- requests: from clients ----------------------------------------------------------------------


def _request(wire: _RequestIn) -> Request:
    _refuse(wire)
    stream = bool(wire.stream)
    warnings: list[str] = []
    search = None
    if wire.web_search_options and bytes(wire.web_search_options).startswith(b"{"):
        search = _search(wire.web_search_options, warnings)
    tools, choice = _tools(wire, search)
    if wire.logit_bias and given(wire.logit_bias):
        _check_bias(wire.logit_bias)
        warnings.append("logit_bias")
    if wire.reasoning and given(wire.reasoning):
        wire = _openrouter(wire, warnings)
    if wire.service_tier is not None and wire.service_tier not in unknown.TIERS:
        warnings.append("service_tier")
    if wire.store:
        warnings.append("store")
    if wire.verbosity is not None and wire.verbosity != "medium":
        warnings.append("verbosity")
    preferences = provider.preferences(wire.provider, warnings)
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
        user=(wire.user or wire.safety_identifier or "")[: bounds.LABEL.most],
        search=search,
        warnings=tuple(warnings),
        preferences=preferences,
    )


def _refuse(wire: _RequestIn) -> None:
    """What changes the meaning of the reply and cannot be honoured, by name."""
    if len(wire.model) > bounds.MODEL.most:
        raise bounds.refuse(len(wire.model), bounds.MODEL, "$.model")
    if wire.prompt_cache_key is not None:
        bounds.check_size(wire.prompt_cache_key, bounds.LABEL, "$.prompt_cache_key")
    if wire.n is not None and wire.n > 1:
        raise unsupported("$.n", "Send one request per reply.")
    if wire.logprobs:
        raise unsupported("$.logprobs")
    if wire.top_logprobs:
        raise unsupported("$.top_logprobs")
    bounds.check_size(wire.modalities, bounds.WORDS, "$.modalities")
    if wire.modalities and wire.modalities != ["text"]:
        raise unsupported("$.modalities", "Only text comes out.")
    if wire.audio or wire.prediction:
        for name in ("audio", "prediction"):
            if given(getattr(wire, name)):
                raise unsupported(f"$.{name}")
    if wire.functions and given(wire.functions):
        raise unsupported("$.functions", "Use `tools`.")
    if wire.function_call and given(wire.function_call):
        raise unsupported("$.function_call", "Use `tool_choice`.")


class _SearchIn(Struct, frozen=True):
    user_location: Raw = _NOTHING


_search_decoder = msgspec.json.Decoder(_SearchIn)


def _search(raw: Raw, warnings: list[str]) -> WebSearch:
    """The search of the web that the client asks for; OpenAI's has no list of domains."""
    if given(_search_decoder.decode(raw).user_location):
        warnings.append("web_search_options.user_location")
    return WebSearch()


_bias_decoder = msgspec.json.Decoder(dict[str, float])


def _check_bias(raw: Raw) -> None:
    """Ignored, but a mistake in it is refused, and what is too large is not read."""
    where, most = "$.logit_bias", bounds.LOGIT_BIAS
    if not jsontext.within(bytes(raw), most.most):
        raise invalid(f"`logit_bias` has more than {most.most} {most.unit}.", where)
    try:
        entries = _bias_decoder.decode(raw)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        place = where + place.strip("`").removeprefix("$")
        raise invalid(f"{message} - at `{place}`", place) from None
    bounds.check_size(entries, most, where)


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
    bounds.check_size(stop, OPENAI_STOPS, "$.stop")
    stops = tuple([s for s in stop if s])  # "" would stop every reply before its first character
    bounds.check_stops(stops, "$.stop")
    sampling = Sampling(
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
        stop=stops,
    )
    name = "max_tokens" if wire.max_completion_tokens is None else "max_completion_tokens"
    check_sampling(sampling, "$.", name)
    return sampling


class _OpenRouterReasoning(Struct, frozen=True):
    """OpenRouter's `reasoning` (openrouter.ai/docs, reasoning tokens, 2026-11)."""

    effort: str | None = None
    max_tokens: Int64 | None = None
    enabled: bool | None = None
    exclude: bool | None = None


_openrouter_decoder = msgspec.json.Decoder(_OpenRouterReasoning)


def _openrouter(wire: _RequestIn, warnings: list[str]) -> _RequestIn:
    """Read OpenRouter's `reasoning` where OpenAI's and MiniMax's own fields say nothing."""
    try:
        asked = _openrouter_decoder.decode(wire.reasoning)
    except msgspec.MsgspecError:
        warnings.append("reasoning")
        return wire
    if asked.exclude:
        warnings.append("reasoning.exclude")
    effort = unknown.effort(asked.effort) if asked.effort else ""
    if asked.effort and effort != asked.effort:
        warnings.append("reasoning.effort")
    if wire.reasoning_effort is not None or wire.thinking is not None:
        if effort != (wire.reasoning_effort or ""):
            warnings.append("reasoning")
        return wire
    if asked.enabled is False or effort == "none":
        return msgspec.structs.replace(wire, thinking=_ThinkingIn("disabled"))
    if effort:
        return msgspec.structs.replace(wire, reasoning_effort=effort)  # one of the literal's words
    if asked.max_tokens is not None or asked.enabled:
        thinking = _ThinkingIn("adaptive", budget_tokens=asked.max_tokens)
        return msgspec.structs.replace(wire, thinking=thinking)
    return wire


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
    bounds.check_size(schema.name, bounds.NAME, f"{where}.name")
    kept = _schema(schema.schema, f"{where}.schema")
    return Format("schema", schema.name, kept, bool(schema.strict))


def _schema(schema: Raw, param: str) -> Raw:
    if not bytes(schema).startswith(b"{"):
        raise invalid(f"Expected `object` - at `{param}`", param)
    return carried(schema, param)


def _tools(wire: _RequestIn, search: WebSearch | None) -> tuple[tuple[Tool, ...], Choice]:
    said, parallel = wire.tool_choice, wire.parallel_tool_calls
    if wire.tools is None and said is None and parallel is None:
        return (), _USUAL_CHOICE
    bounds.check_size(wire.tools, bounds.TOOLS, "$.tools")
    tools = tuple(_tool(t, f"$.tools[{i}]") for i, t in enumerate(wire.tools or ()))
    if said is None:
        return tools, Choice(parallel=parallel)
    if isinstance(said, _ChoiceIn):
        names = {t.name for t in tools}
        if said.type == "allowed_tools" and said.allowed_tools is not None:
            bounds.check_size(said.allowed_tools.tools, bounds.TOOLS, "$.tool_choice.allowed_tools")
            allowed = {n.name for t in said.allowed_tools.tools if (n := t.function or t.custom)}
            if unknown := sorted(allowed - names):
                raise invalid(
                    f"The tool `{unknown[0][:64]}` is not in `tools`.",
                    "$.tool_choice.allowed_tools",
                )
            tools = tuple(t for t in tools if t.name in allowed)
            said = said.allowed_tools.mode
        elif said.type in ("function", "custom") and (chosen := said.function or said.custom):
            if chosen.name not in names:
                raise invalid(
                    f"The tool `{chosen.name[:64]}` is not in `tools`.",
                    f"$.tool_choice.{said.type}.name",
                )
            return tools, Choice("named", chosen.name, parallel)
        else:
            raise unsupported(f"$.tool_choice.{said.type}", "Use a function.")
    if said == "required" and not tools and search is None:
        raise invalid("`tool_choice` asks for a call but `tools` is empty.", "$.tool_choice")
    return tools, Choice(said, parallel=parallel)


def _tool(wire: _ToolIn, param: str) -> Tool:
    if wire.type == "custom" and wire.custom is not None:
        bounds.check_name(wire.custom.name, f"{param}.custom.name")
        grammar = _grammar(wire.custom.format)
        return fields.freeform(wire.custom.name, wire.custom.description or "", grammar)
    if wire.type != "function":
        raise unsupported(f"{param}.{wire.type}", "Only tools of type `function` and `custom` are.")
    function = wire.function
    if function is None:
        raise invalid(f"Object missing required field `function` - at `{param}`", param)
    bounds.check_name(function.name, f"{param}.function.name")
    tool = Tool(function.name, function.description or "", strict=function.strict is True)
    schema = first_given(function.parameters, function.input_schema, function.inputSchema)
    if not given(schema):
        return tool
    parameters = _schema(schema, f"{param}.function.parameters")
    return msgspec.structs.replace(tool, parameters=parameters)


class _Grammar(Struct, frozen=True):
    syntax: str = ""
    definition: str = ""


class _CustomFormat(Struct, frozen=True):
    type: str = "text"
    grammar: _Grammar | None = None
    syntax: str = ""  # flat, as in Responses
    definition: str = ""


_format_decoder = msgspec.json.Decoder(_CustomFormat)


def _grammar(raw: Raw) -> tuple[str, str]:
    """Syntax and definition of a freeform tool's grammar, both empty when it has none."""
    if not given(raw):
        return "", ""
    try:
        format = _format_decoder.decode(raw)
    except msgspec.MsgspecError:
        return "", ""
    if format.type != "grammar":
        return "", ""
    kept = format.grammar or format
    return kept.syntax, kept.definition


_Content = Raw | list[_PartIn] | None


def _messages(wires: Sequence[_MessageIn]) -> tuple[Message, ...]:
    bounds.check_size(wires, bounds.MESSAGES, "$.messages")
    tally = bounds.Tally()
    out = []
    for n, wire in enumerate(wires):
        param = f"$.messages[{n}]"
        content = string_or_list(wire.content, _content_decoder, param, "content")
        if type(content) is list:
            tally.add(content, f"{param}.content")
        if wire.tool_calls:
            tally.add(wire.tool_calls, f"{param}.tool_calls")
        if wire.reasoning_details:
            tally.add(wire.reasoning_details, f"{param}.reasoning_details")
        if wire.role == "user" and type(content) is Raw:
            out.append(Message("user", (Text(content),)))
        else:
            out.append(_message(wire, content, param))
    return tuple(out)


def _message(wire: _MessageIn, content: _Content, param: str) -> Message:
    match wire.role:
        case "system" | "developer":
            return Message("system", tuple(_texts(wire, content, param)))
        case "user":
            return Message("user", tuple(_parts(content, param)))
        case "tool":
            if not wire.tool_call_id:
                raise invalid("A tool message needs `tool_call_id`.", f"{param}.tool_call_id")
            name, id = bounds.called_name(wire.name or ""), bounds.call_id(wire.tool_call_id)
            said = (Text(content),) if type(content) is Raw else tuple(_parts(content, param))
            result = ToolResult(id, said, name=name)
            return Message("tool", (result,))
        case "assistant":
            return _assistant(wire, content, param)
        case _:
            raise unsupported(f"{param}.role", "Use role `tool` instead of `function`.")


def _assistant(wire: _MessageIn, content: _Content, param: str) -> Message:
    if wire.function_call is not _NOTHING and given(wire.function_call):
        raise unsupported(f"{param}.function_call", "Use `tool_calls`.")
    thoughts = _thoughts(wire)
    texts = [Text(content)] if type(content) is Raw else list(_texts(wire, content, param))
    if type(content) is Raw and may_hold(content, b"<"):
        inline, rest = untagged(texts[0].text)
        if inline and not thoughts:
            thoughts = [Thinking(inline)]
        if inline and "".join(t.text for t in thoughts) == inline:  # told twice: said once
            texts = [Text(rest)] if rest else []
    calls = []
    for i, call in enumerate(wire.tool_calls or ()):
        arguments: str | Raw
        if call.function is not None:
            name, said = call.function.name, string_or_none(call.function.arguments)
            where = f"{param}.tool_calls[{i}].function.arguments"
            arguments = said or _no_string(call.function.arguments, where)
        elif call.custom is not None:
            name, arguments = call.custom.name, wrapped(call.custom.input)
        else:
            where = f"{param}.tool_calls[{i}]"
            raise unsupported(f"{where}.{call.type}", "Only calls of functions are.")
        calls.append(ToolCall(bounds.call_id(call.id), bounds.called_name(name), arguments))
    return Message("assistant", (*thoughts, *texts, *calls))


def _no_string(arguments: Raw, where: str) -> str:
    """The text of arguments that are missing; Refused where they are of another type."""
    return decoded(_arguments_decoder, arguments, where) if bytes(arguments) else ""


def _thoughts(wire: _MessageIn) -> list[Thinking]:
    """A signature ends a part; unsigned pieces are one part, as streams are often kept."""
    if wire.reasoning_details is None and not (wire.reasoning_content or wire.reasoning):
        return []
    thoughts: list[Thinking] = []
    pieces: list[str] = []
    for detail in wire.reasoning_details or ():
        pieces.append(detail.text or "")
        if detail.signature:
            thoughts.append(Thinking("".join(pieces), detail.signature))
            pieces.clear()
    text, plain = "".join(pieces), wire.reasoning_content or wire.reasoning or ""
    if not thoughts and len(plain) > len(text) and text in plain:
        text = plain  # clients that replace details of the same `index` keep the last piece alone
    if text:
        thoughts.append(Thinking(text))
    return thoughts


def _texts(wire: _MessageIn, content: _Content, param: str) -> Iterator[Text]:
    for i, part in enumerate(_parts(content, param)):
        if not isinstance(part, Text):
            raise invalid(f"A {wire.role} message holds text only.", f"{param}.content[{i}]")
        yield part


def _parts(content: _Content, param: str) -> Iterator[Text | Media]:
    if content is None:
        return
    if isinstance(content, Raw):
        yield Text(content)
        return
    for i, part in enumerate(content):
        where = f"{param}.content[{i}]"
        text = string(part.text, where, "text") or string(part.refusal, where, "refusal")
        match part.type:
            case "text" | "refusal":
                if text is not None:
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


class _Fields(Struct, frozen=True):
    messages: Raw = _NOTHING
    input: Raw = _NOTHING
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


_fields_decoder = msgspec.json.Decoder(_Fields)


def _input_only(body: bytes) -> bool:
    """Whether a body has the `input` of Responses in place of messages."""
    try:
        found = _fields_decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return not given(found.messages) and given(found.input)


def _wants_usage(body: bytes) -> bool:
    found = _fields_decoder.decode(body)
    options = found.stream_options
    return not found.stream or (options is not None and options.include_usage is True)


_LIMITS = (
    ("max_completion_tokens",),
    ("max_tokens",),
    ("max_output_tokens",),
)  # the last: of Cursor


def request_in(
    body: bytes,
    target: RequestTarget,
    of_input: Callable[[bytes, RequestTarget], Request] | None = None,
) -> Request:
    """A client's request; raises errors.Refused.

    `of_input` reads a body of Responses, which Cursor sends to this path too.
    """
    return read_whole(
        lambda b: limits.read(lambda c: _read(c, target, of_input), b, *_LIMITS), body
    )


def _read(
    body: bytes,
    target: RequestTarget,
    of_input: Callable[[bytes, RequestTarget], Request] | None,
) -> Request:
    try:
        return _request(jsontext.decode_request(_request_decoder, body))
    except Refused as refused:
        if of_input is not None and b'"input"' in body and _input_only(body):
            request = of_input(body, target)
            return msgspec.structs.replace(request, want_usage=_wants_usage(body))
        rewritten, warnings = unknown.chat(body, refused)
    return _request(jsontext.decode_request(_request_decoder, rewritten)).warn(*warnings)
