"""Gemini generateContent, in both directions: as clients speak it to us, as we would to an upstream.

Sources: the google-genai SDK's types (3.4, 2026-11) and what five releases of Google's SDKs do
with each byte of a stream (measured 2026-11).  What will surprise: names come in camelCase and
snake_case, mixed in one body; a stream holds nothing but `data: ` lines, since comments, `event:`
lines and `[DONE]` each crash some SDK; without `alt=sse` a stream is one JSON array; and calls may
come without ids, so that results find them by name and order.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

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
from headgate.wire import jsontext, sse, vendor
from headgate.wire.bounds import MAX_COUNT, check_sampling, schema_of
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target

# ---------------------------------------------------------------- wire types


class Blob(msgspec.Struct, rename="camel"):
    data: str = ""
    mime_type: str = ""


class FileData(msgspec.Struct, rename="camel"):
    file_uri: str = ""
    mime_type: str = ""


class FunctionCall(msgspec.Struct):
    name: str = ""
    args: dict[str, Any] | None = None  # Any: whatever the model wrote
    id: str | None = None


class FunctionResponse(msgspec.Struct):
    name: str = ""
    response: dict[str, Any] | None = None  # Any: whatever the tool answered
    id: str | None = None
    parts: "list[WirePart] | None" = None


class WirePart(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None


class Content(msgspec.Struct):
    parts: list[WirePart] | None = None
    role: str | None = None


class Declaration(msgspec.Struct, rename="camel"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: Any = None


class FunctionConfig(msgspec.Struct, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfig(msgspec.Struct, rename="camel"):
    function_calling_config: FunctionConfig | None = None


class ThinkingConfig(msgspec.Struct, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(msgspec.Struct, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: Any = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_modalities: list[str] | None = None
    speech_config: Any = None
    thinking_config: ThinkingConfig | None = None


class Body(msgspec.Struct, rename="camel"):
    contents: list[Content]
    system_instruction: Content | None = None
    tools: list[dict[str, Any]] | None = None
    tool_config: ToolConfig | None = None
    generation_config: GenerationConfig | None = None
    cached_content: str | None = None


# What stands below these keys is the caller's own: its names are not ours to change.
_OPAQUE = frozenset(
    ("args", "response", "parameters", "parametersJsonSchema", "responseSchema",
     "responseJsonSchema", "labels", "executableCode", "codeExecutionResult")
)  # fmt: skip
SENTINEL = "skip_thought_signature_validator"  # gemini-cli 0.61 sends it for turns that had none
_any = msgspec.json.Decoder()


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(w[:1].upper() + w[1:] for w in rest) if rest and first else key


def _plain_names(value: Any) -> Any:
    """The body with every name of ours in camelCase; proto JSON takes both."""
    if isinstance(value, dict):
        out = {}
        for key, inner in value.items():
            name = _camel(key)
            out[name] = inner if name in _OPAQUE else _plain_names(inner)
        return out
    if isinstance(value, list):
        return [_plain_names(x) for x in value]
    return value


# ---------------------------------------------------------------- requests


def _read(body: bytes) -> Body:
    raw = jsontext.decode_request(_any, body)
    if not isinstance(raw, dict):
        raise invalid(f"Expected `object`, got `{type(raw).__name__}` - at `$`", "$")
    jsontext.check_depth(body, "$")
    value = _plain_names(raw)
    contents = value.get("contents")
    if isinstance(contents, str):
        value["contents"] = [{"role": "user", "parts": [{"text": contents}]}]
    elif isinstance(contents, dict):
        value["contents"] = [contents]
    instruction = value.get("systemInstruction")
    if isinstance(instruction, str):
        value["systemInstruction"] = {"parts": [{"text": instruction}]}
    try:
        return msgspec.convert(value, Body)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at ")[2]
        raise invalid(str(error), place.strip("`") or "$") from None


def decode_signature(said: str) -> str:
    """What `encode_signature` was given; "" for the sentinel and for what no base64 is."""
    if said == SENTINEL:
        return ""
    try:
        return base64.b64decode(
            said.replace("-", "+").replace("_", "/") + "=" * (-len(said) % 4), validate=True
        ).decode("ascii")
    except (binascii.Error, ValueError):
        return ""


def encode_signature(signature: str) -> str:
    """Standard base64, which Google's SDKs insist on."""
    return base64.b64encode(signature.encode()).decode()


