"""Upstreams' replies whose fields have other types than their protocol's: the only place that makes them readable.

A complete answer is worth more than the type of a field.  A decoder asks for this when it could not read a reply, or
read nothing in it; replies that can be read never come here.  OpenAI's chunks have a module of their own
(openai/mending.py).
"""

import json
from collections.abc import Callable
from typing import Any

from headgate.dialects.unknown_parts import call_of, text_of

_WRAPPERS = ("message", "response", "data", "result", "output", "body")
_TEXTS = ("text", "output_text", "input_text", "refusal")
_THOUGHTS = ("thinking", "reasoning", "reasoning_text", "reasoning_content", "summary_text")
_MESSAGES = frozenset(("message", None, *_TEXTS))
_CALLS = ("tool_use", "function_call", "tool_call", "function")
_MOST = 4_096  # parts that one reply is mended for
Mend = Callable[[dict[str, Any]], dict[str, Any]]  # Any: an upstream's JSON, as everywhere here


def mended(payload: bytes, mend: Mend, names: tuple[str, ...]) -> bytes | None:
    """Return the reply as `mend` writes it; None where it is no object with one of these names."""
    try:
        wire = _unwrapped(json.loads(payload.decode("utf-8", "replace")), names)
        return None if wire is None else json.dumps(mend(wire)).encode()
    except (ValueError, RecursionError):
        return None


