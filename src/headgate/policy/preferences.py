"""Which of the operator's routes a caller prefers: sorted, limited to some upstreams or data regions.

Preferences come from the key, a preset, the header `x-headgate-route` and the body's `provider`; each
can only narrow what the one before allows, and the last one that sorts counts.  Source of `provider`:
openrouter.ai/docs, provider routing (2026-11).
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from headgate.chat import Preferences
from headgate.dialects.provider import parsed

NONE = Preferences()


def written(preferences: Preferences) -> str:
    """Return the text of preferences, as a row shows it."""
    parts = []
    if preferences.sort:
        parts.append(f"sort={preferences.sort}")
    for name in ("only", "ignore", "regions"):
        if values := getattr(preferences, name):
            parts.append(f"{name}={','.join(values)}")
    return "; ".join(parts)


def narrowed(wide: Preferences, more: Preferences) -> Preferences:
    """Return what both allow; the sort of the second counts where it has one."""
    return Preferences(
        sort=more.sort or wide.sort,
        only=_both(wide.only, more.only),
        ignore=tuple(dict.fromkeys(wide.ignore + more.ignore)),
        regions=_both(wide.regions, more.regions),
    )


def _both(a: tuple[str, ...] | None, b: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if a is None or b is None:
        return b if a is None else a
    return tuple(name for name in a if name in frozenset(b))


class Placed(Protocol):
    @property
    def upstream(self) -> "Where": ...


class Where(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def region(self) -> str: ...


R = TypeVar("R", bound=Placed)


def allowed(routes: Sequence[R], preferences: Preferences) -> list[R]:
    """Return the routes that the preferences leave, in their order."""
    return [
        r
        for r in routes
        if (preferences.only is None or r.upstream.name.lower() in preferences.only)
        and r.upstream.name.lower() not in preferences.ignore
        and (preferences.regions is None or r.upstream.region.lower() in preferences.regions)
    ]


class Figures(msgspec.Struct, frozen=True):
    """What is known of one route; None: nothing yet."""

    price_nano: int | None = None  # of a usual request
    first_token_s: float | None = None
    tokens_per_s: float | None = None


def sorted_by(sort: str, routes: Sequence[R], figures: Callable[[R], Figures]) -> list[R]:
    """Return the routes, the best one first; equals stay in the operator's order.

    A price that is not known comes last.  A speed that is not known comes first, so that it is measured.
    """

    def rank(route: R) -> float:
        known = figures(route)
        match sort:
            case "price":
                return math.inf if known.price_nano is None else known.price_nano
            case "latency":
                return -1.0 if known.first_token_s is None else known.first_token_s
            case _:
                return -math.inf if known.tokens_per_s is None else -known.tokens_per_s

    return sorted(routes, key=rank)


__all__ = ["NONE", "Figures", "allowed", "narrowed", "parsed", "sorted_by", "written"]
