"""The ledger: one row per exchange, through cancelled tasks, failing disks and killed processes."""

import asyncio
import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import apsw
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from disk import in_a_thread
from headgate.storage.errors import LedgerFault, LedgerRefused
from headgate.storage.figures import Balance, Spent, Where
from headgate.storage.rows import AttemptRecord, IntentRecord, LedgerRow
from headgate.storage.sqlite import writer
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader
from headgate.storage.sqlite.writer_process import start_process
from waiting import PATIENCE_S, pause_thread, until

HOUR = 3600
T = 1_800_000_000.0  # 2027-01-15 08:00 UTC, a whole hour

FULL = LedgerRow(
    request_id="x1",
    account="acme",
    key_id="K1",
    session="s-1",
    dialect="anthropic",
    model="MiniMax-M2.7",
    upstream="minimax",
    upstream_model="MiniMax-M2.7",
    stream=True,
    outcome="tool_calls",
    basis="upstream",
    status=200,
    started_at=T + 0.25,
    ended_at=T + 0.25 + 2.75,
    ttft_ms=310,
    input_tokens=3936,
    cached_tokens=3712,
    cache_write_tokens=8,
    output_tokens=120,
    reasoning_tokens=60,
    cost_nano_usd=433_920,
    price_version="2026-03-18.0a1b2c3d",
    service_tier="priority",
    attempts=(
        AttemptRecord("other", "m2", "overloaded", "1002", 40),
        AttemptRecord("minimax", "MiniMax-M2.7", "tool_calls", ms=2700),
    ),
    warnings=("seed", "stop"),
)


def row(id: str, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=id,
        key_id="K1",
        dialect="openai",
        model="M",
        upstream="up",
        outcome="stop",
        basis="upstream",
        started_at=T,
        ended_at=T,
        input_tokens=10,
        output_tokens=2,
        cost_nano_usd=5,
    )
    return msgspec.structs.replace(plain, **fields)


