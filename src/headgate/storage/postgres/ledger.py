"""This module ships the rows of the nodes' ledgers into PostgreSQL, each counted exactly once.

A batch is one transaction: the rows that are new by their request id, their sums, and how far the node
has come.  So it may be sent as often as needed, and by two nodes at a time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from headgate.storage.postgres.database import Connection
from headgate.storage.rows import COLUMNS, INSTANTS, LedgerRow

BATCH = 500  # rows of one transaction
_WRITING = 0x68656165  # the advisory lock: batches wait for each other, and no two can deadlock

BY = ("hour", "node_id", "account", "key_id", "model", "upstream", "outcome")
SUMS = (
    "requests",
    "unpriced",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
)
TIMES = ("ttft_ms", "first_tokens", "stream_ms")


class SumTable(msgspec.Struct, frozen=True):
    """A table of sums over the ledger: by what, and of what."""

    name: str
    by: tuple[str, ...]
    sums: tuple[str, ...]
    pruned: str = ""  # the table with the sums of rows that were deleted

    @property
    def columns(self) -> str:
        return ", ".join((*self.by, *self.sums))

    @property
    def groups(self) -> str:
        return ", ".join(self.by)

    def grouped(self, source: str) -> str:
        """Return the select that adds up rows of the ledger as this table has them."""
        by = ", ".join(f"{ADDS.get(c, c)} as {c}" for c in self.by)
        sums = ", ".join(f"{OVER.get(c, 'sum')}({ADDS.get(c, c)}) as {c}" for c in self.sums)
        groups = ", ".join(ADDS.get(c, c) for c in self.by)
        return f"select {by}, {sums} from {source} group by {groups}"

    def added(self, table: str, source: str) -> str:
        """Return the statement that adds rows of the ledger to `table`, which is this or like it."""
        updates = ", ".join(
            f"{c} = {_OF_TWO[OVER[c]]}({table}.{c}, excluded.{c})"
            if c in OVER
            else f"{c} = {table}.{c} + excluded.{c}"
            for c in self.sums
        )
        return (
            f"insert into {table} ({self.columns}) {self.grouped(source)}"
            f" on conflict ({self.groups}) do update set {updates}"
        )


BY_HOUR = SumTable("by_hour", BY, (*SUMS, *TIMES, "first_seq", "last_seq"), "pruned_hour")
BY_SESSION = SumTable(
    "by_session", ("hour", "node_id", "session", "account", "key_id"), SUMS, "pruned_session"
)
TOTALS = SumTable("totals", BY[1:], ("requests", "unpriced", "cost_nano_usd"))
OVER = {"first_seq": "min", "last_seq": "max"}
_OF_TWO = {"min": "least", "max": "greatest"}
# What one row adds to a sum, where that is not the column itself.
ADDS = {
    "hour": "date_trunc('hour', started_at, 'UTC')",
    "requests": "1",
    "unpriced": "(cost_nano_usd is null)::int",
    "cost_nano_usd": "coalesce(cost_nano_usd, 0)",
    "ttft_ms": "coalesce(ttft_ms, 0)",
    "first_tokens": "(ttft_ms is not null)::int",
    "stream_ms": "coalesce(greatest(round(extract(epoch from ended_at - started_at) * 1000)::bigint"
    " - ttft_ms, 0), 0)",
    "first_seq": "seq",
    "last_seq": "seq",
}
_NAMES = ", ".join(f'"{c}"' for c in COLUMNS)

_SHIP = f"""
with fresh as (
    insert into ledger (node_id, {_NAMES})
    select $2, {_NAMES} from jsonb_populate_recordset(null::ledger, $1::jsonb)
    on conflict (request_id) do nothing
    returning *
), hours as ({BY_HOUR.added("by_hour", "fresh")}
), sessions as ({BY_SESSION.added("by_session", "fresh")}
), ever as ({TOTALS.added("totals", "fresh")})
select count(*) from fresh
"""
_CAME = """
with named as (
    insert into node_names values ($1, $2)
    on conflict (node_id) do update set name = $2 where node_names.name <> $2
)
insert into nodes (node_id, name, version, last_seq, last_request_id, behind, seen_at, clock_ahead_s)
    values ($1, $2, $3, $4, $5, $6, now(), extract(epoch from $7::timestamptz - clock_timestamp()))
    on conflict (node_id) do update set name = $2, version = $3, last_seq = $4,
        last_request_id = $5, behind = $6, seen_at = now(), clock_ahead_s = excluded.clock_ahead_s
"""
_PRUNE = f"""
with gone as (
    delete from ledger where seq in (
        select seq from ledger where started_at < $1 order by started_at limit {BATCH}
    ) returning *
), hours as ({BY_HOUR.added("pruned_hour", "gone")}
), sessions as ({BY_SESSION.added("pruned_session", "gone")})
select count(*) from gone
"""


class NodePosition(msgspec.Struct, frozen=True):
    """How far a node's ledger has come."""

    last_seq: int = 0
    last_request_id: str = ""


class NodeName(msgspec.Struct, frozen=True):
    """Which node sends."""

    node_id: str
    name: str
    version: str


def _record(row: LedgerRow) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(row)
    for name in INSTANTS:
        fields[name] = datetime.fromtimestamp(getattr(row, name), UTC).isoformat()
    return fields


async def position(db: Connection, node_id: str) -> NodePosition:
    found = await db.fetchrow(
        "select last_seq, last_request_id from nodes where node_id = $1", node_id
    )
    return NodePosition(*found) if found is not None else NodePosition()


async def ship(
    db: Connection,
    node: NodeName,
    rows: Sequence[tuple[int, LedgerRow]],
    here: NodePosition,
    behind: int,
) -> NodePosition:
    """Insert the rows that are not there yet, and return the position after them.

    `rows` have the numbers of the node's own ledger, in order; none only says that the node lives.
    `here` is the position before them, `behind` how many rows follow.  Where the database is not as far, it
    was restored from a backup: nothing is written then, and its own position returned.
    """
    async with db.transaction():
        await db.execute("select pg_advisory_xact_lock($1)", _WRITING)
        if here.last_seq and (known := await position(db, node.node_id)).last_seq < here.last_seq:
            return known
        if rows:
            last_seq, last = rows[-1]
            here = NodePosition(last_seq, last.request_id)
            data = msgspec.json.encode([_record(row) for _, row in rows]).decode()
            await db.fetchval(_SHIP, data, node.node_id)
        await db.execute(
            _CAME,
            node.node_id,
            node.name,
            node.version,
            here.last_seq,
            here.last_request_id,
            behind,
            datetime.now(UTC),
        )
    return here


async def prune(db: Connection, before_s: float) -> int:
    """Delete the rows that began before that moment, a batch at a time; how many there were."""
    before, gone = datetime.fromtimestamp(before_s, UTC), 0
    while True:
        async with db.transaction():
            await db.execute("select pg_advisory_xact_lock($1)", _WRITING)
            count = int(await db.fetchval(_PRUNE, before))
        gone += count
        if count < BATCH:
            return gone
