"""`make scale`: one key over several nodes that share PostgreSQL: what is admitted, and what it costs.

Prints requests/s, leases written and transactions for each request, how many requests a limit of RPM admits
over all nodes, and how soon a revoked key is refused on each.  Loopback only; needs Debian's postgresql.

Where wrk is installed, one account with a budget and limits is asked as fast as this machine can, on all nodes.

Note: load, upstream, database and all nodes share this machine, so that the rates say little; the counts do.
"""

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from cluster import QUICK, Cluster, reserved
from played import PlayedUpstream

ROOT = Path(__file__).parents[2]
LEASES = "select coalesce(sum(n_tup_ins + n_tup_upd), 0)::bigint from pg_stat_user_tables where relname = $1"
TRANSACTIONS = "select xact_commit from pg_stat_database where datname = current_database()"


def counted(cluster: Cluster) -> dict[str, int]:
    """What the database has counted so far."""

    async def work(db: Any) -> dict[str, int]:
        read = db.fetchval
        await asyncio.sleep(1.5)  # its counters come late
        return {
            "leases written": int(await read(LEASES, "leases")),
            "rows of limits written": int(await read(LEASES, "shared_limits")),
            "transactions": int(await read(TRANSACTIONS)),
        }

    return cluster.within(work)


def load(cluster: Cluster, headers: dict[str, str], seconds: float, clients: int) -> list[int]:
    """Ask all nodes for a while; the status of each reply."""
    statuses: list[int] = []
    over_s = time.monotonic() + seconds

    def work(n: int) -> None:
        url = f"{cluster.gates[n % len(cluster.gates)].url}/v1/messages"
        with httpx2.Client(timeout=60) as client:
            while time.monotonic() < over_s:
                statuses.append(client.post(url, json=QUICK, headers=headers).status_code)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def show_cost(cluster: Cluster, name: str, headers: dict[str, str], seconds: float) -> None:
    load(cluster, headers, 2, 2 * len(cluster.gates))
    before = counted(cluster)
    statuses = load(cluster, headers, seconds, 2 * len(cluster.gates))
    after = counted(cluster)
    good = statuses.count(200)
    print(f"{name}: {good / seconds:.0f} requests/s over {len(cluster.gates)} nodes")
    if good != len(statuses):
        print(f"  others: { {s: statuses.count(s) for s in {*statuses} - {200}} }")
    for what, count in after.items():
        more = count - before[what]
        print(f"  {what}: {more / good:.4f} a request, {more / seconds:.1f} a second")


class BenchUpstream:
    """The upstream of the benchmark, a process of its own that is faster than the tests' one."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "evals" / "bench" / "upstream.py")], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def url(self, dialect: str) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def wrk(cluster: Cluster, headers: dict[str, str], seconds: int, place: Path) -> int:
    """Ask all nodes at once, 8 requests at a time each; how many were answered with 200."""
    script = place / "load.lua"
    sent = {**headers, "content-type": "application/json"}
    body = {**QUICK, "messages": [{"role": "user", "content": "whole"}]}
    lines = [f"wrk.headers[{json.dumps(n)}]={json.dumps(v)}" for n, v in sent.items()]
    script.write_text("\n".join(["wrk.method='POST'", f"wrk.body='{json.dumps(body)}'", *lines]))
    running = [
        subprocess.Popen(
            ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", str(script), f"{gate.url}/v1/messages"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for gate in cluster.gates
    ]
    good = 0
    for each in running:
        out = each.communicate()[0]
        found = re.search(r"(\d+) requests in ", out)
        if found is None:
            raise SystemExit(out)
        others = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        good += int(found[1]) - (int(others[1]) if others else 0)
    return good


def show_hot(nodes: int, seconds: int) -> None:
    upstream = BenchUpstream()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        cluster = Cluster(place, upstream, nodes)  # type: ignore[arg-type]  # it has an address
        try:
            store = cluster.store()
            budget = 10**7 * reserved(QUICK)
            store.create_account("hot", "Hot", now_s=time.time(), budget_nano=budget)
            store.close()
            _, headers = cluster.key(account="hot", rpm=10**6, concurrency=1000)
            wrk(cluster, headers, 3, place)
            before = counted(cluster)
            began_s = time.monotonic()
            good = wrk(cluster, headers, seconds, place)
            took_s = time.monotonic() - began_s
            after = counted(cluster)
        finally:
            cluster.end()
            upstream.end()
    print(
        f"a hot account with a budget and limits: {good / took_s:.0f} requests/s over {nodes} nodes"
    )
    for what, count in after.items():
        more = count - before[what]
        print(f"  {what}: {more / good:.4f} a request, {more / took_s:.1f} a second")


def show_limit(cluster: Cluster, rpm: int) -> None:
    _, headers = cluster.key(rpm=rpm)
    began_s = time.monotonic()
    statuses = load(cluster, headers, 10, 2 * len(cluster.gates))
    took_s = time.monotonic() - began_s
    most = rpm + rpm * took_s / 60
    print(
        f"a key with {rpm} requests a minute on {len(cluster.gates)} nodes, asked {len(statuses)} times in"
        f" {took_s:.0f} s: {statuses.count(200)} admitted (one node: {most:.0f})"
    )


def show_revocation(cluster: Cluster) -> None:
    slowest: list[float] = []
    for _ in range(20):
        id, headers = cluster.key()
        store = cluster.store()
        store.revoke(id, now_s=time.time())
        store.close()
        began_s = time.monotonic()
        left = set(range(len(cluster.gates)))
        while left:
            left -= {n for n in left if not cluster.knows(cluster.gates[n], headers)}
        slowest.append(time.monotonic() - began_s)
    shown = ", ".join(f"{s:.2f}" for s in slowest)
    print(f"a revoked key is refused on all {len(cluster.gates)} nodes after {shown} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with PlayedUpstream().running() as upstream, tempfile.TemporaryDirectory() as place:
        cluster = Cluster(Path(place), upstream, options.nodes)
        try:
            _, rich = cluster.key(budget_nano=10**7 * reserved(QUICK))
            show_cost(cluster, "a key with a budget", rich, options.seconds)
            _, fast = cluster.key(rpm=1_000_000, concurrency=1000)
            show_cost(cluster, "a key with limits", fast, options.seconds)
            show_limit(cluster, 100)
            show_revocation(cluster)
        finally:
            cluster.end()
    if shutil.which("wrk") is None:
        print("wrk is not installed: the hot account was not measured")
        return
    show_hot(options.nodes, int(options.seconds))


if __name__ == "__main__":
    main()
