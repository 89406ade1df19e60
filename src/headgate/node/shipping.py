"""Sends the rows of this node's ledger to the database of all nodes (`database`), each counted once.

The node's own ledger is the journal: rows wait in it while the database is away.  How far it has come is
kept in the database, in the transaction that inserts the rows.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

from headgate import __version__
from headgate.policy.metrics_merge import Sample
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.postgres import database
from headgate.storage.postgres.database import Connection
from headgate.storage.postgres.ledger import BATCH, NodeName, NodePosition, position, prune, ship
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite import retention
from headgate.storage.sqlite.reports import UsageReader

EVERY_S = 0.2  # between two looks at the journal
ALIVE_S = 10.0  # a node without rows says this often that it lives
AGAIN_S = (0.5, 1.0, 2.0, 5.0)  # after failures in a row


def node_id(data: Path) -> str:
    """Return the id of this data directory, made on first use; StoreError."""
    path = data / "node_id"
    try:
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            file.write(secrets.token_hex(8))
        text = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from None
    if not text.isalnum():
        raise StoreError(f"{path} is damaged; remove it, and the node gets a new id.")
    return text


class Shipper:
    """One connection to the database, and how far the journal has been sent."""

    def __init__(self, data: str, url: str, report: Callable[[str], None]) -> None:
        """`report` is given a line when the database goes away and when it is back."""
        self._url = url
        self._report = report
        self._node = NodeName(node_id(Path(data)), socket.gethostname(), __version__)
        self._reader = UsageReader(data)
        self._db: Connection | None = None
        self._here: NodePosition | None = None  # None: the database has not answered yet
        self._seen_s = 0.0
        self._away = self._up = False
        self._waiting = 0  # rows that the database does not have yet
        self.caught_up = False  # all rows of the journal are in the database

    async def work(self) -> float:
        """Send what there is, and return how many seconds later to look again; StoreError."""
        try:
            with database.faults(self._url):
                while await self._send():
                    pass
        except StoreError as error:
            self.caught_up = self._up = False
            await self.close()
            self._waiting = await asyncio.to_thread(self._count_waiting)
            if not self._away:
                self._away = True
                self._report(f"the ledger is not sent to the database for now: {error}")
            raise
        self._up = True
        if self._away:
            self._away = False
            self._report("the ledger is sent to the database again.")
        return EVERY_S

    async def _send(self) -> bool:
        """Send one batch; whether more may follow."""
        db = self._db
        if db is None or db.is_closed():
            db = self._db = await database.connect(self._url)
            self._here, self._seen_s = await self._position(db), 0.0
        here = self._here
        assert here is not None
        rows, last = await asyncio.to_thread(self._read, here.last_seq)
        now_s = time.monotonic()
        if rows or now_s - self._seen_s >= ALIVE_S:
            sent = rows[-1][0] if rows else here.last_seq
            self._waiting = max(0, last - sent)
            self._here = await ship(db, self._node, rows, here, self._waiting)
            if self._here.last_seq < sent:  # the database was restored from a backup
                self.caught_up = False
                self._here = await self._position(db)
                return True
            self._seen_s = now_s
        self.caught_up = len(rows) < BATCH
        return not self.caught_up

    def _read(self, after: int) -> tuple[list[tuple[int, LedgerRow]], int]:
        return self._reader.requests_after(after, most=BATCH), self._reader.last_seq()

    def _count_waiting(self) -> int:
        return max(0, self._reader.last_seq() - self._here.last_seq) if self._here else 0

    def samples(self) -> list[Sample]:
        """Return what /metrics has of the database: whether it answers, and what it does not have yet."""
        found = [Sample("headgate_database_up", {}, float(self._up))]
        if self._here is not None:
            found.append(Sample("headgate_database_rows_waiting", {}, self._waiting))
        return found

    async def _position(self, db: Connection) -> NodePosition:
        """Return where to go on; the start, if the journal is not the one that was sent before.

        Rows that are sent again are not counted again.
        """
        found = await position(db, self._node.node_id)

        def same() -> bool:
            rows = self._reader.requests_after(found.last_seq - 1, most=1)
            return [row.request_id for _, row in rows] == [found.last_request_id]

        if found.last_seq and not await asyncio.to_thread(same):
            return NodePosition()
        return found

    async def prune(self, days: int) -> float | None:
        """Delete what is too old there; later, while rows that may be old are still here."""
        db = self._db
        if not self.caught_up or db is None:
            raise StoreFault("rows that are not sent yet are not deleted.")
        with database.faults(self._url):
            await prune(db, retention.floor_s(days, time.time()))
        return None

    async def close(self) -> None:
        """End the connection; what was not sent stays in the journal."""
        db, self._db = self._db, None
        if db is not None:
            db.terminate()

    def end(self) -> None:
        """Close the journal too, at the end of the process."""
        self._reader.close()
