"""Windows of plans, from refusals and from the quota address, with a clock that a test moves."""

import msgspec
import pytest

from headgate.errors import Failure
from headgate.policy import plans
from headgate.policy.health import HealthEvent, HealthState
from headgate.policy.plans import PlanStanding, PlanWindow

NOW = 1_784_473_200.0  # 2026-07-19T15:00:00Z
# Seen by others on 2026-07-19 (a key of a fresh plan).
ANSWER = (
    b'{"model_remains":[{"start_time":1784473200000,"end_time":1784491200000,"remains_time":16420081,'
    b'"current_interval_total_count":0,"current_interval_usage_count":0,"model_name":"general",'
    b'"current_weekly_total_count":0,"current_weekly_usage_count":0,"weekly_start_time":1783900800000,'
    b'"weekly_end_time":1784505600000,"weekly_remains_time":30820081,"current_interval_status":1,'
    b'"current_interval_remaining_percent":100,"current_weekly_status":1,'
    b'"current_weekly_remaining_percent":42.5},{"end_time":1784505600000,"model_name":"video",'
    b'"current_interval_status":3,"current_interval_remaining_percent":0}],'
    b'"base_resp":{"status_code":0,"status_msg":"success"}}'
)


def window(code: str, text: str) -> list[tuple[str, float | None]]:
    """Name and seconds to the reset of what a refusal says."""
    return [
        (w.name, None if w.resets_at_s is None else w.resets_at_s - NOW)
        for w in plans.from_refusal(code, text, NOW)
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("usage limit exceeded, 5-hour usage limit reached for Token Plan Starter (0/0 used),"
         " resets at 2026-07-19T17:00:00Z (2056)", [("5h", 7200.0)]),
        ("weekly usage limit reached, resets at 2026-07-22T15:00:00+00:00 (2056)", [("7d", 259200.0)]),
        ("7-day usage limit reached, resets in 2d 3h 4m (2056)", [("7d", 183840.0)]),
        ("usage limit exceeded, try again in 90s (2056)", [("5h", 90.0)]),
        ("usage limit exceeded, resets at 2026-07-21 15:00 UTC (2056)", [("7d", 172800.0)]),
        ("5-hour usage limit reached, resets at 2026-07-19T23:00:00+08:00 (2056)", [("5h", None)]),
        ("5-hour usage limit reached, resets at 2026-13-45T99:00:00Z (2056)", [("5h", None)]),
        ("5-hour usage limit reached, resets at 2036-07-19T17:00:00Z (2056)", [("5h", None)]),
        ("usage limit exceeded (2056)", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_refusal_names_its_window_and_its_reset(
    text: str, found: list[tuple[str, float | None]]
) -> None:
    assert window("2056", text) == found
    assert window("2061", text) == found
    assert window("1002", text) == []


def test_the_quota_address_says_what_is_left_of_text() -> None:
    assert plans.from_quota(ANSWER, NOW) == (
        PlanWindow("5h", 1.0, 1_784_491_200.0),
        PlanWindow("7d", 0.425, 1_784_505_600.0),
    )
    later = plans.current(plans.from_quota(ANSWER, NOW), NOW + 20_000)
    assert [w.name for w in later] == ["7d"]  # the short one has ended


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"current_interval_remaining_percent": "0%"}, ("5h", 0.0)),
        ({"current_interval_remaining_percent": -5}, ("5h", 0.0)),
        ({"current_interval_remaining_percent": 10**300}, ("5h", None)),
        ({"current_interval_remaining_percent": None}, ("5h", None)),
        ({"end_time": 5}, ("5h", 1.0)),
        ({"current_interval_status": 3}, ("7d", 0.425)),
        ({"model_name": "MiniMax-M3"}, ("5h", 1.0)),
    ],
)
def test_odd_numbers_of_a_quota_answer_do_no_harm(
    change: dict[str, object], found: tuple[str, float | None]
) -> None:
    answer = msgspec.json.decode(ANSWER)
    answer["model_remains"][0].update(change)
    first = plans.from_quota(msgspec.json.encode(answer), NOW)[0]
    assert (first.name, first.left) == found


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b'{"model_remains":null,"base_resp":{"status_code":2062}}', "no plan"),
        (b'{"base_resp":{"status_code":1004}}', "code 1004"),
        (b'{"model_remains":[{"model_name":"video","end_time":1}]}', "unknown answer"),
        (b"<html>", "unknown answer"),
        (b"\xff", "unknown answer"),
        (b'{"model_remains":{"a":1}}', "unknown answer"),
        (b"[]", "unknown answer"),
        (b"", "unknown answer"),
    ],
)
def test_an_answer_without_windows_says_why(answer: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        plans.from_quota(answer, NOW)


def test_a_used_up_window_pauses_its_key_until_it_is_reset_and_no_longer() -> None:
    """A clock of its own: seconds since a start, beside the vendor's Unix time."""
    health, used_up = HealthState(), PlanWindow("7d", 0.0, NOW + 3600)
    windows = plans.merged((), (used_up, PlanWindow("5h", 0.5, NOW + 60)), NOW)
    wait_s = plans.wait_s(windows, NOW)
    assert wait_s == 3600
    event = HealthEvent(
        "plan", 100.0, "up/m", "up#1", retry_after_s=wait_s, plan=PlanStanding(windows, 100.0)
    )
    assert health.apply(event)
    assert not health.apply(event)  # it was paused already
    (pause,) = health.pauses("up/m", "up#1", "up#1\nm")
    assert (pause.code, pause.until_s) == ("2056", 3700.0)
    assert pause.state(3699.0) in ("early", "shut") and pause.state(3700.0) == "due"
    assert health.pauses("up/m", "up#2", "up#2\nm") == []  # the next key goes on
    health.apply(HealthEvent("passed", 3701.0, "up/m", "up#1", "up#1\nm", probe=True))
    assert health.pauses("up/m", "up#1", "up#1\nm") == []
    copy = HealthState()
    copy.restore(msgspec.msgpack.decode(
        msgspec.msgpack.encode(health.snapshot()), type=type(health.snapshot())
    ))  # fmt: skip
    assert copy.plans == health.plans and not copy.blank


def test_a_reset_that_is_known_takes_the_place_of_a_guessed_pause() -> None:
    health = HealthState()
    failed = HealthEvent("failed", 0.0, "up/m", "up", "up\nm", kind="upstream_quota", upstream_code="2056")  # fmt: skip
    health.apply(failed)
    assert health.cooldowns.pauses["up"].until_s == 600
    event = HealthEvent("plan", 1.0, "up/m", "up", retry_after_s=120.0, plan=PlanStanding())
    health.apply(event)
    assert health.cooldowns.pauses["up"].until_s == 121
    assert Failure("upstream_quota", "").upstream_code == ""


def test_windows_that_have_ended_are_forgotten_when_others_are_heard_of() -> None:
    old = (PlanWindow("5h", 0.0, NOW), PlanWindow("7d", 0.3, NOW + 9))
    assert plans.merged(old, (), NOW) == (PlanWindow("7d", 0.3, NOW + 9),)
    assert plans.wait_s(old, NOW) is None
