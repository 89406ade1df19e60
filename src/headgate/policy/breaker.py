"""The circuit breaker of each route, and the budget of retries.

Five failures in a row, or half of at least twenty within ten seconds, open a route for thirty seconds,
each time longer, five minutes at most.  An open route is not asked.  Then one request probes it, and
its answer closes the route or opens it again.

Note: while no other route can take a request, an open route is probed earlier, after one second, then
two, then four, then every five seconds, so that a lone upstream that is back serves again soon.

A route that fails often enough to use up the budget of retries, but not often enough to be opened, is
demoted: for the same times it is asked after the routes that answer.
"""

import math
from collections import deque
from typing import Literal

import msgspec

from headgate.errors import FAULTS, Kind
from headgate.policy.cooldown import Pause
from headgate.policy.cooldown import State as PauseState

IN_A_ROW = 5
SHARE, OF_AT_LEAST, WINDOW_S = 0.5, 20, 10.0
OPEN_S, MAX_OPEN_S = 30.0, 300.0
EARLY_S = 5.0
MAX_RECENT = 1000  # outcomes of one route that are looked at
MAX_ROUTES = 4096  # whose failures are remembered; there are as many as configured
RETRY_SHARE, RETRY_MOST = 0.2, 10.0
State = Literal["closed", "open", "half_open"]


class CircuitStatus(msgspec.Struct, frozen=True):
    state: State
    failures: int  # in a row
    paused_s: float  # still to come
    demoted: bool = False


class _Line(msgspec.Struct, eq=False):
    row: int = 0  # failures, one after another
    recent: deque[tuple[float, bool]] = msgspec.field(
        default_factory=deque
    )  # when, and whether well
    times: int = 0  # opened in a row
    pause: Pause | None = None  # None: closed
    demotions: int = 0
    demoted_until_s: float = 0.0


class Breaker:
    """Times are seconds of one clock that does not go back."""

    def __init__(self) -> None:
        self.lines: dict[str, _Line] = {}  # of the routes that have failed lately
        self._well_s: dict[str, float] = {}  # when a route last answered

    def pause(self, place: str) -> Pause | None:
        """Why the route is not simply asked; None: it is closed."""
        line = self.lines.get(place)
        return None if line is None else line.pause

    def demoted(self, place: str, now_s: float) -> bool:
        line = self.lines.get(place)
        return line is not None and now_s < line.demoted_until_s

    def passed(self, place: str, now_s: float, *, probe: bool = False) -> None:
        """The route answered; an answer to the probe closes it."""
        if len(self._well_s) >= MAX_ROUTES and place not in self._well_s:
            self._well_s.pop(next(iter(self._well_s)))
        self._well_s[place] = now_s
        line = self.lines.get(place)
        if line is None:
            return
        line.row = 0
        if line.pause is not None:
            if not probe:
                return  # it was sent before the route was opened
            line.pause, line.times = None, 0
        self._seen(line, now_s, True)
        if all(well for _, well in line.recent) and now_s >= line.demoted_until_s:
            if line.demotions and now_s < line.demoted_until_s + MAX_OPEN_S:
                return  # so that the next demotion is longer
            del self.lines[place]

    def failed(
        self,
        place: str,
        kind: Kind,
        now_s: float,
        *,
        probe: bool = False,
        began_s: float | None = None,
    ) -> bool:
        """The route failed; True when that opened it.  What is no fault of the upstream's is an answer.

        A request that `began_s` before the last answer is in no row: of many that are sent together, the
        slowest fail last, whatever the others got.
        """
        if kind not in FAULTS:
            self.passed(place, now_s, probe=probe)
            return False
        line = self._line(place)
        if began_s is None or began_s >= self._well_s.get(place, -math.inf):
            line.row += 1
        self._seen(line, now_s, False)
        if line.pause is not None and not probe:
            return False  # it was sent before the route was opened
        bad = sum(not well for _, well in line.recent)
        often = len(line.recent) >= OF_AT_LEAST and bad >= SHARE * len(line.recent)
        if not (line.pause is not None or line.row >= IN_A_ROW or often):
            return False
        line.times += 1
        until_s = now_s + min(OPEN_S * line.times, MAX_OPEN_S)
        early_s = now_s + min(2.0 ** (line.times - 1), EARLY_S)
        fresh = line.pause is None
        line.pause = Pause(until_s, early_s, line.times, kind, "")
        line.recent.clear()
        return fresh

    def answered(self) -> dict[str, float]:
        """When each route answered last."""
        return dict(self._well_s)

    def heard(self, place: str, at_s: float) -> None:
        """Note when a route answered last, as another process knows it."""
        self._well_s[place] = at_s

    def restore(
        self,
        place: str,
        row: int,
        recent: deque[tuple[float, bool]],
        times: int,
        pause: Pause | None,
        demotions: int,
        demoted_until_s: float,
    ) -> None:
        """Have a route be as another process knows it."""
        self.lines[place] = _Line(row, recent, times, pause, demotions, demoted_until_s)

    def answered_s(self, place: str) -> float | None:
        """When the route answered last; None: it has not."""
        return self._well_s.get(place)

    def demote(self, place: str, now_s: float) -> None:
        """Ask the route after the others for a while: its failures have used up the retries."""
        line = self._line(place)
        if now_s >= line.demoted_until_s:
            line.demotions += 1
            line.demoted_until_s = now_s + min(OPEN_S * line.demotions, MAX_OPEN_S)

    def left(self, place: str) -> None:
        """The probe ended before anything was known: another request may try."""
        pause = self.pause(place)
        if pause is not None:
            pause.end_probe()

    def standing(self, place: str, now_s: float) -> CircuitStatus:
        line = self.lines.get(place)
        if line is None:
            return CircuitStatus("closed", 0, 0.0)
        demoted = now_s < line.demoted_until_s
        if line.pause is None:
            return CircuitStatus("closed", line.row, 0.0, demoted)
        left = max(0.0, line.pause.until_s - now_s)
        return CircuitStatus("open" if left else "half_open", line.row, left, demoted)

    def _line(self, place: str) -> _Line:
        line = self.lines.get(place)
        if line is None:
            if len(self.lines) >= MAX_ROUTES:
                self.lines.pop(next(iter(self.lines)))
            line = self.lines[place] = _Line()
        return line

    def _seen(self, line: _Line, now_s: float, well: bool) -> None:
        recent = line.recent
        recent.append((now_s, well))
        while recent[0][0] <= now_s - WINDOW_S or len(recent) > MAX_RECENT:
            recent.popleft()


