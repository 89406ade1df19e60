"""How an upstream does, in one word: a table."""

import pytest

from headgate.policy.breaker import CircuitStatus
from headgate.policy.upstream_state import UpstreamCheck, UpstreamState, state_of

WELL, FAILING = CircuitStatus("closed", 0, 0.0), CircuitStatus("closed", 2, 0.0)
OPEN, HALF_OPEN = CircuitStatus("open", 5, 9.0), CircuitStatus("half_open", 5, 0.0)
DEMOTED = CircuitStatus("closed", 0, 0.0, True)
GOOD, BAD = UpstreamCheck(10.0, True), UpstreamCheck(10.0, False, "not reachable")


@pytest.mark.parametrize(
    ("circuits", "keys", "answered_s", "check", "state"),
    [
        ((WELL,), (False,), None, None, "not_checked"),
        ((WELL,), (False,), None, GOOD, "up"),
        ((WELL,), (False,), None, BAD, "degraded"),
        ((WELL,), (False,), 20.0, BAD, "up"),  # it has answered since
        ((WELL,), (False,), 5.0, BAD, "degraded"),
        ((WELL,), (False,), 5.0, None, "up"),
        ((FAILING,), (False,), 5.0, GOOD, "degraded"),
        ((HALF_OPEN,), (False,), 5.0, GOOD, "degraded"),
        ((DEMOTED,), (False,), 5.0, GOOD, "degraded"),
        ((OPEN,), (False,), 5.0, GOOD, "paused"),
        ((OPEN, WELL), (False,), 5.0, GOOD, "degraded"),
        ((OPEN, OPEN), (False,), 5.0, GOOD, "paused"),
        ((WELL,), (True,), 5.0, GOOD, "paused"),
        ((WELL,), (True, False), 5.0, GOOD, "degraded"),
        ((), (), None, None, "not_checked"),
    ],
)
def test_the_state_of_an_upstream(
    circuits: tuple[CircuitStatus, ...],
    keys: tuple[bool, ...],
    answered_s: float | None,
    check: UpstreamCheck | None,
    state: UpstreamState,
) -> None:
    assert state_of(circuits, keys, answered_s, check) == state
