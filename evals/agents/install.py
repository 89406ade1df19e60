"""Installs the agents from their registries into `.cache/agents`; nothing is installed elsewhere.

Agents from npm want Node 22 or newer; where the machine has an older one, npm's own `node` package
brings it.  What is there already stays, unless `upgrade` asks for today's version.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "agents"
NODE = 22
LIMIT_S = 600  # for one package; aider brings half a gigabyte


def _ran(*line: str, cwd: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        line,
        cwd=cwd,
        env=env,
        timeout=LIMIT_S,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stdout[-2000:]}")


def _npm(directory: Path, package: str, env: dict[str, str] | None = None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "package.json").write_text('{"private": true}\n')
    _ran(
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        package,
        cwd=directory,
        env=env,
    )


def node() -> Path:
    """Return the directory of a Node that is new enough."""
    if found := shutil.which("node"):
        reported = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
        if (version := re.match(r"v(\d+)\.", reported)) and int(version[1]) >= NODE:
            return Path(found).parent
    binary = CACHE / "node" / "node_modules" / "node" / "bin"
    if not (binary / "node").exists():
        _npm(CACHE / "node", f"node@{NODE}")
    return binary


def python(version: str) -> str:
    """Return the Python that a package asks for: this one, or one that the machine has beside it."""
    if not version or version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found and not subprocess.run([found, "--version"], capture_output=True).returncode:
        return found  # pyenv has a program of this name for versions that are not switched on
    for binary in sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python")):
        return str(binary)
    raise SystemExit(f"There is no Python {version} on this machine.")


def install(
    name: str, package: str, program: str, npm: bool, wants: str = "", *, upgrade: bool
) -> tuple[Path, str]:
    """Return the directory of the program and the version.

    `wants` is the version of a package of npm, or that of the Python for a package of PyPI.
    """
    home = CACHE / name
    binary = home / "node_modules" / ".bin" if npm else home / "bin"
    if upgrade or not (binary / program).exists():
        print(f"installing {package} ...", flush=True)
        if npm:
            path = f"{node()}{os.pathsep}{os.environ.get('PATH', '')}"
            _npm(home, f"{package}@{wants or 'latest'}", {**os.environ, "PATH": path})
        else:
            CACHE.mkdir(parents=True, exist_ok=True)
            _ran(python(wants), "-m", "venv", str(home), cwd=CACHE)
            line = ("pip", "install", "-q", "--disable-pip-version-check", "--upgrade", package)
            _ran(str(home / "bin" / "python"), "-m", *line, cwd=home)
    if npm:
        page = home / "node_modules" / package / "package.json"
        return binary, str(json.loads(page.read_text())["version"])
    found = next(home.glob(f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info"))
    return binary, found.name.removesuffix(".dist-info").rpartition("-")[2]
