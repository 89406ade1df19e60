"""What the edge tells control, and nobody else: its upstreams as they stand, and a test of one.

The only place under /internal/.  Whoever asks proves by a secret derived from the data directory's
pepper that it is control; for everybody else these paths do not exist.
"""

import asyncio
import time
from urllib.parse import urlsplit

import msgspec

from headgate.catalog.catalog import Route, presets
from headgate.diagnostics import probes
from headgate.diagnostics.checks import Finding, judge_access, judge_stream
from headgate.diagnostics.probes import Run, sister_url
from headgate.edge.app import INTERNAL
from headgate.edge.context import EdgeContext
from headgate.net.server import Inbound

TEST_S = 60.0
_JSON = [("content-type", "application/json"), ("cache-control", "no-store")]
_CIRCUIT = {"closed": "up", "open": "resting", "half_open": "half"}
_STATE = {"ok": "ok", "note": "warn", "red": "fail"}


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
                route = self._routes().get(name)
                if route is None:
                    return False
                findings = await self._test(name, route)
                steps = [
                    {"name": f.check, "state": _STATE[f.state], "text": f.said, "fix": f.do}
                    for f in findings
                ]
                inbound.respond(200, _JSON, msgspec.json.encode({"steps": steps}))
            case _:
                return False
        return True

    def _routes(self) -> dict[str, Route]:
        """One route of each upstream."""
        found: dict[str, Route] = {}
        for model in self._gate.catalog.models:
            for route in self._gate.catalog.routes(model.id):
                found.setdefault(route.upstream.name, route)
        return found

    def _upstreams(self) -> list[dict[str, object]]:
        gate, now_s = self._gate, time.monotonic()
        models: dict[str, list[Route]] = {name: [] for name in self._routes()}
        for model in gate.catalog.models:
            for route in gate.catalog.routes(model.id):
                models[route.upstream.name].append(route)
        out: list[dict[str, object]] = []
        for name, routes in models.items():
            upstream = routes[0].upstream
            stands = [gate.health.breaker.standing(r.place, now_s) for r in routes]
            worst = max(stands, key=lambda s: (s.state != "closed", s.paused_s, s.failures))
            keys = gate.health.keys(routes, now_s)
            out.append(
                {
                    "name": name,
                    "preset": gate.settings.upstreams[name].preset,
                    "dialect": upstream.dialect,
                    "host": urlsplit(upstream.base_url).netloc.rpartition("@")[2],
                    "models": [r.model.id for r in routes],
                    "state": _CIRCUIT[worst.state],
                    "failures": worst.failures,
                    "resting_s": round(worst.paused_s, 1),
                    "resting": [
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

    async def _test(self, name: str, route: Route) -> list[Finding]:
        """One short streamed request, judged as `headgate doctor --upstream` judges its first."""
        gate = self._gate
        if not route.upstream.base_url:
            return []
        known = presets()
        own = gate.settings.upstreams[name].preset
        home, sister = known[own].base_url, sister_url(route.upstream, own, known)
        run = Run(gate.client, gate.timeouts, asyncio.get_running_loop().time() + TEST_S)
        findings: list[Finding] = []
        streamed: list[Finding] = []
        for each in route.pool or (route,):
            shot = await run.ask(each, probes.hello())
            findings.append(judge_access(shot, each, home, sister, None))
            if shot.failure is None and not streamed:
                streamed = [judge_stream(shot)]
        return findings + streamed


def _same(values: list[int | None]) -> int | None:
    """What all of them are; None when they differ."""
    return values[0] if len(set(values)) == 1 else None
