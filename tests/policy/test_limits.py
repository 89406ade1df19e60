"""Limits: exact waits, nothing taken from who is refused, nothing given back twice."""

import copy
import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.dialects.registry import FACTS
from headgate.policy.keys import Key
from headgate.policy.limit_headers import LimitStatus, duration, headers
from headgate.policy.limit_kinds import LIMITS, MINUTE_NS, NS, Limit, of_key
from headgate.policy.limits import SWEEP, LimitAdmission, Limiter, LimitRefusal
from headgate.policy.pacing import PacedTurn, Pacer, PacerRefusal, UpstreamLimits

RPM, TPM, SLOTS = Limit("requests", 60), Limit("tokens", 1000), Limit("concurrency", 2)


def admit(
    limiter: Limiter, key: str, limits: Sequence[Limit], tokens: int, now_ns: int
) -> LimitAdmission | LimitRefusal:
    """A place and its tokens at once; the place is left again when there are too few tokens."""
    found = limiter.enter(key, limits, now_ns)
    if isinstance(found, LimitAdmission) and (refusal := limiter.take(found, tokens, now_ns)):
        limiter.settle(found, 0, now_ns)
        return refusal
    return found


def admitted(
    limiter: Limiter, limits: Sequence[Limit], now_ns: int, tokens: int = 0, key: str = "k"
) -> LimitAdmission:
    found = admit(limiter, key, limits, tokens, now_ns)
    assert isinstance(found, LimitAdmission), found
    return found


def refused(
    limiter: Limiter, limits: Sequence[Limit], now_ns: int, tokens: int = 0, key: str = "k"
) -> LimitRefusal:
    found = admit(limiter, key, limits, tokens, now_ns)
    assert isinstance(found, LimitRefusal), found
    return found


def remaining(limiter: Limiter, limits: Sequence[Limit], now_ns: int, word: str) -> int:
    return limiter.standings("k", limits, now_ns)[word].remaining


def test_a_burst_of_the_whole_limit_passes_and_then_one_at_a_time() -> None:
    limiter = Limiter()
    for _ in range(60):
        admitted(limiter, [RPM], 5 * NS)
    assert refused(limiter, [RPM], 5 * NS).retry_after_s == 1.0
    refused(limiter, [RPM], 6 * NS - 1)
    admitted(limiter, [RPM], 6 * NS)
    assert refused(limiter, [RPM], 6 * NS).retry_after_s == 1.0


@pytest.mark.parametrize("most", [1, 7, 59, 60, 61, 500, 999_983])
def test_a_client_that_waits_as_it_is_told_gets_exactly_its_rate(most: int) -> None:
    limit, limiter, now, count = [Limit("requests", most)], Limiter(), 10**15, 0
    for _ in range(min(most, 2000)):
        admitted(limiter, limit, now)
    if most > 2000:  # the rest of the burst at once
        limiter._buckets["k", "", "requests"].level = most * MINUTE_NS
    began = now
    for _ in range(200):
        wait = refused(limiter, limit, now).retry_after_s
        refused(limiter, limit, now + int(wait * NS) - 2)
        now += math.ceil(wait * NS)
        admitted(limiter, limit, now)
        count += 1
    assert 0 <= Fraction(most * (now - began), MINUTE_NS) - count < Fraction(1, 100)


def test_who_is_refused_a_place_has_lost_nothing_of_any_limit() -> None:
    limiter, limits = Limiter(), [RPM, TPM, SLOTS]
    running = [admitted(limiter, limits, 0, 450) for _ in range(2)]
    for _ in range(1000):
        assert refused(limiter, limits, 0, 10).limit == SLOTS
    assert remaining(limiter, limits, 0, "requests") == 58
    assert remaining(limiter, limits, 0, "tokens") == 100
    assert limiter.running("k") == 2
    limiter.settle(running[0], 450, 0)
    admitted(limiter, limits, 0, 100)


def test_who_is_refused_tokens_has_made_a_request_and_lost_no_tokens() -> None:
    limiter, limits = Limiter(), [RPM, TPM, SLOTS]
    admitted(limiter, limits, 0, 900)
    for _ in range(9):
        assert refused(limiter, limits, 0, 200).limit == TPM
    assert remaining(limiter, limits, 0, "requests") == 50
    assert remaining(limiter, limits, 0, "tokens") == 100
    assert limiter.running("k") == 1


