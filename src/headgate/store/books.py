"""The books: what the ledger says, read without touching those who write it.

The only place that reads the ledger: one exchange, one session, usage over a span of time, balances,
the audit and the backup.  Its connection is read-only, and under WAL no reader waits for the writer
or makes it wait.

What will surprise: usage is exact for any span, though it is added up from the sums of whole hours:
the parts of hours at both ends are read from the rows.  Days are UTC.
"""

import contextlib
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec

from headgate.store.ledger import LedgerFault, Row
from headgate.store.sqlite import BUSY_MS, StoreError

By = Literal["key", "model", "day", "session", "upstream"]
HOUR_S = 3600
END_OF_TIME_S = 253402300800.0  # the year 10000
MAX_DIFFERENCES = 100  # of each kind: one is enough to be alarmed

_NAME: dict[By, str] = {
    "key": "key",
    "model": "model",
    "upstream": "upstream",
    "session": "session",
    "day": f"date(hour * {HOUR_S}, 'unixepoch')",
}
_TOKENS = "input, cached, cache_write, output, reasoning"
# (table, what it is by, what it sums), as the trigger `ledger_sums` keeps them
_HOUR = f"cast(began_s as integer) / {HOUR_S}"
_SUMS = (
    f"1 as requests, cost_nano is null as unpriced, {_TOKENS}, coalesce(cost_nano, 0) as cost_nano"
)
_TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "by_hour": (
        ("hour", "key", "model", "upstream"),
        ("requests", "unpriced", *_TOKENS.split(", "), "cost_nano"),
    ),
    "by_session": (
        ("hour", "session", "key"),
        ("requests", "unpriced", *_TOKENS.split(", "), "cost_nano"),
    ),
    "balance": (("account", "key"), ("requests", "unpriced", "spent_nano")),
}


class Spent(msgspec.Struct, frozen=True):
    """The sum of a group of exchanges; `unpriced` of them have no known cost and are not in it."""

    name: str
    requests: int
    unpriced: int
    input: int
    cached: int
    cache_write: int
    output: int
    reasoning: int
    cost_nano: int


class Balance(msgspec.Struct, frozen=True):
    account: str
    key: str
    requests: int
    unpriced: int
    spent_nano: int


class Difference(msgspec.Struct, frozen=True):
    """Where what is stored is not what the rows add up to."""

    where: str
    rows: str
    stored: str


