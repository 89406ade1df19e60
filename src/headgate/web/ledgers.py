"""Whose figures the console shows: those of all nodes that share a database, or of this node alone.

While the database does not answer, pages show what this node's own ledger has, and say so; files and the
admin API, where nothing could say it, are refused (`LedgerView.whole`).

Note: a data directory that keeps keys of its own, beside a database, shows its own ledger: accounts of the
same name elsewhere are another team's.
"""

import threading
from collections.abc import Sequence
from functools import cached_property

from headgate.call_loop import CallLoop
from headgate.config import Settings
from headgate.policy.keys import Account, Key
from headgate.policy.periods import written_on
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.interface import Reports
from headgate.storage.postgres.nodes import CLOCK_S, SILENT_S, ClusterNode, Leased
from headgate.storage.postgres.queries import TooSlow as TooSlow
from headgate.storage.postgres.usage_reader import DatabaseReader, of_all_nodes
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.reports import UsageReader

ANSWER_S = 2.0  # that a page waits for the database before it goes on without
AWAY = (
    "The database that the nodes share does not answer, so that the figures of all nodes are not known now."
    " Try again in a moment."
)


class NodesAway(Exception):
    """The database of all nodes does not answer; the text is for people."""

    def __init__(self) -> None:
        super().__init__(AWAY)


class Ledgers:
    """The ledgers that one process reads: this node's, and that of all nodes if its keys are shared."""

    def __init__(self, settings: Settings, calls: CallLoop) -> None:
        self._settings, self._calls = settings, calls
        self._lock = threading.Lock()
        self._own: UsageReader | None = None
        self._everywhere: DatabaseReader | None = None

    def view(self, shares: bool) -> "LedgerView":
        """Look at the one whose figures are shown now; `shares`: keys are shared through the database."""
        url = self._settings.database
        with self._lock:
            if self._own is None:
                self._own = UsageReader(self._settings.data)
            if url and shares and self._everywhere is None:
                self._everywhere = of_all_nodes(url, self._calls)
        return LedgerView(self._own, self._everywhere if shares else None)


class LedgerView:
    """What one request reads, from one ledger."""

    def __init__(self, own: Reports, everywhere: DatabaseReader | None) -> None:
        self._own, self._everywhere = own, everywhere
        self.shared = everywhere is not None
        self.away, self.why = False, ""
        self.nodes: list[ClusterNode] = []
        if everywhere is not None:
            try:
                self.nodes = everywhere.nodes(ANSWER_S)
            except StoreError as error:
                self.away, self.why = True, str(error)

    @property
    def reports(self) -> Reports:
        """What pages show: of this node alone while the database is away."""
        return self._own if self._everywhere is None or self.away else self._everywhere

    @property
    def whole(self) -> Reports:
        """The same for what cannot say that it is not whole; NodesAway."""
        if self.away:
            raise NodesAway
        return self.reports

    def row(self, id: str) -> LedgerRow | None:
        """Return one exchange; this node's own also before it is sent."""
        found = self.reports.generation(id)
        if found is None and self.shared:
            found = self._own.generation(id)
        return found

    # --- nodes

    @cached_property
    def node_names(self) -> dict[str, str]:
        """What each node is called, by its id, also of those that were forgotten."""
        return self.reports.node_names()

    def nodes_of(self, rows: Sequence[LedgerRow]) -> dict[str, str]:
        """Return the names of the nodes that answered these exchanges."""
        if not rows:
            return {}
        found = self.reports.nodes_of([row.request_id for row in rows])
        return {request: self.node_names.get(id, id) for request, id in found.items()}

    def node(self, asked: str) -> str | None:
        """Return which node a page or a file is narrowed to; NodesAway when that cannot be known."""
        if not asked or not self.shared:
            return None
        if self.away:
            raise NodesAway
        return asked

    @property
    def silent(self) -> list[ClusterNode]:
        """The nodes that have not been heard of."""
        return [node for node in self.nodes if node.silent_s > SILENT_S]

    @property
    def late(self) -> list[ClusterNode]:
        """The nodes that have requests which are not there yet."""
        return [node for node in self.nodes if node.behind and node not in self.silent]

    @property
    def wrong_clocks(self) -> list[ClusterNode]:
        """The nodes whose clock is not the database's."""
        return [node for node in self.nodes if abs(node.clock_ahead_s) > CLOCK_S]

    # --- leases

    @cached_property
    def _leased(self) -> dict[tuple[str, str, str], Leased]:
        if self._everywhere is None or self.away:
            return {}
        try:
            return self._everywhere.leased()
        except StoreFault:
            return {}

    def leased(self, what: str, id: str, owner: Key | Account) -> Leased | None:
        """Return what nodes may spend of the owner's budget and have not; None: nothing."""
        budget = written_on(owner)
        if budget is None:
            return None
        return self._leased.get((what, id, f"{budget.period} {budget.zone}"))
