"""Requests of OpenAI Responses, to upstreams."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from headgate.chat import (
    Choice,
    Format,
    Media,
    Message,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from headgate.dialects import unreadable
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.openai_api import result_text
from headgate.errors import invalid

_Json = dict[str, object]


class _RequestOut(Struct, frozen=True, omit_defaults=True):
    model: str
    input: list[_Json]
    instructions: str | Raw | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_Json] | None = None
    tool_choice: str | _Json | None = None
    parallel_tool_calls: bool | None = None
    text: _Json | None = None
    reasoning: dict[str, str] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None


def wire_request(
    request: Request, capabilities: Capabilities, model: str, stream: bool
) -> _RequestOut:
    messages = request.messages
    instructions: str | Raw | None = None
    if len(messages) > 1 and messages[0].role == "system":  # alone it would leave no input
        texts = [p for p in messages[0].parts if isinstance(p, Text)]
        one = len(texts) == 1
        instructions = texts[0].source if one else "\n\n".join([t.text for t in texts])
        messages = messages[1:]
    sampling = request.sampling
    parallel = request.choice.parallel if request.tools and capabilities.parallel_switch else None
    tier = request.service_tier if capabilities.service_tier else ""
    format = _format_out(request.format)
    return _RequestOut(
        model=model,
        input=_items_out(messages, capabilities),
        instructions=instructions or None,
        stream=True if stream else None,
        max_output_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        tools=[_tool_out(t) for t in request.tools] or None,
        tool_choice=_choice_out(request.choice) if request.tools else None,
        parallel_tool_calls=parallel,
        text={"format": format} if format is not None else None,
        reasoning=_switch(request.reasoning, capabilities),
        service_tier=tier or None,
        prompt_cache_key=request.session or None,
    )


# "`minimal|low|medium|high` only switch thinking on" (MiniMax); models with real efforts know more.
_SWITCHES = frozenset(("minimal", "low", "medium", "high"))


def _switch(reasoning: Reasoning, capabilities: Capabilities) -> dict[str, str] | None:
    if capabilities.efforts and reasoning.effort not in ("", "none") and reasoning.mode != "off":
        return {"effort": reasoning.effort}  # one of those that are known here
    match reasoning.mode:
        case "on" if capabilities.thinking_switch != "none":
            effort = reasoning.effort or "medium"
            if capabilities.thinking_switch != "effort" and effort not in _SWITCHES:
                effort = "high"
            return {"effort": effort}
        case "off" if capabilities.thinking_switch != "none" and capabilities.thinking_off:
            return {"effort": "none"}
        case _:
            return None


def _tool_out(tool: Tool) -> _Json:
    """Freeform tools go out as the functions they are offered as: MiniMax takes functions only."""
    out: _Json = {"type": "function", "name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["parameters"] = tool.parameters
    # Absent means strict where the schema allows it (OpenAI), so it is always sent.
    out["strict"] = tool.strict
    return out


def _choice_out(choice: Choice) -> str | _Json | None:
    if choice.mode == "named":
        return {"type": "function", "name": choice.name}
    return None if choice.mode == "auto" else choice.mode


def _format_out(format: Format | None) -> _Json | None:
    if format is None:
        return None
    if format.kind == "object":
        return {"type": "json_object"}
    out: _Json = {"type": "json_schema", "name": format.name or "reply", "schema": format.schema}
    if format.strict:
        out["strict"] = True
    return out


def _items_out(messages: Sequence[Message], capabilities: Capabilities) -> list[_Json]:
    out: list[_Json] = []
    attached: list[Media] = []  # media of tool results, shown after the run of results
    for message in messages:
        if attached and message.role != "tool":
            out.append(_message_out("user", attached))
            attached = []
        match message.role:
            case "tool":
                for part in message.parts:
                    if isinstance(part, ToolResult):
                        part = _without_films(part)
                        output = {"call_id": part.call_id, "output": result_text(part)}
                        out.append({"type": "function_call_output", **output})
                        attached += [p for p in part.parts if isinstance(p, Media)]
            case "assistant":
                _assistant_out(message, capabilities, out)
            case _:
                stated = [p for p in message.parts if isinstance(p, Text | Media)]
                out.append(_message_out(message.role, stated))
    if attached:
        out.append(_message_out("user", attached))
    return out


def _without_films(result: ToolResult) -> ToolResult:
    """The result with a note for each video, for which this wire has no form."""
    if not any(type(p) is Media and p.kind != "image" for p in result.parts):
        return result
    parts = [
        unreadable.note_of(unreadable.name_of(p.kind))
        if type(p) is Media and p.kind != "image"
        else p
        for p in result.parts
    ]
    return msgspec.structs.replace(result, parts=tuple(parts))


def _message_out(role: str, parts: Sequence[Text | Media]) -> _Json:
    content: object = ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        content = parts[0].source
    elif parts:
        content = [_part_out(p) for p in parts]
    return {"type": "message", "role": role, "content": content}


def _part_out(part: Text | Media) -> _Json:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.source}
    if part.kind != "image":
        raise invalid("The Responses wire has no form for a film; send pictures.", "$.messages")
    url = part.address
    out: _Json = {"type": "input_image", "image_url": url}
    if part.detail:
        out["detail"] = part.detail
    return out


def _assistant_out(message: Message, capabilities: Capabilities, out: list[_Json]) -> None:
    for part in message.parts:
        match part:
            case Text():
                stated: _Json = {"type": "output_text", "text": part.source, "annotations": []}
                out.append({"type": "message", "role": "assistant", "content": [stated]})
            case Thinking(text, signature) if capabilities.reasoning_form != "none":
                if not (text or signature):
                    continue
                # The id is required, and means nothing where nothing is stored.
                item: _Json = {"type": "reasoning", "id": f"rs_{len(out)}", "summary": []}
                if text:
                    item["content"] = [{"type": "reasoning_text", "text": text}]
                if signature:
                    item["encrypted_content"] = signature
                out.append(item)
            case ToolCall():
                call = {"call_id": part.id, "name": part.name, "arguments": part.as_string}
                out.append({"type": "function_call", **call})
            case _:
                pass