def _blob(b: Blob, where: str) -> Text | Media:
    kind = b.mime_type.partition("/")[0]
    if kind == "image":
        return Media("image", "", b.mime_type, b.data)
    if kind == "text":
        try:
            return Text(base64.b64decode(b.data).decode())
        except (binascii.Error, ValueError):
            raise invalid("Expected base64 of UTF-8 text.", f"{where}.data") from None
    raise unsupported(
        f"{where}.mimeType", f"`{b.mime_type[:40]}` is not taken; send text or images."
    )


def _file(f: FileData, where: str) -> Media:
    if (
        f.file_uri.startswith(("http://", "https://"))
        and f.mime_type.startswith(("image/", ""))
        and not f.mime_type.startswith(("audio/", "video/", "application/"))
    ):
        return Media("image", f.file_uri)
    raise unsupported(f"{where}.fileUri", "Send images by http(s) address or inline.")


def call_id(turn: int, k: int, name: str, args: str) -> str:
    """An id for a call that came without one: the same each time the history is replayed."""
    return f"call_{turn}_{k}_{hashlib.sha256(f'{name}{args}'.encode()).hexdigest()[:8]}"


class _History:
    """Contents to messages; remembers the calls of the last model turn that wait for results."""

    def __init__(self) -> None:
        self.out: list[Message] = []
        self.waiting: list[ToolCall] = []

    def model(self, content: Content, i: int) -> None:
        parts: list[Part] = []
        calls: list[ToolCall] = []
        for k, p in enumerate(content.parts or ()):
            where = f"$.contents[{i}].parts[{k}]"
            signature = decode_signature(p.thought_signature or "")
            if p.thought:
                parts.append(Thinking(p.text or "", signature))
                continue
            if signature:
                last = parts[-1] if parts else None
                if isinstance(last, Thinking) and not last.signature:
                    parts[-1] = Thinking(last.text, signature)
                else:
                    parts.append(Thinking("", signature))
            if p.function_call is not None:
                f = p.function_call
                if not f.name:
                    raise invalid("A functionCall needs a name.", f"{where}.functionCall.name")
                args = jsontext.encode(f.args or {}).decode()
                call = ToolCall(f.id or call_id(i, k, f.name, args), f.name, args)
                calls.append(call)
                parts.append(call)
            elif p.text is not None:
                if p.text:
                    parts.append(Text(p.text))
            elif text := _rendered(p):
                parts.append(Text(text))
            elif p.inline_data is not None or p.file_data is not None:
                raise unsupported(where, "A model turn holds text and function calls.")
        self.waiting = calls
        self.out.append(Message("assistant", _joined(parts)))

    def user(self, content: Content, i: int) -> None:
        parts: list[Part] = []
        results: list[tuple[int, FunctionResponse]] = []
        for k, p in enumerate(content.parts or ()):
            where = f"$.contents[{i}].parts[{k}]"
            if p.function_response is not None:
                results.append((k, p.function_response))
            elif p.inline_data is not None:
                parts.append(_blob(p.inline_data, f"{where}.inlineData"))
            elif p.file_data is not None:
                parts.append(_file(p.file_data, f"{where}.fileData"))
            elif p.function_call is not None:
                raise invalid(
                    "A functionCall belongs in a turn of the role `model`.", f"{where}.functionCall"
                )
            elif p.text is not None:
                if p.text:
                    parts.append(Text(p.text))
            elif text := _rendered(p):
                parts.append(Text(text))
        self._results(results, i)
        if parts or not results:
            self.out.append(Message("user", _joined(parts)))

    def _results(self, results: list[tuple[int, FunctionResponse]], i: int) -> None:
        """By id, else by name in their order, else by position; each call is answered once."""
        found: dict[int, ToolCall] = {}
        left = list(self.waiting)
        for by in ("id", "name", "place"):
            for k, r in results:
                if k in found:
                    continue
                match by:
                    case "id":
                        call = next((c for c in left if r.id and c.id == r.id), None)
                    case "name":
                        call = next((c for c in left if c.name == r.name), None)
                    case _:
                        call = left[0] if left and not r.id and not r.name else None
                if call is not None:
                    found[k] = call
                    left.remove(call)
        for k, r in results:
            where = f"$.contents[{i}].parts[{k}].functionResponse"
            call = found.get(k)
            if call is None and self.out and r.id:
                id = r.id  # history that begins after its call: policy/history.py decides
            elif call is None:
                raise invalid(
                    "Please ensure that the number of function response parts is equal to the number of "
                    f"function call parts of the function call turn: no call of `{r.name[:64]}` waits for this one.",
                    where,
                )
            else:
                id = call.id
            self.out.append(Message("tool", (_result(r, id, where),)))
        if results:
            self.waiting = left


