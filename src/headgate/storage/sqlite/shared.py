"""The copy of the rows that all nodes share (`database`): what a transaction changed, and what others have.

The tables are those of the data directory itself, so that everything that reads them needs no database.
A row travels as the JSON object of its columns.  A column that this version does not know is left out
here and stays in the database; one that the row lacks gets its default.

Note: every function runs in a transaction of its caller, except `joined`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import msgspec

from headgate.storage.sqlite.statements import insert

# In the order of their references: sessions name users.
TABLES = (
    "accounts",
    "keys",
    "own_models",
    "own_upstreams",
    "upstream_keys",
    "users",
    "sessions",
    "setup",
    "management_keys",
    "audit_log",
    "views",
)
_APPEND_ONLY = "audit_log"


class SharedRow(msgspec.Struct, frozen=True):
    """Holds one row of a shared table."""

    kind: str  # the table
    id: str  # its primary key, as text; bytes in hexadecimal, several columns as a JSON array
    row: dict[str, Any] | None  # Any: SQLite's values, bytes in hexadecimal; None: deleted
    version: int = 0  # each change has a higher one; 0: it is not in the database yet


class Joined(msgspec.Struct, frozen=True):
    """Which database this directory shares its rows through, and how new its copy is."""

    cluster: str
    version: int


class _Table(msgspec.Struct, frozen=True):
    """Names the columns of a table."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    blobs: frozenset[str]

    @property
    def found(self) -> str:
        """What finds one row by its primary key."""
        return " and ".join(f'"{column}" = :{column}' for column in self.key)

    def id_of(self, row: dict[str, Any]) -> str:
        values = [row[column] for column in self.key]
        return str(values[0]) if len(values) == 1 else msgspec.json.encode(values).decode()

    def key_of(self, id: str) -> dict[str, Any]:
        """Return the primary key of a row with this id."""
        texts = [id] if len(self.key) == 1 else msgspec.json.decode(id)
        named = zip(self.key, texts, strict=True)
        return {c: bytes.fromhex(text) if c in self.blobs else text for c, text in named}

    def packed(self, values: Sequence[object]) -> dict[str, Any]:
        named = zip(self.columns, values, strict=True)
        return {c: _text(v) for c, v in named}

    def unpacked(self, row: dict[str, Any]) -> dict[str, Any]:
        known = {c: row[c] for c in self.columns if c in row}
        return {
            c: bytes.fromhex(v) if c in self.blobs and v is not None else v
            for c, v in known.items()
        }


def _text(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def joined(db: apsw.Connection) -> Joined | None:
    """Return None when this directory has its rows for itself."""
    found = list(db.execute("select cluster, version from shared"))
    return Joined(str(found[0][0]), int(str(found[0][1]))) if found else None


def remember(db: apsw.Connection, here: Joined) -> None:
    db.execute(
        "insert into shared values (1, :cluster, :version)"
        " on conflict do update set cluster = :cluster, version = :version",
        {"cluster": here.cluster, "version": here.version},
    )


def empty(db: apsw.Connection) -> bool:
    """Whether nothing was created here; a setup link that nobody has used does not count."""
    return not any(
        list(db.execute(f"select 1 from {name} limit 1")) for name in TABLES if name != "setup"
    )


def everything(db: apsw.Connection) -> list[SharedRow]:
    """Return all rows, in the order in which they can be inserted."""
    out: list[SharedRow] = []
    for name in TABLES:
        table = _table(db, name)
        columns = ", ".join(table.columns)
        for values in db.execute(f"select {columns} from {name} order by {', '.join(table.key)}"):
            row = table.packed(values)
            out.append(SharedRow(name, table.id_of(row), row))
    return out


@contextlib.contextmanager
def capture(db: apsw.Connection, changed: list[SharedRow]) -> Iterator[None]:
    """Add what the block changes to `changed`, each row as it is at the end."""
    session = apsw.Session(db, "main")
    try:
        for name in TABLES:
            session.attach(name)
        yield
        for change in apsw.Changeset.iter(session.changeset()):
            table = _table(db, change.name)
            values = change.new if change.op == "INSERT" else change.old
            key = {c: values[table.columns.index(c)] for c in table.key}  # type: ignore[index]
            columns = ", ".join(table.columns)
            found = list(db.execute(f"select {columns} from {table.name} where {table.found}", key))
            row = table.packed(found[0]) if found else None
            id = table.id_of({c: _text(value) for c, value in key.items()})
            changed.append(SharedRow(table.name, id, row))
    finally:
        session.close()


def apply(db: apsw.Connection, rows: Sequence[SharedRow]) -> None:
    """Bring the copy up to these rows, which are in the order of their versions."""
    here = joined(db)
    if here is None or not rows:
        return
    db.execute("pragma defer_foreign_keys = on")
    tables = {name: _table(db, name) for name in TABLES}
    for each in rows:
        table = tables.get(each.kind)
        if table is not None and each.version > here.version:
            _put(db, table, each)
    version = max(here.version, rows[-1].version)
    remember(db, Joined(here.cluster, version))


def replace(db: apsw.Connection, rows: Sequence[SharedRow], here: Joined) -> None:
    """Put these rows in the place of all that the copy has."""
    guards = [
        (str(name), str(sql))
        for name, sql in db.execute(
            "select name, sql from sqlite_master where type = 'trigger' and tbl_name = ?",
            (_APPEND_ONLY,),
        )
    ]
    db.execute("pragma defer_foreign_keys = on")
    for name, _ in guards:
        db.execute(f"drop trigger {name}")
    for name in reversed(TABLES):
        db.execute(f"delete from {name}")
    for _, sql in guards:
        db.execute(sql)
    remember(db, Joined(here.cluster, 0))
    apply(db, rows)
    remember(db, here)


def _put(db: apsw.Connection, table: _Table, each: SharedRow) -> None:
    if each.row is None:
        db.execute(f"delete from {table.name} where {table.found}", table.key_of(each.id))
        return
    row = table.unpacked(each.row)
    updates = ", ".join(f"{c} = excluded.{c}" for c in row if c not in table.key)
    does = "nothing" if table.name == _APPEND_ONLY else f"update set {updates}"
    insert(db, table.name, row, f"on conflict ({', '.join(table.key)}) do {does}")


def _table(db: apsw.Connection, name: str) -> _Table:
    found = list(db.execute(f"pragma table_info({name})"))
    key = tuple([str(c) for _, c, _, _, _, place in sorted(found, key=lambda f: f[5]) if place])
    blobs = frozenset(str(column) for _, column, kind, *_ in found if kind == "BLOB")
    return _Table(name, key, tuple(str(column) for _, column, *_ in found), blobs)
