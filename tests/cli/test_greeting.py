"""What `headgate serve` prints for a person: a request to paste, on the first start and on later ones."""

import os
import re
import subprocess
from pathlib import Path

from gateway import start, stop
from played import HELLO, PlayedUpstream
from programs import path_of


def pasted(printed: str, key: str) -> str:
    """The answer to the printed request, with the key in the variable that the documents name."""
    command = re.search(r"^  curl .*\\\n.*$", printed, re.M)
    assert command is not None, printed
    path_of("curl")
    env = {"PATH": os.environ["PATH"], "HEADGATE_API_KEY": key}
    done = subprocess.run(["bash", "-c", command[0]], env=env, capture_output=True, text=True)
    return done.stdout


def test_the_printed_request_works_on_the_first_start_and_on_the_second(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    key = ""
    for _ in range(2):
        gate = start(tmp_path / "data", HEADGATE_UPSTREAM_URL=upstream.url("openai"))
        try:
            key = key or gate.key
            assert HELLO in pasted(gate.printed, key)
        finally:
            assert stop(gate) == 0
    assert "$HEADGATE_API_KEY" in gate.printed