def _unwrapped(value: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    """The reply inside a list of one, or inside an envelope that a gateway has put around it."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    if "type" in value or not value.keys().isdisjoint(names):
        return value
    inner = (v for n in _WRAPPERS if isinstance(v := value.get(n), dict))
    return next((v for v in inner if not v.keys().isdisjoint(names)), None)


def _list(value: Any) -> list[Any]:
    return value[:_MOST] if isinstance(value, list) else [] if value is None else [value]


def _pieces(value: Any) -> list[Any]:
    """Return the parts of a content; texts without parts are one."""
    parts = _list(value)
    return ["".join(parts)] if all(isinstance(each, str) for each in parts) else parts


def _name(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else None


def _call(part: dict[str, Any]) -> tuple[str, str, str] | None:
    """Id, name and arguments of a call in any vendor's form; the id may be empty."""
    inner = part.get("function")
    stated = {**part, **inner} if isinstance(inner, dict) else dict(part)
    for name in ("id", "call_id", "name"):
        stated[name] = _name(stated.get(name))
    read = call_of(stated, "-")
    return None if read is None else ("" if read[0] == "-" else read[0], *read[1:])


# --- OpenAI Chat Completions -----------------------------------------------------------------------

OPENAI = ("choices",)


def openai_whole(wire: dict[str, Any]) -> dict[str, Any]:
    """A whole completion, which has an end; its messages are mended by openai/mending.py."""
    return {**wire, "choices": [_choice(c) for c in _list(wire["choices"]) if isinstance(c, dict)]}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    out = dict(choice)
    if not out.get("message") and not out.get("delta") and "text" in out:  # of the older protocol
        out["message"] = {"content": text_of(out["text"])}
    if not isinstance(out.get("finish_reason"), str):
        message = out.get("message")
        called = isinstance(message, dict) and message.get("tool_calls")
        out["finish_reason"] = "tool_calls" if called else "stop"
    return out


# --- Anthropic Messages ----------------------------------------------------------------------------

ANTHROPIC = ("content", "stop_reason", "content_block", "delta")


def anthropic(wire: dict[str, Any]) -> dict[str, Any]:
    """A whole message, which has an end, or one event of a stream."""
    out = {name: value for name, value in wire.items() if name in ("usage", "error", "base_resp")}
    out |= {name: _name(wire.get(name)) for name in ("id", "model", "stop_sequence")}
    if "type" in wire and wire["type"] != "message":
        return _anthropic_event(wire)
    blocks = [block for each in _pieces(wire.get("content")) if (block := _block(each))]
    beside = next((text_of(wire[n]) for n in _THOUGHTS if wire.get(n)), "")
    if beside and not any(block["type"] == "thinking" for block in blocks):
        blocks.insert(0, {"type": "thinking", "thinking": beside})
    calls = [b for each in _list(wire.get("tool_calls")) if (b := _block(each))]
    blocks += [b for b in calls if b["type"] == "tool_use"]
    called = any(block["type"] == "tool_use" for block in blocks)
    out["content"] = blocks
    out["stop_reason"] = _name(wire.get("stop_reason")) or ("tool_use" if called else "end_turn")
    return out


def _anthropic_event(wire: dict[str, Any]) -> dict[str, Any]:
    out = dict(wire)
    index = wire.get("index")
    out["index"] = int(index) if isinstance(index, int | float) else None
    if isinstance(message := wire.get("message"), dict):
        names = {name: _name(message.get(name)) for name in ("id", "model")}
        out["message"] = {**names, "usage": message.get("usage")}
    if "content_block" in wire:
        out["content_block"] = _block(wire["content_block"]) or {"type": "unknown"}
    delta = wire.get("delta")
    if delta is not None and not isinstance(delta, dict):
        out["delta"] = {"type": "text_delta", "text": text_of(delta)}
    elif isinstance(delta, dict):
        kept = dict(delta)
        for name in ("text", "thinking"):
            if name in kept:
                kept[name] = text_of(kept[name])
        if isinstance(kept.get("partial_json"), dict | list):
            kept["partial_json"] = json.dumps(kept["partial_json"])
        for name in ("stop_reason", "stop_sequence", "signature"):
            kept[name] = _name(kept.get(name))
        out["delta"] = kept
    return out


def _block(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return {"type": "text", "text": text} if (text := text_of(value)) else None
    kind = value.get("type")
    if kind in _CALLS or (kind is None and "function" in value):
        read = _call(value)
        if read is None:
            return None
        id, name, arguments = read
        return {"type": "tool_use", "id": id, "name": name, "input": arguments}
    if kind in _THOUGHTS:
        signature = _name(value.get("signature"))
        return {"type": "thinking", "thinking": text_of(value), "signature": signature}
    if kind in _TEXTS or kind is None:
        return {"type": "text", "text": text_of(value)}
    return None


# --- OpenAI Responses ------------------------------------------------------------------------------

RESPONSES = ("output", "output_text", "item", "delta")


def responses(wire: dict[str, Any]) -> dict[str, Any]:
    """A whole response, or one event of a stream."""
    kind = wire.get("type")
    if isinstance(kind, str) and kind.startswith("response."):
        return _responses_event(wire)
    out = {name: value for name, value in wire.items() if name in ("usage", "error", "base_resp")}
    out |= {name: _name(wire.get(name)) for name in ("id", "model")}
    items = [item for each in _list(wire.get("output")) if (item := _item(each))]
    if not items and (text := text_of(wire.get("output_text"))):
        items = [_message(text)]
    out["output"] = items
    status = wire.get("status")
    out["status"] = status if isinstance(status, str) else "completed"
    why = wire.get("incomplete_details")
    out["incomplete_details"] = {
        "reason": _name(why.get("reason") if isinstance(why, dict) else why)
    }
    return out


def _responses_event(wire: dict[str, Any]) -> dict[str, Any]:
    out = dict(wire)
    if "item" in wire:
        out["item"] = _item(wire["item"])
    if "delta" in wire:
        out["delta"] = text_of(wire["delta"])
    if isinstance(wire.get("response"), dict):
        out["response"] = responses(wire["response"])
    for name in ("output_index", "summary_index"):
        if not isinstance(wire.get(name), int):
            out[name] = None
    for name in ("item_id", "message"):
        out[name] = _name(wire.get(name))
    return out


def _message(text: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


def _item(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return _message(text) if (text := text_of(value)) else None
    kind = value.get("type")
    names = {name: _name(value.get(name)) for name in ("id", "call_id", "name", "namespace")}
    if kind in ("function_call", "tool_call", "tool_use", "custom_tool_call"):
        read = _call(value)
        if read is None:
            return {**names, "type": "function_call"} if kind == "function_call" else None
        if kind == "custom_tool_call":
            return {**names, "type": kind, "input": text_of(value.get("input"))}
        id, name, arguments = read
        return {
            **names,
            "type": "function_call",
            "call_id": id,
            "name": name,
            "arguments": arguments,
        }
    if kind in _THOUGHTS:
        sealed = _name(value.get("encrypted_content"))
        parts = {
            field: [
                {"type": "text", "text": text}
                for each in _list(value.get(field))
                if (text := text_of(each))
            ]
            for field in ("content", "summary")
        }
        if not any(parts.values()):
            parts["content"] = [{"type": "text", "text": text_of(value)}]
        return {**names, "type": "reasoning", "encrypted_content": sealed, **parts}
    if kind in _MESSAGES:
        return {**names, **_message("".join(map(text_of, _list(value.get("content", value)))))}
    return {**names, "type": str(kind)}


# --- Gemini ----------------------------------------------------------------------------------------

GEMINI = ("candidates", "usageMetadata", "usage_metadata", "promptFeedback")


def gemini_whole(wire: dict[str, Any]) -> dict[str, Any]:
    """A whole reply, which has an end."""
    return gemini(wire, "STOP")


def gemini(wire: dict[str, Any], unsaid: str | None = None) -> dict[str, Any]:
    """Return one chunk, mended; `unsaid` is its reason to end where it reports none."""
    blocked = wire.get("promptFeedback", wire.get("prompt_feedback"))
    return {
        "error": wire.get("error"),
        "usageMetadata": _camel(wire.get("usageMetadata", wire.get("usage_metadata"))),
        "modelVersion": _name(wire.get("modelVersion", wire.get("model_version"))),
        "responseId": _name(wire.get("responseId", wire.get("response_id"))),
        "promptFeedback": _camel(blocked) if isinstance(blocked, dict) else None,
        "candidates": [_candidate(c, unsaid) for c in _list(wire.get("candidates")) if isinstance(c, dict)],
    }  # fmt: skip


def _camel(value: Any) -> Any:
    """An object with names in camel case, in which Google's libraries write either spelling."""
    if not isinstance(value, dict):
        return value
    out = {}
    for name, inner in value.items():
        first, *rest = name.split("_")
        out[first + "".join(part.capitalize() for part in rest)] = inner
    return out


def _candidate(wire: dict[str, Any], unsaid: str | None) -> dict[str, Any]:
    wire = _camel(wire)
    content = wire.get("content")
    parts = content.get("parts", content.get("text")) if isinstance(content, dict) else content
    reason, index = wire.get("finishReason"), wire.get("index")
    return {
        "index": index if isinstance(index, int) else 0,
        "finishReason": reason if isinstance(reason, str) and reason else unsaid,
        "content": {"parts": [part for each in _pieces(parts) if (part := _part(each))]},
    }


def _part(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return {"text": text} if (text := text_of(value)) else None
    value = _camel(value)
    signature = value.get("thoughtSignature")
    out: dict[str, Any] = {"thoughtSignature": signature if isinstance(signature, str) else None}
    call = value.get("functionCall")
    if isinstance(call, dict):
        called = {name: _name(call.get(name)) for name in ("name", "id")}
        out["functionCall"] = {**called, "args": call.get("args", call.get("arguments"))}
        return out
    thought = value.get("thought")
    if isinstance(thought, str) and thought.lower() not in ("true", "false"):
        return {**out, "text": text_of(value.get("text")) or thought, "thought": True}
    out["thought"] = thought is True or (isinstance(thought, str) and thought.lower() == "true")
    return {**out, "text": text_of(value.get("text"))}
