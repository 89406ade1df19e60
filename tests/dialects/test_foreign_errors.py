"""An error means the same in whichever vendor's form it comes, and from whichever upstream protocol."""

import json
from typing import Any

import pytest

from headgate.chat import Failed
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import DIALECTS

TOO_LARGE = "Request too large for m on tokens per min (TPM): Limit 30000, Requested 40000."
LONG = "This model's maximum context length is 8192 tokens. However, you requested 9000."
NO_BALANCE = "Your credit balance is too low to access the API."


def forms(message: str) -> dict[str, Any]:
    openai = {
        "error": {
            "message": message,
            "type": "tokens",
            "code": "rate_limit_exceeded",
            "param": None,
        }
    }
    google = {
        "error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": []}
    }
    return {
        "openai": openai,
        "openai, null fields": {"error": {"message": message, "type": None, "code": None}},
        "anthropic": {"type": "error", "error": {"type": "rate_limit_error", "message": message}},
        "google": google,
        "google's array": [google],
        "grpc gateway": {"code": 8, "message": message, "details": [{"@type": "x"}]},
        "a text": message,
        "a text as the error": {"error": message},
        "a text beside a word": {"error": "rate_limited", "message": message},
        "spring": {"timestamp": "t", "status": 429, "error": "Too Many Requests", "message": message},
        "fastapi": {"detail": message},
        "fastapi, an object": {"detail": {"error": {"message": message}}},
        "fastapi, a list": {"detail": [{"loc": ["body", 0], "msg": message, "type": "value_error"}]},
        "cloudflare": {"success": False, "errors": [{"code": 10000, "message": message}], "result": None},
        "problem": {"type": "about:blank", "title": message, "status": 429},
        "json in the message": {"error": {"message": json.dumps(openai), "code": 429}},
        "json behind words": {"error": {"message": f"got status: 429. {json.dumps(google)}"}},
        "json in the error": {"error": json.dumps(openai)},
        "error in an error": {"error": {"error": {"message": message}}},
        "a numeric code as text": {"error": {"message": message, "code": "429", "status": 429}},
    }  # fmt: skip


WORDS = [
    (429, TOO_LARGE, "too_large"),
    (400, LONG, "context_length"),
    (400, NO_BALANCE, "upstream_quota"),
]


@pytest.mark.parametrize("form", forms(""))
@pytest.mark.parametrize("dialect", DIALECTS)
def test_words_count_in_every_form_from_every_upstream(dialect: str, form: str) -> None:
    for status, words, kind in WORDS:
        body = json.dumps(forms(words)[form]).encode()
        failure = DIALECTS[dialect].decode_failure(status, {"retry-after": "3"}, body)
        assert (failure.kind, failure.retry_after_s) == (kind, 3), body


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_plain_text_says_its_kind_and_is_not_shown(dialect: str) -> None:
    for status, words, kind in WORDS:
        failure = DIALECTS[dialect].decode_failure(status, {}, words.encode())
        assert failure.kind == kind
        assert words not in failure.message and words not in failure.upstream_text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_page_is_neither_read_nor_shown(dialect: str) -> None:
    page = f"<!DOCTYPE html><html><body>{TOO_LARGE} at 10.0.0.7</body></html>"
    for body in (page, json.dumps({"error": {"message": page}})):
        failure = DIALECTS[dialect].decode_failure(429, {}, body.encode())
        assert failure.kind == "rate_limit" and "10.0.0.7" not in failure.message


@pytest.mark.parametrize("dialect", DIALECTS)
def test_googles_reasons_and_waits_count_from_every_upstream(dialect: str) -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"},
    ]
    error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}
    body = json.dumps([{"error": {**error, "details": details}}]).encode()
    failure = DIALECTS[dialect].decode_failure(400, {}, body)
    assert (failure.kind, failure.retry_after_s) == ("upstream_auth", 3.5)


@pytest.mark.parametrize(
    "body", [b"[" * 9_000, b'{"error":' * 9_000, b'{"error":1e999}', b"null", b"[[[[[[[[1]]]]]]]]"]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_says_nothing_is_known_by_its_status(dialect: str, body: bytes) -> None:
    assert DIALECTS[dialect].decode_failure(503, {}, body).kind == "overloaded"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "form", ["openai", "google", "json in the message", "error in an error", "a text as the error"]
)
def test_an_error_of_another_vendor_inside_a_reply_fails_it(dialect: str, form: str) -> None:
    body = json.dumps(forms(LONG)[form]).encode()
    for content_type, data in (
        ("text/event-stream", b"data: " + body + b"\n\n"),
        ("application/json", body),
    ):
        decoder = DIALECTS[dialect].decoder(Capabilities(), content_type, "s")
        last = [*decoder.feed(data), *decoder.close()][-1]
        assert isinstance(last, Failed)
        assert last.failure.kind == "context_length"
