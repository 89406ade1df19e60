"""Requests: the log, one request in full, and the conversation that it belongs to.

The only place that shows single exchanges, and that takes a cost apart into lines.  Note:
- pages of the log are found by the number of the row before (`before`), never by an offset, so that
  the millionth is as fast as the first, and nothing is seen twice while rows are added;
- a cost is computed anew from the catalog's price of the version that the row names.  Where the two
  differ by a nano-dollar, no lines are shown: the row is what was billed;
- prompts and replies are not kept anywhere, so no page can show it.
"""

import time
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.responses import Response

from headgate.catalog.models import Price
from headgate.policy import pricing
from headgate.storage.figures import FINE, MAX_SEARCHED, RequestFacts, Spent
from headgate.storage.rows import COLUMNS, AttemptRecord, LedgerRow, csv_cells
from headgate.web import csv_response, time_range
from headgate.web.app import Rule
from headgate.web.console import form_fields as fields
from headgate.web.console import log_view, request_details
from headgate.web.console.log_view import LogView
from headgate.web.console.request_figures import PERCENTILES, RequestFigures, figures_of
from headgate.web.console.usage_page import Names, added, names, tokens_per_s
from headgate.web.context import NavigationEntry, Problem, RequestContext
from headgate.web.formats import brief, moment
from headgate.web.time_range import ReportQuery

A_PAGE = 50
MOST_IN_FILE = log_view.MOST_SORTED
MAX_QUERY = 4096  # characters of a saved view
_BATCH = 1000  # rows of a file that are read at a time


class RequestView(msgspec.Struct, frozen=True):
    """A row of the log."""

    seq: int
    row: LedgerRow
    node: str = ""  # its name, where nodes share a database

    @property
    def fine(self) -> bool:
        return self.row.outcome in FINE


# --- the log -------------------------------------------------------------------------------------


def log(visit: RequestContext) -> Response:
    if id := visit.query.get("id", "").strip():
        return visit.redirect(time_range.of_request(id))
    view = _view(visit)
    asked = view.asked
    if visit.partial and visit.query.get("figures"):
        return _render(visit, "request_figures.html", figures=_figures(visit, view), view=view)
    mine = names(visit)
    if visit.partial and (after := _number(visit, "after")) is not None:
        return _render(
            visit,
            "requests_rows.html",
            entries=_newer(visit, asked, after),
            names=mine,
            more="",
            view=view,
        )
    entries, more, count = _entries(visit, view, mine)
    shared: dict[str, Any] = {"entries": entries, "names": mine, "more": more, "view": view}
    if visit.partial:
        return _render(visit, "requests_rows.html", **shared)
    ledger_reports = visit.ledger.reports
    live = not view.sort and _before(visit) is None
    return _render(
        visit,
        "requests.html",
        asked=asked,
        spans={"all": "Ever", **time_range.TITLES},
        iso=time_range.iso,
        keys=mine.sorted("key"),
        accounts=mine.sorted("account"),
        models=ledger_reports.names("model"),
        upstreams=ledger_reports.names("upstream"),
        outcomes=ledger_reports.names("outcome"),
        older=_before(visit) is not None,
        newest=view.link(),
        file=asked.link("/requests.csv", fixed=True),
        most_in_file=MOST_IN_FILE,
        all_columns=log_view.columns(visit.ledger.shared),
        tail=view.link({"after": str(ledger_reports.last_seq())}) if live else "",
        figures=_figures(visit, view) if visit.query.get("figures") else None,
        views=visit.console_context.people.views(visit.who.id),
        sorted=count,
        most_searched=MAX_SEARCHED,
        beyond_search=bool(asked.text) and ledger_reports.last_seq() > MAX_SEARCHED,
        **shared,
    )


def _view(visit: RequestContext) -> LogView:
    chosen = visit.request.query_params.getlist("column")
    return log_view.read(visit.query, chosen, _asked(visit), nodes=visit.ledger.shared)


