"""Chunks whose fields have other types than OpenAI's: the only place that makes them readable.

A complete answer is worth more than the type of a field, so a chunk that could not be read is read once more
with its texts as texts and its calls as a list of calls.  Chunks that can be read never come here.
"""

import json
from typing import Any

from headgate.dialects import unknown_parts

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_MOST = 64  # choices, details and calls that one chunk is mended for; real ones have one or two


def mended(payload: bytes) -> bytes | None:
    """Return the chunk with the types that the decoder expects; None where something would be lost."""
    try:
        wire = json.loads(payload.decode("utf-8", "replace"))
        if not isinstance(wire, dict):
            return None
        for name in ("id", "model"):
            if name in wire:
                wire[name] = _scalar(wire[name])
        wire["choices"] = [_choice(c) for c in _list(wire.get("choices")) if isinstance(c, dict)]
        return json.dumps(wire).encode()
    except (ValueError, RecursionError):
        return None


def _list(value: Any) -> list[Any]:  # Any: JSON of an upstream, as everywhere here
    return value[:_MOST] if isinstance(value, list) else [] if value is None else [value]


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else None


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "index": choice["index"] if type(choice.get("index")) is int else 0,
        "finish_reason": _scalar(choice.get("finish_reason")),
        "stop_reason": _scalar(choice.get("stop_reason")),
    }
    for name in ("delta", "message"):
        value = choice.get(name)
        if isinstance(value, str):
            value = {"content": value}
        if isinstance(value, dict):
            made[name] = _delta(value)
    return made


def _delta(delta: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {name: _text(delta.get(name)) for name in _TEXTS}
    made["reasoning_details"] = [_detail(d) for d in _list(delta.get("reasoning_details"))]
    calls = [*_list(delta.get("tool_calls")), *_list(delta.get("function_call"))]
    made["tool_calls"] = [_call(c) for c in calls]
    return made


def _text(value: Any) -> str:
    """Return the text of a field of any type; ValueError where there is something else."""
    if type(value) in (int, float):
        return str(value)
    if isinstance(value, list):  # pieces of one text, as a delta is one
        return "".join([_text(each) for each in value])
    text = unknown_parts.text_of(value)
    if value and not text:
        raise ValueError("no text")
    return text


def _detail(detail: Any) -> dict[str, Any]:
    if not isinstance(detail, dict):
        return {"text": _text(detail)}
    return {"text": unknown_parts.text_of(detail), "signature": _scalar(detail.get("signature"))}


def _call(call: Any) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise ValueError("no call")
    function = call.get("function")
    stated = function if isinstance(function, dict) else call
    arguments = stated.get("arguments")
    if not isinstance(arguments, str | dict):
        arguments = None
    index = call.get("index")
    return {
        "index": index if type(index) is int else None,
        "id": _scalar(call.get("id")),
        "function": {"name": _scalar(stated.get("name")), "arguments": arguments},
    }
