"""Wrong credentials: how many an address may present, and how many may be tried for one key id.

Only failures are counted and refused.  A right key always passes, also from an address that is
throttled, so that nobody is shut out by a neighbour behind the same NAT, or by strangers who guess
at their key's public id.  Each count is a GCRA (ITU-T I.371, annex A): a burst, then a steady rate.

Note: with over `MAX_SUBJECTS` addresses or ids at a time, the one that failed longest ago is
forgotten.  Guessing at 256 bits of secret is hopeless at any rate; this keeps it cheap.
"""

import ipaddress

# Failures at once, and the seconds after which there may be one more.  An office behind one address
# may have many misconfigured agents; one key id has few.
PEER_BURST, PEER_EVERY_S = 100, 1.0
KEY_BURST, KEY_EVERY_S = 20, 3.0
MAX_SUBJECTS = 8192  # of both kinds together; some 100 bytes each
IPV6_PREFIX = 64  # what one customer of a provider has at least


class GuessThrottle:
    """The failures of the last minute or so, by address and by key id."""

    def __init__(self) -> None:
        self._full_s: dict[tuple[str, str], float] = {}  # when all of a subject's burst is back

    def __len__(self) -> int:
        return len(self._full_s)

    def failed(self, peer: str, key_id: str, now_s: float) -> float:
        """Count one failure; the seconds to wait when there were too many, else 0.

        `peer` is an address, `key_id` the public id in the credential ("": it had none).
        `now_s` is of a clock that does not go back.
        """
        wait_s = self._count(("peer", network(peer)), PEER_BURST, PEER_EVERY_S, now_s)
        if key_id:
            wait_s = max(wait_s, self._count(("key", key_id), KEY_BURST, KEY_EVERY_S, now_s))
        return wait_s

    def waits(self, peer: str, now_s: float) -> bool:
        """Whether the next failure from this address would be refused."""
        full_s = self._full_s.get(("peer", network(peer)), 0.0) if self._full_s else 0.0
        return full_s - now_s > (PEER_BURST - 1) * PEER_EVERY_S

    def _count(self, subject: tuple[str, str], burst: int, every_s: float, now_s: float) -> float:
        full_s = max(self._full_s.pop(subject, now_s), now_s) + every_s
        over_s = full_s - now_s - burst * every_s
        if over_s > 0:  # refused, and not counted: who waits that long may fail once more
            full_s -= every_s
        elif len(self._full_s) >= MAX_SUBJECTS:
            del self._full_s[next(iter(self._full_s))]
        self._full_s[subject] = full_s  # at the end, behind those that failed before
        return max(0.0, over_s)


def network(peer: str) -> str:
    """The address, or of IPv6 the /64 that it is in; whatever is no address stands for itself."""
    if ":" not in peer:
        return peer
    try:
        address = ipaddress.IPv6Address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), IPV6_PREFIX), strict=False).network_address)