def test_a_key_without_a_token_left_is_refused_before_its_tokens_are_known() -> None:
    limiter = Limiter()
    admitted(limiter, [RPM, TPM], 0, 1000)
    answer = limiter.enter("k", [RPM, TPM], 0)
    assert isinstance(answer, LimitRefusal) and answer.limit == TPM
    assert answer.retry_after_s == 0.06  # until one token is back
    assert remaining(limiter, [RPM, TPM], 0, "requests") == 59


def test_counts_and_look_ups_have_limits_of_their_own_also_for_keys_without_any() -> None:
    none, slow, fast = Key("a", "n", 0.0), Key("b", "n", 0.0, rpm=1), Key("c", "n", 0.0, rpm=60)
    counts = [of_key(key, "count")[0].most for key in (none, slow, fast)]
    assert counts == [1200, 30, 300]
    limiter = Limiter()
    for _ in range(30):
        assert isinstance(limiter.enter("b", of_key(slow, "count"), 0), LimitAdmission)
    answer = limiter.enter("b", of_key(slow, "count"), 0)
    assert isinstance(answer, LimitRefusal)
    assert "30 token counts a minute" in answer.failure().message
    assert isinstance(
        limiter.enter("b", of_key(slow), 0), LimitAdmission
    )  # which counts took nothing of
    assert isinstance(limiter.enter("b", of_key(slow, "lookup"), 0), LimitAdmission)


@pytest.mark.parametrize("order", [1, -1])
def test_the_limit_that_asks_for_the_longest_wait_is_named_and_its_wait_is_enough_for_all(
    order: int,
) -> None:
    limiter, limits = Limiter(), [Limit("requests", 1), Limit("tokens", 600)][::order]
    admitted(limiter, limits, 0, 600)
    answer = refused(limiter, limits, 0, 300)  # 30 s for the tokens, 60 s for the request
    assert (answer.limit.kind, answer.retry_after_s) == ("requests", 60.0)
    admitted(limiter, limits, 60 * NS, 300)


