"""A clock that a program under test sees and that a test moves.

It is Debian's `faketime` (package faketime); its offset is read from a file each time that the process asks,
so that the clock jumps while it runs.  Monotonic time is left alone.

Note: under faketime 0.9.10 Python's time.sleep fails (EINVAL: it sleeps by absolute monotonic time), so
that such a gateway cannot end in good order and is killed.
"""

import re
import subprocess
import time
from datetime import datetime
from pathlib import Path

from programs import path_of


def preload() -> str:
    """Where faketime's library is, as it says itself."""
    reported = subprocess.run(
        [path_of("faketime"), "-f", "+0", "env"], capture_output=True, text=True, check=True
    )
    library = re.search(r"^LD_PRELOAD=(.+)$", reported.stdout, re.M)
    assert library is not None, reported.stdout
    return library[1]


class Clock:
    def __init__(self, directory: Path) -> None:
        self.file = directory / "clock"
        self.env = {
            "LD_PRELOAD": preload(),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, at: datetime) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{at.timestamp() - time.time():+.3f}\n")
        fresh.replace(self.file)
