"""The ledger: exactly one row per exchange, whatever happens to the process or to the disk.

The only place that writes marks and rows.  An open mark is committed before the upstream is
contacted; `settle` puts the row in its place, in one transaction; the marks of a dead process
become `recovered` rows.  Rows are never changed or deleted (triggers of schema/002.sql, which also
keeps the sums).  Storage design: one writer thread with one connection, WAL, `synchronous=FULL`,
group commit: while a group is synced to the disk the next one gathers, so that it is as large as
the disk is slow, and nothing waits for a timer.

What will surprise:
- a group is one SQL statement (`inbox`): the library is called once, so that the writer has to get
  Python's lock back from a busy loop once, and not five times;
- a call that is cancelled has still been queued, and is done: after `open` was called the exchange
  must be settled, `settle_soon` is there for it;
- when the disk takes nothing, `open` raises LedgerFault and leaves nothing behind, while `settle`
  raises it and *keeps the row*, to be tried again until the disk takes it.  Do not settle it again
  (it would do no harm), and let the reply end;
- a loop that is always busy would starve the writer of Python's lock: while somebody waits for a
  commit the loop sleeps for a moment now and then (`_give_way`);
- a process is alive as long as it holds the lock of its file in `live/`; neither its number nor the
  time it was started could be taken for another's.
"""

import asyncio
import contextlib
import fcntl
import math
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import apsw
import msgspec

from headgate.store.sqlite import BUSY_MS, StoreError

Basis = Literal["upstream", "partial", "estimated", "none", "recovered"]
GROUP = 512  # entries of one transaction at most, so that none waits long
RETRY_S = 0.25  # how often a disk that took nothing is asked again
# A twentieth of a busy loop, with what a system adds to so short a sleep a tenth; an idle one loses
# nothing by it.
WAY_EVERY_S, WAY_S = 0.001, 0.000_05
MAX_WAITING = 100_000  # rows, some 60 MB; each was an open mark once, so that many streams ran
MAX_CHARS = 256  # of any text: names, and a session id that the client has made up
MAX_WORDS = 64  # warnings and attempts of one row
# SQLite's words for what is wrong with an entry, and not with the disk.
_OWN_FAULT = (
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.RangeError,
    apsw.SQLError,
    apsw.TooBigError,
)


class LedgerFault(StoreError):
    """The disk did not take it: full, failing, or locked by another process for too long."""