def test_a_limit_is_used_to_its_last_token() -> None:
    limiter = Limiter()
    for n in range(10):
        limiter.settle(admitted(limiter, [TPM], n, 100), 100, n)
    assert refused(limiter, [TPM], 10, 1).retry_after_s > 0
    admitted(limiter, [TPM], 10 + MINUTE_NS // 1000, 1)


def test_an_estimate_that_was_too_high_is_given_back_at_once() -> None:
    limiter = Limiter()
    for _ in range(100):  # each reserves all of it, and takes next to nothing
        limiter.settle(admitted(limiter, [TPM], 0, 990), 0, 0)
    assert remaining(limiter, [TPM], 0, "tokens") == 1000


def test_what_time_gave_back_is_not_given_back_again() -> None:
    """A reservation that drained in its minute must not make room beside the next one."""
    limiter = Limiter()
    first = admitted(limiter, [TPM], 0, 1000)
    admitted(limiter, [TPM], 60 * NS, 1000)
    limiter.settle(first, 100, 61 * NS)
    assert remaining(limiter, [TPM], 61 * NS, "tokens") == 16


def test_a_late_settlement_gives_back_no_more_than_is_left_of_its_reservation() -> None:
    limiter = Limiter()
    first = admitted(limiter, [TPM], 0, 1000)
    admitted(limiter, [TPM], 59 * NS, 900)
    limiter.settle(first, 100, 60 * NS)
    # Had it taken 100 from the start, the other one's 900 less one second would be there now.
    assert 110 <= remaining(limiter, [TPM], 60 * NS, "tokens") <= 116


def test_a_reservation_that_is_forgotten_gives_back_nothing_of_its_successors() -> None:
    limiter = Limiter()
    first = admitted(limiter, [TPM], 0, 1000)
    for n in range(SWEEP):
        admitted(limiter, [RPM], 60 * NS, key=str(n))
    assert ("k", "", "tokens") not in limiter._buckets
    admitted(limiter, [TPM], 60 * NS, 1000)
    limiter.settle(first, 0, 60 * NS)
    assert remaining(limiter, [TPM], 60 * NS, "tokens") == 0


def test_many_at_once_that_reserve_far_too_much_leave_nearly_all_of_the_limit() -> None:
    limiter, limits = Limiter(), [Limit("tokens", 1_000_000)]
    running = [admitted(limiter, limits, 0, 130_000) for _ in range(7)]
    for admission in running:
        limiter.settle(admission, 3_000, 5 * NS)
    assert remaining(limiter, limits, 5 * NS, "tokens") > 970_000


def test_tokens_above_the_estimate_are_charged_up_to_a_debt_of_one_window() -> None:
    limiter = Limiter()
    limiter.settle(admitted(limiter, [TPM], 0, 10), 500, 0)
    assert remaining(limiter, [TPM], 0, "tokens") == 500
    late = admitted(limiter, [TPM], 0, 0)
    limiter.settle(admitted(limiter, [TPM], 0, 10), 10**9, 0)
    answer = limiter.take(late, 1000, 0)
    assert answer is not None
    assert answer.retry_after_s == 120.0  # an OpenAI SDK gives up on more
    assert refused(limiter, [TPM], 0, 1000).retry_after_s == 60.06  # until one token is back
    admitted(limiter, [TPM], 120 * NS, 1000)


def test_a_request_larger_than_the_whole_limit_never_passes_and_is_told_so() -> None:
    answer = refused(Limiter(), [TPM], 0, 1001)
    assert math.isinf(answer.retry_after_s)
    failure = answer.failure()
    assert (failure.kind, failure.should_retry, failure.retry_after_s) == ("invalid", False, None)
    assert "1001 tokens" in failure.message and "1000 tokens a minute" in failure.message


@pytest.mark.parametrize("kind", LIMITS)
def test_a_limit_of_zero_lets_nothing_through_and_no_wait_is_promised(kind: str) -> None:
    answer = refused(Limiter(), [Limit(kind, 0)], 0, 0)
    failure = answer.failure()
    assert math.isinf(answer.retry_after_s)
    assert (failure.kind, failure.should_retry) == ("rate_limit", False)


def test_a_refusal_says_the_wait_in_the_words_that_codex_reads() -> None:
    limiter = Limiter()
    admitted(limiter, [Limit("requests", 1, "MiniMax-M2")], 0)
    failure = refused(limiter, [Limit("requests", 1, "MiniMax-M2")], NS // 2).failure()
    assert failure.message == (
        "The limit of this key is 1 requests a minute for MiniMax-M2. Please try again in 60s."
    )
    assert failure.retry_after_s == 59.5 and failure.kind == "rate_limit"


def test_a_slot_is_free_again_after_the_first_settlement_and_only_after_that() -> None:
    limiter = Limiter()
    one, two = (admitted(limiter, [SLOTS], 0) for _ in range(2))
    assert refused(limiter, [SLOTS], 10**15).limit == SLOTS
    limiter.settle(one, 0, 1)
    limiter.settle(one, 0, 1)
    assert limiter.running("k") == 1
    admitted(limiter, [SLOTS], 1)
    refused(limiter, [SLOTS], 1)
    limiter.settle(two, 0, 1)
    assert limiter.running("k") == 1 and limiter.running("other") == 0


def test_a_second_settlement_gives_no_tokens_back() -> None:
    limiter = Limiter()
    one = admitted(limiter, [TPM], 0, 500)
    admitted(limiter, [TPM], 0, 500)
    limiter.settle(one, 0, 0)
    limiter.settle(one, 0, 0)
    limiter.settle(one, 10**6, 0)
    assert remaining(limiter, [TPM], 0, "tokens") == 500


def test_keys_and_models_have_limits_of_their_own() -> None:
    limiter = Limiter()
    m2, m3 = Limit("requests", 1, "MiniMax-M2"), Limit("requests", 1, "MiniMax-M3")
    admitted(limiter, [m2, RPM], 0)
    admitted(limiter, [m3, RPM], 0)
    admitted(limiter, [m2, RPM], 0, key="other")
    assert refused(limiter, [m2, RPM], 0).limit == m2
    assert remaining(limiter, [RPM], 0, "requests") == 58


def test_another_limit_holds_at_once_and_what_was_taken_stays_taken() -> None:
    limiter = Limiter()
    for _ in range(60):
        admitted(limiter, [RPM], 0)
    more, less = [Limit("requests", 61)], [Limit("requests", 6)]
    admitted(limiter, more, 0)
    refused(limiter, more, 0)
    assert refused(limiter, less, 0).retry_after_s == 70.0  # a debt of one window at most
    admitted(limiter, less, 70 * NS)


def test_until_a_change_is_seen_the_old_limit_was_the_one_that_gave_back() -> None:
    limiter = Limiter()
    for _ in range(60):
        admitted(limiter, [RPM], 0)
    assert remaining(limiter, [Limit("requests", 600)], 30 * NS, "requests") == 600 - 30


def test_a_clock_that_is_put_back_neither_locks_out_nor_gives_more_than_passes() -> None:
    limiter = Limiter()
    for _ in range(60):
        admitted(limiter, [RPM], 10**15)
    assert refused(limiter, [RPM], 10**14).retry_after_s == 1.0
    admitted(limiter, [RPM], 10**14 + NS)
    refused(limiter, [RPM], 10**14 + NS)
    admit(limiter, "k", [RPM], 0, 10**17)
    assert remaining(limiter, [RPM], 10**17, "requests") == 59  # and no more than a burst


def test_keys_that_have_gone_quiet_are_forgotten() -> None:
    limiter = Limiter()
    for n in range(20 * SWEEP):
        admitted(limiter, [RPM], n * NS, key=str(n))
    assert len(limiter._buckets) <= SWEEP
    one = admitted(limiter, [TPM], 0, 500)
    for n in range(20 * SWEEP):
        admitted(limiter, [RPM], 10**15 + n * NS, key=str(n))
    limiter.settle(one, 0, 10**16)
    assert remaining(limiter, [TPM], 10**16, "tokens") == 1000


def test_the_limits_of_a_key_are_those_that_are_written_on_it() -> None:
    assert of_key(Key("a", "n", 0.0)) == ()
    key = Key("a", "n", 0.0, rpm=60, tpm=0, concurrency=2)
    assert of_key(key) == (RPM, Limit("tokens", 0), SLOTS)


# --- a state machine against an exact replay ---------------------------------------------------


class _Taken:
    def __init__(self, admission: LimitAdmission, tokens: int) -> None:
        self.admission, self.tokens = admission, tokens


class Machine(RuleBasedStateMachine):
    """The level never falls below that of an exact replay: one in which each settled request had
    taken, at the time of its admission, what it took in truth."""

    def __init__(self) -> None:
        super().__init__()
        self.limiter, self.now, self.most = Limiter(), 10**15, 100
        self.slots = 3
        self.events: list[tuple[str, int, Any]] = []
        self.open: list[_Taken] = []
        self.estimates_were_right = True

    def limits(self) -> list[Limit]:
        return [Limit("tokens", self.most), Limit("concurrency", self.slots)]

    def replay(self) -> Fraction:
        level, at, most = Fraction(0), 10**15, 100
        for what, when, value in self.events:
            level = max(Fraction(0), level - Fraction((when - at) * most, MINUTE_NS))
            at = when
            if what == "take":
                level += value.tokens
            elif what == "charge":
                level = max(level, min(level + value, Fraction(2 * most)))
            else:
                most = value
                level = min(level, Fraction(2 * most))
        return max(Fraction(0), level - Fraction((self.now - at) * most, MINUTE_NS))

    def level(self) -> Fraction:
        bucket = self.limiter._bucket(("k", "", "tokens"), self.most, self.now)
        return Fraction(bucket.level, MINUTE_NS)

    @rule(tokens=st.sampled_from([0, 1, 40, 60, 80, 100, 130]))
    def admit(self, tokens: int) -> None:
        room = self.most - self.replay()
        before = copy.deepcopy(self.limiter)
        answer = admit(self.limiter, "k", self.limits(), tokens, self.now)
        if isinstance(answer, LimitAdmission):
            assert tokens <= room and len(self.open) < self.slots
            taken = _Taken(answer, tokens)
            self.open.append(taken)
            self.events.append(("take", self.now, taken))
            return
        if self.estimates_were_right:
            assert max(1, tokens) > room or len(self.open) >= self.slots
        tokens_only = [Limit("tokens", self.most)]
        waited = admit(copy.deepcopy(before), "k", tokens_only, tokens, self.now)
        if isinstance(waited, LimitRefusal) and not math.isinf(waited.retry_after_s):
            wait = waited.retry_after_s
            assert 0 < wait <= 120
            tokens = waited.asked or 1  # 0: no token was left, and it waits for the first
            early = self.now + int(wait * NS) - 2
            if early > self.now:
                refused(copy.deepcopy(before), tokens_only, early, tokens)
            admitted(before, tokens_only, self.now + math.ceil(wait * NS), tokens)
        else:
            assert isinstance(waited, LimitAdmission) or tokens > self.most

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.sampled_from([0, 0, 0.1, 1, 1, 1.2]))
    def settle(self, data: Any, share: float) -> None:
        taken = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        really = int(taken.tokens * share)
        before = self.level()
        self.limiter.settle(taken.admission, really, self.now)
        self.limiter.settle(taken.admission, 0, self.now)
        if really > taken.tokens:
            if before + really - taken.tokens >= 2 * self.most:
                self.forget()
            else:
                self.events.append(("charge", self.now, really - taken.tokens))
        elif really < taken.tokens:
            self.estimates_were_right = False
            taken.tokens = really

    def forget(self) -> None:
        """A debt was forgiven: nothing can be said until it is gone."""
        self.now += 3 * MINUTE_NS
        self.events.clear()
        self.events.append(("limit", self.now, self.most))
        assert self.level() == 0

    @rule(ns=st.sampled_from([1, NS, 7 * NS, 20 * NS, 50 * NS, 59 * NS, 2 * MINUTE_NS]))
    def wait(self, ns: int) -> None:
        self.now += ns

    @rule(most=st.integers(80, 150), slots=st.integers(1, 4))
    def change(self, most: int, slots: int) -> None:
        self.level()  # with the old one until now
        self.most, self.slots = most, slots
        self.level()
        self.events.append(("limit", self.now, most))

    @invariant()
    def agree(self) -> None:
        level, truth = self.level(), self.replay()
        assert level >= truth - Fraction(1, 10**6)
        if self.estimates_were_right:
            assert abs(level - truth) < Fraction(1, 10**6)
        assert self.limiter.running("k") == len(self.open)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)


