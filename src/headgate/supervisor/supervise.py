"""The supervisor: opens the listening sockets, starts the other processes, and replaces those that end.

No request passes it, so that it has nothing to lose.  Children that end are started again, at once if
they had run for a while; at the end they are asked to drain, and the node ends after the last edge.
"""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from headgate.config.addresses import AddressName
from headgate.supervisor.child import Child
from headgate.supervisor.sockets import Listeners
from headgate.tasks import Tasks

AGAIN_S = (0.0, 0.2, 1.0, 5.0, 30.0)  # after it ended, so many times in a row
STEADY_S = 60.0  # after so long it was well
READY_S = 60.0  # for a child to be ready
END_S = 30.0  # beyond the time of the running requests: for the edges and the node to end
REPORTED = 5  # exits in a row that are reported one by one; then every REPORTED-th


class NotReady(Exception):
    """A child ended, or hung, before it was ready; `code` is how it ended."""

    def __init__(self, name: str, code: int | None, why: str = "") -> None:
        super().__init__(why or f"the new {name} was not ready; the log says why")
        self.code = code


class Plan(msgspec.Struct, frozen=True):
    """What the children are started with."""

    data: str
    edges: int
    options: tuple[str, ...]  # of each edge
    requests_days: int = 0
    database: str = ""  # of all nodes; it has a password, so that no command line shows it
    generation: int = 1


