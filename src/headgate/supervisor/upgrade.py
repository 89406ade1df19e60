"""The upgrade of a running gateway: a second supervisor takes over from the first, and no request notices.

The first one starts the program as it is installed now, with its listening sockets, the node's socket and
the lock of the data directory, which both hold then.  The second one starts a node, which takes over from
the first one's, and edges.  Once all of them are ready it answers the commands, and the first supervisor
ends with the last request of its edges.  Until then any failure leaves the first one serving.

Note: the two may be of different versions.  What they send each other is here, and only grows.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headgate.config.addresses import Address, AddressName
from headgate.supervisor.child import Channel
from headgate.supervisor.sockets import Listeners

READY_S = 120.0  # for the second supervisor to be ready
CLAIM_S = 10.0  # for it to answer commands, once it may
GONE_S = 5.0  # for one that failed to end by itself
ANSWER_S = 2.0  # for the other supervisor to say what runs
HEAD_BYTES = 1 << 20  # of the first message; it has a few numbers for each socket


class UpgradeFailed(Exception):
    """The second supervisor did not come up; the first one serves on."""


class InheritedAddress(msgspec.Struct, frozen=True):
    """Names the sockets of one address by their descriptors."""

    name: AddressName
    host: str
    port: int  # as it was configured: 0 for any
    fds: tuple[int, ...]
    given: bool = False  # by the service manager


class Inheritance(msgspec.Struct, frozen=True):
    """What the second supervisor is given; all numbers are descriptors that it inherits."""

    data: str
    generation: int  # of the first one's edges
    lock: int
    node: int
    node_path: str
    addresses: tuple[InheritedAddress, ...]

    @property
    def fds(self) -> list[int]:
        return [self.lock, self.node, *(fd for each in self.addresses for fd in each.fds)]


def inherited_addresses(
    listeners: Mapping[AddressName, Listeners],
) -> tuple[InheritedAddress, ...]:
    """Describe the sockets that are open."""
    return tuple(
        InheritedAddress(
            name,
            each.host,
            each.configured_port,
            tuple(sock.fileno() for sock in each.sockets),
            each.given,
        )
        for name, each in listeners.items()
    )


class Successor:
    """The second supervisor, as the first one sees it."""

    def __init__(self, release_node: Callable[[], None], report: Callable[[], object]) -> None:
        """`release_node`: let its node take over; `report`: have `processes` called."""
        self.pid = 0
        self.version = ""
        self.asked = asyncio.Event()  # to end the running requests in time
        self.hurry = asyncio.Event()
        self._release_node = release_node
        self._report = report
        self._changed = asyncio.Event()
        self._stated: set[str] = set()
        self._why = ""
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, given: Inheritance, options: Sequence[str], out: tuple[int, int]) -> None:
        """Start it; OSError.  `out`: its standard output and error, which must outlive this process."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "headgate.cli", "serve", *options]
        with theirs:
            try:
                # Not asyncio's, which ends a process with the event loop that has started it.
                self._process = subprocess.Popen(
                    [*command, "--take-over-from", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=out[0],
                    stderr=out[1],
                    pass_fds=[theirs.fileno(), *given.fds],
                )
                ours.sendall(msgspec.json.encode(given) + b"\n")
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self.pid = self._process.pid
        self._channel = Channel(self._heard, self._lost, ours)

    def _heard(self, stated: dict[str, Any]) -> None:
        """Note what it says; Any: its words are JSON."""
        match stated.get("event"):
            case "node":
                self._release_node()
                self._notify("released")
            case "failed":
                self._why = str(stated.get("why", ""))
            case "ready":
                self.version = str(stated.get("version", ""))
            case "drain":
                self.asked.set()
            case "hurry":
                self.hurry.set()
            case "processes":
                self._report()
        self._stated.add(str(stated.get("event")))
        self._changed.set()

    def cancel(self) -> None:
        """Have the upgrade fail."""
        self._why = "the gateway is ending"
        self._stated = {"lost"}
        self._changed.set()

    def _lost(self) -> None:
        self._stated.add("lost")
        self._changed.set()
        self.asked.set()  # nobody is left who could serve: end what runs here

    def _notify(self, event: str, **more: object) -> None:
        if self._channel is not None:
            self._channel.notify(event, **more)

    def processes(self, found: list[dict[str, object]]) -> None:
        """Say what runs here, for its status."""
        self._notify("processes", processes=found)

    async def _until(self, event: str, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while event not in self._stated and "lost" not in self._stated:
                    self._changed.clear()
                    await self._changed.wait()
        if event in self._stated and "lost" not in self._stated:
            return
        why = self._why or "it ended before it was ready; the log says why"
        if "lost" not in self._stated:
            why = f"it was not ready within {within_s:g} s"
        raise UpgradeFailed(why)

    async def ready(self) -> None:
        """Wait until its node and its edges serve; UpgradeFailed."""
        await self._until("ready", READY_S)

    async def claim(self) -> None:
        """Have it answer the commands from now on; UpgradeFailed."""
        self._notify("go")
        await self._until("serving", CLAIM_S)

    async def abort(self) -> None:
        """End it, and wait until it has ended."""
        self._notify("abort")
        process = self._process
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, GONE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class Predecessor:
    """The first supervisor, as the second one sees it."""

    def __init__(self, fd: int) -> None:
        """Read what it gives; ValueError when that cannot be understood."""
        self._sock = socket.socket(fileno=fd)
        os.set_inheritable(fd, False)
        head = b""
        while not head.endswith(b"\n"):
            piece = self._sock.recv(1)  # what comes behind it is for the channel
            if not piece or len(head) > HEAD_BYTES:
                raise ValueError("the running supervisor did not say what it hands over")
            head += piece
        self.given = msgspec.json.decode(head, type=Inheritance)
        self._sock.setblocking(False)
        self._channel: Channel | None = None
        self._stated: dict[str, asyncio.Event] = {}
        self._processes: list[dict[str, object]] = []
        self._abort: Callable[[], None] = lambda: None

    def failed(self, why: str) -> None:
        """Report why this supervisor ends, before it has a loop or with one."""
        with contextlib.suppress(OSError):
            self._sock.send(msgspec.json.encode({"event": "failed", "why": why}) + b"\n")

    def attach(self, abort: Callable[[], None]) -> None:
        """Hear it from now on; `abort` ends this process and its children at once."""
        self._abort = abort
        words = ("released", "go", "processes", "lost")
        self._stated = {word: asyncio.Event() for word in words}
        self._channel = Channel(self._heard, self._lost, self._sock)

    def _heard(self, stated: dict[str, Any]) -> None:
        event = str(stated.get("event"))
        if event == "abort":
            self._abort()
        if event == "processes":
            self._processes = list(stated["processes"])
        if event in self._stated:
            self._stated[event].set()

    def _lost(self) -> None:
        """Go on alone: its edges drain by themselves, and nobody else serves the data directory."""
        self._processes = []
        for event in self._stated.values():
            event.set()

    def _notify(self, event: str, **more: object) -> None:
        if self._channel is not None and not self.gone:
            self._channel.notify(event, **more)

    @property
    def gone(self) -> bool:
        return self._stated["lost"].is_set()

    async def release_node(self) -> None:
        """Have it let go of its node, which it would replace otherwise."""
        self._notify("node")
        await self._stated["released"].wait()

    async def ready(self, version: str) -> None:
        """Report that all processes serve, and wait for leave to answer the commands."""
        self._notify("ready", version=version)
        await self._stated["go"].wait()

    def serving(self) -> None:
        """Report that the commands reach this supervisor: the first one retires its edges."""
        self._notify("serving")

    async def processes(self) -> list[dict[str, object]]:
        """What of the first one still runs."""
        if self.gone:
            return []
        self._stated["processes"].clear()
        self._notify("processes")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stated["processes"].wait(), ANSWER_S)
        return self._processes

    def drain(self) -> None:
        """Have it end its running requests in time."""
        self._notify("drain")

    def hurry(self) -> None:
        self._notify("drain")
        self._notify("hurry")

    async def ended(self, within_s: float | None) -> None:
        """Wait for its end, for so long at most; None: as long as it takes."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stated["lost"].wait(), within_s)


def adopt(
    address: Address, given: Sequence[InheritedAddress], taken: set[AddressName]
) -> Listeners | None:
    """Return the inherited sockets of an address; None when there are none.  `taken`: names already adopted."""
    fits = [e for e in given if (e.host, e.port) == (address.host, address.port)]
    fits = [e for e in fits if e.name not in taken and (e.port or e.name == address.name)]
    fits.sort(key=lambda e: e.name != address.name)
    if not fits:
        return None
    found = fits[0]
    taken.add(found.name)
    sockets = [socket.socket(fileno=fd) for fd in found.fds]
    for sock in sockets:
        sock.set_inheritable(False)
        sock.setblocking(False)
    return Listeners(found.host, found.port, sockets, given=found.given)
