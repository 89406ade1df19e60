"""In which order the routes of a model are tried.

The operator's order holds, except among routes with a share: those share the load, and one
conversation always begins at the same of them, so that the upstream's prompt cache is warm there
(weighted rendezvous hashing, Thaler and Ravishankar 1998: when a route goes, only its own
conversations move).
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Shared(Protocol):
    @property
    def share(self) -> int: ...  # 0: tried in its place only
    @property
    def place(self) -> str: ...  # names the route, the same after a restart


R = TypeVar("R", bound=Shared)


def ordered(routes: Sequence[R], conversation: str) -> Sequence[R]:
    """The routes, those with a share first, in the order that this conversation keeps."""
    if len(routes) < 2:
        return routes
    sharing = [r for r in routes if r.share > 0]
    if len(sharing) < 2:
        return routes
    sharing.sort(key=lambda r: _score(r, conversation), reverse=True)
    return [*sharing, *(r for r in routes if r.share <= 0)]


def _score(route: Shared, conversation: str) -> float:
    digest = hashlib.sha256(f"{conversation}\n{route.place}".encode()).digest()
    drawn = (int.from_bytes(digest[:7], "big") + 1) / 2**56  # in (0, 1]
    return -route.share / math.log(drawn) if drawn < 1 else math.inf
