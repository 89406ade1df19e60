"""How entries become rows of the ledger: group commit, WAL, `synchronous=FULL`.

This is the only place that writes intents and rows.  It runs in the node process (node/server.py): while
a group is synced to the disk the next one gathers in the sockets, so that it is as large as the disk is
slow, and nothing waits for a timer.

The wire: frames, HEAD and a body.  To the node: entries, as JSON with commas between (an entry is an
array: its number, as below and in node/wire.py, then its fields), and their number; or number 0, and for
how long to go on with a disk that takes nothing once the socket has ended.  From it: how many more
entries are decided, and a CommitResult, or no body when all of them are done and nothing is to be reported;
or number 0, and a CommitResult of entries that were kept before, or a notice that nobody asked for
(its first byte is a letter).

Note: every entry may be written twice, as one that is not acknowledged is sent again.
"""

import contextlib
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from headgate.storage.errors import StoreFault
from headgate.storage.rows import COLUMNS, JSON_COLUMNS, LedgerRow

HEAD = struct.Struct("!II")  # bytes of the body, entries
RESULT_BEGINS = b"["  # as JSON of a CommitResult does, and no notice
GROUP = 512  # entries of one frame at most; a group is of at least one, and less than two of these
# What is wrong with an entry, and not with the disk.
OWN_FAULT = (
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.RangeError,
    apsw.SQLError,
    apsw.TooBigError,
    OverflowError,  # apsw's own: an integer beyond 64 bits
    TypeError,
    msgspec.ValidationError,
)


class Intent(msgspec.Struct, array_like=True, tag=0):
    request_id: str
    instance_id: str
    intent: msgspec.Raw


if TYPE_CHECKING:
    Row = LedgerRow
else:
    # The columns of `ledger` in their order; SQLite checks the values.
    Row = msgspec.defstruct(
        "Row",
        [(c, msgspec.Raw if c in JSON_COLUMNS else Any) for c in COLUMNS],
        array_like=True,
        tag=1,
    )


class Withdrawal(msgspec.Struct, array_like=True, tag=3):
    """Of an intent, as its exchange was refused after all."""

    request_id: str


Durable = Intent | Row | Withdrawal
KEPT = (Row, Withdrawal)  # what the disk did not take of these is tried again
decode_durable = msgspec.json.Decoder(list[Durable]).decode
_JSON_AT = tuple(n for n, column in enumerate(COLUMNS) if column in JSON_COLUMNS)
_INSERT_ROW = (
    f"insert into ledger ({', '.join(COLUMNS)}) values ({', '.join('?' * len(COLUMNS))})"
    " on conflict (request_id) do nothing"
)


class WriterConfig(msgspec.Struct, frozen=True):
    """Configures the writer as it starts."""

    name: str  # of the database
    busy_ms: int
    most: int  # entries to keep for a disk that takes nothing
    retry_s: float  # how often it is asked again
    orphan_s: float  # and for how long when the edge has died


class CommitResult(msgspec.Struct, frozen=True, array_like=True):
    """What became of a group, where that is more than that all of it was committed."""

    fault: str = ""  # the disk's; then intents are forgotten, rows and withdrawals kept
    refused: tuple[tuple[int, str], ...] = ()  # which of the group (-1: one kept before), and why
    written: int = 0  # of those kept before, from the oldest
    dropped: int = 0  # of this group, as too many were kept
    answers: tuple[tuple[int, msgspec.Raw], ...] = ()  # which of the group, and what is answered


def connect(name: str, busy_ms: int) -> apsw.Connection:
    """The connection that commits durably; apsw.Error when there is none to be had."""
    db = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.set_busy_timeout(busy_ms)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.execute("pragma fullfsync = on")  # macOS: its fsync alone promises nothing
    except apsw.Error:
        db.close()
        raise
    return db


