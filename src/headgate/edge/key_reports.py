"""What a key may know of its own requests: those of all nodes that share a database, or of this node.

A row reaches the database some 0.2 s after its request.  What this node has and the database has not yet is
added, so that a client which asks right after its reply finds it.
"""

from headgate.storage.errors import StoreError
from headgate.storage.figures import SessionSum, Where
from headgate.storage.interface import Reports
from headgate.storage.rows import LedgerRow

TRIES = 5  # to read both while no row goes from one to the other
ON_THEIR_WAY = 100  # rows of a session; more are there only while the database is away


class KeyReports:
    """Reads for the owner of a key; in a thread, as both ledgers make it wait."""

    def __init__(self, own: Reports, everywhere: Reports | None = None) -> None:
        """`everywhere` reads the ledger of all nodes; None: they share none."""
        self._own = own
        self._everywhere = everywhere

    def generation(self, id: str) -> LedgerRow | None:
        """Return one exchange; StoreError when it may be another node's and cannot be looked for."""
        found = self._own.generation(id)
        if found is None and self._everywhere is not None:
            found = self._everywhere.generation(id)
        return found

    def session(
        self, id: str, key: str, most: int, after: str
    ) -> tuple[SessionSum, list[LedgerRow], bool]:
        """Return a session's sum, a page of its exchanges, oldest first, and whether there are more.

        The last page has what is on its way too, and may be longer than `most` by that.
        """
        ledger = self._everywhere or self._own
        for _ in range(TRIES):
            late = self._on_their_way(id, key)
            sums = ledger.session_sum(id, key)
            rows = ledger.session(id, key, most=most + 1, after=after)
            if not late or self._on_their_way(id, key)[: len(late)] == late:
                break  # nothing has arrived between the looks
        if len(rows) > most:
            return _added(sums, late), rows[:most], True
        return _added(sums, late), rows + late, False

    def _on_their_way(self, id: str, key: str) -> list[LedgerRow]:
        """Return this node's newest rows that the database has not, oldest first."""
        if self._everywhere is None:
            return []
        newest = self._own.requests(Where(session=id, key_id=key), most=ON_THEIR_WAY)
        sent = self._everywhere.nodes_of([row.request_id for _, row in newest])
        return [row for _, row in reversed(newest) if row.request_id not in sent]

    def spent(self, key: str) -> tuple[int, str]:
        """Return what a key has spent since ever, nano-dollars, and where; "": there is one node only."""
        if self._everywhere is None:
            return self._own.spent_by_key(key), ""
        try:
            return self._everywhere.spent_by_key(key), "all_nodes"
        except StoreError:
            return self._own.spent_by_key(key), "this_node"


def _added(sums: SessionSum, rows: list[LedgerRow]) -> SessionSum:
    return SessionSum(
        sums.requests + len(rows),
        sums.unpriced + sum(row.cost_nano_usd is None for row in rows),
        sums.input_tokens + sum(row.input_tokens for row in rows),
        sums.cached_tokens + sum(row.cached_tokens for row in rows),
        sums.output_tokens + sum(row.output_tokens for row in rows),
        sums.cost_nano_usd + sum(row.cost_nano_usd or 0 for row in rows),
    )
