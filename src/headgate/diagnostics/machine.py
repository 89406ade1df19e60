"""What can be wrong around a gateway: its disk, clock, limits, port, proxies, trust, keys.

`headgate doctor` prints what it finds.  data_directory.py looks at the data, reachability.py at what answers.
Nothing is changed, made or migrated.

Note: a key is only reported to exist, of a proxy only its host.
"""

import importlib.metadata
import os
import platform
import re
import ssl
import sys
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
from headgate.diagnostics.data_directory import data_findings
from headgate.diagnostics.findings import Finding
from headgate.diagnostics.upstream_access import addresses, route_to
from headgate.edge import listeners
from headgate.local import model as local
from headgate.net import certificates
from headgate.net.dial import Proxies, target_of

_FILES = (1024, 4096)  # descriptors: a stream takes two
_NEEDS = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


def here(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    yield from _configuration(settings, catalog)
    yield from data_findings(Path(settings.data))
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
