"""The books: what is written survives, and nothing that is kept opens the gate."""

import contextlib
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw
import pytest

from headgate.policy.keys import Account, Key, Terms
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import Store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "gate" / "data"


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    opened = Store(data)
    yield opened
    opened.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_pepper_and_database_are_the_owners_alone(store: Store, data: Path) -> None:
    store.create_key("a", now_s=1)
    assert mode(data) == 0o700
    for path in data.iterdir():
        assert mode(path) == 0o600, path.name


def test_the_books_are_durable_and_their_tables_strict(store: Store) -> None:
    found = [store._db.pragma(name) for name in ("journal_mode", "synchronous", "user_version")]
    steps = list(files("headgate.storage.sqlite").joinpath("schema").iterdir())
    assert found == ["wal", 2, len(steps)]
    tables = store._db.execute(
        "select name, strict from pragma_table_list where schema = 'main' and type = 'table'"
        " and name not like 'sqlite_%'"
    ).fetchall()
    assert tables and all(strict for _, strict in tables)


def test_a_key_opens_before_and_after_the_store_is_opened_again(data: Path) -> None:
    first = Store(data)
    key, text = first.create_key("alice", ("MiniMax-M2",), 99.0, now_s=1)
    assert first.ring().authenticate(text, 2) == key
    first.close()
    second = Store(data)
    assert second.keys() == [key]
    assert second.ring().authenticate(text, 2) == key
    assert second.ring().authenticate(text, 99) is None
    second.close()


def test_no_file_of_the_directory_holds_a_key_or_a_piece_of_its_secret(
    store: Store, data: Path
) -> None:
    texts = [store.create_key(f"n{n}", now_s=n)[1] for n in range(5)]
    kept = b"".join(p.read_bytes() for p in data.iterdir())
    for text in texts:
        secret = text[16:59].encode()
        assert text[8:16].encode() in kept  # the public id, so that we look in the right place
        assert not any(secret[i : i + 12] in kept for i in range(len(secret) - 11))


def test_the_pepper_is_not_in_the_database_and_without_it_no_key_opens(data: Path) -> None:
    store = Store(data)
    _, text = store.create_key("a", now_s=1)
    store.close()
    pepper = data / "pepper"
    kept = pepper.read_bytes()
    assert len(kept) == 32
    assert not any(kept in p.read_bytes() for p in data.iterdir() if p != pepper)
    pepper.write_bytes(bytes(32))
    with pytest.raises(StoreError, match="not the pepper that the keys"):
        Store(data)
    with pytest.raises(StoreError, match="not the pepper that the keys"):
        Store(data, create=False)
    pepper.write_bytes(kept)
    store = Store(data)
    assert store.ring().authenticate(text, 2) is not None
    store.close()


def test_a_damaged_pepper_is_refused_and_not_replaced(data: Path) -> None:
    Store(data).close()
    (data / "pepper").write_bytes(b"short")
    with pytest.raises(StoreError, match="damaged"):
        Store(data)
    assert (data / "pepper").read_bytes() == b"short"


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(data: Path) -> None:
    Store(data).close()
    db = apsw.Connection(str(data / "headgate.db"))
    db.pragma("user_version", 999)
    with pytest.raises(StoreError, match="newer Headgate"):
        Store(data)
    assert db.pragma("user_version") == 999
    db.close()


def test_a_file_that_is_no_database_is_refused_in_one_sentence(data: Path) -> None:
    data.mkdir(parents=True)
    (data / "headgate.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"headgate\.db"):
        Store(data)


def test_a_database_of_the_first_version_is_brought_up_to_date_with_its_keys(data: Path) -> None:
    data.mkdir(parents=True)
    (data / "pepper").write_bytes(bytes(32))
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute(files("headgate.storage.sqlite").joinpath("schema/001.sql").read_text("utf-8"))
    db.execute(
        "insert into keys (id, name, mac, created_s) values ('oldkey01', 'old', ?, 7)", (bytes(32),)
    )
    db.pragma("user_version", 1)
    db.close()
    store = Store(data)
    (key,) = store.keys()
    assert key == Key("oldkey01", "old", 7)
    steps = list(files("headgate.storage.sqlite").joinpath("schema").iterdir())
    assert store._db.pragma("user_version") == len(steps)
    store.close()


def test_a_database_without_its_pepper_is_refused_and_not_given_a_new_one(data: Path) -> None:
    Store(data).close()
    (data / "pepper").unlink()
    with pytest.raises(StoreError, match="pepper is missing"):
        Store(data)
    assert not (data / "pepper").exists()


def test_a_step_that_another_process_has_just_taken_is_not_taken_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store._write

    def late(self: Store, work: Callable[[], object]) -> object:
        monkeypatch.undo()  # only the first step comes late
        Store(data).close()
        return write(self, work)

    monkeypatch.setattr(Store, "_write", late)
    store = Store(data)
    assert store.create_key("a", now_s=1)
    store.close()


def test_a_step_that_fails_leaves_the_version_before_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Store(data).close()
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "999.sql").write_text("create table half (a); create table half (a);")
    with monkeypatch.context() as patched:
        patched.setattr("headgate.storage.sqlite.database.files", lambda _: tmp_path)
        with pytest.raises(StoreError, match="half already exists"):
            Store(data)
    store = Store(data)
    assert store._db.execute("select count(*) from sqlite_schema where name = 'half'").get == 0
    store.close()


