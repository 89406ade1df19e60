"""Requests at a time over several nodes: the slots that they hold are never more than the limit."""

import random
from dataclasses import dataclass, field

import pytest

from headgate.policy.limit_kinds import NS
from headgate.policy.shared_slots import IDLE_NS, LEASE_S, OtherSlots, Slots, draw

SLOT = ("owner", "", "concurrency")


@dataclass
class Database:
    """What each node holds, as the database has it."""

    most: int
    now_ns: int = 1000 * NS
    held: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # held, used, at

    def node(self) -> Slots:
        return Slots(SLOT, self.most, self.now_ns)

    def turn(self, slots: Slots, nodes: list[Slots], lost: str = "") -> bool:
        """Let a node ask for what it needs; whether it did.  `lost`: the "ask" or the "answer"."""
        ask = slots.ask(self.now_ns)
        if ask is None:
            return False
        if lost == "ask":
            slots.failed()
            return True
        others = [
            OtherSlots(held, used, (self.now_ns - at_ns) / NS)
            for n, (held, used, at_ns) in self.held.items()
            if n != id(slots) and at_ns > self.now_ns - LEASE_S * NS
        ]
        answer = draw(ask, others, len(nodes))
        self.held[id(slots)] = (answer.held, ask.used, self.now_ns)
        if lost:
            slots.failed()
            return True
        slots.answered(answer, self.now_ns, self.now_ns)
        if answer.held < ask.need and answer.idle:
            for other in nodes:
                if other is not slots:
                    other.recalled(self.now_ns)
        return True

    def admit(self, slots: Slots, request: str, nodes: list[Slots]) -> bool:
        for _ in range(100):
            look = slots.look(request, self.now_ns)
            if look == "granted":
                slots.claim(request)
                return True
            if look != "waiting":
                return False
            self.turn(slots, nodes)
            for other in nodes:
                self.turn(other, nodes)
            self.now_ns += NS // 100
        raise AssertionError("never decided")


def test_two_nodes_together_have_the_slots_of_one() -> None:
    database = Database(5)
    nodes = [database.node(), database.node()]
    assert [database.admit(nodes[n % 2], f"r{n}", nodes) for n in range(7)] == [True] * 5 + [
        False
    ] * 2
    assert nodes[0].used + nodes[1].used == 5


def test_slots_that_one_node_does_not_use_go_to_the_other_at_once() -> None:
    database = Database(4)
    nodes = [database.node(), database.node()]
    assert all(database.admit(nodes[0], f"r{n}", nodes) for n in range(4))
    assert not database.admit(nodes[1], "early", nodes)
    for _ in range(4):
        nodes[0].leave()
    database.now_ns += NS
    assert all(database.admit(nodes[1], f"s{n}", nodes) for n in range(4))


def test_a_slot_is_kept_for_the_next_request_and_goes_back_when_none_comes() -> None:
    database = Database(4)
    nodes = [database.node(), database.node()]
    assert database.admit(nodes[0], "first", nodes)
    nodes[0].leave()
    assert not database.turn(nodes[0], nodes)
    assert nodes[0].look("second", database.now_ns) == "granted"
    database.now_ns += IDLE_NS + 1
    database.turn(nodes[0], nodes)
    database.now_ns += IDLE_NS + 1
    database.turn(nodes[0], nodes)
    assert database.held[id(nodes[0])][0] == 0
    assert nodes[0].idle


def test_slots_of_a_node_that_is_silent_are_free_after_their_time_and_not_before() -> None:
    database = Database(1)
    dead, nodes = database.node(), [database.node()]
    assert database.admit(dead, "r", [dead, *nodes])
    assert not database.admit(nodes[0], "s", nodes)
    database.now_ns += int(LEASE_S) * NS
    assert database.admit(nodes[0], "s", nodes)


def test_slots_in_use_are_renewed_before_their_time() -> None:
    database = Database(1)
    nodes = [database.node(), database.node()]
    assert database.admit(nodes[0], "long", nodes)
    for _ in range(60):
        database.now_ns += NS
        database.turn(nodes[0], nodes)
        assert not database.admit(nodes[1], "s", nodes)


def test_without_the_database_each_node_has_its_share_and_what_it_holds() -> None:
    database = Database(3)
    slots = database.node()
    assert [database.admit(slots, f"r{n}", [slots]) for n in range(2)] == [True, True]
    assert slots.look_alone("more", 1, database.now_ns) == NS
    slots.leave()
    assert slots.look_alone("more", 1, database.now_ns) == "granted"
    database.now_ns += 20 * NS  # what it held has ended
    assert slots.look_alone("more", 1, database.now_ns) == NS
    assert slots.look_alone("more", 0, database.now_ns) == "unavailable"


@pytest.mark.parametrize("seed", range(12))
def test_in_any_order_no_more_run_at_a_time_than_the_limit(seed: int) -> None:
    chance = random.Random(seed)
    most = chance.choice([1, 2, 7])
    database = Database(most)
    nodes = [database.node() for _ in range(3)]
    admitted = 0
    for n in range(2000):
        slots = chance.choice(nodes)
        request = f"r{n % 5}"
        if slots.look(request, database.now_ns) == "granted":
            slots.claim(request)
            admitted += 1
        if slots.used and chance.random() < 0.3:
            slots.leave()
        for each in nodes:
            if chance.random() < 0.8:
                database.turn(each, nodes, chance.choice(["", "", "", "", "ask", "answer"]))
        assert sum(each.used for each in nodes) <= most
        database.now_ns += chance.choice([0, NS // 100, NS // 3])
    assert admitted > 20 * most
