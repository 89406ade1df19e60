"""Gemini generateContent: the wire of Google's SDKs and of Gemini CLI.

The only place for its words from clients.  Sources, read 2026-11: the types of google-genai 3.4,
ai.google.dev/api/generate-content, and what five releases of Google's SDKs do with each byte of a
stream (measured 2026-11).  `gemini_contents.py` holds the turns of a request, `gemini_reply.py`
what clients get, `gemini_upstream.py` the other side, what upstreams get and send.

Note: names come in camelCase and snake_case, mixed in one body, as proto JSON takes
both.

Known losses: `text/x.enum` is answered as a JSON string; the order of the text and the pictures of
one result; several texts in a row become one.
"""

import re
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from headgate import bounds, jsontext
from headgate.bounds import Int64
from headgate.chat import Choice, Format, Reasoning, Request, Sampling, Tool, WebSearch
from headgate.dialects import hints, limits, malformed, unknown, unreadable
from headgate.dialects.contract import RequestTarget
from headgate.dialects.fields import (
    EMPTY_SCHEMA,
    check_domains,
    check_sampling,
    given,
    read_whole,
    schema_of,
)
from headgate.dialects.gemini.contents import PART_TYPES, ContentIn, mended, messages_of, system_of
from headgate.dialects.gemini.names import Finder, camel, in_camel_case
from headgate.errors import Refused, invalid, unsupported

_Json = dict[str, object]

# --- wire types: what clients send ---------------------------------------------------------------

_NOTHING = Raw(b"")


class _FunctionIn(Struct, frozen=True, rename="camel"):
    name: str
    description: str | None = None
    parameters: Raw = _NOTHING
    parameters_json_schema: Raw = _NOTHING
    behavior: str | None = None
    response: Raw = _NOTHING
    response_json_schema: Raw = _NOTHING


