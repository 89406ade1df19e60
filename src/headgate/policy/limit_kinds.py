"""The kinds of limit that a key may have, one row each."""

from collections.abc import Callable
from typing import Literal

import msgspec

from headgate.policy.keys import Key

NS = 10**9
MINUTE_NS = 60 * NS


# A count of tokens is cheap and agents ask for two dozen at a time; a key that may generate often may
# count several times as often.
COUNTS_PER_REQUEST, MIN_COUNTS, DEFAULT_COUNTS, COUNTS_AT_A_TIME = 5, 30, 1200, 32
LOOKUPS = 600  # lists, reports and cards a minute: more than any client was seen to ask for

Takes = Literal["request", "tokens", "slot"]
Scope = Literal["exchange", "count", "lookup"]  # which kind of request a limit is for


class LimitKind(msgspec.Struct, frozen=True):
    """What can be limited: what one request takes of it, and in how long `most` comes back."""

    name: str
    label_text: str  # "the limit is 60 {says}"
    most: Callable[[Key], int | None]
    takes: Takes
    window_ns: int = MINUTE_NS
    header: str = ""  # "x-ratelimit-limit-{header}"; "": in none
    scope: Scope = "exchange"


def _counts_a_minute(key: Key) -> int:
    return DEFAULT_COUNTS if key.rpm is None else max(MIN_COUNTS, COUNTS_PER_REQUEST * key.rpm)


# A new limit is a row.
LIMITS: dict[str, LimitKind] = {
    kind.name: kind
    for kind in (
        LimitKind(
            "requests", "requests a minute", lambda key: key.rpm, "request", header="requests"
        ),
        LimitKind("tokens", "tokens a minute", lambda key: key.tpm, "tokens", header="tokens"),
        LimitKind("concurrency", "requests at a time", lambda key: key.concurrency, "slot"),
        LimitKind("counts", "token counts a minute", _counts_a_minute, "request", scope="count"),
        LimitKind(
            "counting", "token counts at a time", lambda _: COUNTS_AT_A_TIME, "slot", scope="count"
        ),
        LimitKind("lookups", "look-ups a minute", lambda _: LOOKUPS, "request", scope="lookup"),
    )
}


class Limit(msgspec.Struct, frozen=True, gc=False):
    kind: str  # of LIMITS
    most: int
    model: str = ""  # counted for this one apart; "": for all together


def of_key(key: Key, scope: Scope = "exchange") -> tuple[Limit, ...]:
    """The limits of a key for one kind of request."""
    found = ((kind.name, kind.most(key)) for kind in LIMITS.values() if kind.scope == scope)
    return tuple(Limit(name, most) for name, most in found if most is not None)
