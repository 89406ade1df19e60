"""A disk of the tests' own, below SQLite: it remembers what was synced, and can fail.

It is made SQLite's default VFS, and the ledger's writer is a thread of the test (`in_a_thread`), so
that it writes to it.  Its files have no shared
memory (apsw passes none on), so that a connection on it has the database for itself: a hook sets
`locking_mode = exclusive`, under which WAL works without.
"""

import contextlib
import os
import random
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import apsw

from headgate.node import __main__ as writer
from headgate.storage.sqlite.writer import WriterConfig

SECTOR = 512
Event = tuple[Literal["write", "truncate", "sync", "delete", "say"], str, int, bytes]


class Disk(apsw.VFS):
    """`events` is all that happened, in order; `fault` is what the next writes fail with."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fault: type[apsw.Error] | None = None
        self.room: int | None = None  # bytes that may still be written
        self.base = apsw.vfs_names()[0]  # the default so far
        super().__init__("tests-disk", self.base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        super().xDelete(name, sync)
        self.events.append(("delete", Path(name).name, 0, b""))

    def say(self, text: str) -> None:
        self.events.append(("say", text, 0, b""))

    def check(self, size: int) -> None:
        if self.room is not None:
            if size > self.room:
                raise apsw.FullError("the disk is full")
            self.room -= size
        if self.fault is not None:
            raise self.fault("the disk fails")


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk, self._name = disk, Path(path or "temporary").name
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.check(len(data))
        self._disk.events.append(("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.events.append(("truncate", self._name, size, b""))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self._disk.check(0)
        super().xSync(flags)
        self._disk.events.append(("sync", self._name, 0, b""))


@contextlib.contextmanager
def disk(*pragmas: str) -> Iterator[Disk]:
    made = Disk()

    def hook(db: apsw.Connection) -> None:
        for pragma in ("locking_mode = exclusive", *pragmas):
            db.execute(f"pragma {pragma}")

    apsw.connection_hooks.append(hook)
    try:
        yield made
    finally:
        apsw.connection_hooks.remove(hook)
        made.unregister()


class in_a_thread:  # in the place of start_process
    """A writer like the real one, but that nothing can kill."""

    pid = os.getpid()

    def __init__(self, sock: socket.socket, lock: int, orders: WriterConfig) -> None:
        args = (sock.dup(), os.dup(lock), orders)
        self._thread = threading.Thread(target=self._run, args=args, daemon=True)
        self._thread.start()

    def _run(self, sock: socket.socket, lock: int, orders: WriterConfig) -> None:
        writer.run(sock, orders)
        os.close(lock)

    def kill(self) -> None:
        pass

    def wait(self, timeout: float) -> None:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("writer", timeout)


def after_power_cut(
    start: dict[str, bytes], events: list[Event], dice: random.Random
) -> tuple[dict[str, bytes], list[str]]:
    """The files as a power cut after `events` may leave them, and what had been reported by then.

    What was synced is there.  Of what was written since, any sectors are, in any order.
    """
    files: dict[str, bytearray] = defaultdict(
        bytearray, {k: bytearray(v) for k, v in start.items()}
    )
    loose: dict[str, list[Event]] = defaultdict(list)
    stated = []
    for event in events:
        kind, name, _, _ = event
        if kind == "say":
            stated.append(name)
        elif kind == "sync":
            for written in loose.pop(name, ()):
                _apply(files[name], written)
        elif kind == "delete":
            files.pop(name, None)
            loose.pop(name, None)
        else:
            loose[name].append(event)
    for name, writes in loose.items():
        luck = dice.choice((0.0, 0.5, 0.9, 1.0))
        for event in writes:
            kind, _, offset, data = event
            for at in range(0, max(len(data), 1), SECTOR):
                if dice.random() < luck:
                    _apply(files[name], (kind, name, offset + at, data[at : at + SECTOR]))
    return {k: bytes(v) for k, v in files.items()}, stated


def _apply(file: bytearray, event: Event) -> None:
    kind, _, offset, data = event
    if len(file) < offset:
        file.extend(bytes(offset - len(file)))
    if kind == "truncate":
        del file[offset:]
    else:
        file[offset : offset + len(data)] = data
