"""The supervisor: opens the listening sockets, starts the other processes, and replaces those that end.

No request passes it, so that it has nothing to lose.  Children that end are started again, at once if
they had run for a while; at the end they are told to drain, and the node ends after the last edge.
"""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from headgate.config import AddressName
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

    def __init__(self, name: str, code: int | None) -> None:
        super().__init__(f"{name} was not ready")
        self.code = code


class Plan(msgspec.Struct, frozen=True):
    """What the children are started with."""

    data: str
    edges: int
    options: tuple[str, ...]  # of each edge
    requests_days: int = 0
    database: str = ""  # of all nodes; it has a password, so that no command line shows it


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
        self._tasks = Tasks()

    async def start(self) -> None:
        """Start the node and the edges; NotReady when one of them cannot be started."""
        node = await self.begin(self._node)
        await self._until_ready(node)
        self._keep("node", self._node, node)
        count = self._plan.edges
        edges = [await self.begin(self._edge_maker(n)) for n in range(count)]
        for edge in edges:
            await self._until_ready(edge)
        for n, edge in enumerate(edges):
            self._keep("edge", self._edge_maker(n), edge)

    def _node(self) -> Child:
        fd = self._node_socket.fileno()
        options = ["--data", self._plan.data, "--listen-fd", str(fd)]
        options += ["--requests-days", str(self._plan.requests_days)]
        environment = {"HEADGATE_DATABASE": self._plan.database}
        return Child("node", options, [fd], self._heard, environment)

    def _edge_maker(self, number: int) -> Callable[[], Child]:
        def make() -> Child:
            count = self._plan.edges
            options, inherited = ["--number", str(number)], []
            for name, listeners in self._listeners.items():
                fds = [s.fileno() for s in listeners.of_edges(count)[number]]
                options += ["--listen", f"{name}={','.join(map(str, fds))}"]
                inherited += fds
            return Child("edge", [*options, *self._plan.options], inherited, self._heard)

        return make

    async def begin(self, make: Callable[[], Child]) -> Child:
        child = make()
        await child.start()
        self._children.add(child)
        child.tell("exits", exits=self.exits)
        return child

    async def _until_ready(self, child: Child) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.decided.wait(), READY_S)
        if not child.ready:
            if child.decided.is_set():
                await child.ended()
            raise NotReady(child.name, child.code)

    def _keep(self, name: str, make: Callable[[], Child], child: Child) -> None:
        """Start it again whenever it ends, until the end is asked for."""
        keeper = _Keeper(self, name, make, child)
        self._tasks.every(name, 0.0, keeper.round)

    def ended(self, name: str, child: Child | None) -> None:
        """Count the end of a child."""
        if child is not None:
            self._children.discard(child)
        if not self._stopping.is_set():
            self.exits[name] = self.exits.get(name, 0) + 1
            self._tell_exits()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _heard(self, child: Child, said: dict[str, Any]) -> None:
        """Do what a child says; Any: its words are JSON."""
        if said.get("event") == "ready" and said.get("recovered"):
            self.recovered(said["recovered"])

    def _tell_exits(self) -> None:
        for child in self._children:
            child.tell("exits", exits=self.exits)

    def tell_exits(self, name: str, count: int) -> None:
        """Count the ends of a child that is not started here."""
        if self.exits.get(name) != count:
            self.exits[name] = count
            self._tell_exits()

    async def stop(self, drain_s: float, drain_delay_s: float, hurry: asyncio.Event) -> int:
        """Drain the edges, then end the node; the worst of their exit codes."""
        self._stopping.set()
        edges = [c for c in self._children if c.name == "edge"]
        for edge in edges:
            edge.tell("drain")

        async def hurried() -> None:
            await hurry.wait()
            for edge in edges:
                edge.tell("hurry")

        self._tasks.once("hurry", hurried())
        closing = asyncio.get_running_loop().call_later(drain_delay_s, self._close_listeners)
        within_s = drain_delay_s + drain_s + END_S
        codes = await self._all_ended(edges, within_s)
        closing.cancel()
        self._close_listeners()
        nodes = [c for c in self._children if c.name == "node"]
        for node in nodes:
            node.tell("end")
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

    def kill(self) -> None:
        """End all of them at once, as there is no time."""
        for child in list(self._children):
            child.kill()


class _Keeper:
    """Keeps one place filled with a child."""

    def __init__(
        self, owner: Supervisor, name: str, make: Callable[[], Child], child: Child
    ) -> None:
        self._owner = owner
        self._name = name
        self._make = make
        self._child: Child | None = child
        self._in_a_row = 0

    async def round(self) -> float:
        """Wait for the child's end; how long to wait before the next one is started."""
        began_s, why = time.monotonic(), "it could not be started"
        if self._owner.stopping:
            return STEADY_S
        if self._child is None and self._in_a_row:
            with contextlib.suppress(OSError):  # no memory, or no more processes
                self._child = await self._owner.begin(self._make)
        if self._child is not None:
            began_s = self._child.began_s
            why = str(await self._child.ended())
        self._owner.ended(self._name, self._child)
        self._child = None
        if self._owner.stopping:
            return STEADY_S
        self._in_a_row = 1 if time.monotonic() - began_s > STEADY_S else self._in_a_row + 1
        if self._in_a_row <= REPORTED or not self._in_a_row % REPORTED:
            again = f", for the {self._in_a_row}th time in a row" if self._in_a_row > 2 else ""
            print(f"note: {self._name} ended ({why}){again}; it is started again.", file=sys.stderr)
        return AGAIN_S[min(self._in_a_row - 1, len(AGAIN_S) - 1)]


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
