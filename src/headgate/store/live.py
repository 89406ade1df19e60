"""Which processes may still finish their exchanges: locks in the data directory's live/.

The only place that takes them.  An edge holds the lock of a file of its own name (`boot`); neither
its number nor the time it was started could be taken for another's.  Its writer holds a second one,
`BOOT.writer`: it is taken before the writer is started and inherited by it, so that there is no
moment without, and the system gives it back when the writer is no more, whatever ended it.  So an
edge is dead for recovery once both are free, and a writer is started only after the last has ended.

What will surprise: these are flock's locks, which belong to the opened file and pass to a child with
it (Linux and BSD: flock(2)); those of fcntl would not.
"""

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

POLL_S = 0.002
# A writer whose edge was killed ends within milliseconds, unless the disk takes nothing.
ORPHAN_WAIT_S = 10.0


class Live:
    """The lock that says an edge lives; OSError when it cannot be had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.boot = secrets.token_hex(8)
        directory.mkdir(mode=0o700, exist_ok=True)
        self._file: int | None = self._begin()

    def _begin(self) -> int:
        path = self._directory / self.boot
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(OSError):  # somebody swept it before it was locked
                if _lock(file) and path.stat().st_ino == os.fstat(file).st_ino:
                    return file
            os.close(file)

    def for_writer(self, within_s: float) -> int | None:
        """A descriptor that holds the writer's lock; None when the last writer still has it."""
        path = self._directory / f"{self.boot}.writer"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _wait(file, within_s):
            return file
        os.close(file)
        return None

    @contextlib.contextmanager
    def dead(self, boot: str) -> Iterator[bool]:
        """Whether that edge is dead, and its writer has ended: waits for an orphan that writes.

        If so, nobody else is told so until the block is left.
        """
        path, writer = self._directory / boot, self._directory / f"{boot}.writer"
        with contextlib.ExitStack() as stack:
            # No file: it ended in good order, or these marks are from a backup.
            for file, within_s in ((_open(path), 0.0), (_open(writer), ORPHAN_WAIT_S)):
                if file is not None:
                    stack.callback(os.close, file)
                    if not _wait(file, within_s):
                        yield False
                        return
            yield True
            writer.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def boots(self) -> set[str]:
        return {path.name.partition(".")[0] for path in self._directory.iterdir()}

    def end(self) -> None:
        """The edge ends in good order; its writer has, or is left to those who recover."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            file = self.for_writer(0)
            if file is not None:
                (self._directory / f"{self.boot}.writer").unlink(missing_ok=True)
                os.close(file)
        (self._directory / self.boot).unlink(missing_ok=True)
        os.close(self._file)
        self._file = None


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(file: int, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not _lock(file):
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S)
    return True
