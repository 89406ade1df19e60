"""Plans of a vendor: what is left of the windows of a key, from its refusals and its quota address.

MiniMax's M Plan has a window of 5 hours and one of 7 days; each begins with its first use.  A used-up window is a
429 with the words "usage limit exceeded, 5-hour usage limit reached for ... (0/0 used), resets at
2026-05-15T15:00:00Z (2056)" (github.com/MiniMax-AI/MiniMax-M2.7/issues/36, read 2026-11-30).  The quota address,
`GET /v1/token_plan/remains`, is not documented; its answer was seen by others in 2026-07: `model_remains` has an
entry for text ("general") and others, with `current_interval_*` (5 hours), `current_weekly_*` and their ends.

Note: times here are Unix seconds, as the vendor says when a window ends; `now_s` is always an argument.
"""

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

WindowName = Literal["5h", "7d"]
LENGTH_S: dict[WindowName, float] = {"5h": 5 * 3600.0, "7d": 7 * 86400.0}
USED_UP = "2056"  # the code that a pause has whose window was found to be used up
CODES = frozenset((USED_UP, "2061", "1028", "1030"))
KEY_PREFIX = "sk-cp-"  # of keys of a plan
ASK_AGAIN_S = 30.0  # after a refusal whose reset nobody knows
MAX_ENTRIES = 256  # of a quota answer that are read; there are a few
_UNLIMITED = 3  # `current_*_status` of what the plan does not limit
_WINDOW = re.compile(
    r"(?P<short>5[- ]?h(?:our)?s?\b|five[- ]hour|5 ?小时)|7[- ]?d(?:ay)?s?\b|week|7 ?天|周", re.I
)
_AT = re.compile(
    r"reset\w* (?:at|on)?:? ?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)"
    r" ?(Z|UTC|[+-]\d\d:?\d\d)?",
    re.I,
)
_IN = re.compile(
    r"(?:reset\w*|again|available) in:? ?((?:\d{1,7}(?:\.\d{1,6})? ?(?:d|h|m|s)[a-z]*[ ,]*)+)", re.I
)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?(d|h|m|s)", re.I)
_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


class PlanWindow(msgspec.Struct, frozen=True, array_like=True):
    """One window of a plan as it stood when it was last heard of."""

    name: WindowName
    left: float | None  # of its allowance, from 0 to 1; None: not known
    resets_at_s: float | None  # Unix seconds; None: not known


class PlanStanding(msgspec.Struct, frozen=True, array_like=True):
    """The windows of one key, and when the quota address last answered."""

    windows: tuple[PlanWindow, ...] = ()
    answered_s: float | None = None  # of the machine's monotonic clock
    reason: str = ""  # why the quota address says nothing, of a closed set of words


def from_refusal(code: str, text: str, now_s: float) -> tuple[PlanWindow, ...]:
    """Return the window that a refusal names as used up; () when it names none.

    Without a name, a reset later than five hours from now is that of the long window.
    """
    if code not in CODES:
        return ()
    resets_at_s = _reset_in(text, now_s)
    found = _WINDOW.search(text)
    if found is not None:
        name: WindowName = "5h" if found["short"] else "7d"
    elif resets_at_s is None:
        return ()
    else:
        name = "5h" if resets_at_s - now_s <= LENGTH_S["5h"] else "7d"
    if resets_at_s is not None and not 0 < resets_at_s - now_s <= LENGTH_S[name] + 3600.0:
        resets_at_s = None  # of a clock that is wrong, there or here
    return (PlanWindow(name, 0.0, resets_at_s),)


def _reset_in(text: str, now_s: float) -> float | None:
    if found := _AT.search(text):
        zone = found[2] or "Z"
        zone = "+00:00" if zone.upper() in ("Z", "UTC") else zone
        try:
            at = datetime.fromisoformat(found[1] + zone)
        except ValueError:
            return None
        return at.timestamp()
    if found := _IN.search(text):
        amounts = _AMOUNT.findall(found[1])
        return now_s + sum(float(n) * _UNITS_S[unit.lower()] for n, unit in amounts)
    return None


# --- the quota address ----------------------------------------------------------------------------

_Number = float | int | str | None  # vendors change their minds about the type


