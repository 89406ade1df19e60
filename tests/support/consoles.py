"""The console, served by uvicorn on a loopback port, over a data directory of its own."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx2
import msgspec
import uvicorn

from headgate.catalog import building
from headgate.config import loading
from headgate.policy.access import Role
from headgate.storage.interface import Reports
from headgate.storage.sqlite.database import Store
from headgate.web import app, static_files
from headgate.web.app import Rule
from headgate.web.auth import sign_in
from headgate.web.console.navigation import ENTRIES
from headgate.web.context import ConsoleContext
from waiting import PATIENCE_S, wait_for

UPSTREAM = {"HEADGATE_UPSTREAM_URL": "http://127.0.0.1:9", "HEADGATE_UPSTREAM_KEY": "sk-none"}


class Site(msgspec.Struct):
    url: str
    console_context: ConsoleContext
    data: Path

    @property
    def reports(self) -> Reports:
        """What the pages read."""
        return self.console_context.ledgers.view(shares=False).reports

    def open(self, **headers: str) -> httpx2.Client:
        """Somebody who has not signed in."""
        return httpx2.Client(base_url=self.url, headers={"accept": "text/html", **headers})


@contextlib.contextmanager
def served(data: Path, rules: Iterable[Rule], edge_url: str = "") -> Iterator[Site]:
    """Return the rules, and those of signing in and static files; `edge_url`: where the edge listens."""
    settings = loading.load(None, UPSTREAM, data=str(data))
    Store(settings.data).close()  # as `serve` does: the console itself makes no database
    catalog = building.load(settings, UPSTREAM)
    console_context = ConsoleContext(settings, catalog, "http://127.0.0.1:8787", edge_url)
    console_context.entries = ENTRIES
    asgi = app.build(console_context, (*sign_in.RULES, *static_files.RULES, *rules))
    server = uvicorn.Server(
        uvicorn.Config(asgi, port=0, lifespan="off", access_log=False, log_level="warning")
    )
    console_context.store.keys()  # the schema is up to date
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive())
    assert server.started, "the console did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    console_context.base_url = url
    try:
        yield Site(url, console_context, data)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def signed_in(site: Site, role: Role = "admin", account: str = "") -> httpx2.Client:
    """Return a client with a session of a new user; `client.csrf` goes into forms."""
    people, now_s = site.console_context.people, time.time()
    user = people.create_user(f"{role}-{time.monotonic_ns()}", "", role, account, now_s=now_s)
    token = people.open_session(user.id, now_s=now_s)
    client = site.open(cookie=f"{app.COOKIE}={token}", **{"x-headgate-host": "127.0.0.1"})
    client.csrf = people.form_token(token)  # type: ignore[attr-defined]
    return client