def _entries(
    visit: RequestContext, view: LogView, mine: Names
) -> tuple[list[RequestView], str, int]:
    """A page of the log in its order, the link of the next one, and how many were sorted."""
    asked = view.asked
    if not view.sort:
        entries, more = _page(visit, asked, _before(visit))
        return entries, view.link({"before": str(entries[-1].seq)}) if more else "", 0
    page = log_view.page_of(visit.query)
    order, descending = view.order
    rows, count = visit.ledger.reports.requests_in_order(
        order,
        asked.where(visit.who.scope),
        descending=descending,
        skip=page * A_PAGE,
        since_s=asked.span.since_s,
        until_s=asked.span.until_s,
        most=A_PAGE,
        of=log_view.MOST_SORTED,
        only=asked.only,
        text=asked.text,
        names=dict(mine.sorted(order)) if order in ("key", "account") else {},
    )
    link = view.link({"page": str(page + 1)}) if count > (page + 1) * A_PAGE else ""
    return _views(visit, rows), link, count


def _views(visit: RequestContext, rows: Sequence[tuple[int, LedgerRow]]) -> list[RequestView]:
    nodes = visit.ledger.nodes_of([row for _, row in rows])
    return [RequestView(seq, row, nodes.get(row.request_id, "")) for seq, row in rows]


def _last(visit: RequestContext, asked: ReportQuery, most: int) -> list[tuple[int, LedgerRow]]:
    return visit.ledger.reports.requests(
        asked.where(visit.who.scope),
        since_s=asked.span.since_s,
        until_s=asked.span.until_s,
        most=most,
        only=asked.only,
        text=asked.text,
    )


def _newer(visit: RequestContext, asked: ReportQuery, after: int) -> list[RequestView]:
    """What has been written after that row, the last one first: at most a page of it."""
    return _views(visit, [pair for pair in _last(visit, asked, A_PAGE) if pair[0] > after])


def _figures(visit: RequestContext, view: LogView) -> RequestFigures:
    asked = view.asked
    rows = visit.ledger.reports.request_facts(
        asked.where(visit.who.scope),
        since_s=asked.span.since_s,
        until_s=asked.span.until_s,
        most=log_view.MOST_SORTED,
        only=asked.only,
        text=asked.text,
    )
    return figures_of(rows, lambda row: _prices(visit, row))


def save_view(visit: RequestContext) -> Response:
    """Save the filters, columns and order that the page has, under a name of the visitor's own."""
    fields.only(visit, "name", "query")
    name = fields.name(visit)
    pairs = dict(parse_qsl(visit.form.get("query", "")[:MAX_QUERY]))
    known = {"span", "from", "to", "columns", "sort", *time_range.FILTERS}
    query = urlencode({k: v for k, v in pairs.items() if k in known})
    visit.console_context.people.save_view(visit.who.id, name, query)
    return visit.redirect(f"/requests?{query}", "changed")


def remove_view(visit: RequestContext) -> Response:
    fields.only(visit, "name")
    if not visit.console_context.people.remove_view(visit.who.id, visit.form.get("name", "")):
        raise Problem(404, visit.word("There is no view of this name."))
    return visit.redirect("/requests", "removed")


def _asked(visit: RequestContext) -> ReportQuery:
    asked = time_range.read(visit.query, time.time(), "all", scoped=visit.who.scope is not None)
    return msgspec.structs.replace(asked, node=visit.ledger.node(asked.node) or "")


def _before(visit: RequestContext) -> int | None:
    return _number(visit, "before")


def _number(visit: RequestContext, name: str) -> int | None:
    text = visit.query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Problem(400, f"`{name}` is the number of a row.", name)
    return int(text)


def _page(
    visit: RequestContext, asked: ReportQuery, before: int | None
) -> tuple[list[RequestView], bool]:
    found = visit.ledger.reports.requests(
        asked.where(visit.who.scope),
        before=before,
        since_s=asked.span.since_s,
        until_s=asked.span.until_s,
        most=A_PAGE + 1,
        only=asked.only,
        text=asked.text,
    )
    return _views(visit, found[:A_PAGE]), len(found) > A_PAGE


