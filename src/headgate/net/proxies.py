"""Which client address counts: what proxies report that the operator trusts, and nobody else.

The address is the rightmost one in X-Forwarded-For that is no trusted proxy's: each proxy appends
the address that it saw, so all that stands left of that may be the client's invention.  The `for=`
values of Forwarded (RFC 7239) are read in the same way.

Note: a proxy that sets one of the two lets the client's own other one through.  So only one of them
counts in a request: X-Forwarded-For where there is any, unless the operator names Forwarded.
"""

import ipaddress
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

MAX_HOPS = 16  # addresses that are looked at, from the right
# RFC 7239, 4: a list of elements, each of pairs; what is in quotes may have commas and semicolons.
_ELEMENT = re.compile(r'(?:[^,"]++|"(?:[^"\\]++|\\.)*+")++(?:,|$)|,')
_PAIR = re.compile(r'\s*+([\w!#$%&*+.^`|~-]+)=("(?:[^"\\]++|\\.)*+"|[^;,"\s]*+)\s*+(?:;|$)')
_MAX_CHARACTERS = 64  # of one: an IPv6 address with brackets and a port has at most 53

Header = Literal["auto", "x-forwarded-for", "forwarded"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """What proxies in these networks report."""

    def __init__(self, networks: Iterable[str] = (), header: Header = "auto") -> None:
        """`networks` are in CIDR form, such as `10.0.0.0/8`; a single address is a network of one."""
        self._header = header
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(n) for n in networks)

    def trusts(self, peer: str) -> bool:
        if not self._networks:
            return False
        address = _address(peer.partition("%")[0])
        return address is not None and self._trusted(address)

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """The client's address, as a trusted proxy at `peer` reports it."""
        found = peer
        for entry in self._entries(headers):
            address = _address(entry)
            if address is None:
                break
            found = str(address)
            if not self._trusted(address):
                break
        return found

    def _entries(self, headers: Mapping[str, str]) -> Iterator[str]:
        """Return the addresses that the proxies reported, the nearest proxy's first."""
        forwarded_for = headers.get("x-forwarded-for", "")
        if self._header == "x-forwarded-for" or (self._header == "auto" and forwarded_for):
            for entry in reversed(forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
                yield entry.strip()
            return
        yield from reversed(_forwarded(headers.get("forwarded", "")))

    def _trusted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _forwarded(value: str) -> list[str]:
    """The `for` of each of the last elements, "" where one has none; empty if it is not well-formed."""
    elements: deque[str] = deque(maxlen=MAX_HOPS)
    at = 0
    while at < len(value):
        element = _ELEMENT.match(value, at)
        if element is None:
            return []
        elements.append(element[0].removesuffix(","))
        at = element.end()
    return [_for(element) for element in elements]


def _for(element: str) -> str:
    at = 0
    while (pair := _PAIR.match(element, at)) is not None:
        if pair[1].lower() == "for":
            return pair[2].strip('"')
        at = pair.end()
    return ""


def _address(text: str) -> Address | None:
    """Return an address with or without a port; of an IPv6 address that stands for an IPv4 one, the latter."""
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