def _result(r: FunctionResponse, id: str, where: str) -> ToolResult:
    value = r.response or {}
    parts: list[Text | Media] = []
    if (
        len(value) == 1
        and isinstance(said := next(iter(value.values())), str)
        and next(iter(value)) in ("output", "result", "error")
    ):
        parts.append(Text(said))
    elif value:
        parts.append(Text(jsontext.encode(value).decode()))
    for k, p in enumerate(r.parts or ()):
        if p.inline_data is not None:
            parts.append(_blob(p.inline_data, f"{where}.parts[{k}].inlineData"))
        elif p.file_data is not None:
            parts.append(_file(p.file_data, f"{where}.parts[{k}].fileData"))
    return ToolResult(id, tuple(parts), "error" in value and len(value) == 1, r.name)


def _rendered(p: WirePart) -> str:
    """What Google's own tools left in a history, as text."""
    if p.executable_code is not None:
        return f"```\n{p.executable_code.get('code', '')}\n```"
    if p.code_execution_result is not None:
        return str(p.code_execution_result.get("output", ""))
    other = p.tool_call or p.tool_response
    return jsontext.encode(other).decode() if other else ""


def _joined(parts: list[Part]) -> tuple[Part, ...]:
    """Text parts that follow each other are one text, without a separator."""
    out: list[Part] = []
    for p in parts:
        last = out[-1] if out else None
        if isinstance(p, Text) and isinstance(last, Text):
            out[-1] = Text(last.text + p.text)
        else:
            out.append(p)
    return tuple(out)


