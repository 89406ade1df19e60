"""Which routes rest because their upstream fails, and whether one more try may be spent on it.

Figures from promises.md 4.2: five failures in a row, or half of at least twenty within ten seconds, and
a route rests for thirty seconds, each time longer, five minutes at most.  Then one request tries it.
Retries have a budget per upstream, a fifth of its requests, so that a failing upstream is not asked
twice as often.  What will surprise: a resting route is not refused, it is tried last; so the last one
that a model has is always tried.
"""

from collections import deque
from typing import Literal, Protocol, TypeVar

import msgspec

from headgate.errors import Kind

# What says that an upstream is broken; what a request has brought upon itself says nothing.
FAULTS: frozenset[Kind] = frozenset(("upstream", "upstream_auth", "overloaded", "timeout"))
IN_A_ROW = 5
SHARE, OF_AT_LEAST, WINDOW_S = 0.5, 20, 10.0
REST_S, MAX_REST_S = 30.0, 300.0
RETRY_SHARE, RETRY_MOST = 0.2, 10.0
State = Literal["up", "resting", "half"]


class Placed(Protocol):
    @property
    def place(self) -> str: ...


R = TypeVar("R", bound=Placed)


class Standing(msgspec.Struct, frozen=True):
    state: State
    failures: int  # in a row
    resting_s: float  # still to come


class _Line(msgspec.Struct, eq=False):
    row: int = 0  # failures, one after another
    recent: deque[tuple[float, bool]] = msgspec.field(
        default_factory=deque
    )  # when, and whether well
    rests: int = 0  # in a row
    until_s: float = 0.0  # it rests; 0: it does not
    trial: bool = False  # one request is trying it


class Breaker:
    """Times are seconds of one clock that does not go back."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}  # of the places that have failed lately

    def take(self, plan: list[R], now_s: float) -> tuple[R, bool]:
        """Take out the route to try now, and say whether this is the trial of one that rested.

        The first in their order that does not rest; if all do, the first.  Who has a trial must
        say how it ended: `passed`, `failed` or `left`.
        """
        if self._lines:
            for n, route in enumerate(plan):
                line = self._lines.get(route.place)
                if line is None or not line.until_s:
                    return plan.pop(n), False
                if now_s >= line.until_s and not line.trial:
                    line.trial = True
                    return plan.pop(n), True
        return plan.pop(0), False

    def passed(self, place: str, now_s: float) -> None:
        """It answered."""
        line = self._lines.get(place)
        if line is None:
            return
        line.row = 0
        if line.until_s:
            if line.trial or now_s >= line.until_s:
                del self._lines[place]
            return
        self._seen(line, now_s, True)
        if not any(not well for _, well in line.recent):
            del self._lines[place]

    def failed(self, place: str, kind: Kind, now_s: float) -> None:
        """It did not; a kind that is no fault of the upstream counts as an answer."""
        if kind not in FAULTS:
            self.passed(place, now_s)
            return
        line = self._lines.setdefault(place, _Line())
        line.row += 1
        self._seen(line, now_s, False)
        if line.until_s and now_s < line.until_s:
            return  # tried last, for want of another
        bad = sum(not well for _, well in line.recent)
        often = len(line.recent) >= OF_AT_LEAST and bad >= SHARE * len(line.recent)
        if line.until_s or line.row >= IN_A_ROW or often:
            line.rests += 1
            line.until_s = now_s + min(REST_S * line.rests, MAX_REST_S)
            line.trial = False
            line.recent.clear()

    def left(self, place: str) -> None:
        """The trial ended before anything was known: another request may try."""
        line = self._lines.get(place)
        if line is not None:
            line.trial = False

    def standing(self, place: str, now_s: float) -> Standing:
        line = self._lines.get(place)
        if line is None:
            return Standing("up", 0, 0.0)
        if not line.until_s:
            return Standing("up", line.row, 0.0)
        left = max(0.0, line.until_s - now_s)
        return Standing("resting" if left else "half", line.row, left)

    def _seen(self, line: _Line, now_s: float, well: bool) -> None:
        recent = line.recent
        recent.append((now_s, well))
        while recent[0][0] <= now_s - WINDOW_S or len(recent) > 1000:
            recent.popleft()


class Retries:
    """How many more tries each upstream may be asked for."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}

    def earned(self, upstream: str) -> None:
        """A request was sent to it."""
        left = self._left.get(upstream)
        if left is not None:
            left += RETRY_SHARE
            if left >= RETRY_MOST:
                del self._left[upstream]
            else:
                self._left[upstream] = left

    def spend(self, upstream: str) -> bool:
        """Take one try; False when there is none left."""
        left = self._left.get(upstream, RETRY_MOST)
        if left < 1.0:
            return False
        self._left[upstream] = left - 1.0
        return True
