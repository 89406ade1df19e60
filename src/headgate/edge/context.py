"""What every exchange of one edge shares: settings, catalog, keys, the outbound client, the ledger.

Passed to whatever needs it; nothing here is global.  Note: keys are authenticated against a snapshot of the
database that is read again every POLL_S.  Once the last check is older than STALE_S no key opens anything,
as one that was revoked meanwhile would still work.
"""

import asyncio
import contextlib
import hmac
import math
import os
import time
from datetime import UTC, date, datetime
from functools import lru_cache

import msgspec

from headgate.catalog import sealed_keys, stored
from headgate.catalog.advice import retirement_text, retirements
from headgate.catalog.catalog import Catalog, Route
from headgate.catalog.detection import Detected
from headgate.catalog.stored import Joined, Stored
from headgate.chat import Preferences, Request, Usage
from headgate.config import Settings
from headgate.dialects.registry import DIALECTS
from headgate.edge import own_keys, shared_reasoning
from headgate.edge.counter import Counter, load_tokenizer
from headgate.edge.log import Log, LogLine, places
from headgate.edge.log import now as log_now
from headgate.edge.metrics import Metrics
from headgate.edge.overload import Overload, Place
from headgate.edge.reads import Reads, no_node, unavailable
from headgate.edge.refusals import Refusals
from headgate.edge.replay import ReplayStore
from headgate.edge.shared_reasoning import SharedReasoning
from headgate.edge.stored_responses import ResponseStore
from headgate.edge.upstream import forget_owned
from headgate.edge.upstream_health import UpstreamHealth
from headgate.edge.web_search import SearchProvider
from headgate.errors import Failure, Refused
from headgate.net.client import Client, Timeouts
from headgate.net.redis import RedisError
from headgate.net.server import Inbound
from headgate.node.client import Admission, Admissions
from headgate.policy import keys, masking, networks, preferences, routing
from headgate.policy.access import MANAGEMENT_PREFIX
from headgate.policy.guesses import GuessThrottle
from headgate.policy.keys import Key, KeySnapshot
from headgate.policy.limits import Scope
from headgate.policy.masking import Masker
from headgate.policy.upstream_keys import OwnedKeys
from headgate.reasoning.cache import ReasoningCache
from headgate.reasoning.sealing import Sealer
from headgate.storage.errors import StoreError
from headgate.storage.interface import Keys, Reports
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.people import People
from headgate.tasks import Tasks

_NO_KEY = Failure(
    "unauthenticated",
    "No valid API key. Send one as `Authorization: Bearer hg_live_...`, `x-api-key` "
    "or `x-goog-api-key`; `headgate keys create NAME` makes one.",
    code="invalid_api_key",
    should_retry=False,
)
POLL_S = 0.4  # a revoked key must be refused within a second
REPORT_S = 1.0  # so old may other edges' part of a page of metrics be
_preferences = lru_cache(maxsize=1024)(preferences.parsed)
_USUAL = Usage(3000, 1000)  # tokens by which prices are compared; agents send more than they get
STALE_S = 10.0  # SQLite waits for a lock for 5 s; a check that takes twice as long has failed


def _at_home(key: Key, peer: str) -> Key:
    """Return the key if it may be used from the client's address; else Refused."""
    if key.allowed_cidrs and not networks.allows(key.allowed_cidrs, peer):
        raise Refused(
            Failure(
                "forbidden",
                f"This key may not be used from {peer or 'an unknown address'}. Whoever manages it"
                f" can allow the address: `headgate keys change {key.id} --allow-from`.",
                code="address_not_allowed",
                should_retry=False,
            )
        )
    return key


