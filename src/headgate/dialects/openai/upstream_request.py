"""Requests of Chat Completions, to upstreams."""

from collections.abc import Sequence

from msgspec import UNSET, Raw, Struct, UnsetType

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
from headgate.dialects import openai_api
from headgate.dialects.capabilities import Capabilities
from headgate.stream.thinking import tagged

_Json = dict[str, object]


class _FunctionCall(Struct, frozen=True):
    name: str
    arguments: str | Raw


class WireCall(Struct, frozen=True):
    id: str
    function: _FunctionCall
    type: str = "function"


class WireDetail(Struct, frozen=True):
    text: str
    id: str
    index: int
    signature: str | UnsetType = UNSET
    type: str = "reasoning.text"
    format: str = "MiniMax-response-v1"


class _MessageOut(Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | Raw | list[_Json]
    tool_call_id: str | None = None
    reasoning_details: list[WireDetail] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[WireCall] | None = None


class _RequestOut(Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[_MessageOut]
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    tools: list[_Json] | None = None
    tool_choice: str | _Json | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Json | None = None
    reasoning_split: bool | None = None
    thinking: dict[str, str] | None = None
    chat_template_kwargs: dict[str, bool] | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None


def wire_request(
    request: Request, capabilities: Capabilities, model: str, stream: bool
) -> _RequestOut:
    sampling, short = request.sampling, capabilities.max_tokens_field == "max_tokens"
    usage = stream and capabilities.stream_usage
    tier = request.service_tier if capabilities.service_tier else ""
    parallel = request.choice.parallel if request.tools and capabilities.parallel_switch else None
    thinking, template, effort = _switch(request.reasoning, capabilities)
    return _RequestOut(
        model=model,
        messages=_messages_out(request.messages, capabilities),
        stream=True if stream else None,
        stream_options={"include_usage": True} if usage else None,
        max_completion_tokens=None if short else sampling.max_tokens,
        max_tokens=sampling.max_tokens if short else None,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=sampling.stop or None,
        tools=[_tool_out(t) for t in request.tools] if request.tools else None,
        tool_choice=_choice_out(request.choice) if request.tools else None,
        parallel_tool_calls=parallel,
        response_format=_format_out(request.format) if request.format is not None else None,
        reasoning_split=True if capabilities.reasoning_split else None,
        thinking=thinking,
        chat_template_kwargs=template,
        reasoning_effort=effort,
        service_tier=tier or None,
    )


def _switch(
    reasoning: Reasoning, capabilities: Capabilities
) -> tuple[dict[str, str] | None, dict[str, bool] | None, str | None]:
    """Return `thinking`, `chat_template_kwargs` and `reasoning_effort`; the effort is one that is known here."""
    effort = reasoning.effort if capabilities.efforts and reasoning.effort != "none" else ""
    if reasoning.mode != "default":
        on = reasoning.mode == "on"
        match capabilities.thinking_switch:
            case "adaptive" if capabilities.thinking_off:
                # "enabled" would be 400 (2013); M2.x always thinks and is sent nothing.
                return {"type": "adaptive" if on else "disabled"}, None, effort or None
            case "template":
                # Templates disagree on the name; one they do not know does nothing.
                return None, {"enable_thinking": on, "thinking": on}, effort or None
            case "effort":
                return None, None, (reasoning.effort or "medium") if on else "none"
    return None, None, effort or None


def _tool_out(tool: Tool) -> _Json:
    function: _Json = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters  # missing: `function parameters is empty (2013)`
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice_out(choice: Choice) -> str | _Json | None:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return None if choice.mode == "auto" else choice.mode


def _format_out(format: Format | None) -> _Json | None:
    if format is None:
        return None
    if format.kind == "object":
        return {"type": "json_object"}
    schema: _Json = {"name": format.name or "reply", "schema": format.schema}
    if format.strict:
        schema["strict"] = True
    return {"type": "json_schema", "json_schema": schema}


def _messages_out(messages: Sequence[Message], capabilities: Capabilities) -> list[_MessageOut]:
    out: list[_MessageOut] = []
    attached: list[Media] = []  # media of tool results, shown after the run of tool messages
    for message in messages:
        role, parts = message.role, message.parts
        if role == "tool":
            for part in parts:
                if isinstance(part, ToolResult):
                    out.append(_MessageOut("tool", openai_api.result_text(part), part.call_id))
                    if len(part.parts) > 1 or (part.parts and type(part.parts[0]) is Media):
                        attached += [p for p in part.parts if isinstance(p, Media)]
            continue
        if attached:
            out.append(_MessageOut("user", _content_out(attached)))
            attached = []
        if role == "assistant":
            out.append(_assistant_out(parts, capabilities))
        elif len(parts) == 1 and type(one := parts[0]) is Text:
            out.append(_MessageOut(role, one.source))
        else:
            stated = [p for p in parts if isinstance(p, Text | Media)]
            out.append(_MessageOut(role, _content_out(stated)))
    if attached:
        out.append(_MessageOut("user", _content_out(attached)))
    return out


def _content_out(parts: Sequence[Text | Media]) -> str | Raw | list[_Json]:
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].source
    out: list[_Json] = []
    for part in parts:
        if isinstance(part, Text):
            out.append({"type": "text", "text": part.source})
            continue
        name = f"{part.kind}_url"
        url = {"url": part.address}
        if part.detail:
            url["detail"] = part.detail
        out.append({"type": name, name: url})
    return out


def _assistant_out(parts: Sequence[Part], capabilities: Capabilities) -> _MessageOut:
    thoughts: list[Thinking] = []
    texts: list[Text] = []
    called: list[WireCall] = []
    for part in parts:
        if type(part) is Text:
            texts.append(part)
        elif type(part) is ToolCall:
            called.append(_call(part))
        elif type(part) is Thinking:
            thoughts.append(part)
    text = texts[0].source if len(texts) == 1 else "".join([t.text for t in texts])
    if not thoughts:
        return _MessageOut("assistant", text, tool_calls=called or None)
    thinking, form = "".join(t.text for t in thoughts), capabilities.reasoning_form
    return _MessageOut(
        "assistant",
        # null content beside tool calls is refused by MiniMax
        tagged(thinking) + "".join([t.text for t in texts])
        if form == "tags" and thinking
        else text,
        reasoning_details=(details(thoughts) or None) if form == "details" else None,
        reasoning_content=(thinking or None) if form == "reasoning_content" else None,
        reasoning=(thinking or None) if form == "reasoning" else None,
        tool_calls=called or None,
    )


def details(thoughts: Sequence[Thinking]) -> list[WireDetail]:
    stated = [t for t in thoughts if t.text or t.signature]
    return [
        WireDetail(t.text, f"reasoning-text-{i + 1}", i, t.signature or UNSET)
        for i, t in enumerate(stated)
    ]


def calls(parts: Sequence[Part]) -> list[WireCall]:
    """The calls among the parts of a message or of a reply."""
    return [_call(p) for p in parts if type(p) is ToolCall]


def _call(call: ToolCall) -> WireCall:
    return WireCall(call.id, _FunctionCall(call.name, call.as_string))
