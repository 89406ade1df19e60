"""The upstreams' page over an edge that is played, and without one."""

import asyncio
import html
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from consoles import Site, served, signed_in
from headgate.catalog import models as shipped
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from headgate.policy.access import Role
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.ledger import Ledger
from headgate.web.console import requests_page, upstreams_page

KEY: dict[str, Any] = {"account": "custom#1", "paused_s": 0.0, "kind": "", "code": "", "models": []}
EVIL = "<script>alert(1)</script>"
UP: dict[str, Any] = {
    "name": "custom",
    "preset": "custom",
    "dialect": "openai",
    "host": "127.0.0.1:9",
    "models": ["MiniMax-M3", "MiniMax-M2"],
    "state": "up",
    "failures": 0,
    "circuit": "closed",
    "paused_s": 0.0,
    "paused": [],
    "rpm": 500,
    "tpm": None,
}


PLAN = {"window": "5h", "left": 0.4, "resets_in_s": 7200}


class Edge:
    """What control asks the edge, answered with what a test wants."""

    def __init__(self) -> None:
        self.upstreams: list[dict[str, Any]] = [UP]
        self.steps: list[dict[str, str]] = []
        self.seen: list[tuple[str, str, str]] = []  # method, path, proof
        self.port = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            server = Server(self._answer)
            self.port = await server.listen("127.0.0.1", 0)
            ready.set()
            await stop.wait()
            server.stop_accepting()
            await server.drain(0)

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
        thread.start()
        assert ready.wait(60)
        yield f"http://127.0.0.1:{self.port}"
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)

    async def _answer(self, inbound: Inbound) -> None:
        proof = inbound.headers.get("x-headgate-internal", "")
        self.seen.append((inbound.method, inbound.path, proof))
        match inbound.method, inbound.path:
            case "GET", "/internal/upstreams":
                said: object = self.upstreams
            case "POST", "/internal/upstreams/custom/test":
                said = {"steps": self.steps}
            case _:
                inbound.respond(404, [], b"")
                return
        inbound.respond(200, [("content-type", "application/json")], msgspec.json.encode(said))


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    with edge.running():
        yield edge


@pytest.fixture
def site(edge: Edge, tmp_path: Path) -> Iterator[Site]:
    with served(
        tmp_path / "data",
        (*upstreams_page.RULES, *requests_page.RULES),
        f"http://127.0.0.1:{edge.port}",
    ) as site:
        yield site


def write(site: Site, *rows: dict[str, Any]) -> None:
    """Rows of the upstream `custom`, of now."""
    ledger = Ledger(site.data)

    async def settle() -> None:
        for n, row in enumerate(rows):
            fields: dict[str, Any] = {
                "request_id": f"{n:024x}",
                "key_id": "k1",
                "dialect": "openai",
                "model": "MiniMax-M3",
                "upstream": "custom",
                "upstream_model": "MiniMax-M3",
                "stream": True,
                "status": 200,
                "outcome": "stop",
                "basis": "upstream",
                "started_at": (now_s := time.time()),
                "ended_at": now_s + 1.2,
                "output_tokens": 50,
                "ttft_ms": 200,
                "input_tokens": 10,
                "cost_nano_usd": 1,
            }
            await ledger.settle(LedgerRow(**{**fields, **row}))

    asyncio.run(settle())
    assert ledger.close() == 0


def text(client: httpx2.Client, **headers: str) -> str:
    answer = client.get("/upstreams", headers=headers)
    assert answer.status_code == 200
    return answer.text


def post(client: httpx2.Client, name: str = "custom", **headers: str) -> httpx2.Response:
    csrf: str = client.csrf  # type: ignore[attr-defined]
    return client.post(f"/upstreams/{name}/test", data={"csrf": csrf}, headers=headers)


