"""The parts of the queries of reports over all nodes: conditions, sources of sums, pages of the log.

Note: PostgreSQL does not know that times grow with seq: a span of time is turned into one of seq by the sums
of its hours, or the end of the log would be read through for a day of last month.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from headgate.storage.figures import (
    END_OF_TIME_S,
    FINE,
    HOUR_S,
    MAX_SEARCHED,
    MAX_SEQ,
    UPSTREAMS_FAULT,
    By,
    Column,
    Only,
    Order,
    RequestFacts,
    Spent,
    Step,
    Where,
)
from headgate.storage.postgres.ledger import ADDS, BY_HOUR, BY_SESSION, SUMS, TIMES
from headgate.storage.postgres.queries import Queries
from headgate.storage.rows import COLUMNS as ROW_COLUMNS
from headgate.storage.rows import INSTANTS, JSON_COLUMNS, LedgerRow

LATEST = datetime(9999, 12, 31, tzinfo=UTC)
NAME: dict[By, str] = {
    "key": "key_id",
    "account": "account",
    "model": "model",
    "upstream": "upstream",
    "session": "session",
    "user": '"user"',
    "day": "to_char(hour at time zone 'UTC', 'YYYY-MM-DD')",
    "hour": "to_char(hour at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:00\"Z\"')",
}
STEP: dict[Step, str] = {
    "hour": "extract(epoch from hour)::bigint",
    "day": "extract(epoch from date_trunc('day', hour, 'UTC'))::bigint",
}
COLUMN: dict[Column, str] = {
    "model": "model",
    "upstream": "upstream",
    "outcome": "outcome",
    "account": "account",
    "key": "key_id",
}
COLUMNS = ", ".join(f'"{c}"' for c in ROW_COLUMNS)
ORDER: dict[Order, str] = {
    "ended": "ended_at",
    "started": "started_at",
    "key": "key_id",
    "account": "account",
    "session": "session",
    "user": '"user"',
    "model": "model",
    "upstream": "upstream",
    "dialect": "dialect",
    "outcome": "outcome",
    "status": "status",
    "input": "input_tokens",
    "cached": "cached_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
    "cost": "cost_nano_usd",
    "basis": "basis",
    "ttft": "ttft_ms",
    "total": "round(extract(epoch from ended_at - started_at) * 1000)",
    "attempts": "jsonb_array_length(attempts)",
}
TEXTS = frozenset(
    ("key", "account", "session", "user", "model", "upstream", "dialect", "outcome", "basis")
)
SEARCHED = (
    "request_id",
    "session",
    "model",
    "upstream",
    "upstream_model",
    "key_id",
    "account",
    "dialect",
    "outcome",
    "warnings::text",
    "attempts::text",
)
FACTS = ", ".join(
    f"extract(epoch from {c})::float8" if c in INSTANTS else f'"{c}"'
    for c in RequestFacts.__struct_fields__
)
SPENT = Spent.__struct_fields__[1:]
ADDED = ", ".join(f"sum({c})::bigint as {c}" for c in SPENT)


class Asked:
    """Collects the values of one query; each has its place in the text, as in `$3`."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def put(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def moment(self, at_s: float) -> str:
        return f"{self.put(moment_of(at_s))}::timestamptz"

    def fine(self) -> str:
        return f"{self.put(list(FINE))}::text[]"

    def where(self, where: Where) -> str:
        tests = "".join(f' and "{c}" = {self.put(v)}' for c, v in where.stated().items())
        return tests + (" and session <> ''" if where.session else "")  # for its partial index

    def only(self, only: Sequence[Only]) -> str:
        tests = ""
        for each in only:
            match each:
                case "errors":
                    tests += f" and outcome <> all ({self.fine()})"
                case "upstream_errors":
                    tests += f" and outcome = any ({self.put(list(UPSTREAMS_FAULT))}::text[])"
                case "unpriced":
                    tests += " and cost_nano_usd is null"
        return tests


