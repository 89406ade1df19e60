"""Whatever dies in a cluster, and whatever link is cut: nothing is lost, doubled or overspent (`make cluster`)."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Literal, get_args

import httpx2
import pytest

from cluster import QUICK, Cluster, reserved
from gateway import kill
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.supervisor.commands import NotServed, ask
from played import PlayedUpstream
from waiting import PATIENCE_S, pause_thread, wait_for

NODES = 2
KILLS = int(os.environ.get("CLUSTER_KILLS", "200"))
CUT_S = float(os.environ.get("CLUSTER_CUT_S", "60"))
Victim = Literal["edge", "node", "supervisor", "database"]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("kills"), upstream, NODES, links=True)
    yield running
    running.end()


class Load:
    """Clients that ask all nodes one request after the other, and what became of it."""

    def __init__(self, cluster: Cluster, headers: dict[str, str], clients: int = 4) -> None:
        self.served: list[str] = []
        self.refused: dict[int, int] = {}
        self.broken = 0
        self._cluster = cluster
        self._headers = headers
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _work(self, n: int) -> None:
        with httpx2.Client(timeout=PATIENCE_S) as client:
            while not self._done.is_set():
                url = f"{self._cluster.gates[n % NODES].url}/v1/messages"
                try:
                    reply = client.post(url, json=QUICK, headers=self._headers)
                except httpx2.HTTPError:
                    self.broken += 1
                    pause_thread(0.02, "a client comes back after a moment")
                    continue
                if reply.status_code == 200:
                    self.served.append(reply.headers["request-id"])
                else:
                    self.refused[reply.status_code] = self.refused.get(reply.status_code, 0) + 1


def processes(cluster: Cluster, n: int, role: str) -> list[int]:
    try:
        found = ask(str(cluster.place / str(n)), "processes")["processes"]
    except NotServed:
        return []
    return [p["pid"] for p in found if p["name"] == role]


def strike(cluster: Cluster, victim: Victim, n: int) -> None:
    """Kill one process, and start again what nothing else starts."""
    if victim == "database":
        cluster.database.stop(signal.SIGQUIT)
        cluster.database.start()
    elif victim == "supervisor":
        kill(cluster.gates[n])
        cluster.gates[n] = cluster.start(n)
    else:
        wait_for(lambda: processes(cluster, n, victim))
        for pid in processes(cluster, n, victim)[:1]:
            os.kill(pid, signal.SIGKILL)


def rows(cluster: Cluster, key_id: str) -> list[str]:
    found = cluster.within(
        lambda db: db.fetch("select request_id from ledger where key_id = $1", key_id)
    )
    return [str(id) for (id,) in found]


def test_random_kills_lose_double_and_overspend_nothing(cluster: Cluster) -> None:
    budget = KILLS * 40 * reserved(QUICK)
    id, headers = cluster.key(budget_nano=budget, rpm=100_000, concurrency=16)
    chance = random.Random(int(os.environ.get("CLUSTER_SEED", "1")))
    with Load(cluster, headers) as load:
        for _ in range(KILLS):
            before = len(load.served)
            strike(cluster, chance.choice(get_args(Victim)), chance.randrange(NODES))
            wait_for(lambda before=before: len(load.served) > before + 5 or 402 in load.refused)  # type: ignore[misc]
            assert cluster.within(lambda db: LedgerDatabase(db).audit()) == []
    assert set(load.refused) <= {402, 429, 500, 502, 503}
    wait_for(lambda: set(load.served) <= set(rows(cluster, id)))
    assert len(load.served) == len(set(load.served)) > 0
    found = rows(cluster, id)
    assert len(found) == len(set(found))
    wait_for(lambda: sum(cluster.granted(id)) == cluster.spent(id))
    assert 0 < cluster.spent(id) <= budget
    # The slots of all that died are free again.
    wait_for(lambda: all(cluster.ask(n, headers).status_code in (200, 402) for n in range(NODES)))


def test_a_link_that_is_cut_costs_neither_rows_nor_money(cluster: Cluster) -> None:
    budget = 10**6 * reserved(QUICK)
    id, headers = cluster.key(budget_nano=budget)
    free_id, free = cluster.key()
    _, limited = cluster.key(rpm=6000)
    for each in (headers, free, limited):
        assert [cluster.ask(n, each).status_code for n in range(NODES)] == [200] * NODES
    with Load(cluster, free, 2) as open_keys, Load(cluster, headers, 2) as budgets:
        cluster.links[0].cut = True
        over = threading.Event()
        timer = threading.Timer(CUT_S, over.set)
        timer.start()
        while not over.is_set():
            assert cluster.ask(1, limited).status_code == 200
            assert cluster.ask(0, free).status_code == 200
            pause_thread(0.2, "requests come while the link is cut")
        wait_for(lambda: cluster.ask(0, limited).status_code == 200)  # its share of the limit
        cluster.links[0].cut = False
        wait_for(lambda: cluster.ask(0, headers).status_code == 200)
    assert set(open_keys.refused) <= {429} and not open_keys.broken
    assert set(budgets.refused) <= {429, 503} and not budgets.broken
    wait_for(lambda: set(open_keys.served) <= set(rows(cluster, free_id)))
    wait_for(lambda: set(budgets.served) <= set(rows(cluster, id)))
    wait_for(lambda: sum(cluster.granted(id)) == cluster.spent(id))
    assert cluster.within(lambda db: LedgerDatabase(db).audit()) == []
