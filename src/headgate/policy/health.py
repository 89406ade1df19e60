"""What is known of the upstreams' routes and keys, as events that every process of a machine applies alike.

Each edge decides with a copy of this state.  It applies its own events at once, and the node passes them on
to the others, so that all of them know within a moment what one has seen.  Times are of the machine's one
monotonic clock.

Note: an answer is news only where something was wrong, or after `NEWS_S`; so a healthy route costs nothing.
"""

from collections import deque
from typing import Literal

import msgspec

from headgate.errors import MODEL_OUTPUT, Failure, Kind
from headgate.policy import plans
from headgate.policy.breaker import Breaker
from headgate.policy.cooldown import Cooldowns, Pause
from headgate.policy.plans import PlanStanding
from headgate.policy.upstream_state import UpstreamCheck

NEWS_S = 1.0
What = Literal["passed", "failed", "left", "demoted", "probing", "checked", "plan"]
MAX_PLANS = 4096  # keys whose plans are known; there are as many as configured and owned


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
    # "plan": how the windows of the account stand now; with `retry_after_s` it is paused until then.
    plan: PlanStanding | None = None


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
    plans: dict[str, PlanStanding] = {}


class HealthState:
    """The breakers, the cool-downs and the checks of all upstreams."""

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.cooldowns = Cooldowns()
        self.checks: dict[str, UpstreamCheck] = {}  # the last one of each upstream
        self.plans: dict[str, PlanStanding] = {}  # by account

    @property
    def blank(self) -> bool:
        """Whether nothing has happened yet."""
        snapshot = self.snapshot()
        return snapshot == HealthSnapshot()

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
                opened = False
                if event.code == MODEL_OUTPUT:
                    breaker.passed(event.place, at_s, probe=event.probe)
                else:
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
            case "plan":
                return self._plan(event)
            case "checked":
                self.checks[event.place] = UpstreamCheck(at_s, event.ok, event.reason)
        return False

    def _plan(self, event: HealthEvent) -> bool:
        """Keep how a plan stands; True when its account was paused by it, and was not before."""
        assert event.plan is not None
        if len(self.plans) >= MAX_PLANS and event.account not in self.plans:
            self.plans.pop(next(iter(self.plans)))
        self.plans[event.account] = event.plan
        if event.retry_after_s is None:
            return False
        refusal = Failure(
            "upstream_quota", "", retry_after_s=event.retry_after_s, upstream_code=plans.USED_UP
        )
        began = self.cooldowns.refused(event.account, event.account, refusal, event.at_s)
        # The window's own end holds, also where it comes before a time that was guessed.
        pause = self.cooldowns.pauses[event.account]
        pause.until_s = event.at_s + event.retry_after_s
        pause.early_s = min(pause.early_s, pause.until_s)
        return began

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
            lines,
            self.breaker.answered(),
            dict(self.cooldowns.pauses),
            dict(self.checks),
            dict(self.plans),
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
        self.plans = dict(snapshot.plans)
