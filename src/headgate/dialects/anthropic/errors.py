"""Write errors in the form of Anthropic Messages."""

from headgate import jsontext
from headgate.errors import Failure, Kind

_Json = dict[str, object]

_ERRORS: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "invalid_request_error"),
    "context_length": (400, "invalid_request_error"),
    "blocked": (400, "invalid_request_error"),
    "too_large": (413, "request_too_large"),
    "media_type": (415, "invalid_request_error"),
    "not_found": (404, "not_found_error"),
    "method": (405, "invalid_request_error"),
    "conflict": (409, "conflict_error"),
    "request_timeout": (408, "invalid_request_error"),
    "unauthenticated": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "no_credit": (402, "billing_error"),
    "rate_limit": (429, "rate_limit_error"),
    "internal": (500, "api_error"),
    "unavailable": (503, "api_error"),
    "upstream": (502, "api_error"),
    "upstream_auth": (424, "api_error"),
    "upstream_quota": (424, "api_error"),
    "upstream_config": (424, "api_error"),
    "overloaded": (529, "overloaded_error"),
    "timeout": (504, "timeout_error"),
    "client_gone": (499, "api_error"),
}


def failure_out(failure: Failure, request_id: str) -> tuple[int, bytes]:
    """Return the HTTP status and the body."""
    return _ERRORS[failure.kind][0], jsontext.encode(error_out(failure, request_id))


def error_out(failure: Failure, request_id: str) -> _Json:
    message = failure.message
    place = failure.param.removeprefix("$").removeprefix(".")
    if place and place not in message:
        message = f"{place}: {message}"  # this protocol has no field for the place
    if failure.kind == "context_length" and not message.startswith("prompt is too long"):
        # Claude Code compacts its history when it reads these words.
        message = f"prompt is too long: {message}"
    error: _Json = {"type": _ERRORS[failure.kind][1], "message": message}
    if failure.code == "thread_unsupported_request":
        error["details"] = {"error_code": failure.code}
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return {"type": "error", "error": error, "request_id": request_id}