def test_the_file_of_pepper_is_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    code = "import os, sys; os.umask(0); from headgate.storage.sqlite.database import Store; s = Store(sys.argv[1])"
    code += (
        "; s.create_key('a', now_s=1); print(*[f'{p.name} {p.stat().st_mode & 0o777:o}' for p in"
    )
    code += " s._directory.iterdir()], sep='\\n')"
    data = tmp_path / "data"
    done = subprocess.run([sys.executable, "-c", code, str(data)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files_of = dict(line.split() for line in done.stdout.splitlines())
    assert {"pepper", "headgate.db", "headgate.db-wal"} <= set(files_of)
    assert set(files_of.values()) == {"600"} and mode(data) == 0o700


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file")


def test_a_revoked_key_is_closed_once_and_stays_on_the_list(store: Store) -> None:
    key, text = store.create_key("a", now_s=1)
    assert store.revoke(key.id, now_s=5)
    assert not store.revoke(key.id, now_s=6)
    assert not store.revoke("unknown", now_s=6)
    assert store.keys()[0].revoked_s == 5
    assert store.ring().authenticate(text, 5) is None


def test_a_rotated_key_has_the_same_rights_and_the_old_one_ends_after_the_overlap(
    store: Store,
) -> None:
    old, old_text = store.create_key("a", ("MiniMax-M2",), 1000.0, now_s=1)
    made = store.rotate(old.id, now_s=10, overlap_s=5)
    assert made is not None
    new, new_text = made
    assert (new.name, new.models, new.expires_s) == ("a", ("MiniMax-M2",), 1000.0)
    ring = store.ring()
    assert ring.authenticate(old_text, 14.9) is not None
    assert ring.authenticate(old_text, 15) is None
    assert ring.authenticate(new_text, 15) == new


TERMS: Terms = {
    "rpm": 60,
    "tpm": 100_000,
    "concurrency": 4,
    "budget_nano": 12_500_000_000,
    "budget_period": "month",
    "budget_zone": "Europe/Berlin",
}


def terms_of(key: Key) -> dict[str, object]:
    return {name: getattr(key, name) for name in TERMS}


def test_a_key_keeps_its_terms_and_without_any_it_has_no_limit(store: Store) -> None:
    free, _ = store.create_key("a", now_s=1)
    bound, text = store.create_key("b", now_s=2, **TERMS)
    assert store.keys() == [free, bound]
    assert terms_of(bound) == TERMS
    assert (free.rpm, free.tpm, free.concurrency, free.budget_nano) == (None,) * 4
    assert store.ring().authenticate(text, 3) == bound


def test_rotations_have_the_terms_of_the_first_key_and_are_counted_with_it(store: Store) -> None:
    first, _ = store.create_key("a", now_s=1, **TERMS)
    made = store.rotate(first.id, now_s=2, overlap_s=100)
    assert made is not None
    again = store.rotate(made[0].id, now_s=3, overlap_s=100)
    assert again is not None
    assert terms_of(again[0]) == TERMS
    keys = store.keys()
    assert {key.owner for key in keys} == {first.id}
    other, _ = store.create_key("b", now_s=4, **TERMS)
    assert store.change_key(made[0].id, now_s=5, rpm=7, name="c") is not None
    keys = store.keys()
    found = {key.id: (key.rpm, key.name) for key in keys}
    assert found == {
        first.id: (7, "a"),
        made[0].id: (7, "c"),
        again[0].id: (7, "a"),
        other.id: (60, "b"),
    }


def test_a_change_replaces_what_is_named_and_is_seen_by_other_connections(
    store: Store, data: Path
) -> None:
    other = Store(data)
    key, text = store.create_key("a", ("MiniMax-M2",), 1000.0, now_s=1, **TERMS)
    before = other.data_version()
    new = store.change_key(key.id, now_s=2, rpm=None, budget_nano=1, models=(), expires_s=None)
    assert new is not None and other.data_version() != before
    assert terms_of(new) == {**TERMS, "rpm": None, "budget_nano": 1}
    assert (new.id, new.name, new.created_s, new.models, new.expires_s) == (
        key.id,
        "a",
        1,
        (),
        None,
    )
    assert other.ring().authenticate(text, 2000) == new
    other.close()


@pytest.mark.parametrize("end", ["revoked", "expired", "unknown"])
def test_a_key_that_opens_nothing_is_not_changed(store: Store, end: str) -> None:
    key, _ = store.create_key("a", expires_s=5 if end == "expired" else None, now_s=1)
    if end == "revoked":
        store.revoke(key.id, now_s=5)
    before = store.keys()
    id = "unknown" if end == "unknown" else key.id
    assert store.change_key(id, now_s=10, expires_s=None) is None
    assert store.keys() == before


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"rpm": -1}, "rpm"),
        ({"tpm": 10**12 + 1}, "tpm"),
        ({"concurrency": -5}, "concurrency"),
        ({"budget_nano": 10**18 + 1}, "budget_nano"),
        ({"budget_zone": "Mars/Base"}, "Mars/Base"),
        ({"budget_period": "week"}, "constraint"),
    ],
)
def test_terms_that_cannot_be_are_refused_and_change_nothing(
    store: Store, terms: Any, said: str
) -> None:
    with pytest.raises(StoreError, match=said):
        store.create_key("b", now_s=1, **terms)
    key, _ = store.create_key("a", now_s=1, **TERMS)
    with pytest.raises(StoreError, match=said):
        store.change_key(key.id, now_s=2, **terms)
    assert store.keys() == [key]


