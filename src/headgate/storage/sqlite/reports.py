"""Reports: what the ledger has, read without touching those who write it.

The only place that reads the ledger: one exchange, one session, usage over a span of time, balances,
the audit and the backup.  Its connection is read-only, and under WAL no reader waits for the writer
or makes it wait.

Note:
- usage is exact for any span, though it is added up from the sums of whole hours: the parts of hours
  at both ends are read from the rows.  Of hours whose rows were deleted (storage/sqlite/retention.py) a part
  is nothing, and so are sums that are not kept: of sessions by model, upstream or outcome;
- the log is filtered without an index of each column, which would cost the writer half its rate: the
  sums of an hour say between which rows those that are meant are.  Only "of no session" is looked
  for row by row.

Days are UTC.
"""

import contextlib
import math
import os
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec

from headgate.storage.errors import LedgerFault, StoreError
from headgate.storage.figures import (
    ALL,
    END_OF_TIME_S,
    FINE,
    HOUR_S,
    MAX_SEARCHED,
    MAX_SEQ,
    UPSTREAMS_FAULT,
    Balance,
    By,
    Column,
    Difference,
    Measured,
    Only,
    Order,
    RequestFacts,
    SessionSum,
    Spent,
    Step,
    Where,
)
from headgate.storage.rows import COLUMNS, JSON_COLUMNS, LedgerRow
from headgate.storage.sqlite.database import BUSY_MS

NEAR = 2000  # rows of the log that are looked through before the sums are asked where to look
MAX_DIFFERENCES = 100  # of each kind: one is enough to be alarmed
_NAME: dict[By, str] = {
    "key": "key_id",
    "account": "account",
    "model": "model",
    "upstream": "upstream",
    "session": "session",
    "user": '"user"',
    "day": f"date(hour * {HOUR_S}, 'unixepoch')",
    "hour": f"strftime('%Y-%m-%dT%H:00Z', hour * {HOUR_S}, 'unixepoch')",
}
_STEP: dict[Step, str] = {"hour": f"hour * {HOUR_S}", "day": "hour / 24 * 86400"}
_TOKENS = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_MONEY = ("requests", "unpriced", *_TOKENS, "cost_nano_usd")
_TIMES = ("ttft_ms", "first_tokens", "stream_ms")
# table: what it is by, and what it sums, as the trigger `ledger_sums` keeps it; what was deleted is
# summed in the second table in the same way.
TABLES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "by_hour": (
        "pruned_hour",
        ("hour", "account", "key_id", "model", "upstream", "outcome"),
        (*_MONEY, *_TIMES, "first_seq", "last_seq"),
    ),
    "by_session": ("pruned_session", ("hour", "session", "account", "key_id"), _MONEY),
    "balance": (
        "pruned_balance",
        ("account", "key_id"),
        ("requests", "unpriced", "spent_nano_usd"),
    ),
}
# What one row adds to a sum, where that is not the column itself.
ADDS = {
    "hour": f"cast(started_at as integer) / {HOUR_S}",
    "requests": "1",
    "unpriced": "cost_nano_usd is null",
    "cost_nano_usd": "coalesce(cost_nano_usd, 0)",
    "spent_nano_usd": "coalesce(cost_nano_usd, 0)",
    "ttft_ms": "coalesce(ttft_ms, 0)",
    "first_tokens": "ttft_ms is not null",
    "stream_ms": "coalesce(max(cast(round((ended_at - started_at) * 1000) as integer) - ttft_ms, 0), 0)",
    "first_seq": "seq",
    "last_seq": "seq",
}


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


_ERRORS = f"case when outcome in ({_quoted(FINE)}) then 0 else requests end"
_ERROR = f"outcome not in ({_quoted(FINE)})"


