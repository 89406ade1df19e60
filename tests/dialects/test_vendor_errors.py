"""The error dictionary: what an upstream's words mean to the caller."""

import pytest

from headgate.dialects.retry_after import MAX_WAIT_S, retry_after
from headgate.dialects.vendor_errors import CODES, failure_of
from headgate.errors import MODEL_OUTPUT, Kind

CASES: list[tuple[int, str, int | str | None, str, Kind]] = [
    (
        400,
        "invalid params, context window exceeds limit (2013)",
        None,
        "bad_request_error",
        "context_length",
    ),
    (400, "invalid params, unknown model 'x' (2013)", None, "bad_request_error", "upstream_config"),
    (400, "invalid params, tool call and result not match (2013)", None, "", "invalid"),
    (401, "login fail: carry the key (1004)", None, "authentication_error", "upstream_auth"),
    (429, "insufficient balance (1008)", None, "", "upstream_quota"),
    (200, "rate limit", 1002, "", "rate_limit"),
    (200, "input sensitive", 1026, "", "blocked"),
    (529, "", None, "", "overloaded"),
    (500, "High traffic detected, try later", None, "", "overloaded"),
    (503, "", None, "", "overloaded"),
    (502, "<html>bad gateway</html>", None, "", "upstream"),
    (403, "no", None, "", "upstream_auth"),
    (200, "Overloaded", None, "overloaded_error", "overloaded"),
    (404, "no such page", None, "", "upstream_config"),
    (402, "", None, "", "upstream_quota"),
    (200, "plan used up", 2056, "", "upstream_quota"),
    (200, "not in the plan", 2061, "", "upstream_quota"),
    (403, "Your input was flagged by moderation", None, "", "blocked"),
    (405, "", None, "", "upstream_config"),
    (307, "", None, "", "upstream_config"),
    (204, "", None, "", "upstream"),
    (422, "field required", None, "", "invalid"),
    (
        400,
        "Your credit balance is too low to access the Anthropic API.",
        None,
        "invalid_request_error",
        "upstream_quota",
    ),
    (429, "You've hit it: insufficient balance, you can't go on", None, "", "upstream_quota"),
    (404, "The model `x` does not exist.", None, "", "upstream_config"),
]
# What an upstream repeats of a request: no client may pause a healthy upstream with its own words.
REPEATED = [
    "Invalid value for `name`: 'insufficient balance'",
    "[{'type': 'literal_error', 'loc': ('body', 'messages'), 'input': 'unknown model'}]",
    'invalid params, tool "insufficient quota" has no result (2013)',
    "tools[0].name: `overloaded high traffic` does not match the pattern",
    "tool 'model x not found' is not declared (2013)",
]


@pytest.mark.parametrize("message", REPEATED)
def test_words_that_are_repeated_from_the_request_are_not_the_upstreams_own(message: str) -> None:
    assert failure_of(400, message, None, "invalid_request_error").kind == "invalid"


@pytest.mark.parametrize("status, message, code, type_, kind", CASES)
def test_words_have_their_kind(
    status: int, message: str, code: int | str | None, type_: str, kind: Kind
) -> None:
    assert failure_of(status, message, code, type_).kind == kind


def test_the_operators_trouble_never_looks_like_the_callers() -> None:
    for code in CODES:
        assert failure_of(200, "x", code).status not in (401, 402, 403)


def test_a_page_of_html_is_not_shown() -> None:
    assert "<html>" not in failure_of(502, "<html>secret host</html>").message


DATE = {"date": "Mon, 30 Nov 2026 12:00:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "x"}, None),
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "1e9"}, MAX_WAIT_S),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "Mon, 30 Nov 2026 12:01:00 GMT", **DATE}, 60.0),
        ({"retry-after": "Mon, 30 Nov 2026 11:00:00 GMT", **DATE}, 0.0),
        ({"retry-after": "Mon, 30 Nov 9026 11:00:00 GMT", **DATE}, MAX_WAIT_S),
        ({"retry-after": "Mon, 99 Nov 2026 11:00:00 GMT", **DATE}, None),
        ({"retry-after": "Mon, 30 Nov 2026 12:01:00 GMT"}, None),
        ({"x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset": "1796040030", **DATE}, 30.0),
        ({"x-ratelimit-reset": "1796040030000", **DATE}, 30.0),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "12ms",
            },
            360.0,
        ),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "12ms"}, 0.012),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        (
            {
                "anthropic-ratelimit-requests-reset": "2026-11-30T12:00:07Z",
                "anthropic-ratelimit-requests-remaining": "0",
                **DATE,
            },
            7.0,
        ),
        ({"retry-after": "5", "x-ratelimit-reset": "99"}, 5.0),
        ({"x-ratelimit-reset": "-5"}, None),
        ({"x-ratelimit-reset": ""}, None),
        ({"x-ratelimit-reset": "soon", **DATE}, None),
    ],
)
def test_waits_are_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_request_that_alone_is_above_the_limit_of_a_minute_pauses_nothing() -> None:
    words = "Request too large for m in organization o on tokens per min (TPM): Limit 30000, Requested 40000."
    failure = failure_of(429, words, "rate_limit_exceeded", "tokens", 2.0)
    assert failure.kind == "too_large"
    # The client's own words in quotes are none of the upstream's.
    quoted = failure_of(429, "Too many requests for 'Request too large'", "rate_limit_exceeded")
    assert quoted.kind == "rate_limit"


@pytest.mark.parametrize("word", ["tool_use_failed", "json_validate_failed"])
@pytest.mark.parametrize("status", [200, 400])
def test_what_the_model_wrote_wrongly_may_be_asked_for_again(word: str, status: int) -> None:
    failure = failure_of(status, "Failed to call a function.", word, "invalid_request_error")
    assert (failure.kind, failure.code) == ("upstream", MODEL_OUTPUT)
