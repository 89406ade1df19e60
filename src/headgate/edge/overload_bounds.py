"""What one edge takes on at most, by the settings and the machine, and how it refuses more."""

import contextlib
import os
from pathlib import Path

from headgate.errors import Failure

MIN_BYTES, MAX_BYTES = 64 << 20, 256 << 20  # of the default bound for bodies in flight
MEMORY_PART = 16  # of the machine; a body takes three to four times its size once it is decoded
IN_FLIGHT = 1000  # requests of one edge, where none is set
VISITOR_PART = 4  # of all requests in flight, so many more may be of those who showed no key
OWNER_PART = 4  # of all bytes in flight, what one owner may hold
RETRY_S = 1.0

BUSY = Failure(
    "overloaded",
    "The gateway has too many requests in flight. Please try again in 1s.",
    code="overloaded",
    retry_after_s=RETRY_S,
)
OWNER_BUSY = Failure(
    "rate_limit",
    "This key has as many requests in flight as one key may have here"
    " ([overload] in_flight_per_key). Please try again in 1s.",
    retry_after_s=RETRY_S,
)
LATE = Failure(
    "overloaded",
    "The gateway is overloaded: requests wait too long for their start. Please try again in 1s.",
    code="overloaded",
    retry_after_s=RETRY_S,
)
FULL = Failure(
    "overloaded",
    "The gateway holds too many bytes of request bodies. Please try again in 1s.",
    code="overloaded",
    retry_after_s=RETRY_S,
)
OWNER_FULL = Failure(
    "rate_limit",
    "The requests of this key that are in flight have too large bodies together."
    " Please try again in 1s.",
    retry_after_s=RETRY_S,
)


def part(whole: int, edges: int) -> int:
    """What one of so many edges has of a bound for all of them: together never less than it."""
    return -(-whole // edges)


def default_bytes(memory: int) -> int:
    """The bound for bodies in flight on a machine with so much memory (0: unknown)."""
    return min(MAX_BYTES, max(MIN_BYTES, memory // MEMORY_PART))


def machine_bytes() -> int:
    """The memory that this process may use, by the machine or its control group; 0 when unknown."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    with contextlib.suppress(OSError, ValueError):  # "max": no bound
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found