_NUMBERS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def json_schema(schema: Any) -> Any:
    """Google's Schema as JSON Schema: types in lower case, `nullable` as a type, int64s as numbers."""
    if isinstance(schema, list):
        return [json_schema(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for raw, value in schema.items():
        key = _camel(raw)
        if key in ("propertyOrdering", "nullable"):
            continue
        if key == "type" and isinstance(value, str):
            value = value.lower()
        elif key == "properties" and isinstance(value, dict):
            value = {name: json_schema(inner) for name, inner in value.items()}
        elif key in ("items", "anyOf", "additionalProperties"):
            value = json_schema(value)
        elif key in _NUMBERS and isinstance(value, str) and value.isdigit():
            value = int(value)
        out[key] = value
    if schema.get("nullable") is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out


def _tools(tools: list[dict[str, Any]] | None) -> tuple[Tool, ...]:
    out = []
    for i, tool in enumerate(tools or ()):
        for name in tool:
            if name != "functionDeclarations" and tool[name] is not None:
                raise unsupported(f"$.tools[{i}].{name}", "Declare functions instead.")
        try:
            declarations = msgspec.convert(
                tool.get("functionDeclarations") or [], list[Declaration]
            )
        except msgspec.ValidationError as error:
            raise invalid(str(error), f"$.tools[{i}].functionDeclarations") from None
        for k, d in enumerate(declarations):
            where = f"$.tools[{i}].functionDeclarations[{k}]"
            schema = (
                d.parameters_json_schema
                if d.parameters_json_schema is not None
                else json_schema(d.parameters)
            )
            raw = msgspec.Raw(jsontext.encode(schema))
            out.append(Tool(d.name, d.description or "", schema_of(raw, f"{where}.parameters")))
    return tuple(out)


def _choice(config: ToolConfig | None, tools: tuple[Tool, ...]) -> tuple[Choice, tuple[Tool, ...]]:
    c = config.function_calling_config if config is not None else None
    if c is None:
        return Choice(), tools
    mode = (c.mode or "AUTO").upper()
    where = "$.toolConfig.functionCallingConfig"
    allowed = c.allowed_function_names or []
    if allowed and mode in ("ANY", "VALIDATED"):
        if missing := set(allowed) - {t.name for t in tools}:
            raise invalid(
                f"There is no function `{sorted(missing)[0][:64]}`.",
                f"{where}.allowedFunctionNames",
            )
        tools = tuple(t for t in tools if t.name in allowed)
    match mode:
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            return Choice(), tools
        case "NONE":
            return Choice("none"), tools
        case "ANY" if len(allowed) == 1:
            return Choice("named", allowed[0]), tools
        case "ANY":
            return Choice("required"), tools
    raise invalid(f"Expected AUTO, ANY, NONE or VALIDATED, got `{mode[:40]}`.", f"{where}.mode")


def _format(g: GenerationConfig) -> Format | None:
    schema = (
        g.response_json_schema
        if g.response_json_schema is not None
        else json_schema(g.response_schema)
    )
    kind = (g.response_mime_type or "text/plain").lower()
    if kind == "text/plain" and schema is None:
        return None
    if kind not in ("application/json", "text/x.enum", "text/plain"):
        raise unsupported(
            "$.generationConfig.responseMimeType", "Use text/plain or application/json."
        )
    if schema is None:
        return Format("object")
    raw = schema_of(msgspec.Raw(jsontext.encode(schema)), "$.generationConfig.responseSchema")
    return Format("schema", "response", raw, True)


_LEVELS = {"MINIMAL": "minimal", "LOW": "low", "MEDIUM": "medium", "HIGH": "high", "XHIGH": "xhigh"}


def _reasoning(t: ThinkingConfig | None) -> Reasoning:
    if t is None:
        return Reasoning("default", "omit")
    level = (t.thinking_level or "").upper()
    off = t.thinking_budget == 0 or level in ("MINIMAL", "NONE")
    on = t.thinking_budget is not None or level in _LEVELS
    budget = t.thinking_budget if t.thinking_budget and t.thinking_budget > 0 else None
    return Reasoning(
        "off" if off else "on" if on else "default",
        "yes" if t.include_thoughts else "omit",
        _LEVELS.get(level, ""),
        budget,
    )


# ---------------------------------------------------------------- replies

FINISH: dict[FinishReason, str] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "length": "MAX_TOKENS",
    "context_full": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}
_FROM: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
}


def _usage(u: Usage) -> dict[str, int]:
    out = {
        "promptTokenCount": u.input,
        "candidatesTokenCount": u.output - u.reasoning,
        "totalTokenCount": u.input + u.output,
    }
    if u.cached:
        out["cachedContentTokenCount"] = u.cached
    if u.reasoning:
        out["thoughtsTokenCount"] = u.reasoning
    return out


def _call_part(id: str, name: str, arguments: str) -> dict[str, object] | None:
    """The part of a whole call, or None when its arguments are no JSON object."""
    if not jsontext.is_object(arguments or "{}"):
        return None
    args = msgspec.Raw((arguments or "{}").encode())
    return {"functionCall": {"id": id, "name": name, "args": args}}


def stream_content_type(target: Target) -> str:
    return "application/json" if target.array else "text/event-stream"


