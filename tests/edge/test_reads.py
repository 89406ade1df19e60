"""Reads of the database run in threads; what waits for one is bounded."""

import asyncio
import threading

import pytest

from headgate.edge.reads import MAX_WAITING, Reads
from headgate.errors import Refused
from headgate.storage.errors import StoreFault


def test_a_read_that_hangs_holds_up_nobody_but_those_who_read() -> None:
    async def main() -> None:
        reads, held = Reads(), threading.Event()
        waiting = [asyncio.ensure_future(reads(held.wait)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)  # the loop goes on though both threads hang
        with pytest.raises(Refused) as found:
            await reads(lambda: 1)
        failure = found.value.failure
        assert (failure.status, failure.code) == (503, "storage_unavailable")
        assert failure.retry_after_s
        held.set()
        assert all(await asyncio.gather(*waiting))
        assert await reads(lambda: 1) == 1
        await reads.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_fault_of_the_database_is_a_refusal_for_who_asked_and_an_error_for_our_own_tasks() -> (
    None
):
    def broken() -> None:
        raise StoreFault("disk I/O error at /secret/place")

    async def main() -> None:
        reads = Reads()
        with pytest.raises(Refused) as found:
            await reads(broken)
        assert "/secret" not in found.value.failure.message
        with pytest.raises(StoreFault):
            await reads.run(broken)
        await reads.close()

    asyncio.run(asyncio.wait_for(main(), 30))
