"""Users, sessions, the setup link, management keys and the record of changes, in a real database."""

import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from headgate.policy.access import IDLE_S, SESSION_S, SETUP_S, User
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    store = Store(tmp_path)
    people = People(store, tmp_path)
    yield people
    people.close()
    store.close()


def admin(people: People, name: str = "ada") -> User:
    return people.create_user(name, "hash", "admin", now_s=1.0)


def test_the_setup_link_makes_one_admin_and_no_second(people: People) -> None:
    token = people.setup_link(now_s=0.0)
    assert token is not None
    assert people.setup_open(token, now_s=1.0)
    made = people.first_admin(token, "ada", "hash", now_s=1.0)
    assert made is not None and made.role == "admin"
    assert people.first_admin(token, "eve", "hash", now_s=1.0) is None
    assert people.setup_link(now_s=2.0) is None
    assert [u.name for u in people.users()] == ["ada"]


def test_the_setup_link_ends_after_half_an_hour(people: People) -> None:
    token = people.setup_link(now_s=0.0)
    assert token is not None
    assert not people.setup_open(token, now_s=SETUP_S)
    assert people.first_admin(token, "ada", "hash", now_s=SETUP_S) is None
    assert people.users() == []


def test_a_new_setup_link_ends_the_one_before(people: People) -> None:
    old, new = people.setup_link(now_s=0.0), people.setup_link(now_s=1.0)
    assert old and new
    assert not people.setup_open(old, now_s=2.0)
    assert people.first_admin(old, "eve", "hash", now_s=2.0) is None
    assert people.first_admin(new, "ada", "hash", now_s=2.0) is not None


def test_of_fifty_at_once_exactly_one_becomes_the_first_admin(tmp_path: Path) -> None:
    store = Store(tmp_path)
    token = People(store, tmp_path).setup_link(now_s=0.0)
    assert token is not None
    made: list[User | None] = []
    start = threading.Barrier(50)

    def race(n: int) -> None:
        own = People(store, tmp_path)
        start.wait()
        made.append(own.first_admin(token, f"admin{n}", "hash", now_s=1.0))
        own.close()

    threads = [threading.Thread(target=race, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(m is not None for m in made) == 1 and len(made) == 50


def test_a_session_ends_by_age_by_idleness_and_by_signing_out(people: People) -> None:
    user = admin(people)
    token = people.open_session(user.id, now_s=0.0)
    now_s = 0.0
    while now_s < SESSION_S - IDLE_S / 2:
        assert people.session(token, now_s=now_s) is not None
        now_s += IDLE_S / 2
    assert people.session(token, now_s=SESSION_S) is None
    idle = people.open_session(user.id, now_s=0.0)
    assert people.session(idle, now_s=IDLE_S) is None
    out = people.open_session(user.id, now_s=0.0)
    people.close_session(out)
    assert people.session(out, now_s=1.0) is None


def test_no_session_survives_a_change_of_its_user(people: People) -> None:
    admin(people, "root")
    user = admin(people)
    for change in ({"password": "new"}, {"role": "viewer"}, {"closed_s": 5.0}):
        token = people.open_session(user.id, now_s=0.0)
        assert people.change_user(user.id, **change)  # type: ignore[arg-type]
        assert people.session(token, now_s=1.0) is None


def test_the_last_admin_stays_one(people: People) -> None:
    user = admin(people)
    with pytest.raises(StoreError, match="last admin"):
        people.change_user(user.id, role="viewer")
    with pytest.raises(StoreError, match="last admin"):
        people.change_user(user.id, closed_s=1.0)
    assert people.user(user.id) == user


def test_no_token_is_in_the_database(people: People, tmp_path: Path) -> None:
    session = people.open_session(admin(people).id, now_s=0.0)
    _, key = people.create_management_key("ci", "admin", now_s=0.0)
    assert people.manager(key, now_s=1.0) is not None
    people.close()
    data = b"".join(f.read_bytes() for f in tmp_path.glob("headgate.db*"))
    assert session.encode() not in data
    assert key.encode() not in data and key[17:].encode() not in data


def test_a_management_key_opens_nothing_once_it_ended_and_a_wrong_one_never(people: People) -> None:
    key, text = people.create_management_key("ci", "viewer", 100.0, now_s=0.0)
    assert people.manager(text, now_s=99.0) == key
    assert people.manager(text, now_s=100.0) is None
    wrong = text[:-1] + ("y" if text.endswith("x") else "x")
    assert people.manager(wrong, now_s=1.0) is None
    assert people.manager("hg_live_" + text.removeprefix("hg_admin_"), now_s=1.0) is None
    assert people.revoke_management_key(key.id, now_s=5.0)
    assert people.manager(text, now_s=6.0) is None


def test_a_person_of_a_provider_is_known_by_subject_and_not_by_name(people: People) -> None:
    admin(people, "grace")
    first = people.from_provider("https://idp", "1", "grace", "g@x", "viewer", "", now_s=1.0)
    assert first is not None and first.name != "grace"
    again = people.from_provider("https://idp", "1", "other", "h@x", "member", "team", now_s=2.0)
    assert again is not None and again.id == first.id
    assert (again.role, again.account, again.email) == ("member", "team", "h@x")
    people.change_user(first.id, closed_s=3.0)
    assert people.from_provider("https://idp", "1", "x", "", "admin", "", now_s=4.0) is None


def test_what_was_sealed_opens_for_its_purpose_and_unchanged_only(people: People) -> None:
    text = people.sealed("oidc", b"flow")
    assert people.opened("oidc", text) == b"flow"
    assert people.opened("other", text) is None
    assert people.opened("oidc", "00" + text) is None
    assert people.opened("oidc", "") is None
    assert people.opened("oidc", "zz.ü") is None


def test_the_record_of_changes_cannot_be_changed(people: People, tmp_path: Path) -> None:
    people.record("ada", "console", "key.create", "k1", "team", {"name": "ci"}, now_s=1.0)
    people.record("ada", "console", "key.revoke", "k1", "", now_s=2.0)
    assert [c.action for c in people.changes()] == ["key.revoke", "key.create"]
    assert [c.subject for c in people.changes(account="team")] == ["k1"]
    assert [c.seq for c in people.changes(before=2)] == [1]
    db = apsw.Connection(str(tmp_path / "headgate.db"))
    for sql in ("delete from audit_log", "update audit_log set actor = 'eve'"):
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            db.execute(sql)
