"""The admin API over a data directory with two accounts, some rows, and an edge that is played."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import msgspec

from consoles import Site, served
from headgate import config
from headgate.catalog import sealed_keys, stored
from headgate.storage.rows import AttemptRecord, LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.web.api import openapi, reference_page, routes
from headgate.web.api.route import Endpoint

PASSWORD = "four unusual words together"
IDS = [f"{n:024x}" for n in range(6)]
# As edge/internal_api.py answers.
UPSTREAM = {
    "name": "default",
    "preset": "openai",
    "dialect": "openai",
    "host": "127.0.0.1:9",
    "models": ["MiniMax-M3"],
    "state": "degraded",
    "circuit": "half_open",
    "failures": 5,
    "paused_s": 12.5,
    "check": "",
    "paused": ["MiniMax-M3"],
    "rpm": None,
    "tpm": 1000,
}
STEPS = {"steps": [{"name": "access", "state": "fail", "text": "Refused.", "fix": "Set a key."}]}

OWN_MODEL = "our-coder"
UPSTREAM_KEY = "sk-upstream-canary-0123456789"
OWN_UPSTREAM = "our-server"


class _Edge(BaseHTTPRequestHandler):
    asked: list[str]
    name: str

    def _answer(self, value: object) -> None:
        self.asked.append(f"{self.command} {self.path} {self.headers['x-headgate-internal'][:4]}")
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer([{**UPSTREAM, "name": self.name}])

    def do_POST(self) -> None:
        self._answer(STEPS)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Made(msgspec.Struct):
    """What there is, and who may open it."""

    site: Site
    keys: dict[str, str]  # texts: admin, viewer, expired, revoked, model
    model_keys: dict[str, str]  # ids: acme, other, none
    management: str  # the id of a key that nobody needs
    user: str
    upstream: str
    asked: list[str]  # what the edge was asked

    def client(self, who: str) -> httpx2.Client:
        headers = {"authorization": f"Bearer {self.keys[who]}"} if who else {}
        return httpx2.Client(base_url=self.site.url, headers=headers)

    def address(self, endpoint: Endpoint) -> str:
        """Its path, with the id of something that exists."""
        ids = {
            "Keys": self.model_keys["acme"],
            "Accounts": "acme",
            "Users": self.user,
            "Management keys": self.management,
            "Upstream keys": f"account:other:{self.upstream}",
            "Usage and requests": IDS[0],
            "Upstreams and models": OWN_MODEL,
        }
        id = "talk" if "sessions" in endpoint.path else ids.get(endpoint.group, "")
        # The edge knows one upstream; another is stored, and can be changed.
        name = self.upstream if endpoint.path.endswith("/test") else OWN_UPSTREAM
        return endpoint.shown_path.replace("{id}", id).replace("{name}", name)

    def changes(self) -> list[tuple[str, str, str]]:
        return [
            (c.action, c.subject, c.account)
            for c in self.site.console_context.people.changes(most=200)
        ]


def row(n: int, key: str, account: str, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=IDS[n],
        key_id=key,
        account=account,
        dialect="openai",
        model="MiniMax-M3",
        upstream="up",
        upstream_model="MiniMax-M3",
        outcome="stop",
        basis="upstream",
        status=200,
        started_at=time.time() - 60 * (6 - n),
        ended_at=time.time() - 60 * (6 - n) + 1.1,
        ttft_ms=100,
        input_tokens=100,
        cached_tokens=40,
        output_tokens=50,
        reasoning_tokens=20,
        cost_nano_usd=1_500_000_000,
        attempts=(AttemptRecord("up", "MiniMax-M3", "stop", ms=1100),),
    )
    return msgspec.structs.replace(plain, **fields)


@contextlib.contextmanager
def running(data: Path) -> Iterator[Made]:
    store = Store(data)
    now_s = time.time()
    for id in ("acme", "other"):
        store.create_account(id, id.title(), now_s=now_s, budget_nano=10**10)
    ids, texts = {}, {}
    for account in ("acme", "other", ""):
        key, text = store.create_key(
            f"<script>alert('{account}')</script>", now_s=now_s, account=account
        )
        ids[account or "none"], texts["model"] = key.id, text
    own = config.Model(routes=(config.RouteTo(upstream="custom"),), free=True)
    store.put_own_model(OWN_MODEL, stored.encoded(own), now_s=now_s)
    server = config.Upstream(preset="vllm", only_named=True)
    text = stored.encoded_upstream(OWN_UPSTREAM, server, store.derived(sealed_keys.PURPOSE))
    store.put_own_upstream(OWN_UPSTREAM, text, now_s=now_s)
    ledger = Ledger(data)
    rows = (
        row(0, ids["acme"], "acme", session="talk"),
        row(1, ids["acme"], "acme", session="talk", cost_nano_usd=None),
        row(2, ids["other"], "other", session="talk", model="MiniMax-M2.7"),
        row(3, ids["none"], "", outcome="timeout", status=504, ttft_ms=None),
    )
    for r in rows:
        asyncio.run(ledger.settle(r))
    ledger.close()
    store.close()
    asked: list[str] = []

    class Edge(_Edge):
        pass

    Edge.asked = asked
    edge = ThreadingHTTPServer(("127.0.0.1", 0), Edge)
    threading.Thread(target=edge.serve_forever, args=(0.02,), daemon=True).start()
    rules = (*routes.RULES, *openapi.RULES, *reference_page.RULES)
    try:
        with served(data, rules, f"http://127.0.0.1:{edge.server_port}") as site:
            people = site.console_context.people
            settings = site.console_context.settings
            site.console_context.store.put_upstream_key(
                "account", "other", next(iter(settings.upstreams)), UPSTREAM_KEY, now_s=now_s
            )
            Edge.name = upstream = next(iter(settings.upstreams))
            # Of the model that the API's example makes.
            acme = config.Upstream(base_url="http://127.0.0.1:9", key="k", only_named=True)
            upstreams = {**settings.upstreams, "acme": acme}
            site.console_context.settings = msgspec.structs.replace(settings, upstreams=upstreams)
            for role in ("admin", "viewer"):
                _, texts[role] = people.create_management_key(role, role, now_s=now_s)
            _, texts["expired"] = people.create_management_key("e", "admin", now_s - 1, now_s=now_s)
            spare, texts["revoked"] = people.create_management_key("r", "admin", now_s=now_s)
            people.revoke_management_key(spare.id, now_s=now_s)
            spare, _ = people.create_management_key("spare", "admin", now_s=now_s)
            user = people.create_user("lin", "", "member", "acme", now_s=now_s)
            people.create_user("root", "", "admin", now_s=now_s)
            yield Made(site, texts, ids, spare.id, user.id, upstream, asked)
    finally:
        edge.shutdown()
        edge.server_close()
