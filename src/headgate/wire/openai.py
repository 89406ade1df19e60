"""OpenAI Chat Completions, in both directions: as clients speak it to us, as we speak it to upstreams.

Sources: the openai SDK's types (3.54, 2026-11); MiniMax's openapi-chat-openai.json and the behaviour
measured on its API (2026-04 to 2026-06, gathered in ARCHITECTURE.md's references).  What will
surprise: clients that replay thinking do it in four places (`reasoning_details`,
`reasoning_content`, `reasoning`, `<think>` in the text), and upstreams tell it in the same four;
reading takes all of them, writing uses one.
"""

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
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from headgate.errors import Failure, Kind, invalid, unsupported
from headgate.wire import jsontext, thinking, vendor
from headgate.wire.bounds import check_sampling
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target

# ---------------------------------------------------------------- wire types


class ImageURL(msgspec.Struct):
    url: str
    detail: str | None = None


class ContentPart(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: ImageURL | str | None = None
    video_url: ImageURL | None = None
    refusal: str | None = None


class FunctionCall(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class WireCall(msgspec.Struct):
    function: FunctionCall | None = None
    id: str | None = None
    index: int | None = None
    type: str | None = None


class Detail(msgspec.Struct):
    text: str | None = None
    signature: str | None = None


class WireMessage(msgspec.Struct):
    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[WireCall] | None = None
    tool_call_id: str | None = None
    function_call: msgspec.Raw | None = None
    reasoning_details: list[Detail] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class FunctionDef(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw | None = None
    strict: bool | None = None


class WireTool(msgspec.Struct):
    type: str = "function"
    function: FunctionDef | None = None


class NamedFunction(msgspec.Struct):
    name: str


class ToolRef(msgspec.Struct):
    function: NamedFunction | None = None


class AllowedTools(msgspec.Struct):
    tools: list[ToolRef]
    mode: str = "auto"


class WireChoice(msgspec.Struct):
    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JSONSchema(msgspec.Struct):
    name: str = "response"
    schema: msgspec.Raw = msgspec.Raw(b"{}")
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: str
    json_schema: JSONSchema | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ThinkingSwitch(msgspec.Struct):
    type: str


class Body(msgspec.Struct):
    model: str
    messages: list[WireMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    tools: list[WireTool] | None = None
    tool_choice: str | WireChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    reasoning_split: bool | None = None
    thinking: ThinkingSwitch | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    audio: msgspec.Raw | None = None
    modalities: list[str] | None = None
    prediction: msgspec.Raw | None = None
    web_search_options: msgspec.Raw | None = None
    functions: msgspec.Raw | None = None
    function_call: msgspec.Raw | None = None


_body = msgspec.json.Decoder(Body)
_NULL = b"null"

# ---------------------------------------------------------------- requests


def _given(raw: msgspec.Raw | None) -> bool:
    return raw is not None and bytes(raw) not in (_NULL, b"[]", b"{}")


def _refuse_unsupported(body: Body) -> None:
    if body.n is not None and body.n != 1:
        raise unsupported("$.n", "Send n = 1, or several requests.")
    if body.logprobs or body.top_logprobs:
        raise unsupported("$.logprobs", "Leave it out.")
    if _given(body.audio) or (body.modalities and body.modalities != ["text"]):
        raise unsupported(
            "$.modalities" if body.modalities else "$.audio", "Only text is answered."
        )
    for name in ("prediction", "web_search_options"):
        if _given(getattr(body, name)) or (
            getattr(body, name) is not None and name == "web_search_options"
        ):
            raise unsupported(f"$.{name}", "Leave it out.")
    for name in ("functions", "function_call"):
        if _given(getattr(body, name)):
            raise unsupported(f"$.{name}", "Use `tools` and `tool_choice`.")


def _content(
    content: str | list[ContentPart] | None, where: str, media: bool
) -> list[Text | Media]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)] if content else []
    out: list[Text | Media] = []
    for i, part in enumerate(content):
        here = f"{where}[{i}]"
        if part.type in ("text", "refusal"):
            text = part.text if part.type == "text" else part.refusal
            if text is None:
                raise invalid(f"A `{part.type}` part needs `{part.type}`.", f"{here}.{part.type}")
            out.append(Text(text))
        elif part.type == "image_url" and media and part.image_url is not None:
            image = part.image_url
            url, detail = (image, None) if isinstance(image, str) else (image.url, image.detail)
            out.append(media_of("image", url, detail or "", f"{here}.image_url.url"))
        elif part.type == "video_url" and media and part.video_url is not None:
            out.append(media_of("video", part.video_url.url, "", f"{here}.video_url.url"))
        else:
            raise invalid(
                f"Content of type `{part.type[:40]}` is not supported here; send `text`"
                + (" or `image_url`." if media else "."),
                f"{here}.type",
            )
    return out


def media_of(kind: str, url: str, detail: str, where: str) -> Media:
    """A picture or film from a data URL or an address, which is passed on and never fetched."""
    assert kind in ("image", "video")
    if url.startswith("data:"):
        head, comma, data = url[5:].partition(",")
        media_type = head.removesuffix(";base64")
        if not comma or not head.endswith(";base64") or not media_type.startswith(f"{kind}/"):
            raise invalid(f"Expected `data:{kind}/...;base64,...`.", where)
        return Media("image" if kind == "image" else "video", "", media_type, data, detail)
    if not url.startswith(("http://", "https://")):
        raise invalid("Expected an http(s) or data URL.", where)
    return Media("image" if kind == "image" else "video", url, detail=detail)


def _history_thinking(m: WireMessage) -> tuple[Thinking | None, str | list[ContentPart] | None]:
    """What the client kept of the thinking, and the content without it."""
    if m.reasoning_details:
        text = "".join(d.text or "" for d in m.reasoning_details)
        signature = "".join(d.signature or "" for d in m.reasoning_details)
        if text or signature:
            return Thinking(text, signature), _strip_tags(m.content)
    for said in (m.reasoning_content, m.reasoning):
        if said:
            return Thinking(said), _strip_tags(m.content)
    if isinstance(m.content, str) and m.content.lstrip().startswith(thinking.OPEN):
        splitter = thinking.TagSplitter()
        (a, x), (b, y) = splitter.feed(m.content), splitter.close()
        if a + b:
            return Thinking(a + b), x + y
    return None, m.content


def _strip_tags(content: str | list[ContentPart] | None) -> str | list[ContentPart] | None:
    """Content whose leading block repeats the thinking that came beside it."""
    if isinstance(content, str) and content.lstrip().startswith(thinking.OPEN):
        splitter = thinking.TagSplitter()
        return splitter.feed(content)[1] + splitter.close()[1]
    return content


def _message(m: WireMessage, i: int) -> Message:
    where = f"$.messages[{i}]"
    if _given(m.function_call):
        raise unsupported(f"{where}.function_call", "Use `tool_calls`.")
    if m.role in ("system", "developer"):
        return Message("system", tuple(_content(m.content, f"{where}.content", False)))
    if m.role == "user":
        return Message("user", tuple(_content(m.content, f"{where}.content", True)))
    if m.role == "assistant":
        said, content = _history_thinking(m)
        parts: list[Part] = [said] if said is not None else []
        parts += _content(content, f"{where}.content", False)
        for k, call in enumerate(m.tool_calls or ()):
            here = f"{where}.tool_calls[{k}]"
            if call.function is None or not call.function.name:
                raise invalid("A tool call needs `function.name`.", f"{here}.function.name")
            if not call.id:
                raise invalid("A tool call needs an `id`.", f"{here}.id")
            parts.append(ToolCall(call.id, call.function.name, call.function.arguments or ""))
        return Message("assistant", tuple(parts))
    if m.role == "tool":
        if not m.tool_call_id:
            raise invalid("A tool message needs `tool_call_id`.", f"{where}.tool_call_id")
        parts_ = tuple(_content(m.content, f"{where}.content", True))
        return Message("tool", (ToolResult(m.tool_call_id, parts_, name=m.name or ""),))
    hint = " Use `tool`." if m.role == "function" else ""
    raise invalid(
        f"Unknown role `{m.role[:40]}`: expected system, developer, user, assistant or tool.{hint}",
        f"{where}.role",
    )


def _tools(tools: list[WireTool] | None) -> tuple[Tool, ...]:
    out = []
    for i, tool in enumerate(tools or ()):
        where = f"$.tools[{i}]"
        if tool.type not in ("function", "") or tool.function is None:
            if tool.function is None and tool.type in ("function", ""):
                raise invalid("A tool needs `function`.", f"{where}.function")
            raise unsupported(
                f"{where}.type", f"Tools of type `{tool.type[:40]}` are not; send `function`."
            )
        f = tool.function
        if not f.name:
            raise invalid("A function needs a name.", f"{where}.function.name")
        out.append(
            Tool(
                f.name,
                f.description or "",
                schema_of(f.parameters, f"{where}.function.parameters"),
                bool(f.strict),
            )
        )
    return tuple(out)


EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')


def schema_of(raw: msgspec.Raw | None, where: str) -> msgspec.Raw:
    """A JSON Schema that is carried as it came; absent or empty becomes the empty object's."""
    if raw is None or bytes(raw).strip() in (_NULL, b"{}"):
        return EMPTY_SCHEMA
    if not bytes(raw).lstrip().startswith(b"{"):
        raise invalid("A JSON Schema is an object.", where)
    jsontext.check_depth(raw, where)
    return raw.copy()


def _choice(
    choice: str | WireChoice | None, parallel: bool | None, tools: tuple[Tool, ...]
) -> tuple[Choice, tuple[Tool, ...]]:
    where = "$.tool_choice"
    if choice is None or choice == "auto":
        return Choice("auto", parallel=parallel), tools
    if isinstance(choice, str):
        if choice == "none":
            return Choice("none", parallel=parallel), tools
        if choice == "required":
            return Choice("required", parallel=parallel), tools
        raise invalid(f"Expected none, auto, required or an object, got `{choice[:40]}`.", where)
    names = {t.name for t in tools}
    if choice.type == "function" and choice.function is not None:
        if choice.function.name not in names:
            raise invalid(
                f"There is no tool `{choice.function.name[:64]}`.", f"{where}.function.name"
            )
        return Choice("named", choice.function.name, parallel), tools
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        allowed = {t.function.name for t in choice.allowed_tools.tools if t.function is not None}
        kept = tuple(t for t in tools if t.name in allowed)
        mode = "required" if choice.allowed_tools.mode == "required" else "auto"
        return Choice("required" if mode == "required" else "auto", parallel=parallel), kept
    raise unsupported(f"{where}.type", "Use function or allowed_tools.")


def _format(f: ResponseFormat | None) -> Format | None:
    if f is None or f.type == "text":
        return None
    if f.type == "json_object":
        return Format("object")
    if f.type == "json_schema":
        if f.json_schema is None:
            raise invalid(
                "A json_schema format needs `json_schema`.", "$.response_format.json_schema"
            )
        schema = schema_of(f.json_schema.schema, "$.response_format.json_schema.schema")
        return Format("schema", f.json_schema.name, schema, bool(f.json_schema.strict))
    raise invalid(
        f"Expected text, json_object or json_schema, got `{f.type[:40]}`.", "$.response_format.type"
    )


def _reasoning(body: Body) -> Reasoning:
    effort = body.reasoning_effort or ""
    mode: Any = "default"  # narrowed to Reasoning.mode's words below
    if effort:
        mode = "off" if effort == "none" else "on"
    if body.thinking is not None:
        mode = "off" if body.thinking.type == "disabled" else "on"
    return Reasoning(mode, "inline" if body.reasoning_split is False else "yes", effort)


# ---------------------------------------------------------------- replies

FINISH: dict[FinishReason, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "context_full": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}
_FROM: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def _usage(u: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": u.input,
        "completion_tokens": u.output,
        "total_tokens": u.input + u.output,
        "prompt_tokens_details": {"cached_tokens": u.cached, "cache_write_tokens": u.cache_write},
        "completion_tokens_details": {"reasoning_tokens": u.reasoning},
    }


def _detail(n: int, text: str, signature: str = "") -> dict[str, object]:
    detail: dict[str, object] = {
        "type": "reasoning.text",
        "id": f"reasoning-text-{n + 1}",
        "format": "MiniMax-response-v1",
        "index": n,
        "text": text,
    }
    if signature:
        detail["signature"] = signature
    return detail


class OpenAIEncoder:
    """A streamed reply as chunks.  The constant ends of a chunk are encoded once."""

    def __init__(self, request: Request, facts: Facts) -> None:
        self._want_usage = request.want_usage
        head = jsontext.encode(
            {
                "id": f"chatcmpl-{facts.id}",
                "object": "chat.completion.chunk",
                "created": facts.created,
                "model": facts.model,
            }
        )
        self._base = b"data: " + head[:-1]
        self._delta = self._base + b',"choices":[{"index":0,"delta":'
        self._text = self._delta + b'{"content":'
        self._kind = ""
        self._calls = 0
        self._thoughts = 0

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            kind = type(event)
            if kind is Delta:
                out.append(self._piece(event.text))  # type: ignore[union-attr]  # kind says so
            elif kind is PartStart:
                assert isinstance(event, PartStart)
                self._kind = event.kind
                if event.kind == "tool_call":
                    function = {"name": event.name, "arguments": ""}
                    call = {
                        "index": self._calls,
                        "id": event.id,
                        "type": "function",
                        "function": function,
                    }
                    out.append(self._chunk({"tool_calls": [call]}))
            elif kind is PartStop:
                assert isinstance(event, PartStop)
                if self._kind == "tool_call":
                    self._calls += 1
                elif self._kind == "thinking":
                    if event.signature:
                        detail = _detail(self._thoughts, "", event.signature)
                        out.append(self._chunk({"reasoning_details": [detail]}))
                    self._thoughts += 1
            elif kind is Start:
                out.append(self._chunk({"role": "assistant", "content": ""}))
            elif kind is Finish:
                assert isinstance(event, Finish)
                out.append(self._chunk({}, FINISH[event.reason]))
                if self._want_usage:
                    usage = jsontext.encode(_usage(event.usage or Usage()))
                    out.append(self._base + b',"choices":[],"usage":' + usage + b"}\n\n")
                out.append(b"data: [DONE]\n\n")
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        return (b"data: " + jsontext.encode(_error(failure)) + b"\n\n",)

    def _piece(self, text: str) -> bytes:
        if self._kind == "text":
            return self._text + jsontext.encode(text) + b'},"finish_reason":null}]}\n\n'
        if self._kind == "thinking":
            detail = _detail(self._thoughts, text)
            return self._chunk({"reasoning_content": text, "reasoning_details": [detail]})
        return self._chunk(
            {"tool_calls": [{"index": self._calls, "function": {"arguments": text}}]}
        )

    def _chunk(self, delta: dict[str, object], finish: str | None = None) -> bytes:
        reason = b'"' + finish.encode() + b'"' if finish else _NULL
        return self._delta + jsontext.encode(delta) + b',"finish_reason":' + reason + b"}]}\n\n"


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Detail] | None = None
    tool_calls: list[WireCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _BaseResp(msgspec.Struct):
    status_code: int = 0
    status_msg: str = ""


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: int | str | None = None
    status_code: int | None = None
    http_code: str | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    base_resp: _BaseResp | None = None
    error: _Error | str | None = None
    detail: msgspec.Raw | None = None
    message: str | None = None


_chunk = msgspec.json.Decoder(_Chunk)
MAX_TOKENS = 10**9  # promises.md T21: a count above it is nonsense, and is not believed


def _read_usage(u: _Usage) -> Usage | None:
    """The counts, when there are any: some upstreams send zeros until the end."""
    input_, output = u.prompt_tokens, u.completion_tokens
    if not input_ and not output:
        return None
    prompt, completion = u.prompt_tokens_details, u.completion_tokens_details
    cached = prompt.cached_tokens or 0 if prompt else 0
    written = (
        (prompt.cache_write_tokens or prompt.cache_creation_input_tokens or 0) if prompt else 0
    )
    thought = completion.reasoning_tokens or 0 if completion else 0
    counts = (input_ or 0, output or 0, cached, written, thought)
    if any(not 0 <= n <= MAX_TOKENS for n in counts):
        return None
    return Usage(
        counts[0], counts[1], min(cached, counts[0]), min(written, counts[0] - min(cached, counts[0])),
        min(thought, counts[1]),
    )  # fmt: skip


class OpenAIDecoder(Decoder):
    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._tags = thinking.TagSplitter(capabilities.starts_thinking)
        self._steps = thinking.Steps()
        self._channel = ""  # where thinking comes from; the first seen wins, or it would double
        self._said = False
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None

    def payload(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._end()
            return
        self._take(jsontext.decode_upstream(_chunk, payload, _Chunk))

    def whole(self, body: bytes) -> None:
        self._take(jsontext.decode_upstream(_chunk, body, _Chunk))
        self._end()

    def eof(self) -> None:
        self._end()

    def _take(self, chunk: _Chunk) -> None:
        framer = self.framer
        if chunk.base_resp is not None and chunk.base_resp.status_code:
            resp = chunk.base_resp
            framer.fail(vendor.failure_of(200, resp.status_msg, resp.status_code), self._usage)
            return
        if chunk.error is not None:
            e = chunk.error if isinstance(chunk.error, _Error) else _Error(message=chunk.error)
            status = e.code if isinstance(e.code, int) and 400 <= e.code < 600 else 200
            framer.fail(
                vendor.failure_of(status, e.message or "", e.code, e.type or ""), self._usage
            )
            return
        if chunk.usage is not None and (usage := _read_usage(chunk.usage)) is not None:
            self._usage = usage
        if not chunk.choices:
            if chunk.choices is None and chunk.usage is None:
                raise ValueError("no choices")
            return
        choice = chunk.choices[0]
        framer.start(chunk.id or "", chunk.model or "")
        delta = choice.delta
        if choice.message is not None and (delta is None or not self._said):
            # B39: the last chunk of some upstreams repeats the whole message.
            delta = choice.message if not self._said else None
        if delta is not None:
            self._delta(delta)
        if choice.finish_reason:
            self._finish = _FROM.get(choice.finish_reason, "stop")

    def _delta(self, delta: _Delta) -> None:
        framer = self.framer
        thought = self._thought(delta)
        if thought:
            self._said = True
            framer.thinking(thought)
        if delta.reasoning_details and (
            sig := "".join(d.signature or "" for d in delta.reasoning_details)
        ):
            framer.signature(sig)
        if delta.content:
            self._said = True
            inside, text = self._tags.feed(delta.content)
            if inside and not self._channel:
                framer.thinking(inside)
            if text:
                self._settle_thought()
                framer.text(text)
        for call in delta.tool_calls or ():
            self._said = True
            self._settle_thought()
            f = call.function
            framer.call(
                call.index,
                call.id or "",
                (f.name or "") if f else "",
                (f.arguments or "") if f else "",
            )

    def _thought(self, delta: _Delta) -> str:
        if delta.reasoning_details and self._channel in ("", "details"):
            piece = "".join(d.text or "" for d in delta.reasoning_details)
            if piece:
                self._channel = "details"
                return self._steps.feed(piece)
        said = delta.reasoning_content or delta.reasoning
        if said and self._channel in ("", "content"):
            self._channel = "content"
            return self._steps.feed(said)
        return ""

    def _settle_thought(self) -> None:
        """Anything else follows: what was held back of the thinking comes now."""
        rest = self._steps.close()
        if rest:
            self.framer.thinking(rest)

    def _end(self) -> None:
        inside, text = self._tags.close()
        self._settle_thought()
        if inside and not self._channel:
            self.framer.thinking(inside)
        if text:
            self.framer.text(text)
        if self._finish is not None:
            self.framer.finish(self._finish, self._usage)
        else:
            stopped = "The upstream ended the stream before the reply was finished."
            self.framer.fail(Failure("upstream", stopped), self._usage)


# ---------------------------------------------------------------- errors

# kind: (status, type, code)
_ERRORS: dict[Kind, tuple[int, str, str | None]] = {
    "invalid": (400, "invalid_request_error", None),
    "context_length": (400, "invalid_request_error", "context_length_exceeded"),
    "blocked": (400, "invalid_request_error", "content_filter"),
    "too_large": (413, "invalid_request_error", "request_too_large"),
    "media_type": (415, "invalid_request_error", "unsupported_media_type"),
    "not_found": (404, "invalid_request_error", "not_found"),
    "method": (405, "invalid_request_error", "method_not_allowed"),
    "conflict": (409, "invalid_request_error", "conflict"),
    "request_timeout": (408, "invalid_request_error", "request_timeout"),
    "unauthenticated": (401, "invalid_request_error", "invalid_api_key"),
    "forbidden": (403, "permission_error", "forbidden"),
    "no_credit": (429, "insufficient_quota", "insufficient_quota"),
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
    "internal": (500, "server_error", "internal_error"),
    "unavailable": (503, "server_error", "unavailable"),
    "upstream": (502, "upstream_error", "upstream_error"),
    "upstream_auth": (502, "upstream_error", "upstream_auth"),
    "overloaded": (503, "server_error", "overloaded"),
    "timeout": (504, "timeout", "timeout"),
    "client_gone": (499, "server_error", "client_gone"),
}


def _error(failure: Failure) -> dict[str, object]:
    _, type_, code = _ERRORS[failure.kind]
    message = failure.message
    if failure.kind == "rate_limit" and failure.retry_after_s is not None:
        # Codex reads its delay from these words (protocols.md 2.2).
        message += f" Please try again in {failure.retry_after_s:.3g}s."
    error: dict[str, object] = {
        "message": message,
        "type": type_,
        "param": failure.param.removeprefix("$.") or None,
        "code": failure.code or code,
    }
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return {"error": error}


def read_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure an error page means, whichever envelope it came in; never shows raw pages."""
    wait = vendor.retry_after(headers)
    try:
        page = jsontext.decode_upstream(_chunk, body, _Chunk)
    except (ValueError, msgspec.MsgspecError):
        return vendor.failure_of(status, "", retry_after_s=wait)
    if page.base_resp is not None and page.base_resp.status_code:
        return vendor.failure_of(
            status, page.base_resp.status_msg, page.base_resp.status_code, "", wait
        )
    if isinstance(page.error, _Error):
        e = page.error
        code = e.code if e.code is not None else e.status_code
        return vendor.failure_of(status, e.message or "", code, e.type or "", wait)
    message = page.error if isinstance(page.error, str) else page.message or ""
    if not message and page.detail is not None:
        message = bytes(page.detail).decode("utf-8", "replace")
    return vendor.failure_of(status, message, None, "", wait)


class OpenAIDialect:
    name: ClassVar[str] = "openai"
    stream_type: ClassVar[str] = "text/event-stream"
    keepalive: ClassVar[bytes] = b": keepalive\n\n"

    def decode_request(self, body: bytes, target: Target) -> Request:
        b = jsontext.decode_request(_body, body)
        _refuse_unsupported(b)
        tools = _tools(b.tools)
        choice, tools = _choice(b.tool_choice, b.parallel_tool_calls, tools)
        stop = (b.stop,) if isinstance(b.stop, str) else tuple(b.stop or ())
        stream = bool(b.stream)
        sampling = Sampling(
            b.max_completion_tokens if b.max_completion_tokens is not None else b.max_tokens,
            b.temperature, b.top_p, b.top_k, b.seed, b.presence_penalty, b.frequency_penalty, stop,
        )  # fmt: skip
        check_sampling(
            sampling,
            "$.",
            "max_tokens" if b.max_completion_tokens is None else "max_completion_tokens",
        )
        usage = b.stream_options.include_usage if b.stream_options is not None else None
        request = Request(
            model=b.model,
            messages=tuple(_message(m, i) for i, m in enumerate(b.messages)),
            stream=stream,
            want_usage=bool(usage) if stream else True,
            tools=tools,
            choice=choice,
            sampling=sampling,
            reasoning=_reasoning(b),
            format=_format(b.response_format),
            service_tier=b.service_tier if b.service_tier in ("priority", "flex") else "",
            session=b.prompt_cache_key or "",
        )
        return request.warn("logit_bias") if b.logit_bias else request

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return OpenAIEncoder(request, facts)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        text = "".join(p.text for p in reply.parts if isinstance(p, Text))
        thoughts = [p for p in reply.parts if isinstance(p, Thinking)]
        calls = [
            {"id": p.id, "type": "function", "function": {"name": p.name, "arguments": p.arguments}}
            for p in reply.parts
            if isinstance(p, ToolCall)
        ]
        message: dict[str, object] = {
            "role": "assistant",
            "content": text if text or not calls else None,
            "refusal": None,
        }
        if thoughts:
            message["reasoning_content"] = "".join(t.text for t in thoughts)
            message["reasoning_details"] = [
                _detail(n, t.text, t.signature) for n, t in enumerate(thoughts)
            ]
        if calls:
            message["tool_calls"] = calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": FINISH[reply.finish.reason],
        }
        return jsontext.encode(
            {
                "id": f"chatcmpl-{facts.id}",
                "object": "chat.completion",
                "created": facts.created,
                "model": facts.model,
                "choices": [choice],
                "usage": _usage(reply.usage),
            }
        )

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        return _ERRORS[failure.kind][0], jsontext.encode(_error(failure))

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return jsontext.encode({"object": "list", "data": [_model(c) for c in cards]})

    def encode_model(self, card: ModelCard) -> bytes:
        return jsontext.encode(_model(card))

    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        return encode_chat(request, capabilities, model, stream)

    def request_path(self, model: str, stream: bool) -> str:
        return "/chat/completions"

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder:
        return OpenAIDecoder(capabilities, media, seed)

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return read_failure(status, headers, body)


def _model(card: ModelCard) -> dict[str, object]:
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": "minimax",
        # Beyond OpenAI's fields, in the names OpenRouter and vLLM use.
        "name": card.display_name,
        "context_length": card.context_window,
        "max_model_len": card.context_window,
        "max_output_tokens": card.max_output,
        "input_modalities": list(card.input),
        "output_modalities": ["text"],
    }


# ---------------------------------------------------------------- requests to upstreams


def _content_out(parts: Sequence[Part]) -> str | list[dict[str, object]]:
    if all(isinstance(p, Text) for p in parts):
        return "".join(p.text for p in parts if isinstance(p, Text))
    out: list[dict[str, object]] = []
    for p in parts:
        if isinstance(p, Text):
            out.append({"type": "text", "text": p.text})
        elif isinstance(p, Media):
            url = p.url or f"data:{p.media_type};base64,{p.data}"
            body = {"url": url, "detail": p.detail} if p.detail else {"url": url}
            out.append({"type": f"{p.kind}_url", f"{p.kind}_url": body})
    return out


def _assistant_out(m: Message, capabilities: Capabilities) -> dict[str, object]:
    text = m.text
    thoughts = [p for p in m.parts if isinstance(p, Thinking) and p.text]
    said = "".join(t.text for t in thoughts)
    out: dict[str, object] = {"role": "assistant"}
    form = capabilities.reasoning_form
    if said and form == "tags":
        text = thinking.tagged(said) + text
    out["content"] = text
    if said and form == "details":
        out["reasoning_details"] = [_detail(n, t.text) for n, t in enumerate(thoughts)]
    elif said and form in ("reasoning", "reasoning_content"):
        out[form] = said
    calls = [
        {
            "id": p.id,
            "type": "function",
            "function": {"name": p.name, "arguments": p.arguments or "{}"},
        }
        for p in m.parts
        if isinstance(p, ToolCall)
    ]
    if calls:
        out["tool_calls"] = calls
    return out


def _messages_out(request: Request, capabilities: Capabilities) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    hoisted: list[Part] = []  # media of tool results: they follow the run of results
    for m in request.messages:
        if m.role != "tool" and hoisted:
            out.append({"role": "user", "content": _content_out(hoisted)})
            hoisted = []
        if m.role == "assistant":
            out.append(_assistant_out(m, capabilities))
        elif m.role == "tool":
            for p in m.parts:
                if not isinstance(p, ToolResult):
                    continue
                text = "".join(x.text for x in p.parts if isinstance(x, Text))
                media = [x for x in p.parts if isinstance(x, Media)]
                if media:
                    hoisted += media
                    text += ("\n" if text else "") + "[image attached below]"
                if p.is_error and not text.startswith("Error:"):
                    text = f"Error: {text}"
                result: dict[str, object] = {
                    "role": "tool",
                    "tool_call_id": p.call_id,
                    "content": text,
                }
                if p.name:
                    result["name"] = p.name
                out.append(result)
        else:
            out.append({"role": m.role, "content": _content_out(m.parts)})
    if hoisted:
        out.append({"role": "user", "content": _content_out(hoisted)})
    return out


def encode_chat(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    s, r = request.sampling, request.reasoning
    out: dict[str, object] = {"model": model, "messages": _messages_out(request, capabilities)}
    if stream:
        out["stream"] = True
        if capabilities.stream_usage:
            out["stream_options"] = {"include_usage": True}
    if s.max_tokens is not None:
        out[capabilities.max_tokens_field] = s.max_tokens
    for name in ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"):
        if (value := getattr(s, name)) is not None:
            out[name] = value
    if s.stop:
        out["stop"] = list(s.stop)
    if request.tools:
        tools = []
        for t in request.tools:
            function: dict[str, object] = {
                "name": t.name,
                "description": t.description,
                "parameters": t.parameters,
            }
            if t.strict:
                function["strict"] = True
            tools.append({"type": "function", "function": function})
        out["tools"] = tools
        if request.choice.mode == "named":
            out["tool_choice"] = {"type": "function", "function": {"name": request.choice.name}}
        elif request.choice.mode != "auto":
            out["tool_choice"] = request.choice.mode
        if request.choice.parallel is not None:
            out["parallel_tool_calls"] = request.choice.parallel
    if request.format is not None:
        f = request.format
        if f.kind == "object":
            out["response_format"] = {"type": "json_object"}
        else:
            body = {"name": f.name or "response", "schema": f.schema, "strict": f.strict}
            out["response_format"] = {"type": "json_schema", "json_schema": body}
    if capabilities.reasoning_split:
        out["reasoning_split"] = True
    if r.mode != "default":
        on = r.mode == "on"
        match capabilities.thinking_switch:
            case "adaptive":
                out["thinking"] = {"type": "adaptive" if on else "disabled"}
            case "template":
                out["chat_template_kwargs"] = {"enable_thinking": on, "thinking": on}
            case "effort":
                out["reasoning_effort"] = (r.effort or "medium") if on else "none"
            case _:
                pass
    if request.service_tier and capabilities.service_tier:
        out["service_tier"] = request.service_tier
    return jsontext.encode(out)
