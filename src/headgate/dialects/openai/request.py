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

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from headgate import bounds, jsontext
from headgate.bounds import OPENAI_STOPS
from headgate.chat import (
    Format,
    Reasoning,
    Request,
    Sampling,
)
from headgate.dialects import limits, provider, unknown, unknown_chat, unknown_fields
from headgate.dialects.contract import (
    RequestTarget,
)
from headgate.dialects.fields import (
    check_sampling,
    given,
    read_whole,
)
from headgate.dialects.openai.messages import messages_of
from headgate.dialects.openai.openrouter import openrouter_reasoning
from headgate.dialects.openai.request_wire import (
    NOTHING,
    USUAL_REASONING,
    USUAL_SAMPLING,
    FormatIn,
    FunctionIn,
    RequestIn,
    SchemaIn,
    StreamOptions,
    request_decoder,
)
from headgate.dialects.openai.tools import schema_in, search_of, tools_of
from headgate.errors import Refused, invalid, unsupported

# --- requests: from clients ----------------------------------------------------------------------


def _request(wire: RequestIn) -> Request:
    _refuse(wire)
    stream = bool(wire.stream)
    warnings: list[str] = []
    search = None
    if wire.web_search_options and bytes(wire.web_search_options).startswith(b"{"):
        search = search_of(wire.web_search_options, warnings)
    tools, choice = tools_of(wire, search)
    if wire.logit_bias and given(wire.logit_bias):
        _check_bias(wire.logit_bias)
        warnings.append("logit_bias")
    if wire.reasoning and given(wire.reasoning):
        wire = openrouter_reasoning(wire, warnings)
    if wire.service_tier is not None and wire.service_tier not in unknown.TIERS:
        warnings.append("service_tier")
    if wire.prediction and given(wire.prediction):  # it would only make the reply come sooner
        warnings.append("prediction")
    if wire.store:
        warnings.append("store")
    if wire.verbosity is not None and wire.verbosity != "medium":
        warnings.append("verbosity")
    preferences = provider.preferences(wire.provider, warnings)
    return Request(
        model=wire.model,
        messages=messages_of(wire.messages),
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


def _refuse(wire: RequestIn) -> None:
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
    if wire.audio and given(wire.audio):
        raise unsupported("$.audio")
    if wire.functions and given(wire.functions):
        raise unsupported("$.functions", "Use `tools`.")
    if wire.function_call and given(wire.function_call):
        raise unsupported("$.function_call", "Use `tool_choice`.")


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


def _sampling(wire: RequestIn) -> Sampling:
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
        return USUAL_SAMPLING
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


def _reasoning(wire: RequestIn) -> Reasoning:
    """MiniMax's own switch wins over an effort; an effort other than none asks for thinking."""
    if wire.thinking is None and wire.reasoning_effort is None and wire.reasoning_split is None:
        return USUAL_REASONING
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


def _format(wire: FormatIn) -> Format | None:
    if wire.type == "text":
        return None
    if wire.type == "json_object":
        return Format("object")
    schema, where = wire.json_schema, "$.response_format.json_schema"
    if schema is None:
        raise invalid("`response_format.json_schema` is missing.", where)
    bounds.check_size(schema.name, bounds.NAME, f"{where}.name")
    kept = schema_in(schema.schema, f"{where}.schema")
    return Format("schema", schema.name, kept, bool(schema.strict))


class _Fields(Struct, frozen=True):
    messages: Raw = NOTHING
    input: Raw = NOTHING
    stream: bool | None = None
    stream_options: StreamOptions | None = None


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
        lambda b: limits.read(lambda c: _known(c, target, of_input), b, *_LIMITS), body
    )


_PLACES = {
    "$": unknown_fields.names_of(RequestIn),
    "$.tools[].function": unknown_fields.names_of(FunctionIn),
    "$.response_format": unknown_fields.names_of(FormatIn),
    "$.response_format.json_schema": unknown_fields.names_of(SchemaIn),
}


def _known(
    body: bytes,
    target: RequestTarget,
    of_input: Callable[[bytes, RequestTarget], Request] | None,
) -> Request:
    return unknown_fields.read(
        lambda b: _read(b, target, of_input), body, _PLACES, unknown_chat.parameters
    )


def _read(
    body: bytes,
    target: RequestTarget,
    of_input: Callable[[bytes, RequestTarget], Request] | None,
) -> Request:
    try:
        return _of_own(body)
    except Refused as refused:
        if of_input is not None and b'"input"' in body and _input_only(body):
            request = of_input(body, target)
            return msgspec.structs.replace(request, want_usage=_wants_usage(body))
        if unknown_fields.is_at(refused, _PLACES):
            raise
        rewritten, warnings = unknown_chat.chat(body, refused)
    # A tool in another form may have fields that show only now.
    return unknown_fields.read(_of_own, rewritten, _PLACES).warn(*warnings)


def _of_own(body: bytes) -> Request:
    return _request(jsontext.decode_request(request_decoder, body))
