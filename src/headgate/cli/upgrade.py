"""`headgate upgrade`: the program as it is installed now takes over from a running gateway, and drops nothing."""

import click

from headgate.cli.options import places, settings_of
from headgate.supervisor.commands import NotServed, ask


@click.command("upgrade")
@places
def command(config_file: str | None, data: str | None) -> None:
    """Have the program as it is installed now take over from the gateway that serves the data directory.

    A new process takes the addresses, the data directory and the configuration as it is now; the running
    one ends with its last request. Exit codes: 0 done; 1 the new one did not come up and the running one
    serves on; 3 no gateway answers.
    """
    directory = data if data is not None else settings_of(config_file).data
    try:
        answer = ask(directory, "upgrade")
    except NotServed as error:
        click.echo(f"Error: {error}.", err=True)
        raise SystemExit(3) from None
    if not answer.get("ok"):
        click.echo(f"Error: nothing was changed: {answer.get('error')}", err=True)
        raise SystemExit(1)
    click.echo(
        f"Process {answer['pid']} serves (version {answer['version']}, generation"
        f" {answer['generation']}); the one before ends with its last request."
    )