def _midnight_s(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


class Entry:
    """What a request holds from before its body is read until it ends: its key's limits and its place."""

    __slots__ = ("_admissions", "admission", "key", "place")

    def __init__(
        self, key: Key, place: Place, admissions: Admissions, admission: Admission
    ) -> None:
        self.key = key
        self.place = place
        self.admission = admission
        self._admissions = admissions

    def leave(self) -> None:
        """Give everything back; a second time changes nothing."""
        self.place.leave()
        self._admissions.leave(self.admission)


class EdgeContext:
    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        store: Keys,
        ledger: Ledger,
        books: Reports,
        log: Log,
        edges: int = 1,
    ) -> None:
        """`edges`: how many there are of this generation."""
        self.settings = settings
        self._file = settings  # without what is stored
        self.catalog = catalog
        self.store = store
        self.ledger = ledger
        self.books = books
        self.log = log
        self.metrics = Metrics()
        self.overload = Overload(settings.overload, settings.body_bytes, self.metrics, edges)
        self.refusals = Refusals(self.metrics, log)
        self._guesses = GuessThrottle()
        self.client = Client()
        self.counter = Counter(self.client, load_tokenizer(settings.tokenizer))
        t = settings.timeouts
        self.timeouts = Timeouts(
            connect_s=t.connect, first_token_s=t.first_token, stall_s=t.stall, total_s=t.total
        )
        search = settings.search
        self.search = SearchProvider(search, self.client, self.metrics) if search.provider else None
        self.draining = False
        self.sealer = Sealer(store.derived("capsules"))
        self._mask_secret = store.derived("masking")
        self.proof = store.derived("internal").hex()  # of who has read this pepper
        self.reads = Reads()
        self.tasks = Tasks(self._task_failed)
        self.memory = ReasoningCache() if settings.memory else None
        self._version = store.data_version()  # before the ring: a change in between is seen
        self.ring: KeySnapshot = store.ring()
        self._own_keys = own_keys.OwnKeyRoutes(store.owned_keys())
        self.admissions = Admissions(ledger, lambda: self._version, self._budgeted)
        news = self.admissions.news
        self.health = UpstreamHealth(self.admissions.pacing, news.publish)
        news.state = self.health.shared
        if self.memory is not None:
            news.share(self.memory)
        self.shared_reasoning: SharedReasoning | None = None
        if self.memory is not None and settings.cache:
            secret = store.derived("reasoning cache")
            shared = SharedReasoning(settings.cache, secret, self.memory, self._cache_noted)
            self.shared_reasoning = shared
            news.share_with_nodes(shared.kept, shared.used)
        self.replays = ReplayStore(
            store.derived("idempotency"), books, self.reads, self.admissions.keeping
        )
        kept = settings.responses
        self.responses = (
            ResponseStore(kept, store.derived("responses"), self.admissions.storing)
            if kept.store
            else None
        )
        self._checked_s = math.inf  # when the last check of the keys began; inf: nobody watches
        self._checking = asyncio.Lock()
        self._next_check: asyncio.Task[None] | None = None
        self._managing = asyncio.Lock()
        self._people: People | None = None
        self._stored = Stored(secret=store.derived(sealed_keys.PURPOSE))
        self.detected: dict[str, Detected] = {}  # what upstreams answered that they are, by name
        self.metrics.watched(self.tasks.failures, self.keys_age_s)
        self.metrics.plans = self.health.plan_windows
        self._take_stored(self._read_stored())
        self._declare()

    def _declare(self) -> None:
        """Have metrics of every model and upstream from the start."""
        catalog = self.catalog
        self.metrics.declare(
            DIALECTS,
            [m.id for m in catalog.models],
            {r.upstream.name for m in catalog.models for r in catalog.routes(m.id)},
        )
        self.metrics.retirements = [
            (m.id, r.upstream.name, _midnight_s(r.retirement.ends))
            for m in catalog.models
            for r in catalog.routes(m.id)
            if r.retirement is not None
        ]

    def _read_stored(self) -> tuple[Stored, Joined] | None:
        """Read the stored models and upstreams, in a thread; None when they are those that are known."""
        found = stored.read(self.store)
        if found == self._stored:
            return None
        return found, stored.joined(self._file, os.environ, found, self.detected)

    def _take_stored(self, found: tuple[Stored, Joined] | None) -> None:
        """Serve what was read; requests that run keep theirs."""
        if found is None:
            return
        self._stored, both = found
        self.settings = msgspec.structs.replace(
            self.settings, models=both.settings.models, upstreams=both.settings.upstreams
        )
        self.catalog = both.catalog
        self._declare()
        for id, fault in both.faults.items():
            self.log.write(LogLine(log_now(), "warning", "model_left_out", model=id, where=fault))
        for fault in both.upstream_faults.values():
            self.log.write(LogLine(log_now(), "warning", "upstream_left_out", where=fault))

    async def take_detected(self, name: str, found: Detected) -> None:
        """Serve the upstream as what it said that it is; requests that run keep their routes."""
        detected = {**self.detected, name: found}
        async with self._checking:
            found_before = self._stored
            both = await asyncio.to_thread(
                stored.joined, self._file, os.environ, found_before, detected
            )
            self.detected = detected
            self._take_stored((found_before, both))
        text = f"{found.text}; the preset `{found.kind}` is in force"
        self.log.write(LogLine(log_now(), "info", "upstream_detected", upstream=name, where=text))

    def authenticate(self, credential: str | None) -> Key:
        """The key behind what was presented; the same refusal for every reason there may be."""
        if time.monotonic() - self._checked_s > STALE_S:
            raise unavailable()
        key = self.ring.authenticate(credential, time.time()) if credential else None
        if key is None:
            raise Refused(_NO_KEY)
        return key

    def failed_credential(self, peer: str, key_id: str) -> None:
        """Count a wrong credential; Refused with 429 when there were too many."""
        wait_s = self._guesses.failed(peer, key_id, time.monotonic())
        self.metrics.bad_keys.add("throttled" if wait_s else "refused")
        if wait_s:
            raise Refused(
                Failure(
                    "rate_limit",
                    "Too many wrong API keys were sent. Check the key, then try again in"
                    f" {math.ceil(wait_s)}s.",
                    code="too_many_bad_keys",
                    retry_after_s=math.ceil(wait_s),
                    should_retry=False,  # the same key will be as wrong
                )
            )

    def _budgeted(self, key: Key) -> bool:
        return self.ring.budgeted(key)

    async def enter(self, key: Key, scope: Scope = "exchange") -> Entry:
        """Let a request of this key in, before its body is read; Refused for overload or a limit.

        Whoever gets an entry must `leave` it.
        """
        place = self.overload.enter(key.owner)
        try:
            admission = await self.admissions.enter(key, scope)
        except StoreError:
            place.leave()
            raise no_node() from None
        except BaseException:  # also when the client leaves meanwhile
            place.leave()
            raise
        return Entry(key, place, self.admissions, admission)

    async def key_of(self, credential: str | None, peer: str = "") -> Key:
        """As `authenticate`; a key that was created a moment ago is looked for in the database.

        One that was mistyped costs no look.  All who ask at the same time share one.  After too many
        failures from the address `peer`, or for one key id, failures get a 429 and cost no look
        either; a key that has expired or was revoked is no such failure, as its secret is right.
        """
        try:
            return _at_home(self.authenticate(credential), peer)
        except Refused as refused:
            if refused.failure is not _NO_KEY or not credential:
                raise
        parsed = keys.parse(credential)
        if parsed is not None and not self._guesses.waits(peer, time.monotonic()):
            if self._next_check is None:
                self._next_check = self.tasks.once("keys_of_a_request", self._check_next())
            await asyncio.shield(self._next_check)
            key = self.ring.authenticate(credential, time.time())
            if key is not None:
                return _at_home(key, peer)
        if parsed is None or not self.ring.knows(credential):
            self.failed_credential(peer, parsed.id if parsed is not None else "")
        raise Refused(_NO_KEY)

    async def _check_next(self) -> None:
        async with self._checking:  # the one that runs may have looked before the key was there
            self._next_check = None
            with contextlib.suppress(StoreError):  # the watch reports it
                await self._check()

    async def refresh(self) -> None:
        """Read the keys anew if they have changed; StoreError when the database cannot be read."""
        async with self._checking:
            await self._check()

    async def _check(self) -> None:
        began_s = time.monotonic()
        found = await self.reads.run(self._changed)
        if found is not None:
            version, self.ring, owned, found_stored = found
            self._own_keys = own_keys.OwnKeyRoutes(owned)
            forget_owned(self.client)
            self._take_stored(found_stored)
            self.admissions.forget_keys()
            self._version = version  # last: what failed on the way is tried again
        if self._checked_s != math.inf:
            self._checked_s = began_s

    def _changed(
        self,
    ) -> tuple[int, KeySnapshot, OwnedKeys, tuple[Stored, Joined] | None] | None:
        """In a thread: what has changed since the last time; None: nothing."""
        version = self.store.data_version()
        if version == self._version:
            return None
        return version, self.store.ring(), self.store.owned_keys(), self._read_stored()

    def proves(self, inbound: Inbound) -> bool:
        """Return whether the request comes from who can read the data directory: control, or the doctor."""
        given = inbound.headers.get("x-headgate-internal", "")
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.proof.encode())

    async def manages(self, text: str) -> bool:
        """Whether this is a management key that is good now; Refused when the database fails."""
        if not text.startswith(MANAGEMENT_PREFIX):
            return False
        async with self._managing:  # the connection is one
            return await self.reads(lambda: self._manages(text))

    def _manages(self, text: str) -> bool:
        if self._people is None:
            self._people = People(self.store, self.settings.data)
        return self._people.manager(text, now_s=time.time()) is not None

    def keys_age_s(self) -> float:
        """How old the snapshot of the keys is; 0 while nobody watches."""
        return max(0.0, time.monotonic() - self._checked_s)

    def unready(self) -> str:
        """Why no traffic should come here now; "" when it may."""
        if self.draining:
            return "draining"
        if self.keys_age_s() > STALE_S:
            return f"the database has not been read for {self.keys_age_s():.0f} s"
        if fault := self.ledger.fault:
            return fault
        if not any(self.catalog.routes(m.id) for m in self.catalog.models):
            return "no upstream"
        return ""

    def _task_failed(self, name: str, error: Exception) -> None:
        # The store names its file and SQLite's reason; other errors may quote what a client sent.
        if isinstance(error, RedisError):
            return  # that was logged once
        why = str(error) if isinstance(error, StoreError) else places(error)
        self.log.write(LogLine(log_now(), "error", "task_failed", where=f"{name}: {why}"))

    def _cache_noted(self, text: str) -> None:
        self.log.write(LogLine(log_now(), "warning", "reasoning_cache", where=text))

    def routes(self, name: str, key: Key, request: Request | None = None) -> tuple[Route, ...]:
        """The routes of the model a client named; refused when it is unknown or not this key's.

        A route over several keys is there once for each.
        """
        model = self.catalog.find(name, key.owner, key.models)
        if model is None:
            raise Refused(
                Failure(
                    "not_found",
                    f"The model `{name[:64]}` does not exist here. {self.catalog.hint(name)}",
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
        if model.id in self.catalog.retiring and self.settings.retired_to_successor:
            routes = tuple(
                routing.in_force(((r, r.successor) for r in routes), datetime.now(UTC).date())
            )
        if not routes:
            raise Refused(Failure("unavailable", f"No upstream is configured for {model.id}."))
        wish = self.wish_of(name, key, request)
        if wish != preferences.NONE:
            routes = self._preferred(routes, wish)
        if len(routes) == 1 and routes[0].simple and not self._own_keys.owned:
            return routes
        named = key.owner if request is None else routing.conversation(request, key.owner)
        order: list[Route] = []
        for route in routes if wish.sort else routing.ordered(routes, named):
            order += self._own_keys.routes(route, key, named)
        if not order:
            raise Refused(own_keys.needed(model.id, key, routes))
        return tuple(order)

    def own_key_routes(self, upstream: str) -> list[Route]:
        """One route for each owner's key of this upstream that requests have used."""
        return self._own_keys.used(upstream)

    def masker(self, key: Key) -> Masker | None:
        """Return what masks the requests of this key; None: nothing is masked."""
        if not key.mask:
            return None
        secret = hmac.digest(self._mask_secret, key.owner.encode(), "sha256")
        return Masker(masking.kinds(key.mask), secret)

    def wish_of(self, name: str, key: Key, request: Request | None = None) -> Preferences:
        """Return what the key, the preset that was named and the request prefer together."""
        found = _preferences(key.routing) if key.routing else preferences.NONE
        if (preset := self.catalog.preset(name)) is not None and preset.routing:
            found = preferences.narrowed(found, _preferences(preset.routing))
        if request is not None and request.preferences is not None:
            found = preferences.narrowed(found, request.preferences)
        return found

    def _preferred(self, routes: tuple[Route, ...], wish: Preferences) -> tuple[Route, ...]:
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
            left = preferences.sorted_by(wish.sort, left, self._figures)
        return tuple(left)

    def _figures(self, route: Route) -> preferences.Figures:
        first_token_s, tokens_per_s = self.metrics.speed(route.model.id, route.upstream.name)
        tariff = self.admissions.tariff(route.prices, "", time.time())
        price = 0 if route.free else tariff.charge(_USUAL).nano
        return preferences.Figures(price, first_token_s, tokens_per_s)

    def watch(self) -> None:
        """Keep the keys fresh, the log flushed and the loop's lag known, until `tasks` are stopped."""
        self._checked_s = time.monotonic()
        self.tasks.every("keys", POLL_S, self.refresh)
        self.tasks.every("log", POLL_S, self._flush_log)
        self.tasks.every("retirements", 86400.0, self._report_retirements)
        self.tasks.every("metrics", REPORT_S, self._report_metrics)
        self.tasks.every("loop_lag", 0.0, self._measure_lag)
        if self.shared_reasoning is not None:
            self.tasks.every(
                "reasoning_cache",
                shared_reasoning.LOOK_S,
                self.shared_reasoning.work,
                shared_reasoning.RETRY_S,
            )

    async def _report_metrics(self) -> None:
        self.admissions.metrics.report(self.metrics.samples())

    async def metrics_page(self) -> bytes:
        """The metrics of all edges."""
        return self.metrics.page(await self.admissions.metrics.others())

    def last_report(self) -> None:
        """Leave with the node what was counted, before the edge ends."""
        self.admissions.metrics.report(self.metrics.samples())

    async def _flush_log(self) -> None:
        self.refusals.flush()
        self.log.flush()

    async def _report_retirements(self) -> None:
        """Log each day which models end at which upstream, before they do and after."""
        today = datetime.now(UTC).date()
        for route, _ in retirements(self.catalog, today):
            text = retirement_text(route, self.settings, today)
            line = LogLine(
                log_now(),
                "warning",
                "model_retires",
                model=route.model.id,
                upstream=route.upstream.name,
                where=text,
            )
            self.log.write(line)

    async def _measure_lag(self) -> None:
        due = asyncio.get_running_loop().time() + POLL_S
        await asyncio.sleep(POLL_S)
        self.metrics.loop_lag_s = max(0.0, asyncio.get_running_loop().time() - due)

    async def close(self) -> None:
        """End the tasks and the connections to upstreams."""
        self.overload.close()
        self.refusals.close()
        await self.tasks.stop()
        if self.shared_reasoning is not None:
            self.shared_reasoning.close()
        await self.reads.close()
        if self._people is not None:
            self._people.close()
        await self.client.close()
