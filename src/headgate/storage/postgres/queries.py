"""Queries of plain functions in threads: a few connections to PostgreSQL, opened when they are needed.

After a failure nothing is asked for a moment, so that a page does not wait for a database that is away
once for each of its figures.
"""

import asyncio
import contextlib
import threading
import time
from typing import Any, Protocol

from headgate.call_loop import CallLoop
from headgate.storage.errors import StoreFault
from headgate.storage.postgres.database import TIMEOUT_S, check, check_installed, faults, options

CONNECT_S = 2.0
MOST = (
    8  # connections of one process: twice the threads of the console, as files go on beside pages
)
IDLE_S = 60.0
TOO_SLOW = "This report took too long. Choose a shorter time, or a filter."
AGAIN_S = 2.0  # after a failure, until which the database counts as away


class Queries(Protocol):
    """What reports ask; `values` are those of $1, $2 and so on."""

    def fetch(
        self, sql: str, *values: object, within_s: float = TIMEOUT_S
    ) -> list[tuple[Any, ...]]:
        """Return all rows; StoreFault.  Any: the columns are as the schema and the query say."""

    def close(self) -> None: ...


class TooSlow(StoreFault):
    """Says that a query took too long, which means nothing for others."""


class PooledQueries:
    """Queries over connections that threads share."""

    def __init__(self, url: str, calls: CallLoop | None = None) -> None:
        check_installed()
        self._url = url
        self._calls = calls or CallLoop()
        self._pool: Any = None  # asyncpg's, which has no types
        self._opening = asyncio.Lock()
        self._lock = threading.Lock()
        self._away_until, self._why = 0.0, ""

    def fetch(
        self, sql: str, *values: object, within_s: float = TIMEOUT_S
    ) -> list[tuple[Any, ...]]:
        """Return all rows; StoreFault."""
        with self._lock:
            if time.monotonic() < self._away_until:
                raise StoreFault(self._why)
        try:
            with faults(self._url):
                return self._calls.run(self._fetch(sql, values, within_s))
        except TooSlow:
            raise
        except StoreFault as error:
            with self._lock:
                self._away_until, self._why = time.monotonic() + AGAIN_S, str(error)
            raise

    async def _fetch(
        self, sql: str, values: tuple[object, ...], within_s: float
    ) -> list[tuple[Any, ...]]:
        pool = await self._opened()
        db = await pool.acquire(timeout=within_s)
        try:
            found = await db.fetch(sql, *values, timeout=within_s)
        except TimeoutError:
            db.terminate()  # asyncpg would wait as long again for its query to be cancelled
            if within_s >= TIMEOUT_S:
                raise TooSlow(TOO_SLOW) from None
            raise
        finally:
            await pool.release(db)
        return [tuple(row) for row in found]

    async def _opened(self) -> Any:
        """Return the pool, which is opened by whoever comes first."""
        async with self._opening:
            if self._pool is None:
                import asyncpg

                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=MOST,
                    max_inactive_connection_lifetime=IDLE_S,
                    timeout=CONNECT_S,
                    command_timeout=TIMEOUT_S,
                    init=self._check,
                    **options(),
                )
            return self._pool

    async def _check(self, db: Any) -> None:
        await check(db, self._url)

    def close(self) -> None:
        """End all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:

            async def end() -> None:
                with contextlib.suppress(OSError):
                    pool.terminate()

            self._calls.run(end())
