"""Ids of requests: the only place that makes them.

Note: ids of one time stand together in the indices of the ledger and of intents, as keys in an index are in
their order.  A group of rows then writes one page of each, where random ids write a page for every row: a
fifth of what a commit writes.  An id proves nothing and opens nothing, so that it may be half of a clock.
"""

import secrets
import time
from collections.abc import Callable

_RANDOM = 13  # hexadecimal digits, 52 bits: at 10 ids in each millisecond, two are the same once in 3,000 years
_DRAWN = 256  # at a time: the system call costs more than the id


class Ids:
    """Ids of 24 hexadecimal digits: 11 of the millisecond, which last until 2527, then random ones."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._drawn: list[str] = []

    def __call__(self) -> str:
        if not self._drawn:
            text = secrets.token_hex(_DRAWN * (_RANDOM + 1) // 2)
            self._drawn = [text[i : i + _RANDOM] for i in range(0, _DRAWN * _RANDOM, _RANDOM)]
        return f"{int(self._now() * 1000):011x}{self._drawn.pop()}"


new_id = Ids()
