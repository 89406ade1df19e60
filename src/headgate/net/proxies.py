"""Whose word about a client's address counts: the proxies that the operator trusts, and nobody else's.

The address is the rightmost one in X-Forwarded-For that is no trusted proxy's: each proxy appends
the address that it saw, so all that stands left of that may be the client's invention.

Note: `Forwarded` (RFC 7239) is not read.  A proxy that sets one of the two lets the client's own
other one through, which could then not be told from its own.
"""

import ipaddress
from collections.abc import Iterable, Mapping

MAX_HOPS = 16  # addresses that are looked at, from the right
_MAX_CHARACTERS = 64  # of one: an IPv6 address with brackets and a port has at most 53

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """`networks`: in CIDR form, such as `10.0.0.0/8`; a single address is a network of one."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(n) for n in networks)

    def trusts(self, peer: str) -> bool:
        if not self._networks:
            return False
        address = _address(peer.partition("%")[0])
        return address is not None and self._trusted(address)

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """The client's address, as a trusted proxy at `peer` reports it."""
        found = peer
        entries = headers.get("x-forwarded-for", "").rsplit(",", MAX_HOPS)
        for entry in reversed(entries[-MAX_HOPS:]):
            address = _address(entry.strip())
            if address is None:
                break
            found = str(address)
            if not self._trusted(address):
                break
        return found

    def _trusted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    """An address with or without a port; of an IPv6 address that stands for an IPv4 one, the latter."""
    if len(text) > _MAX_CHARACTERS or "%" in text:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped
