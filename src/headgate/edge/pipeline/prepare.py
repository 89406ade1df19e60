"""The first step: the body becomes a request with its routes, its reasoning and its estimate.

No upstream is asked here and nothing is reserved; what is wrong with the request is refused.
"""

import time
from datetime import UTC, datetime

import msgspec

from headgate.catalog import counting
from headgate.catalog.counting import RequestSize
from headgate.catalog.routes import Route
from headgate.chat import Request, ToolResult
from headgate.dialects.contract import ReplyFacts
from headgate.dialects.registry import COMPACT
from headgate.dialects.responses.reply_wire import storing
from headgate.edge import replay
from headgate.edge.fitting import fitted_request
from headgate.edge.masker import masker_of
from headgate.edge.model_routes import routes_of, wish_of
from headgate.edge.overload import LOOP_BYTES, LOOP_PARTS, MASKED_BYTES, OFF_LOOP_BYTES
from headgate.edge.pipeline.state import Exchange
from headgate.edge.responder import Responder
from headgate.edge.tags import TAGS_HEADER, tagged
from headgate.errors import invalid
from headgate.policy import idempotency, preferences, routing, schemas, web_search
from headgate.policy.fit import Fitted
from headgate.policy.idempotency import Saved
from headgate.reasoning import sealing

ROUTE_HEADER = "x-headgate-route"  # as policy/preferences.py reads it


class Prepared(msgspec.Struct, frozen=True):
    """A request that is ready to be admitted and sent."""

    request: Request
    routes: tuple[Route, ...]  # in the order in which they are asked
    size: RequestSize


async def prepare(exchange: Exchange, responder: Responder) -> Prepared | None:
    """Read the request; None when the reply that its Idempotency-Key had has been sent again."""
    arrival, context, progress = exchange.arrival, exchange.context, exchange.progress
    client, dialect, key = arrival.client, arrival.dialect, arrival.entry.key
    place = arrival.entry.place
    body = await client.body(context.overload.max_body_bytes, place)
    exchange.large = len(body) >= OFF_LOOP_BYTES
    if (turn := context.overload.start(place.owner, len(body))) is not None:
        await turn
    whole, previous = body, ""
    if context.storage.responses is not None and dialect.name == "responses":
        arrived = await context.storage.responses.whole(
            key.owner, body, context.overload.worker(place)
        )
        whole, previous = arrived.body, arrived.previous
        exchange.turn = arrived.turn if dialect is not COMPACT else None
        if len(whole) > len(body):
            place.reserve(len(body) + len(whole))
            exchange.large = len(whole) >= OFF_LOOP_BYTES
    if exchange.large:
        request = await exchange.worked(dialect.decode_request, whole, arrival.target)
        exchange.large = len(whole) >= LOOP_BYTES or _has_many_parts(request)
    else:
        request = dialect.decode_request(whole, arrival.target)
    if dialect is not COMPACT and (previous or exchange.turn is not None):
        request = storing(request, previous, exchange.turn is not None)
    if TAGS_HEADER in client.headers:
        request = tagged(request, client.headers[TAGS_HEADER])
    if request.search is not None:
        request = web_search.offered(request, context.outbound.search is not None)
    if ROUTE_HEADER in client.headers:
        request = preferring(request, client.headers[ROUTE_HEADER])
    routes = routes_of(context, request.model, key, request)
    model = progress.model = routes[0].model.id
    if replay.HEADER in client.headers and await _answered_before(exchange, responder, body):
        return None
    size = len(whole)
    del body, whole  # the request has what it says, for as long as the answer takes
    if key.on_disconnect == "drain":
        client.drains = True
    progress.stream = request.stream
    for message in request.messages:
        if message.role == "assistant":  # no other role thinks
            request = await _remembered(exchange, request, routes[0])
            break
    if (masker := masker_of(key, context.outbound.mask_secret)) is not None:
        exchange.masker = masker
        exchange.large = exchange.large or size >= MASKED_BYTES
        await exchange.worked(masker.request, request)  # what it finds is known before it is sent
        if reason := masker.reason():
            progress.recalled = (*progress.recalled, reason)
    if (wish := wish_of(context, request.model, key, request)) != preferences.NONE:
        # Why this route: on the row only, as the caller knows what it asked for.
        reason = f"route ({preferences.written(wish)})"
        progress.recalled = (*progress.recalled, reason)
    measured = await exchange.worked(counting.measure, request)
    features = measured.features
    estimate = exchange.input_estimate = context.outbound.counter.estimate(model, features)
    facts = exchange.facts = ReplyFacts(exchange.id, model, int(time.time()), estimate)
    if request.stream:
        exchange.encoder = dialect.encoder(request, facts, arrival.target)
        responder.watch_silence()
    return Prepared(request, routes, measured)


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


