"""Usage, requests, sessions, upstreams and models, over the admin API: all that is only read.

Note: usage looks back thirty days unless a start is given; of sessions the ledger
keep no errors and no times, so these are null there, which is not zero.
"""

import re
import time
from urllib.parse import quote

import msgspec

from headgate.dialects.registry import REPLY_ID
from headgate.policy import pricing
from headgate.storage.figures import END_OF_TIME_S, By, Spent, Step, Where
from headgate.storage.rows import LedgerRow, shown
from headgate.web.api import figures as figures
from headgate.web.api import shapes as shapes
from headgate.web.api import upstream_figures
from headgate.web.api.route import given, nothing_here
from headgate.web.context import Problem, RequestContext

LOOKS_BACK_S = 30 * 86400.0
# With `step` all rows are made before a page of them is cut out; as the console has it.
_MOST_S: dict[Step, float] = {"hour": 62 * 86400.0, "day": 800 * 86400.0}
MEASURED_S = 24 * 3600.0
_ID = re.compile(REPLY_ID)
_KEPT_BY_SESSION = {
    "session",
    "account",
    "key",
    "key_id",
}  # sums without errors and times (books.py)


def _where(visit: RequestContext, query: figures.Filters) -> Where:
    """What is asked for, narrowed to what the visitor sees."""
    if query.account is not msgspec.UNSET:
        visit.must_see(query.account)
    account = given(query.account)
    return Where(
        account=visit.who.scope if account is None else account,
        key_id=given(query.key),
        model=given(query.model),
        upstream=given(query.upstream),
        session=given(query.session),
        user=given(query.user),
        outcome=given(query.outcome),
        node_id=visit.ledger.node(given(query.node) or ""),
    )


def _span(
    query: figures.UsageAsked | figures.ExchangesAsked, since_s: float, until_s: float
) -> tuple[float, float]:
    since, until = given(query.since), given(query.until)
    since_s = since_s if since is None else max(0.0, shapes.seconds_of(since))
    until_s = until_s if until is None else max(0.0, shapes.seconds_of(until))
    if until is not None and since is not None and until_s < since_s:
        raise Problem(422, "It is before `since`.", "until")
    return since_s, until_s


# --- usage ----------------------------------------------------------------------------------------


def show_usage(visit: RequestContext, query: figures.UsageAsked) -> figures.Usage:
    """Sum up what was used and what it cost, by day, hour, key, account, model, upstream or session.

    With `step`, a row for each hour (of at most 62 days) or day (of 800) of each name. Without `since`: the last thirty days.
    """
    now_s = time.time()
    until = given(query.until)
    end_s = now_s if until is None else shapes.seconds_of(until)
    since_s, until_s = _span(query, max(0.0, end_s - LOOKS_BACK_S), now_s)
    if query.step is not msgspec.UNSET and until_s - since_s > _MOST_S[query.step]:
        days = int(_MOST_S[query.step] / 86400)
        raise Problem(422, f"By the {query.step}, a span has at most {days} days.", "since")
    where, ledger_reports = _where(visit, query), visit.ledger.whole
    kept = _kept(query.by, where)
    step: Step | None = given(query.step)
    start, most = query.after, query.limit
    if step is None:
        sums = ledger_reports.usage(query.by, since_s, until_s, where=where, most=start + most + 1)
        rows = [_usage_row(s, None, kept) for s in sums]
    else:
        split = None if query.by in ("day", "hour") else query.by
        series = ledger_reports.series(split, since_s, until_s, step=step, where=where)
        rows = [_usage_row(s, at_s, kept) for at_s, s in series]
    return figures.Usage(
        by=query.by,
        since=shapes.at(since_s),
        until=shapes.at(until_s),
        data=rows[start : start + most],
        next=start + most if len(rows) > start + most else None,
    )


def _kept(by: By, where: Where) -> bool:
    """Whether errors and times are summed for this."""
    needed = {*where.stated(), by} - {"day", "hour"}
    return "session" not in needed or not needed <= _KEPT_BY_SESSION


def _usage_row(spent: Spent, at_s: float | None, kept: bool) -> figures.UsageRow:
    return figures.UsageRow(
        name=spent.name,
        at=shapes.at_or_none(at_s),
        requests=spent.requests,
        unpriced=spent.unpriced,
        errors=spent.errors if kept else None,
        input_tokens=spent.input_tokens,
        cached_tokens=spent.cached_tokens,
        cache_write_tokens=spent.cache_write_tokens,
        output_tokens=spent.output_tokens,
        reasoning_tokens=spent.reasoning_tokens,
        cost_usd=pricing.usd(spent.cost_nano_usd),
        cost_nano_usd=spent.cost_nano_usd,
        ttft_ms=_per(spent.ttft_ms, spent.first_tokens),
        output_tokens_per_s=_per(spent.output_tokens * 1000, spent.stream_ms),
    )


