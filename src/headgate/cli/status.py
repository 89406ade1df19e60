"""`headgate status`: whether a gateway runs here and takes requests, and how its upstreams are.

Exit codes, for scripts and health checks: 0 it takes requests, 1 it runs and does not, 3 none answers
(as LSB's init scripts have it).
"""

import asyncio
import re
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from headgate.cli.options import as_json, places, print_json, print_table, settings_of
from headgate.cli.served import as_served, reported_by
from headgate.config.addresses import base_url
from headgate.diagnostics.running import proof_of
from headgate.diagnostics.upstream_access import plan_lines
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent, own_context

READY, NOT_READY, NOT_RUNNING = 0, 1, 3
QUICK = Timeouts(connect_s=2.0, first_token_s=3.0, stall_s=3.0, total_s=4.0)
_PAGE_BYTES = 4 << 20


class Status(msgspec.Struct):
    """Holds what a gateway reports of itself."""

    url: str
    running: bool = False
    ready: bool = False
    reason: str = ""  # why it takes no requests
    version: str = ""
    open_streams: int | None = None
    upstreams: list[dict[str, Any]] = []  # Any: as the internal API has them
    processes: list[dict[str, Any]] = []  # Any: as the supervisor has them
    addresses: list[str] = []


@click.command()
@click.option("--url", help="The gateway's address; that of the configuration without it.")
@click.option("--quiet", is_flag=True, help="Print nothing; the exit code says it.")
@places
@as_json
def command(
    url: str | None, quiet: bool, config_file: str | None, data: str | None, json_: bool
) -> None:
    """Show whether the gateway runs, takes requests, and reaches its upstreams.

    Exit codes: 0 it takes requests, 1 it runs and does not, 3 none answers.
    """
    settings = settings_of(config_file, data=data)
    reported = reported_by(settings.data) if url is None else {}
    settings = as_served(settings, reported)
    scheme = "https" if settings.tls.cert else "http"
    base = (url or base_url(settings.host, settings.port, scheme)).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https"):
        raise click.UsageError("--url must look like http://127.0.0.1:8787.")
    found = asyncio.run(_asked(base, {} if quiet else proof_of(settings.data), detailed=not quiet))
    if reported:
        found.processes, found.addresses = reported["processes"], reported["addresses"]
    if json_ and not quiet:
        print_json(found)
    elif not quiet:
        _print(found)
    raise SystemExit(READY if found.ready else NOT_READY if found.running else NOT_RUNNING)


async def _asked(base: str, proof: dict[str, str], *, detailed: bool) -> Status:
    found = Status(base)
    own = own_context() if base.startswith("https:") else None
    client = Client(proxies={}, ssl_context=own)

    async def get(path: str) -> tuple[int, str]:
        response = await client.send("GET", base + path, proof, b"", QUICK)
        return response.status, (await response.read_all(_PAGE_BYTES)).decode("utf-8", "replace")

    try:
        status, text = await get("/readyz")
        alive = await get("/livez")
        if alive != (200, "ok\n"):
            found.reason = "what answers there is not a Headgate gateway"
            return found
        found.running, found.ready = True, status == 200
        found.reason = "" if found.ready else text.strip()[:200]
        if not detailed:
            return found
        _, page = await get("/")
        if version := re.match(r"Headgate ([0-9A-Za-z.+-]{1,64}),", page):
            found.version = version[1]
        status, text = await get("/internal/upstreams")
        if status == 200:
            found.upstreams = msgspec.json.decode(text, type=list[dict[str, Any]])
        status, text = await get("/metrics")
        if status == 200 and (streams := re.search(r"^headgate_open_streams (\d+)", text, re.M)):
            found.open_streams = int(streams[1])
    except (NotSent, Broken, TimedOut, msgspec.DecodeError) as error:
        refused = "nothing listens there" if isinstance(error, NotSent) else str(error)
        found.reason = found.reason or refused
    finally:
        await client.close()
    return found


def _print(found: Status) -> None:
    if not found.running:
        click.echo(f"No gateway at {found.url}: {found.reason}. Start one with `headgate serve`.")
        return
    state = "takes requests" if found.ready else f"takes no requests: {found.reason}"
    version = f" {found.version}" if found.version else ""
    streams = "" if found.open_streams is None else f"; {found.open_streams} open streams"
    click.echo(f"Headgate{version} at {found.url} {state}{streams}.")
    if found.addresses:
        click.echo("Addresses: " + ", ".join(found.addresses))
    if found.processes:
        print_table(
            ("process", "pid", "generation", "state", "uptime"),
            [_process(p) for p in found.processes],
        )
    rows = [
        (
            str(u.get("name", "")),
            str(u.get("state", "")),
            f"{u['paused_s']:.0f} s" if u.get("paused_s") else "",
            str(u.get("check", "")),
            "; ".join(plan_lines(u)),
            ", ".join(map(str, u.get("models", ()))),
        )
        for u in found.upstreams
    ]
    if rows:
        print_table(("upstream", "state", "paused for", "last check", "plan", "models"), rows)


def _process(found: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table; Any: as the supervisor has it."""
    uptime_s = found.get("uptime_s")
    uptime = "" if uptime_s is None else f"{uptime_s:.0f} s"
    generation = str(found.get("generation", "")) if found["name"] == "edge" else ""
    return (str(found["name"]), str(found["pid"]), generation, str(found.get("state", "")), uptime)
