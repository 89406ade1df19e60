"""Responses that are kept are bounded by time, count and bytes, and are their owner's only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.stored_responses import (
    COST,
    MOST_BYTES,
    MOST_TURNS,
    KeptBounds,
    StoredResponses,
)

BOUNDS = KeptBounds(100.0, 5, 1 << 30)


def kept(count: int, bounds: KeptBounds = BOUNDS, owner: str = "a") -> StoredResponses:
    """A conversation of so many turns, one a second."""
    store = StoredResponses()
    for n in range(count):
        previous = f"r{n - 1}" if n else ""
        assert store.keep((owner, f"r{n}"), previous, b"%d" % n, bounds, float(n))
    return store


def test_a_response_comes_with_those_before_it_the_first_one_first() -> None:
    store = kept(4)
    assert store.chain(("a", "r3"), 5.0) == [b"0", b"1", b"2", b"3"]
    assert store.chain(("a", "r1"), 5.0) == [b"0", b"1"]
    assert store.one(("a", "r3"), 5.0) == b"3"


@pytest.mark.parametrize("slot", [("b", "r3"), ("a", "r9"), ("", "r3"), ("a", "")])
def test_nobody_gets_what_is_not_his(slot: tuple[str, str]) -> None:
    store = kept(4)
    assert store.one(slot, 5.0) is None
    assert store.chain(slot, 5.0) in ("unknown", [])
    assert not store.drop(slot)


def test_use_keeps_a_whole_conversation_alive() -> None:
    store = kept(3)
    assert store.chain(("a", "r2"), 99.0) == [b"0", b"1", b"2"]
    assert store.chain(("a", "r2"), 198.0) == [b"0", b"1", b"2"]
    assert store.chain(("a", "r2"), 298.1) == "unknown"
    assert store.one(("a", "r2"), 298.1) is None


def test_what_has_expired_is_dropped_when_another_one_comes() -> None:
    store = kept(3)
    store.keep(("b", "x"), "", b"x", BOUNDS, 1000.0)
    assert len(store) == 1
    assert store.bytes == 1 + COST


def test_the_next_node_goes_on_with_what_was_kept() -> None:
    before, after = kept(4), StoredResponses()
    after.restore(before.kept())
    assert (len(after), after.bytes) == (len(before), before.bytes)
    assert after.chain(("a", "r3"), 5.0) == [b"0", b"1", b"2", b"3"]
    after.keep(("a", "r4"), "r3", b"4", BOUNDS, 6.0)
    after.keep(("a", "r5"), "r4", b"5", BOUNDS, 6.0)
    assert after.one(("a", "r0"), 6.0) is None  # the bound of its owner holds on


def test_an_owner_has_so_many_and_loses_its_own_oldest() -> None:
    store = kept(5)
    store.keep(("b", "x"), "", b"x", BOUNDS, 5.0)
    store.keep(("a", "r5"), "r4", b"5", BOUNDS, 6.0)
    assert store.one(("a", "r0"), 7.0) is None
    assert store.one(("b", "x"), 7.0) == b"x"
    assert store.chain(("a", "r5"), 7.0) == "unknown"  # its beginning is gone


def test_all_together_have_so_many_bytes() -> None:
    bounds = KeptBounds(100.0, 1000, 10 * (COST + 10))
    store = StoredResponses()
    for n in range(50):
        assert store.keep((f"owner{n % 7}", str(n)), "", b"x" * 10, bounds, 1.0)
        assert store.bytes <= bounds.most_bytes
    assert len(store) == 10


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 3000])
def test_what_is_too_large_is_not_kept(size: int) -> None:
    store = StoredResponses()
    assert not store.keep(("a", "r"), "", b"x" * size, KeptBounds(100.0, 5, 2000), 0.0)
    assert (len(store), store.bytes) == (0, 0)


def test_a_conversation_that_is_too_long_is_said_to_be() -> None:
    store = kept(MOST_TURNS + 1, KeptBounds(10_000.0, 10_000, 1 << 30))
    assert store.chain(("a", f"r{MOST_TURNS - 1}"), 5000.0) != "too_large"
    assert store.chain(("a", f"r{MOST_TURNS}"), 5000.0) == "too_large"


def test_a_conversation_that_turns_in_a_circle_ends() -> None:
    store = StoredResponses()
    store.keep(("a", "x"), "y", b"1", BOUNDS, 0.0)
    store.keep(("a", "y"), "x", b"2", BOUNDS, 0.0)
    assert store.chain(("a", "x"), 1.0) == "too_large"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["keep", "drop", "chain"]),
            st.sampled_from("ab"),
            st.integers(0, 5),
            st.integers(0, 5),
            st.integers(0, 300),
        ),
        max_size=60,
    )
)
def test_bytes_and_counts_always_agree(steps: list[tuple[str, str, int, int, int]]) -> None:
    store, bounds = StoredResponses(), KeptBounds(50.0, 3, 5 * COST)
    now_s = 0.0
    for what, owner, id, previous, size in steps:
        now_s += size / 10
        slot = (owner, str(id))
        if what == "keep":
            store.keep(slot, str(previous), b"x" * size, bounds, now_s)
        elif what == "drop":
            store.drop(slot)
        else:
            store.chain(slot, now_s)
        assert store.bytes == sum(e.size for e in store._entries.values()) <= bounds.most_bytes
        assert sorted((o, i) for o, ids in store._of.items() for i in ids) == sorted(store._entries)
        assert all(len(ids) <= 3 for ids in store._of.values())
