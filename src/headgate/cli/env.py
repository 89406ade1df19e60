"""`headgate env`: the variables that point existing SDKs and agents at this gateway.

Note: `GOOGLE_GENAI_USE_VERTEXAI` switches Google's SDKs to Vertex AI's paths, which are served too.
Without it Gemini CLI (0.61.0, without a terminal) chooses the method "gateway" as soon as it sees
`GOOGLE_GEMINI_BASE_URL`, and then refuses it with "Invalid auth method selected."
"""

import os
import re
from collections.abc import Callable

import click

from headgate.cli.connect import target_of
from headgate.cli.options import as_json, asked_key, places, print_json, settings_of
from headgate.cli.served import as_served
from headgate.cli.tool import KEY_VARIABLE, ConnectTarget
from headgate.cli.tool_files import filled
from headgate.cli.vendor_tools import claude_variables
from headgate.config.addresses import own_url

PLACEHOLDER = "hg_live_..."
# Another key of Anthropic's would be sent beside ours, and the gateway refuses two different keys.
UNSET = ("ANTHROPIC_API_KEY",)


def variables(base: str, key: str, target: ConnectTarget | None = None) -> dict[str, str]:
    """Return the variables by protocol; `target` adds those that choose its model.

    OpenAI's base URL has /v1 in it, the others have not.
    """
    found = {
        KEY_VARIABLE: key,
        "OPENAI_BASE_URL": f"{base}/v1",
        "OPENAI_API_BASE": f"{base}/v1",  # aider's name for it
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_AUTH_TOKEN": key,
        "GOOGLE_GEMINI_BASE_URL": base,
        "GEMINI_API_KEY": key,
        "GEMINI_DEFAULT_AUTH_TYPE": "gemini-api-key",  # what Gemini CLI's first question suggests
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_VERTEX_BASE_URL": base,
        "GOOGLE_API_KEY": key,
    }
    if target is not None:
        models = {name: text for name, text in claude_variables().items() if name not in found}
        models |= {"OPENAI_MODEL": "<model>", "GEMINI_MODEL": "<model>"}
        found |= {name: filled(text, target) for name, text in models.items()}
    return found


def _posix(name: str, value: str | None) -> str:
    if value is None:
        return f"unset {name}"
    return "export {}='{}'".format(name, value.replace("'", "'\\''"))


def _fish(name: str, value: str | None) -> str:
    """Within single quotes fish knows two escapes: of the quote and of the backslash."""
    if value is None:
        return f"set -e {name}"
    return "set -gx {} '{}'".format(name, re.sub(r"(['\\])", r"\\\1", value))


def _powershell(name: str, value: str | None) -> str:
    if value is None:
        return f"Remove-Item Env:{name} -ErrorAction Ignore"
    return "$env:{} = '{}'".format(name, value.replace("'", "''"))


SHELLS: dict[str, Callable[[str, str | None], str]] = {
    "bash": _posix,
    "zsh": _posix,
    "sh": _posix,
    "fish": _fish,
    "powershell": _powershell,
}


def _shell() -> str:
    """Return the shell that the person uses, as far as the environment shows it."""
    if os.name == "nt":
        return "powershell"
    name = os.path.basename(os.environ.get("SHELL", ""))
    return {"pwsh": "powershell"}.get(name, name if name in SHELLS else "sh")


@click.command()
@click.option("--url", help="The gateway's address, as clients see it.")
@click.option(
    "--key", default=PLACEHOLDER, help="A key of yours, `-` asks for it; a placeholder without it."
)
@click.option("--model", help="The model that agents should use.")
@click.option("--shell", type=click.Choice(list(SHELLS)), help="Whose syntax; yours without it.")
@places
@as_json
def command(
    url: str | None,
    key: str,
    model: str | None,
    shell: str | None,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Print the variables that point existing clients here: eval "$(headgate env --key -)".

    In fish: headgate env --key - | source. In PowerShell: headgate env --shell powershell --key -
    | Out-String | Invoke-Expression.
    """
    settings = settings_of(config_file, data=data)
    key = asked_key(key)
    url = (url or own_url(as_served(settings))).rstrip("/").removesuffix("/v1")
    # Printable ASCII: PowerShell takes four other characters for quotes as well.
    if not re.fullmatch(r"[ -&(-~]*", key + url):
        raise click.UsageError("--key and --url must be ASCII without quotes and line breaks.")
    target = target_of(settings, url, "", model)
    found = variables(url, key, target)
    if json_:
        print_json(found)
        return
    line = SHELLS[shell or _shell()]
    for name in UNSET:
        click.echo(line(name, None))
    for name, value in found.items():
        click.echo(line(name, value))
