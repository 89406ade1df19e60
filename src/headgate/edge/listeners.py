"""The listeners of one edge: the API's, and, where they are set, those of the console and of the metrics.

With `[tls]` the first two speak TLS, with files that are read again when they are renewed.  The metrics'
listener speaks plain HTTP: it holds no secrets, and it belongs on a private address.
"""

import asyncio
from collections.abc import Callable

import msgspec

from headgate.config import ConfigError, Tls
from headgate.config.addresses import AddressName
from headgate.edge.app import App, InternalApi
from headgate.edge.context import EdgeContext
from headgate.edge.control_proxy import ControlProxy
from headgate.edge.log import LogLine
from headgate.edge.log import now as log_now
from headgate.edge.open_pages import MetricsApp
from headgate.net import certificates
from headgate.net.certificates import CertificateError, CertificateFiles, Certificates
from headgate.net.server import Server
from headgate.net.server_limits import Limits

ADMIN_CONNECTIONS = (
    512  # of people, their proxies and scripts; the API's clients take none of these
)


class Listener(msgspec.Struct, frozen=True):
    """One server, and the name of the address that it serves (config/addresses.py)."""

    server: Server
    name: AddressName
    apps: tuple[App, ...] = ()


def certificates_of(tls: Tls) -> Certificates | None:
    """Return what the files of `[tls]` hold; None without any, ConfigError for what cannot be used."""
    if not (tls.cert or tls.key or tls.client_ca):
        return None
    try:
        return Certificates(CertificateFiles(tls.cert, tls.key, tls.client_ca))
    except CertificateError as error:
        raise ConfigError(str(error)) from None


def notes(found: Certificates, now_s: float) -> list[str]:
    """Return what the operator should know of the files at the start."""
    out = []
    if found.expires_s < now_s:
        out.append(f"the certificate in `tls.cert` expired on {certificates.day(found.expires_s)}.")
    elif found.expires_s < now_s + 7 * 86400:
        out.append(f"the certificate in `tls.cert` expires on {certificates.day(found.expires_s)}.")
    if certificates.readable_by_others(found.files.key):
        out.append(f"every user of this machine can read `tls.key`: chmod o-r {found.files.key}")
    return out


def listeners(
    context: EdgeContext,
    limits: Limits,
    socket: str,
    internal: InternalApi,
    report: Callable[[str], None],
    found: Certificates | None,
) -> list[Listener]:
    """Return the listeners that the settings ask for, the API's first; none of them listens yet.

    `socket`: where control is.
    """
    settings = context.served.settings
    apart = bool(settings.admin.listen)
    app = App(context, ControlProxy(socket, "public" if apart else ""), internal)
    server = Server(app, limits, app.refuse_early, report, context.reporting.refusals.again, found)
    out = [Listener(server, "api", (app,))]
    if apart:
        admin = App(context, ControlProxy(socket, "admin"), internal)
        few = msgspec.structs.replace(
            limits, connections=min(limits.connections, ADMIN_CONNECTIONS)
        )
        server = Server(
            admin, few, admin.refuse_early, report, context.reporting.refusals.again, found
        )
        out.append(Listener(server, "admin", (admin,)))
    if settings.metrics not in ("key", "open"):
        out.append(Listener(Server(MetricsApp(context)), "metrics"))
    return out


def watch(context: EdgeContext, found: Certificates, servers: list[Server]) -> None:
    """Keep the files of TLS fresh, and their state in the metrics, until the context's tasks are stopped."""

    def report(level: str, text: str) -> None:
        context.reporting.log.write(LogLine(log_now(), level, "tls", where=text))

    renewal = certificates.Renewal(found, report)

    async def look() -> None:
        await asyncio.to_thread(renewal.round)

    context.tasks.every("tls", certificates.LOOK_S, look)
    context.reporting.metrics.gauge(
        "headgate_tls_certificate_expires_seconds",
        "When the certificate in force ends, in Unix time.",
        lambda: found.expires_s,
    )
    handshakes = servers[0].handshakes
    for server in servers[1:]:
        server.handshakes = handshakes
    context.reporting.metrics.tls_handshakes = handshakes.counts
