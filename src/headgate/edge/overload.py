"""How much one edge takes on at a time, and whose request is next: the only place that applies policy/fairness.py.

The bounds are those of all edges, and each has an equal part: connections are shared out by the system,
and asking the node for a place would be a round trip for each request.

A request has a `Place` from before its body is read until it ends.  It counts among the requests in
flight, and it holds the bytes of its body, which stay in memory for as long.  Its work on the event
loop then starts at once, or, when more requests came in this turn of the loop than one turn should
start, in fair order by owner.

Work on large bodies runs in a thread (edge/large_bodies.py).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from headgate import config
from headgate.edge.counter import Worker
from headgate.edge.large_bodies import BodyThread, Job
from headgate.edge.metrics import Metrics
from headgate.edge.overload_bounds import (
    BUSY,
    FULL,
    IN_FLIGHT,
    LATE,
    OWNER_BUSY,
    OWNER_FULL,
    OWNER_PART,
    VISITOR_PART,
    default_bytes,
    machine_bytes,
    part,
)
from headgate.errors import Refused
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


class Place:
    """One request's place among those in flight, with the bytes of its body; `leave` it once it ends."""

    __slots__ = ("_bytes", "_job", "_last_s", "_left", "_overload", "_paid_s", "_share", "owner")

    def __init__(self, overload: "Overload", owner: str, share: Share) -> None:
        self._overload = overload
        self._share = share  # that the place was taken of
        self.owner = owner
        self._bytes = 0
        self._job: Job[Any] | None = None  # Any: what it returns is its caller's
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

    def hold(self, job: "Job[Any]") -> None:  # Any: what the job returns is not used here
        """Keep the bytes until the thread has ended with this job."""
        self._job = job

    def job_ended(self) -> None:
        """The thread has ended with this request's work."""
        self._job = None  # which holds what the work returned
        if self._left:
            self._release()


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
        self._thread = BodyThread(self._starts.charge)
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
                lambda: self._thread.waiting,
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
            raise Refused(LATE)
        full = share.take(owner, 1)
        if full:
            self._metrics.shed.add("in_flight" if full == "all" else "key_in_flight")
            raise Refused(BUSY if full == "all" else OWNER_BUSY)
        return Place(self, owner, share)

    def take_bytes(self, owner: str, amount: int) -> None:
        full = self.bytes.take(owner, amount)
        if full:
            self._metrics.shed.add("body_bytes" if full == "all" else "key_body_bytes")
            raise Refused(FULL if full == "all" else OWNER_FULL)

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
        job: Job[R] = Job(place.owner, lambda: work(*args, **kwargs), place.job_ended)
        place.hold(job)
        return await self._thread.run(job)

    def worker(self, place: Place) -> Worker:
        """`off_loop` for this place, to hand to those who know nothing of places."""

        async def run(work: Callable[..., Any], *args: Any) -> Any:  # Any: as `off_loop`, untyped
            return await self.off_loop(place, work, *args)

        return run

    def close(self) -> None:
        """Start no more work in the thread; what runs there ends by itself."""
        self._thread.close()

    def _is_late(self) -> int:
        late = len(self._starts) and self._starts.delay.late_since_s is not None
        return int(bool(late))
