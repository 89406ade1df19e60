"""`make first-hour`: a stranger's way from a clone to a request in the log, by README.md's own commands only.

Clones this checkout (what is committed), runs README's block, pastes the sample request that the start
prints, looks into the log, stops with Ctrl-C, starts again and pastes once more.  Needs git, make, curl, a package index
and some 150 MB of traffic; pip's cache of this machine is not used.  With --keep the clone stays.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What is left of this machine's environment: nothing that could choose an upstream, a key or a place.
KEPT = ("PATH", "LANG", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "UV_INDEX_URL", "SSL_CERT_FILE")
START_S = 1200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="Work in this directory, and leave it.")
    asked = parser.parse_args()
    # Ctrl-C must reach the gateway also where this program was started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    place = asked.keep or Path(tempfile.mkdtemp(prefix="first-hour-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        first_hour(place)
    finally:
        if asked.keep is None:
            shutil.rmtree(place, ignore_errors=True)


def first_hour(place: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: os.environ[name] for name in KEPT if name in os.environ}
    env |= {"HOME": str(place), "HEADGATE_PORT": str(port)}
    clone, run = documented()
    step(f"clone: {clone}")
    subprocess.run(
        ["bash", "-ec", clone.replace("REPOSITORY", str(ROOT)).partition("&& cd")[0]],
        cwd=place,
        env=env,
        check=True,
    )
    here = place / "headgate"
    assert (here / "README.md").is_file(), "the clone is not where README goes on"
    with started(run, here, env) as printed:
        assert "Installing the locked packages" in printed, "the installation shows no progress"
        assert "Collecting" in printed or "Downloading" in printed, "pip is silent"
        assert printed.count("headgate ready") == 1
        key = re.search(r"hg_live_\w+", printed)
        assert key is not None, printed
        answered(pasted(printed, env))
        (row,) = logged(here, env)
        assert row["outcome"] in ("stop", "length") and row["upstream"] == "local", row
        assert "SmolLM2" in printed and str(place / ".local/share/headgate") in printed
        step(commands(here, env, "status").splitlines()[0])
    began_s = time.monotonic()
    with started(run, here, env) as printed:
        step(f"the second start took {time.monotonic() - began_s:.1f} s")
        assert "Installing" not in printed and "hg_live_" not in printed, printed
        answered(pasted(printed, {**env, "HEADGATE_API_KEY": key[0]}))
        assert len(logged(here, env)) == 2
    step("all of it works as README.md says")


def documented() -> tuple[str, str]:
    """Return the two commands of README's block: the clone, and what installs and starts."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"## Install and run\n(?s:.*?)\n\n((?:    .*\n)+)", text)
    assert block is not None, "README.md has no block of commands below Install and run"
    lines = [line.partition("  #")[0].strip() for line in block[1].splitlines()]
    assert len(lines) == 2 and lines[0].startswith("git clone") and lines[1].startswith("make")
    return lines[0], lines[1]


@contextmanager
def started(command: str, here: Path, env: dict[str, str]) -> Iterator[str]:
    """Run the command in a terminal's way until it is ready; Ctrl-C at the end. Yields what was printed."""
    step(f"{here.name}$ {command}")
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=here,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that an interrupt reaches all of it, as a terminal's does
    )
    assert process.stdout is not None
    printed, until_s = [], time.monotonic() + START_S
    try:
        for line in process.stdout:
            printed.append(line)
            print(f"    {line}", end="", flush=True)
            if line.startswith("headgate ready "):
                break
            assert time.monotonic() < until_s, "it takes too long"
        else:
            raise AssertionError("it ended before it was ready:\n" + "".join(printed[-30:]))
        yield "".join(printed)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        process.wait(60)


def pasted(printed: str, env: dict[str, str]) -> str:
    """What comes of the printed sample request, pasted into a shell; a key that one has stays."""
    lines = printed[printed.index("  export HEADGATE_API_KEY") : printed.index("headgate ready")]
    if "HEADGATE_API_KEY" in env:
        lines = lines[lines.index("  curl ") :]
    done = subprocess.run(["bash", "-c", lines], env=env, capture_output=True, text=True)
    return done.stdout


def answered(text: str) -> None:
    step(f"the sample request: {text[:160]}")
    assert '"finish_reason":' in text and '"content":"' in text, text


def commands(here: Path, env: dict[str, str], *words: str) -> str:
    """What a command of `.venv/bin` prints, as README has them."""
    done = subprocess.run(
        [str(here / ".venv/bin/headgate"), *words], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def logged(here: Path, env: dict[str, str]) -> list[dict[str, object]]:
    """The rows of the log, the oldest first."""
    return [json.loads(line) for line in commands(here, env, "requests", "--json").splitlines()]


def step(text: str) -> None:
    print(f"first-hour: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
