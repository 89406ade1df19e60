"""What is known of the upstreams' routes and keys, as events that every process of a machine applies alike.

Each edge decides with a copy of this state.  It applies its own events at once, and the node passes them on
to the others, so that all of them know within a moment what one has seen.  Times are of the machine's one
monotonic clock.

Note: an answer is news only where something was wrong, or after `NEWS_S`; so a healthy route costs nothing.
"""

from collections import deque
from typing import Literal

import msgspec

from headgate.errors import Failure, Kind
from headgate.policy.breaker import Breaker
from headgate.policy.cooldown import Cooldowns, Pause
from headgate.policy.upstream_state import UpstreamCheck

NEWS_S = 1.0
What = Literal["passed", "failed", "left", "demoted", "probing", "checked"]


class HealthEvent(msgspec.Struct, array_like=True, frozen=True):
    """One thing that happened to a route; `place`: the route, or for a check the upstream."""

    what: What
    at_s: float
    place: str
    account: str = ""  # of the route's key
    account_model: str = ""
    probe: bool = False
    began_s: float = 0.0
    kind: Kind = "upstream"
    code: str = ""
    upstream_code: str = ""
    retry_after_s: float | None = None
    ok: bool = True
    reason: str = ""


class _Line(msgspec.Struct, array_like=True):
    """A route of which a failure is remembered."""

    row: int
    recent: list[tuple[float, bool]]
    times: int
    pause: Pause | None
    demotions: int
    demoted_until_s: float


class HealthSnapshot(msgspec.Struct, array_like=True):
    """All of it at one moment, for a process that has just begun."""

    lines: dict[str, _Line] = {}
    answered_s: dict[str, float] = {}
    pauses: dict[str, Pause] = {}
    checks: dict[str, UpstreamCheck] = {}


class HealthState:
    """The breakers, the cool-downs and the checks of all upstreams."""

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.cooldowns = Cooldowns()
        self.checks: dict[str, UpstreamCheck] = {}  # the last one of each upstream

    @property
    def blank(self) -> bool:
        """Whether nothing has happened yet."""
        snapshot = self.snapshot()
        return not (snapshot.lines or snapshot.answered_s or snapshot.pauses or snapshot.checks)

    def news(self, event: HealthEvent) -> bool:
        """Whether other processes should hear of it; to be asked before it is applied."""
        if event.what != "passed" or event.probe or event.place in self.breaker.lines:
            return True
        last_s = self.breaker.answered_s(event.place)
        return last_s is None or event.at_s - last_s >= NEWS_S

    def apply(self, event: HealthEvent) -> bool:
        """Take in what happened; True when it paused a route, or its key, that was not paused before."""
        breaker, cooldowns, at_s = self.breaker, self.cooldowns, event.at_s
        places = (event.account, event.account_model)
        match event.what:
            case "passed":
                if event.probe:
                    cooldowns.answered(*places)
                breaker.passed(event.place, at_s, probe=event.probe)
            case "failed":
                failure = Failure(
                    event.kind,
                    "",
                    code=event.code,
                    retry_after_s=event.retry_after_s,
                    upstream_code=event.upstream_code,
                )
                began = cooldowns.refused(*places, failure, at_s)
                opened = breaker.failed(
                    event.place, event.kind, at_s, probe=event.probe, began_s=event.began_s
                )
                if event.probe:  # what this failure was not about may be probed again
                    cooldowns.left(*places)
                return began or opened
            case "left":
                cooldowns.left(*places)
                breaker.left(event.place)
            case "demoted":
                breaker.demote(event.place, at_s)
            case "probing":
                for pause in self.pauses(event.place, *places):
                    pause.begin_probe(at_s)
            case "checked":
                self.checks[event.place] = UpstreamCheck(at_s, event.ok, event.reason)
        return False

    def pauses(self, place: str, account: str, account_model: str) -> list[Pause]:
        """What keeps a route from being simply asked."""
        pauses = self.cooldowns.pauses
        found = [self.breaker.pause(place)]
        if pauses:
            found += [pauses.get(account), pauses.get(account_model)]
        return [p for p in found if p is not None]

    def snapshot(self) -> HealthSnapshot:
        lines = {
            place: _Line(
                line.row,
                list(line.recent),
                line.times,
                line.pause,
                line.demotions,
                line.demoted_until_s,
            )
            for place, line in self.breaker.lines.items()
        }
        return HealthSnapshot(
            lines, self.breaker.answered(), dict(self.cooldowns.pauses), dict(self.checks)
        )

    def restore(self, snapshot: HealthSnapshot) -> None:
        """Be as that process was."""
        self.breaker = Breaker()
        for place, line in snapshot.lines.items():
            self.breaker.restore(
                place,
                line.row,
                deque(line.recent),
                line.times,
                line.pause,
                line.demotions,
                line.demoted_until_s,
            )
        for place, at_s in snapshot.answered_s.items():
            self.breaker.heard(place, at_s)
        self.cooldowns.pauses = dict(snapshot.pauses)
        self.checks = dict(snapshot.checks)
