"""Reports over the ledgers of all nodes, from PostgreSQL: the same questions as storage/sqlite/reports.py.

`seq` is the database's own number: the order in which rows came there, the same whichever node asks.
tests/storage/test_storage_contract.py and test_reports_of_nodes.py compare the two readers.

Note: a node that was away sends its rows later: they stand at the end of the log, under their own times.
"""

from collections import Counter

from headgate.call_loop import CallLoop
from headgate.storage.postgres.database import TIMEOUT_S
from headgate.storage.postgres.nodes import LEASED, NODES, ClusterNode, Leased
from headgate.storage.postgres.queries import PooledQueries
from headgate.storage.postgres.request_log import RequestLog
from headgate.storage.postgres.usage_sums import UsageSums


class DatabaseReader(RequestLog, UsageSums):
    """Reads what all nodes have sent; several threads may use it at the same time."""

    def node_names(self) -> dict[str, str]:
        """Return what each node is called that has sent rows, also a forgotten one; no two alike."""
        found = self._queries.fetch("select node_id, name from node_names order by 2, 1")
        often = Counter(name for _, name in found)
        return {id: f"{name} ({id[:4]})" if often[name] > 1 else name for id, name in found}

    def nodes(self, within_s: float = TIMEOUT_S) -> list[ClusterNode]:
        """Return the nodes that are not forgotten, and how far each is behind."""
        return [ClusterNode(*columns) for columns in self._queries.fetch(NODES, within_s=within_s)]

    def leased(self) -> dict[tuple[str, str, str], Leased]:
        """Return what is leased of each budget: by "key" or "account", its id, and the period's kind and zone."""
        found = self._queries.fetch(LEASED)
        return {(what, owner, period): Leased(*sums) for what, owner, period, *sums in found}

    def close(self) -> None:
        self._queries.close()


def of_all_nodes(url: str, calls: CallLoop | None = None) -> DatabaseReader:
    """Return what reads a database; it connects when something is asked."""
    return DatabaseReader(PooledQueries(url, calls))
