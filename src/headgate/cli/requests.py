"""`headgate requests`: single rows of the ledger, as a table, JSON or CSV."""

import time
from collections.abc import Iterator, Mapping, Sequence

import click
import msgspec

from headgate import csv_export
from headgate.cli.nodes import read_database
from headgate.cli.options import Duration, as_json, places, print_table, settings_of, store_of, when
from headgate.money import dollars
from headgate.storage.figures import Only, Where
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.rows import COLUMNS, LedgerRow, csv_cells, shown
from headgate.storage.sqlite.reports import UsageReader

NEWEST = 100  # rows without --all
BATCH = 1000  # rows that are read at a time
POLL_S = 1.0  # of --follow
_TITLES = (
    "started (UTC)",
    "request",
    "key",
    "model",
    "upstream",
    "outcome",
    "status",
    "input",
    "output",
    "cost (USD)",
    "ms",
)


@click.command()
@click.option("--since", type=Duration(), help="How far back: 7d, 12h.")
@click.option("--account", help="Of one account only, by its id.")
@click.option("--key", help="Of one key only, by its id.")
@click.option("--model", help="Of one model only, by the catalog's name.")
@click.option("--upstream", help="Answered by one upstream only, by its name.")
@click.option("--session", help="Of one session only.")
@click.option("--user", help="Of one end user only, as the client named them.")
@click.option("--outcome", help="With this outcome only: stop, rate_limit, upstream.")
@click.option("--errors", is_flag=True, help="Without an answer only, but for clients that left.")
@click.option("--all", "all_", is_flag=True, help=f"All of them, not only the newest {NEWEST}.")
@click.option("--follow", is_flag=True, help="Go on with new ones as they end, until interrupted.")
@click.option("--all-nodes", is_flag=True, help="Of all nodes: from the database.")
@places
@as_json
@click.option("--csv", "csv_", is_flag=True, help="Print CSV, with a line of titles.")
def command(
    since: float | None,
    account: str | None,
    key: str | None,
    model: str | None,
    upstream: str | None,
    session: str | None,
    user: str | None,
    outcome: str | None,
    errors: bool,
    all_: bool,
    follow: bool,
    all_nodes: bool,
    config_file: str | None,
    data: str | None,
    json_: bool,
    csv_: bool,
) -> None:
    """List requests as the ledger has them, the oldest first: a line each.

    --json prints one JSON object a line. Neither prompts nor replies are in the ledger.
    """
    if json_ and csv_:
        raise click.UsageError("--json and --csv exclude each other.")
    if follow and (all_ or all_nodes):
        raise click.UsageError("--follow goes with neither --all nor --all-nodes.")
    where = Where(
        account=account,
        key_id=key,
        model=model,
        upstream=upstream,
        session=session,
        user=user,
        outcome=outcome,
    )
    only: tuple[Only, ...] = ("errors",) if errors else ()
    since_s = time.time() - since if since is not None else 0.0
    settings = settings_of(config_file, data=data)
    if all_nodes:
        if csv_:
            _csv([(*COLUMNS, "cost_usd", "key_name")])
        read_database(
            settings, lambda db: _from_database(db, where, only, since_s, all_, json_, csv_)
        )
        return
    with store_of(settings) as store:
        reader = UsageReader(store.directory)
        try:
            keys = store.keys() if csv_ else []
            names = {key.id: key.name for key in keys}
            if csv_:
                _csv([(*COLUMNS, "cost_usd", "key_name")])
            last = 0
            if all_:
                for rows in _everything(reader, where, only, since_s):
                    _print(rows, json_, csv_, names)
            else:
                newest = reader.requests(where, since_s=since_s, most=NEWEST, only=only)[::-1]
                last = newest[-1][0] if newest else reader.last_seq()
                _print([row for _, row in newest], json_, csv_, names)
            while follow:
                time.sleep(POLL_S)
                fresh = reader.requests_after(last, where, most=BATCH, only=only)
                last = fresh[-1][0] if fresh else last
                _print([row for _, row in fresh], json_, csv_, names)
        finally:
            reader.close()


async def _from_database(
    db: LedgerDatabase,
    where: Where,
    only: Sequence[Only],
    since_s: float,
    all_: bool,
    json_: bool,
    csv_: bool,
) -> None:
    if not all_:
        _print(await db.requests(where, since_s, NEWEST, only), json_, csv_)
        return
    async for rows in db.everything(where, since_s, BATCH, only):
        _print(rows, json_, csv_)


def _everything(
    reader: UsageReader, where: Where, only: Sequence[Only], since_s: float
) -> Iterator[list[LedgerRow]]:
    last = 0
    while found := reader.requests_after(last, where, since_s=since_s, most=BATCH, only=only):
        yield [row for _, row in found]
        last = found[-1][0]


def _print(rows: list[LedgerRow], json_: bool, csv_: bool, names: Mapping[str, str] = {}) -> None:
    if json_:
        for row in rows:
            click.echo(msgspec.json.encode(shown(row)))
    elif csv_:
        _csv([(*csv_cells(row), names.get(row.key_id, "")) for row in rows])
    elif rows:
        print_table(_TITLES, [_cells(row) for row in rows])


def _csv(rows: list[tuple[csv_export.Cell, ...]]) -> None:
    for line in csv_export.lines(rows):
        click.echo(line, nl=False)


def _cells(row: LedgerRow) -> tuple[str, ...]:
    cost = row.cost_nano_usd
    return (
        when(row.started_at),
        row.request_id,
        row.key_id,
        row.model,
        row.upstream,
        row.outcome,
        str(row.status),
        f"{row.input_tokens:,}",
        f"{row.output_tokens:,}",
        "unknown" if cost is None else dollars(cost, 2),
        f"{row.total_ms:,}",
    )
