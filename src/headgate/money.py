"""Money in a reply: what the exchange cost its client, beside the tokens that it cost.

The only place that writes nano-dollars as decimals.  No protocol here has a field for it; `cost` in
`usage` is OpenRouter's (openrouter.ai/docs/use-cases/usage-accounting, read 2026-11-25), so readers
that know of any look there.  The others pass over it, as our own decoders do: what an upstream says
it costs is not what our client pays.

Note: the number is written digit by digit and never was a float, so its value is the
ledger's to the nano-dollar.  A cost that is not known is no field at all: 0 is a free exchange.
"""

from msgspec import Raw

_NANO = 10**9  # nano-dollars of a dollar


def dollars(nano: int, places: int = 0) -> str:
    """An exact decimal of at least so many places: 1_500_000_000 is "1.5", of two places "1.50"."""
    whole, rest = divmod(abs(nano), _NANO)
    digits = f"{rest:09d}".rstrip("0").ljust(places, "0")
    return f"{'-' if nano < 0 else ''}{whole}{'.' if digits else ''}{digits}"


def rounded(nano: int) -> str:
    """Return an amount as people read it: $1,234.57, $0.0312, < $0.0001; a half goes up."""
    sign, size = ("-" if nano < 0 else ""), abs(nano)
    if not size:
        return "$0"
    if size < _NANO // 10_000:
        return f"{sign}< $0.0001"
    places = 2 if size >= _NANO - 50_000 else 4  # $0.99996 is a dollar
    unit = _NANO // 10**places
    whole, rest = divmod((size + unit // 2) // unit, 10**places)
    return f"{sign}${whole:,}.{rest:0{places}d}"


def cost_out(nano: int | None) -> dict[str, Raw]:
    """The field that tells the cost, to be added to those of a usage."""
    return {} if nano is None else {"cost": Raw(dollars(nano).encode())}
