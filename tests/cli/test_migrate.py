"""`headgate migrate`: a data directory goes into a real PostgreSQL, whole, and once."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner

from headgate.cli import _headgate, migrate
from headgate.storage.errors import StoreError
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite import writer
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.entries import encode_row
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.process_lock import ServeLock
from postgres import Postgres

NOW = 1_800_000_000.0
ROWS = 1200  # more than two batches


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


@pytest.fixture
def data(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with keys, people and a ledger, and an empty database."""
    asyncio.run(server.clear())
    place = tmp_path / "data"
    store = Store(place)
    store.create_account("acme", "Acme", now_s=NOW, budget_nano=5)
    key, _ = store.create_key("ci", now_s=NOW, account="acme")
    store.rotate(key.id, now_s=NOW)
    people = People(store, place)
    people.create_user("ada", "hash", "admin", now_s=NOW)
    people.create_management_key("ops", "viewer", now_s=NOW)
    people.record("ada", "cli", "key.create", key.id, "acme", {"name": "ci"}, now_s=NOW)
    people.close()
    store.close()
    rows = [
        LedgerRow(
            request_id=f"r{n}",
            key_id=key.id,
            account="acme",
            dialect="openai",
            model="M",
            outcome="stop",
            basis="upstream",
            started_at=NOW + n,
            ended_at=NOW + n + 0.125,
            cost_nano_usd=n,
        )
        for n in range(ROWS)
    ]
    db = writer.connect(f"{place}/headgate.db", 5000)
    writer.insert(db, writer.decode_durable(b"[" + b",".join(map(encode_row, rows)) + b"]"))
    db.close()
    monkeypatch.setenv("HEADGATE_DATA", str(place))
    monkeypatch.setenv("HEADGATE_DATABASE", server.url)
    return place


def run(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(migrate.command, options)
    assert "secret-of-pg" not in result.output
    return result.exit_code, result.output


def execute(url: str, statement: str) -> None:
    async def work() -> None:
        db = await asyncpg.connect(url, server_settings={"search_path": "headgate"})
        await db.execute(statement)
        await db.close()

    asyncio.run(work())


def test_everything_is_copied_compared_and_shared_from_then_on(
    server: Postgres, data: Path, tmp_path: Path
) -> None:
    code, out = run("--json")
    assert code == 0, out
    found = json.loads(out)
    assert found["requests"] == ROWS and found["differences"] == []
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(data / "pepper", other / "pepper")
    first, second = Store(data, create=False), Store(other, database=server.url)
    assert first.shares and second.shares
    assert second.shared_rows() == first.shared_rows()
    assert len(first.shared_rows()) == found["shared_rows"] == 6
    with pytest.raises(StoreError, match="set `database`"):
        first.create_key("fork", now_s=NOW)
    first.close()
    second.close()


def test_an_interrupted_copy_goes_on_and_copies_nothing_twice(server: Postgres, data: Path) -> None:
    assert run()[0] == 0
    execute(server.url, "delete from nodes")  # as if it had been killed before it was noted
    code, out = run()
    assert code == 0 and f"{ROWS:,} requests are in the database" in out


def test_a_database_that_was_lost_is_made_again_from_one_node_and_followed_by_the_others(
    server: Postgres, data: Path, tmp_path: Path
) -> None:
    assert run()[0] == 0
    (tmp_path / "other").mkdir()
    shutil.copy(data / "pepper", tmp_path / "other" / "pepper")
    other = Store(tmp_path / "other", database=server.url)
    asyncio.run(server.clear())
    Store(tmp_path / "empty", database=server.url).close()  # the schema, for another pepper
    execute(server.url, "update shared_state set fingerprint = null")
    with pytest.raises(StoreError, match="is not the one"):
        other.pull()
    code, out = run()
    assert code == 0, out
    other.pull()
    first = Store(data, create=False, database=server.url)
    first.create_key("new", now_s=NOW)
    other.pull()
    assert other.shared_rows() == first.shared_rows()
    first.close()
    other.close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("update ledger set cost_nano_usd = 1 where request_id = 'r7'", "request r7 differs"),
        ("delete from ledger where request_id = 'r8'", "request r8 differs or is missing"),
        ("update by_hour set requests = 9", "by_hour"),
        ("update shared_rows set row = row || '{\"rpm\": 1}' where kind = 'keys'", "keys "),
    ],
)
def test_whatever_differs_is_named(server: Postgres, data: Path, damage: str, said: str) -> None:
    assert run()[0] == 0
    execute(server.url, damage)
    code, out = run()
    assert code == 1 and said in out and "the copy differs" in out


def test_a_directory_that_is_served_and_a_database_with_others_keys_are_refused(
    server: Postgres, data: Path, tmp_path: Path
) -> None:
    lock = ServeLock(data)
    code, out = run()
    assert code == 1 and "is served by" in out
    lock.release()
    another = Store(tmp_path / "another", database=server.url)
    another.create_key("theirs", now_s=NOW)
    code, out = run()
    assert code == 1 and "another pepper" in out
    shutil.copy(data / "pepper", tmp_path / "same")
    execute(server.url, "update shared_state set fingerprint = null")
    code, out = run()
    assert code == 1 and "has keys, accounts or people already" in out
    assert not Store(data, create=False).shares
    another.close()


def test_without_data_or_a_database_there_is_nothing_to_migrate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out = run("--data", str(tmp_path / "nothing"))
    assert code == 1 and "there is no Headgate data" in out
    assert not (tmp_path / "nothing").exists()
    monkeypatch.delenv("HEADGATE_DATABASE")
    assert run()[0] == 2
    assert "migrate" in CliRunner().invoke(_headgate, ["--help"]).output
