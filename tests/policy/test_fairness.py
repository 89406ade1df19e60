"""Bounded shares, fair order and lateness, decided without a clock or a loop."""

import pytest

from headgate.policy.fairness import (
    ALERT_S,
    INTERVAL_S,
    MAX_IDLE_OWNERS,
    MAX_WAITING,
    TARGET_S,
    Delay,
    FairQueue,
    Share,
)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 10, 100, 1000, 4099, 256 << 20])
def test_one_owner_alone_may_hold_all_and_shuts_nobody_out(most: int) -> None:
    share = Share(most, most)
    assert share.take("greedy", most) == ""
    assert share.take("greedy", 1) == "all"
    assert share.take("calm", 1) == ""
    share.give_back("greedy", most)
    assert share.take("greedy", 1) == ""


@pytest.mark.parametrize("greedy", [1, 2, 5, 10, 50])
def test_owners_that_want_all_come_to_equal_parts_and_leave_some_for_the_next(greedy: int) -> None:
    share = Share(1000, 1000)
    names = [f"greedy {n}" for n in range(greedy)]
    for turn in range(
        20_000
    ):  # the first has all before the others come, and a request ends each turn
        for name in names if turn else names[:1]:
            while not share.take(name, 1):
                pass
        largest = max(names, key=share.of)
        share.give_back(largest, 1)
    for name in names:
        while not share.take(name, 1):
            pass
    held = [share.of(name) for name in names]
    assert max(held) <= 1.5 * min(held)
    assert share.held <= 1125
    assert share.take("calm", 1) == ""


def test_an_owner_is_bound_for_itself_but_for_the_first_that_it_takes() -> None:
    share = Share(100, 25)
    assert share.take("a", 30) == ""
    assert share.take("a", 1) == "owner"
    assert share.take("b", 25) == ""
    assert share.take("b", 1) == "owner"
    share.give_back("a", 30)
    assert share.take("a", 25) == ""


def test_what_does_not_fit_is_refused_and_takes_nothing() -> None:
    share = Share(100, 100)
    assert share.take("a", 101) == "all"
    assert (share.held, share.of("a")) == (0, 0)
    assert share.take("a", 100) == ""
    assert share.take("b", 13) == "all"
    assert share.take("b", 11) == "all"  # all but one of what is left
    assert share.take("b", 10) == ""
    share.give_back("a", 100)
    assert share.take("b", 40) == ""
    assert (share.held, share.of("a"), share.of("b")) == (50, 0, 50)


def test_starts_are_too_late_only_after_an_interval_without_a_break() -> None:
    delay = Delay()
    delay.started(TARGET_S, 0.0)
    assert not delay.refuses(INTERVAL_S / 2)
    delay.started(0.0, INTERVAL_S / 2)
    delay.started(TARGET_S, INTERVAL_S / 2)
    assert not delay.refuses(INTERVAL_S)
    assert delay.refuses(INTERVAL_S * 1.5)
    delay.started(0.0, INTERVAL_S * 1.5)
    assert not delay.refuses(INTERVAL_S * 1.5)


def test_after_a_refusal_the_next_late_start_is_enough_for_a_while() -> None:
    delay = Delay(late_since_s=0.0)
    assert delay.refuses(1.0)
    delay.started(0.0, 1.0)
    delay.started(TARGET_S, 2.0)
    assert delay.refuses(2.0)
    delay.started(0.0, 2.0)
    delay.started(TARGET_S, 3.0 + ALERT_S)
    assert not delay.refuses(3.0 + ALERT_S)


def fill(queue: FairQueue[int], owner: str, count: int, now_s: float = 0.0) -> None:
    for n in range(count):
        queue.push(owner, n, now_s)


def order(queue: FairQueue[int], count: int, cpu_s: float = 1.0) -> str:
    return "".join(queue.pop(cpu_s, 0.0)[0] for _ in range(count))


def test_owners_take_turns_whatever_the_length_of_their_queues() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, "a", 100)
    fill(queue, "b", 3)
    assert order(queue, 8) == "abababaa"
    fill(queue, "c", 2)  # it begins level with the others
    assert sorted(order(queue, 4)) == ["a", "a", "c", "c"]


def test_work_of_one_owner_starts_in_the_order_of_its_arrival() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, "a", 5)
    assert [queue.pop(1.0, 0.0)[1] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_an_owner_whose_work_took_long_waits_until_the_others_have_used_as_much() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, "a", 10)
    fill(queue, "b", 10)
    assert queue.pop(1.0, 0.0)[0] == "a"
    queue.charge("a", 4.0)
    assert order(queue, 6) == "bbbbba"


def test_work_that_starts_while_others_wait_counts_from_where_they_are() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, "a", 10)
    assert order(queue, 3) == "aaa"
    queue.start("b", 4.0)
    fill(queue, "b", 10)
    assert order(queue, 5).startswith("aaa")


def test_who_was_idle_has_no_credit_and_who_was_busy_alone_no_debt() -> None:
    queue: FairQueue[int] = FairQueue()
    for _ in range(1000):
        queue.start("busy", 1.0)
    fill(queue, "busy", 10)
    fill(queue, "new", 10)
    assert order(queue, 10).count("busy") in (4, 5)


def test_an_owner_whose_starts_are_late_is_refused_and_one_whose_starts_are_not_passes() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, "flood", MAX_WAITING - 1)
    now_s = 0.0
    while not queue.refuses("flood", now_s):
        now_s += 0.01
        queue.pop(1.0, now_s)
        queue.push("calm", 0, now_s)
        while queue.pop(1.0, now_s)[0] != "calm":
            pass
        assert now_s < 2
    assert TARGET_S + INTERVAL_S <= now_s < TARGET_S + INTERVAL_S + 0.05
    assert not queue.refuses("calm", now_s)
    assert not queue.refuses("new", now_s)


def test_when_very_many_owners_wait_and_are_late_new_ones_are_refused_as_well() -> None:
    queue: FairQueue[int] = FairQueue()
    for n in range(MAX_WAITING + 50):
        queue.push(str(n), n, 0.0)
    for n in range(50):
        queue.pop(1.0, 0.1 + n * 0.01)
    assert not queue.refuses("new", 0.05 + INTERVAL_S)
    assert queue.refuses("new", 0.1 + INTERVAL_S)
    queue.pop(1.0, 2.0)
    assert not queue.refuses("new", 2.0)  # late, and short enough
    while len(queue):
        queue.pop(1.0, 2.0)
    assert not queue.refuses("new", 9.0)


def test_an_owner_with_too_much_waiting_is_refused_at_once_and_nobody_else() -> None:
    queue: FairQueue[int] = FairQueue()
    fill(queue, "flood", MAX_WAITING - 1)
    assert not queue.refuses("flood", 0.0)
    fill(queue, "flood", 1)
    assert queue.refuses("flood", 0.0)
    assert not queue.refuses("calm", 0.0)
    queue.pop(1.0, 0.0)
    assert not queue.refuses("flood", 0.0)


@pytest.mark.parametrize("waits", [False, True])
def test_owners_without_work_are_forgotten(waits: bool) -> None:
    queue: FairQueue[int] = FairQueue()
    for n in range(5 * MAX_IDLE_OWNERS):
        if waits:
            queue.push(str(n), n, 0.0)
            queue.pop(1.0, 0.0)
        else:
            queue.start(str(n), 1.0)
        assert len(queue._owners) <= MAX_IDLE_OWNERS
