"""Several edges of one gateway: what one node grants, however the requests are spread over them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from attacking import tree
from gateway import Gateway, start, stop
from headgate.catalog import counting
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import ANTHROPIC
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import PATIENCE_S, until, wait_for

EDGES = 4
BODY = {
    "model": "MiniMax-M2",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "held"}],
}


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("edges") / "data",
        "--edges",
        str(EDGES),
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0
    books = UsageReader(running.data)
    assert books.audit() == []
    assert books.intents() == 0
    books.close()


def processes(gate: Gateway, name: str) -> list[int]:
    """The children of that name that live."""
    found = []
    for pid in tree(gate.process.pid):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if command[2:4] == [b"headgate.cli", name.encode()]:
            found.append(pid)
    return found


def a_key(gate: Gateway, **terms: Any) -> dict[str, str]:
    store = Store(gate.data)
    _, text = store.create_key("limited", now_s=time.time(), **terms)
    store.close()
    return {"authorization": f"Bearer {text}"}


def reserved(body: dict[str, object]) -> int:
    """Nano-dollars: the input's upper bound at 0.375, 100 out at 1.20 (as in tests/edge/test_admission.py)."""
    request = ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget())
    return counting.input_bound(request, 204_800) * 375 + 100 * 1200


async def all_at_once(gate: Gateway, headers: dict[str, str], count: int) -> list[int]:
    """The statuses; each request has a connection of its own, and no reply ends before all are decided."""
    assert gate.upstream is not None
    upstream, before = gate.upstream, len(gate.upstream.seen)
    limits = httpx2.Limits(max_connections=count, max_keepalive_connections=0)
    async with httpx2.AsyncClient(limits=limits, timeout=3 * PATIENCE_S) as client:
        url = f"{gate.url}/v1/messages"
        sent = [
            asyncio.create_task(client.post(url, json=BODY, headers=headers)) for _ in range(count)
        ]
        await until(
            lambda: sum(s.done() for s in sent) + len(upstream.seen) - before == len(sent),
            2 * PATIENCE_S,
        )
        for seen in upstream.seen[before:]:
            upstream.release(seen)
        return [reply.status_code for reply in await asyncio.gather(*sent)]


def test_each_process_says_in_its_command_line_what_it_is(gate: Gateway) -> None:
    assert len(processes(gate, "edge")) == EDGES
    assert len(processes(gate, "node")) == 1


@pytest.mark.parametrize(
    ("terms", "granted"),
    [
        ({"budget_nano": 37 * reserved(BODY) + reserved(BODY) - 1}, 37),
        ({"concurrency": 23}, 23),
        ({"rpm": 31}, 31),
    ],
    ids=["budget", "slots", "rpm"],
)
def test_of_many_parallel_requests_over_four_edges_exactly_what_is_allowed_is_granted(
    gate: Gateway, terms: dict[str, Any], granted: int
) -> None:
    headers = a_key(gate, **terms)
    began_s = time.monotonic()
    statuses = asyncio.run(all_at_once(gate, headers, 200))
    # What a minute brings back meanwhile may be granted as well.
    more = int((time.monotonic() - began_s) * granted / 60) + 1 if "rpm" in terms else 0
    assert granted <= statuses.count(200) <= granted + more
    assert statuses.count(200) + statuses.count(429) == 200
    told = httpx2.get(f"{gate.url}/v1/key", headers=headers).json()
    assert told["budget"]["held_nano"] == 0
    assert told["budget"]["spent_nano"] == told["spent_nano"] > 0


def stream(gate: Gateway, headers: dict[str, str], word: str = "held") -> socket.socket:
    """A streamed request of which the first piece has come; the upstream waits with the rest."""
    body = json.dumps({**BODY, "stream": True, "messages": [{"role": "user", "content": word}]})
    host, _, port = gate.url.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)), PATIENCE_S)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(["POST /v1/messages HTTP/1.1", f"host: {host}", *lines])
    sock.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    seen = b""
    while b"content_block_delta" not in seen:
        data = sock.recv(65536)
        assert data, seen
        seen += data
    return sock


def rest(sock: socket.socket) -> bytes:
    found = b""
    while b"message_stop" not in found:
        data = sock.recv(65536)
        if not data:
            break
        found += data
    sock.close()
    return found


