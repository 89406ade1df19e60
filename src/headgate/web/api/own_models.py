"""Models over the admin API: listed, and those of the operator's own added, changed and removed.

Note: a model in headgate.toml cannot be changed here, as the file counts; nor can a shipped one.
"""

import os
import time
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET

from headgate import config
from headgate.admin import models as operations
from headgate.catalog import cards
from headgate.catalog.advice import advice
from headgate.catalog.models import Model
from headgate.catalog.models import models as shipped
from headgate.catalog.stored import Joined
from headgate.config import ConfigError
from headgate.web.api import catalog_shapes, upstream_figures
from headgate.web.context import Problem, RequestContext


def list_models(visit: RequestContext) -> upstream_figures.ModelList:
    """List the models of the catalog with their prices."""
    both, kept = visit.console_context.joined, visit.console_context.store.own_models()
    return upstream_figures.ModelList(
        data=[_shown(m, both, kept) for m in both.catalog.models],
        left_out=[upstream_figures.LeftOut(id=id, reason=why) for id, why in both.faults.items()],
    )


def show_model(visit: RequestContext) -> upstream_figures.Model:
    """Show one model."""
    both = visit.console_context.joined
    found = both.catalog.find(visit.path["id"])
    if found is None:
        raise Problem(404, f"There is no model `{visit.path['id'][:128]}`.")
    return _shown(found, both, visit.console_context.store.own_models())


def make_model(visit: RequestContext, body: catalog_shapes.NewModel) -> upstream_figures.Model:
    """Add a model of your own.

    A running gateway serves it within a second, under its own name and at its own price.
    """
    if visit.console_context.joined.catalog.find(body.id) is not None and _taken(visit, body.id):
        raise Problem(409, f"There is a model `{body.id}` already.", "$.id")
    fields = {k: v for k, v in msgspec.to_builtins(body).items() if k != "id"}
    put(visit, body.id, fields)
    return _shown_again(visit, body.id)


def change_model(
    visit: RequestContext, body: catalog_shapes.ModelChanges
) -> upstream_figures.Model:
    """Change a model of your own.

    What is left out stays.
    """
    id = visit.path["id"]
    text = visit.console_context.store.own_models().get(id)
    if text is None:
        raise _not_stored(visit, id)
    changes = {k: v for k, v in msgspec.to_builtins(body).items() if v is not UNSET}
    put(visit, id, {**msgspec.json.decode(text, type=dict[str, object]), **changes})
    return _shown_again(visit, id)


def remove_model(visit: RequestContext) -> upstream_figures.Removed:
    """Remove a model of your own.

    Its requests stay in the ledger and in the reports.
    """
    id = visit.path["id"]
    if not operations.remove(visit.operator, id):
        raise _not_stored(visit, id)
    return upstream_figures.Removed(id=id)


def put(visit: RequestContext, id: str, fields: dict[str, object]) -> None:
    """Store a model with these fields of `[models.NAME]`; Problem names the field that is wrong."""
    console_context = visit.console_context
    if id in console_context.settings.models:
        raise Problem(409, f"`models.{id}` is in headgate.toml; change it there.", "$.id")
    try:
        operations.put(
            visit.operator, console_context.settings, os.environ, id, fields, now_s=time.time()
        )
    except ConfigError as error:
        raise Problem(422, str(error), _field(str(error), id)) from None


def _field(text: str, id: str) -> str:
    """The field of the body that an error of the settings names."""
    place = text.split("`")[1] if "`" in text else ""
    rest = place.removeprefix(f"models.{id}")
    return "$.id" if rest in ("", place) else f"${rest}"


def _taken(visit: RequestContext, id: str) -> bool:
    """Whether a model has this very name, and not a pattern of the aliases."""
    return any(id.lower() in m.names() for m in visit.console_context.catalog.models)


def _not_stored(visit: RequestContext, id: str) -> Problem:
    if visit.console_context.catalog.find(id) is None:
        return Problem(404, f"There is no model `{id[:128]}`.")
    return Problem(409, f"`{id[:128]}` is shipped or in headgate.toml; change it there.")


def _shown_again(visit: RequestContext, id: str) -> upstream_figures.Model:
    both = visit.console_context.joined
    model = next(m for m in both.catalog.models if m.id == id)
    return _shown(model, both, visit.console_context.store.own_models())


def _shown(m: Model, both: Joined, kept: dict[str, str]) -> upstream_figures.Model:
    routes, today = both.catalog.routes(m.id), datetime.now(UTC).date()
    end = cards.retirement(routes)
    own = both.settings.models.get(m.id, config.Model())
    source: upstream_figures.Source = "shipped" if m.id in shipped() else "file"
    if source == "file" and m.id in kept:
        source = "stored"
    return upstream_figures.Model(
        id=m.id,
        display_name=m.display_name,
        description=m.description,
        released=m.released,
        context_window=m.context_window,
        max_output=m.max_output,
        input=list(m.input),
        prices=[
            upstream_figures.Price(
                valid_from=p.valid_from,
                up_to_input=p.up_to_input,
                input=p.input,
                output=p.output,
                cache_read=p.cache_read or p.input,
                cache_write=p.cache_write or p.input,
                priority_factor=p.priority_factor,
            )
            for p in m.prices
        ],
        upstreams=[r.upstream.name for r in routes],
        routes=[
            upstream_figures.Route(
                upstream=r.upstream.name, model=r.name, answered_by=r.other or m.id, free=r.free
            )
            for r in routes
        ],
        source=source,
        aliases=list(m.aliases),
        vendor=m.vendor,
        free=own.free or (bool(routes) and all(r.free for r in routes)),
        efforts=list(cards.efforts(m, routes)),
        effort=m.effort or m.default_effort,
        retires=end.ends if end else None,
        successor=end.successor if end else None,
        advice=[
            f"{a.text.rstrip('.')}. {a.fix}"
            for a in advice(both.catalog, both.settings, today)
            if a.model == m.id
        ],
    )
