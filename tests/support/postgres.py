"""A real PostgreSQL for tests: Debian's, on a free loopback port, as a user that is not root."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from headgate.storage.postgres import database
from headgate.storage.postgres.leases import register
from programs import lacking
from waiting import PATIENCE_S, wait_for

DEBIAN = Path("/usr/lib/postgresql")
V = TypeVar("V")


def with_two_nodes(url: str, work: Callable[[Any], Awaitable[V]]) -> V:
    """What `work` does with a connection to a database of the nodes n1 and n2; Any: asyncpg's."""

    async def run() -> V:
        db = await database.connect(url)
        try:
            for node in ("n1", "n2"):
                await register(db, node, "p")
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())


def program(name: str) -> str:
    found = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
    if not found:
        lacking(f"not installed: {name} (Debian: apt install postgresql)")
    return str(found[-1])


class Postgres:
    """One server with its own directory; `url` names a database that is empty at first."""

    def __init__(self) -> None:
        self._bin = program("postgres")
        initdb = program("initdb")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://gate:secret-of-pg@127.0.0.1:{self.port}/postgres"
        self._root = Path(tempfile.mkdtemp(prefix="pg-"))
        self._root.chmod(0o755)
        self._data = self._root / "data"
        self._user: int | None = None
        if os.geteuid() == 0:  # the server refuses to run as root
            self._user = pwd.getpwnam("nobody").pw_uid
            os.chown(self._root, self._user, -1)
        password = self._root / "password"
        password.write_text("secret-of-pg")
        password.chmod(0o644)
        subprocess.run(
            [
                initdb,
                "-D",
                self._data,
                "-U",
                "gate",
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                f"--pwfile={password}",
            ],
            check=True,
            capture_output=True,
            user=self._user,
            cwd="/",
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        settings = (
            "fsync=off",
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=60",
            "shared_buffers=16MB",
        )
        self._process = subprocess.Popen(
            [self._bin, "-D", self._data, *(o for each in settings for o in ("-c", each))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd="/",
        )
        ready = self._data / "postmaster.pid"

        def accepts() -> bool:
            lines = ready.read_text().splitlines() if ready.exists() else []
            return len(lines) > 7 and lines[7].strip() == "ready"

        wait_for(accepts)

    def stop(self, number: int = signal.SIGINT) -> None:
        """End the server, and with SIGINT all its connections at once."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(3 * PATIENCE_S)
            self._process = None

    async def clear(self) -> None:
        """Drop what the tests before have left."""
        db = await asyncpg.connect(self.url)
        await db.execute("drop schema if exists headgate cascade")
        await db.close()

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)
