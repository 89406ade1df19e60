"""Old rows go and their sums stay; everything else is kept, and the audit proves both."""

import asyncio
import contextlib
import threading
from pathlib import Path

import apsw
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.storage.errors import StoreError
from headgate.storage.figures import Where
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite import retention
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader
from headgate.storage.sqlite.retention import DAY_S, daily, floor_s, prune
from waiting import until

T = 20_000 * DAY_S  # a midnight, UTC


def row(id: str, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=id,
        account="red",
        key_id="K1",
        session="s",
        dialect="openai",
        model="M",
        upstream="up",
        outcome="stop",
        basis="upstream",
        started_at=float(T),
        ended_at=float(T),
        input_tokens=10,
        output_tokens=2,
        cost_nano_usd=5,
    )
    return msgspec.structs.replace(plain, **fields)


def write(data: Path, rows: list[LedgerRow]) -> None:
    ledger = Ledger(data)

    async def work() -> None:
        await asyncio.gather(*map(ledger.settle, rows))

    asyncio.run(work())
    ledger.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Store(tmp_path / "data").close()
    return tmp_path / "data"


def test_a_request_is_kept_for_as_many_whole_days_as_was_said() -> None:
    assert floor_s(1, T + 5.0) == T - DAY_S
    assert floor_s(30, T + DAY_S - 0.1) == T - 30 * DAY_S
    assert floor_s(0, T) == 0
    assert floor_s(36500, T) == 0


def test_old_rows_go_and_every_sum_stays_as_it_was(data: Path) -> None:
    write(data, [row("old", started_at=T - 0.25), row("young"), row("last", started_at=T + 5.0)])
    books = UsageReader(data)
    before = [
        books.usage("model"),
        books.usage("session"),
        books.usage("account"),
        books.balances(),
    ]
    assert prune(data, T) == 1
    assert books.generation("old") is None
    assert books.generation("young") == row("young")
    after = [books.usage("model"), books.usage("session"), books.usage("account"), books.balances()]
    assert after == before
    assert [r.request_id for _, r in books.requests(Where(model="M"))] == ["last", "young"]
    assert books.audit() == []
    books.close()


def test_the_last_row_of_all_stays_so_that_no_number_is_given_twice(data: Path) -> None:
    write(data, [row("a"), row("b")])
    assert prune(data, T + DAY_S) == 1
    write(data, [row("c")])
    books = UsageReader(data)
    assert [(n, r.request_id) for n, r in books.requests()] == [(3, "c"), (2, "b")]
    assert books.audit() == []
    books.close()


@pytest.mark.parametrize(
    "statement",
    [
        "delete from ledger",
        "delete from ledger where request_id = 'old'",
        "update retention set before_s = 86400 * 20000; delete from ledger where request_id = 'young'",
        "update retention set before_s = 86400 * 30000; delete from ledger where request_id = 'young'",
        "delete from retention; delete from ledger where request_id = 'old'",
        "update retention set before_s = 86400 * 30000; update ledger set cost_nano_usd = 0",
    ],
)
def test_without_its_floor_no_row_goes_and_none_is_changed(data: Path, statement: str) -> None:
    write(data, [row("old", started_at=T - 1.0), row("young")])
    prune(data, T - DAY_S)
    db = apsw.Connection(str(data / "headgate.db"))
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        db.execute(statement)
    assert db.execute("select count(*) from ledger").get == 2
    db.close()


def test_a_floor_is_a_midnight(data: Path) -> None:
    write(data, [row("old", started_at=T - 1.0), row("young")])
    with pytest.raises(StoreError, match="CHECK"):
        prune(data, T + 1)
    books = UsageReader(data)
    assert len(books.requests()) == 2
    books.close()


@pytest.mark.parametrize(
    "damage",
    [
        "update pruned_hour set cost_nano_usd = cost_nano_usd - 1",
        "delete from pruned_session",
        "update pruned_balance set requests = 0",
        "update by_hour set ttft_ms = 7",
        "update by_hour set last_seq = 1",
        "drop trigger ledger_keeps_rows; delete from ledger where request_id = 'young'",
        "drop trigger ledger_keeps_rows; drop trigger ledger_pruned; delete from ledger where request_id = 'young'",
    ],
)
def test_the_audit_finds_what_was_tampered_with_after_a_pruning(data: Path, damage: str) -> None:
    write(
        data, [row("a", started_at=T - 1.0), row("b", started_at=T - 2.0), row("young"), row("c")]
    )
    assert prune(data, T) == 2
    books = UsageReader(data)
    assert books.audit() == []
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute(damage)
    db.close()
    assert books.audit()
    books.close()


def test_the_write_lock_is_let_go_after_each_batch(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    write(data, [row(f"a{n}", started_at=T - 1.0) for n in range(95)])
    seen: list[int] = []

    class Resting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            write(data, [row(f"b{len(seen)}")])  # another process has its turn
            seen.append(1)
            return False

    assert prune(data, T, stop=Resting()) == 95
    assert len(seen) == 9
    books = UsageReader(data)
    assert sum(s.requests for s in books.usage("model")) == 95 + 9
    assert books.audit() == []
    books.close()


def test_a_pruning_that_is_stopped_has_done_whole_batches(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    write(data, [row(f"a{n}", started_at=T - 1.0) for n in range(50)])

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return True

    assert prune(data, T, stop=Stopped()) == 10
    books = UsageReader(data)
    assert books.audit() == []
    books.close()


def test_a_lock_that_is_not_let_go_is_told_and_leaves_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BUSY_MS", 1)
    write(data, [row("a", started_at=T - 1.0), row("b")])
    other = apsw.Connection(str(data / "headgate.db"))
    other.execute("begin immediate")
    with pytest.raises(StoreError, match="locked"):
        prune(data, T)
    other.close()
    assert prune(data, T) == 1


def test_a_run_a_day_prunes_at_once_and_ends_when_it_is_cancelled(data: Path) -> None:
    write(data, [row("old"), row("young", started_at=T + 60 * 365 * DAY_S)])
    books = UsageReader(data)

    async def work() -> None:
        task = asyncio.create_task(daily(data, 1))
        await until(lambda: books.generation("old") is None)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert books.generation("young") is not None
    asyncio.run(daily(data, 0))  # for ever: there is nothing to do
    books.close()


days = st.integers(0, 5)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.tuples(days, st.sampled_from(["M", "N"])), max_size=8),
            days,
        ),
        max_size=8,
    )
)
def test_whatever_is_written_and_pruned_the_sums_are_those_of_all_rows(
    steps: list[list[tuple[int, str]] | int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("any")
    Store(data).close()
    books = UsageReader(data)
    rows: list[LedgerRow] = []
    for step in steps:
        if isinstance(step, int):
            prune(data, T + step * DAY_S)
        else:
            fresh = [
                row(f"a{len(rows) + n}", started_at=T + day * DAY_S + 7.0, model=model)
                for n, (day, model) in enumerate(step)
            ]
            write(data, fresh)
            rows += fresh
        assert books.audit() == []
        assert sum(s.requests for s in books.usage("model")) == len(rows)
        kept = [r.request_id for _, r in books.requests()]
        assert [r.request_id for _, r in books.requests(Where(account="red"))] == kept
    books.close()
