"""One attempt at one route: the only place where the edge turns a Request into an outbound call.

What the network does wrong becomes a Failure here, with the answer to the one question that
matters for money: may the upstream have begun to work (`should_retry` False) or surely not (True).
"""

import re
from email.utils import formatdate

import msgspec

from headgate.catalog.routes import Route
from headgate.chat import Request
from headgate.dialects import vendor_errors
from headgate.dialects.contract import Dialect
from headgate.dialects.decoder import Decoder
from headgate.dialects.registry import DIALECTS, FACTS
from headgate.errors import OPERATORS, Failure, Refused
from headgate.net.client import Client, Prepared
from headgate.net.client_errors import Broken, NoConnection, Stale, TimedOut, Timeouts
from headgate.net.dial import ConnectTimedOut, NotSent
from headgate.net.upstream_connection import Response
from headgate.policy import retry

MAX_ERROR_BYTES = 1 << 20  # of an upstream's error page; enough for any real one
MAX_WAYS = 4096  # there are as many as routes and keys, but for those that checks make up
NO_CONNECTION = "too_many_connections"  # Failure.code: the gateway's own bound
_MEDIA = re.compile(r"[a-z0-9.+*-]+/[a-z0-9.+*-]+")
_HIDDEN = "***"  # in place of a key
_SHOWN_CHARS = 12  # of a key at the end of a text that was cut off; vendors' prefixes are shorter
_STREAMS = ("text/event-stream", "application/json")


class UpstreamReply(msgspec.Struct):
    response: Response
    decoder: Decoder


class _PreparedRoute(msgspec.Struct, frozen=True):
    """What every attempt at a route has in common."""

    route: Route
    dialect: Dialect
    request: Prepared


def _way(client: Client, route: Route) -> _PreparedRoute:
    way = client.known.get(id(route))
    if not isinstance(way, _PreparedRoute) or way.route is not route:
        dialect = DIALECTS[route.upstream.dialect]
        url = route.upstream.base_url.rstrip("/") + dialect.request_path(route.name, True)
        way = _PreparedRoute(route, dialect, client.prepared("POST", url, headers(route)))
        if len(client.known) >= MAX_WAYS:
            client.known.pop(next(iter(client.known)))
        client.known[id(route)] = way
    return way


def forget_owned(client: Client) -> None:
    """Forget what was prepared with upstream keys of owners, as they have changed."""
    for n, way in list(client.known.items()):
        if isinstance(way, _PreparedRoute) and way.route.key.owner:
            del client.known[n]


def encoded(route: Route, request: Request) -> bytes:
    """The body that this route is sent."""
    dialect = DIALECTS[route.upstream.dialect]
    return dialect.encode_request(request, route.capabilities, route.name, True)


async def begin(
    client: Client,
    route: Route,
    body: bytes,
    timeouts: Timeouts,
    seed: str,
    *,
    fresh: bool = False,
) -> UpstreamReply:
    """Send the encoded request and wait for the answer's head; Refused when there is no good one.

    `fresh`: on a new connection.

    The upstream is always asked to stream, also for clients that want one body: so a disconnect, a
    stall and the time to the first token are seen for both in the same way.
    """
    way = _way(client, route)
    dialect = way.dialect
    try:
        response = await client.send_prepared(way.request, body, timeouts, fresh=fresh)
    except (NotSent, Broken, TimedOut) as error:
        raise Refused(failure_of(error)) from None
    if response.status != 200:
        try:
            page = await response.read_all(MAX_ERROR_BYTES)
        except (Broken, TimedOut):
            page = b""
        if response.status < 400:  # its page has nothing to say: neither a redirect's nor a 204's
            raise Refused(vendor_errors.failure_of(response.status, ""))
        if secret := route.key.secret:  # some repeat it, whole
            page = page.replace(secret.encode(), _HIDDEN.encode())
        response.headers.setdefault("date", formatdate(usegmt=True))  # for dates to wait for
        raise Refused(dialect.decode_failure(response.status, response.headers, page))
    stated = response.headers.get("content-type", "")
    media = stated if stated in _STREAMS else stated.partition(";")[0].strip().lower()
    if media not in _STREAMS:
        response.abort()
        shown = media[:64] if _MEDIA.fullmatch(media) else "no content type"
        raise Refused(
            Failure(
                "upstream_config",
                f"The upstream answered with {shown} instead of a reply, as web pages and proxies do:"
                " check base_url.",
                upstream_code=shown,
            )
        )
    return UpstreamReply(response, dialect.decoder(route.capabilities, media, seed))


