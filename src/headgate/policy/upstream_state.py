"""How an upstream does, in one word, from what is known of its routes, its keys and the last check.

The only place that chooses the word; the console, the admin API and `headgate doctor` show it.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from headgate.policy.breaker import CircuitStatus

UpstreamState = Literal["not_checked", "up", "degraded", "paused"]


class UpstreamCheck(msgspec.Struct, frozen=True):
    """What the last check of an upstream found; a check asks for no reply, or for a short one."""

    at_s: float  # of a clock that does not go back
    ok: bool
    reason: str = ""  # of a closed set of words; "" when it is well


def state_of(
    circuits: Sequence[CircuitStatus],
    keys_paused: Sequence[bool],
    answered_s: float | None,
    check: UpstreamCheck | None,
) -> UpstreamState:
    """Return the state of an upstream.

    `circuits` are those of its routes, `keys_paused` says of each of its keys whether it is paused for
    all models, and `answered_s` is when a route answered last, of the same clock as the check's.
    """
    if circuits and all(c.state == "open" for c in circuits):
        return "paused"
    if keys_paused and all(keys_paused):
        return "paused"
    if any(c.state != "closed" or c.failures or c.demoted for c in circuits) or any(keys_paused):
        return "degraded"
    if check is not None and (answered_s is None or check.at_s > answered_s):
        return "up" if check.ok else "degraded"
    return "not_checked" if answered_s is None else "up"
