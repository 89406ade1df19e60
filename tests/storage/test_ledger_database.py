"""The ledger of all nodes in a real PostgreSQL: each row once, whatever is repeated, stopped or restored."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec
import pytest
from click.testing import CliRunner

from gateway import start, stop
from headgate.cli import audit, nodes, requests, usage
from headgate.config import loading
from headgate.diagnostics import reachability
from headgate.node.shipping import Shipper, node_id
from headgate.storage.errors import StoreError
from headgate.storage.figures import Where
from headgate.storage.postgres import database, ledger
from headgate.storage.postgres.ledger import BATCH, NodeName, NodePosition, position, ship
from headgate.storage.postgres.queries import PooledQueries
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.postgres.usage_reader import DatabaseReader
from headgate.storage.rows import COLUMNS, AttemptRecord, LedgerRow
from headgate.storage.sqlite import writer
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.entries import encode_row
from played import PlayedUpstream
from postgres import Postgres
from waiting import pause, wait_for

T = 1_800_000_000.0
DAY_S = 86400
ONE, TWO = NodeName("n1", "one", "0.1"), NodeName("n2", "two", "0.1")
V = TypeVar("V")


def row(id: str, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=id,
        key_id="K1",
        account="acme",
        session="s",
        user="ann",
        tags=("a", "b"),
        dialect="openai",
        model="M",
        upstream="up",
        outcome="stop",
        basis="upstream",
        status=200,
        started_at=T + 0.25,
        ended_at=T + 1.5,
        ttft_ms=300,
        input_tokens=10,
        output_tokens=2,
        cost_nano_usd=5,
        attempts=(AttemptRecord("up", "M", "stop"),),
        warnings=("seed", "„ü“"),
    )
    return msgspec.structs.replace(plain, **fields)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


@pytest.fixture
def url(server: Postgres) -> str:
    asyncio.run(server.clear())
    return server.url


def within(url: str, work: Callable[[Any], Awaitable[V]]) -> V:
    """What `work` does with a connection; Any: asyncpg's."""

    async def run() -> V:
        db = await database.connect(url)
        try:
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())


def journal(data: Path, rows: list[LedgerRow]) -> None:
    """Write rows into the ledger of a data directory."""
    Store(data).close()
    db = writer.connect(f"{data}/headgate.db", 5000)
    entries = writer.decode_durable(b"[" + b",".join(map(encode_row, rows)) + b"]")
    writer.insert(db, entries)
    db.close()


@contextlib.contextmanager
def reading(url: str) -> Iterator[DatabaseReader]:
    reader = DatabaseReader(PooledQueries(url))
    try:
        yield reader
    finally:
        reader.close()


def requests_in(url: str) -> int:
    with reading(url) as reader:
        return sum(s.requests for s in reader.usage("model"))


def differences(url: str) -> object:
    return within(url, lambda db: LedgerDatabase(db).audit())


def test_a_row_comes_back_as_it_was(url: str) -> None:
    odd = row("b", cost_nano_usd=None, ttft_ms=None, tags=(), attempts=(), key_id="K2", status=0)

    async def work(db: Any) -> None:
        await ship(db, ONE, [(1, row("a")), (2, odd)], NodePosition(), 0)
        assert await position(db, "n1") == NodePosition(2, "b")
        columns = await db.fetch(
            "select column_name from information_schema.columns where table_schema = 'headgate'"
            " and table_name = 'ledger' order by ordinal_position"
        )
        assert [c for (c,) in columns] == ["seq", "node_id", *COLUMNS]

    within(url, work)
    with reading(url) as reader:
        assert [r for _, r in reader.requests()] == [odd, row("a")]
        assert [r for _, r in reader.requests_after(0)] == [row("a"), odd]
        assert [r for _, r in reader.requests(Where(key_id="K2"))] == [odd]


