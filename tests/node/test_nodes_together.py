"""Gateways with data directories of their own and one PostgreSQL: the same keys, and one budget for all."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from clocks import Clock
from cluster import BODY, QUICK, Cluster, reserved
from gateway import kill
from headgate.storage.postgres.reports import LedgerDatabase
from played import PlayedUpstream
from waiting import PATIENCE_S, pause_thread, until, wait_for

NODES = 3


@pytest.fixture(scope="module")
def cluster(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("nodes"), upstream, NODES)
    yield running
    running.end()


def test_a_key_of_one_node_works_on_all_and_is_revoked_on_all_within_a_second(
    cluster: Cluster,
) -> None:
    id, headers = cluster.key(1)
    assert [cluster.ask(n, headers).status_code for n in range(NODES)] == [200] * NODES
    store = cluster.store(2)
    assert store.revoke(id, now_s=time.time())
    store.close()
    for n in range(NODES):
        wait_for(lambda n=n: cluster.ask(n, headers).status_code == 401)  # type: ignore[misc]


def test_many_requests_at_once_on_all_nodes_get_exactly_what_the_budget_pays(
    cluster: Cluster,
) -> None:
    pays = 17
    id, headers = cluster.key(budget_nano=pays * reserved(BODY) + reserved(BODY) - 1)
    upstream, before = cluster.upstream, len(cluster.upstream.seen)

    def held() -> int:
        return len(upstream.seen) - before

    async def work() -> list[int]:
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=0)
        async with httpx2.AsyncClient(limits=limits, timeout=3 * PATIENCE_S) as client:

            def send(n: int) -> "asyncio.Task[httpx2.Response]":
                url = f"{cluster.gates[n % NODES].url}/v1/messages"
                return asyncio.create_task(client.post(url, json=BODY, headers=headers))

            sent = [send(n) for n in range(60)]
            await until(lambda: sum(s.done() for s in sent) + held() == len(sent))
            while held() < pays:  # who was refused while another node had money comes again
                sent.append(send(len(sent)))
                await until(lambda: sum(s.done() for s in sent) + held() == len(sent))
            more = [send(n) for n in range(NODES)]
            await until(lambda: all(m.done() for m in more))
            assert [m.result().status_code for m in more] == [429] * NODES
            assert {m.result().json()["error"]["type"] for m in more} == {"rate_limit_error"}
            for seen in upstream.seen[before:]:
                upstream.release(seen)
            return [reply.status_code for reply in await asyncio.gather(*sent)]

    statuses = asyncio.run(work())
    assert statuses.count(200) == pays == held()
    # The budget is there again, but for what was spent.
    wait_for(lambda: cluster.spent(id) > 0 and sum(cluster.granted(id)) == cluster.spent(id))
    assert cluster.ask(1, headers).status_code == 200


def test_a_budget_that_is_spent_is_spent_on_all_nodes(cluster: Cluster) -> None:
    id, headers = cluster.key(budget_nano=3 * reserved(QUICK))
    served = 0
    refused: set[int] = set()
    while len(refused) < NODES:
        for n in range(NODES):
            reply = cluster.ask(n, headers)
            if reply.status_code == 200:
                served += 1
            elif reply.json()["error"]["type"] == "billing_error":
                refused.add(n)
            else:  # another node has what is left, for a moment
                assert reply.status_code == 429
    assert served >= 3
    wait_for(lambda: cluster.spent(id) == sum(cluster.granted(id)))
    assert cluster.spent(id) <= 3 * reserved(QUICK)


def test_a_killed_node_spends_nothing_twice_and_gives_back_what_it_had_leased(
    cluster: Cluster,
) -> None:
    id, headers = cluster.key(budget_nano=40 * reserved(QUICK))
    assert [cluster.ask(1, headers).status_code for _ in range(8)] == [200] * 8
    kill(cluster.gates[1])
    served = 8
    while cluster.ask(0, headers).status_code == 200:
        served += 1
        if served > 20:
            break
    cluster.gates[1] = cluster.start(1)
    wait_for(lambda: sum(cluster.granted(id)) == cluster.spent(id))
    assert cluster.ask(1, headers).status_code == 200


def test_a_key_with_a_rate_has_it_once_over_all_nodes(cluster: Cluster) -> None:
    _, headers = cluster.key(rpm=12)
    statuses = [cluster.ask(n % NODES, headers).status_code for n in range(15)]
    # In the time that this takes one more request may have come back for each five seconds.
    assert statuses[:12] == [200] * 12
    refused = cluster.ask(0, headers)
    while refused.status_code == 200:
        refused = cluster.ask(0, headers)
    assert refused.status_code == 429
    assert refused.json()["error"]["message"].startswith("The limit of this key is 12 requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 6


def test_one_node_alone_has_all_of_a_rate(cluster: Cluster) -> None:
    _, headers = cluster.key(rpm=12)
    assert [cluster.ask(1, headers).status_code for _ in range(12)] == [200] * 12


def test_a_key_with_a_limit_of_tokens_has_it_once_over_all_nodes(cluster: Cluster) -> None:
    _, headers = cluster.key(tpm=3000)
    large = {**QUICK, "max_tokens": 2000}
    upstream, before = cluster.upstream, len(cluster.upstream.seen)
    held = {**large, "messages": BODY["messages"]}

    async def work() -> list[int]:
        async with httpx2.AsyncClient(timeout=3 * PATIENCE_S) as client:
            urls = [f"{gate.url}/v1/messages" for gate in cluster.gates]
            first = asyncio.create_task(client.post(urls[0], json=held, headers=headers))
            await until(lambda: len(upstream.seen) > before or first.done())
            others = [await client.post(url, json=large, headers=headers) for url in urls]
            upstream.release(upstream.seen[before])
            return [(await first).status_code, *[reply.status_code for reply in others]]

    assert asyncio.run(work()) == [200, 429, 429, 429]
    # What the first one did not take is there again, on every node.
    wait_for(lambda: cluster.ask(2, headers, large).status_code == 200)


def test_requests_at_a_time_are_counted_over_all_nodes(cluster: Cluster) -> None:
    _, headers = cluster.key(concurrency=4)
    upstream, before = cluster.upstream, len(cluster.upstream.seen)

    def held() -> int:
        return len(upstream.seen) - before

    async def work() -> list[int]:
        async with httpx2.AsyncClient(timeout=3 * PATIENCE_S) as client:

            def send(n: int) -> "asyncio.Task[httpx2.Response]":
                url = f"{cluster.gates[n % NODES].url}/v1/messages"
                return asyncio.create_task(client.post(url, json=BODY, headers=headers))

            sent = [send(n) for n in range(9)]
            await until(lambda: sum(s.done() for s in sent) + held() == len(sent))
            assert held() == 4
            for seen in upstream.seen[before:]:
                upstream.release(seen)
            return [reply.status_code for reply in await asyncio.gather(*sent)]

    statuses = asyncio.run(work())
    assert sorted(statuses) == [200] * 4 + [429] * 5
    # The slots that were used on several nodes come to the one that needs them.
    asyncio.run(_all_on_one(cluster, headers, len(upstream.seen), 4))


async def _all_on_one(cluster: Cluster, headers: dict[str, str], before: int, count: int) -> None:
    """Have so many requests held at a time on the last node; who is refused comes again."""
    upstream, url = cluster.upstream, f"{cluster.gates[-1].url}/v1/messages"
    async with httpx2.AsyncClient(timeout=3 * PATIENCE_S) as client:
        sent = [asyncio.create_task(client.post(url, json=BODY, headers=headers))]
        while len(upstream.seen) - before < count:
            asked = len(sent)
            await until(
                lambda asked=asked: (
                    len(upstream.seen) - before + sum(s.done() for s in sent) == asked
                )  # type: ignore[misc]
            )
            assert {s.result().status_code for s in sent if s.done()} <= {429}
            if len(upstream.seen) - before < count:
                sent.append(asyncio.create_task(client.post(url, json=BODY, headers=headers)))
        for seen in upstream.seen[before:]:
            upstream.release(seen)
        replies = await asyncio.gather(*sent)
        assert [reply.status_code for reply in replies].count(200) == count


def test_without_the_database_nodes_spend_what_they_have_leased_and_then_answer_503(
    cluster: Cluster,
) -> None:
    id, headers = cluster.key(budget_nano=10**6 * reserved(QUICK))
    _, free = cluster.key()
    _, limited = cluster.key(rpm=3 * 60 * NODES, concurrency=NODES)
    assert cluster.ask(0, headers).status_code == 200
    assert cluster.ask(0, limited).status_code == 200
    cluster.database.stop(signal.SIGQUIT)
    replies = [cluster.ask(0, headers)]
    while replies[-1].status_code == 200:
        replies.append(cluster.ask(0, headers))
    assert replies[-1].status_code == 503
    assert "database cannot be reached" in replies[-1].text
    assert "retry-after" in replies[-1].headers
    wait_for(lambda: cluster.metric(0, "headgate_database_up") == 0)
    wait_for(lambda: cluster.metric(0, "headgate_database_rows_waiting") > 0)
    assert [cluster.ask(n, free).status_code for n in range(NODES)] == [200] * NODES
    for n in range(NODES):  # each has its share of the limits
        wait_for(lambda n=n: cluster.ask(n, limited).status_code == 200)  # type: ignore[misc]
    cluster.database.start()
    wait_for(lambda: cluster.ask(0, headers).status_code == 200)
    wait_for(lambda: cluster.spent(id) == sum(cluster.granted(id)))
    wait_for(lambda: cluster.metric(0, "headgate_database_up") == 1)
    wait_for(lambda: cluster.metric(0, "headgate_database_rows_waiting") == 0)


@pytest.mark.long
def test_a_node_whose_clock_is_an_hour_ahead_overspends_nothing_with_the_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    clock.set(datetime.now(UTC) + timedelta(hours=1))
    budget = 4 * reserved(QUICK)
    id, headers = cluster.key(budget_nano=budget, budget_period="day")
    cluster.gates.append(cluster.start(NODES, **clock.env))
    try:
        wait_for(lambda: cluster.knows(cluster.gates[NODES], headers))
        refused: set[int] = set()
        while len(refused) < 2:
            for n in (0, NODES):
                reply = cluster.ask(n, headers)
                if reply.status_code != 200 and reply.json()["error"]["type"] == "billing_error":
                    refused.add(n)
        wait_for(lambda: sum(cluster.granted(id)) == cluster.spent(id))
    finally:
        kill(cluster.gates.pop())
    days = cluster.within(
        lambda db: db.fetch(
            "select sum(cost_nano_usd)::bigint from ledger where key_id = $1"
            " group by (started_at at time zone 'UTC')::date",
            id,
        )
    )
    assert days and all(0 < spent <= budget for (spent,) in days)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_database_that_is_killed_under_load_loses_doubles_and_overspends_nothing(
    cluster: Cluster, kills: int
) -> None:
    store = cluster.store()
    account, budget = f"team-{kills}", kills * 20 * reserved(QUICK)
    store.create_account(account, "Team", now_s=time.time(), budget_nano=budget)
    store.close()
    ids, keys = zip(*(cluster.key(n, account=account) for n in range(NODES)), strict=True)
    served: list[str] = []
    others: set[int] = set()
    done = threading.Event()

    def work(n: int) -> None:
        with httpx2.Client(timeout=PATIENCE_S) as client:
            while not done.is_set():
                url = f"{cluster.gates[n].url}/v1/messages"
                reply = client.post(url, json=QUICK, headers=keys[n])
                if reply.status_code == 200:
                    served.append(reply.headers["request-id"])
                else:
                    others.add(reply.status_code)

    threads = [threading.Thread(target=work, args=(n % NODES,)) for n in range(2 * NODES)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(kills):
            before = len(served)
            wait_for(lambda before=before: len(served) > before + 10 or 402 in others)  # type: ignore[misc]
            cluster.database.stop(signal.SIGQUIT)
            pause_thread(0.3, "the database is away for a moment")
            cluster.database.start()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert others <= {402, 429, 503}

    def spent() -> int:
        return sum(cluster.spent(id) for id in ids)

    def rows() -> set[str]:
        found = cluster.within(
            lambda db: db.fetch("select request_id from ledger where account = $1", account)
        )
        return {str(id) for (id,) in found}

    wait_for(lambda: set(served) <= rows())
    assert len(served) == len(set(served)) == len(rows())
    wait_for(lambda: sum(cluster.granted(account)) == spent())
    assert 0 < spent() <= budget
    assert cluster.within(lambda db: LedgerDatabase(db).audit()) == []
