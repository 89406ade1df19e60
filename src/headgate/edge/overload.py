"""How much one edge takes on at a time, and whose request is next: the only place that applies policy/fairness.py.

The bounds are those of all edges, and each has an equal part: connections are shared out by the system,
and asking the node for a place would be a round trip for each request.

A request has a `Place` from before its body is read until it ends.  It counts among the requests in
flight, and it holds the bytes of its body, which stay in memory for as long.  Its work on the event
loop then starts at once, or, when more requests came in this turn of the loop than one turn should
start, in fair order by owner.

Work on large bodies runs in a thread, one piece at a time and in fair order by owner.  Python's lock
is shared with that thread, so this bounds what others wait for and does not make the work free.
Measured with a body of 30 MB of ordinary chat (2026-11-30, one core, `sys.setswitchinterval(0.0005)`):
on the loop nothing else ran for 270 to 480 ms; with the thread the loop ran on every 1 ms, with
pauses of 40 to 90 ms inside the JSON decoder, which keeps the lock for one call.

Note: a thread cannot be stopped.  When the client of a running piece leaves, its result is dropped,
and the bytes of its body are given back when the thread has ended with it.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from headgate import config
from headgate.edge.counter import Worker
from headgate.edge.metrics import Metrics
from headgate.errors import Failure, Refused
from headgate.policy.fairness import FairQueue, Share

P = ParamSpec("P")
R = TypeVar("R")

# What the starts of one turn of the loop may take; more would let one key's burst delay all streams.
TURN_CPU_S = 0.001
# What a request takes on the loop: so much, and more for each byte of a body below LOOP_BYTES.
START_CPU_S, BYTE_CPU_S = 0.0003, 8e-9
OFF_LOOP_BYTES = 128 << 10  # bodies from this size are decoded in the thread: 0.3 to 30 ms
# The other steps are on the loop up to here: most texts of a decoded body are passed on as they came, so
# that they cost some 5 us for each part, and handing them to the thread 50 to 100 us each time.
LOOP_BYTES, LOOP_PARTS = 1 << 20, 1_000
# Where values are masked, from here on: usual text takes 0.1 us for a byte, groups of digits up to 2 us.
MASKED_BYTES = 8 << 10
SWITCH_INTERVAL_S = (
    0.0005  # how long the thread may keep Python's lock from the loop (Python: 5 ms)
)
MIN_BYTES, MAX_BYTES = 64 << 20, 256 << 20  # of the default bound for bodies in flight
MEMORY_PART = 16  # of the machine; a body takes three to four times its size once it is decoded
IN_FLIGHT = 1000  # requests of one edge, where none is set
VISITOR_PART = 4  # of all requests in flight, so many more may be of those who showed no key
OWNER_PART = 4  # of all bytes in flight, what one owner may hold
RETRY_S = 1.0

_BUSY = Failure(
    "overloaded",
    "The gateway has too many requests in flight. Please try again in 1s.",
    code="overloaded",
    retry_after_s=RETRY_S,
)
_OWNER_BUSY = Failure(
    "rate_limit",
    "This key has as many requests in flight as one key may have here"
    " ([overload] in_flight_per_key). Please try again in 1s.",
    retry_after_s=RETRY_S,
)
_LATE = Failure(
    "overloaded",
    "The gateway is overloaded: requests wait too long for their start. Please try again in 1s.",
    code="overloaded",
    retry_after_s=RETRY_S,
)
_FULL = Failure(
    "overloaded",
    "The gateway holds too many bytes of request bodies. Please try again in 1s.",
    code="overloaded",
    retry_after_s=RETRY_S,
)
_OWNER_FULL = Failure(
    "rate_limit",
    "The requests of this key that are in flight have too large bodies together."
    " Please try again in 1s.",
    retry_after_s=RETRY_S,
)


class Place:
    """One request's place among those in flight, with the bytes of its body; `leave` it once it ends."""

    __slots__ = ("_bytes", "_job", "_last_s", "_left", "_overload", "_paid_s", "_share", "owner")

    def __init__(self, overload: "Overload", owner: str, share: Share) -> None:
        self._overload = overload
        self._share = share  # that the place was taken of
        self.owner = owner
        self._bytes = 0
        self._job: _Job | None = None
        self._left = False
        self._paid_s = 0.0  # counted for a turn in advance
        self._last_s = 0.0  # the work that was counted last

    def reserve(self, total: int) -> None:
        """Hold `total` bytes, in place of what is held so far; Refused when there is no room."""
        more = total - self._bytes
        if more > 0:
            self._overload.take_bytes(self.owner, more)
        elif more < 0:
            self._overload.bytes.give_back(self.owner, -more)
        self._bytes = total

    def charge(self, cpu_s: float) -> None:
        """Count work on the event loop that was done before the request's start."""
        self._overload.charge(self.owner, cpu_s - self._paid_s)
        self._paid_s, self._last_s = 0.0, cpu_s

    async def turn(self) -> None:
        """Let others work and go on in fair order, with as much work as was counted last."""
        waits = self._overload.begin(self.owner, self._last_s)
        self._paid_s = self._last_s
        await (asyncio.sleep(0) if waits is None else waits)

    def leave(self) -> None:
        """End the request's place; a second time changes nothing."""
        if self._left:
            return
        self._left = True
        self._share.give_back(self.owner, 1)
        if self._job is None or self._job.ended:
            self._release()

    def _release(self) -> None:
        if self._bytes:
            self._overload.bytes.give_back(self.owner, self._bytes)
            self._bytes = 0

    def _ended(self) -> None:
        """The thread has ended with this request's work."""
        self._job = None  # which holds what the work returned
        if self._left:
            self._release()


