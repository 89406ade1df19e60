"""Starts the gateways of targets.toml, each with its whole process tree on one core, and reads their costs."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
START_S = 300.0


class Target(msgspec.Struct, forbid_unknown_fields=True):
    """Represents one table of targets.toml; its texts have names in braces that `started` fills in."""

    about: str
    needs: str
    command: list[str]
    version: list[str]
    config: str = ""
    env: dict[str, str] = {}
    key: str = "none"
    key_printed: str = ""
    ready: str = ""
    slow: bool = False


class Gateway(msgspec.Struct):
    """A target that runs."""

    name: str
    port: int
    key: str
    pid: int
    ready_s: float
    slow: bool = False


def targets(path: Path = HERE / "targets.toml") -> dict[str, Target]:
    return msgspec.convert(tomllib.loads(path.read_text()), dict[str, Target])


def installed(target: Target) -> bool:
    return shutil.which(_filled(target.needs, _places())) is not None


def version_of(target: Target) -> str:
    """Return the line of the version that a target reports."""
    command = [_filled(word, _places()) for word in target.version]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = [line for line in (found.stdout + found.stderr).splitlines() if re.search(r"\d", line)]
    return lines[0].strip() if lines else "unknown"


def _places(**more: str) -> dict[str, str]:
    return {"python": sys.executable, "root": str(ROOT), **more}


def _filled(text: str, places: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: places.get(found[1], found[0]), text)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def started(name: str, target: Target, upstream: int, core: int = 0) -> Iterator[Gateway]:
    """Run a target on one core until the end of the block."""
    with tempfile.TemporaryDirectory() as place:
        port = free_port()
        places = _places(port=str(port), upstream=str(upstream), dir=place)
        (Path(place) / "config").write_text(_filled(target.config, places))
        env = {key: _filled(value, places) for key, value in target.env.items()}
        printed = Path(place) / "printed"
        began_s = time.monotonic()
        with printed.open("wb") as out:
            process = subprocess.Popen(
                [_filled(word, places) for word in target.command],
                env={**os.environ, **env},
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        try:
            _wait(process, port, target.ready, printed)
            ready_s = time.monotonic() - began_s
            _wait_until_quiet(process.pid)
            key = target.key
            if target.key_printed:
                found = re.search(target.key_printed, printed.read_text())
                assert found is not None, f"{name} printed no key"
                key = found[0]
            yield Gateway(name, port, key, process.pid, ready_s, target.slow)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, printed: Path) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(OSError):
            if not path:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.02)
    raise SystemExit(f"{process.args!r} did not start:\n{printed.read_text()[-2000:]}")


def _wait_until_quiet(pid: int) -> None:
    """Wait until children that are still starting no longer count as work."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        before_s = cpu_s(pid)
        time.sleep(0.5)
        if cpu_s(pid) - before_s < 0.01:
            return


# --- what it costs -------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def cpu_s(root: int) -> float:
    """Return the CPU time of the whole process tree so far, of all threads that still run."""
    total_ns = 0
    for pid in tree(root):
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total_ns += int(task.read_text().split()[0])
    return total_ns / 1e9


def memory_mb(gateway: Gateway) -> float:
    """Return the memory of the whole tree; what processes share counts once (PSS)."""
    total_kb = 0
    for pid in tree(gateway.pid):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
            total_kb += int(found[1]) if found else 0
    return total_kb / 1024
