"""Brings the node's copy of the shared rows up to date (`database`): on notice, and by looking.

Edges and control read the copy, so that keys work while the database is away, as they were then.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres.database import Connection
from headgate.storage.postgres.shared import CHANNEL
from headgate.storage.sharing import Copy

EVERY_S = 0.5  # without a notice; a change of the copy is known to the edges at once
AGAIN_S = (0.2, 0.5, 1.0)  # after failures in a row


class Follower:
    """One connection that listens, and the copy."""

    def __init__(
        self,
        data: str,
        url: str,
        report: Callable[[str], None],
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        """`report` is given a line when the database goes away and when it is back.

        `on_change` runs after the copy has changed.
        """
        self._on_change = on_change
        self._url = url
        self._report = report
        self._copy = Copy(data)
        self._db: Connection | None = None
        self._changed = asyncio.Event()
        self._away = False

    @property
    def shared(self) -> bool:
        """Whether there is anything to follow: this directory shares its rows."""
        return self._copy.shared

    async def work(self) -> float:
        """Bring the copy up to date, and wait for the next change for a while; StoreError."""
        try:
            with database.faults(self._url):
                await self._follow()
        except StoreError as error:
            await self.close()
            if not self._away:
                self._away = True
                self._report(f"keys and accounts are as they were last, for now: {error}")
            raise
        if self._away:
            self._away = False
            self._report("keys and accounts follow the database again.")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), EVERY_S)
        return 0.0

    async def _follow(self) -> None:
        db = self._db
        if db is None or db.is_closed():
            db = self._db = await database.connect(self._url)
            await db.add_listener(CHANNEL, lambda *_: self._changed.set())
        self._changed.clear()  # before the look: what changes meanwhile is seen in the next
        if await self._copy.pull(db):
            await self._on_change()

    async def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.terminate()

    def end(self) -> None:
        """Close the copy too, at the end of the process."""
        self._copy.close()
