"""OpenRouter's `reasoning` in requests of Chat Completions."""

import msgspec
from msgspec import Struct

from headgate.bounds import Int64
from headgate.dialects import unknown
from headgate.dialects.openai.request_wire import RequestIn, ThinkingIn


class _OpenRouterReasoning(Struct, frozen=True):
    """Reads OpenRouter's `reasoning` (openrouter.ai/docs, reasoning tokens, 2026-11)."""

    effort: str | None = None
    max_tokens: Int64 | None = None
    enabled: bool | None = None
    exclude: bool | None = None


_openrouter_decoder = msgspec.json.Decoder(_OpenRouterReasoning)


def openrouter_reasoning(wire: RequestIn, warnings: list[str]) -> RequestIn:
    """Read OpenRouter's `reasoning` where OpenAI's and MiniMax's own fields say nothing."""
    try:
        asked = _openrouter_decoder.decode(wire.reasoning)
    except msgspec.MsgspecError:
        warnings.append("reasoning")
        return wire
    if asked.exclude:
        warnings.append("reasoning.exclude")
    effort = unknown.effort(asked.effort) if asked.effort else ""
    if asked.effort and effort != asked.effort:
        warnings.append("reasoning.effort")
    if wire.reasoning_effort is not None or wire.thinking is not None:
        if effort != (wire.reasoning_effort or ""):
            warnings.append("reasoning")
        return wire
    if asked.enabled is False or effort == "none":
        return msgspec.structs.replace(wire, thinking=ThinkingIn("disabled"))
    if effort:
        return msgspec.structs.replace(wire, reasoning_effort=effort)  # one of the literal's words
    if asked.max_tokens is not None or asked.enabled:
        thinking = ThinkingIn("adaptive", budget_tokens=asked.max_tokens)
        return msgspec.structs.replace(wire, thinking=thinking)
    return wire
