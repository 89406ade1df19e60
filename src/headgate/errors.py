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

RULES is the one table of what follows from a kind; every set of kinds is derived from it.

A `Failure` is data: it is logged, counted, and encoded by each dialect in its own words, by one
table there.  `Refused` is the exception that carries one to the edge of the exchange.  Messages
name the thing, the value and the place, and never hold keys, prompts or replies.
"""

from collections.abc import Callable
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

Origin = Literal["request", "caller", "gateway", "upstream", "operator", "nobody"]
ClientRetry = Literal["never", "later", "own_rules"]


class KindRule(msgspec.Struct, frozen=True):
    """What follows from one kind of failure, for the gateway and for the client."""

    status: int  # as HTTP itself defines it; dialects differ in a few (OpenAI: 429 for credit)
    origin: Origin
    client_retry: ClientRetry = "own_rules"  # whether the same request may succeed later
    fallback: bool = True  # another route may answer the same request
    retry_same: bool = False  # the same route may, if there is no other
    no_work: bool = False  # the upstream refused without work: another attempt costs nothing
    counts: bool = False  # the circuit breaker counts it against the route
    by_upstream: bool = False  # reports show it at the upstream
    may_bill: bool = False  # the upstream may have worked, and may bill for it
    abandoned: bool = False  # the upstream may go on with a reply that the gateway no longer reads
    declined: bool = False  # an upstream says so of a feature that it does not have
    frequent: bool = False  # clients repeat it fast: its answer is prepared, its log lines are few


# 424 Failed Dependency (RFC 4918, 11.4) for what only the operator can repair: of the statuses that
# fit, the one on which agents stop and show the message.  They repeat 502 and 503 for a minute, and
# blame their own key for 401.
RULES: dict[Kind, KindRule] = {
    "invalid": KindRule(400, "request", client_retry="never", fallback=False, declined=True),
    "context_length": KindRule(400, "request", client_retry="never", fallback=False),
    "blocked": KindRule(400, "request", client_retry="never", fallback=False),
    "too_large": KindRule(413, "request", client_retry="never", fallback=False),
    "media_type": KindRule(415, "request", client_retry="never", fallback=False, declined=True),
    "not_found": KindRule(404, "request", client_retry="never"),
    "method": KindRule(405, "request", client_retry="never"),
    "conflict": KindRule(409, "request"),
    "request_timeout": KindRule(408, "request"),
    "unauthenticated": KindRule(401, "caller", client_retry="never", frequent=True),
    "forbidden": KindRule(403, "caller", client_retry="never", frequent=True),
    "no_credit": KindRule(402, "caller", client_retry="never", by_upstream=True),
    "rate_limit": KindRule(
        429, "caller", client_retry="later", no_work=True, by_upstream=True, frequent=True
    ),
    "internal": KindRule(500, "gateway", may_bill=True),
    "unavailable": KindRule(503, "gateway", by_upstream=True),
    "upstream": KindRule(
        502, "upstream", client_retry="later", retry_same=True, counts=True, by_upstream=True
    ),
    "overloaded": KindRule(
        503,
        "upstream",
        client_retry="later",
        retry_same=True,
        counts=True,
        by_upstream=True,
        frequent=True,
    ),
    "timeout": KindRule(
        504,
        "upstream",
        fallback=False,  # the upstream may have worked on it
        counts=True,
        by_upstream=True,
        may_bill=True,
        abandoned=True,
    ),
    "upstream_auth": KindRule(
        424, "operator", client_retry="never", no_work=True, by_upstream=True
    ),
    "upstream_quota": KindRule(
        424, "operator", client_retry="never", no_work=True, by_upstream=True
    ),
    "upstream_config": KindRule(
        424, "operator", client_retry="never", no_work=True, by_upstream=True, declined=True
    ),
    "client_gone": KindRule(499, "nobody", may_bill=True, abandoned=True),
}


def _kinds(has: Callable[[KindRule], bool]) -> frozenset[Kind]:
    return frozenset(kind for kind, rule in RULES.items() if has(rule))


STATUS: dict[Kind, int] = {kind: rule.status for kind, rule in RULES.items()}
OPERATORS = _kinds(lambda rule: rule.origin == "operator")
BLAMELESS = _kinds(lambda rule: rule.origin == "nobody")
FINAL = _kinds(lambda rule: not rule.fallback)
PASSING = _kinds(lambda rule: rule.retry_same)
NO_WORK = _kinds(lambda rule: rule.no_work)
FAULTS = _kinds(lambda rule: rule.counts)
BY_UPSTREAM = _kinds(lambda rule: rule.by_upstream)
MAY_BILL = _kinds(lambda rule: rule.may_bill)
ABANDONED = _kinds(lambda rule: rule.abandoned)
DECLINED = _kinds(lambda rule: rule.declined)
FREQUENT = _kinds(lambda rule: rule.frequent)
HOPELESS = _kinds(lambda rule: rule.client_retry == "never")
REPEATABLE = _kinds(lambda rule: rule.client_retry == "later")


# A failure's code where the model said what is no answer, such as a call that its server could not
# read: asking again may help, and the upstream itself is well.
MODEL_OUTPUT = "model_output"


class Failure(msgspec.Struct, frozen=True, gc=False):
    kind: Kind
    message: str
    param: str = ""  # address of the field at fault: "$.messages[0].role"
    code: str = ""  # finer than kind where a protocol has a word for it: "unsupported_parameter"
    retry_after_s: float | None = None
    should_retry: bool | None = None  # None: leave it to the client's own rules
    upstream_code: str = ""  # the vendor's number, "1002"; safe to show
    upstream_text: str = ""  # the vendor's words, as redaction.py leaves them; for the operator

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
