"""What a second request with the same Idempotency-Key is answered, decided without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy import idempotency
from headgate.policy.idempotency import Past, Saved, Table, exchange_id, fingerprint, judge

SLOT = ("key1", "order-7")
ONE, OTHER = b"1" * 32, b"2" * 32
SAVED = Saved(200, b"content-type: text/event-stream\r\n", b"data: x\n\n", True)


def started(**bounds: float) -> Table:
    table = Table(**bounds)  # type: ignore[arg-type]  # each bound is of its own type
    table.start(SLOT, ONE, 0.0)
    return table


def test_a_key_that_was_never_seen_is_free() -> None:
    assert Table().look(SLOT, ONE, 0.0) is None


def test_a_request_is_running_until_its_reply_ended_and_is_then_replayed() -> None:
    table = started()
    assert table.look(SLOT, ONE, 1.0) == "running"
    table.end(SLOT, SAVED)
    assert table.look(SLOT, ONE, 2.0) is SAVED


def test_another_body_is_refused_while_it_runs_and_after() -> None:
    table = started()
    assert table.look(SLOT, OTHER, 1.0) == "other_body"
    table.end(SLOT, SAVED)
    assert table.look(SLOT, OTHER, 1.0) == "other_body"


def test_the_same_words_of_two_api_keys_are_two_keys() -> None:
    assert started().look(("key2", SLOT[1]), OTHER, 1.0) is None


def test_what_came_to_nothing_leaves_the_key_free() -> None:
    table = started()
    table.drop(SLOT)
    assert table.look(SLOT, OTHER, 1.0) is None
    assert (len(table), table.bytes) == (0, 0)


def test_a_reply_that_was_not_kept_is_neither_replayed_nor_run_again() -> None:
    table = started()
    table.end(SLOT, "not_kept")
    assert table.look(SLOT, ONE, 1.0) == "not_kept"


def test_a_reply_is_forgotten_after_its_time() -> None:
    table = started(ttl_s=10.0)
    table.end(SLOT, SAVED)
    assert table.look(SLOT, ONE, 9.9) is SAVED
    assert table.look(SLOT, ONE, 10.0) is None
    assert (len(table), table.bytes) == (0, 0)


def test_one_that_runs_is_never_put_out() -> None:
    table = started(max_entries=1, ttl_s=1.0)
    for n in range(5):
        table.start(("key1", str(n)), ONE, 0.0)
        table.end(("key1", str(n)), SAVED)
    assert table.look(SLOT, ONE, 99.0) == "running"
    assert len(table) == 2


def test_the_second_end_of_one_changes_nothing() -> None:
    table = started()
    table.end(SLOT, SAVED)
    before = table.bytes
    table.end(SLOT, "indeterminate")
    assert table.look(SLOT, ONE, 1.0) is SAVED
    assert table.bytes == before


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000), st.sampled_from("sed"))))
def test_the_table_stays_within_its_bounds_and_counts_right(
    steps: list[tuple[int, int, str]],
) -> None:
    table = Table(max_entries=4, max_bytes=5000, ttl_s=50.0)
    for now, (name, size, step) in enumerate(steps):
        slot = ("key1", str(name))
        if step == "s" and table.look(slot, ONE, now) is None:
            table.start(slot, ONE, now)
        elif step == "e":
            table.end(slot, Saved(200, b"", bytes(size)))
        else:
            table.drop(slot)
        ended = table._ended.values()
        assert table.bytes == sum(e.size for e in ended) <= 5000
        assert len(ended) <= 4
        assert not set(table._ended) & set(table._running)


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("a", True),
        ("~!" * 127, True),
        ("", False),
        ("a b", False),
        ("é", False),
        ("a" * 256, False),
    ],
)
def test_a_key_is_1_to_255_visible_characters(key: str, good: bool) -> None:
    assert idempotency.valid(key) is good


def test_order_and_spacing_of_a_body_do_not_matter_and_the_rest_does() -> None:
    one = fingerprint(b'{"a": 1, "b": {"c": [1, 2], "d": 2}}', "openai", None)
    assert fingerprint(b'{"b":{"d":2,"c":[1,2]},"a":1}', "openai", None) == one
    assert fingerprint(b'{"b":{"d":2,"c":[2,1]},"a":1}', "openai", None) != one
    assert fingerprint(b'{"a": 1, "b": {"c": [1, 2], "d": 2}}', "openai", True) != one
    assert fingerprint(b'{"a": 1, "b": {"c": [1, 2], "d": 2}}', "gemini", None) != one


def test_an_id_belongs_to_one_key_one_day_one_attempt_and_one_installation() -> None:
    ids = {
        exchange_id(secret, slot, day, attempt)
        for secret in (b"s", b"t")
        for slot in (SLOT, ("key1order", "-7"), ("key2", "order-7"))
        for day in (1, 2)
        for attempt in (0, 1)
    }
    assert len(ids) == 24
    assert all(len(id) == 24 and int(id, 16) >= 0 for id in ids)
    assert exchange_id(b"s", SLOT, 1, 0) in ids


@pytest.mark.parametrize(
    ("state", "verdict"),
    [("open", "running"), ("broken_off", "indeterminate"), ("done", "not_kept"), ("free", None)],
)
def test_what_the_ledger_knows_decides_where_the_table_does_not(
    state: str, verdict: str | None
) -> None:
    now = 10 * idempotency.DAY_S
    assert judge([Past(now - 5, state)], now) == verdict  # type: ignore[arg-type]
    assert judge([Past(now - idempotency.TTL_S, state)], now) is None  # type: ignore[arg-type]


def test_an_exchange_of_the_last_24_hours_began_today_or_yesterday() -> None:
    now = 10 * idempotency.DAY_S + 5
    assert idempotency.days(now) == (9, 10)
    assert int((now - idempotency.TTL_S) // idempotency.DAY_S) == 9


def test_only_one_that_runs_is_worth_asking_again() -> None:
    told = {
        v: idempotency.failure(v) for v in ("running", "other_body", "not_kept", "indeterminate")
    }  # type: ignore[arg-type]
    assert {v: f.should_retry for v, f in told.items()} == {
        "running": True,
        "other_body": False,
        "not_kept": False,
        "indeterminate": False,
    }
    assert told["running"].retry_after_s == 1
    assert told["indeterminate"].code == "indeterminate"
