"""Outbound HTTP/1.1: one request to an upstream, its answer read as it comes, connections kept.

The only place in Headgate that speaks HTTP to upstreams (`net/dial.py` reaches them).  Follows RFC
9112 (6.3 body length, 9.3 persistence), https://www.rfc-editor.org/rfc/rfc9112 (read 2026-11-25);
httptools (llhttp) parses.

What a failed exchange means for money is in the class of its exception:

    NotSent             the upstream's application saw nothing: DNS, connect, TLS, proxy
      ConnectTimedOut   the same, as it took longer than `connect_s`
      NoConnection      the same, as this client already has as many connections as it may have
    Broken              sent, and then the connection ended or the answer was no HTTP
      Stale             the same, but a kept connection ended at once and without a byte of an answer
    TimedOut            sent, and then silence (`what`: first_token, stall, total)

Note: a connection owns its one timer, and the timer is only ever set earlier, never
pushed back; when it fires it looks whether anything is due and sleeps on.  So a chunk of a stream
costs no timer, and neither does a small request on a kept connection.  A stall is not counted while
we ourselves paused the socket for a slow reader.  Everything ends by `transport.abort()`: to an
upstream that still computes, a polite TLS shutdown would be a delay that costs tokens.
"""

import asyncio
import functools
import resource
import ssl
from collections.abc import Mapping
from typing import Final

import msgspec

from headgate.net.client_errors import Broken, NoConnection, Stale, TimedOut, Timeouts
from headgate.net.dial import (
    ConnectTimedOut,
    DialTarget,
    Key,
    NotSent,
    Proxies,
    Proxy,
    dial,
    reason,
    target_of,
)
from headgate.net.upstream_connection import MIN_IDLE_S, TOKEN, VALUE, Connection, Response

__all__ = [
    "Broken",
    "Client",
    "ConnectTimedOut",
    "NoConnection",
    "NotSent",
    "Prepared",
    "Response",
    "Stale",
    "TimedOut",
    "Timeouts",
    "most_connections",
]


# A kept connection that ends within this time of the request being written, without a byte of an
# answer, was closed before the request was read; after longer the upstream may have worked on it.
STALE_S = 1.0
RESERVED_FILES = 256  # descriptors for the listener, the database and the log
MAX_ORIGINS = 1024  # whose idle time is remembered; there are as many as upstreams


# What decides the framing or the connection is set here and by nobody else.
_OURS: Final = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "keep-alive",
        "expect",
        "upgrade",
        "te",
        "trailer",
        "proxy-authorization",
        "proxy-connection",
    )
)


