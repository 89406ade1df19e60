"""The node's sockets: what its edges send in one turn of the loop is decided and committed together.

This is the only module of the node that knows connections.  The wire is in storage/sqlite/writer.py and
node/wire.py.

Note: a commit blocks the loop.  Every message of this process waits for the disk anyway, or comes right
before one that does; a thread for the commits would make each of them pay for handing over Python's lock.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from headgate.node.state import Edge, Node
from headgate.node.wire import HEALTH_NOTICE, TURNS_NOTICE, Hello, Question
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.process_lock import Lives
from headgate.storage.sqlite.writer import (
    GROUP,
    HEAD,
    KEPT,
    CommitResult,
    Durable,
    Pending,
    WriterConfig,
    frame,
)

RECEIVE_BYTES = 64 << 10  # above it the system maps memory for each call
SUSPECT_S = 0.1  # how often a process whose connection ended is looked at, until it is dead or back
MAX_OUT_BYTES = 256 << 20  # of answers to an edge that reads nothing; then its connection is closed

_decode = msgspec.json.Decoder(list[Durable | Question]).decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_one = msgspec.json.Decoder(Durable | Question).decode
_decode_control = msgspec.json.Decoder(float | Hello).decode
_encode = msgspec.json.Encoder().encode


def new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of a node: uvloop's, which costs less for each message; None: asyncio's own."""
    try:
        import uvloop
    except ImportError:  # Windows has none
        return None
    return uvloop.new_event_loop


