"""Sockets that systemd has opened for the gateway: the protocol of sd_listen_fds(3), without its library.

systemd keeps them open while no gateway runs, so that connections wait during a restart and none is refused.
`FileDescriptorName=` names what a socket is for (`api`, `admin` or `metrics`); one with another name, as
systemd gives it where the unit sets none, is for the address that is configured with its port.
"""

import os
import socket
from collections.abc import MutableMapping, Sequence

from headgate.config.addresses import Address, AddressName
from headgate.supervisor.sockets import Listeners

FIRST_FD = 3  # SD_LISTEN_FDS_START


class ActivationError(Exception):
    """What systemd has passed cannot be used; the message says what to change."""


def passed(environment: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The sockets that are meant for this process, with their names; the variables are taken away.

    Children must not take them for their own.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for n in range(int(count)):
        fd = FIRST_FD + n
        os.set_inheritable(fd, False)
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise ActivationError(
                f"systemd passed descriptor {fd}, which is no socket ({error.strerror})."
            ) from None
        found.append((names[n] if n < len(names) else "", sock))
    return found


def assign(
    found: Sequence[tuple[str, socket.socket]], addresses: Sequence[Address]
) -> dict[AddressName, Listeners]:
    """Which configured address each socket is for; ActivationError for one that is for none."""
    sockets: dict[AddressName, list[socket.socket]] = {}
    by_name = {address.name: address for address in addresses}
    for name, sock in found:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise ActivationError("systemd passed a socket that is not of TCP: use ListenStream=.")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ActivationError("systemd passed a connection: use Accept=no in the socket unit.")
        port = sock.getsockname()[1]
        named = [a for a in addresses if a.name == name]
        at_port = [a for a in addresses if a.port == port]
        # The only socket there is can only be the API's, whatever port the configuration names.
        fits = named or at_port or ([by_name["api"]] if len(found) == 1 else [])
        if not fits:
            raise ActivationError(
                f"systemd passed a socket with port {port}, which is no configured address"
                f" ({', '.join(f'{a.name} {a.host}:{a.port}' for a in addresses)}): name it with"
                " FileDescriptorName=api, admin or metrics."
            )
        sock.setblocking(False)
        sockets.setdefault(fits[0].name, []).append(sock)
    return {
        name: Listeners(by_name[name].host, by_name[name].port, some, given=True)
        for name, some in sockets.items()
    }
