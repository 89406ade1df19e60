"""Prices: golden tables down to the nano-dollar, and laws over all usage."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.catalog.models import Price, models
from headgate.chat import Usage
from headgate.policy.pricing import UNPRICED, Tariff, usd, version

TODAY = date(2026, 11, 1)
M3, M27, FAST = (
    models()[name].prices for name in ("MiniMax-M3", "MiniMax-M2.7", "MiniMax-M2.7-highspeed")
)

# The same turn as four protocols report it, and as it is kept: 224 new tokens, 3,712 of 3,936 cached
# (commandcode-proxy#25), 120 out.  224 x 300 + 3712 x 60 + 120 x 1200 nano-dollars.
TURN = Usage(input=3936, output=120, cached=3712)
TURN_NANO = 67_200 + 222_720 + 144_000


@pytest.mark.parametrize(
    ("prices", "usage", "tier", "nano"),
    [
        (M27, Usage(), "", 0),
        (M27, Usage(input=1), "", 300),
        (M27, Usage(output=1), "", 1200),
        (M27, TURN, "", TURN_NANO),
        (M27, Usage(input=3936, output=120), "", 3936 * 300 + 144_000),
        (M27, Usage(input=10_000, cache_write=8_000), "", 2_000 * 300 + 8_000 * 375),
        (
            M27,
            Usage(input=9, cached=4, cache_write=3, output=2),
            "",
            2 * 300 + 4 * 60 + 3 * 375 + 2400,
        ),
        (M27, Usage(input=100, output=500, reasoning=400), "", 30_000 + 600_000),  # inside output
        (M27, Usage(input=7, output=7, estimated=True), "", 7 * 1500),
        (FAST, TURN, "", 224 * 600 + 3712 * 60 + 120 * 2400),
        (M3, Usage(input=512_000, output=1), "", 512_000 * 300 + 1200),
        (M3, Usage(input=512_001, output=1), "", 512_001 * 600 + 2400),
        (M3, Usage(input=600_000, cached=600_000), "", 600_000 * 120),
        (M3, Usage(input=1_000_000, output=524_288), "", 600_000_000 + 524_288 * 2400),
        (M3, TURN, "priority", TURN_NANO * 3 // 2),
        (M3, TURN, "Priority", TURN_NANO * 3 // 2),
        (M3, TURN, "standard", TURN_NANO),
        (M27, TURN, "priority", TURN_NANO),  # it has no priority price: the factor is 1
        (M3, Usage(input=1, cache_write=1), "", 300),  # no price for writing: as other input
    ],
)
def test_the_golden_table(prices: tuple[Price, ...], usage: Usage, tier: str, nano: int) -> None:
    assert Tariff(prices, tier, TODAY).charge(usage).nano == nano


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(input=10, cached=25), 10 * 60),
        (Usage(input=10, cached=6, cache_write=9), 6 * 60 + 4 * 375),
        (Usage(input=-5, output=-1, cached=-2, cache_write=-3), 0),
    ],
)
def test_what_an_upstream_counts_twice_or_below_zero_is_billed_once(
    usage: Usage, nano: int
) -> None:
    assert Tariff(M27, "", TODAY).charge(usage).nano == nano


@pytest.mark.parametrize(
    ("input", "tokens", "nano"),
    [
        ("0.0000005", 1, 0),  # 0.0005 nano-dollars
        ("0.0005", 1, 1),  # a half goes up
        ("0.0004", 1, 0),
        ("0.0005", 3, 2),  # 1.5: rounded once, not 3 x 1
        ("0.0015", 1, 2),  # 1.5: up, not to the even neighbour
        ("0.0025", 1, 3),
        ("0.1", 3, 300),  # as floats 0.1 x 3 is more than 0.3
        ("999999999", 10**9, 999_999_999 * 10**12),
    ],
)
def test_it_is_rounded_once_and_half_up(input: str, tokens: int, nano: int) -> None:
    assert Tariff((Price(TODAY, input, "0"),), "", TODAY).charge(Usage(input=tokens)).nano == nano


def test_a_part_of_a_nano_dollar_in_each_kind_adds_up_before_it_is_rounded() -> None:
    price = Price(TODAY, "0.0004", "0.0004", "0.0004", "0.0004")
    assert Tariff((price,), "", TODAY).charge(Usage(4, 1, 1, 1)).nano == 2


def test_the_newest_price_that_has_begun_holds() -> None:
    old = Price(date(2026, 1, 1), "1", "1")
    new = Price(date(2026, 6, 1), "2", "2")
    for table in ((old, new), (new, old)):
        assert Tariff(table, "", date(2025, 12, 31)).charge(Usage(input=1)) == UNPRICED
        assert Tariff(table, "", date(2026, 5, 31)).charge(Usage(input=1)).nano == 1000
        assert Tariff(table, "", date(2026, 6, 1)).charge(Usage(input=1)).nano == 2000


def test_tiers_of_an_older_table_never_mix_with_a_newer_one() -> None:
    table = (
        Price(date(2026, 1, 1), "1", "1", up_to_input=10),
        Price(date(2026, 1, 1), "5", "5"),
        Price(date(2026, 6, 1), "2", "2", up_to_input=10),
    )
    assert Tariff(table, "", date(2026, 5, 1)).charge(Usage(input=11)).nano == 55_000
    assert Tariff(table, "", date(2026, 6, 1)).charge(Usage(input=11)) == UNPRICED


@pytest.mark.parametrize(
    "price",
    [
        Price(TODAY, "", "1"),
        Price(TODAY, "1", "free"),
        Price(TODAY, "-1", "1"),
        Price(TODAY, "nan", "1"),
        Price(TODAY, "1e999999999", "1"),
        Price(TODAY, "1", "1", cache_read="1/0"),
        Price(TODAY, "1", "1", priority_factor="x"),
    ],
)
def test_a_price_that_is_missing_or_broken_is_unknown_and_never_zero(price: Price) -> None:
    for table in ((), (price,)):
        assert Tariff(table, "priority", TODAY).charge(Usage(1, 1)) == UNPRICED
        assert Tariff(table, "priority", TODAY).worst_case(1, 1) == UNPRICED
    assert UNPRICED.nano is None and UNPRICED.version == ""


def test_a_free_model_costs_zero_and_has_a_version() -> None:
    free = Price(TODAY, "0", "0")
    assert Tariff((free,), "", TODAY).charge(Usage(5, 5)).nano == 0
    assert Tariff((free,), "", TODAY).charge(Usage(5, 5)).version == version(free) != ""


def test_the_version_tells_tiers_and_corrected_figures_apart() -> None:
    small = Tariff(M3, "", TODAY).charge(Usage(input=1)).version
    large = Tariff(M3, "", TODAY).charge(Usage(input=600_000)).version
    assert small != large
    assert small.startswith("2026-06-01.") and large.startswith("2026-06-01.")
    assert version(Price(TODAY, "1", "1")) == version(Price(TODAY, "1", "1"))
    assert version(Price(TODAY, "1", "1")) != version(Price(TODAY, "1", "1.1"))


@pytest.mark.parametrize("name", models())
def test_every_model_of_the_catalog_has_a_price_since_its_first_day(name: str) -> None:
    model = models()[name]
    usage = Usage(model.context_window, model.max_output)
    assert Tariff(model.prices, "", model.released).charge(usage).nano


def test_the_worst_case_reserves_the_dearest_kind_of_input() -> None:
    assert Tariff(M27, "", TODAY).worst_case(1000, 50).nano == 1000 * 375 + 50 * 1200
    assert Tariff(M3, "", TODAY).worst_case(512_000, 10).nano == 512_000 * 300 + 12_000
    assert (
        Tariff(M3, "priority", TODAY).worst_case(512_001, 10).nano
        == (512_001 * 600 + 24_000) * 3 // 2
    )


def test_the_worst_case_sees_that_a_smaller_request_may_be_dearer() -> None:
    bulk = (Price(TODAY, "9", "9", up_to_input=100), Price(TODAY, "1", "1"))
    assert Tariff(bulk, "", TODAY).worst_case(101, 1).nano == 100 * 9000 + 9000


amounts = st.integers(0, 1_200_000)
prices = st.sampled_from([m.prices for m in models().values()])
tiers = st.sampled_from(["", "standard", "priority"])


usages = st.builds(Usage, amounts, amounts, amounts, amounts)


@given(prices, tiers, amounts, amounts, usages)
def test_no_exchange_within_its_estimate_costs_more_than_the_worst_case(
    table: tuple[Price, ...], tier: str, most_in: int, most_out: int, u: Usage
) -> None:
    usage = Usage(min(u.input, most_in), min(u.output, most_out), u.cached, u.cache_write)
    cost = Tariff(table, tier, TODAY).charge(usage).nano
    bound = Tariff(table, tier, TODAY).worst_case(most_in, most_out).nano
    assert cost is not None and bound is not None
    assert 0 <= cost <= bound


@given(prices, amounts, amounts, amounts)
def test_one_more_token_out_never_makes_it_cheaper(
    table: tuple[Price, ...], input: int, cached: int, output: int
) -> None:
    less = Tariff(table, "", TODAY).charge(Usage(input, output, cached)).nano
    more = Tariff(table, "", TODAY).charge(Usage(input, output + 1, cached)).nano
    assert less is not None and more is not None and more > less


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (1_500_000_000, "1.50"),
        (-10_000_000, "-0.01"),
        (10**18, "1000000000.00"),
    ],
)
def test_dollars_are_exact(nano: int, text: str) -> None:
    assert usd(nano) == text
