"""Inbound HTTP/1.1: bytes from clients' sockets to one handler call per request, and back.

Built on httptools (llhttp), which reads the heads, and an asyncio Protocol.  The only place that reads
client sockets.  Note: it keeps reading while a handler runs, because only a read tells
that the client has gone, and the handler's task is then cancelled at once, before as after the first
byte, unless it has said that it wants to end (`drains`).
One sweep a second serves all timers, as a timer per request costs more than the request.

Note: one request at a time is parsed and answered.  What a client sends behind it stays unparsed, up
to a bound at which reading pauses, until the answer has been sent and the client has taken it.
"""

import asyncio
import os
import socket as sockets
import time
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from socket import IPPROTO_TCP, socket

import msgspec

from headgate.errors import Failure, Refused
from headgate.net.certificates import Certificates
from headgate.net.connections import Connections
from headgate.net.handshakes import Handshakes
from headgate.net.heads import Heads
from headgate.net.inbound import Inbound
from headgate.net.inbound_connection import Connection, Refuse
from headgate.net.proxies import Proxies
from headgate.net.server_limits import (
    BACKLOG,
    DRAIN_POLL_S,
    END_S,
    HURRY_S,
    LIMITS,
    PHRASES,
    RETIRED_IDLE_S,
    SENT_S,
    SWEPT_AT_ONCE,
    UNSENT_BYTES,
    Limits,
)
from headgate.net.tls import TlsLayer


class _Listener:
    """Keeps a listening socket beside the event loop's own."""

    __slots__ = ("attached", "kept", "reported", "server")

    def __init__(
        self, server: asyncio.AbstractServer, attached: socket | TransportSocket, kept: socket
    ) -> None:
        self.server = server
        self.attached = attached  # its number is negative once the event loop has closed it
        self.kept = kept
        self.reported = False


