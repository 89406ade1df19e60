"""The third step: the routes are asked in their order, until one of them begins to answer.

This is the only loop over attempts; policy/retry.py decides after each failure.
Note: after anything was sent to the client there is no second attempt, as tools may have run on it.
"""

import asyncio
import random
import time

from headgate.catalog.routes import Route
from headgate.edge import upstream
from headgate.edge.pipeline import observe
from headgate.edge.pipeline.admit import admit
from headgate.edge.pipeline.deliver import Delivery
from headgate.edge.pipeline.prepare import Prepared, fitted_to
from headgate.edge.pipeline.record import attempted
from headgate.edge.pipeline.state import UNKNOWN_USAGE, Exchange
from headgate.edge.responder import Responder
from headgate.errors import FINAL, NO_WORK, Failure, Refused
from headgate.policy import retry
from headgate.policy.fit import Fitted
from headgate.policy.retry import After, decide

BACKOFF_S = 0.05  # full jitter below it


class Attempts:
    """The attempts of one exchange: its routes, and what is known after each failure."""

    _failed: Failure | None = None  # what the client gets if no other route can be asked
    _fresh = False  # the next attempt is made on a new connection
    _fallbacks: tuple[str, ...] = ()  # warnings about the routes that could not answer

    def __init__(self, exchange: Exchange, prepared: Prepared, responder: Responder) -> None:
        self._exchange = exchange
        self._prepared = prepared
        self._responder = responder
        self._plan = list(prepared.routes)

    async def run(self) -> None:
        """Admit the request, then ask the routes until one answers; Refused when none does."""
        route = self._next()
        fitted = await self._fitted(route)
        lowered = await admit(self._exchange, self._prepared, route, fitted)
        if lowered is not None:
            self._prepared = lowered
            fitted = await self._fitted(route)
        while True:
            if await self._room(route, fitted):
                failure = await self._ask(route, fitted)
                if failure is None:
                    return
                await self._after(route, failure)
            route = self._next()
            fitted = await self._fitted(route)

    def _next(self) -> Route:
        """Take the route to ask now out of the plan; Refused when none may be asked."""
        exchange, health, routes = (
            self._exchange,
            self._exchange.context.outbound.health,
            self._prepared.routes,
        )
        taken = health.take(self._plan)
        if taken is None:  # also where another request took what `others` saw meanwhile
            if self._failed is None:
                raise Refused(health.paused(routes))
            raise Refused(retry.final(self._failed, health.wait_s(routes)))
        route, probe = taken
        progress = exchange.progress
        progress.route, exchange.attempt.probe = route, route if probe else None
        if route.key.owner:
            note = f"upstream key (of the {route.key.owner})"
            progress.recalled = (*(n for n in progress.recalled if n != note), note)
        if route is not routes[0] and not progress.attempts and not self._fallbacks:
            self._fallbacks = (f"fallback ({routes[0].served_by}: paused)",)
        return route

    async def _fitted(self, route: Route) -> Fitted:
        return await fitted_to(self._exchange, self._prepared, route, self._fallbacks)

    async def _room(self, route: Route, fitted: Fitted) -> bool:
        """Wait for the route's pace; False when another route is asked instead."""
        exchange, context = self._exchange, self._exchange.context
        exchange.record.sent(fitted.request, route)
        exchange.progress.usage = UNKNOWN_USAGE  # also where a failed attempt had reported some
        elsewhere = bool(self._plan) and context.outbound.health.others(self._plan) == "good"
        patience_s = 0.0 if elsewhere else context.served.settings.timeouts.pace
        tokens = exchange.input_estimate
        try:
            exchange.attempt.paced = await context.outbound.health.wait(route, tokens, patience_s)
        except Refused as no_room:
            observe.nothing_seen(exchange)
            if not elsewhere:
                raise
            self._failed = self._failed or no_room.failure
            self._fallbacks = (*self._fallbacks, f"fallback ({route.served_by}: paced)")
            return False
        return True

    async def _ask(self, route: Route, fitted: Fitted) -> Failure | None:
        """Make one attempt: None when the client has its reply, the failure when it has nothing yet."""
        exchange, context = self._exchange, self._exchange.context
        progress, attempt = exchange.progress, exchange.attempt
        if not progress.attempts:
            context.outbound.health.retries.earned(route.upstream.name)
        progress.attempts += 1
        attempt.running_since_s = attempt.began_s = time.monotonic()
        progress.upstream_code = progress.upstream_text = ""
        context.reporting.metrics.attempts.add(route.upstream.name)
        try:
            body = await exchange.encoded(route, fitted.request)
            reply = await upstream.begin(
                context.outbound.client,
                route,
                body,
                context.outbound.timeouts,
                exchange.id,
                fresh=self._fresh,
            )
            del body
        except Refused as refused:
            return refused.failure
        delivery = Delivery(exchange, self._prepared, self._responder, route, fitted)
        return await delivery.run(reply)

    async def _after(self, route: Route, failure: Failure) -> None:
        """Record a failed attempt and plan the next; Refused when there is none."""
        exchange, context = self._exchange, self._exchange.context
        health, name = context.outbound.health, route.upstream.name
        failure = upstream.without_key(failure, route)
        attempted(exchange, failure.kind, failure.upstream_code, failure.upstream_text)
        exchange.progress.upstream_code = failure.upstream_code
        exchange.progress.upstream_text = failure.upstream_text
        stale = failure.upstream_code == retry.STALE
        context.reporting.metrics.upstream_errors.add(name, retry.STALE if stale else failure.kind)
        if stale or failure.code == upstream.NO_CONNECTION:  # nothing is known of the upstream
            observe.nothing_seen(exchange)
        else:
            observe.failed(exchange, failure)
        if failure.kind not in NO_WORK:  # which another key would meet as well
            self._plan = [r for r in self._plan if r.id != route.id]
        others = health.others(self._plan)
        after = After(
            failure,
            exchange.progress.attempts,
            context.served.settings.retry.attempts,
            others,
            health.closed(route),
            health.retries.left(name if others == "none" else ""),
            self._fresh,
        )
        self._failed = retry.shown(self._failed, upstream.named(failure, route))
        decision = decide(after)
        self._fresh = decision == "fresh"
        match decision:
            case "stop":
                if failure.kind in FINAL or failure.should_retry is False:
                    raise Refused(failure)
                raise Refused(retry.final(self._failed, health.wait_s(self._prepared.routes)))
            case "other":
                if retry.demotes(after):
                    health.demote(route)
                health.retries.spend()
                code = failure.upstream_code or failure.kind
                warning = f"fallback ({route.served_by}: {failure.kind} {code})"
                self._fallbacks = (*self._fallbacks, warning)
            case "same" | "fresh":
                health.retries.spend(name)
                self._plan.insert(0, route)
                if decision == "same":
                    await asyncio.sleep(random.random() * BACKOFF_S)