class UsageReader:
    """Reads one installation; the database must be up to date: a Store has opened it before.

    Several threads may use it at the same time: each has a connection of its own.
    """

    def __init__(self, data: str | Path) -> None:
        self._name = f"{data}/headgate.db"
        self._own = threading.local()
        self._opened: list[apsw.Connection] = []
        self._db  # noqa: B018  # a database that cannot be opened is reported here

    @property
    def _db(self) -> apsw.Connection:
        """Return the connection of this thread."""
        found: apsw.Connection | None = getattr(self._own, "db", None)
        if found is None:
            with self._faults():
                found = apsw.Connection(self._name, flags=apsw.SQLITE_OPEN_READONLY)
                found.set_busy_timeout(BUSY_MS)
            self._own.db = found
            self._opened.append(found)
        return found

    def close(self) -> None:
        """Close the connections of all threads; none of them may be reading."""
        for db in self._opened:
            with contextlib.suppress(apsw.ThreadingViolationError):  # a read that hangs in the disk
                db.close()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise LedgerFault(f"{self._name}: {error}.") from None

    def _all(
        self, sql: str, values: tuple[object, ...] | dict[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        # Any: the columns are as the schema (strict tables) and the query say
        with self._faults():
            return list(self._db.execute(sql, values))

    def generation(self, id: str) -> LedgerRow | None:
        """Return the row of one exchange; None while it runs, and when there is none."""
        found = self._all(f"select {_COLUMNS} from ledger where request_id = ?", (id,))
        return _row(found[0]) if found else None

    def begun(self, ids: Sequence[str]) -> dict[str, LedgerRow | None]:
        """Of these exchanges those that have a row, or None: an intent record."""
        listed = (msgspec.json.encode(ids).decode(),)
        meant = "where request_id in (select value from json_each(?))"
        # Intents first: one that becomes a row meanwhile is then seen as either.
        intents = self._all(f"select request_id from intents {meant}", listed)
        rows = self._all(f"select {_COLUMNS} from ledger {meant}", listed)
        return {**{id: None for (id,) in intents}, **{r.request_id: r for r in map(_row, rows)}}

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that is read in the block be of one moment."""
        with self._faults(), self._db:
            self._all(
                "select 1 from sqlite_schema limit 1"
            )  # SQLite takes the moment of the first read
            yield

    def recorded(self, ids: Sequence[str]) -> set[str]:
        """Of these exchanges those that have a row."""
        if not ids:
            return set()
        listed = msgspec.json.encode(ids).decode()
        rows = "select request_id from ledger where request_id in (select value from json_each(?))"
        return {id for (id,) in self._all(rows, (listed,))}

    def session(
        self, id: str, key: str | None = None, *, most: int = 10_000, after: str = ""
    ) -> list[LedgerRow]:
        """Return the exchanges of one session, oldest first; of one key only, where others must not see.

        `after`: the id of the last one of the page before.
        """
        return [
            _row(columns)
            for columns in self._all(
                f"select {_COLUMNS} from ledger where session = :id and session <> ''"
                " and (:key is null or key_id = :key)"
                " and seq > coalesce((select seq from ledger where request_id = :after), 0)"
                " order by seq limit :most",
                {"id": id, "key": key, "most": most, "after": after},
            )
        ]

    def session_sum(self, id: str, key: str) -> SessionSum:
        """What the exchanges of one session and key add up to."""
        (sums,) = self._all(
            "select count(*), coalesce(sum(cost_nano_usd is null), 0), coalesce(sum(input_tokens), 0),"
            " coalesce(sum(cached_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost_nano_usd), 0)"
            " from ledger where session = :id and session <> '' and key_id = :key",
            {"id": id, "key": key},
        )
        return SessionSum(*sums)

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
        source, values = _source(by, since_s, until_s, where)
        order = "1" if by in ("day", "hour") else "cost_nano_usd desc, 1"
        rows = self._all(
            f"select {_NAME[by]}, {_SPENT} from ({source}) group by 1 order by {order}"
            + (f" limit {most:d}" if most is not None else ""),
            values,
        )
        found = [Spent(*columns) for columns in rows]
        return self._timed(found, since_s, until_s, where) if by == "session" else found

    def _timed(
        self, sums: list[Spent], since_s: float, until_s: float, where: Where
    ) -> list[Spent]:
        """The sums of sessions with errors and times, which are read from the rows: they are not kept."""
        stated = where.stated()
        named = msgspec.json.encode([s.name for s in sums if s.name]).decode()
        rows = self._all(
            f"select session, sum({_ERROR}), {', '.join(f'sum({ADDS[c]})' for c in _TIMES)}"
            " from ledger indexed by ledger_session"
            " where session in (select value from json_each(:named)) and session <> ''"
            f" and started_at >= :since and started_at < :until{_tests(stated)} group by 1",
            {
                **{f"w_{c}": v for c, v in stated.items()},
                "named": named,
                "since": since_s,
                "until": until_s,
            },
        )
        known = {name: figures for name, *figures in rows}
        names = ("errors", *_TIMES)
        return [
            msgspec.structs.replace(s, **dict(zip(names, known[s.name], strict=True)))
            if s.name in known
            else s
            for s in sums
        ]

    def series(
        self,
        split: By | None,
        since_s: float,
        until_s: float,
        *,
        step: Step,
        where: Where = ALL,
    ) -> list[tuple[int, Spent]]:
        """As `usage`, for each hour or day (UTC) that has exchanges: its start in Unix seconds first.

        Without a split the name is "".
        """
        source, values = _source(split, since_s, until_s, where)
        name = "''" if split is None else _NAME[split]
        rows = self._all(
            f"select {_STEP[step]}, {name}, {_SPENT} from ({source}) group by 1, 2 order by 1, 2",
            values,
        )
        return [(start, Spent(*columns)) for start, *columns in rows]

    def hours(
        self, since_s: float, until_s: float, upstream: str | None = None
    ) -> list[tuple[int, Spent]]:
        """Sums of each model in each hour (Unix seconds / 3600) that begins in [since_s, until_s)."""
        whole = [math.ceil(s / HOUR_S) * HOUR_S for s in (since_s, until_s)]
        found = self.series("model", *whole, step="hour", where=Where(upstream=upstream))
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
        rows = self._all(
            f"select {model}, {upstream}, sum(requests),"
            f" sum(case when outcome in ({_quoted(UPSTREAMS_FAULT)}) then requests else 0 end),"
            " sum(ttft_ms), sum(first_tokens), sum(output_tokens), sum(stream_ms)"
            " from by_hour where hour >= ? and upstream <> '' group by 1, 2 order by 1, 2",
            (math.floor(since_s / HOUR_S),),
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

    def requests(
        self,
        where: Where = ALL,
        *,
        before: int | None = None,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int = 50,
        only: Sequence[Only] = (),
        text: str = "",
    ) -> list[tuple[int, LedgerRow]]:
        """Exchanges as they were settled, the last one first, each with its seq.

        `before`: the seq of the last one of the page before.  `text` is looked for in what names the exchange,
        its outcome, warnings and attempts, within the MAX_SEARCHED rows before that one.
        """
        found = self._found(_COLUMNS, where, before, since_s, until_s, most, only, text)
        return [(seq, _row(tuple(columns))) for seq, *columns in found]

    def request_facts(
        self,
        where: Where = ALL,
        *,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int,
        only: Sequence[Only] = (),
        text: str = "",
    ) -> list[RequestFacts]:
        """Return what figures over the last `most` exchanges of `requests` are made of."""
        found = self._found(_FACTS, where, None, since_s, until_s, most, only, text)
        return [RequestFacts(*columns) for _, *columns in found]

    def requests_in_order(
        self,
        order: Order,
        where: Where = ALL,
        *,
        descending: bool,
        skip: int = 0,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int = 50,
        of: int,
        only: Sequence[Only] = (),
        text: str = "",
        names: Mapping[str, str] = {},
    ) -> tuple[list[tuple[int, LedgerRow]], int]:
        """A page of the last `of` exchanges of `requests` in another order, and how many these are.

        What has no value comes last, either way.  `names`: what a value is shown as, and so put in order by.
        """
        found = self._found(_ORDER[order], where, None, since_s, until_s, of, only, text)
        known = [(names.get(value, value), seq) for seq, value in found if value is not None]
        known.sort(key=lambda pair: pair[0], reverse=descending)
        seqs = [seq for _, seq in known] + [seq for seq, value in found if value is None]
        page = seqs[skip : skip + most]
        rows = self._all(
            f"select seq, {_COLUMNS} from ledger where seq in (select value from json_each(?))",
            (msgspec.json.encode(page).decode(),),
        )
        by_seq = {seq: _row(tuple(columns)) for seq, *columns in rows}
        return [(seq, by_seq[seq]) for seq in page if seq in by_seq], len(seqs)

    def _found(
        self,
        columns: str,
        where: Where,
        before: int | None,
        since_s: float,
        until_s: float,
        most: int,
        only: Sequence[Only],
        text: str,
    ) -> list[tuple[Any, ...]]:
        """The seq and these columns of the exchanges that are meant, the last one first."""
        stated: dict[str, str] = {**where.stated(), **dict.fromkeys(only, "")}  # see _tests
        values: dict[str, object] = {f"w_{c}": v for c, v in stated.items()}
        values |= {"since": since_s, "until": until_s}
        high = before if before is not None else MAX_SEQ
        if text:
            return self._search(columns, stated, values, high, most, text)
        if stated.get("session"):
            return self._page(columns, "ledger_session", stated, values, 0, high, most)
        everything = not stated and since_s <= 0 and until_s >= END_OF_TIME_S
        if everything or "session" in stated or "user" in stated:  # sums know no seq of these
            return self._page(columns, "ledger_log", stated, values, 0, high, most)
        high = min(high, self.last_seq() + 1)
        near = max(0, high - NEAR)
        found = self._page(columns, "ledger_log", stated, values, near, high, most)
        for first, end in reversed(self._where(stated, values, near, most - len(found))):
            if len(found) >= most:
                break
            found += self._page(
                columns, "ledger_log", stated, values, first, end, most - len(found)
            )
        return found

    def last_seq(self) -> int:
        """Return the number of the newest row; 0 when there is none."""
        return int(self._all("select coalesce(max(seq), 0) from ledger")[0][0])

    def requests_after(
        self,
        seq: int,
        where: Where = ALL,
        *,
        since_s: float = 0.0,
        most: int = 1000,
        only: Sequence[Only] = (),
    ) -> list[tuple[int, LedgerRow]]:
        """Return the exchanges whose number is above `seq`, the oldest first."""
        stated: dict[str, str] = {**where.stated(), **dict.fromkeys(only, "")}
        rows = self._all(
            f"select seq, {_COLUMNS} from ledger where seq > :seq and started_at >= :since"
            f"{_tests(stated)} order by seq limit :most",
            {
                **{f"w_{c}": v for c, v in stated.items()},
                "seq": seq,
                "since": since_s,
                "most": most,
            },
        )
        return [(seq, _row(tuple(columns))) for seq, *columns in rows]

    def _search(
        self,
        columns: str,
        stated: dict[str, str],
        values: dict[str, object],
        high: int,
        most: int,
        text: str,
    ) -> list[tuple[Any, ...]]:
        """The last rows with the text: row for row, as no index has it."""
        low = max(0, min(high, self.last_seq() + 1) - MAX_SEARCHED)
        found = " or ".join(f"instr(lower({column}), :text)" for column in _SEARCHED)
        return self._all(
            f"select seq, {columns} from ledger indexed by ledger_log"
            f" where seq >= :low and seq < :high{_tests(stated)}"
            f" and started_at >= :since and started_at < :until and ({found})"
            " order by seq desc limit :most",
            {**values, "low": low, "high": high, "most": most, "text": text.lower()},
        )

    def _page(
        self,
        columns: str,
        index: str,
        stated: dict[str, str],
        values: dict[str, object],
        low: int,
        high: int,
        most: int,
    ) -> list[tuple[Any, ...]]:
        """The last rows with a seq in [low, high) that are meant."""
        return self._all(
            f"select seq, {columns} from ledger indexed by {index} where seq >= :low and seq < :high"
            f"{_tests(stated)} and started_at >= :since and started_at < :until"
            " order by seq desc limit :most",
            {**values, "low": low, "high": high, "most": most},
        )

    def _where(
        self, stated: dict[str, str], values: dict[str, Any], high: int, most: int
    ) -> list[tuple[int, int]]:
        """Where below `high` the last `most` rows are that are meant: spans of seq, in order.

        The sums of an hour know the first and the last row of each group.  So of a group that ends
        below `high` the last one is known, and of one that goes on the first: from the `most`-th
        of these on there are enough.  Hours of which only a part is meant promise nothing.
        """
        if high <= 0 or most <= 0:
            return []
        tests = _tests(stated, sums=True)
        groups = f"from by_hour where hour >= :first and hour <= :last and first_seq < :high{tests}"
        since, until = values["since"] / HOUR_S, values["until"] / HOUR_S
        values = {
            **values,
            "first": math.floor(since),
            "last": math.floor(until),
            "high": high,
            "whole": math.ceil(since),
            "end": math.floor(until),
            "skip": most - 1,
        }
        low = self._all(
            f"select iif(last_seq < :high, last_seq, first_seq) {groups}"
            " and hour >= :whole and hour < :end order by 1 desc limit 1 offset :skip",
            values,
        )
        values["low"] = low[0][0] if low else 0
        spans: list[tuple[int, int]] = []
        for first, last in self._all(
            "select max(first_seq, :low), min(last_seq + 1, :high)"
            f" {groups} and last_seq >= :low order by 1",
            values,
        ):
            if spans and first <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
            else:
                spans.append((first, last))
        return spans

    def names(self, column: Column) -> list[str]:
        """The values there are, in order, also of rows that were deleted."""
        found = (
            self._all(f"select distinct {_NAME[column]} from balance order by 1")
            if column in ("account", "key")
            else self._all("select name from known where what = ? order by 1", (column,))
        )
        return [name for (name,) in found]

    def balances(self) -> list[Balance]:
        """What each key has spent since ever."""
        return [
            Balance(*columns)
            for columns in self._all(
                "select account, key_id, requests, unpriced, spent_nano_usd from balance order by 1, 2"
            )
        ]

    def spent_by_key(self, id: str) -> int:
        """What one key has spent since ever, in nano-dollars."""
        sums = self._all(
            "select coalesce(sum(spent_nano_usd), 0) from balance where key_id = ?", (id,)
        )
        return int(sums[0][0])

    def spent(
        self, since: Iterable[tuple[Literal["key", "account"], float]]
    ) -> dict[tuple[Literal["key", "account"], float], dict[str, int]]:
        """For each kind of owner and moment (Unix seconds): what each has spent since, nano-dollars.

        The hours are read once, however many moments there are: from one to the next at a time.  The
        moment 0 is answered from the balances.
        """
        wanted = sorted(set(since), key=lambda pair: -pair[1])
        out: dict[tuple[Literal["key", "account"], float], dict[str, int]] = {}
        with self._faults(), self._db:  # one snapshot, whatever is written meanwhile
            for what in ("key", "account"):
                column = _NAME[what]
                sums: dict[str, int] = defaultdict(int)
                until_s = END_OF_TIME_S
                for moment in [s for w, s in wanted if w == what]:
                    if moment > 0:
                        for name, nano in self._spent_between(column, moment, until_s):
                            sums[name] += nano
                        until_s = moment
                        out[what, moment] = dict(sums)
                    else:
                        out[what, moment] = dict(
                            self._all(
                                f"select {column}, sum(spent_nano_usd) from balance group by 1"
                            )
                        )
        return out

    def _spent_between(self, column: str, since_s: float, until_s: float) -> list[tuple[str, int]]:
        """Costs of the exchanges that began in [since_s, until_s), by key or account."""
        first, last = math.ceil(since_s / HOUR_S), math.floor(until_s / HOUR_S)
        rows = (
            f"select {column} as name, cost_nano_usd from ledger indexed by ledger_started"
            " where started_at >= :%s and started_at < :%s and cost_nano_usd > 0"
        )
        values: dict[str, object] = {"since": since_s, "until": until_s}
        source = rows % ("since", "until")
        if first < last:
            values |= {"first": first, "last": last}
            values |= {"first_s": first * HOUR_S, "last_s": last * HOUR_S}
            source = (
                f"{rows % ('since', 'first_s')} union all {rows % ('last_s', 'until')} union all"
                f" select {column}, cost_nano_usd from by_hour"
                " where hour >= :first and hour < :last and cost_nano_usd > 0"
            )
        return [
            (str(name), int(nano))
            for name, nano in self._all(
                f"select name, sum(cost_nano_usd) from ({source}) group by name", values
            )
        ]

    def disputed(
        self, since_s: float = 0.0, until_s: float = END_OF_TIME_S, upstream: str | None = None
    ) -> int:
        """Exchanges whose upstream reported more tokens than their request allowed, still kept."""
        counted = self._all(
            "select count(*) from ledger where basis = 'disputed'"
            " and started_at >= :since and started_at < :until"
            " and (:upstream is null or upstream = :upstream)",
            {"since": since_s, "until": until_s, "upstream": upstream},
        )
        return int(counted[0][0])

    def nodes_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Return nothing: this is the ledger of one node."""
        return {}

    def node_names(self) -> dict[str, str]:
        """Return nothing: this is the ledger of one node."""
        return {}

    def intents(self) -> int:
        """Exchanges that run now, or whose process died and that nobody has recovered yet."""
        return int(self._all("select count(*) from intents")[0][0])

    def audit(self) -> list[Difference]:
        """Recompute everything from the rows; what is stored and differs, or nothing."""
        with self._faults(), self._db:  # one snapshot, whatever is written meanwhile
            found = [
                Difference("the file", "sound", str(line))
                for (line,) in self._all("pragma quick_check")
                if line != "ok"
            ]
            count, last, pruned = self._all(
                "select count(*), coalesce(max(seq), 0),"
                " (select coalesce(sum(requests), 0) from pruned_balance) from ledger"
            )[0]
            if count + pruned != last:
                gone = f" and {pruned} pruned" if pruned else ""
                found.append(
                    Difference("rows of the ledger", f"{count}{gone}", f"{last} were written")
                )
            found += [
                Difference("rows of the ledger", f"{n} of hour {hour} deleted", "to be kept")
                for hour, n in self._all(
                    "select hour, sum(requests) from pruned_hour"
                    f" where hour >= (select max(gone_s) / {HOUR_S} from retention)"
                    " group by hour limit ?",
                    (MAX_DIFFERENCES,),
                )
            ]
            for table in TABLES:
                found += self._differences(table)
            found += [
                Difference(f"exchange {id}", "settled", "still open")
                for (id,) in self._all(
                    "select request_id from intents where request_id in (select request_id from ledger) limit ?",
                    (MAX_DIFFERENCES,),
                )
            ]
        return found

    def _differences(self, table: str) -> list[Difference]:
        pruned, by, sums = TABLES[table]
        own, groups = ", ".join(by + sums), ", ".join(by)
        rows = ", ".join(f"{ADDS.get(c, c)} as {c}" for c in by + sums)
        added = ", ".join(f"{OVER.get(c, 'sum')}({c})" for c in sums)
        computed = (
            f"select {groups}, {added} from (select {rows} from ledger"
            f" union all select {own} from {pruned}) group by {groups}"
        )
        stored = f"select {own} from {table}"
        missing = self._all(f"{computed} except {stored} limit {MAX_DIFFERENCES}")
        wrong = self._all(f"{stored} except {computed} limit {MAX_DIFFERENCES}")
        width = len(by)
        ours = {r[:width]: r[width:] for r in missing}
        theirs = {r[:width]: r[width:] for r in wrong}
        return [
            Difference(
                f"{table} " + ", ".join(f"{n} {v or '-'}" for n, v in zip(by, group, strict=True)),
                _reported(sums, ours.get(group), theirs.get(group)),
                _reported(sums, theirs.get(group), ours.get(group)),
            )
            for group in [*ours, *(g for g in theirs if g not in ours)]
        ]

    def backup(self, to: str | Path) -> None:
        """Copy the database as it is now into a new file, whole or not at all, while it is used."""
        to = Path(to)
        fresh = to.with_name(f".{to.name}.{secrets.token_hex(8)}")
        try:
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            try:
                with contextlib.closing(apsw.Connection(str(fresh))) as copy:
                    with copy.backup("main", self._db, "main") as work:
                        work.step(-1)
                    copy.execute("pragma journal_mode = delete")  # one file, nothing beside it
                    if copy.pragma("quick_check") != "ok":
                        raise StoreError(f"the copy in {to} would be damaged.")
                with fresh.open("rb+") as file:
                    os.fsync(file.fileno())
                os.link(fresh, to)  # unlike a rename, it never replaces
            finally:
                fresh.unlink(missing_ok=True)
        except FileExistsError:
            raise StoreError(f"{to} exists already; a backup replaces nothing.") from None
        except OSError as error:
            raise StoreError(f"{to}: {error.strerror}.") from None
        except apsw.Error as error:
            raise StoreError(f"{to}: {error}.") from None


_COLUMNS = ", ".join(f'"{c}"' for c in COLUMNS)
OVER = {"first_seq": "min", "last_seq": "max"}
_SEARCHED = (
    "request_id",
    "session",
    "model",
    "upstream",
    "upstream_model",
    "key_id",
    "account",
    "dialect",
    "outcome",
    "warnings",
    "attempts",
)
_SPENT = ", ".join(f"sum({c}) as {c}" for c in Spent.__struct_fields__[1:])


_FACTS = ", ".join(f'"{c}"' for c in RequestFacts.__struct_fields__)
_ORDER: dict[Order, str] = {
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
    "total": "cast(round((ended_at - started_at) * 1000) as integer)",
    "attempts": "json_array_length(attempts)",
}
_ONLY: dict[str, str] = {
    "errors": _ERROR,
    "upstream_errors": f"outcome in ({_quoted(UPSTREAMS_FAULT)})",
    "unpriced": "cost_nano_usd is null",
}


def _tests(stated: dict[str, str], *, sums: bool = False) -> str:
    """Return the conditions; that a session is one must be written for its index, which has no others.

    `sums`: for the sums of hours, which count what has no price.
    """
    only = {**_ONLY, "unpriced": "unpriced > 0"} if sums else _ONLY
    tests = "".join(f" and {only[c]}" if c in only else f' and "{c}" = :w_{c}' for c in stated)
    return tests + (" and session <> ''" if stated.get("session") else "")


def _source(
    by: By | None, since_s: float, until_s: float, where: Where
) -> tuple[str, dict[str, object]]:
    """A query for what is added up: sums of whole hours, and the rows of the parts of hours around.

    Sums that are not kept are made of the rows alone.
    """
    stated = where.stated()
    needed = {
        "hour",
        *stated,
        *((_NAME[by].strip('"'),) if by not in (None, "day", "hour") else ()),
    }
    table = next((t for t in ("by_hour", "by_session") if needed <= {*TABLES[t][1]}), None)
    plain = ", ".join(sorted(f'"{c}"' for c in needed - {"hour"}) or ["'' as none"])
    known = table != "by_session"
    extra = [_ERROR if known else "0", *(ADDS[c] if known else "0" for c in _TIMES)]
    adds = [ADDS.get(c, c) for c in _MONEY] + extra
    row = ", ".join(
        f"{add} as {c}" for add, c in zip(adds, Spent.__struct_fields__[1:], strict=True)
    )
    index = "ledger_session" if table is None and stated.get("session") else "ledger_started"
    tests = _tests(stated)

    def rows(since: str, until: str) -> str:
        return (
            f"select {ADDS['hour']} as hour, {plain}, {row} from ledger indexed by {index}"
            f" where started_at >= :{since} and started_at < :{until}{tests}"
        )

    values: dict[str, object] = {f"w_{c}": v for c, v in stated.items()}
    first, last = math.ceil(since_s / HOUR_S), math.floor(until_s / HOUR_S)
    values |= {"since": since_s, "until": until_s}
    if table is None or first >= last:
        return rows("since", "until"), values
    kept = ", ".join(_MONEY) + (
        f", {_ERRORS} as errors, {', '.join(_TIMES)}" if known else ", 0, 0, 0, 0"
    )
    values |= {"first": first, "last": last, "first_s": first * HOUR_S, "last_s": last * HOUR_S}
    return (
        f"{rows('since', 'first_s')} union all {rows('last_s', 'until')} union all"
        f" select hour, {plain}, {kept} from {table} where hour >= :first and hour < :last{tests}",
        values,
    )


def _row(columns: tuple[Any, ...]) -> LedgerRow:
    fields = dict(zip(LedgerRow.__struct_fields__, columns, strict=True))
    for name in JSON_COLUMNS:
        fields[name] = msgspec.json.decode(fields[name])
    return msgspec.convert({**fields, "stream": bool(fields["stream"])}, LedgerRow)


def _reported(
    names: tuple[str, ...], one: tuple[Any, ...] | None, other: tuple[Any, ...] | None
) -> str:
    """Of two sums, what of the first is not in the second."""
    if one is None:
        return "nothing"
    return ", ".join(
        f"{name} {value}"
        for n, (name, value) in enumerate(zip(names, one, strict=True))
        if other is None or other[n] != value
    )
