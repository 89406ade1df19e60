"""The snapshot of the keys: read again after a failure, and refused once it is too old."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from headgate.catalog import building
from headgate.config import loading
from headgate.edge import context as gates
from headgate.edge.context import EdgeContext
from headgate.edge.log import Log
from headgate.errors import Refused
from headgate.storage.errors import StoreFault
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader
from waiting import until

Main = Callable[[EdgeContext, str], Awaitable[None]]


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Callable[[Main], None]]:
    def run(main: Main) -> None:
        env = {"MINIMAX_API_KEY": "k"}
        settings = loading.load(None, env, data=str(tmp_path / "data"))

        async def bounded() -> None:
            store = Store(settings.data)
            _, text = store.create_key("test", now_s=time.time())
            ledger, books = Ledger(settings.data), UsageReader(settings.data)
            catalog = building.load(settings, env)
            gate = EdgeContext(settings, catalog, store, ledger, books, Log("off"))
            try:
                async with asyncio.timeout(30):
                    await main(gate, text)
            finally:
                await gate.close()
                books.close()
                ledger.close()
                store.close()

        asyncio.run(bounded())

    yield run


def refusal(gate: EdgeContext, text: str) -> str:
    with pytest.raises(Refused) as found:
        gate.credentials.authenticate(text)
    return found.value.failure.code


def test_a_load_that_failed_is_tried_again_though_the_version_is_the_same(
    inside: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(gate: EdgeContext, text: str) -> None:
        gate.storage.store.revoke(text[8:16], now_s=time.time())
        with monkeypatch.context() as broken:

            def ring() -> None:
                raise StoreFault("disk I/O error")

            broken.setattr(gate.storage.store, "ring", ring)
            with pytest.raises(StoreFault):
                await gate.refresh()
        assert gate.credentials.authenticate(text).name == "test"
        await gate.refresh()
        assert refusal(gate, text) == "invalid_api_key"

    inside(main)


def test_the_watch_goes_on_after_a_fault_and_says_so(
    inside: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "POLL_S", 0.01)
    monkeypatch.setattr("headgate.tasks.BACKOFF_S", (0.01,))

    async def main(gate: EdgeContext, text: str) -> None:
        with monkeypatch.context() as broken:

            def version() -> int:
                raise StoreFault("disk I/O error")

            broken.setattr(gate.storage.store, "data_version", version)
            gate.watch()
            await until(lambda: gate.tasks.failures["keys"] >= 3)
        page = gate.reporting.metrics.page().decode()
        assert 'headgate_task_failures_total{task="keys"}' in page
        Store(gate.served.settings.data).revoke(text[8:16], now_s=time.time())
        await until(lambda: gate.credentials.ring.authenticate(text, time.time()) is None)

    inside(main)


def test_keys_that_were_not_checked_for_too_long_open_nothing(
    inside: Callable[[Main], None],
) -> None:
    async def main(gate: EdgeContext, text: str) -> None:
        gate.credentials.checked_s = time.monotonic() - gates.STALE_S - 1
        assert refusal(gate, text) == "storage_unavailable"
        assert "has not been read" in gate.unready()
        with pytest.raises(Refused) as found:
            await gate.credentials.key_of(text)
        assert found.value.failure.status == 503 and found.value.failure.retry_after_s
        await gate.refresh()
        assert gate.credentials.authenticate(text).name == "test" and not gate.unready()

    inside(main)


def test_a_key_that_was_created_a_moment_ago_is_looked_for_once_for_all_who_ask(
    inside: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(gate: EdgeContext, text: str) -> None:
        looks = 0
        look = gate.storage.store.data_version

        def counted() -> int:
            nonlocal looks
            looks += 1
            return look()

        monkeypatch.setattr(gate.storage.store, "data_version", counted)
        _, fresh = Store(gate.served.settings.data).create_key("fresh", now_s=time.time())
        found = await asyncio.gather(*(gate.credentials.key_of(fresh) for _ in range(50)))
        assert {key.name for key in found} == {"fresh"}
        assert looks <= 2
        with pytest.raises(Refused):
            await gate.credentials.key_of("mistyped")
        assert looks <= 2

    inside(main)


def test_a_database_that_was_replaced_is_not_taken_for_the_old_one(
    inside: Callable[[Main], None],
) -> None:
    async def main(gate: EdgeContext, text: str) -> None:
        path = Path(gate.served.settings.data) / "headgate.db"
        away = path.with_name("away")
        path.rename(away)
        with pytest.raises(StoreFault):
            await gate.refresh()
        path.write_bytes(away.read_bytes())
        with pytest.raises(StoreFault, match="was replaced"):
            await gate.refresh()
        away.rename(path)
        await gate.refresh()

    inside(main)