def most_connections() -> int:
    """How many connections fit into this process's files, with as many left for clients."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 16
    return max(64, (soft - RESERVED_FILES) // 2)


class Prepared(msgspec.Struct, frozen=True):
    """A request but for its body: where it goes, and its head before and after the length."""

    target: DialTarget
    proxy: Proxy | None
    before: bytes
    after: bytes


class Client:
    """Sends requests and keeps the connections between them; of one event loop."""

    def __init__(
        self,
        *,
        idle_s: float = 30.0,
        max_idle_per_origin: int = 64,
        proxies: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        unix: str = "",
        stale_s: float = STALE_S,
        max_open: int | None = None,
        max_per_origin: int | None = None,
    ) -> None:
        """`proxies`: by scheme, and `no` with a list of hosts; None: as the environment says.

        `unix`: a socket to which every request goes, whatever host its URL names.
        `max_open`: connections in all; None: as many as the limit of files allows.
        `max_per_origin`: None: three quarters of them, so that one origin cannot take all.
        """
        self.idle_s = idle_s
        self.stale_s = stale_s
        self._max_open = most_connections() if max_open is None else max_open
        self._max_per_origin = (
            max(1, self._max_open * 3 // 4) if max_per_origin is None else max_per_origin
        )
        self._count: dict[Key, int] = {}  # connections to each origin, those being made included
        self._total = 0
        # How long the connections of an origin stay alive, where it proved to be less than `idle_s`.
        self._idle_most: dict[Key, float] = {}
        self._max_idle = max_idle_per_origin
        self._proxies = Proxies(proxies)
        self._ssl = ssl_context
        self._unix = unix
        self._idle: dict[Key, list[Connection]] = {}
        self.open: set[Connection] = set()
        self.known: dict[int, object] = {}  # its users': what goes with a request, made once
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> Response:
        """Send one request; returns when the head of its answer came, whatever its status.

        NotSent, Broken, TimedOut; ValueError for what must not go on the wire.  Redirects are not
        followed, compressed answers are Broken.  A kept connection that turns out to have been
        closed is replaced once; `send_prepared` raises Stale instead, so that its caller can count.
        """
        request = self.prepared(method, url, headers)
        try:
            return await self.send_prepared(request, body, timeouts)
        except Stale:
            pass
        try:
            return await self.send_prepared(request, body, timeouts, fresh=True)
        except NotSent:
            raise Broken("a kept connection had ended and no new one could be made") from None

    def prepared(self, method: str, url: str, headers: Mapping[str, str]) -> Prepared:
        """All of a request but its body, for `send_prepared`; ValueError as `send`."""
        target = target_of(url)
        proxy = self._proxies.before(target.key)
        return Prepared(target, proxy, *_fixed(method, target, proxy, tuple(headers.items())))

    async def send_prepared(
        self, request: Prepared, body: bytes, timeouts: Timeouts, *, fresh: bool = False
    ) -> Response:
        """As `send`, for a request that goes out again and again; Stale is raised, not repaired.

        RFC 9112, 9.3.1 asks for care with repeating a POST.  Stale is raised only where the
        connection ended within `stale_s` of the request being written and not one byte of an answer
        came.  `fresh`: do not use a kept connection.
        """
        target, proxy = request.target, request.proxy
        head = b"%bcontent-length: %d%b" % (request.before, len(body), request.after)
        if self._closed:
            raise NotSent("the client is closed")
        if self._loop is None:  # asking costs a system call each time (Python 3.11)
            self._loop = asyncio.get_running_loop()
        total_at = self._loop.time() + timeouts.total_s
        conn = None if fresh else self._take(target.key)
        if conn is None:
            conn = await self._connect(target, proxy, timeouts.connect_s)
        return await conn.exchange(head, body, timeouts, total_at)

    async def close(self) -> None:
        """Close every connection, also those that serve; their readers get Broken."""
        self._closed = True
        for conn in tuple(self.open):
            conn.fail(Broken("the client was closed"))
        for _ in range(8):  # turns of the loop in which the transports let go
            if not self.open:
                break
            await asyncio.sleep(0)

    # -- the pool

    def _take(self, key: Key) -> Connection | None:
        """The connection used last: the likeliest to be alive, and the others can age."""
        idle = self._idle.get(key)
        while idle:
            conn = idle.pop()
            if conn.quiet():
                if self._idle_most:
                    self._learn(conn)
                return conn
            conn.drop()  # bytes that nobody asked for would be taken for the next answer
        return None

    def keep(self, conn: Connection) -> None:
        idle = self._idle.get(conn.key)
        if idle is None:
            idle = self._idle[conn.key] = []
        idle_s = conn.idle_s
        if self._closed or len(idle) >= self._max_idle or idle_s < MIN_IDLE_S:
            conn.drop()
            return
        idle.append(conn)
        conn.idle_at = now = conn._loop.time()
        if conn._timer_at > now + idle_s:
            conn._watch(now + idle_s)

    def idle_most_s(self, key: Key) -> float:
        """How long connections to this origin may be idle."""
        return self._idle_most.get(key, self.idle_s) if self._idle_most else self.idle_s

    def went_stale(self, conn: Connection) -> None:
        """Keep the origin's connections for half as long as this one was idle; drop the older ones.

        An upstream that closes every kept connection is soon asked on new ones only.
        """
        idle_s = max(0.0, conn.taken_at - conn.idle_at) / 2
        if len(self._idle_most) >= MAX_ORIGINS and conn.key not in self._idle_most:
            self._idle_most.pop(next(iter(self._idle_most)))
        self._idle_most[conn.key] = min(self.idle_most_s(conn.key) / 2, idle_s)
        for other in self._idle.pop(conn.key, []):
            other.drop()

    def _learn(self, conn: Connection) -> None:
        """A connection that was idle for nearly as long as is allowed, and lives: allow twice that."""
        most_s = self._idle_most.get(conn.key)
        if most_s is not None and conn._loop.time() - conn.idle_at >= most_s / 2:
            if 2 * most_s >= self.idle_s:
                del self._idle_most[conn.key]
            else:
                self._idle_most[conn.key] = 2 * most_s

    def forget(self, conn: Connection) -> None:
        idle = self._idle.get(conn.key)
        if idle and conn in idle:
            idle.remove(conn)

    def _make_room(self, key: Key) -> None:
        """Close an idle connection of another origin if need be; NoConnection when there is none."""
        if self._count.get(key, 0) >= self._max_per_origin:
            raise NoConnection("too many connections to this upstream")
        if self._total < self._max_open:
            return
        for idle in self._idle.values():
            if idle:
                idle[0].drop()  # the oldest; its descriptor is free at the loop's next turn
                return
        raise NoConnection("too many connections to upstreams")

    def _admit(self, conn: Connection) -> None:
        """Count a connection from when it begins to be made."""
        conn.counted = True
        self._count[conn.key] = self._count.get(conn.key, 0) + 1
        self._total += 1

    def release(self, conn: Connection) -> None:
        """Count it no longer."""
        if conn.counted:
            conn.counted = False
            self._total -= 1
            left = self._count[conn.key] - 1
            if left:
                self._count[conn.key] = left
            else:
                del self._count[conn.key]

    # -- dialling

    async def _connect(
        self, target: DialTarget, proxy: Proxy | None, connect_s: float
    ) -> Connection:
        self._make_room(target.key)
        conn = Connection(self, target.key)
        self._admit(conn)
        try:
            async with asyncio.timeout(connect_s):
                tls = target.key[0] == "https" or (proxy is not None and proxy.tls)
                if self._unix:
                    await asyncio.get_running_loop().create_unix_connection(
                        lambda: conn, self._unix
                    )
                else:
                    await dial(conn, target, proxy, self._context() if tls else None)
        except BaseException as error:
            conn.drop()
            if conn.transport is None:
                self.release(conn)
            match error:
                case TimeoutError():
                    raise ConnectTimedOut(f"no connection within {connect_s} s") from None
                case OSError() | UnicodeError():  # TLS's and DNS's errors are OSErrors
                    raise NotSent(reason(error)) from None
                case _:
                    raise
        if self._closed or conn.transport is None or conn.transport.is_closing():
            conn.drop()
            self.open.discard(conn)
            if conn.transport is None:
                self.release(conn)
            raise NotSent("the connection ended at once")
        return conn

    def _context(self) -> ssl.SSLContext:
        if self._ssl is None:  # made late: reading the system's certificates takes some 20 ms
            self._ssl = ssl.create_default_context()
            self._ssl.set_alpn_protocols(["http/1.1"])
        return self._ssl


@functools.lru_cache(maxsize=256)  # an upstream gets the same head each time, but for the length
def _fixed(
    method: str, target: DialTarget, proxy: Proxy | None, headers: tuple[tuple[str, str], ...]
) -> tuple[bytes, bytes]:
    """The request's head around its length; ValueError names what is wrong in it, never a value."""
    # An answer to HEAD has a length and no body, which llhttp cannot know; it has no use here.
    if not TOKEN.fullmatch(method) or method in ("HEAD", "CONNECT"):
        raise ValueError("the method cannot be sent")
    path, authorization = target.path, ""
    if proxy is not None and target.key[0] == "http":
        # RFC 9112, 3.2.2: "When making a request to a proxy, other than a CONNECT [...], a client
        # MUST send the target URI in "absolute-form" as the request-target."
        path, authorization = f"http://{target.authority}{path}", proxy.authorization
    before = f"{method} {path} HTTP/1.1\r\nhost: {target.authority}\r\n{authorization}"
    lines = ["\r\naccept-encoding: identity\r\nconnection: keep-alive\r\n"]
    for name, value in headers:
        if not TOKEN.fullmatch(name):
            raise ValueError(f"{name[:64]!a} is no header name")
        if name.lower() in _OURS:
            raise ValueError(f"the header `{name}` is the client's own")
        if not VALUE.fullmatch(value):
            raise ValueError(f"the value of the header `{name}` has characters it must not have")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return before.encode("ascii"), "".join(lines).encode("ascii")
