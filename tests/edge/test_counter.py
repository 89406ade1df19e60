"""The ways to count, in their order, against servers that count as vLLM, SGLang and MiniMax do."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import uvloop
from test_gateway import chat, contents, messages

from gateway import start, stop
from headgate import config
from headgate.catalog import building, chat_template, counting
from headgate.catalog.routes import Route
from headgate.chat import Media, Message, Request, Text, Thinking, Tool, ToolCall, ToolResult
from headgate.config import ConfigError, Settings
from headgate.edge.counter import BOUND_S, ESTIMATED, REST_S, WRITTEN, Count, Counter
from headgate.edge.tokenizer import load_tokenizer
from headgate.net.client import Client
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from played import USAGE, PlayedUpstream
from waiting import PATIENCE_S, never, pause_thread

M = "MiniMax-M2"
ASKED = Request(
    M,
    (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("What is the weather?"),)),
        Message("assistant", (Thinking("I look."), ToolCall("c1", "weather", '{"city":"Bern"}'))),
        Message("tool", (ToolResult("c1", (Text("sunny"),)),)),
    ),
    tools=(Tool("weather", "The weather of a city."),),
)
GUESS = Count(counting.Learner().estimate(counting.features(ASKED)), ESTIMATED)


class Asked(msgspec.Struct):
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Played:
    """A server that counts as it is told to, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Inbound, dict[str, Any]], Awaitable[None]]) -> None:
        self.asked: list[Asked] = []
        self.port = 0
        self._answer = answer

    async def handle(self, inbound: Inbound) -> None:
        body = json.loads(await inbound.body())
        self.asked.append(Asked(inbound.path, dict(inbound.headers), body))
        await self._answer(inbound, body)

    def route(self, preset: str = "vllm", path: str = "/v1", **own: object) -> Route:
        url = f"http://127.0.0.1:{self.port}{path}"
        fields = {"preset": preset, "base_url": url, "key": "secret", **own}
        upstream = msgspec.convert(fields, config.Upstream)
        loaded = building.load(Settings(upstreams={preset: upstream}), {})
        return loaded.routes(M)[0]


def reply(inbound: Inbound, body: object, status: int = 200) -> None:
    inbound.respond(status, [("content-type", "application/json")], json.dumps(body).encode())


async def vllm(inbound: Inbound, body: dict[str, Any]) -> None:
    reply(inbound, {"count": 321, "max_model_len": 196608, "tokens": [7] * 321})


async def sglang(inbound: Inbound, body: dict[str, Any]) -> None:
    """0.5 (2026-11): `prompt` is required, and nothing else is looked at."""
    if "prompt" not in body:
        reply(inbound, {"object": "error", "message": "prompt: Field required"}, 400)
        return
    count = len(body["prompt"].split())
    reply(inbound, {"tokens": [7] * count, "count": count, "max_model_len": 196608})


async def anthropic(inbound: Inbound, body: dict[str, Any]) -> None:
    reply(inbound, {"input_tokens": 222})


