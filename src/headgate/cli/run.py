"""`headgate run`: start a tool with everything set for this gateway and nothing edited.

The tool takes this process's place (exec), so signals, the terminal and the exit code are its own.
Windows has no such thing: there it is a child, and its exit code is handed on.
"""

import http.client
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import click
import msgspec

from headgate.cli.connect import target_of
from headgate.cli.connect_record import write
from headgate.cli.json_edit import EditError
from headgate.cli.options import asked_key, places, settings_of
from headgate.cli.textedit import EDITORS
from headgate.cli.tool import KEY_VARIABLE, ConnectTarget, Overlay, Tool
from headgate.cli.tool_files import changes, environment, filled, place
from headgate.cli.tools import ToolName

_ANSWER_S = 3.0  # longer than a gateway needs, short enough for a person who waits for a tool


def _overlay(overlay: Overlay, tool: Tool, target: ConnectTarget) -> None:
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


def warning(url: str, key: str) -> str:
    """Say why the tool will not get an answer; "" when the gateway knows the key.

    The tool is started all the same: a gateway may come up while it waits.
    """
    request = urllib.request.Request(f"{url}/v1/key", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 401:
            return (
                f"The gateway at {url} does not accept this key; `headgate keys list` shows yours."
            )
        return f"{url}/v1/key answers {error.code}: is that a Headgate gateway?"
    except (OSError, ValueError) as error:  # URLError, time-outs, what is no HTTP
        reason = getattr(error, "reason", None) or error
        return f"No gateway answers at {url} ({reason}). Start one with `headgate serve`, or give --url."
    except http.client.HTTPException:
        return f"What answers at {url} does not speak HTTP. Give the gateway's address with --url."


@click.command()
@click.argument("tool", type=ToolName())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--url", help="The gateway's address, as the tool sees it.")
@click.option(
    "--key", envvar=KEY_VARIABLE, help=f"A key of yours, `-` asks for it; else {KEY_VARIABLE}."
)
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
    key = asked_key(key or "", needed=True)
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
    if problem := warning(target.url, key):
        click.echo(f"Warning: {problem}", err=True)
    env = {name: value for name, value in os.environ.items() if name not in tool.unset}
    env |= environment(tool, target)
    line = [program, *filled(tool.arguments, target), *arguments]
    if os.name == "nt":
        raise SystemExit(subprocess.call(line, env=env))
    try:
        os.execve(program, line, env)
    except OSError as error:
        raise click.ClickException(f"{program}: {error.strerror}.") from None
