"""An edge reads its keys at once when its node says that they have changed, and after a while without that."""

import asyncio
from typing import Any

from headgate.node.news import News
from headgate.node.wire import KEYS_NOTICE
from waiting import PATIENCE_S

FOR_EVER_S = 1e6


class NoLedger:
    instance = "i"


def news() -> News:
    ledger: Any = NoLedger()  # nothing is sent
    return News(ledger)


def test_a_notice_ends_the_wait_and_is_good_for_one() -> None:
    async def run() -> None:
        told = news()
        waiting = asyncio.create_task(told.keys_change(FOR_EVER_S))
        await asyncio.sleep(0)
        assert not waiting.done()
        told.notice(KEYS_NOTICE)
        await asyncio.wait_for(waiting, PATIENCE_S)
        told.notice(KEYS_NOTICE)  # while the keys were being read
        await asyncio.wait_for(told.keys_change(FOR_EVER_S), PATIENCE_S)
        again = asyncio.create_task(told.keys_change(FOR_EVER_S))
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()

    asyncio.run(run())


def test_without_a_notice_it_is_a_poll() -> None:
    asyncio.run(asyncio.wait_for(news().keys_change(0.001), PATIENCE_S))


def test_a_notice_that_an_edge_does_not_know_is_passed_over() -> None:
    news().notice(b"Z")
