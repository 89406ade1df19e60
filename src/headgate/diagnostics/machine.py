"""What can be wrong around a gateway: its disk, clock, limits, port, proxies, trust, keys.

The only place that looks at the machine; `headgate doctor` prints what it finds.  Nothing is changed,
made or migrated, and nothing is dialled but this machine; `online` asks the configured https hosts
for the time, without a key, every upstream for its list of models, which costs no tokens, and the
database of all nodes.

Note: on the configured port our own gateway may answer, and is then asked for its
health.  A key is only reported to exist, of a proxy only its host.
"""

import asyncio
import importlib.metadata
import os
import platform
import re
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from headgate import __version__
from headgate.catalog.advice import advice
from headgate.catalog.catalog import Catalog
from headgate.config import ConfigError, Settings
from headgate.diagnostics.clock import SKEW_S, clock_findings
from headgate.diagnostics.findings import Finding
from headgate.diagnostics.running import port_findings, user_name
from headgate.diagnostics.upstream_access import addresses, route_to, upstream_findings
from headgate.edge import listeners
from headgate.local import model as local
from headgate.net import certificates
from headgate.net.client import Client
from headgate.net.dial import Proxies, own_context, target_of
from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres.nodes import CLOCK_S, SILENT_S
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.sqlite.database import PEPPER_BYTES, fingerprint_of
from headgate.storage.sqlite.inspection import inspect

_OK, _LOW = 1 << 30, 200 << 20  # bytes free: enough for months of rows; for some days of them
_FILES = (1024, 4096)  # descriptors: a stream takes two
_NEEDS = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


