"""An error inside a reply with status 200 is what its code or type says, whichever dialect it came in."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from headgate.chat import Failed
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import DIALECTS
from headgate.dialects.vendor_errors import failure_of
from headgate.errors import FAULTS, Failure, Kind

WORDS: dict[str, Kind] = {
    "invalid_request_error": "invalid",
    "BadRequestError": "invalid",
    "invalid_prompt": "invalid",
    "context_length_exceeded": "context_length",
    "content_filter": "blocked",
    "content_policy_violation": "blocked",
    "request_too_large": "too_large",
    "rate_limit_error": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "insufficient_quota": "upstream_quota",
    "billing_error": "upstream_quota",
    "authentication_error": "upstream_auth",
    "invalid_api_key": "upstream_auth",
    "permission_error": "upstream_auth",
    "not_found_error": "upstream_config",
    "model_not_found": "upstream_config",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
    "api_error": "upstream",
    "server_error": "upstream",
    "an_error_of_tomorrow": "upstream",
}


def event(data: dict[str, Any]) -> bytes:
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def response(status: str, **more: Any) -> bytes:
    reply = {"id": "r", "object": "response", "status": status, "model": "m", "output": [], **more}
    return event({"type": f"response.{status}", "response": reply})


def begun() -> bytes:
    usage = {"input_tokens": 5, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}  # fmt: skip
    return event({"type": "message_start", "message": message})


FORMS: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "openai code": ("openai", lambda word: event({"error": {"message": "no", "code": word}})),
    "openai type": ("openai", lambda word: event({"error": {"message": "no", "type": word, "code": None}})),
    "anthropic": ("anthropic", lambda word: begun() + event({"type": "error", "error": {"type": word, "message": "no"}})),
    "responses failed": ("responses", lambda word: response("failed", error={"code": word, "message": "no"})),
    "responses error": ("responses", lambda word: event({"type": "error", "code": word, "message": "no"})),
}  # fmt: skip


def failed(dialect: str, data: bytes) -> Failure:
    decoder = DIALECTS[dialect].decoder(Capabilities(), "text/event-stream", "s")
    last = [*decoder.feed(data), *decoder.close()][-1]
    assert isinstance(last, Failed)
    return last.failure


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_word_means_the_same_in_every_dialect(form: str, word: str) -> None:
    dialect, write = FORMS[form]
    assert failed(dialect, write(word)).kind == WORDS[word]


@pytest.mark.parametrize(("word", "kind"), WORDS.items())
def test_what_is_wrong_with_a_request_is_not_counted_against_the_upstream(
    word: str, kind: Kind
) -> None:
    faults = ("upstream", "overloaded", "timeout")
    assert (failure_of(200, "no", word).kind in FAULTS) == (kind in faults)


def test_the_words_of_an_error_with_a_status_say_more_than_the_status() -> None:
    assert failure_of(400, "no", "content_filter").kind == "blocked"
    assert failure_of(400, "", "context_length_exceeded").kind == "context_length"
    assert failure_of(429, "check your plan", "insufficient_quota").kind == "upstream_quota"
    assert failure_of(500, "no", "invalid_request_error").kind == "upstream"
