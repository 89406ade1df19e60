"""The state of a node that ends reaches the next one, however far it has come when the lock is free."""

import asyncio
from pathlib import Path

import pytest

from headgate.node.handover import HandedOver, Receiver, give


@pytest.mark.parametrize("turns", range(7))
def test_what_was_sent_before_the_lock_was_free_is_taken(tmp_path: Path, turns: int) -> None:
    async def run() -> HandedOver | None:
        receiver = Receiver(tmp_path)
        receiving = asyncio.create_task(receiver.receive())
        await asyncio.sleep(0)
        assert give(tmp_path, HandedOver(outputs=[("k", "m", 5.0)]))
        for _ in range(turns):  # the event loop may be anywhere between accepting and reading
            await asyncio.sleep(0)
        try:
            return await receiver.state()
        finally:
            receiving.cancel()
            receiver.close()

    found = asyncio.run(run())
    assert found is not None and found.outputs == [("k", "m", 5.0)]


def test_a_node_that_was_killed_has_given_nothing_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async def run() -> HandedOver | None:
        receiver = Receiver(tmp_path)
        receiving = asyncio.create_task(receiver.receive())
        try:
            return await receiver.state()
        finally:
            receiving.cancel()
            receiver.close()

    assert asyncio.run(run()) is None
