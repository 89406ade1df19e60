"""The prices of models as tables: those of today, and each with the days on which it held.

The prices are the catalog's own digits, never a float, never rounded.
"""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Literal

from headgate.catalog import price_history
from headgate.catalog.catalog import Catalog
from headgate.catalog.models import Model, Price, prices_on
from headgate.web.site import prose
from headgate.web.site.deployment import Site


def tiers_of(model: Model, on: date) -> tuple[Price, ...]:
    return prices_on(model.prices, on)


def price_of(model: Model, on: date, which: Literal["input", "output", "cache_read"]) -> str:
    """A price for a table of models: of each tier, the same one once."""
    prices = [f"${getattr(p, which) or p.input}" for p in tiers_of(model, on)]
    return " / ".join(dict.fromkeys(prices)) or "unknown"


def _dollars(amount: Decimal) -> str:
    whole, _, places = f"{amount:f}".partition(".")
    return f"${whole}.{places.rstrip('0').ljust(2, '0')}"


PER_MILLION = (
    "US dollars per million tokens, exactly as billed. Two prices are two tiers by the size of the"
    " input; the model's page has the limit."
)
BILLING = """The whole request is billed at the tier that its input falls into. Cached input and cache writes are parts of the
input. What an upstream charges nothing for, as a request it refused, costs nothing here."""


def number_of(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def price_table(*models: Model, on: date) -> str:
    """Every tier of the prices that hold on a day; the model is named when there are several."""
    rows = [
        (
            m.id,
            _size(p, m),
            f"${p.input}",
            f"${p.cache_read or p.input}",
            f"${p.cache_write or p.input}",
            f"${p.output}",
            f"x {p.priority_factor}",
            str(p.valid_from) if p.valid_from != price_history.BEGINNING else "always",
        )
        for m in models
        for p in tiers_of(m, on)
    ]
    titles = (
        "Model",
        "Input size",
        "Input",
        "Cached input",
        "Cache write",
        "Output",
        "Priority factor",
        "Valid from",
    )
    first = 0 if len(models) > 1 else 1
    numbers = [n - first for n in (2, 3, 4, 5, 6)]
    return prose.table(titles[first:], [row[first:] for row in rows], numbers)


def price_history_of(model: Model, site: Site, catalog: Catalog) -> str:
    """Each price of the model with the days on which it held; those of routes that have others."""
    routes = catalog.routes(model.id)
    if not model.prices and routes and all(r.free for r in routes):
        return "Not billed."
    parts = [_spans(model.prices, site.on)]
    names = site.upstreams.get(model.id, ())
    for number, route in enumerate(routes, 1):
        if route.free or tuple(route.prices) == tuple(model.prices):
            continue
        if site.named and route.upstream.name not in names:
            continue
        name = prose.plain(route.upstream.name) if site.named else f"route {number}"
        parts.append(f"### Prices at {name}\n\n{_spans(route.prices, site.on)}")
    return "\n\n".join(parts)


def _spans(prices: Sequence[Price], on: date) -> str:
    """A table of prices over time, the newest first."""
    spans = reversed(price_history.spans(prices))
    rows = [
        (
            "the beginning" if s.begins is None else str(s.begins),
            _last_day(s, on),
            _tier(p, s.tiers),
            f"${p.input}",
            f"${p.cache_read or p.input}",
            f"${p.cache_write or p.input}",
            f"${p.output}",
        )
        for s in spans
        for p in s.tiers
    ]
    titles = ("From", "Until", "Input size", "Input", "Cached input", "Cache write", "Output")
    return prose.table(titles, rows, (3, 4, 5, 6)) if rows else "No price is known."


def _last_day(span: price_history.PriceSpan, on: date) -> str:
    if span.begins is not None and span.begins > on:
        return "announced" if span.ends is None else f"{span.ends}, announced"
    return "now" if span.ends is None else str(span.ends)


def _tier(price: Price, tiers: Sequence[Price]) -> str:
    if price.up_to_input is not None:
        return f"up to {price.up_to_input:,} tokens"
    return "more" if len(tiers) > 1 else "any"


def _size(price: Price, model: Model) -> str:
    if price.up_to_input is not None:
        return f"up to {price.up_to_input:,} tokens"
    several = sum(p.valid_from == price.valid_from for p in model.prices) > 1
    return "more" if several else "any"


def sample_cost(model: Model, on: date) -> str:
    """10 000 tokens in and 1000 out are below the limit of any tier there is."""
    tiers = tiers_of(model, on)
    if not tiers:
        return ""
    cost = (Decimal(tiers[0].input) * 10_000 + Decimal(tiers[0].output) * 1_000) / 1_000_000
    return f"\n10,000 tokens of fresh input and 1,000 of output cost {_dollars(cost)}.\n"
