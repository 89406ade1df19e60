"""`headgate config`: whether the configuration is right, what it may hold, what is in force."""

import os
import time
from urllib.parse import urlsplit

import click

from headgate import config
from headgate.cli.group import CommandGroup
from headgate.cli.options import as_json, joined_of, places, print_json, print_table, settings_of
from headgate.config import descriptions, explain


@click.group(cls=CommandGroup)
def command() -> None:
    """Check, describe and show the configuration."""


@command.command()
@places
@as_json
@click.option("--strict", is_flag=True, help="Exit with 1 for a note too, as for CI.")
def check(config_file: str | None, data: str | None, json_: bool, strict: bool) -> None:
    """Say whether the configuration is right; exit code 1 when it is not."""
    settings = settings_of(config_file, data=data)
    both = joined_of(settings)
    catalog = both.catalog
    lonely = [m.id for m in catalog.models if not catalog.routes(m.id)]
    notes = [*settings.notes, *_tls_notes(settings), *(f"{id} has no route." for id in lonely)]
    notes += explain.unknown_variables(os.environ)
    notes += [f"left out: {why}" for why in (*both.upstream_faults.values(), *both.faults.values())]
    for name, url in (
        ("public_url", settings.public_url),
        ("admin.public_url", settings.admin.public_url),
    ):
        if path := urlsplit(url).path.strip("/"):
            notes.append(
                f"`{name}` has a path, /{path}: the API can be there if a proxy takes it off, but the"
                " console's pages must be at the root of a host. Leave the path out for the console."
            )
    if json_:
        print_json({"ok": not (strict and notes), "notes": notes})
        raise SystemExit(1 if strict and notes else 0)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if strict and notes:
        raise click.ClickException("there are notes, and --strict takes none.")
    click.echo(
        f"OK: {len(catalog.models)} models, upstreams: {', '.join(both.settings.upstreams)}."
    )


def _tls_notes(settings: config.Settings) -> list[str]:
    """What is worth knowing of the files of `[tls]`; ClickException for what cannot be used."""
    from headgate.edge import listeners

    try:
        found = listeners.certificates_of(settings.tls)
    except config.ConfigError as error:
        raise click.ClickException(str(error)) from None
    return listeners.notes(found, time.time()) if found is not None else []


@command.command()
def schema() -> None:
    """Print the JSON Schema of headgate.toml, for editors."""
    print_json(explain.schema())


@command.command()
@places
@as_json
def show(config_file: str | None, data: str | None, json_: bool) -> None:
    """Print what is in force and where it came from; secrets are masked."""
    rows = explain.show(settings_of(config_file, data=data))
    if json_:
        print_json(
            {
                key: {
                    "value": value,
                    "origin": origin,
                    "description": descriptions.description(key),
                }
                for key, value, origin in rows
            }
        )
        return
    print_table(
        ("key", "value", "from", "meaning"),
        [(*row, descriptions.description(row[0])) for row in rows],
    )
