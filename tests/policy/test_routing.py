"""Which upstream a conversation begins at."""

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import Message, Request, Text
from headgate.policy.routing import by_keys, conversation, ordered


class Way(msgspec.Struct, frozen=True):
    id: str
    weight: int = 0


shares = st.lists(st.integers(0, 5), max_size=5)


@given(shares=shares, conversation=st.text(max_size=20))
def test_every_route_stays_and_the_order_is_kept(shares: list[int], conversation: str) -> None:
    routes = [Way(str(i), share) for i, share in enumerate(shares)]
    first = ordered(routes, conversation)
    assert sorted(r.id for r in first) == sorted(r.id for r in routes)
    assert list(ordered(routes, conversation)) == list(first)
    unshared = [r for r in first if not r.weight]
    assert unshared == [r for r in routes if not r.weight]


def test_without_shares_the_operators_order_holds() -> None:
    routes = [Way("a"), Way("b"), Way("c", 1)]
    assert ordered(routes, "x") == routes


def test_load_is_shared_by_weight() -> None:
    routes = [Way("a", 1), Way("b", 3)]
    first = Counter(ordered(routes, f"c{i}")[0].id for i in range(4000))
    assert 0.7 < first["b"] / 4000 < 0.8


def test_only_the_conversations_of_a_route_that_goes_move() -> None:
    three = [Way("a", 1), Way("b", 1), Way("c", 1)]
    for i in range(300):
        before = ordered(three, str(i))[0].id
        after = ordered(three[:2], str(i))[0].id
        assert before == "c" or before == after


class Keyed(msgspec.Struct, frozen=True):
    served_by: str


def test_conversations_are_spread_over_a_pool_and_stay_with_their_key() -> None:
    pool = [Keyed(f"up/m;key={n}") for n in (1, 2, 3, 4)]
    begun = Counter(by_keys(pool, f"c{i}")[0].served_by for i in range(4000))
    assert all(800 < n < 1200 for n in begun.values())
    for i in range(100):
        order = by_keys(pool, f"c{i}")
        assert sorted(k.served_by for k in order) == [k.served_by for k in pool]
        without = by_keys([k for k in pool if k is not order[0]], f"c{i}")
        assert without == order[1:]


def test_a_conversation_is_named_by_its_session_or_its_first_words() -> None:
    def request(*texts: str, session: str = "") -> Request:
        messages = [Message("user", (Text(t),)) for t in texts]
        return Request("m", tuple(messages), session=session)

    assert conversation(request("a", session="s"), "k") == "s"
    assert conversation(request("a"), "k") == conversation(request("a", "b"), "k")
    assert conversation(request("a"), "k") != conversation(request("b"), "k")
    assert conversation(request("a"), "k") != conversation(request("a"), "l")
    assert len(conversation(request("a" * 10**6), "k")) < 1000
    assert conversation(request(), "k") == "k"
    assert by_keys([Keyed("a"), Keyed("b")], conversation(request("\ud800"), "k"))
