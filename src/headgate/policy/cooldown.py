"""Cool-downs: how long a key, or one model of a key, is left alone after its upstream refused it.

A refusal that says nothing about the request (rate limit, used-up plan, revoked key, missing model)
pauses what it was about, so that the next request goes to another key or route at once.  The
upstream's own time holds, within bounds; without one a default doubles with each refusal in a row.

Note: while nothing else can take a request, one request at a time is let through before the pause
ends, but not before `early_s`: an account may have been topped up meanwhile.
"""

import math
from typing import Literal

import msgspec

from headgate.errors import Failure, Kind

Scope = Literal["account", "model"]

MIN_S = 1.0  # also of an upstream that says 0, or a date in the past
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
PROBE_S = 10.0  # a request that probes for longer keeps no other from probing
MAX_PAUSES = 4096  # there are as many as keys, and models of keys


class Rule(msgspec.Struct, frozen=True):
    """What is paused, and for how long: at first without a time of the upstream's, and at most."""

    scope: Scope
    first_s: float
    most_s: float  # of the doubled default
    bound_s: float  # of the upstream's own time
    early_s: float  # after this, one request may try it if nothing else can take it
    guessed_early_s: float = HOUR_S  # the same, at most, where the upstream said no time


# By the upstream's number or by Failure.code first, then by the kind of failure.
BY_CODE: dict[str, Rule] = {
    # MiniMax: a plan's window of 5 hours or 7 days is used up; it does not say when it ends.
    "2056": Rule("account", 10 * MINUTE_S, 5 * HOUR_S, 7 * DAY_S, 5 * MINUTE_S),
    "1028": Rule("account", 10 * MINUTE_S, 5 * HOUR_S, 7 * DAY_S, 5 * MINUTE_S),
    "1030": Rule("account", 10 * MINUTE_S, 5 * HOUR_S, 7 * DAY_S, 5 * MINUTE_S),
    # The plan does not have this model, or its window is used up: the key's other models may answer.
    "2061": Rule("model", 10 * MINUTE_S, 5 * HOUR_S, 7 * DAY_S, 5 * MINUTE_S),
    # A key may lack the right to one model only.
    "upstream_forbidden": Rule("model", 30.0, 15 * MINUTE_S, HOUR_S, MINUTE_S),
}
BY_KIND: dict[Kind, Rule] = {
    # MiniMax counts its limits by the second too and says no time, so it is tried soon.
    "rate_limit": Rule("model", 2.0, MINUTE_S, HOUR_S, 5 * MINUTE_S, MIN_S),
    "upstream_auth": Rule("account", MINUTE_S, 15 * MINUTE_S, HOUR_S, MINUTE_S),
    "upstream_quota": Rule("account", 5 * MINUTE_S, HOUR_S, 7 * DAY_S, MINUTE_S),
    "upstream_config": Rule("model", 30.0, 10 * MINUTE_S, HOUR_S, MINUTE_S),
}
# An upstream without room pauses its model only when it says for how long.
BUSY = Rule("model", 0.0, 0.0, 5 * MINUTE_S, 5 * MINUTE_S)


def rule_of(failure: Failure) -> Rule | None:
    """The rule that a failure comes under; None: it pauses nothing."""
    if failure.kind == "overloaded":
        return BUSY if failure.retry_after_s is not None else None
    rule = BY_KIND.get(failure.kind)
    if rule is None:
        return None
    return BY_CODE.get(failure.upstream_code) or BY_CODE.get(failure.code, rule)


def seconds(rule: Rule, retry_after_s: float | None, times: int) -> float:
    """How long to pause after the `times`-th refusal in a row; always finite and at least MIN_S."""
    if retry_after_s is None or not math.isfinite(retry_after_s) or retry_after_s < 0:
        wait_s = min(rule.first_s * 2.0 ** min(times - 1, 32), rule.most_s)
    else:
        wait_s = min(retry_after_s, rule.bound_s)
    return max(wait_s, MIN_S)


def early(rule: Rule, retry_after_s: float | None, wait_s: float) -> float:
    """After how many seconds of the pause one request may try, if nothing else can take it."""
    early_s = min(wait_s, rule.early_s)
    return min(early_s, rule.guessed_early_s) if retry_after_s is None else early_s


# Whether something may be asked now: `free`; `due`: its pause is over, and one request may probe it;
# `early`: the same, if nothing else can take the request; `shut`: neither.
State = Literal["free", "due", "early", "shut"]


class Pause(msgspec.Struct):
    """A place that is not asked, until one request has found it well again."""

    until_s: float
    early_s: float
    times: int
    kind: Kind
    code: str
    probed_s: float = -math.inf  # when the running probe began

    def state(self, now_s: float) -> State:
        if now_s < self.probed_s + PROBE_S:
            return "shut"
        return "due" if now_s >= self.until_s else "early" if now_s >= self.early_s else "shut"

    def begin_probe(self, now_s: float) -> None:
        self.probed_s = now_s

    def end_probe(self) -> None:
        """Nothing was found out: another request may probe."""
        self.probed_s = -math.inf

    def wait_s(self, now_s: float) -> float:
        """Seconds until one request may try it, if nothing else can take it."""
        at_s = max(min(self.until_s, self.early_s), self.probed_s + PROBE_S)
        return max(0.0, at_s - now_s)


class Cooldowns:
    """The pauses of keys (by account) and of models of keys; times are of one monotonic clock."""

    def __init__(self) -> None:
        self.pauses: dict[str, Pause] = {}

    def refused(self, account: str, account_model: str, failure: Failure, now_s: float) -> bool:
        """Pause what the failure is about; True when it was not paused before."""
        rule = rule_of(failure)
        if rule is None:
            return False
        place = account if rule.scope == "account" else account_model
        pause = self.pauses.get(place)
        running = pause is not None and now_s < pause.until_s and pause.probed_s == -math.inf
        times = 1 if pause is None else pause.times if running else pause.times + 1
        wait_s = seconds(rule, failure.retry_after_s, times)
        until_s = now_s + wait_s
        if pause is not None and running:  # a request that was sent before the pause began
            if failure.retry_after_s is not None:
                pause.until_s = max(pause.until_s, until_s)
            return False
        if pause is None and len(self.pauses) >= MAX_PAUSES:
            self.pauses.pop(next(iter(self.pauses)))
        early_s = now_s + early(rule, failure.retry_after_s, wait_s)
        self.pauses[place] = Pause(until_s, early_s, times, failure.kind, failure.upstream_code)
        return pause is None

    def answered(self, *places: str) -> None:
        """A probe of these was answered."""
        for place in places:
            self.pauses.pop(place, None)

    def left(self, *places: str) -> None:
        """A probe ended before anything was known: another request may try."""
        for place in places:
            if (pause := self.pauses.get(place)) is not None:
                pause.end_probe()