def edge_of(gate: Gateway, sock: socket.socket) -> int:
    """Which edge has the other end of a connection, by the system's tables."""
    port = f":{sock.getsockname()[1]:04X}"
    for pid in processes(gate, "edge"):
        inodes = set()
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[2].endswith(port):
                inodes.add(f"socket:[{fields[9]}]")
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(fd) in inodes:
                    return pid
    raise AssertionError("no edge has the connection")


def outcomes(gate: Gateway, key: str) -> list[tuple[str, str]]:
    books = UsageReader(gate.data)
    rows = books._all("select outcome, basis from ledger where key_id = ? order by seq", (key,))
    books.close()
    return [(str(outcome), str(basis)) for outcome, basis in rows]


def test_a_killed_edge_is_replaced_and_only_its_own_requests_notice(gate: Gateway) -> None:
    assert gate.upstream is not None
    before = len(gate.upstream.seen)
    headers = a_key(gate, budget_nano=10**9, concurrency=40)
    key = headers["authorization"][15:23]
    streams = [stream(gate, headers) for _ in range(16)]
    victim = edge_of(gate, streams[0])
    lost = [s for s in streams if edge_of(gate, s) == victim]
    kept = [s for s in streams if s not in lost]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(outcomes(gate, key)) == len(lost))
    assert set(outcomes(gate, key)) == {("crashed", "recovered")}
    wait_for(lambda: victim not in processes(gate, "edge"))
    wait_for(lambda: len(processes(gate, "edge")) == EDGES)
    for seen in gate.upstream.seen[before:]:
        gate.upstream.release(seen)
    assert all(b"message_stop" in rest(s) for s in kept)
    assert sorted(set(outcomes(gate, key))) == [("crashed", "recovered"), ("stop", "upstream")]
    told = httpx2.get(f"{gate.url}/v1/key", headers=headers).json()
    assert told["budget"]["held_nano"] == 0
    assert told["budget"]["spent_nano"] == told["spent_nano"]
    # The slots of the dead are free again.
    for _ in range(3 * EDGES):
        reply = httpx2.post(f"{gate.url}/v1/messages", json=said("hello"), headers=headers)
        assert reply.status_code == 200


def said(word: str) -> dict[str, object]:
    return {**BODY, "messages": [{"role": "user", "content": word}]}


def test_a_killed_node_is_replaced_and_knows_what_is_reserved_and_running(gate: Gateway) -> None:
    assert gate.upstream is not None
    before = len(gate.upstream.seen)
    worst = reserved({**BODY, "stream": True})
    headers = a_key(gate, budget_nano=8 * worst + worst - 1)
    slots = a_key(gate, concurrency=2)
    key = headers["authorization"][15:23]
    streams = [stream(gate, headers) for _ in range(8)] + [stream(gate, slots) for _ in range(2)]
    (node,) = processes(gate, "node")
    os.kill(node, signal.SIGKILL)
    # Whoever comes now waits for the next one, which knows it all.
    assert refusal(gate, headers) == (429, "budget_reserved")
    assert refusal(gate, slots)[0] == 429
    wait_for(lambda: [pid for pid in processes(gate, "node") if pid != node])
    for seen in gate.upstream.seen[before:]:
        gate.upstream.release(seen)
    assert all(b"message_stop" in rest(s) for s in streams)
    wait_for(lambda: len(outcomes(gate, key)) == 8)
    assert set(outcomes(gate, key)) == {("stop", "upstream")}
    told = httpx2.get(f"{gate.url}/v1/key", headers=headers).json()
    assert told["budget"]["held_nano"] == 0
    assert told["budget"]["spent_nano"] == told["spent_nano"] > 0
    assert httpx2.post(f"{gate.url}/v1/messages", json=said("hello"), headers=slots).is_success


def refusal(gate: Gateway, headers: dict[str, str]) -> tuple[int, str]:
    url = f"{gate.url}/v1/chat/completions"
    while True:
        reply = httpx2.post(url, json=BODY, headers=headers)
        if reply.status_code != 503:  # a busy machine takes longer than requests wait
            return reply.status_code, reply.json()["error"]["code"]
