"""Gemini generateContent is the wire of Google's SDKs and of Gemini CLI.

The only place for its words from clients.  Sources, read 2026-11: the types of google-genai 3.4,
ai.google.dev/api/generate-content, and what five releases of Google's SDKs do with each byte of a
stream (measured 2026-11).  `gemini_contents.py` holds the turns of a request, `gemini_reply.py`
what clients get, `gemini_upstream.py` the other side, what upstreams get and send.

Note: names come in camelCase and snake_case, mixed in one body, as proto JSON takes
both.

Known losses: `text/x.enum` is answered as a JSON string; the order of the text and the pictures of
one result; several texts in a row become one.
"""

from typing import Literal

from headgate import bounds, jsontext
from headgate.chat import Format, Reasoning, Request, Sampling
from headgate.dialects import hints, limits, malformed, unknown, unknown_fields, unreadable
from headgate.dialects.contract import RequestTarget
from headgate.dialects.fields import (
    check_sampling,
    given,
    read_whole,
)
from headgate.dialects.gemini.contents import messages_of, system_of
from headgate.dialects.gemini.mended import mended
from headgate.dialects.gemini.names import camel, in_camel_case
from headgate.dialects.gemini.request_wire import (
    DEFAULTS,
    SNAKE_CASE,
    ConfigIn,
    FunctionConfigIn,
    FunctionIn,
    RequestIn,
    ThinkingIn,
    ToolConfigIn,
    read_request,
)
from headgate.dialects.gemini.schemas import compact, googles
from headgate.dialects.gemini.tools import choice_of, search_of, tools_of
from headgate.errors import Refused, invalid, unsupported

# --- requests: from clients ----------------------------------------------------------------------

_CONFIG = "$.generationConfig"
_USUAL_SAMPLING = Sampling()


def _request(wire: RequestIn, target: RequestTarget) -> Request:
    config = wire.generation_config or DEFAULTS
    notes = _ignored(wire, config)
    _refuse(wire, config, notes)
    stated = [wire.tools] if isinstance(wire.tools, dict) else wire.tools
    search = search_of(stated)
    declared = tools_of(stated, notes)
    tools, choice = choice_of(wire.tool_config, declared, search, notes)
    contents = wire.contents
    if contents is None:
        raise invalid("Object missing required field `contents` - at `$`", "$.contents")
    if not isinstance(contents, list):
        contents = [contents]
    if not contents:
        raise invalid("`contents` is empty; send at least one turn.", "$.contents")
    request = Request(
        model=target.model,
        messages=(*system_of(wire.system_instruction, notes), *messages_of(contents, notes)),
        stream=bool(target.stream),
        tools=tools,
        choice=choice,
        sampling=_sampling(config),
        reasoning=_reasoning(config.thinking_config, notes),
        format=_format(config),
        search=search,
    )
    return request.warn(*notes)


# Hints: what they ask for is not had, and the reply means the same without them.
_IGNORED = (
    "safety_settings",
    "labels",
    "model_armor_config",
    "service_tier",
    "store",
)
_IGNORED_OF_CONFIG = (
    "media_resolution",
    "image_config",
    "audio_timestamp",
    "routing_config",
    "model_selection_config",
    "enable_enhanced_civic_answers",
    "audio_transcription_config",
    "generation_output_config",
)
_ASKS_NOTHING = (b"", b"null", b"[]", b"{}", b"false")


def _ignored(wire: RequestIn, config: ConfigIn) -> list[str]:
    """The names of hints that are ignored."""
    notes = [camel(n) for n in _IGNORED if bytes(getattr(wire, n)) not in _ASKS_NOTHING]
    if config is not DEFAULTS:
        notes += [
            camel(n) for n in _IGNORED_OF_CONFIG if bytes(getattr(config, n)) not in _ASKS_NOTHING
        ]
    return notes


_UNSPOKEN = ("TEXT", "MODALITY_UNSPECIFIED")
_SPOKEN = ("IMAGE", "AUDIO", "VIDEO")


def _refuse(wire: RequestIn, config: ConfigIn, notes: list[str]) -> None:
    """What changes the meaning of the reply and cannot be honoured, by name."""
    if config.candidate_count not in (None, 0, 1):
        raise unsupported(f"{_CONFIG}.candidateCount", "Send one request per reply.")
    if config.response_logprobs or config.logprobs:
        name = "responseLogprobs" if config.response_logprobs else "logprobs"
        raise unsupported(f"{_CONFIG}.{name}")
    bounds.check_size(config.response_modalities, bounds.WORDS, f"{_CONFIG}.responseModalities")
    for modality in config.response_modalities or ():
        if modality.upper() in _SPOKEN:
            raise unsupported(f"{_CONFIG}.responseModalities", "Only TEXT comes out.")
        if modality.upper() not in _UNSPOKEN:
            notes.append(f"responseModalities ({unreadable.plain(modality)} ignored)")
    if given(config.speech_config):
        raise unsupported(f"{_CONFIG}.speechConfig", "Only text comes out.")
    if wire.cached_content:
        raise unsupported("$.cachedContent", "Send the content itself; prefixes are cached anyway.")


