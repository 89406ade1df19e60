"""The head of every answer to an exchange, and a failure as an answer.

The only place that knows the headers that all of them have, and which failures say whether to retry.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

from headgate.dialects.contract import Dialect
from headgate.errors import HOPELESS, Failure
from headgate.net import guard

MAX_RETRY_AFTER_S = 120  # above it OpenAI's SDKs give up at once


def header_list(words: Iterable[str]) -> str:
    """A header value: visible ASCII only, bounded."""
    text = ", ".join(words)
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:1024]


def always(content_type: str, request_id: str) -> list[tuple[str, str]]:
    """The headers that every answer to an exchange has."""
    return [
        ("content-type", content_type),
        ("x-request-id", request_id),
        ("request-id", request_id),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ]


# The same for an answer that is none of a failure, with the type and twice the id.
BLOCK = guard.header_block(always("%b", "%b"))
BY = "x-headgate-upstream"


@lru_cache(maxsize=1024)
def by(served_by: str) -> bytes:
    return guard.header_block([(BY, served_by)])


def refusal(
    dialect: Dialect, failure: Failure, request_id: str
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of a failure that is told before anything was sent."""
    status, body = dialect.encode_failure(failure, request_id)
    if failure.code == "idempotency_key_reused":
        status = 422  # draft-ietf-httpapi-idempotency-key-header-07; no protocol has a word for it
    headers = always("application/json", request_id)
    if failure.retry_after_s is not None and math.isfinite(failure.retry_after_s):
        wait = min(max(1, math.ceil(failure.retry_after_s)), MAX_RETRY_AFTER_S)
        headers.append(("retry-after", str(wait)))
    retry = False if failure.kind in HOPELESS else failure.should_retry
    if retry is not None:
        headers.append(("x-should-retry", "true" if retry else "false"))
    if failure.kind == "unauthenticated":
        headers.append(("www-authenticate", "Bearer"))
    return status, headers, body
