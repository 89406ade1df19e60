"""The upstreams as they stand: health, what was measured, a test of one; the models and their prices.

What the edge knows (breakers) is asked of the edge, what was measured comes from the ledger, all else
from the catalog.  Note: the page works without the edge too, and says so; and while how
an upstream does is everybody's, its last errors are those of the visitor's own account.
"""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Literal
from urllib.parse import quote, urlsplit

import msgspec
from starlette.responses import Response

from headgate import config
from headgate.catalog.models import Model, Price
from headgate.catalog.presets import presets
from headgate.catalog.routes import Route
from headgate.policy.breaker import State
from headgate.policy.upstream_state import UpstreamState
from headgate.storage.figures import Measured, Where
from headgate.storage.rows import LedgerRow
from headgate.web import time_range
from headgate.web.app import MEASURED_S, Rule
from headgate.web.console import form_fields as fields
from headgate.web.console import start_page, upstream_form
from headgate.web.context import ConsoleContext, NavigationEntry, Problem, RequestContext

TEST_S = 180.0  # the edge gives its test a minute, after the upstream has let it wait for its turn
STATES = {
    "not_checked": "not checked",
    "up": "up",
    "degraded": "degraded",
    "paused": "paused",
    "unknown": "unknown",
}
MAX_ERRORS = 5  # of one upstream, shown


class PlanWindow(msgspec.Struct, frozen=True):
    """Shows one window of a key's plan: "5h" or "7d"."""

    window: str
    left: float | None  # from 0 to 1; None: not known
    resets_in_s: float | None


class KeyStanding(msgspec.Struct, frozen=True):
    """How one key of an upstream stands; never the key itself."""

    account: str
    paused_s: float = 0.0
    kind: str = ""
    code: str = ""
    models: tuple[str, ...] = ()
    plan: tuple[PlanWindow, ...] = ()
    plan_check: str = ""  # why the vendor's quota address says nothing


