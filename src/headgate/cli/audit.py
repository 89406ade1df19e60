"""`headgate audit`: whether the ledger adds up; with --prune, old requests go first."""

import time

import click

from headgate.cli.nodes import read_database
from headgate.cli.options import as_json, places, print_json, print_table, settings_of, store_of
from headgate.policy.pricing import usd
from headgate.storage.figures import Difference
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.sqlite import retention
from headgate.storage.sqlite.reports import UsageReader


@click.command()
@places
@as_json
@click.option(
    "--prune", is_flag=True, help="First delete the requests older than retention.requests_days."
)
def command(config_file: str | None, data: str | None, json_: bool, prune: bool) -> None:
    """Recompute every sum and balance from the ledger's rows.

    Rows that were deleted for their age are proven by the sums that were kept of them.

    With `database` in the configuration, the ledger of all nodes is audited too.

    Exit code 1 when anything differs. The gateway may run meanwhile.
    """
    settings = settings_of(config_file, data=data)
    days = settings.retention.requests_days
    if prune and not days:
        raise click.UsageError("--prune needs retention.requests_days in the configuration.")
    with store_of(settings) as store:
        if prune:
            gone = retention.prune(store.directory, retention.floor_s(days, time.time()))
            click.echo(f"Deleted {gone:,} requests older than {days} days.", err=True)
        ledger_reports = UsageReader(store.directory)
        try:
            found = ledger_reports.audit()
            requests = sum(b.requests for b in ledger_reports.balances())
            disputed = ledger_reports.disputed()
        finally:
            ledger_reports.close()
    everywhere: tuple[int, int] | None = None
    if settings.database:

        async def database(db: LedgerDatabase) -> tuple[list[Difference], tuple[int, int]]:
            return await db.audit(), await db.recorded()

        differences, everywhere = read_database(settings, database)
        found += differences
    if json_:
        print_json(found)
    elif found:
        print_table(("where", "rows say", "stored"), [(d.where, d.rows, d.stored) for d in found])
    else:
        click.echo(f"Ledger OK: {requests:,} requests verified.")
        if everywhere is not None:
            count, nano = everywhere
            click.echo(f"All nodes OK: {count:,} requests, ${usd(nano)}.")
    if disputed and not json_:
        click.echo(
            f"Note: {disputed:,} of them are disputed: their upstream reported more tokens than the request"
            " allowed. They were billed what it allowed; the request's page shows the report."
        )
    if found:
        raise click.ClickException(
            "the ledger does not add up: keep a copy of the data directory before anything else."
        )
