"""A change of a price keeps the one before with its days, so that every day has the price that was billed on it."""

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headgate import config
from headgate.catalog import cards, operators, price_history
from headgate.catalog.models import Model
from headgate.dialects.openai import models as openai

FIRST = date(2026, 11, 1)
AMOUNTS = st.sampled_from(("0.10", "0.30", "1.20"))


@st.composite
def tables(draw: st.DrawFn) -> tuple[config.Price, ...]:
    """The prices that a form sends: one tier or two, without a day."""
    small = config.Price(draw(AMOUNTS), draw(AMOUNTS), up_to_input=draw(st.sampled_from((None, 9))))
    larger = (config.Price(draw(AMOUNTS), draw(AMOUNTS)),) if small.up_to_input else ()
    return (small, *larger)


def undated(prices: tuple[config.Price, ...]) -> list[tuple[str, str, int | None]]:
    return [(p.input, p.output, p.up_to_input) for p in prices]


@given(st.lists(st.tuples(st.integers(0, 5), tables()), min_size=1, max_size=12))
def test_every_day_has_the_price_that_was_set_last_up_to_it(
    changes: list[tuple[int, tuple[config.Price, ...]]],
) -> None:
    kept: tuple[config.Price, ...] = ()
    day = FIRST
    wanted: dict[date, tuple[config.Price, ...]] = {}
    for later, new in changes:
        kept = price_history.changed(kept, new, day := day + timedelta(days=later))
        wanted[day] = new
    current = changes[0][1]
    for n in range((day - FIRST).days + 3):
        on = FIRST + timedelta(days=n)
        current = wanted.get(on, current)
        if on >= min(wanted):
            assert undated(price_history.in_force(kept, on)) == undated(current), on
    spans = price_history.spans(operators.prices(kept))
    assert spans[0].begins is None and spans[-1].ends is None
    for before, after in pairwise(spans):
        assert before.ends is not None and after.begins == before.ends + timedelta(days=1)
    assert sum(len(s.tiers) for s in spans) == len(kept)


def test_a_model_without_a_price_has_no_history() -> None:
    """Its page and the lists of models are shown all the same."""
    assert price_history.spans(()) == ()
    model = Model("A", date(2026, 1, 1), 0, 1000, 100, 100, (), id="A")
    shown = cards.card(model, (), FIRST)
    assert (
        shown.price_history == () and "price_history" not in openai.models_out([shown], {}).decode()
    )


def test_what_changes_nothing_leaves_the_days_alone() -> None:
    one = config.Price("1", "2")
    kept = price_history.changed((one,), (config.Price("3", "4"),), FIRST)
    again = price_history.changed(kept, (config.Price("3", "4"),), FIRST + timedelta(days=9))
    assert again == kept and [p.valid_from for p in kept] == [price_history.BEGINNING, FIRST]


def test_days_that_are_named_and_an_empty_list_are_taken_as_they_are() -> None:
    kept = (config.Price("1", "2"),)
    dated = (config.Price("3", "4", valid_from=date(2026, 1, 1)),)
    assert price_history.changed(kept, dated, FIRST) == dated
    assert price_history.changed(kept, (), FIRST) == ()


def test_an_announced_price_outlives_a_change_of_todays() -> None:
    announced = config.Price("9", "9", valid_from=date(2027, 1, 1))
    kept = price_history.changed(
        (config.Price("1", "2"), announced), (config.Price("3", "4"),), FIRST
    )
    assert [(p.valid_from, p.input) for p in kept] == [
        (price_history.BEGINNING, "1"),
        (FIRST, "3"),
        (date(2027, 1, 1), "9"),
    ]


def test_so_many_days_are_kept_and_no_more() -> None:
    kept: tuple[config.Price, ...] = ()
    for n in range(price_history.MOST_DAYS + 50):
        kept = price_history.changed(kept, (config.Price(str(n + 1), "1"),), FIRST + timedelta(n))
    assert len(kept) == price_history.MOST_DAYS + 1
    assert kept[-1].input == str(price_history.MOST_DAYS + 50)


def test_the_prices_of_one_model_change_without_those_of_another() -> None:
    one, all_ = config.UpstreamPrice("1", "1", model="A"), config.UpstreamPrice("5", "5")
    fresh = config.UpstreamPrice("2", "2", model="A")
    found = price_history.changed_at_upstream((one, all_), (fresh, all_), FIRST)
    assert [(p.model, p.input, p.valid_from) for p in found] == [
        ("A", "1", price_history.BEGINNING),
        ("A", "2", FIRST),
        ("", "5", price_history.BEGINNING),
    ]
