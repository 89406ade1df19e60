"""What is left of a key's limits, as the headers of a reply."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from headgate.policy.limit_kinds import NS


class LimitStatus(msgspec.Struct, frozen=True, gc=False):
    """What a client may know of one of its rates; `reset_ns`: until all of it is back."""

    limit: int
    remaining: int
    reset_ns: int


def headers(
    words: Literal["openai", "anthropic", ""], standings: Mapping[str, LimitStatus], wall_s: float
) -> list[tuple[str, str]]:
    """What is left, in the `words` of the client's protocol; "": it has none.

    OpenAI: developers.openai.com/api/docs/guides/rate-limits; Anthropic: platform.claude.com/docs,
    rate limits, response headers (both read 2026-11).  `wall_s`: Unix seconds of now.
    """
    out: list[tuple[str, str]] = []
    for word, standing in standings.items():
        limit, remaining = str(standing.limit), str(standing.remaining)
        if words == "anthropic":
            name = f"anthropic-ratelimit-{word}"
            back = datetime.fromtimestamp(math.ceil(wall_s + standing.reset_ns / NS), UTC)
            reset = back.strftime("%Y-%m-%dT%H:%M:%SZ")
            out += [
                (f"{name}-limit", limit),
                (f"{name}-remaining", remaining),
                (f"{name}-reset", reset),
            ]
        elif words == "openai":
            out += [
                (f"x-ratelimit-limit-{word}", limit),
                (f"x-ratelimit-remaining-{word}", remaining),
                (f"x-ratelimit-reset-{word}", duration(standing.reset_ns)),
            ]
    return out


def duration(ns: int) -> str:
    """As Go and OpenAI write it, "12ms", "1.5s", "6m0s"; never less than it is."""
    ms = -(-ns // 10**6)
    if 0 < ms < 1000:
        return f"{ms}ms"
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}.{ms:03d}".rstrip("0").rstrip(".") + "s" if ms else f"{seconds}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