Quality = Literal["good", "demoted", "due", "early", "shut"]
_QUALITY: dict[PauseState, Quality] = {
    "free": "good",
    "due": "due",
    "early": "early",
    "shut": "shut",
}
_ORDER: tuple[Quality, ...] = ("good", "demoted", "due", "early", "shut")


def quality(pauses: list[Pause], demoted: bool, now_s: float) -> Quality:
    """How gladly a route is asked: the worst of its pauses counts."""
    if not pauses:
        return "demoted" if demoted else "good"
    return max((_QUALITY[p.state(now_s)] for p in pauses), key=_ORDER.index)


def first(qualities: list[Quality], may_probe: bool) -> int | None:
    """Which of the routes to ask now; None when none may be asked.

    The first in the operator's order that is good, or due for a probe if the budget of retries has
    room for a probe that fails; else the first demoted one; else a probe.
    """
    for wanted in (("good", "due") if may_probe else ("good",), ("demoted",), ("due",), ("early",)):
        for n, each in enumerate(qualities):
            if each in wanted:
                return n
    return None


class Retries:
    """Budgets of retries, of each upstream and of the gateway: a fifth of their requests.

    The gateway's may be overdrawn, by as much as it holds at most: a route that answers is asked even
    when the budget is used up, and then the one that failed is demoted.
    """

    def __init__(self) -> None:
        self._left: dict[str, float] = {}  # of what is not full; "": of the gateway

    def earned(self, upstream: str) -> None:
        """A request was sent to the upstream for the first time."""
        if self._left:
            for name in ("", upstream):
                left = self._left.get(name)
                if left is not None:
                    left += RETRY_SHARE
                    if left >= RETRY_MOST:
                        del self._left[name]
                    else:
                        self._left[name] = left

    def left(self, upstream: str = "") -> bool:
        """Whether one more attempt is within the budgets."""
        if not self._left:
            return True
        return min(self._left.get("", RETRY_MOST), self._left.get(upstream, RETRY_MOST)) >= 1.0

    def spend(self, upstream: str = "") -> None:
        """Take one attempt from the gateway's budget, and from the upstream's if it is named."""
        for name in {"", upstream}:
            self._left[name] = max(self._left.get(name, RETRY_MOST) - 1.0, -RETRY_MOST)
