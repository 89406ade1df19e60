"""`headgate run`: start a tool with everything set for this gateway and nothing edited.

The tool takes this process's place (exec), so signals, the terminal and the exit code are its own.
Windows has no such thing: there it is a child, and its exit code is handed on.
"""

import os
import shutil
import subprocess
from pathlib import Path

import click
import msgspec

from headgate.cli.common import places, settings_of
from headgate.cli.connect import target_of, write
from headgate.cli.textedit import EDITORS, EditError
from headgate.cli.tools import (
    KEY_VARIABLE,
    Overlay,
    Target,
    Tool,
    ToolName,
    changes,
    environment,
    filled,
    place,
)


def _overlay(overlay: Overlay, tool: Tool, target: Target) -> None:
    """Make the file that the tool reads in place of its own, which stays as it is."""
    path = Path(target.run) / overlay.name
    own = place(tool.files[0], os.environ)
    try:
        text = own.read_text("utf-8") if overlay.own and own.exists() else ""
        text = EDITORS[overlay.kind](text, changes(overlay, target))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, UnicodeDecodeError, EditError) as error:
        raise click.ClickException(f"{own}: {error}.") from None
    write(path, text.encode(), 0o600)


@click.command()
@click.argument("tool", type=ToolName())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--url", help="The gateway's address, as the tool sees it.")
@click.option("--key", envvar=KEY_VARIABLE, help=f"A key of yours; else {KEY_VARIABLE}.")
@click.option("--model", help="The model it should use.")
@places
def command(
    tool: Tool,
    arguments: tuple[str, ...],
    url: str | None,
    key: str | None,
    model: str | None,
    config_file: str | None,
    data: str | None,
) -> None:
    """Start TOOL against this gateway; what follows `--` is for the tool."""
    if not tool.runs:
        raise click.ClickException(
            f"{tool.title} reads its files only: use `headgate connect {tool.name}`."
        )
    if not key:
        raise click.UsageError(f"give --key, or set {KEY_VARIABLE}.")
    settings = settings_of(config_file, data=data)
    target = target_of(settings, url, key, model)
    program = shutil.which(tool.program)
    if program is None:
        raise click.ClickException(f"{tool.program} is not installed: {tool.install}")
    if tool.overlay:
        target = msgspec.structs.replace(target, run=str(Path(settings.data).absolute() / "run"))
        _overlay(tool.overlay, tool, target)
    env = {name: value for name, value in os.environ.items() if name not in tool.unset}
    env |= environment(tool, target)
    line = [program, *filled(tool.arguments, target), *arguments]
    if os.name == "nt":
        raise SystemExit(subprocess.call(line, env=env))
    try:
        os.execve(program, line, env)
    except OSError as error:
        raise click.ClickException(f"{program}: {error.strerror}.") from None
