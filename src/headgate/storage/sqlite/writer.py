"""The ledger's writer: a process that commits the entries it is sent, and says what it committed.

The only place that knows how entries become rows: group commit, WAL, `synchronous=FULL`; while a
group is synced to the disk the next one gathers in the socket, so that it is as large as the disk is
slow, and nothing waits for a timer.  It is a process as a thread beside a busy loop pays for every
commit, and makes the loop pay, with waiting for Python's lock (measured on CPython 3.11: 90 us per
exchange of the edge's core, and 5 as it is).  It is run by its path and imports apsw, msgspec and nothing of ours,
so that it starts quickly and is small.

The wire: frames, HEAD and a body.  To the writer: entries, as JSON with commas between (an entry is
an array: which of the four below, then its fields), and their number; or number 0, and for how long
to go on with a disk that takes nothing once the socket has ended.  From it: how many more entries
are decided, and an Answer, or no body when all is committed.

What will surprise:
- the writer ends when its socket does, after it has written what was sent: an edge that is killed
  loses nothing that it has sent.  Signals of a terminal's group it has been started without
  (process.py); SIGKILL harms nothing, as what is not acknowledged is sent again and
  every entry may be written twice.
"""

import contextlib
import math
import select
import socket
import struct
import sys
import time
from typing import Any

import apsw
import msgspec

HEAD = struct.Struct("!II")  # bytes of the body, entries
GROUP = 512  # entries of one frame at most; a group is of at least one, and less than two of these
KEPT = ("[1", "[3")  # how rows and withdrawals begin: what the disk did not take is tried again
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


class _Mark(msgspec.Struct, array_like=True, tag=0):
    id: str
    boot: str
    mark: msgspec.Raw


class _Row(msgspec.Struct, array_like=True, tag=1):
    """The columns of `ledger`, in their order.  Any: it is SQLite that checks them."""

    id: Any
    account: Any
    key: Any
    session: Any
    dialect: Any
    model: Any
    upstream: Any
    upstream_model: Any
    stream: Any
    outcome: Any
    basis: Any
    status: Any
    began_s: Any
    first_token_ms: Any
    total_ms: Any
    input: Any
    cached: Any
    cache_write: Any
    output: Any
    reasoning: Any
    cost_nano: Any
    price_version: Any
    service_tier: Any
    attempts: msgspec.Raw
    warnings: msgspec.Raw


class _Checkpoint(msgspec.Struct, array_like=True, tag=2):
    """A mark as it is now."""

    id: str
    mark: msgspec.Raw


class _Withdrawal(msgspec.Struct, array_like=True, tag=3):
    """Of a mark, as its exchange was refused after all."""

    id: str


_decode = msgspec.json.Decoder(list[_Mark | _Row | _Checkpoint | _Withdrawal]).decode
_INSERT_ROW = (
    f"insert into ledger values (null{', ?' * len(_Row.__struct_fields__)})"
    " on conflict (id) do nothing"
)


class WriterConfig(msgspec.Struct, frozen=True):
    """What the writer is told as it starts."""

    name: str  # of the database
    busy_ms: int
    most: int  # entries to keep for a disk that takes nothing
    retry_s: float  # how often it is asked again
    orphan_s: float  # and for how long when the edge has died


class CommitResult(msgspec.Struct, frozen=True, array_like=True):
    """What became of a group that was not committed as it was."""

    fault: str = ""  # the disk's; then marks are forgotten, rows and withdrawals kept
    refused: tuple[tuple[int, str], ...] = ()  # which of the group (-1: one kept before), and why
    written: int = 0  # of those kept before, from the oldest
    dropped: int = 0  # of this group, as too many were kept


DONE = CommitResult()


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


def insert(db: apsw.Connection, entries: str) -> None:
    """Entries as JSON with commas between: all or none of them, in one transaction."""
    db.execute("begin immediate")
    try:
        _put(db, entries)
        db.execute("commit")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled it back already
            db.execute("rollback")
        raise


def _put(db: apsw.Connection, entries: str) -> None:
    """Marks before rows: of one exchange they come in this order, if in one group at all."""
    marks, checks, gone = [], [], []
    rows: list[tuple[object, ...]] = []
    for e in _decode(f"[{entries}]"):
        match e:
            case _Mark():
                marks.append((e.id, e.boot, str(e.mark, "utf-8")))
            case _Row():
                *plain, attempts, warnings = msgspec.structs.astuple(e)
                rows.append((*plain, str(attempts, "utf-8"), str(warnings, "utf-8")))
                gone.append((e.id,))
            case _Checkpoint():
                checks.append((str(e.mark, "utf-8"), e.id))
            case _Withdrawal():
                gone.append((e.id,))
    if marks:
        db.executemany("insert into open_mark values (?, ?, ?) on conflict do nothing", marks)
    if checks:
        db.executemany("update open_mark set mark = ? where id = ?", checks)
    if rows:
        db.executemany(_INSERT_ROW, rows)
    if gone:
        db.executemany("delete from open_mark where id = ?", gone)