def test_a_card_has_what_the_edge_and_the_books_say(site: Site, edge: Edge) -> None:
    write(site, {}, {}, {}, {"outcome": "overloaded", "ttft_ms": None, "output_tokens": 0})
    shown = text(signed_in(site))
    for part in (
        "<h2>custom</h2>",
        ">up<",
        "127.0.0.1:9",
        "25.0 %",
        "<b>200 ms</b>",
        "<b>50.0</b>",
        "500 requests a minute",
        'href="/models/MiniMax-M2"',
        "overloaded",
        f"/requests/{3:024x}",
    ):
        assert part in shown, part
    links = re.findall(r'<b[^>]*><a href="(/requests\?[^"]*)">([^<]*)</a>', shown)
    assert [words for _, words in links] == ["4", "25.0 %"]
    for (link, _), count in zip(links, (4, 1), strict=True):
        path = html.unescape(link).replace("/requests?", "/requests.csv?")
        assert len(signed_in(site).get(path).text.splitlines()) == 1 + count, path
    assert "/requests?span" not in text(signed_in(site, "member", "red")), "of all requests"
    proof = site.console_context.store.derived("internal").hex()
    assert edge.seen[:1] == [("GET", "/internal/upstreams", proof)] and proof not in shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"failures": 3}, "3 consecutive failures"),
        (
            {
                "state": "degraded",
                "circuit": "open",
                "failures": 5,
                "paused_s": 41.6,
                "paused": ["MiniMax-M2"],
            },
            "Paused for another 42 s after failures",
        ),
        (
            {"state": "degraded", "circuit": "open", "paused_s": 3.0, "paused": ["MiniMax-M2"]},
            "This holds for:",
        ),
        ({"state": "not_checked"}, ">not checked<"),
        ({"state": "not_checked"}, "No request has been sent to it"),
        ({"state": "degraded", "check": "not reachable"}, "The last check failed: not reachable."),
        ({"state": "paused", "circuit": "open"}, ">paused<"),
        (
            {"state": "degraded", "circuit": "half_open", "paused": UP["models"]},
            "the next request probes it",
        ),
        ({"keys": [KEY, {**KEY, "account": "custom#2"}]}, "custom#2"),
        ({"keys": [{**KEY, "plan": [PLAN]}]}, "5-hour window"),
        ({"keys": [{**KEY, "plan": [PLAN]}]}, "40.0 % left"),
        (
            {"keys": [{**KEY, "plan": [{**PLAN, "window": "7d", "left": None}]}]},
            "7-day window: not known",
        ),
        ({"keys": [{**KEY, "plan_check": "status 404"}]}, "is not known: status 404."),
        ({"keys": [KEY, KEY]}, ">active<"),
        (
            {"keys": [{**KEY, "kind": "upstream_quota", "code": "2056", "paused_s": 12.4}]},
            "paused for 12 s",
        ),
        ({"keys": [{**KEY, "kind": "upstream_quota", "code": "2056", "paused_s": 12.4}]}, "(2056)"),
        (
            {"keys": [{**KEY, "kind": "rate_limit", "models": ["MiniMax-M3"]}]},
            "half-open: the next request probes it",
        ),
    ],
)
def test_a_state_is_told_in_words(
    site: Site, edge: Edge, fields: dict[str, Any], words: str
) -> None:
    edge.upstreams = [{**UP, **fields}]
    assert words in text(signed_in(site))


def test_without_the_edge_the_page_shows_what_is_set_up_and_says_so(tmp_path: Path) -> None:
    with served(tmp_path / "data", upstreams_page.RULES, "http://127.0.0.1:9") as site:
        write(site, {})
        shown = text(signed_in(site))
    assert "cannot be shown: The edge does not answer" in shown
    assert ">unknown<" in shown and "<h2>custom</h2>" in shown and ">1</a></b>" in shown


def test_no_key_and_no_password_of_an_upstream_is_on_the_page(tmp_path: Path) -> None:
    with served(tmp_path / "data", upstreams_page.RULES, "http://127.0.0.1:9") as site:
        settings = site.console_context.settings
        own = settings.upstreams["custom"]
        changed = msgspec.structs.replace(own, base_url="https://me:hunter2@up.example/v1")
        settings = msgspec.structs.replace(settings, upstreams={"custom": changed})
        site.console_context.settings = (
            settings  # the catalog is made of them when it is first asked for
        )
        shown = text(signed_in(site))
    assert "<code>up.example</code>" in shown
    assert "hunter2" not in shown and "sk-none" not in shown


