"""`headgate reconcile`: a provider's bill beside the ledger, by day and model.

The only place that knows how bills are written.  `generic` is CSV or JSON lines with columns found by
their names; `minimax` is what the console of platform.minimax.io shows as its charge records (fields
as clients of GET /account/amount have them, undocumented by MiniMax, read 2026-11): one line for each
hour, model and *method*, so that tokens read from the cache stand in a line of their own, and the
model's name may carry its tier (`MiniMax-M3-512k`).  A line per page, `{"charge_records": [...]}`,
is taken too.

Note:
- `input` includes what was read from a cache, as in the ledger; a bill that keeps them apart has
  `uncached_input`;
- days are compared whole, from the bill's first to its last; MiniMax's records come a day or two late;
- a column that nobody knows is refused, not skipped: it may be the one that makes the difference;
- the ledger is summed by the hour, so a zone that begins its days at half past is off by that half.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from headgate.catalog.catalog import Catalog
from headgate.cli.options import (
    as_json,
    joined_of,
    places,
    print_json,
    print_table,
    settings_of,
    store_of,
)
from headgate.policy import budgets
from headgate.policy.pricing import usd
from headgate.storage.figures import HOUR_S
from headgate.storage.sqlite.reports import UsageReader

Figure = Literal["requests", "input", "cached", "cache_write", "output", "cost_nano"]
FIGURES: tuple[Figure, ...] = ("requests", "input", "cached", "cache_write", "output", "cost_nano")
# What a figure of a bill is called in the ledger, where it is not the same.
_COLUMN: dict[Figure, str] = {
    "input": "input_tokens",
    "cached": "cached_tokens",
    "cache_write": "cache_write_tokens",
    "output": "output_tokens",
    "cost_nano": "cost_nano_usd",
}
Group = tuple[date, str]  # day, model
Sums = dict[Group, dict[Figure, int]]
MAX_FIGURE = 1 << 53  # above it a bill is damaged
_MILLISECONDS = 1e11  # as Unix seconds it would be the year 5138

_GENERIC = {
    "when": ("time", "timestamp", "created_at", "hour", "day", "date"),
    "model": ("model", "model_name", "model_id"),
    "requests": ("requests", "request_count", "calls"),
    "input": ("input", "input_tokens", "prompt_tokens"),
    "uncached": ("uncached_input", "uncached_input_tokens"),
    "cached": (
        "cached",
        "cached_tokens",
        "cached_input_tokens",
        "cache_read",
        "cache_read_tokens",
        "cache_read_input_tokens",
    ),
    "cache_write": ("cache_write", "cache_write_tokens", "cache_creation_input_tokens"),
    "output": ("output", "output_tokens", "completion_tokens"),
    "cost": ("cost", "cost_usd"),
    "": (
        "total_tokens",
        "request_id",
        "generation_id",
        "key",
        "api_key",
        "reasoning",
        "reasoning_tokens",
        "session",
        "upstream",
        "provider",
    ),
}
_MINIMAX = {
    "when": ("created_at", "ymd", "consume_time"),
    "model": ("model",),
    "method": ("method",),
    "status": ("status", "result"),
    "input": ("consume_input_token",),
    "output": ("consume_output_token",),
    "cost": ("consume_cash",),
    "": (
        "consume_token",
        "consume_cash_after_voucher",
        "api_token_name",
        "group_id",
        "mail",
        "creator_name",
    ),
}
_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {"generic": _GENERIC, "minimax": _MINIMAX}
_NEEDED = ("when", "model")
_HOURS = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d)-\d\d:\d\d")  # 2026-06-30 11:00-12:00
_DAY = re.compile(r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)")
_TIER = re.compile(r"-\d+[km]$", re.I)


class BadBill(Exception):
    """What in the bill cannot be read, and where."""


class Line(msgspec.Struct, frozen=True):
    """One line of the bill as it is meant; `cost_nano` and the others are None where it says none."""

    day: date
    model: str  # in the provider's words
    figures: dict[Figure, int]


class Compared(msgspec.Struct, frozen=True):
    day: date
    model: str
    figure: Figure
    ledger: int
    bill: int
    difference: int  # bill - ledger
    share: float  # of the larger one
    over: bool  # above the tolerance


class _Tolerance(click.ParamType[float]):
    """`1%`, `0.5%`: a share."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        if re.fullmatch(r"\d{1,3}(\.\d{1,6})?%", value) and float(value[:-1]) <= 100:
            return float(value[:-1]) / 100
        self.fail(f"`{value[:20]}` is no tolerance; write 1% or 0.5%.", param, ctx)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--provider",
    type=click.Choice(tuple(_COLUMNS)),
    default="generic",
    show_default=True,
    help="Whose bill it is.",
)
@click.option(
    "--tolerance",
    type=_Tolerance(),
    default=0.01,
    show_default="1%",
    help="Up to what share a figure may differ.",
)
@click.option("--upstream", help="Compare with what went to this upstream only.")
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    help="Where the bill's days begin, and its times without a zone are: Asia/Shanghai.",
)
@places
@as_json
def command(
    file: Path,
    provider: str,
    tolerance: float,
    upstream: str | None,
    zone: str,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Compare a provider's bill (CSV or JSON lines) with the ledger, by day and model.

    Prints what differs. Exit code 1 when a figure differs by more than the tolerance, 2 when the bill
    cannot be read. Costs are US dollars.
    """
    both = joined_of(settings_of(config_file, data=data))
    settings = both.settings
    if upstream is not None and upstream not in settings.upstreams:
        known = ", ".join(settings.upstreams)
        raise click.BadParameter(f"no upstream `{upstream}`; there are: {known}.")
    try:
        where = budgets.zone_of(zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--zone") from None
    name_of = _names(both.catalog, upstream)
    try:
        lines = list(read(file, provider, where))
    except BadBill as error:
        raise click.UsageError(f"{file}: {error}") from None
    if not lines:
        raise click.UsageError(f"{file}: there is nothing in it.")
    bill, told = _sum(lines, name_of)
    first, last = min(d for d, _ in bill), max(d for d, _ in bill)
    with store_of(settings) as store:
        books = UsageReader(store.directory)
        try:
            ledger = _ledger(books, first, last, where, upstream)
            disputed = books.disputed(*_span(first, last, where), upstream)
        finally:
            books.close()
    found = compare(ledger, bill, told, tolerance)
    over = [c for c in found if c.over]
    if json_:
        print_json([_plain(c) for c in found])
    elif found:
        print_table(
            ("day", "model", "what", "ledger", "bill", "difference", ""), [*map(_row, found)]
        )
    else:
        click.echo(
            f"The bill and the ledger agree, {first} to {last}: {', '.join(map(_what, told))}."
        )
    if disputed:
        click.echo(
            f"Note: {disputed:,} requests of these days are disputed: their upstream reported more tokens"
            " than they allowed, the ledger has what they allowed, and the bill may have the report.",
            err=True,
        )
    if over:
        raise click.ClickException(
            f"what differs by more than {tolerance * 100:.6g}%: {len(over)} figures."
        )


def compare(ledger: Sums, bill: Sums, told: Iterable[Figure], tolerance: float) -> list[Compared]:
    """Every figure that the bill tells and that is not the same, by day and model."""
    found = []
    for group in sorted({*ledger, *bill}):
        for figure in told:
            ours = ledger.get(group, {}).get(figure, 0)
            theirs = bill.get(group, {}).get(figure, 0)
            if ours == theirs:
                continue
            share = abs(theirs - ours) / max(abs(ours), abs(theirs))
            found.append(
                Compared(*group, figure, ours, theirs, theirs - ours, share, share > tolerance)
            )
    return found


def read(file: Path, provider: str, zone: tzinfo) -> Iterator[Line]:
    """The lines of a bill; BadBill names the line and the column at fault."""
    columns = _COLUMNS[provider]
    known = {name: role for role, names in columns.items() for name in names}
    for number, record in _records(file):
        unknown = [name for name in record if name not in known]
        if unknown:
            useful = ", ".join(n for n, role in known.items() if role)
            raise BadBill(
                f"line {number}: nobody knows the column `{str(unknown[0])[:64]}`. A {provider} bill"
                f" has: {useful}; of no use, but allowed: {', '.join(columns[''])}."
            )
        fields: dict[str, object] = {}
        for role, names in columns.items():
            said = next((record[n] for n in names if record.get(n) not in (None, "")), None)
            if role and said is not None:
                fields[role] = said
        try:
            line = (_minimax if provider == "minimax" else _generic)(fields, zone)
        except ValueError as error:
            raise BadBill(f"line {number}: {error}") from None
        if line is not None:
            yield line


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and fields of each line, with names in lower case and `_` for blanks."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            start = text.read(1)
            text.seek(0)
            if start in ("{", "["):
                for number, line in enumerate(text, 1):
                    if line.strip():
                        yield from ((number, _named(r)) for r in _decoded(line, number))
                return
            rows = csv.DictReader(text, strict=True)
            for row in rows:
                if None in row:
                    raise BadBill(f"line {rows.line_num}: more fields than there are titles.")
                yield rows.line_num, _named(row)
    except UnicodeDecodeError:
        raise BadBill("it is not UTF-8.") from None
    except csv.Error as error:
        raise BadBill(f"line {rows.line_num}: {error}.") from None
    except OSError as error:
        raise BadBill(f"{error.strerror}.") from None


def _decoded(line: str, number: int) -> list[dict[str, Any]]:
    """The records of one line of JSON: itself, or those of a page."""
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise BadBill(f"line {number}: {error}.") from None
    page = value.get("charge_records", value) if isinstance(value, dict) else value
    records = page if isinstance(page, list) else [page]
    if not all(isinstance(r, dict) for r in records):
        raise BadBill(f"line {number}: an object was expected.")
    return records


def _named(record: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub(r"[\s-]+", "_", name.strip().lower()): v for name, v in record.items()}


def _generic(fields: Mapping[str, object], zone: tzinfo) -> Line:
    figures = _figures(fields, ("requests", "input", "cached", "cache_write", "output"))
    if "uncached" in fields:
        if "input" in fields:
            raise ValueError("it has `input` and `uncached_input`; one of them is enough.")
        uncached = _whole(fields["uncached"], "uncached")
        figures["input"] = uncached + figures.get("cached", 0) + figures.get("cache_write", 0)
    return _line(fields, figures, zone)


def _minimax(fields: Mapping[str, object], zone: tzinfo) -> Line | None:
    """None for what is no use of a model: a purchase, or a call that failed."""
    method = str(fields.get("method", "")).lower()
    if str(fields.get("status", "success")).lower() != "success" or method.endswith("_purchase"):
        return None
    figures = _figures(fields, ("input", "output"))
    figures["cached"] = figures.get("input", 0) if method.startswith("cache-read") else 0
    figures["cache_write"] = figures.get("input", 0) if method.startswith("cache-create") else 0
    return _line(fields, figures, zone)


def _line(fields: Mapping[str, object], figures: dict[Figure, int], zone: tzinfo) -> Line:
    for needed in _NEEDED:
        if needed not in fields:
            raise ValueError(f"it does not say {'which model' if needed == 'model' else needed}.")
    if "cost" in fields:
        nano = _decimal(fields["cost"], "cost") * 10**9
        figures["cost_nano"] = int(nano.to_integral_value())
    return Line(_day(fields["when"], zone), str(fields["model"]).strip(), figures)


def _figures(fields: Mapping[str, object], names: Iterable[Figure]) -> dict[Figure, int]:
    return {name: _whole(fields[name], name) for name in names if name in fields}


def _whole(value: object, name: str) -> int:
    number = _decimal(value, name)
    if number < 0 or number != number.to_integral_value():
        raise ValueError(f"{name} is `{str(value)[:32]}`; a whole number was expected.")
    return int(number)


def _decimal(value: object, name: str) -> Decimal:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(f"{name} is `{str(value)[:32]}`; a number was expected.") from None
    if isinstance(value, bool) or not number.is_finite() or abs(number) > MAX_FIGURE:
        raise ValueError(f"{name} is `{str(value)[:32]}`; a number was expected.")
    return number


def _day(value: object, zone: tzinfo) -> date:
    """The day, in `zone`, of a day, a time (of `zone` if it names none) or Unix seconds."""
    text = str(value).strip()
    try:
        if found := _DAY.fullmatch(text):
            return date(*map(int, found.groups()))
        if re.fullmatch(r"\d{9,13}(\.\d+)?", text):
            seconds = float(text)
            seconds = seconds / 1000 if seconds > _MILLISECONDS else seconds
            return datetime.fromtimestamp(seconds, zone).date()
        hours = _HOURS.fullmatch(text)
        moment = datetime.fromisoformat(hours[1] if hours else text.removesuffix(" UTC"))
        if text.endswith(" UTC"):
            moment = moment.replace(tzinfo=budgets.zone_of("UTC"))
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"`{text[:32]}` is no day or time; write 2026-11-25 or 2026-11-25T13:00:00Z."
        ) from None
    return moment.date() if moment.tzinfo is None else moment.astimezone(zone).date()


def _names(catalog: Catalog, upstream: str | None) -> Callable[[str], str]:
    """From a provider's name of a model to the catalog's; its own where the catalog has none."""
    theirs = {
        route.name.lower(): model.id
        for model in catalog.models
        for route in catalog.routes(model.id)
        if upstream is None or route.upstream.name == upstream
    }

    def name(said: str) -> str:
        for each in (said, _TIER.sub("", said)):
            if each.lower() in theirs:
                return theirs[each.lower()]
            if model := catalog.find(each):
                return model.id
        return said

    return name


def _sum(lines: Iterable[Line], name_of: Callable[[str], str]) -> tuple[Sums, list[Figure]]:
    """Figures by day and model, and those that the bill tells at all."""
    sums: Sums = {}
    told: set[Figure] = set()
    for line in lines:
        group = sums.setdefault((line.day, name_of(line.model)), {})
        told.update(line.figures)
        for figure, value in line.figures.items():
            group[figure] = group.get(figure, 0) + value
    return sums, [f for f in FIGURES if f in told]


def _ledger(
    books: UsageReader, first: date, last: date, zone: tzinfo, upstream: str | None
) -> Sums:
    since, until = _span(first, last, zone)
    sums: Sums = {}
    for hour, spent in books.hours(since, until, upstream):
        day = datetime.fromtimestamp(hour * HOUR_S, zone).date()
        group = sums.setdefault((day, spent.name), {})
        for figure in FIGURES:
            group[figure] = group.get(figure, 0) + getattr(spent, _COLUMN.get(figure, figure))
    # What failed is an exchange of ours, and no line of anybody's bill.
    return {g: s for g, s in sums.items() if any(s[f] for f in FIGURES if f != "requests")}


def _span(first: date, last: date, zone: tzinfo) -> tuple[float, float]:
    """From the beginning of the first day to the end of the last, in Unix seconds."""
    since = datetime.combine(first, time(), zone).timestamp()
    return since, datetime.combine(last + timedelta(days=1), time(), zone).timestamp()


def _what(figure: Figure) -> str:
    return "cost" if figure == "cost_nano" else figure.replace("_", " ")


def _row(c: Compared) -> tuple[str, ...]:
    shown = usd if c.figure == "cost_nano" else "{:,}".format
    return (
        str(c.day),
        c.model,
        _what(c.figure),
        shown(c.ledger),
        shown(c.bill),
        ("+" if c.difference > 0 else "") + shown(c.difference),
        f"{c.share:.2%}" + (" !" if c.over else ""),
    )


def _plain(c: Compared) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(c)
    if c.figure == "cost_nano":
        fields["difference_usd"] = usd(c.difference)
    return fields
