"""The form of an upstream of the operator's own: what it shows, and what is stored of it.

Note: the form has one price for all models of the upstream; one for each model is for the table of its
card, the admin API and headgate.toml.  A key is never shown; an empty field keeps it.
"""

import os
import time
from datetime import UTC, date, datetime

import msgspec

from headgate import config
from headgate.admin import upstreams as operations
from headgate.catalog import price_history
from headgate.catalog.models import prices_on
from headgate.catalog.presets import presets
from headgate.web.console import form_fields as fields
from headgate.web.context import Problem, RequestContext

DIALECTS = ("", "openai", "responses", "anthropic", "gemini")
_FIELDS = (
    "id",
    "preset",
    "base_url",
    "key",
    "dialect",
    "allow_http",
    "free",
    "input",
    "output",
    "cache_read",
    "known",
    "from",  # "start": the checklist has the form
)
_PRICE = ("input", "output", "cache_read")


class Form(msgspec.Struct, frozen=True):
    values: dict[str, str]
    presets: tuple[tuple[str, str], ...]  # name, label
    refused: Problem | None = None
    dialects: tuple[str, ...] = DIALECTS


def form(visit: RequestContext, refused: Problem | None = None) -> Form:
    """Return what the form shows: what was sent, or the upstream that is to be changed."""
    offered = tuple((name, p.label) for name, p in presets().items() if name != "local")
    if visit.form:
        values = {k: v for k, v in visit.form.items() if k not in ("key", "csrf")}
        return Form(values, offered, refused)
    change = visit.query.get("change", "")
    text = visit.console_context.store.own_upstreams().get(change)
    if text is None:
        return Form({}, offered, refused)
    own = msgspec.json.decode(text, type=config.Upstream)
    price = next(iter(_in_force(own, "")), None)
    values = {
        "id": change,
        "known": change,
        "preset": own.preset,
        "base_url": own.base_url,
        "dialect": own.dialect,
        "allow_http": "on" if own.allow_http else "",
        "free": "on" if own.free else "",
        **({name: getattr(price, name) for name in _PRICE} if price is not None else {}),
    }
    return Form(values, offered, refused)


def store_upstream(visit: RequestContext) -> str:
    """Store the upstream of the form and return its name; Problem names the field that is wrong."""
    fields.only(visit, *_FIELDS)
    stated, store = visit.form, visit.console_context.store
    name, known = stated.get("id", ""), stated.get("known", "")
    new: dict[str, object] = {
        "preset": stated.get("preset", ""),
        "base_url": stated.get("base_url", ""),
        "dialect": fields.choice(visit, "dialect", DIALECTS) if "dialect" in stated else "",
        "allow_http": bool(stated.get("allow_http")),
        "free": bool(stated.get("free")),
    }
    if stated.get("key"):
        new["key"] = stated["key"]
    if known:
        if name != known:
            text = visit.word("The name stays; add another upstream for another name.")
            raise Problem(422, text, "id")
        text = store.own_upstreams().get(known, "{}")
        own = msgspec.json.decode(text, type=config.Upstream)
        new["prices"] = _prices(visit, own.prices, "")
        _change(visit, known, new)
        return known
    if name in store.own_upstreams():
        raise Problem(409, visit.word("There is an upstream {name} already.", name=name), "id")
    new["prices"] = _prices(visit, (), "")
    context = visit.console_context
    with visit.problems():
        operations.put(visit.operator, context.settings, os.environ, name, new, now_s=time.time())
    return name


def remove(visit: RequestContext, name: str) -> None:
    """Remove a stored upstream; Problem when there is none of this name."""
    with visit.problems():
        operations.remove(visit.operator, visit.console_context.settings, name)


def _change(visit: RequestContext, name: str, changes: dict[str, object]) -> None:
    settings = visit.console_context.settings
    with visit.problems():
        operations.change(visit.operator, settings, os.environ, name, changes, now_s=time.time())


def store_price(visit: RequestContext, name: str) -> None:
    """Set what one model costs at this upstream; with empty fields it costs what the catalog says."""
    fields.only(visit, "model", *_PRICE)
    model = visit.form.get("model", "")
    if model not in {m.id for m in visit.console_context.catalog.models}:
        raise Problem(422, visit.word("There is no such model."), "model")
    text = visit.console_context.store.own_upstreams().get(name)
    own = msgspec.json.decode(text, type=config.Upstream) if text else config.Upstream()
    prices = _prices(visit, own.prices, model)
    if not any(p.model.lower() == model.lower() for p in own.prices):
        prices = _after_catalog(visit, name, model, prices)
    _change(visit, name, {"prices": prices})


def _after_catalog(
    visit: RequestContext, name: str, model: str, prices: list[dict[str, object]]
) -> list[dict[str, object]]:
    """The prices with those that the model had here until today, which were the catalog's."""
    routes = visit.console_context.catalog.routes(model)
    route = next((r for r in routes if r.upstream.name == name and not r.free), None)
    old = prices_on(route.prices, _today()) if route is not None else ()
    mine = [p for p in prices if p["model"] == model]
    if not mine or any(p.valid_from >= _today() for p in old):
        return prices
    before = [{**msgspec.to_builtins(p), "model": model} for p in old]
    rest = [p for p in prices if p["model"] != model]
    return [*before, *({**p, "valid_from": _today()} for p in mine), *rest]


def _prices(
    visit: RequestContext, old: tuple[config.UpstreamPrice, ...], model: str
) -> list[dict[str, object]]:
    """The prices with that of one model, or of all (`""`), as the form has it; the others stay."""
    given = {name: visit.form.get(name, "").removeprefix("$") for name in _PRICE}
    rest = [msgspec.to_builtins(p) for p in old if p.model.lower() != model.lower()]
    if not any(given.values()):
        return rest
    same = [p for p in old if p.model.lower() == model.lower()]
    first, *larger = price_history.in_force(same, _today()) or (None,)
    for name in ("input", "output"):
        if not given[name]:
            text = visit.word("Enter both prices, or none for the catalog's.")
            raise Problem(422, text, name)
    for name, text in given.items():
        try:
            msgspec.convert(text, config.OwnDollars)
        except msgspec.ValidationError:
            stated = visit.word(
                "`{value}` is not an amount in dollars; write one like 12.50.", value=text[:32]
            )
            raise Problem(422, stated, name) from None
    kept = _undated(first) if first is not None else {}
    return [{**kept, **given, "model": model}, *map(_undated, larger), *rest]


def _in_force(own: config.Upstream, model: str) -> tuple[config.UpstreamPrice, ...]:
    return price_history.in_force([p for p in own.prices if p.model == model], _today())


def _undated(price: config.UpstreamPrice) -> dict[str, object]:
    """The fields of a price as of today: where it differs from the one before, it holds from today on."""
    fields: dict[str, object] = msgspec.to_builtins(price)
    return {k: v for k, v in fields.items() if k != "valid_from"}


def _today() -> date:
    return datetime.now(UTC).date()
