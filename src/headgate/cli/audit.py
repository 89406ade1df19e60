"""`headgate audit`: whether the books add up."""

import click

from headgate.cli.common import as_json, places, print_json, print_table, settings_of, store_of
from headgate.store.books import Books


@click.command()
@places
@as_json
def command(config_file: str | None, data: str | None, json_: bool) -> None:
    """Recompute every sum and balance from the ledger's rows.

    Exit code 1 when anything differs. The gateway may run meanwhile.
    """
    settings = settings_of(config_file, data=data)
    with store_of(settings):
        books = Books(settings.data)
        try:
            found = books.audit()
            requests = sum(b.requests for b in books.balances())
        finally:
            books.close()
    if json_:
        print_json(found)
    elif found:
        print_table(("where", "rows say", "stored"), [(d.where, d.rows, d.stored) for d in found])
    else:
        click.echo(f"The books add up: {requests:,} exchanges.")
    if found:
        raise click.ClickException(
            "the books do not add up: keep a copy of the data directory before anything else."
        )