class _Job:
    """A piece of work for the thread."""

    __slots__ = ("cpu_s", "ended", "future", "place", "work")

    def __init__(
        self, place: Place, work: Callable[[], Any], future: "asyncio.Future[Any]"
    ) -> None:
        self.place = place
        self.work: Callable[[], Any] | None = work  # Any: what it returns is between two callers
        self.future = future
        self.cpu_s = 0.0
        self.ended = True  # the thread does not have it yet

    def run(self) -> Any:  # Any: as above
        assert self.work is not None
        began_s = time.thread_time()
        try:
            return self.work()
        finally:
            self.cpu_s = time.thread_time() - began_s
            self.work = None  # which holds the body


class Overload:
    """The places, the starts and the thread of one edge."""

    def __init__(
        self, settings: config.Overload, body_bytes: int, metrics: Metrics, edges: int = 1
    ) -> None:
        """`body_bytes` is the largest body that is taken; of `edges` this is one."""
        given = settings.body_bytes_in_flight
        self.max_body_bytes = min(body_bytes, given) if given else body_bytes
        # One body of the largest size is taken by each edge, whatever its part is.
        most = part(given, edges) if given else default_bytes(machine_bytes() // edges)
        most = max(most, self.max_body_bytes)
        in_flight = part(settings.in_flight, edges) if settings.in_flight else IN_FLIGHT
        per_key = part(settings.in_flight_per_key, edges) or in_flight
        self.in_flight = Share(in_flight, per_key)
        visitors = max(1, in_flight // VISITOR_PART)
        self.visitors = Share(visitors, visitors)  # else they could take the places of all keys
        self.bytes = Share(most, part(settings.body_bytes_per_key, edges) or most // OWNER_PART)
        self._metrics = metrics
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starts: FairQueue[tuple[float, asyncio.Future[None]]] = FairQueue()
        self._left_s = TURN_CPU_S  # of this turn of the loop
        self._jobs: FairQueue[_Job] = FairQueue()
        self._running: _Job | None = None
        self._thread = ThreadPoolExecutor(1, "large-bodies")
        for name, help, read in (
            (
                "headgate_in_flight",
                "Requests that are being answered.",
                lambda: self.in_flight.held + self.visitors.held,
            ),
            (
                "headgate_in_flight_limit",
                "The bound of requests in flight.",
                lambda: self.in_flight.most,
            ),
            (
                "headgate_body_bytes_in_flight",
                "Bytes of the bodies of requests in flight.",
                lambda: self.bytes.held,
            ),
            (
                "headgate_starts_waiting",
                "Requests whose work waits for its turn.",
                lambda: len(self._starts),
            ),
            (
                "headgate_large_bodies_waiting",
                "Work on large bodies that waits for the thread.",
                lambda: len(self._jobs),
            ),
            (
                "headgate_overloaded",
                "1 while new requests are refused because starts are late.",
                self._is_late,
            ),
        ):
            metrics.gauge(name, help, read)

    def enter(self, owner: str, visitor: bool = False) -> Place:
        """A place for one more request of this owner; Refused when there are too many, or all are late.

        `visitor`: nobody has shown a key.
        """
        share = self.visitors if visitor else self.in_flight
        if len(self._starts) and self._starts.refuses(owner, time.monotonic()):
            self._metrics.shed.add("late")
            raise Refused(_LATE)
        full = share.take(owner, 1)
        if full:
            self._metrics.shed.add("in_flight" if full == "all" else "key_in_flight")
            raise Refused(_BUSY if full == "all" else _OWNER_BUSY)
        return Place(self, owner, share)

    def take_bytes(self, owner: str, amount: int) -> None:
        full = self.bytes.take(owner, amount)
        if full:
            self._metrics.shed.add("body_bytes" if full == "all" else "key_body_bytes")
            raise Refused(_FULL if full == "all" else _OWNER_FULL)

    def start(self, owner: str, size: int = 0) -> "asyncio.Future[None] | None":
        """None: the request's work may start now; else when the future is done.  `size` is its body's."""
        return self.begin(owner, START_CPU_S + (size * BYTE_CPU_S if size < LOOP_BYTES else 0.0))

    def begin(self, owner: str, cpu_s: float) -> "asyncio.Future[None] | None":
        """None: work of so many CPU seconds may start now; else when the future is done."""
        if self._left_s > 0 and not len(self._starts):
            self.charge(owner, cpu_s)
            return None
        assert self._loop is not None
        future = self._loop.create_future()
        self._starts.push(owner, (cpu_s, future), time.monotonic())
        return future

    def charge(self, owner: str, cpu_s: float) -> None:
        """Count work on the loop that was done without a start; negative: less than was counted."""
        self._starts.start(owner, cpu_s)
        self._spend(cpu_s)

    def _spend(self, cpu_s: float) -> None:
        if self._left_s == TURN_CPU_S:
            self._next_turn_later()
        self._left_s -= cpu_s

    def _next_turn_later(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._left_s = TURN_CPU_S
        starts = self._starts
        if len(starts):
            now_s = time.monotonic()
            while self._left_s > 0 and len(starts):
                owner, (cpu_s, future) = starts.pop(0.0, now_s)
                if not future.done():  # else its client has gone
                    starts.charge(owner, cpu_s)
                    future.set_result(None)
                    self._left_s -= cpu_s
        if self._left_s < TURN_CPU_S:
            self._next_turn_later()

    async def off_loop(
        self, place: Place, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What `work` returns or raises, from the thread; it must touch nothing that the loop changes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        job = place._job = _Job(place, lambda: work(*args, **kwargs), future)
        self._jobs.push(place.owner, job, time.monotonic())
        self._feed_thread(loop)
        return await future

    def worker(self, place: Place) -> Worker:
        """`off_loop` for this place, to hand to those who know nothing of places."""

        async def run(work: Callable[..., Any], *args: Any) -> Any:  # Any: as `off_loop`, untyped
            return await self.off_loop(place, work, *args)

        return run

    def _feed_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._running is None and len(self._jobs):
            _, job = self._jobs.pop(0.0, time.monotonic())
            if job.future.done():  # its client has gone
                continue
            self._running = job
            job.ended = False

            def ended(done: "Future[Any]") -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed; no task waits
                    loop.call_soon_threadsafe(self._job_ended, loop, done)

            self._thread.submit(job.run).add_done_callback(ended)

    def _job_ended(self, loop: asyncio.AbstractEventLoop, done: "Future[Any]") -> None:
        job, self._running = self._running, None
        assert job is not None
        job.ended = True
        self._jobs.charge(job.place.owner, job.cpu_s)
        self._starts.charge(job.place.owner, job.cpu_s)
        error = done.exception()
        if not job.future.done():
            if error is None:
                job.future.set_result(done.result())
            else:
                job.future.set_exception(error)
        job.place._ended()
        self._feed_thread(loop)

    def close(self) -> None:
        """Start no more work in the thread; what runs there ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _is_late(self) -> int:
        late = len(self._starts) and self._starts.delay.late_since_s is not None
        return int(bool(late))


def part(whole: int, edges: int) -> int:
    """What one of so many edges has of a bound for all of them: together never less than it."""
    return -(-whole // edges)


def default_bytes(memory: int) -> int:
    """The bound for bodies in flight on a machine with so much memory (0: unknown)."""
    return min(MAX_BYTES, max(MIN_BYTES, memory // MEMORY_PART))


def machine_bytes() -> int:
    """The memory that this process may use, by the machine or its control group; 0 when unknown."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    with contextlib.suppress(OSError, ValueError):  # "max": no bound
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found
