"""Events of routes, as every process applies them."""

import pytest

from headgate.errors import MODEL_OUTPUT
from headgate.policy.breaker import IN_A_ROW
from headgate.policy.health import HealthEvent, HealthState


@pytest.mark.parametrize(("code", "paused"), [("", True), (MODEL_OUTPUT, False)])
def test_what_a_model_said_wrongly_is_no_fault_of_its_upstream(code: str, paused: bool) -> None:
    health = HealthState()
    for n in range(2 * IN_A_ROW):
        health.apply(HealthEvent("failed", float(n), "up/m", "up", "up\nm", code=code))
    assert bool(health.pauses("up/m", "up", "up\nm")) is paused