def test_batches_that_are_repeated_by_several_nodes_at_once_are_counted_once(url: str) -> None:
    rows = [(n + 1, row(f"r{n}", key_id=f"K{n % 3}", model=f"M{n % 5}")) for n in range(600)]

    async def node(name: NodeName, first: int) -> None:
        db = await database.connect(url)
        here = NodePosition()
        for at in range(first, 600, 75):
            here = await ship(db, name, rows[at : at + 150], here, 0)
        await db.close()

    async def all_at_once() -> None:
        names = [NodeName(f"n{n}", f"node {n}", "0.1") for n in range(4)]
        await asyncio.gather(*(node(name, 37 * n) for n, name in enumerate(names)))

    asyncio.run(all_at_once())
    assert requests_in(url) == 600
    assert differences(url) == []
    with reading(url) as reader:
        sums = reader.usage("key")
    assert sorted((s.name, s.requests, s.cost_nano_usd) for s in sums) == [
        (f"K{n}", 200, 1000) for n in range(3)
    ]


@pytest.mark.parametrize(
    "damage",
    [
        "update headgate.by_hour set cost_nano_usd = cost_nano_usd + 1",
        "delete from headgate.ledger where request_id = 'a'",
        "delete from headgate.by_session",
        "update headgate.totals set requests = 3",
        "update headgate.by_hour set last_seq = first_seq",
    ],
)
def test_the_audit_finds_what_was_tampered_with(url: str, damage: str) -> None:
    async def work(db: Any) -> None:
        await ship(db, ONE, [(1, row("a")), (2, row("b"))], NodePosition(), 0)
        reader = LedgerDatabase(db)
        assert await reader.audit() == []
        await db.execute(damage)
        assert len(await reader.audit()) in (1, 2)

    within(url, work)


def test_old_rows_go_and_their_sums_stay(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(n, row(f"r{n}", started_at=T - DAY_S * (n % 3))) for n in range(1, 31)]

    async def work(db: Any) -> None:
        await ship(db, ONE, rows, NodePosition(), 0)
        assert await ledger.prune(db, T - DAY_S) == 10
        assert await ledger.prune(db, T - DAY_S) == 0
        assert await LedgerDatabase(db).audit() == []

    within(url, work)
    with reading(url) as reader:
        assert len(reader.requests(most=99)) == 20
    assert requests_in(url) == 30


def test_two_nodes_make_the_schema_at_once_and_a_newer_one_is_refused(url: str) -> None:
    async def both() -> None:
        for db in await asyncio.gather(*(database.connect(url) for _ in range(4))):
            await db.close()

    asyncio.run(both())

    async def newer(db: Any) -> None:
        await db.execute("insert into headgate.migrations (version) values (999)")

    within(url, newer)
    with pytest.raises(StoreError, match="newer Headgate"):
        within(url, newer)


def test_what_is_wrong_with_the_database_is_one_sentence_without_the_password(url: str) -> None:
    for wrong in (
        url.replace("secret-of-pg", "wrong-word"),
        url.replace("127.0.0.1", "127.0.0.1:1", 1).replace(
            f":1:{url.rpartition(':')[2]}", ":1/postgres"
        ),
    ):
        with pytest.raises(StoreError) as told:
            within(wrong, lambda db: db.close())
        text = str(told.value)
        assert text.startswith("postgresql://127.0.0.1:") and "\n" not in text
        assert "wrong-word" not in text and "secret-of-pg" not in text


# --- the journal of a node ------------------------------------------------------------------------


async def sent(shipper: Shipper) -> None:
    """Let it work until all of its journal is there."""
    while True:
        try:
            await shipper.work()
            return
        except StoreError:
            await pause(0.02, "as a task that is tried again after a while")


def measured(shipper: Shipper) -> dict[str, float]:
    return {each.name.removeprefix("headgate_database_"): each.value for each in shipper.samples()}


