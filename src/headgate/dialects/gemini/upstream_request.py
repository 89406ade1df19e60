"""Requests of generateContent, to upstreams."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw

from headgate import jsontext
from headgate.chat import (
    Choice,
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
from headgate.dialects.capabilities import BUDGETS, Capabilities
from headgate.dialects.gemini.signatures import signature_out

_Json = dict[str, object]


def wire_request(request: Request, capabilities: Capabilities) -> _Json:
    out: _Json = {}
    messages = request.messages
    first = next((n for n, m in enumerate(messages) if m.role != "system"), len(messages))
    system = [part for m in messages[:first] for part in _parts_out(m, {}, capabilities)]
    if system:
        out["systemInstruction"] = {"parts": system}
    out["contents"] = _contents_out(messages[first:], capabilities)
    if request.tools:
        out["tools"] = [{"functionDeclarations": [_tool_out(t) for t in request.tools]}]
        if request.choice.mode != "auto":
            out["toolConfig"] = {"functionCallingConfig": _choice_out(request.choice)}
    out["generationConfig"] = _config_out(request, capabilities)
    return out


def _contents_out(messages: Sequence[Message], capabilities: Capabilities) -> list[_Json]:
    out: list[_Json] = []
    names: dict[str, str] = {}  # of functions, by the id of their call
    parts: list[_Json] = []
    after = ""
    for m in messages:
        stated = _parts_out(m, names, capabilities)
        # "the number of function response parts is equal to the number of function call parts of
        # the function call turn": results are one turn, and what the user adds is part of it.
        if after == "tool" and m.role in ("tool", "user"):
            parts += stated
        else:
            parts = stated
            out.append({"role": _ROLES.get(m.role, "user"), "parts": parts})
        after = m.role
    return out


_ROLES = {"assistant": "model", "system": "system"}


def _parts_out(m: Message, names: dict[str, str], capabilities: Capabilities) -> list[_Json]:
    out: list[_Json] = []
    signature = ""  # of thinking, for the next part that is none
    for p in m.parts:
        part: _Json
        match p:
            case Thinking():
                if capabilities.reasoning_form == "none":
                    continue
                if signature:
                    out.append({"text": "", "thoughtSignature": signature_out(signature)})
                if p.text:
                    out.append({"text": p.text, "thought": True})
                signature = p.signature
                continue
            case Text():
                part = {"text": p.source}
            case Media():
                part = _media_out(p)
            case ToolCall():
                names[p.id] = p.name
                args = p.as_object or compact(p.arguments) or Raw(b"{}")
                part = {"functionCall": {"id": p.id, "name": p.name, "args": args}}
            case ToolResult():
                part = {"functionResponse": _result_out(p, names)}
        if signature:
            part["thoughtSignature"] = signature_out(signature)
            signature = ""
        out.append(part)
    if signature:
        out.append({"text": "", "thoughtSignature": signature_out(signature)})
    return out


def compact(arguments: str) -> Raw | None:
    """Arguments as one line of JSON, numbers as they were written; None when they are no object.

    A newline between two keys is JSON, and would end the `data:` line it stands in.
    """
    if not arguments.strip():
        return Raw(b"{}")
    if not jsontext.is_object(arguments):
        return None
    return Raw(msgspec.json.format(arguments.encode(), indent=-1))


def _media_out(m: Media) -> _Json:
    if m.url:
        file: _Json = {"fileUri": m.url}
        if m.media_type:
            file["mimeType"] = m.media_type
        return {"fileData": file}
    return {"inlineData": {"mimeType": m.media_type, "data": m.data}}


def _result_out(result: ToolResult, names: Mapping[str, str]) -> _Json:
    texts = [p for p in result.parts if isinstance(p, Text)]
    text: str | Raw = texts[0].source if len(texts) == 1 else "".join([t.text for t in texts])
    if len(texts) == 1 and texts[0].is_empty:
        text = ""
    response: _Json = {}
    if text or result.is_error:
        response["error" if result.is_error else "output"] = text
    out: _Json = {
        "id": result.call_id,
        "name": result.name or names.get(result.call_id, ""),
        "response": response,
    }
    if media := [_media_out(p) for p in result.parts if isinstance(p, Media)]:
        out["parts"] = media
    return out


def _tool_out(tool: Tool) -> _Json:
    out: _Json = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["parametersJsonSchema"] = tool.parameters
    return out


def _choice_out(choice: Choice) -> _Json:
    if choice.mode == "named":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": "NONE" if choice.mode == "none" else "ANY"}


def _config_out(request: Request, capabilities: Capabilities) -> _Json:
    s, format = request.sampling, request.format
    out: _Json = {}
    for name, value in (
        ("temperature", s.temperature),
        ("topP", s.top_p),
        ("topK", s.top_k),
        ("maxOutputTokens", s.max_tokens),
        ("stopSequences", s.stop or None),
        ("seed", s.seed),
        ("presencePenalty", s.presence_penalty),
        ("frequencyPenalty", s.frequency_penalty),
    ):
        if value is not None:
            out[name] = value
    if format is not None:
        out["responseMimeType"] = "application/json"
        if format.kind == "schema":
            out["responseJsonSchema"] = format.schema
    out["thinkingConfig"] = _thinking_out(request.reasoning, capabilities)
    return out


_LEVELS = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
    "max": "XHIGH",
}


def _thinking_out(r: Reasoning, capabilities: Capabilities) -> _Json:
    """`thinkingBudget` and `thinkingLevel` exclude each other ("cannot be used together")."""
    out: _Json = {"includeThoughts": r.show in ("yes", "inline")}
    switch = capabilities.thinking_switch
    if r.effort in _LEVELS and r.mode != "off" and (capabilities.efforts or switch == "effort"):
        out["thinkingLevel"] = _LEVELS[r.effort]
        return out
    if r.mode == "default" or switch == "none":
        return out
    if r.mode == "off":
        if switch == "effort":
            out["thinkingLevel"] = "MINIMAL"  # models with levels cannot but think
        else:
            out["thinkingBudget"] = 0
    elif r.budget_tokens is not None:
        out["thinkingBudget"] = r.budget_tokens
    else:
        out["thinkingBudget"] = BUDGETS.get(r.effort, -1)  # "-1: the model decides"
    return out
