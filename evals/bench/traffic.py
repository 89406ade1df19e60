"""The load of the benchmarks: requests over loopback, and what they took."""

import asyncio
import itertools
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import bodies
from targets import Gateway, cpu_s, memory_mb
from upstream import CHUNKS, PACE_S

STREAMS = 32
# Beside the streams whose lateness is measured: requests in each second, as long as few are waiting.
AGENT_RATE, AGENTS_AT_ONCE = 100, 8
IDLE_STREAMS = 500


def request(gateway: Gateway, body: bytes) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{gateway.port}\r\n"
        f"authorization: Bearer {gateway.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def answer(reader: asyncio.StreamReader, arrived: list[float] | None = None) -> int:
    """Read one response; return the bytes of its body. `arrived` gets the time of each chunk."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"{head[:400]!r} {await reader.read(800)!r}")
    if b"transfer-encoding: chunked" in head:
        size = 0
        while n := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(n + 2)
            if arrived is not None:
                arrived.append(time.perf_counter())
            size += n
        await reader.readexactly(2)
        return size
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None
    return len(await reader.readexactly(int(found[1])))


async def ask(gateway: Gateway, body: bytes, count: int) -> list[float]:
    """Send `count` requests, one after the other, on one connection; return the seconds of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    wire, took = request(gateway, body), []
    for _ in range(count):
        began_s = time.perf_counter()
        writer.write(wire)
        await answer(reader)
        took.append(time.perf_counter() - began_s)
    writer.close()
    return took


async def cpu_of(gateway: Gateway, body: bytes, count: int, connections: int) -> float:
    """Return the CPU microseconds of one request, of the whole process tree."""
    each = max(1, count // connections // (10 if gateway.slow else 1))
    before_s = cpu_s(gateway.pid)
    await asyncio.gather(*(ask(gateway, body, each) for _ in range(connections)))
    return (cpu_s(gateway.pid) - before_s) / (each * connections) * 1e6


def saturated(gateway: Gateway, seconds: int) -> tuple[float, float]:
    """Return requests per second of one core at 32 connections, and CPU microseconds of one request."""
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "post.lua"
        script.write_text(
            f"wrk.method='POST'\nwrk.body='{bodies.small('whole').decode()}'\n"
            f"wrk.headers['content-type']='application/json'\n"
            f"wrk.headers['authorization']='Bearer {gateway.key}'\n"
        )
        before_s = cpu_s(gateway.pid)
        out = subprocess.run(
            [
                "wrk",
                "-t1",
                "-c32",
                f"-d{seconds}s",
                "-s",
                str(script),
                f"http://127.0.0.1:{gateway.port}/v1/chat/completions",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found = re.search(r"(\d+) requests in ", out)
    if found is None or "Non-2xx" in out:
        raise SystemExit(f"{gateway.name}: {out}")
    count = max(1, int(found[1]))
    return count / seconds, (cpu_s(gateway.pid) - before_s) / count * 1e6


async def chunk_us(gateway: Gateway) -> float:
    """Return the CPU microseconds of one chunk, of streams whose chunks come one at a time."""
    count = 4 if gateway.slow else STREAMS
    before_s = cpu_s(gateway.pid)
    body = bodies.small("stream", stream=True)
    await asyncio.gather(*(ask(gateway, body, 1) for _ in range(count)))
    return (cpu_s(gateway.pid) - before_s) / (count * CHUNKS) * 1e6


async def late_ms(gateway: Gateway) -> float:
    """Return how late chunks are beside agent requests, in milliseconds at the 99th percentile."""
    late: list[float] = []

    async def stream() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request(gateway, bodies.small("stream", stream=True)))
        arrived: list[float] = []
        await answer(reader, arrived)
        late.extend((b - a - PACE_S) * 1e3 for a, b in itertools.pairwise(arrived))
        writer.close()

    async def agents(body: bytes) -> None:
        running: set[asyncio.Task[list[float]]] = set()
        while True:
            if len(running) < AGENTS_AT_ONCE:
                task = asyncio.ensure_future(ask(gateway, body, 1))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep((10 if gateway.slow else 1) / AGENT_RATE)

    beside = asyncio.ensure_future(agents(bodies.agent("openai", "whole")))
    await asyncio.gather(*(stream() for _ in range(8)))
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    return statistics.quantiles(late, n=100)[98]


async def idle_stream_kib(gateway: Gateway) -> float:
    """Return the KiB of memory of one open stream."""
    before_mb = memory_mb(gateway)
    count = 50 if gateway.slow else IDLE_STREAMS
    connections = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request(gateway, bodies.small("stream", stream=True)))
        connections.append((reader, writer))
    await asyncio.gather(*(reader.readuntil(b"\r\n\r\n") for reader, _ in connections))
    used_mb = memory_mb(gateway) - before_mb
    for _, writer in connections:
        writer.transport.abort()
    return used_mb * 1024 / count
