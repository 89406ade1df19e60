"""The listening sockets are opened once by the supervisor, and inherited by every edge.

Each edge accepts from a socket of its own on the same address (SO_REUSEPORT), so that the system shares
the connections out evenly.  The supervisor keeps all of them open: connections that wait in the queue of
one whose edge has died, or is being replaced, are accepted by the next.

Note: the first socket is bound without SO_REUSEPORT, so that an address which another program listens on
is refused as ever.  Where the system does not share out (all but Linux), the edges accept from one.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

BACKLOG = 1024  # connections that the system completes before an edge accepts them
SHARED_OUT = sys.platform == "linux"


class Listeners:
    """Opens the sockets of one address; OSError when it cannot be listened on."""

    def __init__(
        self,
        host: str,
        port: int,
        inherited: Sequence[socket.socket] = (),
        *,
        given: bool = False,
    ) -> None:
        """`inherited`: sockets that listen there already.

        `given`: they are the service manager's, which keeps them open between two runs of `serve`.  No
        other is bound then, as connections that wait at it would be lost by a restart.
        """
        self.host, self.configured_port, self.given = host, port, given
        self.sockets = list(inherited) or [self._first()]
        self._family = self.sockets[0].family
        self._address = self.sockets[0].getsockname()
        self.port = int(self._address[1])

    def of_edges(self, count: int) -> list[list[socket.socket]]:
        """For each of so many edges the sockets that it accepts from."""
        if not SHARED_OUT:
            return [self.sockets for _ in range(count)]
        while len(self.sockets) < count and not self.given:
            self.sockets.append(self._bound(self._address, alone=False))
        # Those of more edges, which there were before, are accepted from as well.
        have = len(self.sockets)
        return [self.sockets[n::count] or [self.sockets[n % have]] for n in range(count)]

    def keep_first(self, count: int) -> None:
        """Close those beyond the first `count`."""
        for sock in self.sockets[count:]:
            sock.close()
        del self.sockets[count:]

    def _first(self) -> socket.socket:
        self._family, _, _, _, address = socket.getaddrinfo(
            self.host, self.configured_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return self._bound(address, alone=True)

    def _bound(self, address: tuple[object, ...], *, alone: bool) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if SHARED_OUT and not alone:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            if SHARED_OUT and alone:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if alone:  # the system gives connections to the others once their edge listens
                sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def listen_unix(path: str) -> socket.socket:
    """A socket at the path that only we can reach, in the place of one that is there."""
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(fresh)
    finally:
        os.umask(before)
    sock.listen(128)
    os.rename(fresh, path)
    return sock
