"""Both event loops, for what must work on either."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from waiting import PATIENCE_S


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def bounded(main: Coroutine[Any, Any, None]) -> None:
        async def inner() -> None:
            async with asyncio.timeout(2 * PATIENCE_S):
                await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(inner())

    return bounded
