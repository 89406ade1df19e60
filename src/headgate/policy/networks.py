"""From which networks a key may be used: lists in CIDR form, checked and applied.

An empty list allows every address.  A single address is a network of one.  An IPv6 address that
stands for an IPv4 one (`::ffff:192.0.2.7`) counts as the latter.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

MAX_NETWORKS = 64  # of one key; each is compared with the client's address
_MAX_CHARS = 64  # of one; the longest IPv6 network has 43

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def checked(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the networks in their usual form, each once; ValueError names the one that is wrong."""
    found: dict[str, None] = {}
    for text in texts:
        found[str(_network(text.strip()))] = None
        if len(found) > MAX_NETWORKS:
            raise ValueError(f"a key has at most {MAX_NETWORKS} allowed networks")
    return tuple(found)


def split(text: str) -> tuple[str, ...]:
    """Return the checked networks of a text that has commas or white space between them."""
    return checked(text.replace(",", " ").split())


@lru_cache(maxsize=4096)  # an agent asks from one address a thousand times
def allows(networks: tuple[str, ...], address: str) -> bool:
    """Whether a client at this address is in one of the networks; an unknown address is in none."""
    if not networks:
        return True
    found = _address(address)
    return found is not None and any(found in network for network in _parsed(networks))


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in networks)


def _network(text: str) -> Network:
    try:
        if len(text) > _MAX_CHARS or "%" in text:
            raise ValueError
        found = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            f"`{text[:_MAX_CHARS]}` is not a network; write it as `10.0.0.0/8`, with no bits set"
            " behind the `/8`, or as one address"
        ) from None
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, found.prefixlen - 96))
    return found


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped
