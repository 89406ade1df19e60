"""What an exchange costs: tokens times the catalog's prices, in whole nano-dollars.

The only place that turns usage into money.  The prices come from catalog/models.toml as decimal
strings and are never floats on the way: 1 USD is 10**9 nano-dollars, so that a dollar for a million
tokens is 1000 nano-dollars a token.  The rounding rule: everything is added up exactly and rounded
once, at the end, half up to the nano-dollar.

Note:
- the whole request is billed at the tier that its input falls into, not only what is above it
  (platform.minimax.io/docs/guides/pricing-paygo, 2026-10);
- the price of a write holds where the caller says so (`written`): MiniMax writes its cache for nothing
  unless a request has breakpoints of its own;
- `cached` and `cache_write` are parts of `input`.  What an upstream counts twice is billed once:
  the cached first, then the written, then the rest;
- a write that has no price of its own is not free: its tokens cost what other input does;
- a price that is missing or cannot be read is `nano=None`: unknown, which is not zero.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import msgspec

from headgate.chat import Usage
from headgate.money import dollars

NANO = 10**9  # nano-dollars of a dollar
_PER_TOKEN = Fraction(NANO, 10**6)  # nano-dollars a token, of a dollar a million tokens
# Bounded: "1e999999999" is a decimal too, and has no room in any memory.
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?")


class Price(Protocol):
    """One tier as the catalog has it: its `Price`, whose documentation says what the fields mean."""

    @property
    def valid_from(self) -> date: ...
    @property
    def input(self) -> str: ...
    @property
    def output(self) -> str: ...
    @property
    def cache_read(self) -> str: ...
    @property
    def cache_write(self) -> str: ...
    @property
    def up_to_input(self) -> int | None: ...
    @property
    def priority_factor(self) -> str: ...
    def __hash__(self) -> int: ...


class Charge(msgspec.Struct, frozen=True, gc=False):
    """`version` names the price that was used, down to its digits; "" when there was none."""

    nano: int | None
    version: str = ""


UNPRICED = Charge(None)
UNBOUNDED = 2**62  # tokens; more than any request can have


class _Rates(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Whole numbers: a token costs so many `per`-ths of a nano-dollar."""

    input: int
    cached: int
    cache_write: int
    output: int
    per: int


