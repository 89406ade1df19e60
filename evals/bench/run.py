"""`make bench`: Headgate beside nginx as a plain proxy and LiteLLM, interleaved in one run.

Prints ratios, as absolute times say more about the machine than about the code.  Every gateway runs
as one process on one core (nginx: one worker); load and upstream share the others.  Headgate is
measured once as it is and once without its ledger (unledgered.py), which also shows what the disk
of this machine costs.  LiteLLM is measured when `.venv-litellm` exists (`make bench-litellm` makes it).  Loopback only.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from upstream import CHUNKS

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = int(os.environ.get("SECONDS", "4"))
STREAMS = 32
TICK = os.sysconf("SC_CLK_TCK")
LITELLM = ROOT / ".venv-litellm" / "bin" / "litellm"
LITELLM_CONFIG = """
model_list:
  - model_name: MiniMax-M2
    litellm_params: {{model: openai/MiniMax-M2, api_base: "http://127.0.0.1:{port}/v1", api_key: x}}
litellm_settings: {{telemetry: false}}
"""
NGINX_CONFIG = """
worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; keepalive_requests 1000000000;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


class Gate(msgspec.Struct):
    name: str
    port: int
    key: str
    pids: list[int]
    ready_s: float = 0.0
    writers: list[int] = []  # of the ledger: beside the one core, and told apart


def body(stream: bool, whole: bool) -> bytes:
    said = "whole" if whole else "stream"
    ask = {"model": "MiniMax-M2", "stream": stream, "messages": [{"role": "user", "content": said}]}
    return json.dumps(ask).encode()


def request(gate: Gate, data: bytes) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{gate.port}\r\n"
        f"authorization: Bearer {gate.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    ).encode() + data


def cpu_s(gate: Gate, writers: bool = False) -> float:
    total = 0
    for pid in gate.writers if writers else gate.pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def rss_mb(gate: Gate) -> float:
    pages = sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in gate.pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(p) for p in found]


@contextlib.contextmanager
def running(command: list[str], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {0}),
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(port: int, path: str, until_s: float = 90) -> None:
    end = time.monotonic() + until_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1)
            answer.close()
            if answer.status == 200:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing answered on {port}{path}")


@contextlib.contextmanager
def headgate(upstream: int, ledger: bool = True) -> Iterator[Gate]:
    command = ["-m", "headgate.cli"] if ledger else [str(ROOT / "bench" / "unledgered.py")]
    with tempfile.TemporaryDirectory() as data:
        began = time.monotonic()
        with running(
            [
                sys.executable,
                *command,
                "serve",
                "--port",
                "0",
                "--data",
                data,
                "--log",
                "off",
            ],
            HEADGATE_UPSTREAM_URL=f"http://127.0.0.1:{upstream}/v1",
            HEADGATE_UPSTREAM_KEY="x",
        ) as process:
            printed = ""
            assert process.stdout is not None
            while "headgate ready" not in printed:
                line = process.stdout.readline().decode()
                if not line:
                    raise SystemExit("headgate did not start")
                printed += line
            ready = time.monotonic() - began
            key = re.search(r"hg_live_\w+", printed)
            assert key
            port = int(printed.rpartition(":")[2])
            # The ledger's writer is a process of its own, which a system runs where there is room.
            writers = children(process.pid)
            for pid in writers:
                os.sched_setaffinity(pid, os.sched_getaffinity(0))
            name = "headgate" if ledger else "no-ledger"
            yield Gate(name, port, key[0], [process.pid], ready, writers)


@contextlib.contextmanager
def nginx(upstream: int) -> Iterator[Gate]:
    with tempfile.TemporaryDirectory() as place:
        port = free_port()
        config = Path(place) / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(dir=place, upstream=upstream, port=port))
        began = time.monotonic()
        with running(["nginx", "-c", str(config), "-p", place]) as process:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with contextlib.suppress(OSError):
                    import socket

                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.01)
            workers = children(process.pid)
            yield Gate("nginx", port, "x", [process.pid, *workers], time.monotonic() - began)


@contextlib.contextmanager
def litellm(upstream: int) -> Iterator[Gate]:
    with tempfile.TemporaryDirectory() as place:
        port = free_port()
        config = Path(place) / "config.yaml"
        config.write_text(LITELLM_CONFIG.format(port=upstream))
        began = time.monotonic()
        with running(
            [str(LITELLM), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"],
            LITELLM_MASTER_KEY="sk-bench",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        ) as process:
            wait_for(port, "/health/liveliness")
            yield Gate("litellm", port, "sk-bench", [process.pid], time.monotonic() - began)


async def ask(gate: Gate, data: bytes, count: int, latencies: list[float]) -> None:
    """`count` requests, one after the other, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    wire = request(gate, data)
    for _ in range(count):
        began = time.perf_counter()
        writer.write(wire)
        await answer(reader)
        latencies.append(time.perf_counter() - began)
    writer.close()


async def answer(reader: asyncio.StreamReader) -> int:
    """Read one response; the bytes of its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"{head[:400]!r} {await reader.read(800)!r}")
    if b"transfer-encoding: chunked" in head:
        size = 0
        while n := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(n + 2)
            size += n
        await reader.readexactly(2)
        return size
    found = re.search(rb"content-length: (\d+)", head)
    assert found
    return len(await reader.readexactly(int(found[1])))


