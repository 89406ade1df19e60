"""Gemini generateContent: the wire of Google's SDKs and of Gemini CLI.

The only place for its words from clients.  Sources, read 2026-11: the types of google-genai 3.4,
ai.google.dev/api/generate-content, and what five releases of Google's SDKs do with each byte of a
stream (measured 2026-11).  `gemini_contents.py` holds the turns of a request, `gemini_reply.py`
what clients get, `gemini_upstream.py` the other side, what upstreams get and send.

What will surprise: names come in camelCase and snake_case, mixed in one body, as proto JSON takes
both.

Known losses: `text/x.enum` is answered as a JSON string; the order of the text and the pictures of
one result; several texts in a row become one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from headgate.chat import Choice, Format, Reasoning, Reply, Request, Sampling, Tool
from headgate.errors import Failure, invalid, unsupported
from headgate.wire import jsontext
from headgate.wire.bounds import check_sampling, schema_of
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target
from headgate.wire.gemini_contents import ContentIn, messages_of, system_of
from headgate.wire.gemini_reply import GeminiEncoder, failure_out, reply_out
from headgate.wire.gemini_upstream import GeminiDecoder, read_failure, request_out

_Json = dict[str, object]
_T = TypeVar("_T")

# --- wire types: what clients send ---------------------------------------------------------------

# `Any` below: JSON of the caller's own, carried and not read.  Raw would not do, since the names
# around it are changed before the types are looked at.


class _FunctionIn(Struct, frozen=True, rename="camel"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: Any = None


class _FunctionConfigIn(Struct, frozen=True, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class _ToolConfigIn(Struct, frozen=True, rename="camel"):
    function_calling_config: _FunctionConfigIn | None = None


class _ThinkingIn(Struct, frozen=True, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class _ConfigIn(Struct, frozen=True, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None  # google-genai for Python sends 20.0
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: Any = None
    thinking_config: _ThinkingIn | None = None
    # Refused when they ask for something, see `_refuse`:
    candidate_count: int | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_modalities: list[str] | None = None
    speech_config: Any = None


class _RequestIn(Struct, frozen=True, rename="camel"):
    contents: list[ContentIn]
    system_instruction: ContentIn | None = None
    tools: list[dict[str, Any]] | None = None  # each key is another kind, refused by its name
    tool_config: _ToolConfigIn | None = None
    generation_config: _ConfigIn = _ConfigIn()
    cached_content: str | None = None


# What stands below these keys is the caller's own: its names are not ours to change.
_OPAQUE = frozenset(
    (
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
        "executableCode",
        "codeExecutionResult",
    )
)
_any = msgspec.json.Decoder()


def _camel(key: str) -> str:
    if "_" not in key:
        return key
    first, *rest = key.split("_")
    return first + "".join(w[:1].upper() + w[1:] for w in rest) if first else key


def _named(value: Any, level: int = 1) -> Any:
    """The body with every name of ours in camelCase, and refused when it is nested too deep."""
    if isinstance(value, list):
        _check_level(level)
        return [_named(x, level + 1) for x in value]
    if not isinstance(value, dict):
        return value
    _check_level(level)
    out: dict[str, Any] = {}
    for key, inner in value.items():
        name = _camel(key)
        if out.get(name) is not None:
            if inner is None:
                continue
            raise invalid(f"The key `{name}` is given twice in one object; send it once.", "$")
        if name in _OPAQUE:
            _check_depth(inner, level + 1)
            out[name] = inner
        else:
            out[name] = _named(inner, level + 1)
    return out


def _check_depth(value: Any, level: int) -> None:
    if isinstance(value, dict | list):
        _check_level(level)
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, level + 1)


def _check_level(level: int) -> None:
    if level > jsontext.MAX_DEPTH:
        raise invalid(f"Nested deeper than {jsontext.MAX_DEPTH} levels.", "$")


def _content(value: Any) -> Any:
    """A Content as its type wants it: a text alone, and one part that is no list, are common."""
    if isinstance(value, str):
        return {"parts": [{"text": value}]}
    if isinstance(value, dict):
        parts = value.get("parts")
        if isinstance(parts, str):
            value["parts"] = [{"text": parts}]
        elif isinstance(parts, dict):
            value["parts"] = [parts]
    return value


def _read(body: bytes) -> _RequestIn:
    raw = jsontext.decode_request(_any, body)
    if not isinstance(raw, dict):
        raise invalid(f"Expected `object`, got `{type(raw).__name__}` - at `$`", "$")
    value = _named(raw)
    inner = value.get("generateContentRequest")  # of countTokens
    if isinstance(inner, dict) and value.get("contents") is None:
        value = inner
    contents = value.get("contents")
    if isinstance(contents, str | dict):
        value["contents"] = [_content(contents)]
    elif isinstance(contents, list):
        value["contents"] = [_content(c) for c in contents]
    value["systemInstruction"] = _content(value.get("systemInstruction"))
    if value.get("generationConfig") is None:
        value["generationConfig"] = {}
    return _typed(value, _RequestIn, "$")


def _typed(value: Any, type_: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        place = where + place.strip("`").removeprefix("$")
        raise invalid(f"{message} - at `{place}`", place) from None


# --- requests: from clients ----------------------------------------------------------------------

_CONFIG = "$.generationConfig"


def _request(wire: _RequestIn, target: Target) -> Request:
    config = wire.generation_config
    _refuse(wire, config)
    tools, choice = _choice(wire.tool_config, _tools(wire.tools))
    if not wire.contents:
        raise invalid("`contents` is empty; send at least one turn.", "$.contents")
    return Request(
        model=target.model,
        messages=(*system_of(wire.system_instruction), *messages_of(wire.contents)),
        stream=bool(target.stream),
        tools=tools,
        choice=choice,
        sampling=_sampling(config),
        reasoning=_reasoning(config.thinking_config),
        format=_format(config),
    )


def _refuse(wire: _RequestIn, config: _ConfigIn) -> None:
    """What changes the meaning of the reply and cannot be honoured, by name."""
    if config.candidate_count not in (None, 0, 1):
        raise unsupported(f"{_CONFIG}.candidateCount", "Send one request per reply.")
    if config.response_logprobs or config.logprobs:
        name = "responseLogprobs" if config.response_logprobs else "logprobs"
        raise unsupported(f"{_CONFIG}.{name}")
    if any(m.upper() != "TEXT" for m in config.response_modalities or ()):
        raise unsupported(f"{_CONFIG}.responseModalities", "Only TEXT comes out.")
    if config.speech_config is not None:
        raise unsupported(f"{_CONFIG}.speechConfig", "Only text comes out.")
    if wire.cached_content:
        raise unsupported("$.cachedContent", "Send the content itself; prefixes are cached anyway.")


def _sampling(config: _ConfigIn) -> Sampling:
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
}


def _reasoning(wire: _ThinkingIn | None) -> Reasoning:
    if wire is None:
        return Reasoning(show="omit")
    level, budget = (wire.thinking_level or "").upper(), wire.thinking_budget
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
    schema, where = config.response_json_schema, f"{_CONFIG}.responseJsonSchema"
    if schema is None:
        schema, where = json_schema(config.response_schema), f"{_CONFIG}.responseSchema"
    if schema is None:
        return None if kind == "text/plain" else Format("object")
    return Format("schema", "response", schema_of(Raw(jsontext.encode(schema)), where), True)


def _tools(wire: list[dict[str, Any]] | None) -> tuple[Tool, ...]:
    out = []
    for i, tool in enumerate(wire or ()):
        for name, given in tool.items():
            if name != "functionDeclarations" and given is not None:
                raise unsupported(f"$.tools[{i}].{name}", "Declare functions instead.")
        place = f"$.tools[{i}].functionDeclarations"
        declared = _typed(tool.get("functionDeclarations") or [], list[_FunctionIn], place)
        out += [_tool(f, f"{place}[{k}]") for k, f in enumerate(declared)]
    return tuple(out)


def _tool(wire: _FunctionIn, param: str) -> Tool:
    if not wire.name:
        raise invalid("A function needs a name.", f"{param}.name")
    schema, where = wire.parameters_json_schema, f"{param}.parametersJsonSchema"
    if schema is None:
        schema, where = json_schema(wire.parameters), f"{param}.parameters"
    return Tool(wire.name, wire.description or "", schema_of(Raw(jsontext.encode(schema)), where))


_INT64S = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_INSIDE = ("items", "anyOf", "additionalProperties", "prefixItems")


def json_schema(schema: Any) -> Any:  # Any: JSON in, JSON out
    """Google's Schema as JSON Schema: types in lower case, `nullable` as a type, int64s as numbers."""
    if isinstance(schema, list):
        return [json_schema(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for raw, value in schema.items():
        key = _camel(raw)
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
                value = {name: json_schema(inner) for name, inner in value.items()}
            case _ if key in _INSIDE:
                value = json_schema(value)
            case _ if key in _INT64S and isinstance(value, str) and value.isdecimal():
                value = int(value)
            case "ref" if isinstance(value, str):
                value = value.replace("#/defs/", "#/$defs/", 1)
        out[{"defs": "$defs", "ref": "$ref"}.get(key, key)] = value
    return _nullable(out) if schema.get("nullable") is True else out


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema


def _choice(wire: _ToolConfigIn | None, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], Choice]:
    config = wire.function_calling_config if wire is not None else None
    if config is None:
        return tools, Choice()
    where = "$.toolConfig.functionCallingConfig"
    mode = (config.mode or "AUTO").upper()
    allowed = list(dict.fromkeys(config.allowed_function_names or ()))
    if mode in ("ANY", "VALIDATED") and allowed:
        if unknown := sorted(set(allowed) - {t.name for t in tools}):
            raise invalid(
                f"The function `{unknown[0][:64]}` is not declared in `tools`.",
                f"{where}.allowedFunctionNames",
            )
        if mode == "ANY" and len(allowed) == 1:
            return tools, Choice("named", allowed[0])
        tools = tuple(t for t in tools if t.name in allowed)
    match mode:
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            return tools, Choice()
        case "NONE":
            return tools, Choice("none")
        case "ANY" if tools:
            return tools, Choice("required")
        case "ANY":
            raise invalid(
                "`mode` ANY asks for a call but no function is declared.", f"{where}.mode"
            )
    raise invalid(f"Expected AUTO, ANY, NONE or VALIDATED, got `{mode[:40]}`.", f"{where}.mode")


# --- the dialect ---------------------------------------------------------------------------------


class GeminiDialect:
    name: ClassVar[str] = "gemini"
    capsules: ClassVar[Literal["signed", "shown", "always"]] = "always"
    stream_type: ClassVar[str] = "text/event-stream"
    array_type: ClassVar[str] = "application/json"
    keepalive: ClassVar[bytes] = b"\n"  # in an array, too: whitespace between its elements

    def decode_request(self, body: bytes, target: Target) -> Request:
        return _request(_read(body), target)

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return GeminiEncoder(facts, target.array)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        return reply_out(reply, facts)

    def encode_count(self, tokens: int) -> bytes:
        """The answer to countTokens."""
        return jsontext.encode({"totalTokens": tokens})

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        return failure_out(failure, request_id)

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        return failure.kind == "blocked"  # a reply of status 200, so in the form of its stream

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        # "The maximum is 1000, even if you pass a larger page_size" (Models.list)
        size = min(_number(query, "pageSize", 50) or 50, 1000)
        first = _number(query, "pageToken", 0)
        out: _Json = {"models": [_card(c) for c in cards[first : first + size]]}
        if first + size < len(cards):
            out["nextPageToken"] = str(first + size)
        return jsontext.encode(out)

    def encode_model(self, card: ModelCard) -> bytes:
        return jsontext.encode(_card(card))

    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        return jsontext.encode(request_out(request, capabilities))

    def request_path(self, model: str, stream: bool) -> str:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/models/{model}:{method}"

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder:
        return GeminiDecoder(media, seed)

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return read_failure(status, headers, body)


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    said = query.get(name) or query.get(name[:4] + "_" + name[4:].lower()) or str(default)
    if not (said.isascii() and said.isdecimal() and len(said) < 10):
        raise invalid(f"Expected a number in `{name}`, got `{said[:40]}`.", f"$.{name}")
    return int(said)


def _card(card: ModelCard) -> _Json:
    return {
        "name": f"models/{card.id}",
        "baseModelId": card.id,
        "version": "1",
        "displayName": card.display_name,
        "description": card.description,
        "inputTokenLimit": card.context_window,
        "outputTokenLimit": card.max_output,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent"],
        "thinking": card.thinking,
        "temperature": 1.0,
        "maxTemperature": 2.0,
        "topP": 0.95,
        "topK": 40,
    }
