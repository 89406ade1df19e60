"""The gateway that runs on this machine, as the doctor asks it."""

import errno
import os
import re
import socket
from collections.abc import Mapping

import msgspec

from headgate import __version__
from headgate.config import Settings
from headgate.config.addresses import base_url
from headgate.diagnostics.findings import Finding
from headgate.diagnostics.local_http import QUICK, get
from headgate.diagnostics.upstream_access import judge_upstream
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut
from headgate.net.dial import NotSent
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import Store

_LAG_S = 0.1


_METRIC = re.compile(r"^(headgate_\w+?)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.M)


def user_name() -> str:
    return f"uid {os.getuid()}" if hasattr(os, "getuid") else "this one"


async def port_findings(client: Client, settings: Settings) -> list[Finding]:
    """Whether the port is free, ours already, or somebody else's."""
    host, port = settings.host, settings.port
    if not port:
        return [Finding("port", "ok", "any free one, as configured")]
    base = base_url(host, port, "https" if settings.tls.cert else "http")
    proof = proof_of(settings.data)
    taken = Finding(
        "port",
        "fail",
        f"{host}:{port} is taken by another program",
        f"Choose another with --port or HEADGATE_PORT, or find it: ss -ltnp 'sport = :{port}'",
    )
    try:
        _, _, page = await get(client, base + "/", QUICK, proof if settings.tls.client_ca else {})
        _, _, alive = await get(client, base + "/livez", QUICK)
    except NotSent:
        return [_free(host, port, taken)]
    except (Broken, TimedOut):
        return [taken]
    version = re.match(rb"Headgate ([0-9A-Za-z.+-]{1,64}),", page)
    if version is None or alive != b"ok\n":
        return [taken]
    running = version[1].decode()
    return [
        Finding("port", "ok", f"a Headgate {running} answers at {base}"),
        *(
            [
                Finding(
                    "version",
                    "warn",
                    f"{running} runs, {__version__} is installed",
                    "Restart the gateway.",
                )
            ]
            if running != __version__
            else []
        ),
        *await _running(client, base, proof),
    ]


def _free(host: str, port: int, taken: Finding) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except PermissionError:
            return Finding(
                "port",
                "fail",
                f"{user_name()} may not listen on port {port}",
                "Choose one above 1023 with --port, and let a proxy have the low one.",
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return taken
            return Finding(
                "port",
                "fail",
                f"{host} is no address of this machine ({error.strerror})",
                "Set `host` to 127.0.0.1, or to 0.0.0.0 for all.",
            )
    return Finding("port", "ok", f"{host}:{port} is free; no gateway runs there")


_NOT_READY = {
    b"draining\n": "it drains: it is being stopped",
    b"no upstream\n": "it has no upstream",
}


def proof_of(data: str) -> dict[str, str]:
    """Return what shows the gateway that we can read its data directory; nothing when we cannot."""
    try:
        store = Store(data, create=False)
    except StoreError:
        return {}
    try:
        return {"x-headgate-internal": store.derived("internal").hex()}
    finally:
        store.close()


async def _running(client: Client, base: str, proof: Mapping[str, str]) -> list[Finding]:
    try:
        status, _, stated = await get(client, base + "/readyz", QUICK)
        shown, _, page = await get(client, base + "/metrics", QUICK, proof)
    except (NotSent, Broken, TimedOut):
        return [Finding("gateway", "fail", "it stopped answering", "Look at its log; restart it.")]
    out = [
        Finding("gateway", "ok", "ready")
        if status == 200
        else Finding(
            "gateway",
            "fail",
            _NOT_READY.get(stated, f"not ready: {stated.decode('utf-8', 'replace').strip()[:200]}"),
            "Wait and start it again, or configure an upstream: headgate models.",
        )
    ]
    if shown != 200:
        return [
            *out,
            Finding(
                "metrics", "warn", "need a management key, or the data directory of that gateway"
            ),
        ]
    try:
        reported, _, listed = await get(client, base + "/internal/upstreams", QUICK, proof)
        known = msgspec.json.decode(listed) if reported == 200 else []
    except (NotSent, Broken, TimedOut, msgspec.DecodeError):
        known = []
    return [
        *out,
        *(judge_upstream(each) for each in known),
        *judge_metrics(page.decode("utf-8", "replace")),
    ]


def judge_metrics(page: str) -> list[Finding]:
    """Return what the numbers of a running gateway say about its health."""
    sums: dict[str, float] = {}
    for name, value in _METRIC.findall(page):
        sums[name] = sums.get(name, 0.0) + float(value)
    lag = sums.get("headgate_loop_lag_seconds", 0.0)
    streams = sums.get("headgate_open_streams", 0.0)
    stated = f"{streams:.0f} open streams, the loop is {lag * 1000:.0f} ms late"
    out = [
        Finding("load", "ok", stated)
        if lag < _LAG_S
        else Finding(
            "load",
            "fail",
            stated,
            "It has more to do than one core can: fewer streams, a faster core, or a second gateway.",
        )
    ]
    if faults := sums.get("headgate_ledger_faults_total", 0.0):
        out.append(
            Finding(
                "ledger",
                "fail",
                f"the disk did not take {faults:.0f} rows at once",
                "Look at the disk (full, read-only, broken), then run `headgate audit`.",
            )
        )
    else:
        out.append(Finding("ledger", "ok", "the disk took every row"))
    if unpriced := sums.get("headgate_unpriced_total", 0.0):
        out.append(
            Finding(
                "prices",
                "warn",
                f"{unpriced:.0f} exchanges without a known price",
                "A newer Headgate may know it: pip install -U headgate",
            )
        )
    return out
