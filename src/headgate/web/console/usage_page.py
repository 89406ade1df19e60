"""Usage: what was spent, asked and waited for in a span of time, by whom and by what.

The only place that turns the ledger's sums into figures, a chart and a table.  Note:
- the chart and the table are one read of the ledger where they are grouped alike, so that they cannot
  differ; the table is also the file (/usage.csv), line by line, with exact amounts;
- at most MOST lines are shown; what is left is one line more, "others", never dropped from the sum;
- errors and times by session are of the requests that are still kept (storage/sqlite/reports.py).
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from starlette.responses import Response

from headgate.money import rounded
from headgate.policy import pricing
from headgate.storage import usage_table
from headgate.storage.figures import HOUR_S, By, Spent, Step, Where
from headgate.web import csv_response, time_range
from headgate.web.app import Rule
from headgate.web.context import NavigationEntry, Problem, RequestContext
from headgate.web.formats import duration, points, rate, short
from headgate.web.time_range import DAY_S, ReportQuery, TimeRange

MOST = 200  # lines of a table
MAX_SPAN_S = 800 * DAY_S  # a chart has no more room for days
MAX_HOURLY_S = 62 * DAY_S
HOURLY_S = 3 * DAY_S  # up to here a chart has a bar for each hour
STACKED = 7  # groups with a colour of their own
BYS: dict[By, str] = {
    "model": "Model",
    "key": "Key",
    "account": "Account",
    "upstream": "Upstream",
    "session": "Session",
    "day": "Day",
    "hour": "Hour",
}
# Where a line leads: its group becomes a filter, and is looked at by this.
_INTO: dict[By, By] = {"model": "key", "key": "model", "account": "key", "upstream": "model"}
NONE = Spent("", 0, 0, 0, 0, 0, 0, 0, 0)
Better = Literal["more", "less", "neither"]


class Figure(msgspec.Struct, frozen=True):
    title: str
    value: str
    exact: str
    change: str  # against the span before; "" where there was nothing
    better: bool | None  # None: neither good nor bad
    before: str
    note: str = ""
    log: str = ""  # the requests that it counts
    note_log: str = ""  # those that the note counts


class UsageTableRow(msgspec.Struct, frozen=True):
    """Shows one row of the table; paths are "" where there is nothing to see."""

    spent: Spent
    title: str
    id: str = ""  # where the title is a name that was given to it
    into: str = ""
    log: str = ""


class Curve(msgspec.Struct, frozen=True):
    name: str
    values: list[float | None]


class Chart(msgspec.Struct, frozen=True):
    """Everything that static/usage.js draws; names are already in the visitor's language."""

    step_s: int
    starts: list[int]
    curves: dict[str, list[Curve]]  # by what is shown


class Names(msgspec.Struct, frozen=True):
    """What keys and accounts are called, of those that the visitor may see."""

    keys: dict[str, str]
    accounts: dict[str, str]

    def of(self, what: str, id: str) -> str:
        return (self.keys if what == "key" else self.accounts if what == "account" else {}).get(
            id, ""
        )

    def sorted(self, what: Literal["key", "account"]) -> list[tuple[str, str]]:
        """Ids with their names, as a form offers them."""
        found = self.keys if what == "key" else self.accounts
        return sorted(found.items(), key=lambda named: (named[1].lower(), named[0]))


class Seen(msgspec.Struct, frozen=True):
    """One answer of the ledger, in full."""

    asked: ReportQuery
    by: By
    total: Spent
    lines: list[UsageTableRow]
    names: Names
    series: list[tuple[int, Spent]]
    step: Step


# --- reading -------------------------------------------------------------------------------------


