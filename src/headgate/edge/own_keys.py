"""The routes of a request by the keys that it may use: its owner's own, and the gateway's.

Note: a route by an owner's key is made once and then kept, as what is sent to an upstream is prepared for
each route; whoever has read new keys begins with a new `OwnKeyRoutes`.
"""

from collections.abc import Sequence

from headgate.catalog.routes import Route
from headgate.errors import Failure, Refused
from headgate.policy import routing
from headgate.policy.keys import Key
from headgate.policy.upstream_keys import OwnedKeys, SealedKey

MAX_KEPT = 4096  # routes by owners' keys; they are made anew when they are needed again


class OwnKeyRoutes:
    def __init__(self, owned: OwnedKeys) -> None:
        self.owned = owned
        self._kept: dict[tuple[int, SealedKey], tuple[Route, Route]] = {}

    def routes(self, route: Route, key: Key, conversation: str) -> Sequence[Route]:
        """Return the route by each key that requests of this gateway key may use, in their order.

        Refused when the owner's own key cannot be read.
        """
        upstream = route.upstream
        pool: Sequence[Route] = route.pool or (route,)
        if route.pool and upstream.key_order == "spread":
            pool = routing.by_keys(route.pool, conversation)
        if upstream.own_keys == "no":
            return pool
        row = self.owned.find(key, upstream.name) if self.owned else None
        if row is None:
            return () if upstream.own_keys == "only" else pool
        own = self._by_own_key(route, row)
        follows = row.shown.fallback and upstream.own_keys != "only"
        return (own, *pool) if follows else (own,)

    def used(self, upstream: str) -> list[Route]:
        """Return one route for each owner's key of this upstream that was used."""
        found = {row: own for (_, row), (_, own) in self._kept.items()}
        return [own for row, own in found.items() if row.shown.upstream == upstream]

    def _by_own_key(self, route: Route, row: SealedKey) -> Route:
        kept = self._kept.get((id(route), row))
        if kept is not None and kept[0] is route:
            return kept[1]
        shown = row.shown
        try:
            secret = self.owned.secret(row)
        except ValueError as error:
            raise Refused(_unreadable(row, str(error))) from None
        own = route.by_own_key(secret, shown.fingerprint, shown.kind)
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[id(route), row] = route, own
        return own


def _unreadable(row: SealedKey, why: str) -> Failure:
    shown = row.shown
    whose = "this gateway key" if shown.kind == "key" else f"the account `{shown.owner}`"
    return Failure(
        "upstream_auth",
        f"The upstream key of {whose} for `{shown.upstream}` cannot be decrypted: {why}. Put the right"
        " pepper back, or enter the key again with `headgate upstream-keys set`.",
        code="own_key_unreadable",
        should_retry=False,
    )


def needed(model: str, key: Key, routes: Sequence[Route]) -> Failure:
    """Return the refusal of a request that may use none of the gateway's keys and has none of its own."""
    names = ", ".join(dict.fromkeys(r.upstream.name for r in routes))
    return Failure(
        "forbidden",
        f"Requests for {model} need an upstream key of your own ({names}). Whoever manages this gateway"
        f" key can enter it: `headgate upstream-keys set {routes[0].upstream.name} --key {key.id}`.",
        param="$.model",
        code="own_key_needed",
        should_retry=False,
    )
