"""Which connections are kept: bounds in all and per peer, and whom to close for a new one.  No I/O.

A new connection above a bound takes the place of one that is idle: the oldest of the peer that holds
the most.  When none is idle, the new one is reserved: it may only ask for health (net/server.py).

Note: peers are counted by IPv4 address and by IPv6 network of 64 bits, as one machine has a whole
network of these.
"""

import heapq
import ipaddress
from collections.abc import Iterable
from itertools import islice
from typing import Generic, Protocol, TypeVar

import msgspec


class Closable(Protocol):
    @property
    def settled(self) -> bool:
        """Whether everything that was written to it has been sent."""
        ...


C = TypeVar("C", bound=Closable)
RESERVED = 32  # connections above the bound, for health checks; the oldest gives way to the next
_TRIED = 8  # idle connections, and peers, that are looked at for one to close


class Admitted(msgspec.Struct, Generic[C]):
    evict: C | None = None  # to be closed first; it is not counted any more
    reserved: bool = False


class _Peer(Generic[C]):
    __slots__ = ("count", "exempt", "idle", "name")

    def __init__(self, name: str, exempt: bool) -> None:
        self.name = name
        self.exempt = exempt  # from the bound per peer
        self.count = 0
        self.idle: dict[C, None] = {}  # the oldest first


class Connections(Generic[C]):
    def __init__(self, most: int, most_per_peer: int) -> None:
        self.most = most
        self.most_per_peer = most_per_peer
        self.accepted = 0  # of all time
        self.open: dict[C, _Peer[C] | None] = {}  # None: a reserved one
        self._peers: dict[str, _Peer[C]] = {}
        self._idle: dict[C, None] = {}  # the oldest first
        self._reserved: dict[C, None] = {}
        self._largest: list[_Peer[C]] | None = None

    @property
    def peers(self) -> int:
        return len(self._peers)

    def admit(self, conn: C, address: str, *, exempt: bool) -> Admitted[C]:
        """Count a new, idle connection; `exempt`: its peer has no bound of its own."""
        self.accepted += 1
        name = peer_name(address)
        peer = self._peers.get(name)
        full = len(self.open) - len(self._reserved) >= self.most
        evict: C | None = None
        if peer is not None and peer.count >= self.most_per_peer and not exempt:
            evict = _oldest(peer.idle)
            full = evict is None
        elif full:
            evict = self._spare()
            full = evict is None
        if full:
            if len(self._reserved) >= RESERVED:
                evict = next(iter(self._reserved))
                self.forget(evict)
            self.open[conn] = None
            self._reserved[conn] = None
            return Admitted(evict, True)
        if evict is not None:
            self.forget(evict)
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = _Peer(name, exempt)
        peer.count += 1
        self.open[conn] = peer
        self.idle(conn)
        return Admitted(evict)

    def forget(self, conn: C) -> None:
        """Count it no more; a second time changes nothing."""
        peer = self.open.pop(conn, None)
        self._reserved.pop(conn, None)
        self._idle.pop(conn, None)
        if peer is not None:
            peer.idle.pop(conn, None)
            peer.count -= 1
            if not peer.count:
                del self._peers[peer.name]

    def busy(self, conn: C) -> None:
        """A request has come on it: it is not closed for others until it is idle again."""
        peer = self.open.get(conn)
        if peer is not None:
            self._idle.pop(conn, None)
            peer.idle.pop(conn, None)

    def idle(self, conn: C) -> None:
        peer = self.open.get(conn)
        if peer is not None:
            self._idle[conn] = None
            peer.idle[conn] = None

    def tick(self) -> None:
        """Called about once a second: which peers are the largest is found anew when it matters."""
        self._largest = None

    def _spare(self) -> C | None:
        """The oldest idle connection of the largest peer that has one."""
        if self._largest is None:
            held = (p for p in self._peers.values() if not p.exempt)
            self._largest = heapq.nlargest(_TRIED, held, key=lambda p: p.count)
        for peer in sorted(self._largest, key=lambda p: -p.count):
            if peer.idle and peer.count > 1:
                return _oldest(peer.idle)
        return _oldest(self._idle)


def _oldest(idle: Iterable[C]) -> C | None:
    """The oldest that has nothing unsent, or simply the oldest."""
    first: C | None = None
    for conn in islice(idle, _TRIED):
        if conn.settled:
            return conn
        first = first or conn
    return first


def peer_name(address: str) -> str:
    """Under what name the connections of this address are counted."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))
