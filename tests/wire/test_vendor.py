"""The error dictionary: what an upstream's words mean to the caller."""

import pytest

from headgate.errors import Kind
from headgate.wire.vendor import CODES, failure_of, retry_after

CASES: list[tuple[int, str, int | str | None, str, Kind]] = [
    (
        400,
        "invalid params, context window exceeds limit (2013)",
        None,
        "bad_request_error",
        "context_length",
    ),
    (400, "invalid params, unknown model 'x' (2013)", None, "bad_request_error", "unavailable"),
    (400, "invalid params, tool call and result not match (2013)", None, "", "invalid"),
    (401, "login fail: carry the key (1004)", None, "authentication_error", "upstream_auth"),
    (429, "insufficient balance (1008)", None, "", "unavailable"),
    (200, "rate limit", 1002, "", "rate_limit"),
    (200, "input sensitive", 1026, "", "blocked"),
    (529, "", None, "", "overloaded"),
    (500, "High traffic detected, try later", None, "", "overloaded"),
    (503, "", None, "", "overloaded"),
    (502, "<html>bad gateway</html>", None, "", "upstream"),
    (403, "no", None, "", "upstream_auth"),
    (200, "Overloaded", None, "overloaded_error", "overloaded"),
    (404, "no such page", None, "", "unavailable"),
    (422, "field required", None, "", "invalid"),
]


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


@pytest.mark.parametrize(
    "headers, seconds",
    [({"retry-after": "3"}, 3.0), ({"retry-after-ms": "250"}, 0.25), ({"retry-after": "x"}, None), ({}, None), ({"retry-after": "-1"}, None)],
)  # fmt: skip
def test_waits_are_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
