"""Anthropic Messages, in both directions: as clients speak it to us, as we speak it to upstreams.

Sources: the anthropic SDK's types (2.12, 2026-11), code.claude.com/docs/en/llm-gateway-protocol and
MiniMax's Anthropic path (its OpenAPI of the M3 era; both read 2026-11).  What will surprise: input
tokens here exclude what was cached, while `chat.Usage` includes it; and clients' bodies are open
lists: Claude Code adds fields every month, so what is unknown is ignored, never refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

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
from headgate.wire import jsontext, sse, vendor
from headgate.wire.bounds import MAX_COUNT, check_sampling, media_of, schema_of
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target

# ---------------------------------------------------------------- wire types


class CacheControl(msgspec.Struct):
    type: str = "ephemeral"
    ttl: str | None = None


class WireMessage(msgspec.Struct):
    role: str
    content: str | list[msgspec.Raw]


class WireTool(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None
    cache_control: CacheControl | None = None


class WireChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(msgspec.Struct):
    type: str
    schema: msgspec.Raw = msgspec.Raw(b"{}")
    name: str | None = None


class OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(msgspec.Struct):
    user_id: str | None = None


class Body(msgspec.Struct):
    model: str
    messages: list[WireMessage]
    max_tokens: int | None = None
    system: str | list[msgspec.Raw] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    thread: msgspec.Raw = msgspec.Raw(b"null")
    mcp_servers: msgspec.Raw = msgspec.Raw(b"null")


class Loose(msgspec.Struct):
    """A block that is rendered as text; the `source` of search results is a string."""

    type: str
    text: str | None = None
    title: str | None = None
    content: str | list[msgspec.Raw] | None = None
    tool_name: str | None = None


class Source(msgspec.Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[msgspec.Raw] | None = None


class Block(msgspec.Struct):
    type: str
    text: str | None = None
    source: Source | None = None
    title: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")
    tool_use_id: str | None = None
    content: str | list[msgspec.Raw] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


_body = msgspec.json.Decoder(Body)
_block = msgspec.json.Decoder(Block)
_loose = msgspec.json.Decoder(Loose)

# ---------------------------------------------------------------- requests

# Claude Code's first system block; it changes with each request and would spoil prefix caches.
_BILLING = re.compile(r"x-anthropic-billing-header:", re.I)
_RENDERED = ("search_result", "tool_reference", "browser_state")


def _cache(c: CacheControl | None) -> str:
    return "" if c is None else (c.ttl if c.ttl in ("5m", "1h") else "5m")


def _read(raw: msgspec.Raw, where: str) -> Block:
    """One block; what is only rendered as text may have fields of any type."""
    try:
        return _block.decode(raw)
    except msgspec.ValidationError as error:
        try:
            loose = _loose.decode(raw)
        except msgspec.ValidationError:
            loose = None
        if loose is not None and loose.type in _RENDERED:
            return Block(
                loose.type, loose.text, title=loose.title or loose.tool_name, content=loose.content
            )
        message, _, place = str(error).partition(" - at ")
        raise invalid(
            f"{message} - at `{where}{place.strip('`').removeprefix('$')}`",
            where + place.strip("`").removeprefix("$"),
        ) from None


def _rendered(b: Block, where: str) -> str:
    inner = _plain(b.content, f"{where}.content")
    head = b.title or b.name or b.text or b.type
    return f"[{b.type}: {head}]\n{inner}" if inner else f"[{b.type}: {head}]"


def _plain(content: str | list[msgspec.Raw] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_read(raw, f"{where}[{i}]").text or "" for i, raw in enumerate(content))


def _media(b: Block, where: str) -> Media:
    s = b.source
    if s is None or s.type not in ("base64", "url"):
        raise unsupported(f"{where}.source.type", "Send images as `base64` or `url`.")
    if s.type == "url":
        media = media_of("image", s.url or "", "", f"{where}.source.url")
    else:
        if not s.data or not (s.media_type or "").startswith("image/"):
            raise invalid(
                "A base64 image needs `data` and `media_type` image/....", f"{where}.source"
            )
        media = Media("image", "", s.media_type or "", s.data)
    return msgspec.structs.replace(media, cache=_cache(b.cache_control))


def _document(b: Block, where: str) -> Text:
    s = b.source
    if s is None or s.type not in ("text", "content"):
        raise unsupported(f"{where}.source.type", "Send documents as text.")
    text = s.data or "" if s.type == "text" else _plain(s.content, f"{where}.source.content")
    title = (
        f"<document title={json.dumps(b.title, ensure_ascii=False)}>" if b.title else "<document>"
    )
    return Text(f"{title}\n{text}\n</document>", _cache(b.cache_control))


def _text(b: Block, where: str) -> Text:
    if b.text is None:
        raise invalid("A text block needs `text`.", f"{where}.text")
    return Text(b.text, _cache(b.cache_control))


def _result(b: Block, where: str) -> ToolResult:
    if not b.tool_use_id:
        raise invalid("A tool_result needs `tool_use_id`.", f"{where}.tool_use_id")
    parts: list[Text | Media] = []
    if isinstance(b.content, str):
        parts = [Text(b.content)] if b.content else []
    else:
        for i, raw in enumerate(b.content or ()):
            here = f"{where}.content[{i}]"
            inner = _read(raw, here)
            if inner.type == "text":
                parts.append(_text(inner, here))
            elif inner.type == "image":
                parts.append(_media(inner, here))
            elif inner.type == "document":
                parts.append(_document(inner, here))
            elif inner.type in _RENDERED:
                parts.append(Text(_rendered(inner, here)))
            else:
                raise unsupported(
                    f"{here}.type", f"`{inner.type[:40]}` cannot stand in a tool_result."
                )
    return ToolResult(b.tool_use_id, tuple(parts), bool(b.is_error), cache=_cache(b.cache_control))


def _user(blocks: list[Block], where: str) -> list[Message]:
    """Tool results are messages of their own, before the rest of the same turn."""
    results: list[Message] = []
    parts: list[Part] = []
    for i, b in enumerate(blocks):
        here = f"{where}[{i}]"
        match b.type:
            case "text":
                parts.append(_text(b, here))
            case "image":
                parts.append(_media(b, here))
            case "document":
                parts.append(_document(b, here))
            case "tool_result":
                results.append(Message("tool", (_result(b, here),)))
            case t if t in _RENDERED:
                parts.append(Text(_rendered(b, here)))
            case t:
                raise unsupported(
                    f"{here}.type", f"`{t[:40]}` cannot stand in a user message here."
                )
    if parts or not results:
        return [*results, Message("user", tuple(parts))]
    return results


def _assistant(blocks: list[Block], where: str) -> Message:
    parts: list[Part] = []
    for i, b in enumerate(blocks):
        here = f"{where}[{i}]"
        match b.type:
            case "text":
                parts.append(_text(b, here))
            case "thinking":
                parts.append(Thinking(b.thinking or "", b.signature or ""))
            case "redacted_thinking":
                pass  # not ours: nothing here made it, and nothing here can read it
            case "tool_use":
                if not b.id or not b.name:
                    raise invalid("A tool_use needs `id` and `name`.", here)
                arguments = bytes(b.input).decode()
                if arguments == "null":
                    arguments = "{}"
                if not arguments.lstrip().startswith("{"):
                    raise invalid("Expected `object`.", f"{here}.input")
                parts.append(ToolCall(b.id, b.name, arguments, _cache(b.cache_control)))
            case t if t in ("server_tool_use", *_RENDERED) or t.endswith("_tool_result"):
                parts.append(Text(_rendered(b, here)))
            case t:
                raise unsupported(
                    f"{here}.type", f"`{t[:40]}` cannot stand in an assistant message here."
                )
    return Message("assistant", tuple(parts))


def _messages(messages: list[WireMessage]) -> list[Message]:
    out: list[Message] = []
    for i, m in enumerate(messages):
        where = f"$.messages[{i}].content"
        if isinstance(m.content, str):
            blocks = [Block("text", m.content)] if m.content else []
        else:
            blocks = [_read(raw, f"{where}[{k}]") for k, raw in enumerate(m.content)]
        match m.role:
            case "user":
                out += _user(blocks, where)
            case "assistant":
                out.append(_assistant(blocks, where))
            case "system":
                out.append(
                    Message(
                        "system", tuple(_text(b, f"{where}[{k}]") for k, b in enumerate(blocks))
                    )
                )
            case role:
                raise invalid(
                    f"Unknown role `{role[:40]}`: expected user, assistant or system.",
                    f"$.messages[{i}].role",
                )
    return out


def _system(system: str | list[msgspec.Raw] | None) -> list[Message]:
    if system is None or isinstance(system, str):
        return [Message("system", (Text(system),))] if system else []
    blocks = [_read(raw, f"$.system[{i}]") for i, raw in enumerate(system)]
    if blocks and blocks[0].text and _BILLING.match(blocks[0].text):
        blocks = blocks[1:]
    return [Message("system", (_text(b, f"$.system[{i}]"),)) for i, b in enumerate(blocks)]


def _tools(tools: list[WireTool] | None) -> tuple[Tool, ...]:
    out = []
    for i, t in enumerate(tools or ()):
        where = f"$.tools[{i}]"
        if t.type not in (None, "", "custom"):
            raise unsupported(
                f"{where}.type",
                f"`{(t.type or '')[:40]}` is Anthropic's own tool; describe it as a custom tool.",
            )
        if not t.name:
            raise invalid("A tool needs a `name`.", f"{where}.name")
        schema = schema_of(t.input_schema, f"{where}.input_schema")
        out.append(
            Tool(t.name, t.description or "", schema, bool(t.strict), cache=_cache(t.cache_control))
        )
    return tuple(out)


def _choice(c: WireChoice | None, tools: tuple[Tool, ...]) -> Choice:
    if c is None:
        return Choice()
    parallel = None if c.disable_parallel_tool_use is None else not c.disable_parallel_tool_use
    match c.type:
        case "auto":
            return Choice("auto", parallel=parallel)
        case "any":
            return Choice("required", parallel=parallel)
        case "none":
            return Choice("none", parallel=parallel)
        case "tool" if c.name and c.name in {t.name for t in tools}:
            return Choice("named", c.name, parallel)
        case "tool":
            raise invalid(f"There is no tool `{(c.name or '')[:64]}`.", "$.tool_choice.name")
    raise invalid(f"Expected auto, any, tool or none, got `{c.type[:40]}`.", "$.tool_choice.type")


def _reasoning(t: ThinkingConfig | None, effort: str) -> Reasoning:
    """Anthropic's default is off; a model that cannot but think is then not shown thinking."""
    if t is None or t.type == "disabled":
        return Reasoning("off", "no", effort)
    if t.type in ("enabled", "adaptive", "between_tools"):
        return Reasoning("on", "omit" if t.display == "omitted" else "yes", effort, t.budget_tokens)
    raise invalid(
        f"Expected enabled, adaptive, between_tools or disabled, got `{t.type[:40]}`.",
        "$.thinking.type",
    )


