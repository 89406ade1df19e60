"""What the inbound server bounds, and how long it waits."""

from http import HTTPStatus

import msgspec

from headgate.net.proxies import Header


class Limits(msgspec.Struct, frozen=True):
    """What one listener has bounds for, so that a client cannot hold it."""

    header_bytes: int = 65536
    header_s: float = 10.0  # from a connection's or request's first byte to the end of its head
    idle_s: float = 75.0  # between requests; nginx's default keepalive_timeout
    body_bytes: int = 32 << 20
    body_grace_s: float = 10.0  # after it a body must keep to the rate below
    body_min_bytes_per_s: int = 1024
    write_stall_s: float = 30.0  # a client that takes nothing for so long is gone
    write_high_bytes: int = 16384
    connections: int = 10000
    connections_per_peer: int = 2000
    hosts: tuple[str, ...] = ()  # host names answered for; empty: any
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For or Forwarded counts
    forwarded_header: Header = "auto"  # which of the two


LIMITS = Limits()


MAX_HELD_BYTES = 4096  # sent behind the request that is answered; then reading pauses
MAX_HELD_BYTES_IN_ALL = 64 << 20  # over all connections; then one that sends more is closed
MAX_UNASKED_BYTES = 65536  # of a body that the handler has not asked for; then reading pauses
CHUNKED_STEP = 65536  # what a body of unknown length reserves beyond what has come of it
MAX_HEADERS = 128  # of one request; Apache takes 100, and a client sends some 20
SMALL_BYTES = 1024  # pieces of a body below this are joined as they come
JOIN_BYTES = 65536  # up to here copying a body behind its head is cheaper than a second write
UNSENT_BYTES = 65536  # of one connection, beyond what is on its way, that the system keeps
TURN_BYTES = 262144  # of a compressed body that are decoded in one turn of the loop, some 1 ms
RETIRED_IDLE_S = 5.0  # of a connection whose edge is followed by another
BACKLOG = 1024  # connections that the system completes before we accept them
SWEPT_AT_ONCE = 500  # connections, some 0.5 ms
HEALTH = frozenset(("/livez", "/readyz"))  # answered on reserved connections (connections.py)
END_S = 5.0  # at the end of a drain: for handlers that were cancelled, to say so and be recorded
HURRY_S = 0.7  # the same when the operator does not want to wait
SENT_S = 0.5  # for their last bytes to leave
DRAIN_POLL_S = 0.02
LINGER_S = 5.0  # how long a refused body is read on, unkept, so that its sender sees the answer
ESTABLISHED = 1  # tcpi_state, the first byte of struct tcp_info (linux/tcp.h)
PHRASES = {s.value: s.phrase for s in HTTPStatus}
# For what the parser or the guard refuses; the dialects' own statuses do not fit.
STATUS = {"bad_http": 400, "header_too_large": 431, "expectation_failed": 417}