def here(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    yield from _configuration(settings, catalog)
    yield from _data(Path(settings.data))
    yield from _files()
    yield _proxies(settings, catalog)
    yield from _keys(settings, catalog)
    yield _trust()
    yield _local(settings)


def installed() -> Iterator[Finding]:
    stated = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {ssl.OPENSSL_VERSION}"
    yield Finding("python", "ok", stated)  # an older one could not have read this file
    found, wrong = [], []
    try:
        needs = importlib.metadata.requires("headgate") or []
    except importlib.metadata.PackageNotFoundError:
        needs = []
    for need in needs:
        parts = _NEEDS.match(need)
        if parts is None or "extra ==" in need or ("win32" in need and sys.platform == "win32"):
            continue
        try:
            version = importlib.metadata.version(parts[1])
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{parts[1]} is missing")
            continue
        found.append(f"{parts[1]} {version}")
        if _numbers(version) < _numbers(parts[2]):
            wrong.append(f"{parts[1]} {version} is older than {parts[2]}")
    if wrong:
        yield Finding(
            "libraries", "fail", ", ".join(wrong), "Install it anew: pip install -U headgate"
        )
    else:
        yield Finding("libraries", "ok", ", ".join([f"headgate {__version__}", *found]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def _configuration(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    lonely = [m.id for m in catalog.models if not catalog.routes(m.id)]
    stated = f"{len(catalog.models)} models, upstreams: {', '.join(settings.upstreams)}"
    if len(lonely) == len(catalog.models):
        yield Finding(
            "configuration",
            "fail",
            "no model has a route",
            "Configure an upstream that has one: see `headgate models`.",
        )
    else:
        yield Finding("configuration", "ok", stated)
    for note in settings.notes:
        yield Finding("configuration", "warn", note)
    for id in lonely:
        yield Finding("configuration", "warn", f"{id} has no route.")
    for each in advice(catalog, settings, datetime.now(UTC).date()):
        if each.level == "warning":  # the rest: `headgate models check`
            yield Finding("models", "warn", each.text, each.fix)
    yield from _tls(settings)


def _tls(settings: Settings) -> Iterator[Finding]:
    """Whether the files of `[tls]` can be used, and for how long."""
    try:
        found = listeners.certificates_of(settings.tls)
    except ConfigError as error:
        yield Finding("tls", "fail", str(error).rstrip("."), "Correct `[tls]` in headgate.toml.")
        return
    if found is None:
        return
    for note in listeners.notes(found, time.time()):
        expired = found.expires_s < time.time() and "expired" in note
        renew = "Renew it; a running gateway takes the new files by itself within seconds."
        do = renew if "expire" in note else "Let only the gateway's user read it."
        yield Finding("tls", "fail" if expired else "warn", note.rstrip("."), do)
    yield Finding(
        "tls", "ok", f"the certificate is valid until {certificates.day(found.expires_s)}"
    )


def _data(data: Path) -> Iterator[Finding]:
    if not data.exists():
        parent = next(p for p in data.absolute().parents if p.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("data", "ok", f"{data} is not there yet: the first start makes it")
        else:
            yield Finding(
                "data",
                "fail",
                f"{data} is not there and {parent} is not writable",
                f"Make it for this user (mkdir, chown), or choose another with --data; it is for {user_name()}.",
            )
        return
    try:
        with tempfile.TemporaryFile(dir=data) as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        yield Finding(
            "data",
            "fail",
            f"{data} cannot be written: {error.strerror}",
            f"Give it to the user that runs the gateway ({user_name()}): chown, chmod 700, or remount it.",
        )
        return
    yield Finding("data", "ok", f"{data} can be written")
    yield _modes(data)
    yield _space(data)
    yield from _database(data)


def _modes(data: Path) -> Finding:
    if os.name == "nt":
        return Finding("modes", "ok", "are not looked at on Windows")
    secret = [data / "headgate.db", data / "headgate.db-wal", data / "pepper"]
    loose = [p for p in secret if p.exists() and p.stat().st_mode & 0o077]
    wide = data.stat().st_mode & 0o022
    commands = [f"chmod 700 {data}"] if wide else []
    commands += [f"chmod 600 {p}" for p in loose]
    if commands:
        who = "others can write into it" if wide else "others can read what only the gateway should"
        return Finding("modes", "fail", who, "; ".join(commands))
    if data.stat().st_mode & 0o077:
        return Finding(
            "modes", "warn", "others can list the directory, not read it", f"chmod 700 {data}"
        )
    return Finding("modes", "ok", "only the gateway's user can read keys and ledger")


def _space(data: Path) -> Finding:
    free = shutil.disk_usage(data).free
    stated = f"{free / (1 << 30):.1f} GiB free"
    do = "Make room on that disk, or move --data: without room the ledger cannot be written."
    if free < _LOW:
        return Finding("space", "fail", stated, do)
    return Finding("space", "ok", stated) if free >= _OK else Finding("space", "warn", stated, do)


def _database(data: Path) -> Iterator[Finding]:
    file, pepper = data / "headgate.db", data / "pepper"
    if not file.exists():
        yield Finding("database", "ok", "is not there yet: the first start makes it")
        return
    restore = (
        "Stop the gateway and put back a copy (`headgate backup` makes them), with its pepper."
    )
    try:
        found = inspect(file)
        content = pepper.read_bytes() if pepper.exists() else b""
    except (StoreError, OSError) as error:
        yield Finding(
            "database", "fail", str(error), f"Let {user_name()} read it; if it does: {restore}"
        )
        return
    if found.whole is False:
        yield Finding("database", "fail", "is damaged", restore)
    elif found.schema > found.known:
        yield Finding(
            "database",
            "fail",
            f"schema {found.schema}, this Headgate knows {found.known}",
            "Upgrade Headgate: a newer one has written it.",
        )
    elif found.whole is None:
        yield Finding("database", "warn", f"schema {found.schema}, large: looked at for 20 s only")
    else:
        old = f" (the next start brings it to {found.known})" if found.schema < found.known else ""
        yield Finding("database", "ok", f"whole, schema {found.schema}{old}")
    if len(content) != PEPPER_BYTES:
        what = "damaged" if content else "missing"
        yield Finding(
            "pepper",
            "fail",
            f"{pepper} is {what}: no key can be used",
            "Put back a copy of it; to begin anew, use an empty --data.",
        )
    elif found.pepper is not None and found.pepper != fingerprint_of(content):
        yield Finding(
            "pepper",
            "fail",
            f"{pepper} is not the one that the keys in {file} were created with: none of them works",
            "Put back the copy that belongs to this database; to begin anew, use an empty --data.",
        )
    ahead = file.stat().st_mtime - time.time()
    if ahead > SKEW_S[1]:
        yield Finding(
            "clock",
            "fail",
            f"the database was written {ahead:.0f} s in the future",
            "The clock was or is wrong: set it (timedatectl set-ntp true).",
        )


def _files() -> Iterator[Finding]:
    try:
        import resource  # not on Windows
    except ImportError:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    stated = f"{soft} open files at most" if soft != resource.RLIM_INFINITY else "no limit"
    do = "Raise it: `ulimit -n 65536` before the start, LimitNOFILE=65536 for systemd, --ulimit for Docker."
    if soft == resource.RLIM_INFINITY or soft >= _FILES[1]:
        yield Finding("file limit", "ok", stated)
    else:
        failed = soft < _FILES[0]
        yield Finding(
            "file limit", "fail" if failed else "warn", f"{stated}: about {soft // 2} streams", do
        )


def _proxies(settings: Settings, catalog: Catalog) -> Finding:
    found = getproxies_environment()
    try:
        known = Proxies(None)
        through = [
            name
            for name, url in addresses(settings, catalog).items()
            if known.before(target_of(url).key) is not None
        ]
    except ValueError as error:
        return Finding(
            "proxies",
            "fail",
            str(error),
            "Correct HTTPS_PROXY and HTTP_PROXY: http://host:port or https://host:port.",
        )
    if not any(found.get(s) for s in ("http", "https")):
        return Finding("proxies", "ok", "none in the environment")
    hosts = {
        s: urlsplit(found[s] if "://" in found[s] else f"http://{found[s]}").hostname
        for s in ("http", "https")
        if found.get(s)
    }
    named = ", ".join(f"{s} by {host}" for s, host in hosts.items())
    if not through:
        return Finding("proxies", "ok", f"{named}; no upstream goes through one")
    return Finding(
        "proxies",
        "warn",
        f"{named}; for {', '.join(through)}",
        "If streams come all at once, this proxy holds them back: add the host to NO_PROXY.",
    )


def _keys(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    for name, own in settings.upstreams.items():
        if own.preset == "local":
            continue
        route = route_to(catalog, name, None)
        if route is None:
            yield Finding(
                f"upstream {name}",
                "warn",
                "no model's requests go there",
                "Name it in `models.ID.routes`, or take it out.",
            )
            continue
        host = urlsplit(route.upstream.base_url).netloc
        if route.upstream.key or route.upstream.auth == "none":
            keys = f"{len(route.pool)} keys" if route.pool else "a key"
            yield Finding(
                f"upstream {name}",
                "ok",
                f"{host}, with {keys}; to try it: headgate doctor --upstream {name}",
            )
        elif urlsplit(route.upstream.base_url).scheme == "http":
            yield Finding(f"upstream {name}", "ok", f"{host}, without a key")
        else:
            yield Finding(
                f"upstream {name}",
                "warn",
                f"{host}, without a key",
                f"If it wants one, set `upstreams.{name}.key` to env:NAME or file:/path.",
            )


def _trust() -> Finding:
    paths = ssl.get_default_verify_paths()
    do = "Install the system's certificates (Debian: ca-certificates), or set SSL_CERT_FILE to a file of them."
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if (set_to := os.environ.get(name)) and not os.access(set_to, os.R_OK):
            return Finding(
                "TLS", "fail", f"{name} names what cannot be read", f"Correct or unset {name}."
            )
    try:
        roots = ssl.create_default_context().cert_store_stats()["x509_ca"]
    except (ssl.SSLError, OSError):
        return Finding("TLS", "fail", "the certificates cannot be read", do)
    directory = paths.capath if paths.capath and os.path.isdir(paths.capath) else None
    if roots:
        return Finding("TLS", "ok", f"{roots} roots are trusted")
    # As OpenSSL looks them up there: by a hash of the name.
    if directory and any(re.fullmatch(r"[0-9a-f]{8}\.\d+", n) for n in os.listdir(directory)):
        return Finding("TLS", "ok", f"roots are read from {directory}")
    return Finding("TLS", "fail", "no root certificate is trusted", do)


def _local(settings: Settings) -> Finding:
    wanted = any(u.preset == "local" for u in settings.upstreams.values())
    if local.available(settings.data):
        return Finding(
            "local model", "ok", "installed" + (", and answers for all models" if wanted else "")
        )
    if wanted:
        return Finding(
            "local model",
            "fail",
            "not installed, and no other upstream is configured",
            "Set MINIMAX_API_KEY, RUNAPI_TOKEN or HEADGATE_UPSTREAM_URL, or: headgate local install",
        )
    return Finding("local model", "ok", "not installed, and not needed")


# --- what answers --------------------------------------------------------------------------------


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
