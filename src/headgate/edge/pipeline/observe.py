"""What an attempt has shown of its route, reported to the breaker, the cool-downs and the log."""

from headgate.edge import log as logs
from headgate.edge.pipeline.state import Exchange
from headgate.errors import Failure


def answered(exchange: Exchange) -> None:
    """Report that the route answered."""
    attempt, route = exchange.attempt, exchange.progress.route
    assert route is not None
    exchange.context.outbound.health.passed(route, attempt.probe is not None)
    attempt.probe = None


def failed(exchange: Exchange, failure: Failure) -> None:
    """Report a failure to the route's breaker or its key's cool-down, and log what it paused."""
    context, attempt, route = exchange.context, exchange.attempt, exchange.progress.route
    assert route is not None
    paused = context.outbound.health.failed(
        route, failure, attempt.began_s, attempt.probe is not None
    )
    attempt.probe = None
    if paused:
        context.reporting.metrics.upstream_pauses.add(route.upstream.name, failure.kind)
        context.reporting.log.write(
            logs.LogLine(
                logs.now(),
                "warning",
                "upstream_paused",
                exchange.id,
                model=exchange.progress.model,
                upstream=route.served_by,
                outcome=failure.kind,
                upstream_code=failure.upstream_code,
            )
        )


def nothing_seen(exchange: Exchange) -> None:
    """Release the probe of a paused route that was not asked; another request may ask it."""
    attempt = exchange.attempt
    if attempt.probe is not None:
        exchange.context.outbound.health.left(attempt.probe)
        attempt.probe = None
