"""The models and upstreams that an edge serves: those of the settings, of the database, and as upstreams say they are."""

import asyncio
import os

import msgspec

from headgate.catalog import stored
from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.stored import Joined, Stored
from headgate.config import Settings
from headgate.dialects.registry import DIALECTS
from headgate.edge.log import Log, LogLine
from headgate.edge.log import now as log_now
from headgate.edge.metrics import Metrics
from headgate.edge.retirement_log import retirement_times
from headgate.storage.interface import Keys


class ServedModels:
    """Settings and catalog as they are in force; they change while requests run, which keep theirs."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        store: Keys,
        secret: bytes,
        metrics: Metrics,
        log: Log,
    ) -> None:
        """`secret` opens the stored keys of upstreams."""
        self.settings = settings
        self.catalog = catalog
        self.detected: dict[str, Detected] = {}  # what upstreams answered that they are, by name
        self._file = settings  # without what is stored
        self._store = store
        self._stored = Stored(secret=secret)
        self._metrics = metrics
        self._log = log
        self.take(self.read())
        self._declare()

    def _declare(self) -> None:
        """Have metrics of every model and upstream from the start."""
        catalog = self.catalog
        self._metrics.declare(
            DIALECTS,
            [m.id for m in catalog.models],
            {r.upstream.name for m in catalog.models for r in catalog.routes(m.id)},
        )
        self._metrics.retirements = retirement_times(catalog)

    def read(self) -> tuple[Stored, Joined] | None:
        """Read the stored models and upstreams, in a thread; None when they are those that are known."""
        found = stored.read(self._store)
        if found == self._stored:
            return None
        return found, stored.joined(self._file, os.environ, found, self.detected)

    def take(self, found: tuple[Stored, Joined] | None) -> None:
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
            self._log.write(LogLine(log_now(), "warning", "model_left_out", model=id, where=fault))
        for fault in both.upstream_faults.values():
            self._log.write(LogLine(log_now(), "warning", "upstream_left_out", where=fault))

    async def take_detected(self, name: str, found: Detected) -> None:
        """Serve the upstream as what it said that it is; for one caller at a time, who reads nothing meanwhile."""
        detected = {**self.detected, name: found}
        known = self._stored
        both = await asyncio.to_thread(stored.joined, self._file, os.environ, known, detected)
        self.detected = detected
        self.take((known, both))
        text = f"{found.text}; the preset `{found.kind}` is in force"
        self._log.write(LogLine(log_now(), "info", "upstream_detected", upstream=name, where=text))
