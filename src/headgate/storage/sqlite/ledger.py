"""The ledger: exactly one row per exchange, whatever happens to the processes or to the disk.

This is a client's side of the node (node/server.py), which writes; the entries are in entries.py.
An intent is committed before the upstream is contacted; `settle` puts the row in its place, in
one transaction; the intents of a dead process become `recovered` rows.  Rows are never changed or
deleted (triggers of schema/010.sql, which also keep the sums).

What a turn of the loop gathers is sent in one write; whatever has not been answered is remembered,
and sent again to a new node should this one die.  An entry may be written twice without harm.

Note:
- an edge connects to the node of its machine; a program that writes rows by itself starts one of its own;
- a call that is cancelled has still been queued, and is done: after `open` was called the exchange
  must be settled or withdrawn, `settle_soon` and `withdraw` are there for it;
- when the disk takes nothing, `open` raises LedgerFault and leaves nothing behind, while `settle`
  raises it and *keeps the row*, to be tried again until the disk takes it.  Do not settle it again
  (it would do no harm), and let the reply end;
- so it is when the node has not answered for PATIENCE_S, or is away for AWAY_S: then an intent may have
  been committed all the same, and is withdrawn; until there is an answer, calls fail at once.

A weakness: an entry that would kill every node that reads it would hold up the others forever.
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

import apsw
import msgspec

from headgate.storage.errors import LedgerFault as LedgerFault
from headgate.storage.errors import LedgerRefused as LedgerRefused
from headgate.storage.errors import StoreFault
from headgate.storage.rows import AttemptRecord, Basis, IntentRecord, LedgerRow
from headgate.storage.sqlite import recovery
from headgate.storage.sqlite import writer as writers
from headgate.storage.sqlite.database import BUSY_MS
from headgate.storage.sqlite.entries import encode_entry, encode_row
from headgate.storage.sqlite.process_lock import ProcessLock
from headgate.storage.sqlite.writer import (
    GROUP,
    HEAD,
    RESULT_BEGINS,
    CommitResult,
    WriterConfig,
    frame,
)
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
AWAY_S = 2.0  # for how long a request waits for a node that is being replaced
RECONNECT_S = 0.02
DYING = 3  # writers in a row without an answer: this is no accident
KILLED_S = 0.2  # for one that was killed: the loop waits
MAX_WAITING = 100_000  # rows, some 60 MB; each was an intent once, so that many streams ran
SOCKET_BYTES = 1 << 20


OPEN = 5  # the number of an intent that is admitted first (node/wire.py)


class _Entry(msgspec.Struct, eq=False):
    kind: int  # 0, 1, 3: intent, row, withdrawal (writer.py); the others: node/wire.py
    id: str
    data: bytes
    done: asyncio.Future[bytes] | None = None
    undo: tuple[int, bytes] | None = None  # what takes back what nobody learned of

    @property
    def durable(self) -> bool:
        """Whether it is for the disk."""
        return self.kind <= OPEN

    @property
    def lasts(self) -> bool:
        """Kept when the disk fails; the others are reported, or forgotten."""
        return self.kind in (1, 3)

    def notify(self, error: Exception | None, answer: bytes = b"") -> bool:
        """Once, and whether somebody waited: its task may be cancelled, and its loop closed."""
        done, self.done = self.done, None
        if done is None or done.done() or done.get_loop().is_closed():
            return False
        if error is None:
            done.set_result(answer)
        else:
            done.set_exception(error)
        return True


_encode = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(CommitResult).decode


class Ledger:
    """Is the edge's side of it.  The database must be up to date: a Store has opened it before.

    `open`, `settle` and `settle_soon` are called from one asyncio loop at a time.
    """

    def __init__(self, data: str | Path, *, start: Start = start_process, node: str = "") -> None:
        """`node`: the socket of the node to connect to; "": it starts one of its own."""
        directory = Path(data)
        self._start = start
        self._node = node
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
        self._lost_s = 0.0  # when the connection to the node ended
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._sock: socket.socket | None = None
        self._writer: Writing | None = None
        self._answered = False  # by this writer
        self._deaths = 0  # of writers in a row that had answered nothing
        # Called with the id of each row once it is on the disk, also when that is after a LedgerFault.
        self.on_commit: Callable[[str], None] | None = None
        # What a new node must know first, and who is given the notices of the node.
        self.hello: Callable[[], bytes] | None = None
        self.on_notice: Callable[[bytes], None] | None = None
        self.started = 0  # nodes; every one after the first took the place of one that died
        self.dropped = 0  # rows beyond MAX_WAITING; their intents remain, if the disk took those
        self.refused = 0
        try:
            with contextlib.ExitStack() as stack:
                self._live = ProcessLock(directory / "live")
                stack.callback(self._live.end)
                if not node:  # else once there is a loop, and somebody who greets the node
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
        if self._node and self._sock is None and self._late_answer():
            return "the node is away"
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

    @property
    def instance(self) -> str:
        """The id of this process, which its intents have."""
        return self._live.instance_id

    async def open(self, intent: IntentRecord) -> None:
        """Commit that an upstream is about to be contacted; LedgerFault: it must not be."""
        await self.ask(
            0,
            intent.request_id,
            encode_entry(intent, 0, intent.request_id, self._live.instance_id),
            _withdrawal(intent.request_id),
        )

    async def ask(
        self, kind: int, id: str, data: bytes, undo: tuple[int, bytes] | None = None
    ) -> bytes:
        """Send an entry and wait until it is decided; what the node answers, b"" for plain success.

        `undo`: the number and the data of the entry that takes it back, if nobody learns of the answer.
        """
        if self._stuck:
            raise self._silent()
        try:
            return await self._asked(_Entry(kind, id, data, undo=undo))
        except asyncio.CancelledError:
            if undo is not None and not self._closed:
                self._put(_Entry(undo[0], id, undo[1]))
            raise

    async def open_with(self, id: str, kind: int, data: bytes) -> bytes:
        """As `open`, for a message that has the intent in it; what the node answers."""
        return await self.ask(kind, id, data, _withdrawal(id))

    def notify(self, kind: int, id: str, data: bytes) -> None:
        """Send an entry without waiting for its answer."""
        self._put(_Entry(kind, id, data))

    def catch_up(self) -> None:
        """Take in what the node has sent already, before the loop comes to it."""
        while self._sock is not None and self._loop is not None:
            before = self._heard
            self._receive()
            if self._heard == before:
                return

    def flush(self) -> None:
        """Send now what was gathered, and not at the end of this turn of the loop."""
        if self._loop is not None:
            self._flush()

    async def settle(self, row: LedgerRow) -> bytes:
        """Commit the row in the place of its intent.  A second one with the same id changes nothing.

        The answer is the node's, b"" for plain success.

        LedgerFault: not committed yet, but kept and tried again.  LedgerRefused: never.
        """
        entry = _Entry(1, row.request_id, encode_row(row))
        if self._stuck:
            self._put(entry)
            raise self._silent()
        return await self._asked(entry)

    def settle_soon(self, row: LedgerRow) -> None:
        """As `settle`, for a task that cannot wait because it is being cancelled."""
        self._put(_Entry(1, row.request_id, encode_row(row)))

    def recover(self) -> int:
        """Make rows of the marks that dead edges left open, and say how many there were.

        Waits for the disk, and for a writer that outlives its edge: at start, or from a thread.  Has
        a connection of its own.  Marks of edges that live are not touched.
        """
        orders = self._orders
        try:
            with contextlib.closing(writers.connect(orders.name, orders.busy_ms)) as db:
                found = [
                    recovery.recover(db, self._live, each)
                    for each in recovery.instances(db, self._live) - {self._live.instance_id}
                ]
        except (apsw.Error, StoreFault) as error:
            raise LedgerFault(f"{orders.name}: {error}") from None
        return sum(len(rows) for rows in found if rows is not None)

    def connect(self) -> None:
        """Let this loop hear the node from now on, and not only once there is something to say."""
        if self._loop is None:
            self._attach(asyncio.get_running_loop())

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
        """Ask the writer to end, and wait; return whether it ended."""
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

    def _asked(self, entry: _Entry) -> "asyncio.Future[bytes]":
        """Return the report of what became of it."""
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
        """Whether a writer answers; if not, no caller waits for it any longer."""
        self._watch = None
        if not self._pending or self._loop is None:
            return
        self._watch = self._loop.call_later(PATIENCE_S / 4, self._look)
        if self._stuck or not self._late_answer():
            return
        if self._sock is not None:
            self._receive()  # it may be the loop that was late, and the answer is here
            if not self._late_answer():
                return
        self._stuck = True
        for entry in [*self._pending, *self._gathered]:
            if entry.notify(self._silent()):
                self._withdraw(entry)

    def _late_answer(self) -> bool:
        """Whether nobody should wait for an answer any longer."""
        now_s = time.monotonic()
        if self._node and self._sock is None:
            return now_s - self._lost_s >= AWAY_S
        return now_s - self._heard >= PATIENCE_S

    def _withdraw(self, entry: _Entry) -> None:
        """Its intent may have been committed, but the caller learned that it was not."""
        if entry.undo is not None and not self._closed:
            self._put(_Entry(entry.undo[0], entry.id, entry.undo[1]))

    def _silent(self) -> LedgerFault:
        if self._node and self._sock is None:
            return LedgerFault("the node is away.")
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
            body = bytes(self._in[end - size : end])
            if not count and not body.startswith(RESULT_BEGINS):
                if self.on_notice is not None:
                    self.on_notice(body)
            elif size:
                self._decide(group, _decode_answer(body))
            else:
                kept, self._kept = self._kept, []
                self._committed(kept)
                self._committed(group)
            if self._resent:
                self._late = max(0, self._late - count)
                self._resent = max(0, self._resent - count)
            at = end
        del self._in[:at]

    def _committed(self, entries: Iterable[_Entry], answer: bytes = b"") -> None:
        heard = self.on_commit
        for entry in entries:
            if entry.done is not None:
                entry.notify(None, answer)
            if heard is not None and entry.kind == 1:
                heard(entry.id)

    def _decide(self, group: list[_Entry], answer: CommitResult) -> None:
        refused, answers = dict(answer.refused), dict(answer.answers)
        self.refused += len(answer.refused)
        # One kept before that was refused after all (-1) is among the written: it is not tried again.
        self._committed(self._kept[: answer.written])
        del self._kept[: answer.written]
        for n, entry in enumerate(group):
            if n in answers:  # what was asked of the node itself, and not of the disk
                entry.notify(None, bytes(answers[n]))
                continue
            if not answer.fault or not entry.durable:
                if n in refused:
                    entry.notify(LedgerRefused(refused[n]))
                else:
                    self._committed((entry,))
                continue
            entry.notify(LedgerFault(answer.fault))
            if entry.lasts:
                self._kept.append(entry)
            elif n < self._resent:
                self._withdraw(entry)
        if answer.dropped:
            del self._kept[-answer.dropped :]
            self.dropped += answer.dropped

    # the writer

    def _begin(self) -> bool:
        """Have a node, and send it all that is not committed; False: there is none to be had yet."""
        ours = self._connected() if self._node else self._started()
        if ours is None:
            return False
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
        greeting = frame(self.hello(), 0) if self.hello is not None else b""
        self._out = greeting + _frames(self._pending)
        if self._loop is not None:
            self._loop.add_reader(ours, self._receive)
            self._send()
        return True

    def _connected(self) -> socket.socket | None:
        ours = socket.socket(socket.AF_UNIX)
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            ours.setblocking(False)  # a socket of the file system connects at once, or not at all
            ours.connect(self._node)
        except OSError:
            ours.close()
            return None
        self._stuck = False
        self._heard = time.monotonic()
        return ours

    def _started(self) -> socket.socket | None:
        lock = self._live.for_writer(0)
        if lock is None:
            return None
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
        return ours

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
        """This node has died: another one at once, unless that one would die as well."""
        self._end()
        self._lost_s = time.monotonic()
        self._deaths += not self._answered
        if self._node:
            if self._loop is not None:
                self._loop.call_later(AWAY_S, self._look_away)
                self._loop.call_later(RECONNECT_S, self._again)
        elif self._answered:
            self._again()
        elif self._loop is not None:
            self._loop.call_later(RETRY_S, self._again)

    def _look_away(self) -> None:
        """Look at once whether the node is back, and not only when the next round comes."""
        if self._sock is None and self._watch is not None:
            self._watch.cancel()
            self._look()

    def _again(self) -> None:
        if self._sock is not None or self._loop is None:
            return
        with contextlib.suppress(OSError):
            if self._begin():
                return
        self._loop.call_later(RECONNECT_S if self._node else RETRY_S, self._again)

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


def _withdrawal(id: str) -> tuple[int, bytes]:
    return 3, _encode((3, id))
