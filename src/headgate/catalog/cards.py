"""Models as lists of models show them: sizes, prices, efforts and what a request may ask for.

The words of `parameters` are OpenRouter's `supported_parameters`, which clients read (2026-11).
"""

from collections.abc import Sequence
from datetime import date
from typing import Protocol

from headgate.catalog import price_history
from headgate.catalog.models import Model, Price, Retirement, prices_on
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import CardPrice, CardPriceSpan, ModelCard

# What the gateway honours on every route, by itself where the upstream does not.
_EVERYWHERE = (
    "max_tokens",
    "response_format",
    "stop",
    "structured_outputs",
    "temperature",
    "top_p",
)


class Route(Protocol):
    """What a card says of a route of its model."""

    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def prices(self) -> tuple[Price, ...]: ...
    @property
    def free(self) -> bool: ...
    @property
    def retirement(self) -> Retirement | None: ...


def card(model: Model, routes: Sequence[Route], on: date) -> ModelCard:
    """Return the card of a model on that day."""
    ends = retirement(routes)
    prices = routes[0].prices if routes else model.prices
    free = bool(routes) and all(r.free for r in routes)
    return ModelCard(
        id=model.id,
        display_name=model.display_name,
        created=model.created,
        context_window=model.context_window,
        max_output=model.max_output,
        input=model.input,
        thinking=not routes or any(r.capabilities.reasoning_form != "none" for r in routes),
        description=f"{model.description} {words(ends, on)}".strip() if ends else model.description,
        vendor=model.vendor,
        prices=() if free else _tiers(prices_on(prices, on)),
        price_history=()
        if free
        else tuple(
            CardPriceSpan(
                span.begins.isoformat() if span.begins else "",
                span.ends.isoformat() if span.ends else "",
                _tiers(span.tiers),
            )
            for span in price_history.spans(prices)
        ),
        free=free,
        efforts=efforts(model, routes),
        default_effort=model.effort or model.default_effort,
        thinking_off=any(r.capabilities.thinking_off for r in routes),
        parameters=parameters(routes),
        retires=ends.ends.isoformat() if ends else "",
        closed=ends.closed.isoformat() if ends and ends.closed else "",
        retired=bool(ends and ends.ends <= on),
        successor=ends.successor if ends else "",
    )


def _tiers(prices: Sequence[Price]) -> tuple[CardPrice, ...]:
    return tuple(
        CardPrice(
            p.input, p.output, p.cache_read or p.input, p.cache_write or p.input, p.up_to_input
        )
        for p in prices
    )


def retirement(routes: Sequence[Route]) -> Retirement | None:
    """Return the end of the model here: none while one route goes on."""
    return routes[0].retirement if routes and all(r.retirement for r in routes) else None


def words(ends: Retirement, on: date) -> str:
    """Return a sentence about the end of a model."""
    past = ends.ends <= on
    return (
        f"{'Retired' if past else 'Retires'} at {'its' if past else 'the'} vendor's own API on {ends.ends};"
        f" the vendor names {ends.successor} as its successor."
    )


def efforts(model: Model, routes: Sequence[Route]) -> tuple[str, ...]:
    """Return the efforts that some route of the model honours, or that the model knows."""
    if not routes:
        return model.efforts
    found = {e for r in routes for e in r.capabilities.efforts}
    return tuple(e for e in ("minimal", "low", "medium", "high", "xhigh", "max") if e in found)


def parameters(routes: Sequence[Route]) -> tuple[str, ...]:
    """Return what a request may ask for on some route of the model."""
    able = [r.capabilities for r in routes]
    out = list(_EVERYWHERE)
    if any(c.tools for c in able):
        out += ["tools", "tool_choice"]
    if any(c.parallel_switch for c in able):
        out.append("parallel_tool_calls")
    if any(c.reasoning_form != "none" for c in able):
        out += ["include_reasoning", "reasoning"]
    if any(c.efforts for c in able):
        out.append("reasoning_effort")
    if any(c.seed for c in able):
        out.append("seed")
    if any(c.top_k for c in able):
        out.append("top_k")
    if any(c.penalties for c in able):
        out += ["frequency_penalty", "presence_penalty"]
    return tuple(sorted(out))