def test_a_database_that_is_stopped_loses_and_doubles_nothing(
    server: Postgres, url: str, tmp_path: Path
) -> None:
    data, notes = tmp_path / "data", list[str]()
    journal(data, [row(f"r{n}") for n in range(2 * BATCH + 7)])
    shipper = Shipper(str(data), url, notes.append)
    assert measured(shipper) == {"up": 0}  # what it has is not known before it was asked

    async def work() -> None:
        assert await shipper._send()  # one batch, and there is more
        server.stop(signal.SIGQUIT)  # as a crash
        for _ in range(3):
            with pytest.raises(StoreError):
                await shipper.work()
        assert measured(shipper) == {"up": 0, "rows_waiting": BATCH + 7}
        assert not shipper.caught_up
        with pytest.raises(StoreError, match="not sent yet"):
            await shipper.prune(1)
        journal(data, [row("late")])
        server.start()
        await sent(shipper)
        assert measured(shipper) == {"up": 1, "rows_waiting": 0}
        await shipper.close()

    asyncio.run(work())
    shipper.end()
    assert requests_in(url) == 2 * BATCH + 8
    assert differences(url) == []
    assert [note.partition(":")[0] for note in notes] == [
        "the ledger is not sent to the database for now",
        "the ledger is sent to the database again.",
    ]


