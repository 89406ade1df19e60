"""What OpenAI's two protocols have in common: errors with a status, models, counts, results of tools.

Models have OpenAI's four
fields and OpenRouter's names for the rest, which clients read (2026-11).
"""

from collections.abc import Sequence

from msgspec import Raw, Struct

from headgate import jsontext
from headgate.chat import Text, ToolResult, Usage
from headgate.dialects import usage as usages
from headgate.dialects.contract import CardPrice, ModelCard
from headgate.errors import STATUS, Failure, Kind

_Json = dict[str, object]

# kind: (type, code).  The status is errors.STATUS, but for `no_credit`: OpenAI says 429.
_ERRORS: dict[Kind, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "context_length": ("invalid_request_error", "context_length_exceeded"),
    "blocked": ("invalid_request_error", "content_filter"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "media_type": ("invalid_request_error", "unsupported_media_type"),
    "not_found": ("invalid_request_error", "model_not_found"),
    "method": ("invalid_request_error", "method_not_allowed"),
    "conflict": ("invalid_request_error", "conflict"),
    "request_timeout": ("timeout", "request_timeout"),
    "unauthenticated": ("invalid_request_error", "invalid_api_key"),
    "forbidden": ("permission_error", "model_not_allowed"),
    "no_credit": ("insufficient_quota", "insufficient_quota"),
    "rate_limit": ("rate_limit_error", "rate_limit_exceeded"),
    "internal": ("server_error", None),
    "unavailable": ("server_error", "service_unavailable"),
    "upstream": ("upstream_error", None),
    "upstream_auth": ("upstream_error", "upstream_auth"),
    "upstream_quota": ("upstream_error", "upstream_quota"),
    "upstream_config": ("upstream_error", "upstream_config"),
    "overloaded": ("server_error", "overloaded"),
    "timeout": ("timeout", "timeout"),
    "client_gone": ("server_error", "client_closed_request"),
}


def error_out(failure: Failure) -> _Json:
    type_, code = _ERRORS[failure.kind]
    error: _Json = {
        "message": failure.message,
        "type": type_,
        # OpenAI writes `messages[0].role`, without the root
        "param": failure.param.removeprefix("$").removeprefix(".") or None,
        "code": failure.code or code,
    }
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return {"error": error}


def failure_out(failure: Failure) -> tuple[int, bytes]:
    """Return the HTTP status and the body."""
    status = 429 if failure.kind == "no_credit" else STATUS[failure.kind]
    return status, jsontext.encode(error_out(failure))


def count_out(tokens: int) -> bytes:
    """The answer to a question for the input's tokens, as Responses has it."""
    return jsontext.encode({"object": "response.input_tokens", "input_tokens": tokens})


class InputDetails(Struct, frozen=True, gc=False):
    """Splits an upstream's count of the input."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class OutputDetails(Struct, frozen=True, gc=False):
    """Splits an upstream's count of the output."""

    reasoning_tokens: int | None = None


def usage_of(
    input: int | None,
    output: int | None,
    input_details: InputDetails | None,
    output_details: OutputDetails | None,
) -> Usage | None:
    """Return what an upstream's counts say; None where the main ones are not known, or are zeros."""
    return usages.usage_of(
        input,
        output,
        input_details.cached_tokens if input_details else 0,
        input_details.cache_write_tokens if input_details else 0,
        output_details.reasoning_tokens if output_details else 0,
    )


def models_out(cards: Sequence[ModelCard]) -> bytes:
    """Return the list of models."""
    return jsontext.encode({"object": "list", "data": [_card(card) for card in cards]})


def model_out(card: ModelCard) -> bytes:
    """Return one model."""
    return jsontext.encode(_card(card))


def result_text(result: ToolResult) -> str | Raw:
    """A tool's result for a wire whose results are strings; its pictures follow by themselves."""
    parts = result.parts
    if len(parts) == 1 and type(one := parts[0]) is Text and not result.is_error:
        return one.source
    text = "\n".join(p.text if isinstance(p, Text) else f"[{p.kind} attached below]" for p in parts)
    if result.is_error and not text.startswith("Error: "):
        return f"Error: {text}"
    return text


def _card(card: ModelCard) -> _Json:
    """OpenAI's four fields, and OpenRouter's names for the rest, which clients read (2026-11)."""
    out: _Json = {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": card.vendor,
        "name": card.display_name,
        "description": card.description,
        "context_length": card.context_window,
        "architecture": {"input_modalities": card.input, "output_modalities": ("text",)},
        "top_provider": {
            "context_length": card.context_window,
            "max_completion_tokens": card.max_output,
        },
        "supported_parameters": card.parameters,
        "lifecycle": card.lifecycle,
    }
    if card.efforts:
        out["reasoning"] = {
            "supported_efforts": card.efforts,
            "default_effort": card.default_effort or None,
            "mandatory": not card.thinking_off,
        }
    if card.free:
        out["pricing"] = {"prompt": "0", "completion": "0"}
    elif card.prices:
        out["pricing"] = _tiers(card.prices)
    if card.price_history:
        out["price_history"] = [
            {"from": s.begins or None, "until": s.ends or None, "pricing": _tiers(s.tiers)}
            for s in card.price_history
        ]
    if card.retires:
        out["expiration_date"] = card.retires
        out["successor"] = card.successor
    return out


def _tiers(tiers: Sequence[CardPrice]) -> _Json:
    """Return a table of prices; larger inputs are `overrides`: a whole request is billed at its tier."""
    first, *more = tiers
    pricing = _pricing(first)
    if more:
        pricing["overrides"] = [
            {"min_prompt_tokens": (before.up_to_input or 0) + 1, **_pricing(tier)}
            for before, tier in zip(tiers, more, strict=False)
        ]
    return pricing


def _pricing(tier: CardPrice) -> _Json:
    """Return dollars a token, as exact decimals."""
    return {
        "prompt": _per_token(tier.input),
        "completion": _per_token(tier.output),
        "input_cache_read": _per_token(tier.cache_read),
        "input_cache_write": _per_token(tier.cache_write),
    }


def _per_token(per_million: str) -> str:
    """Return a decimal of dollars per million tokens as dollars per token, digit by digit."""
    whole, _, places = per_million.partition(".")
    digits = (whole + places).rjust(len(places) + 7, "0")
    point = len(digits) - len(places) - 6
    shifted = f"{digits[:point].lstrip('0') or '0'}.{digits[point:]}"
    return shifted.rstrip("0").rstrip(".")
