"""`headgate usage` shows tokens and money, by key, account, model, day, hour, session or upstream."""

import time
from typing import get_args

import click
import msgspec

from headgate import csv_export
from headgate.cli.ledgers import ledgers, which_ledger
from headgate.cli.options import Duration, as_json, places, print_json, print_table, settings_of
from headgate.policy.pricing import usd
from headgate.storage import usage_table
from headgate.storage.figures import By, Spent, Where

_TITLES = (
    "requests",
    "input",
    "cached",
    "cache write",
    "output",
    "reasoning",
    "cost (USD)",
    "unpriced",
    "errors",
)


@click.command()
@click.option("--by", type=click.Choice(get_args(By)), default="day", show_default=True)
@click.option("--since", type=Duration(), help="How far back: 7d, 12h; everything without it.")
@click.option("--account", help="Of one account only, by its id.")
@click.option("--key", help="Of one key only, by its id.")
@click.option("--model", help="Of one model only, by the catalog's name.")
@which_ledger
@places
@as_json
@click.option("--csv", "csv_", is_flag=True, help="Print CSV, with a line of titles.")
def command(
    by: By,
    since: float | None,
    account: str | None,
    key: str | None,
    model: str | None,
    all_nodes: bool,
    this_node: bool,
    config_file: str | None,
    data: str | None,
    json_: bool,
    csv_: bool,
) -> None:
    """Add up what was used. Days are UTC.

    `unpriced` requests have no known price; the cost is without them. `errors` got no answer, though
    their client waited; by session they are those of the requests that are still kept. Where nodes share
    a database, this is what all of them have sent to it.
    """
    if json_ and csv_:
        raise click.UsageError("--json and --csv exclude each other.")
    settings = settings_of(config_file, data=data)
    where = Where(account=account, key_id=key, model=model)
    since_s = time.time() - since if since is not None else 0.0
    with ledgers(settings, all_nodes, this_node) as ledger:
        sums = ledger.reports.usage(by, since_s, where=where)
    _show(by, sums, ledger.key_names if by == "key" else {}, json_, csv_)


def _show(by: By, sums: list[Spent], names: dict[str, str], json_: bool, csv_: bool) -> None:
    if json_:
        print_json([_plain(by, s) for s in sums])
    elif csv_:
        rows = [[s.name, names.get(s.name, s.name), *usage_table.figures(s).values()] for s in sums]
        for line in csv_export.lines([[by, "name", *usage_table.COLUMNS], *rows]):
            click.echo(line, nl=False)
    else:
        _print(by, sums, names)


def _print(by: By, sums: list[Spent], names: dict[str, str]) -> None:
    if not sums:
        click.echo("Nothing was used in that time.", err=True)
        return
    total = Spent("total", *map(sum, zip(*(_figures(s) for s in sums), strict=True)))
    rows = [
        (
            f"{s.name} ({names[s.name]})" if s.name in names else s.name or "-",
            *(
                f"{n:,}"
                for n in (
                    s.requests,
                    s.input_tokens,
                    s.cached_tokens,
                    s.cache_write_tokens,
                    s.output_tokens,
                    s.reasoning_tokens,
                )
            ),
            usd(s.cost_nano_usd),
            f"{s.unpriced:,}" if s.unpriced else "",
            f"{s.errors:,}" if s.errors else "",
        )
        for s in [*sums, total]
    ]
    print_table((f"{by} (UTC)" if by in ("day", "hour") else by, *_TITLES), rows)


def _figures(s: Spent) -> tuple[int, ...]:
    figures: tuple[int, ...] = msgspec.structs.astuple(s)[1:]
    return figures


def _plain(by: By, s: Spent) -> dict[str, object]:
    return {by: s.name, **usage_table.figures(s)}
