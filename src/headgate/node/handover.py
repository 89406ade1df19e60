"""What a node that ends gives to the one that takes over: counts of limits, kept replies, reasoning, health.

It goes over a unix socket in the data directory and is written to no disk, as it has what clients said.
Budgets and open exchanges are not part of it: the ledger has them, and the edges announce what they hold.

Note: times are of the machine's monotonic clock, which all its processes have in common.  A node that was
killed gives nothing, and one of another version perhaps something else; then the counts begin anew.
"""

import asyncio
import contextlib
import os
import select
import socket
from pathlib import Path

import msgspec

from headgate.policy.health import HealthSnapshot
from headgate.policy.idempotency import KeptReply
from headgate.policy.limits import BucketLevel
from headgate.policy.metrics_merge import Sample
from headgate.policy.pacing import LineOfTurns
from headgate.policy.stored_responses import KeptResponse
from headgate.reasoning.turns import KeptTurn

MAX_PATH_BYTES = 100  # the kernel takes 107
GIVE_S = 10.0  # for the other node to take it; it waits for nothing else
PIECE_BYTES = 1 << 20
TURNS = 4  # of the event loop, in which a connection that was accepted is read from

_encode = msgspec.msgpack.Encoder().encode


class HandedOver(msgspec.Struct):
    """The state of a node that nothing else knows."""

    limits: list[BucketLevel] = []
    turns: list[KeptTurn] = []  # of reasoning
    replies: list[KeptReply] = []
    pace: list[LineOfTurns] = []
    outputs: list[tuple[str, str, float]] = []  # key, model, tokens
    health: HealthSnapshot | None = None
    responses: list[KeptResponse] = []  # encrypted
    ended: list[Sample] = []  # metrics of edges that have ended


_decode = msgspec.msgpack.Decoder(HandedOver).decode


def _path(data: str | Path) -> Path | None:
    path = Path(data).absolute() / "handover.sock"
    return path if len(os.fsencode(path)) <= MAX_PATH_BYTES else None


def give(data: str | Path, state: HandedOver) -> bool:
    """Send the state to the node that waits for it; False when there is none, or it takes nothing."""
    path = _path(data)
    if path is None:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(GIVE_S)
            sock.connect(str(path))
            sock.sendall(_encode(state))
    except OSError:
        return False
    return True


class Receiver:
    """Where a node that waits for the lock is given the state of the one that has it."""

    def __init__(self, data: str | Path) -> None:
        self._path = _path(data)
        self._sock: socket.socket | None = None
        self._data = bytearray()
        self._received = asyncio.Event()
        with contextlib.suppress(OSError):  # without it the counts begin anew
            self._listen()

    def _listen(self) -> None:
        if self._path is None:
            return
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            sock.bind(str(self._path))
            sock.listen(1)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
        sock.setblocking(False)
        self._sock = sock

    async def receive(self) -> None:
        """Take what comes, until it is all there."""
        if self._sock is None:
            return
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(self._sock)
        with connection:
            connection.setblocking(False)
            while piece := await loop.sock_recv(connection, PIECE_BYTES):
                self._data += piece
        self._received.set()

    async def state(self) -> HandedOver | None:
        """What was given, once the lock is free; None: nothing, or nothing that can be read."""
        if self._sock is None:
            return None
        # Whoever gave the lock back had sent it before: it is read, or accepted, or waits to be accepted.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        waiting = self._data or self._received.is_set()
        if not waiting:
            waiting = bool(select.select([self._sock], [], [], 0)[0])
        if waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._received.wait(), GIVE_S)
        try:
            return _decode(self._data) if self._received.is_set() else None
        except msgspec.MsgspecError:
            return None

    def close(self) -> None:
        if self._sock is not None and self._path is not None:
            self._sock.close()
            self._path.unlink(missing_ok=True)
