"""Background tasks go on after an error, and tell of it."""

import asyncio

import pytest

from headgate import tasks
from headgate.tasks import Tasks


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BACKOFF_S", (0.0,))


def test_a_round_that_fails_is_counted_and_reported_and_the_next_one_comes() -> None:
    async def main() -> None:
        reported: list[tuple[str, str]] = []
        running = Tasks(lambda name, error: reported.append((name, repr(error))))
        rounds, done = 0, asyncio.Event()

        async def work() -> None:
            nonlocal rounds
            rounds += 1
            if rounds <= 3:
                raise ValueError(rounds)
            done.set()

        running.every("keys", 0.0, work)
        assert running.failures == {"keys": 0}
        await done.wait()
        assert running.failures == {"keys": 3} and running.failing["keys"] in (0, 3)
        assert reported == [("keys", f"ValueError({n})") for n in (1, 2, 3)]
        await running.stop()
        assert not running._running

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_report_that_fails_ends_no_task() -> None:
    async def main() -> None:
        def report(name: str, error: Exception) -> None:
            raise OSError(28, "No space left on device")

        running, rounds, done = Tasks(report), 0, asyncio.Event()

        async def work() -> None:
            nonlocal rounds
            rounds += 1
            if rounds > 1:
                done.set()
            raise ValueError

        running.every("x", 0.0, work)
        await done.wait()
        await running.stop()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_single_task_that_fails_is_counted_and_who_awaits_it_goes_on() -> None:
    async def main() -> None:
        running = Tasks()

        async def work() -> None:
            raise ValueError

        await running.once("look", work())
        assert running.failures == {"look": 1}

    asyncio.run(asyncio.wait_for(main(), 30))
