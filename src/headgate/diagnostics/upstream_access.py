"""Whether this machine reaches its upstreams, and how they answer its keys."""

import contextlib
from collections.abc import Mapping
from typing import Any

from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.routes import Route
from headgate.config import Settings
from headgate.config.checks import on_this_machine
from headgate.diagnostics import upstream_check
from headgate.diagnostics.findings import Finding
from headgate.edge import upstream_kind
from headgate.net.client import Client


def addresses(settings: Settings, catalog: Catalog) -> dict[str, str]:
    """Where each upstream is, as far as some model's requests go there."""
    out = {}
    for model in catalog.models:
        for route in catalog.routes(model.id):
            if route.upstream.base_url:
                out[route.upstream.name] = route.upstream.base_url
    return {name: out[name] for name in settings.upstreams if name in out}


def route_to(catalog: Catalog, upstream: str, model: str | None) -> Route | None:
    for m in catalog.models:
        for route in catalog.routes(m.id):
            if route.upstream.name == upstream and model in (None, m.id):
                return route
    return None


async def upstream_findings(settings: Settings, catalog: Catalog, online: bool) -> list[Finding]:
    """Check the upstreams without a token: those of this machine, and with `online` all."""
    try:
        client = Client()
    except ValueError:  # of the proxies, which have a finding of their own
        return []
    out = []
    asked = upstream_kind.to_ask(settings, catalog) if settings.upstream_check_s else {}
    try:
        for name, url in addresses(settings, catalog).items():
            route = route_to(catalog, name, None)
            if route is None or not (online or on_this_machine(url)):
                continue
            found = await upstream_check.check(client, route)
            state = "up" if found.ok else "degraded"
            shown = {"name": name, "state": state, "check": found.reason}
            if name in asked and found.ok:
                with contextlib.suppress(upstream_kind.Unreachable):
                    kind = await upstream_kind.ask(client, route, catalog.models)
                    shown["detected"] = kind.text if kind is not None else ""
            out.append(judge_upstream(shown))
    finally:
        await client.close()
    return out


async def kind_of(settings: Settings, catalog: Catalog, name: str) -> Detected | None:
    """Return which server an upstream says that it is; None where it is not asked, or nothing is known."""
    route = upstream_kind.to_ask(settings, catalog).get(name)
    if route is None or not settings.upstream_check_s:
        return None
    client = Client()
    try:
        with contextlib.suppress(upstream_kind.Unreachable):
            return await upstream_kind.ask(client, route, catalog.models)
    finally:
        await client.close()
    return None


def judge_upstream(shown: Mapping[str, Any]) -> Finding:
    """The state of an upstream, as the console shows it; Any: JSON of diagnostics/internal_api.py."""
    name, state, reason = shown["name"], shown["state"], shown.get("check", "")
    check = f"upstream {name}"
    do = f"Measure it with its key: headgate doctor --upstream {name}"
    plan = plan_lines(shown)
    if any(USED_UP in line for line in plan):
        return Finding(check, "warn", f"{state}; plan: {'; '.join(plan)}", do)
    match state:
        case "up":
            detected = shown.get("detected", "")
            up = f"up; it is {detected}" if detected else "up"
            return Finding(check, "ok", "; ".join((up, *plan)))
        case "not_checked":
            return Finding(check, "ok", "not checked yet")
        case "paused":
            paused_s = float(shown.get("paused_s", 0.0))
            return Finding(check, "fail", f"paused for {paused_s:.0f} s after failures", do)
    if reason:
        return Finding(check, "fail", f"degraded: {reason}", do)
    failures = int(shown.get("failures", 0))
    return Finding(check, "warn", f"degraded: {failures} consecutive failures", do)


USED_UP = "used up"


def plan_lines(shown: Mapping[str, Any]) -> list[str]:
    """What is left of the plans of an upstream's keys, a text for each window; Any: JSON."""
    out = []
    keys = shown.get("keys", ())
    for key in keys:
        for window in key.get("plan", ()):
            name = {"5h": "5 hours", "7d": "7 days"}.get(window["window"], window["window"])
            left, resets_in_s = window["left"], window["resets_in_s"]
            text = "not known" if left is None else f"{left:.0%} left" if left else USED_UP
            if resets_in_s is not None:
                text += f", resets in {resets_in_s / 3600:.1f} h"
            text = f"{name}: {text}"
            out.append(f"{key['account']} {text}" if len(keys) > 1 else text)
    return out
