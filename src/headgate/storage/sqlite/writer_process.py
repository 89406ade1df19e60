"""How a node of its own is started by a program that writes rows, as a process that only SIGKILL ends.

Note: it stays in the group and the session of the program,
so that whoever kills the group kills it too, but it is started with SIGINT, SIGTERM and SIGHUP blocked,
and keeps them so.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

import msgspec

from headgate.storage.sqlite.writer import WriterConfig

# Meant for the edge, and sent to its whole group by a terminal or to all its processes by systemd.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class Writing(Protocol):
    """A writer as the edge sees it."""

    pid: int

    def kill(self) -> None: ...

    def wait(self, timeout: float) -> object:
        """Until it has ended; TimeoutExpired if it has not."""


Start = Callable[[socket.socket, int, WriterConfig], Writing]


def start_process(sock: socket.socket, lock: int, orders: WriterConfig) -> Writing:
    """A writer that holds the lock and reads the socket; OSError when the system has no room.

    Not a fork: it must also work beside threads and a running loop, when one has to be replaced, and
    on macOS.
    """
    held = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, held
    )  # inherited: at no moment do they end it
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "headgate.node", msgspec.json.encode(orders).decode()],
            stdin=sock.fileno(),
            stdout=subprocess.DEVNULL,
            pass_fds=(lock,),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
