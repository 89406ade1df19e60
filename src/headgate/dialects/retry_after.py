"""How long an upstream wants to be left alone, as its headers say it.

The only place that reads `retry-after` and the providers' headers of limits.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 8 * 86400.0  # longer than the longest window of a plan, 7 days
_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
# What a provider says is left, and when it comes back: the names before and after `-remaining`.
_LIMITS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the upstream wants to be asked again, from 0 to MAX_WAIT_S; None: not said.

    `retry-after-ms` and `retry-after` (seconds, or a date: RFC 9110, 10.2.3) come first, then the
    reset of the limits of which nothing is left, and of these the last one.  Dates are compared with
    the answer's own `date`, which edge/upstream.py adds where it is missing.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if (text := headers.get(name)) is not None:
            if (value := _finite(text)) is not None:
                if value >= 0:
                    return min(value / unit, MAX_WAIT_S)
            elif (at_s := _date(text)) is not None:
                return _until(at_s, headers)
    used_up: list[float] = []
    others: list[float] = []
    for remaining, reset in _LIMITS:
        if (text := headers.get(reset)) is not None:
            wait = _reset(text, headers)
            if wait is not None:
                left = _finite(headers.get(remaining, ""))
                (used_up if left is not None and left <= 0 else others).append(wait)
    if used_up:
        return max(used_up)
    return min(others) if others else None


def _finite(text: str) -> float | None:
    if len(text) > 32:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> float | None:
    """Read an HTTP date, or one as in RFC 3339, as Unix time."""
    text = text.strip()
    if len(text) > 64:
        return None
    try:
        at = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _until(at_s: float, headers: Mapping[str, str]) -> float | None:
    now_s = _date(headers.get("date", ""))
    return None if now_s is None else min(max(0.0, at_s - now_s), MAX_WAIT_S)


def _reset(text: str, headers: Mapping[str, str]) -> float | None:
    """Read seconds ("12"), a duration ("6m0s", "12ms"), Unix time in seconds or milliseconds, or a date."""
    value = _finite(text)
    if value is None:
        found = _DURATION.fullmatch(text) if 0 < len(text) <= 32 else None
        if found is None:
            at_s = _date(text)
            return None if at_s is None else _until(at_s, headers)
        days, hours, minutes, secs, ms = (float(part or 0) for part in found.groups())
        value = days * 86400 + hours * 3600 + minutes * 60 + secs + ms / 1000
    elif value > 1e11:
        return _until(value / 1000, headers)
    elif value > 1e9 / 2:
        return _until(value, headers)
    return min(value, MAX_WAIT_S) if value >= 0 else None