def preferring(request: Request, text: str) -> Request:
    """Return the request with the preferences of its header; Refused when they cannot be read."""
    try:
        found = preferences.parsed(text)
    except ValueError as error:
        raise invalid(f"`{ROUTE_HEADER}`: {error}.", ROUTE_HEADER) from None
    if request.preferences is not None:
        found = preferences.narrowed(found, request.preferences)
    return msgspec.structs.replace(request, preferences=found)


async def _answered_before(exchange: Exchange, responder: Responder, body: bytes) -> bool:
    """Send the reply that this Idempotency-Key had, or record the one that it will have."""
    arrival = exchange.arrival
    target = arrival.target
    address = (arrival.dialect.name, target.model, target.stream, target.array)
    mark = await exchange.worked(idempotency.fingerprint, body, *address)
    found = await exchange.context.storage.replays.begin(arrival.client, arrival.entry.key.id, mark)
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
    request, sealed = await exchange.worked(
        sealing.unseal, request, context.reasoning.sealer, origin
    )
    warnings: list[str] = []
    if sealed:
        warnings.append("reasoning (sealed)")
    if context.reasoning.cache is not None:
        key_id = exchange.arrival.entry.key.id
        context.admissions.news.catch_up()
        memory, shared, sent = context.reasoning.cache, context.reasoning.shared, request
        missed: list[str | bytes] | None = None if shared is None else []
        request, kept = memory.recall(key_id, sent, time.monotonic(), origin, missed)
        if shared is not None and missed:
            taken = await shared.fetch(key_id, missed)
            context.reporting.metrics.cache_reads.add(_read(taken))
            if taken is None:
                warnings.append("reasoning cache unavailable")
            elif taken:
                request, kept = memory.recall(key_id, sent, time.monotonic(), origin)
        if kept:
            warnings.append("reasoning (remembered)")
    exchange.progress.recalled = tuple(warnings)
    return request


def _read(taken: int | None) -> str:
    return "unavailable" if taken is None else "hit" if taken else "miss"


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
    context = exchange.context
    preset = context.served.catalog.preset(request.model)
    effort = (preset.effort if preset else "") or exchange.arrival.entry.key.effort
    effort = effort or route.model.effort
    fitted = await exchange.worked(
        fitted_request,
        request,
        route,
        dialect,
        exchange.input_estimate,
        effort,
        context.served.catalog.takers,
    )
    notes: tuple[str, ...] = ()
    if route.retirement is not None or route.other:
        notes = routing.notes(route, datetime.now(UTC).date())
    exchange.progress.warnings = (*fallbacks, *notes, *fitted.request.warnings)
    if exchange.context.served.settings.reply_model == "served":
        _name(exchange, request, route.other or exchange.progress.model)
    if fitted.format is not None and (fault := schemas.fault(fitted.format)):
        raise invalid(fault, "$.response_format")
    return fitted


def _name(exchange: Exchange, request: Request, model: str) -> None:
    """Let the reply have this model's name; nothing of it has been encoded yet."""
    if exchange.facts.model != model:
        exchange.facts = msgspec.structs.replace(exchange.facts, model=model)
        if exchange.encoder is not None:
            arrival = exchange.arrival
            exchange.encoder = arrival.dialect.encoder(request, exchange.facts, arrival.target)
