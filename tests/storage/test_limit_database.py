"""Limits over all nodes in a real PostgreSQL: one level for all, and slots that are never more than the limit."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from headgate.policy.limit_kinds import MINUTE_NS
from headgate.policy.shared_rates import RateAsk, Right
from headgate.policy.shared_slots import LEASE_S, SlotAsk
from headgate.storage.postgres import limits
from headgate.storage.postgres.leases import Replaced, register
from postgres import Postgres, with_two_nodes

V = TypeVar("V")
RPM = ("owner", "", "requests")
SLOTS = ("owner", "", "concurrency")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


def within(server: Postgres, work: Callable[[Any], Awaitable[V]]) -> V:
    """What `work` does with a connection of two nodes to an empty database; Any: asyncpg's."""
    asyncio.run(server.clear())
    return with_two_nodes(server.url, work)


def rate(*needs: int, most: int = 10, **fields: Any) -> RateAsk:
    return RateAsk(RPM, most, MINUTE_NS, needs=needs, **fields)


async def rates(db: Any, node: str, *asks: RateAsk) -> list[list[bool]]:
    found = await limits.draw(db, node, "p", asks, [])
    return [list(answer.granted) for answer in found.rates]


async def slots(db: Any, node: str, used: int, need: int, most: int = 3) -> tuple[int, int]:
    found = await limits.draw(db, node, "p", [], [SlotAsk(SLOTS, most, used, need, need)])
    return found.slots[0].held, found.slots[0].idle


def test_two_nodes_draw_from_one_level(server: Postgres) -> None:
    async def work(db: Any) -> None:
        assert await rates(db, "n1", rate(*[1] * 6)) == [[True] * 6]
        assert await rates(db, "n2", rate(*[1] * 6)) == [[True] * 4 + [False] * 2]
        assert await rates(db, "n1", rate(1)) == [[False]]

    within(server, work)


def test_the_level_sinks_by_the_clock_of_the_database(server: Postgres) -> None:
    async def work(db: Any) -> None:
        assert await rates(db, "n1", rate(*[1] * 10)) == [[True] * 10]
        await db.execute("update shared_limits set at_us = at_us - 30000000")
        assert await rates(db, "n2", rate(*[1] * 6)) == [[True] * 5 + [False]]

    within(server, work)


def test_rights_that_come_back_are_there_for_the_others_but_for_what_time_has_given(
    server: Postgres,
) -> None:
    async def work(db: Any) -> None:
        found = await limits.draw(db, "n1", "p", [rate(10)], [])
        answer = found.rates[0]
        await db.execute("update shared_limits set at_us = at_us - 30000000")
        back = Right(10, answer.kept, answer.epoch)
        await rates(db, "n1", rate(returned=(back,)))
        assert await rates(db, "n2", rate(*[1] * 11)) == [[True] * 10 + [False]]

    within(server, work)


def test_a_lowered_limit_holds_for_what_was_taken_before(server: Postgres) -> None:
    async def work(db: Any) -> None:
        assert await rates(db, "n1", rate(*[1] * 8, most=10)) == [[True] * 8]
        assert await rates(db, "n2", rate(1, most=5)) == [[False]]

    within(server, work)


def test_limits_of_any_size_are_counted_exactly(server: Postgres) -> None:
    async def work(db: Any) -> None:
        most = 10**15
        assert await rates(db, "n1", rate(most - 1, most=most)) == [[True]]
        asks = await rates(db, "n2", rate(10**14, most=most))
        assert asks == [[False]]

    within(server, work)


def test_slots_of_all_nodes_are_the_limit_and_those_of_the_dead_are_free_in_time(
    server: Postgres,
) -> None:
    async def work(db: Any) -> None:
        assert await slots(db, "n1", 0, 2) == (2, 0)
        assert await slots(db, "n2", 0, 2) == (1, 2)
        assert await slots(db, "n1", 2, 2) == (2, 1)  # what it uses now is known
        assert await slots(db, "n2", 1, 2) == (1, 0)
        await db.execute(
            f"update shared_slots set at = at - interval '{LEASE_S + 1} s' where node_id = 'n1'"
        )
        assert await slots(db, "n2", 1, 3) == (3, 0)
        assert await slots(db, "n2", 0, 0) == (0, 0)
        assert await db.fetchval("select count(*) from shared_slots where node_id = 'n2'") == 0

    within(server, work)


def test_a_process_that_was_replaced_draws_nothing(server: Postgres) -> None:
    async def work(db: Any) -> None:
        await register(db, "n1", "later")
        with pytest.raises(Replaced):
            await rates(db, "n1", rate(1))
        assert await db.fetchval("select count(*) from shared_limits") == 0

    within(server, work)


def test_what_nobody_uses_is_forgotten(server: Postgres) -> None:
    async def work(db: Any) -> None:
        await rates(db, "n1", rate(1))
        await slots(db, "n1", 1, 1)
        await limits.prune(db)
        assert await db.fetchval("select count(*) from shared_slots") == 1
        old = limits.OLD_S + 1
        await db.execute(f"update shared_limits set at_us = at_us - {old * 10**6}")
        await db.execute(f"update shared_slots set at = at - interval '{old} s'")
        await limits.prune(db)
        assert await db.fetchval("select count(*) from shared_limits") == 0
        assert await db.fetchval("select count(*) from shared_slots") == 0

    within(server, work)