def saturate(gate: Gate, wrk_dir: Path) -> tuple[float, float, float]:
    """Requests per second of one core at 32 connections, and CPU microseconds per request.

    The last number is what the ledger's writer takes of another core.
    """
    script = wrk_dir / f"{gate.name}.lua"
    data = body(False, True).decode()
    script.write_text(
        f"wrk.method='POST'\nwrk.body='{data}'\n"
        f"wrk.headers['content-type']='application/json'\n"
        f"wrk.headers['authorization']='Bearer {gate.key}'\n"
    )
    before, beside = cpu_s(gate), cpu_s(gate, writers=True)
    out = subprocess.run(
        ["wrk", "-t1", "-c32", f"-d{SECONDS}s", "-s", str(script),
         f"http://127.0.0.1:{gate.port}/v1/chat/completions"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    spent = cpu_s(gate) - before
    if "Non-2xx" in out:
        raise SystemExit(f"{gate.name}: {out}")
    found = re.search(r"(\d+) requests in ", out)
    assert found
    requests = int(found[1])
    written = (cpu_s(gate, writers=True) - beside) / max(requests, 1) * 1e6
    return requests / SECONDS, spent / max(requests, 1) * 1e6, written


async def chunk_cost(gate: Gate) -> float:
    """CPU microseconds per chunk of streams that come one chunk at a time."""
    before = cpu_s(gate)
    count = STREAMS if gate.name != "litellm" else 4
    await asyncio.gather(*(ask(gate, body(True, False), 1, []) for _ in range(count)))
    return (cpu_s(gate) - before) / (count * CHUNKS) * 1e6


async def latency(gate: Gate) -> float:
    took: list[float] = []
    await ask(gate, body(False, True), 30, [])
    await ask(gate, body(False, True), 200, took)
    return statistics.median(took) * 1e3


async def idle_streams(gate: Gate, upstream_idle: int) -> float:
    """KiB of memory per open stream that waits."""
    before = rss_mb(gate)
    count = 500
    connections = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        writer.write(request(gate, body(True, False)))
        connections.append((reader, writer))
    await asyncio.gather(*(r.readuntil(b"\r\n\r\n") for r, _ in connections))
    used = (rss_mb(gate) - before) * 1e3 / count
    for _, writer in connections:
        writer.transport.abort()
    return used


def main() -> None:
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - {0} or {0})
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            raise SystemExit(f"make bench needs {tool} (Debian: apt install {tool})")
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "upstream.py")], stdout=subprocess.PIPE
        )
        stack.callback(process.terminate)
        assert process.stdout is not None
        upstream = int(process.stdout.readline())
        gates = [stack.enter_context(nginx(upstream)), stack.enter_context(headgate(upstream))]
        gates.append(stack.enter_context(headgate(upstream, ledger=False)))
        if LITELLM.exists():
            gates.append(stack.enter_context(litellm(upstream)))
        wrk_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rate: dict[str, list[float]] = {g.name: [] for g in gates}
        request_us: dict[str, list[float]] = {g.name: [] for g in gates}
        chunk_us: dict[str, list[float]] = {g.name: [] for g in gates}
        took_ms: dict[str, list[float]] = {g.name: [] for g in gates}
        writer_us: list[float] = []
        memory = {g.name: rss_mb(g) for g in gates}
        direct = Gate("direct", upstream, "x", [])
        took_ms["direct"] = []
        for _ in range(ROUNDS):
            for gate in gates:
                per_s, us, written = saturate(gate, wrk_dir)
                if gate.name == "headgate":
                    writer_us.append(written)
                rate[gate.name].append(per_s)
                request_us[gate.name].append(us)
                chunk_us[gate.name].append(uvloop.run(chunk_cost(gate)))
            for gate in (direct, *gates):
                took_ms[gate.name].append(uvloop.run(latency(gate)))
        per_stream = uvloop.run(idle_streams(gates[1], upstream))
        ready = {g.name: g.ready_s for g in gates}

        def row(title: str, values: dict[str, list[float]], unit: str) -> None:
            base = statistics.median(values["nginx"])
            cells = [
                f"{name} {statistics.median(v):8.1f} {unit} ({statistics.median(v) / base:6.2f} x nginx)"
                for name, v in values.items() if v
            ]  # fmt: skip
            print(f"{title:28}" + "   ".join(cells))

        row("requests/s on one core", rate, "1/s")
        row("CPU per request", request_us, "us")
        print(f"{'  and the ledger writer':28}headgate {statistics.median(writer_us):8.1f} us")
        row("CPU per chunk", chunk_us, "us")
        base = statistics.median(took_ms["direct"])
        print(
            f"{'added latency at c=1':28}"
            + "   ".join(
                f"{g.name} {statistics.median(took_ms[g.name]) - base:8.3f} ms" for g in gates
            )
        )
        print(f"{'ready after':28}" + "   ".join(f"{n} {s:8.2f} s" for n, s in ready.items()))
        print(f"{'memory at rest':28}" + "   ".join(f"{n} {m:8.1f} MB" for n, m in memory.items()))
        print(f"{'memory per idle stream':28}headgate {per_stream:8.1f} KiB")


if __name__ == "__main__":
    main()