class Server:
    """`handler` answers each request; `refuse` words what is wrong before there is one to hand over.

    `again` may answer a request whose head it knows at once, without a task; it returns whether it did.
    """

    def __init__(
        self,
        handler: Callable[[Inbound], Awaitable[None]],
        limits: Limits = LIMITS,
        refuse: Refuse | None = None,
        report: Callable[[str], None] | None = None,
        again: Callable[[Inbound], bool] | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """`report` is given what the operator should hear of the listeners.

        With `certificates` its clients speak TLS.
        """
        self.again = again
        self.certificates = certificates
        self.asks_clients = certificates is not None and certificates.asks_clients
        self.handshakes = Handshakes()
        self.limits = limits
        self.report: Callable[[str], None] = report or _unheard
        self.hosts = frozenset(h.encode() for h in limits.hosts)
        self.stopping = False  # answers close their connections
        self.expired = False  # handlers are cancelled as their time is over
        self.lines: dict[
            int, bytes
        ] = {}  # the first two of an answer, by its status: the date is one
        self.heads = Heads()
        self.refuse: Refuse = refuse or _plain
        self._handler = handler
        self.book: Connections[Connection] = Connections(
            limits.connections, limits.connections_per_peer
        )
        self.proxies = Proxies(limits.trusted_proxies, limits.forwarded_header)
        self.held_bytes = 0  # of all connections, behind the requests that are answered
        self._open = self.book.open
        self.tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[_Listener] = []
        self._reviving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.now: Callable[[], float] = time.monotonic  # the loop's own clock, once there is one

    @property
    def connections(self) -> int:
        return len(self._open)

    @property
    def running(self) -> int:
        return len(self.tasks)

    def line(self, status: int) -> bytes:
        """Return the status line and date; `lines` keeps them until the next sweep."""
        text = f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\ndate: {formatdate(usegmt=True)}\r\n"
        line = self.lines[status] = text.encode()
        return line

    def future(self) -> "asyncio.Future[None]":
        assert (
            self._loop is not None
        )  # asking for the running one costs a system call (Python 3.11)
        return self._loop.create_future()

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        assert self._loop is not None
        self._loop.call_later(delay_s, call)

    async def listen(self, host: str, port: int, sock: socket | None = None) -> int:
        """Accept connections; returns the port, which the system chose if `port` is 0."""
        self._loop = loop = asyncio.get_running_loop()
        self.now = loop.time

        if sock is not None:
            listener = await loop.create_server(self._made, sock=sock, backlog=BACKLOG)
        else:
            listener = await loop.create_server(self._made, host, port, backlog=BACKLOG)
        self._keep(listener)
        if self._timer is None:
            self._sweep()
        return int(listener.sockets[0].getsockname()[1])

    def _made(self) -> asyncio.Protocol:
        connection = Connection(self)
        if self.certificates is None:
            return connection
        return TlsLayer(connection, self.certificates, self.handshakes, self.refuse)

    def _keep(self, listener: asyncio.Server) -> None:
        """Keep each listening socket a second time, so that it can be listened on again."""
        for each in listener.sockets:
            kept = socket(fileno=os.dup(each.fileno()))
            if kept.family.name.startswith("AF_INET") and hasattr(sockets, "TCP_NOTSENT_LOWAT"):
                # Else the system holds megabytes for a client that reads slowly.
                kept.setsockopt(IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._listeners.append(_Listener(listener, each, kept))

    def stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.server.close()
            listener.kept.close()
        self._listeners.clear()

    def _revive(self) -> None:
        """Listen again where the event loop closed a listener, as uvloop does on an error of it."""
        if self._reviving is not None and not self._reviving.done():
            return
        dead = [each for each in self._listeners if each.attached.fileno() < 0]
        if dead:
            assert self._loop is not None
            if not dead[0].reported:
                dead[0].reported = True
                self.report("The system closed a listener; it is opened again.")
            self._reviving = self._loop.create_task(self._listen_again(dead[0]))

    async def _listen_again(self, dead: "_Listener") -> None:
        assert self._loop is not None
        try:
            sock = dead.kept.dup()
        except OSError:  # no descriptor is free: the next sweep tries again
            return
        try:
            listener = await self._loop.create_server(self._made, sock=sock, backlog=BACKLOG)
            self._keep(listener)
        except OSError:
            sock.close()
            return
        self._listeners.remove(dead)
        dead.kept.close()

    async def retire(self, until: asyncio.Event) -> None:
        """Answer on the connections there are, each of which ends with its answer, until none is left.

        One that stays idle for RETIRED_IDLE_S is closed, as a client may be about to use it.  `until` ends
        the waiting, once it is set; call `stop_accepting` before.
        """
        self.stopping = True
        idle_until = self.now() + RETIRED_IDLE_S
        while self._open and not until.is_set():
            if self.now() >= idle_until:
                for conn in list(self._open):
                    if not conn.busy:
                        conn.close()
            await asyncio.sleep(DRAIN_POLL_S)

    async def drain(self, grace_s: float, hurry: asyncio.Event | None = None) -> None:
        """Let running requests end within `grace_s` seconds, then cancel the rest.

        Those get END_S to send an error of their own protocol.  `hurry` ends all waiting, once it is set.
        """
        self.stopping = True
        for conn in list(self._open):
            if not conn.busy:
                conn.close()
        await self._until(self._over, grace_s, hurry)
        self.expired = True
        for task in list(self.tasks):
            self.cancel(task)
        await self._until(lambda: not self.tasks, HURRY_S if _set(hurry) else END_S, None)
        for conn in list(self._open):
            conn.close()
        # What was written is sent by the loop; a client that reads nothing is not waited for.
        await self._until(lambda: not self._open, SENT_S, hurry)
        if self._timer is not None:
            self._timer.cancel()

    def _over(self) -> bool:
        return not self.tasks and not any(conn.busy for conn in self._open)

    async def _until(
        self, over: Callable[[], bool], within_s: float, hurry: asyncio.Event | None
    ) -> None:
        until = self.now() + within_s
        while not over() and self.now() < until and not _set(hurry):
            await asyncio.sleep(DRAIN_POLL_S)

    # for connections

    def admit(self, conn: Connection) -> bool:
        """Count a new connection; True when there is room only for a question about health."""
        exempt = conn.proxied or not conn.peer  # a unix socket has no peer
        admitted = self.book.admit(conn, conn.peer, exempt=exempt)
        if admitted.evict is not None:
            admitted.evict.evict()
        return admitted.reserved

    def forget(self, conn: Connection) -> None:
        self.book.forget(conn)

    def run(self, conn: Connection, inbound: Inbound) -> "asyncio.Task[None]":
        assert self._loop is not None
        task = self._loop.create_task(self._handle(conn, inbound))
        self.tasks.add(task)
        return task

    def cancel(self, task: "asyncio.Task[None]") -> None:
        """One that is cancelled before its first step never comes to its own end."""
        task.add_done_callback(self.tasks.discard)
        task.cancel()

    async def _handle(self, conn: Connection, inbound: Inbound) -> None:
        try:
            await self._handler(inbound)
            if not (inbound.ended or inbound.gone):
                raise RuntimeError("the handler did not end its answer")
        except asyncio.CancelledError:
            if inbound.ended or inbound.gone:
                pass
            elif self.expired and not inbound.started:
                failure = Failure(
                    "unavailable",
                    "The gateway is shutting down.",
                    code="shutting_down",
                    retry_after_s=1,
                    should_retry=True,
                )
                inbound.extra = b""
                inbound.respond(*self.refuse(failure, inbound.path, inbound.headers))
            else:
                inbound.abort()  # the end of what is cut must not look like one
        except Exception as error:
            if inbound.ended or inbound.gone:
                pass
            elif inbound.started:
                inbound.abort()
            else:
                inbound.extra = (
                    b""  # as `refuse` adds it, for requests that never came to a handler
                )
                known = error.failure if isinstance(error, Refused) else None
                failure = known or Failure("internal", "The gateway failed on this request.")
                inbound.respond(*self.refuse(failure, inbound.path, inbound.headers))
        finally:
            conn.done(inbound)

    def _sweep(self) -> None:
        self.lines.clear()
        self.book.tick()
        self._revive()
        assert self._loop is not None
        limits = self.limits
        shortest = min(limits.header_s, limits.idle_s, limits.body_grace_s, limits.write_stall_s)
        self._timer = self._loop.call_later(min(1.0, shortest / 4), self._sweep)
        self._sweep_some(list(self._open))

    def _sweep_some(self, conns: list[Connection]) -> None:
        """Look at some of the connections now and at the rest in the loop's next turns."""
        assert self._loop is not None
        now = self.now()
        for conn in conns[-SWEPT_AT_ONCE:]:
            if conn in self._open:
                conn.sweep(now)
        del conns[-SWEPT_AT_ONCE:]
        if conns:
            self._loop.call_soon(self._sweep_some, conns)


def _unheard(text: str) -> None:
    pass


def _set(event: asyncio.Event | None) -> bool:
    return event is not None and event.is_set()


def _plain(
    failure: Failure, path: str, headers: Mapping[str, str]
) -> tuple[int, list[tuple[str, str]], bytes]:
    body = msgspec.json.encode({"error": {"message": failure.message, "type": failure.kind}})
    return failure.status, [("content-type", "application/json")], body
