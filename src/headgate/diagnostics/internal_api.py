"""What the edge tells control, and nobody else: its upstreams as they stand, and a test of one.

The only place under /internal/.  Whoever asks proves by a secret derived from the data directory's
pepper that it is control; for everybody else these paths do not exist.
"""

import asyncio
import time
from urllib.parse import urlsplit

import msgspec

from headgate.catalog.catalog import Route, presets
from headgate.diagnostics import probes, upstream_check
from headgate.diagnostics.checks import Finding, judge_access, judge_stream
from headgate.diagnostics.probes import Run, sister_url
from headgate.edge.app import INTERNAL
from headgate.edge.context import EdgeContext
from headgate.net.server import Inbound
from headgate.policy.upstream_state import UpstreamCheck

TEST_S = 60.0
_JSON = [("content-type", "application/json"), ("cache-control", "no-store")]
MAX_TESTED = 4  # models of one upstream that a test asks


class InternalApi:
    def __init__(self, gate: EdgeContext) -> None:
        self._gate = gate

    async def answer(self, inbound: Inbound) -> bool:
        """Whether it was control, and was answered; Refused after too many wrong proofs."""
        if not self._gate.proves(inbound):
            if inbound.headers.get("x-headgate-internal"):
                self._gate.failed_credential(inbound.client, "")
            return False
        parts = inbound.path.removeprefix(INTERNAL).split("/")
        match inbound.method, parts:
            case "GET", ["upstreams"]:
                inbound.respond(200, _JSON, msgspec.json.encode(self._upstreams()))
            case "POST", ["upstreams", name, "test"]:
                routes = routes_by_upstream(self._gate).get(name)
                if routes is None:
                    return False
                findings = await self._test(name, routes)
                steps = [
                    {"name": f.check, "state": f.state, "text": f.said, "fix": f.do}
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
        gate = self._gate
        every_s = gate.settings.upstream_check_s
        for name, routes in routes_by_upstream(self._gate).items():
            heard_s = gate.health.answered_s(routes)
            if not routes[0].upstream.base_url or (
                heard_s is not None and time.monotonic() - heard_s < every_s
            ):
                continue
            found = await upstream_check.check(gate.client, routes[0])
            if found.reason == "key refused" and heard_s is not None:
                continue
            gate.health.checked(name, found)
        return every_s

    def _upstreams(self) -> list[dict[str, object]]:
        gate, now_s = self._gate, time.monotonic()
        out: list[dict[str, object]] = []
        for name, routes in routes_by_upstream(self._gate).items():
            upstream = routes[0].upstream
            stands = [gate.health.breaker.standing(r.place, now_s) for r in routes]
            worst = max(stands, key=lambda s: (s.state != "closed", s.paused_s, s.failures))
            keys = gate.health.keys(routes, now_s)
            check = gate.health.checks.get(name)
            heard_s = gate.health.answered_s(routes)
            out.append(
                {
                    "name": name,
                    "preset": gate.settings.upstreams[name].preset,
                    "detected": found.text if (found := gate.detected.get(name)) else "",
                    "dialect": upstream.dialect,
                    "host": urlsplit(upstream.base_url).netloc.rpartition("@")[2],
                    "models": [r.model.id for r in routes],
                    "state": gate.health.state(routes, now_s),
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
        gate, route = self._gate, routes[0]
        if not route.upstream.base_url:
            return []
        known = presets()
        own = gate.settings.upstreams[name].preset
        home, sister = known[own].base_url, sister_url(route.upstream, own, known)
        run = Run(gate.client, gate.timeouts, asyncio.get_running_loop().time() + TEST_S)
        findings: list[Finding] = []
        streamed: list[Finding] = []
        paused = [r for r in routes[1:] if not gate.health.closed(r)]
        asked = [*(route.pool or (route,)), *paused[: MAX_TESTED - 1]]
        for each in asked:
            began_s = time.monotonic()
            shot = await run.ask(each, probes.hello())
            if shot.failure is None:
                gate.health.passed(each, True)
            else:
                gate.health.failed(each, shot.failure, began_s, True)
            kind = shot.failure.kind if shot.failure else ""
            gate.health.checked(name, UpstreamCheck(time.monotonic(), not kind, kind))
            findings.append(judge_access(shot, each, home, sister, None))
            if shot.failure is None and not streamed:
                streamed = [judge_stream(shot)]
        return findings + streamed


def routes_by_upstream(gate: EdgeContext) -> dict[str, list[Route]]:
    """The routes of each upstream, in the order of the catalog."""
    found: dict[str, list[Route]] = {}
    for model in gate.catalog.models:
        for route in gate.catalog.routes(model.id):
            found.setdefault(route.upstream.name, []).append(route)
    return found


def _same(values: list[int | None]) -> int | None:
    """What all of them are; None when they differ."""
    return values[0] if len(set(values)) == 1 else None
