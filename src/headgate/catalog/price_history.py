"""Prices over time: which table of prices held from which day to which, and what a change does to them.

Pure.  A table is all prices of one day: its tiers by the size of the input.  It holds until the day before the next
one begins, as policy/pricing.py bills.  Note: a price that names no day holds from the beginning; where
it takes the place of another one, that one stays, with the days on which it held.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise, zip_longest
from typing import TypeVar

import msgspec
from msgspec import Struct

from headgate import config
from headgate.catalog.models import Price

BEGINNING = date(1970, 1, 1)
MOST_DAYS = 100  # tables that are kept of one model at one place: two years of weekly changes
P = TypeVar("P", bound=config.Price)


class PriceSpan(Struct, frozen=True):
    """One table of prices and the days on which it holds."""

    begins: date | None  # None: from the beginning
    ends: date | None  # the last day; None: no end is known
    tiers: tuple[Price, ...]


def spans(prices: Sequence[Price]) -> tuple[PriceSpan, ...]:
    """Return the tables in the order of their days, the oldest first."""
    days = sorted({p.valid_from for p in prices})
    last = [after - timedelta(days=1) for _, after in pairwise(days)]
    return tuple(
        PriceSpan(
            None if day == BEGINNING else day,
            end,
            tuple(p for p in prices if p.valid_from == day),
        )
        for day, end in zip_longest(days, last)
    )


def in_force(prices: Sequence[P], on: date) -> tuple[P, ...]:
    """Return the tiers of the newest table that holds on that day."""
    begun = [p for p in prices if p.valid_from <= on]
    newest = max((p.valid_from for p in begun), default=None)
    return tuple(p for p in begun if p.valid_from == newest)


def changed(old: Sequence[P], new: Sequence[P], on: date) -> tuple[P, ...]:
    """Return what is stored where `new` takes the place of `old`: both, each with its days.

    Where `new` names days itself it is taken as it is; an empty one takes all away.
    """
    if not old or not new or any(p.valid_from != BEGINNING for p in new):
        return tuple(new)
    if [_undated(p) for p in in_force(old, on)] == [_undated(p) for p in new]:
        return tuple(old)
    fresh = [msgspec.structs.replace(p, valid_from=on) for p in new]
    days = sorted({p.valid_from for p in old} - {on})[-MOST_DAYS:]
    kept = [p for p in old if p.valid_from in days]
    return tuple(sorted((*kept, *fresh), key=lambda p: p.valid_from))


def changed_at_upstream(
    old: Sequence[config.UpstreamPrice], new: Sequence[config.UpstreamPrice], on: date
) -> tuple[config.UpstreamPrice, ...]:
    """Return the same as `changed`, of each model by itself."""
    models = dict.fromkeys(p.model.lower() for p in new)
    return tuple(
        price
        for model in models
        for price in changed(
            [p for p in old if p.model.lower() == model],
            [p for p in new if p.model.lower() == model],
            on,
        )
    )


def _undated(price: P) -> P:
    return msgspec.structs.replace(price, valid_from=BEGINNING)
