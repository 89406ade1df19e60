"""The columns of a sum of usage as a file has them: the same for the console, the CLI and its JSON.

Money is in dollars, exactly; times are means, as sums of them say nothing.
"""

from collections.abc import Mapping

from headgate.policy.pricing import usd
from headgate.storage.figures import Spent

Figure = str | int | float | None


def figures(spent: Spent) -> Mapping[str, Figure]:
    """Return the figures of one group, by column."""
    return {
        "requests": spent.requests,
        "errors": spent.errors,
        "error_rate": _part(spent.errors, spent.requests, 4),
        "unpriced": spent.unpriced,
        "input_tokens": spent.input_tokens,
        "cached_tokens": spent.cached_tokens,
        "cache_write_tokens": spent.cache_write_tokens,
        "output_tokens": spent.output_tokens,
        "reasoning_tokens": spent.reasoning_tokens,
        "cost_usd": usd(spent.cost_nano_usd),
        "cost_nano_usd": spent.cost_nano_usd,
        "ttft_mean_ms": _part(spent.ttft_ms, spent.first_tokens, 1),
        "output_tokens_per_s": _part(spent.output_tokens * 1000, spent.stream_ms, 1),
    }


def _part(part: int, whole: int, places: int) -> float | None:
    return round(part / whole, places) if whole else None


COLUMNS = tuple(figures(Spent("", *[0] * 8)))
