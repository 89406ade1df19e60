"""What the ledger of all nodes says: usage, single requests, the nodes, and the audit."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from headgate.storage.figures import (
    ALL,
    FINE,
    UPSTREAMS_FAULT,
    By,
    Difference,
    Only,
    Spent,
    Where,
)
from headgate.storage.postgres.database import Connection
from headgate.storage.postgres.leases import release
from headgate.storage.postgres.ledger import ADDS, BY, SUMS, grouped
from headgate.storage.rows import COLUMNS, INSTANTS, JSON_COLUMNS, LedgerRow

MAX_DIFFERENCES = 100
_NAME: dict[By, str] = {
    "key": "key_id",
    "account": "account",
    "model": "model",
    "upstream": "upstream",
    "session": "session",
    "user": '"user"',
    "day": "to_char(hour at time zone 'UTC', 'YYYY-MM-DD')",
    "hour": "to_char(hour at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:00\"Z\"')",
}
_COLUMNS = ", ".join(f'"{c}"' for c in COLUMNS)


class ClusterNode(msgspec.Struct, frozen=True):
    """A node that has sent rows."""

    node_id: str
    name: str
    version: str
    seen_s: float  # Unix seconds, by the clock of the database
    behind: int  # rows that it had not sent then
    requests: int  # of it here, also those that were deleted for their age
    leased_nano: int  # of budgets whose period goes on, and not spent


class LedgerDatabase:
    """Reads the ledger of all nodes by one connection."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    async def usage(
        self, by: By, since_s: float = 0.0, until_s: float = 253402214400.0, where: Where = ALL
    ) -> list[Spent]:
        """Return sums of the exchanges of whole hours: times in order, others by cost.

        Sums by session or user, and those of one of them, are made of the rows that are still there.
        """
        stated = where.stated()
        from_rows = bool({"session", "user"} & {by, *stated})
        values: list[object] = [_moment(since_s), _moment(until_s)]
        tests = ""
        for name, value in stated.items():
            values.append(value)
            tests += f' and "{name}" = ${len(values)}'
        hour = "date_trunc('hour', started_at, 'UTC')" if from_rows else "hour"
        source = "ledger" if from_rows else "by_hour"
        sums = ", ".join(f"sum({ADDS.get(c, c) if from_rows else c})::bigint" for c in SUMS)
        one = "1" if from_rows else "requests"
        name = _NAME[by].replace("hour at", f"{hour} at")
        order = "1" if by in ("day", "hour") else f"{len(SUMS) + 1} desc, 1"
        found = await self._db.fetch(
            f"select {name}, {sums}, sum(case when outcome = any(${len(values) + 1}) then 0 else"
            f" {one} end)::bigint from {source} where {hour} >= date_trunc('hour', $1::timestamptz, 'UTC')"
            f" and {hour} < $2::timestamptz{tests} group by 1 order by {order}",
            *values,
            list(FINE),
        )
        return [Spent(*columns) for columns in found]

    async def requests(
        self, where: Where = ALL, since_s: float = 0.0, most: int = 100, only: Sequence[Only] = ()
    ) -> list[LedgerRow]:
        """Return the newest exchanges, the oldest of them first."""
        tests, values = _only(only), [_moment(since_s), most]
        for name, value in where.stated().items():
            values.append(value)
            tests += f' and "{name}" = ${len(values)}'
        found = await self._db.fetch(
            f"select {_COLUMNS} from ledger where started_at >= $1{tests}"
            " order by started_at desc, seq desc limit $2",
            *values,
        )
        return [_row(columns) for columns in found][::-1]

    async def everything(
        self, where: Where = ALL, since_s: float = 0.0, size: int = 1000, only: Sequence[Only] = ()
    ) -> AsyncIterator[list[LedgerRow]]:
        """Yield all exchanges in the order in which they came, some at a time."""
        last = 0
        while True:
            tests, values = _only(only), [_moment(since_s), last, size]
            for name, value in where.stated().items():
                values.append(value)
                tests += f' and "{name}" = ${len(values)}'
            found = await self._db.fetch(
                f"select seq, {_COLUMNS} from ledger where started_at >= $1 and seq > $2{tests}"
                " order by seq limit $3",
                *values,
            )
            if not found:
                return
            last = found[-1]["seq"]
            yield [_row(columns[1:]) for columns in map(tuple, found)]

    async def rows(self, ids: Sequence[str]) -> dict[str, LedgerRow]:
        """Return those of these exchanges that are there, by their ids."""
        found = await self._db.fetch(
            f"select {_COLUMNS} from ledger where request_id = any($1)", list(ids)
        )
        return {row.request_id: row for row in map(_row, found)}

    async def nodes(self) -> list[ClusterNode]:
        found = await self._db.fetch(
            "select node_id, name, version, extract(epoch from seen_at)::float8, behind,"
            " (select coalesce(sum(requests), 0)::bigint from by_hour where node_id = nodes.node_id),"
            " (select coalesce(sum(granted - spent), 0)::bigint from leases"
            " join allowances using (what, owner, period)"
            " where node_id = nodes.node_id and (until is null or until > now()))"
            " from nodes order by name, node_id"
        )
        return [ClusterNode(*columns) for columns in found]

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
        names = ", ".join((*BY, *SUMS))
        sums = ", ".join(f"sum({c}) as {c}" for c in SUMS)
        computed = (
            f"select {', '.join(BY)}, {sums} from ({grouped('ledger')} union all"
            f" select {names} from pruned_hour) each_part group by {', '.join(BY)}"
        )
        stored = f"select {names} from by_hour"
        async with self._db.transaction(isolation="repeatable_read", readonly=True):
            missing = await self._db.fetch(f"{computed} except {stored} limit {MAX_DIFFERENCES}")
            wrong = await self._db.fetch(f"{stored} except {computed} limit {MAX_DIFFERENCES}")
        width = len(BY)
        ours = {tuple(r)[:width]: tuple(r)[width:] for r in missing}
        theirs = {tuple(r)[:width]: tuple(r)[width:] for r in wrong}
        return [
            Difference(
                "by_hour " + ", ".join(f"{n} {v or '-'}" for n, v in zip(BY, group, strict=True)),
                _sums(ours.get(group)),
                _sums(theirs.get(group)),
            )
            for group in [*ours, *(g for g in theirs if g not in ours)]
        ]


def _sums(values: tuple[Any, ...] | None) -> str:
    if values is None:
        return "nothing"
    return ", ".join(f"{n} {v}" for n, v in zip(SUMS, values, strict=True))


def _moment(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _row(columns: Any) -> LedgerRow:
    fields = dict(zip(COLUMNS, columns, strict=True))
    for name in JSON_COLUMNS:
        fields[name] = msgspec.json.decode(fields[name])
    for name in INSTANTS:
        fields[name] = fields[name].timestamp()
    return msgspec.convert(fields, LedgerRow)


_ONLY: dict[Only, str] = {
    "errors": f"outcome <> all (array[{', '.join(map(repr, FINE))}])",
    "upstream_errors": f"outcome = any (array[{', '.join(map(repr, UPSTREAMS_FAULT))}])",
    "unpriced": "cost_nano_usd is null",
}


def _only(only: Sequence[Only]) -> str:
    """Conditions for the kinds of exchanges that are meant."""
    return "".join(f" and {_ONLY[each]}" for each in only)
