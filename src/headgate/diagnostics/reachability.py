"""What answers: the gateway on its port, the upstreams, the database of all nodes, and the clocks of hosts.

Nothing is dialled but this machine and the database of all nodes; `online` asks the configured https hosts
for the time, without a key, and every upstream for its list of models, which costs no tokens.

Note: on the configured port our own gateway may answer, and is then asked for its health.
"""

import asyncio
import time
from urllib.parse import urlsplit

from headgate.catalog.catalog import Catalog
from headgate.config import Settings
from headgate.diagnostics.clock import clock_findings
from headgate.diagnostics.findings import Finding
from headgate.diagnostics.running import port_findings
from headgate.diagnostics.upstream_access import addresses, upstream_findings
from headgate.net.client import Client
from headgate.net.dial import own_context
from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres.nodes import CLOCK_S, SILENT_S
from headgate.storage.postgres.reports import LedgerDatabase


async def reached(settings: Settings, catalog: Catalog, online: bool) -> list[Finding]:
    client = Client(proxies={}, ssl_context=own_context() if settings.tls.cert else None)
    try:
        out = await port_findings(client, settings)
    finally:
        await client.close()
    if not any(f.check == "gateway" for f in out):  # a gateway that runs knows more
        out += await upstream_findings(settings, catalog, online)
    if settings.database:
        out.append(await _ledger_database(settings.database, online))
    if not online:
        return [*out, Finding("clock", "ok", _now() + "; not compared (--online does)")]
    hosts = {
        f"https://{urlsplit(url).netloc}"
        for url in addresses(settings, catalog).values()
        if url.startswith("https:")
    }
    if not hosts:
        return [*out, Finding("clock", "ok", _now() + "; no https upstream to compare it with")]
    client = Client()
    try:
        return [
            *out,
            *await asyncio.gather(*(clock_findings(client, host) for host in sorted(hosts))),
        ]
    finally:
        await client.close()


async def _ledger_database(url: str, online: bool) -> Finding:
    """Return how the database of all nodes stands, which is asked only if other hosts may be."""
    name = "ledger database"
    if not online:
        return Finding(name, "ok", f"{database.shown(url)}; not asked (--online does)")
    try:
        db = await database.connect(url, create=False)
        try:
            with database.faults(url):
                nodes = await LedgerDatabase(db).nodes()
        finally:
            db.terminate()
    except StoreError as error:
        return Finding(
            name,
            "fail",
            str(error).rstrip("."),
            "Correct `database`, or let this machine reach it: rows wait in the data directory meanwhile.",
        )
    behind = sum(node.behind for node in nodes)
    result = f"{database.shown(url)}: {len(nodes)} nodes, {behind} rows on their way"
    silent = ", ".join(node.name for node in nodes if node.silent_s > SILENT_S)
    if silent:
        return Finding(
            name,
            "warn",
            f"{result}; silent: {silent}",
            "Their newer requests are in no figure. For good: headgate nodes forget NAME.",
        )
    clocks = ", ".join(node.name for node in nodes if abs(node.clock_ahead_s) > CLOCK_S)
    if clocks:
        return Finding(
            name,
            "warn",
            f"{result}; wrong clocks: {clocks}",
            "Set their clocks by NTP: requests are listed under the times of their node.",
        )
    return Finding(name, "ok", result)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
