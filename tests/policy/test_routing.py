"""Which upstream a conversation begins at."""

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.routing import ordered


class Way(msgspec.Struct, frozen=True):
    place: str
    share: int = 0


shares = st.lists(st.integers(0, 5), max_size=5)


@given(shares=shares, conversation=st.text(max_size=20))
def test_every_route_stays_and_the_order_is_kept(shares: list[int], conversation: str) -> None:
    routes = [Way(str(i), share) for i, share in enumerate(shares)]
    first = ordered(routes, conversation)
    assert sorted(r.place for r in first) == sorted(r.place for r in routes)
    assert list(ordered(routes, conversation)) == list(first)
    unshared = [r for r in first if not r.share]
    assert unshared == [r for r in routes if not r.share]


def test_without_shares_the_operators_order_holds() -> None:
    routes = [Way("a"), Way("b"), Way("c", 1)]
    assert ordered(routes, "x") == routes


def test_load_is_shared_by_weight() -> None:
    routes = [Way("a", 1), Way("b", 3)]
    first = Counter(ordered(routes, f"c{i}")[0].place for i in range(4000))
    assert 0.7 < first["b"] / 4000 < 0.8


def test_only_the_conversations_of_a_route_that_goes_move() -> None:
    three = [Way("a", 1), Way("b", 1), Way("c", 1)]
    for i in range(300):
        before = ordered(three, str(i))[0].place
        after = ordered(three[:2], str(i))[0].place
        assert before == "c" or before == after