def insert(db: apsw.Connection, entries: Iterable[Durable]) -> None:
    """Write all or none of the entries, in one transaction."""
    db.execute("begin immediate")
    try:
        _put(db, entries)
        db.execute("commit")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled it back already
            db.execute("rollback")
        raise


def _put(db: apsw.Connection, entries: Iterable[Durable]) -> None:
    """Intents before rows: of one exchange they come in this order, if in one group at all."""
    intents, gone = [], []
    rows: list[list[Any]] = []  # Any: what SQLite takes
    for e in entries:
        match e:
            case Intent():
                intents.append((e.request_id, e.instance_id, str(e.intent, "utf-8")))
            case Row():
                row = list(msgspec.structs.astuple(e))
                for n in _JSON_AT:
                    row[n] = str(row[n], "utf-8")
                rows.append(row)
                gone.append((e.request_id,))
            case Withdrawal():
                gone.append((e.request_id,))
    # By position: what comes here is already in the order of the columns, some hundred rows in one call.
    if intents:
        db.executemany("insert into intents values (?, ?, ?) on conflict do nothing", intents)
    if rows:
        db.executemany(_INSERT_ROW, rows)
    if gone:
        db.executemany("delete from intents where request_id = ?", gone)


def frame(body: bytes, count: int) -> bytes:
    return HEAD.pack(len(body), count) + body


class Pending(msgspec.Struct, eq=False):
    """Follows an entry on its way to the disk."""

    entry: Durable
    source: Any  # Any: whoever sent it, as the caller knows them
    refused: str = ""  # why no disk would take it


class Written(msgspec.Struct):
    """What one call of `Writer.write` has done beside the group itself."""

    fault: str = ""  # the disk's
    late: Sequence[Pending] = ()  # kept before and decided now, from the oldest
    dropped: Sequence[Pending] = ()  # of this group, as too many were kept


class Writer:
    """The connection that writes, and what the disk has not taken yet."""

    def __init__(self, orders: WriterConfig) -> None:
        self._orders = orders
        self._db: apsw.Connection | None = None
        self._kept: list[Pending] = []

    @property
    def waiting(self) -> int:
        return len(self._kept)

    def db(self) -> apsw.Connection:
        """Return the connection; StoreFault when there is none to be had."""
        try:
            return self._connection()
        except apsw.Error as error:
            raise StoreFault(f"{self._orders.name}: {error}.") from None

    def _connection(self) -> apsw.Connection:
        if self._db is None:
            self._db = connect(self._orders.name, self._orders.busy_ms)
        return self._db

    def write(self, group: Sequence[Pending]) -> Written:
        """Commit what is kept, then the group: no intent is taken while rows wait."""
        late: list[Pending] = []
        try:
            db = self._connection()
            while self._kept:
                kept = self._kept[:GROUP]
                self._commit(db, kept)
                del self._kept[:GROUP]
                late += kept
            if group:
                self._commit(db, group)
        except apsw.Error as error:
            kept = [p for p in group if isinstance(p.entry, KEPT)]
            room = max(0, self._orders.most - len(self._kept))
            self._kept += kept[:room]
            return Written(f"{self._orders.name}: {error}.", late, kept[room:])
        return Written("", late) if late else NOTHING_ELSE

    def _commit(self, db: apsw.Connection, group: Sequence[Pending]) -> None:
        """Return one transaction; marks the entries that no disk would take, as they break the schema."""
        try:
            insert(db, [p.entry for p in group])
            return
        except OWN_FAULT:
            pass
        db.execute("begin immediate")
        try:
            for pending in group:
                pending.refused = ""
                try:
                    _put(db, (pending.entry,))
                except OWN_FAULT as error:  # only its statement is undone, and it has but one
                    pending.refused = f"{self._orders.name}: {error}."
            db.execute("commit")
        except apsw.Error:
            if db.in_transaction:  # a full disk has rolled it back already
                db.execute("rollback")
            raise

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(apsw.Error):  # a dead disk; what matters was reported before
                self._db.close()
            self._db = None


NOTHING_ELSE = Written()
