"""`headgate backup`: a copy of the database, taken while the gateway runs."""

from pathlib import Path

import click

from headgate.cli.options import as_json, places, print_json, settings_of, store_of
from headgate.storage.sqlite.reports import UsageReader


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@places
@as_json
def command(file: Path, config_file: str | None, data: str | None, json_: bool) -> None:
    """Copy the database to FILE, which must not exist yet.

    `headgate restore` makes a data directory of it and of the file `pepper`, which is not in the copy.
    """
    settings = settings_of(config_file, data=data)
    with store_of(settings) as store:
        if store.directory != Path(settings.data):
            raise click.ClickException(f"there is nothing to back up in {settings.data}.")
        ledger_reports = UsageReader(store.directory)
        try:
            ledger_reports.backup(file)
        finally:
            ledger_reports.close()
    if json_:
        print_json({"file": str(file), "bytes": file.stat().st_size})
        return
    click.echo(f"Wrote {file}.")
    click.echo(
        f"Keep {Path(settings.data) / 'pepper'} as well, apart from it:"
        " the keys in the copy work only with both.",
        err=True,
    )
