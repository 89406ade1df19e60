"""The headers of every answer of the edge to its API, and a failure as an answer.

This is the only module that names the headers which answers have in common.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

from headgate.dialects.contract import Dialect
from headgate.errors import HOPELESS, Failure
from headgate.net import codings, guard

MAX_RETRY_AFTER_S = 120  # above it OpenAI's SDKs give up at once


def header_list(words: Iterable[str]) -> str:
    """Return a header value that is bounded and has visible ASCII only."""
    text = ", ".join(words)
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:1024]


def always(content_type: str, request_id: str) -> list[tuple[str, str]]:
    """Return the headers that every answer to an exchange has."""
    return [
        ("content-type", content_type),
        ("x-request-id", request_id),
        ("request-id", request_id),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ]


BY = "x-headgate-upstream"
WARNINGS = "x-headgate-warnings"
_BLOCK = guard.header_block(always("%b", "%b"))


def block(content_type: str, request_id: str) -> bytes:
    """Return the header lines of `always`, without making them anew for each answer."""
    id = request_id.encode()
    return _BLOCK % (content_type.encode(), id, id)


def json(request_id: str) -> list[tuple[str, str]]:
    """Return the headers of a count, a list or a report."""
    return [
        ("content-type", "application/json"),
        ("x-request-id", request_id),
        ("request-id", request_id),
    ]


@lru_cache(maxsize=1024)
def by(served_by: str) -> bytes:
    """Return the header line that names the route."""
    return guard.header_block([(BY, served_by)])


def refusal(
    dialect: Dialect, failure: Failure, request_id: str
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return status, headers and body of a failure that is sent before anything else was."""
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
    if (
        failure.kind == "media_type"
    ):  # "the server SHOULD send ... Accept-Encoding" (RFC 9110, 15.5.16)
        headers.append(("accept-encoding", ", ".join(sorted(codings.CODINGS - {"x-gzip"}))))
    if failure.kind == "unauthenticated":
        headers.append(("www-authenticate", "Bearer"))
    return status, headers, body
