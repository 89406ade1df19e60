"""Asking an upstream that was named by its address alone which server it is.

A few requests without a token, bounded in time and size, in a background task: until it has answered, and when it
answers nothing that is known, the server is treated as one of which nothing is known.
"""

import contextlib
from collections.abc import Iterable, Sequence

from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import MODELS, PAGES, Detected, judge, owner
from headgate.catalog.models import Model
from headgate.catalog.presets import presets
from headgate.catalog.routes import Route
from headgate.config import Settings
from headgate.edge import upstream as upstreams
from headgate.edge.context import EdgeContext
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent

TIMEOUTS = Timeouts(connect_s=3.0, first_token_s=3.0, stall_s=3.0, total_s=5.0)
# Waits while a server cannot be reached: one that loads a model for minutes begins to listen late.
AGAIN_S: Sequence[float] = (2.0, 5.0, 15.0, 60.0)
DONE_S = 86400.0  # to a round that has nothing left to do
_PAGE_BYTES = 1 << 20


class Unreachable(Exception):
    """Nobody listens at the address, or not in time."""


def to_ask(settings: Settings, catalog: Catalog) -> dict[str, Route]:
    """Return a route to each upstream that shall be asked what it is, by its name."""
    found: dict[str, Route] = {}
    for model in catalog.models:
        for route in catalog.routes(model.id):
            name = route.upstream.name
            kind = presets()[settings.upstreams[name].preset]
            if kind.asks and route.upstream.dialect == "openai":
                found.setdefault(name, route)
    return found


class Detection:
    """The upstreams of one edge that have not answered yet; asked until each has, once."""

    def __init__(self, context: EdgeContext) -> None:
        self._context = context
        self._left = to_ask(context.served.settings, context.served.catalog)
        self._rounds = 0

    async def round(self) -> float:
        """Ask those that are left; return the time to the next round."""
        context = self._context
        for name, route in [*self._left.items()]:
            try:
                found = await ask(context.outbound.client, route, context.served.catalog.models)
            except Unreachable:
                continue
            del self._left[name]
            if found is not None:
                await context.take_detected(name, found)
        self._rounds += 1
        return AGAIN_S[min(self._rounds, len(AGAIN_S)) - 1] if self._left else DONE_S


async def ask(client: Client, route: Route, models: Iterable[Model]) -> Detected | None:
    """Return which server the route leads to, None for one that is not known; Unreachable."""
    base = route.upstream.base_url.rstrip("/")
    beside = base.removesuffix("/v1")
    models = tuple(models)
    pages = {MODELS: await _page(client, route, base + MODELS)}
    kind = owner(pages[MODELS])
    for path in PAGES[kind] if kind else [path for paths in PAGES.values() for path in paths]:
        with contextlib.suppress(Unreachable):  # it answered before: this page is not there
            pages[path] = await _page(client, route, beside + path)
            if pages[path] and (found := judge(pages, models)) is not None:
                return found
    return judge(pages, models)


async def _page(client: Client, route: Route, url: str) -> bytes:
    """Return the body of an answer with status 200; empty for any other."""
    headers = {**upstreams.headers(route), "accept": "application/json"}
    try:
        response = await client.send("GET", url, headers, b"", TIMEOUTS)
        if response.status in (502, 503, 504):  # it starts, or what is in front of it waits for it
            response.abort()
            raise Unreachable
        body = await response.read_all(_PAGE_BYTES)
    except (NotSent, TimedOut):
        raise Unreachable from None
    except Broken:
        return b""
    return body if response.status == 200 else b""