class UpstreamStatus(msgspec.Struct, frozen=True):
    """Reads one upstream, as the edge's internal API reports it."""

    name: str
    preset: str
    dialect: str
    host: str
    models: tuple[str, ...]
    state: UpstreamState | Literal["unknown"]
    circuit: State = "closed"  # of the model that is worst off
    failures: int = 0  # in a row, of the same
    paused_s: float = 0.0
    paused: tuple[str, ...] = ()  # models whose circuit is not closed
    check: str = ""  # why the last check failed
    checked_s_ago: float | None = None
    answered_s_ago: float | None = None
    keys: tuple[KeyStanding, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    paced: bool = False  # models have limits, if not all the same
    detected: str = ""  # what the server answered that it is, as "vLLM 0.11.0"


class Step(msgspec.Struct, frozen=True):
    """One finding of a test."""

    name: str
    state: Literal["ok", "warn", "fail", "skip"]
    text: str
    fix: str = ""


class _Test(msgspec.Struct, frozen=True):
    steps: tuple[Step, ...]


class UpstreamView(msgspec.Struct, frozen=True):
    """Shows one upstream as a card."""

    standing: UpstreamStatus
    label: str
    path: str  # of its test
    measured: Measured | None
    errors: tuple[LedgerRow, ...]  # the last one first
    number: int  # its own, for the ids of elements
    log: str = ""  # the requests that are measured; "": the visitor sees only some of them
    own: bool = False  # it is stored, and can be changed here
    tariff: tuple["PricedRoute", ...] = ()


class PricedRoute(msgspec.Struct, frozen=True):
    """What one model costs at one upstream today."""

    model: str
    tiers: tuple[Price, ...]
    free: bool
    own: bool  # the upstream has a price of its own for it


class Priced(msgspec.Struct, frozen=True):
    """One model of the table, with the prices of today."""

    model: Model
    tiers: tuple[Price, ...]
    routes: tuple[Route, ...]


def show(visit: RequestContext) -> Response:
    return _page(visit)


def put(visit: RequestContext) -> Response:
    """Store an upstream, which its card tests at once; a mistake is shown at its field."""
    try:
        name = upstream_form.store_upstream(visit)
    except Problem as refused:
        if visit.form.get("from") == "start":
            return start_page.page(visit, refused)
        return _page(visit, refused=refused)
    return visit.redirect(f"/upstreams?test={name}", "changed")


def price(visit: RequestContext) -> Response:
    """Store what one model costs at an upstream."""
    name = visit.path["name"]
    try:
        upstream_form.store_price(visit, name)
    except Problem as refused:
        return _page(visit, priced=name, refused=refused)
    return visit.redirect("/upstreams", "changed")


def remove(visit: RequestContext) -> Response:
    fields.only(visit)
    upstream_form.remove(visit, visit.path["name"])
    return visit.redirect("/upstreams", "removed")


def test(visit: RequestContext) -> Response:
    """Ask the edge to try the upstream with a short request, and show each finding."""
    name = visit.path["name"]
    if name not in visit.console_context.upstreams:
        raise Problem(404, "There is no such upstream.")
    visit.record("upstream.test", name)
    stated = visit.console_context.edge(
        "POST", f"/internal/upstreams/{quote(name, safe='')}/test", total_s=TEST_S
    )
    steps = msgspec.convert(stated, _Test).steps
    if visit.partial:
        standings, _ = _standings(visit.console_context)
        state = next((s.state for s in standings if s.name == name), "unknown")
        number = _number(visit.console_context, name)
        return visit.render(
            "upstream_tested.html", steps=steps, state=state, number=number, states=STATES
        )
    return _page(visit, name, steps)


def _page(
    visit: RequestContext,
    tested: str = "",
    steps: tuple[Step, ...] = (),
    *,
    priced: str = "",
    refused: Problem | None = None,
) -> Response:
    """`priced`: the upstream whose price was refused; "": the form of an upstream was, if anything."""
    console_context, now_s = visit.console_context, time.time()
    today = datetime.fromtimestamp(now_s, UTC).date()
    own = console_context.store.own_upstreams() if visit.who.may("manage") else {}
    standings, silent = _standings(console_context)
    measured = visit.ledger.reports.measured(now_s - MEASURED_S)
    known = presets()
    cards = [
        UpstreamView(
            s,
            s.detected or (known[s.preset].label if s.preset in known else s.preset),
            f"/upstreams/{quote(s.name, safe='')}/test",
            measured.get(s.name),
            _errors(visit, s.name, now_s),
            _number(console_context, s.name),
            _log(visit, s.name, now_s),
            s.name in own,
            _tariff(console_context, s.name, today) if visit.who.may("manage") else (),
        )
        for s in standings
    ]
    return visit.render(
        "upstreams.html",
        200 if refused is None else refused.status,
        form=upstream_form.form(visit, None if priced else refused),
        refused=refused,
        priced=priced,
        asked_test=visit.query.get("test", ""),
        left_out=console_context.joined.upstream_faults if visit.who.may("manage") else {},
        cards=cards,
        states=STATES,
        silent=silent,
        tested=tested,
        steps=steps,
        models=_models(console_context, today),
        narrowed=visit.who.scope is not None,
    )


def _standings(console_context: ConsoleContext) -> tuple[list[UpstreamStatus], str]:
    """How the upstreams do, and why the edge does not say so; "": it does."""
    try:
        found = console_context.edge("GET", "/internal/upstreams")
        return msgspec.convert(found, list[UpstreamStatus]), ""
    except Problem as problem:
        return _configured(console_context), problem.text


def _number(console_context: ConsoleContext, name: str) -> int:
    names = sorted(console_context.upstreams)
    return names.index(name) if name in names else len(names)


def _configured(console_context: ConsoleContext) -> list[UpstreamStatus]:
    """What is known of the upstreams without the edge."""
    catalog = console_context.catalog
    routes = [r for m in catalog.models for r in catalog.routes(m.id)]
    found = []
    for name, own in console_context.upstreams.items():
        mine = [r for r in routes if r.upstream.name == name]
        one = mine[0] if mine else None
        # Never the whole address: a password may stand before the host.
        host = urlsplit(one.upstream.base_url).netloc.rpartition("@")[2] if one is not None else ""
        found.append(
            UpstreamStatus(
                name,
                own.preset,
                one.upstream.dialect if one is not None else own.dialect,
                host,
                tuple(r.model.id for r in mine),
                "unknown",
                rpm=one.rpm if one is not None else None,
                tpm=one.tpm if one is not None else None,
                paced=any(r.rpm or r.tpm for r in mine),
            )
        )
    return found


def _errors(visit: RequestContext, upstream: str, now_s: float) -> tuple[LedgerRow, ...]:
    """The last failures of the upstream that the visitor may see, of as long as is measured."""
    found = visit.ledger.reports.requests(
        Where(account=visit.who.scope, upstream=upstream),
        since_s=now_s - MEASURED_S,
        most=MAX_ERRORS,
        only=("upstream_errors",),
    )
    return tuple(row for _, row in found)


def _log(visit: RequestContext, upstream: str, now_s: float) -> str:
    """The log of what is measured of an upstream; "" for who sees only their account's requests."""
    if visit.who.scope is not None:
        return ""
    span = time_range.measured(now_s - MEASURED_S)
    return time_range.address("/requests", {**span, "upstream": upstream})


def _models(console_context: ConsoleContext, on: date) -> list[Priced]:
    catalog = console_context.catalog
    return [Priced(m, _in_force(m.prices, on), catalog.routes(m.id)) for m in catalog.models]


def _tariff(console_context: ConsoleContext, name: str, on: date) -> tuple[PricedRoute, ...]:
    """What each model of an upstream costs there."""
    own = console_context.upstreams.get(name, config.Upstream()).prices
    routes = [
        r
        for m in console_context.catalog.models
        for r in console_context.catalog.routes(m.id)
        if r.upstream.name == name
    ]
    return tuple(
        PricedRoute(
            r.model.id,
            _in_force(r.prices, on),
            r.free,
            any(not p.model or p.model.lower() in r.model.names() for p in own),
        )
        for r in routes
    )


def _in_force(prices: Sequence[Price], on: date) -> tuple[Price, ...]:
    """The newest table of prices that holds on that day, as policy/pricing.py bills by."""
    begun = [p for p in prices if p.valid_from <= on]
    newest = max((p.valid_from for p in begun), default=None)
    return tuple(p for p in begun if p.valid_from == newest)


ENTRY = NavigationEntry("/upstreams", "Upstreams", "see")
RULES = (
    Rule("GET", "/upstreams", show, "see"),
    Rule("POST", "/upstreams", put, "manage"),
    Rule("POST", "/upstreams/{name}/test", test, "manage"),
    Rule("POST", "/upstreams/{name}/price", price, "manage"),
    Rule("POST", "/upstreams/{name}/remove", remove, "manage"),
)
