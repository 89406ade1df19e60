"""Bodies and replies made to cost much: their work and memory stay bounded.

Each body is one request with one key.  Refused or answered, it costs a few CPU seconds and a small
multiple of its bytes, and the gateway answers others afterwards.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from attacking import Target, metered
from headgate.net.inbound import Inbound
from headgate.net.server import Server

COUNT = "/v1beta/models/MiniMax-M3:countTokens"
GENERATE = "/v1beta/models/MiniMax-M3:generateContent"
CHAT = "/v1/chat/completions"
MODEL = "MiniMax-M3"
MB = 1 << 20


def hi(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **more}


def answered(target: Target) -> bool:
    return target.gateway.post(CHAT, hi()).status_code == 200


def post(
    target: Target, path: str, body: bytes | dict[str, Any], cpu_s: float, mb: float
) -> tuple[int, str]:
    """The status and the text of the answer; its cost is checked."""
    assert answered(target)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with metered(target.pid) as meter:
        answer = target.gateway.post(path, data)
    assert meter.cpu_s < cpu_s, (meter.cpu_s, meter.peak_mb)
    assert meter.peak_mb < mb, (meter.cpu_s, meter.peak_mb)
    assert answered(target)
    return answer.status_code, answer.text


def test_a_count_of_160_000_parts_is_refused_by_its_count(
    target: Callable[..., Target],
) -> None:
    parts = b",".join([b'{"text":"some words of a text"}'] * 160_000)
    body = b'{"contents":[{"role":"user","parts":[' + parts + b"]}]}"
    status, text = post(target(), COUNT, body, cpu_s=2, mb=120)
    assert status == 400
    assert "contents[0].parts" in text and "160000" in text and "100000" in text


def test_20_000_pieces_of_an_assistants_turn_are_joined(target: Callable[..., Target]) -> None:
    pieces = [{"role": "assistant", "content": "a "} for _ in range(20_000)]
    messages = [
        {"role": "user", "content": "hi"},
        *pieces,
        {"role": "user", "content": "say hello"},
    ]
    status, _ = post(target(), CHAT, {"model": MODEL, "messages": messages}, cpu_s=3, mb=100)
    assert status == 200


def test_one_id_twice_among_20_000_is_made_unique(target: Callable[..., Target]) -> None:
    ids = [*(f"c{n}" for n in range(19_999)), "c0"]
    calls = [
        {"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ids
    ]
    results = [{"role": "tool", "tool_call_id": i, "content": ""} for i in ids]
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    messages = [{"role": "user", "content": "hi"}, turn, *results]
    status, _ = post(target(), CHAT, {"model": MODEL, "messages": messages}, cpu_s=3, mb=100)
    assert status == 200


def test_12_000_allowed_tools_are_refused_by_their_count(target: Callable[..., Target]) -> None:
    names = [f"tool_{n}" for n in range(12_000)]
    tools = [{"type": "function", "name": n, "parameters": {}} for n in names]
    chosen = [{"type": "function", "name": n} for n in names]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": chosen}
    running = target()
    body = {"model": MODEL, "input": "hi", "tools": tools, "tool_choice": choice}
    status, text = post(running, "/v1/responses", body, cpu_s=2, mb=60)
    assert (status, "12000" in text, "2048" in text) == (400, True, True)
    body["tools"] = tools[:2000]
    body["tool_choice"] = {**choice, "tools": chosen[:2000]}
    status, _ = post(running, "/v1/responses", body, cpu_s=2, mb=60)
    assert status == 200


EMPTY = {
    "gemini": (GENERATE, b'{"contents":[{"parts":[', b"]}]}"),
    "openai": (CHAT, b'{"model":"MiniMax-M3","messages":[{"role":"user","content":[', b"]}]}"),
    "responses": ("/v1/responses", b'{"model":"MiniMax-M3","input":[', b"]}"),
    "anthropic": (
        "/v1/messages",
        b'{"model":"MiniMax-M3","max_tokens":9,"messages":[{"role":"user","content":[',
        b"]}]}",
    ),
}


@pytest.mark.parametrize("client", EMPTY)
def test_megabytes_of_empty_objects_are_refused_before_they_are_read(
    target: Callable[..., Target], client: str
) -> None:
    path, head, tail = EMPTY[client]
    size = 30 * MB
    body = head + b",".join([b"{}"] * (size // 3)) + tail
    status, text = post(target(), path, body, cpu_s=3, mb=12 * 30 + 64)
    assert status == 400
    assert "JSON values" in text


REPAIRED = {
    "lone halves": b'"' + b"\\ud83d" * (23 * MB // 6) + b'"',
    "halves and line breaks": b'"' + b"\\ud83d\\n" * (23 * MB // 8) + b'"',
    "line breaks and one half": b'"' + b"\\n" * (11 * MB) + b'\\ud83d"',
    "unknown parts": b"["
    + b",".join([b'{"type":"mystery","text":"%s"}' % (b"x" * 530)] * 49_000)
    + b"]",
}


@pytest.mark.long
@pytest.mark.parametrize("client", EMPTY)
@pytest.mark.parametrize("content", REPAIRED)
def test_what_is_repaired_in_megabytes_costs_about_as_much_as_reading_it(
    target: Callable[..., Target], client: str, content: str
) -> None:
    """Before, the halves took 2 to 5 CPU s of the process and the parts 2, in one piece."""
    path, head, _ = EMPTY[client]
    value = REPAIRED[content]
    if client == "gemini":
        body = (
            b'{"contents":[{"parts":'
            + (value if value[:1] == b"[" else b'[{"text":%s}]' % value)
            + b"}]}"
        )
    elif client == "responses":
        body = b'{"model":"MiniMax-M3","input":[{"role":"user","content":%s}]}' % value
    else:
        body = head.removesuffix(b"[") + value + b"}]}"
    read = post(target(), path, body, cpu_s=3, mb=12 * 30 + 64)
    assert read[0] in (200, 400), read


def test_a_long_session_with_a_large_picture_passes(target: Callable[..., Target]) -> None:
    picture = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + "QUJD" * (4 * MB)},
    }
    code = "def f(x: dict[str, list[int]]) -> None: print({x: [1, 2, 3]})\n" * 60
    turns: list[dict[str, Any]] = []
    for n in range(400):
        call = {"name": "read", "arguments": json.dumps({"path": f"src/{n}.py"})}
        made = [{"id": f"call_{n}", "type": "function", "function": call}]
        turns.append({"role": "assistant", "content": "", "tool_calls": made})
        turns.append({"role": "tool", "tool_call_id": f"call_{n}", "content": code})
    body = {
        "model": MODEL,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "see"}, picture]},
            *turns,
            {"role": "user", "content": "say hello"},
        ],
    }
    status, _ = post(target(), CHAT, body, cpu_s=5, mb=12 * 20 + 64)
    assert status == 200


def test_a_number_of_5_000_digits_in_a_schema_is_refused(target: Callable[..., Target]) -> None:
    running = target()
    for number in ("1" * 5000, "9" * 19, "-" * 3, "٣"):
        schema = {"type": "OBJECT", "properties": {"a": {"type": "STRING", "minLength": number}}}
        function = {"name": "f", "parameters": schema}
        turns = [{"role": "user", "parts": [{"text": "hi"}]}]
        body = {"contents": turns, "tools": [{"functionDeclarations": [function]}]}
        status, text = post(running, GENERATE, body, cpu_s=1, mb=30)
        assert status == 400
        assert "minLength" in text


def test_a_tools_name_is_bounded_and_one_in_the_history_is_kept(
    target: Callable[..., Target],
) -> None:
    running, name, id = target(), "n" * 2000, "i" * 5000
    declared = [{"type": "function", "function": {"name": name, "parameters": {}}}]
    status, text = post(running, CHAT, hi(tools=declared), cpu_s=1, mb=30)
    assert status == 400
    assert "tools[0].function.name" in text and "2000" in text and "256" in text
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": "ok"},
    ]
    status, text = post(running, CHAT, {"model": MODEL, "messages": turns}, cpu_s=1, mb=30)
    assert status == 200, text
    assert running.gateway.upstream is not None
    sent = json.loads(running.gateway.upstream.seen[-2].body)["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
    assert len(sent[2]["tool_call_id"]) <= 256


# --- replies ---------------------------------------------------------------------------------------


class Large:
    """An upstream whose reply never ends, within a bound."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),), daemon=True)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = Server(self._handle)
        self.port = await server.listen("127.0.0.1", 0)
        self._ready.set()
        await self._stop.wait()
        await server.drain(0)

    async def _handle(self, inbound: Inbound) -> None:
        await inbound.body()
        inbound.start(200, [("content-type", "text/event-stream")])
        chunk = {"choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]}
        data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        while self.sent < self.size:
            inbound.write(data)
            self.sent += len(data)
            await inbound.drain()
            await asyncio.sleep(0)
        inbound.write(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
        inbound.write(b"data: [DONE]\n\n")
        inbound.end()

    def __enter__(self) -> "Large":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)


@pytest.fixture
def large() -> Iterator[Large]:
    with Large(400 * MB) as upstream:
        yield upstream


def test_a_reply_of_400_megabytes_is_given_up_at_the_bound(
    target: Callable[..., Target], large: Large
) -> None:
    running = target(
        HEADGATE_UPSTREAM_URL=f"http://127.0.0.1:{large.port}",
        HEADGATE_UPSTREAM_KEY="k",
        HEADGATE_UPSTREAM_DIALECT="openai",
    )
    with metered(running.pid) as meter:
        answer = running.gateway.post(CHAT, hi())
    assert answer.status_code == 502
    assert "16777216 characters" in answer.text
    assert meter.peak_mb < 100, meter.peak_mb
    assert meter.cpu_s < 5, meter.cpu_s
    assert large.sent < 100 * MB  # it was asked once, and hung up on
