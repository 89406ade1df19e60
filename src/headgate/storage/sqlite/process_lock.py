"""Which gateway serves a data directory, and which processes may still finish their exchanges.

The only place that takes these locks.  `serve.lock` is held by the one process that serves the
directory, as budgets, limits and Idempotency-Keys are counted in its memory; commands that read or
change keys and the ledger need no lock and run beside it.  The others are in live/.  An edge holds the lock of a file of its own name (`instance_id`); neither
its number nor the time it was started could be taken for another's.  Its writer holds a second one,
`INSTANCE.writer`: it is taken before the writer is started and inherited by it, so that there is no
moment without, and the system gives it back when the writer is no more, whatever ended it.  So an
edge is dead for recovery once both are free, and a writer is started only after the last has ended.

Note: these are flock's locks, which belong to the opened file and pass to a child with
it (Linux and BSD: flock(2)); those of fcntl would not.
"""

import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from headgate.storage.errors import StoreError

if sys.platform != "win32":
    import fcntl

POLL_S = 0.002
# A writer whose edge was killed ends within milliseconds, unless the disk takes nothing.
ORPHAN_WAIT_S = 10.0


class AlreadyServed(StoreError):
    """Another gateway serves this data directory; `pid` is its process, 0 when it is not known."""

    def __init__(self, directory: Path, pid: int) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{directory} is served by {who} already: one data directory has one gateway, as budgets and"
            " Idempotency-Keys are counted in its memory. Stop that one first"
            f"{f' (kill {pid})' if pid else ''}, or give this one a directory of its own with --data."
        )


class ServeLock:
    """Held by the process that serves a data directory; StoreError when it cannot be had.

    The system gives it back when the process ends, whatever ended it, and children do not inherit it.
    So a file that was left behind, or copied with its directory, is no obstacle.
    """

    def __init__(self, data: str | Path) -> None:
        directory = Path(data)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = directory / "serve.lock"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{error.filename or directory}: {error.strerror}.") from None
        try:
            if not _lock(file):
                raise AlreadyServed(directory, _pid_in(file))
            _write_pid(file)
        except OSError as error:
            os.close(file)
            raise StoreError(
                f"{path} cannot be locked: {error.strerror}. Headgate needs a file system with locks for"
                " its data directory (a local disk; NFS only with its lock service)."
            ) from None
        except AlreadyServed:
            os.close(file)
            raise
        self._file: int | None = file

    @classmethod
    def inherited(cls, file: int) -> "ServeLock":
        """The lock of the supervisor that this one takes over from: both hold it, until one is no more."""
        os.set_inheritable(file, False)
        lock = cls.__new__(cls)
        lock._file = file
        return lock

    @property
    def file(self) -> int:
        """The descriptor that holds it."""
        assert self._file is not None
        return self._file

    def claim(self) -> None:
        """Write down that this is the process that serves; a full disk is no reason not to serve."""
        with contextlib.suppress(OSError):
            _write_pid(self.file)

    def release(self) -> None:
        """Let another process serve; the file stays, as others may wait at it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_pid(file: int) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)


def _pid_in(file: int) -> int:
    """The process that wrote the lock's file; 0 when there is no number in it yet."""
    text = os.pread(file, 32, 0).strip()
    return int(text) if text.isdigit() else 0


class NodeLock:
    """Is held by the node of a data directory; the system gives it back when that is no more."""

    def __init__(self, data: str | Path, within_s: float) -> None:
        """Have a node that is still there hand over; StoreError when it does not within `within_s`."""
        path = Path(data) / "node.lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            free = _lock(self._file)
            if not free:
                pid = _pid_in(self._file)
                if pid:  # its process has the lock, so it is a node
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGUSR1)
                free = _wait(self._file, within_s)
            if free:
                _write_pid(self._file)
        except OSError as error:
            raise StoreError(f"{error.filename or path}: {error.strerror}.") from None
        if not free:
            os.close(self._file)
            raise StoreError(f"{data}: another node process still writes its database.")

    def release(self) -> None:
        os.close(self._file)


class Lives:
    """The processes of a data directory that hold a lock in live/, by their instance ids."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def dead(self, instance_id: str) -> Iterator[bool]:
        """Whether that edge is dead, and its writer has ended: waits for an orphan that writes.

        If so, no other process sees it free until the block is left.
        """
        path, writer = self._directory / instance_id, self._directory / f"{instance_id}.writer"
        with contextlib.ExitStack() as stack:
            # No file: it ended in good order, or these intents are from a backup.
            for file, within_s in ((_open(path), 0.0), (_open(writer), ORPHAN_WAIT_S)):
                if file is not None:
                    stack.callback(os.close, file)
                    if not _wait(file, within_s):
                        yield False
                        return
            yield True
            writer.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def instances(self) -> set[str]:
        return {path.name.partition(".")[0] for path in self._directory.iterdir()}


class ProcessLock(Lives):
    """The lock that says an edge lives; OSError when it cannot be had."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.instance_id = secrets.token_hex(8)
        self._file: int | None = self._begin()

    def _begin(self) -> int:
        path = self._directory / self.instance_id
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(OSError):  # somebody swept it before it was locked
                if _lock(file) and path.stat().st_ino == os.fstat(file).st_ino:
                    return file
            os.close(file)

    def for_writer(self, within_s: float) -> int | None:
        """A descriptor that holds the writer's lock; None when the last writer still has it."""
        path = self._directory / f"{self.instance_id}.writer"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _wait(file, within_s):
            return file
        os.close(file)
        return None

    def end(self) -> None:
        """The edge ends in good order; its writer has, or is left to those who recover."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            file = self.for_writer(0)
            if file is not None:
                (self._directory / f"{self.instance_id}.writer").unlink(missing_ok=True)
                os.close(file)
        (self._directory / self.instance_id).unlink(missing_ok=True)
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
