"""The console, its files, the admin API and the commands have the same figures on every node.

Three gateways on one PostgreSQL: whatever was sent to one of them is seen, by its node's name, on all.
"""

import csv
import io
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from browsing import chromium, expect, fits, profile
from cluster import Cluster
from gateway import COMMAND, Gateway
from headgate.call_loop import CallLoop
from headgate.config import loading
from headgate.node.shipping import node_id
from headgate.storage.postgres.ledger import NodeName, NodePosition, ship
from headgate.storage.postgres.queries import PooledQueries
from headgate.storage.postgres.usage_reader import DatabaseReader
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.reports import UsageReader
from headgate.web import app
from headgate.web.ledgers import Ledgers
from played import PlayedUpstream
from waiting import PATIENCE_S, wait_for

NODES = 3
SESSION = "5c1d9f0e-0000-4000-8000-000000000001"
EACH = (1, 2, 3)  # requests that each node answers


class Seen:
    """Somebody signed in on all nodes, and a management key."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        store = cluster.store()
        people, now_s = People(store, store.directory), time.time()
        user = people.create_user("ops", "", "admin", now_s=now_s)
        cookie = f"{app.COOKIE}={people.open_session(user.id, now_s=now_s)}"
        _, text = people.create_management_key("reports", "viewer", now_s=now_s)
        people.close()
        store.close()
        self.browser = {"cookie": cookie, "accept": "text/html"}
        self.api = {"authorization": f"Bearer {text}"}
        for gate in cluster.gates:
            wait_for(lambda gate=gate: self.get(gate, "/usage", status=None).status_code == 200)  # type: ignore[misc]

    def get(self, gate: Gateway, path: str, status: int | None = 200) -> httpx2.Response:
        headers = self.api if path.startswith("/admin/v1") else self.browser
        found = httpx2.get(f"{gate.url}{path}", headers=headers, timeout=PATIENCE_S)
        assert status in (None, found.status_code), (path, found.status_code, found.text[:500])
        return found

    def rows(self, gate: Gateway, path: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.get(gate, path).text.removeprefix("\ufeff"))))

    def command(self, gate: Gateway, *words: str) -> str:
        """What a command prints in a node's data directory."""
        env = {**os.environ, "HEADGATE_DATABASE": self.cluster.database.url}
        done = subprocess.run(
            [*COMMAND, *words, "--data", str(gate.data)],
            env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
        )  # fmt: skip
        return done.stdout


@pytest.fixture(scope="module")
def cluster(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("figures"), upstream, NODES)
    yield running
    running.end()


@pytest.fixture(scope="module")
def seen(cluster: Cluster) -> Seen:
    return Seen(cluster)


@pytest.fixture(scope="module")
def used(cluster: Cluster, seen: Seen) -> tuple[str, list[str], dict[str, str]]:
    """A key with a budget, used on each node: its id, its requests in their order, and the key as a header."""
    store = cluster.store()
    store.create_account("team", "The team", now_s=time.time(), budget_nano=10**11)
    store.close()
    id, headers = cluster.key(budget_nano=10**10, budget_period="month", account="team")
    asked = []
    for n, count in enumerate(EACH):
        for _ in range(count):
            answer = cluster.ask(n, {**headers, "x-claude-code-session-id": SESSION})
            assert answer.status_code == 200, answer.text
            asked.append(answer.headers["x-request-id"])
    wait_for(lambda: count_of(cluster) == len(asked))
    return id, asked, headers


@pytest.fixture(scope="module")
def key(used: tuple[str, list[str], dict[str, str]]) -> tuple[str, list[str]]:
    return used[:2]


def nodes_of(seen: Seen, gate: Gateway) -> list[dict[str, Any]]:
    return list(seen.get(gate, "/admin/v1/nodes").json()["data"])


def count_of(cluster: Cluster) -> int:
    count = "select count(*) from ledger"
    return int(cluster.within(lambda db: db.fetchval(count)))


