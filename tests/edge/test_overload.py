"""Places, starts and the thread of one edge, on a loop of their own."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable

import pytest

from headgate import config
from headgate.edge.metrics import Metrics
from headgate.edge.overload import START_CPU_S, TURN_CPU_S, Overload
from headgate.edge.overload_bounds import MAX_BYTES, MIN_BYTES, default_bytes
from headgate.errors import Refused
from waiting import pause, until

MB = 1 << 20
PER_TURN = math.ceil(TURN_CPU_S / START_CPU_S)


def overload(in_flight: int = 10, body_bytes: int = 100 * MB, **per_key: int) -> Overload:
    return Overload(config.Overload(in_flight, body_bytes, **per_key), 32 * MB, Metrics())


def of_edges(edges: int, **bounds: int) -> Overload:
    return Overload(config.Overload(**bounds), 32 * MB, Metrics(), edges)


def test_each_edge_has_an_equal_part_of_the_bounds_of_all() -> None:
    one = of_edges(
        4,
        in_flight=10,
        in_flight_per_key=8,
        body_bytes_in_flight=400 * MB,
        body_bytes_per_key=200 * MB,
    )
    assert (one.in_flight.most, one.bytes.most) == (3, 100 * MB)
    assert [one.in_flight.take("k", 1) for _ in range(3)] == ["", "", "owner"]
    assert [one.bytes.take("k", 25 * MB) for _ in range(3)] == ["", "", "owner"]


def test_an_edge_has_room_for_one_body_of_the_largest_size_whatever_its_part_is() -> None:
    assert of_edges(4, body_bytes_in_flight=40 * MB).bytes.most == 32 * MB
    assert of_edges(4, body_bytes_in_flight=8 * MB).max_body_bytes == 8 * MB


def test_bounds_that_are_not_set_are_the_same_for_each_edge() -> None:
    assert of_edges(16).in_flight.most == of_edges(1).in_flight.most == 1000


def run(main: Callable[[Overload], Awaitable[None]]) -> Overload:
    made = overload()

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main(made)

    asyncio.run(bounded())
    made.close()
    assert made.in_flight.held == made.bytes.held == 0
    return made


def test_a_place_gives_back_its_bytes_once_and_what_a_shorter_body_left() -> None:
    made = overload()
    place = made.enter("k")
    place.reserve(10)
    place.reserve(30)
    place.reserve(20)
    assert (made.in_flight.held, made.bytes.held) == (1, 20)
    place.leave()
    place.leave()
    assert (made.in_flight.held, made.bytes.held) == (0, 0)


def test_the_bodies_of_one_key_get_a_429_and_those_of_all_a_503() -> None:
    made = overload()
    made.enter("greedy").reserve(20 * MB)
    with pytest.raises(Refused) as mine:
        made.enter("greedy").reserve(6 * MB)  # a quarter of 100 is for one key
    for n in range(3):
        made.enter(f"key {n}").reserve(25 * MB)
    made.enter("small").reserve(10 * MB)
    with pytest.raises(Refused) as all_:
        made.enter("late").reserve(20 * MB)
    assert [r.value.failure.status for r in (mine, all_)] == [429, 503]
    assert all(r.value.failure.retry_after_s for r in (mine, all_))


def test_a_key_has_bounds_of_its_own_where_the_operator_sets_them() -> None:
    made = overload(100, in_flight_per_key=3, body_bytes_per_key=4 * MB)
    first, second, _ = (made.enter("k") for _ in range(3))
    with pytest.raises(Refused) as many:
        made.enter("k")
    made.enter("other")
    first.reserve(30 * MB)  # one body of any size
    with pytest.raises(Refused) as large:
        second.reserve(1)
    for refused in (many, large):
        assert (refused.value.failure.status, refused.value.failure.retry_after_s) == (429, 1.0)


def test_work_before_the_start_is_counted_and_goes_on_in_fair_order() -> None:
    async def main(made: Overload) -> None:
        turns: list[str] = []
        work_s = 2 * TURN_CPU_S

        async def decoding(owner: str, pieces: int) -> None:
            place = made.enter(owner)
            for _ in range(pieces):
                place.charge(work_s)
                turns.append(owner)
                await place.turn()
            place.charge(work_s)
            place.leave()

        async def one() -> None:
            if (turn := made.start("calm")) is not None:
                await turn
            turns.append("calm")

        flood = [asyncio.create_task(decoding("flood", 20)) for _ in range(8)]
        await until(lambda: len(turns) >= 20)
        before = len(turns)
        await one()
        assert len(turns) - before <= 4
        await asyncio.gather(*flood)
        # What was counted in advance for a turn is not counted twice.
        made.charge("new", 0.0)
        used = {name: owner.used_s for name, owner in made._starts._owners.items()}
        assert used["flood"] == pytest.approx(8 * 21 * work_s, rel=0.05)

    run(main)


def test_a_turn_of_the_loop_starts_a_few_requests_and_shares_them_between_owners() -> None:
    started: list[str] = []

    async def one(made: Overload, owner: str) -> None:
        turn = made.start(owner)
        if turn is not None:
            await turn
        started.append(owner)

    async def main(made: Overload) -> None:
        flood = [asyncio.create_task(one(made, "flood")) for _ in range(100)]
        await asyncio.sleep(0)
        assert len(started) == PER_TURN
        calm = asyncio.create_task(one(made, "calm"))
        await calm
        assert len(started) <= 4 * PER_TURN
        await asyncio.gather(*flood)

    run(main)
    assert len(started) == 101


def test_requests_with_longer_bodies_start_fewer_at_a_time() -> None:
    async def main(made: Overload) -> None:
        for size, per_turn in ((0, PER_TURN), (100_000, 1), (1 << 20, PER_TURN)):
            waits = [made.start("k", size) for _ in range(20)]
            assert waits.count(None) == per_turn  # what the thread works on is not counted here
            await asyncio.gather(*[w for w in waits if w is not None])
            await pause(0.01, "turns of the loop in which the queue empties")

    run(main)


def test_who_leaves_while_it_waits_for_its_start_takes_no_turn_of_others() -> None:
    async def main(made: Overload) -> None:
        async def one() -> None:
            if (turn := made.start("k")) is not None:
                await turn

        tasks = [asyncio.create_task(one()) for _ in range(50)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await one()

    run(main)


def test_the_thread_returns_and_raises_what_the_work_did() -> None:
    async def main(made: Overload) -> None:
        place = made.enter("k")
        name = await made.off_loop(place, lambda: threading.current_thread().name)
        assert name != threading.current_thread().name
        with pytest.raises(ZeroDivisionError):
            await made.off_loop(place, divmod, 1, 0)
        assert await made.off_loop(place, divmod, 7, 2) == (3, 1)
        place.leave()

    run(main)


def test_work_in_the_thread_is_shared_out_between_owners() -> None:
    async def main(made: Overload) -> None:
        order: list[str] = []
        gate = threading.Event()
        places = {owner: made.enter(owner) for owner in ("first", "flood", "calm")}
        first = asyncio.create_task(made.off_loop(places["first"], gate.wait))
        await asyncio.sleep(0)
        tasks = [
            asyncio.create_task(made.off_loop(places[owner], order.append, owner))
            for owner in ["flood"] * 5 + ["calm"]
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *tasks)
        assert order.index("calm") <= 1
        for place in places.values():
            place.leave()

    run(main)


def test_the_bytes_of_who_left_are_held_until_the_thread_has_ended_with_them() -> None:
    async def main(made: Overload) -> None:
        gate, began = threading.Event(), threading.Event()

        def work() -> None:
            began.set()
            gate.wait()
            raise ValueError("nobody hears of this")

        running, waiting = made.enter("k"), made.enter("k")
        running.reserve(3)
        waiting.reserve(5)
        tasks = [asyncio.create_task(made.off_loop(p, work)) for p in (running, waiting)]
        await until(began.is_set)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for place in (running, waiting):
            place.leave()
        assert (made.in_flight.held, made.bytes.held) == (0, 3)  # the other one never ran
        gate.set()
        await until(lambda: made.bytes.held == 0)
        last = made.enter("k")
        assert await made.off_loop(last, divmod, 7, 2) == (3, 1)
        last.leave()

    run(main)


def test_the_bound_of_bytes_follows_the_memory_of_the_machine() -> None:
    assert default_bytes(0) == default_bytes(1 << 30) == MIN_BYTES
    assert default_bytes(2 << 30) == 128 * MB
    assert default_bytes(1 << 40) == MAX_BYTES


def test_a_body_that_never_fits_is_too_large_and_not_refused_for_ever() -> None:
    assert overload(body_bytes=8 * MB).max_body_bytes == 8 * MB
    assert overload(body_bytes=0).max_body_bytes == 32 * MB


def test_visitors_without_a_key_do_not_take_the_places_of_keys() -> None:
    made = overload(in_flight=40)
    visitors = [made.enter(f"peer {n}", visitor=True) for n in range(10)]
    with pytest.raises(Refused):
        for _ in range(3):  # a little is in reserve for each
            visitors.append(made.enter("peer 1", visitor=True))
    keys = [made.enter("k") for _ in range(40)]
    for place in (*visitors, *keys):
        place.leave()
    assert made.visitors.held == made.in_flight.held == 0