# --- headers -----------------------------------------------------------------------------------

STANDINGS = {
    "requests": LimitStatus(60, 59, NS),
    "tokens": LimitStatus(150000, 149984, 6 * MINUTE_NS),
}


@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_openais_headers(dialect: str) -> None:
    assert headers(FACTS[dialect].limit_headers, STANDINGS, 0.0) == [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-limit-tokens", "150000"),
        ("x-ratelimit-remaining-tokens", "149984"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    ]


def test_anthropics_headers() -> None:
    assert headers(
        FACTS["anthropic"].limit_headers, STANDINGS, 1_772_323_198.2
    ) == [  # the end of a February
        ("anthropic-ratelimit-requests-limit", "60"),
        ("anthropic-ratelimit-requests-remaining", "59"),
        ("anthropic-ratelimit-requests-reset", "2026-03-01T00:00:00Z"),
        ("anthropic-ratelimit-tokens-limit", "150000"),
        ("anthropic-ratelimit-tokens-remaining", "149984"),
        ("anthropic-ratelimit-tokens-reset", "2026-03-01T00:05:59Z"),
    ]


def test_geminis_protocol_has_no_words_for_it_and_no_limit_no_header() -> None:
    assert headers(FACTS["gemini"].limit_headers, STANDINGS, 0.0) == []
    assert headers("openai", Limiter().standings("k", [SLOTS], 0), 0.0) == []


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (12_000_000, "12ms"),
        (12_000_001, "13ms"),
        (999_999_999, "1s"),
        (NS, "1s"),
        (1_500_000_000, "1.5s"),
        (8_640_000_000, "8.64s"),
        (60 * NS, "1m0s"),
        (90 * NS, "1m30s"),
        (360 * NS, "6m0s"),
        (3600 * NS, "1h0m0s"),
        (3_661_050_000_000, "1h1m1.05s"),
    ],
)
def test_durations_are_written_as_openai_does_and_rounded_up(ns: int, text: str) -> None:
    assert duration(ns) == text


