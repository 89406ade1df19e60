"""`make scale`: requests a second, CPU and memory of `headgate serve` with one and with two edges.

Needs wrk (Debian's package) and two cores; load and upstream share them, so that the ratio says less than
it would on a larger machine, where the CPU for each request is the figure to go by.  Loopback only.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("SECONDS", "5"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CONNECTIONS = 64
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def role(pid: int) -> str:
    """What a process of the gateway is: its command's name."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[3].decode()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@contextlib.contextmanager
def gateway(upstream: int, edges: int, data: str) -> Iterator[tuple[int, str, str]]:
    """Return a running gateway: the supervisor's pid, its address, a key."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate.cli", "serve", "--port", "0", "--data", data,
         "--log", "off", "--edges", str(edges)],
        env={**os.environ, "HEADGATE_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/v1",
             "HEADGATE_UPSTREAM_KEY": "x", "HEADGATE_UPSTREAM_CHECK_S": "0"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    printed = ""
    assert process.stdout is not None
    for line in process.stdout:
        printed += line
        if line.startswith("headgate ready"):
            break
    key = re.search(r"hg_live_\w+", printed)
    assert key is not None, printed
    try:
        yield process.pid, printed.split()[-1], key[0]
    finally:
        process.terminate()
        process.wait(60)


def load(pid: int, url: str, key: str, script: Path) -> tuple[float, dict[str, float]]:
    """Requests a second, and the CPU microseconds of each role for a request."""
    body = '{"model":"MiniMax-M2","messages":[{"role":"user","content":"whole"}]}'
    script.write_text(
        f"wrk.method='POST'\nwrk.body='{body}'\nwrk.headers['content-type']='application/json'\n"
        f"wrk.headers['authorization']='Bearer {key}'\n"
    )
    pids = tree(pid)
    before = {each: cpu_s(each) for each in pids}
    out = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script),
         f"{url}/v1/chat/completions"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"(\d+) requests in ", out)
    if found is None or "Non-2xx" in out:
        raise SystemExit(out)
    count = int(found[1])
    spent: dict[str, float] = {}
    for each in pids:
        name = role(each)
        spent[name] = spent.get(name, 0.0) + (cpu_s(each) - before[each]) / count * 1e6
    return count / SECONDS, spent


def main() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("make scale needs wrk (Debian: apt install wrk)")
    played = subprocess.Popen(
        [sys.executable, str(ROOT / "evals" / "bench" / "upstream.py")], stdout=subprocess.PIPE
    )
    assert played.stdout is not None
    upstream = int(played.stdout.readline())
    rates: dict[int, list[float]] = {1: [], 2: []}
    try:
        for _ in range(ROUNDS):
            for edges in (1, 2):
                with (
                    tempfile.TemporaryDirectory() as data,
                    gateway(upstream, edges, data) as (pid, url, key),
                ):
                    time.sleep(2)  # control starts after the gateway is ready
                    rate, spent = load(pid, url, key, Path(data) / "load.lua")
                    rates[edges].append(rate)
                    memory = {
                        role(each): int(Path(f"/proc/{each}/statm").read_text().split()[1]) * PAGE
                        for each in tree(pid)
                    }
                shown = "  ".join(f"{n} {us:.0f} us" for n, us in spent.items() if us >= 1)
                sizes = "  ".join(f"{n} {size / 1e6:.0f} MB" for n, size in memory.items())
                print(f"{edges} edges: {rate:7.0f} requests/s   {shown}   {sizes}", flush=True)
    finally:
        played.terminate()
    print(f"two edges answer {max(rates[2]) / max(rates[1]):.2f} times as many as one")


if __name__ == "__main__":
    main()
