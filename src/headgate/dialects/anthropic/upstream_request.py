"""Requests of Anthropic Messages, to upstreams."""

import re
from collections.abc import Sequence

from msgspec import Raw, Struct

from headgate import jsontext
from headgate.chat import (
    Choice,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from headgate.dialects.capabilities import BUDGETS, Capabilities

_Json = dict[str, object]


class _MessageOut(Struct, frozen=True):
    role: str
    content: list[_Json]


class _RequestOut(Struct, frozen=True, omit_defaults=True):
    model: str
    max_tokens: int
    messages: list[_MessageOut]
    system: list[_Json] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] | None = None
    tools: list[_Json] | None = None
    tool_choice: _Json | None = None
    output_config: _Json | None = None
    thinking: _Json | None = None
    service_tier: str | None = None


DEFAULT_MAX_TOKENS = 32000  # this protocol demands a number; what Claude Code itself sends
USUAL_BUDGET = BUDGETS["medium"]
MIN_BUDGET = 1024  # "must be >= 1024 and less than max_tokens" (extended thinking, 2026-11)
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


def wire_request(
    request: Request, capabilities: Capabilities, model: str, stream: bool
) -> _RequestOut:
    sampling, messages = request.sampling, request.messages
    max_tokens = DEFAULT_MAX_TOKENS if sampling.max_tokens is None else sampling.max_tokens
    signed = capabilities.reasoning_form == "blocks"
    first = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    tier = request.service_tier if capabilities.service_tier else ""
    return _RequestOut(
        model=model,
        max_tokens=max_tokens,
        system=[b for m in messages[:first] for b in _blocks_out(m.parts, signed)] or None,
        messages=_messages_out(messages[first:], signed),
        stream=True if stream else None,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        stop_sequences=sampling.stop or None,
        tools=[_tool_out(t) for t in request.tools] or None,
        tool_choice=_choice_out(request.choice) if request.tools else None,
        output_config=_output_config(request, capabilities),
        thinking=_switch(request.reasoning, capabilities, max_tokens),
        service_tier=tier or None,
    )


def _output_config(request: Request, capabilities: Capabilities) -> _Json | None:
    out: _Json = dict(_format_out(request.format) or {})
    reasoning = request.reasoning
    if capabilities.efforts and reasoning.effort not in ("", "none") and reasoning.mode != "off":
        out["effort"] = reasoning.effort  # one of those that are known here
    return out or None


def _switch(reasoning: Reasoning, capabilities: Capabilities, max_tokens: int) -> _Json | None:
    """Return the switch whenever it is known: what an upstream does unasked differs between models."""
    if reasoning.mode == "default":
        return None
    match capabilities.thinking_switch:
        case "adaptive":
            return {"type": "adaptive" if reasoning.mode == "on" else "disabled"}
        case "budget":
            if reasoning.mode == "off" or max_tokens <= MIN_BUDGET:
                return {"type": "disabled"}
            budget = reasoning.budget_tokens or BUDGETS.get(reasoning.effort, USUAL_BUDGET)
            budget = max(MIN_BUDGET, min(budget, max_tokens - 1))
            return {"type": "enabled", "budget_tokens": budget}
    return None


def _tool_out(tool: Tool) -> _Json:
    out: _Json = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["input_schema"] = tool.parameters
    if tool.strict:
        out["strict"] = True
    return _marked(out, tool.cache)


def _choice_out(choice: Choice) -> _Json | None:
    if choice.mode == "auto" and choice.parallel is None:
        return None
    out: _Json = {"type": _CHOICES[choice.mode]}
    if choice.mode == "named":
        out["name"] = choice.name
    if choice.parallel is not None and choice.mode != "none":
        out["disable_parallel_tool_use"] = not choice.parallel
    return out


def _format_out(format: Format | None) -> _Json | None:
    if format is None:
        return None
    schema: object = format.schema if format.kind == "schema" else {"type": "object"}
    return {"format": {"type": "json_schema", "schema": schema}}


def _messages_out(messages: Sequence[Message], signed: bool) -> list[_MessageOut]:
    """What follows the last result is sent in the same turn: roles must take turns."""
    out: list[_MessageOut] = []
    for message in messages:
        blocks = _blocks_out(message.parts, signed)
        role = "user" if message.role == "tool" else message.role
        if not blocks:
            continue  # a turn of thinking that this upstream is not shown
        if out and out[-1].role == role == "user":
            out[-1].content.extend(blocks)
        else:
            out.append(_MessageOut(role, blocks))
    return out


def _blocks_out(parts: Sequence[Part], signed: bool) -> list[_Json]:
    out: list[_Json] = []
    for part in parts:
        block = _block_out(part, signed)
        if block is not None:
            out.append(block)
        elif type(part) is Text and part.cache and out and out[-1]["type"] != "thinking":
            _marked(out[-1], part.cache)
    return out


def _block_out(part: Part, signed: bool) -> _Json | None:
    match part:
        case Text():
            # "text content blocks must be non-empty", "must contain non-whitespace text"
            if part.is_blank:
                return None
            return _marked({"type": "text", "text": part.source}, part.cache)
        case Media():
            source: _Json = {"type": "url", "url": part.url}
            if not part.url:
                source = {"type": "base64", "media_type": part.media_type, "data": part.data}
            # `video` is MiniMax's own kind of block
            return _marked({"type": part.kind, "source": source}, part.cache)
        case Thinking(text, signature):
            if not signed or not (text or signature):
                return None
            return {"type": "thinking", "thinking": text, "signature": signature}
        case ToolCall():
            return _marked(call_out(part), part.cache)
        case ToolResult():
            result: _Json = {"type": "tool_result", "tool_use_id": wire_id(part.call_id)}
            plain = len(part.parts) == 1 and part.parts[0]
            if isinstance(plain, Text) and not plain.cache:
                result["content"] = "" if plain.is_blank else plain.source
            else:
                result["content"] = _blocks_out(part.parts, signed) or ""
            if part.is_error:
                result["is_error"] = True
            return _marked(result, part.cache)


def _marked(block: _Json, cache: str) -> _Json:
    if cache == "5m":
        block["cache_control"] = {"type": "ephemeral"}
    elif cache:
        block["cache_control"] = {"type": "ephemeral", "ttl": cache}
    return block


def call_out(call: ToolCall) -> _Json:
    """The block of a call; arguments that are no JSON object are kept as text in one."""
    value: object = call.as_object
    if value is None:
        arguments = call.arguments
        value = {"_raw": arguments} if arguments.strip() else {}
        if jsontext.is_object(arguments):
            value = Raw(arguments.encode())
    return {"type": "tool_use", "id": wire_id(call.id), "name": call.name, "input": value}


_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def wire_id(id: str) -> str:
    """An id that this protocol takes (`^[a-zA-Z0-9_-]+$`): other characters as their code in hex."""
    if id.isascii() and id.replace("_", "").replace("-", "").isalnum():
        return id  # nearly always, and faster to see
    return _NOT_IN_IDS.sub(lambda found: f"_{ord(found[0]):x}_", id)