def test_what_is_left_is_told_of_the_tightest_of_several_limits() -> None:
    limiter = Limiter()
    limits = [RPM, Limit("requests", 5, "MiniMax-M2")]
    for _ in range(2):
        admitted(limiter, limits, 0)
    assert limiter.standings("k", limits, 0) == {"requests": LimitStatus(5, 3, 24 * NS)}
    assert limiter.standings("new", [RPM], 0) == {"requests": LimitStatus(60, 60, 0)}
    assert limiter.standings("k", [Limit("tokens", 0)], 0) == {"tokens": LimitStatus(0, 0, 0)}


# --- towards an upstream -----------------------------------------------------------------------


def test_what_is_published_passes_at_once_and_the_next_waits_until_the_minute_is_over() -> None:
    pacer, pace = Pacer(), UpstreamLimits(rpm=200)
    for n in range(200):
        turn = pacer.ask("a", "MiniMax-M3", pace, 10, n, 0.0)
        assert isinstance(turn, PacedTurn) and turn.wait_s == 0
    later = pacer.ask("a", "MiniMax-M3", pace, 10, 200, 5.0)
    assert isinstance(later, PacerRefusal) and later.retry_after_s == pytest.approx(60, abs=1e-6)
    assert isinstance(pacer.ask("a", "MiniMax-M2", pace, 10, 200, 0.0), PacedTurn)
    assert isinstance(pacer.ask("b", "MiniMax-M3", pace, 10, 200, 0.0), PacedTurn)
    for n in range(2):  # in the order in which they came, each at its own time
        turn = pacer.ask("a", "MiniMax-M3", pace, 10, 55 * NS, 5.1)
        assert isinstance(turn, PacedTurn) and turn.at_ns == MINUTE_NS + n
    assert isinstance(pacer.ask("a", "MiniMax-M3", pace, 10, 2 * MINUTE_NS + 2, 0.0), PacedTurn)