def _session(body: Body, headers: Mapping[str, str]) -> str:
    said = headers.get("x-claude-code-session-id", "")
    user = body.metadata.user_id if body.metadata is not None else None
    if not said and user:
        try:
            value = json.loads(user) if user.startswith("{") else {}
        except ValueError:
            value = {}
        said = str(value.get("session_id") or user) if isinstance(value, dict) else user
    return said[:256]


# ---------------------------------------------------------------- replies

FINISH: dict[FinishReason, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "context_full": "model_context_window_exceeded",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_FROM: dict[str, FinishReason] = {v: k for k, v in FINISH.items()} | {"pause_turn": "stop"}


def _usage(u: Usage) -> dict[str, object]:
    out: dict[str, object] = {
        "input_tokens": max(0, u.input - u.cached - u.cache_write),
        "cache_creation_input_tokens": u.cache_write,
        "cache_read_input_tokens": u.cached,
        "output_tokens": u.output,
    }
    if u.reasoning:
        out["output_tokens_details"] = {"thinking_tokens": u.reasoning}
    return out


def _shell(facts: Facts, usage: Usage) -> dict[str, object]:
    return {
        "id": f"msg_{facts.id}",
        "type": "message",
        "role": "assistant",
        "model": facts.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(usage),
    }


def _event(name: bytes, value: object) -> bytes:
    return sse.encode(jsontext.encode(value), name)


class AnthropicEncoder:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._index = -1
        self._kind = ""
        self._head = b""  # of a delta of the open block, up to its text
        self._id = ""

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            kind = type(event)
            if kind is Delta:
                out.append(self._head + jsontext.encode(event.text) + b"}}\n\n")  # type: ignore[union-attr]  # kind says so
            elif kind is PartStart:
                assert isinstance(event, PartStart)
                out.append(self._open(event))
            elif kind is PartStop:
                assert isinstance(event, PartStop)
                if event.signature and self._kind == "thinking":
                    delta = {"type": "signature_delta", "signature": event.signature}
                    out.append(self._delta(delta))
                stop = {"type": "content_block_stop", "index": self._index}
                out.append(_event(b"content_block_stop", stop))
            elif kind is Start:
                assert isinstance(event, Start)
                tokens = event.input_tokens or self._facts.input_estimate
                message = _shell(self._facts, Usage(input=tokens))
                out.append(_event(b"message_start", {"type": "message_start", "message": message}))
            elif kind is Finish:
                assert isinstance(event, Finish)
                ending = {
                    "stop_reason": FINISH[event.reason],
                    "stop_sequence": event.stop_sequence or None,
                }
                usage = _usage(event.usage or Usage())
                out.append(
                    _event(
                        b"message_delta", {"type": "message_delta", "delta": ending, "usage": usage}
                    )
                )
                out.append(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        return (_event(b"error", _error(failure, self._facts.id)),)

    def _open(self, part: PartStart) -> bytes:
        self._index += 1
        self._kind = part.kind
        block: dict[str, object]
        if part.kind == "text":
            block, type_, field = {"type": "text", "text": ""}, "text_delta", "text"
        elif part.kind == "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            type_, field = "thinking_delta", "thinking"
        else:
            block = {"type": "tool_use", "id": wire_id(part.id), "name": part.name, "input": {}}
            type_, field = "input_json_delta", "partial_json"
        self._head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (self._index, type_.encode(), field.encode())
        )
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return _event(b"content_block_start", start)

    def _delta(self, delta: dict[str, str]) -> bytes:
        value = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return _event(b"content_block_delta", value)


_ID = re.compile(r"[^a-zA-Z0-9_-]")


def wire_id(id: str) -> str:
    """An id that Anthropic's clients take: other characters as their code in hex."""
    return _ID.sub(lambda found: f"_{ord(found[0]):x}_", id)


def _input(arguments: str) -> object:
    """A call's arguments as the object this protocol demands; other JSON is kept as text in one."""
    if jsontext.is_object(arguments):
        return msgspec.Raw(arguments.encode())
    return {"_raw": arguments} if arguments.strip() else {}


class _WireUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: dict[str, int] | None = None


class _ContentBlock(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    content: list[_ContentBlock] | None = None
    usage: _WireUsage | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _WireDelta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _WireError(msgspec.Struct):
    type: str | None = None
    message: str | None = None


class _BaseResp(msgspec.Struct):
    status_code: int = 0
    status_msg: str = ""


class _WireEvent(msgspec.Struct):
    type: str = ""
    index: int | None = None
    message: _Message | None = None
    content_block: _ContentBlock | None = None
    delta: _WireDelta | None = None
    usage: _WireUsage | None = None
    error: _WireError | None = None
    base_resp: _BaseResp | None = None


class _WireBody(_Message):
    type: str = ""
    error: _WireError | None = None
    base_resp: _BaseResp | None = None


_wire_event = msgspec.json.Decoder(_WireEvent)
_wire_body = msgspec.json.Decoder(_WireBody)


class AnthropicDecoder(Decoder):
    """Counts come twice, cumulative: at the start, and whole or in part at the end; the larger is
    true (B65).  MiniMax's start often says zero."""

    def __init__(self, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._counts = [0, 0, 0, 0, 0]  # input, output, cache write, cache read, thinking
        self._counted = False
        self._reason: FinishReason | None = None
        self._sequence = ""
        self._tools: dict[int, bytes] = {}  # input given whole at a block's start, if any

    def payload(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            return
        e = jsontext.decode_upstream(_wire_event, payload, _WireEvent)
        framer = self.framer
        if e.base_resp is not None and e.base_resp.status_code:
            framer.fail(
                vendor.failure_of(200, e.base_resp.status_msg, e.base_resp.status_code),
                self._usage(),
            )
            return
        match e.type:
            case "content_block_delta" if e.delta is not None:
                d = e.delta
                if d.text:
                    framer.text(d.text)
                elif d.partial_json:
                    self._tools.pop(e.index or 0, None)
                    framer.call(e.index, "", "", d.partial_json)
                elif d.thinking:
                    framer.thinking(d.thinking)
                elif d.signature:
                    framer.signature(d.signature)
            case "content_block_start" if e.content_block is not None:
                self._begin(e.index, e.content_block)
            case "content_block_stop":
                whole = self._tools.pop(e.index if e.index is not None else -1, None)
                if whole is not None:
                    framer.call(e.index, "", "", whole.decode())
                framer.close_part()
            case "message_start" if e.message is not None:
                self._count(e.message.usage)
                framer.start(e.message.id or "", e.message.model or "", self._input())
            case "message_delta":
                self._count(e.usage)
                if e.delta is not None and e.delta.stop_reason:
                    self._reason = _FROM.get(e.delta.stop_reason, "stop")
                    self._sequence = e.delta.stop_sequence or ""
            case "message_stop":
                self._end()
            case "error":
                error = e.error or _WireError()
                framer.fail(
                    vendor.failure_of(200, error.message or "", type_=error.type or ""),
                    self._usage(),
                )
            case _:
                pass  # pings, and whatever comes next month

    def whole(self, body: bytes) -> None:
        m = jsontext.decode_upstream(_wire_body, body, _WireBody)
        framer = self.framer
        if m.base_resp is not None and m.base_resp.status_code:
            framer.fail(vendor.failure_of(200, m.base_resp.status_msg, m.base_resp.status_code))
            return
        if m.error is not None:
            framer.fail(vendor.failure_of(200, m.error.message or "", type_=m.error.type or ""))
            return
        if m.content is None:
            raise ValueError("no content")
        self._count(m.usage)
        framer.start(m.id or "", m.model or "", self._input())
        for i, block in enumerate(m.content):
            self._begin(i, block)
            if block.type == "thinking" and block.signature:
                framer.signature(block.signature)
            whole = self._tools.pop(i, None)
            if whole is not None:
                framer.call(i, "", "", whole.decode())
            framer.close_part()
        if m.stop_reason:
            self._reason = _FROM.get(m.stop_reason, "stop")
            self._sequence = m.stop_sequence or ""
        self._end()

    def eof(self) -> None:
        if self._reason is not None:
            self._end()

    def _begin(self, index: int | None, block: _ContentBlock) -> None:
        match block.type:
            case "text":
                self.framer.text(block.text or "")
            case "thinking":
                self.framer.thinking(block.thinking or "")
            case "tool_use":
                self.framer.call(index, block.id or "", block.name or "", "")
                if bytes(block.input).strip() not in (
                    b"{}",
                    b"null",
                    b"",
                ):
                    self._tools[index or 0] = bytes(block.input)
            case _:
                pass

    def _count(self, u: _WireUsage | None) -> None:
        if u is None:
            return
        details = u.output_tokens_details or {}
        fresh = (
            u.input_tokens, u.output_tokens, u.cache_creation_input_tokens,
            u.cache_read_input_tokens, details.get("thinking_tokens"),
        )  # fmt: skip
        for i, n in enumerate(fresh):
            if n is not None and 0 < n <= MAX_COUNT:
                self._counted = True
                self._counts[i] = max(self._counts[i], n)

    def _input(self) -> int:
        return self._counts[0] + self._counts[2] + self._counts[3]

    def _usage(self) -> Usage | None:
        if not self._counted:
            return None
        _, output, write, read, thought = self._counts
        return Usage(self._input(), output, read, write, min(thought, output))

    def _end(self) -> None:
        if self._reason is not None:
            self.framer.finish(self._reason, self._usage(), self._sequence)
        else:
            stopped = "The upstream ended the stream before the reply was finished."
            self.framer.fail(Failure("upstream", stopped), self._usage())


# ---------------------------------------------------------------- errors

_ERRORS: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "invalid_request_error"),
    "context_length": (400, "invalid_request_error"),
    "blocked": (400, "invalid_request_error"),
    "too_large": (413, "request_too_large"),
    "media_type": (415, "invalid_request_error"),
    "not_found": (404, "not_found_error"),
    "method": (405, "invalid_request_error"),
    "conflict": (409, "conflict_error"),
    "request_timeout": (408, "invalid_request_error"),
    "unauthenticated": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "no_credit": (402, "billing_error"),
    "rate_limit": (429, "rate_limit_error"),
    "internal": (500, "api_error"),
    "unavailable": (503, "api_error"),
    "upstream": (502, "api_error"),
    "upstream_auth": (502, "api_error"),
    "overloaded": (529, "overloaded_error"),
    "timeout": (504, "timeout_error"),
    "client_gone": (499, "api_error"),
}


def _error(failure: Failure, request_id: str) -> dict[str, object]:
    message = failure.message
    if failure.kind == "context_length" and "prompt is too long" not in message:
        # Claude Code compacts its history when it reads these words (protocols.md 3.11).
        message = f"prompt is too long: {message}"
    if failure.param and failure.param not in message:
        message = f"{failure.param.removeprefix('$.')}: {message}"
    error: dict[str, object] = {"type": _ERRORS[failure.kind][1], "message": message}
    if failure.code == "thread_unsupported_request":
        error["details"] = {"error_code": failure.code}  # the SDK then goes on without threads
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return {"type": "error", "error": error, "request_id": request_id}


class AnthropicDialect:
    name: ClassVar[str] = "anthropic"
    stream_type: ClassVar[str] = "text/event-stream"
    keepalive: ClassVar[bytes] = b'event: ping\ndata: {"type": "ping"}\n\n'

    def decode_request(self, body: bytes, target: Target) -> Request:
        b = jsontext.decode_request(_body, body)
        if bytes(b.thread) != b"null":
            raise invalid(
                "Threads are not supported; send the whole history.",
                "$.thread",
                "thread_unsupported_request",
            )
        if bytes(b.mcp_servers) not in (b"null", b"[]"):
            raise unsupported("$.mcp_servers", "Run the servers in the client.")
        tools = _tools(b.tools)
        sampling = Sampling(
            b.max_tokens, b.temperature, b.top_p, b.top_k, stop=tuple(b.stop_sequences or ())
        )
        check_sampling(sampling, "$.")
        config = b.output_config or OutputConfig()
        format_ = None
        if config.format is not None:
            if config.format.type != "json_schema":
                raise unsupported("$.output_config.format.type", "Use json_schema.")
            schema = schema_of(config.format.schema, "$.output_config.format.schema")
            format_ = Format("schema", config.format.name or "response", schema, True)
        request = Request(
            model=b.model,
            messages=(*_system(b.system), *_messages(b.messages)),
            stream=bool(b.stream),
            tools=tools,
            choice=_choice(b.tool_choice, tools),
            sampling=sampling,
            reasoning=_reasoning(b.thinking, config.effort or ""),
            format=format_,
            service_tier=b.service_tier if b.service_tier == "priority" else "",
            session=_session(b, target.headers),
        )
        return request

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return AnthropicEncoder(facts)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        content: list[object] = []
        for p in reply.parts:
            if isinstance(p, Text):
                content.append({"type": "text", "text": p.text})
            elif isinstance(p, Thinking):
                content.append({"type": "thinking", "thinking": p.text, "signature": p.signature})
            else:
                content.append(
                    {
                        "type": "tool_use",
                        "id": wire_id(p.id),
                        "name": p.name,
                        "input": _input(p.arguments),
                    }
                )
        message = _shell(facts, reply.usage)
        message["content"] = content
        message["stop_reason"] = FINISH[reply.finish.reason]
        message["stop_sequence"] = reply.finish.stop_sequence or None
        return jsontext.encode(message)

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        return _ERRORS[failure.kind][0], jsontext.encode(_error(failure, request_id))

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        ids = [c.id for c in cards]
        first, last = 0, len(cards)
        if (after := query.get("after_id")) in ids:
            first = ids.index(after) + 1
        if (before := query.get("before_id")) in ids:
            last = ids.index(before)
        try:
            limit = max(1, min(1000, int(query.get("limit", "20"))))
        except ValueError:
            raise invalid("Expected a number from 1 to 1000.", "$.limit") from None
        page = list(cards[first:last])[:limit]
        more = len(cards[first:last]) > limit
        return jsontext.encode(
            {
                "data": [_model(c) for c in page],
                "has_more": more,
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
        )

    def encode_model(self, card: ModelCard) -> bytes:
        return jsontext.encode(_model(card))

    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        return encode_messages(request, capabilities, model, stream)

    def request_path(self, model: str, stream: bool) -> str:
        return "/v1/messages"

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder:
        return AnthropicDecoder(media, seed)

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return vendor.read_failure(
            status, headers, body
        )  # MiniMax uses one envelope on both of its paths


def _model(card: ModelCard) -> dict[str, object]:
    return {
        "type": "model",
        "id": card.id,
        "display_name": card.display_name,
        "created_at": datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": card.context_window,
        "max_tokens": card.max_output,
    }


# ---------------------------------------------------------------- requests to upstreams

DEFAULT_MAX_TOKENS = 32000  # this protocol demands a number; what Claude Code itself sends
_BUDGET = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 24576,
    "max": 32768,
}


def _mark(block: dict[str, object], cache: str) -> dict[str, object]:
    if cache:
        block["cache_control"] = {"type": "ephemeral"} | ({"ttl": cache} if cache != "5m" else {})
    return block


def _part_out(p: Part, signed: bool) -> dict[str, object] | None:
    match p:
        case Text():
            return _mark({"type": "text", "text": p.text}, p.cache)
        case Media():
            source: dict[str, object]
            if p.url:
                source = {"type": "url", "url": p.url}
            else:
                source = {"type": "base64", "media_type": p.media_type, "data": p.data}
            return _mark({"type": p.kind, "source": source}, p.cache)
        case Thinking():
            if not signed or not (p.text or p.signature):
                return None
            return {"type": "thinking", "thinking": p.text, "signature": p.signature}
        case ToolCall():
            block: dict[str, object] = {
                "type": "tool_use",
                "id": wire_id(p.id),
                "name": p.name,
                "input": _input(p.arguments),
            }
            return _mark(block, p.cache)
        case ToolResult():
            content: object = [_part_out(x, signed) for x in p.parts]
            if len(p.parts) == 1 and isinstance(p.parts[0], Text) and not p.parts[0].cache:
                content = p.parts[0].text
            result: dict[str, object] = {
                "type": "tool_result",
                "tool_use_id": wire_id(p.call_id),
                "content": content,
            }
            if p.is_error:
                result["is_error"] = True
            return _mark(result, p.cache)


def encode_messages(
    request: Request, capabilities: Capabilities, model: str, stream: bool
) -> bytes:
    s, r = request.sampling, request.reasoning
    signed = capabilities.reasoning_form == "blocks"
    messages = list(request.messages)
    system: list[dict[str, object]] = []
    while messages and messages[0].role == "system":
        system += [b for p in messages.pop(0).parts if (b := _part_out(p, signed)) is not None]
    turns: list[dict[str, object]] = []
    last: list[object] = []
    for m in messages:
        blocks = [b for p in m.parts if (b := _part_out(p, signed)) is not None]
        role = "user" if m.role == "tool" else m.role
        if turns and turns[-1]["role"] == role == "user":
            last += blocks  # results and what the user said stand in one turn
        else:
            last = list(blocks)
            turns.append({"role": role, "content": last})
    out: dict[str, object] = {
        "model": model,
        "max_tokens": s.max_tokens if s.max_tokens is not None else DEFAULT_MAX_TOKENS,
    }
    if system:
        out["system"] = system
    out["messages"] = turns
    if stream:
        out["stream"] = True
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(s, name)) is not None:
            out[name] = value
    if s.stop:
        out["stop_sequences"] = list(s.stop)
    if request.tools:
        tools = []
        for t in request.tools:
            tool: dict[str, object] = {
                "name": t.name,
                "description": t.description,
                "input_schema": t.parameters,
            }
            if t.strict:
                tool["strict"] = True
            tools.append(_mark(tool, t.cache))
        out["tools"] = tools
        c = request.choice
        if c.mode != "auto" or c.parallel is not None:
            type_ = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}[c.mode]
            choice: dict[str, object] = {"type": type_}
            if c.mode == "named":
                choice["name"] = c.name
            if c.parallel is not None and c.mode != "none":
                choice["disable_parallel_tool_use"] = not c.parallel
            out["tool_choice"] = choice
    if request.format is not None:
        out["output_config"] = {"format": {"type": "json_schema", "schema": request.format.schema}}
    if r.mode != "default":
        if capabilities.thinking_switch == "adaptive":
            out["thinking"] = {"type": "adaptive" if r.mode == "on" else "disabled"}
        elif capabilities.thinking_switch == "budget":
            out["thinking"] = _budget(r, s.max_tokens)
    if request.service_tier and capabilities.service_tier:
        out["service_tier"] = request.service_tier
    return jsontext.encode(out)


def _budget(r: Reasoning, max_tokens: int | None) -> dict[str, object]:
    if r.mode == "off":
        return {"type": "disabled"}
    budget = r.budget_tokens or _BUDGET.get(r.effort, 8192)
    room = (max_tokens or DEFAULT_MAX_TOKENS) - 1
    # The budget must stay below max_tokens and is at least 1024 (Anthropic's docs, 2026-11).
    if room < 1024:
        return {"type": "disabled"}
    return {"type": "enabled", "budget_tokens": max(1024, min(budget, room))}
