"""Leases of several nodes: never too much together, whatever the order, and nothing lies idle for long."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.policy.leases import (
    EARLY_S,
    IDLE_S,
    KEPT_S,
    LEASE_S,
    RECALL_S,
    SPENT_S,
    TIMES,
    Answer,
    Ask,
    LeaseId,
    Leases,
    Other,
    grant,
)

ID = LeaseId("key", "K1", "total UTC 0001-01-01")


def ask(used: int = 0, need: int = 0, want: int = 0, spent: int = 0) -> Ask:
    return Ask(ID, used, spent, need, max(want, need))


# --- the database's rule --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "mine", "asked", "others", "granted"),
    [
        (1000, 0, ask(need=10, want=100), [], 100),
        (1000, 0, ask(need=10, want=900), [], 500),  # half of the room: others may come
        (
            1000,
            0,
            ask(need=900, want=900),
            [],
            900,
        ),  # but what a request needs, as long as it is there
        (1000, 0, ask(need=900, want=900), [(300, 0, 0)], 700),
        (1000, 0, ask(need=10, want=10), [(1000, 5, 5)], 0),
        (1000, 400, ask(used=100, want=150), [], 150),  # less, as it asked
        (1000, 400, ask(used=300, want=100), [], 300),  # but never less than is used
        (100, 400, ask(used=400, need=450, want=450), [], 400),  # the budget was lowered
        (
            1000,
            0,
            ask(used=50, need=50, want=50),
            [(1000, 9, 9)],
            50,
        ),  # spent before there was a lease
    ],
)
def test_a_grant(
    limit: int, mine: int, asked: Ask, others: list[tuple[int, int, int]], granted: int
) -> None:
    assert grant(limit, mine, asked, [Other(*o) for o in others], 1).granted == granted


def test_an_answer_says_how_all_nodes_stand() -> None:
    found = grant(1000, 0, ask(need=100), [Other(300, 200, 50), Other(10, 10, 10)], 3)
    assert found == Answer(100, 1000, 590, 100, 60, 250)


# --- the node's side ------------------------------------------------------------------------------


def leased(granted: int = 1000, free: int = 10**6, at_s: float = 0.0, **fields: Any) -> Leases:
    leases = Leases()
    answer = Answer(granted, 10**7, free, **fields)
    leases.answered(ask(need=granted), answer, at_s, at_s)
    return leases


def test_a_lease_ends_by_the_nodes_own_clock_and_before_the_database_gives_it_away() -> None:
    leases = leased(1000, at_s=100.0)
    assert leases.limit(ID, 40, 100.0 + LEASE_S - EARLY_S - 0.1) == 1000
    assert leases.limit(ID, 40, 100.0 + LEASE_S - EARLY_S) == 40
    assert Leases().limit(ID, 40, 0.0) == 0


def test_what_an_idle_node_does_not_use_goes_back() -> None:
    leases = leased(1000)
    leases.requested(ID, 10, 1.0)
    lease = leases.lease(ID)
    assert leases.due(lease, 200, 1.0 + KEPT_S + IDLE_S + 0.1) == 200
    leases.asking(ask(used=200, want=200))
    assert leases.limit(ID, 200, 5.0) == 200  # at once: others may have it by then


def test_a_lease_is_refilled_before_it_is_empty() -> None:
    leases = leased(1000)
    for n in range(20):
        leases.requested(ID, 10, 1.0 + n / 10)
    lease, now_s = leases.lease(ID), 3.0
    assert leases.due(lease, 990, now_s) is not None
    assert leases.target(lease, 990, now_s) >= 990 + TIMES * 10


def test_little_that_is_left_is_leased_for_each_request_alone() -> None:
    leases = leased(1000, free=30)
    leases.requested(ID, 10, 1.0)
    assert leases.target(leases.lease(ID), 995, 1.0) == 995


def test_what_was_asked_for_a_request_that_waits_is_kept_until_it_comes_back() -> None:
    leases = leased(1000, free=0)
    lease = leases.lease(ID)
    assert leases.due(lease, 10, KEPT_S / 2) is None
    assert leases.due(lease, 10, KEPT_S + 0.1) == 10
    leases.requested(ID, 600, KEPT_S / 2)
    assert leases.due(lease, 610, KEPT_S / 2) is None  # 400 for another one
    leases.requested(ID, 400, KEPT_S / 2)
    assert leases.due(lease, 610, KEPT_S / 2) == 610


def test_a_recall_returns_what_is_not_used() -> None:
    leases = leased(1000)
    leases.requested(ID, 10, 2.0)
    leases.recalled("key", "other", 2.0)
    assert leases.target(leases.lease(ID), 100, 2.0) > 100
    leases.recalled("key", "K1", 2.0)
    assert leases.due(leases.lease(ID), 100, 2.0) == 100
    assert leases.target(leases.lease(ID), 100, 2.0 + RECALL_S + 0.1) > 100


def test_the_database_is_not_asked_again_at_once_when_nothing_is_left_anywhere() -> None:
    leases = leased(1000)
    leases.answered(ask(used=900, need=1200), Answer(1000, 1000, 0), 1.0, 1.0)
    assert leases.hopeless(ID, 200, 100, 1.0 + SPENT_S / 2)
    assert not leases.hopeless(ID, 50, 100, 1.0 + SPENT_S / 2)
    assert not leases.hopeless(ID, 200, 100, 1.0 + SPENT_S)
    leases.answered(ask(used=900, need=1200), Answer(1000, 1000, 0, idle=5), 2.0, 2.0)
    assert not leases.hopeless(ID, 200, 100, 2.0)


# --- all of it together ---------------------------------------------------------------------------

LIMIT = 1000
NODES = 2


class _Node:
    """A node as node/leasing.py is one, with requests and without a network."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.spent = 0
        self.held: list[int] = []
        self.sent: tuple[Ask, float] | None = None
        self.reply: Answer | None = None

    @property
    def used(self) -> int:
        return self.spent + sum(self.held)