class Supervisor:
    def __init__(
        self,
        plan: Plan,
        listeners: dict[AddressName, Listeners],
        node: socket.socket,
        stopping: asyncio.Event,
    ) -> None:
        self.exits: dict[str, int] = {"edge": 0, "node": 0}
        self.recovered: Callable[[int], None] = lambda count: None
        self._plan = plan
        self._listeners = listeners
        self._node_socket = node
        self._stopping = stopping
        self._children: set[Child] = set()
        self._edges: list[_Keeper] = []
        self._node_keeper: _Keeper | None = None
        self._released: _Keeper | None = (
            None  # of the node that another supervisor's may take over from
        )
        self._tasks = Tasks()

    async def start(self) -> None:
        """Start the node and the edges; NotReady when one of them cannot be started."""
        await self._start_node()
        self._edges = await self._generation(self._plan, self._listeners)

    async def _start_node(self) -> None:
        node = await self.begin(self._node)
        await self._until_ready(node)
        self._node_keeper = self._keep("node", self._node, node)

    def release_node(self) -> None:
        """Let the node of another supervisor take over from this one's, which is not replaced."""
        if self._node_keeper is not None:
            self._node_keeper.retire()
            self._released, self._node_keeper = self._node_keeper, None

    async def reclaim_node(self) -> None:
        """Have a node again: the same one if it still runs, else one that takes over from whichever there is."""
        if self._released is not None and self._released.keep_again():
            self._node_keeper, self._released = self._released, None
        if self._node_keeper is None:
            try:
                await self._start_node()
            except (NotReady, OSError):
                self._node_keeper = self._keep("node", self._node, None)

    def retire(self) -> None:
        """Let all edges end their requests; none is replaced."""
        edges, self._edges = self._edges, []
        for keeper in edges:
            keeper.retire()

    async def edges_ended(self) -> None:
        """Wait until no edge runs, of any generation."""
        while edges := [c for c in self._children if c.name == "edge"]:
            await asyncio.gather(*[edge.ended() for edge in edges])
            await asyncio.sleep(0)  # their keepers count them out

    async def renew(self, plan: Plan, listeners: dict[AddressName, Listeners]) -> None:
        """Start a new generation of edges, and let the old one end its requests.

        NotReady when one of the new edges cannot be started; nothing has changed then.
        """
        fresh = await self._generation(plan, listeners)
        old, self._edges = self._edges, fresh
        self._plan, self._listeners = plan, listeners
        for keeper in old:
            keeper.retire()
        for child in self._children:
            if child.name == "node":
                child.notify("settings", requests_days=plan.requests_days)

    async def _generation(
        self, plan: Plan, listeners: dict[AddressName, Listeners]
    ) -> "list[_Keeper]":
        makers = [_edge_maker(plan, listeners, n, self._heard) for n in range(plan.edges)]
        before = {name: len(each.sockets) for name, each in listeners.items()}
        edges: list[Child] = []
        try:
            for make in makers:
                edges.append(await self.begin(make))
            for edge in edges:
                await self._until_ready(edge)
        except (NotReady, OSError):
            for make, edge in zip(makers, edges, strict=False):
                if edge.ready:  # it may have taken a request
                    self._keep("edge", make, edge).retire()
                else:
                    edge.kill()
                    self._children.discard(edge)
            for name, each in listeners.items():
                each.keep_first(before[name])  # nobody accepts from the others
            raise
        return [self._keep("edge", make, edge) for make, edge in zip(makers, edges, strict=True)]

    def _node(self) -> Child:
        fd = self._node_socket.fileno()
        options = ["--data", self._plan.data, "--listen-fd", str(fd)]
        options += ["--requests-days", str(self._plan.requests_days)]
        environment = {"HEADGATE_DATABASE": self._plan.database}
        return Child("node", options, [fd], self._heard, environment)

    async def begin(self, make: Callable[[], Child]) -> Child:
        child = make()
        await child.start()
        self._children.add(child)
        child.notify("exits", exits=self.exits)
        return child

    async def _until_ready(self, child: Child) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.decided.wait(), READY_S)
        if not child.ready:
            if child.decided.is_set():
                await child.ended()
            raise NotReady(child.name, child.code, child.failure)

    def _keep(self, name: str, make: Callable[[], Child], child: Child | None) -> "_Keeper":
        """Start it again whenever it ends, until the end is asked for or it is retired."""
        keeper = _Keeper(self, name, make, child)
        self._tasks.once(name, keeper.run())
        return keeper

    def processes(self) -> list[dict[str, object]]:
        """What runs, for `headgate status`."""
        now_s = time.monotonic()
        return [
            {
                "name": child.name,
                "pid": child.pid,
                "generation": child.generation,
                "uptime_s": round(now_s - child.began_s, 1),
                "state": "ending" if child.retired else "ready" if child.ready else "starting",
            }
            for child in sorted(self._children, key=lambda c: c.began_s)
        ]

    @property
    def plan(self) -> Plan:
        return self._plan

    def ended(self, name: str, child: Child | None) -> None:
        """Count the end of a child."""
        if child is not None:
            self._children.discard(child)
        retired = child is not None and child.retired
        if not self._stopping.is_set() and not retired:
            self.exits[name] = self.exits.get(name, 0) + 1
            self._notify_exits()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _heard(self, child: Child, stated: dict[str, Any]) -> None:
        """Do what a child says; Any: its words are JSON."""
        if stated.get("event") == "ready" and stated.get("recovered"):
            self.recovered(stated["recovered"])

    def _notify_exits(self) -> None:
        for child in self._children:
            child.notify("exits", exits=self.exits)

    def notify_exits(self, name: str, count: int) -> None:
        """Count the ends of a child that is not started here."""
        if self.exits.get(name) != count:
            self.exits[name] = count
            self._notify_exits()

    async def stop(
        self,
        drain_s: float,
        drain_delay_s: float,
        hurry: asyncio.Event,
        others_ended: Callable[[float], Awaitable[None]] | None = None,
    ) -> int:
        """Drain the edges, then end the node; the worst of their exit codes.

        `others_ended`: wait, for so many seconds at most, until the edges of the supervisor before this
        one have ended, as they write to this node.
        """
        self._stopping.set()
        edges = [c for c in self._children if c.name == "edge"]
        for edge in edges:
            edge.notify("drain")

        async def hurried() -> None:
            await hurry.wait()
            for edge in edges:
                edge.notify("hurry")

        self._tasks.once("hurry", hurried())
        closing = asyncio.get_running_loop().call_later(drain_delay_s, self._close_listeners)
        within_s = drain_delay_s + drain_s + END_S
        codes = await self._all_ended(edges, within_s)
        if others_ended is not None:
            await others_ended(within_s)
        closing.cancel()
        self._close_listeners()
        nodes = [c for c in self._children if c.name == "node"]
        for node in nodes:
            node.notify("end")
        codes += await self._all_ended(nodes, END_S)
        await self._tasks.stop()
        return 1 if any(codes) else 0

    def _close_listeners(self) -> None:
        for listeners in self._listeners.values():
            listeners.close()

    async def _all_ended(self, children: list[Child], within_s: float) -> list[int]:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*[child.ended() for child in children]), within_s)
        for child in children:
            child.kill()
        return [await child.ended() for child in children]

    def kill(self, *, ready: bool = True) -> None:
        """End all of them at once, as there is no time; `ready` False: only those that are not ready."""
        for child in list(self._children):
            if ready or not child.ready:
                child.kill()


