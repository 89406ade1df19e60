"""`headgate local`: the small model that answers when no upstream is configured."""

import sys

import click

from headgate.cli.group import CommandGroup
from headgate.cli.options import as_json, places, print_json, settings_of
from headgate.local import install as installer
from headgate.local import model


@click.group(cls=CommandGroup)
def command() -> None:
    """Install, remove and show the small model that answers without an upstream."""


@command.command()
@places
def install(config_file: str | None, data: str | None) -> None:
    """Fetch SmolLM2-135M and its engine into the data directory, by hash."""
    settings = settings_of(config_file, data=data)
    if model.available(settings.data):
        click.echo("The embedded model is installed already.", err=True)
        return
    fetch(settings.data)


@command.command()
@places
def remove(config_file: str | None, data: str | None) -> None:
    """Remove what `headgate local install` has fetched."""
    found = installer.remove(settings_of(config_file, data=data).data)
    click.echo("Removed." if found else "Nothing to remove.", err=True)


@command.command()
@places
@as_json
def status(config_file: str | None, data: str | None, json_: bool) -> None:
    """Show whether it is installed, and where."""
    settings = settings_of(config_file, data=data)
    file = model.weights(settings.data)
    installed = model.available(settings.data)
    if json_:
        print_json({"installed": installed, "weights": str(file) if file else None})
    elif installed:
        click.echo(f"installed: {file}")
    else:
        click.echo("not installed; `headgate local install` fetches it.")


def fetch(data: str) -> None:
    """Fetch it with progress on standard error; ClickException when that fails."""
    click.echo(f"Fetching SmolLM2-135M and its engine ({installer.SIZE_MB} MB) ...", err=True)
    try:
        target = installer.install(data)
    except installer.InstallError as error:
        raise click.ClickException(f"the embedded model: {error}") from None
    click.echo(f"Installed in {target}.", err=True)


def offer(data: str) -> None:
    """On a terminal, ask whether to fetch the model, and do so; elsewhere nothing happens."""
    if model.available(data) or not _on_terminal():
        return
    question = (
        "No upstream is configured. Fetch a small model that answers on this machine"
        f" ({installer.SIZE_MB} MB)?"
    )
    if click.confirm(question, default=True, err=True):
        fetch(data)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