class _Remains(msgspec.Struct):
    model_name: str | None = None
    end_time: _Number = None
    remains_time: _Number = None
    current_interval_status: _Number = None
    current_interval_remaining_percent: _Number = None
    weekly_end_time: _Number = None
    weekly_remains_time: _Number = None
    current_weekly_status: _Number = None
    current_weekly_remaining_percent: _Number = None


class _BaseResp(msgspec.Struct):
    status_code: _Number = None


class _Quota(msgspec.Struct):
    model_remains: list[_Remains] | None = None
    base_resp: _BaseResp | None = None


_decode = msgspec.json.Decoder(_Quota).decode


def from_quota(body: bytes, now_s: float) -> tuple[PlanWindow, ...]:
    """Return the windows of a quota answer; ValueError says why it has none."""
    try:
        quota = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError("unknown answer") from None
    code = _number(quota.base_resp.status_code) if quota.base_resp is not None else None
    if code:
        raise ValueError("no plan" if code == 2062 else f"code {code:.0f}")
    entries = (quota.model_remains or [])[:MAX_ENTRIES]
    named = [e for e in entries if (e.model_name or "").lower() == "general"]
    named = named or [e for e in entries if (e.model_name or "").lower().startswith("minimax-m")]
    windows = [w for e in named for w in _windows(e, now_s)]
    if not windows:
        raise ValueError("unknown answer" if not named else "no limited window")
    return _worst(windows)


def _windows(entry: _Remains, now_s: float) -> Iterable[PlanWindow]:
    for name, status, percent, end, rest in (
        (
            "5h",
            entry.current_interval_status,
            entry.current_interval_remaining_percent,
            entry.end_time,
            entry.remains_time,
        ),
        (
            "7d",
            entry.current_weekly_status,
            entry.current_weekly_remaining_percent,
            entry.weekly_end_time,
            entry.weekly_remains_time,
        ),
    ):
        left, end_ms, rest_ms = _number(percent), _number(end), _number(rest)
        if _number(status) == _UNLIMITED or (left is None and end_ms is None):
            continue
        window: WindowName = "5h" if name == "5h" else "7d"
        resets_at_s = end_ms / 1000 if end_ms else now_s + rest_ms / 1000 if rest_ms else None
        if resets_at_s is not None and not 0 < resets_at_s - now_s <= LENGTH_S[window] + 3600.0:
            resets_at_s = None
        share = None if left is None else min(max(left, 0.0), 100.0) / 100
        yield PlanWindow(window, share, resets_at_s)


def _worst(windows: Iterable[PlanWindow]) -> tuple[PlanWindow, ...]:
    """Return of each window the one with the least left."""
    found: dict[WindowName, PlanWindow] = {}
    for each in windows:
        other = found.get(each.name)
        if other is None or (
            each.left is not None and (other.left is None or each.left < other.left)
        ):
            found[each.name] = each
    return tuple(found[name] for name in LENGTH_S if name in found)


def _number(value: _Number) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("%")[:32])
        except ValueError:
            return None
    if value is None or isinstance(value, bool) or abs(value) > 1e15 or not math.isfinite(value):
        return None
    return float(value)


# --- what follows ---------------------------------------------------------------------------------


def merged(
    old: Iterable[PlanWindow], new: Iterable[PlanWindow], now_s: float
) -> tuple[PlanWindow, ...]:
    """Return the windows with what is new of them; one that has ended is not known any more."""
    found = {w.name: w for w in old if w.resets_at_s is None or w.resets_at_s > now_s}
    found.update((w.name, w) for w in new)
    return tuple(found[name] for name in LENGTH_S if name in found)


def current(windows: Iterable[PlanWindow], now_s: float) -> tuple[PlanWindow, ...]:
    """Return the windows that have not ended."""
    return tuple(w for w in windows if w.resets_at_s is None or w.resets_at_s > now_s)


def wait_s(windows: Iterable[PlanWindow], now_s: float) -> float | None:
    """Return the seconds until every used-up window has been reset; None: none is, or nobody knows."""
    ends = [w.resets_at_s - now_s for w in windows if w.left == 0.0 and w.resets_at_s is not None]
    return max((s for s in ends if s > 0), default=None)
