"""`headgate reload`: a running gateway reads its configuration anew, and drops nothing."""

import click

from headgate.cli.options import places, settings_of
from headgate.supervisor.commands import NotServed, ask


@click.command("reload")
@places
def command(config_file: str | None, data: str | None) -> None:
    """Have the gateway that serves the data directory read its configuration anew.

    New processes are started with it on the same addresses, and the old ones end their requests. It
    prints what has changed. Exit codes: 0 done; 1 the configuration is not valid and the old one stays;
    3 no gateway answers.
    """
    # The gateway itself reads the file, and says what is wrong with it.
    directory = data if data is not None else settings_of(config_file).data
    try:
        answer = ask(directory, "reload")
    except NotServed as error:
        click.echo(f"Error: {error}.", err=True)
        raise SystemExit(3) from None
    if not answer.get("ok"):
        click.echo(f"Error: nothing was changed: {answer.get('error')}", err=True)
        raise SystemExit(1)
    for line in answer["changes"]:
        click.echo(line)
    if not answer["changes"]:
        click.echo("The settings are the same; secrets and certificates were read anew.")
    click.echo(f"Generation {answer['generation']} serves; the one before ends its requests.")
