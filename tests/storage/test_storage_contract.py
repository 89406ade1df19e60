"""What every implementation of storage/interface.py does, over each that there is.

A new implementation is a row in IMPLEMENTATIONS.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headgate.node.shipping import Shipper
from headgate.policy.access import MANAGEMENT_PREFIX
from headgate.storage.errors import StoreError
from headgate.storage.figures import Where
from headgate.storage.interface import Keys, Ledger, OwnReports, People, Reports
from headgate.storage.postgres.queries import PooledQueries
from headgate.storage.postgres.usage_reader import DatabaseReader
from headgate.storage.rows import AttemptRecord, IntentRecord, LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger as SqliteLedger
from headgate.storage.sqlite.people import People as SqlitePeople
from headgate.storage.sqlite.reports import UsageReader
from postgres import Postgres

NOW = 1_800_000_000.0
DAY_S = 86400.0


class Storage(msgspec.Struct):
    """One installation, opened."""

    keys: Keys
    people: People
    own: OwnReports  # of this node
    reports: Reports  # what pages show
    ledger: Callable[[], Ledger]
    close: Callable[[], None]
    send: Callable[[], None] = lambda: None  # lets what was written be in `reports`


def sqlite(place: Path, database: str = "") -> Storage:
    store = Store(place, database=database)
    people, reports = SqlitePeople(store, place), UsageReader(place)
    ledgers: list[SqliteLedger] = []

    def ledger() -> Ledger:
        ledgers.append(SqliteLedger(place))
        return ledgers[-1]

    def close() -> None:
        opened: list[Any] = [*ledgers, people, reports, store]
        for each in opened:
            each.close()

    return Storage(store, people, reports, reports, ledger, close)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Postgres]]:
    started: list[Postgres] = []
    yield started
    for each in started:
        each.end()


def postgres(place: Path, servers: list[Postgres]) -> Storage:
    """Keys and people shared through PostgreSQL, and reports of what all nodes have sent to it."""
    if not servers:
        servers.append(Postgres())
    asyncio.run(servers[0].clear())
    opened = sqlite(place, servers[0].url)
    assert isinstance(opened.keys, Store) and opened.keys.shares
    opened.reports = reader = DatabaseReader(PooledQueries(servers[0].url))

    def send() -> None:
        async def work() -> None:
            shipper = Shipper(str(place), servers[0].url, lambda note: None)
            await shipper.work()
            await shipper.close()
            shipper.end()

        asyncio.run(work())

    def close() -> None:
        reader.close()
        opened_close()

    opened_close, opened.close, opened.send = opened.close, close, send
    return opened


IMPLEMENTATIONS: dict[str, Callable[[Path, list[Postgres]], Storage]] = {
    "sqlite": lambda place, _: sqlite(place),
    "postgres": postgres,
}


@pytest.fixture(params=IMPLEMENTATIONS)
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, servers: list[Postgres]
) -> Iterator[Storage]:
    opened = IMPLEMENTATIONS[request.param](tmp_path / "data", servers)
    yield opened
    opened.close()


def row(id: str, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=id,
        key_id="K1",
        account="acme",
        session="s",
        user="ann",
        tags=("a",),
        dialect="openai",
        model="M",
        upstream="up",
        outcome="stop",
        basis="upstream",
        status=200,
        started_at=NOW,
        ended_at=NOW + 2,
        ttft_ms=500,
        input_tokens=10,
        output_tokens=4,
        cost_nano_usd=7,
        attempts=(AttemptRecord("up", "M", "stop"),),
        warnings=("seed",),
    )
    return msgspec.structs.replace(plain, **fields)


# --- keys and accounts ----------------------------------------------------------------------------


def test_a_key_opens_until_it_is_revoked_or_its_account_is_closed(storage: Storage) -> None:
    keys = storage.keys
    before = keys.data_version()
    keys.create_account("acme", "Acme", now_s=NOW, budget_nano=5)
    key, text = keys.create_key("ci", ("M",), NOW + DAY_S, now_s=NOW, account="acme", rpm=3)
    other, others_text = keys.create_key("other", now_s=NOW + 0.5)
    assert keys.data_version() > before
    assert keys.keys() == [key, other]
    assert (key.models, key.rpm, key.account, key.owner) == (("M",), 3, "acme", key.id)
    snapshot = keys.ring()
    assert snapshot.authenticate(text, NOW) == key
    wrong = text[:-1] + ("1" if text.endswith("0") else "0")
    assert snapshot.authenticate(wrong, NOW) is None
    assert snapshot.authenticate(text, NOW + 2 * DAY_S) is None
    assert keys.close_account("acme", now_s=NOW) and not keys.close_account("acme", now_s=NOW)
    assert keys.ring().authenticate(text, NOW + 1) is None
    assert keys.revoke(other.id, now_s=NOW + 0.6) and not keys.revoke(other.id, now_s=NOW + 1)
    assert keys.ring().authenticate(others_text, NOW + 1) is None


def test_a_rotation_shares_the_terms_and_ends_the_old_key(storage: Storage) -> None:
    key, text = storage.keys.create_key("ci", now_s=NOW, budget_nano=9)
    made = storage.keys.rotate(key.id, now_s=NOW + 1, overlap_s=60)
    assert made is not None
    new, new_text = made
    assert (new.owner, new.budget_nano) == (key.id, 9)
    snapshot = storage.keys.ring()
    assert snapshot.authenticate(text, NOW + 30) and snapshot.authenticate(new_text, NOW + 30)
    assert snapshot.authenticate(text, NOW + 62) is None
    storage.keys.change_key(new.id, now_s=NOW + 2, tpm=4)
    assert [k.tpm for k in storage.keys.keys()] == [4, 4]  # noqa: SIM118


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        (" ", {}),
        ("x" * 129, {}),
        ("a\nb", {}),
        ("ok", {"rpm": -1}),
        ("ok", {"budget_zone": "Moon"}),
    ],
)
def test_a_key_that_breaks_a_rule_is_not_written(
    storage: Storage, name: str, terms: dict[str, object]
) -> None:
    with pytest.raises(StoreError):
        storage.keys.create_key(name, now_s=NOW, **terms)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="does not exist"):
        storage.keys.create_key("ok", now_s=NOW, account="nobody")
    assert storage.keys.keys() == []


def test_an_account_is_there_once_and_changes_in_place(storage: Storage) -> None:
    account = storage.keys.create_account("acme", "Acme", now_s=NOW)
    with pytest.raises(StoreError, match="already"):
        storage.keys.create_account("acme", "Other", now_s=NOW)
    with pytest.raises(StoreError, match="a-z"):
        storage.keys.create_account("Acme!", "Other", now_s=NOW)
    changed = storage.keys.change_account("acme", now_s=NOW, name="New", budget_period="day")
    assert changed == msgspec.structs.replace(account, name="New", budget_period="day")
    assert storage.keys.accounts() == [changed]
    assert storage.keys.change_account("nobody", now_s=NOW, name="x") is None


# --- people ---------------------------------------------------------------------------------------


def test_a_setup_link_makes_one_admin_and_sessions_end(storage: Storage) -> None:
    people = storage.people
    token = people.setup_link(now_s=NOW)
    assert token is not None and people.setup_open(token, now_s=NOW)
    ada = people.first_admin(token, "ada", "hash", now_s=NOW)
    assert ada is not None and ada.role == "admin"
    assert people.first_admin(token, "eve", "hash", now_s=NOW) is None
    assert people.setup_link(now_s=NOW) is None
    assert people.sign_in("ADA") == (ada, "hash")
    session = people.open_session(ada.id, now_s=NOW)
    seen = people.session(session, now_s=NOW + 60)
    assert seen is not None and seen.id == ada.id
    assert people.session(session, now_s=NOW + DAY_S) is None
    people.close_session(session)
    assert people.session(session, now_s=NOW + 60) is None
    with pytest.raises(StoreError):
        people.create_user("ada", "hash", "viewer", now_s=NOW)


def test_a_management_key_is_known_by_its_text_until_it_is_revoked(storage: Storage) -> None:
    made, text = storage.people.create_management_key("ops", "viewer", now_s=NOW)
    assert text.startswith(MANAGEMENT_PREFIX)
    assert storage.people.manager(text, now_s=NOW) == made
    assert storage.people.manager(text + "x", now_s=NOW) is None
    assert storage.people.revoke_management_key(made.id, now_s=NOW)
    assert storage.people.manager(text, now_s=NOW + 1) is None


def test_the_audit_log_keeps_what_was_done_newest_first(storage: Storage) -> None:
    for n in range(3):
        storage.people.record("ada", "cli", "key.create", f"k{n}", "acme", {"n": n}, now_s=NOW + n)
    found = storage.people.changes(most=2)
    assert [(c.subject, c.detail) for c in found] == [("k2", {"n": 2}), ("k1", {"n": 1})]
    assert [c.subject for c in storage.people.changes(before=found[-1].seq)] == ["k0"]
    assert storage.people.changes(account="other") == []


# --- the ledger and its reports -------------------------------------------------------------------


def settled(storage: Storage, rows: list[LedgerRow]) -> None:
    ledger = storage.ledger()

    async def work() -> None:
        for each in rows:
            await ledger.open(
                IntentRecord(
                    request_id=each.request_id,
                    key_id=each.key_id,
                    dialect="openai",
                    model="M",
                    started_at=each.started_at,
                )
            )
            assert each.request_id in storage.own.begun([each.request_id])
            await ledger.settle(each)
            await ledger.settle(msgspec.structs.replace(each, cost_nano_usd=99))  # changes nothing

    asyncio.run(work())
    storage.send()


def test_a_row_takes_the_place_of_its_intent_and_is_there_once(storage: Storage) -> None:
    settled(storage, [row("a"), row("b", key_id="K2", account="", cost_nano_usd=None, user="")])
    reports = storage.reports
    assert storage.own.intents() == 0
    assert reports.generation("a") == row("a")
    assert [r.request_id for _, r in reports.requests()] == ["b", "a"]
    assert [r.request_id for _, r in reports.requests(Where(user="ann"))] == ["a"]
    assert [r.request_id for _, r in reports.requests_after(1)] == ["b"]
    assert reports.session("s", "K1") == [row("a")]
    assert storage.own.recorded(["a", "x"]) == {"a"}
    assert reports.last_seq() == 2
    nodes = reports.node_names()
    assert {*reports.nodes_of(["a", "b"]).values()} == {*nodes}
    assert [(b.key_id, b.requests, b.unpriced, b.spent_nano_usd) for b in reports.balances()] == [
        ("K2", 1, 1, 0),
        ("K1", 1, 0, 7),
    ]
    assert reports.spent([("key", 0.0)])["key", 0.0] == {"K1": 7, "K2": 0}
    assert storage.own.audit() == []


def test_usage_adds_up_by_everything_that_it_can_be_asked_by(storage: Storage) -> None:
    later = {"started_at": NOW + DAY_S, "ended_at": NOW + DAY_S + 1}
    settled(storage, [row("a"), row("b", outcome="timeout"), row("c", key_id="K2", **later)])
    usage = storage.reports.usage
    assert [(s.name, s.requests, s.errors, s.cost_nano_usd) for s in usage("key")] == [
        ("K1", 2, 1, 14),
        ("K2", 1, 0, 7),
    ]
    for by in ("account", "model", "upstream", "session", "user"):
        assert [(s.requests, s.input_tokens) for s in usage(by)] == [(3, 30)]  # type: ignore[arg-type]
    assert [s.name for s in usage("day")] == ["2027-01-15", "2027-01-16"]
    assert [s.requests for s in usage("model", NOW + 1)] == [1]
    assert [s.requests for s in usage("model", where=Where(key_id="K2"))] == [1]
    assert [at for at, _ in storage.reports.series(None, 0.0, NOW + 2 * DAY_S, step="day")] == [
        NOW // DAY_S * DAY_S,
        NOW // DAY_S * DAY_S + DAY_S,
    ]
    assert storage.reports.names("outcome") == ["stop", "timeout"]