def plain(html: str) -> str:
    """The text of a page, without what differs from one look to the next."""
    text = re.sub(r"<(script|style|head)\b.*?</\1>", " ", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_each_page_and_file_has_the_same_figures_on_every_node(
    cluster: Cluster, seen: Seen, key: tuple[str, list[str]]
) -> None:
    id, asked = key
    spent = cluster.spent(id)
    audited = seen.command(cluster.gates[0], "audit")
    assert f"All nodes OK: {len(asked)} requests, ${spent / 10**9:.9f}".rstrip("0") in audited
    pages: dict[str, set[str]] = {}
    for gate in cluster.gates:
        for by in ("key", "account", "model", "upstream", "session", "day"):
            lines = seen.rows(gate, f"/usage.csv?span=24h&by={by}")
            assert sum(int(line["requests"]) for line in lines) == len(asked)
            assert sum(int(line["cost_nano_usd"]) for line in lines) == spent
        log = seen.rows(gate, "/requests.csv")
        assert {line["request_id"] for line in log} == {*asked}
        assert sum(int(line["cost_nano_usd"]) for line in log) == spent
        usage = seen.get(gate, "/admin/v1/usage?by=key").json()["data"]
        assert [(row["name"], row["requests"], row["cost_nano_usd"]) for row in usage] == [
            (id, len(asked), spent)
        ]
        requests = seen.get(gate, "/admin/v1/requests").json()["data"]
        assert [row["request_id"] for row in requests] == [line["request_id"] for line in log]
        (mine,) = (k for k in seen.get(gate, "/admin/v1/keys").json()["data"] if k["id"] == id)
        assert (mine["requests"], mine["spent_nano"], mine["budget_spent_nano"]) == (
            len(asked), spent, spent,
        )  # fmt: skip
        (team,) = seen.get(gate, "/admin/v1/accounts").json()["data"]
        assert (team["requests"], team["spent_nano"]) == (len(asked), spent)
        (upstream,) = seen.get(gate, "/admin/v1/upstreams").json()["data"]
        assert upstream["requests"] == len(asked)
        (printed,) = json.loads(seen.command(gate, "usage", "--by", "key", "--json"))
        assert (printed["requests"], printed["cost_nano_usd"]) == (len(asked), spent)
        for path in (
            "/usage?span=24h", "/usage?span=24h&by=session", "/requests?sort=-cost", "/api_keys",
            f"/api_keys/{id}", "/accounts", "/accounts/team", "/upstreams", f"/sessions/{SESSION}",
            "/requests?figures=1", "/start",
        ):  # fmt: skip
            found = seen.get(gate, path)
            text = plain(found.text).replace(gate.url, "")  # leases come and go
            text = re.sub(r"\d\d:\d\d(:\d\d)?|\S+ leased to \d nodes?", "", text)
            pages.setdefault(path, set()).add(" ".join(text.split()))
    differing = {
        path: [t.split() for t in texts] for path, texts in pages.items() if len(texts) > 1
    }
    assert {p: sorted({*one} ^ {*other}) for p, (one, other, *_) in differing.items()} == {}


def test_each_request_has_its_node_and_the_log_can_be_narrowed_to_one(
    cluster: Cluster, seen: Seen, key: tuple[str, list[str]]
) -> None:
    ids = [node_id(gate.data) for gate in cluster.gates]
    queries = PooledQueries(cluster.database.url)
    names = DatabaseReader(queries).node_names()
    queries.close()
    assert {*names} == {*ids} and len({*names.values()}) == NODES
    assert {n["id"]: n["name"] for n in nodes_of(seen, cluster.gates[0])} == names
    starts = [sum(EACH[:n]) for n in range(NODES)]
    for gate in cluster.gates:
        for n, id in enumerate(ids):
            mine = key[1][starts[n] : starts[n] + EACH[n]]
            lines = seen.rows(gate, f"/requests.csv?node={id}")
            assert {line["request_id"] for line in lines} == {*mine}
            assert {line["node"] for line in lines} == {names[id]}
            assert f"{EACH[n]}</a></b>" in seen.get(gate, f"/usage?span=24h&node={id}").text
            data = seen.get(gate, f"/admin/v1/requests?node={id}").json()["data"]
            assert [row["node"] for row in data] == [names[id]] * EACH[n]
            page = plain(seen.get(gate, f"/requests/{mine[0]}").text)
            assert f"Node {names[id]}" in page
            assert seen.get(gate, f"/admin/v1/requests/{mine[0]}").json()["node"] == names[id]
            printed = seen.command(gate, "requests", "--node", names[id], "--json").splitlines()
            assert {json.loads(line)["request_id"] for line in printed} == {*mine}


def test_a_key_sees_its_requests_of_all_nodes_on_each(
    cluster: Cluster, used: tuple[str, list[str], dict[str, str]]
) -> None:
    id, asked, headers = used
    spent = cluster.spent(id)
    for gate in cluster.gates:

        def get(path: str, gate: Gateway = gate) -> dict[str, Any]:
            found = httpx2.get(f"{gate.url}{path}", headers=headers, timeout=PATIENCE_S)
            assert found.status_code == 200, found.text
            return dict(found.json())

        mine = get("/v1/key")
        assert (mine["spent_nano"], mine["spent_on"]) == (spent, "all_nodes")
        assert [get(f"/v1/generations/{each}")["request_id"] for each in asked] == asked
        whole = get(f"/v1/sessions/{SESSION}")
        ids = [row["request_id"] for row in whole["generations"]]  # as they came to the database
        assert sorted(ids) == sorted(asked)
        assert (whole["requests"], whole["has_more"]) == (len(asked), False)
        pages, after = [], ""
        while True:
            part = get(f"/v1/sessions/{SESSION}?limit=4&after={after}")
            pages += [row["request_id"] for row in part["generations"]]
            after = part["next"]
            if not part["has_more"]:
                break
        assert pages == ids


def test_a_budget_shows_what_is_leased_and_to_how_many(
    cluster: Cluster, seen: Seen, key: tuple[str, list[str]]
) -> None:
    """A lease that was drawn for a node and is not used; nodes return theirs after a while."""

    async def lease(db: object) -> None:
        for n, gate in enumerate(cluster.gates):
            await db.execute(  # type: ignore[attr-defined]
                "update leases set granted = greatest(granted, spent) + $2, used = greatest(used, spent)"
                " where node_id = $1 and what = 'account'",
                node_id(gate.data), 10**9 * (n + 1),
            )  # fmt: skip

    cluster.within(lease)
    for gate in cluster.gates:
        assert "$6.00 leased to 3 nodes" in plain(seen.get(gate, "/accounts/team").text)
        assert "leased to 3 nodes" in plain(seen.get(gate, "/accounts").text)


def test_a_directory_with_keys_of_its_own_shows_its_own_figures(
    cluster: Cluster, seen: Seen, key: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Accounts of the same name elsewhere are other teams'."""
    store = Store(tmp_path / "apart")
    store.create_key("apart", now_s=time.time())
    store.close()
    store = Store(tmp_path / "apart", database=cluster.database.url)
    assert not store.shares
    view = Ledgers(loading.load(None, {"HEADGATE_DATABASE": cluster.database.url}, data=str(store.directory)),
                   CallLoop()).view(store.shares)  # fmt: skip
    assert isinstance(view.reports, UsageReader) and not view.shared
    assert view.whole is view.reports and view.node("n1") is None
    store.close()
    gate = msgspec.structs.replace(cluster.gates[0], data=tmp_path / "apart")
    assert json.loads(seen.command(gate, "usage", "--json")) == []
    (line,) = json.loads(seen.command(gate, "usage", "--all-nodes", "--by", "model", "--json"))
    assert line["requests"] == len(key[1])


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_node_that_joins_has_all_figures_at_once(
    upstream: PlayedUpstream, tmp_path: Path, count: int
) -> None:
    cluster = Cluster(tmp_path, upstream, 1)

    def row(n: int) -> LedgerRow:
        at = now_s - 30 * 86400 * (count - n) / count
        return LedgerRow(
            request_id=f"msg_{n:08d}", key_id=f"K{n % 7}", session=f"s{n // 20}", dialect="anthropic",
            model=f"M{n % 3}", upstream="up", outcome="timeout" if n % 50 == 0 else "stop",
            basis="upstream", started_at=at, ended_at=at + 2, ttft_ms=300, cost_nano_usd=n % 1000,
        )  # fmt: skip

    async def fill(db: Any) -> None:
        here: dict[str, NodePosition] = {}
        for first in range(0, count, 500):
            node = NodeName(f"m{first // 500 % 2}", f"machine-{first // 500 % 2}", "0.1")
            rows = [(n + 1, row(n)) for n in range(first, first + 500)]
            at = here.get(node.node_id, NodePosition())
            here[node.node_id] = await ship(db, node, rows, at, 0)

    now_s = time.time() - 10
    cluster.within(fill)
    cluster.gates.append(cluster.start(1))
    seen = Seen(cluster)
    spent = sum(n % 1000 for n in range(count))
    since = datetime.fromtimestamp(now_s - 31 * 86400, UTC).date()
    for gate in cluster.gates:
        lines = seen.rows(gate, f"/usage.csv?from={since}&by=model")
        assert sum(int(line["requests"]) for line in lines) == count
        usage = seen.get(gate, "/admin/v1/usage?by=model&since=2020-01-01T00:00:00Z").json()["data"]
        assert sum(line["requests"] for line in usage) == count
        assert sum(line["cost_nano_usd"] for line in usage) == spent
        assert len(seen.rows(gate, "/requests.csv?span=all")) == count
        page = plain(seen.get(gate, "/requests?sort=-cost").text)
        assert "machine-0" in page and "machine-1" in page
        assert seen.get(gate, "/sessions/s3").text.count("data-seq") == 20
    assert f"All nodes OK: {count:,} requests" in seen.command(cluster.gates[1], "audit")
    cluster.end()


def test_pages_go_on_without_a_database_that_says_nothing(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    """A link that is cut: no connection is refused, and none is answered."""
    cluster = Cluster(tmp_path, upstream, 1, links=True)
    seen, (gate,) = Seen(cluster), cluster.gates
    assert "Figures of all nodes" in seen.get(gate, "/usage").text
    cluster.links[0].cut = True
    for path in ("/usage", "/api_keys", "/requests"):
        assert "These figures are of this node only" in seen.get(gate, path).text
    seen.get(gate, "/usage.csv", status=503)
    cluster.links[0].cut = False
    wait_for(lambda: "Figures of all nodes" in seen.get(gate, "/usage").text)
    cluster.end()


def test_the_pages_are_whole_in_a_browser(
    cluster: Cluster, seen: Seen, key: tuple[str, list[str]]
) -> None:
    """Nothing of them breaks the page's policy, and they fit a telephone."""
    with chromium() as browser:
        context = profile(browser, extra_http_headers={"cookie": seen.browser["cookie"]})
        page = context.new_page()
        faults: list[str] = []
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        for gate in cluster.gates:
            for path in ("/usage", "/requests", "/api_keys", "/accounts", "/upstreams"):
                page.set_viewport_size({"width": 1280, "height": 900})
                page.goto(f"{gate.url}{path}")
                expect(page.locator("#nodes")).to_contain_text("Figures of all nodes")
                fits(page, 390)
            page.set_viewport_size({"width": 1280, "height": 900})
            page.goto(f"{gate.url}/requests")
            page.locator("select[name=node]").select_option(index=1)
            page.get_by_role("button", name="Show").last.click()
            page.wait_for_url("**node=**")
            expect(page.locator("tbody tr").first).to_be_visible()
        assert faults == []
        context.close()


def test_pages_say_what_is_missing(
    cluster: Cluster, seen: Seen, key: tuple[str, list[str]]
) -> None:
    """A node that is silent, one that is behind, one whose clock is wrong; and the database away."""

    async def ghost(db: object) -> None:
        row = LedgerRow(
            request_id="req_ghost", key_id=key[0], dialect="openai", model="MiniMax-M2", outcome="stop",
            basis="none", cost_nano_usd=0, started_at=time.time(), ended_at=time.time(),
        )  # fmt: skip
        await ship(db, NodeName("ghost", "old-machine", "0.1"), [(1, row)], NodePosition(), 1200)
        await db.execute(  # type: ignore[attr-defined]
            "update nodes set clock_ahead_s = 3600 where node_id = 'ghost'"
        )

    cluster.within(ghost)
    gate = cluster.gates[0]
    for path in ("/usage", "/requests", "/api_keys", "/accounts", "/upstreams"):
        text = plain(seen.get(gate, path).text)
        assert "old-machine has 1,200 more requests that are on their way" in text
        assert "The clock of old-machine is 3,600 s ahead" in text or "ahead" in text
        assert "Figures of all nodes:" in text
    (listed,) = (n for n in nodes_of(seen, gate) if n["name"] == "old-machine")
    assert (listed["state"], listed["behind"], listed["clock_ahead_s"]) == ("up", 1200, 3600.0)
    silent = "update nodes set seen_at = now() - interval '5 minutes' where node_id = 'ghost'"
    cluster.within(lambda db: db.execute(silent))
    text = plain(seen.get(gate, "/usage").text)
    (listed,) = (n for n in nodes_of(seen, gate) if n["name"] == "old-machine")
    assert listed["state"] == "silent"
    assert "old-machine was last heard of" in text and "headgate nodes forget old-machine" in text
    seen.command(gate, "nodes", "forget", "old-machine")
    text = plain(seen.get(gate, "/requests?text=ghost").text)
    assert "last heard of" not in text and "req_ghost" not in text.partition("Figures")[2]
    for each in cluster.gates:  # its rows stay, and its name
        assert "Node old-machine" in plain(seen.get(each, "/requests/req_ghost").text)

    _, free = cluster.key()
    cluster.database.stop()
    text = plain(seen.get(gate, "/usage?span=24h").text)
    assert "does not answer. These figures are of this node only" in text
    assert "does not answer" in plain(seen.get(gate, "/api_keys").text)
    for path in (
        "/usage.csv",
        "/requests.csv",
        "/admin/v1/usage",
        "/admin/v1/keys",
        "/admin/v1/nodes",
        "/requests?node=ghost",
    ):
        refused = seen.get(gate, path, status=503)
        assert "The database that the nodes share does not answer" in refused.text
        assert refused.headers.get("retry-after") == ("5" if "/admin" in path else None)
    failed = subprocess.run(
        [*COMMAND, "usage", "--data", str(gate.data)],
        env={**os.environ, "HEADGATE_DATABASE": cluster.database.url},
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert failed.returncode == 1 and "--this-node" in failed.stderr
    own = json.loads(seen.command(gate, "usage", "--this-node", "--json", "--by", "key"))
    assert [line["requests"] for line in own] == [EACH[0]]
    assert cluster.ask(1, free).status_code == 200
    cluster.database.start()
    wait_for(lambda: "does not answer" not in seen.get(gate, "/usage").text)
    wait_for(lambda: count_of(cluster) == len(key[1]) + 2)
    totals = {
        sum(int(line["requests"]) for line in seen.rows(each, "/usage.csv?span=24h&by=model"))
        for each in cluster.gates
    }
    assert totals == {len(key[1]) + 2}
