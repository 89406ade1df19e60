"""The ledger: exactly one row per exchange, whatever happens to the processes or to the disk.

The edge's side of the writer (writer.py), a process; what it is told is in entries.py.
An open mark is committed before the upstream is contacted; `settle` puts the row in its place, in
one transaction; the marks of a dead edge become `recovered` rows.  Rows are never changed or deleted
(triggers of schema/002.sql, which also keeps the sums).

What a turn of the loop gathers is sent in one write; whatever has not been answered is remembered,
and sent again to a new writer should this one die.  An entry may be written twice without harm.

What will surprise:
- a call that is cancelled has still been queued, and is done: after `open` was called the exchange
  must be settled, `settle_soon` is there for it;
- when the disk takes nothing, `open` raises LedgerFault and leaves nothing behind, while `settle`
  raises it and *keeps the row*, to be tried again until the disk takes it.  Do not settle it again
  (it would do no harm), and let the reply end;
- so it is when no writer has answered for PATIENCE_S: then a mark may have been committed all the
  same, and is withdrawn; until there is an answer, calls fail at once.

A weakness: an entry that would kill every writer that reads it would hold up the others for ever.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import apsw
import msgspec

from headgate.storage.sqlite import writer as writers
from headgate.storage.sqlite.database import BUSY_MS, StoreError, StoreFault
from headgate.storage.sqlite.entries import (
    AttemptRecord,
    Basis,
    IntentRecord,
    LedgerRow,
    decode_mark,
    encode_mark,
    encode_row,
)
from headgate.storage.sqlite.process_lock import ProcessLock
from headgate.storage.sqlite.writer import GROUP, HEAD, CommitResult, WriterConfig, frame
from headgate.storage.sqlite.writer_process import Start, Writing, start_process

__all__ = [
    "AttemptRecord",
    "Basis",
    "IntentRecord",
    "Ledger",
    "LedgerFault",
    "LedgerRefused",
    "LedgerRow",
]
RETRY_S = 0.25  # how often a disk that took nothing is asked again, or a writer started again
PATIENCE_S = BUSY_MS / 1000 + 3  # without any answer; the writer itself waits for other processes
ORPHAN_S = 5.0  # for how long a writer whose edge has died asks a disk that takes nothing
END_S = 2.0  # for a writer to end once it has closed its socket
DYING = 3  # writers in a row without an answer: this is no accident
KILLED_S = 0.2  # for one that was killed: the loop waits
MAX_WAITING = 100_000  # rows, some 60 MB; each was an open mark once, so that many streams ran
SOCKET_BYTES = 1 << 20


class LedgerFault(StoreFault):
    """The disk did not take it: full, failing, or locked by another process for too long."""


class LedgerRefused(StoreError):
    """A row that no disk would take, as it breaks the schema: a bug of ours; its mark stays."""


class _Entry(msgspec.Struct, eq=False):
    kind: Literal[0, 1, 2, 3]  # mark, row, checkpoint, withdrawal: writer.py
    id: str
    data: bytes
    done: asyncio.Future[None] | None = None

    @property
    def lasts(self) -> bool:
        """Kept when the disk fails; the others are told, or forgotten."""
        return self.kind in (1, 3)

    def tell(self, error: Exception | None) -> bool:
        """Once, and whether somebody waited: its task may be cancelled, and its loop closed."""
        done, self.done = self.done, None
        if done is None or done.done() or done.get_loop().is_closed():
            return False
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
        return True


_encode = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(CommitResult).decode


class Ledger:
    """The edge's side.  The database must be up to date: a Store has opened it before.

    `open`, `checkpoint`, `settle` and `settle_soon` are called from one asyncio loop at a time.
    """

    def __init__(self, data: str | Path, *, start: Start = start_process) -> None:
        directory = Path(data)
        self._start = start
        name = f"{directory}/headgate.db"
        self._orders = WriterConfig(name, BUSY_MS, MAX_WAITING, RETRY_S, ORPHAN_S)
        self._gathered: list[_Entry] = []  # in this turn of the loop
        self._pending: deque[_Entry] = deque()  # sent, or to be sent when there is a writer
        self._late = 0  # of these: the first that a writer before could not write
        self._resent = 0  # and the first that one before may have committed
        self._kept: list[_Entry] = []  # that the disk did not take, and the writer tries again
        self._in, self._out = bytearray(), b""
        self._flushing = self._blocked = self._stuck = self._closed = False
        self._heard = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._sock: socket.socket | None = None
        self._writer: Writing | None = None
        self._answered = False  # by this writer
        self._deaths = 0  # of writers in a row that had answered nothing
        # Called with the id of each row once it is on the disk, also when that is after a LedgerFault.
        self.on_commit: Callable[[str], None] | None = None
        self.started = 0  # writers; every one after the first took the place of one that died
        self.dropped = 0  # rows beyond MAX_WAITING; their marks remain, if the disk took those
        self.refused = 0
        try:
            with contextlib.ExitStack() as stack:
                self._live = ProcessLock(directory / "live")
                stack.callback(self._live.end)
                self._begin()
                stack.pop_all()
        except OSError as error:
            raise LedgerFault(f"{error.filename or directory}: {error.strerror}.") from None

    @property
    def waiting(self) -> int:
        """Rows that the disk has not taken, though it had its time."""
        late = sum(e.lasts for e in self._pending) if self._stuck else self._late
        return len(self._kept) + late

    @property
    def fault(self) -> str:
        """Why no request can be recorded now; "" when nothing is known against it."""
        if self._stuck:
            return "the ledger's writer does not answer"
        if self.waiting:
            return f"the disk has not taken {self.waiting} rows of the ledger"
        if self._deaths >= DYING:
            return f"the ledger's writer has ended {self._deaths} times in a row"
        return ""

    @property
    def writer_pid(self) -> int | None:
        return self._writer.pid if self._writer is not None else None

    async def open(self, mark: IntentRecord) -> None:
        """Commit that an upstream is about to be contacted; LedgerFault: it must not be."""
        if self._stuck:
            raise self._silent()
        await self._asked(_Entry(0, mark.id, encode_mark(mark, 0, mark.id, self._live.boot)))

    def checkpoint(self, mark: IntentRecord) -> None:
        """Let an open mark say what was used so far; lost without harm if the disk fails."""
        if not self._stuck:
            self._put(_Entry(2, mark.id, encode_mark(mark, 2, mark.id)))

    async def settle(self, row: LedgerRow) -> None:
        """Commit the row in the place of its mark.  A second one with the same id changes nothing.

        LedgerFault: not committed yet, but kept and tried again.  LedgerRefused: never.
        """
        entry = _Entry(1, row.id, encode_row(row))
        if self._stuck:
            self._put(entry)
            raise self._silent()
        await self._asked(entry)

    def settle_soon(self, row: LedgerRow) -> None:
        """As `settle`, for a task that cannot wait because it is being cancelled."""
        self._put(_Entry(1, row.id, encode_row(row)))

    def recover(self) -> int:
        """Make rows of the marks that dead edges left open, and say how many there were.

        Waits for the disk, and for a writer that outlives its edge: at start, or from a thread.  Has
        a connection of its own.  Marks of edges that live are not touched.
        """
        orders = self._orders
        try:
            with contextlib.closing(writers.connect(orders.name, orders.busy_ms)) as db:
                marked = db.execute("select distinct boot from open_mark")
                boots = {str(boot) for (boot,) in marked} | self._live.boots()
                return sum(self._recover(db, boot) for boot in boots - {self._live.boot})
        except apsw.Error as error:
            raise LedgerFault(f"{orders.name}: {error}.") from None

    def _recover(self, db: apsw.Connection, boot: str) -> int:
        with self._live.dead(boot) as dead:
            if not dead:
                return 0
            # One that has a row was sent again to a second writer, and its row was not any more.
            found = list(
                db.execute(
                    "select mark, id in (select id from ledger) from open_mark where boot = ?",
                    (boot,),
                )
            )
            rows = [encode_row(decode_mark(str(mark)).recovered()) for mark, _ in found]
            for at in range(0, len(rows), GROUP):
                writers.insert(db, b",".join(rows[at : at + GROUP]).decode())
            return sum(not settled for _, settled in found)

    def detach(self) -> None:
        """Leave the event loop, so that `close` may run in a thread while the loop goes on."""
        if not self._closed:
            self._attach(None)

    def close(self, patience_s: float = 5.0) -> int:
        """Write what is queued or kept; the number of rows that the disk would still not take."""
        if self._closed:
            return self.waiting
        if self._loop is not None or self._gathered:
            self._attach(None)
        self._closed = True
        until = time.monotonic() + patience_s + PATIENCE_S
        while self._sock is not None or self._pending or self._kept:
            try:
                if self._sock is None and not self._begin():
                    time.sleep(RETRY_S)
                elif self._sock is not None and self._finish(patience_s, until):
                    break
            except OSError:  # it has died, hangs, or none can be started
                self._end()
                time.sleep(0 if self._answered else RETRY_S)
            if time.monotonic() >= until:
                break
        self._end()
        self._live.end()
        self._stuck = True  # what is pending waits in vain
        return self.waiting

    def _finish(self, patience_s: float, until: float) -> bool:
        """Tell the writer to end, and hear it out; whether it did as told."""
        assert self._sock is not None
        self._sock.settimeout(max(0.01, until - time.monotonic()))
        self._sock.sendall(self._out + frame(_encode(patience_s), 0))
        self._out = b""
        self._sock.shutdown(socket.SHUT_WR)
        while data := self._sock.recv(1 << 16):
            self._hear(data)
            self._sock.settimeout(max(0.01, until - time.monotonic()))
        over = not self._pending
        self._end(END_S)
        return over

    # entries

    def _asked(self, entry: _Entry) -> "asyncio.Future[None]":
        """What tells what became of it."""
        loop = asyncio.get_running_loop()
        done = entry.done = loop.create_future()
        self._put(entry, loop)
        return done

    def _put(self, entry: _Entry, loop: asyncio.AbstractEventLoop | None = None) -> None:
        if self._closed:
            raise LedgerFault("the ledger is closed.")
        if loop is None:
            loop = asyncio._get_running_loop()
        if loop is not self._loop:
            self._attach(loop)
        self._gathered.append(entry)
        if loop is None:  # at start, in tests: there is no turn to gather in
            self._flush()
        elif not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what was gathered."""
        self._flushing = False
        fresh = self._gathered
        if not fresh:
            return
        self._gathered = []
        if not self._pending:
            self._heard = time.monotonic()
        self._pending.extend(fresh)
        if self._watch is None and self._loop is not None:
            self._watch = self._loop.call_later(PATIENCE_S / 4, self._look)
        if self._sock is not None:
            self._out += _frames(fresh)
            self._send()

    def _look(self) -> None:
        """Whether a writer answers; if not, nobody waits for it any longer."""
        self._watch = None
        if not self._pending or self._loop is None:
            return
        self._watch = self._loop.call_later(PATIENCE_S / 4, self._look)
        if self._stuck or time.monotonic() - self._heard < PATIENCE_S:
            return
        if self._sock is not None:
            self._receive()  # it may be the loop that was late, and the answer is here
            if time.monotonic() - self._heard < PATIENCE_S:
                return
        self._stuck = True
        for entry in [*self._pending, *self._gathered]:
            if entry.tell(self._silent()):
                self._withdraw(entry)

    def _withdraw(self, entry: _Entry) -> None:
        """Its mark may have been committed, but the caller was told that it was not."""
        if entry.kind == 0 and not self._closed:
            self._put(_Entry(3, entry.id, _encode((3, entry.id))))

    def _silent(self) -> LedgerFault:
        return LedgerFault(
            f"{self._orders.name}: the writer has not answered for {PATIENCE_S:g} s."
        )

    def _hear(self, data: bytes) -> None:
        self._in += data
        self._heard, self._stuck, self._answered = time.monotonic(), False, True
        self._deaths = 0
        at = 0
        while len(self._in) - at >= HEAD.size:
            size, count = HEAD.unpack_from(self._in, at)
            end = at + HEAD.size + size
            if end > len(self._in):
                break
            group = [self._pending.popleft() for _ in range(count)]
            if size:
                self._decide(group, _decode_answer(self._in[end - size : end]))
            else:
                kept, self._kept = self._kept, []
                self._committed(kept)
                self._committed(group)
            if self._resent:
                self._late = max(0, self._late - count)
                self._resent = max(0, self._resent - count)
            at = end
        del self._in[:at]

    def _committed(self, entries: Iterable[_Entry]) -> None:
        heard = self.on_commit
        for entry in entries:
            if entry.done is not None:
                entry.tell(None)
            if heard is not None and entry.kind == 1:
                heard(entry.id)

    def _decide(self, group: list[_Entry], answer: CommitResult) -> None:
        refused = dict(answer.refused)
        self.refused += len(answer.refused)
        # One kept before that was refused after all (-1) is among the written: it is not tried again.
        self._committed(self._kept[: answer.written])
        del self._kept[: answer.written]
        for n, entry in enumerate(group):
            if not answer.fault:
                if n in refused:
                    entry.tell(LedgerRefused(refused[n]))
                else:
                    self._committed((entry,))
                continue
            entry.tell(LedgerFault(answer.fault))
            if entry.lasts:
                self._kept.append(entry)
            elif n < self._resent:
                self._withdraw(entry)
        if answer.dropped:
            del self._kept[-answer.dropped :]
            self.dropped += answer.dropped

    # the writer

    def _begin(self) -> bool:
        """Start a writer and send it all that is not committed; False: the last still runs."""
        lock = self._live.for_writer(0)
        if lock is None:
            return False
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lock)
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            stack.push(lambda kind, *_: ours.close() if kind else None)
            for end in (ours, theirs):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            ours.setblocking(False)
            self._writer = self._start(theirs, lock, self._orders)
        self._sock, self._answered, self._in = ours, False, bytearray()
        self.started += 1
        self._late += len(self._kept)
        self._pending.extendleft(reversed(self._kept))
        self._kept = []
        self._resent = len(self._pending)
        if not self._pending:
            self._heard = time.monotonic()
        self._pending.extend(self._gathered)
        self._gathered = []
        self._out = _frames(self._pending)
        if self._loop is not None:
            self._loop.add_reader(ours, self._receive)
            self._send()
        return True

    def _send(self) -> None:
        assert self._sock is not None
        try:
            sent = self._sock.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._replace()
            return
        self._out = self._out[sent:]
        if self._loop is not None:
            if self._out:
                self._loop.add_writer(self._sock, self._send)
                self._blocked = True
            elif self._blocked:
                self._loop.remove_writer(self._sock)
                self._blocked = False

    def _receive(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._hear(data)
        else:
            self._replace()

    def _replace(self) -> None:
        """This writer has died: another one at once, unless that one would die as well."""
        self._end()
        self._deaths += not self._answered
        if self._answered:
            self._again()
        elif self._loop is not None:
            self._loop.call_later(RETRY_S, self._again)

    def _again(self) -> None:
        if self._sock is not None or self._loop is None:
            return
        with contextlib.suppress(OSError):
            if self._begin():
                return
        self._loop.call_later(RETRY_S, self._again)

    def _end(self, within_s: float = 0.0) -> None:
        """See to it that this writer is no more; should it hang in the disk, its lock tells."""
        if self._sock is not None:
            self._unwatch(self._sock)
            self._sock.close()
            self._sock = None
        if self._writer is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if within_s:
                    self._writer.wait(within_s)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._writer.kill()
                self._writer.wait(KILLED_S)

    def _attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """From now on this loop hears the writer, or none does."""
        if self._sock is not None:
            self._unwatch(self._sock)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._loop, self._flushing = loop, False
        if loop is not None:
            self._watch = loop.call_later(PATIENCE_S / 4, self._look)
            if self._sock is not None:
                loop.add_reader(self._sock, self._receive)
                self._send()
            else:
                self._again()
        self._flush()

    def _unwatch(self, sock: socket.socket) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(sock)
            if self._blocked:
                self._loop.remove_writer(sock)
        self._blocked = False


def _frames(entries: Iterable[_Entry]) -> bytes:
    data = [entry.data for entry in entries]
    groups = (data[at : at + GROUP] for at in range(0, len(data), GROUP))
    return b"".join([frame(b",".join(group), len(group)) for group in groups])