def mark(id: str, **fields: object) -> IntentRecord:
    return msgspec.structs.replace(
        IntentRecord(request_id=id, key_id="K1", dialect="openai", model="M", started_at=T),
        **fields,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Store(tmp_path / "data").close()
    return tmp_path / "data"


@pytest.fixture
def ledger(data: Path) -> Iterator[Ledger]:
    opened = Ledger(data)
    yield opened
    opened.close()


@pytest.fixture
def books(data: Path) -> Iterator[UsageReader]:
    """Every test that writes ends with an audit."""
    opened = UsageReader(data)
    yield opened
    assert opened.audit() == []
    opened.close()


def test_a_row_is_read_back_as_it_was_written(ledger: Ledger, books: UsageReader) -> None:
    asyncio.run(ledger.settle(FULL))
    assert books.generation("x1") == FULL
    assert books.generation("x2") is None
    assert books.session("s-1") == [FULL]


def test_settling_puts_the_row_in_the_place_of_its_mark(ledger: Ledger, books: UsageReader) -> None:
    async def exchange() -> None:
        await ledger.open(mark("a"))
        assert (books.intents(), books.generation("a")) == (1, None)
        await ledger.settle(row("a"))
        assert (books.intents(), books.generation("a")) == (0, row("a"))

    asyncio.run(exchange())


def test_a_second_row_with_the_same_id_changes_nothing(ledger: Ledger, books: UsageReader) -> None:
    async def twice() -> None:
        await ledger.settle(row("a", cost_nano_usd=5))
        await ledger.settle(row("a", cost_nano_usd=99))
        await asyncio.gather(*(ledger.settle(row("a", output_tokens=n)) for n in range(20)))

    asyncio.run(twice())
    assert books.session("") == []
    assert books.generation("a") == row("a", cost_nano_usd=5)
    assert books.balances() == [Balance("", "K1", 1, 0, 5)]


def test_rows_that_come_together_are_one_transaction(
    data: Path, books: UsageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    insert = writer.insert
    monkeypatch.setattr(writer, "insert", lambda db, e: (groups.append(len(e)), insert(db, e))[1])
    ledger = Ledger(data, start=in_a_thread)
    many(ledger, [row(f"a{n}") for n in range(300)])
    ledger.close()
    assert groups == [300]
    assert books.balances()[0].requests == 300


def test_a_cancelled_settle_is_still_written(ledger: Ledger, books: UsageReader) -> None:
    async def hang_up() -> None:
        await ledger.open(mark("a"))
        task = asyncio.create_task(ledger.settle(row("a")))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(hang_up())
    ledger.close()
    assert books.generation("a") == row("a")
    assert books.intents() == 0


def test_a_row_settled_while_its_open_was_cancelled_leaves_no_mark(
    ledger: Ledger, books: UsageReader
) -> None:
    async def hang_up() -> None:
        task = asyncio.create_task(ledger.open(mark("a")))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        ledger.settle_soon(row("a", outcome="client_gone", basis="none"))

    asyncio.run(hang_up())
    ledger.close()
    assert books.intents() == 0
    found = books.generation("a")
    assert found is not None and found.outcome == "client_gone"


def test_close_writes_what_was_left_for_soon(ledger: Ledger, books: UsageReader) -> None:
    async def leave() -> None:
        for n in range(2000):
            ledger.settle_soon(row(f"a{n}"))

    asyncio.run(leave())
    assert ledger.close() == 0
    assert books.balances() == [Balance("", "K1", 2000, 0, 10_000)]
    with pytest.raises(LedgerFault):
        ledger.settle_soon(row("late"))


def test_a_row_is_never_changed_or_deleted(ledger: Ledger, books: UsageReader, data: Path) -> None:
    asyncio.run(ledger.settle(row("a")))
    db = apsw.Connection(str(data / "headgate.db"))
    for wish in (
        "update ledger set cost_nano_usd = 1",
        "delete from ledger",
        "delete from ledger where request_id = 'a'",
        "replace into ledger select * from ledger",
    ):
        db.execute("pragma recursive_triggers = on")
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            db.execute(wish)
    assert books.generation("a") == row("a")


def test_a_row_that_breaks_the_schema_does_not_hold_up_the_others(
    ledger: Ledger, books: UsageReader
) -> None:
    async def mixed() -> list[object]:
        await ledger.open(mark("bad"))
        rows = [
            row("a"),
            row("bad", input_tokens=-1),
            row("b"),
            row("c", basis="guessed"),
            row("d"),
            row("e", cost_nano_usd=2**70),
            row("f", started_at=float("nan")),
            row("g", input_tokens=2**63),
        ]
        return await asyncio.gather(*map(ledger.settle, rows), return_exceptions=True)

    told = asyncio.run(mixed())
    kinds = [bytes, LedgerRefused] * 2 + [bytes] + [LedgerRefused] * 3
    assert [type(t) for t in told] == kinds
    assert (ledger.refused, ledger.waiting) == (5, 0)
    assert books.balances()[0].requests == 3
    assert books.intents() == 1  # so that it becomes a row all the same


@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800", "=cmd\n", "x" * 100_000, "'; drop table ledger"]
)
def test_whatever_a_client_calls_its_session_is_kept_as_harmless_text(
    ledger: Ledger, books: UsageReader, text: str
) -> None:
    async def exchange() -> None:
        await ledger.open(mark("a", session=text))
        await ledger.settle(
            row("a", session=text, warnings=(text,), attempts=(AttemptRecord(text, "", ""),))
        )

    asyncio.run(exchange())
    found = books.generation("a")
    assert found is not None
    kept = "".join(c if c.isprintable() else "?" for c in text[:256])
    assert (found.session, found.warnings, found.attempts[0].upstream) == (kept, (kept,), kept)
    assert books.session(kept) == [found]


def test_an_unknown_price_is_null_and_counted_apart(ledger: Ledger, books: UsageReader) -> None:
    async def two() -> None:
        await ledger.settle(row("a", cost_nano_usd=None))
        await ledger.settle(row("b", cost_nano_usd=0))

    asyncio.run(two())
    found = books.generation("a")
    assert found is not None and found.cost_nano_usd is None
    assert books.balances() == [Balance("", "K1", 2, 1, 0)]
    assert books.usage("key") == [Spent("K1", 2, 1, 20, 0, 0, 4, 0, 0)]


def test_a_loop_that_is_never_idle_does_not_starve_the_writer(
    ledger: Ledger, books: UsageReader
) -> None:
    """With a writer thread beside it this took from several seconds to minutes."""

    async def work() -> None:
        busy = True

        async def burn() -> None:
            while busy:
                sum(range(1000))
                await asyncio.sleep(0)

        burning = [asyncio.create_task(burn()) for _ in range(4)]
        async with asyncio.timeout(2 * PATIENCE_S):
            for n in range(100):
                await ledger.settle(row(f"a{n}"))
        busy = False
        await asyncio.gather(*burning)

    asyncio.run(work())
    assert books.balances()[0].requests == 100


def test_a_database_of_the_first_schema_keeps_its_keys(tmp_path: Path) -> None:
    data = tmp_path / "old"
    data.mkdir()
    (data / "pepper").write_bytes(bytes(32))
    old = apsw.Connection(str(data / "headgate.db"))
    old.execute(files("headgate.storage.sqlite").joinpath("schema", "001.sql").read_text("utf-8"))
    old.execute("pragma user_version = 1")
    old.execute("insert into keys (id, name, mac, created_s) values ('k', 'team', zeroblob(32), 1)")
    old.close()
    store = Store(data)
    assert [key.name for key in store.keys()] == ["team"]  # noqa: SIM118
    store.close()
    ledger = Ledger(data)
    many(ledger, [row("a")])
    ledger.close()
    books = UsageReader(data)
    assert (books.audit(), books.generation("a")) == ([], row("a"))
    books.close()


def test_a_database_from_before_disputes_takes_disputed_rows_and_keeps_its_own(
    tmp_path: Path,
) -> None:
    data = tmp_path / "old"
    data.mkdir()
    (data / "pepper").write_bytes(bytes(32))
    old = apsw.Connection(str(data / "headgate.db"))
    for number in range(1, 7):
        script = files("headgate.storage.sqlite").joinpath("schema", f"{number:03}.sql")
        old.execute(script.read_text("utf-8"))
    old.execute("pragma user_version = 6")
    old.execute(
        "insert into ledger values (null, 'first', '', 'k', '', 'openai', 'm', 'u', 'um', 0, 'stop',"
        " 'upstream', 200, 1.0, null, 1, 5, 0, 0, 6, 0, 7, 'v', '', '[]', '[]')",
    )
    other = apsw.Connection(str(data / "headgate.db"))  # reads on while the schema changes
    other.execute("select * from ledger").fetchall()
    Store(data).close()
    ledger, books = Ledger(data), UsageReader(data)

    async def write() -> list[object]:
        rows = [row("second", basis="disputed"), row("third", basis="guessed")]
        return await asyncio.gather(*map(ledger.settle, rows), return_exceptions=True)

    told = asyncio.run(write())
    assert [type(t) for t in told] == [bytes, LedgerRefused]
    assert (books.disputed(), books.audit()) == (1, [])
    assert other.execute("select count(*) from ledger").get == 2
    with pytest.raises(apsw.ConstraintError):
        other.execute("update ledger set basis = 'none'")
    ledger.close()
    books.close()
    other.close()
    old.close()


def test_a_row_is_no_change_of_the_keys(ledger: Ledger, data: Path) -> None:
    store = Store(data)
    before = store.data_version()
    many(ledger, [row("a")])
    assert store.data_version() == before
    store.create_key("k", now_s=1)
    assert store.data_version() != before
    store.close()


# marks of dead processes


def abandon(ledger: Ledger) -> None:
    """As if its edge were killed: the socket ends, the lock is gone, its file and its marks stay."""
    ledger._attach(None)
    ledger._closed = True
    assert ledger._sock is not None and ledger._writer is not None
    ledger._sock.close()
    file = ledger._live._file
    assert file is not None
    os.close(file)
    ledger._live._file = None


def test_intents_of_a_dead_process_become_recovered_rows(data: Path, books: UsageReader) -> None:
    dead = Ledger(data)

    async def work() -> None:
        await dead.open(mark("a", account="acme", session="s", upstream="up", stream=True))
        await dead.open(mark("b"))
        await dead.settle(row("b"))
        await dead.open(
            mark("c", input_tokens=10, output_tokens=64, cost_nano_usd=480, price_version="v")
        )
        await dead.settle(row("d"))

    asyncio.run(work())
    abandon(dead)
    live = Ledger(data)
    assert live.recover() == 2
    assert live.recover() == 0
    live.close()
    assert books.intents() == 0
    a, c = books.generation("a"), books.generation("c")
    assert a is not None and c is not None
    assert (a.basis, a.outcome, a.status, a.cost_nano_usd) == ("recovered", "crashed", 0, 0)
    assert (a.account, a.session, a.upstream, a.stream) == ("acme", "s", "up", True)
    assert (c.input_tokens, c.output_tokens, c.cost_nano_usd, c.price_version) == (10, 64, 480, "v")
    assert list((data / "live").iterdir()) == []


def test_two_live_processes_do_not_take_each_others_marks(data: Path, books: UsageReader) -> None:
    one, two = Ledger(data), Ledger(data)

    async def work() -> None:
        await one.open(mark("a"))
        await two.open(mark("b"))
        assert (one.recover(), two.recover()) == (0, 0)
        await one.settle(row("a"))
        await two.settle(row("b"))

    asyncio.run(work())
    one.close()
    two.close()
    assert [books.generation(id) for id in "ab"] == [row("a"), row("b")]


def test_a_mark_left_by_an_orderly_end_is_recovered_too(data: Path, books: UsageReader) -> None:
    one = Ledger(data)
    asyncio.run(one.open(mark("a")))
    one.close()
    two = Ledger(data)
    assert two.recover() == 1
    two.close()


def test_the_files_of_killed_processes_that_left_no_mark_are_swept(data: Path) -> None:
    abandon(Ledger(data))
    two = Ledger(data)
    assert len(list((data / "live").iterdir())) == 4
    assert two.recover() == 0
    boot = two._live.instance_id
    assert sorted(f.name for f in (data / "live").iterdir()) == [boot, f"{boot}.writer"]
    two.close()


@contextlib.contextmanager
def stopped(ledger: Ledger) -> Iterator[int]:
    """The writer hangs, as in a disk that does not answer."""
    pid = ledger.writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_was_sent_before_the_edge_died_is_still_written(
    data: Path, books: UsageReader
) -> None:
    dead = Ledger(data)
    asyncio.run(dead.open(mark("a")))
    with stopped(dead):
        dead.settle_soon(row("a"))
        dead.settle_soon(row("b"))
        abandon(dead)
    live = Ledger(data)
    assert live.recover() == 0  # it waited for the old writer
    live.close()
    assert [books.generation(id) for id in "ab"] == [row("a"), row("b")]


def test_marks_are_left_alone_while_the_writer_of_a_dead_edge_may_still_write(
    data: Path, books: UsageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, live = Ledger(data), Ledger(data)
    asyncio.run(dead.open(mark("a")))
    with stopped(dead):
        abandon(dead)
        monkeypatch.setattr("headgate.storage.sqlite.process_lock.ORPHAN_WAIT_S", 0.0)
        assert (live.recover(), books.intents()) == (0, 1)
        monkeypatch.undo()
    assert live.recover() == 1
    live.close()


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_writer_ends_with_its_ledger_and_with_nothing_else(ledger: Ledger) -> None:
    pid = ledger.writer_pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # also before it has begun
        os.kill(pid, number)
    many(ledger, [row("a")])
    assert (ledger.writer_pid, ledger.started) == (pid, 1)
    ledger.close()
    assert ended(pid)


def test_a_writer_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled(
    ledger: Ledger, books: UsageReader
) -> None:
    async def work() -> None:
        async def one(id: str) -> None:
            await ledger.open(mark(id))
            await ledger.settle(row(id))

        async def kill() -> None:
            for n in range(5):
                await ledger.settle(row(f"k{n}"))
                pid = ledger.writer_pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)

        await asyncio.gather(kill(), *(one(f"a{n}") for n in range(400)))

    asyncio.run(work())
    assert ledger.started >= 5  # after the last one there may be nothing left to do
    assert books.balances()[0].requests == 405
    assert books.intents() == 0


def test_close_replaces_a_writer_that_has_died(ledger: Ledger, books: UsageReader) -> None:
    many(ledger, [row("a")])
    with stopped(ledger) as pid:
        ledger.settle_soon(row("b"))
        os.kill(pid, signal.SIGKILL)
    assert ledger.close() == 0
    assert books.generation("b") == row("b")


def test_a_writer_that_does_not_answer_refuses_new_exchanges_and_keeps_the_old(
    ledger: Ledger, books: UsageReader, monkeypatch: pytest.MonkeyPatch
) -> None:

    async def work() -> None:
        await ledger.open(mark("a"))
        monkeypatch.setattr("headgate.storage.sqlite.ledger.PATIENCE_S", 0.1)
        with stopped(ledger):
            told = await asyncio.gather(
                ledger.open(mark("new")), ledger.settle(row("a")), return_exceptions=True
            )
            assert [type(t) for t in told] == [LedgerFault] * 2
            with pytest.raises(LedgerFault):  # at once
                await ledger.open(mark("newer"))
            with pytest.raises(LedgerFault):
                await ledger.settle(row("b"))
            await asyncio.sleep(0)
            assert ledger.waiting == 3  # two rows, and the mark that is withdrawn
        monkeypatch.undo()  # a writer that is only slow must not be replaced
        await until(lambda: not ledger.waiting)
        await ledger.open(mark("c"))
        await ledger.settle(row("c"))

    asyncio.run(work())
    assert books.balances()[0].requests == 3
    assert books.intents() == 0


def test_each_row_is_heard_of_once_it_is_on_the_disk_and_not_before(
    ledger: Ledger, books: UsageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def on_commit(id: str) -> None:
        assert books.generation(id) is not None
        heard.append(id)

    async def work() -> None:
        ledger.on_commit = on_commit
        await ledger.open(mark("a"))
        await ledger.settle(row("a"))
        assert heard == ["a"]  # and nothing of the mark
        monkeypatch.setattr("headgate.storage.sqlite.ledger.PATIENCE_S", 0.1)
        with stopped(ledger):
            ledger.settle_soon(row("soon"))
            with pytest.raises(LedgerFault):
                await ledger.settle(row("late"))
            assert heard == ["a"]
        await until(lambda: not ledger.waiting)
        await asyncio.gather(
            ledger.settle(row("fine")),
            ledger.settle(row("bad", input_tokens=-1)),
            return_exceptions=True,
        )

    asyncio.run(work())
    assert sorted(heard) == ["a", "fine", "late", "soon"]


def test_a_loop_that_was_late_itself_does_not_blame_the_writer(
    ledger: Ledger, books: UsageReader
) -> None:
    async def work() -> None:
        await ledger.open(mark("a"))
        settling = asyncio.create_task(ledger.settle(row("a")))
        for _ in range(3):
            await asyncio.sleep(0)
        assert select.select([ledger._sock], [], [], 20)[0]  # answered, and not yet heard
        ledger._heard -= 60
        ledger._look()
        await settling

    asyncio.run(work())
    assert books.generation("a") == row("a")


def test_a_writer_that_cannot_be_started_again_is_tried_until_it_can(
    data: Path, books: UsageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.storage.sqlite.ledger.RETRY_S", 0.01)
    full = False

    def start(*args: Any) -> Any:
        if full:
            raise OSError("no more processes")
        return start_process(*args)

    ledger = Ledger(data, start=start)

    async def work() -> None:
        nonlocal full
        await ledger.open(mark("a"))
        monkeypatch.setattr("headgate.storage.sqlite.ledger.PATIENCE_S", 0.1)
        pid = ledger.writer_pid
        assert pid is not None
        full = True
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(LedgerFault):
            await ledger.settle(row("a"))
        full = False
        # A writer that is only slow must not be replaced.
        monkeypatch.setattr("headgate.storage.sqlite.ledger.PATIENCE_S", PATIENCE_S)
        await until(lambda: not ledger.waiting)

    asyncio.run(work())
    ledger.close()
    assert books.generation("a") == row("a")
    with pytest.raises(LedgerFault):
        full = True
        Ledger(data, start=start)


@pytest.mark.parametrize("whom", ["edge", "writer", "both"])
def test_killed_again_and_again_no_acknowledged_row_is_lost_or_doubled(
    data: Path, books: UsageReader, whom: str
) -> None:
    """SIGKILL at a random moment, 10 times; what each edge said it had done is compared.

    A writer is killed several times, and its edge in the end.
    """
    marked: set[str] = set()
    settled: set[str] = set()
    recovered = 0
    dice = random.Random(4)
    program = Path(__file__).parents[1] / "support" / "ledger_writer.py"
    for n in range(10):
        child = subprocess.Popen(
            [sys.executable, str(program), str(data), str(n)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("recovered"):
            lines.append(child.stdout.readline())
            assert lines[-1], "the program ended before it began"
        for _ in range(dice.randrange(8, 80)):
            lines.append(child.stdout.readline())
        pause_thread(dice.uniform(0.0, 0.02), "the kill comes at any moment")
        pids = [last(lines, child.stdout)] if whom == "writer" else []
        for _ in range(2 if pids else 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[-1], signal.SIGKILL)
            while (pid := last(lines, child.stdout)) == pids[-1]:
                pass
            pids.append(pid)
            pause_thread(dice.uniform(0.0, 0.08), "the kill comes at any moment")
        killed = [child.pid] if whom != "both" else [child.pid, last(lines, child.stdout)]
        for pid in dice.sample(killed, len(killed)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lines += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        for line in lines:
            word, _, value = line.strip().partition(" ")
            if word == "recovered":
                recovered += int(value)
            elif word != "writer":
                (marked if word == "marked" else settled).add(value)
    latest = Ledger(data)
    recovered += latest.recover()
    latest.close()
    assert len(settled) > 20 and recovered >= 10  # of each kill one, of most several
    rows = {r.request_id: r for n in range(5) for r in books.session(f"s{n}", most=10**6)}
    assert len(rows) == sum(b.requests for b in books.balances())
    assert marked | settled <= set(rows)
    for id in settled:
        n = int(id.rsplit("-", 1)[1])
        assert (rows[id].basis, rows[id].input_tokens, rows[id].cost_nano_usd) == (
            "upstream",
            n,
            7 * n,
        )
    assert sum(r.basis == "recovered" for r in rows.values()) == recovered
    assert books.intents() == 0
    assert list((data / "live").iterdir()) == []


def last(lines: list[str], out: IO[str]) -> int:
    """The number of the latest writer that was told, with one more line read."""
    lines.append(out.readline())
    return int([line for line in lines if line.startswith("writer")][-1].split()[1])


class Exchanges(RuleBasedStateMachine):
    """The ledger against two dictionaries: what is open, and what each row must say."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        Store(self.place.name).close()
        self.loop = asyncio.new_event_loop()
        self.ledger = Ledger(self.place.name)
        self.open: dict[str, IntentRecord] = {}
        self.rows: dict[str, LedgerRow] = {}
        self.left: dict[str, IntentRecord] = {}  # by processes that died
        self.count = 0

    def settled(self, id: str, cost: int | None, soon: bool) -> None:
        new = row(
            id, cost_nano_usd=cost, key_id=f"K{self.count % 3}", started_at=T + 1800 * self.count
        )
        if soon:
            self.ledger.settle_soon(new)
        else:
            self.loop.run_until_complete(self.ledger.settle(new))
        self.rows.setdefault(id, new)
        self.open.pop(id, None)

    @rule(floor=st.integers(0, 9))
    def begin(self, floor: int) -> None:
        self.count += 1
        new = mark(f"x{self.count}", cost_nano_usd=floor)
        self.loop.run_until_complete(self.ledger.open(new))
        self.open[new.request_id] = new

    @rule(cost=st.none() | st.integers(0, 10**12), soon=st.booleans())
    @precondition(lambda self: self.open)
    def settle(self, cost: int | None, soon: bool) -> None:
        self.settled(next(reversed(self.open)), cost, soon)

    @rule(cost=st.integers(0, 9), soon=st.booleans())
    @precondition(lambda self: self.rows)
    def settle_again(self, cost: int, soon: bool) -> None:
        self.settled(next(iter(self.rows)), cost, soon)

    @rule()
    def settle_what_was_never_opened(self) -> None:
        self.count += 1
        self.settled(f"x{self.count}", 3, False)

    @rule()
    def die(self) -> None:
        abandon(self.ledger)
        self.ledger = Ledger(self.place.name)
        self.left |= self.open
        self.open = {}

    @rule()
    def recover(self) -> None:
        assert self.ledger.recover() == len(self.left)
        self.rows |= {id: left.recovered() for id, left in self.left.items()}
        self.left = {}

    @rule()
    def restart(self) -> None:
        assert self.ledger.close() == 0
        self.left |= self.open
        self.open = {}
        self.ledger = Ledger(self.place.name)

    @rule()
    def compare(self) -> None:
        self.settled("last", 0, False)  # what was left for soon is committed before it
        self.ledger.recover()
        self.rows |= {id: left.recovered() for id, left in self.left.items()}
        self.left = {}
        books = UsageReader(self.place.name)
        assert books.audit() == []
        assert books.intents() == len(self.open)
        for id in {*self.rows, *self.open}:
            assert books.generation(id) == self.rows.get(id)
        spent = sum(b.spent_nano_usd for b in books.balances())
        assert spent == sum(r.cost_nano_usd or 0 for r in self.rows.values())
        assert sum(s.requests for s in books.usage("model")) == len(self.rows)
        books.close()

    def teardown(self) -> None:
        self.compare()
        self.ledger.close()
        self.loop.close()
        self.place.cleanup()


TestExchanges = Exchanges.TestCase
TestExchanges.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


# usage


def many(ledger: Ledger, rows: list[LedgerRow]) -> None:
    async def work() -> None:
        await asyncio.gather(*map(ledger.settle, rows))

    asyncio.run(work())


def test_usage_is_by_key_model_day_session_and_upstream(ledger: Ledger, books: UsageReader) -> None:
    rows = [
        row("a", key_id="K1", model="M1", upstream="u", session="s"),
        row(
            "b",
            key_id="K2",
            model="M1",
            upstream="v",
            cost_nano_usd=50,
            cached_tokens=9,
            reasoning_tokens=1,
        ),
        row("c", key_id="K1", model="M2", upstream="u", session="s", started_at=T + 20 * HOUR),
    ]
    many(ledger, rows)
    k1 = Spent("K1", 2, 0, 20, 0, 0, 4, 0, 10)
    k2 = Spent("K2", 1, 0, 10, 9, 0, 2, 1, 50)
    assert books.usage("key") == [k2, k1]
    assert [s.name for s in books.usage("model")] == ["M1", "M2"]
    assert [(s.name, s.requests) for s in books.usage("day")] == [
        ("2027-01-15", 2),
        ("2027-01-16", 1),
    ]
    assert [(s.name, s.cost_nano_usd) for s in books.usage("session")] == [("", 50), ("s", 10)]
    assert [(s.name, s.cost_nano_usd) for s in books.usage("upstream")] == [("v", 50), ("u", 10)]
    assert books.usage("key", where=Where(key_id="K1")) == [k1]
    assert books.usage("key", most=1) == [k2]
    assert books.usage("key", T + HOUR, T + 2 * HOUR) == []


moments = st.one_of(
    st.integers(0, 5 * HOUR).map(lambda n: T + n / 4), st.integers(0, 5).map(lambda n: T + n * HOUR)
)


@settings(max_examples=25, deadline=None)
@given(
    began=st.lists(moments, max_size=30), spans=st.lists(st.tuples(moments, moments), max_size=8)
)
def test_usage_is_exact_for_any_span_though_it_is_kept_by_hours(
    began: list[float], spans: list[tuple[float, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("span")
    Store(data).close()
    ledger = Ledger(data)
    many(ledger, [row(f"a{n}", started_at=b, key_id=f"K{n % 2}") for n, b in enumerate(began)])
    ledger.close()
    books = UsageReader(data)
    for since, before in spans:
        for by in ("model", "session"):
            for key in (None, "K1"):
                found = sum(
                    s.requests for s in books.usage(by, since, before, where=Where(key_id=key))
                )
                wanted = [since <= b < before and (not key or n % 2) for n, b in enumerate(began)]
                assert found == sum(map(bool, wanted))
    assert books.audit() == []
    books.close()


def test_a_session_of_one_key_is_not_shown_to_another(ledger: Ledger, books: UsageReader) -> None:
    many(ledger, [row("a", key_id="K1", session="s"), row("b", key_id="K2", session="s")])
    assert [r.request_id for r in books.session("s", "K2")] == ["b"]
    assert sorted(r.request_id for r in books.session("s")) == ["a", "b"]


# audit


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ("update balance set spent_nano_usd = spent_nano_usd - 1", "balance account -, key_id K1"),
        (
            "delete from by_hour",
            "by_hour hour 500000, account -, key_id K1, model M, upstream up, outcome stop",
        ),
        (
            "update by_session set output_tokens = 0",
            "by_session hour 500000, session -, account -, key_id K1",
        ),
        ("insert into balance values ('', 'K9', 1, 0, 1)", "balance account -, key_id K9"),
        (
            "drop trigger ledger_keeps_figures; update ledger set cost_nano_usd = 4 where request_id = 'b'",
            "balance account -, key_id K1",
        ),
        (
            "drop trigger ledger_keeps_rows; delete from ledger where request_id = 'b'",
            "rows of the ledger",
        ),
        ("insert into intents values ('b', 'boot', '{}')", "exchange b"),
    ],
)
def test_the_audit_finds_what_was_tampered_with(data: Path, damage: str, where: str) -> None:
    ledger = Ledger(data)
    many(ledger, [row("a")])
    many(ledger, [row("b")])
    many(ledger, [row("c")])
    ledger.close()
    books = UsageReader(data)
    assert books.audit() == []
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute(damage)
    db.close()
    assert where in [d.where for d in books.audit()]
    books.close()


def test_the_audit_says_both_figures(data: Path) -> None:
    ledger = Ledger(data)
    many(ledger, [row("a")])
    ledger.close()
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute("update balance set spent_nano_usd = 4")
    db.close()
    books = UsageReader(data)
    (found,) = books.audit()
    assert (found.rows, found.stored) == ("spent_nano_usd 5", "spent_nano_usd 4")
    books.close()


# backup


def test_a_backup_taken_while_rows_are_written_is_a_sound_database(
    ledger: Ledger, books: UsageReader, data: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        await ledger.open(mark("running"))
        for n in range(3000):
            ledger.settle_soon(row(f"a{n}"))
        await ledger.settle(row("first"))

    asyncio.run(work())
    copy = tmp_path / "copy"
    copy.mkdir()
    books.backup(copy / "headgate.db")
    assert [f.name for f in copy.iterdir()] == ["headgate.db"]
    (copy / "pepper").write_bytes((data / "pepper").read_bytes())
    Store(copy).close()
    restored = Ledger(copy)
    assert restored.recover() == 1  # it was running when the copy was taken
    restored.close()
    reader = UsageReader(copy)
    assert reader.audit() == []
    assert reader.balances()[0].requests == 3002
    reader.close()
    ledger.settle_soon(row("running"))


def test_a_ledger_whose_writers_end_one_after_the_other_says_so(data: Path) -> None:
    def dying(sock: Any, lock: int, orders: Any) -> Any:
        return subprocess.Popen(
            [sys.executable, "-c", "pass"], stdin=sock.fileno(), pass_fds=(lock,)
        )

    async def work() -> None:
        broken = Ledger(data, start=dying)
        assert broken.fault == ""
        broken.settle_soon(row("a"))
        await until(lambda: "ended" in broken.fault or "taken" in broken.fault)
        assert broken.started >= 2
        broken._start = start_process
        await until(lambda: not broken.fault)
        assert broken.close() == 0

    asyncio.run(asyncio.wait_for(work(), 60))
