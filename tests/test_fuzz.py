"""soak/fuzz.py in its short form: one turn of each part; `make soak` runs the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent.parent / "evals" / "soak" / "fuzz.py"


@pytest.mark.parametrize(
    "part", ["wire", "server", "client", pytest.param("work", marks=pytest.mark.long)]
)
def test_mutated_bytes_find_nothing(part: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(FUZZ), "--only", part, "--seed", "1", "--examples", "40"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    assert f"nothing found: 1 turns of {part}" in ran.stdout
