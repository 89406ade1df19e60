"""Figures over many requests: percentiles of their times, what each kind of token cost, how they ended.

Pure: rows in, figures out.  A percentile is by nearest rank, so that it is always a time that some request
had.  A cost is taken apart only where the row's price is known and gives the row's cost; the rest stands
in one sum of its own, so that the parts always add up to what was billed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import msgspec

from headgate.catalog.models import Price
from headgate.policy import pricing
from headgate.storage.figures import RequestFacts
from headgate.storage.rows import LedgerRow

Row = RequestFacts | LedgerRow
PERCENTILES = (50, 95, 99)
_MILLION = 10**6


class Percentiles(msgspec.Struct, frozen=True):
    count: int
    values_ms: tuple[int, ...]  # of PERCENTILES; () where there are none


class CostParts(msgspec.Struct, frozen=True):
    """Splits a cost, in nano-dollars; the first five add up to `total`."""

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    other: int = 0  # rounding, and rows whose price is not known any more
    total: int = 0
    saved: int = 0  # what the cached tokens would have cost more as other input does
    unsplit: int = 0  # rows that are in `other` as a whole
    unpriced: int = 0  # rows without a known cost, which are in no sum


class RequestFigures(msgspec.Struct, frozen=True):
    requests: int
    first: Percentiles
    total: Percentiles
    cost: CostParts
    outcomes: tuple[tuple[str, int], ...]  # the most frequent first


def figures_of(rows: Sequence[Row], prices_of: Callable[[Row], Sequence[Price]]) -> RequestFigures:
    """`prices_of`: the tables of prices among which the row's may be."""
    outcomes = Counter(r.outcome for r in rows)
    return RequestFigures(
        len(rows),
        percentiles([r.ttft_ms for r in rows if r.ttft_ms is not None]),
        percentiles([r.total_ms for r in rows]),
        _parts(rows, prices_of),
        tuple(sorted(outcomes.items(), key=lambda one: (-one[1], one[0]))),
    )


def percentiles(values: Iterable[int]) -> Percentiles:
    """The smallest value that is not below so many hundredths of all."""
    ordered = sorted(values)
    count = len(ordered)
    found = (ordered[math.ceil(count * p / 100) - 1] for p in PERCENTILES) if count else ()
    return Percentiles(count, tuple(found))


class _Rates(msgspec.Struct, frozen=True):
    """A token costs so many `per`-ths of a nano-dollar."""

    input: int
    cached: int
    cache_write: int
    output: int
    per: int


class _Split:
    """The tokens of the rows of one price."""

    def __init__(self, rates: _Rates) -> None:
        self.rates = rates
        self.fresh = self.cached = self.written = self.output = 0

    def add(self, row: Row) -> None:
        self.fresh += row.input_tokens - row.cached_tokens - row.cache_write_tokens
        self.cached += row.cached_tokens
        self.written += row.cache_write_tokens
        self.output += row.output_tokens


def _parts(rows: Sequence[Row], prices_of: Callable[[Row], Sequence[Price]]) -> CostParts:
    splits: dict[tuple[str, str, str, str], _Split | None] = {}
    total = unsplit = unpriced = 0
    for row in rows:
        if row.cost_nano_usd is None:
            unpriced += 1
            continue
        total += row.cost_nano_usd
        place = row.model, row.upstream, row.price_version, row.service_tier.lower()
        if place not in splits:
            rates = _rates(row, prices_of(row))
            splits[place] = None if rates is None else _Split(rates)
        split = splits[place]
        if split is not None and _gives(split.rates, row):
            split.add(row)
        elif row.cost_nano_usd:
            unsplit += 1
    known = [s for s in splits.values() if s is not None]
    fresh = _sum((s.fresh * s.rates.input, s.rates.per) for s in known)
    cached = _sum((s.cached * s.rates.cached, s.rates.per) for s in known)
    written = _sum((s.written * s.rates.cache_write, s.rates.per) for s in known)
    output = _sum((s.output * s.rates.output, s.rates.per) for s in known)
    saved = _sum((s.cached * (s.rates.input - s.rates.cached), s.rates.per) for s in known)
    input, read, write, generated = map(_rounded, (fresh, cached, written, output))
    return CostParts(
        input=input,
        cached=read,
        cache_write=write,
        output=generated,
        other=total - (input + read + write + generated),
        total=total,
        saved=_rounded(saved),
        unsplit=unsplit,
        unpriced=unpriced,
    )


def _sum(parts: Iterable[tuple[int, int]]) -> Fraction:
    return sum((Fraction(*part) for part in parts), Fraction())


def _rates(row: Row, prices: Sequence[Price]) -> _Rates | None:
    price = next((p for p in prices if pricing.version(p) == row.price_version), None)
    if price is None:
        return None
    tier = row.service_tier.lower() == "priority"
    factor = Fraction(price.priority_factor if tier else "1") * pricing.NANO / _MILLION
    texts = (
        price.input,
        price.cache_read or price.input,
        price.cache_write or price.input,
        price.output,
    )
    exact = [Fraction(text) * factor for text in texts]
    per = math.lcm(*(rate.denominator for rate in exact))
    input, cached, written, output = (int(rate * per) for rate in exact)
    return _Rates(input, cached, written, output, per)


def _gives(rates: _Rates, row: Row) -> bool:
    """Whether the row's tokens at these rates are what the row was billed, to the nano-dollar."""
    fresh = row.input_tokens - row.cached_tokens - row.cache_write_tokens
    exact = (
        fresh * rates.input
        + row.cached_tokens * rates.cached
        + row.cache_write_tokens * rates.cache_write
        + row.output_tokens * rates.output
    )
    assert row.cost_nano_usd is not None
    return 2 * abs(exact - row.cost_nano_usd * rates.per) <= rates.per


def _rounded(nano: Fraction) -> int:
    return math.floor(nano + Fraction(1, 2))