def look(visit: RequestContext, *, whole: bool = False) -> Seen:
    """Read what is asked for; `whole`: of all nodes or not at all."""
    who, ledger = visit.who, visit.ledger
    ledger_reports = ledger.whole if whole else ledger.reports
    asked = time_range.read(visit.query, time.time(), "7d", scoped=who.scope is not None)
    asked = msgspec.structs.replace(
        asked,
        outcome="",
        session="",
        errors="",
        unpriced="",
        text="",
        node=ledger.node(visit.query.get("node", "")) or "",
    )
    by: By = next((b for b in BYS if b == visit.query.get("by")), "model")
    span, where = asked.span, asked.where(who.scope)
    if span.length_s > MAX_SPAN_S:
        raise Problem(400, "A span of usage has at most 800 days.", "from")
    if by == "hour" and span.length_s > MAX_HOURLY_S:
        raise Problem(400, "A span by the hour has at most 62 days.", "from")
    hourly = by == "hour" or (by != "day" and span.length_s <= HOURLY_S)
    step: Step = "hour" if hourly else "day"
    split = by if by in _INTO else None
    series = ledger_reports.series(split, span.since_s, span.until_s, step=step, where=where)
    total = added("", (s for _, s in series))
    groups = _groups(visit, by, span, where, series)
    shown = groups[:MOST]
    mine = names(visit)
    lines = [_line(visit, asked, mine, by, spent) for spent in shown]
    if len(groups) >= MOST:
        rest = less(total, added("", shown))
        if rest.requests:
            others = visit.word("earlier" if by in ("day", "hour") else "others")
            lines.append(UsageTableRow(rest, others))
    return Seen(asked, by, total, lines, mine, series, step)


def _groups(
    visit: RequestContext,
    by: By,
    span: TimeRange,
    where: Where,
    series: Sequence[tuple[int, Spent]],
) -> list[Spent]:
    """The lines' sums: times the last first, others by cost."""
    if by == "session":
        return visit.ledger.reports.usage(by, span.since_s, span.until_s, where=where, most=MOST)
    if by not in _INTO:
        form = "%Y-%m-%d" if by == "day" else "%Y-%m-%dT%H:00Z"
        return [
            msgspec.structs.replace(s, name=datetime.fromtimestamp(start, UTC).strftime(form))
            for start, s in reversed(series)
        ]
    pieces: dict[str, list[Spent]] = {}
    for _, spent in series:
        pieces.setdefault(spent.name, []).append(spent)
    sums = [added(name, some) for name, some in pieces.items()]
    return sorted(sums, key=lambda s: (-s.cost_nano_usd, -s.requests, s.name))


def added(name: str, some: Iterable[Spent]) -> Spent:
    sums = [0] * len(_SUMS)
    for spent in some:
        for n, value in enumerate(msgspec.structs.astuple(spent)[1:]):
            sums[n] += value
    return Spent(name, *sums)


def less(one: Spent, other: Spent) -> Spent:
    return Spent(one.name, *(max(getattr(one, f) - getattr(other, f), 0) for f in _SUMS))


_SUMS = Spent.__struct_fields__[1:]


def _line(
    visit: RequestContext, asked: ReportQuery, mine: Names, by: By, spent: Spent
) -> UsageTableRow:
    name = spent.name
    match by:
        case "day" | "hour":
            start = datetime.fromisoformat(name).replace(tzinfo=UTC).timestamp()
            length = DAY_S if by == "day" else HOUR_S
            span = asked.span
            ends = time_range.custom(max(start, span.since_s), min(start + length, span.until_s))
            into = asked.link("/usage", {**ends, "by": "hour" if by == "day" else "model"})
            title = name if by == "day" else name.replace("T", " ").removesuffix("Z")
            return UsageTableRow(spent, title, into=into, log=asked.link("/requests", ends))
        case "session":
            log = asked.link("/requests", {"session": name or time_range.NONE}, fixed=True)
            into = time_range.of_session(name) if name else ""
            return UsageTableRow(spent, name or visit.word("(no session)"), "", into, log)
    value = time_range.NONE if by in ("account", "upstream") and not name else name
    into = asked.link("/usage", {by: value, "by": _INTO[by]}) if value else ""
    log = asked.link("/requests", {by: value}, fixed=True) if value else ""
    given = mine.of(by, name)
    title = given or name or visit.word("(no account)" if by == "account" else "(none)")
    return UsageTableRow(spent, title, name if given and given != name else "", into, log)


