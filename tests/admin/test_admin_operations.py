"""Each operation checks, performs and records once; what is as before leaves no entry."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.admin import accounts, keys, people
from headgate.admin.operator import Operator, Refused
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People

NOW = 1_800_000_000.0


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    store = Store(tmp_path)
    opened = People(store, tmp_path)
    yield Operator("ada", "cli", store, opened)
    opened.close()
    store.close()


def narrowed(operator: Operator, account: str) -> Operator:
    return Operator("lin", "console", operator.store, operator.people, account)


def actions(operator: Operator) -> list[str]:
    return [change.action for change in reversed(operator.people.changes())]


def test_a_key_is_created_changed_rotated_and_revoked_with_one_entry_each(
    operator: Operator,
) -> None:
    key, text = keys.create(operator, "ci", terms={"rpm": 5}, now_s=NOW)
    changed = keys.change(operator, key.id, {"rpm": 7, "name": "ci"}, now_s=NOW)
    keys.change(operator, key.id, {"rpm": 7}, now_s=NOW)
    new, _, old = keys.rotate(operator, key.id, overlap_s=60, now_s=NOW)
    assert keys.revoke(operator, new.id, now_s=NOW) and not keys.revoke(operator, new.id, now_s=NOW)
    assert (changed.rpm, new.rpm, old.revoked_s) == (7, 7, NOW + 60)
    assert actions(operator) == ["key.create", "key.change", "key.rotate", "key.revoke"]
    created, change = reversed(operator.people.changes()[-2:])
    assert created.detail == {"name": "ci", "rpm": 5} and (created.actor, created.via) == (
        "ada",
        "cli",
    )
    assert change.detail == {"name": "ci", "rpm": {"from": 5, "to": 7}}
    assert text not in str(operator.people.changes())


def test_a_key_of_another_account_does_not_exist_for_the_operator(operator: Operator) -> None:
    accounts.create(operator, "red", "Red", terms={}, now_s=NOW)
    key, _ = keys.create(operator, "k", account="red", terms={}, now_s=NOW)
    blue = narrowed(operator, "blue")
    for attempt in (
        lambda: keys.change(blue, key.id, {"rpm": 1}, now_s=NOW),
        lambda: keys.rotate(blue, key.id, overlap_s=0, now_s=NOW),
        lambda: keys.revoke(blue, key.id, now_s=NOW),
        lambda: accounts.close(blue, "red", now_s=NOW),
    ):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.reason == "absent"
    assert keys.change(narrowed(operator, "red"), key.id, {"rpm": 1}, now_s=NOW).rpm == 1
    moved = keys.change(operator, key.id, {"account": ""}, now_s=NOW)
    assert moved.account == ""
    assert operator.people.changes()[0].detail["account"] == {"from": "red", "to": ""}


@pytest.mark.parametrize(
    ("state", "says"),
    [("revoked", "The key is revoked"), ("expired", "The key is expired")],
)
def test_a_key_that_is_not_open_cannot_be_changed(
    operator: Operator, state: str, says: str
) -> None:
    expires_s = NOW + 1 if state == "expired" else None
    key, _ = keys.create(operator, "k", expires_s=expires_s, terms={}, now_s=NOW)
    if state == "revoked":
        keys.revoke(operator, key.id, now_s=NOW)
    with pytest.raises(Refused, match=says) as refused:
        keys.change(operator, key.id, {"rpm": 1}, now_s=NOW + 2)
    assert refused.value.reason == "closed"


def test_a_closed_account_takes_no_keys_and_no_people(operator: Operator) -> None:
    accounts.create(operator, "red", "Red", terms={"budget_nano": 5}, now_s=NOW)
    key, _ = keys.create(operator, "k", terms={}, now_s=NOW)
    assert accounts.close(operator, "red", now_s=NOW)
    assert not accounts.close(operator, "red", now_s=NOW)
    before = actions(operator)
    for attempt in (
        lambda: keys.create(operator, "k", account="red", terms={}, now_s=NOW),
        lambda: keys.change(operator, key.id, {"account": "red"}, now_s=NOW),
        lambda: people.create(operator, "lin", "hash", "member", "red", now_s=NOW),
    ):
        with pytest.raises(Refused, match="`red` is closed") as refused:
            attempt()
        assert (refused.value.reason, refused.value.field) == ("invalid", "account")
    with pytest.raises(Refused) as refused:
        accounts.change(operator, "red", {"name": "x"}, now_s=NOW)
    assert refused.value.reason == "closed" and actions(operator) == before


def test_a_bad_value_is_refused_and_changes_nothing(operator: Operator) -> None:
    with pytest.raises(Refused, match="printable"):
        keys.create(operator, "", terms={}, now_s=NOW)
    key, _ = keys.create(operator, "k", terms={}, now_s=NOW)
    with pytest.raises(Refused, match="whole number"):
        keys.change(operator, key.id, {"rpm": -1}, now_s=NOW)
    assert keys.find(operator, key.id) == key and actions(operator) == ["key.create"]


def test_the_last_admin_can_neither_be_closed_nor_become_less(operator: Operator) -> None:
    admin = people.create(operator, "ada", "hash", "admin", now_s=NOW)
    for attempt in (
        lambda: people.close(operator, admin.id, now_s=NOW),
        lambda: people.change(operator, admin.id, role="viewer", now_s=NOW),
    ):
        with pytest.raises(Refused, match="last admin") as refused:
            attempt()
        assert refused.value.reason == "conflict"
    other = people.create(operator, "bob", "hash", "admin", now_s=NOW)
    assert people.close(operator, admin.id, now_s=NOW)
    assert not people.close(operator, admin.id, now_s=NOW)
    with pytest.raises(Refused, match="last admin"):
        people.close(operator, other.id, now_s=NOW)


def test_a_user_who_changes_in_nothing_keeps_their_session(operator: Operator) -> None:
    user = people.create(operator, "lin", "hash", "member", now_s=NOW)
    token = operator.people.open_session(user.id, now_s=NOW)
    people.change(operator, user.id, role="member", account="", now_s=NOW)
    assert operator.people.session(token, now_s=NOW) is not None
    people.change(operator, user.id, role="viewer", password="other", now_s=NOW)
    assert operator.people.session(token, now_s=NOW) is None
    assert actions(operator) == ["user.create", "user.change", "user.password"]
    with pytest.raises(Refused, match="already") as refused:
        people.create(operator, "LIN", "hash", "member", now_s=NOW)
    assert refused.value.reason == "taken"


def test_a_management_key_is_revoked_once(operator: Operator) -> None:
    key, text = people.create_management_key(operator, "ci", "viewer", now_s=NOW)
    assert people.revoke_management_key(operator, key.id, now_s=NOW)
    assert not people.revoke_management_key(operator, key.id, now_s=NOW)
    assert actions(operator) == ["management_key.create", "management_key.revoke"]
    assert text not in str(operator.people.changes())
