"""The skill as a plugin, installed by the agents that have plugins, each by its own commands.

`headgate skill plugin` writes the marketplace; every line must end well, and the last one must name
what was installed.  Nobody is asked for a model, and no gateway runs.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 120


@dataclass(frozen=True)
class Host:
    """`<market>` stands for the marketplace's directory, `<plugin>` for the plugin's."""

    name: str  # the agent's
    lines: tuple[tuple[str, ...], ...]
    shows: str  # in what the last line prints


HOSTS = (
    Host(
        "claude-code",
        (
            ("plugin", "validate", "<market>"),
            ("plugin", "validate", "<plugin>"),
            ("plugin", "marketplace", "add", "<market>"),
            ("plugin", "install", "minimax@headgate"),
            ("plugin", "list"),
        ),
        "minimax@headgate",
    ),
    Host(
        "codex",
        (
            ("plugin", "marketplace", "add", "<market>"),
            ("plugin", "add", "minimax@headgate"),
            ("plugin", "list"),
        ),
        "minimax@headgate  installed",
    ),
    Host(
        "gemini-cli",
        (
            ("extensions", "validate", "<plugin>"),
            ("extensions", "install", "<plugin>", "--consent"),
            ("extensions", "list"),
        ),
        "minimax",
    ),
)


def install(host: Host, program: Path, env: dict[str, str]) -> str:
    """ "pass", or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="headgate-plugins-") as name:
        root = Path(name)
        market, home = root / "market", root / "home"
        home.mkdir()
        line = (sys.executable, "-m", "headgate.cli", "skill", "plugin", str(market))
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        output = ""
        for parts in host.lines:
            parts = tuple(
                p.replace("<market>", str(market)).replace("<plugin>", f"{market}/plugins/minimax")
                for p in parts
            )
            done = subprocess.run(
                [str(program), *parts],
                cwd=home,
                env={**env, "HOME": str(home)},
                input="y\n",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT_S,
            )
            output = done.stdout
            if done.returncode:
                return f"{' '.join(parts[:2])}: {output.strip()[-200:]}"
        return "pass" if host.shows in output else f"not installed: {output.strip()[-200:]}"
