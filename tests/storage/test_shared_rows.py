"""Keys, accounts and people that several data directories share through a real PostgreSQL."""

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headgate.node.following import Follower
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.postgres import database
from headgate.storage.sqlite import writer
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.shared import TABLES
from postgres import Postgres

NOW = 1_800_000_000.0
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


def second(first: Path, place: Path, url: str) -> Store:
    """A new data directory with the pepper of the first."""
    place.mkdir()
    shutil.copy(first / "pepper", place / "pepper")
    return Store(place, database=url)


@pytest.fixture
def two(url: str, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    one = Store(tmp_path / "one", database=url)
    other = second(tmp_path / "one", tmp_path / "two", url)
    yield one, other
    one.close()
    other.close()


def within(url: str, work: Callable[[Any], Awaitable[V]]) -> V:
    """What `work` does with a connection; Any: asyncpg's."""

    async def run() -> V:
        db = await database.connect(url)
        try:
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())


def test_a_key_of_one_node_opens_on_the_other_until_either_revokes_it(
    two: tuple[Store, Store],
) -> None:
    one, other = two
    one.create_account("acme", "Acme", now_s=NOW, budget_nano=7)
    key, text = one.create_key("ci", now_s=NOW, account="acme", rpm=3)
    before = other.data_version()
    other.pull()
    assert other.data_version() > before  # edges read the copy anew
    assert other.ring().authenticate(text, NOW) == key
    assert other.accounts() == one.accounts()
    assert other.revoke(key.id, now_s=NOW + 1)
    one.pull()
    assert one.ring().authenticate(text, NOW + 2) is None


def test_a_change_sees_what_other_nodes_have_changed_before(two: tuple[Store, Store]) -> None:
    one, other = two
    one.create_account("acme", "Acme", now_s=NOW)
    with pytest.raises(StoreError, match="already"):
        other.create_account("acme", "Other", now_s=NOW)
    other.close_account("acme", now_s=NOW + 1)
    with pytest.raises(StoreError, match="is closed"):
        one.create_key("late", now_s=NOW + 2, account="acme")
    assert one.keys() == []


def test_people_sessions_and_the_audit_log_are_the_same_on_all_nodes(
    two: tuple[Store, Store],
) -> None:
    one, other = two
    here, there = People(one, one.directory), People(other, other.directory)
    token = here.setup_link(now_s=NOW)
    assert token is not None
    assert there.first_admin("no such token", "eve", "hash", now_s=NOW) is None
    ada = there.first_admin(token, "ada", "hash", now_s=NOW)
    assert ada is not None
    assert here.first_admin(token, "eve", "hash", now_s=NOW) is None
    session = here.open_session(ada.id, now_s=NOW)
    other.pull()
    seen = there.session(session, now_s=NOW + 1)
    assert seen is not None and seen.name == "ada"
    there.close_session(session)
    one.pull()
    assert here.session(session, now_s=NOW + 1) is None
    for n in range(6):
        people = (here, there)[n % 2]
        people.record("ada", "cli", "key.create", f"k{n}", now_s=NOW + n)
    one.pull()
    assert [c.subject for c in here.changes()] == [f"k{n}" for n in (5, 4, 3, 2, 1, 0)]
    assert here.changes() == there.changes()
    here.close()
    there.close()


# Tables of a data directory that are of its own node; what changes them does not go through `Store._write`.
OWN = {
    "balance",
    "by_hour",
    "by_session",
    "intents",
    "key_changes",
    "known",
    "ledger",
    "pepper",
    "pruned_balance",
    "pruned_hour",
    "pruned_session",
    "retention",
    "shared",
}


def test_every_table_is_shared_or_a_nodes_own(tmp_path: Path) -> None:
    """A change of a table that is in neither list would be lost."""
    Store(tmp_path / "data").close()
    db = writer.connect(f"{tmp_path}/data/headgate.db", 5000)
    found = db.execute("select name from sqlite_master where type = 'table'")
    names = {str(name) for (name,) in found if not str(name).startswith("sqlite_")}
    db.close()
    assert names == OWN | set(TABLES) and not OWN & set(TABLES)


def test_the_upstream_key_of_an_owner_is_used_and_removed_on_all_nodes(
    two: tuple[Store, Store],
) -> None:
    one, other = two
    one.create_account("acme", "Acme", now_s=NOW)
    put = one.put_upstream_key("account", "acme", "minimax", "sk-secret-of-acme", now_s=NOW)
    other.pull()
    assert other.upstream_keys() == [put]
    assert "sk-secret-of-acme" not in str(other.shared_rows())
    assert other.remove_upstream_key("account", "acme", "minimax")
    one.pull()
    assert one.upstream_keys() == []


