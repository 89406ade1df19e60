"""The periods of budgets: their names, and when they begin and end."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from headgate.policy.key_terms import Period
from headgate.policy.keys import Account, Key
from headgate.policy.pricing import NANO

MAX_NANO = 10**18  # a thousand million dollars; sums of it still fit SQLite's integers


_DOLLARS = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?", re.ASCII)


class Budget(msgspec.Struct, frozen=True, gc=False):
    nano: int
    period: Period = "total"
    zone: str = "UTC"  # in which days and months begin


def written_on(owner: Key | Account) -> Budget | None:
    """The budget that is written on a key, or on an account."""
    if owner.budget_nano is None:
        return None
    return Budget(owner.budget_nano, owner.budget_period, owner.budget_zone)


def nano_of(text: str) -> int:
    """Return dollars as an exact decimal, "12.50"; ValueError for anything else."""
    found = _DOLLARS.fullmatch(text)
    if found is None:
        raise ValueError(
            f"`{text[:32]}` is no amount in dollars; write 12.50 (up to nine decimals)."
        )
    return int(found[1]) * NANO + int((found[2] or "").ljust(9, "0"))


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """The time zone of that name in the IANA's database; ValueError when there is none here."""
    if name == "UTC":  # also on a system without the database
        return UTC
    try:
        return ZoneInfo(name)
    # It reads files of that name: a directory, a name that is too long, a NUL
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"no time zone `{name[:64]}` is known here; write UTC or one like Europe/Berlin."
        ) from error


def period_of(budget: Budget, now_s: float) -> date:
    """The first day of the period that `now_s` is in; for a total it is always the same."""
    if budget.period == "total":
        return date.min
    day = datetime.fromtimestamp(now_s, zone_of(budget.zone)).date()
    return day if budget.period == "day" else day.replace(day=1)


def begins_s(budget: Budget, now_s: float) -> float:
    """Since when the ledger's sums count for this budget: the beginning of the period of `now_s`."""
    return 0.0 if budget.period == "total" else _midnight(budget, period_of(budget, now_s))


def end_of(budget: Budget, first: date) -> float | None:
    """When the period that began on `first` is over."""
    if budget.period == "total":
        return None
    after = first + timedelta(days=1 if budget.period == "day" else 31)
    return _midnight(budget, after if budget.period == "day" else after.replace(day=1))


def _midnight(budget: Budget, day: date) -> float:
    """Return the first moment of a day.

    `fold=0`, the default, is the first of two midnights, and for one that the clocks skip it is the
    moment at which they do (PEP 495).
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone_of(budget.zone)).timestamp()


def ends_s(budget: Budget, now_s: float) -> float | None:
    """When the period of `now_s` is over; None for a total."""
    return end_of(budget, period_of(budget, now_s))
