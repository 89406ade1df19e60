"""Owners' upstream keys on the disk: encrypted, each bound to its owner, gone with their owner."""

from pathlib import Path

import apsw
import pytest

from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import Store

SECRET = "sk-cp-canary-0123456789-tail"
NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def test_a_key_is_kept_encrypted_shown_by_its_end_and_read_back(store: Store) -> None:
    key, _ = store.create_key("k", now_s=NOW)
    before = store.data_version()
    shown = store.put_upstream_key("key", key.id, "up", SECRET, now_s=NOW)
    assert (shown.hint, shown.owner, shown.fallback) == ("tail", key.id, False)
    assert store.data_version() > before
    assert SECRET not in repr(shown) and SECRET not in repr(store.upstream_keys())
    owned = store.owned_keys()
    found = owned.find(key, "up")
    assert found is not None and owned.secret(found) == SECRET
    store.close()
    for file in store.directory.iterdir():
        assert b"canary" not in file.read_bytes(), file


def test_the_same_key_has_the_same_fingerprint_and_never_the_same_ciphertext(store: Store) -> None:
    store.create_account("acme", "Acme", now_s=NOW)
    first = store.put_upstream_key("account", "acme", "up", SECRET, now_s=NOW)
    second = store.put_upstream_key("account", "acme", "other", SECRET, now_s=NOW)
    assert first.fingerprint == second.fingerprint
    key, _ = store.create_key("k", account="acme", now_s=NOW)
    owned = store.owned_keys()
    one, two = owned.find(key, "up"), owned.find(key, "other")
    assert one is not None and two is not None and one.sealed[-60:] != two.sealed[-60:]


@pytest.mark.parametrize(
    "change",
    [
        "update upstream_keys set owner = 'other'",
        "update upstream_keys set upstream = 'elsewhere'",
        "update upstream_keys set kind = 'key'",
        "update upstream_keys set sealed = zeroblob(60)",
        "update upstream_keys set sealed = x''",
    ],
)
def test_a_row_that_was_changed_on_the_disk_does_not_open(store: Store, change: str) -> None:
    store.create_account("acme", "Acme", now_s=NOW)
    store.put_upstream_key("account", "acme", "up", SECRET, now_s=NOW)
    db = apsw.Connection(str(store.directory / "headgate.db"))
    db.execute(change)
    db.close()
    owned = store.owned_keys()
    (row,) = owned._rows.values()
    with pytest.raises(ValueError, match="another pepper"):
        owned.secret(row)


def test_another_pepper_is_refused_before_any_key_is_read(store: Store) -> None:
    store.create_account("acme", "Acme", now_s=NOW)
    store.put_upstream_key("account", "acme", "up", SECRET, now_s=NOW)
    store.close()
    (store.directory / "pepper").write_bytes(bytes(32))
    with pytest.raises(StoreError, match="is not the pepper"):
        Store(store.directory)


def test_keys_of_owners_that_do_not_exist_or_are_closed_are_refused(store: Store) -> None:
    store.create_account("acme", "Acme", now_s=NOW)
    key, _ = store.create_key("k", now_s=NOW)
    store.put_upstream_key("account", "acme", "up", SECRET, now_s=NOW)
    store.put_upstream_key("key", key.id, "up", SECRET, now_s=NOW)
    store.close_account("acme", now_s=NOW + 1)
    assert [k.kind for k in store.upstream_keys()] == ["key"]
    new, _ = store.rotate(key.id, now_s=NOW + 2, overlap_s=0) or (key, "")
    store.revoke(key.id, now_s=NOW + 3)
    assert store.owned_keys().find(new, "up") is not None  # its rotation goes on
    assert store.revoke(new.id, now_s=NOW + 4)
    assert store.upstream_keys() == []
    for kind, owner in (("account", "acme"), ("account", "no"), ("account", ""), ("key", key.id), ("key", "no")):  # fmt: skip
        with pytest.raises(StoreError):
            store.put_upstream_key(kind, owner, "up", SECRET, now_s=NOW + 9)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="characters"):
        store.put_upstream_key("key", new.id, "up", "short", now_s=NOW)


def test_a_key_is_replaced_and_removed_by_any_rotation_of_its_owner(store: Store) -> None:
    key, _ = store.create_key("k", now_s=NOW)
    new, _ = store.rotate(key.id, now_s=NOW, overlap_s=99) or (key, "")
    store.put_upstream_key("key", new.id, "up", SECRET, now_s=NOW)
    shown = store.put_upstream_key("key", key.id, "up", SECRET + "-new", fallback=True, now_s=NOW)
    assert store.upstream_keys() == [shown] and shown.hint == "-new" and shown.fallback
    assert store.remove_upstream_key("key", new.id, "up")
    assert not store.remove_upstream_key("key", new.id, "up")
    assert store.upstream_keys() == []
