"""What an exchange costs: tokens times the catalog's prices, in whole nano-dollars.

The only place that turns usage into money.  The prices come from catalog/models.toml as decimal
strings and are never floats on the way: 1 USD is 10**9 nano-dollars, so that a dollar for a million
tokens is 1000 nano-dollars a token.  The rounding rule: everything is added up exactly and rounded
once, at the end, half up to the nano-dollar.

What will surprise:
- the whole request is billed at the tier that its input falls into, not only what is above it
  (platform.minimax.io/docs/guides/pricing-paygo, 2026-10);
- `cached` and `cache_write` are parts of `input`.  What an upstream counts twice is billed once:
  the cached first, then the written, then the rest;
- a write that has no price of its own is not free: its tokens cost what other input does;
- a price that is missing or cannot be read is `nano=None`: unknown, which is not zero.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import msgspec

from headgate.chat import Usage

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


class _Rates(msgspec.Struct, frozen=True, gc=False):
    """Whole numbers: a token costs so many `per`-ths of a nano-dollar."""

    input: int
    cached: int
    cache_write: int
    output: int
    per: int


def charge(prices: Sequence[Price], usage: Usage, service_tier: str, on: date) -> Charge:
    """The cost of `usage` on the day `on` (UTC), by the tiers of one catalog Model."""
    price = _tier(_in_force(prices, on), usage.input)
    rates = _rates(price, service_tier.lower() == "priority") if price is not None else None
    if price is None or rates is None:
        return UNPRICED
    input = max(usage.input, 0)
    cached = min(max(usage.cached, 0), input)
    written = min(max(usage.cache_write, 0), input - cached)
    total = (
        (input - cached - written) * rates.input
        + cached * rates.cached
        + written * rates.cache_write
        + max(usage.output, 0) * rates.output
    )
    return Charge(_half_up(total, rates.per), version(price))


def worst_case(
    prices: Sequence[Price], input: int, max_output: int, service_tier: str, on: date
) -> Charge:
    """The most that up to `input` and `max_output` tokens can cost on that day, to be reserved.

    An estimate of the input that is too low can still be exceeded: the ledger then says so.
    """
    input, max_output = max(input, 0), max(max_output, 0)
    tiers = _in_force(prices, on)
    bound = _tier(tiers, input)
    if bound is None:
        return UNPRICED
    most, version_of_most = -1, ""
    for price in tiers[: tiers.index(bound) + 1]:  # also a cheaper amount in a dearer tier
        rates = _rates(price, service_tier.lower() == "priority")
        if rates is None:
            return UNPRICED
        fits = input if price is bound else min(input, price.up_to_input or 0)
        total = fits * max(rates.input, rates.cached, rates.cache_write) + max_output * rates.output
        nano = _half_up(total, rates.per)
        if nano > most:
            most, version_of_most = nano, version(price)
    return Charge(most, version_of_most)


def usd(nano: int) -> str:
    """Dollars as an exact decimal, at least two places: 1_500_000_000 is "1.50"."""
    whole, rest = divmod(abs(nano), NANO)
    places = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}{whole}.{places}"


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


def _tier(tiers: Iterable[Price], input: int) -> Price | None:
    """The first tier that the input fits."""
    return next((p for p in tiers if p.up_to_input is None or input <= p.up_to_input), None)


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
