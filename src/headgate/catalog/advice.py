"""What an operator should know of the models as configured: prices that are missing, models that end.

`headgate models check`, the doctor, the log and the metrics show it.  These are pure functions of the
catalog, the settings and the day.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Literal

from msgspec import Struct

from headgate.catalog.catalog import Catalog
from headgate.catalog.models import Model, prices_on
from headgate.catalog.operators import CONTEXT_WINDOW, MAX_OUTPUT
from headgate.catalog.presets import presets
from headgate.catalog.routes import Route
from headgate.config import Settings

NOTICE = timedelta(days=60)  # before a model ends


class Advice(Struct, frozen=True):
    """One thing about one model, and what to do."""

    model: str
    level: Literal["warning", "note"]
    text: str
    fix: str


def advice(catalog: Catalog, settings: Settings, on: date) -> list[Advice]:
    """Return what should be known, the models in their order."""
    return [a for m in catalog.models for a in _of_model(m, catalog.routes(m.id), settings, on)]


def retirements(catalog: Catalog, on: date) -> Iterator[tuple[Route, bool]]:
    """Return the routes whose model ends within the time of notice, and whether it has ended."""
    for model in catalog.models:
        for route in catalog.routes(model.id):
            end = route.retirement
            if end is not None and end.ends - NOTICE <= on:
                yield route, end.ends <= on


def retirement_text(route: Route, settings: Settings, on: date) -> str:
    """Return one sentence about the end of a route's model, and what happens to its requests."""
    end = route.retirement
    assert end is not None
    verb = "ended" if end.ends <= on else "ends"
    then = "are sent on to" if settings.retired_to_successor else "are not sent on to"
    return (
        f"{route.name} {verb} at upstream `{route.upstream.name}` on {end.ends} by its vendor's notice;"
        f" requests for {route.model.id} {then} its successor {end.successor}."
    )


def _of_model(
    model: Model, routes: tuple[Route, ...], settings: Settings, on: date
) -> Iterator[Advice]:
    own = settings.models.get(model.id)
    if not routes:
        yield Advice(
            model.id, "note", "has no route", f"Name an upstream in `models.{model.id}.routes`."
        )
    for n, route in enumerate(routes):
        if route.retirement is not None and route.retirement.ends - NOTICE <= on:
            yield Advice(
                model.id,
                "warning",
                retirement_text(route, settings, on),
                f"Name another upstream in `models.{model.id}.routes`, or set"
                f" `retired_to_successor = true`, or move its callers to {route.retirement.successor}.",
            )
        if not route.free and not prices_on(route.prices, on):
            yield Advice(
                model.id,
                "warning",
                f"{model.id} has no price that holds today on route {n} ({route.id}): its requests have no cost, and budgets"
                " do not stop them",
                f'Set `prices = [ {{ input = "...", output = "..." }} ]` or `free = true` in'
                f" `models.{model.id}`.",
            )
        if route.other:
            priced = (
                ""
                if route.served or (own and own.routes[n].prices)
                else f", at {model.id}'s prices"
            )
            yield Advice(
                model.id,
                "note",
                f"route {n} ({route.id}) is answered by {route.other}{priced}",
                f'If it is the same model under another name, set `serves = "{model.id}"` on the route.',
            )
    if routes and "max" in (model.default_effort,) and not model.effort:
        yield Advice(
            model.id,
            "note",
            "thinks at effort max where a request names none",
            f'Set `effort = "medium"` in `models.{model.id}`, or an effort per key.',
        )
    if model.own and own is not None:
        yield from _of_own(model, own.context_window, own.max_output, routes, settings)


def _of_own(
    model: Model,
    context_window: int | None,
    max_output: int | None,
    routes: tuple[Route, ...],
    settings: Settings,
) -> Iterator[Advice]:
    where = f"models.{model.id}"
    if context_window is None:
        yield Advice(
            model.id,
            "note",
            f"has no context window: {CONTEXT_WINDOW:,} tokens are assumed",
            f"Set `{where}.context_window`.",
        )
    if max_output is None:
        assumed = min(MAX_OUTPUT, model.context_window)
        yield Advice(
            model.id,
            "note",
            f"has no longest output: {assumed:,} tokens are assumed",
            f"Set `{where}.max_output`.",
        )
    for name in dict.fromkeys(r.upstream.name for r in routes):
        upstream = settings.upstreams[name]
        preset = presets()[upstream.preset]
        if not (upstream.only_named or preset.only_named or preset.paced or preset.names):
            yield Advice(
                model.id,
                "note",
                f"upstream `{name}` is also a route of every shipped model without routes of its own",
                f"If it has only your models, set `upstreams.{name}.only_named = true`.",
            )
