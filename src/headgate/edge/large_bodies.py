"""Work on large bodies, in a thread beside the event loop.

The thread does one piece at a time and in fair order by owner.  Python's lock
is shared with that thread, so this bounds what others wait for and does not make the work free.
Measured with a body of 30 MB of ordinary chat (2026-11-30, one core, `sys.setswitchinterval(0.0005)`):
on the loop nothing else ran for 270 to 480 ms; with the thread the loop ran on every 1 ms, with
pauses of 40 to 90 ms inside the JSON decoder, which keeps the lock for one call.

Note: a thread cannot be stopped.  When the client of a running piece leaves, its result is dropped,
and the bytes of its body are given back when the thread has ended with it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from headgate.policy.fairness import FairQueue

R = TypeVar("R")


class Job(Generic[R]):
    """A piece of work for the thread; `on_end` is called on the loop once the thread has ended with it."""

    __slots__ = ("cpu_s", "ended", "future", "on_end", "owner", "work")

    def __init__(self, owner: str, work: Callable[[], R], on_end: Callable[[], None]) -> None:
        self.owner = owner
        self.work: Callable[[], R] | None = work
        self.on_end = on_end
        self.future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.cpu_s = 0.0
        self.ended = True  # the thread does not have it yet

    def run(self) -> R:
        """Work, in the thread."""
        assert self.work is not None
        began_s = time.thread_time()
        try:
            return self.work()
        finally:
            self.cpu_s = time.thread_time() - began_s
            self.work = None  # which holds the body


class BodyThread:
    """The thread and what waits for it, in fair order by owner."""

    def __init__(self, charge: Callable[[str, float], object]) -> None:
        """`charge` gets an owner and the CPU seconds that its job took."""
        self._charge = charge
        self._jobs: FairQueue[Job[Any]] = FairQueue()  # Any: each job's caller knows its type
        self._running: Job[Any] | None = None
        self._executor = ThreadPoolExecutor(1, "large-bodies")

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for the thread."""
        return len(self._jobs)

    async def run(self, job: Job[R]) -> R:
        """Return or raise what the job does, once its turn has come."""
        self._jobs.push(job.owner, job, time.monotonic())
        self._feed(asyncio.get_running_loop())
        return await job.future

    def close(self) -> None:
        """Start no more work; what runs in the thread ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _feed(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._running is None and len(self._jobs):
            _, job = self._jobs.pop(0.0, time.monotonic())
            if job.future.done():  # its client has gone
                continue
            self._running = job
            job.ended = False

            def ended(done: "Future[Any]") -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed; no task waits
                    loop.call_soon_threadsafe(self._job_ended, loop, done)

            self._executor.submit(job.run).add_done_callback(ended)

    def _job_ended(self, loop: asyncio.AbstractEventLoop, done: "Future[Any]") -> None:
        job, self._running = self._running, None
        assert job is not None
        job.ended = True
        self._jobs.charge(job.owner, job.cpu_s)
        self._charge(job.owner, job.cpu_s)
        error = done.exception()
        if not job.future.done():
            if error is None:
                job.future.set_result(done.result())
            else:
                job.future.set_exception(error)
        job.on_end()
        self._feed(loop)
