"""What is kept of passwords, which are taken, and how long guessers wait."""

from collections.abc import Callable
from typing import Any

import argon2
import pytest
from argon2.profiles import RFC_9106_LOW_MEMORY

from headgate.web.auth import passwords
from headgate.web.auth.passwords import FORGET_S, NAME_WAIT_S, PEER_WAIT_S, Throttle

GOOD = "correct horse battery"
PEER, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.fixture(scope="module")
def kept() -> str:
    return passwords.hash(GOOD)


# --- what is kept ------------------------------------------------------------------------------


def test_what_is_kept_is_argon2id_by_rfc_9106_and_salted(kept: str) -> None:
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert GOOD not in kept and passwords.hash(GOOD) != kept


def test_only_the_password_matches(kept: str) -> None:
    assert passwords.matches(kept, GOOD)
    for wrong in ("", GOOD + " ", GOOD.upper(), GOOD[:-1]):
        assert not passwords.matches(kept, wrong)


def test_nothing_matches_who_has_no_password() -> None:
    for given in ("", GOOD):
        assert not passwords.matches("", given)


def test_what_is_no_hash_matches_nothing() -> None:
    assert not passwords.matches(GOOD, GOOD)


def test_an_unknown_user_costs_the_work_of_a_known_one() -> None:
    """argon2 takes its work from the text, and gives up early on one that it cannot read."""
    assert argon2.extract_parameters(passwords._NOBODY) == RFC_9106_LOW_MEMORY
    with pytest.raises(argon2.exceptions.VerifyMismatchError):
        argon2.PasswordHasher().verify(passwords._NOBODY, GOOD)


def test_a_password_that_is_cut_is_not_the_password() -> None:
    longest = "".join(chr(0x4E00 + i) for i in range(passwords.MAX_CHARACTERS))
    assert passwords.problem(longest, "ada") == ""
    kept = passwords.hash(longest)
    assert passwords.matches(kept, longest)
    assert not passwords.matches(kept, longest + "x")


@pytest.mark.parametrize(
    ("set_by", "typed"),
    [
        ("crème brûlée 12", "cre\u0300me bru\u0302le\u0301e 12"),  # composed by another keyboard
        ("ideographic space", "ideographic\u3000space"),
        ("no break space!", "no\u00a0break\u2009space!"),
    ],
)
def test_what_looks_alike_is_alike(set_by: str, typed: str) -> None:
    assert passwords.matches(passwords.hash(set_by), typed)
    assert passwords.matches(passwords.hash(typed), set_by)


def test_what_is_hashed_stays_the_same_from_version_to_version() -> None:
    assert passwords._prepared("e\u0301\u3000") == "\u00e9 ".encode()


def test_what_looks_different_is_different() -> None:
    assert not passwords.matches(passwords.hash("ﬁne ligatures"), "fine ligatures")


def test_a_lone_surrogate_is_wrong_and_no_crash(kept: str) -> None:
    assert not passwords.matches(kept, "\udcff" * 12)


def test_a_hash_of_older_parameters_is_stale(kept: str) -> None:
    older = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(GOOD)
    assert passwords.matches(older, GOOD) and passwords.stale(older)
    assert not passwords.stale(kept) and not passwords.stale("")


def test_every_hash_takes_one_of_the_few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int] = []

    def count() -> None:
        slots = passwords._SLOTS
        taken = sum(slots.acquire(blocking=False) for _ in range(passwords.HASHES_AT_ONCE))
        free.append(taken)
        if taken:
            slots.release(taken)

    class Counting:
        def hash(self, given: bytes) -> str:
            count()
            return ""

        def verify(self, kept: str, given: bytes) -> bool:
            count()
            return True

    monkeypatch.setattr(passwords, "_HASHER", Counting())
    passwords.hash(GOOD)
    assert passwords.matches("kept", GOOD)
    count()
    most = passwords.HASHES_AT_ONCE
    assert free == [most - 1, most - 1, most]


# --- which are taken ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "x8!kQ2#vLp0z",
        "日本語のパスワードは長いよ",
        "🙂🙃😉😊 🙂🙃😉😊 abc",
        "an ada in a sentence",
        "    of spaces",
    ],
)
def test_length_is_what_counts(password: str) -> None:
    assert passwords.problem(password, "ada") == ""


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("", "at least 12"),
        ("elevenchars", "at least 12"),
        ("x8!kQ2#v" * 65, "at most 512"),
        ("aaaaaaaaaaaa", "too few"),
        ("abcabcabcabcabc", "too few"),
        ("tab\tin between", "not text"),
        ("half \ud800 a character", "not text"),
        ("unassigned \u0378\u0379", "not text"),
        ("password1234", "too common"),
        ("Password12345!", "too common"),
        ("PASSWORD123456789", "too common"),
        ("qwertyuiop123", "too common"),
        ("headgate-admin", "too common"),
        ("ada.lovelace", "user's name"),
        ("ＡＤＡ.lovelace1", "user's name"),
        ("ada.lovelaceada.lovelace", "user's name"),
    ],
)
def test_a_guessable_password_is_refused_with_the_reason(password: str, told: str) -> None:
    assert told in passwords.problem(password, "Ada.Lovelace")