class GeminiEncoder:
    def __init__(self, facts: Facts, array: bool) -> None:
        self._array = array
        self._begun = False
        self._ending = {"modelVersion": facts.model, "responseId": facts.id}
        self._part = PartStart("text")
        self._pieces: list[str] = []
        self._signature = ""  # of thinking, for the next part that is none
        self._sent = False
        self._malformed = False

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            kind = type(event)
            if kind is Delta:
                assert isinstance(event, Delta)
                if self._part.kind == "text":
                    out.append(self._chunk([self._signed({"text": event.text})]))
                elif self._part.kind == "thinking":
                    out.append(self._chunk([{"text": event.text, "thought": True}]))
                else:
                    self._pieces.append(event.text)
            elif kind is PartStart:
                assert isinstance(event, PartStart)
                self._part, self._pieces = event, []
            elif kind is PartStop:
                assert isinstance(event, PartStop)
                if self._part.kind == "thinking":
                    self._signature = event.signature or self._signature
                elif self._part.kind == "tool_call":
                    part = _call_part(self._part.id, self._part.name, "".join(self._pieces))
                    if part is None:
                        self._malformed = True
                    else:
                        out.append(self._chunk([self._signed(part)]))
            elif kind is Finish:
                assert isinstance(event, Finish)
                out.append(self._end(event))
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        """Two forms for SSE: some SDKs raise on the first, gemini-cli's only on the bare second."""
        text = jsontext.encode(_error(failure))
        if self._array:
            return ((b",\n" if self._begun else b"[") + text + b"]",)
        return (sse.encode(text), text + b"\n\n")

    def _end(self, finish: Finish) -> bytes:
        reason = "MALFORMED_FUNCTION_CALL" if self._malformed else FINISH[finish.reason]
        parts: list[dict[str, object]] = []
        if self._signature:
            parts = [self._signed({"text": ""})]
        elif not self._sent:
            parts = [{"text": ""}]
        last = self._chunk(parts, reason, finish.usage or Usage())
        return last + b"]" if self._array else last

    def _signed(self, part: dict[str, object]) -> dict[str, object]:
        if self._signature:
            part["thoughtSignature"] = encode_signature(self._signature)
            self._signature = ""
        return part

    def _chunk(
        self, parts: list[dict[str, object]], reason: str = "", usage: Usage | None = None
    ) -> bytes:
        self._sent = True
        candidate: dict[str, object] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if reason:
            candidate["finishReason"] = reason
        value: dict[str, object] = {"candidates": [candidate]}
        if usage is not None:
            value["usageMetadata"] = _usage(usage)
        text = jsontext.encode(value | self._ending)
        if not self._array:
            return sse.encode(text)
        before = b",\n" if self._begun else b"["
        self._begun = True
        return before + text


class _Candidate(msgspec.Struct, rename="camel"):
    content: Content | None = None
    finish_reason: str | None = None


class _UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0
    cached_content_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _WireError(msgspec.Struct):
    code: int = 0
    message: str = ""
    status: str = ""