def test_changes_of_two_nodes_at_once_are_all_there_once(two: tuple[Store, Store]) -> None:
    def create(store: Store, name: str) -> None:
        for n in range(10):
            store.create_key(f"{name}{n}", now_s=NOW + n)

    threads = [
        threading.Thread(target=create, args=each) for each in zip(two, ("a", "b"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in two:
        store.pull()
    names = [[key.name for key in list(store.keys())] for store in two]
    assert names[0] == names[1]
    assert sorted(names[0]) == sorted(f"{x}{n}" for x in "ab" for n in range(10))


def test_nothing_changes_while_the_database_is_away_and_keys_go_on(
    server: Postgres, two: tuple[Store, Store]
) -> None:
    one, other = two
    key, text = one.create_key("ci", now_s=NOW)
    server.stop()
    try:
        for change in (
            lambda: one.create_key("more", now_s=NOW),
            lambda: one.revoke(key.id, now_s=NOW),
        ):
            with pytest.raises(StoreFault):
                change()
        assert one.keys() == [key]
        assert one.ring().authenticate(text, NOW) == key
    finally:
        server.start()
    assert other.revoke(key.id, now_s=NOW)


def test_a_directory_that_shares_its_keys_changes_none_without_the_database(
    two: tuple[Store, Store],
) -> None:
    alone = Store(two[0].directory, create=False)
    with pytest.raises(StoreError, match="set `database`"):
        alone.create_key("fork", now_s=NOW)
    assert alone.keys() == []
    alone.close()


def test_another_pepper_is_refused_before_anything_is_created(
    two: tuple[Store, Store], url: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="need their pepper"):
        Store(tmp_path / "three", database=url)
    assert list((tmp_path / "three").iterdir()) == []
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"x" * 32)
    with pytest.raises(StoreError, match="another pepper"):
        Store(tmp_path / "four", database=url, pepper_file=str(wrong))
    named = Store(tmp_path / "five", database=url, pepper_file=str(two[0].directory / "pepper"))
    assert named.shares
    named.close()


def test_a_directory_with_keys_of_its_own_keeps_them(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "old")
    key, _ = store.create_key("old", now_s=NOW)
    store.close()
    store = Store(tmp_path / "old", database=url)
    assert not store.shares
    new, _ = store.create_key("new", now_s=NOW + 1)
    assert store.keys() == [key, new]
    store.close()


def test_a_column_that_this_version_does_not_know_stays_in_the_database(
    two: tuple[Store, Store], url: str
) -> None:
    one, other = two
    key, _ = one.create_key("ci", now_s=NOW)
    newer = "update shared_rows set row = row || '{\"later\": 1}' where kind = 'keys'"
    within(url, lambda db: db.execute(newer))
    assert other.change_key(key.id, now_s=NOW, name="new") is not None
    row = within(url, lambda db: db.fetchval("select row ->> 'later' from shared_rows"))
    assert row == "1"
    assert within(url, lambda db: db.fetchval("select name from keys")) == "new"


def test_a_database_that_was_restored_is_followed_and_not_written_before(
    two: tuple[Store, Store], url: str
) -> None:
    one, other = two
    one.create_key("kept", now_s=NOW)
    People(one, one.directory).record("ada", "cli", "key.create", "kept", now_s=NOW)
    one.create_key("lost", now_s=NOW + 1)
    People(one, one.directory).record("ada", "cli", "key.create", "lost", now_s=NOW)

    async def restore(db: Any) -> None:
        await db.execute("delete from shared_rows where version > 2")
        await db.execute("update shared_state set version = 2")

    within(url, restore)
    with pytest.raises(StoreError, match="restored from a backup"):
        one.create_key("never", now_s=NOW)
    one.pull()
    assert [key.name for key in list(one.keys())] == ["kept"]
    assert [c.subject for c in People(one, one.directory).changes()] == ["kept"]
    one.create_key("again", now_s=NOW + 2)
    other.pull()
    assert other.keys() == one.keys()


def test_a_node_follows_at_once_and_through_a_restart_of_the_database(
    server: Postgres, two: tuple[Store, Store], url: str
) -> None:
    one, other = two
    lines: list[str] = []
    changes: list[int] = []

    async def changed() -> None:
        changes.append(len(other.keys()))

    async def run() -> None:
        follower = Follower(str(other.directory), url, lines.append, changed)
        assert follower.shared
        await follower.work()
        before = len(changes)
        key, _ = await asyncio.to_thread(lambda: one.create_key("ci", now_s=NOW))
        await follower.work()
        assert other.keys() == [key]
        assert changes[before:] == [1]  # told once, after the copy has it
        server.stop()
        with pytest.raises(StoreFault):
            await follower.work()
        with pytest.raises(StoreFault):
            await follower.work()
        server.start()
        await asyncio.to_thread(lambda: one.revoke(key.id, now_s=NOW))

        while other.keys()[0].revoked_s is None:
            await follower.work()
        await follower.close()
        follower.end()

    asyncio.run(run())
    assert [line.partition(":")[0] for line in lines] == [
        "keys and accounts are as they were last, for now",
        "keys and accounts follow the database again.",
    ]
    assert "secret-of-pg" not in str(lines)