def test_a_common_password_with_the_name_in_it_is_refused() -> None:
    assert passwords.problem("ada-password-ada", "ada") != ""


def test_a_user_without_a_name_is_no_reason() -> None:
    assert passwords.problem(GOOD, "") == ""


# --- guessing ----------------------------------------------------------------------------------


def waits(throttle: Throttle, times: int, name: str = "ada", peer: str = PEER) -> list[float]:
    """After each failure, how long to wait; each try is made when the wait is over."""
    now, out = 0.0, []
    for _ in range(times):
        throttle.failed(name, peer, now)
        out.append(throttle.wait_s(name, peer, now))
        now += out[-1]
    return out


def test_five_failures_are_free_and_each_further_one_doubles_the_wait() -> None:
    assert waits(Throttle(), 9) == [0, 0, 0, 0, 2, 4, 8, 16, 32]


def test_a_wait_is_over_when_it_was_said_to_be() -> None:
    throttle = Throttle()
    for _ in range(5):
        throttle.failed("ada", PEER, 100.0)
    assert [throttle.wait_s("ada", PEER, t) for t in (100.0, 101.5, 102.0, 103.0)] == [2, 0.5, 0, 0]


def test_an_address_waits_longer_than_a_name_at_most() -> None:
    throttle = Throttle()
    assert waits(throttle, 2000)[-1] == PEER_WAIT_S
    throttle = Throttle()
    for i in range(40):
        throttle.failed("ada", f"192.0.2.{i}", 0.0)
    assert throttle.wait_s("ada", "198.51.100.1", 0.0) == NAME_WAIT_S


def test_a_name_waits_wherever_the_tries_come_from_and_however_it_is_written() -> None:
    throttle = Throttle()
    for i in range(5):
        throttle.failed("Ada", f"192.0.2.{i}", 0.0)
    assert throttle.wait_s("ADA ", "198.51.100.1", 0.0) > 0
    assert throttle.wait_s("bob", "198.51.100.1", 0.0) == 0


def test_an_address_waits_whatever_names_it_tries() -> None:
    throttle = Throttle()
    for i in range(5):
        throttle.failed(f"user{i}", PEER, 0.0)
    assert throttle.wait_s("bob", PEER, 0.0) > 0
    assert throttle.wait_s("bob", OTHER, 0.0) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("a socket", "a socket", True),
    ],
)
def test_a_network_of_one_subscriber_is_one_address(one: str, other: str, same: bool) -> None:
    throttle = Throttle()
    for i in range(5):
        throttle.failed(f"user{i}", one, 0.0)
    assert (throttle.wait_s("bob", other, 0.0) > 0) is same


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""])
def test_a_proxy_on_this_machine_is_not_held_up_for_one_of_its_visitors(peer: str) -> None:
    throttle = Throttle()
    for _ in range(9):
        throttle.failed("ada", peer, 0.0)
    assert throttle.wait_s("ada", peer, 0.0) > 0
    throttle.passed("ada", peer)
    for _ in range(9):
        throttle.failed("ada", peer, 0.0)
    assert throttle.wait_s("ada", peer, 0.0) > 0  # having come in before helps nobody there
    assert throttle.wait_s("bob", peer, 0.0) == 0


def test_who_came_in_from_there_before_is_not_locked_out_by_strangers() -> None:
    throttle = Throttle()
    throttle.passed("ada", PEER)
    for i in range(20):
        throttle.failed("ada", f"198.51.100.{i}", 0.0)
    assert throttle.wait_s("ada", PEER, 0.0) == 0
    assert throttle.wait_s("ada", OTHER, 0.0) > 0
    assert waits(throttle, 5)[-1] > 0  # but their own tries count


def test_a_sign_in_forgets_the_names_failures_and_not_the_addresss() -> None:
    throttle = Throttle()
    for i in range(5):
        throttle.failed("ada", f"198.51.100.{i}", 0.0)
    for i in range(5):
        throttle.failed(f"user{i}", PEER, 0.0)
    throttle.passed("ada", PEER)
    assert throttle.wait_s("ada", OTHER, 0.0) == 0
    assert throttle.wait_s("bob", PEER, 0.0) > 0


def test_failures_of_long_ago_count_no_more() -> None:
    throttle = Throttle()
    for _ in range(8):
        throttle.failed("ada", PEER, 0.0)
    throttle.failed("ada", PEER, FORGET_S + 1)
    assert throttle.wait_s("ada", PEER, FORGET_S + 1) == 0


@pytest.mark.parametrize(
    "does", [lambda t, n, p: t.failed(n, p, 0.0), lambda t, n, p: t.passed(n, p)]
)
def test_what_is_remembered_is_bounded_and_the_latest_stays(
    does: Callable[[Throttle, str, str], Any],
) -> None:
    throttle = Throttle(most=100)
    for _ in range(5):
        throttle.failed("ada", PEER, 0.0)
    for i in range(1000):
        does(throttle, f"user{i}" * 1000, f"10.0.{i // 256}.{i % 256}")
        if not i % 40:
            throttle.failed("ada", PEER, 0.0)
    assert len(throttle) <= 200
    assert throttle.wait_s("ada", PEER, 0.0) > 0