def test_errors_are_those_of_the_visitors_account_and_of_the_upstream(site: Site) -> None:
    for account in ("red", "blue"):
        site.console_context.store.create_account(account, account, now_s=time.time())
    old = time.time() - 30 * 3600
    write(
        site,
        {"account": "red", "outcome": "timeout"},
        {"account": "blue", "outcome": "upstream"},
        {"account": "red", "outcome": "invalid"},
        {"account": "red", "outcome": "overloaded", "started_at": old},
    )
    roles: dict[Role, set[int]] = {"admin": {0, 1}, "member": {0}, "viewer": {0}}
    for role, seen in roles.items():
        shown = text(signed_in(site, role, "red"))
        assert {n for n in range(4) if f"/requests/{n:024x}" in shown} == seen, role


def test_only_an_admin_sees_and_may_press_the_test_button(site: Site, edge: Edge) -> None:
    site.console_context.store.create_account("red", "Red", now_s=time.time())
    for role in ("member", "viewer"):
        client = signed_in(site, role, "red")
        assert "/upstreams/custom/test" not in text(client)
        assert post(client).status_code == 403
    assert site.open().get("/upstreams").status_code == 303
    assert site.open().post("/upstreams/custom/test").status_code == 401
    client = signed_in(site)
    assert client.post("/upstreams/custom/test").status_code == 403  # without the token
    assert not any(method == "POST" for method, _, _ in edge.seen)
    assert 'action="/upstreams/custom/test"' in text(client)


def test_a_tests_steps_are_shown_in_the_whole_page_and_alone_for_htmx(
    site: Site, edge: Edge
) -> None:
    edge.steps = [
        {"name": "access", "state": "ok", "text": "It answers.", "fix": ""},
        {"name": "stream", "state": "fail", "text": EVIL, "fix": "Ask <b>them</b>."},
    ]
    client = signed_in(site)
    whole, part = post(client).text, post(client, **{"hx-request": "true"}).text
    for shown in (whole, part):
        assert "It answers." in shown and 'aria-label="failed"' in shown
        assert "&lt;script&gt;" in shown and "<script>a" not in shown and "<b>them" not in shown
    assert "<h1>Upstreams</h1>" in whole and "<h1>" not in part
    changes = [c for c in site.console_context.people.changes() if c.action == "upstream.test"]
    assert [c.subject for c in changes] == ["custom", "custom"]


def test_an_upstream_that_is_none_is_a_404_and_asks_nobody(site: Site, edge: Edge) -> None:
    assert post(signed_in(site), "nobody").status_code == 404
    assert edge.seen == []


def test_a_test_without_the_edge_says_that_it_does_not_answer(tmp_path: Path) -> None:
    with served(tmp_path / "data", upstreams_page.RULES, "http://127.0.0.1:9") as site:
        answer = post(signed_in(site), **{"hx-request": "true"})
    assert answer.status_code == 502 and "The edge does not answer" in answer.text


def test_names_from_the_configuration_stay_text(site: Site, edge: Edge) -> None:
    edge.upstreams = [{**UP, "name": EVIL, "host": EVIL, "models": [EVIL], "preset": EVIL}]
    shown = text(signed_in(site))
    assert EVIL not in shown and "&lt;script&gt;alert(1)" in shown


def test_the_table_has_every_model_with_its_prices_in_force_and_its_routes(site: Site) -> None:
    shown = text(signed_in(site))
    for model in site.console_context.catalog.models:
        assert f'<a href="/models/{model.id}">{model.id}</a></th>' in shown
    assert "up to 512,000" in shown and "$0.30" in shown and "$2.40" in shown
    assert "<script src=" in shown and not any(
        inline in shown for inline in ("<style", " style=", "onclick=")
    )


def test_a_price_of_tomorrow_is_not_shown_today() -> None:
    model = shipped.models()["MiniMax-M3"]
    before = min(p.valid_from for p in model.prices).replace(year=2020)
    assert upstreams_page._in_force(model.prices, before) == ()
