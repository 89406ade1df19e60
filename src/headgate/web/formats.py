"""How figures are written for people: rounded on the page, exact when pointed at, and exact in files.

The only place of the console that formats money, times, shares and counts. Times are UTC.
"""

import html
import math
from datetime import UTC, datetime

from headgate.money import rounded
from headgate.policy import pricing

END_OF_TIME_S = 253402300799.0  # the last second of the year 9999


class Html(str):
    """A text that is markup already, which templates take as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def titled(text: str, title: str) -> Html:
    """Return the text with a title, which is shown when it is pointed at."""
    return Html(f'<span title="{html.escape(title)}">{html.escape(text)}</span>')


def coded(text: str) -> Html:
    """Return a text with what stands between backticks as code."""
    pieces = html.escape(text, quote=False).split("`")
    if len(pieces) % 2 == 0:
        return Html("`".join(pieces))
    return Html("".join(f"<code>{p}</code>" if n % 2 else p for n, p in enumerate(pieces)))


def usd(nano: int | None) -> str:
    """Return nano-dollars as dollars, exactly; what has no price is `unknown`."""
    return "unknown" if nano is None else f"${pricing.usd(nano)}"


def cost(nano: int | None) -> str:
    """Return an amount rounded for people, with the exact one as its title."""
    if nano is None:
        return "unknown"
    short, exact = rounded(nano), usd(nano)
    return short if short == exact else titled(short, exact)


def moment(at_s: float, between: str = " ") -> str:
    """Return a time to the second."""
    at = datetime.fromtimestamp(min(at_s, END_OF_TIME_S), UTC)
    return at.strftime(f"%Y-%m-%d{between}%H:%M:%S")


def when(at_s: float | None) -> str:
    """Return a time to the minute; None, which is no time, is ""."""
    return "" if at_s is None else moment(at_s)[: len("2026-01-31 08:00")]


def short_moment(at_s: float, between: str = " ") -> str:
    """Return a time to the minute, or to the second where that is not 0."""
    return moment(at_s, between).removesuffix(":00")


def brief(at_s: float, now_s: float) -> str:
    """Return a time as short as it stays clear: without the year if it is this one."""
    text = moment(at_s)
    return text.removeprefix(moment(now_s)[: len("2026-")])


def count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


def percent(part: float, whole: float) -> str:
    return "-" if not whole else rate(part / whole)


def rate(part: float) -> str:
    return f"{part * 100:.1f} %"


def points(part: float) -> str:
    """Return the difference of two shares, which is in percentage points."""
    return f"{abs(part) * 100:,.1f} pp"


def duration(value_ms: float) -> str:
    """Return milliseconds for people: 840 ms, 1.2 s, 75 s, 12 min."""
    if value_ms < 999.5:
        return f"{value_ms:.0f} ms"
    if value_ms < 9950:
        return f"{value_ms / 1000:.1f} s"
    if value_ms < 119_500:
        return f"{value_ms / 1000:.0f} s"
    return f"{value_ms / 60_000:,.0f} min"


def ms(value_ms: float | None) -> str:
    """Return milliseconds rounded for people, with the exact number as its title."""
    if value_ms is None:
        return "-"
    short, exact = duration(value_ms), f"{value_ms:,.0f} ms"
    return short if short == exact else titled(short, exact)


def short(value: float) -> str:
    """Return four figures and a letter: 1,234 -> 1,234; 1,234,567 -> 1.235 M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1e3 if letter == "k" else size)
            return f"{scaled:.{max(0, 3 - int(math.log10(scaled)))}f} {letter}"
    return f"{value:,.0f}"
