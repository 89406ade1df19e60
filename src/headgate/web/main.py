"""The process of control: the app on uvicorn, on a unix socket that only its user can reach.

The only place that knows uvicorn.  Note: who started it holds the other end of its
standard input, so that it ends with them, also when they were killed.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from headgate.catalog import building
from headgate.config import Settings
from headgate.storage.sqlite.database import Store
from headgate.web import app, socket_path, static_files
from headgate.web.auth import sign_in
from headgate.web.console.navigation import ENTRIES, RULES
from headgate.web.context import ConsoleContext

KEEP_ALIVE_S = 30  # longer than the edge keeps a connection (edge/control_proxy.py)


def listen(path: str) -> socket.socket:
    """A socket at the path, in place of one that nobody serves any more; else OSError.

    It has its name only once it listens, so that nobody takes it for a dead one (place.py, sweep).
    """
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(path):
        if not socket_path.is_socket(path):
            raise FileExistsError(errno.EEXIST, "is there, and is no socket", path)
        if socket_path.served(path):
            raise OSError(errno.EADDRINUSE, "another process listens there", path)
    fresh = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(fresh)
    finally:
        os.umask(before)
    sock.listen(128)
    os.rename(fresh, path)
    return sock


def run(settings: Settings, path: str, base_url: str, edge_url: str) -> None:
    """Serve until SIGTERM, or until standard input ends where it is a pipe of `serve`."""
    for name in ("SIGUSR1", "SIGUSR2"):  # for the supervisor; their default is to kill
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):  # a report can wait for a token, not the other way round
        os.nice(10)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    catalog = building.load(settings, os.environ)
    Store(settings.data, create=False).close()  # refused before anybody asks
    console_context = ConsoleContext(settings, catalog, base_url, edge_url)
    console_context.entries = ENTRIES
    sock = listen(path)
    try:
        asyncio.run(
            _serve(app.build(console_context, (*sign_in.RULES, *static_files.RULES, *RULES)), sock)
        )
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


async def _serve(asgi: ASGIApp, sock: socket.socket) -> None:
    config = uvicorn.Config(
        asgi,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    if not sys.stdin.isatty():
        loop = asyncio.get_running_loop()

        def heard() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                server.should_exit = True

        with contextlib.suppress(OSError, ValueError, PermissionError):  # a plain file never ends
            loop.add_reader(0, heard)
    await server.serve(sockets=[sock])
