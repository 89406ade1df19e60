"""The kinds of failure, named by what the caller can do about them.

    Failure
     |-- the request        invalid, context_length, blocked, too_large, media_type, not_found,
     |                      method, conflict, request_timeout
     |-- the caller         unauthenticated, forbidden, no_credit, rate_limit
     |-- the gateway        internal, unavailable (shutting down, storage, every route paused)
     |-- the upstream       upstream, overloaded, timeout
     |-- its operator       upstream_auth (key refused), upstream_quota (balance or plan used up),
     |                      upstream_config (no such model or path there, a redirect, a web page)
     `-- nobody             client_gone (log and ledger only; nobody is there to read it)

A `Failure` is data: it is logged, counted, and encoded by each dialect in its own words, by one
table there.  `Refused` is the exception that carries one to the edge of the exchange.  Messages
name the thing, the value and the place, and never hold keys, prompts or replies.
"""

from typing import Literal

import msgspec

Kind = Literal[
    "invalid",
    "context_length",
    "blocked",
    "too_large",
    "media_type",
    "not_found",
    "method",
    "conflict",
    "request_timeout",
    "unauthenticated",
    "forbidden",
    "no_credit",
    "rate_limit",
    "internal",
    "unavailable",
    "upstream",
    "upstream_auth",
    "upstream_quota",
    "upstream_config",
    "overloaded",
    "timeout",
    "client_gone",
]

# HTTP status as HTTP itself would have it; dialects differ in a few (Anthropic 529, OpenAI 429 for credit).
STATUS: dict[Kind, int] = {
    "invalid": 400,
    "context_length": 400,
    "blocked": 400,
    "too_large": 413,
    "media_type": 415,
    "not_found": 404,
    "method": 405,
    "conflict": 409,
    "request_timeout": 408,
    "unauthenticated": 401,
    "forbidden": 403,
    "no_credit": 402,
    "rate_limit": 429,
    "internal": 500,
    "unavailable": 503,
    "upstream": 502,
    # 424 Failed Dependency (RFC 4918, 11.4): of the statuses that fit, the one on which agents stop
    # and show the message; they repeat 502 and 503 for a minute, and blame their own key for 401.
    "upstream_auth": 424,
    "upstream_quota": 424,
    "upstream_config": 424,
    "overloaded": 503,
    "timeout": 504,
    "client_gone": 499,
}

# What only the operator can repair: no client's retry helps.
OPERATORS: frozenset[Kind] = frozenset(("upstream_auth", "upstream_quota", "upstream_config"))


class Failure(msgspec.Struct, frozen=True, gc=False):
    kind: Kind
    message: str
    param: str = ""  # address of the field at fault: "$.messages[0].role"
    code: str = ""  # finer than kind where a protocol has a word for it: "unsupported_parameter"
    retry_after_s: float | None = None
    should_retry: bool | None = None  # None: leave it to the client's own rules
    upstream_code: str = ""  # the vendor's number, "1002"; safe to show

    @property
    def status(self) -> int:
        return STATUS[self.kind]


class Refused(Exception):
    """Carries a Failure to whoever answers the client."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def invalid(message: str, param: str = "", code: str = "") -> Refused:
    """The commonest refusal: the request itself cannot be honoured."""
    return Refused(Failure("invalid", message, param=param, code=code))


def unsupported(param: str, instead: str = "") -> Refused:
    """A field that changes the meaning and cannot be honoured: `$.n`, and what to do about it."""
    hint = f" {instead}" if instead else ""
    name = param.removeprefix("$.")
    return invalid(
        f"`{name}` is not supported by this gateway.{hint}", param, "unsupported_parameter"
    )
