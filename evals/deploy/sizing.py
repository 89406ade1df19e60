"""What a request costs: CPU of each process, memory, disk.  The figures of docs/deployment.md.

    .venv/bin/python evals/deploy/sizing.py

Counts CPU seconds of the processes and bytes, never wall time, so that a busy machine gives the same.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from gateway import Gateway, start, stop
from headgate.net.client import Client
from headgate.net.client_errors import Timeouts
from played import PlayedUpstream

REQUESTS, STREAMS = 3000, 100
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CALM = Timeouts(60, 600, 600, 600)


def processes(gate: Gateway) -> dict[int, str]:
    """The gateway's processes by pid, each with its name in the command line."""
    found, parents = {}, {gate.process.pid}
    for _ in range(4):
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
                line = (path.parent / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if int(fields[1]) in parents:
                parents.add(int(path.parent.name))
                known = [
                    w
                    for w in ("node", "edge", "control", "writer")
                    if any(a == w or a.endswith(f"{w}.py") for a in line)
                ]
                found[int(path.parent.name)] = known[0] if known else "other"
    return {gate.process.pid: "supervisor", **found}


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def used(gate: Gateway, before: dict[int, float], per: int) -> str:
    now = {pid: cpu_s(pid) - before.get(pid, 0.0) for pid in processes(gate)}
    names = processes(gate)
    sums: dict[str, float] = {}
    for pid, spent in now.items():
        sums[names[pid]] = sums.get(names[pid], 0.0) + spent
    return ", ".join(f"{n} {s / per * 1e6:.0f} us" for n, s in sums.items() if s / per > 1e-6)


async def ask(client: Client, gate: Gateway, text: str, stream: bool) -> int:
    body = {
        "model": "MiniMax-M2",
        "stream": stream,
        "messages": [{"role": "user", "content": text}],
    }
    headers = {"authorization": f"Bearer {gate.key}", "content-type": "application/json"}
    reply = await client.send(
        "POST", f"{gate.url}/v1/chat/completions", headers, json.dumps(body).encode(), CALM
    )
    data = await reply.read_all(10 << 20)
    assert reply.status == 200, data[:200]
    return data.count(b"data: ")


async def many(gate: Gateway, count: int, text: str, stream: bool) -> int:
    client, pieces = Client(proxies={}), 0
    slots = asyncio.Semaphore(32)

    async def one() -> None:
        nonlocal pieces
        async with slots:
            found = await ask(client, gate, text, stream)
            pieces += found

    await asyncio.gather(*(one() for _ in range(count)))
    await client.close()
    return pieces


def main() -> None:
    upstream = PlayedUpstream()
    upstream._thread.start()
    upstream._ready.wait()
    with tempfile.TemporaryDirectory() as place:
        settings = {"HEADGATE_UPSTREAM_URL": upstream.url("openai"), "HEADGATE_LOG": "warning"}
        gate = start(Path(place) / "data", **settings)
        asyncio.run(many(gate, 300, "hello", False))
        assert stop(gate) == 0
        database, key = gate.data / "headgate.db", gate.key
        size = database.stat().st_size
        gate = start(Path(place) / "data", **settings)
        gate.key = key
        asyncio.run(many(gate, 100, "hello", False))
        idle = {n: round(rss_mb(p)) for p, n in processes(gate).items()}
        print("memory, MB:", idle)
        for name, text, stream in (
            ("whole, small", "hello", False),
            ("whole, 30 kB body", "x" * 30_000, False),
            ("streamed, 1 MiB of text", "flood 1", True),
        ):
            before = {pid: cpu_s(pid) for pid in processes(gate)}
            count = STREAMS if stream else REQUESTS
            pieces = asyncio.run(many(gate, count, text, stream))
            each = f"; {pieces / count:.0f} events each" if stream else ""
            print(f"{name}: {used(gate, before, count)} a request{each}")
        print("memory after, MB:", {n: round(rss_mb(p)) for p, n in processes(gate).items()})
        assert stop(gate) == 0
        grown = database.stat().st_size - size
        print(f"disk: {grown / (2 * REQUESTS + STREAMS + 100):.0f} bytes a request")


if __name__ == "__main__":
    main()
