"""What a key sees of its session while rows are on their way to the database of all nodes."""

import asyncio
from pathlib import Path

import pytest

from headgate.edge.key_reports import KeyReports
from headgate.storage.errors import StoreFault
from headgate.storage.figures import SessionSum
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader

T = 1_800_000_000.0


def row(id: str, session: str = "") -> LedgerRow:
    return LedgerRow(
        request_id=id,
        key_id="K1",
        session=session,
        dialect="openai",
        model="M",
        outcome="stop",
        basis="upstream",
        started_at=T,
        ended_at=T,
        input_tokens=10,
        output_tokens=2,
        cost_nano_usd=5,
    )


def write(data: Path, rows: list[LedgerRow]) -> None:
    ledger = Ledger(data)

    async def work() -> None:
        for each in rows:
            await ledger.settle(each)

    asyncio.run(work())
    ledger.close()


class Everywhere(UsageReader):
    """The ledger of all nodes, as far as rows have arrived; SQLite's reader plays it."""

    away = False

    def nodes_of(self, ids: object) -> dict[str, str]:
        if self.away:
            raise StoreFault("away")
        return dict.fromkeys(self.recorded(list(ids)), "n1")  # type: ignore[call-overload]

    def generation(self, id: str) -> LedgerRow | None:
        if self.away:
            raise StoreFault("away")
        return super().generation(id)

    def spent_by_key(self, id: str) -> int:
        if self.away:
            raise StoreFault("away")
        return super().spent_by_key(id)


def ledger(place: Path, rows: list[LedgerRow]) -> Path:
    Store(place).close()
    write(place, rows)
    return place


def test_rows_that_are_not_sent_yet_are_added_once(tmp_path: Path) -> None:
    mine = [row(f"m{n}", session="s") for n in range(3)]
    own = UsageReader(ledger(tmp_path / "own", mine))
    there = [row("x0", session="s"), mine[0], mine[1], row("x1", session="s")]
    everywhere = Everywhere(ledger(tmp_path / "all", there))
    reports = KeyReports(own, everywhere)
    sums, rows, more = reports.session("s", "K1", 10, "")
    assert [r.request_id for r in rows] == ["x0", "m0", "m1", "x1", "m2"] and not more
    assert sums == SessionSum(5, 0, 50, 0, 10, 25)
    sums, rows, more = reports.session("s", "K1", 3, "")
    assert [r.request_id for r in rows] == ["x0", "m0", "m1"] and more
    assert sums.requests == 5
    _, rows, more = reports.session("s", "K1", 3, "m1")
    assert [r.request_id for r in rows] == ["x1", "m2"] and not more
    for each in ("m2", "x1"):
        found = reports.generation(each)
        assert found is not None and found.request_id == each
    own.close()
    everywhere.close()


def test_a_row_that_arrives_between_two_looks_is_counted_once(tmp_path: Path) -> None:
    mine = [row("a", session="s"), row("b", session="s")]
    own = UsageReader(ledger(tmp_path / "own", mine))
    place = ledger(tmp_path / "all", [mine[0]])

    class Arriving(Everywhere):
        def session_sum(self, id: str, key: str) -> SessionSum:
            write(place, [mine[1]])  # a second time changes nothing
            return super().session_sum(id, key)

    everywhere = Arriving(place)
    sums, rows, _ = KeyReports(own, everywhere).session("s", "K1", 10, "")
    assert sums.requests == 2 and [r.request_id for r in rows] == ["a", "b"]
    own.close()
    everywhere.close()


def test_a_database_that_is_away_is_not_taken_for_one_without_the_row(tmp_path: Path) -> None:
    own = UsageReader(ledger(tmp_path / "own", [row("a", session="s")]))
    everywhere = Everywhere(ledger(tmp_path / "all", [row("a", session="s"), row("x")]))
    reports = KeyReports(own, everywhere)
    assert reports.spent("K1") == (10, "all_nodes")
    everywhere.away = True
    assert reports.generation("a") is not None
    assert reports.spent("K1") == (5, "this_node")
    for ask in (lambda: reports.generation("x"), lambda: reports.session("s", "K1", 10, "")):
        with pytest.raises(StoreFault):
            ask()
    assert KeyReports(own).spent("K1") == (5, "")
    own.close()
    everywhere.close()
