"""Coroutines for handlers that are plain functions: one loop, any number of threads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from headgate.call_loop import CallLoop


def test_threads_share_one_loop_and_wait_for_their_own_work_only() -> None:
    calls = CallLoop()
    both = asyncio.Barrier(2)

    async def work(n: int) -> tuple[int, int]:
        await both.wait()  # neither ends before the other has begun
        return n, id(asyncio.get_running_loop())

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda n: calls.run(work(n)), range(2)))
    assert [n for n, _ in found] == [0, 1]
    assert len({loop for _, loop in found}) == 1


def test_an_error_reaches_its_caller_and_leaves_the_loop_running() -> None:
    calls = CallLoop()

    async def broken() -> None:
        raise ValueError("as it was raised")

    with pytest.raises(ValueError, match="as it was raised"):
        calls.run(broken())

    async def whole() -> str:
        return "still there"

    assert calls.run(whole()) == "still there"
