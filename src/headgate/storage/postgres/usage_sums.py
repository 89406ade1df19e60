"""Sums over the exchanges of all nodes: usage, what upstreams did, and balances.

Note: usage is exact for any span: sums of whole hours, and the rows of the parts of hours at both ends.
"""

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from headgate.storage.figures import (
    ALL,
    END_OF_TIME_S,
    HOUR_S,
    UPSTREAMS_FAULT,
    Balance,
    By,
    Column,
    Measured,
    Spent,
    Step,
    Where,
)
from headgate.storage.postgres.ledger import ADDS, TIMES
from headgate.storage.postgres.ledger_sql import (
    ADDED,
    COLUMN,
    NAME,
    STEP,
    Asked,
    Reading,
    source_of,
)


class UsageSums(Reading):
    """Reads sums over the ledger."""

    def usage(
        self,
        by: By,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        *,
        where: Where = ALL,
        most: int | None = None,
    ) -> list[Spent]:
        """Sums of the exchanges that began in [since_s, until_s): times in order, others by cost."""
        asked = Asked()
        source = source_of(asked, by, since_s, until_s, where)
        order = "name" if by in ("day", "hour") else "cost_nano_usd desc, name"
        rows = self._all(
            f'select * from (select {NAME[by]} collate "C" as name, {ADDED} from ({source}) parts'
            f" group by 1) sums order by {order}"
            + (f" limit {most:d}" if most is not None else ""),
            asked,
        )
        found = [Spent(*columns) for columns in rows]
        return self._timed(found, since_s, until_s, where) if by == "session" else found

    def _timed(
        self, sums: list[Spent], since_s: float, until_s: float, where: Where
    ) -> list[Spent]:
        """The sums of sessions with errors and times, which are read from the rows: they are not kept."""
        asked = Asked()
        named = asked.put([s.name for s in sums if s.name])
        times = ", ".join(f"sum({ADDS[c]})::bigint" for c in TIMES)
        rows = self._all(
            f"select session, sum((outcome <> all ({asked.fine()}))::int)::bigint, {times} from ledger"
            f" where session = any ({named}::text[]) and session <> ''"
            f" and started_at >= {asked.moment(since_s)} and started_at < {asked.moment(until_s)}"
            f"{asked.where(where)} group by 1",
            asked,
        )
        known = {name: figures for name, *figures in rows}
        names = ("errors", *TIMES)
        return [
            msgspec.structs.replace(s, **dict(zip(names, known[s.name], strict=True)))
            if s.name in known
            else s
            for s in sums
        ]

    def series(
        self, split: By | None, since_s: float, until_s: float, *, step: Step, where: Where = ALL
    ) -> list[tuple[int, Spent]]:
        """As `usage`, for each hour or day (UTC) that has exchanges: its start in Unix seconds first."""
        asked = Asked()
        source = source_of(asked, split, since_s, until_s, where)
        name = "''::text" if split is None else NAME[split]
        rows = self._all(
            f'select {STEP[step]}, {name} collate "C", {ADDED} from ({source}) parts'
            " group by 1, 2 order by 1, 2",
            asked,
        )
        return [(start, Spent(*columns)) for start, *columns in rows]

    def hours(
        self, since_s: float, until_s: float, upstream: str | None = None
    ) -> list[tuple[int, Spent]]:
        """Sums of each model in each hour (Unix seconds / 3600) that begins in [since_s, until_s)."""
        since, until = (math.ceil(s / HOUR_S) * HOUR_S for s in (since_s, until_s))
        found = self.series("model", since, until, step="hour", where=Where(upstream=upstream))
        return [(start // HOUR_S, spent) for start, spent in found]

    def measured(self, since_s: float) -> dict[str, Measured]:
        """What each upstream did in the hours since then: of its errors, only its own."""
        return {name: found for (_, name), found in self._measured("''", since_s).items()}

    def measured_routes(self, since_s: float) -> dict[tuple[str, str], Measured]:
        """Return the same as `measured`, by model and upstream; all upstreams of a model together are `""`."""
        whole = self._measured("model", since_s, "''")
        return {**self._measured("model", since_s), **whole}

    def _measured(
        self, model: str, since_s: float, upstream: str = "upstream"
    ) -> dict[tuple[str, str], Measured]:
        asked = Asked()
        faults = f"{asked.put(list(UPSTREAMS_FAULT))}::text[]"
        rows = self._all(
            f"select {model}::text, {upstream}::text, sum(requests)::bigint,"
            f" coalesce(sum(requests) filter (where outcome = any ({faults})), 0)::bigint,"
            " sum(ttft_ms)::bigint, sum(first_tokens)::bigint, sum(output_tokens)::bigint,"
            " sum(stream_ms)::bigint from by_hour"
            f" where hour >= date_trunc('hour', {asked.moment(since_s)}, 'UTC') and upstream <> ''"
            " group by 1, 2 order by 1, 2",
            asked,
        )
        return {
            (of, name): Measured(
                requests,
                errors / requests,
                first_ms / firsts if firsts else None,
                output * 1000 / stream_ms if stream_ms else None,
            )
            for of, name, requests, errors, first_ms, firsts, output, stream_ms in rows
        }

    def names(self, column: Column) -> list[str]:
        """The values there are, in order, also of rows that were deleted."""
        found = self._queries.fetch(
            f'select distinct {COLUMN[column]} collate "C" from totals order by 1'
        )
        return [name for (name,) in found]

    def balances(self) -> list[Balance]:
        """What each key has spent since ever."""
        found = self._queries.fetch(
            'select account collate "C", key_id collate "C", sum(requests)::bigint,'
            " sum(unpriced)::bigint, sum(cost_nano_usd)::bigint from totals group by 1, 2 order by 1, 2"
        )
        return [Balance(*columns) for columns in found]

    def spent_by_key(self, id: str) -> int:
        """What one key has spent since ever, in nano-dollars."""
        sums = self._queries.fetch(
            "select coalesce(sum(cost_nano_usd), 0)::bigint from totals where key_id = $1", id
        )
        return int(sums[0][0])

    def spent(
        self, since: Iterable[tuple[Literal["key", "account"], float]]
    ) -> dict[tuple[Literal["key", "account"], float], dict[str, int]]:
        """For each kind of owner and moment (Unix seconds): what each has spent since, nano-dollars."""
        out: dict[tuple[Literal["key", "account"], float], dict[str, int]] = {}
        for what, since_s in set(since):
            asked = Asked()
            name = COLUMN[what]
            if since_s > 0:
                source = source_of(asked, what, since_s, END_OF_TIME_S, ALL)
                having = " having sum(cost_nano_usd) > 0"
            else:
                source, having = "select * from totals", ""
            sums = self._all(
                f"select {name}, sum(cost_nano_usd)::bigint from ({source}) parts group by 1{having}",
                asked,
            )
            out[what, since_s] = dict(sums)
        return out

    def disputed(
        self, since_s: float = 0.0, until_s: float = END_OF_TIME_S, upstream: str | None = None
    ) -> int:
        """Exchanges whose upstream reported more tokens than their request allowed, still kept."""
        asked = Asked()
        found = self._all(
            f"select count(*) from ledger where basis = 'disputed' and started_at >= {asked.moment(since_s)}"
            f" and started_at < {asked.moment(until_s)}{asked.where(Where(upstream=upstream))}",
            asked,
        )
        return int(found[0][0])