def test_a_minute_is_over_when_it_is_over_and_then_at_once() -> None:
    pacer, pace = Pacer(), UpstreamLimits(rpm=1)
    assert isinstance(pacer.ask("a", "m", pace, 0, 0, 0.0), PacedTurn)
    assert pacer.ask("a", "m", pace, 0, MINUTE_NS - 1, 0.0) == PacerRefusal(1e-9)
    assert isinstance(pacer.ask("a", "m", pace, 0, MINUTE_NS, 0.0), PacedTurn)
    pace = UpstreamLimits(tpm=100)
    for second in (0, 10):
        assert isinstance(pacer.ask("b", "m", pace, 50, second * NS, 0.0), PacedTurn)
    turn = pacer.ask("b", "m", pace, 50, 20 * NS, 60.0)
    assert isinstance(turn, PacedTurn) and turn.wait_s == 40.0


def test_tokens_that_were_not_taken_make_room_and_a_turn_that_was_not_used_too() -> None:
    pacer, pace = Pacer(), UpstreamLimits(rpm=3, tpm=100)
    first = pacer.ask("a", "m", pace, 90, 0, 0.0)
    assert isinstance(first, PacedTurn)
    assert pacer.ask("a", "m", pace, 20, 1, 0.0) == PacerRefusal((MINUTE_NS - 1) / NS)
    pacer.settle(first, 5)
    second = pacer.ask("a", "m", pace, 95, 1, 0.0)
    assert isinstance(second, PacedTurn)
    pacer.cancel(second)
    pacer.cancel(second)
    pacer.settle(second, 1000)
    assert isinstance(pacer.ask("a", "m", pace, 95, 1, 0.0), PacedTurn)
    pacer.ask("a", "m", pace, 1, 2 * MINUTE_NS, 0.0)
    pacer.settle(first, 10**9)  # its minute is over
    assert isinstance(pacer.ask("a", "m", pace, 99, 2 * MINUTE_NS, 0.0), PacedTurn)


def test_a_request_larger_than_the_upstreams_minute_goes_alone() -> None:
    pacer, pace = Pacer(), UpstreamLimits(tpm=100)
    assert isinstance(pacer.ask("a", "m", pace, 1000, 0, 0.0), PacedTurn)
    turn = pacer.ask("a", "m", pace, 1000, 1, 60.0)
    assert isinstance(turn, PacedTurn) and turn.at_ns == MINUTE_NS


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_no_minute_ever_has_more_than_the_upstream_allows(seed: int) -> None:
    chance = random.Random(seed)
    pacer, pace, now = (
        Pacer(),
        UpstreamLimits(rpm=chance.randint(1, 8), tpm=chance.randint(50, 200)),
        0,
    )
    turns: list[PacedTurn] = []
    for _ in range(150):
        now += chance.choice([0, 1, NS, 7 * NS, 20 * NS])
        answer = pacer.ask("a", "m", pace, chance.randint(0, 60), now, chance.choice([0, 5, 60]))
        if isinstance(answer, PacedTurn):
            assert answer.at_ns == now + round(answer.wait_s * NS)
            if chance.random() < 0.1 and answer.wait_s:
                pacer.cancel(answer)
            else:
                turns.append(answer)
        if turns and chance.random() < 0.3:
            turn = chance.choice(turns)
            pacer.settle(turn, chance.randint(0, turn.tokens))
    assert pace.rpm is not None and pace.tpm is not None
    for turn in turns:
        minute = [t for t in turns if turn.at_ns <= t.at_ns < turn.at_ns + MINUTE_NS]
        assert len(minute) <= pace.rpm
        assert sum(t.tokens for t in minute) <= pace.tpm
    assert turns == sorted(turns, key=lambda t: t.at_ns)
