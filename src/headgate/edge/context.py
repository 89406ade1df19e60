"""What every exchange of one edge shares: settings, catalog, keys, the outbound client, the ledger.

Passed to whatever needs it; nothing here is global.  Note: keys are authenticated against a snapshot of the
database that is read again every POLL_S.  Once the last check is older than STALE_S no key opens anything,
as one that was revoked meanwhile would still work.
"""

import asyncio
import contextlib
import math
import os
import time

import msgspec

from headgate.catalog import sealed_keys, stored
from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.stored import Joined, Stored
from headgate.config import Settings
from headgate.dialects.registry import DIALECTS
from headgate.edge import own_keys, shared_reasoning
from headgate.edge.counter import Counter
from headgate.edge.credentials import STALE_S, Credentials
from headgate.edge.entry import Entry
from headgate.edge.key_reports import KeyReports
from headgate.edge.log import Log, LogLine, places
from headgate.edge.log import now as log_now
from headgate.edge.management import Management
from headgate.edge.metrics import Metrics
from headgate.edge.overload import Overload
from headgate.edge.reads import Reads, no_node
from headgate.edge.refusals import Refusals
from headgate.edge.replay import ReplayStore
from headgate.edge.retirement_log import log_retirements, retirement_times
from headgate.edge.shared_reasoning import SharedReasoning
from headgate.edge.stored_responses import ResponseStore
from headgate.edge.tokenizer import load_tokenizer
from headgate.edge.upstream import forget_owned
from headgate.edge.upstream_health import UpstreamHealth
from headgate.edge.web_search import SearchProvider
from headgate.net.client import Client
from headgate.net.client_errors import Timeouts
from headgate.net.redis import RedisError
from headgate.node.client import Admissions
from headgate.policy.key_snapshot import KeySnapshot
from headgate.policy.keys import Key
from headgate.policy.limit_kinds import Scope
from headgate.policy.upstream_keys import OwnedKeys
from headgate.reasoning.cache import ReasoningCache
from headgate.reasoning.sealing import Sealer
from headgate.storage.errors import StoreError
from headgate.storage.interface import Keys, OwnReports, Reports
from headgate.storage.sqlite.ledger import Ledger
from headgate.tasks import Tasks

POLL_S = 0.4  # a revoked key must be refused within a second
REPORT_S = 1.0  # so old may other edges' part of a page of metrics be


class EdgeContext:
    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        store: Keys,
        ledger: Ledger,
        ledger_reports: OwnReports,
        log: Log,
        edges: int = 1,
        everywhere: Reports | None = None,
    ) -> None:
        """`edges`: how many there are of this generation; `everywhere`: the ledger of all nodes."""
        self.settings = settings
        self._file = settings  # without what is stored
        self.catalog = catalog
        self.store = store
        self.ledger = ledger
        self.key_reports = KeyReports(ledger_reports, everywhere)
        self.log = log
        self.metrics = Metrics()
        self.overload = Overload(settings.overload, settings.body_bytes, self.metrics, edges)
        self.refusals = Refusals(self.metrics, log)
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
        self.mask_secret = store.derived("masking")
        self.reads = Reads()
        self.management = Management(store, settings.data, self.reads)
        self.tasks = Tasks(self._task_failed)
        self.memory = ReasoningCache() if settings.memory else None
        self._version = store.data_version()  # before the ring: a change in between is seen
        self.credentials = Credentials(store.ring(), self._look, self.metrics, self.tasks)
        self.own_keys = own_keys.OwnKeyRoutes(store.owned_keys())
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
            store.derived("idempotency"), ledger_reports, self.reads, self.admissions.keeping
        )
        kept = settings.responses
        self.responses = (
            ResponseStore(kept, store.derived("responses"), self.admissions.storing)
            if kept.store
            else None
        )
        self._checking = asyncio.Lock()
        self._stored = Stored(secret=store.derived(sealed_keys.PURPOSE))
        self.detected: dict[str, Detected] = {}  # what upstreams answered that they are, by name
        self.metrics.watched(self.tasks.failures, self.credentials.age_s)
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
        self.metrics.retirements = retirement_times(catalog)

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

    def _budgeted(self, key: Key) -> bool:
        return self.credentials.ring.budgeted(key)

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

    async def _look(self) -> None:
        async with self._checking:  # the one that runs may have looked before the key was there
            self.credentials.check_begins()
            with contextlib.suppress(StoreError):  # the watch reports it
                await self._check()

    async def refresh(self, after_s: float = 0.0) -> None:
        """Read the keys anew if they have changed, at once or when the node says so; StoreError."""
        await self.admissions.news.keys_change(after_s)
        async with self._checking:
            await self._check()

    async def _check(self) -> None:
        began_s = time.monotonic()
        found = await self.reads.run(self._changed)
        if found is not None:
            version, self.credentials.ring, owned, found_stored = found
            self.own_keys = own_keys.OwnKeyRoutes(owned)
            forget_owned(self.client)
            self._take_stored(found_stored)
            self.admissions.forget_keys()
            self._version = version  # last: what failed on the way is tried again
        if self.credentials.checked_s != math.inf:
            self.credentials.checked_s = began_s

    def _changed(
        self,
    ) -> tuple[int, KeySnapshot, OwnedKeys, tuple[Stored, Joined] | None] | None:
        """In a thread: what has changed since the last time; None: nothing."""
        version = self.store.data_version()
        if version == self._version:
            return None
        return version, self.store.ring(), self.store.owned_keys(), self._read_stored()

    def unready(self) -> str:
        """Why no traffic should come here now; "" when it may."""
        if self.draining:
            return "draining"
        if self.credentials.age_s() > STALE_S:
            return f"the database has not been read for {self.credentials.age_s():.0f} s"
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

    def watch(self) -> None:
        """Keep the keys fresh, the log flushed and the loop's lag known, until `tasks` are stopped."""
        self.credentials.checked_s = time.monotonic()
        self.tasks.every("keys", 0.0, lambda: self.refresh(POLL_S))
        self.tasks.every("log", POLL_S, self._flush_log)
        self.tasks.every("retirements", 86400.0, self._log_retirements)
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
        """Return the metrics of all edges."""
        return self.metrics.page(await self.admissions.metrics.others())

    def last_report(self) -> None:
        """Leave with the node what was counted, before the edge ends."""
        self.admissions.metrics.report(self.metrics.samples())

    async def _flush_log(self) -> None:
        self.refusals.flush()
        self.log.flush()

    async def _log_retirements(self) -> None:
        log_retirements(self.catalog, self.settings, self.log)

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
        self.management.close()
        await self.client.close()
