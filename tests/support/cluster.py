"""Gateways with data directories of their own and one PostgreSQL, and links between them that can be cut."""

import asyncio
import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from gateway import Gateway, start, stop
from headgate.catalog import counting
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import ANTHROPIC
from headgate.storage.postgres import database
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.sqlite.database import Store
from played import PlayedUpstream
from postgres import Postgres
from waiting import PATIENCE_S, pause_thread, wait_for

V = TypeVar("V")
BODY = {
    "model": "MiniMax-M2",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "held"}],
}
QUICK = {**BODY, "messages": [{"role": "user", "content": "hello"}]}


def reserved(body: dict[str, object]) -> int:
    """Nano-dollars: the input's upper bound at 0.375, 100 out at 1.20 (as in tests/edge/test_admission.py)."""
    request = ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget())
    return counting.input_bound(request, 204_800) * 375 + 100 * 1200


class Link:
    """Relays connections to a port of this machine; while it is cut nothing passes, and nobody is shown."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self.cut = False
        self._ended = False
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def _relay(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ)
            while not self._ended:
                found = ready.select(0.05)
                if self.cut:
                    pause_thread(0.05, "the link is cut")
                    continue
                for key, _ in found:
                    if key.fileobj is self._listener:
                        self._open(ready)
                    else:
                        self._pass(ready, key)

    def _open(self, ready: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        ready.register(client, selectors.EVENT_READ, server)
        ready.register(server, selectors.EVENT_READ, client)

    def _pass(self, ready: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        source, target = key.fileobj, key.data
        assert isinstance(source, socket.socket)
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(65536)
            target.sendall(data)
        if not data:
            for each in (source, target):
                with contextlib.suppress(KeyError, ValueError):
                    ready.unregister(each)
                each.close()

    def end(self) -> None:
        self._ended = True
        self._thread.join(PATIENCE_S)
        self._listener.close()


class Cluster:
    """The gateways, their database, and the upstream that they share."""

    def __init__(
        self, place: Path, upstream: PlayedUpstream, nodes: int, links: bool = False
    ) -> None:
        """`links`: each node reaches the database over a link that can be cut."""
        self.place = place
        self.upstream = upstream
        self.database = Postgres()
        self.links = [Link(self.database.port) for _ in range(nodes if links else 0)]
        self.gates: list[Gateway] = []
        for n in range(nodes):
            self.gates.append(self.start(n))

    def start(self, n: int, *options: str, **env: str) -> Gateway:
        first = self.place / "0" / "pepper"
        url = self.database.url
        if self.links:
            url = url.replace(f":{self.database.port}/", f":{self.links[n].port}/")
        return start(
            self.place / str(n),
            *options,
            HEADGATE_UPSTREAM_URL=self.upstream.url("openai"),
            HEADGATE_UPSTREAM_KEY="x",
            HEADGATE_DATABASE=url,
            HEADGATE_METRICS="open",
            **({"HEADGATE_PEPPER_FILE": str(first)} if n else {}),
            **env,
        )

    def store(self, n: int = 0) -> Store:
        return Store(self.place / str(n), create=False, database=self.database.url)

    def key(self, n: int = 0, **terms: Any) -> tuple[str, dict[str, str]]:
        """A new key, made on one node and known on all: its id, and the header that has it."""
        store = self.store(n)
        key, text = store.create_key("shared", now_s=time.time(), **terms)
        store.close()
        headers = {"authorization": f"Bearer {text}"}
        for gate in self.gates:
            wait_for(lambda gate=gate: self.knows(gate, headers))  # type: ignore[misc]
        return key.id, headers

    def knows(self, gate: Gateway, headers: dict[str, str]) -> bool:
        return httpx2.get(f"{gate.url}/v1/key", headers=headers).status_code == 200

    def ask(self, n: int, headers: dict[str, str], body: object = QUICK) -> httpx2.Response:
        url = f"{self.gates[n].url}/v1/messages"
        return httpx2.post(url, json=body, headers=headers, timeout=PATIENCE_S)

    def metric(self, n: int, name: str) -> float:
        """Return a value that a node's /metrics has without labels."""
        page = httpx2.get(f"{self.gates[n].url}/metrics").text
        (value,) = [line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    def within(self, work: Callable[[Any], Awaitable[V]]) -> V:
        """What `work` does with a connection; Any: asyncpg's."""

        async def run() -> V:
            db = await database.connect(self.database.url)
            try:
                return await work(db)
            finally:
                await db.close()

        return asyncio.run(run())

    def granted(self, owner: str) -> list[int]:
        """What each node that has a lease of this owner has, in nano-dollars."""
        found = self.within(
            lambda db: db.fetch("select granted from leases where owner = $1", owner)
        )
        return [int(granted) for (granted,) in found]

    def end(self) -> None:
        """Stop all nodes in good order, audit what they have sent, and end the database."""
        for gate in self.gates:
            assert stop(gate) == 0
        for link in self.links:
            link.end()
        assert self.within(lambda db: LedgerDatabase(db).audit()) == []
        self.database.end()

    def spent(self, key_id: str) -> int:
        """What the ledger of all nodes says that a key has spent."""
        return self.within(
            lambda db: db.fetchval(
                "select coalesce(sum(cost_nano_usd), 0)::bigint from ledger where key_id = $1",
                key_id,
            )
        )