class Cluster(RuleBasedStateMachine):
    """Nodes ask, answers come late or never, nodes die with their requests and come back."""

    @initialize()
    def begin(self) -> None:
        self.now_s = 0.0
        self.nodes = [_Node() for _ in range(NODES)]
        self.rows: dict[int, Other] = {}  # the database
        self.limit = LIMIT

    node = st.integers(0, NODES - 1)

    @rule(n=node, nano=st.integers(1, 400))
    def request(self, n: int, nano: int) -> None:
        node = self.nodes[n]
        if node.used + nano <= node.leases.limit(ID, node.used, self.now_s):
            node.leases.requested(ID, nano, self.now_s)
            node.held.append(nano)

    @rule(n=node, share=st.integers(0, 100))
    def settle(self, n: int, share: int) -> None:
        node = self.nodes[n]
        if node.held:
            node.spent += node.held.pop() * share // 100

    @rule(n=node, need=st.integers(1, 500))
    def send(self, n: int, need: int) -> None:
        node = self.nodes[n]
        self.ask(node, need, max(node.used + need, node.leases.lease(ID).granted))

    @rule(n=node, idle=st.booleans())
    def look(self, n: int, idle: bool) -> None:
        """Nobody waits: the lease may be too large or too small; `idle` gives all of it back."""
        node = self.nodes[n]
        due = node.leases.due(node.leases.lease(ID), node.used, self.now_s)
        if idle or due is not None:
            self.ask(node, 0, node.used if due is None else due)

    def ask(self, node: _Node, need: int, want: int) -> None:
        if node.sent is None:
            sent = Ask(ID, node.used, node.spent, node.used + need, want)
            node.leases.asking(sent)
            node.sent = sent, self.now_s

    @rule(n=node)
    def travel(self, n: int) -> None:
        """The ask reaches the database, or the answer its node."""
        node = self.nodes[n]
        if node.sent is None:
            return
        sent, at_s = node.sent
        if node.reply is None:
            before = self.rows.get(n, Other(0, 0, 0))
            others = [row for m, row in self.rows.items() if m != n]
            node.reply = grant(self.limit, before.granted, sent, others, NODES)
            self.rows[n] = Other(node.reply.granted, sent.used, sent.spent)
        else:
            node.leases.answered(sent, node.reply, at_s, self.now_s)
            node.sent = node.reply = None

    @rule(n=node)
    def lose(self, n: int) -> None:
        """The connection breaks, before or after the database's commit."""
        self.nodes[n].sent = self.nodes[n].reply = None

    @rule(n=node, billed=st.booleans())
    def crash(self, n: int, billed: bool) -> None:
        """Killed; the journal has what was spent and makes rows of what was open."""
        old, new = self.nodes[n], _Node()
        new.spent = old.spent + (sum(old.held) if billed else 0)
        self.nodes[n] = new

    @rule(n=node)
    def recall(self, n: int) -> None:
        self.nodes[n].leases.recalled("key", "K1", self.now_s)

    @rule(seconds=st.sampled_from([0.1, 1.0, IDLE_S, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def nobody_overspends(self) -> None:
        if not hasattr(self, "nodes"):
            return
        assert sum(node.used for node in self.nodes) <= LIMIT
        assert sum(row.granted for row in self.rows.values()) <= LIMIT
        for n, node in enumerate(self.nodes):
            assert node.used <= self.rows.get(n, Other(0, 0, 0)).granted


Cluster.TestCase.settings = settings(max_examples=80, stateful_step_count=100, deadline=None)
TestCluster = Cluster.TestCase


def test_what_is_given_back_is_not_spent_while_the_ask_travels() -> None:
    cluster = Cluster()
    cluster.begin()
    cluster.send(0, 300)
    cluster.travel(0)
    cluster.travel(0)
    assert cluster.nodes[0].leases.limit(ID, 0, 0.0) == 300
    cluster.look(0, True)
    cluster.request(0, 200)
    cluster.travel(0)
    cluster.send(1, 400)
    cluster.travel(1)
    cluster.nobody_overspends()
    assert cluster.nodes[0].used == 0 and cluster.rows[0].granted == 0


def test_all_of_a_budget_can_be_spent_by_nodes_that_take_turns() -> None:
    """Nothing is stranded: what one node does not use, another one gets."""
    nodes, rows, spent, now_s = (
        [Leases() for _ in range(NODES)],
        dict[int, Other](),
        [0] * NODES,
        0.0,
    )

    def work(n: int, need: int) -> None:
        asked = Ask(ID, spent[n], spent[n], spent[n] + need, spent[n] + need)
        nodes[n].asking(asked)
        mine = rows.get(n, Other(0, 0, 0)).granted
        others = [row for m, row in rows.items() if m != n]
        answer = grant(LIMIT, mine, asked, others, NODES)
        rows[n] = Other(answer.granted, asked.used, asked.spent)
        nodes[n].answered(asked, answer, now_s, now_s)

    for turn in range(1000):
        n = turn % NODES
        work(n, 1)
        if nodes[n].limit(ID, spent[n], now_s) > spent[n]:
            spent[n] += 1
        work(n, 0)
    assert sum(spent) == LIMIT
