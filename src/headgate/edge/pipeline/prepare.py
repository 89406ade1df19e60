"""The first step: the body becomes a request with its routes, its reasoning and its estimate.

No upstream is asked here and nothing is reserved; what is wrong with the request is refused.
"""

import time

import msgspec

from headgate.catalog import counting
from headgate.catalog.catalog import Route
from headgate.catalog.counting import Features
from headgate.chat import Request, ToolResult
from headgate.dialects.contract import ReplyFacts
from headgate.edge import replay
from headgate.edge.overload import LOOP_BYTES, LOOP_PARTS, OFF_LOOP_BYTES
from headgate.edge.pipeline.state import Exchange
from headgate.edge.responder import Responder
from headgate.errors import invalid
from headgate.policy import fit, history, idempotency, structured
from headgate.policy.fit import Fitted
from headgate.policy.idempotency import Saved
from headgate.reasoning import sealing


class Prepared(msgspec.Struct, frozen=True):
    """A request that is ready to be admitted and sent."""

    request: Request
    routes: tuple[Route, ...]  # in the order in which they are asked
    facts: ReplyFacts
    features: Features


async def prepare(exchange: Exchange, responder: Responder) -> Prepared | None:
    """Read the request; None when the reply that its Idempotency-Key had has been sent again."""
    arrival, context, progress = exchange.arrival, exchange.context, exchange.progress
    client, dialect, key = arrival.client, arrival.dialect, arrival.entry.key
    place = arrival.entry.place
    body = await client.body(context.overload.max_body_bytes, place)
    exchange.large = len(body) >= OFF_LOOP_BYTES
    if (turn := context.overload.start(place.owner, len(body))) is not None:
        await turn
    if exchange.large:
        request = await exchange.worked(dialect.decode_request, body, arrival.target)
        exchange.large = len(body) >= LOOP_BYTES or _has_many_parts(request)
    else:
        request = dialect.decode_request(body, arrival.target)
    routes = context.routes(request.model, key, request)
    model = progress.model = routes[0].model.id
    if replay.HEADER in client.headers and await _answered_before(exchange, responder, body):
        return None
    del body  # the request has what it says, for as long as the answer takes
    if key.on_hang_up == "drain":
        client.drains = True
    progress.stream = request.stream
    for message in request.messages:
        if message.role == "assistant":  # no other role thinks
            request = await _remembered(exchange, request, routes[0])
            break
    features = await exchange.worked(counting.features, request)
    estimate = exchange.input_estimate = context.counter.estimate(model, features)
    facts = ReplyFacts(exchange.id, model, int(time.time()), estimate)
    if request.stream:
        exchange.encoder = dialect.encoder(request, facts, arrival.target)
        responder.watch_silence()
    return Prepared(request, routes, facts, features)


def _has_many_parts(request: Request) -> bool:
    """Whether the steps that look at each part would delay other requests."""
    parts = 0
    for message in request.messages:
        parts += len(message.parts)
        if message.role == "tool":
            for part in message.parts:
                if isinstance(part, ToolResult):
                    parts += len(part.parts)
        if parts > LOOP_PARTS:
            return True
    return False


async def _answered_before(exchange: Exchange, responder: Responder, body: bytes) -> bool:
    """Send the reply that this Idempotency-Key had, or record the one that it will have."""
    arrival = exchange.arrival
    target = arrival.target
    address = (arrival.dialect.name, target.model, target.stream, target.array)
    mark = await exchange.worked(idempotency.fingerprint, body, *address)
    found = await exchange.context.replays.begin(arrival.client, arrival.entry.key.id, mark)
    if isinstance(found, Saved):
        exchange.progress.outcome, exchange.progress.status = "replayed", found.status
        await replay.again(arrival.client, found)
        return True
    responder.keep(found)
    exchange.begin(found.id)
    return False


async def _remembered(exchange: Exchange, request: Request, first: Route) -> Request:
    """Return the request with the reasoning that the client returned sealed, or not at all."""
    context, origin = exchange.context, first.upstream.name
    request, sealed = await exchange.worked(sealing.unseal, request, context.sealer, origin)
    warnings: list[str] = []
    if sealed:
        warnings.append("reasoning (sealed)")
    if context.memory is not None:
        key_id = exchange.arrival.entry.key.id
        request, kept = context.memory.recall(key_id, request, time.monotonic(), origin)
        if kept:
            warnings.append("reasoning (remembered)")
    exchange.progress.recalled = tuple(warnings)
    return request


async def fitted_to(
    exchange: Exchange, prepared: Prepared, route: Route, fallbacks: tuple[str, ...] = ()
) -> Fitted:
    """Return the request as this route takes it; Refused when the route cannot.

    `fallbacks` are the warnings about routes that could not answer before.
    """
    request = prepared.request
    if route.upstream is not prepared.routes[0].upstream:
        request = sealing.unsigned(request)  # only the upstream that made a signature can read it
    dialect = exchange.arrival.dialect.name
    fitted = await exchange.worked(_fitted, request, route, dialect, exchange.input_estimate)
    exchange.progress.warnings = (*fallbacks, *fitted.request.warnings)
    if fitted.format is not None and (fault := structured.fault(fitted.format)):
        raise invalid(fault, "$.response_format")
    return fitted


def _fitted(request: Request, route: Route, dialect: str, input_estimate: int) -> Fitted:
    repaired = history.repair(request, route.capabilities, dialect)
    return fit.fit(
        repaired,
        route.capabilities,
        max_output=route.model.max_output,
        default_max_output=route.model.default_max_output,
        context_window=route.model.context_window,
        input_estimate=input_estimate,
    )