class _FunctionConfigIn(Struct, frozen=True, gc=False, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class _ToolConfigIn(Struct, frozen=True, gc=False, rename="camel"):
    function_calling_config: _FunctionConfigIn | None = None
    retrieval_config: Raw = _NOTHING
    include_server_side_tool_invocations: bool | None = None


class _ThinkingIn(Struct, frozen=True, gc=False, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: Int64 | None = None
    thinking_level: Raw = _NOTHING  # a hint: whatever is no known word is ignored with a warning


class _ConfigIn(Struct, frozen=True, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None  # google-genai for Python sends 20.0
    max_output_tokens: Int64 | None = None
    stop_sequences: list[str] | None = None
    seed: Int64 | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: Raw = _NOTHING
    response_json_schema: Raw = _NOTHING
    thinking_config: _ThinkingIn | None = None
    # Refused when they ask for something, see `_refuse`:
    candidate_count: Int64 | None = None
    response_logprobs: bool | None = None
    logprobs: Int64 | None = None
    response_modalities: list[str] | None = None
    speech_config: Raw = _NOTHING
    # Ignored with a warning, see `_IGNORED`:
    media_resolution: Raw = _NOTHING
    image_config: Raw = _NOTHING
    audio_timestamp: Raw = _NOTHING
    routing_config: Raw = _NOTHING
    model_selection_config: Raw = _NOTHING
    enable_enhanced_civic_answers: Raw = _NOTHING
    audio_transcription_config: Raw = _NOTHING
    generation_output_config: Raw = _NOTHING


class _RequestIn(Struct, frozen=True, rename="camel"):
    # A text alone, one turn that is no list, and turns that are texts are common.
    contents: str | ContentIn | list[str | ContentIn] | None = None
    system_instruction: str | ContentIn | None = None
    tools: list[dict[str, Raw]] | None = None  # each key is another kind, refused by its name
    tool_config: _ToolConfigIn | None = None
    generation_config: _ConfigIn | None = None
    cached_content: str | None = None
    safety_settings: Raw = _NOTHING
    labels: Raw = _NOTHING
    model_armor_config: Raw = _NOTHING
    service_tier: Raw = _NOTHING
    store: Raw = _NOTHING
    generate_content_request: "_RequestIn | None" = None  # of countTokens


_request_decoder = msgspec.json.Decoder(_RequestIn)
_functions_decoder = msgspec.json.Decoder(list[_FunctionIn] | None)
_schema_decoder = msgspec.json.Decoder()
_SNAKE_CASE = Finder(
    (
        "function_declarations",
        *(
            field.name
            for struct in (
                _FunctionIn,
                _FunctionConfigIn,
                _ToolConfigIn,
                _ThinkingIn,
                _ConfigIn,
                _RequestIn,
                *PART_TYPES,
            )
            for field in msgspec.structs.fields(struct)
        ),
    )
)
_DEFAULTS = _ConfigIn()


def _read(body: bytes) -> _RequestIn:
    wire = jsontext.decode_request(_request_decoder, body)
    inner = wire.generate_content_request
    return inner if inner is not None and wire.contents is None else wire


# --- requests: from clients ----------------------------------------------------------------------

_CONFIG = "$.generationConfig"
_USUAL_SAMPLING = Sampling()


def _request(wire: _RequestIn, target: RequestTarget) -> Request:
    config = wire.generation_config or _DEFAULTS
    notes = _ignored(wire, config)
    _refuse(wire, config, notes)
    search = _search(wire.tools)
    declared = _tools(wire.tools, notes)
    tools, choice = _choice(wire.tool_config, declared, search, notes)
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


def _ignored(wire: _RequestIn, config: _ConfigIn) -> list[str]:
    """The names of hints that are ignored."""
    notes = [camel(n) for n in _IGNORED if bytes(getattr(wire, n)) not in _ASKS_NOTHING]
    if config is not _DEFAULTS:
        notes += [
            camel(n) for n in _IGNORED_OF_CONFIG if bytes(getattr(config, n)) not in _ASKS_NOTHING
        ]
    return notes


_UNSPOKEN = ("TEXT", "MODALITY_UNSPECIFIED")
_SPOKEN = ("IMAGE", "AUDIO", "VIDEO")


def _refuse(wire: _RequestIn, config: _ConfigIn, notes: list[str]) -> None:
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


def _sampling(config: _ConfigIn) -> Sampling:
    if config is _DEFAULTS:
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


def _reasoning(wire: _ThinkingIn | None, notes: list[str]) -> Reasoning:
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


def _format(config: _ConfigIn) -> Format | None:
    kind = (config.response_mime_type or "text/plain").lower()
    if kind not in ("application/json", "text/x.enum", "text/plain"):
        raise unsupported(f"{_CONFIG}.responseMimeType", "Use text/plain or application/json.")
    if given(config.response_json_schema):
        schema = _compact(config.response_json_schema, f"{_CONFIG}.responseJsonSchema")
    elif given(config.response_schema):
        schema = _googles(config.response_schema, f"{_CONFIG}.responseSchema")
    else:
        return None if kind == "text/plain" else Format("object")
    return Format("schema", "response", schema, True)


def _tools(wire: list[dict[str, Raw]] | None, notes: list[str]) -> tuple[Tool, ...]:
    bounds.check_size(wire, bounds.TOOLS, "$.tools")
    out: list[Tool] = []
    for i, tool in enumerate(wire or ()):
        for raw_name, value in tool.items():
            if camel(raw_name) in _SEARCHES:
                continue
            if raw_name != "functionDeclarations" and bytes(value) != b"null":
                # Executed by Google: the model answers without it, and nothing can force it.
                notes.append(f"tools.{unreadable.plain(camel(raw_name))}")
        place = f"$.tools[{i}].functionDeclarations"
        declared = _functions(tool.get("functionDeclarations", _NULL), place)
        bounds.check(len(out) + len(declared), bounds.TOOLS, place)
        for f in declared:
            if f.behavior not in (None, "", "UNSPECIFIED", "BLOCKING"):
                notes.append("functionDeclarations.behavior")
            if given(f.response) or given(f.response_json_schema):
                notes.append("functionDeclarations.response")
        out += [_tool(f, f"{place}[{k}]") for k, f in enumerate(declared)]
    return tuple(out)


_NULL = Raw(b"null")
# Google's searches of the web, which the gateway serves itself where it can.
_SEARCHES = frozenset(("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch"))


class _SearchIn(Struct, frozen=True, rename="camel"):
    exclude_domains: list[str] | None = None


_search_decoder = msgspec.json.Decoder(_SearchIn)


def _search(wire: list[dict[str, Raw]] | None) -> WebSearch | None:
    """The search of the web that the client declares."""
    for i, tool in enumerate(wire or ()):
        for raw_name, value in tool.items():
            name = camel(raw_name)
            if name not in _SEARCHES or not bytes(value).startswith(b"{"):
                continue
            place = f"$.tools[{i}].{name}"
            try:
                blocked = _search_decoder.decode(value).exclude_domains or ()
            except msgspec.ValidationError as error:
                message = str(error).partition(" - at ")[0]
                raise invalid(f"{message} - at `{place}`", place) from None
            check_domains(blocked, f"{place}.excludeDomains")
            return WebSearch(blocked=tuple(blocked))
    return None


def _functions(raw: Raw, where: str) -> list[_FunctionIn]:
    try:
        return _functions_decoder.decode(raw) or []
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        place = where + place.strip("`").removeprefix("$")
        raise invalid(f"{message} - at `{place}`", place) from None


def _tool(wire: _FunctionIn, param: str) -> Tool:
    if not wire.name:
        raise invalid("A function needs a name.", f"{param}.name")
    bounds.check_name(wire.name, f"{param}.name")
    if given(wire.parameters_json_schema):
        schema = _compact(wire.parameters_json_schema, f"{param}.parametersJsonSchema")
    elif given(wire.parameters):
        schema = _googles(wire.parameters, f"{param}.parameters")
    else:
        schema = EMPTY_SCHEMA
    return Tool(wire.name, wire.description or "", schema)


# Google's names of types in a schema that should be JSON Schema; Gemini CLI's router sends them.
_GOOGLES_TYPE = re.compile(
    rb'"type"\s*:\s*\[?\s*"(?:STRING|NUMBER|INTEGER|BOOLEAN|ARRAY|OBJECT|NULL|TYPE_UNSPECIFIED)"'
)


def _compact(raw: Raw, where: str) -> Raw:
    if _GOOGLES_TYPE.search(bytes(raw)):
        text = bytes(schema_of(raw, where))
        try:
            schema = _lower_types(_schema_decoder.decode(text))
        except msgspec.ValidationError as error:
            raise invalid(f"{str(error).partition(' - at ')[0]} - at `{where}`", where) from None
        return schema_of(Raw(jsontext.encode(schema)), where)
    return Raw(msgspec.json.format(bytes(schema_of(raw, where)), indent=-1))


# Keywords of JSON Schema below which there are schemas, by name or in a list or alone.
_NAMED_SCHEMAS = frozenset(
    ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
)
_SCHEMAS = frozenset(
    (
        "items",
        "prefixItems",
        "anyOf",
        "allOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "additionalProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "contains",
        "propertyNames",
        "additionalItems",
    )
)


def _lower_types(schema: Any) -> Any:  # Any: JSON in, JSON out
    """JSON Schema with Google's names of types in lower case; values and names are not touched."""
    if isinstance(schema, list):
        return [_lower_types(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, str):
            if value == "TYPE_UNSPECIFIED":
                continue
            value = value.lower()
        elif key == "type" and isinstance(value, list):
            value = [t.lower() if isinstance(t, str) else t for t in value]
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            value = {name: _lower_types(inner) for name, inner in value.items()}
        elif key in _SCHEMAS:
            value = _lower_types(value)
        elif key == "nullable":
            continue
        out[key] = value
    return _nullable(out) if schema.get("nullable") is True else out


def _googles(raw: Raw, where: str) -> Raw:
    """Google's Schema as JSON Schema; its values were counted, so that few are built."""
    text = bytes(schema_of(raw, where))
    try:
        schema = json_schema(_schema_decoder.decode(text), where)
    except msgspec.ValidationError as error:
        raise invalid(f"{str(error).partition(' - at ')[0]} - at `{where}`", where) from None
    return schema_of(Raw(jsontext.encode(schema)), where)


_INT64S = frozenset(
    ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
)
_INT64 = re.compile(r"-?[0-9]{1,19}")
_INSIDE = frozenset(("items", "anyOf", "additionalProperties", "prefixItems"))


def json_schema(schema: Any, where: str) -> Any:  # Any: JSON in, JSON out
    """Google's Schema as JSON Schema: types in lower case, `nullable` as a type, int64s as numbers."""
    if isinstance(schema, list):
        return [json_schema(s, where) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for raw, value in schema.items():
        key = camel(raw)
        match key:
            case "propertyOrdering" | "nullable":
                continue
            case "type" if isinstance(value, str):
                if value == "TYPE_UNSPECIFIED":
                    continue
                value = value.lower()
            case "type" if isinstance(value, list):
                value = [t.lower() if isinstance(t, str) else t for t in value]
            case "properties" | "defs" if isinstance(value, dict):
                value = {name: json_schema(inner, where) for name, inner in value.items()}
            case _ if key in _INSIDE:
                value = json_schema(value, where)
            case _ if key in _INT64S and isinstance(value, str):
                value = _int64(value, f"{where}...{key}")
            case "ref" if isinstance(value, str):
                value = value.replace("#/defs/", "#/$defs/", 1)
        out[{"defs": "$defs", "ref": "$ref"}.get(key, key)] = value
    return _nullable(out) if schema.get("nullable") is True else out


def _int64(text: str, where: str) -> int:
    """An int64 that proto JSON writes as a string."""
    if not _INT64.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise invalid(f"Expected a whole number of 64 bits in `{where.removeprefix('$.')}`.", where)
    return int(text)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema


def _choice(
    wire: _ToolConfigIn | None,
    tools: tuple[Tool, ...],
    search: WebSearch | None,
    notes: list[str],
) -> tuple[tuple[Tool, ...], Choice]:
    if wire is not None:
        if given(wire.retrieval_config):
            notes.append("toolConfig.retrievalConfig")
        if wire.include_server_side_tool_invocations:
            notes.append("toolConfig.includeServerSideToolInvocations")
    config = wire.function_calling_config if wire is not None else None
    if config is None:
        return tools, Choice()
    where = "$.toolConfig.functionCallingConfig"
    mode = (config.mode or "AUTO").upper()
    names = config.allowed_function_names or []
    bounds.check_size(names, bounds.TOOLS, f"{where}.allowedFunctionNames")
    allowed = set(names)
    if mode in ("ANY", "VALIDATED") and allowed:
        if unknown := allowed - {t.name for t in tools}:
            raise invalid(
                f"The function `{min(unknown)[:64]}` is not declared in `tools`.",
                f"{where}.allowedFunctionNames",
            )
        if mode == "ANY" and len(allowed) == 1:
            return tools, Choice("named", names[0])
        tools = tuple(t for t in tools if t.name in allowed)
    match mode:
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            return tools, Choice()
        case "NONE":
            return tools, Choice("none")
        case "ANY" if tools or search is not None:
            return tools, Choice("required")
        case "ANY":
            raise invalid(
                "`mode` ANY asks for a call but no function is declared.", f"{where}.mode"
            )
    notes.append(f"functionCallingConfig.mode ({unreadable.plain(mode)} read as AUTO)")
    return tools, Choice()


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
    if _SNAKE_CASE.found(body):
        body = in_camel_case(body)
    try:
        return _request(_read(body), target)
    except Refused as refused:
        again, warnings = malformed.mended(body, refused, "contents", mended)
    return _request(_read(again), target).warn(*warnings)
