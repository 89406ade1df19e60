"""Which route may be asked now: circuit breakers, cool-downs, pacing and the budgets of retries.

Breakers, cool-downs and checks are a copy of the machine's (policy/health.py): what this edge sees is
published to the node, which passes it on.  The pace of an upstream is the node's, as it is one for all edges;
the budget of retries is this edge's, a fifth of its own requests.

Note: a request waits for its turn at a paced upstream only where no other route can take it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from headgate.catalog.routes import Route
from headgate.edge import upstream
from headgate.edge.key_standing import KeyStanding, key_standings
from headgate.edge.reads import no_node
from headgate.errors import OPERATORS, Failure, Refused
from headgate.node.client import Pacing, UpstreamTurn
from headgate.policy import breaker, plans, retry
from headgate.policy.breaker import Breaker, Quality, Retries
from headgate.policy.cooldown import Cooldowns, Pause
from headgate.policy.health import HealthEvent, HealthState, What
from headgate.policy.plans import PlanStanding, PlanWindow
from headgate.policy.upstream_state import UpstreamCheck, UpstreamState, state_of
from headgate.storage.errors import StoreError


class UpstreamHealth:
    def __init__(
        self, pacing: Pacing, publish: Callable[[HealthEvent], None] = lambda event: None
    ) -> None:
        """`publish` is given what other edges should hear of."""
        self.shared = HealthState()
        self.retries = Retries()
        self._pacing = pacing
        self._publish = publish

    @property
    def breaker(self) -> Breaker:
        return self.shared.breaker

    @property
    def cooldowns(self) -> Cooldowns:
        return self.shared.cooldowns

    @property
    def checks(self) -> Mapping[str, UpstreamCheck]:
        """The last check of each upstream."""
        return self.shared.checks

    def _happened(
        self,
        what: What,
        route: Route,
        probe: bool = False,
        failure: Failure | None = None,
        began_s: float = 0.0,
    ) -> bool:
        """Apply an event of a route and publish it; whether that paused the route or its key."""
        now_s = time.monotonic()
        key = route.key
        if failure is None:
            event = HealthEvent(what, now_s, route.id, key.account, route.account_model, probe)
        else:
            event = HealthEvent(
                what,
                now_s,
                route.id,
                key.account,
                route.account_model,
                probe,
                began_s,
                failure.kind,
                failure.code,
                failure.upstream_code,
                failure.retry_after_s,
            )
        if self.shared.news(event):
            self._publish(event)
        return self.shared.apply(event)

    def checked(self, upstream: str, found: UpstreamCheck) -> None:
        """Note what a check of an upstream has found."""
        event = HealthEvent("checked", found.at_s, upstream, ok=found.ok, reason=found.reason)
        self._publish(event)
        self.shared.apply(event)

    def take(self, plan: list[Route]) -> tuple[Route, bool] | None:
        """Take the route to ask now out of `plan`, and say whether this is a probe of a paused one.

        None: none may be asked.  Who has a probe must say how it ended: `passed`, `failed` or `left`.
        """
        if not self.breaker.lines and not self.cooldowns.pauses:
            return (plan.pop(0), False) if plan else None
        now_s = time.monotonic()
        if plan and self._quality(plan[0], now_s) == "good":
            return plan.pop(0), False
        n = breaker.first([self._quality(r, now_s) for r in plan], self.retries.left())
        if n is None:
            return None
        route = plan.pop(n)
        paused = bool(self._pauses(route))
        if paused:
            self._happened("probing", route)
        return route, paused

    def others(self, plan: list[Route]) -> retry.Others:
        """What there is in `plan` to ask next."""
        now_s = time.monotonic()
        found = {self._quality(r, now_s) for r in plan}
        return "good" if "good" in found else "doubtful" if found - {"shut"} else "none"

    def closed(self, route: Route) -> bool:
        """Whether nothing keeps the route from being asked."""
        return not self._pauses(route)

    def wait_s(self, routes: tuple[Route, ...]) -> float | None:
        """Seconds until one of the routes may be asked; None: one may be asked now."""
        waits = [self._wait_s(r, time.monotonic()) for r in routes]
        return min(waits) if all(waits) else None

    def paused(self, routes: tuple[Route, ...]) -> Failure:
        """Why none of the routes may be asked now."""
        now_s = time.monotonic()
        found = [(p, r) for r in routes for p in self._pauses(r)]
        # Of several reasons, one that a retry can help comes first, and of these the shortest.
        worst, route = min(found, key=lambda f: (f[0].kind in OPERATORS, self._wait_s(f[1], now_s)))
        wait_s = self._wait_s(route, now_s)
        failure = retry.paused(route.model.id, route.upstream.name, worst.kind, worst.code, wait_s)
        owned = route.key.owner and worst.kind in OPERATORS
        return upstream.owners(failure, route) if owned else failure

    async def wait(self, route: Route, tokens: int, patience_s: float) -> UpstreamTurn | None:
        """Wait until the upstream's limits let `tokens` through; Refused when that is too long.

        None: nobody knows its limits.
        """
        if route.rpm is None and route.tpm is None:
            return None
        account = route.key.account or route.upstream.name
        try:
            turn = await self._pacing.ask(
                account, route.name, route.rpm, route.tpm, tokens, patience_s
            )
        except StoreError:
            raise no_node() from None
        if turn.retry_after_s is not None:
            raise Refused(
                Failure(
                    "rate_limit",
                    f"The gateway has no room at its upstream for {route.model.id} now.",
                    code="upstream_paced",
                    retry_after_s=turn.retry_after_s,
                    should_retry=True,
                )
            )
        if turn.wait_s:
            try:
                await asyncio.sleep(turn.wait_s)
            except asyncio.CancelledError:
                self._pacing.cancel(turn)
                raise
        return turn

    def took(self, turn: UpstreamTurn, tokens: int) -> None:
        """Count what the request took in the end."""
        self._pacing.settle(turn, tokens)

    def passed(self, route: Route, probe: bool) -> None:
        """The route answered."""
        self._happened("passed", route, probe)

    def failed(self, route: Route, failure: Failure, began_s: float, probe: bool) -> bool:
        """Count a failed attempt; True when that paused the route, or its key, which was not paused before."""
        now_s = time.time()
        if windows := plans.from_refusal(failure.upstream_code, failure.upstream_text, now_s):
            self._planned(route, windows, now_s)
            if (wait_s := plans.wait_s(windows, now_s)) is not None:
                failure = msgspec.structs.replace(failure, retry_after_s=wait_s)
        return self._happened("failed", route, probe, failure, began_s)

    def quota(self, route: Route, windows: tuple[PlanWindow, ...], reason: str) -> None:
        """Take in what the quota address says of the route's key; a used-up window pauses the key."""
        now_s = time.time()
        self._planned(route, windows, now_s, plans.wait_s(windows, now_s), True, reason)

    def _planned(
        self,
        route: Route,
        windows: tuple[PlanWindow, ...],
        now_s: float,
        pause_s: float | None = None,
        asked: bool = False,
        reason: str = "",
    ) -> None:
        """Publish how a key's plan stands; `asked`: the quota address was, and this is its answer."""
        at_s, account = time.monotonic(), route.key.account
        before = self.shared.plans.get(account, PlanStanding())
        standing = PlanStanding(
            plans.merged(before.windows, windows, now_s),
            at_s if asked else before.answered_s,
            reason if asked else before.reason,
        )
        event = HealthEvent("plan", at_s, route.id, account, retry_after_s=pause_s, plan=standing)
        self._publish(event)
        self.shared.apply(event)

    def plan_due(self, route: Route, every_s: float) -> bool:
        """Whether the quota address is to be asked about the route's key now.

        It is for keys of plans: every `every_s`, and soon after a refusal that it may explain.
        """
        now_s, account = time.monotonic(), route.key.account
        standing = self.shared.plans.get(account)
        if standing is None:
            return route.key.secret.startswith(plans.KEY_PREFIX)
        if standing.answered_s is None or now_s - standing.answered_s >= every_s:
            return True
        pause = self.cooldowns.pauses.get(account)
        paused = pause is not None and pause.code in plans.CODES and now_s < pause.until_s
        known = plans.wait_s(standing.windows, time.time()) is not None
        return paused and not known and now_s - standing.answered_s >= plans.ASK_AGAIN_S

    def plan_windows(self) -> Iterator[tuple[str, PlanWindow]]:
        """The windows that have not ended, with the account that each is of."""
        now_s = time.time()
        for account, standing in self.shared.plans.items():
            for window in plans.current(standing.windows, now_s):
                yield account, window

    def left(self, route: Route) -> None:
        """A probe ended before the upstream had shown how it is."""
        self._happened("left", route)

    def demote(self, route: Route) -> None:
        self._happened("demoted", route)

    def keys(self, routes: list[Route], now_s: float) -> list[KeyStanding]:
        """How the keys of one upstream stand; `routes`: all of it, of one upstream."""
        return key_standings(self.shared, routes, now_s)

    def state(self, routes: list[Route], now_s: float) -> UpstreamState:
        """How an upstream does, in one word; `routes`: all of it, of one upstream."""
        return state_of(
            [self.breaker.standing(r.id, now_s) for r in routes],
            [
                bool(k.kind) and not k.models
                for k in self.keys(routes, now_s)[: len(routes[0].upstream.keys)]
            ],
            self.answered_s(routes),
            self.checks.get(routes[0].upstream.name),
        )

    def answered_s(self, routes: list[Route]) -> float | None:
        """When one of the routes answered last; None: not since the start."""
        found = [self.breaker.answered_s(r.id) for r in routes]
        return max((s for s in found if s is not None), default=None)

    def _pauses(self, route: Route) -> list[Pause]:
        return self.shared.pauses(route.id, route.key.account, route.account_model)

    def _quality(self, route: Route, now_s: float) -> Quality:
        demoted = self.breaker.demoted(route.id, now_s)
        return breaker.quality(self._pauses(route), demoted, now_s)

    def _wait_s(self, route: Route, now_s: float) -> float:
        return max((p.wait_s(now_s) for p in self._pauses(route)), default=0.0)
