"""Which routes a request may take: those of its model, by its key, preferences and owners' keys."""

import time
from datetime import UTC, datetime
from functools import lru_cache, partial

from headgate.catalog.routes import Route
from headgate.chat import Preferences, Request, Usage
from headgate.edge import own_keys
from headgate.edge.context import EdgeContext
from headgate.errors import Failure, Refused
from headgate.policy import preferences, routing
from headgate.policy.keys import Key

_preferences = lru_cache(maxsize=1024)(preferences.parsed)
_USUAL = Usage(3000, 1000)  # tokens by which prices are compared; agents send more than they get


def routes_of(
    context: EdgeContext, name: str, key: Key, request: Request | None = None
) -> tuple[Route, ...]:
    """Return the routes of the model a client named; refused when it is unknown or not this key's.

    A route over several keys is there once for each.
    """
    model = context.served.catalog.find(name, key.owner, key.models)
    if model is None:
        raise Refused(
            Failure(
                "not_found",
                f"The model `{name[:64]}` does not exist here. {context.served.catalog.hint(name)}",
                param="$.model",
                code="model_not_found",
            )
        )
    if key.models and model.id not in key.models:
        raise Refused(
            Failure(
                "forbidden",
                f"This key may not use {model.id}. It may use: {', '.join(key.models)}.",
                param="$.model",
                code="model_not_allowed",
            )
        )
    routes = context.served.catalog.routes(model.id)
    if model.id in context.served.catalog.retiring and context.served.settings.retired_to_successor:
        routes = tuple(
            routing.in_force(((r, r.successor) for r in routes), datetime.now(UTC).date())
        )
    if not routes:
        raise Refused(Failure("unavailable", f"No upstream is configured for {model.id}."))
    wish = wish_of(context, name, key, request)
    if wish != preferences.NONE:
        routes = _preferred(context, routes, wish)
    if len(routes) == 1 and routes[0].simple and not context.outbound.own_keys.owned:
        return routes
    named = key.owner if request is None else routing.conversation(request, key.owner)
    order: list[Route] = []
    for route in routes if wish.sort else routing.ordered(routes, named):
        order += context.outbound.own_keys.routes(route, key, named)
    if not order:
        raise Refused(own_keys.needed(model.id, key, routes))
    return tuple(order)


def wish_of(
    context: EdgeContext, name: str, key: Key, request: Request | None = None
) -> Preferences:
    """Return what the key, the preset that was named and the request prefer together."""
    found = _preferences(key.routing) if key.routing else preferences.NONE
    if (preset := context.served.catalog.preset(name)) is not None and preset.routing:
        found = preferences.narrowed(found, _preferences(preset.routing))
    if request is not None and request.preferences is not None:
        found = preferences.narrowed(found, request.preferences)
    return found


def _preferred(
    context: EdgeContext, routes: tuple[Route, ...], wish: Preferences
) -> tuple[Route, ...]:
    """Return the routes that are left, in the order that was asked for; Refused when there is none."""
    left = preferences.allowed(routes, wish)
    if not left:
        known = ", ".join(
            f"{r.upstream.name}{f' ({r.upstream.region})' if r.upstream.region else ''}"
            for r in routes
        )
        raise Refused(
            Failure(
                "invalid",
                f"No route of {routes[0].model.id} is left by the preferences"
                f" `{preferences.written(wish)}`. Its upstreams, with their regions: {known}.",
                param="$.provider",
                code="no_route_preferred",
                should_retry=False,
            )
        )
    if wish.sort:
        left = preferences.sorted_by(wish.sort, left, partial(_figures, context))
    return tuple(left)


def _figures(context: EdgeContext, route: Route) -> preferences.Figures:
    first_token_s, tokens_per_s = context.reporting.metrics.speed(
        route.model.id, route.upstream.name
    )
    tariff = context.admissions.tariff(route.prices, "", time.time())
    price = 0 if route.free else tariff.charge(_USUAL).nano
    return preferences.Figures(price, first_token_s, tokens_per_s)