def _render(visit: RequestContext, template: str, **context: Any) -> Response:
    """With what every page of single exchanges needs; Any: whatever a template takes."""
    now_s = time.time()
    return visit.render(
        template,
        of_request=time_range.of_request,
        of_session=time_range.of_session,
        moment=moment,
        brief=lambda at_s: brief(at_s, now_s),
        outcomes_explained=request_details.OUTCOMES,
        bases=request_details.BASES,
        percentiles=PERCENTILES,
        most_sorted=log_view.MOST_SORTED,
        **context,
    )


# The ledger's columns, then what is shown beside them.
TITLES = (*COLUMNS, "cost_usd", "key_name", "node")


def file(visit: RequestContext) -> Response:
    asked, mine = _asked(visit), names(visit)
    where = asked.where(visit.who.scope)
    reports, span = visit.ledger.whole, asked.span

    def rows() -> Iterator[Sequence[csv_response.Cell]]:
        yield TITLES
        before: int | None = None
        left = MOST_IN_FILE
        while left:
            found = reports.requests(
                where,
                before=before,
                since_s=span.since_s,
                until_s=span.until_s,
                most=min(_BATCH, left),
                only=asked.only,
                text=asked.text,
            )
            nodes = visit.ledger.nodes_of([row for _, row in found])
            for _, row in found:
                yield (*_cells(row, mine), nodes.get(row.request_id, ""))
            if len(found) < _BATCH:
                return
            before = found[-1][0]
            left -= len(found)

    return csv_response.streamed("requests.csv", rows())


def _cells(row: LedgerRow, mine: Names) -> tuple[csv_response.Cell, ...]:
    return (*csv_cells(row), mine.of("key", row.key_id))


# --- one request ---------------------------------------------------------------------------------


class Item(msgspec.Struct, frozen=True):
    """One line of a cost: tokens at a price."""

    title: str
    tokens: int
    price: str  # dollars a million tokens, the factor in it
    amount: str  # dollars, exactly


class Bill(msgspec.Struct, frozen=True):
    items: list[Item]
    rounded: str  # dollars that rounding the sum added or took away; "" when nothing
    price: Price
    factor: str  # of the service tier; "" when it is 1


class Bar(msgspec.Struct, frozen=True):
    """Shows an attempt as a bar: from and width, in hundredths of the whole time."""

    attempt: AttemptRecord
    at: float
    width: float
    first: float | None  # where its first token came


def one(visit: RequestContext) -> Response:
    row = visit.ledger.row(visit.path["id"])
    if row is None:
        raise Problem(404, "Not found.")
    visit.must_see(row.account)
    routes = visit.console_context.catalog.routes(row.model)
    spoken = next((r.upstream.dialect for r in routes if r.upstream.name == row.upstream), "")
    mine = names(visit)
    stream_ms = row.total_ms - (row.ttft_ms or 0)
    return _render(
        visit,
        "request.html",
        row=row,
        names=mine,
        node=visit.ledger.nodes_of([row]).get(row.request_id, ""),
        fine=row.outcome in FINE,
        bars=bars(row),
        bill=bill(_prices(visit, row), row),
        exact=pricing.usd,
        spoken=spoken,
        protocols=request_details.PROTOCOLS,
        notes=[(word, request_details.warning(word)) for word in row.warnings],
        kinds=request_details.KINDS,
        speed=row.output_tokens * 1000 / stream_ms
        if row.ttft_ms is not None and stream_ms > 0
        else None,
        priced=bool(row.price_version) and row.price_version != "free",
        usage=time_range.address("/usage", {"key": row.key_id, "by": "model"}),
    )


def _prices(visit: RequestContext, row: LedgerRow | RequestFacts) -> tuple[Price, ...]:
    """What the row's model costs, at the row's upstream first."""
    catalog = visit.console_context.catalog
    model = catalog.find(row.model)
    if model is None or model.id != row.model:
        return ()
    here = [r for r in catalog.routes(model.id) if r.upstream.name == row.upstream]
    return (*(p for r in here for p in r.prices), *model.prices)