def test_a_second_rotation_cannot_lengthen_what_the_first_one_left(store: Store) -> None:
    old, _ = store.create_key("a", now_s=1)
    assert store.rotate(old.id, now_s=10, overlap_s=5) is not None
    assert store.rotate(old.id, now_s=11, overlap_s=1000) is not None
    assert store.keys()[0].revoked_s == 15


def test_without_an_overlap_the_old_key_ends_at_once(store: Store) -> None:
    old, text = store.create_key("a", now_s=1)
    assert store.rotate(old.id, now_s=10) is not None
    assert store.ring().authenticate(text, 10) is None


@pytest.mark.parametrize("end", ["revoked", "expired", "unknown"])
def test_a_key_that_opens_nothing_cannot_be_rotated_into_one_that_does(
    store: Store, end: str
) -> None:
    key, _ = store.create_key("a", expires_s=5 if end == "expired" else None, now_s=1)
    if end == "revoked":
        store.revoke(key.id, now_s=5)
    assert store.rotate("unknown" if end == "unknown" else key.id, now_s=10) is None
    assert len(store.keys()) == 1


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[31m", "x" * 129])
def test_a_name_that_could_deceive_a_terminal_or_a_log_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="name"):
        store.create_key(name, now_s=1)
    assert store.keys() == []


def test_a_name_is_data_and_never_sql(store: Store) -> None:
    name = "'); drop table keys; --"
    store.create_key(name, now_s=1)
    (kept,) = store.keys()
    assert kept.name == name


def test_the_data_version_changes_when_another_connection_writes(store: Store, data: Path) -> None:
    other = Store(data)
    before = store.data_version()
    assert store.data_version() == before
    key, text = other.create_key("a", now_s=1)
    assert store.data_version() != before
    assert store.ring().authenticate(text, 2) == key
    before = store.data_version()
    other.revoke(key.id, now_s=3)
    assert store.data_version() != before
    other.close()


def test_books_that_another_process_holds_are_refused_in_one_sentence(
    store: Store, data: Path
) -> None:
    other = apsw.Connection(str(data / "headgate.db"))
    other.execute("begin immediate")
    store._db.set_busy_timeout(0)
    with pytest.raises(StoreError, match=r"headgate\.db"):
        store.create_key("a", now_s=1)
    other.execute("rollback")
    other.close()
    assert store.create_key("a", now_s=2)


WRITER = """
import sys
from headgate.storage.sqlite.database import Store
store = Store(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()  # until all are open
for n in range(25):
    print(store.create_key(f"{sys.argv[2]}-{n}", now_s=n)[1], flush=True)
store.close()
"""


