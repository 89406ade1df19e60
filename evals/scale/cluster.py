"""`make scale`: one key over several nodes that share PostgreSQL: what is admitted, and what it costs.

Prints requests/s, leases written and transactions for each request, how many requests a limit of RPM admits
over all nodes, and how soon a revoked key is refused on each.  Loopback only; needs Debian's postgresql.

Note: load, upstream, database and all nodes share this machine, so that the rates say little; the counts do.
"""

import argparse
import asyncio
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


if __name__ == "__main__":
    main()
