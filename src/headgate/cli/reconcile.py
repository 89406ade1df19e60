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

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Any

import click
import msgspec

from headgate.catalog.catalog import Catalog
from headgate.cli.bills import COLUMNS, BadBill, Figure, Line, read
from headgate.cli.ledgers import ledgers, which_ledger
from headgate.cli.options import (
    as_json,
    joined_of,
    places,
    print_json,
    print_table,
    settings_of,
)
from headgate.policy import periods
from headgate.policy.pricing import usd
from headgate.storage.figures import HOUR_S
from headgate.storage.interface import Reports

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

_TIER = re.compile(r"-\d+[km]$", re.I)


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
    type=click.Choice(tuple(COLUMNS)),
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
@which_ledger
@places
@as_json
def command(
    file: Path,
    provider: str,
    tolerance: float,
    upstream: str | None,
    zone: str,
    all_nodes: bool,
    this_node: bool,
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
        where = periods.zone_of(zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--zone") from None
    name_of = _names(both.catalog, upstream)
    try:
        lines = list(read(file, provider, where))
    except BadBill as error:
        raise click.UsageError(f"{file}: {error}") from None
    if not lines:
        raise click.UsageError(f"{file}: there is nothing in it.")
    bill, reported = _sum(lines, name_of)
    first, last = min(d for d, _ in bill), max(d for d, _ in bill)
    with ledgers(settings, all_nodes, this_node) as read_from:
        ledger = _ledger(read_from.reports, first, last, where, upstream)
        disputed = read_from.reports.disputed(*_span(first, last, where), upstream)
    found = compare(ledger, bill, reported, tolerance)
    over = [c for c in found if c.over]
    if json_:
        print_json([_plain(c) for c in found])
    elif found:
        print_table(
            ("day", "model", "what", "ledger", "bill", "difference", "share"), [*map(_row, found)]
        )
    else:
        click.echo(
            f"The bill and the ledger agree, {first} to {last}: {', '.join(map(_what, reported))}."
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


def compare(
    ledger: Sums, bill: Sums, reported: Iterable[Figure], tolerance: float
) -> list[Compared]:
    """Every figure that the bill tells and that is not the same, by day and model."""
    found = []
    for group in sorted({*ledger, *bill}):
        for figure in reported:
            ours = ledger.get(group, {}).get(figure, 0)
            theirs = bill.get(group, {}).get(figure, 0)
            if ours == theirs:
                continue
            share = abs(theirs - ours) / max(abs(ours), abs(theirs))
            found.append(
                Compared(*group, figure, ours, theirs, theirs - ours, share, share > tolerance)
            )
    return found


def _names(catalog: Catalog, upstream: str | None) -> Callable[[str], str]:
    """From a provider's name of a model to the catalog's; its own where the catalog has none."""
    theirs = {
        route.name.lower(): model.id
        for model in catalog.models
        for route in catalog.routes(model.id)
        if upstream is None or route.upstream.name == upstream
    }

    def name(stated: str) -> str:
        for each in (stated, _TIER.sub("", stated)):
            if each.lower() in theirs:
                return theirs[each.lower()]
            if model := catalog.find(each):
                return model.id
        return stated

    return name


def _sum(lines: Iterable[Line], name_of: Callable[[str], str]) -> tuple[Sums, list[Figure]]:
    """Figures by day and model, and those that the bill tells at all."""
    sums: Sums = {}
    reported: set[Figure] = set()
    for line in lines:
        group = sums.setdefault((line.day, name_of(line.model)), {})
        reported.update(line.figures)
        for figure, value in line.figures.items():
            group[figure] = group.get(figure, 0) + value
    return sums, [f for f in FIGURES if f in reported]


def _ledger(
    ledger_reports: Reports, first: date, last: date, zone: tzinfo, upstream: str | None
) -> Sums:
    since, until = _span(first, last, zone)
    sums: Sums = {}
    for hour, spent in ledger_reports.hours(since, until, upstream):
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
