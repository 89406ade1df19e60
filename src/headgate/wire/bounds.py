"""The bounds of numbers that every dialect takes: one place, so that all refuse the same things."""

import math

from headgate.chat import Sampling
from headgate.errors import invalid

# No model writes more; above it a number is a mistake (MiniMax-M3's cap is 524 288, 2026-06).
MAX_TOKENS_BOUND = 10**7
MAX_STOPS = 16
MAX_STOP_CHARS = 1024


def check_sampling(
    s: Sampling, place: str, max_tokens: str = "max_tokens", camel: bool = False
) -> None:
    """Refuse what no model takes; `place` is the address of the fields' object, "$." at the top."""

    def name(words: str) -> str:
        first, *rest = words.split("_")
        return place + (first + "".join(w.capitalize() for w in rest) if camel else words)

    if s.max_tokens is not None and not 1 <= s.max_tokens <= MAX_TOKENS_BOUND:
        raise invalid(
            f"Expected a number of tokens from 1 up, got {s.max_tokens}.", place + max_tokens
        )
    for field, value, low, high in (
        ("temperature", s.temperature, 0.0, 2.0),
        ("top_p", s.top_p, 0.0, 1.0),
        ("presence_penalty", s.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", s.frequency_penalty, -2.0, 2.0),
    ):
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise invalid(f"Expected a number from {low:g} to {high:g}, got {value}.", name(field))
    if len(s.stop) > MAX_STOPS or any(not x or len(x) > MAX_STOP_CHARS for x in s.stop):
        raise invalid(
            f"Expected up to {MAX_STOPS} stop sequences of 1 to {MAX_STOP_CHARS} characters.",
            place + ("stopSequences" if camel else "stop"),
        )
