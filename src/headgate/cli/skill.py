"""`headgate skill`: the skill that teaches agents this gateway, printed or put where they look.

It is the very file that the gateway serves at /skills/minimax/SKILL.md, rendered for one address;
`plugin` writes it as a marketplace of one plugin (web/site/plugin.py), which the repository has too.
"""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click

from headgate.cli.group import CommandGroup
from headgate.cli.options import joined_of, places, settings_of
from headgate.config import Settings
from headgate.web.site import pages, plugin, skill
from headgate.web.site.deployment import Site

NAME = "minimax"
# Where Codex, Gemini CLI, opencode and others look, besides their own directories; Claude Code looks
# into the second only (agentskills.io/client-implementation, code.claude.com/docs/en/skills, 2026-11).
AGENTS, CLAUDE = Path(".agents", "skills"), Path(".claude", "skills")


@click.group("skill", cls=CommandGroup)
def command() -> None:
    """Print the skill for agents, install it, or make a plugin of it."""


@command.command("print")
@click.option("--url", help="The gateway's address, as clients see it.")
@places
def print_(url: str | None, config_file: str | None, data: str | None) -> None:
    """Print SKILL.md, rendered for this gateway."""
    click.echo(_skill(settings_of(config_file, data=data), url), nl=False)


@command.command()
@click.option("--url", help="The gateway's address, as clients see it.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of skills; without it ~/.agents/skills, and ~/.claude/skills if there is ~/.claude.",
)
@places
def install(
    url: str | None, directory: Path | None, config_file: str | None, data: str | None
) -> None:
    """Put the skill where agents look for skills."""
    text = _skill(settings_of(config_file, data=data), url)
    if directory is not None:
        directories = [directory]
    else:
        home = Path.home()
        directories = [home / AGENTS, *([home / CLAUDE] if (home / ".claude").is_dir() else [])]
    for each in directories:
        file = each / NAME / "SKILL.md"
        try:
            _write(file, text)
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror}.") from None
        click.echo(f"installed {file}")


@command.command("plugin")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--base-url",
    default=plugin.DEFAULT_URL,
    show_default=True,
    help="The gateway's address, as clients see it.",
)
def plugin_(directory: Path, base_url: str) -> None:
    """Make DIRECTORY a marketplace of the skill, for Claude Code, Codex and Gemini CLI."""
    try:
        files = plugin.files(base_url.rstrip("/"))
    except ValueError as error:
        raise click.UsageError(f"--base-url: {error}") from None
    for name, text in files.items():
        file = directory / name
        try:
            _write(file, text)
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror}.") from None
        click.echo(f"wrote {file}")


def _skill(settings: Settings, url: str | None) -> str:
    if url is None:
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    both = joined_of(settings)
    local = all(u.preset == "local" for u in both.settings.upstreams.values())
    today = datetime.now(UTC).date()
    try:
        site = Site(base_url=url.rstrip("/"), on=today, local=local)
    except ValueError as error:
        raise click.UsageError(f"--url: {error}") from None
    page = pages.page(skill.SKILL, site, both.catalog)
    assert page is not None
    return page.markdown


def _write(file: Path, text: str) -> None:
    """All of it or nothing: an agent may read at any moment."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(text.encode())
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
