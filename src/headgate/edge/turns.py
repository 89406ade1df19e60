"""Whose turn it is at an upstream: which routes rest, who waits for the upstream's limits, who may retry.

The only place where policy/breaker.py and limits.Pacer meet the clock.  What will surprise: a request
waits its turn only where no other route could take it; with another one left it goes there at once.
"""

import asyncio
import time

from headgate.catalog.catalog import Route
from headgate.errors import Failure, Kind, Refused
from headgate.policy.breaker import Breaker, Retries
from headgate.policy.limits import Later, Pace, Pacer, Turn


class Turns:
    def __init__(self) -> None:
        self.breaker = Breaker()
        self._retries = Retries()
        self._pacer = Pacer()

    def take(self, plan: list[Route]) -> tuple[Route, bool]:
        """The route to try now, out of `plan`, and whether this is the trial of one that rested."""
        return self.breaker.take(plan, time.monotonic())

    async def wait(self, route: Route, tokens: int, patience_s: float) -> Turn | None:
        """Wait until the upstream's limits let `tokens` through; Refused when that is too long.

        None: nobody knows its limits.
        """
        self._retries.earned(route.upstream.name)
        if route.rpm is None and route.tpm is None:
            return None
        pace = Pace(route.rpm, route.tpm)
        turn = self._pacer.ask(
            route.upstream.name, route.name, pace, tokens, time.monotonic_ns(), patience_s
        )
        if isinstance(turn, Later):
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
                self._pacer.cancel(turn)
                raise
        return turn

    def took(self, turn: Turn, tokens: int) -> None:
        """Count what the request took in the end."""
        self._pacer.settle(turn, tokens)

    def passed(self, route: Route) -> None:
        self.breaker.passed(route.place, time.monotonic())

    def failed(self, route: Route, kind: Kind) -> None:
        self.breaker.failed(route.place, kind, time.monotonic())

    def left(self, route: Route) -> None:
        """A trial ended before the upstream had shown what it is worth."""
        self.breaker.left(route.place)

    def may_retry(self, route: Route) -> bool:
        """Whether the same upstream may be asked once more; takes from its budget of retries."""
        return self._retries.spend(route.upstream.name)
