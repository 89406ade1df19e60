"""Where control listens; `serve` tells it to the edge and to control."""

import os
import zlib
from pathlib import Path

MAX_SOCKET_PATH = 100  # bytes; the kernel takes 108


def socket_path(data: str) -> str:
    """Where control listens, told by the data directory alone; short enough for the kernel."""
    path = str(Path(data).absolute() / "control.sock")
    if len(path.encode()) <= MAX_SOCKET_PATH:
        return path
    name = f"headgate-{os.getuid()}-{zlib.crc32(path.encode()):x}"
    return str(Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp")) / name / "control.sock")
