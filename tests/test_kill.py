"""soak/kill.py and soak/kill_parts.py in their short forms; `make soak` runs the long ones."""

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parent.parent / "evals" / "soak"


def run(program: str, *options: str) -> str:
    ran = subprocess.run(
        [sys.executable, str(SOAK / program), *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    return ran.stdout


def test_no_kill_loses_doubles_or_holds_anything() -> None:
    said = run("kill.py", "--rounds", "6", "--seconds", "15")
    assert "nothing missing, doubled, held or overspent" in said


def test_no_kill_of_an_edge_the_node_or_the_supervisor_loses_doubles_or_holds_anything() -> None:
    said = run("kill_parts.py", "--rounds", "3", "--seed", "13")
    assert "nothing missing, doubled, held or overspent" in said
    assert all(f"{role}: 1 killed" in said for role in ("edge", "node", "supervisor"))
