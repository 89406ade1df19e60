"""One attempt at one route: the only place where the edge turns a Request into an outbound call.

What the network does wrong becomes a Failure here, with the answer to the one question that
matters for money: may the upstream have begun to work (`should_retry` False) or surely not (True).
"""

import msgspec

from headgate.catalog.catalog import Route
from headgate.chat import Request
from headgate.errors import Failure, Refused
from headgate.net.client import Broken, Client, NotSent, Prepared, Response, TimedOut, Timeouts
from headgate.wire.dialect import Decoder, Dialect
from headgate.wire.dialects import DIALECTS

MAX_ERROR_BYTES = 1 << 20  # of an upstream's error page; enough for any real one
MAX_WAYS = 1024  # there are as many as routes, but for those that checks make up
_STREAMS = ("text/event-stream", "application/json")


class Attempt(msgspec.Struct):
    response: Response
    decoder: Decoder


class _Way(msgspec.Struct, frozen=True):
    """What every attempt at a route has in common."""

    route: Route
    dialect: Dialect
    request: Prepared


def _way(client: Client, route: Route) -> _Way:
    way = client.known.get(id(route))
    if not isinstance(way, _Way) or way.route is not route:
        dialect = DIALECTS[route.upstream.dialect]
        url = route.upstream.base_url.rstrip("/") + dialect.request_path(route.name, True)
        way = _Way(route, dialect, client.prepared("POST", url, headers(route)))
        if len(client.known) >= MAX_WAYS:
            client.known.clear()
        client.known[id(route)] = way
    return way


async def begin(
    client: Client, route: Route, request: Request, timeouts: Timeouts, seed: str
) -> Attempt:
    """Send the request and wait for the answer's head; Refused when there is no good one.

    The upstream is always asked to stream, also for clients that want one body: so a hang-up, a
    stall and the time to the first token are seen for both in the same way.
    """
    way = _way(client, route)
    dialect = way.dialect
    body = dialect.encode_request(request, route.capabilities, route.name, True)
    try:
        response = await client.send_prepared(way.request, body, timeouts)
    except (NotSent, Broken, TimedOut) as error:
        raise Refused(failure_of(error)) from None
    if response.status != 200:
        try:
            page = await response.read_all(MAX_ERROR_BYTES)
        except (Broken, TimedOut):
            page = b""
        status = response.status if response.status >= 400 else 502  # redirects are not followed
        raise Refused(dialect.decode_failure(status, response.headers, page))
    said = response.headers.get("content-type", "")
    media = said if said in _STREAMS else said.partition(";")[0].strip().lower()
    if media not in _STREAMS:
        response.abort()
        raise Refused(
            Failure(
                "upstream",
                "The upstream answered with something that is no reply.",
                upstream_code=media[:64],
            )
        )
    return Attempt(response, dialect.decoder(route.capabilities, media, seed))


def headers(route: Route) -> dict[str, str]:
    upstream = route.upstream
    out = {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "user-agent": "headgate",
    }
    if upstream.auth == "bearer" and upstream.key:
        out["authorization"] = f"Bearer {upstream.key}"
    elif upstream.auth == "x-api-key" and upstream.key:
        out["x-api-key"] = upstream.key
    if upstream.dialect == "anthropic":
        out["anthropic-version"] = "2023-06-01"
    out.update(upstream.headers)
    return out


def failure_of(error: NotSent | Broken | TimedOut) -> Failure:
    match error:
        case NotSent():
            return Failure(
                "upstream",
                "The upstream could not be reached.",
                should_retry=True,
                upstream_code="not_sent",
            )
        case TimedOut():
            return Failure(
                "timeout", f"The upstream was silent for too long ({error.what}).",
                should_retry=False, upstream_code=error.what,
            )  # fmt: skip
        case _:
            return Failure(
                # opencode repeats what tells it in so many words to "try again later" (1.18.33).
                "upstream",
                "The connection to the upstream broke before the reply was finished;"
                " try again later.",
                should_retry=False, upstream_code="broken",
            )  # fmt: skip
