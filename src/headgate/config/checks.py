"""Checks of addresses, names, keys and networks in settings."""

import ipaddress
import re
from urllib.parse import urlsplit

from headgate.config import ConfigError, Upstream


def check_model_name(name: str) -> None:
    """ConfigError for a name that cannot be in an address, a header or a table."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", name):
        raise ConfigError(
            f"`models.{name[:64]}`: a model's name has letters, digits and `.`, `_`, `:`, `/`, `@`, `+`,"
            " `-`, at most 128, and begins with a letter or a digit."
        )


def check_networks(where: str, networks: tuple[str, ...]) -> None:
    for text in networks:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise ConfigError(
                f"`{where}` has `{text[:64]}`, which is not a network;"
                " write it as `10.0.0.0/8`, with no bits set behind the `/8`, or as one address."
            ) from None


_ORIGIN = re.compile(
    r"https?://(\*\.)?([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
)


def check_origins(origins: tuple[str, ...]) -> None:
    """ConfigError for what is no origin (RFC 6454, 7): a scheme, a host and perhaps a port."""
    for text in origins:
        if text != "*" and not _ORIGIN.fullmatch(text):
            raise ConfigError(
                f"`cors.origins` has `{text[:64]}`, which is not an origin; write `https://app.example.com`,"
                " without a path or a slash at the end, or `*`."
            )


def check_stored_upstream(name: str, upstream: Upstream) -> None:
    """ConfigError for an upstream that may not be stored: only a key itself, never the name of one.

    Note: `env:` and `file:` are for headgate.toml; here they would let a page read files of the machine.
    """
    where = f"upstreams.{name}"
    if upstream.base_url:
        check_url(f"{where}.base_url", upstream.base_url, upstream.allow_http)
    if upstream.keys:
        raise ConfigError(f"`{where}.keys`: a pool of keys is for headgate.toml.")
    if upstream.key.startswith(("env:", "file:")):
        raise ConfigError(
            f"`{where}.key`: `env:` and `file:` are for headgate.toml; enter the key itself."
        )
    check_key(f"`{where}.key`", upstream.key)


def check_upstream_name(name: str) -> None:
    """ConfigError for a name that cannot be in an address, a header or a metric."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"`upstreams.{name[:64]}`: an upstream's name has letters, digits and `.`, `_`, `-`, at most"
            " 64, and begins with a letter or a digit."
        )


def is_private(url: str) -> bool:
    """Whether the URL's host is this machine or an address of a private network."""
    try:
        host = urlsplit(url).hostname or ""
        if host == "localhost" or (host and "." not in host and ":" not in host):
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _PRIVATE)


def on_this_machine(url: str) -> bool:
    """Whether the URL's host is a loopback address, or localhost."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_key(where: str, key: str) -> None:
    """An upstream's key goes into a header: visible ASCII only."""
    if any(not "!" <= c <= "~" for c in key):
        raise ConfigError(f"{where} has characters that no API key has.")


# Plain http is for these only; Python's `is_private` has ranges of other purposes as well.
_PRIVATE = tuple(
    ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
# No upstream lives here: "this machine" by accident, the metadata services of clouds, and IPv4 in
# IPv6's clothes (mapped, NAT64, 6to4), which says less plainly where the requests go.
_NOWHERE = tuple(
    ipaddress.ip_network(n)
    for n in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/128",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "fe80::/10",
        "ff00::/8",
    )
)


def check_url(where: str, url: str, allow_http: bool) -> None:
    """Return https, or http to this machine; to a private network only where `allow_http` says so.

    Plain http would show the key and every prompt on its way.
    """
    if any(not "!" <= c <= "~" for c in url):
        raise ConfigError(f"`{where}` has characters that no URL has.")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise ConfigError(f"`{where}` is not a URL.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"`{where}` must begin with https:// (or http:// on this machine).")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"`{where}` must be an address only: no user, query or fragment.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if parts.scheme == "https" or host == "localhost":
            return
        # A name inside a private network, such as a container's; never a number, which the
        # resolver may take for any address (`http://2130706433/` is 127.0.0.1).
        private = "." not in host and not re.fullmatch("0x[0-9a-f]*|[0-9]+", host)
    else:
        if any(address in network for network in _NOWHERE):
            raise ConfigError(f"`{where}` is an address where no upstream can be.")
        if parts.scheme == "https" or address.is_loopback:
            return
        private = any(address in network for network in _PRIVATE)
    if not (private and allow_http):
        raise ConfigError(
            f"`{where}` is plain http to another machine, which would show the key and every prompt."
            " Use https, or, on a private network, set `allow_http = true`."
        )