def names(visit: RequestContext) -> Names:
    scope, keys = visit.who.scope, visit.console_context.store.keys()
    return Names(
        {k.id: k.name for k in keys if scope in (None, k.account)},
        {a.id: a.name for a in visit.console_context.store.accounts() if scope in (None, a.id)},
    )


# --- figures -------------------------------------------------------------------------------------


def figures(visit: RequestContext, asked: ReportQuery, now: Spent, before: Spent) -> list[Figure]:
    """Return the cards; each count leads to its requests in the log."""
    _ = visit.word

    def figure(
        title: str,
        measure: Callable[[Spent], float | None],
        reported: Callable[[float], str],
        better: Better,
        note: str = "",
        exact: str = "",
        log: str = "",
        note_log: str = "",
    ) -> Figure:
        value, was = measure(now), measure(before)
        text = "-" if value is None else reported(value)
        change, good = _change(value, was, better, reported is rate)
        past = "-" if was is None else reported(was)
        return Figure(title, text, exact, change, good, past, note, log, note_log)

    unpriced = now.unpriced
    return [
        figure(
            _("Spend"),
            lambda s: s.cost_nano_usd,
            lambda v: rounded(int(v)),
            "neither",
            _("{count} without a known price", count=f"{unpriced:,}") if unpriced else "",
            f"${pricing.usd(now.cost_nano_usd)}",
            note_log=asked.link("/requests", {"unpriced": "1"}, fixed=True),
        ),
        figure(
            _("Requests"),
            lambda s: s.requests,
            short,
            "neither",
            exact=f"{now.requests:,}",
            log=asked.link("/requests", fixed=True),
        ),
        figure(
            _("Errors"),
            lambda s: share(s.errors, s.requests),
            rate,
            "less",
            _("{count} failed", count=f"{now.errors:,}") if now.errors else "",
            note_log=asked.link("/requests", {"errors": "1"}, fixed=True),
        ),
        figure(
            _("Input tokens"),
            lambda s: s.input_tokens,
            short,
            "neither",
            exact=f"{now.input_tokens:,}",
        ),
        figure(
            _("Output tokens"),
            lambda s: s.output_tokens,
            short,
            "neither",
            exact=f"{now.output_tokens:,}",
        ),
        figure(_("Cached input"), lambda s: share(s.cached_tokens, s.input_tokens), rate, "more"),
        figure(_("First token, mean"), first_token_ms, duration, "less"),
        figure(_("Tokens/s"), tokens_per_s, lambda v: f"{v:,.1f}", "more"),
    ]


def _change(
    value: float | None, was: float | None, better: Better, shares: bool
) -> tuple[str, bool | None]:
    """Return how a figure changed: shares in percentage points, others in percent of what was."""
    if value is None or was is None or not (was or shares):
        return "", None
    if shares:
        step = value - was
        if abs(step) < 0.0005:
            return "= 0 pp", None
        text = f"{'▲' if step > 0 else '▼'} {points(step)}"
        return text, None if better == "neither" else (step > 0) == (better == "more")
    part = value / was - 1
    much = f"x {value / was:,.0f}" if part >= 10 else f"{abs(part) * 100:,.0f} %"
    text = f"{'▲' if part > 0 else '▼'} {much}"
    if abs(part) < 0.005:
        return "= 0 %", None
    return text, None if better == "neither" else (part > 0) == (better == "more")


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def first_token_ms(s: Spent) -> float | None:
    return share(s.ttft_ms, s.first_tokens)


def tokens_per_s(s: Spent) -> float | None:
    return s.output_tokens * 1000 / s.stream_ms if s.stream_ms else None


# --- the chart -----------------------------------------------------------------------------------


