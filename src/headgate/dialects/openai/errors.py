"""Write errors in the form of OpenAI Chat Completions."""

from headgate.dialects import openai_api
from headgate.errors import Failure


def failure_out(failure: Failure, request_id: str) -> tuple[int, bytes]:
    """Return the HTTP status and the body."""
    return openai_api.failure_out(failure)


def event_out(failure: Failure) -> dict[str, object]:
    """Return the error in a stream, where there is no status and clients know a failure by its type."""
    out = openai_api.error_out(failure)
    error = out["error"]
    assert isinstance(error, dict)
    if failure.status >= 500 or error["type"] == "upstream_error":
        error["type"] = "server_error"
    return out
