"""How the work of a call grows with its input: what the growth tests measure.

CPU time of this process, the least of several runs, at n, 2n and 4n.  What else the machine does can
only add to it, so a measurement that looks superlinear is taken again before it is believed.
"""

import gc
import math
import time
from collections.abc import Callable

_MOST_ON_AVERAGE = 2.6  # for a doubling: 2 is linear, 4 is quadratic
_MOST_OF_THE_LAST = 3.2  # that one alone may also leave the processor's cache behind
_ROUNDS = 12
_RUNS = 2


def superlinear(make: Callable[[int], Callable[[], object]], n: int) -> tuple[float, float] | None:
    """The ratios of both doublings if the work grows faster than the input, else None."""
    found = _ratios(make, n)
    return None if _is_linear(found) else found


def _is_linear(found: tuple[float, float]) -> bool:
    average, last = found
    return average < _MOST_ON_AVERAGE and last < _MOST_OF_THE_LAST


def _ratios(make: Callable[[int], Callable[[], object]], n: int) -> tuple[float, float]:
    """How much longer each doubling takes from n to 4n on average, and the one from 2n to 4n alone.

    `make` prepares the call for a size.  The doubling from n alone is not looked at, as what a small
    input costs once is still a good part of it.
    """
    calls = [make(n), make(2 * n), make(4 * n)]
    best = [float("inf")] * 3
    gc.freeze()  # what other tests have left is not looked through at each collection
    try:
        for _ in range(_ROUNDS):
            for k, call in enumerate(calls):
                best[k] = min(best[k], _least(call))
            found = math.sqrt(best[2] / best[0]), best[2] / best[1]
            if _is_linear(found):
                break
    finally:
        gc.unfreeze()
    return found


def _least(call: Callable[[], object]) -> float:
    least = float("inf")
    for _ in range(_RUNS):
        gc.collect()
        gc.disable()
        began = time.process_time()
        call()
        least = min(least, time.process_time() - began)
        gc.enable()
    return max(least, 1e-6)
