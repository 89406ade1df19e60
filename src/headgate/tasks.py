"""Background tasks: a round that fails is counted and reported, and tried again after a while.

The only module that starts asyncio tasks which nobody awaits; tests/test_supervised.py reads the code for
others.  Note: a supervised task never ends by an error.  Who depends on what it does must look at how old
that is (edge/context.py, `stale`), as a task that fails for hours still counts as running here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

# Seconds to wait after so many failures in a row: soon at first, as a lock is gone in a moment.
BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 5.0)
Report = Callable[[str, Exception], None]


class Tasks:
    """The background tasks of one process; `stop` ends them all."""

    def __init__(self, report: Report | None = None) -> None:
        """`report` gets the task's name and what went wrong, once for each failed round."""
        self.failures: dict[str, int] = {}  # rounds that failed, by the task's name
        self.failing: dict[str, int] = {}  # the same, in a row up to now
        self._report = report
        self._running: set[asyncio.Task[Any]] = set()

    def every(
        self,
        name: str,
        seconds: float,
        work: Callable[[], Awaitable[float | None]],
        backoff_s: Sequence[float] | None = None,
    ) -> None:
        """Do `work` now and again `seconds` after it ended; it may return another time to wait.

        `backoff_s`: how long to wait after so many failures in a row, the last for all further ones.
        """
        self.failures.setdefault(name, 0)
        self.failing[name] = 0
        self._begin(name, self._rounds(name, seconds, work, backoff_s or BACKOFF_S))

    def once(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` to its end; an error is counted and reported, and does not reach who awaits it."""
        self.failures.setdefault(name, 0)
        return self._begin(name, self._guarded(name, work))

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _rounds(
        self,
        name: str,
        seconds: float,
        work: Callable[[], Awaitable[float | None]],
        backoff_s: Sequence[float],
    ) -> None:
        while True:
            wait_s = seconds
            try:
                stated = await work()
            except Exception as error:  # whatever it is: the next round must come
                self._failed(name, error)
                self.failing[name] += 1
                wait_s = backoff_s[min(self.failing[name], len(backoff_s)) - 1]
            else:
                self.failing[name] = 0
                if stated is not None:
                    wait_s = stated
            await asyncio.sleep(wait_s)

    async def _guarded(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        self.failures[name] += 1
        if self._report is not None:
            with contextlib.suppress(Exception):  # a report that fails must not end the task
                self._report(name, error)