def bill(prices: Sequence[Price], row: LedgerRow) -> Bill | None:
    """The row's cost line by line; None where these prices do not give it to the nano-dollar."""
    price = next((p for p in prices if pricing.version(p) == row.price_version), None)
    if price is None or row.cost_nano_usd is None:
        return None
    factor = price.priority_factor if row.service_tier.lower() == "priority" else "1"
    fresh = row.input_tokens - row.cached_tokens - row.cache_write_tokens
    items: list[Item] = []
    total = Fraction(0)
    for title, tokens, text in (
        ("Input", fresh, price.input),
        ("Input, cached", row.cached_tokens, price.cache_read or price.input),
        ("Input, written to the cache", row.cache_write_tokens, price.cache_write or price.input),
        ("Output", row.output_tokens, price.output),
    ):
        rate = Fraction(text) * Fraction(factor)
        amount = tokens * rate / 10**6
        total += amount
        if tokens:
            items.append(Item(title, tokens, decimal(rate, 2), decimal(amount, 2)))
    rest = Fraction(row.cost_nano_usd, pricing.NANO) - total
    # Half up to the nano-dollar, as pricing.charge has rounded it.
    if not Fraction(-1, 2 * pricing.NANO) < rest <= Fraction(1, 2 * pricing.NANO):
        return None
    return Bill(items, decimal(rest, 2) if rest else "", price, "" if factor == "1" else factor)


def decimal(value: Fraction, places: int) -> str:
    """A fraction of tens exactly, with so many places at least."""
    context = Context(prec=60)
    exact = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    text = f"{exact:f}"
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(places, '0')}"


def bars(row: LedgerRow) -> list[Bar]:
    """The attempts along the exchange's time: in order from its start, the last one up to its end.

    How long was waited between them is not kept; it is what is left before the last one.
    """
    whole = max(row.total_ms, sum(a.ms for a in row.attempts), 1)
    out: list[Bar] = []
    at = 0
    for n, attempt in enumerate(row.attempts, 1):
        first = None
        if n == len(row.attempts):
            at = max(at, whole - attempt.ms)
            first = row.ttft_ms
        share = 100 / whole
        out.append(
            Bar(
                attempt,
                round(at * share, 2),
                round(max(attempt.ms * share, 0.6), 2),
                None if first is None else round(min(max(first, at) * share, 100), 2),
            )
        )
        at += attempt.ms
    return out


# --- a conversation ------------------------------------------------------------------------------


def session(visit: RequestContext) -> Response:
    id = visit.path["id"]
    asked = ReportQuery(time_range.ALWAYS, session=id)
    entries, more = _page(visit, asked, _before(visit))
    if not id or not entries:
        raise Problem(404, "Not found.")
    mine = names(visit)
    rest = (
        time_range.address(time_range.of_session(id), {"before": str(entries[-1].seq)})
        if more
        else ""
    )
    view = log_view.read({}, (), asked, nodes=visit.ledger.shared)
    if visit.partial:
        return _render(
            visit, "requests_rows.html", entries=entries, names=mine, more=rest, view=view
        )
    by_key = visit.ledger.reports.usage("key", where=asked.where(visit.who.scope))
    sums = _sums(visit, asked)
    return _render(
        visit,
        "session.html",
        id=id,
        entries=entries,
        names=mine,
        more=rest,
        view=view,
        plain=True,
        older=_before(visit) is not None,
        newest=time_range.of_session(id),
        total=added("", sums),
        models=sums,
        keys=by_key,
        exact=pricing.usd,
        speed=tokens_per_s,
        file=time_range.address("/requests.csv", {"session": id}),
        log=time_range.address("/requests", {"session": id}),
    )


def _sums(visit: RequestContext, asked: ReportQuery) -> list[Spent]:
    """By model: these sums are made of the rows, and so have the errors and times too."""
    return visit.ledger.reports.usage("model", where=asked.where(visit.who.scope))


ENTRY = NavigationEntry("/requests", "Requests", "see")
RULES = (
    Rule("GET", "/requests", log, "see"),
    Rule("GET", "/requests.csv", file, "see"),
    Rule("POST", "/requests/views", save_view, "see"),
    Rule("POST", "/requests/views/remove", remove_view, "see"),
    Rule("GET", "/requests/{id}", one, "see"),
    Rule("GET", "/sessions/{id:path}", session, "see"),
)