class _Keeper:
    """Keeps one place filled with a child."""

    def __init__(
        self, owner: Supervisor, name: str, make: Callable[[], Child], child: Child | None
    ) -> None:
        self._owner = owner
        self._name = name
        self._make = make
        self._child: Child | None = child
        self._retired = False

    def retire(self) -> None:
        """Let the child end its requests; it is not started again."""
        self._retired = True
        if self._child is not None:
            self._child.retired = True
            self._child.notify("retire")

    def keep_again(self) -> bool:
        """Go on after all, if the child has not ended; whether it has not."""
        if self._child is None or self._child.code is not None:
            return False
        self._retired = self._child.retired = False
        return True

    @property
    def _over(self) -> bool:
        return self._retired or self._owner.stopping

    async def run(self) -> None:
        """Start the child again whenever it ends, until nobody wants it."""
        in_a_row = 0
        while True:
            began_s, why = time.monotonic(), "it could not be started"
            if self._child is not None:
                began_s = self._child.began_s
                why = str(await self._child.ended())
            self._owner.ended(self._name, self._child)
            self._child = None
            if self._over:
                return
            in_a_row = 1 if time.monotonic() - began_s > STEADY_S else in_a_row + 1
            if in_a_row <= REPORTED or not in_a_row % REPORTED:
                again = f", for the {in_a_row}th time in a row" if in_a_row > 2 else ""
                print(
                    f"note: {self._name} ended ({why}){again}; it is started again.",
                    file=sys.stderr,
                )
            await asyncio.sleep(AGAIN_S[min(in_a_row - 1, len(AGAIN_S) - 1)])
            if self._over:
                return
            with contextlib.suppress(OSError):  # no memory, or no more processes
                self._child = await self._owner.begin(self._make)
                if self._retired:  # meanwhile
                    self._child.kill()


# How much of freed memory glibc keeps for an edge, in bytes.  By its own rules it gives the buffers of each large
# body back to the system and takes them anew for the next: 230 page faults for each request of 400 kB.
KEPT_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),  # buffers above it are given back by themselves
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "MALLOC_TOP_PAD_": str(1 << 20),
}


def _edge_maker(
    plan: Plan,
    listeners: dict[AddressName, Listeners],
    number: int,
    heard: Callable[[Child, dict[str, Any]], None],
) -> Callable[[], Child]:
    """What makes the edge of this number."""

    def make() -> Child:
        options = ["--number", str(number), "--edges", str(plan.edges)]
        options += ["--generation", str(plan.generation)]
        inherited: list[int] = []
        for name, each in listeners.items():
            fds = [s.fileno() for s in each.of_edges(plan.edges)[number]]
            options += ["--listen", f"{name}={','.join(map(str, fds))}"]
            inherited += fds
        environment = {k: v for k, v in KEPT_MEMORY.items() if k not in os.environ}
        child = Child("edge", [*options, *plan.options], inherited, heard, environment)
        child.generation = plan.generation
        return child

    return make


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