def chart(seen: Seen, visit: RequestContext) -> Chart:
    """Each of the dearest groups at each step, the others together; without groups, kinds of tokens."""
    span, step_s = seen.asked.span, HOUR_S if seen.step == "hour" else DAY_S
    first = math.floor(span.since_s / step_s) * step_s
    starts = list(range(first, math.ceil(span.until_s), step_s))
    place = {start: n for n, start in enumerate(starts)}
    grouped = seen.by in _INTO
    titles = _labels([line for line in seen.lines if line.into or line.log])
    top = list(titles)[:STACKED] if grouped else [""]
    others = visit.word("others")
    pieces: dict[str, list[list[Spent]]] = {name: [[] for _ in starts] for name in top}
    for start, spent in seen.series:
        name = spent.name if spent.name in pieces else others
        pieces.setdefault(name, [[] for _ in starts])[place[start]].append(spent)
    sums = {name: [added(name, some) for some in steps] for name, steps in pieces.items()}
    alone = visit.word("all requests")

    def curves(measure: Callable[[Spent], float | None]) -> list[Curve]:
        return [
            Curve(titles.get(name, name) if grouped else alone, [measure(s) for s in steps])
            for name, steps in sums.items()
        ]

    tokens = curves(lambda s: s.input_tokens + s.output_tokens)
    if not grouped:
        kinds: tuple[tuple[str, Callable[[Spent], float]], ...] = (
            ("input, cached", lambda s: s.cached_tokens),
            ("input, other", lambda s: s.input_tokens - s.cached_tokens),
            ("output", lambda s: s.output_tokens),
        )
        tokens = [
            Curve(visit.word(name), [measure(s) for s in steps])
            for name, measure in kinds
            for steps in sums.values()
        ]
    return Chart(
        step_s,
        starts,
        {
            "spend": curves(lambda s: s.cost_nano_usd / pricing.NANO),
            "tokens": tokens,
            "requests": curves(lambda s: s.requests),
            "errors": curves(lambda s: s.errors),
            "first": curves(first_token_ms),
        },
    )


def _labels(lines: Sequence[UsageTableRow]) -> dict[str, str]:
    """What to call each group: its title, with the id where two have the same."""
    often = Counter(line.title for line in lines)
    return {
        line.spent.name: f"{line.title} ({line.id})" if often[line.title] > 1 else line.title
        for line in lines
    }


# --- pages ---------------------------------------------------------------------------------------


def show(visit: RequestContext) -> Response:
    seen = look(visit)
    asked, who = seen.asked, visit.who
    before = asked.span.before()
    earlier = visit.ledger.reports.series(
        None, before.since_s, before.until_s, step="day", where=asked.where(who.scope)
    )
    return visit.render(
        "usage.html",
        seen=seen,
        asked=asked,
        before=before,
        figures=figures(visit, seen.asked, seen.total, added("", (s for _, s in earlier))),
        chart=msgspec.json.encode(chart(seen, visit)).decode(),
        shown="spend"
        if seen.total.cost_nano_usd
        else "tokens"
        if seen.total.input_tokens
        else "requests",
        by_title=BYS[seen.by],
        bys=[(by, title) for by, title in BYS.items() if by != "account" or who.scope is None],
        spans=time_range.TITLES,
        keys=seen.names.sorted("key"),
        accounts=seen.names.sorted("account"),
        models=visit.ledger.reports.names("model"),
        upstreams=visit.ledger.reports.names("upstream"),
        iso=time_range.iso,
        rate=rate,
        share=share,
        first=first_token_ms,
        speed=tokens_per_s,
        file=asked.link("/usage.csv", {"by": seen.by}, fixed=True),
        log=asked.link("/requests", fixed=True),
    )


def file(visit: RequestContext) -> Response:
    seen = look(visit, whole=True)

    def rows() -> Iterator[Sequence[csv_response.Cell]]:
        yield (seen.by, "name", *usage_table.COLUMNS)
        for line in seen.lines:
            yield (line.spent.name, line.title, *usage_table.figures(line.spent).values())

    return csv_response.whole(f"usage-by-{seen.by}.csv", rows())


ENTRY = NavigationEntry("/usage", "Usage", "see")
RULES = (
    Rule("GET", "/usage", show, "see"),
    Rule("GET", "/usage.csv", file, "see"),
)
