"""How an upstream of OpenAI Responses fails."""

import re
from contextlib import suppress

import msgspec
from msgspec import Raw

from headgate.chat import FinishReason
from headgate.dialects import upstream_json, vendor_errors
from headgate.dialects.responses.upstream_wire import ErrorIn, ReplyIn, error_decoder
from headgate.errors import Failure

INCOMPLETE_IN: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}


# What a code of this wire would have been as an HTTP status; MiniMax's numbers, where there is one
# in the message, say more and win.
_STATUS_IN: dict[str, int] = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 402,
    "usage_not_included": 402,
    "server_is_overloaded": 529,
    "slow_down": 529,
    "server_error": 500,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
}
_AGAIN = re.compile(r"try again in\s*(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s)", re.I)


def failure_in(error: Raw, reply: ReplyIn | None) -> Failure | None:
    """The error inside a reply or an event, if there is one."""
    if bytes(error).startswith(b"{"):
        with suppress(ValueError, msgspec.MsgspecError):
            own = upstream_json.decode(error_decoder, bytes(error), ErrorIn)
            if own.code is not None or (own.message and "{" not in own.message):
                return failure_of(own)
    return vendor_errors.failure_within(error, reply.base_resp if reply is not None else None)


def failure_of(error: ErrorIn) -> Failure:
    message = error.message or ""
    code = str(error.code) if error.code is not None else ""
    status = _STATUS_IN.get(code, int(code) if re.fullmatch(r"[45]\d\d", code) else 200)
    wait = None
    if found := _AGAIN.search(message):
        wait = float(found[1]) / (1000 if found[2].lower() == "ms" else 1)
    failure = vendor_errors.failure_of(
        status, message, error.upstream_code or error.code, error.type or "", wait
    )
    if code == "context_length_exceeded" and failure.kind == "invalid":
        return msgspec.structs.replace(failure, kind="context_length", code=code)
    return failure
