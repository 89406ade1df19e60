"""What every exchange of one edge shares: settings, catalog, keys, the outbound client, the books.

Passed to whatever needs it; nothing here is global.
"""

import asyncio
import time

from headgate.catalog.catalog import Catalog, Route
from headgate.chat import Request
from headgate.config import Settings
from headgate.edge.admission import Admissions
from headgate.edge.counter import Counter, load_tokenizer
from headgate.edge.log import Log
from headgate.edge.memory import Memory
from headgate.edge.metrics import Metrics
from headgate.edge.replay import Replays
from headgate.edge.turns import Turns
from headgate.errors import Failure, Refused
from headgate.net.client import Client, Timeouts
from headgate.policy import keys, routing
from headgate.policy.keys import Key, KeyRing
from headgate.store.books import Books
from headgate.store.ledger import Ledger
from headgate.store.sqlite import Store
from headgate.wire.capsule import Sealer

POLL_S = 0.4  # a revoked key must be refused within a second


class Gate:
    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        store: Store,
        ledger: Ledger,
        books: Books,
        log: Log,
    ) -> None:
        self.settings = settings
        self.catalog = catalog
        self.store = store
        self.ledger = ledger
        self.books = books
        self.log = log
        self.metrics = Metrics()
        self.client = Client()
        self.counter = Counter(self.client, load_tokenizer(settings.tokenizer))
        t = settings.timeouts
        self.timeouts = Timeouts(
            connect_s=t.connect, first_token_s=t.first_token, stall_s=t.stall, total_s=t.total
        )
        self.turns = Turns()
        self.draining = False
        self.sealer = Sealer(store.derived("capsules"))
        self.replays = Replays(store.derived("idempotency"), books)
        self.memory = Memory() if settings.memory else None
        self._version = store.data_version()  # before the ring: a change in between is seen
        self.ring: KeyRing = store.ring()
        self.admissions = Admissions(books)
        self.admissions.load(self.ring.keys(), self.ring.accounts())

    def authenticate(self, credential: str | None) -> Key:
        """The key behind what was presented; the same refusal for every reason there may be."""
        key = self.ring.authenticate(credential, time.time()) if credential else None
        # A key that was made a moment ago is tried at once; one that was mistyped costs no look.
        if key is None and credential and keys.parse(credential) and self._refreshed():
            key = self.ring.authenticate(credential, time.time())
        if key is None:
            raise Refused(
                Failure(
                    "unauthenticated",
                    "No valid API key. Send one as `Authorization: Bearer hg_live_...`, `x-api-key` "
                    "or `x-goog-api-key`; `headgate keys create NAME` makes one.",
                    code="invalid_api_key",
                    should_retry=False,
                )
            )
        return key

    def _refreshed(self) -> bool:
        """Whether the keys had changed, and were read anew."""
        version = self.store.data_version()
        if version == self._version:
            return False
        self._version = version
        self.ring = self.store.ring()
        self.admissions.load(self.ring.keys(), self.ring.accounts())
        return True

    def routes(self, name: str, key: Key, request: Request | None = None) -> tuple[Route, ...]:
        """The routes of the model a client named; refused when it is unknown or not this key's.

        A route over several keys is there once for each.
        """
        model = self.catalog.find(name, key.payer)
        if model is None:
            near = self.catalog.near(name) or [m.id for m in self.catalog.models]
            raise Refused(
                Failure(
                    "not_found",
                    f"The model `{name[:64]}` does not exist here. Near it: {', '.join(near)}.",
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
        routes = self.catalog.routes(model.id)
        if not routes:
            raise Refused(Failure("unavailable", f"No upstream is configured for {model.id}."))
        if len(routes) == 1 and not routes[0].pool:
            return routes
        named = key.payer if request is None else routing.conversation(request, key.payer)
        order: list[Route] = []
        for route in routing.ordered(routes, named):
            order += routing.by_keys(route.pool, named) if route.pool else (route,)
        return tuple(order)

    async def watch(self) -> None:
        """Keep the keys fresh, the log flushed and the loop's lag known; runs until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await asyncio.sleep(POLL_S)
            self.metrics.loop_lag_s = max(0.0, loop.time() - due - POLL_S)
            self._refreshed()
            self.log.flush()
            due = loop.time()