def frame(body: bytes, count: int) -> bytes:
    return HEAD.pack(len(body), count) + body


class Writer:
    def __init__(self, orders: WriterConfig) -> None:
        self._orders = orders
        self._db: apsw.Connection | None = None
        self._kept: list[str] = []

    @property
    def waiting(self) -> int:
        return len(self._kept)

    def write(self, group: str) -> CommitResult:
        """Commit what is kept, then the group: no mark is taken while rows wait."""
        refused: list[tuple[int, str]] = []
        written = 0
        try:
            if self._db is None:
                self._db = connect(self._orders.name, self._orders.busy_ms)
            while self._kept:
                kept = self._kept[:GROUP]
                refused += [(-1, why) for _, why in self._commit(self._db, ",".join(kept))]
                del self._kept[:GROUP]
                written += len(kept)
            if group:
                refused += self._commit(self._db, group)
        except apsw.Error as error:
            self._kept += [e for e in _split(group) if e.startswith(KEPT)]
            dropped = max(0, len(self._kept) - self._orders.most)
            del self._kept[self._orders.most :]
            fault = f"{self._orders.name}: {error}."
            return CommitResult(fault, tuple(refused), written, dropped)
        return CommitResult("", tuple(refused), written) if refused else DONE

    def _commit(self, db: apsw.Connection, group: str) -> list[tuple[int, str]]:
        """One transaction; the entries that no disk would take, as they break the schema."""
        try:
            insert(db, group)
            return []
        except OWN_FAULT:
            pass
        refused = []
        db.execute("begin immediate")
        try:
            for n, entry in enumerate(_split(group)):
                try:
                    _put(db, entry)
                except OWN_FAULT as error:  # only its statement is undone, and it has but one
                    refused.append((n, f"{self._orders.name}: {error}."))
            db.execute("commit")
        except apsw.Error:
            if db.in_transaction:  # a full disk has rolled it back already
                db.execute("rollback")
            raise
        return refused

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(apsw.Error):  # a dead disk; what matters was said before
                self._db.close()


def _split(entries: str) -> list[str]:
    found = msgspec.json.decode(f"[{entries}]", type=list[msgspec.Raw])
    return [bytes(entry).decode() for entry in found]


class _Inbox:
    """Frames as they come; `ended` once the edge has gone or has said its last."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()
        self.ended = False
        self.patience_s: float | None = None

    def take(self, wait_s: float | None) -> tuple[int, str]:
        """A group and its number; nothing when none came within `wait_s`, or ever will."""
        bodies: list[bytes] = []
        count = 0
        while count < GROUP:
            found = self._next()
            if found is not None:
                bodies.append(found[0])
                count += found[1]
            elif count or not self._receive(wait_s):
                break
        return count, b",".join(bodies).decode()

    def _next(self) -> tuple[bytes, int] | None:
        while len(self._data) >= HEAD.size:
            size, count = HEAD.unpack_from(self._data)
            end = HEAD.size + size
            if len(self._data) < end:
                break
            body = bytes(self._data[HEAD.size : end])
            del self._data[:end]
            if count:
                return body, count
            self.patience_s = float(body)
        return None

    def _receive(self, wait_s: float | None) -> bool:
        if self.ended or (
            wait_s is not None and not select.select([self._sock], [], [], wait_s)[0]
        ):
            return False
        try:
            data = self._sock.recv(1 << 20)
        except ConnectionResetError:  # it died with an answer unread; what it sent was read before
            data = b""
        self._data += data
        self.ended = not data
        return not self.ended


def run(sock: socket.socket, orders: WriterConfig) -> None:
    """Write what comes until the socket ends."""
    inbox, writer = _Inbox(sock), Writer(orders)
    until = math.inf
    while True:
        count, group = inbox.take(orders.retry_s if writer.waiting else None)
        if inbox.ended and until == math.inf:
            patience_s = orders.orphan_s if inbox.patience_s is None else inbox.patience_s
            until = time.monotonic() + patience_s
        if count or writer.waiting:
            answer = writer.write(group)
            body = b"" if answer is DONE else msgspec.json.encode(answer)
            with contextlib.suppress(OSError):  # the edge has gone: nobody asks any more
                sock.sendall(frame(body, count))
        elif inbox.ended:
            break
        if inbox.ended and writer.waiting:
            if time.monotonic() >= until:
                break
            time.sleep(orders.retry_s)
    writer.close()
    sock.close()


def main() -> None:
    """The socket is standard input, the orders are the argument."""
    run(socket.socket(fileno=0), msgspec.json.decode(sys.argv[1], type=WriterConfig))


if __name__ == "__main__":
    main()
