"""Requests and tokens a minute over several nodes: never more together than one node would admit."""

import math
import random
from dataclasses import dataclass, field

import pytest

from headgate.policy.bucket import Bucket
from headgate.policy.limit_kinds import MINUTE_NS, NS
from headgate.policy.shared_rates import AGAIN_NS, HOLD_NS, Rate, Right, draw

SLOT = ("owner", "", "requests")


@dataclass
class Database:
    """One bucket, and the clock of all."""

    most: int
    now_ns: int = 1000 * NS
    bucket: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = Bucket(self.most, MINUTE_NS, self.now_ns)

    def node(self) -> Rate:
        return Rate(SLOT, self.most, MINUTE_NS, self.now_ns)

    def turn(self, rate: Rate, nodes: int = 2, lost: str = "") -> bool:
        """Let a node ask for what it needs; whether it did.  `lost`: the "ask" or the "answer"."""
        rate.advance(self.most, self.now_ns)
        ask = rate.ask(self.now_ns)
        if ask is None:
            return False
        self.bucket.advance(self.now_ns)
        answer = draw(self.bucket, ask, nodes) if lost != "ask" else None
        if answer is None or lost:
            rate.failed()
        else:
            rate.answered(ask, answer, self.now_ns)
        return True

    def admit(self, rate: Rate, request: str, items: int = 1, nodes: int = 2) -> float:
        """Ask for a request until it is decided: 0 when it is admitted, else how long it has to wait."""
        for _ in range(10):
            rate.advance(self.most, self.now_ns)
            look = rate.look(request, items, self.now_ns)
            if look == "granted":
                rate.claim(request, items, self.now_ns)
                return 0
            if look != "waiting":
                assert isinstance(look, float | int)
                return look
            assert self.turn(rate, nodes)
        raise AssertionError("never decided")


def test_two_nodes_together_admit_what_one_would() -> None:
    database = Database(10)
    nodes = [database.node(), database.node()]
    waits = [database.admit(nodes[n % 2], f"r{n}") for n in range(14)]
    assert [wait == 0 for wait in waits] == [True] * 10 + [False] * 4
    assert all(0 < wait <= 6 * NS for wait in waits[10:])


def test_one_node_alone_admits_the_whole_limit() -> None:
    database = Database(40)
    idle, busy = database.node(), database.node()
    assert database.admit(idle, "once") == 0
    admitted = 0
    for n in range(60):
        admitted += database.admit(busy, f"r{n}") == 0
        database.now_ns += NS // 50
    assert 38 <= admitted <= 40


def test_who_comes_back_after_the_wait_is_admitted() -> None:
    database = Database(2)
    rate = database.node()
    assert [database.admit(rate, f"r{n}") for n in range(2)] == [0, 0]
    wait_ns = database.admit(rate, "third")
    assert 29 * NS < wait_ns <= 30 * NS
    database.now_ns += math.ceil(wait_ns)
    assert database.admit(rate, "third") == 0


def test_a_key_that_is_used_up_does_not_ask_the_database_for_each_refusal() -> None:
    database = Database(1)
    rate = database.node()
    assert database.admit(rate, "first") == 0
    assert database.admit(rate, "second") > 0
    asked = 0
    for n in range(100):
        rate.advance(1, database.now_ns)
        assert rate.look(f"r{n}", 1, database.now_ns) != "waiting"
        asked += database.turn(rate)
        database.now_ns += AGAIN_NS // 200
    assert asked == 0


def test_a_busy_key_draws_ahead_and_asks_rarely() -> None:
    database = Database(60_000)
    rate = database.node()
    asks = 0
    for n in range(3000):  # 100 a second, for half a minute
        rate.advance(database.most, database.now_ns)
        look = rate.look(f"r{n}", 1, database.now_ns)
        while look == "waiting":
            asks += database.turn(rate)
            look = rate.look(f"r{n}", 1, database.now_ns)
        assert look == "granted"
        rate.claim(f"r{n}", 1, database.now_ns)
        asks += database.turn(rate)
        database.now_ns += NS // 100
    assert asks < 60


def test_tokens_that_were_not_used_go_back() -> None:
    database = Database(1000)
    first, second = database.node(), database.node()
    first.advance(1000, database.now_ns)
    assert first.look("r", 900, database.now_ns) == "waiting"
    database.turn(first)
    assert first.look("r", 900, database.now_ns) == "granted"
    rights = first.claim("r", 900, database.now_ns)
    assert database.admit(second, "other", 200) > 0
    first.settle(rights, 100)
    database.now_ns += AGAIN_NS
    assert database.turn(first)
    assert database.admit(second, "other", 800) == 0


def test_tokens_beyond_the_estimate_are_taken_from_all_nodes() -> None:
    database = Database(1000)
    first, second = database.node(), database.node()
    assert database.admit(first, "r", 100) == 0
    first.settle([], 900)
    database.now_ns += NS // 2
    assert database.turn(first)
    assert database.admit(second, "other", 100) > 0