def test_a_data_directory_that_was_restored_sends_what_is_new_in_it(
    url: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    journal(data, [row("a"), row("b"), row("c")])
    id = node_id(data)

    def send() -> None:
        async def work() -> None:
            shipper = Shipper(str(data), url, lambda note: None)
            await shipper.work()
            await shipper.close()
            shipper.end()

        asyncio.run(work())

    send()
    for name in ("headgate.db", "headgate.db-wal", "headgate.db-shm"):
        (data / name).unlink(missing_ok=True)
    journal(data, [row("a"), row("d"), row("e"), row("f")])  # another history, and the same numbers
    send()
    assert node_id(data) == id
    assert requests_in(url) == 6
    assert differences(url) == []
    send()
    assert requests_in(url) == 6


@pytest.mark.long
def test_four_nodes_under_load_survive_twenty_crashes_of_the_database(
    server: Postgres, url: str, tmp_path: Path
) -> None:
    """Rows go on being written on each node while the database is killed and started again."""
    count, rounds = 4, 20
    places = [tmp_path / f"node{n}" for n in range(count)]
    for place in places:
        journal(place, [])
    shippers = [Shipper(str(place), url, lambda note: None) for place in places]
    over = asyncio.Event()

    async def write(n: int) -> None:
        for part in range(10 * rounds):
            rows = [row(f"n{n}-{part}-{i}", key_id=f"K{i % 3}") for i in range(10)]
            await asyncio.to_thread(journal, places[n], rows)

    async def send(shipper: Shipper) -> None:
        while not over.is_set():
            await sent(shipper)
        await sent(shipper)
        await shipper.close()

    async def crash() -> None:
        for _ in range(rounds):
            await pause(0.1, "the database answers for a moment")
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            await asyncio.to_thread(server.start)

    async def work() -> None:
        sending = [asyncio.create_task(send(shipper)) for shipper in shippers]
        await asyncio.gather(crash(), *map(write, range(count)))
        over.set()
        await asyncio.gather(*sending)

    asyncio.run(work())
    for shipper in shippers:
        shipper.end()
    assert requests_in(url) == count * rounds * 100
    assert differences(url) == []


# --- commands -------------------------------------------------------------------------------------


def test_the_commands_read_all_nodes(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HEADGATE_DATABASE", url)

    async def fill(db: Any) -> None:
        await ship(db, ONE, [(1, row("a"))], NodePosition(), 0)
        failed = msgspec.structs.replace(row("b", key_id="K2"), outcome="overloaded")
        await ship(db, TWO, [(1, failed)], NodePosition(), 3)

    within(url, fill)

    def run(command: Any, *options: str) -> str:
        result = CliRunner().invoke(command, options)
        assert result.exit_code == 0, result.output
        return result.stdout

    sums = json.loads(run(usage.command, "--all-nodes", "--by", "key", "--json"))
    assert [(s["key"], s["requests"], s["cost_nano_usd"]) for s in sums] == [
        ("K1", 1, 5),
        ("K2", 1, 5),
    ]
    lines = run(requests.command, "--all-nodes", "--json").splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["a", "b"]
    assert len(run(requests.command, "--all-nodes", "--all", "--csv").splitlines()) == 3
    for all_ in ((), ("--all",)):
        (line,) = run(requests.command, "--all-nodes", "--errors", "--json", *all_).splitlines()
        assert json.loads(line)["request_id"] == "b"
    assert "Ledger OK" in run(audit.command)
    listed = json.loads(run(nodes.command, "list", "--json"))
    assert [(n["name"], n["behind"], n["requests"]) for n in listed] == [
        ("one", 0, 1),
        ("two", 3, 1),
    ]
    settings = loading.load(None, {"HEADGATE_DATABASE": url})
    for online, said in ((False, "not asked"), (True, "2 nodes, 3 rows on their way")):
        finding = asyncio.run(reachability._ledger_database(settings.database, online))
        assert finding.state == "ok" and said in finding.result
        assert "secret-of-pg" not in str(finding)
    for column, value, said in (
        ("clock_ahead_s", "-99", "wrong clocks: two"),
        ("seen_at", "now() - interval '1 minute'", "silent: two"),
    ):
        change = f"update headgate.nodes set {column} = {value} where name = 'two'"
        within(url, lambda db, change=change: db.execute(change))
        finding = asyncio.run(reachability._ledger_database(settings.database, True))
        assert finding.state == "warn" and finding.result.endswith(said)
    (line,) = (each for each in run(nodes.command, "list").splitlines() if "two" in each)
    assert line.split("\t")[4:6] == ["silent", "-99 s"]
    assert run(nodes.command, "forget", "two") == "Forgotten: n2.\n"
    assert CliRunner().invoke(nodes.command, ["forget", "two"]).exit_code == 1
    assert requests_in(url) == 2
    within(url, lambda db: db.execute("update headgate.by_hour set requests = 9"))
    assert CliRunner().invoke(audit.command).exit_code == 1
    monkeypatch.delenv("HEADGATE_DATABASE")
    assert CliRunner().invoke(nodes.command, ["list"]).exit_code == 2


def test_a_command_that_reads_creates_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HEADGATE_DATABASE", url)
    for command, options in ((nodes.command, ["list"]), (usage.command, ["--all-nodes"])):
        result = CliRunner().invoke(command, options)
        assert (result.exit_code, "no node has sent anything yet" in result.output) == (1, True)

    async def schemas() -> list[object]:
        db = await asyncpg.connect(url)
        found = await db.fetch("select 1 from pg_namespace where nspname = 'headgate'")
        await db.close()
        return list(found)

    assert asyncio.run(schemas()) == []
    within(url, lambda db: db.execute("insert into headgate.migrations (version) values (999)"))
    newer = CliRunner().invoke(nodes.command, ["list"])
    assert newer.exit_code == 1 and "upgrade this command" in newer.output


# --- a gateway ------------------------------------------------------------------------------------


def test_a_gateway_sends_its_rows_and_goes_on_while_the_database_is_away(
    server: Postgres, url: str, upstream: PlayedUpstream, tmp_path: Path
) -> None:
    gate = start(
        tmp_path / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
        HEADGATE_DATABASE=url,
    )
    try:
        body = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hello"}]}

        def asked(count: int) -> set[str]:
            replies = [gate.post("/v1/chat/completions", body) for _ in range(count)]
            assert {r.status_code for r in replies} == {200}
            return {r.headers["x-request-id"] for r in replies}

        ids = asked(3)
        wait_for(lambda: requests_in(url) == 3)
        server.stop(signal.SIGQUIT)
        ids |= asked(5)
        server.start()
        ids |= asked(1)
        wait_for(lambda: requests_in(url) == 9)
    finally:
        assert stop(gate) == 0
    with reading(url) as reader:
        rows = [r for _, r in reader.requests()]
    assert {r.request_id for r in rows} == ids and len(rows) == 9
    assert differences(url) == []
    log = (tmp_path / "data.log").read_text()
    assert "secret-of-pg" not in log + gate.printed
    assert "the ledger is not sent to the database for now" in log
