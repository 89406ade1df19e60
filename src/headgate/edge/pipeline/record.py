"""The last step: the row of the exchange, its metrics and its log line, exactly once each."""

import time

from headgate.edge import log as logs
from headgate.edge.pipeline import observe
from headgate.edge.pipeline.state import Exchange
from headgate.edge.responder import Responder
from headgate.errors import ABANDONED
from headgate.storage.rows import LedgerRow


def attempted(exchange: Exchange, outcome: str, code: str, text: str) -> None:
    """Add the attempt that runs, if there is one, to those of the row."""
    attempt, route = exchange.attempt, exchange.progress.route
    if route is not None and attempt.running_since_s:
        took_s = time.monotonic() - attempt.running_since_s
        exchange.record.attempted(route, outcome, code, text, took_s, attempt.reply_began)
        attempt.running_since_s = 0.0
        attempt.reply_began = False


def ledger_row(exchange: Exchange, responder: Responder) -> LedgerRow:
    """Return the row of the exchange as it ended."""
    progress = exchange.progress
    assert progress.route is not None  # an intent record is opened for a route
    attempted(exchange, progress.outcome, progress.upstream_code, progress.upstream_text)
    warnings = progress.warnings
    row = exchange.record.row(
        progress.route,
        progress.outcome,
        progress.status,
        progress.usage,
        first_token_s=progress.shown_first_token_s,
        total_s=time.monotonic() - exchange.arrival.began_s,
        warnings=(*warnings, *progress.recalled) if progress.recalled else warnings,
    )
    responder.committed(row)
    return row


async def commit(exchange: Exchange, responder: Responder) -> None:
    """Commit the row, if the exchange has an intent record and no row yet."""
    if exchange.record.opened and not exchange.record.settled:
        await exchange.record.settle(ledger_row(exchange, responder))
        shared = exchange.context.reasoning.shared
        if shared is not None and shared.unsettled:  # the next turn may come to another machine
            await shared.settle()


def close(exchange: Exchange, responder: Responder) -> None:
    """Release all that the exchange holds, and count and log it, however it ended."""
    progress, attempt, context = exchange.progress, exchange.attempt, exchange.context
    responder.quiet()
    observe.nothing_seen(exchange)
    if attempt.response is not None:
        attempt.response.abort()  # one that is complete has let go of its connection
    usage = progress.usage
    tokens = usage.input + usage.output
    # Of a reply that nobody read to its end, the upstream may have counted all that was estimated.
    if attempt.paced is not None and (tokens or progress.outcome not in ABANDONED):
        context.outbound.health.took(attempt.paced, tokens)
    if exchange.record.opened and not exchange.record.settled:
        exchange.record.settle_soon(ledger_row(exchange, responder))
    attempt.translator = None  # whose filters refer back: else only the garbage collector frees it
    responder.close()
    dialect, metrics = exchange.arrival.dialect.name, context.reporting.metrics
    metrics.requests.add(dialect, progress.model, progress.outcome)
    total_s = time.monotonic() - exchange.arrival.began_s
    if attempt.counters is not None:
        attempt.counters.duration.observe(total_s)
        attempt.counters.spent(usage)
    _log(exchange, total_s)


def _log(exchange: Exchange, total_s: float) -> None:
    progress, dispute = exchange.progress, exchange.record.dispute
    level, warnings = "info", progress.warnings
    if dispute:
        level, warnings = "warning", (*warnings, dispute)
    if progress.where:
        level = "error"
    log = exchange.context.reporting.log
    if not log.wants(level):
        return
    log.write(
        logs.LogLine(
            logs.now(),
            level,
            "exchange",
            exchange.id,
            exchange.arrival.dialect.name,
            progress.model,
            progress.route.upstream.name if progress.route else "",
            exchange.arrival.entry.key.id,
            progress.status,
            progress.outcome,
            progress.stream,
            progress.attempts,
            progress.usage.input,
            progress.usage.output,
            round(progress.shown_first_token_s * 1e3, 1),
            round(total_s * 1e3, 1),
            progress.upstream_code,
            warnings,
            progress.where,
            exchange.arrival.client.client,
        )
    )
