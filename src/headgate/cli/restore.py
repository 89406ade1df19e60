"""`headgate restore`: a data directory of a backup and its pepper, whole or not at all."""

import os
import shutil
from pathlib import Path

import click

from headgate.cli.options import as_json, places, print_json, settings_of
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.inspection import inspect

WHOLE_S = 600.0  # how long a large copy is looked through


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--pepper",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The copy of the file `pepper` of the data directory that was backed up.",
)
@places
@as_json
def command(
    file: Path, pepper: Path, config_file: str | None, data: str | None, json_: bool
) -> None:
    """Make a data directory of FILE, which `headgate backup` wrote, and of its pepper.

    The directory must hold no data yet. Nothing is left there when the copy is damaged, or when the pepper
    is not the one that its keys were created with.
    """
    target = Path(settings_of(config_file, data=data).data)
    for name in ("headgate.db", "headgate.db-wal", "pepper"):
        if (target / name).exists():
            raise click.ClickException(
                f"{target} holds data already ({name}); restore into an empty directory, with --data."
            )
    made: list[Path] = []
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for source, name in ((pepper, "pepper"), (file, "headgate.db")):
            made.append(target / name)
            _copy(source, target / name)
        found = inspect(target / "headgate.db", WHOLE_S)
        if found.whole is False or not found.schema:
            raise click.ClickException(f"{file} is damaged, or no backup of Headgate's.")
        store = Store(target)  # brought up to date; refused when the pepper is another one
        keys = len(store.keys())
        store.close()
    except (OSError, StoreError, click.ClickException) as error:
        for path in (*made, target / "headgate.db-wal", target / "headgate.db-shm"):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise click.ClickException(f"{error.filename}: {error.strerror}.") from None
        raise click.ClickException(str(error)) from None
    if json_:
        print_json({"data": str(target), "keys": keys})
        return
    click.echo(f"Restored {target} with {keys} keys. `headgate audit --data {target}` proves it.")


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that it is on the disk, for its owner only."""
    with (
        source.open("rb") as from_,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as to,
    ):
        shutil.copyfileobj(from_, to, 1 << 20)
        to.flush()
        os.fsync(to.fileno())
