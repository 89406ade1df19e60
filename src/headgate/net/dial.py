"""Reaching an upstream: URLs taken apart, proxies, CONNECT tunnels, TLS.

The only place that opens a connection; `net/client.py` is its only user.  Follows RFC 9110, 9.3.6
(CONNECT) and RFC 9112, 3.2.2 (absolute-form), https://www.rfc-editor.org/rfc/rfc9112 (read
2026-11-25).  `NO_PROXY` has no specification; taken here: names, suffixes, addresses, CIDR ranges.

Note: loopback is never proxied, whatever is configured.  No message made here holds a
URL, an address or a proxy's user: they go to logs.
"""

import asyncio
import base64
import functools
import ipaddress
import re
import ssl
from collections.abc import Mapping
from typing import Final, Literal, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

import msgspec

MAX_TUNNEL_BYTES = 16 << 10  # of a proxy's answer to CONNECT

Key = tuple[str, str, int]  # scheme, host, port

_URL: Final = re.compile(r"[\x21-\x7e]+")
PORTS: Final = {"http": 80, "https": 443}


class NotSent(Exception):
    """Nothing of the request reached the upstream's application; it can be sent again."""


class ConnectTimedOut(NotSent):
    what: Literal["connect"] = "connect"


class DialTarget(msgspec.Struct, frozen=True):
    """Holds the parts of a URL."""

    key: Key
    authority: str  # what `Host` says
    path: str  # with the query


@functools.lru_cache(maxsize=256)  # a handful of upstreams, each with a few paths
def target_of(url: str) -> DialTarget:
    """ValueError, without the URL in it as there may be a key in its query."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise ValueError("the upstream's URL is malformed") from None
    host = parts.hostname or ""
    if not _URL.fullmatch(url) or not host or not port or parts.scheme not in PORTS:
        raise ValueError("the upstream's URL is not a plain http or https URL")
    if "@" in parts.netloc:
        raise ValueError("the upstream's URL has a user in it; use a header")
    named = f"[{host}]" if ":" in host else host
    authority = named if port == PORTS[parts.scheme] else f"{named}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return DialTarget((parts.scheme, host, port), authority, path)


class Proxy:
    """Where a proxy is and what it wants to hear; no repr that could show it."""

    __slots__ = ("authorization", "host", "port", "tls")

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            self.host = parts.hostname or ""
            self.port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            raise ValueError("the proxy's URL is malformed") from None
        if parts.scheme not in PORTS or not self.host:
            raise ValueError("the proxy's URL is not an http or https URL; other kinds are unknown")
        self.tls = parts.scheme == "https"
        self.authorization = ""  # a header line
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            token = base64.b64encode(user.encode()).decode()
            self.authorization = f"proxy-authorization: Basic {token}\r\n"


class _Tunnel(asyncio.Protocol):
    """A proxy's answer to CONNECT, until the connection is the upstream's."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        ended = b"\r\n\r\n" in self._data or len(self._data) > MAX_TUNNEL_BYTES
        if ended and not self.answer.done():
            self.answer.set_result(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(b"")

    async def open(self, authority: str, authorization: str) -> asyncio.Transport:
        """Ask for the tunnel; NotSent when the proxy does not give it."""
        assert self.transport is not None
        self.transport.write(
            f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{authorization}\r\n".encode()
        )
        answer = await self.answer
        # RFC 9110, 9.3.6: "Any 2xx (Successful) response indicates that the sender (and all inbound
        # proxies) will switch to tunnel mode immediately after the response header section".  In
        # TLS the client speaks first, so nothing may follow that section yet.
        if not re.match(rb"HTTP/1\.[01] 2\d\d[ \r]", answer) or not answer.endswith(b"\r\n\r\n"):
            status = re.match(rb"HTTP/1\.[01] (\d\d\d)", answer)
            stated = status[1].decode() if status else "no HTTP"
            raise NotSent(f"the proxy refused the tunnel ({stated})")
        return self.transport


def own_context() -> ssl.SSLContext:
    """Return a context for asking this machine's own gateway, whose certificate names a public host.

    Nothing is verified: the connection does not leave the machine, and without TLS it is as open.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Proxies:
    """Which proxy stands before which origin."""

    def __init__(self, found: Mapping[str, str] | None) -> None:
        """`found`: URLs by scheme, and `no` with a list of hosts; None: as the environment says."""
        if found is None:
            found = getproxies_environment()
        self._by_scheme = {s: Proxy(found[s]) for s in PORTS if found.get(s)}
        self._no = tuple(e for e in re.split(r"[,\s]+", found.get("no", "").lower()) if e)

    def before(self, key: Key) -> Proxy | None:
        scheme, host, port = key
        proxy = self._by_scheme.get(scheme)
        if proxy is None or _is_loopback(host):
            return None
        if any(_names(entry, host, port) for entry in self._no):
            return None
        return proxy


def _names(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY (name, suffix, address, range, with a port or `*`) means us."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass  # one of the two is a name
    name, colon, tail = entry.rpartition(":")
    if colon and tail.isdigit():
        if int(tail) != port:
            return False
        entry = name.strip("[]")
    entry = entry.lstrip("*").lstrip(".")
    return host == entry or (bool(entry) and host.endswith(f".{entry}"))


async def dial(
    protocol: asyncio.Protocol,
    target: DialTarget,
    proxy: Proxy | None,
    context: ssl.SSLContext | None,
) -> None:
    """Connect the protocol to the target; NotSent, or OSError as it came.

    `context` is needed for https and for a proxy that speaks it.  The name is resolved once, and
    what came out of that is connected to, so that a second answer of the DNS changes nothing.
    """
    loop = asyncio.get_running_loop()
    scheme, host, port = target.key
    secure = context if scheme == "https" else None
    if proxy is None:
        await loop.create_connection(lambda: protocol, host, port, ssl=secure)
        return
    proxy_tls = context if proxy.tls else None
    if secure is None:
        await loop.create_connection(lambda: protocol, proxy.host, proxy.port, ssl=proxy_tls)
        return
    tunnel = _Tunnel()
    try:
        await loop.create_connection(lambda: tunnel, proxy.host, proxy.port, ssl=proxy_tls)
        named = f"[{host}]" if ":" in host else host
        raw = await tunnel.open(f"{named}:{port}", proxy.authorization)
        inner = await loop.start_tls(raw, protocol, secure, server_hostname=host)
        if inner is None:
            raise NotSent("the connection ended in the TLS handshake")
        protocol.connection_made(inner)
    except BaseException:
        if tunnel.transport is not None:
            tunnel.transport.abort()
        raise


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reason(error: Exception) -> str:
    """What went wrong, of a closed set of words: an OSError's own text can hold addresses."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: {error.reason}"
        case _:
            return type(error).__name__
