"""One child process, and the channel over which it and the supervisor tell each other things.

The child's standard input is its end of a socket; lines of JSON go both ways.  When the supervisor is no
more the channel ends, so that no child outlives it for long (edge: it drains; node: it ends with them).

Note: a child stays in the supervisor's process group, so that whoever kills the group kills it too, but is
started with the signals blocked that a terminal or systemd sends to all of a group.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headgate.storage.sqlite.writer_process import SIGNALS

_encode = msgspec.json.Encoder().encode


class Child:
    """A process `headgate NAME ...`; OSError when the system has no room for one."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        fds: Sequence[int],
        heard: Callable[["Child", dict[str, Any]], None],
        environment: Mapping[str, str] = {},
    ) -> None:
        """`heard` is given what the child says; Any: its words are JSON.

        `environment`: variables that it has beside ours.
        """
        self.name = name
        self.began_s = time.monotonic()
        self.ready = False
        self.retired = False  # another has taken its place
        self.generation = 1
        self.failure = ""  # why it could not start, in its own words
        self.decided = asyncio.Event()  # it is ready, or has ended before
        self._arguments = arguments
        self._fds = fds
        self._environment = environment
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._ours: socket.socket | None = None
        self._in = bytearray()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._process.returncode if self._process is not None else None

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        held = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headgate.cli",
                self.name,
                *self._arguments,
                stdin=theirs.fileno(),
                pass_fds=self._fds,
                env={**os.environ, **self._environment},
            )
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._ours = ours
        asyncio.get_running_loop().add_reader(ours, self._receive)

    def _receive(self) -> None:
        assert self._ours is not None
        try:
            data = self._ours.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._ours)
            self.decided.set()
            return
        self._in += data
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        for line in lines:
            stated = msgspec.json.decode(line, type=dict[str, Any])
            if stated.get("event") == "failed":
                self.failure = str(stated.get("why", ""))
            if stated.get("event") == "ready":
                self.ready = True
                self.decided.set()
            self._heard(self, stated)

    def notify(self, word: str, **more: object) -> None:
        """Send the child a line; one that reads none gets no more."""
        if self._ours is not None:
            with contextlib.suppress(OSError):
                self._ours.send(_encode({"word": word, **more}) + b"\n")

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        code = await self._process.wait()
        if self._ours is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._ours)
            self._ours.close()
            self._ours = None
        return code

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


class Channel:
    """One end of it: a child's, which is standard input, or one between two supervisors."""

    def __init__(
        self,
        heard: Callable[[dict[str, Any]], None],
        lost: Callable[[], None],
        sock: socket.socket | None = None,
    ) -> None:
        """`lost` is called once the other end is no more."""
        self._sock = socket.socket(fileno=0) if sock is None else sock
        self._sock.setblocking(False)
        self._heard = heard
        self._lost = lost
        self._in = bytearray()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self._receive)

    def notify(self, event: str, **more: object) -> None:
        with contextlib.suppress(OSError):  # nobody is there to know
            self._sock.send(_encode({"event": event, **more}) + b"\n")

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
            self._lost()
            return
        self._in += data
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        for line in lines:
            self._heard(msgspec.json.decode(line, type=dict[str, Any]))
