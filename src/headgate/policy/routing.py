"""Which routes of a model are tried, and in which order.

The operator's order holds, except among routes with a weight: those share the load, and one
conversation always begins at the same of them, so that the upstream's prompt cache is warm there
(weighted rendezvous hashing, Thaler and Ravishankar 1998: when a route goes, only its own
conversations move).
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Protocol, TypeVar

from headgate.chat import Request, Text

OPENING_CHARS = 512  # of the first text of a conversation that tell it from others


class Shared(Protocol):
    @property
    def weight(self) -> int: ...  # 0: tried in its place only
    @property
    def id(self) -> str: ...  # the same after a restart


R = TypeVar("R", bound=Shared)


def ordered(routes: Sequence[R], conversation: str) -> Sequence[R]:
    """The routes, those with a weight first, in the order that this conversation keeps."""
    if len(routes) < 2:
        return routes
    sharing = [r for r in routes if r.weight > 0]
    if len(sharing) < 2:
        return routes
    sharing.sort(key=lambda r: _score(r, conversation), reverse=True)
    return [*sharing, *(r for r in routes if r.weight <= 0)]


def _score(route: Shared, conversation: str) -> float:
    text = f"{conversation}\n{route.id}"
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    drawn = (int.from_bytes(digest[:7], "big") + 1) / 2**56  # in (0, 1]
    return -route.weight / math.log(drawn) if drawn < 1 else math.inf


def conversation(request: Request, owner: str) -> str:
    """A name that stays the same over a conversation's turns: the client's own, or its first words."""
    if request.session:
        return request.session
    for message in request.messages:
        if message.role == "user":
            for part in message.parts:
                if type(part) is Text:
                    return f"{owner}\n{part.text[:OPENING_CHARS]}"
    return owner


class Ending(Protocol):
    """The end of a model at its vendor."""

    @property
    def ends(self) -> date: ...
    @property
    def successor(self) -> str: ...


class Changing(Protocol):
    """A route whose model may end, or that leads to another model than the one it is named for."""

    @property
    def retirement(self) -> Ending | None: ...
    @property
    def other(self) -> str: ...


C = TypeVar("C", bound=Changing)


def in_force(pairs: Iterable[tuple[C, C | None]], on: date) -> list[C]:
    """Return the routes on that day, of routes and their successors: a retired one is replaced."""
    return [
        successor if successor and route.retirement and route.retirement.ends <= on else route
        for route, successor in pairs
    ]


def notes(route: Changing, on: date) -> tuple[str, ...]:
    """Return what a caller is warned of: another model answers, or the one that answers ends."""
    out: tuple[str, ...] = ()
    if route.other:
        out = (f"model (answered by {route.other})",)
    if (end := route.retirement) is not None:
        verb = "retired" if end.ends <= on else "retires"
        out = (*out, f"model ({verb} {end.ends}; successor {end.successor})")
    return out


class Pooled(Protocol):
    @property
    def served_by(self) -> str: ...  # names the route and its key, the same after a restart


P = TypeVar("P", bound=Pooled)


def by_keys(pool: Sequence[P], conversation: str) -> list[P]:
    """The routes of a pool of keys, in the order that this conversation keeps.

    Rendezvous hashing as above, all keys with the same weight: the load is spread, and when a key is
    added or taken away only the conversations of that key move.
    """
    seed = f"{conversation}\n"
    return sorted(
        pool, key=lambda r: hashlib.sha256((seed + r.served_by).encode("utf-8", "replace")).digest()
    )
