"""Models of the operator's own: shown, added, changed and removed; the shipped ones are beside them.

Note: the form has one route and one price; several of them are for headgate.toml and the admin API.
A model in headgate.toml is shown and cannot be changed here.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import msgspec
from starlette.responses import Response

from headgate import config
from headgate.catalog import price_history
from headgate.catalog.models import models as shipped
from headgate.dialects.capabilities import EFFORTS
from headgate.web.api import own_models, upstream_figures
from headgate.web.app import Rule
from headgate.web.console import form_fields as fields
from headgate.web.context import NavigationEntry, Problem, RequestContext

_FIELDS = (
    "id",
    "display_name",
    "upstream",
    "model",
    "input_price",
    "output_price",
    "cache_read",
    "free",
    "context_window",
    "max_output",
    "aliases",
    "effort",
    "image",
    "video",
)


class Form(msgspec.Struct, frozen=True):
    values: dict[str, str]
    upstreams: tuple[str, ...]
    efforts: tuple[str, ...] = EFFORTS


def show(visit: RequestContext) -> Response:
    return _page(visit)


def _page(visit: RequestContext, refused: Problem | None = None) -> Response:
    found = own_models.list_models(visit)
    return visit.render(
        "models.html",
        200 if refused is None else refused.status,
        own=[m for m in found.data if m.source != "shipped"],
        advice=[m for m in found.data if m.source == "shipped" and m.advice],
        left_out=found.left_out,
        refused=refused,
        form=Form(_values(visit, found), tuple(visit.console_context.upstreams)),
    )


def _values(visit: RequestContext, found: upstream_figures.ModelList) -> dict[str, str]:
    """What the form shows: what was sent, or the model that is to be changed."""
    if visit.form:
        return dict(visit.form)
    change = visit.query.get("change", "")
    text = visit.console_context.store.own_models().get(change)
    if text is None:
        return {}
    own = msgspec.json.decode(text, type=config.Model)
    price = next(iter(price_history.in_force(own.prices, _today())), None)
    return {
        "id": change,
        "display_name": own.display_name,
        "upstream": own.routes[0].upstream if own.routes else "",
        "model": own.routes[0].model if own.routes else "",
        "input_price": price.input if price else "",
        "output_price": price.output if price else "",
        "cache_read": price.cache_read if price else "",
        "free": "on" if own.free else "",
        "context_window": str(own.context_window or ""),
        "max_output": str(own.max_output or ""),
        "aliases": ", ".join(own.aliases),
        "effort": own.effort,
        **{kind: "on" for kind in own.input or () if kind != "text"},
    }


def put(visit: RequestContext) -> Response:
    try:
        fields.only(visit, *_FIELDS)
        id = visit.form.get("id", "")
        if id in shipped():
            text = visit.word("{model} is a shipped model; change it in headgate.toml.", model=id)
            raise Problem(409, text, "id")
        own_models.put(visit, id, _stated(visit, id))
    except Problem as refused:
        return _page(visit, Problem(refused.status, refused.text, _form_field(refused)))
    return visit.redirect("/own_models", "changed")


def _form_field(refused: Problem) -> str:
    """The field of the form for one of the model: `$.prices[0].input` is `input_price`."""
    last = refused.field.rpartition(".")[2]
    match refused.at:
        case "routes":
            return "model" if last == "model" else "upstream"
        case "prices":
            return last if last == "cache_read" else f"{last}_price"
    return refused.at


def _stated(visit: RequestContext, id: str) -> dict[str, object]:
    """Return the fields of the model as the form says them; what the form has not, stays."""
    form = visit.form
    old = visit.console_context.store.own_models().get(id)
    stated: dict[str, object] = msgspec.json.decode(old, type=dict[str, object]) if old else {}
    route = {"upstream": form.get("upstream", ""), "model": form.get("model", "")}
    routes = stated.get("routes")
    others = routes[1:] if isinstance(routes, list) else []
    first = routes[0] if isinstance(routes, list) and routes else {}
    stated["routes"] = [{**first, **route}, *others]
    stated["display_name"] = form.get("display_name", "")
    stated["free"] = bool(form.get("free"))
    stated["context_window"] = fields.limit(visit, "context_window")
    stated["max_output"] = fields.limit(visit, "max_output")
    stated["aliases"] = [a for part in form.get("aliases", "").split(",") if (a := part.strip())]
    stated["effort"] = fields.choice(visit, "effort", ("", *EFFORTS))
    stated["input"] = ["text", *(kind for kind in ("image", "video") if form.get(kind))]
    before = msgspec.json.decode(old, type=config.Model).prices if old else ()
    stated["prices"] = _prices(form, price_history.in_force(before, _today()))
    return stated


def _prices(form: dict[str, str], old: Sequence[config.Price]) -> list[object]:
    """The tiers of the form's price; where they differ from the old ones, they hold from today on."""
    names = {"input": "input_price", "output": "output_price", "cache_read": "cache_read"}
    price = {name: form.get(field, "").removeprefix("$") for name, field in names.items()}
    tiers = [{k: v for k, v in msgspec.to_builtins(p).items() if k != "valid_from"} for p in old]
    first, rest = (tiers[0], tiers[1:]) if tiers else ({}, [])
    return [{**first, **price}, *rest] if any(price.values()) else [*rest]


def _today() -> date:
    return datetime.now(UTC).date()


def remove(visit: RequestContext) -> Response:
    fields.only(visit)
    own_models.remove_model(visit)
    return visit.redirect("/own_models", "removed")


ENTRY = NavigationEntry("/own_models", "Own models", "manage")
RULES = (
    Rule("GET", "/own_models", show, "manage"),
    Rule("POST", "/own_models", put, "manage"),
    Rule("POST", "/own_models/{id:path}/remove", remove, "manage"),
)