def _per(sum: float, count: int) -> float | None:
    return round(sum / count, 1) if count else None


# --- requests and sessions ------------------------------------------------------------------------


def list_requests(visit: RequestContext, query: figures.ExchangesAsked) -> figures.Exchanges:
    """List requests, the last one first."""
    since_s, until_s = _span(query, 0.0, END_OF_TIME_S)
    data, next_ = _exchanges(
        visit, _where(visit, query), given(query.before), since_s, until_s, query.limit
    )
    return figures.Exchanges(data=data, next=next_)


def show_request(visit: RequestContext) -> figures.Exchange:
    """Show one request, by the id that its client got.

    Not while it runs: its row is written when it has ended.
    """
    found = _ID.fullmatch(visit.path["id"])
    row = visit.ledger.row(found[1]) if found else None
    if row is None:
        raise nothing_here()
    visit.must_see(row.account)
    return _exchange(None, row, visit.ledger.nodes_of([row]).get(row.request_id, ""))


def show_session(visit: RequestContext, query: figures.SessionAsked) -> figures.Session:
    """Show one session: its sum, and its requests, the last one first.

    Two keys may use the same id; `account` and `key` of each request tell them apart.
    """
    id, ledger_reports = visit.path["id"], visit.ledger.whole
    where = Where(session=id, account=visit.who.scope)
    sums = ledger_reports.usage("session", where=where) if id else []
    if not sums:
        raise nothing_here()
    data, next_ = _exchanges(visit, where, given(query.before), 0.0, END_OF_TIME_S, query.limit)
    return figures.Session(
        session=id, total=_usage_row(sums[0], None, kept=False), data=data, next=next_
    )


def _exchanges(
    visit: RequestContext,
    where: Where,
    before: int | None,
    since_s: float,
    until_s: float,
    most: int,
) -> tuple[list[figures.Exchange], int | None]:
    rows = visit.ledger.whole.requests(
        where, before=before, since_s=since_s, until_s=until_s, most=most + 1
    )
    shown = rows[:most]
    nodes = visit.ledger.nodes_of([row for _, row in shown])
    data = [_exchange(seq, row, nodes.get(row.request_id, "")) for seq, row in shown]
    return data, shown[-1][0] if len(rows) > most else None


def _exchange(seq: int | None, row: LedgerRow, node: str) -> figures.Exchange:
    return msgspec.convert({"seq": seq, **shown(row), "node": node}, figures.Exchange)


# --- upstreams and models -------------------------------------------------------------------------


def list_upstreams(visit: RequestContext) -> upstream_figures.Upstreams:
    """List the upstreams as they stand now, with what was measured in the last 24 hours."""
    reported = msgspec.convert(
        visit.console_context.edge("GET", "/internal/upstreams"), list[_Reported]
    )
    measured = visit.ledger.whole.measured(time.time() - MEASURED_S)
    out = []
    for t in reported:
        m = measured.get(t.name)
        out.append(
            upstream_figures.Upstream(
                name=t.name,
                preset=t.preset,
                dialect=t.dialect,
                host=t.host,
                models=t.models,
                state=t.state,
                failures=t.failures,
                check=t.check,
                paused=t.paused,
                paused_s=t.paused_s,
                keys=t.keys,
                rpm=t.rpm,
                tpm=t.tpm,
                requests=m.requests if m else 0,
                error_rate=m.error_rate if m else None,
                first_token_ms=m.first_token_ms if m else None,
                output_tokens_per_s=m.tokens_per_s if m else None,
            )
        )
    return upstream_figures.Upstreams(data=out)


class _Reported(msgspec.Struct):
    """Is as edge/internal_api.py says it."""

    name: str
    preset: str
    dialect: str
    host: str
    models: list[str]
    state: upstream_figures.UpstreamState
    failures: int
    check: str
    paused_s: float
    paused: list[str]
    rpm: int | None
    tpm: int | None
    keys: list[upstream_figures.UpstreamKey] = []


def check_upstream(visit: RequestContext) -> upstream_figures.Checked:
    """Ask an upstream one short question, and say what its answer shows.

    It costs what such a request costs there.
    """
    name = visit.path["name"]
    if name not in visit.console_context.upstreams:
        raise nothing_here()
    reported = visit.console_context.edge(
        "POST", f"/internal/upstreams/{quote(name, safe='')}/test"
    )
    visit.record("upstream.test", name)
    return msgspec.convert(reported, upstream_figures.Checked)
