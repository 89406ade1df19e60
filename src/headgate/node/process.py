"""The node process of one machine: `headgate node`, which the supervisor starts.

It takes over from the node before it by waiting for its lock and for what that one knows, makes rows of what the dead left open, and
serves the edges until the supervisor says so or is no more, and then until the last edge has gone.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headgate.node import following, leasing
from headgate.node.following import Follower
from headgate.node.handover import Receiver, give
from headgate.node.leasing import Leasing
from headgate.node.server import Server
from headgate.node.shipping import AGAIN_S, EVERY_S, Shipper, node_id
from headgate.node.state import Node
from headgate.node.wire import KEYS_NOTICE
from headgate.storage.errors import StoreError
from headgate.storage.sqlite import retention
from headgate.storage.sqlite.database import BUSY_MS
from headgate.storage.sqlite.ledger import MAX_WAITING, ORPHAN_S, RETRY_S
from headgate.storage.sqlite.process_lock import Lives, NodeLock
from headgate.storage.sqlite.writer import WriterConfig
from headgate.tasks import Tasks

POLL_S = 0.4  # as often as edges look for changed keys
LAST_S = 2.0  # for the database to take the last rows
TAKE_OVER_S = 120.0  # for the node before this one to end; it may wait for edges that drain


class NodeProcess:
    """Holds the parts of the process, and reads its instructions."""

    def __init__(self, data: str, notify: Callable[..., None]) -> None:
        """`tell` sends the supervisor an event."""
        self._data = data
        self._notify = notify
        self._tasks = Tasks(self._failed)
        self._node: Node | None = None
        self._reading = asyncio.Lock()  # one reads the keys at a time
        self._server: Server | None = None
        self._handed_over = False
        self._requests_days = 0
        self._shipping: Shipper | None = None
        self._following: Follower | None = None
        self._leasing: Leasing | None = None
        self.lost = 0  # rows that the disk did not take

    async def run(self, listener: socket.socket, requests_days: int, database: str = "") -> None:
        """Serve until `end` was called and the last edge has gone; StoreError.

        `database`: the address of the ledger of all nodes; "": there is none.
        """
        receiver = Receiver(self._data)
        receiving = self._tasks.once("take over", receiver.receive())
        try:
            lock = await asyncio.to_thread(NodeLock, self._data, TAKE_OVER_S)
            before = await receiver.state()
        finally:
            receiving.cancel()
            receiver.close()
        orders = WriterConfig(f"{self._data}/headgate.db", BUSY_MS, MAX_WAITING, RETRY_S, ORPHAN_S)
        self._node = node = Node(self._data, orders)
        self._follow(database, node)
        if before is not None:
            node.take_over(before)
        lives = Lives(Path(self._data) / "live")
        recovered, living = node.start(lives)
        if self._leasing is not None:
            self._tasks.every("leases", leasing.GAP_S, self._leasing.work, leasing.AGAIN_S)
        self._server = server = Server(node, orders, lives)
        server.on_recovered = self._recovered
        server.suspect(living)
        server.listen(listener)
        self._tasks.every("keys", POLL_S, self._keep_fresh)
        self._shipping = shipper = self._shipper(database, node)
        self._requests_days = requests_days
        self._tasks.every("retention", retention.ROUND_S, self._prune, retention.RETRY_S)
        self._listen_to_signals()
        self._notify("ready", recovered=recovered)
        await server.ended.wait()
        await self._tasks.stop()
        self.lost = 0 if self._handed_over else node.writer.waiting
        node.close()
        if self._leasing is not None:
            await self._leasing.close()
        if self._following is not None:
            await self._following.close()
            self._following.end()
        if self._handed_over:
            await asyncio.to_thread(give, self._data, node.hand_over())
        lock.release()
        if shipper is not None:
            await self._end(shipper)

    async def _keep_fresh(self) -> None:
        """Read the keys anew if they have changed, and have the edges do so."""
        async with self._reading:
            if (
                self._node is not None
                and await self._node.keep_fresh()
                and self._server is not None
            ):
                self._server.notify_edges(KEYS_NOTICE)

    def _listen_to_signals(self) -> None:
        """Hand over on SIGUSR1; the others are for the supervisor, and stay blocked."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._hand_over)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    def _hand_over(self) -> None:
        self._handed_over = True
        if self._server is not None:
            self._server.hand_over()

    def _shipper(self, database: str, node: Node) -> Shipper | None:
        if not database:
            return None
        shipper = Shipper(self._data, database, self._note)
        node.shared.own_samples = shipper.samples
        self._tasks.every("ledger database", EVERY_S, shipper.work, AGAIN_S)
        return shipper

    def _follow(self, database: str, node: Node) -> None:
        """Keep the copy of the shared rows up to date, and lease budgets, if this directory shares them."""
        if not database:
            return
        follower = Follower(self._data, database, self._note, self._keep_fresh)
        if not follower.shared:
            follower.end()
            return
        self._following = follower
        self._tasks.every("shared rows", 0.0, follower.work, following.AGAIN_S)
        self._leasing = node.leasing = Leasing(database, node_id(Path(self._data)), self._note)

    async def _end(self, shipper: Shipper) -> None:
        """Send what is left, if the database is there and no other node does it; then let go of it."""
        if not self._handed_over:
            with contextlib.suppress(StoreError, TimeoutError):
                await asyncio.wait_for(shipper.work(), LAST_S)
        await shipper.close()
        shipper.end()

    def heard(self, stated: dict[str, Any]) -> None:
        """Do what the supervisor says; Any: its words are JSON."""
        match stated.get("word"):
            case "end":
                self.end()
            case "settings":
                self._requests_days = stated["requests_days"]

    async def _prune(self) -> float | None:
        """Delete what is too old, there first: nothing is deleted here that was not sent."""
        days = self._requests_days
        if not days:
            return None
        if self._shipping is not None:
            await self._shipping.prune(days)
        return await retention.daily(self._data, days)

    def end(self) -> None:
        if self._server is not None:
            self._server.end()
        else:
            sys.exit(0)

    def _recovered(self, count: int) -> None:
        print(f"note: {count} exchanges of a process that died are in the ledger.", file=sys.stderr)

    def _note(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr)

    def _failed(self, name: str, error: Exception) -> None:
        if name in ("ledger database", "shared rows", "leases") and isinstance(error, StoreError):
            return  # it has reported that itself, once
        why = str(error) if isinstance(error, StoreError) else type(error).__name__
        print(f"note: the node's task `{name}` failed: {why}", file=sys.stderr)