class _Connection:
    """One edge, or a program that writes rows."""

    def __init__(self, server: "Server", sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.edge = Edge()
        self.ended = False
        self.until_s = 0.0  # once it has ended: for how long the disk is asked to take its rows
        self.patience_s: float | None = None
        self.kept = 0  # of its rows: not taken by the disk yet
        self._server = server
        self._in = bytearray()
        self._out = b""
        self._blocked = False
        server.loop.add_reader(sock, self.receive)

    def receive(self) -> None:
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._server.loop.remove_reader(self.sock)
            self.ended = True
            patience_s = self.patience_s
            if patience_s is None:
                patience_s = self._server.orders.orphan_s
            self.until_s = time.monotonic() + patience_s
            self._server.wake()
            return
        self._in += data
        at, size_in = 0, len(self._in)
        while size_in - at >= HEAD.size:
            size, count = HEAD.unpack_from(self._in, at)
            end = at + HEAD.size + size
            if end > size_in:
                break
            body = bytes(self._in[at + HEAD.size : end])
            if count:
                self._server.take(self, body, count)
            else:
                self._control(body)
            at = end
        del self._in[:at]
        self._server.ready()

    def _control(self, body: bytes) -> None:
        stated = _decode_control(body)
        if isinstance(stated, Hello):
            self._server.hello(self, stated)
        else:
            self.patience_s = stated

    def send(self, data: bytes) -> None:
        self._out += data
        if not self._blocked:
            self._write()

    def _write(self) -> None:
        try:
            sent = self.sock.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
        except OSError:  # the edge has gone, and its questions with it
            self._out = b""
            sent = 0
        self._out = self._out[sent:]
        if len(self._out) > MAX_OUT_BYTES:
            self._out = b""
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        if bool(self._out) != self._blocked:
            self._blocked = bool(self._out)
            if self._blocked:
                self._server.loop.add_writer(self.sock, self._write)
            else:
                self._server.loop.remove_writer(self.sock)

    def close(self) -> None:
        self._server.loop.remove_reader(self.sock)
        if self._blocked:
            self._server.loop.remove_writer(self.sock)
        self.sock.close()


class _Group:
    """What one connection has sent in this turn, and what becomes of it."""

    __slots__ = ("answers", "count", "pending")

    def __init__(self) -> None:
        self.count = 0
        self.answers: list[tuple[int, Any]] = []  # Any: one of the answers of wire.py
        self.pending: list[tuple[int, Pending]] = []


class Server:
    """Serves the connections of a node.

    `lives`: the locks of the edges' processes, whose intents become rows when they die; None: the node
    is of one program only, and nobody's intents are touched.
    """

    def __init__(self, node: Node, orders: WriterConfig, lives: Lives | None = None) -> None:
        self.node = node
        self.orders = orders
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Event = asyncio.Event()  # there is no connection, and none will come
        self.on_recovered: Callable[[int], None] = lambda count: None
        self._lives = lives
        self._connections: set[_Connection] = set()
        self._suspects: set[str] = set()
        self._gathered: list[tuple[_Connection, bytes, int]] = []
        self._woken = self._ending = False
        self._retry: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._listener: socket.socket | None = None

    # --- connections

    def add(self, sock: socket.socket) -> None:
        self._connections.add(_Connection(self, sock))

    def listen(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._listener = sock
        self.loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self.add(self._listener.accept()[0])

    def suspect(self, instances: set[str]) -> None:
        """Recover what these leave open, once they are dead; who comes back is none."""
        self._suspects |= instances
        if self._suspects and self._look is None:
            self._look = self.loop.call_later(SUSPECT_S, self._look_at_suspects)

    def _look_at_suspects(self) -> None:
        self._look = None
        assert self._lives is not None
        for instance in list(self._suspects):
            recovered = self.node.recover(self._lives, instance)
            if recovered is not None:
                self._suspects.discard(instance)
                if recovered:
                    self.on_recovered(recovered)
        self.suspect(set())

    def hand_over(self) -> None:
        """End at once, for another node: edges send it again what is not answered."""
        self.end()
        self._turn()
        for connection in list(self._connections):
            connection.close()
        self._connections.clear()
        self.ended.set()

    def end(self) -> None:
        """Accept nobody any more, and end once the connections have."""
        self._ending = True
        if self._listener is not None:
            self.loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self.wake()

    @property
    def connections(self) -> int:
        return len(self._connections)

    # --- what comes

    def hello(self, connection: _Connection, stated: Hello) -> None:
        self._turn()  # what came before on another connection is decided before
        self._suspects.discard(stated.instance)
        known = self.node.hello(connection.edge, stated)
        for piece in self.node.shared.all_turns():
            connection.send(frame(TURNS_NOTICE + piece, 0))
        connection.send(frame(HEALTH_NOTICE + known, 0))  # the last: then the edge knows all

    def take(self, connection: _Connection, body: bytes, count: int) -> None:
        self._gathered.append((connection, body, count))

    def ready(self) -> None:
        """Decide what one connection has sent: at once if there is no other one to wait for."""
        if len(self._connections) == 1:
            if self._gathered and not self._woken:
                self._turn()
        elif self._gathered:
            self.wake()

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Decide what has come, commit it, and answer."""
        self._woken = False
        groups: dict[_Connection, _Group] = {}
        pending: list[Pending] = []
        gathered, total = self._gathered, 0
        self._gathered = []
        for n, (connection, body, count) in enumerate(gathered):
            if total >= GROUP:
                self._gathered = gathered[n:] + self._gathered
                self.wake()
                break
            total += count
            group = groups.get(connection)
            if group is None:
                group = groups[connection] = _Group()
            self._decide(connection, group, body, pending)
        # Before anything is answered: who has the end of a turn finds it known on every edge.
        if self.node.shared.news:
            self._pass_on()
        self._commit(groups, pending)
        self._sweep()

    def notify_edges(self, notice: bytes) -> None:
        for connection in self._connections:
            if connection.edge.instance:
                connection.send(frame(notice, 0))

    def _pass_on(self) -> None:
        """Tell each edge what the others have seen and kept."""
        edges = {c.edge.sharer: c for c in self._connections if c.edge.instance}
        for sharer, notice in self.node.shared.take_news(edges):
            edges[sharer].send(frame(notice, 0))

    def _decide(
        self, connection: _Connection, group: _Group, body: bytes, pending: list[Pending]
    ) -> None:
        text = b"[" + body + b"]"
        try:
            messages: list[Any] = _decode(text)  # Any: a message, or None for one that is none
        except msgspec.MsgspecError:
            messages = [_readable(each) for each in _decode_raw(text)]
        node, edge = self.node, connection.edge
        for message in messages:
            n = group.count
            group.count += 1
            refused = ""
            if isinstance(message, str):
                answer, durable, refused = None, None, message
            else:
                try:
                    answer, durable = node.decide(edge, message)
                except StoreError as error:
                    answer, durable, refused = None, None, str(error)
            if refused:
                # It has no part on the disk, and is refused as if that had done it.
                group.pending.append((n, Pending(None, connection, refused)))  # type: ignore[arg-type]
                continue
            if answer is not None:
                group.answers.append((n, answer))
            if durable is not None:
                item = Pending(durable, connection)
                pending.append(item)
                group.pending.append((n, item))

    def _commit(self, groups: dict[_Connection, _Group], pending: list[Pending]) -> None:
        writer, node = self.node.writer, self.node
        if not pending and not writer.waiting:
            for connection, group in groups.items():
                connection.send(_answer(group, "", 0, 0, []))
            return
        done = writer.write(pending)
        late: dict[_Connection, list[Pending]] = {}
        for item in done.late:
            late.setdefault(item.source, []).append(item)
            item.source.kept -= 1
            if not item.refused:
                node.committed(item.entry)
        dropped: dict[_Connection, int] = {}
        for item in done.dropped:
            dropped[item.source] = dropped.get(item.source, 0) + 1
        if done.fault:
            for item in pending:
                if isinstance(item.entry, KEPT):
                    item.source.kept += 1
                node.undo(item.entry)
            for connection, count in dropped.items():
                connection.kept -= count
        else:
            for item in pending:
                if item.refused:
                    node.undo(item.entry)
                else:
                    node.committed(item.entry)
        for connection in {*groups, *late}:
            group = groups.get(connection) or _Group()
            data = _answer(
                group,
                done.fault,
                dropped.get(connection, 0),
                len(late.get(connection, ())),
                [item.refused for item in late.get(connection, ()) if item.refused],
            )
            connection.send(data)
        if writer.waiting and self._retry is None:
            self._retry = self.loop.call_later(self.orders.retry_s, self._again)

    def _again(self) -> None:
        self._retry = None
        self._turn()
        if self.node.writer.waiting and self._retry is None:
            self._retry = self.loop.call_later(self.orders.retry_s, self._again)

    def _sweep(self) -> None:
        """Close the connections that have ended and whose rows are on the disk."""
        now_s = time.monotonic()
        for connection in [c for c in self._connections if c.ended]:
            if any(c is connection for c, _, _ in self._gathered):
                continue
            if connection.kept and now_s < connection.until_s:
                continue
            self._connections.discard(connection)
            self.node.gone(connection.edge)
            connection.close()
            if self._lives is not None and connection.edge.instance:
                self.suspect({connection.edge.instance})
        if self._ending and not self._connections:
            self.ended.set()


def _answer(
    group: _Group, fault: str, dropped: int, written: int, late_refused: list[str]
) -> bytes:
    """Return the frame for one connection."""
    refused = [(-1, why) for why in late_refused]
    refused += [(n, item.refused) for n, item in group.pending if item.refused]
    answers = group.answers
    if answers and (fault or refused):
        lost = {n for n, item in group.pending if fault or item.refused}
        answers = [each for each in answers if each[0] not in lost]
    if not (fault or refused or written or dropped or answers):
        return frame(b"", group.count)
    raw = tuple([(n, msgspec.Raw(_encode(answer))) for n, answer in answers])
    result = CommitResult(fault, tuple(refused), written, dropped, raw)
    return frame(_encode(result), group.count)


def _readable(raw: msgspec.Raw) -> Any:
    """Return the message; or, as a text, why it is none."""
    try:
        return _decode_one(raw)
    except msgspec.MsgspecError as error:
        return f"the node cannot read it: {error}."
