"""What can be wrong around a gateway: its disk, clock, limits, port, proxies, trust, keys.

The only place that looks at the machine; `headgate doctor` prints what it finds.  Nothing is changed,
made or migrated, and nothing is dialled but this machine; `online` asks the configured https hosts
for the time, without a key, every upstream for its list of models, which costs no tokens, and the
database of all nodes.

Note: on the configured port our own gateway may answer, and is then asked for its
health.  A key is only reported to exist, of a proxy only its host.
"""

import asyncio
import contextlib
import email.utils
import errno
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import msgspec

from headgate import __version__
from headgate.catalog.advice import advice
from headgate.catalog.catalog import Catalog, Route
from headgate.catalog.detection import Detected
from headgate.config import ConfigError, Settings, base_url, on_this_machine
from headgate.diagnostics import upstream_check
from headgate.diagnostics.checks import Finding
from headgate.edge import listeners, upstream_kind
from headgate.local import model as local
from headgate.net import certificates
from headgate.net.client import Broken, Client, NotSent, TimedOut, Timeouts
from headgate.net.dial import Proxies, own_context, target_of
from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.sqlite.database import PEPPER_BYTES, Store, fingerprint_of
from headgate.storage.sqlite.inspection import inspect

_QUICK = Timeouts(connect_s=3.0, first_token_s=5.0, stall_s=5.0, total_s=8.0)
_PAGE_BYTES = 4 << 20
_OK, _LOW = 1 << 30, 200 << 20  # bytes free: enough for months of rows; for some days of them
_SKEW_S = (5.0, 60.0)  # the second: sign-ins, budgets' days and TLS begin to go wrong
_FILES = (1024, 4096)  # descriptors: a stream takes two
_LAG_S = 0.1
_NEEDS = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")
_METRIC = re.compile(r"^(headgate_\w+?)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.M)


def here(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    yield from _configuration(settings, catalog)
    yield from _data(Path(settings.data))
    yield from _files()
    yield _proxies(settings, catalog)
    yield from _keys(settings, catalog)
    yield _trust()
    yield _local(settings)


def installed() -> Iterator[Finding]:
    said = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {ssl.OPENSSL_VERSION}"
    yield Finding("python", "ok", said)  # an older one could not have read this file
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
    said = f"{len(catalog.models)} models, upstreams: {', '.join(settings.upstreams)}"
    if len(lonely) == len(catalog.models):
        yield Finding(
            "configuration",
            "fail",
            "no model has a route",
            "Configure an upstream that has one: see `headgate models`.",
        )
    else:
        yield Finding("configuration", "ok", said)
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
                f"Make it for this user (mkdir, chown), or choose another with --data; it is for {_user()}.",
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
            f"Give it to the user that runs the gateway ({_user()}): chown, chmod 700, or remount it.",
        )
        return
    yield Finding("data", "ok", f"{data} can be written")
    yield _modes(data)
    yield _space(data)
    yield from _database(data)


def _user() -> str:
    return f"uid {os.getuid()}" if hasattr(os, "getuid") else "this one"


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
    said = f"{free / (1 << 30):.1f} GiB free"
    do = "Make room on that disk, or move --data: without room the ledger cannot be written."
    if free < _LOW:
        return Finding("space", "fail", said, do)
    return Finding("space", "ok", said) if free >= _OK else Finding("space", "warn", said, do)


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
            "database", "fail", str(error), f"Let {_user()} read it; if it does: {restore}"
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
    if ahead > _SKEW_S[1]:
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
    said = f"{soft} open files at most" if soft != resource.RLIM_INFINITY else "no limit"
    do = "Raise it: `ulimit -n 65536` before the start, LimitNOFILE=65536 for systemd, --ulimit for Docker."
    if soft == resource.RLIM_INFINITY or soft >= _FILES[1]:
        yield Finding("file limit", "ok", said)
    else:
        failed = soft < _FILES[0]
        yield Finding(
            "file limit", "fail" if failed else "warn", f"{said}: about {soft // 2} streams", do
        )


def _proxies(settings: Settings, catalog: Catalog) -> Finding:
    found = getproxies_environment()
    try:
        known = Proxies(None)
        through = [
            name
            for name, url in _addresses(settings, catalog).items()
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


def _addresses(settings: Settings, catalog: Catalog) -> dict[str, str]:
    """Where each upstream is, as far as some model's requests go there."""
    out = {}
    for model in catalog.models:
        for route in catalog.routes(model.id):
            if route.upstream.base_url:
                out[route.upstream.name] = route.upstream.base_url
    return {name: out[name] for name in settings.upstreams if name in out}


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


def route_to(catalog: Catalog, upstream: str, model: str | None) -> Route | None:
    for m in catalog.models:
        for route in catalog.routes(m.id):
            if route.upstream.name == upstream and model in (None, m.id):
                return route
    return None


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
        out = await _port(client, settings)
    finally:
        await client.close()
    if not any(f.check == "gateway" for f in out):  # a gateway that runs knows more
        out += await _upstreams(settings, catalog, online)
    if settings.database:
        out.append(await _ledger_database(settings.database, online))
    if not online:
        return [*out, Finding("clock", "ok", _now() + "; not compared (--online does)")]
    hosts = {
        f"https://{urlsplit(url).netloc}"
        for url in _addresses(settings, catalog).values()
        if url.startswith("https:")
    }
    if not hosts:
        return [*out, Finding("clock", "ok", _now() + "; no https upstream to compare it with")]
    client = Client()
    try:
        return [*out, *await asyncio.gather(*(_clock(client, host) for host in sorted(hosts)))]
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
    return Finding(
        name, "ok", f"{database.shown(url)}: {len(nodes)} nodes, {behind} rows on their way"
    )


async def _upstreams(settings: Settings, catalog: Catalog, online: bool) -> list[Finding]:
    """Check the upstreams without a token: those of this machine, and with `online` all."""
    try:
        client = Client()
    except ValueError:  # of the proxies, which have a finding of their own
        return []
    out = []
    asked = upstream_kind.to_ask(settings, catalog) if settings.upstream_check_s else {}
    try:
        for name, url in _addresses(settings, catalog).items():
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
            out.append(_judge_upstream(shown))
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


def _judge_upstream(shown: Mapping[str, Any]) -> Finding:
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


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


async def _clock(client: Client, host: str) -> Finding:
    """Compare with the host's Date, which has whole seconds; no key is sent."""
    name = urlsplit(host).netloc
    began = time.time()
    try:
        _, headers, _ = await _get(client, host + "/", _QUICK)
    except (NotSent, Broken, TimedOut) as error:
        why = f" ({error})" if isinstance(error, NotSent) else ""
        return Finding(
            "clock",
            "fail",
            f"{name} could not be reached{why}",
            "Check DNS, the firewall, HTTPS_PROXY and the machine's certificates.",
        )
    return judge_clock(name, headers.get("date", ""), (began + time.time()) / 2)


def judge_clock(host: str, date: str, now_s: float) -> Finding:
    """Our clock against the Date header of a host."""
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp() + 0.5
    except ValueError:
        return Finding("clock", "warn", f"{host} tells no time")
    skew = now_s - theirs
    said = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {host}"
    if abs(skew) > _SKEW_S[0]:
        do = "Set the clock and keep it right: timedatectl set-ntp true (or chrony)."
        return Finding("clock", "fail" if abs(skew) > _SKEW_S[1] else "warn", said, do)
    return Finding("clock", "ok", f"as {host} has it")


async def _get(
    client: Client, url: str, timeouts: Timeouts, more: Mapping[str, str] = {}
) -> tuple[int, dict[str, str], bytes]:
    response = await client.send("GET", url, {"user-agent": "headgate", **more}, b"", timeouts)
    return response.status, response.headers, await response.read_all(_PAGE_BYTES)


async def _port(client: Client, settings: Settings) -> list[Finding]:
    """Whether the port is free, ours already, or somebody else's."""
    host, port = settings.host, settings.port
    if not port:
        return [Finding("port", "ok", "any free one, as configured")]
    base = base_url(host, port, "https" if settings.tls.cert else "http")
    proof = _proof(settings.data)
    taken = Finding(
        "port",
        "fail",
        f"{host}:{port} is taken by another program",
        f"Choose another with --port or HEADGATE_PORT, or find it: ss -ltnp 'sport = :{port}'",
    )
    try:
        _, _, page = await _get(client, base + "/", _QUICK, proof if settings.tls.client_ca else {})
        _, _, alive = await _get(client, base + "/livez", _QUICK)
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
                f"{_user()} may not listen on port {port}",
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


def _proof(data: str) -> dict[str, str]:
    """What opens /metrics to who can read the data directory; nothing when that cannot be read."""
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
        status, _, said = await _get(client, base + "/readyz", _QUICK)
        shown, _, page = await _get(client, base + "/metrics", _QUICK, proof)
    except (NotSent, Broken, TimedOut):
        return [Finding("gateway", "fail", "it stopped answering", "Look at its log; restart it.")]
    out = [
        Finding("gateway", "ok", "ready")
        if status == 200
        else Finding(
            "gateway",
            "fail",
            _NOT_READY.get(said, f"not ready: {said.decode('utf-8', 'replace').strip()[:200]}"),
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
        told, _, listed = await _get(client, base + "/internal/upstreams", _QUICK, proof)
        known = msgspec.json.decode(listed) if told == 200 else []
    except (NotSent, Broken, TimedOut, msgspec.DecodeError):
        known = []
    return [
        *out,
        *(_judge_upstream(each) for each in known),
        *judge_metrics(page.decode("utf-8", "replace")),
    ]


def judge_metrics(page: str) -> list[Finding]:
    """What the numbers of a running gateway say about its health."""
    sums: dict[str, float] = {}
    for name, value in _METRIC.findall(page):
        sums[name] = sums.get(name, 0.0) + float(value)
    lag = sums.get("headgate_loop_lag_seconds", 0.0)
    streams = sums.get("headgate_open_streams", 0.0)
    said = f"{streams:.0f} open streams, the loop is {lag * 1000:.0f} ms late"
    out = [
        Finding("load", "ok", said)
        if lag < _LAG_S
        else Finding(
            "load",
            "fail",
            said,
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
