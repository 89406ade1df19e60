"""What a request would cost, without sending it: the figures of a price quote.

A quote has the same bound that a budget reserves (`Tariff.worst_case`), so that a reply of the request
never costs more, and the cost of its input at the price that its size falls into.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from headgate.chat import Usage
from headgate.policy import pricing
from headgate.policy.pricing import Price, Tariff

Counted = Literal["exact", "template_assumed", "estimated"]


class QuotedPrice(msgspec.Struct, frozen=True):
    """US dollars per million tokens, in the catalog's own digits."""

    input: str
    cached_input: str
    cache_write: str
    output: str
    priority_factor: str
    up_to_input_tokens: int | None
    valid_from: str
    price_version: str


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are exact decimals; null: the price is not known."""

    object: Literal["quote"] = "quote"
    model: str
    currency: Literal["USD"] = "USD"
    service_tier: str
    free: bool
    input_tokens: int
    counted: Counted
    max_output_tokens: int
    price: QuotedPrice | None
    input_cost: str | None  # none of it read from the cache
    cached_input_cost: str | None  # all of it read from the cache
    max_output_cost: str | None
    max_cost: str | None  # no reply to this request costs more
    max_cost_nano_usd: int | None


def quote(
    *,
    model: str,
    service_tier: str,
    prices: Sequence[Price],
    tariff: Tariff,
    dearest: Tariff | None,
    input: int,
    counted: Counted,
    input_bound: int,
    max_output: int,
) -> Quote:
    """`prices` and `tariff`: of the first route; `dearest`: of all that may answer, None: all are free.

    `input` is the count, `input_bound` the most that it can be.
    """
    bound = max(input_bound, input)
    if dearest is None:
        most: int | None = 0
    else:
        most = dearest.worst_case(bound, max_output).nano
    charge = tariff.charge(Usage(input, 0))
    whole = tariff.charge(Usage(input, max_output))
    price = next((p for p in prices if pricing.version(p) == charge.version), None)
    output = None
    if charge.nano is not None and whole.nano is not None:
        output = whole.nano - charge.nano
    free = dearest is None
    return Quote(
        model=model,
        service_tier=service_tier,
        free=free,
        input_tokens=input,
        counted=counted,
        max_output_tokens=max_output,
        price=None if price is None or free else _quoted(price, charge.version),
        input_cost=_usd(0 if free else charge.nano),
        cached_input_cost=_usd(0 if free else tariff.charge(Usage(input, 0, cached=input)).nano),
        max_output_cost=_usd(0 if free else output),
        max_cost=_usd(most),
        max_cost_nano_usd=most,
    )


def _quoted(price: Price, version: str) -> QuotedPrice:
    return QuotedPrice(
        price.input,
        price.cache_read or price.input,
        price.cache_write or price.input,
        price.output,
        price.priority_factor,
        price.up_to_input,
        price.valid_from.isoformat(),
        version,
    )


def _usd(nano: int | None) -> str | None:
    return None if nano is None else pricing.usd(nano)
