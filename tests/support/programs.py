"""Programs and packages that some tests need beside Python's.

On a user's machine a test that lacks one is skipped with the reason; in CI, which installs all of
them (`.ci/run`), it fails.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

# Each program that a test runs, and the Debian package that has it; `.ci/run` installs them.
DEBIAN = {
    "chromium": "chromium",
    "curl": "curl",
    "faketime": "faketime",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "redis-server": "redis-server",
}


def needs(*programs: str) -> None:
    """Skip the test unless all of these programs are installed; in CI, fail it."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        packages = " ".join(DEBIAN[name] for name in missing)
        lacking(f"not installed: {', '.join(missing)} (Debian: apt install {packages})")


def path_of(program: str) -> str:
    """Where a program is; skips or fails like `needs` without it."""
    needs(program)
    found = shutil.which(program)
    assert found is not None
    return found


def optional(program: str, package: str) -> str:
    """Where a program is that not every CI has; without it the test is skipped, there too.

    `make deploy-check` fetches these: some take longer to get than all tests to run.
    """
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed ({package}); `make deploy-check` fetches it")
    return found


def node_modules(lock: Path, place: Path) -> Path:
    """Install the npm packages that `lock` names into `place`; their directory."""
    needs("node", "npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock / name, place)
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        lacking(f"npm ci failed: {done.stderr[-400:]}")
    return place / "node_modules"


def embedded_model() -> None:
    """Skip the test unless the packages of the embedded model are installed; in CI, fail it."""
    from headgate.local import model

    if not model.available():
        lacking("the embedded model is not installed (headgate local install)")


def lacking(reason: str) -> NoReturn:
    """End the test: skipped with this reason on a user's machine, failed in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must not skip this test", pytrace=False)
    pytest.skip(reason)
