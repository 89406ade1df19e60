"""The rows that all nodes share, in PostgreSQL: who changes them, and who asks for changes.

Changes are made by one node at a time, which holds an advisory lock until its commit.  So versions are
committed in their order, and who asks for those above the last one that it has misses none.
"""

from collections.abc import Sequence

import msgspec

from headgate.storage.postgres.database import Connection
from headgate.storage.sqlite.shared import SharedRow

CHANNEL = "headgate_shared"  # a notice for each commit
PAGE = 2000  # rows of one answer
_CHANGING = 0x68656166  # the advisory lock

_PUSH = """
insert into shared_rows as old (kind, id, version, "row")
    select kind, id, version, "row" from jsonb_to_recordset($1::jsonb)
        as fresh (kind text, id text, version bigint, "row" jsonb)
    on conflict (kind, id) do update set version = excluded.version,
        "row" = case when excluded."row" is not null
            then coalesce(old."row", '{}') || excluded."row" end
"""  # merged: columns that this version of Headgate does not know stay


class SharedState(msgspec.Struct, frozen=True):
    """Identifies the database, and the version of what is shared through it."""

    cluster: str
    version: int
    fingerprint: bytes | None


async def lock(db: Connection) -> None:
    """Wait until no other node changes anything; it holds until the transaction ends."""
    await db.execute("select pg_advisory_xact_lock($1)", _CHANGING)


async def state(db: Connection) -> SharedState:
    found = await db.fetchrow("select cluster, version, fingerprint from shared_state")
    return SharedState(*found)


async def changes(db: Connection, after: int) -> list[SharedRow]:
    """Return the rows that have changed since that version, in the order of theirs."""
    out: list[SharedRow] = []
    while True:
        found = await db.fetch(
            'select kind, id, "row", version from shared_rows where version > $1'
            f" order by version limit {PAGE}",
            after,
        )
        for kind, id, row, version in found:
            out.append(SharedRow(kind, id, row and msgspec.json.decode(row), version))
        if len(found) < PAGE:
            return out
        after = out[-1].version


async def push(db: Connection, rows: Sequence[SharedRow], after: int) -> list[SharedRow]:
    """Write the rows, in a transaction that holds the lock; each gets its version, from `after` on."""
    fresh = [
        msgspec.structs.replace(each, version=after + n) for n, each in enumerate(rows, start=1)
    ]
    for at in range(0, len(fresh), PAGE):
        await db.execute(_PUSH, msgspec.json.encode(fresh[at : at + PAGE]).decode())
    await db.execute("update shared_state set version = $1", after + len(fresh))
    await db.execute("select pg_notify($1, $2)", CHANNEL, str(after + len(fresh)))
    return fresh


async def claim(db: Connection, cluster: str, fingerprint: bytes) -> None:
    """Remember the pepper of the first node, and the name by which nodes know this database."""
    await db.execute("update shared_state set cluster = $1, fingerprint = $2", cluster, fingerprint)
