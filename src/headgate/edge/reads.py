"""What the edge reads from the database, in a few threads: the event loop never waits for a disk or a lock.

The only place of the edge that starts threads.  What waits for a thread is bounded, so that a database
which takes seconds refuses the rest at once instead of gathering requests.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from headgate.errors import Failure, Refused
from headgate.storage.errors import StoreError

T = TypeVar("T")
THREADS = 2  # SQLite waits for the disk; more would only compete for the interpreter
MAX_WAITING = 64  # reads, running or waiting
CLOSE_S = 1.0


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


def no_node() -> Refused:
    """The refusal of who needs the node, which is away or cannot write."""
    return Refused(
        Failure(
            "unavailable",
            "The gateway cannot write its ledger now, so it takes no new requests.",
            code="ledger_unavailable",
            retry_after_s=5,
        )
    )


class Reads:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="reads")
        self._waiting: set[Future[Any]] = set()  # also those whose caller has left

    async def __call__(self, read: Callable[[], T]) -> T:
        """The result of `read`, run in a thread; Refused when too many wait or the database fails."""
        if len(self._waiting) >= MAX_WAITING:
            raise unavailable()
        try:
            return await self.run(read)
        except StoreError:
            raise unavailable() from None

    async def run(self, read: Callable[[], T]) -> T:
        """The same for our own tasks: without the bound, and errors come as they are."""
        running = self._pool.submit(read)
        self._waiting.add(running)
        running.add_done_callback(self._waiting.discard)
        return await asyncio.wrap_future(running)

    async def close(self) -> None:
        """Wait for the reads that run, for CLOSE_S at most: their connections are closed next."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + CLOSE_S
        while self._waiting and time.monotonic() < until:
            await asyncio.sleep(0.005)
