"""Reports to systemd the state of a service of Type=notify or notify-reload: sd_notify(3), without its library."""

import contextlib
import os
import socket
import time


def notify(*lines: str) -> None:
    """Send the lines to the service manager, if one listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto("\n".join(lines).encode(), address)


def ready() -> None:
    notify("READY=1", f"MAINPID={os.getpid()}")


def main_pid(pid: int) -> None:
    """Name the process that is heard from now on: another supervisor's."""
    notify(f"MAINPID={pid}")


def reloading() -> None:
    # Type=notify-reload compares it with its own clock, to tell this reload from an earlier one.
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    notify("STOPPING=1")
