"""Gemini generateContent: the wire of Google's SDKs and of Gemini CLI.

The only place for its words.  Sources, read 2026-11: ai.google.dev/api/generate-content, the types
of google-genai 3.4, and what five releases of Google's SDKs do with each byte of a stream
(measured 2026-11).  `gemini_upstream.py` holds the other side, what upstreams get and send.

What will surprise:
- names come in camelCase and snake_case, mixed in one body (proto JSON takes both);
- a stream holds nothing but `data: ` lines: comments, `event:` lines and `[DONE]` each crash some
  SDK; without `alt=sse` it is one JSON array;
- calls may come without ids, so that results find them by name and order;
- a last chunk without text would make google-genai's chats forget the whole turn.

Known losses: `text/x.enum` is answered as a JSON string; the order of the text and the pictures of
one result; several texts in a row become one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from headgate.chat import (
    Choice,
    Delta,
    Event,
    Finish,
    FinishReason,
    Format,
    Media,
    Message,
    Part,
    PartStart,
    PartStop,
    Reasoning,
    Reply,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from headgate.errors import Failure, Kind, invalid, unsupported
from headgate.wire import jsontext, sse
from headgate.wire.bounds import check_sampling, schema_of
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target
from headgate.wire.gemini_upstream import (
    GeminiDecoder,
    bytes_of,
    compact,
    decode_signature,
    encode_signature,
    read_failure,
    request_out,
)

_Json = dict[str, object]
_T = TypeVar("_T")

# --- wire types: what clients send ---------------------------------------------------------------

# `Any` below: JSON of the caller's own, carried and not read.  Raw would not do, since the names
# around it are changed before the types are looked at.


class _BlobIn(Struct, frozen=True, rename="camel"):
    data: str = ""
    mime_type: str = ""


class _FileIn(Struct, frozen=True, rename="camel"):
    file_uri: str = ""
    mime_type: str | None = None


class _CallIn(Struct, frozen=True):
    name: str = ""
    args: dict[str, Any] | None = None
    id: str | None = None


class _ResultIn(Struct, frozen=True):
    name: str = ""
    response: dict[str, Any] | None = None
    id: str | None = None
    parts: "list[_PartIn] | None" = None


class _PartIn(Struct, frozen=True, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: _BlobIn | None = None
    file_data: _FileIn | None = None
    function_call: _CallIn | None = None
    function_response: _ResultIn | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None


class _ContentIn(Struct, frozen=True):
    parts: list[_PartIn] | None = None
    role: str | None = None


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
    contents: list[_ContentIn]
    system_instruction: _ContentIn | None = None
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
SENTINEL = "skip_thought_signature_validator"  # gemini-cli 0.61, for turns that had no signature
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
        messages=(*_system(wire.system_instruction), *_messages(wire.contents)),
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


def _system(wire: _ContentIn | None, param: str = "$.systemInstruction") -> tuple[Message, ...]:
    parts = (wire.parts if wire is not None else None) or ()
    for k, p in enumerate(parts):
        if p.text is None:
            raise unsupported(f"{param}.parts[{k}]", "System instructions are text.")
    text = "".join(p.text or "" for p in parts)
    return (Message("system", (Text(text),)),) if text else ()


def _messages(contents: Sequence[_ContentIn]) -> list[Message]:
    history = _History()
    for i, content in enumerate(contents):
        match content.role:
            case "model":
                history.model(content, i)
            case None | "" | "user" | "function":
                history.user(content, i)
            case "system":  # not Google's; what we ourselves send to upstreams that take it
                history.out += _system(content, f"$.contents[{i}]")
            case role:
                where = f"$.contents[{i}].role"
                raise invalid(f"Unknown role `{role[:40]}`: expected user or model.", where)
    return history.out


class _History:
    """Contents to messages; remembers the calls of the last model turn that wait for results."""

    def __init__(self) -> None:
        self.out: list[Message] = []
        self._waiting: list[ToolCall] = []

    def model(self, content: _ContentIn, i: int) -> None:
        parts: list[Part] = []
        self._waiting = []
        for k, p in enumerate(content.parts or ()):
            where = f"$.contents[{i}].parts[{k}]"
            signature = decode_signature(said) if (said := _signed_by(p)) else ""
            if p.thought and p.function_call is None:
                _think(parts, p.text or "", signature)
                continue
            if signature:
                _think(parts, "", signature)
            if p.function_call is not None:
                call = _call(p.function_call, i, k, f"{where}.functionCall")
                self._waiting.append(call)
                parts.append(call)
            elif p.inline_data is not None or p.file_data is not None:
                raise unsupported(where, "A turn of the model holds text and calls.")
            elif p.function_response is not None:
                raise invalid(
                    "A functionResponse belongs in a turn of the role `user`.",
                    f"{where}.functionResponse",
                )
            else:
                _say(parts, p.text or _rendered(p))
        self.out.append(Message("assistant", tuple(parts)))

    def user(self, content: _ContentIn, i: int) -> None:
        parts: list[Part] = []
        results: list[tuple[str, _ResultIn]] = []
        for k, p in enumerate(content.parts or ()):
            where = f"$.contents[{i}].parts[{k}]"
            if p.function_response is not None:
                results.append((f"{where}.functionResponse", p.function_response))
            elif p.inline_data is not None:
                blob = _blob(p.inline_data, f"{where}.inlineData")
                if isinstance(blob, Text):
                    _say(parts, blob.text)
                else:
                    parts.append(blob)
            elif p.file_data is not None:
                parts.append(_file(p.file_data, f"{where}.fileData"))
            elif p.function_call is not None:
                raise invalid(
                    "A functionCall belongs in a turn of the role `model`.", f"{where}.functionCall"
                )
            elif p.text is None and not (rendered := _rendered(p)):
                raise invalid("A part needs text, data, a call or a result.", where)
            else:
                _say(parts, rendered if p.text is None else p.text)
        self._results(results)
        if parts or not results:
            self.out.append(Message("user", tuple(parts)))

    def _results(self, results: list[tuple[str, _ResultIn]]) -> None:
        """By id, else by name in their order, else by position; each call is answered once."""
        left = self._waiting
        found: dict[str, str] = {}
        for by in ("id", "name", "position"):
            for where, r in results:
                if where in found:
                    continue
                match by:
                    case "id":
                        call = next((c for c in left if c.id == r.id), None)
                    case "name":
                        call = next((c for c in left if c.name == r.name), None)
                    case _:
                        call = left[0] if left and not r.id else None
                if call is not None:
                    found[where] = call.id
                    left.remove(call)
        for where, r in results:
            id = found.get(where) or r.id  # of a call that is not there: policy/history.py's
            if not id:
                raise invalid(
                    "Please ensure that the number of function response parts is equal to the"
                    " number of function call parts of the function call turn: no call waits for"
                    f" the response of `{r.name[:64]}`.",
                    where,
                )
            self.out.append(Message("tool", (_result(r, id, where),)))


def _signed_by(p: _PartIn) -> str:
    said = p.thought_signature or ""
    return "" if said == SENTINEL else said


def _think(parts: list[Part], text: str, signature: str) -> None:
    """Streams are often kept as they came: pieces are one thinking, up to its signature."""
    last = parts[-1] if parts else None
    if isinstance(last, Thinking) and not last.signature:
        parts[-1] = Thinking(last.text + text, signature)
    elif text or signature:
        parts.append(Thinking(text, signature))


def _say(parts: list[Part], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, Text):
        parts[-1] = Text(last.text + text)
    elif text:
        parts.append(Text(text))


def _call(wire: _CallIn, turn: int, k: int, where: str) -> ToolCall:
    if not wire.name:
        raise invalid("A functionCall needs a name.", f"{where}.name")
    args = jsontext.encode(wire.args or {}).decode()
    if wire.id:
        return ToolCall(wire.id, wire.name, args)
    # The same each time the history is replayed, or the upstream's prompt cache would miss.
    hashed = hashlib.sha256(f"{wire.name}{args}".encode()).hexdigest()[:8]
    return ToolCall(f"call_{turn}_{k}_{hashed}", wire.name, args)


def _result(wire: _ResultIn, id: str, where: str) -> ToolResult:
    value = wire.response or {}
    alone = next(iter(value)) if len(value) == 1 else ""
    parts: list[Text | Media] = []
    text = value.get(alone)
    if alone not in ("output", "result", "error") or not isinstance(text, str):
        text = jsontext.encode(value).decode() if value else ""
    if text:
        parts.append(Text(text))
    for k, p in enumerate(wire.parts or ()):
        if p.inline_data is not None:
            parts.append(_blob(p.inline_data, f"{where}.parts[{k}].inlineData"))
        elif p.file_data is not None:
            parts.append(_file(p.file_data, f"{where}.parts[{k}].fileData"))
        else:
            raise unsupported(f"{where}.parts[{k}]", "Send inlineData or fileData.")
    return ToolResult(id, tuple(parts), alone == "error", wire.name)


def _rendered(p: _PartIn) -> str:
    """What Google's own tools left in a history, as text."""
    if p.executable_code is not None:
        return f"```\n{p.executable_code.get('code', '')}\n```"
    if p.code_execution_result is not None:
        return str(p.code_execution_result.get("output", ""))
    other = p.tool_call or p.tool_response
    return jsontext.encode(other).decode() if other else ""


