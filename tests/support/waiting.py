"""How tests wait: for a condition, never for a moment.

`wait_for` and `until` poll a condition; their limit is so generous that only a fault reaches it.
`pause` and `pause_thread` are for a played party that is slow on purpose, and name the reason.
Nothing else in the tests sleeps; `test_no_sleeping.py` reads the code for it.
"""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 60.0  # 100 times what the slowest condition takes on an idle machine
_POLL_S = 0.005


def wait_for(true: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Block until `true()` holds; an AssertionError names the condition that never did."""
    end_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end_s, _late(true, within_s)
        time.sleep(_POLL_S)


async def until(true: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Wait as `wait_for` does, while the event loop goes on."""
    end_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end_s, _late(true, within_s)
        await asyncio.sleep(_POLL_S)


async def pause(seconds: float, why: str) -> None:
    """Let a played party do nothing for a while; no assertion may depend on how long it takes."""
    assert why
    await asyncio.sleep(seconds)


def pause_thread(seconds: float, why: str) -> None:
    """Pause as `pause` does, in a thread or a process of its own."""
    assert why
    time.sleep(seconds)


async def never(why: str) -> None:
    """Wait until the task is cancelled, as a played party does that never answers."""
    assert why
    await asyncio.Event().wait()


def ended(pid: int) -> bool:
    """Whether a process has gone, or is a zombie that nobody has waited for yet."""
    try:
        state = re.search(r"^State:\s+(\w)", Path(f"/proc/{pid}/status").read_text(), re.M)
    except OSError:
        return True
    return state is not None and state[1] == "Z"


def _late(true: Callable[[], object], within_s: float) -> str:
    code = getattr(true, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(true)
    return f"the condition at {where} did not hold within {within_s} s"