class Books:
    """Reads one installation; the database must be up to date: a Store has opened it before."""

    def __init__(self, data: str | Path) -> None:
        self._name = f"{data}/headgate.db"
        with self._faults():
            self._db = apsw.Connection(self._name, flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(BUSY_MS)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise LedgerFault(f"{self._name}: {error}.") from None

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        # Any: the columns are as the schema (strict tables) and the query say
        with self._faults():
            return list(self._db.execute(sql, values))

    def generation(self, id: str) -> Row | None:
        """The row of one exchange; None while it runs, and when there is none."""
        found = self._all(f"select {_COLUMNS} from ledger where id = ?", (id,))
        return _row(found[0]) if found else None

    def begun(self, ids: Sequence[str]) -> dict[str, Row | None]:
        """Of these exchanges those that have a row, or None: an open mark."""
        places = ", ".join("?" * len(ids))
        # Marks first: one that becomes a row meanwhile is then seen as either.
        marks = self._all(f"select id from open_mark where id in ({places})", tuple(ids))
        rows = self._all(f"select {_COLUMNS} from ledger where id in ({places})", tuple(ids))
        return {**{id: None for (id,) in marks}, **{r.id: r for r in map(_row, rows)}}

    def session(self, id: str, key: str | None = None, *, most: int = 10_000) -> list[Row]:
        """The exchanges of one session, oldest first; of one key only, where others must not see."""
        return [
            _row(columns)
            for columns in self._all(
                f"select {_COLUMNS} from ledger where session = ?1 and session <> ''"
                " and (?2 is null or key = ?2) order by seq limit ?3",
                (id, key, most),
            )
        ]

    def usage(
        self,
        by: By,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        *,
        key: str | None = None,
        most: int | None = None,
    ) -> list[Spent]:
        """Sums of the exchanges that began in [since_s, until_s): days in order, others by cost."""
        table = "by_session" if by == "session" else "by_hour"
        first, last = math.ceil(since_s / HOUR_S), math.floor(until_s / HOUR_S)
        if first < last:
            ends = ((since_s, float(first * HOUR_S)), (float(last * HOUR_S), until_s))
        else:
            ends = ((since_s, until_s), (0.0, 0.0))
        columns = f"hour, key, {by}" if by not in ("day", "key") else "hour, key"
        sums = ", ".join(f"sum({c})" for c in _TABLES[table][1])
        raw = columns.replace("hour", f"{_HOUR} as hour")
        mine = "" if key is None else " and key = ?7"
        order = "1" if by == "day" else f"{len(_TABLES[table][1]) + 1} desc, 1"
        rows = self._all(
            f"select {_NAME[by]}, {sums} from ("
            f"select {columns}, {', '.join(_TABLES[table][1])} from {table}"
            f" where hour >= ?1 and hour < ?2{mine}"
            f" union all select {raw}, {_SUMS} from ledger where began_s >= ?3 and began_s < ?4{mine}"
            f" union all select {raw}, {_SUMS} from ledger where began_s >= ?5 and began_s < ?6{mine}"
            f") group by 1 order by {order}" + (f" limit {most:d}" if most is not None else ""),
            (first, last, *ends[0], *ends[1], *(() if key is None else (key,))),
        )
        return [Spent(*columns) for columns in rows]

    def hours(
        self, since_s: float, until_s: float, upstream: str | None = None
    ) -> list[tuple[int, Spent]]:
        """Sums of each model in each hour (Unix seconds / 3600) that begins in [since_s, until_s)."""
        sums = ", ".join(f"sum({c})" for c in _TABLES["by_hour"][1])
        rows = self._all(
            f"select hour, model, {sums} from by_hour where hour >= ?1 and hour < ?2"
            " and (?3 is null or upstream = ?3) group by hour, model order by hour, model",
            (math.ceil(since_s / HOUR_S), math.ceil(until_s / HOUR_S), upstream),
        )
        return [(hour, Spent(*columns)) for hour, *columns in rows]

    def balances(self) -> list[Balance]:
        """What each key has spent since ever."""
        return [
            Balance(*columns)
            for columns in self._all(
                "select account, key, requests, unpriced, spent_nano from balance order by 1, 2"
            )
        ]

    def open_marks(self) -> int:
        """Exchanges that run now, or whose process died and that nobody has recovered yet."""
        return int(self._all("select count(*) from open_mark")[0][0])

    def audit(self) -> list[Difference]:
        """Recompute everything from the rows; what is stored and differs, or nothing."""
        with self._faults(), self._db:  # one snapshot, whatever is written meanwhile
            found = [
                Difference("the file", "sound", str(line))
                for (line,) in self._all("pragma quick_check")
                if line != "ok"
            ]
            count, last = self._all("select count(*), coalesce(max(seq), 0) from ledger")[0]
            if count != last:
                found.append(Difference("rows of the ledger", f"{count}", f"{last} were written"))
            for table in _TABLES:
                found += self._differences(table)
            found += [
                Difference(f"exchange {id}", "settled", "still open")
                for (id,) in self._all(
                    "select id from open_mark where id in (select id from ledger) limit ?",
                    (MAX_DIFFERENCES,),
                )
            ]
        return found

    def _differences(self, table: str) -> list[Difference]:
        by, sums = _TABLES[table]
        own = ", ".join(by + sums)
        groups = ", ".join(by)
        added = ", ".join(f"sum({c.replace('spent_nano', 'cost_nano')})" for c in sums)
        source = ", ".join(c.replace("hour", f"{_HOUR} as hour") for c in by)
        computed = f"select {groups}, {added} from (select {source}, {_SUMS} from ledger) group by {groups}"
        stored = f"select {own} from {table}"
        missing = self._all(f"{computed} except {stored} limit {MAX_DIFFERENCES}")
        wrong = self._all(f"{stored} except {computed} limit {MAX_DIFFERENCES}")
        width = len(by)
        ours = {r[:width]: r[width:] for r in missing}
        theirs = {r[:width]: r[width:] for r in wrong}
        return [
            Difference(
                f"{table} " + ", ".join(f"{n} {v or '-'}" for n, v in zip(by, group, strict=True)),
                _told(sums, ours.get(group), theirs.get(group)),
                _told(sums, theirs.get(group), ours.get(group)),
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


_COLUMNS = ", ".join(Row.__struct_fields__)


def _row(columns: tuple[Any, ...]) -> Row:
    fields = dict(zip(Row.__struct_fields__, columns, strict=True))
    for name in ("attempts", "warnings"):
        fields[name] = msgspec.json.decode(fields[name])
    return msgspec.convert({**fields, "stream": bool(fields["stream"])}, Row)


def _told(
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
