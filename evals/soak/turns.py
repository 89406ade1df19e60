"""A turn of a part: many examples of one seed, the same each time."""

import asyncio
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck
from hypothesis import strategies as st


def configured(seed: int, examples: int) -> Callable[[Callable[[int], None]], Callable[[], None]]:
    """A test of hypothesis over seeds: of one turn, and the same each time for the same seed."""

    def wrap(check: Callable[[int], None]) -> Callable[[], None]:
        tested = hypothesis.given(st.integers(0, 2**62))(check)
        made: Callable[[], None] = hypothesis.seed(seed)(
            hypothesis.settings(
                max_examples=examples,
                deadline=None,
                database=None,
                print_blob=False,
                suppress_health_check=list(HealthCheck),
                phases=[hypothesis.Phase.generate],  # a seed has nothing to shrink
            )(tested)
        )
        return made

    return wrap


async def loudly(main: Any) -> None:
    """Fail on what asyncio would only log: an exception in a callback or a lost task."""
    sent: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: sent.append(context))
    await main
    assert not sent, sent
