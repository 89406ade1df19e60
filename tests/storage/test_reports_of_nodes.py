"""Reports over all nodes: PostgreSQL's reader answers as SQLite's does with the same rows in one ledger."""

import asyncio
from collections.abc import Iterator
from typing import Any, get_args

import asyncpg
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reports import DAY, END, HOUR, T, row, rows_of, spans, wheres, write

from headgate.storage.figures import Column, Only, Order, Spent, Where
from headgate.storage.postgres import database, ledger
from headgate.storage.postgres.ledger import NodeName, NodePosition, ship
from headgate.storage.postgres.queries import PooledQueries
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.postgres.usage_reader import DatabaseReader
from headgate.storage.rows import AttemptRecord, LedgerRow
from headgate.storage.sqlite import retention
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from postgres import Postgres

TOKENS = ("input", "cached", "cache_write", "output", "reasoning")
BYS = ("key", "account", "model", "upstream", "user", "session", "day", "hour")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


def sent(url: str, rows: list[tuple[str, LedgerRow]], prune_s: float = 0.0) -> None:
    """Send rows, each of its node, in this order."""

    async def work() -> None:
        db = await database.connect(url)
        here: dict[str, NodePosition] = {}
        for n, (node, each) in enumerate(rows, 1):
            at = here.get(node, NodePosition())
            here[node] = await ship(
                db, NodeName(node, f"name of {node}", "0.1"), [(n, each)], at, 0
            )
        if prune_s:
            await ledger.prune(db, prune_s)
        assert await LedgerDatabase(db).audit() == []
        await db.close()

    asyncio.run(work())


@pytest.fixture
def reader(server: Postgres) -> Iterator[DatabaseReader]:
    asyncio.run(server.clear())
    sent(server.url, [])
    queries = PooledQueries(server.url)
    yield DatabaseReader(queries)
    queries.close()


def cleared(url: str) -> None:
    async def work() -> None:
        db = await database.connect(url)
        tables = "ledger, by_hour, by_session, totals, pruned_hour, pruned_session, nodes"
        await db.execute(f"truncate {tables} restart identity")
        await db.close()

    asyncio.run(work())


def answers(reader: Any, where: Where, since_s: float, until_s: float) -> dict[str, Any]:
    """Everything that is asked of a reader; Any: either of the two, and what each method answers."""
    span = {"since_s": since_s, "until_s": until_s}
    out: dict[str, Any] = {
        f"usage {by}": sorted(reader.usage(by, since_s, until_s, where=where), key=str)
        for by in BYS
    }
    for step in ("hour", "day"):
        for by in (None, "model", "session", "user"):
            out[f"series {step} {by}"] = reader.series(by, since_s, until_s, step=step, where=where)
    only: tuple[Only, ...]
    for only in ((), ("errors",), ("unpriced",), ("upstream_errors", "unpriced")):
        out[f"log {only}"] = reader.requests(where, most=7, only=only, **span)
    first = out["log ()"]
    if first:
        out["next"] = reader.requests(where, before=first[-1][0], most=7, **span)
    out["after"] = reader.requests_after(3, where, since_s=since_s, most=5)
    out["text"] = reader.requests(where, most=9, text="TIME", **span)
    out["facts"] = reader.request_facts(where, most=20, **span)
    for order in get_args(Order):
        for descending in (False, True):
            out[f"order {order} {descending}"] = reader.requests_in_order(
                order, where, descending=descending, skip=2, most=5, of=30, **span,
                names={"K1": "zed", "K2": "ada"} if order == "key" else {},
            )  # fmt: skip
    out["measured"] = (reader.measured(since_s), reader.measured_routes(since_s))
    out["names"] = [reader.names(column) for column in get_args(Column)]
    out["balances"] = reader.balances()
    moments = [("key", 0.0), ("account", 0.0), ("key", since_s), ("account", since_s)]
    out["spent"] = reader.spent(moments)
    out["hours"] = reader.hours(since_s, until_s, "u")
    out["sessions"] = (reader.session("s", most=5), reader.session("s", "K1", after="r3"))
    out["session sum"] = reader.session_sum("s", "K1")
    out["by key"] = [reader.spent_by_key(id) for id in ("K1", "K2", "none")]
    out["one"] = (reader.generation("r2"), reader.generation("none"), reader.last_seq())
    out["disputed"] = reader.disputed(since_s, until_s, "u")
    return out