def _blob(wire: _BlobIn, where: str) -> Text | Media:
    kind = wire.mime_type.lower()
    if not kind.startswith(("image/", "text/")):
        raise unsupported(
            f"{where}.mimeType", f"`{wire.mime_type[:40]}` is not taken; send text or images."
        )
    data = bytes_of(wire.data)
    if not data:
        raise invalid("The data is not base64.", f"{where}.data")
    if kind.startswith("image/"):
        # google-genai for Python writes the URL's alphabet, which no other protocol takes.
        said = wire.data.rstrip("=").replace("-", "+").replace("_", "/")
        return Media("image", media_type=kind, data=said + "=" * (-len(said) % 4))
    try:
        return Text(data.decode())
    except UnicodeDecodeError:
        raise invalid("The text is not UTF-8.", f"{where}.data") from None


def _file(wire: _FileIn, where: str) -> Media:
    kind = (wire.mime_type or "").lower()
    if kind and not kind.startswith("image/"):
        raise unsupported(f"{where}.mimeType", f"`{kind[:40]}` is not taken; send images.")
    if not wire.file_uri.startswith(("http://", "https://")):
        raise unsupported(f"{where}.fileUri", "Send images by http(s) address or inline.")
    return Media("image", url=wire.file_uri, media_type=kind)


