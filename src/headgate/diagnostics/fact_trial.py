"""What asks a real upstream for facts: each with its one small request, in the time there is."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from headgate.catalog.routes import Route
from headgate.diagnostics.fact import Answer, Fact, Request, Tried, Verdict
from headgate.dialects import vendor_errors
from headgate.edge import upstream as upstreams
from headgate.errors import Failure
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.policy import plans

_PAGE_BYTES = 1 << 20


def requests(facts: tuple[Fact, ...], route: Route) -> int:
    """Return how many requests the trial of these facts takes."""
    return sum(_asked(f, route) for f in facts)


def _asked(fact: Fact, route: Route) -> bool:
    plan = route.key.secret.startswith(plans.KEY_PREFIX)
    return fact.request is not None and (plan or not fact.plan_only)


async def tried(
    client: Client,
    route: Route,
    facts: tuple[Fact, ...],
    timeouts: Timeouts,
    until_s: float,
    notify: Callable[[str], None] = lambda name: None,
) -> tuple[Tried, ...]:
    """Try each fact with the first key of the route; what is not tried by `until_s` is unknown."""
    out = []
    for fact in facts:
        if fact.request is None:
            verdict = fact.judge(Answer())
        elif not _asked(fact, route):
            verdict = Verdict("unknown", "not tried: this is no key of a plan")
        elif asyncio.get_running_loop().time() > until_s:
            verdict = Verdict("unknown", "not tried: the time was over")
        else:
            notify(fact.name)
            verdict = fact.judge(await _answer(client, route, fact.request, timeouts))
        out.append(Tried(fact.name, fact.believed, verdict.result, verdict.seen, verdict.do))
    return tuple(out)


def untried(facts: tuple[Fact, ...], why: str) -> tuple[Tried, ...]:
    """Return the facts of an upstream that cannot be asked."""
    return tuple(Tried(f.name, f.believed, "unknown", why) for f in facts)


async def _answer(client: Client, route: Route, request: Request, timeouts: Timeouts) -> Answer:
    parts = urlsplit(route.upstream.base_url)
    url = f"{parts.scheme}://{parts.netloc}{request.path}"
    headers = {
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "headgate",
        "authorization": f"Bearer {route.key.secret}",
        "anthropic-version": "2023-06-01",
    }
    method, body = "GET", b""
    if request.body is not None:
        method, body = "POST", msgspec.json.encode(request.body)
    try:
        response = await client.send(method, url, headers, body, timeouts)
        page = await response.read_all(_PAGE_BYTES)
    except (NotSent, Broken, TimedOut) as error:
        return Answer(upstreams.failure_of(error))
    if response.status != 200:
        return Answer(vendor_errors.read_failure(response.status, response.headers, page))
    try:
        base = msgspec.json.decode(page, type=_Based).base_resp
    except (msgspec.MsgspecError, UnicodeDecodeError):
        kind = response.headers.get("content-type", "").partition(";")[0]
        return Answer(Failure("upstream", "", upstream_code=f"no JSON, {kind[:32]}"))
    if request.path != "/v1/token_plan/remains" and base is not None and base.status_code:
        return Answer(vendor_errors.failure_of(200, base.status_msg or "", base.status_code))
    return Answer(None, page)


class _Based(Struct):
    base_resp: vendor_errors.BaseResp | None = None
