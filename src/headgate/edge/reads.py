"""What the edge reads from the database, in a few threads: the event loop never waits for a disk or a lock.

The only place of the edge that starts threads.  What waits for a thread is bounded, so that a database
which takes seconds refuses the rest at once instead of gathering requests.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headgate.errors import Failure, Refused
from headgate.store.sqlite import StoreError

T = TypeVar("T")
THREADS = 2  # SQLite waits for the disk; more would only compete for the interpreter
MAX_WAITING = 64  # reads, running or waiting


def unavailable() -> Refused:
    """The refusal of who asks for something that only the database knows."""
    return Refused(
        Failure(
            "unavailable",
            "The gateway cannot read its database now; try again shortly.",
            code="storage_unavailable",
            retry_after_s=5,
        )
    )


class Reads:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="reads")
        self._waiting = 0

    async def __call__(self, read: Callable[[], T]) -> T:
        """The result of `read`, run in a thread; Refused when too many wait or the database fails."""
        if self._waiting >= MAX_WAITING:
            raise unavailable()
        try:
            return await self.run(read)
        except StoreError:
            raise unavailable() from None

    async def run(self, read: Callable[[], T]) -> T:
        """The same for our own tasks: without the bound, and errors come as they are."""
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, read)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
