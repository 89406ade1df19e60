"""What reports are asked for and what they answer, whatever the ledger is kept in."""

from typing import Literal, get_args

import msgspec

from headgate.chat import FinishReason
from headgate.errors import BLAMELESS, BY_UPSTREAM

By = Literal["key", "account", "model", "day", "hour", "session", "upstream", "user"]
Step = Literal["hour", "day"]
Column = Literal["model", "upstream", "outcome", "account", "key"]
# Which exchanges of the log are meant: without an answer, of these those that an upstream is to blame
# for, and those without a known cost.
Only = Literal["errors", "upstream_errors", "unpriced"]
# By what the log can be put in order: a column, how long it took, how often an upstream was asked.
Order = Literal[
    "ended",
    "started",
    "key",
    "account",
    "session",
    "user",
    "model",
    "upstream",
    "dialect",
    "outcome",
    "status",
    "input",
    "cached",
    "output",
    "reasoning",
    "cost",
    "basis",
    "ttft",
    "total",
    "attempts",
]
HOUR_S = 3600
END_OF_TIME_S = 253402300800.0  # the year 10000
MAX_SEQ = 2**63 - 1
MAX_SEARCHED = 200_000  # rows that are looked through for a text: some tenths of a second
# Outcomes that are no errors: a reply, and a client that disconnected, for which nobody is to blame.
FINE: tuple[str, ...] = (*get_args(FinishReason), *sorted(BLAMELESS))
# Kinds of failure that speak of an upstream; the others are the request's, or the gateway's.
UPSTREAMS_FAULT: tuple[str, ...] = tuple(sorted(BY_UPSTREAM))


class Measured(msgspec.Struct, frozen=True):
    """Adds up what this gateway saw of one upstream lately; None means that there was too little to say."""

    requests: int
    error_rate: float  # 0 to 1
    first_token_ms: float | None = None
    tokens_per_s: float | None = None


class Spent(msgspec.Struct, frozen=True):
    """The sum of a group of exchanges; `unpriced` of them have no known cost and are not in it.

    The last four are not kept by session. In sums by session they are those of the rows that are still
    there, and of the requests without a session they are 0.
    """

    name: str
    requests: int
    unpriced: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nano_usd: int
    errors: int = 0  # no answer, and the client did not leave
    ttft_ms: int = 0  # of those that had a first token, together
    first_tokens: int = 0  # how many had
    stream_ms: int = 0  # from the first token to the end


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Which exchanges are meant.  None: all; "" is a value: the keys of no account."""

    account: str | None = None
    key_id: str | None = None
    model: str | None = None
    upstream: str | None = None
    session: str | None = None
    user: str | None = None
    outcome: str | None = None
    node_id: str | None = None  # only where nodes share a database

    def stated(self) -> dict[str, str]:
        return {n: v for n in self.__struct_fields__ if (v := getattr(self, n)) is not None}


ALL = Where()


class RequestFacts(msgspec.Struct, frozen=True, gc=False):
    """The part of a row that figures over many requests are made of; the fields are columns of the ledger."""

    model: str
    upstream: str
    outcome: str
    started_at: float
    ended_at: float
    ttft_ms: int | None
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    cost_nano_usd: int | None
    price_version: str
    service_tier: str

    @property
    def total_ms(self) -> int:
        return round((self.ended_at - self.started_at) * 1000)


class Balance(msgspec.Struct, frozen=True):
    account: str
    key_id: str
    requests: int
    unpriced: int
    spent_nano_usd: int


class Difference(msgspec.Struct, frozen=True):
    """Where what is stored is not what the rows add up to."""

    where: str
    rows: str
    stored: str


class SessionSum(msgspec.Struct, frozen=True):
    """Adds up all exchanges of one session; `unpriced` of them are not in the cost."""

    requests: int
    unpriced: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nano_usd: int