class _Chunk(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: _UsageMetadata | None = None
    prompt_feedback: _Feedback | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: _WireError | None = None


_chunk = msgspec.json.Decoder(_Chunk)
_chunks = msgspec.json.Decoder(list[_Chunk])


class GeminiDecoder(Decoder):
    def __init__(self, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._calls = 0

    def payload(self, payload: bytes) -> None:
        self._take(jsontext.decode_upstream(_chunk, payload, _Chunk))

    def whole(self, body: bytes) -> None:
        if body.lstrip().startswith(b"["):
            chunks = jsontext.decode_upstream(_chunks, body, list[_Chunk])
        else:
            chunks = [jsontext.decode_upstream(_chunk, body, _Chunk)]
        for chunk in chunks:
            if not self.framer.ended:
                self._take(chunk)
        if not self.framer.ended:
            self.eof()

    def eof(self) -> None:
        if self._reason is not None:
            self.framer.finish(self._reason, self._usage)

    def _take(self, chunk: _Chunk) -> None:
        framer = self.framer
        if chunk.error is not None:
            e = chunk.error
            framer.fail(vendor.failure_of(e.code or 500, e.message, type_=e.status), self._usage)
            return
        if u := chunk.usage_metadata:
            counts = (
                u.prompt_token_count,
                u.candidates_token_count,
                u.cached_content_token_count,
                u.thoughts_token_count,
            )
            if any(counts) and all(0 <= n <= MAX_COUNT for n in counts):
                self._usage = Usage(
                    u.prompt_token_count,
                    u.candidates_token_count + u.thoughts_token_count,
                    min(u.cached_content_token_count, u.prompt_token_count),
                    0,
                    u.thoughts_token_count,
                )
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            framer.fail(
                Failure("blocked", "The upstream refused the prompt as sensitive."), self._usage
            )
            return
        for candidate in (chunk.candidates or ())[:1]:
            framer.start(chunk.response_id or "", chunk.model_version or "")
            for part in (candidate.content.parts if candidate.content else None) or ():
                self._part(part)
            if candidate.finish_reason:
                self._reason = _FROM.get(candidate.finish_reason, "stop")

    def _part(self, p: WirePart) -> None:
        framer = self.framer
        if p.thought:
            framer.thinking(p.text or "")
        if p.thought_signature and (signature := decode_signature(p.thought_signature)):
            framer.signature(signature)
        if p.thought:
            return
        if p.function_call is not None:
            f = p.function_call
            args = jsontext.encode(f.args or {}).decode()
            framer.call(self._calls, f.id or "", f.name, args)
            self._calls += 1
            framer.close_part()
        elif p.text:
            framer.text(p.text)


# ---------------------------------------------------------------- errors

_ERRORS: dict[Kind, tuple[int, str, str]] = {
    "invalid": (400, "INVALID_ARGUMENT", ""),
    "context_length": (400, "INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED"),
    "blocked": (200, "INVALID_ARGUMENT", "SAFETY"),
    "too_large": (413, "INVALID_ARGUMENT", "REQUEST_TOO_LARGE"),
    "media_type": (415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    "not_found": (404, "NOT_FOUND", ""),
    "method": (405, "UNIMPLEMENTED", ""),
    "conflict": (409, "ABORTED", ""),
    "request_timeout": (408, "INVALID_ARGUMENT", "REQUEST_TIMEOUT"),
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


def _error(failure: Failure) -> dict[str, object]:
    status, word, reason = _ERRORS[failure.kind]
    message = failure.message
    if failure.param and failure.param not in message:
        message = f"{failure.param.removeprefix('$.')}: {message}"
    details: list[dict[str, object]] = []
    if failure.retry_after_s is not None:
        delay = f"{failure.retry_after_s:.3f}".rstrip("0").rstrip(".") + "s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    if reason := failure.code.upper() or reason:
        info: dict[str, object] = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "headgate",
        }
        if failure.upstream_code:
            info["metadata"] = {"upstream_code": failure.upstream_code}
        details.append(info)
    # In a stream a blocked prompt is an error like any other; 200 would be no error to the SDKs.
    error: dict[str, object] = {
        "code": 400 if status == 200 else status,
        "message": message,
        "status": word,
    }
    if details:
        error["details"] = details
    return {"error": error}


class GeminiDialect:
    name: ClassVar[str] = "gemini"
    stream_type: ClassVar[str] = "text/event-stream"
    keepalive: ClassVar[bytes] = b"\n"

    def decode_request(self, body: bytes, target: Target) -> Request:
        b = _read(body)
        g = b.generation_config or GenerationConfig()
        config = "$.generationConfig"
        if g.candidate_count not in (None, 1):
            raise unsupported(f"{config}.candidateCount", "Send 1, or several requests.")
        if g.response_logprobs or g.logprobs:
            raise unsupported(f"{config}.responseLogprobs", "Leave it out.")
        if any(m.upper() != "TEXT" for m in g.response_modalities or ()):
            raise unsupported(f"{config}.responseModalities", "Only TEXT is answered.")
        if g.speech_config is not None:
            raise unsupported(f"{config}.speechConfig", "Only text is answered.")
        if b.cached_content:
            raise unsupported(
                "$.cachedContent", "Send the content itself; prefixes are cached anyway."
            )
        tools = _tools(b.tools)
        choice, tools = _choice(b.tool_config, tools)
        sampling = Sampling(
            g.max_output_tokens, g.temperature, g.top_p, None if g.top_k is None else round(g.top_k),
            g.seed, g.presence_penalty, g.frequency_penalty, tuple(g.stop_sequences or ()),
        )  # fmt: skip
        check_sampling(sampling, f"{config}.", "maxOutputTokens", camel=True)
        history = _History()
        for i, content in enumerate(b.contents):
            match content.role:
                case "model":
                    history.model(content, i)
                case None | "user" | "function" | "":
                    history.user(content, i)
                case "system":
                    text = "".join(p.text or "" for p in content.parts or ())
                    history.out.append(Message("system", (Text(text),)))
                case role:
                    raise invalid(
                        f"Unknown role `{role[:40]}`: expected user or model.",
                        f"$.contents[{i}].role",
                    )
        system: tuple[Message, ...] = ()
        if b.system_instruction is not None:
            text = "".join(p.text or "" for p in b.system_instruction.parts or ())
            system = (Message("system", (Text(text),)),) if text else ()
        return Request(
            model=target.model,
            messages=(*system, *history.out),
            stream=bool(target.stream),
            tools=tools,
            choice=choice,
            sampling=sampling,
            reasoning=_reasoning(g.thinking_config),
            format=_format(g),
        )

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return GeminiEncoder(facts, target.array)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        parts: list[dict[str, object]] = []
        signature = ""
        reason = FINISH[reply.finish.reason]
        for p in reply.parts:
            part: dict[str, object] | None
            if isinstance(p, Thinking):
                if p.text:
                    parts.append({"text": p.text, "thought": True})
                signature = p.signature or signature
                continue
            if isinstance(p, Text):
                part = {"text": p.text}
            else:
                part = _call_part(p.id, p.name, p.arguments)
                if part is None:
                    reason = "MALFORMED_FUNCTION_CALL"
                    continue
            if signature:
                part["thoughtSignature"] = encode_signature(signature)
                signature = ""
            parts.append(part)
        if signature:
            parts.append({"text": "", "thoughtSignature": encode_signature(signature)})
        candidate = {
            "content": {"role": "model", "parts": parts or [{"text": ""}]},
            "finishReason": reason,
            "index": 0,
        }
        return jsontext.encode(
            {
                "candidates": [candidate],
                "usageMetadata": _usage(reply.usage),
                "modelVersion": facts.model,
                "responseId": facts.id,
            }
        )

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        if failure.kind == "blocked":
            feedback = {"blockReason": "SAFETY", "safetyRatings": []}
            return 200, jsontext.encode({"promptFeedback": feedback, "responseId": request_id})
        return _ERRORS[failure.kind][0], jsontext.encode(_error(failure))

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        try:
            size = max(1, min(1000, int(query.get("pageSize") or query.get("page_size") or 50)))
            first = int(query.get("pageToken") or query.get("page_token") or 0)
        except ValueError:
            raise invalid(
                "Expected numbers in `pageSize` and `pageToken`.", "$.pageToken"
            ) from None
        page = cards[first : first + size]
        out: dict[str, object] = {"models": [_model(c) for c in page]}
        if first + size < len(cards):
            out["nextPageToken"] = str(first + size)
        return jsontext.encode(out)

    def encode_model(self, card: ModelCard) -> bytes:
        return jsontext.encode(_model(card))

    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        return encode_contents(request)

    def request_path(self, model: str, stream: bool) -> str:
        return f"/models/{model}:" + (
            "streamGenerateContent?alt=sse" if stream else "generateContent"
        )

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder:
        return GeminiDecoder(media, seed)

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        try:
            page = jsontext.decode_upstream(
                _chunk, body.strip().removeprefix(b"[").removesuffix(b"]"), _Chunk
            )
            error = page.error or _WireError()
        except (ValueError, msgspec.MsgspecError):
            error = _WireError()
        return vendor.failure_of(
            status, error.message, type_=error.status, retry_after_s=vendor.retry_after(headers)
        )


def _model(card: ModelCard) -> dict[str, object]:
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
    }


# ---------------------------------------------------------------- requests to upstreams


def _blob_out(m: Media) -> dict[str, object]:
    if m.url:
        return {"fileData": {"fileUri": m.url, "mimeType": m.media_type}}
    return {"inlineData": {"mimeType": m.media_type, "data": m.data}}


def _parts_out(m: Message) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    signature = ""
    for p in m.parts:
        part: dict[str, object]
        match p:
            case Thinking():
                if p.text:
                    out.append({"text": p.text, "thought": True})
                signature = p.signature or signature
                continue
            case Text():
                part = {"text": p.text}
            case Media():
                part = _blob_out(p)
            case ToolCall():
                args = p.arguments if jsontext.is_object(p.arguments) else "{}"
                part = {
                    "functionCall": {"id": p.id, "name": p.name, "args": msgspec.Raw(args.encode())}
                }
            case ToolResult():
                text = "".join(x.text for x in p.parts if isinstance(x, Text))
                response: dict[str, object] = {
                    "id": p.call_id,
                    "name": p.name,
                    "response": {"error" if p.is_error else "output": text}
                    if p.parts or p.is_error
                    else {},
                }
                if media := [_blob_out(x) for x in p.parts if isinstance(x, Media)]:
                    response["parts"] = media
                part = {"functionResponse": response}
        if signature:
            part["thoughtSignature"] = encode_signature(signature)
            signature = ""
        out.append(part)
    if signature:
        out.append({"text": "", "thoughtSignature": encode_signature(signature)})
    return out


def encode_contents(request: Request) -> bytes:
    s, r = request.sampling, request.reasoning
    messages = list(request.messages)
    out: dict[str, object] = {}
    system: list[dict[str, object]] = []
    while messages and messages[0].role == "system":
        system += _parts_out(messages.pop(0))
    if system:
        out["systemInstruction"] = {"parts": system}
    contents: list[dict[str, object]] = []
    last: list[object] = []
    for m in messages:
        role = {"assistant": "model", "system": "system"}.get(m.role, "user")
        if contents and contents[-1]["role"] == role == "user":
            last += _parts_out(m)
        else:
            last = list(_parts_out(m))
            contents.append({"role": role, "parts": last})
    out["contents"] = contents
    if request.tools:
        out["tools"] = [
            {
                "functionDeclarations": [
                    {
                        "name": t.name,
                        "description": t.description,
                        "parametersJsonSchema": t.parameters,
                    }
                    for t in request.tools
                ]
            }
        ]
        config: dict[str, object] = {
            "mode": {"none": "NONE", "auto": "AUTO"}.get(request.choice.mode, "ANY")
        }
        if request.choice.mode == "named":
            config["allowedFunctionNames"] = [request.choice.name]
        out["toolConfig"] = {"functionCallingConfig": config}
    g: dict[str, object] = {}
    for name, value in (
        ("temperature", s.temperature), ("topP", s.top_p), ("topK", s.top_k), ("seed", s.seed),
        ("maxOutputTokens", s.max_tokens), ("presencePenalty", s.presence_penalty),
        ("frequencyPenalty", s.frequency_penalty), ("stopSequences", list(s.stop) or None),
    ):  # fmt: skip
        if value is not None:
            g[name] = value
    if request.format is not None:
        g["responseMimeType"] = "application/json"
        if request.format.kind == "schema":
            g["responseJsonSchema"] = request.format.schema
    thinking: dict[str, object] = {"includeThoughts": r.show == "yes"}
    if r.budget_tokens is not None or r.mode == "off":
        thinking["thinkingBudget"] = 0 if r.mode == "off" else r.budget_tokens
    elif r.mode == "on":
        thinking["thinkingBudget"] = -1
    g["thinkingConfig"] = thinking
    out["generationConfig"] = g
    return jsontext.encode(out)
