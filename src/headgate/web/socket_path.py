"""Where control listens: the only place that names its socket, and that takes what dead ones left away.

Each run of `serve` has a name of its own, so that two of them with one data directory never answer for
each other; not a pid, which two containers with one volume can have in common.  Note: where
the directory's path is too long for the kernel, the socket is in a fresh directory that only we can open,
never under a name in /tmp that somebody else could have taken first.
"""

import contextlib
import os
import secrets
import socket
import stat
import tempfile
from pathlib import Path

MAX_SOCKET_PATH = 100  # bytes; the kernel takes 107, and `listen` (main.py) adds some


def fresh_socket(data: str) -> str:
    """A path for a new run's socket, short enough for the kernel; `clear` it at the end."""
    name = f"control-{secrets.token_hex(4)}.sock"
    path = Path(data).absolute() / name
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return str(path)
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    short = own if len(os.fsencode(own)) < MAX_SOCKET_PATH // 2 and os.path.isdir(own) else "/tmp"
    return str(Path(tempfile.mkdtemp(prefix="headgate-", dir=short)) / name)


def node_socket(data: str) -> str:
    """Where the node of a data directory listens: the same for each run of it, if the path is short."""
    path = Path(data).absolute() / "node.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return str(path)
    return fresh_socket(data).replace("control-", "node-")


def clear(path: str, data: str) -> None:
    """Take the socket away, and the directory that was made for it."""
    with contextlib.suppress(OSError):
        os.unlink(path)
    if Path(path).parent != Path(data).absolute():
        with contextlib.suppress(OSError):
            Path(path).parent.rmdir()


def sweep(data: str) -> None:
    """Take away the sockets of runs that were killed together with their control."""
    for path in Path(data).glob("control*.sock"):
        with contextlib.suppress(OSError):
            if is_socket(path) and not served(path):
                path.unlink()


def is_socket(path: str | Path) -> bool:
    return stat.S_ISSOCK(os.lstat(path).st_mode)


def served(path: str | Path) -> bool:
    """Whether a process listens there; in doubt it does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full queue is an answer too
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
