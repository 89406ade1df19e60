"""`headgate env`: the variables that point existing SDKs and agents at this gateway."""

import click

from headgate.cli.common import as_json, places, print_json, settings_of

PLACEHOLDER = "hg_live_..."


def variables(base: str, key: str) -> dict[str, str]:
    """By protocol's convention: OpenAI's base URL has /v1 in it, the others do not (clients.md)."""
    return {
        "OPENAI_BASE_URL": f"{base}/v1",
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_AUTH_TOKEN": key,
        "GOOGLE_GEMINI_BASE_URL": base,
        "GEMINI_API_KEY": key,
    }


@click.command()
@click.option("--url", help="The gateway's address, as clients see it.")
@click.option("--key", default=PLACEHOLDER, help="A key of yours; a placeholder without it.")
@places
@as_json
def command(
    url: str | None, key: str, config_file: str | None, data: str | None, json_: bool
) -> None:
    """Print the variables that point existing clients here: eval "$(headgate env --key ...)"."""
    settings = settings_of(config_file, data=data)
    if url is None:
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    if any(c in key + url for c in "'\n"):
        raise click.UsageError("--key and --url must be without quotes.")
    found = variables(url.rstrip("/"), key)
    if json_:
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"export {name}='{value}'")
