"""What every exchange of one edge shares: settings, catalog, keys, the outbound client, the ledger.

Passed to whatever needs it; nothing here is global.  Note: keys are authenticated against a snapshot of the
database that is read again every POLL_S.  Once the last check is older than STALE_S no key opens anything,
as one that was revoked meanwhile would still work.
"""

import asyncio
import contextlib
import math
import time

from headgate.catalog import sealed_keys
from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.stored import Joined, Stored
from headgate.config import Settings
from headgate.edge import shared_reasoning
from headgate.edge.context_parts import Outbound, Reasoning, Reporting, Storage
from headgate.edge.counter import Counter
from headgate.edge.credentials import STALE_S, Credentials
from headgate.edge.entry import Entry
from headgate.edge.key_reports import KeyReports
from headgate.edge.log import Log, LogLine, places
from headgate.edge.log import now as log_now
from headgate.edge.management import Management
from headgate.edge.metrics import Metrics
from headgate.edge.overload import Overload
from headgate.edge.own_keys import OwnKeyRoutes
from headgate.edge.reads import Reads, no_node
from headgate.edge.refusals import Refusals
from headgate.edge.replay import ReplayStore
from headgate.edge.retirement_log import log_retirements
from headgate.edge.served import ServedModels
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
        metrics, client, reads = Metrics(), Client(), Reads()
        self.reporting = Reporting(metrics, log, Refusals(metrics, log))
        self.overload = Overload(settings.overload, settings.body_bytes, metrics, edges)
        self.draining = False
        self.tasks = Tasks(self._task_failed)
        self._version = store.data_version()  # before the ring: a change in between is seen
        self.credentials = Credentials(store.ring(), self._look, metrics, self.tasks)
        self.admissions = Admissions(ledger, lambda: self._version, self._budgeted)
        news = self.admissions.news
        t, search = settings.timeouts, settings.search
        self.outbound = Outbound(
            client,
            Counter(client, load_tokenizer(settings.tokenizer)),
            Timeouts(
                connect_s=t.connect, first_token_s=t.first_token, stall_s=t.stall, total_s=t.total
            ),
            SearchProvider(search, client, metrics) if search.provider else None,
            UpstreamHealth(self.admissions.pacing, news.publish),
            OwnKeyRoutes(store.owned_keys()),
            store.derived("masking"),
        )
        news.state = self.outbound.health.shared
        cache = ReasoningCache() if settings.memory else None
        shared: SharedReasoning | None = None
        if cache is not None:
            news.share(cache)
            if settings.cache:
                secret = store.derived("reasoning cache")
                shared = SharedReasoning(settings.cache, secret, cache, self._cache_noted)
                news.share_with_nodes(shared.kept, shared.used)
        self.reasoning = Reasoning(Sealer(store.derived("capsules")), cache, shared)
        kept = settings.responses
        self.storage = Storage(
            store,
            ledger,
            reads,
            Management(store, settings.data, reads),
            KeyReports(ledger_reports, everywhere),
            ReplayStore(
                store.derived("idempotency"), ledger_reports, reads, self.admissions.keeping
            ),
            ResponseStore(kept, store.derived("responses"), self.admissions.storing)
            if kept.store
            else None,
        )
        self._checking = asyncio.Lock()
        metrics.watched(self.tasks.failures, self.credentials.age_s)
        metrics.plans = self.outbound.health.plan_windows
        secret = store.derived(sealed_keys.PURPOSE)
        self.served = ServedModels(settings, catalog, store, secret, metrics, log)

    async def take_detected(self, name: str, found: Detected) -> None:
        """Serve the upstream as what it said that it is; requests that run keep their routes."""
        async with self._checking:
            await self.served.take_detected(name, found)

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
        found = await self.storage.reads.run(self._changed)
        if found is not None:
            version, self.credentials.ring, owned, found_stored = found
            self.outbound.own_keys = OwnKeyRoutes(owned)
            forget_owned(self.outbound.client)
            self.served.take(found_stored)
            self.admissions.forget_keys()
            self._version = version  # last: what failed on the way is tried again
        if self.credentials.checked_s != math.inf:
            self.credentials.checked_s = began_s

    def _changed(
        self,
    ) -> tuple[int, KeySnapshot, OwnedKeys, tuple[Stored, Joined] | None] | None:
        """In a thread: what has changed since the last time; None: nothing."""
        version = self.storage.store.data_version()
        if version == self._version:
            return None
        return (
            version,
            self.storage.store.ring(),
            self.storage.store.owned_keys(),
            self.served.read(),
        )

    def unready(self) -> str:
        """Why no traffic should come here now; "" when it may."""
        if self.draining:
            return "draining"
        if self.credentials.age_s() > STALE_S:
            return f"the database has not been read for {self.credentials.age_s():.0f} s"
        if fault := self.storage.ledger.fault:
            return fault
        if not any(self.served.catalog.routes(m.id) for m in self.served.catalog.models):
            return "no upstream"
        return ""

    def _task_failed(self, name: str, error: Exception) -> None:
        # The store names its file and SQLite's reason; other errors may quote what a client sent.
        if isinstance(error, RedisError):
            return  # that was logged once
        why = str(error) if isinstance(error, StoreError) else places(error)
        self.reporting.log.write(LogLine(log_now(), "error", "task_failed", where=f"{name}: {why}"))

    def _cache_noted(self, text: str) -> None:
        self.reporting.log.write(LogLine(log_now(), "warning", "reasoning_cache", where=text))

    def watch(self) -> None:
        """Keep the keys fresh, the log flushed and the loop's lag known, until `tasks` are stopped."""
        self.credentials.checked_s = time.monotonic()
        self.tasks.every("keys", 0.0, lambda: self.refresh(POLL_S))
        self.tasks.every("log", POLL_S, self._flush_log)
        self.tasks.every("retirements", 86400.0, self._log_retirements)
        self.tasks.every("metrics", REPORT_S, self._report_metrics)
        self.tasks.every("loop_lag", 0.0, self._measure_lag)
        if self.reasoning.shared is not None:
            self.tasks.every(
                "reasoning_cache",
                shared_reasoning.LOOK_S,
                self.reasoning.shared.work,
                shared_reasoning.RETRY_S,
            )

    async def _report_metrics(self) -> None:
        self.admissions.metrics.report(self.reporting.metrics.samples())

    async def metrics_page(self) -> bytes:
        """Return the metrics of all edges."""
        return self.reporting.metrics.page(await self.admissions.metrics.others())

    def last_report(self) -> None:
        """Leave with the node what was counted, before the edge ends."""
        self.admissions.metrics.report(self.reporting.metrics.samples())

    async def _flush_log(self) -> None:
        self.reporting.refusals.flush()
        self.reporting.log.flush()

    async def _log_retirements(self) -> None:
        log_retirements(self.served.catalog, self.served.settings, self.reporting.log)

    async def _measure_lag(self) -> None:
        due = asyncio.get_running_loop().time() + POLL_S
        await asyncio.sleep(POLL_S)
        self.reporting.metrics.loop_lag_s = max(0.0, asyncio.get_running_loop().time() - due)

    async def close(self) -> None:
        """End the tasks and the connections to upstreams."""
        self.overload.close()
        self.reporting.refusals.close()
        await self.tasks.stop()
        if self.reasoning.shared is not None:
            self.reasoning.shared.close()
        await self.storage.reads.close()
        self.storage.management.close()
        await self.outbound.client.close()
