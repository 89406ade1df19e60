"""Money on a running gateway: whatever an upstream reports, no key spends more than its budget."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import uvloop

import gateway as gateways
from attacking import Target
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from headgate.policy.periods import nano_of
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.reports import UsageReader
from waiting import wait_for

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Greedy:
    """An upstream of chat completions that reports all that its request allows, or what it is told.

    It reads a byte as a token, and generates all of `max_tokens`. `report` overrides parts of that.
    """

    def __init__(self) -> None:
        self.report: dict[str, int] = {}
        self.text = "A reply of a dozen words, whatever the request was about, and no more."
        self.seen: list[dict[str, Any]] = []
        self.waits = False  # before the end, until `go`
        self.port = 0
        self.arrived = threading.Semaphore(0)  # once for each request
        self._ready = threading.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),), daemon=True)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._go = asyncio.Event()
        server = Server(self._handle)
        self.port = await server.listen("127.0.0.1", 0)
        self._ready.set()
        await self._stop.wait()
        await server.drain(0)

    async def _handle(self, inbound: Inbound) -> None:
        body = json.loads(await inbound.body())
        self.seen.append(body)
        self.arrived.release()
        said = "".join(m["content"] for m in body["messages"])
        most = body.get("max_completion_tokens", body.get("max_tokens", 3000))
        usage = {"prompt_tokens": len(said.encode()), "completion_tokens": most, **self.report}
        inbound.start(200, [("content-type", "text/event-stream")])
        self._write(inbound, {"index": 0, "delta": {"content": self.text}})
        if self.waits:
            await self._go.wait()
        self._write(inbound, {"index": 0, "delta": {}, "finish_reason": "stop"}, usage)
        inbound.write(b"data: [DONE]\n\n")
        inbound.end()

    def _write(self, inbound: Inbound, choice: object, usage: object = None) -> None:
        chunk = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
        inbound.write(f"data: {json.dumps({**chunk, 'usage': usage})}\n\n".encode())

    def go(self) -> None:
        self._loop.call_soon_threadsafe(self._go.set)

    def __enter__(self) -> "Greedy":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def greedy() -> Iterator[Greedy]:
    with Greedy() as upstream:
        yield upstream


@pytest.fixture
def running(target: Callable[..., Target], greedy: Greedy) -> Target:
    return target(
        config=f'[upstreams.greedy]\npreset = "custom"\nbase_url = "http://127.0.0.1:{greedy.port}"\n'
        'key = "env:SOME_KEY"\n',
        SOME_KEY="x",
    )


def body(text: str, model: str = "MiniMax-M2", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def ask(running: Target, key: str, body: object) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def ask_all(running: Target, key: str, bodies: list[Any]) -> list[httpx2.Response]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: ask(running, key, body), bodies))


def budget(running: Target, key: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"}
    found = httpx2.get(f"{running.url}/v1/key", headers=headers).json()["budget"]
    assert isinstance(found, dict)
    return found


def row_of(running: Target, reply: httpx2.Response) -> LedgerRow:
    books = UsageReader(running.data)
    row = books.generation(reply.headers["x-request-id"])
    books.close()
    assert row is not None
    return row


def test_dense_text_in_parallel_spends_no_more_than_the_budget(
    running: Target, greedy: Greedy
) -> None:
    key = running.create_key("dense", "--budget-usd", "0.02")
    texts = ["7" * 4000, "\u0f40" * 2000, "\U0001f9ff" * 1000, "x\t \n" * 1000, "aZ9+/q" * 700]
    bodies = [body(texts[n % 5], max_tokens=300) for n in range(40)]
    replies = ask_all(running, key, bodies)
    standing = budget(running, key)
    assert standing["held_nano"] == 0
    assert standing["spent_nano"] <= nano_of("0.02")
    assert sum(r.status_code == 200 for r in replies) >= 5
    assert {r.status_code for r in replies} <= {200, 429}
    assert all(row_of(running, r).basis == "upstream" for r in replies if r.status_code == 200)


@pytest.mark.parametrize("model", ["MiniMax-M2", "MiniMax-M3"])
def test_a_key_with_half_a_dollar_gets_an_answer_without_max_tokens(
    running: Target, greedy: Greedy, model: str
) -> None:
    key = running.create_key("half", "--budget-usd", "0.50")
    reply = ask(running, key, body("hello", model))
    assert reply.status_code == 200, reply.text
    assert "max_tokens (lowered to what the budget holds)" in reply.headers["x-headgate-warnings"]
    assert budget(running, key)["spent_nano"] <= nano_of("0.50")


def test_twenty_agents_in_parallel_on_two_dollars_are_all_served(
    running: Target, greedy: Greedy
) -> None:
    greedy.report = {"prompt_tokens": 9000, "completion_tokens": 20}
    greedy.waits = True
    key = running.create_key("agents", "--budget-usd", "2")
    bodies = [body("An agent's long prompt. " * 1500, "MiniMax-M3") for _ in range(20)]
    with ThreadPoolExecutor(1) as pool:
        all_of_them = pool.submit(ask_all, running, key, bodies)
        arrived = all(greedy.arrived.acquire(timeout=10) for _ in range(20))
        assert budget(running, key)["held_nano"] <= nano_of("2")
        greedy.go()
        replies = all_of_them.result()
    assert arrived
    assert [r.status_code for r in replies] == [200] * 20
    assert budget(running, key)["held_nano"] == 0


def test_money_that_others_reserve_is_worth_a_retry_and_money_that_is_spent_is_not(
    running: Target, greedy: Greedy
) -> None:
    greedy.waits = True
    key = running.create_key("two", "--budget-usd", "0.02")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, running, key, body("hello", max_tokens=10_000))
        assert greedy.arrived.acquire(timeout=20)
        refused = ask(running, key, body("hello", max_tokens=10_000))
        greedy.go()
        assert first.result().status_code == 200
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "budget_reserved"
    assert refused.headers["x-should-retry"] == "true" and int(refused.headers["retry-after"]) > 0
    lowered = ask(running, key, body("hello", max_tokens=10_000))
    assert lowered.status_code == 200
    assert "lowered to what the budget holds" in lowered.headers["x-headgate-warnings"]
    assert 256 <= greedy.seen[-1]["max_completion_tokens"] < 10_000
    spent = ask(running, key, body("hello", max_tokens=10_000))
    assert spent.json()["error"]["code"] == "insufficient_quota"
    assert spent.headers["x-should-retry"] == "false"
    assert budget(running, key)["spent_nano"] <= nano_of("0.02")


@pytest.mark.parametrize("stream", [False, True])
def test_a_million_tokens_reported_for_a_dozen_words_are_disputed(
    running: Target, greedy: Greedy, stream: bool
) -> None:
    greedy.report = {"completion_tokens": 1_000_000}
    key = running.create_key("disputed", "--budget-usd", "0.01")
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    reply = ask(running, key, body("hello", max_tokens=100, **more))
    assert reply.status_code == 200 and "1000000" not in reply.text
    row = row_of(running, reply)
    assert (row.basis, row.output_tokens) == ("disputed", 100)
    assert row.cost_nano_usd is not None and row.cost_nano_usd <= 100 * 1200 + 2000 * 375
    assert any("reported 5 input and 1000000 output tokens" in w for w in row.warnings)
    assert running.gateway.metric('headgate_usage_disputed_total{upstream="greedy"}') == 1
    running.cli("audit")
    id = reply.headers["x-request-id"]
    wait_for(lambda: id in running.log)  # a thread of its own writes it
    line = next(n for n in running.log.splitlines() if id in n)
    assert '"level":"warning"' in line and "1000000" in line


def test_a_reply_is_asked_for_again_only_where_the_budget_pays_for_both(
    running: Target, greedy: Greedy
) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    long = body("x" * 6000, max_tokens=2500, response_format=wanted)
    poor = running.create_key("poor", "--budget-usd", "0.007")
    reply = ask(running, poor, long)
    assert reply.status_code == 200, reply.text
    assert "not asked again: the budget)" in reply.headers["x-headgate-warnings"]
    assert (len(greedy.seen), budget(running, poor)["spent_nano"] <= nano_of("0.007")) == (1, True)
    rich = running.create_key("rich", "--budget-usd", "0.02")
    reply = ask(running, rich, long)
    assert len(greedy.seen) == 3
    row = row_of(running, reply)
    assert (row.output_tokens, len(row.attempts), row.basis) == (5000, 2, "upstream")
    assert budget(running, rich)["spent_nano"] == row.cost_nano_usd <= nano_of("0.02")


def test_a_second_gateway_on_the_same_data_is_refused_and_commands_go_on(
    running: Target, greedy: Greedy
) -> None:
    second = subprocess.run(
        [*gateways.COMMAND, "serve", "--port", "0", "--data", str(running.data)],
        env={**gateways.environment(), "HEADGATE_UPSTREAM_URL": f"http://127.0.0.1:{greedy.port}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 5, second.stderr
    assert f"process {running.pid} already" in second.stderr and "--data" in second.stderr
    assert "Traceback" not in second.stderr and "ready" not in second.stdout
    key = running.create_key("beside")
    assert ask(running, key, body("hello", max_tokens=10)).status_code == 200
    assert "1" in running.cli("audit")
    assert "beside" in running.cli("keys", "list")
