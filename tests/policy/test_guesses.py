"""Wrong credentials are refused after a burst, by address and by key id."""

from headgate.policy.guesses import (
    KEY_BURST,
    KEY_EVERY_S,
    MAX_SUBJECTS,
    PEER_BURST,
    PEER_EVERY_S,
    GuessThrottle,
    network,
)


def burst(throttle: GuessThrottle, peer: str, key_id: str = "", now_s: float = 0.0) -> None:
    for _ in range(PEER_BURST):
        assert throttle.failed(peer, key_id, now_s) == 0


def test_a_burst_of_failures_passes_and_the_next_must_wait() -> None:
    throttle = GuessThrottle()
    burst(throttle, "192.0.2.1")
    assert throttle.failed("192.0.2.1", "", 0.0) == PEER_EVERY_S
    assert throttle.waits("192.0.2.1", 0.0)
    assert throttle.failed("192.0.2.1", "", 0.25) == PEER_EVERY_S - 0.25


def test_who_waits_as_long_as_was_said_may_fail_once_more_and_not_twice() -> None:
    throttle = GuessThrottle()
    burst(throttle, "192.0.2.1")
    for _ in range(1000):
        wait_s = throttle.failed("192.0.2.1", "", 0.0)
    assert not throttle.waits("192.0.2.1", wait_s)
    assert throttle.failed("192.0.2.1", "", wait_s) == 0
    assert throttle.failed("192.0.2.1", "", wait_s) == PEER_EVERY_S


def test_failures_of_one_address_are_none_of_another() -> None:
    throttle = GuessThrottle()
    burst(throttle, "192.0.2.1")
    assert throttle.failed("192.0.2.2", "", 0.0) == 0
    assert not throttle.waits("192.0.2.2", 0.0)


def test_one_key_id_is_guarded_against_many_addresses() -> None:
    throttle = GuessThrottle()
    for n in range(KEY_BURST):
        assert throttle.failed(f"192.0.2.{n}", "Key00001", 0.0) == 0
    assert throttle.failed("198.51.100.1", "Key00001", 0.0) == KEY_EVERY_S
    assert throttle.failed("198.51.100.1", "Key00002", 0.0) == 0


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    throttle = GuessThrottle()
    for n in range(PEER_BURST):
        throttle.failed(f"2001:db8:1:2::{n:x}", "", 0.0)
    assert throttle.failed("2001:db8:1:2:ffff::1", "", 0.0) > 0
    assert throttle.failed("2001:db8:1:3::1", "", 0.0) == 0
    assert network("::ffff:192.0.2.7") == "192.0.2.7"
    assert network("fe80::1%eth0") == network("fe80::2")
    assert network("no address: at all") == "no address: at all"


def test_the_table_is_bounded_and_forgets_who_failed_longest_ago() -> None:
    throttle = GuessThrottle()
    burst(throttle, "first")
    for n in range(3 * MAX_SUBJECTS):
        throttle.failed(f"host{n}", "", 1.0)
        assert len(throttle) <= MAX_SUBJECTS
    assert throttle.failed("first", "", 1.0) == 0