def test_processes_that_open_and_write_at_once_lose_nothing(data: Path) -> None:
    """Each may be the first to make the directory, the pepper and the tables."""
    with contextlib.ExitStack() as running:
        writers = [
            running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(data), name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for name in ("a", "b", "c")
        ]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "open\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        texts = [text for w in writers for text in w.communicate(timeout=300)[0].split()]
        assert [w.returncode for w in writers] == [0, 0, 0]
    assert len(texts) == 75
    store = Store(data)
    ring = store.ring()
    opened = [ring.authenticate(text, 100) for text in texts]
    assert {k.name for k in opened if k} == {f"{w}-{n}" for w in "abc" for n in range(25)}
    assert sorted(p.name for p in data.glob("pepper*")) == ["pepper"]
    store.close()


def test_work_that_fails_half_way_leaves_nothing(store: Store) -> None:
    key, _ = store.create_key("a", now_s=1)

    def work() -> None:
        store._db.execute("delete from keys")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._write(work)
    assert store.keys() == [key]
    assert store.create_key("b", now_s=2)


# accounts


def test_an_account_is_kept_with_its_budget_and_changed(store: Store, data: Path) -> None:
    made = store.create_account("team-a", "Team A", now_s=1, budget_nano=5, budget_period="month")
    assert made == Account("team-a", "Team A", 1, None, 5, "month")
    other = Store(data)
    before = other.data_version()
    changed = store.change_account("team-a", now_s=2, name="A", budget_nano=None)
    assert changed == Account("team-a", "A", 1, None, None, "month")
    assert other.accounts() == [changed]
    assert other.data_version() != before
    other.close()
    assert store.change_account("team-b", now_s=2, name="B") is None


@pytest.mark.parametrize("id", ["", "A", "-a", "a-", "a b", "a_b", "a" * 65, "ä", "a\n"])
def test_an_accounts_id_is_a_slug(store: Store, id: str) -> None:
    with pytest.raises(StoreError, match="a-z, 0-9"):
        store.create_account(id, "x", now_s=1)
    assert store.accounts() == []


def test_accounts_that_cannot_be_are_refused_and_change_nothing(store: Store) -> None:
    store.create_account("a", "A", now_s=1)
    with pytest.raises(StoreError, match="already"):
        store.create_account("a", "again", now_s=2)
    with pytest.raises(StoreError, match="an account's name"):
        store.create_account("b", "\n", now_s=2)
    with pytest.raises(StoreError, match="budget_nano is -1"):
        store.change_account("a", now_s=2, budget_nano=-1)
    with pytest.raises(StoreError, match="no time zone"):
        store.change_account("a", now_s=2, budget_zone="Nowhere")
    assert store.accounts() == [Account("a", "A", 1)]


def test_a_key_is_part_of_an_open_account_or_of_none(store: Store) -> None:
    store.create_account("a", "A", now_s=1)
    store.create_account("shut", "S", now_s=1)
    assert store.close_account("shut", now_s=2)
    with pytest.raises(StoreError, match="`b` does not exist"):
        store.create_key("k", now_s=3, account="b")
    with pytest.raises(StoreError, match="`shut` is closed"):
        store.create_key("k", now_s=3, account="shut")
    key, _ = store.create_key("k", now_s=3, account="a")
    with pytest.raises(StoreError, match="`shut` is closed"):
        store.change_key(key.id, now_s=3, account="shut")
    assert store.keys() == [key]
    moved = store.change_key(key.id, now_s=3, account="")
    assert moved is not None and moved.account == ""


def test_rotations_are_of_one_account(store: Store) -> None:
    store.create_account("a", "A", now_s=1)
    store.create_account("b", "B", now_s=1)
    first, _ = store.create_key("k", now_s=1, account="a")
    rotated = store.rotate(first.id, now_s=2, overlap_s=60)
    assert rotated is not None and rotated[0].account == "a"
    assert store.change_key(rotated[0].id, now_s=3, account="b")
    assert {k.account for k in store.keys()} == {"b"}  # noqa: SIM118


def test_an_account_is_closed_once_and_its_keys_with_it(store: Store) -> None:
    store.create_account("a", "A", now_s=1)
    key, text = store.create_key("k", now_s=1, account="a")
    assert store.ring().authenticate(text, 9) == key
    assert store.close_account("a", now_s=5)
    assert not store.close_account("a", now_s=6)
    assert not store.close_account("nobody", now_s=6)
    assert store.change_account("a", now_s=6, name="B") is None
    assert store.ring().authenticate(text, 4) == key
    assert store.ring().authenticate(text, 5) is None
    assert store.change_key(key.id, now_s=7, account="")  # what was closed is the account
    assert store.ring().authenticate(text, 9) is not None
