"""Reads what the database of all nodes says of itself: its nodes, single rows by their ids, and the audit.

The reports of usage and requests are in usage_reader.py.
"""

from collections.abc import Sequence
from typing import Any

from headgate.storage.figures import Difference
from headgate.storage.postgres.database import Connection
from headgate.storage.postgres.leases import release
from headgate.storage.postgres.ledger import BY_HOUR, BY_SESSION, OVER, TOTALS, SumTable
from headgate.storage.postgres.ledger_sql import COLUMNS, row_of
from headgate.storage.postgres.nodes import NODES, ClusterNode
from headgate.storage.rows import LedgerRow

MAX_DIFFERENCES = 100
AUDIT_S = 600.0  # for each of its statements, which read the whole ledger


class LedgerDatabase:
    """Reads the ledger of all nodes by one connection."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    async def rows(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        """Return those of these exchanges that are there, by their ids."""
        found = await self._db.fetch(
            f"select {COLUMNS} from ledger where request_id = any($1)", list(ids)
        )
        return {row.request_id: row for row in map(row_of, found)}

    async def nodes(self) -> list[ClusterNode]:
        return [ClusterNode(*columns) for columns in await self._db.fetch(NODES)]

    async def recorded(self) -> tuple[int, int]:
        """Return how many requests there were, and what they cost, nano-dollars; also of deleted rows."""
        found = await self._db.fetchrow(
            "select coalesce(sum(requests), 0)::bigint, coalesce(sum(cost_nano_usd), 0)::bigint from totals"
        )
        return int(found[0]), int(found[1])

    async def forget(self, name: str) -> list[str]:
        """Drop a node from the list, by its name or id; the ids that were dropped.

        Its rows stay.  What it had leased of budgets and, as far as its rows are here, has not spent is
        free for the others; StoreError while it may still spend it.
        """
        async with self._db.transaction():
            ids = await self._db.fetch(
                "select node_id from nodes where name = $1 or node_id = $1", name
            )
            await release(self._db, [str(id) for (id,) in ids])
            return await self._drop(name)

    async def _drop(self, name: str) -> list[str]:
        found = await self._db.fetch(
            "delete from nodes where name = $1 or node_id = $1 returning node_id", name
        )
        return [str(id) for (id,) in found]

    async def audit(self) -> list[Difference]:
        """Recompute every sum from the rows; what is stored and differs, or nothing."""
        found: list[Difference] = []
        async with self._db.transaction(isolation="repeatable_read", readonly=True):
            for table in (BY_HOUR, BY_SESSION):
                sums = ", ".join(f"{OVER.get(c, 'sum')}({c}) as {c}" for c in table.sums)
                computed = (
                    f"select {table.groups}, {sums} from ({table.grouped('ledger')} union all"
                    f" select {table.columns} from {table.pruned}) each_part group by {table.groups}"
                )
                found += await self._differences(table, computed)
            ever = ", ".join(f"sum({c}) as {c}" for c in TOTALS.sums)
            computed = f"select {TOTALS.groups}, {ever} from by_hour group by {TOTALS.groups}"
            found += await self._differences(TOTALS, computed)
        return found

    async def _differences(self, table: SumTable, computed: str) -> list[Difference]:
        stored = f"select {table.columns} from {table.name}"
        missing = await self._db.fetch(
            f"{computed} except {stored} limit {MAX_DIFFERENCES}", timeout=AUDIT_S
        )
        wrong = await self._db.fetch(
            f"{stored} except {computed} limit {MAX_DIFFERENCES}", timeout=AUDIT_S
        )
        width = len(table.by)
        ours = {tuple(r)[:width]: tuple(r)[width:] for r in missing}
        theirs = {tuple(r)[:width]: tuple(r)[width:] for r in wrong}
        return [
            Difference(
                f"{table.name} "
                + ", ".join(f"{n} {v or '-'}" for n, v in zip(table.by, group, strict=True)),
                _sums(table, ours.get(group)),
                _sums(table, theirs.get(group)),
            )
            for group in [*ours, *(g for g in theirs if g not in ours)]
        ]


def _sums(table: SumTable, values: tuple[Any, ...] | None) -> str:
    if values is None:
        return "nothing"
    return ", ".join(f"{n} {v}" for n, v in zip(table.sums, values, strict=True))