class LedgerRefused(StoreError):
    """A row that no disk would take, as it breaks the schema: a bug of ours; its mark stays."""


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One contact with an upstream; the client pays for the last one only."""

    upstream: str
    model: str  # the upstream's name of it
    outcome: str
    upstream_code: str = ""
    ms: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange as it ended.  The fields are the columns of `ledger`, in their order."""

    id: str
    account: str = ""
    key: str
    session: str = ""  # the client's own; two keys may use the same
    dialect: str
    model: str
    upstream: str = ""
    upstream_model: str = ""
    stream: bool = False
    outcome: str
    basis: Basis
    status: int = 0  # 0: the client was told nothing
    began_s: float  # Unix seconds
    first_token_ms: int | None = None
    total_ms: int = 0
    input: int = 0  # includes cached and cache_write
    cached: int = 0
    cache_write: int = 0
    output: int = 0  # includes reasoning
    reasoning: int = 0
    cost_nano: int | None  # None: no price is known
    price_version: str = ""
    service_tier: str = ""
    attempts: tuple[Attempt, ...] = ()
    warnings: tuple[str, ...] = ()


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an exchange before its upstream is contacted, or at a checkpoint."""

    id: str
    account: str = ""
    key: str
    session: str = ""
    dialect: str
    model: str
    upstream: str = ""
    upstream_model: str = ""
    stream: bool = False
    began_s: float
    # What the row says should the process die now.  To a client that pays nothing is the safe side.
    input: int = 0
    output: int = 0
    cost_nano: int | None = 0
    price_version: str = ""
    service_tier: str = ""

    def recovered(self) -> Row:
        return Row(
            **{name: getattr(self, name) for name in self.__struct_fields__},
            outcome="crashed",
            basis="recovered",
        )


class _Entry(msgspec.Struct, eq=False):
    """`row` is kept when the disk fails; everything else is told, or forgotten."""

    fields: tuple[object, ...]
    is_row: bool = False
    done: asyncio.Future[None] | None = None


_Told = tuple[asyncio.Future[None], Exception | None]
_Item = _Entry | Callable[[], None] | None  # None: close
_encode = msgspec.json.Encoder().encode
_decode_mark = msgspec.json.Decoder(Mark).decode


class Ledger:
    """The writer.  The database must be up to date: a Store has opened it before.

    `open`, `settle` and `settle_soon` are called from one asyncio loop.
    """

    def __init__(self, data: str | Path) -> None:
        directory = Path(data)
        self._name = f"{directory}/headgate.db"
        self._live = _Live(directory / "live")
        self._db = self._connect()
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._kept: list[_Entry] = []
        self._closed = False
        self._deadline = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = 0  # callers that wait now
        self._way: asyncio.TimerHandle | None = None
        self.dropped = 0  # rows beyond MAX_WAITING; their marks remain, if the disk took those
        self.refused = 0
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that the disk has not taken yet."""
        return len(self._kept)

    async def open(self, mark: Mark) -> None:
        """Commit that an upstream is about to be contacted; LedgerFault: it must not be."""
        fields = _fields(mark)
        await self._ask(_Entry((0, fields["id"], self._live.boot, fields)))

    def checkpoint(self, mark: Mark) -> None:
        """Let an open mark say what was used so far; lost without harm if the disk fails."""
        fields = _fields(mark)
        self._put(_Entry((2, fields["id"], fields)))

    async def settle(self, row: Row) -> None:
        """Commit the row in the place of its mark.  A second one with the same id changes nothing.

        LedgerFault: not committed yet, but kept and tried again.  LedgerRefused: never.
        """
        await self._ask(_Entry(_columns(row), True))

    def settle_soon(self, row: Row) -> None:
        """As `settle`, for a task that cannot wait because it is being cancelled."""
        self._put(_Entry(_columns(row), True))

    def recover(self) -> int:
        """Make rows of the marks that dead processes left open, and say how many there were.

        Waits for the disk: at start, or from a thread.  Marks of processes that live are not touched.
        """
        found: Future[int] = Future()

        def work() -> None:
            try:
                found.set_result(self._recover())
            except apsw.Error as error:
                found.set_exception(LedgerFault(f"{self._name}: {error}."))
            except Exception as error:  # told to the caller, who waits in another thread
                found.set_exception(error)

        self._put(work)
        return found.result()

    def close(self, patience_s: float = 5.0) -> int:
        """Write what is queued or kept; the number of rows that the disk would still not take."""
        if not self._closed:
            self._closed = True
            self._deadline = time.monotonic() + patience_s
            self._queue.put(None)
            self._thread.join()
            with contextlib.suppress(apsw.Error):  # a dead disk; what matters was said before
                self._db.close()
            self._live.end()
        return len(self._kept)

    def _connect(self) -> apsw.Connection:
        try:
            db = apsw.Connection(self._name, flags=apsw.SQLITE_OPEN_READWRITE)
            db.set_busy_timeout(BUSY_MS)
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = full")
            db.execute("pragma fullfsync = on")  # macOS: its fsync alone promises nothing
            return db
        except apsw.Error as error:
            self._live.end()
            raise LedgerFault(f"{self._name}: {error}.") from None

    # the side of the loop

    async def _ask(self, entry: _Entry) -> None:
        loop = asyncio.get_running_loop()
        done = entry.done = loop.create_future()
        same, self._loop = loop is self._loop, loop
        self._put(entry)
        self._asked += 1
        if self._way is None or not same:
            self._way = loop.call_later(WAY_EVERY_S, self._give_way, loop)
        try:
            await done
        finally:
            self._asked -= 1

    def _give_way(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sleep for a moment, so that the writer gets Python's lock from a loop that never rests.

        Without it a busy loop starves the writer for seconds (measured on CPython 3.11): each time
        it calls the system it gives the lock away and has it again before the writer has woken up.
        """
        self._way = None
        if self._asked:
            time.sleep(WAY_S)
            self._way = loop.call_later(WAY_EVERY_S, self._give_way, loop)

    def _put(self, item: _Item) -> None:
        if self._closed:
            raise LedgerFault("the ledger is closed.")
        self._queue.put(item)

    # the side of the writer's thread

    def _run(self) -> None:
        closing = False
        while not closing or (self._kept and time.monotonic() < self._deadline):
            group: list[_Entry] = []
            items = self._take()
            if closing:
                time.sleep(RETRY_S)
            for item in items:
                if isinstance(item, _Entry):
                    group.append(item)
                    continue
                self._write(group)
                group = []
                if item is None:
                    closing = True
                else:
                    item()
            self._write(group)

    def _take(self) -> list[_Item]:
        """Everything that is queued, up to a group; when there is nothing, wait for it."""
        items: list[_Item] = []
        with contextlib.suppress(queue.Empty):
            if not self._closed:
                items.append(self._queue.get(timeout=RETRY_S if self._kept else None))
            while len(items) < GROUP:
                items.append(self._queue.get_nowait())
        return items

    def _write(self, fresh: Sequence[_Entry]) -> None:
        """One transaction, with what is kept first: no mark is taken while rows wait."""
        group = [*self._kept, *fresh]
        if not group:
            return
        told: list[_Told] = []
        try:
            self._commit([e.fields for e in group])
            self._kept = []
            told = _all(group, None)
        except Exception as error:  # whatever it is, the writer goes on for the others
            if isinstance(error, apsw.Error) and not isinstance(error, _OWN_FAULT):
                told = self._keep(group, LedgerFault(f"{self._name}: {error}."))
            elif len(group) > 1:
                self._kept = []
                for entry in group:
                    self._write([entry])
            else:
                self._kept = []
                self.refused += 1
                told = _all(group, LedgerRefused(f"{self._name}: {error}."))
        if told and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(_tell, told)

    def _keep(self, group: Sequence[_Entry], fault: LedgerFault) -> list[_Told]:
        told = _all(group, fault)
        rows = [e for e in group if e.is_row]
        for entry in rows:
            entry.done = None
        self.dropped += max(0, len(rows) - MAX_WAITING)
        self._kept = rows[:MAX_WAITING]
        return told

    def _commit(self, entries: Sequence[tuple[object, ...]]) -> None:
        self._db.execute(
            "insert into inbox select value from json_each(?)", (_encode(entries).decode(),)
        )

    def _recover(self) -> int:
        marked = self._db.execute("select distinct boot from open_mark")
        boots = {str(boot) for (boot,) in marked} | set(self._live.boots())
        count = 0
        for boot in boots - {self._live.boot}:
            with self._live.dead(boot) as dead:
                if not dead:
                    continue
                found = self._db.execute("select mark from open_mark where boot = ?", (boot,))
                rows = [_decode_mark(str(mark)).recovered() for (mark,) in found]
                for at in range(0, len(rows), GROUP):
                    group = rows[at : at + GROUP]
                    self._commit([_columns(r) for r in group])
                count += len(rows)
        return count


def _all(group: Sequence[_Entry], error: Exception | None) -> list[_Told]:
    return [(e.done, error) for e in group if e.done is not None]


def _tell(told: Sequence[_Told]) -> None:
    for done, error in told:
        if done.done():  # its task was cancelled
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _fields(mark: Mark) -> dict[str, object]:
    return dict(zip(mark.__struct_fields__, _clean(msgspec.structs.astuple(mark)), strict=True))


def _columns(row: Row) -> tuple[object, ...]:
    return (1, *_clean(msgspec.structs.astuple(row)))


def _clean(values: tuple[object, ...]) -> tuple[object, ...]:
    """Fields as JSON and SQLite can hold them: bounded, and no surrogates or zeros in a text."""
    return tuple(_word(v) if type(v) is str else _words(v) if type(v) is tuple else v for v in values)  # fmt: skip


def _word(text: str) -> str:
    if len(text) > MAX_CHARS:
        text = text[:MAX_CHARS]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _words(values: tuple[object, ...]) -> list[object]:
    return [
        _word(v)
        if isinstance(v, str)
        else Attempt(*_clean(msgspec.structs.astuple(v)))  # type: ignore[arg-type]  # same fields
        if isinstance(v, Attempt)
        else v
        for v in values[:MAX_WORDS]
    ]


class _Live:
    """The lock that says a process lives; the system gives it back whatever ends the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.boot = secrets.token_hex(8)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            self._file: int | None = self._begin()
        except OSError as error:
            raise LedgerFault(f"{error.filename or directory}: {error.strerror}.") from None

    def _begin(self) -> int:
        while True:
            path = self._directory / self.boot
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(OSError):  # somebody swept it before it was locked
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.stat().st_ino == os.fstat(file).st_ino:
                    return file
            os.close(file)

    @contextlib.contextmanager
    def dead(self, boot: str) -> Iterator[bool]:
        """Whether that process is dead; if so, nobody else is told so until the block is left."""
        path = self._directory / boot
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # it ended in good order, or these marks are from a backup
            yield True
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
            path.unlink(missing_ok=True)
        finally:
            os.close(file)

    def boots(self) -> list[str]:
        return [path.name for path in self._directory.iterdir()]

    def end(self) -> None:
        if self._file is not None:
            (self._directory / self.boot).unlink(missing_ok=True)
            os.close(self._file)
            self._file = None
