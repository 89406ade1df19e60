"""The reasoning cache of all nodes: two machines, a real Redis, and what happens without it."""

import asyncio
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import Gateway, start, stop
from headgate.chat import Message, Request, Text, Thinking
from headgate.edge.shared_reasoning import SharedReasoning
from headgate.reasoning.cache import ReasoningCache
from played import PlayedUpstream
from redis_server import RedisServer
from waiting import wait_for

SECRET = b"s" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    running = RedisServer()
    yield running
    running.end()


@pytest.fixture(scope="module")
def machines(
    upstream: PlayedUpstream, server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Gateway]]:
    """Two gateways with the same keys and the same pepper."""
    place = tmp_path_factory.mktemp("machines")
    env = {
        "HEADGATE_UPSTREAM_URL": upstream.url("openai"),
        "HEADGATE_UPSTREAM_KEY": "x",
        "HEADGATE_CACHE": server.url,
    }
    first = start(place / "0", **env)
    assert stop(first) == 0
    shutil.copytree(place / "0", place / "1")
    gates = [start(place / str(n), **env) for n in range(2)]
    for gate in gates:
        gate.key = first.key
    yield gates
    for gate in gates:
        assert stop(gate) == 0


class Session:
    """A client that returns no reasoning."""

    def __init__(self, upstream: PlayedUpstream, about: str) -> None:
        self._upstream = upstream
        self.messages: list[dict[str, Any]] = []
        self._about = about

    def turn(self, gate: Gateway) -> tuple[list[str], int]:
        """One more turn: what its row says of reasoning, and how many turns the upstream had it of."""
        said = f"think of {self._about} {len(self.messages)}"
        self.messages.append({"role": "user", "content": said})
        body = {"model": "MiniMax-M2", "messages": self.messages}
        reply = gate.post("/v1/chat/completions", body)
        assert reply.status_code == 200, reply.text
        self.messages.append(
            {"role": "assistant", "content": reply.json()["choices"][0]["message"]["content"]}
        )
        id = reply.headers["x-request-id"]
        row = gate.get(f"/v1/generations/{id}", authorization=f"Bearer {gate.key}").json()
        sent = self._upstream.seen[-1].request.messages
        had = [
            m for m in sent if m.role == "assistant" and any(type(p) is Thinking for p in m.parts)
        ]
        return [w for w in row["warnings"] if w.startswith("reasoning")], len(had)


def test_each_turn_on_another_machine_has_all_reasoning_back(
    machines: list[Gateway], upstream: PlayedUpstream
) -> None:
    session = Session(upstream, "moving")
    for n in range(8):
        warnings, had = session.turn(machines[n % 2])
        assert (warnings, had) == (["reasoning (remembered)"] if n else [], n)


def test_a_server_that_is_lost_or_hangs_is_no_error_and_is_used_again_when_it_is_back(
    machines: list[Gateway], upstream: PlayedUpstream, server: RedisServer
) -> None:
    session = Session(upstream, "loss")
    assert session.turn(machines[0])[1] == 0
    server.signal(signal.SIGSTOP)
    try:
        assert session.turn(machines[1]) == (["reasoning cache unavailable"], 0)
        assert session.turn(machines[1])[1] == 1  # of its own memory
    finally:
        server.signal(signal.SIGCONT)
    server.end()
    assert session.turn(machines[0])[1] == 1
    server.start()

    def restored() -> bool:
        fresh = Session(upstream, "return")
        fresh.turn(machines[0])
        return fresh.turn(machines[1])[1] == 1

    wait_for(restored)


def test_the_server_sees_neither_texts_nor_keys(
    machines: list[Gateway], upstream: PlayedUpstream, server: RedisServer
) -> None:
    session = Session(upstream, "secrecy")
    session.turn(machines[0])
    stored = server.everything()
    assert len(stored) >= 2
    everything = b" ".join([*stored, *stored.values()])
    for known in ("secrecy", "think", machines[0].key, machines[0].key[8:20]):
        assert known.encode() not in everything
    for name in stored:
        left_s = server.ask(b"TTL", name)
        assert isinstance(left_s, int) and 0 < left_s <= 4200


def request(*said: str) -> Request:
    """A conversation of user and assistant in turns."""
    roles = ("user", "assistant")
    messages = [Message(roles[n % 2], (Text(text),)) for n, text in enumerate(said)]  # type: ignore[arg-type]
    return Request("M", tuple(messages))


class Edge:
    """The memory of one edge, and its way to the server."""

    def __init__(self, server: RedisServer, secret: bytes = SECRET) -> None:
        self.memory = ReasoningCache()
        self.shared = SharedReasoning(server.url, secret, self.memory, lambda text: None)
        self.memory.on_kept = self.shared.kept
        self.memory.on_used = self.shared.used

    async def keep(self, key: str, text: str) -> None:
        parts = (Thinking(f"thought of {text}"), Text(text))
        self.memory.keep(key, request("ask"), parts, 1.0)
        await self.shared.settle()

    async def recalled(self, key: str, text: str) -> int:
        missed: list[str | bytes] = []
        sent = request("ask", text, "more")
        _, kept = self.memory.recall(key, sent, 2.0, "", missed)
        if missed and await self.shared.fetch(key, missed):
            _, kept = self.memory.recall(key, sent, 2.0)
        return kept


def run(server: RedisServer, *secrets: bytes) -> list[Edge]:
    return [Edge(server, secret) for secret in secrets]


def test_a_turn_is_given_to_its_key_only_and_with_the_right_secret_only(
    server: RedisServer,
) -> None:
    async def work() -> None:
        mine, other, stranger = run(server, SECRET, SECRET, b"t" * 32)
        for edge in (mine, other, stranger):
            await edge.shared.work()
        await mine.keep("k1", "answer")
        assert await other.recalled("k2", "answer") == 0
        assert await stranger.recalled("k1", "answer") == 0
        assert await other.recalled("k1", "answer") == 1
        for edge in (mine, other, stranger):
            edge.shared.close()

    asyncio.run(work())


def test_what_somebody_else_has_written_there_is_passed_over(server: RedisServer) -> None:
    async def work() -> None:
        server.ask(b"FLUSHDB")
        mine, other = run(server, SECRET, SECRET)
        for edge in (mine, other):
            await edge.shared.work()
        await mine.keep("k1", "answer")
        for name in server.everything():
            if name.startswith(b"headgate:1:t:"):
                server.ask(b"SET", name, b"x" * 100)
            else:
                server.ask(b"DEL", name)
                server.ask(b"SET", name, b"no list")
        assert await other.recalled("k1", "answer") == 0
        await mine.keep("k1", "another")  # of which nothing can be read, and nothing breaks
        for edge in (mine, other):
            edge.shared.close()

    asyncio.run(work())


def test_turns_after_the_same_words_are_bounded(server: RedisServer) -> None:
    async def work() -> None:
        server.ask(b"FLUSHDB")
        (edge,) = run(server, SECRET)
        await edge.shared.work()
        for n in range(80):
            await edge.keep("k1", f"answer {n}")
        sizes = [
            server.ask(b"ZCARD", name)
            for name in server.everything()
            if name.startswith(b"headgate:1:i:")
        ]
        assert sizes == [64]
        edge.shared.close()

    asyncio.run(work())
