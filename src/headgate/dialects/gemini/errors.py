"""Write errors in the form of Gemini, google.rpc.Status."""

from headgate import jsontext
from headgate.errors import Failure, Kind

_Json = dict[str, object]

# kind: (HTTP status, google.rpc.Code, reason).  A blocked prompt is no error here but a reply
# without candidates; in a stream that began it is one.
_ERRORS: dict[Kind, tuple[int, str, str]] = {
    "invalid": (400, "INVALID_ARGUMENT", ""),
    "context_length": (400, "INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED"),
    "blocked": (400, "INVALID_ARGUMENT", "SAFETY"),
    "too_large": (413, "INVALID_ARGUMENT", "REQUEST_TOO_LARGE"),
    "media_type": (415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    "not_found": (404, "NOT_FOUND", ""),
    "method": (405, "UNIMPLEMENTED", ""),
    "conflict": (409, "ABORTED", ""),
    "request_timeout": (408, "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT"),
    "unauthenticated": (401, "UNAUTHENTICATED", "API_KEY_INVALID"),
    "forbidden": (403, "PERMISSION_DENIED", ""),
    "no_credit": (429, "RESOURCE_EXHAUSTED", "INSUFFICIENT_CREDITS"),
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
    "internal": (500, "INTERNAL", ""),
    "unavailable": (503, "UNAVAILABLE", ""),
    "upstream": (503, "UNAVAILABLE", "UPSTREAM_ERROR"),
    "upstream_auth": (424, "FAILED_PRECONDITION", "UPSTREAM_AUTH"),
    "upstream_quota": (424, "FAILED_PRECONDITION", "UPSTREAM_QUOTA"),
    "upstream_config": (424, "FAILED_PRECONDITION", "UPSTREAM_CONFIG"),
    "overloaded": (503, "UNAVAILABLE", "OVERLOADED"),
    "timeout": (504, "DEADLINE_EXCEEDED", ""),
    "client_gone": (499, "CANCELLED", ""),
}
_RPC = "type.googleapis.com/google.rpc."


def failure_out(failure: Failure, request_id: str) -> tuple[int, bytes]:
    """Return the HTTP status and the body."""
    if failure.kind == "blocked":
        return 200, jsontext.encode(blocked_out(request_id))
    return _ERRORS[failure.kind][0], jsontext.encode(error_out(failure))


def blocked_out(request_id: str) -> _Json:
    feedback = {"blockReason": "SAFETY", "safetyRatings": []}
    return {"promptFeedback": feedback, "responseId": request_id}


def error_out(failure: Failure) -> _Json:
    status, word, reason = _ERRORS[failure.kind]
    message = failure.message
    if failure.param:
        field = failure.param.removeprefix("$.")
        if field not in message:
            message = f"{field}: {message}"
    details: list[_Json] = []
    if failure.retry_after_s is not None:
        delay = f"{failure.retry_after_s:.3f}".rstrip("0").rstrip(".") + "s"
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": delay})
    if reason := failure.code.upper() or reason:
        details.append({"@type": f"{_RPC}ErrorInfo", "reason": reason, "domain": "headgate"})
    if failure.param:
        violation = {"field": field, "description": failure.message}
        details.append({"@type": f"{_RPC}BadRequest", "fieldViolations": [violation]})
    error: _Json = {"code": status, "message": message, "status": word}
    if details:
        error["details"] = details
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return {"error": error}