def test_what_was_drawn_ahead_and_not_used_goes_back() -> None:
    database = Database(600)
    first, second = database.node(), database.node()
    for n in range(30):
        assert database.admit(first, f"r{n}") == 0
        database.turn(first)
        database.now_ns += NS // 20
    database.now_ns += HOLD_NS + NS
    assert database.turn(first)
    assert not database.turn(first)
    assert sum(database.admit(second, f"s{n}", nodes=1) == 0 for n in range(700)) >= 590


def test_a_request_above_the_whole_limit_never_passes() -> None:
    database = Database(100)
    assert math.isinf(database.admit(database.node(), "large", 101))
    assert math.isinf(Database(0).admit(Database(0).node(), "any", 1))


def test_a_client_that_left_while_its_node_asked_leaves_its_right_to_others() -> None:
    database = Database(1)
    rate = database.node()
    assert rate.look("gone", 1, database.now_ns) == "waiting"
    ask = rate.ask(database.now_ns)
    assert ask is not None
    rate.drop("gone")
    rate.answered(ask, draw(database.bucket, ask, 2), database.now_ns)
    assert rate.look("next", 1, database.now_ns) == "granted"


def test_without_the_database_each_node_admits_its_share() -> None:
    database = Database(10)
    nodes = [database.node(), database.node()]
    for n in range(10):
        assert database.admit(nodes[0], f"r{n}") == 0
    admitted = 0
    for _ in range(61):
        for n, rate in enumerate(nodes):
            look = rate.look_alone("r", 1, 5, database.now_ns)
            if look == "granted":
                rate.claim("r", 1, database.now_ns)
                admitted += 1
            else:
                assert isinstance(look, float | int) and n in (0, 1)
        database.now_ns += NS
    assert admitted == 10  # of a minute; the ten of before are still counted
    for rate in nodes:
        assert database.turn(rate)
    assert database.admit(nodes[0], "back") > 0


def test_a_short_absence_of_the_database_costs_nothing_but_what_was_admitted_meanwhile() -> None:
    """A node that starts, or whose database does, has the requests of that moment only to account for."""
    database = Database(1000)
    rate = database.node()
    assert rate.look_alone("first", 1, 1000, database.now_ns) != "granted"
    assert not database.turn(rate) and rate.quiet
    assert database.bucket.level == 0

    database.now_ns += NS
    rate.look_alone("second", 1, 1000, database.now_ns)
    database.now_ns += NS  # a second brings 16 of the share
    for n in range(5):
        assert rate.look_alone(f"r{n}", 1, 1000, database.now_ns) == "granted"
        rate.claim(f"r{n}", 1, database.now_ns)
    assert rate.look_alone("estimated", 7, 1000, database.now_ns) == "granted"
    rate.settle(rate.claim("estimated", 7, database.now_ns), 3)
    ask = rate.ask(database.now_ns)
    assert ask is not None and ask.charge == 5 + 3
    rate.answered(ask, draw(database.bucket, ask, 2), database.now_ns)
    assert database.admit(rate, "back") == 0


def test_what_ends_in_a_second_absence_takes_nothing_from_what_that_one_owes() -> None:
    database = Database(1000)
    rate = database.node()

    def alone(request: str) -> list[Right]:
        rate.look_alone(request, 7, 1000, database.now_ns)
        database.now_ns += NS
        assert rate.look_alone(request, 7, 1000, database.now_ns) == "granted"
        return rate.claim(request, 7, database.now_ns)

    first = alone("first")
    assert database.turn(rate)
    database.now_ns += 10 * NS  # what was drawn ahead goes back
    rate.advance(1000, database.now_ns)
    second = alone("second")
    rate.settle(first, 0)
    rate.settle(second, 5)
    ask = rate.ask(database.now_ns)
    assert ask is not None and ask.charge == 5


@pytest.mark.parametrize("seed", range(12))
def test_in_any_order_of_requests_and_lost_answers_no_window_has_more_than_the_limit(
    seed: int,
) -> None:
    chance = random.Random(seed)
    most = chance.choice([3, 20, 200])
    database = Database(most)
    nodes = [database.node() for _ in range(3)]
    taken: list[tuple[int, int]] = []
    for n in range(3000):
        rate = chance.choice(nodes)
        rate.advance(most, database.now_ns)
        request, items = f"r{n % 7}", chance.choice([1, 1, 2])
        look = rate.look(request, items, database.now_ns)
        if look == "granted":
            rights = rate.claim(request, items, database.now_ns)
            taken.append((database.now_ns, items))
            if chance.random() < 0.2:  # it took one more than it said
                rate.settle(rights, items + 1)
        if chance.random() < 0.05:
            nodes[chance.randrange(3)] = database.node()  # killed
        database.turn(rate, 3, chance.choice(["", "", "", "ask", "answer"]))
        database.now_ns += chance.choice([0, NS // 100, NS // (most or 1)])
    first = 0
    within = 0
    allowed = 2 * most + most * HOLD_NS // MINUTE_NS + 1  # a burst, and what a minute brings
    for at_ns, items in taken:
        within += items
        while taken[first][0] <= at_ns - MINUTE_NS:
            within -= taken[first][1]
            first += 1
        assert within <= allowed