@contextlib.asynccontextmanager
async def playing(
    answer: Callable[[Inbound, dict[str, Any]], Awaitable[None]],
) -> AsyncIterator[tuple[Played, Client]]:
    played = Played(answer)
    server, client = Server(played.handle), Client(proxies={})
    played.port = await server.listen("127.0.0.1", 0)
    try:
        yield played, client
    finally:
        await client.close()
        server.stop_accepting()
        await server.drain(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main

    uvloop.run(bounded())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- upstreams -------------------------------------------------------------------------------


def test_vllm_counts_the_messages_and_tools_it_would_be_sent() -> None:
    async def main() -> None:
        async with playing(vllm) as (played, client):
            found = await Counter(client).count(ASKED, (played.route(),), "openai")
            assert found == Count(321)
            (asked,) = played.asked
            assert asked.path == "/tokenize"
            assert asked.headers["authorization"] == "Bearer secret"
            assert set(asked.body) <= {"model", "messages", "tools", "chat_template_kwargs"}
            assert asked.body["model"] == "MiniMaxAI/MiniMax-M2"
            said = [m["role"] for m in asked.body["messages"]]
            assert said == ["system", "user", "assistant", "tool"]
            assert asked.body["messages"][2]["reasoning"] == "I look."
            assert asked.body["tools"][0]["function"]["name"] == "weather"

    run(main())


def test_sglang_which_takes_only_a_text_gets_one_and_for_a_minute_nothing_else() -> None:
    async def main() -> None:
        clock = Clock()
        async with playing(sglang) as (played, client):
            counter, routes = Counter(client, now=clock), (played.route("sglang"),)
            text = chat_template.written(ASKED)
            for _ in range(2):
                found = await counter.count(ASKED, routes, "openai")
                assert found == Count(len(text.split()), WRITTEN)
            bodies = [asked.body for asked in played.asked]
            assert [("messages" in b, "prompt" in b) for b in bodies] == [
                (True, False),
                (False, True),
                (False, True),
            ]
            assert bodies[1] == {
                "model": "MiniMaxAI/MiniMax-M2",
                "prompt": text,
                "add_special_tokens": False,
            }
            clock.now += REST_S + 1
            await counter.count(ASKED, routes, "openai")
            assert "messages" in played.asked[3].body

    run(main())


@pytest.mark.parametrize(
    ("preset", "path", "own", "expected"),
    [
        ("minimax", "/v1", {}, "/anthropic/v1/messages/count_tokens"),
        ("minimax-anthropic", "/anthropic", {}, "/anthropic/v1/messages/count_tokens"),
        ("anthropic", "", {}, "/v1/messages/count_tokens"),
    ],
)
def test_anthropics_way_is_asked_only_when_it_was_enabled(
    preset: str, path: str, own: dict[str, Any], expected: str
) -> None:
    async def main() -> None:
        async with playing(anthropic) as (played, client):
            off = played.route(preset, path)
            assert await Counter(client).count(ASKED, (off,), "anthropic") == GUESS
            assert played.asked == []
            on = played.route(preset, path, capabilities={"counts": "anthropic"}, **own)
            assert await Counter(client).count(ASKED, (on,), "anthropic") == Count(222)
            (asked,) = played.asked
            assert asked.path == expected
            assert asked.headers["anthropic-version"] == "2023-06-01"
            assert set(asked.body) <= {
                "model",
                "messages",
                "system",
                "tools",
                "tool_choice",
                "thinking",
            }
            assert asked.body["messages"][-1]["content"][0]["type"] == "tool_result"

    run(main())


async def _not_found(inbound: Inbound, body: dict[str, Any]) -> None:
    reply(inbound, {"detail": "Not Found"}, 404)


async def _no_number(inbound: Inbound, body: dict[str, Any]) -> None:
    reply(inbound, {"count": "many"})


async def _negative(inbound: Inbound, body: dict[str, Any]) -> None:
    reply(inbound, {"count": -5})


async def _no_json(inbound: Inbound, body: dict[str, Any]) -> None:
    inbound.respond(200, [], b"<html>")


async def _broken(inbound: Inbound, body: dict[str, Any]) -> None:
    inbound.start(200, [])
    inbound.write(b'{"count":')
    inbound.abort()


@pytest.mark.parametrize("answer", [_not_found, _no_number, _negative, _no_json, _broken])
def test_an_upstream_that_fails_to_count_is_left_alone_for_a_minute(
    answer: Callable[[Inbound, dict[str, Any]], Awaitable[None]],
) -> None:
    async def main() -> None:
        clock = Clock()
        async with playing(answer) as (played, client):
            counter, routes = Counter(client, now=clock), (played.route(),)
            assert await counter.count(ASKED, routes, "openai") == GUESS
            before = len(played.asked)
            clock.now += REST_S - 1
            assert await counter.count(ASKED, routes, "openai") == GUESS
            assert len(played.asked) == before == 1
            clock.now += 2
            await counter.count(ASKED, routes, "openai")
            assert len(played.asked) == 2

    run(main())


def test_an_upstream_that_cannot_be_reached_is_the_next_ones_turn() -> None:
    async def main() -> None:
        async with playing(vllm) as (played, client):
            here = played.route()
            gone = msgspec.structs.replace(
                here,
                upstream=msgspec.structs.replace(
                    here.upstream, name="gone", base_url="http://127.0.0.1:1/v1"
                ),
            )
            deaf = msgspec.structs.replace(
                gone, capabilities=msgspec.structs.replace(gone.capabilities, counts="")
            )
            for first in (gone, deaf):
                found = await Counter(client).count(ASKED, (first, here), "openai")
                assert found == Count(321)

    run(main())


def test_a_refused_request_says_nothing_of_the_next_one() -> None:
    async def picky(inbound: Inbound, body: dict[str, Any]) -> None:
        if "weather" in json.dumps(body):
            reply(inbound, {"error": {"message": "no"}}, 400)
        else:
            reply(inbound, {"count": 7})

    async def main() -> None:
        async with playing(picky) as (played, client):
            counter, routes = Counter(client), (played.route(),)
            assert await counter.count(ASKED, routes, "openai") == GUESS
            other = Request(M, (Message("user", (Text("Hello."),)),))
            assert await counter.count(other, routes, "openai") == Count(7)

    run(main())


def test_a_request_that_would_be_refused_is_still_estimated() -> None:
    """Claude Code counts single pieces of its history, such as a result without its call."""

    async def main() -> None:
        async with playing(vllm) as (played, client):
            piece = Request(M, (Message("tool", (ToolResult("c9", (Text("sunny"),)),)),))
            found = await Counter(client).count(piece, (played.route(),), "anthropic")
            assert found.tokens > 0

    run(main())


def test_an_upstream_that_does_not_answer_holds_nobody_up_for_long() -> None:
    left = asyncio.Event()

    asked = 0

    async def silent(inbound: Inbound, body: dict[str, Any]) -> None:
        nonlocal asked
        asked += 1
        try:
            await never("an upstream that does not answer")
        finally:
            left.set()

    async def main() -> None:
        async with playing(silent) as (played, client):
            counter, routes = Counter(client), (played.route(),)
            assert await counter.count(ASKED, routes, "openai") == GUESS
            await left.wait()  # nothing goes on behind our back
            assert await counter.count(ASKED, routes, "openai") == GUESS
            assert asked == 1  # the second time it was not even asked

    run(main())


# --- the cost --------------------------------------------------------------------------------


def test_two_dozen_counts_that_wait_for_an_upstream_wait_together() -> None:
    waiting = 0
    together = asyncio.Event()

    async def slow(inbound: Inbound, body: dict[str, Any]) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 24:  # it answers nobody before all of them have come
            together.set()
        await together.wait()
        await vllm(inbound, body)

    async def main() -> None:
        async with playing(slow) as (played, client):
            counter, routes = Counter(client), (played.route(),)
            found = await asyncio.gather(
                *[counter.count(ASKED, routes, "openai") for _ in range(24)]
            )
            assert found == [Count(321)] * 24

    run(main())


def test_an_estimate_costs_about_as_much_as_to_read_the_request() -> None:
    words = "The quick brown fox — and the lazy dog — met at noon. " * 900
    body = json.dumps(messages(words), ensure_ascii=False).encode()
    assert len(body) > 50_000
    request = Request(M, (Message("user", (Text(words),)),))

    def least(call: Callable[[], object]) -> float:
        took = []
        for _ in range(20):
            began = time.process_time()
            call()
            took.append(time.process_time() - began)
        return min(took)

    counter = Counter(Client(proxies={}))
    estimate = least(lambda: counter.estimate(M, counting.features(request)))
    assert estimate < 10 * least(lambda: json.loads(body))


# --- the operator's tokenizer ------------------------------------------------------------------


def test_the_operators_tokenizer_is_the_second_way() -> None:
    texts: list[str] = []

    def words(text: str) -> int:
        texts.append(text)
        return len(text.split())

    async def main() -> None:
        async with playing(vllm) as (played, client):
            counter = Counter(client, words)
            assert await counter.count(ASKED, (played.route(),), "openai") == Count(321)
            assert texts == []
            silent = played.route("minimax")
            found = await counter.count(ASKED, (silent,), "openai")
            assert texts == [chat_template.written(ASKED)]
            assert found == Count(len(texts[0].split()), WRITTEN)
            seen = Message("user", (Media("image", data="AAAA"),))
            more = msgspec.structs.replace(ASKED, messages=(*ASKED.messages, seen))
            assert (await counter.count(more, (silent,), "openai")).tokens > found.tokens + 500

    run(main())


def slow_words(text: str) -> int:
    pause_thread(BOUND_S * 1.3, "a slow tokenizer")
    return 7


def test_a_tokenizer_that_takes_too_long_leaves_it_to_the_estimate() -> None:
    async def main() -> None:
        async with playing(vllm) as (played, client):
            counter = Counter(client, slow_words)
            assert await counter.count(ASKED, (played.route("minimax"),), "openai") == GUESS

    run(main())


def test_a_tokenizer_json_is_read_where_the_library_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"}
    path.write_text(
        json.dumps({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model})
    )
    count = load_tokenizer(str(path))
    assert count is not None
    assert (count("a b c"), count("")) == (3, 0)
    path.write_text("{}")
    for wrong in (path, tmp_path / "none.json", tmp_path):
        with pytest.raises(ConfigError, match=wrong.name):
            load_tokenizer(str(wrong))


def test_without_the_library_the_setting_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # type: ignore[arg-type]  # import fails
    assert load_tokenizer("") is None
    with pytest.raises(ConfigError, match=r"headgate\[tokenizers\]"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))


# --- the gateway -------------------------------------------------------------------------------


def test_the_gateway_learns_from_what_its_upstream_reports(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    running = start(
        tmp_path / "data", HEADGATE_UPSTREAM_URL=upstream.url("openai"), HEADGATE_UPSTREAM_KEY="x"
    )
    try:

        def count(path: str, body: object) -> tuple[httpx2.Response, int]:
            response = running.post(path, body)
            assert response.status_code == 200, response.text
            assert response.headers["x-headgate-warnings"] == ESTIMATED
            assert not [h for h in response.headers if "ratelimit" in h]
            said = response.json()
            return response, said.get("input_tokens") or said["totalTokens"]

        _, before = count("/v1/messages/count_tokens", messages("tools"))
        off = abs(before - USAGE.input)
        for _ in range(8):
            assert running.post("/v1/chat/completions", chat("tools")).status_code == 200
        for path, body in (
            ("/v1/messages/count_tokens", messages("tools")),
            ("/v1/responses/input_tokens", {"model": M, "input": "tools"}),
            (f"/v1beta/models/{M}:countTokens", contents("tools")),
        ):
            assert abs(count(path, body)[1] - USAGE.input) < off / 2 + 20
    finally:
        assert stop(running) == 0
