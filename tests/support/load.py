"""Load for attacks: requests at a steady rate, whether or not the answers keep up, and how they ended."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop

from waiting import pause

BENCH = Path(__file__).parents[2] / "evals" / "bench"
TICK_S = 0.002


class Flow(msgspec.Struct):
    """One key's requests: so many a second, or so many at a time if `rate` is 0."""

    key: str
    body: bytes
    rate: float = 0.0
    at_a_time: int = 1
    path: str = "/v1/chat/completions"
    max_connections: int = 1500
    # what came of it
    sent: int = 0
    served: int = 0  # with status 200
    unsent: int = 0  # as all connections were busy
    ended: list[tuple[int, float]] = msgspec.field(default_factory=list)  # status, seconds
    rival: "Flow | None" = None
    # For each answer, how many of the rival's requests were served since its request was sent: a
    # latency that does not depend on how busy the machine is.
    overtaken: list[int] = msgspec.field(default_factory=list)

    def of(self, *statuses: int) -> list[float]:
        return sorted(s for status, s in self.ended if status in statuses)

    def count(self, *statuses: int) -> int:
        return len(self.of(*statuses))


def share(values: list[float], part: float) -> float:
    """The value that `part` of the sorted values are below."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, flow: Flow, idle: "deque[_Connection]", request: bytes) -> None:
        self.flow = flow
        self.idle = idle
        self.request = request
        self.data = b""
        self.began = 0.0
        self.rival_had = 0  # requests served, when ours was sent
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's own
        self.open = True

    def send(self) -> None:
        self.began = time.monotonic()
        self.flow.sent += 1
        if self.flow.rival is not None:
            self.rival_had = self.flow.rival.served
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        _, found, rest = lower.partition(b"content-length:")
        if found:
            if len(body) < int(rest.split(b"\r\n", 1)[0]):
                return
        elif not body.endswith(b"0\r\n\r\n"):
            return
        self.data = b""
        took_s = time.monotonic() - self.began
        status = int(head.split(b" ", 2)[1])
        self.flow.ended.append((status, took_s))
        self.flow.served += status == 200
        if self.flow.rival is not None:
            self.flow.overtaken.append(self.flow.rival.served - self.rival_had)
        if b"connection: close" in lower:
            self.open = False
            self.transport.close()
        elif self.flow.rate:
            self.idle.append(self)
        else:
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False


async def _run(address: tuple[str, int], flow: Flow, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    request = (
        f"POST {flow.path} HTTP/1.1\r\nhost: {address[0]}:{address[1]}\r\n"
        f"authorization: Bearer {flow.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(flow.body)}\r\n\r\n"
    ).encode() + flow.body
    idle: deque[_Connection] = deque()
    all_: list[_Connection] = []
    opening = 0

    async def connect() -> None:
        nonlocal opening
        try:
            _, made = await loop.create_connection(
                lambda: _Connection(flow, idle, request), *address
            )
        except OSError:
            flow.unsent += 1
            return
        finally:
            opening -= 1
        all_.append(made)
        made.send()

    began = time.monotonic()
    tasks: set[asyncio.Task[None]] = set()
    if not flow.rate:
        opening = flow.at_a_time
        await asyncio.gather(*[connect() for _ in range(flow.at_a_time)])
        await pause(seconds, "the length of the load")
    due = 0.0
    while flow.rate and (now := time.monotonic() - began) < seconds:
        while due < now:
            due += 1 / flow.rate
            while idle and not idle[0].open:
                idle.popleft()
            if idle:
                idle.popleft().send()
            elif len(all_) + opening < flow.max_connections:
                opening += 1
                task = loop.create_task(connect())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                flow.unsent += 1
        await pause(TICK_S, "the pace of the load")
    flow_rate, flow.rate = flow.rate, flow.rate or -1.0  # nothing more is sent
    if flow_rate:
        for _ in range(200):  # two seconds for the last answers
            if len(flow.ended) >= flow.sent:
                break
            await pause(0.01, "at most two seconds for the last answers")
    for each in all_:
        each.transport.abort()
    flow.rate = flow_rate


def run(address: tuple[str, int], flows: list[Flow], seconds: float) -> None:
    """Send all flows at once for so long; the answers are in the flows."""

    async def main() -> None:
        await asyncio.gather(*[_run(address, flow, seconds) for flow in flows])

    uvloop.run(main())


@contextlib.contextmanager
def fast_upstream() -> Iterator[str]:
    """The benchmark's upstream, which answers at once with fixed bytes; its base URL."""
    process = subprocess.Popen(
        [sys.executable, str(BENCH / "upstream.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait(10)