def _sampling(config: ConfigIn) -> Sampling:
    if config is DEFAULTS:
        return _USUAL_SAMPLING
    bounds.check_size(config.stop_sequences, bounds.STOPS, f"{_CONFIG}.stopSequences")
    if config.top_k is not None and not 0 <= config.top_k < 2**31:
        raise invalid(f"Expected a number from 0, got {config.top_k:g}.", f"{_CONFIG}.topK")
    sampling = Sampling(
        max_tokens=config.max_output_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=None if config.top_k is None else round(config.top_k),
        seed=config.seed,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        stop=tuple(config.stop_sequences or ()),
    )
    check_sampling(sampling, f"{_CONFIG}.", "maxOutputTokens", camel=True)
    return sampling


_EFFORTS = {
    "MINIMAL": "minimal",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
    "XHIGH": "xhigh",
    "MAX": "max",
}


_LEVELS = frozenset(("", "NONE", "THINKING_LEVEL_UNSPECIFIED", *_EFFORTS))


def _reasoning(wire: ThinkingIn | None, notes: list[str]) -> Reasoning:
    if wire is None:
        return Reasoning(show="omit")
    level, budget = unknown.word_of(wire.thinking_level).strip().upper(), wire.thinking_budget
    if level not in _LEVELS:
        known = unknown.effort(level).upper()
        read = f"read as {known}" if known else "ignored"
        notes.append(f"thinkingLevel ({unreadable.plain(level)} {read})")
        level = known
    mode: Literal["default", "on", "off"] = "default"
    if budget == 0 or level in ("MINIMAL", "NONE"):
        mode = "off"
    elif budget is not None or level in _EFFORTS:
        mode = "on"
    return Reasoning(
        mode=mode,
        show="yes" if wire.include_thoughts else "omit",
        effort=_EFFORTS.get(level, ""),
        budget_tokens=budget if budget is not None and budget > 0 else None,  # -1: the model's own
    )


def _format(config: ConfigIn) -> Format | None:
    kind = (config.response_mime_type or "text/plain").lower()
    if kind not in ("application/json", "text/x.enum", "text/plain"):
        raise unsupported(f"{_CONFIG}.responseMimeType", "Use text/plain or application/json.")
    if given(config.response_json_schema):
        schema = compact(config.response_json_schema, f"{_CONFIG}.responseJsonSchema")
    elif given(config.response_schema):
        schema = googles(config.response_schema, f"{_CONFIG}.responseSchema")
    else:
        return None if kind == "text/plain" else Format("object")
    return Format("schema", "response", schema, True)


# As they may be sent; proto's JSON takes both forms of a name.
_LIMITS = tuple(
    (config, name)
    for config in ("generationConfig", "generation_config")
    for name in ("maxOutputTokens", "max_output_tokens")
)


# What only tunes a reply: with a value of another type it is left out.
_HINTS = (
    "generationConfig.thinkingConfig",
    "generationConfig.thinkingConfig.includeThoughts",
    "generationConfig.thinkingConfig.thinkingBudget",
    "generationConfig.thinkingConfig.thinkingLevel",
    "generationConfig.mediaResolution",
    "generationConfig.seed",
    "generationConfig.topK",
    "labels",
    "serviceTier",
    "safetySettings",
)


def request_in(body: bytes, target: RequestTarget) -> Request:
    """A client's request; raises errors.Refused."""
    return read_whole(lambda b: _hinted(b, target), body)


def _hinted(body: bytes, target: RequestTarget) -> Request:
    return hints.read(
        lambda b: limits.read(lambda c: _checked(c, target), b, *_LIMITS), body, _HINTS
    )


def _checked(body: bytes, target: RequestTarget) -> Request:
    jsontext.check_values(body)
    if SNAKE_CASE.found(body):
        body = in_camel_case(body)
    return unknown_fields.read(lambda b: _read(b, target), body, _PLACES)


_PLACES = {
    "$": unknown_fields.names_of(RequestIn),
    "$.generationConfig": unknown_fields.names_of(ConfigIn),
    "$.generationConfig.thinkingConfig": unknown_fields.names_of(ThinkingIn),
    "$.tools[].functionDeclarations[]": unknown_fields.names_of(FunctionIn),
    "$.toolConfig": unknown_fields.names_of(ToolConfigIn),
    "$.toolConfig.functionCallingConfig": unknown_fields.names_of(FunctionConfigIn),
}


def _read(body: bytes, target: RequestTarget) -> Request:
    try:
        return _request(read_request(body), target)
    except Refused as refused:
        if unknown_fields.is_at(refused, _PLACES):
            raise
        again, warnings = malformed.mended(body, refused, "contents", mended)
    return _request(read_request(again), target).warn(*warnings)
