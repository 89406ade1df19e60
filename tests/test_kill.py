"""soak/kill.py in its short form; `make soak` runs the long one."""

import subprocess
import sys
from pathlib import Path

KILL = Path(__file__).parent.parent / "evals" / "soak" / "kill.py"


def test_no_kill_loses_doubles_or_holds_anything() -> None:
    ran = subprocess.run(
        [sys.executable, str(KILL), "--rounds", "6", "--seconds", "15"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    assert "nothing missing, doubled, held or overspent" in ran.stdout