class Tier(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The rates of requests with up to so many tokens of input; None: with any number."""

    up_to: int | None
    rates: _Rates | None  # None: the price is not known
    version: str


class Tariff:
    """What one model costs on one day, at one service tier: looked up once, asked for each request."""

    def __init__(self, prices: Sequence[Price], service_tier: str, on: date) -> None:
        """`prices`: of a catalog Model; `on`: in UTC."""
        priority = service_tier.lower() == "priority"
        self.tiers = tuple(
            Tier(p.up_to_input, _rates(p, priority), version(p)) for p in _in_force(prices, on)
        )

    @classmethod
    def of_tiers(cls, tiers: tuple[Tier, ...]) -> "Tariff":
        """The tariff that has these tiers, as another process knows them."""
        tariff = cls((), "", date.min)
        tariff.tiers = tiers
        return tariff

    def charge(self, usage: Usage, written: Callable[[], bool] | None = None) -> Charge:
        """The cost of `usage`.

        `written` tells whether what was written to the cache has the price of a write; None: it has.
        It is asked only when something was written.
        """
        input = max(usage.input, 0)
        for tier in self.tiers:
            up_to, rates, version = tier.up_to, tier.rates, tier.version
            if up_to is None or usage.input <= up_to:
                if rates is None:
                    break
                cached = min(max(usage.cached, 0), input)
                writes = min(max(usage.cache_write, 0), input - cached)
                if writes and written is not None and not written():
                    writes = 0
                total = (
                    (input - cached - writes) * rates.input
                    + cached * rates.cached
                    + writes * rates.cache_write
                    + max(usage.output, 0) * rates.output
                )
                return Charge(_half_up(total, rates.per), version)
        return UNPRICED

    def worst_case(self, input: int, max_output: int) -> Charge:
        """The most that up to `input` and `max_output` tokens can cost, to be reserved."""
        input, max_output = max(input, 0), max(max_output, 0)
        most, version_of_most = -1, ""
        for tier in self.tiers:  # also a cheaper amount in a dearer tier
            up_to, rates, version = tier.up_to, tier.rates, tier.version
            if rates is None:
                return UNPRICED
            bound = up_to is None or input <= up_to
            fits = input if bound else up_to or 0
            dearest = max(rates.input, rates.cached, rates.cache_write)
            nano = _half_up(fits * dearest + max_output * rates.output, rates.per)
            if nano > most:
                most, version_of_most = nano, version
            if bound:
                return Charge(most, version_of_most)
        return UNPRICED

    def output_for(self, input: int, nano: int) -> int | None:
        """Return how many output tokens `nano` pays for at most, behind up to `input` tokens of input.

        It is the largest n whose `worst_case(input, n)` is not above `nano`; -1 when `nano` does not
        even pay for the input, UNBOUNDED when output is free, None when a price is not known.
        """
        input, found = max(input, 0), UNBOUNDED
        for tier in self.tiers:
            up_to, rates = tier.up_to, tier.rates
            if rates is None:
                return None
            bound = up_to is None or input <= up_to
            fits = input if bound else up_to or 0
            # The largest sum that _half_up does not round to more than `nano`.
            most = (2 * rates.per * (nano + 1) - rates.per - 1) // 2
            left = most - fits * max(rates.input, rates.cached, rates.cache_write)
            if left < 0:
                return -1
            if rates.output:
                found = min(found, left // rates.output)
            if bound:
                return found
        return None


@lru_cache(maxsize=64)
def dearest(tariffs: tuple[Tariff, ...]) -> Tariff | None:
    """Return one tariff that is nowhere below any of these, of routes whose prices differ.

    What is reserved by it pays for each of them. None: there are none, as all routes are free.
    """
    if len(tariffs) < 2:
        return tariffs[0] if tariffs else None
    ends = sorted({t.up_to for tariff in tariffs for t in tariff.tiers if t.up_to is not None})
    tiers = []
    for up_to in (*ends, None):
        found = [_tier_of(tariff, up_to) for tariff in tariffs]
        rates = [t.rates for t in found if t is not None and t.rates is not None]
        known = len(rates) == len(tariffs)
        most = max((t for t in found if t is not None), key=_dearness, default=None)
        version = most.version if most is not None else ""
        tiers.append(Tier(up_to, _highest(rates) if known else None, version))
    return Tariff.of_tiers(tuple(tiers))


def _tier_of(tariff: Tariff, up_to: int | None) -> "Tier | None":
    """Return the tier of the inputs that end at `up_to`; None when no price holds for them."""
    for tier in tariff.tiers:
        if tier.up_to is None or (up_to is not None and up_to <= tier.up_to):
            return tier
    return None


def _dearness(tier: "Tier") -> Fraction:
    return Fraction(tier.rates.output, tier.rates.per) if tier.rates is not None else Fraction(-1)


def _highest(all_rates: Sequence[_Rates]) -> _Rates:
    """Return the highest of each rate, as parts of the same number."""
    per = math.lcm(*(r.per for r in all_rates))

    def most(of: Callable[[_Rates], int]) -> int:
        return max(of(r) * (per // r.per) for r in all_rates)

    return _Rates(
        most(lambda r: r.input),
        most(lambda r: r.cached),
        most(lambda r: r.cache_write),
        most(lambda r: r.output),
        per,
    )


def usd(nano: int) -> str:
    """Dollars as an exact decimal, at least two places: 1_500_000_000 is "1.50"."""
    return dollars(nano, 2)


@lru_cache(maxsize=256)
def version(price: Price) -> str:
    """The day from which a price holds and a digest of its figures: corrected data is a new one."""
    figures = (price.input, price.cache_read, price.cache_write, price.output, price.up_to_input)
    digest = hashlib.sha256(repr((*figures, price.priority_factor)).encode()).hexdigest()
    return f"{price.valid_from.isoformat()}.{digest[:8]}"


def _in_force(prices: Iterable[Price], on: date) -> list[Price]:
    """The tiers of the newest table that holds on that day, in the catalog's order."""
    begun = [p for p in prices if p.valid_from <= on]
    newest = max((p.valid_from for p in begun), default=None)
    return [p for p in begun if p.valid_from == newest]


@lru_cache(maxsize=256)
def _rates(price: Price, priority: bool) -> _Rates | None:
    texts = (
        price.input,
        price.cache_read or price.input,
        price.cache_write or price.input,
        price.output,
    )
    factor = price.priority_factor if priority else "1"
    if not all(_DECIMAL.fullmatch(t) for t in (*texts, factor)):
        return None
    exact = [Fraction(t) * Fraction(factor) * _PER_TOKEN for t in texts]
    per = math.lcm(*(rate.denominator for rate in exact))
    input, cached, cache_write, output = (int(rate * per) for rate in exact)
    return _Rates(input, cached, cache_write, output, per)


def _half_up(total: int, per: int) -> int:
    return (2 * total + per) // (2 * per)
