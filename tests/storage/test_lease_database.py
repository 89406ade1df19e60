"""The leases of all nodes in a real PostgreSQL: together never above the budget, and what is known of the dead."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headgate.policy.leases import Answer, Ask, LeaseId
from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres.leases import FORGET_S, Replaced, draw, leases_of, prune, register
from headgate.storage.postgres.ledger import NodeName, NodePosition, ship
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from postgres import Postgres, with_two_nodes

NOW = datetime(2027, 1, 15, 12, tzinfo=UTC).timestamp()
HALF_PAST_S = NOW + 1800.0
ONE, TWO = NodeName("n1", "one", "0.1"), NodeName("n2", "two", "0.1")
V = TypeVar("V")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


@pytest.fixture
def url(server: Postgres) -> str:
    asyncio.run(server.clear())
    return server.url


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data", database=url)
    yield opened
    opened.close()


def ask(owner: str, used: int = 0, need: int = 0, want: int = 0, **fields: Any) -> Ask:
    what = fields.pop("what", "key")
    period = fields.get("period", "total")
    id = LeaseId(what, owner, f"{period} UTC 0001-01-01")
    return Ask(id, used, used, used + need, max(want, used + need), **fields)


def row(id: str, key: str, **fields: Any) -> LedgerRow:
    return LedgerRow(
        request_id=id,
        key_id=key,
        dialect="openai",
        model="M",
        outcome="stop",
        basis="upstream",
        **{"started_at": NOW, "ended_at": NOW + 1, "cost_nano_usd": 7, **fields},
    )


def test_nodes_that_ask_at_once_get_no_more_than_the_budget_together(
    url: str, store: Store
) -> None:
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100)

    async def node(name: str) -> int:
        db = await database.connect(url)
        await register(db, name, "p")
        granted = 0
        for _ in range(10):
            (answer,) = await draw(db, name, "p", [ask(key.id, granted, need=7)])
            granted = answer.granted
        await db.close()
        return granted

    async def run() -> list[int]:
        return await asyncio.gather(*(node(f"n{n}") for n in range(6)))

    granted = asyncio.run(run())
    assert sum(granted) == 100
    id = ask(key.id).id
    assert sorted(with_two_nodes(url, lambda db: leases_of(db, id)).values()) == sorted(granted)


def test_a_lease_that_is_given_back_is_anothers(url: str, store: Store) -> None:
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100)

    async def work(db: Any) -> None:
        (first,) = await draw(db, "n1", "p", [ask(key.id, need=90)])
        assert first == Answer(90, 100, 10)
        (second,) = await draw(db, "n2", "p", [ask(key.id, need=50)])
        assert (second.granted, second.free, second.idle) == (10, 0, 90)
        await draw(db, "n1", "p", [ask(key.id, used=30)])
        (second,) = await draw(db, "n2", "p", [ask(key.id, need=50)])
        assert (second.granted, second.free, second.idle, second.others_spent) == (50, 20, 0, 30)

    with_two_nodes(url, work)


def test_what_was_spent_before_a_budget_was_set_counts_by_whoever_spent_it(
    url: str, store: Store
) -> None:
    store.create_account("acme", "Acme", now_s=NOW, budget_nano=1000)
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100, budget_period="day")
    made = store.rotate(key.id, now_s=NOW)
    assert made is not None
    rows = [
        row("before", key.id, started_at=HALF_PAST_S - 1, account="acme"),
        row("after", key.id, started_at=HALF_PAST_S, account="acme"),
        row("rotated", made[0].id, started_at=HALF_PAST_S + 7000),
        row("free", key.id, started_at=HALF_PAST_S + 1, cost_nano_usd=None),
        row("next", key.id, started_at=HALF_PAST_S + 86400),
        row("other", "K9", started_at=HALF_PAST_S + 1),
    ]
    day = {"period": "day", "since_s": HALF_PAST_S, "until_s": HALF_PAST_S + 86400}

    async def work(db: Any) -> None:
        await ship(db, TWO, list(enumerate(rows, start=1)), NodePosition(), 0)
        mine, account = await draw(
            db, "n1", "p", [ask(key.id, need=90, **day), ask("acme", need=990, what="account")]
        )
        assert (mine.granted, mine.others_spent) == (100 - 14, 14)
        assert (account.granted, account.others_spent) == (1000 - 14, 14)

    with_two_nodes(url, work)


def test_terms_that_are_not_those_of_the_database_get_nothing(url: str, store: Store) -> None:
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100, budget_period="month")
    free, _ = store.create_key("free", now_s=NOW)

    async def work(db: Any) -> None:
        asks = [ask(key.id, need=5), ask(free.id, need=5), ask("nobody", need=5)]
        assert await draw(db, "n1", "p", asks) == [Answer(0, None)] * 3

    with_two_nodes(url, work)


def test_a_budget_that_is_lowered_takes_nothing_from_who_has_it_and_gives_nothing_more(
    url: str, store: Store
) -> None:
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100)
    with_two_nodes(url, lambda db: draw(db, "n1", "p", [ask(key.id, need=80)]))
    store.change_key(key.id, now_s=NOW, budget_nano=50)

    async def work(db: Any) -> None:
        (one,) = await draw(db, "n1", "p", [ask(key.id, used=70, need=20)])
        assert (one.granted, one.limit, one.free) == (80, 50, -30)
        (two,) = await draw(db, "n2", "p", [ask(key.id, need=1)])
        assert two.granted == 0

    with_two_nodes(url, work)


def test_a_later_process_takes_the_place_of_the_one_before(url: str, store: Store) -> None:
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100)

    async def work(db: Any) -> None:
        await draw(db, "n1", "p", [ask(key.id, need=50)])
        await register(db, "n1", "later")
        with pytest.raises(Replaced, match="node_id"):
            await draw(db, "n1", "p", [ask(key.id, need=60)])
        (answer,) = await draw(db, "n1", "later", [ask(key.id, used=20)])
        assert answer.granted == 20

    with_two_nodes(url, work)


def test_the_leases_of_a_node_are_freed_by_forget_but_for_what_it_spent_and_not_while_it_lives(
    url: str, store: Store
) -> None:
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100)

    async def work(db: Any) -> None:
        await ship(db, ONE, [(1, row("a", key.id, cost_nano_usd=9))], NodePosition(), 0)
        await draw(db, "n1", "p", [ask(key.id, used=9, need=61)])
        reader = LedgerDatabase(db)
        with pytest.raises(StoreError, match="may spend what it has leased"):
            await reader.forget("one")
        assert [(n.node_id, n.leased_nano) for n in await reader.nodes()] == [("n1", 61)]
        await db.execute(f"update nodes set seen_at = now() - interval '{FORGET_S + 1} s'")
        assert await reader.forget("one") == ["n1"]
        assert await leases_of(db, ask(key.id).id) == {"n1": 9}
        (answer,) = await draw(db, "n2", "p", [ask(key.id, need=91)])
        assert answer.granted == 91

    with_two_nodes(url, work)


def test_leases_of_periods_that_ended_long_ago_are_deleted(url: str, store: Store) -> None:
    key, _ = store.create_key("ci", now_s=NOW, budget_nano=100, budget_period="day")

    async def work(db: Any) -> None:
        old = ask(key.id, need=5, period="day", since_s=1.6e9, until_s=1.6e9 + 86400)
        later = ask(key.id, need=5, period="day", since_s=NOW, until_s=2.5e9)
        await draw(db, "n1", "p", [old])
        await prune(db)
        assert await leases_of(db, old.id) == {}
        await draw(db, "n1", "p", [later])
        await prune(db)
        assert await leases_of(db, later.id) == {"n1": 5}

    with_two_nodes(url, work)