class Reading:
    """One database, for the classes whose methods are queries."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def _all(self, sql: str, asked: Asked) -> list[tuple[Any, ...]]:
        return self._queries.fetch(sql, *asked.values)


def last(
    asked: Asked,
    columns: str,
    where: Where,
    before: int | None,
    since_s: float,
    until_s: float,
    most: int,
    only: Sequence[Only],
    text: str,
) -> str:
    """A query for the seq and these columns of the exchanges that are meant, the last one first."""
    high = asked.put(before if before is not None else MAX_SEQ)
    tests = f"seq < {high}{asked.where(where)}{asked.only(only)}"
    if since_s > 0 or until_s < END_OF_TIME_S:
        since, until = asked.moment(since_s), asked.moment(until_s)
        hours = f"from by_hour where hour >= date_trunc('hour', {since}, 'UTC') and hour < {until}"
        tests += (
            f" and started_at >= {since} and started_at < {until}"
            f" and seq >= (select coalesce(min(first_seq), {MAX_SEQ}) {hours})"
            f" and seq <= (select coalesce(max(last_seq), 0) {hours})"
        )
    if text:
        sought = asked.put(text.lower())
        found = " or ".join(f"strpos(lower({column}), {sought}) > 0" for column in SEARCHED)
        newest = "(select coalesce(max(seq), 0) + 1 from ledger)"
        tests += f" and seq >= least({high}, {newest}) - {MAX_SEARCHED} and ({found})"
    return (
        f"select seq, {columns} from ledger where {tests} order by seq desc limit {asked.put(most)}"
    )


def source_of(asked: Asked, by: By | None, since_s: float, until_s: float, where: Where) -> str:
    """A query for what is added up: sums of whole hours, and the rows of the parts of hours around.

    Sums that are not kept are made of the rows alone.
    """
    stated = where.stated()
    named = () if by in (None, "day", "hour") else (NAME[by].strip('"'),)
    needed = {*stated, *named}
    table = next((t for t in (BY_HOUR, BY_SESSION) if needed <= {*t.by}), None)
    plain = ", ".join(sorted(f'"{c}"' for c in needed) or ["'' as none"])
    known = table is not BY_SESSION
    error = f"(outcome <> all ({asked.fine()}))::int" if known else "0"
    adds = [*(ADDS.get(c, c) for c in SUMS), error]
    adds += [ADDS[c] if known else "0" for c in TIMES]
    row = ", ".join(f"{add} as {c}" for add, c in zip(adds, SPENT, strict=True))
    tests = asked.where(where)

    def rows(since_s: float, until_s: float) -> str:
        return (
            f"select {ADDS['hour']} as hour, {plain}, {row} from ledger"
            f" where started_at >= {asked.moment(since_s)} and started_at < {asked.moment(until_s)}{tests}"
        )

    first, last = math.ceil(since_s / HOUR_S), math.floor(until_s / HOUR_S)
    if table is None or first >= last:
        return rows(since_s, until_s)
    kept = ", ".join(SUMS)
    if known:
        kept += f", case when outcome = any ({asked.fine()}) then 0 else requests end, "
        kept += ", ".join(TIMES)
    else:
        kept += ", 0, 0, 0, 0"
    whole = (
        f"select hour, {plain}, {kept} from {table.name} where hour >= {asked.moment(first * HOUR_S)}"
        f" and hour < {asked.moment(last * HOUR_S)}{tests}"
    )
    parts = [rows(since_s, first * HOUR_S), rows(last * HOUR_S, until_s), whole]
    return " union all ".join(parts)


def moment_of(at_s: float) -> datetime:
    if at_s >= END_OF_TIME_S - 86400:
        return LATEST
    return datetime.fromtimestamp(max(at_s, 0.0), UTC)


def row_of(columns: Any) -> LedgerRow:
    """Return a row of the ledger; Any: its columns in their order."""
    fields = dict(zip(ROW_COLUMNS, columns, strict=True))
    for name in JSON_COLUMNS:
        fields[name] = msgspec.json.decode(fields[name])
    for name in INSTANTS:
        fields[name] = fields[name].timestamp()
    return msgspec.convert(fields, LedgerRow)
