"""The end of a reply that is sent as one body; the sibling of streamed.py.

A structured reply that is not valid may be asked for once more before the client sees it.
"""

import time

import msgspec

from headgate.catalog.routes import Route
from headgate.chat import Finish, Reply
from headgate.edge import relay as relays
from headgate.edge import upstream
from headgate.edge.pipeline.filters import filters_for
from headgate.edge.pipeline.prepare import Prepared
from headgate.edge.pipeline.record import attempted, ledger_row
from headgate.edge.pipeline.state import Exchange
from headgate.edge.relay import Relay
from headgate.edge.responder import Responder
from headgate.errors import Refused
from headgate.net.client_errors import Broken, TimedOut
from headgate.policy import structured
from headgate.policy.fit import Fitted
from headgate.stream.translate import Whole


async def finish_whole(
    exchange: Exchange,
    prepared: Prepared,
    responder: Responder,
    route: Route,
    fitted: Fitted,
    end: Finish,
    sink: Whole,
) -> None:
    """Check that a whole reply has the form that was requested, commit its row, then send it."""
    progress = exchange.progress
    sink.collector.feed([end])
    reply = sink.collector.reply
    assert reply is not None
    if fitted.format is not None:
        reply, reason = structured.settle(reply, fitted.format)
        if (
            reason
            and exchange.context.served.settings.fidelity.repair
            and structured.repairable(reply)
        ):
            reply, reason = await _repaired(
                exchange, prepared, responder, route, fitted, reply, reason
            )
        if reason:
            progress.warnings = (*progress.warnings, "response_format (not valid)")
    progress.outcome, progress.status = reply.finish.reason, 200
    row = ledger_row(exchange, responder)
    await exchange.record.settle(row)
    finish = msgspec.structs.replace(
        reply.finish, usage=progress.usage, cost_nano=row.cost_nano_usd
    )
    reply = msgspec.structs.replace(reply, finish=finish)
    body = exchange.arrival.dialect.encode_reply(reply, prepared.request, exchange.facts)
    if exchange.turn is not None:
        await exchange.keep(body)
    responder.respond(body)


async def _repaired(
    exchange: Exchange,
    prepared: Prepared,
    responder: Responder,
    route: Route,
    fitted: Fitted,
    reply: Reply,
    reason: str,
) -> tuple[Reply, str | None]:
    """Ask once more for a structured reply and add its tokens; the old one is kept if that fails."""
    assert fitted.format is not None
    context, progress, attempt = exchange.context, exchange.progress, exchange.attempt
    again = structured.repair_request(fitted.request, reply, reason)
    reserved = await exchange.record.again(again, route)
    if reserved is None:
        progress.warnings = (*progress.warnings, "response_format (not asked again: the budget)")
        return reply, reason
    attempted(exchange, "invalid_format", "", "")
    if attempt.response is not None and not attempt.response.complete:
        await relays.let_close(attempt.response)
    progress.attempts += 1
    attempt.running_since_s = time.monotonic()
    try:
        body = await exchange.encoded(route, reserved)
        second = await upstream.begin(
            context.outbound.client, route, body, context.outbound.timeouts, exchange.id, fresh=True
        )
        del body
        attempt.response = second.response
        sink = Whole()
        chain = filters_for(exchange, route, fitted, [])
        relay = Relay(second, chain, sink, _ignore, responder.connection)
        attempt.translator = relay.translator
        end = await relays.read_whole(relay)
    except (Refused, Broken, TimedOut):
        return reply, reason
    exchange.measure(relay.translator)
    sink.collector.feed([end])
    better = sink.collector.reply
    return (reply, reason) if better is None else structured.settle(better, fitted.format)


def _ignore(out: bytes) -> None:
    """Nothing of a whole reply is sent before its end."""
