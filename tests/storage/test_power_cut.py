"""The ledger on a disk that loses power or room: what it acknowledged is kept."""

import asyncio
import contextlib
import random
import select
from pathlib import Path

import apsw
import pytest

from disk import Disk, after_power_cut, disk, in_a_thread
from headgate.storage.errors import LedgerFault
from headgate.storage.rows import IntentRecord, LedgerRow
from headgate.storage.sqlite import writer
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader
from waiting import until


def row(id: str) -> LedgerRow:
    return LedgerRow(
        request_id=id,
        key_id="K1",
        session="s",
        dialect="openai",
        model="M",
        outcome="stop",
        basis="upstream",
        started_at=1.8e9,
        ended_at=1.8e9,
        input_tokens=10,
        output_tokens=2,
        cost_nano_usd=7,
    )


def mark(id: str) -> IntentRecord:
    return IntentRecord(
        request_id=id, key_id="K1", session="s", dialect="openai", model="M", started_at=1.8e9
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A database that is up to date and has been closed, so that it is one file."""
    Store(tmp_path / "data").close()
    assert not (tmp_path / "data" / "headgate.db-wal").exists()
    return tmp_path / "data"


def files_of(data: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in data.glob("headgate.db*")}


def restored(files: dict[str, bytes], to: Path, pepper: bytes) -> Path:
    to.mkdir(exist_ok=True)
    for old in to.glob("headgate.db*"):
        old.unlink()
    for name, content in files.items():
        if not name.endswith("-shm"):
            (to / name).write_bytes(content)
    (to / "pepper").write_bytes(pepper)
    return to


async def traffic(ledger: Ledger, watched: Disk, exchanges: int) -> None:
    """Groups of one to eight exchanges; what has been acknowledged is said on the disk's record."""

    async def one(id: str) -> None:
        await ledger.open(mark(id))
        watched.say(f"marked {id}")
        await ledger.settle(row(id))
        watched.say(f"settled {id}")

    n = 0
    while n < exchanges:
        size = min(1 + n % 8, exchanges - n)
        await asyncio.gather(*(one(f"x{n + i}") for i in range(size)))
        n += size


def lost_in_power_cuts(
    data: Path, scratch: Path, synchronous: str, patch: pytest.MonkeyPatch
) -> list[str]:
    """Cut the power at every write and sync of the traffic; what was acknowledged and is gone."""
    start, pepper = files_of(data), (data / "pepper").read_bytes()
    with disk("wal_autocheckpoint = 30") as watched:  # so that checkpoints are cut as well
        if synchronous != "full":
            connect = writer.connect

            def lesser(name: str, busy_ms: int) -> apsw.Connection:
                db = connect(name, busy_ms)
                db.execute(f"pragma synchronous = {synchronous}")
                return db

            patch.setattr(writer, "connect", lesser)
        ledger = Ledger(data, start=in_a_thread)
        asyncio.run(traffic(ledger, watched, 40))
        ledger.close()
    events, dice = watched.events, random.Random(2)
    assert {"headgate.db", "headgate.db-wal"} <= {n for kind, n, *_ in events if kind == "write"}
    lost: list[str] = []
    for cut, (kind, *_) in enumerate(events):
        if kind != "say":  # the others come between the same writes
            files, said = after_power_cut(start, events[:cut], dice)
            lost += missing(restored(files, scratch, pepper), said)
    return lost


def missing(data: Path, said: list[str]) -> list[str]:
    """What of the acknowledged is not there after a start; the books add up in any case."""
    Store(data).close()
    ledger = Ledger(data, start=in_a_thread)
    ledger.recover()
    ledger.close()
    books = UsageReader(data)
    assert books.audit() == []
    assert books.intents() == 0
    rows = {r.request_id: r.basis for r in books.session("s")}
    books.close()
    kept = {"settled": ("upstream",), "marked": ("upstream", "recovered")}
    pairs = [told.split() for told in said]
    return [f"{word} {id}" for word, id in pairs if rows.get(id) not in kept[word]]


def test_a_power_cut_at_any_write_loses_no_acknowledged_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lost_in_power_cuts(data, tmp_path / "after", "full", monkeypatch) == []


def test_the_power_cut_finds_what_a_lesser_setting_loses(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of the test: this is why the ledger says `synchronous = full`."""
    assert lost_in_power_cuts(data, tmp_path / "after", "normal", monkeypatch) != []


def test_the_writer_syncs_every_commit(data: Path) -> None:
    db = writer.connect(f"{data}/headgate.db", 0)
    assert db.pragma("synchronous") == 2
    db.close()


FAULTS = [apsw.FullError, apsw.IOError]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_takes_nothing_refuses_new_exchanges_and_keeps_the_old(
    data: Path, fault: type[apsw.Error]
) -> None:
    async def work(ledger: Ledger, watched: Disk) -> None:
        await ledger.open(mark("a"))
        await ledger.open(mark("b"))
        watched.fault = fault
        with pytest.raises(LedgerFault):
            await ledger.open(mark("new"))
        with pytest.raises(LedgerFault):  # the reply may end, the row is kept
            await ledger.settle(row("a"))
        assert ledger.waiting == 1
        ledger.settle_soon(row("b"))
        with pytest.raises(LedgerFault):
            await ledger.open(mark("newer"))
        assert ledger.waiting == 2
        watched.fault = None
        await ledger.open(mark("c"))  # what waited goes first, in the same transaction
        assert ledger.waiting == 0
        await ledger.settle(row("c"))

    with disk() as watched:
        ledger = Ledger(data, start=in_a_thread)
        asyncio.run(work(ledger, watched))
        assert ledger.close() == 0
    books = UsageReader(data)
    assert sorted(r.request_id for r in books.session("s")) == ["a", "b", "c"]
    assert (books.intents(), books.audit()) == (0, [])
    books.close()


def test_a_mark_that_a_killed_writer_committed_is_withdrawn_when_the_next_one_cannot_tell(
    data: Path,
) -> None:
    """It was not acknowledged, and its exchange was refused: no row may come of it."""

    async def work(ledger: Ledger, watched: Disk) -> None:
        asked = asyncio.create_task(ledger.open(mark("a")))
        await asyncio.sleep(0)
        ledger._flush()
        assert ledger._sock is not None
        while not select.select([ledger._sock], [], [], 10)[0]:
            pass
        watched.fault = apsw.IOError
        ledger.settle_soon(row("b"))  # something that must be written anew
        ledger._replace()  # as if the answer had not come
        ledger._again()
        with pytest.raises(LedgerFault):
            await asked
        watched.fault = None

    with disk() as watched:
        ledger = Ledger(data, start=in_a_thread)
        asyncio.run(work(ledger, watched))
        assert (ledger.started, ledger.close()) == (2, 0)
    books = UsageReader(data)
    assert (books.intents(), [r.request_id for r in books.session("s")]) == (0, ["b"])
    books.close()


def test_rows_that_wait_are_written_once_the_disk_has_room_with_no_new_request(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.storage.sqlite.ledger.RETRY_S", 0.005)

    async def work(ledger: Ledger, watched: Disk) -> None:
        watched.room = 0
        with pytest.raises(LedgerFault):
            await ledger.settle(row("a"))
        watched.room = None
        await until(lambda: not ledger.waiting)

    with disk() as watched:
        ledger = Ledger(data, start=in_a_thread)
        asyncio.run(work(ledger, watched))
        ledger.close()
    books = UsageReader(data)
    assert books.generation("a") == row("a")
    books.close()


def test_a_disk_that_fills_up_midway_loses_no_row(data: Path) -> None:
    """It is full after any number of bytes, again and again; a transaction is whole or not there."""
    dice = random.Random(3)

    async def work(ledger: Ledger, watched: Disk) -> list[str]:
        admitted: list[str] = []

        async def one(id: str) -> None:
            with contextlib.suppress(LedgerFault):
                await ledger.open(mark(id))
                admitted.append(id)
                await ledger.settle(row(id))

        for n in range(60):
            watched.room = dice.choice((None, dice.randrange(60_000)))
            await asyncio.gather(*(one(f"x{n}-{i}") for i in range(3)))
        watched.room = None
        return admitted

    with disk() as watched:
        ledger = Ledger(data, start=in_a_thread)
        admitted = asyncio.run(work(ledger, watched))
        assert ledger.close() == 0
    assert 0 < len(admitted) < 180
    books = UsageReader(data)
    assert sorted(r.request_id for r in books.session("s")) == sorted(admitted)
    assert (books.intents(), books.audit()) == (0, [])
    books.close()


def test_close_says_how_many_rows_a_dead_disk_kept_out_and_their_marks_remain(data: Path) -> None:
    async def work(ledger: Ledger, watched: Disk) -> None:
        await ledger.open(mark("a"))
        watched.fault = apsw.IOError
        ledger.settle_soon(row("a"))

    with disk() as watched:
        ledger = Ledger(data, start=in_a_thread)
        asyncio.run(work(ledger, watched))
        assert ledger.close(patience_s=0.01) == 1
        watched.fault = None
    later = Ledger(data)
    assert later.recover() == 1
    later.close()
    books = UsageReader(data)
    found = books.generation("a")
    assert found is not None and found.basis == "recovered"
    books.close()


def test_rows_beyond_the_bound_are_counted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.storage.sqlite.ledger.MAX_WAITING", 5)

    async def work(ledger: Ledger, watched: Disk) -> None:
        watched.fault = apsw.FullError
        told = await asyncio.gather(
            *(ledger.settle(row(f"a{n}")) for n in range(8)), return_exceptions=True
        )
        assert all(isinstance(t, LedgerFault) for t in told)
        assert (ledger.waiting, ledger.dropped) == (5, 3)
        watched.fault = None

    with disk() as watched:
        ledger = Ledger(data, start=in_a_thread)
        asyncio.run(work(ledger, watched))
        assert ledger.close() == 0
    books = UsageReader(data)
    assert books.balances()[0].requests == 5
    books.close()