def headers(route: Route) -> dict[str, str]:
    upstream, secret = route.upstream, route.key.secret
    out = {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "user-agent": "headgate",
    }
    if upstream.auth == "bearer" and secret:
        out["authorization"] = f"Bearer {secret}"
    elif upstream.auth == "x-api-key" and secret:
        out["x-api-key"] = secret
    out.update(FACTS[upstream.dialect].upstream_headers)
    out.update(upstream.headers)
    return out


def without_key(failure: Failure, route: Route) -> Failure:
    """Return the failure without the key that the upstream was sent, also where it is cut off."""
    secret = route.key.secret
    if len(secret) < _SHOWN_CHARS:
        return failure
    texts = (failure.message, failure.upstream_text, failure.upstream_code)
    if not any(secret[:_SHOWN_CHARS] in text for text in texts):
        return failure
    hidden = re.compile("|".join((re.escape(secret), rf"{re.escape(secret[:_SHOWN_CHARS])}[!-~]*")))
    message, text, code = (hidden.sub(_HIDDEN, each) for each in texts)
    return msgspec.structs.replace(failure, message=message, upstream_text=text, upstream_code=code)


def named(failure: Failure, route: Route) -> Failure:
    """A failure that only the operator can repair, with what is needed to find its place."""
    if failure.kind not in OPERATORS:
        return failure
    if route.key.owner:
        return owners(failure, route)
    number = f", key {route.key.number}" if route.key.number else ""
    where = f" (upstream `{route.upstream.name}`{number}, model `{route.name}`)"
    return msgspec.structs.replace(
        failure, message=f"{failure.message.removesuffix('.')}{where}. Ask the gateway's operator."
    )


def owners(failure: Failure, route: Route) -> Failure:
    """Return a failure of an owner's upstream key in words for who can repair it."""
    message = failure.message.removesuffix(" Ask the gateway's operator.").removesuffix(".")
    for word, instead in (("The gateway's", "Your"), ("the gateway's", "your")):
        message = message.replace(word, instead)
    where = f" (upstream `{route.upstream.name}`, model `{route.name}`)"
    whose = "this gateway key" if route.key.owner == "key" else "this key's account"
    return msgspec.structs.replace(
        failure,
        message=f"{message}{where}. The upstream key of {whose} was used: replace or remove it with"
        " `headgate upstream-keys`, or in the console.",
    )


def failure_of(error: NotSent | Broken | TimedOut) -> Failure:
    match error:
        case NoConnection():
            return Failure(
                "unavailable",
                "The gateway has as many connections to upstreams as it may have.",
                code=NO_CONNECTION,
                retry_after_s=1.0,
                should_retry=True,
            )
        case ConnectTimedOut():
            return Failure(
                "upstream",
                "The upstream could not be reached in time.",
                should_retry=True,
                upstream_code=retry.CONNECT,
            )
        case Stale():
            return Failure(
                "upstream",
                "The upstream had closed the connection before the request was sent.",
                should_retry=True,
                upstream_code=retry.STALE,
            )
        case NotSent():
            return Failure(
                "upstream",
                "The upstream could not be reached.",
                should_retry=True,
                upstream_code="not_sent",
            )
        case TimedOut():
            return Failure(
                "timeout",
                f"The upstream was silent for too long ({error.what}).",
                should_retry=False,
                upstream_code=error.what,
            )
        case _:
            return Failure(
                # opencode repeats what tells it in so many words to "try again later" (1.18.33).
                "upstream",
                "The connection to the upstream broke before the reply was finished;"
                " try again later.",
                should_retry=False,
                upstream_code="broken",
            )
