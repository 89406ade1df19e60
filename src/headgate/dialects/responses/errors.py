"""Errors of OpenAI Responses, to clients: with a status as in Chat Completions, in streams by a code."""

import math

import msgspec

from headgate.dialects import openai_api
from headgate.errors import Failure, Kind

_Json = dict[str, object]

# Codes of `response.failed`.  Codex 0.169 (measured 2026-11) gives up at once on
# context_length_exceeded, insufficient_quota, invalid_prompt and server_is_overloaded, waits as the event says
# on rate_limit_exceeded, and tries again on any other.  A status 429 it never tries again.
_CODES: dict[Kind, str] = {
    "invalid": "invalid_prompt",
    "context_length": "context_length_exceeded",
    "blocked": "invalid_prompt",
    "too_large": "invalid_prompt",
    "media_type": "invalid_prompt",
    "not_found": "invalid_prompt",
    "method": "invalid_prompt",
    "conflict": "invalid_prompt",
    "request_timeout": "server_error",
    "unauthenticated": "invalid_prompt",
    "forbidden": "invalid_prompt",
    "no_credit": "insufficient_quota",
    "rate_limit": "rate_limit_exceeded",
    "internal": "server_error",
    "unavailable": "server_error",
    "upstream": "server_error",
    # Nothing that a retry can repair, and `invalid_prompt` shows our message (Codex 0.169).
    "upstream_auth": "invalid_prompt",
    "upstream_quota": "invalid_prompt",
    "upstream_config": "invalid_prompt",
    "overloaded": "server_is_overloaded",
    "timeout": "server_error",
    "client_gone": "server_error",
}


def timed(failure: Failure) -> Failure:
    """Codex reads how long to wait out of the message, not out of the header."""
    if failure.kind != "rate_limit" or failure.retry_after_s is None:
        return failure
    wait = f"Please try again in {math.ceil(failure.retry_after_s)}s."
    if "try again in" in failure.message:
        return failure
    return msgspec.structs.replace(failure, message=f"{failure.message} {wait}")


def error_out(failure: Failure) -> _Json:
    error: _Json = {"code": _CODES[failure.kind], "message": timed(failure).message}
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return error


def failure_out(failure: Failure, request_id: str) -> tuple[int, bytes]:
    """Return the HTTP status and the body."""
    return openai_api.failure_out(timed(failure))
