"""Standard output and error that never block the gateway, whether somebody reads them or not.

A pipe without a reader takes 64 KiB; the next `write` waits forever, and with it the event loop, every
request and SIGTERM.  `guard` puts a pipe of our own in the place of file descriptors 1 and 2, so that
all who write there are covered: click, warnings, tracebacks, logging, libraries and child processes.  A
thread empties that pipe at once into a bounded queue, another one writes the queue to where it belongs.

Note: what the queue cannot hold is dropped and counted by the line; at the end, what is queued gets
FLUSH_S to leave, and is dropped then.  A child that outlives the process writes to a closed pipe.
"""

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

QUEUE_BYTES = 2 << 20  # some 5,000 lines of the log: seconds at full load, until a reader is back
FLUSH_S = 1.0
_CHUNK = 65536


class Channel:
    """One bounded queue of bytes, and the thread that writes it to a file descriptor."""

    def __init__(self, fd: int, queue_bytes: int = QUEUE_BYTES) -> None:
        self.dropped = 0  # lines that the queue could not hold, or that nobody took at the end
        self._fd = fd
        self._most = queue_bytes
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._unsaid = 0  # of the dropped lines: those that no line of ours has reported yet
        self._busy = False
        self._changed = threading.Condition()
        threading.Thread(target=self._write_all, name=f"output-{fd}", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Queue whole lines, or drop and count them; never waits for the reader."""
        with self._changed:
            if self._bytes + len(data) > self._most:
                lost = data.count(b"\n") or 1
                self.dropped += lost
                self._unsaid += lost
                return
            self._queue.append(data)
            self._bytes += len(data)
            self._changed.notify_all()

    def flush(self) -> None:
        """Present for those who expect a file; `drain` waits."""

    def drain(self, within_s: float) -> bool:
        """Wait until all is written, for so long at most; whether it is."""
        until = time.monotonic() + within_s
        with self._changed:
            while self._queue or self._busy:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not self._queue:
                    self._changed.wait()
                self._busy = True
                data = self._queue.popleft()
                self._bytes -= len(data)
                if self._unsaid:
                    data = (
                        b'{"level":"warning","event":"log_lines_dropped","count":%d}\n'
                        % self._unsaid
                    ) + data
                    self._unsaid = 0
            self._write(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # who gave it to us made it non-blocking
                time.sleep(0.01)
            except OSError:  # a terminal that is gone, a reader that left, a full disk
                self.dropped += bytes(rest).count(b"\n") or 1
                return


class Output:
    """What stands in the place of the process's own output."""

    def __init__(self) -> None:
        self._places: list[_Place] = []
        self.err: Channel | None = None

    @property
    def dropped(self) -> int:
        """Lines that nobody read in time."""
        return sum(place.channel.dropped for place in self._places)

    def before(self, fd: int) -> int:
        """A descriptor of what stood at 1 or 2 before, for a process that outlives this one."""
        return next((place.before for place in self._places if place.fd == fd), fd)

    def _install(self) -> None:
        for fd in (1, 2):
            with contextlib.suppress(OSError):
                self._places.append(_Place(fd))
                if fd == 2:
                    self.err = self._places[-1].channel

    def _restore(self) -> None:
        for place in self._places:
            place.restore()


class _Place:
    """Replaces a stream by a pipe of ours, and puts it back."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.before = os.dup(fd)
        self.channel = Channel(self.before)
        read_end, write_end = os.pipe()
        os.dup2(write_end, fd)  # inheritable, as a child's output must go the same way
        os.close(write_end)
        self._reader = threading.Thread(
            target=self._read_all, args=(read_end,), name=f"output-pipe-{fd}", daemon=True
        )
        self._reader.start()

    def _read_all(self, read_end: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(read_end, _CHUNK):
                self.channel.write(data)

    def restore(self) -> None:
        """Write what is left; a reader that takes nothing gets nothing from us any more."""
        until = time.monotonic() + FLUSH_S
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, self.fd)  # our end of the pipe closes, and its reader comes to the end
        os.close(nobody)
        self._reader.join(FLUSH_S)  # a child that still runs keeps it open
        if self.channel.drain(max(0.0, until - time.monotonic())):
            os.dup2(self.before, self.fd)


@contextlib.contextmanager
def guard() -> Iterator[Output]:
    """Within it, nobody who writes to standard output or error waits for its reader."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:  # closed by who started us: the next file opened would take its place
            os.open(os.devnull, os.O_RDWR)
    out = Output()
    _flush()
    out._install()
    try:
        yield out
    finally:
        _flush()
        out._restore()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