@settings(max_examples=25, deadline=None)
@given(
    fields=rows_of,
    asked=st.lists(st.tuples(wheres, spans), min_size=1, max_size=3),
    gone=st.booleans(),
)
def test_both_readers_answer_the_same(
    server: Postgres,
    fields: list[dict[str, Any]],
    asked: list[tuple[Where, tuple[float, float]]],
    gone: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = tmp_path_factory.mktemp("both") / "data"
    Store(data).close()
    rows = []
    for n, each in enumerate(fields):
        total_s = each.pop("total_ms") / 1000
        ended = each["started_at"] + total_s
        attempts = tuple(AttemptRecord("u", "M", "stop") for _ in range(n % 3))
        rows.append(row(f"r{n}", ended_at=ended, attempts=attempts, status=n % 4 * 100, **each))
    write(data, rows)
    before_s = retention.floor_s(1, T + 2 * DAY) if gone else 0.0
    asyncio.run(server_ready(server))
    cleared(server.url)
    if gone and rows:  # the last row stays in both
        retention.prune(data, int(before_s), rest_s=0)
    kept = UsageReader(data)
    sent(server.url, [(f"n{n % 3}", each) for n, each in enumerate(rows)], before_s)
    queries = PooledQueries(server.url)
    both = DatabaseReader(queries)
    try:
        if gone and rows and kept.last_seq() and rows[-1].started_at < before_s:
            return  # SQLite keeps its last row for its number, PostgreSQL does not
        for where, (since_s, until_s) in asked:
            assert answers(both, where, since_s, until_s) == answers(kept, where, since_s, until_s)
    finally:
        kept.close()
        queries.close()


async def server_ready(server: Postgres) -> None:
    db = await database.connect(server.url)
    await db.close()


def test_a_filter_by_node_narrows_rows_and_sums(server: Postgres, reader: DatabaseReader) -> None:
    sent(
        server.url, [("n1", row("a")), ("n2", row("b", session="s")), ("n2", row("c", user="ann"))]
    )
    two = Where(node_id="n2")
    assert [r.request_id for _, r in reader.requests(two)] == ["c", "b"]
    for by in BYS:
        assert sum(s.requests for s in reader.usage(by, where=two)) == 2
        assert sum(s.requests for _, s in reader.series(by, 0.0, END, step="hour", where=two)) == 2
    assert reader.nodes_of(["a", "b", "none"]) == {"a": "n1", "b": "n2"}


def test_rows_that_come_late_are_found_by_their_own_times(
    server: Postgres, reader: DatabaseReader
) -> None:
    late = row("late", started_at=T - 5 * DAY, ended_at=T - 5 * DAY)
    sent(server.url, [("n1", row("a")), ("n1", row("b", started_at=T + HOUR)), ("n2", late)])
    assert [r.request_id for _, r in reader.requests()] == ["late", "b", "a"]
    there = reader.requests(since_s=T - 6 * DAY, until_s=T - DAY)
    assert [r.request_id for _, r in there] == ["late"]
    assert [r.request_id for _, r in reader.requests(since_s=T)] == ["b", "a"]


def test_sums_stay_when_rows_are_deleted(server: Postgres, reader: DatabaseReader) -> None:
    old = [row(f"o{n}", started_at=T - 9 * DAY, session="s", account="red") for n in range(3)]
    sent(server.url, [*(("n1", each) for each in old), ("n2", row("a"))])
    before = {by: [s.cost_nano_usd for s in reader.usage(by)] for by in BYS if by != "user"}
    sent(server.url, [], prune_s=T - DAY)
    assert [r.request_id for _, r in reader.requests()] == ["a"]
    after = {by: [s.cost_nano_usd for s in reader.usage(by)] for by in BYS if by != "user"}
    assert after == before
    assert {b.account: b.spent_nano_usd for b in reader.balances()} == {"": 5, "red": 15}


def test_a_schema_with_rows_is_brought_up_to_date(server: Postgres) -> None:
    """The fifth migration fills the new sums from the rows and from sums of deleted ones."""
    asyncio.run(server.clear())
    rows = [
        row(f"r{n}", started_at=T + n * HOUR, ttft_ms=9, ended_at=T + n * HOUR + 1)
        for n in range(4)
    ]
    sent(server.url, [(f"n{n % 2}", each) for n, each in enumerate(rows)])
    queries = PooledQueries(server.url)
    reader = DatabaseReader(queries)
    wanted = reader.usage("hour"), reader.balances(), reader.usage("session")
    queries.close()

    async def back() -> None:
        db = await database.connect(server.url)
        for table in ("by_hour", "pruned_hour"):
            for column in ("ttft_ms", "first_tokens", "stream_ms", "first_seq", "last_seq"):
                await db.execute(f"alter table {table} drop column {column}")
        await db.execute("drop table by_session, pruned_session, totals, node_names")
        for column in ("key", "account", "model", "upstream", "outcome", "node"):
            await db.execute(f"drop index ledger_{column}")
        await db.execute("alter table nodes drop column clock_ahead_s")
        await db.execute("delete from migrations where version = 5")
        await db.close()

    asyncio.run(back())
    sent(server.url, [])  # migrates, and audits
    queries = PooledQueries(server.url)
    reader = DatabaseReader(queries)
    assert (reader.usage("hour"), reader.balances(), reader.usage("session")) == wanted
    assert isinstance(wanted[0][0], Spent) and wanted[0][0].ttft_ms == 9
    queries.close()
    assert msgspec.structs.asdict(Where(node_id="x"))["node_id"] == "x"


def test_sums_of_an_older_version_are_refused(server: Postgres, reader: DatabaseReader) -> None:
    """A node that was connected when another one brought the schema up to date."""
    sums = ("requests", "unpriced", *(f"{t}_tokens" for t in TOKENS), "cost_nano_usd")

    async def work() -> None:
        db = await database.connect(server.url)
        with pytest.raises(asyncpg.NotNullViolationError):
            await db.execute(
                f"insert into by_hour (hour, node_id, account, key_id, model, upstream, outcome, {', '.join(sums)})"
                f" values (now(), 'n1', '', 'K1', 'M', 'up', 'stop', {', '.join('1' for _ in sums)})"
            )
        await db.close()

    asyncio.run(work())
