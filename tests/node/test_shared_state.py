"""What several edges share beside limits and money: Idempotency-Keys, and how upstreams do."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gateway import COMMAND, Gateway, environment, start, stop, tree
from headgate.storage.sqlite.reports import UsageReader
from played import HELLO, THOUGHT, PlayedUpstream
from waiting import PATIENCE_S, ended, until, wait_for

EDGES = 3
THINKING = THOUGHT.partition("\n")[0]


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("shared") / "data",
        "--edges",
        str(EDGES),
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0


def chat(text: str) -> dict[str, object]:
    return {"model": "MiniMax-M2", "messages": [{"role": "user", "content": text}]}


async def at_once(
    gate: Gateway, text: str, count: int, seen: int, **headers: str
) -> list[httpx2.Response]:
    """So many equal requests, each on a connection of its own; the upstream answers `seen` of them."""
    assert gate.upstream is not None
    upstream, before = gate.upstream, len(gate.upstream.seen)
    none_kept = httpx2.Limits(max_connections=count, max_keepalive_connections=0)
    async with httpx2.AsyncClient(limits=none_kept, timeout=2 * PATIENCE_S) as client:
        url = f"{gate.url}/v1/chat/completions"
        key = {"authorization": f"Bearer {gate.key}", **headers}
        sent = [
            asyncio.create_task(client.post(url, json=chat(text), headers=key))
            for _ in range(count)
        ]
        await until(
            lambda: (
                sum(s.done() for s in sent) >= count - seen and len(upstream.seen) - before >= seen
            )
        )
        for each in upstream.seen[before:]:
            upstream.release(each)
        return list(await asyncio.gather(*sent))


def test_of_equal_requests_with_an_idempotency_key_on_several_edges_one_runs(
    gate: Gateway,
) -> None:
    assert gate.upstream is not None
    before = len(gate.upstream.seen)
    key = {"idempotency-key": "one-for-all"}
    replies = asyncio.run(at_once(gate, "held", 24, 1, **key))
    assert sorted(r.status_code for r in replies) == [200] + [409] * 23
    assert len(gate.upstream.seen) - before == 1
    again = asyncio.run(at_once(gate, "held", 24, 0, **key))
    assert [r.status_code for r in again] == [200] * 24
    assert {r.headers["idempotent-replayed"] for r in again} == {"true"}
    assert len({r.content for r in again}) == 1
    assert len(gate.upstream.seen) - before == 1


def test_a_route_that_fails_on_any_edge_is_asked_by_none(gate: Gateway) -> None:
    assert gate.upstream is not None
    before = len(gate.upstream.seen)
    url = f"{gate.url}/v1/chat/completions"
    codes: list[int] = []

    def one() -> int:
        with httpx2.Client(timeout=PATIENCE_S) as client:  # a new connection, so any of the edges
            key = {"authorization": f"Bearer {gate.key}"}
            codes.append(client.post(url, json=chat("fail 500"), headers=key).status_code)
        return codes[-1]

    wait_for(lambda: one() == 503)
    asked = len(gate.upstream.seen) - before
    # Five failures in a row open the route, and each request made up to two attempts.
    assert asked <= 5 + 2
    for _ in range(6 * EDGES):
        one()
    assert codes[-6 * EDGES :].count(502) <= 3
    assert len(gate.upstream.seen) - before <= asked + 3  # a probe now and then


def turn(gate: Gateway, history: list[dict[str, object]]) -> bool:
    """One more turn, on a connection of its own; whether the model had its own thinking back."""
    assert gate.upstream is not None
    body = {"model": "MiniMax-M2", "messages": history}
    assert gate.post("/v1/chat/completions", body).status_code == 200
    return THINKING.encode() in gate.upstream.last.body


def test_a_client_that_returns_no_reasoning_has_it_restored_on_every_edge_and_generation(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    (tmp_path / "headgate.toml").write_text("edges = 3\n")
    env = {"HEADGATE_UPSTREAM_URL": upstream.url("openai"), "HEADGATE_UPSTREAM_KEY": "x"}
    gate = start(tmp_path / "data", "--config", str(tmp_path / "headgate.toml"), **env)
    gate.upstream = upstream
    kept = 0
    for n in range(24):
        # The client carries what was said, and not what was thought.
        asked: list[dict[str, object]] = [{"role": "user", "content": f"think {n}"}]
        assert not turn(gate, asked)
        said = {"role": "assistant", "content": HELLO}
        kept += turn(gate, [*asked, said, {"role": "user", "content": "hello"}])
    assert kept == 24
    ran = subprocess.run(
        [*COMMAND, "reload", "--data", str(gate.data)], env=environment(), check=False
    )
    assert ran.returncode == 0
    for n in range(8):  # on the edges of the new generation
        asked = [{"role": "user", "content": f"think {n}"}]
        said = {"role": "assistant", "content": HELLO}
        assert turn(gate, [*asked, said, {"role": "user", "content": "hello"}])
    assert stop(gate) == 0


def test_the_page_of_metrics_has_the_sum_of_all_edges_also_of_one_that_was_killed(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    env = {"HEADGATE_UPSTREAM_URL": upstream.url("openai"), "HEADGATE_UPSTREAM_KEY": "x"}
    gate = start(tmp_path / "data", "--edges", str(EDGES), **env)
    line = 'headgate_requests_total{dialect="openai",model="MiniMax-M2",outcome="stop"}'
    for _ in range(12):  # each on a connection of its own
        assert gate.post("/v1/chat/completions", chat("hello")).status_code == 200
    wait_for(lambda: gate.metric(line) == 12)
    count = 'headgate_exchange_seconds_count{model="MiniMax-M2",upstream="custom"}'
    wait_for(lambda: gate.metric(count) == 12)
    # Both edges' reports are there; now one of them goes.
    wait_for(lambda: all(gate.metric(line) == 12 for _ in range(2 * EDGES)))
    os.kill(edges(gate)[0], signal.SIGKILL)
    wait_for(lambda: gate.metric('headgate_child_exits_total{child="edge"}') == 1)
    wait_for(lambda: all(gate.metric(line) == 12 for _ in range(2 * EDGES)))
    assert stop(gate) == 0


def edges(gate: Gateway) -> list[int]:
    found = []
    for pid in tree(gate.process.pid):
        with contextlib.suppress(OSError):
            if b"headgate.cli\0edge\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_gateway_whose_supervisor_was_killed_is_followed_at_once_and_cuts_nothing(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    env = {"HEADGATE_UPSTREAM_URL": upstream.url("openai"), "HEADGATE_UPSTREAM_KEY": "x"}
    first = start(tmp_path / "data", "--edges", "2", **env)
    first.upstream = upstream
    port = first.url.rpartition(":")[2]
    before = len(upstream.seen)
    headers = {"authorization": f"Bearer {first.key}"}
    children = tree(first.process.pid)[1:]
    with httpx2.stream(
        "POST",
        f"{first.url}/v1/chat/completions",
        json={**chat("held"), "stream": True},
        headers=headers,
        timeout=PATIENCE_S,
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        first.process.kill()
        first.process.wait()
        second = start(tmp_path / "data", "--port", port, **env)
        assert second.url == first.url
        reply = httpx2.post(
            f"{second.url}/v1/chat/completions", json=chat("hello"), headers=headers
        )
        assert reply.status_code == 200
        upstream.release(upstream.seen[before])
        assert "\n".join(lines).rstrip().endswith("data: [DONE]")
    wait_for(lambda: all(ended(pid) for pid in children))
    assert stop(second) == 0
    books = UsageReader(tmp_path / "data")
    rows = books._all("select outcome, basis from ledger")
    assert sorted(rows) == [("stop", "upstream")] * 2
    assert (books.intents(), books.audit()) == (0, [])
    books.close()
    assert not list((tmp_path / "data" / "live").iterdir())
