"""Whose TLS handshake is next, and how handshakes ended.

A handshake is the dearest thing that a client without a key can ask for, some 1 ms of CPU.
"""

import asyncio
from collections import OrderedDict, deque
from typing import Literal, Protocol

Outcome = Literal["done", "failed", "left", "plain_http", "not_tls"]


class Handshaking(Protocol):
    """Follows a connection through its handshake."""

    def step(self) -> bool:
        """Go on; False when its client has gone meanwhile."""
        ...


class Handshakes:
    """Whose handshake is next: one in each turn of the loop, peers in rotation."""

    def __init__(self) -> None:
        # Of all time. `failed`: the client's or our side refused; `left`: the client went away.
        self.counts = dict.fromkeys(("done", "failed", "left", "plain_http", "not_tls"), 0)
        self._waiting: OrderedDict[str, deque[Handshaking]] = OrderedDict()
        self._scheduled = False

    def ask(self, layer: Handshaking, peer: str) -> None:
        """Let the layer go on with its handshake when its turn comes."""
        self._waiting.setdefault(peer, deque()).append(layer)
        self._schedule()

    def count(self, outcome: Outcome) -> None:
        self.counts[outcome] += 1

    def _schedule(self) -> None:
        if not self._scheduled and self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        while self._waiting:
            peer, layers = self._waiting.popitem(last=False)
            layer = layers.popleft()
            if layers:
                self._waiting[peer] = layers  # behind the other peers
            if layer.step():
                break  # one that has gone meanwhile costs no turn
        self._schedule()
