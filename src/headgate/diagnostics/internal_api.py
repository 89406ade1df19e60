"""What the edge tells control, and nobody else: its upstreams as they stand, and a test of one.

The only place under /internal/.  Whoever asks proves by a secret derived from the data directory's
pepper that it is control; for everybody else these paths do not exist.
"""

import asyncio
import contextlib
import time
from urllib.parse import urlsplit

import msgspec

from headgate.catalog.presets import presets
from headgate.catalog.routes import Route
from headgate.diagnostics import plan_check, probes, upstream_check
from headgate.diagnostics.findings import Finding
from headgate.diagnostics.judgements import judge_access, judge_stream
from headgate.diagnostics.probe_plan import other_region_url
from headgate.diagnostics.probe_run import Run
from headgate.edge.app import INTERNAL
from headgate.edge.context import EdgeContext
from headgate.net.inbound import Inbound
from headgate.policy.upstream_state import UpstreamCheck
from headgate.storage.errors import StoreError

TEST_S = 60.0
PLAN_ROUND_S = 5.0  # between two looks at which keys' quota is to be asked for
_JSON = [("content-type", "application/json"), ("cache-control", "no-store")]
MAX_TESTED = 4  # models of one upstream that a test asks


class InternalApi:
    def __init__(self, context: EdgeContext) -> None:
        self._context = context

    async def answer(self, inbound: Inbound) -> bool:
        """Whether it was control, and was answered; Refused after too many wrong proofs."""
        if not self._context.storage.management.proves(inbound):
            if inbound.headers.get("x-headgate-internal"):
                self._context.credentials.failed_credential(inbound.client, "")
            return False
        parts = inbound.path.removeprefix(INTERNAL).split("/")
        with contextlib.suppress(StoreError):  # the watch reports it
            await self._context.refresh()  # what was stored a moment ago is shown and tested
        match inbound.method, parts:
            case "GET", ["upstreams"]:
                inbound.respond(200, _JSON, msgspec.json.encode(self._upstreams()))
            case "GET", ["detected"]:
                inbound.respond(200, _JSON, msgspec.json.encode(self._context.served.detected))
            case "POST", ["upstreams", name, "test"]:
                routes = routes_by_upstream(self._context).get(name)
                if routes is None:
                    return False
                findings = await self._test(name, routes)
                steps = [
                    {"name": f.check, "state": f.state, "text": f.result, "fix": f.do}
                    for f in findings
                ]
                inbound.respond(200, _JSON, msgspec.json.encode({"steps": steps}))
            case _:
                return False
        return True

    async def check(self) -> float:
        """Check each upstream that has not been heard of lately; the time to the next round.

        Note: a 401 counts only for an upstream that has never answered, as some servers refuse the
        list of models to keys that may use the models.
        """
        context = self._context
        every_s = context.served.settings.upstream_check_s
        for name, routes in routes_by_upstream(self._context).items():
            heard_s = context.outbound.health.answered_s(routes)
            if not routes[0].upstream.base_url or (
                heard_s is not None and time.monotonic() - heard_s < every_s
            ):
                continue
            found = await upstream_check.check(context.outbound.client, routes[0])
            if found.reason == "key refused" and heard_s is not None:
                continue
            context.outbound.health.checked(name, found)
        return every_s

    async def check_plans(self) -> float:
        """Ask the quota address about each key of a plan that is due; the time to the next round."""
        context, known = self._context, presets()
        every_s = context.served.settings.upstream_check_s
        for name, routes in routes_by_upstream(context).items():
            path = known[context.served.settings.upstreams[name].preset].quota
            if not path or not routes[0].upstream.base_url:
                continue
            for route in (*(routes[0].pool or routes[:1]), *context.outbound.own_keys.used(name)):
                if context.outbound.health.plan_due(route, every_s):
                    found = await plan_check.ask(context.outbound.client, route, path, time.time())
                    context.outbound.health.quota(route, *found)
        return min(PLAN_ROUND_S, every_s)

    def _upstreams(self) -> list[dict[str, object]]:
        context, now_s = self._context, time.monotonic()
        out: list[dict[str, object]] = []
        for name, routes in routes_by_upstream(self._context).items():
            upstream = routes[0].upstream
            stands = [context.outbound.health.breaker.standing(r.id, now_s) for r in routes]
            worst = max(stands, key=lambda s: (s.state != "closed", s.paused_s, s.failures))
            keys = context.outbound.health.keys(routes, now_s)
            check = context.outbound.health.checks.get(name)
            heard_s = context.outbound.health.answered_s(routes)
            out.append(
                {
                    "name": name,
                    "preset": context.served.settings.upstreams[name].preset,
                    "detected": found.text if (found := context.served.detected.get(name)) else "",
                    "dialect": upstream.dialect,
                    "host": urlsplit(upstream.base_url).netloc.rpartition("@")[2],
                    "models": [r.model.id for r in routes],
                    "state": context.outbound.health.state(routes, now_s),
                    "circuit": worst.state,
                    "failures": worst.failures,
                    "paused_s": round(worst.paused_s, 1),
                    "check": check.reason if check is not None else "",
                    "checked_s_ago": None if check is None else round(now_s - check.at_s, 1),
                    "answered_s_ago": None if heard_s is None else round(now_s - heard_s, 1),
                    "paused": [
                        r.model.id
                        for r, s in zip(routes, stands, strict=True)
                        if s.state != "closed"
                    ],
                    "keys": keys,
                    "rpm": _same([r.rpm for r in routes]),
                    "tpm": _same([r.tpm for r in routes]),
                    "paced": any(r.rpm or r.tpm for r in routes),
                }
            )
        return out

    async def _test(self, name: str, routes: list[Route]) -> list[Finding]:
        """Send short streamed requests, judged as `headgate doctor --upstream` judges its first.

        Its first model is asked with each of its keys, and so is each model that is paused; what comes of
        it counts for the breaker and the cool-downs as a request's does.
        """
        context, route = self._context, routes[0]
        if not route.upstream.base_url:
            return []
        if route.upstream.own_keys == "only" and not route.key.secret:
            stated = "only owners' own keys are used here, and the gateway has none to test with"
            do = (
                "Send a request with a gateway key whose owner has one: headgate upstream-keys list"
            )
            return [Finding("access", "warn", stated, do)]
        known = presets()
        own = context.served.settings.upstreams[name].preset
        home, other_region = known[own].base_url, other_region_url(route.upstream, own, known)
        run = Run(
            context.outbound.client,
            context.outbound.timeouts,
            asyncio.get_running_loop().time() + TEST_S,
        )
        findings: list[Finding] = []
        streamed: list[Finding] = []
        paused = [r for r in routes[1:] if not context.outbound.health.closed(r)]
        asked = [*(route.pool or (route,)), *paused[: MAX_TESTED - 1]]
        for each in asked:
            began_s = time.monotonic()
            probed = await run.ask(each, probes.hello())
            if probed.failure is None:
                context.outbound.health.passed(each, True)
            else:
                context.outbound.health.failed(each, probed.failure, began_s, True)
            kind = probed.failure.kind if probed.failure else ""
            context.outbound.health.checked(name, UpstreamCheck(time.monotonic(), not kind, kind))
            findings.append(judge_access(probed, each, home, other_region, None))
            if probed.failure is None and not streamed:
                streamed = [judge_stream(probed)]
        return findings + streamed


def routes_by_upstream(context: EdgeContext) -> dict[str, list[Route]]:
    """The routes of each upstream, in the order of the catalog."""
    found: dict[str, list[Route]] = {}
    for model in context.served.catalog.models:
        for route in context.served.catalog.routes(model.id):
            found.setdefault(route.upstream.name, []).append(route)
    return found


def _same(values: list[int | None]) -> int | None:
    """What all of them are; None when they differ."""
    return values[0] if len(set(values)) == 1 else None
