"""What a page of the ledger is asked for: a span of time, and of whom, of what.

The only place that reads it out of a query and writes it into a link.  Times are UTC everywhere.
Note: a link to a file or to a row's requests names the span by its two ends, so that
it shows the same minute later; a link that only changes a filter keeps "the last 24 hours" as it is.
In a query `-` is the account of the keys that have none (so of upstreams and sessions), and a day as the end includes that day.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args
from urllib.parse import quote, urlencode

import msgspec

from headgate.storage.figures import END_OF_TIME_S, HOUR_S, Only, Where
from headgate.web.context import Problem
from headgate.web.formats import short_moment

Name = Literal["24h", "7d", "30d", "month", "custom", "all"]
DAY_S = 86400
NONE = "-"  # as an account, an upstream or a session: those that have none
_LENGTH_S = {"24h": DAY_S, "7d": 7 * DAY_S, "30d": 30 * DAY_S}
# As the pages offer them.
TITLES: dict[Name, str] = {
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "month": "This month",
    "custom": "From and to",
}
FILTERS = (
    "account",
    "key",
    "model",
    "upstream",
    "outcome",
    "session",
    "errors",
    "unpriced",
    "text",
    "node",
)
MAX_CHARS = 256  # of a filter, as of the ledger's texts


class TimeRange(msgspec.Struct, frozen=True):
    """Holds [since_s, until_s), Unix seconds."""

    name: Name
    since_s: float
    until_s: float

    @property
    def length_s(self) -> float:
        return self.until_s - self.since_s

    def before(self) -> "TimeRange":
        """What it is set against: as long, just before; of a month, as much of the month before."""
        since_s = self.since_s - self.length_s
        if self.name == "month":
            first = datetime.fromtimestamp(self.since_s - 1, UTC).replace(day=1)
            since_s = _midnight(first).timestamp()
        until_s = min(since_s + self.length_s, self.since_s)
        return TimeRange("custom", max(since_s, 0.0), max(until_s, 0.0))

    def stated(self) -> str:
        if self.name == "all":
            return ""
        return f"{short_moment(self.since_s, ' ')} - {short_moment(self.until_s, ' ')} UTC"

    def ends(self) -> dict[str, str]:
        """The query that means just this span, whenever it is asked."""
        if self.name == "all":
            return {}
        return {"span": "custom", "from": iso(self.since_s), "to": iso(self.until_s)}

    def kept(self) -> dict[str, str]:
        """The query that means the same words: "the last 24 hours" goes on moving."""
        return self.ends() if self.name == "custom" else {"span": self.name}


UPSTREAMS = "upstream"  # of the filter `errors`
ALWAYS = TimeRange("all", 0.0, END_OF_TIME_S)


class ReportQuery(msgspec.Struct, frozen=True):
    """A span and its filters; "" is no filter."""

    span: TimeRange
    account: str = ""
    key: str = ""
    model: str = ""
    upstream: str = ""
    outcome: str = ""
    session: str = ""
    errors: str = ""  # "1": those only; "upstream": of those, an upstream's own
    unpriced: str = ""  # "1": only those without a known cost
    text: str = ""
    node: str = ""

    def filters(self) -> dict[str, str]:
        return {name: value for name in FILTERS if (value := getattr(self, name))}

    def where(self, scope: str | None) -> Where:
        """Return it in the ledger's words, never wider than the scope."""
        account: str | None = scope
        if scope is None and self.account:
            account = _or_none(self.account)
        return Where(
            account=account,
            key_id=self.key or None,
            model=self.model or None,
            upstream=_or_none(self.upstream) if self.upstream else None,
            outcome=self.outcome or None,
            session=_or_none(self.session) if self.session else None,
            node_id=self.node or None,
        )

    @property
    def only(self) -> tuple[Only, ...]:
        """Return which exchanges are meant, as the ledger names them."""
        errors: tuple[Only, ...] = ()
        if self.errors:
            errors = ("upstream_errors",) if self.errors == UPSTREAMS else ("errors",)
        return (*errors, "unpriced") if self.unpriced else errors

    def link(self, path: str, changes: Mapping[str, str] = {}, *, fixed: bool = False) -> str:
        """The path with this query, but for the changes; "" takes a filter away."""
        span = self.span.ends() if fixed else self.span.kept()
        return address(path, {**span, **self.filters(), **changes})


def _or_none(value: str) -> str:
    return "" if value == NONE else value


def read(query: Mapping[str, str], now_s: float, default: Name, *, scoped: bool) -> ReportQuery:
    """What a query asks for, or Problem; `scoped`: it may choose no account."""
    return ReportQuery(
        _span(query, now_s, default),
        **{
            name: query.get(name, "").strip()[:MAX_CHARS]
            for name in FILTERS
            if not (name == "account" and scoped)
        },
    )


def address(path: str, query: Mapping[str, str]) -> str:
    stated = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(stated)}" if stated else path


def of_session(id: str) -> str:
    return f"/sessions/{quote(id, safe='')}"


def of_request(id: str) -> str:
    return f"/requests/{quote(id, safe='')}"


def custom(since_s: float, until_s: float) -> dict[str, str]:
    return TimeRange("custom", since_s, until_s).ends()


def measured(since_s: float) -> dict[str, str]:
    """The query for what `measured` sums up: whole hours, of which the first has begun before `since_s`."""
    return {"span": "custom", "from": iso(since_s // HOUR_S * HOUR_S)}


def iso(at_s: float) -> str:
    """To the second, as a query and a field of a form have it."""
    return short_moment(at_s, "T")


def _span(query: Mapping[str, str], now_s: float, default: Name) -> TimeRange:
    # A second more, or what ended just now would not be in it.
    until_s = math.floor(now_s) + 1.0
    asked = query.get("span", "")
    since, until = query.get("from", "").strip(), query.get("to", "").strip()
    if asked == "custom" or (not asked and (since or until)):
        return _custom(since, until, until_s)
    if asked and asked not in get_args(Name):
        raise Problem(400, "There is no such span of time.", "span")
    name: Name = next((n for n in get_args(Name) if n == asked), default)
    if name == "month":
        first = datetime.fromtimestamp(now_s, UTC).replace(day=1)
        return TimeRange(name, _midnight(first).timestamp(), until_s)
    if name in _LENGTH_S:
        return TimeRange(name, until_s - _LENGTH_S[name], until_s)
    return ALWAYS


def _custom(since: str, until: str, now_s: float) -> TimeRange:
    until_s = _seconds(until, "to", end=True) if until else now_s
    since_s = _seconds(since, "from", end=False) if since else max(until_s - 7 * DAY_S, 0.0)
    if since_s >= until_s:
        raise Problem(400, "The span ends before it begins.", "to")
    return TimeRange("custom", since_s, until_s)


def _seconds(text: str, field: str, *, end: bool) -> float:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        if end and len(text) == len("2026-01-31"):
            at += timedelta(days=1)
        return min(max(math.floor(at.timestamp()), 0.0), END_OF_TIME_S)
    except (ValueError, OverflowError):
        raise Problem(
            400, "A time is written 2026-01-31 or 2026-01-31T08:00, in UTC.", field
        ) from None


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)
