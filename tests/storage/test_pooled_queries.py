"""Queries of threads over a few connections: opened once, ended when they hang, tried again soon."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.postgres import database
from headgate.storage.postgres.queries import MOST, PooledQueries, TooSlow
from postgres import Postgres
from waiting import wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


@pytest.fixture
def queries(server: Postgres) -> Iterator[PooledQueries]:
    async def made() -> None:
        await server.clear()
        await (await database.connect(server.url)).close()

    asyncio.run(made())
    opened = PooledQueries(server.url)
    yield opened
    opened.close()


def test_threads_that_begin_at_once_share_few_connections(queries: PooledQueries) -> None:
    together = threading.Barrier(20)

    def ask(n: int) -> tuple[int, int]:
        together.wait()
        ((value, pid),) = queries.fetch("select $1::int, pg_backend_pid()", n)
        return value, pid

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, range(20)))
    assert [value for value, _ in found] == [*range(20)]
    assert len({pid for _, pid in found}) <= MOST


def test_a_query_that_takes_too_long_ends_and_others_go_on(queries: PooledQueries) -> None:
    with pytest.raises(StoreFault, match="TimeoutError"):
        queries.fetch("select pg_sleep(60)", within_s=0.05)
    with pytest.raises(StoreFault):  # the database counts as away for a moment
        queries.fetch("select 1")

    def answers() -> bool:
        try:
            return queries.fetch("select 1") == [(1,)]
        except StoreFault:
            return False

    wait_for(answers)


def test_a_report_that_is_too_large_does_not_make_the_database_away(
    queries: PooledQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.storage.postgres.queries.TIMEOUT_S", 0.05)
    with pytest.raises(TooSlow, match="took too long"):
        queries.fetch("select pg_sleep(60)", within_s=0.05)
    assert queries.fetch("select 1", within_s=9) == [(1,)]


def test_a_server_that_was_started_anew_is_found_again(
    server: Postgres, queries: PooledQueries
) -> None:
    assert queries.fetch("select 1") == [(1,)]
    server.stop()
    with pytest.raises(StoreFault, match="postgresql:") as refused:
        queries.fetch("select 1")
    assert "secret-of-pg" not in str(refused.value)
    server.start()

    def answers() -> bool:
        try:
            return queries.fetch("select 1") == [(1,)]
        except StoreFault:
            return False

    wait_for(answers)


def test_a_schema_of_another_version_is_refused(server: Postgres, queries: PooledQueries) -> None:
    async def newer() -> None:
        db = await database.connect(server.url)
        await db.execute("insert into headgate.migrations (version) values (999)")
        await db.close()

    asyncio.run(newer())
    with pytest.raises(StoreError, match="its schema is 999"):
        queries.fetch("select 1")