# --- replies: to clients -------------------------------------------------------------------------

_FINISH_OUT: dict[FinishReason, str] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "length": "MAX_TOKENS",
    "context_full": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}
_MALFORMED = "MALFORMED_FUNCTION_CALL"


def _usage(usage: Usage) -> _Json:
    out: _Json = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(0, usage.output - usage.reasoning),
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cached:
        out["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        out["thoughtsTokenCount"] = usage.reasoning
    return out


def _text_out(text: str, signature: str = "") -> bytes:
    signed = _signed(signature) if signature else b""
    return b'{"text":' + jsontext.encode(text) + signed + b"}"


def _thought_out(text: str) -> bytes:
    return b'{"text":' + jsontext.encode(text) + b',"thought":true}'


def _call_out(call: ToolCall, signature: str) -> bytes | None:
    """The part of a whole call, or None when its arguments are no JSON object."""
    args = compact(call.arguments)
    if args is None:
        return None
    said = jsontext.encode({"id": call.id, "name": call.name, "args": args})
    return b'{"functionCall":' + said + (_signed(signature) if signature else b"") + b"}"


def _signed(signature: str) -> bytes:
    return b',"thoughtSignature":"' + encode_signature(signature).encode() + b'"'


def _candidate(parts: Sequence[bytes], reason: str = "") -> bytes:
    finish = b',"finishReason":"' + reason.encode() + b'"' if reason else b""
    head = b'{"candidates":[{"content":{"role":"model","parts":['
    return head + b",".join(parts) + b"]}" + finish + b',"index":0}]'


def _facts(facts: Facts) -> bytes:
    return b"," + jsontext.encode({"modelVersion": facts.model, "responseId": facts.id})[1:]


def _reply_out(reply: Reply, facts: Facts) -> bytes:
    parts: list[bytes] = []
    reason, signature = _FINISH_OUT[reply.finish.reason], ""
    for p in reply.parts:
        if isinstance(p, Thinking):
            if signature:
                parts.append(_text_out("", signature))
            if p.text:
                parts.append(_thought_out(p.text))
            signature = p.signature
            continue
        part = _text_out(p.text, signature) if isinstance(p, Text) else _call_out(p, signature)
        if part is None:
            reason = _MALFORMED if reason == "STOP" else reason  # a cut call is told by its cause
            continue
        signature = ""
        parts.append(part)
    if signature or not parts:
        parts.append(_text_out("", signature))
    usage = b',"usageMetadata":' + jsontext.encode(_usage(reply.usage))
    return _candidate(parts, reason) + usage + _facts(facts)


class GeminiEncoder:
    """Only the text of a chunk is encoded anew; the rest of its bytes are the same each time."""

    def __init__(self, facts: Facts, array: bool) -> None:
        self._array = array
        self._facts = _facts(facts)
        self._id = facts.id
        self._next = b"[" if array else b"data: "
        self._part = PartStart("text")
        self._pieces: list[str] = []  # of a call's arguments: calls are sent whole
        self._signature = ""  # of thinking, for the next part that is none
        self._malformed = False
        self._told = False  # something was sent

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            match event:
                case Delta(text):
                    if self._part.kind == "text":
                        out.append(self._chunk(_text_out(text, self._take())))
                    elif self._part.kind == "thinking":
                        out.append(self._chunk(_thought_out(text)))
                    else:
                        self._pieces.append(text)
                case PartStart(kind):
                    if kind == "thinking" and self._signature:
                        out.append(self._chunk(_text_out("", self._take())))
                    self._part, self._pieces = event, []
                case PartStop(signature):
                    if self._part.kind == "thinking":
                        self._signature = signature
                    elif self._part.kind == "tool_call":
                        out.append(self._call())
                case Finish():
                    out.append(self._finish(event))
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        """Two forms of events: gemini-cli's SDK raises only on the second, without `data: `."""
        if failure.kind == "blocked" and not self._told:
            # The reply to a blocked prompt, in the form of a stream.
            last = self._next + jsontext.encode(_blocked(self._id))
            return (last + (b"]" if self._array else b"\n\n"),)
        error = jsontext.encode(_error(failure))
        if self._array:
            return (self._next + error + b"]",)
        return sse.encode(error), error + b"\n\n"

    def _take(self) -> str:
        signature, self._signature = self._signature, ""
        return signature

    def _chunk(self, part: bytes, reason: str = "", usage: bytes = b"") -> bytes:
        text = self._next + _candidate((part,), reason) + usage + self._facts
        self._told = True
        if not self._array:
            return text + b"\n\n"
        self._next = b"\n,\n"
        return text

    def _call(self) -> bytes:
        call = ToolCall(self._part.id, self._part.name, "".join(self._pieces))
        part = _call_out(call, self._signature)
        if part is None:
            self._malformed = True
            return b""
        self._signature = ""
        return self._chunk(part)

    def _finish(self, finish: Finish) -> bytes:
        reason = _FINISH_OUT[finish.reason]
        if self._malformed and reason == "STOP":
            reason = _MALFORMED  # a call that was cut short is told by its cause instead
        usage = b',"usageMetadata":' + jsontext.encode(_usage(finish.usage or Usage()))
        # With `parts: []`, google-genai's chats would call the turn invalid and forget it.
        last = self._chunk(_text_out("", self._take()), reason, usage)
        return last + b"]" if self._array else last


def stream_content_type(target: Target) -> str:
    return "application/json" if target.array else "text/event-stream"


# --- errors --------------------------------------------------------------------------------------

# kind: (HTTP status, google.rpc.Code, reason).  A blocked prompt is no error here but a reply
# without candidates; in a stream that began it is one.
_ERRORS: dict[Kind, tuple[int, str, str]] = {
    "invalid": (400, "INVALID_ARGUMENT", ""),
    "context_length": (400, "INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED"),
    "blocked": (400, "INVALID_ARGUMENT", "SAFETY"),
    "too_large": (413, "INVALID_ARGUMENT", "REQUEST_TOO_LARGE"),
    "media_type": (415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    "not_found": (404, "NOT_FOUND", ""),
    "method": (405, "UNIMPLEMENTED", ""),
    "conflict": (409, "ABORTED", ""),
    "request_timeout": (408, "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT"),
    "unauthenticated": (401, "UNAUTHENTICATED", "API_KEY_INVALID"),
    "forbidden": (403, "PERMISSION_DENIED", ""),
    "no_credit": (429, "RESOURCE_EXHAUSTED", "INSUFFICIENT_CREDITS"),
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
    "internal": (500, "INTERNAL", ""),
    "unavailable": (503, "UNAVAILABLE", ""),
    "upstream": (503, "UNAVAILABLE", "UPSTREAM_ERROR"),
    "upstream_auth": (503, "UNAVAILABLE", "UPSTREAM_AUTH"),
    "overloaded": (503, "UNAVAILABLE", "OVERLOADED"),
    "timeout": (504, "DEADLINE_EXCEEDED", ""),
    "client_gone": (499, "CANCELLED", ""),
}
_RPC = "type.googleapis.com/google.rpc."


def _blocked(request_id: str) -> _Json:
    feedback = {"blockReason": "SAFETY", "safetyRatings": []}
    return {"promptFeedback": feedback, "responseId": request_id}


def _error(failure: Failure) -> _Json:
    status, word, reason = _ERRORS[failure.kind]
    message = failure.message
    if failure.param:
        field = failure.param.removeprefix("$.")
        if field not in message:
            message = f"{field}: {message}"
    details: list[_Json] = []
    if failure.retry_after_s is not None:
        delay = f"{failure.retry_after_s:.3f}".rstrip("0").rstrip(".") + "s"
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": delay})
    if reason := failure.code.upper() or reason:
        details.append({"@type": f"{_RPC}ErrorInfo", "reason": reason, "domain": "headgate"})
    if failure.param:
        violation = {"field": field, "description": failure.message}
        details.append({"@type": f"{_RPC}BadRequest", "fieldViolations": [violation]})
    error: _Json = {"code": status, "message": message, "status": word}
    if details:
        error["details"] = details
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return {"error": error}


# --- the dialect ---------------------------------------------------------------------------------


class GeminiDialect:
    name: ClassVar[str] = "gemini"
    capsules: ClassVar[Literal["signed", "shown", "always"]] = "always"
    stream_type: ClassVar[str] = "text/event-stream"
    keepalive: ClassVar[bytes] = b"\n"  # in an array, too: whitespace between its elements

    def decode_request(self, body: bytes, target: Target) -> Request:
        return _request(_read(body), target)

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return GeminiEncoder(facts, target.array)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        return _reply_out(reply, facts)

    def encode_count(self, tokens: int) -> bytes:
        """The answer to countTokens."""
        return jsontext.encode({"totalTokens": tokens})

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        if failure.kind == "blocked":
            return 200, jsontext.encode(_blocked(request_id))
        return _ERRORS[failure.kind][0], jsontext.encode(_error(failure))

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
