"""Upstreams that rest or have no room, what a reply cost in its own last words, and who kept reasoning."""

import json
import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway import Gateway, start, stop
from played import HELLO, PlayedUpstream

M = "MiniMax-M2"
Begin = Callable[..., Gateway]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts a gateway with a headgate.toml."""
    running: list[Gateway] = []

    def started(config: str) -> Gateway:
        file = tmp_path / "headgate.toml"
        file.write_text(config)
        running.append(start(tmp_path / "data", "--config", str(file), UP_KEY="k"))
        return running[-1]

    yield started
    for gate in running:
        assert stop(gate) == 0


def table(name: str, url: str, more: str = "") -> str:
    return (
        f'[upstreams.{name}]\npreset = "openai"\nbase_url = "{url}"\nkey = "env:UP_KEY"\n{more}\n'
    )


def chat(text: str, **fields: object) -> dict[str, object]:
    return {"model": M, "messages": [{"role": "user", "content": text}], **fields}


def test_an_upstream_that_cannot_be_reached_is_asked_no_more_for_a_while(
    begin: Begin, upstream: PlayedUpstream
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    gate = begin(table("down", down) + table("up", upstream.url("openai")))
    for _ in range(12):
        reply = gate.post("/v1/chat/completions", chat("hello"))
        assert reply.headers["x-headgate-upstream"] == f"up/{M}"
    errors = gate.metric('headgate_upstream_errors_total{kind="upstream",upstream="down"}')
    assert errors == 5


def test_the_only_upstream_is_not_asked_while_its_breaker_is_open(
    begin: Begin, upstream: PlayedUpstream
) -> None:
    gate = begin(table("up", upstream.url("openai")) + "[retry]\nattempts = 1\n")
    for _ in range(5):
        assert gate.post("/v1/chat/completions", chat("fail 500")).status_code == 502
    seen = len(upstream.seen)
    refused = gate.post("/v1/chat/completions", chat("hello"))
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-should-retry"] == "true"
    assert refused.json()["error"]["code"] == "upstream_paused"
    assert len(upstream.seen) == seen


def test_a_request_beyond_the_upstreams_limit_is_refused_before_it_is_sent(
    begin: Begin, upstream: PlayedUpstream
) -> None:
    gate = begin(table("up", upstream.url("openai"), "rpm = 2") + "[timeouts]\npace = 0.05\n")
    for _ in range(2):
        assert gate.post("/v1/chat/completions", chat("hello")).status_code == 200
    sent = len(upstream.seen)
    refused = gate.post("/v1/messages", {**chat("hello"), "max_tokens": 9})
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-should-retry"] == "true"
    assert len(upstream.seen) == sent
    row = gate.get(
        f"/v1/generations/{refused.headers['request-id']}", authorization=f"Bearer {gate.key}"
    ).json()
    assert (row["outcome"], row["cost_nano_usd"], row["attempts"]) == ("rate_limit", 0, [])


def test_where_another_upstream_has_room_the_request_goes_there_at_once(
    begin: Begin, upstream: PlayedUpstream
) -> None:
    gate = begin(
        table("small", upstream.url("openai"), "rpm = 1") + table("large", upstream.url("openai"))
    )
    served = [
        gate.post("/v1/chat/completions", chat("hello")).headers["x-headgate-upstream"]
        for _ in range(3)
    ]
    assert served == [f"small/{M}", f"large/{M}", f"large/{M}"]


def events(text: str) -> list[Any]:
    return [
        json.loads(line[5:])
        for line in text.splitlines()
        if line.startswith("data:") and line != "data: [DONE]"
    ]


def told(name: str, gate: Gateway, stream: bool) -> tuple[Any, str]:
    """The cost in a reply's usage, and the request's id."""
    match name:
        case "openai":
            options = {"stream_options": {"include_usage": True}} if stream else {}
            r = gate.post("/v1/chat/completions", chat("hello", stream=stream, **options))
            usage = (events(r.text)[-1] if stream else r.json())["usage"]
        case "responses":
            r = gate.post("/v1/responses", {"model": M, "input": "hello", "stream": stream})
            usage = (events(r.text)[-1]["response"] if stream else r.json())["usage"]
        case "anthropic":
            r = gate.post("/v1/messages", {**chat("hello", stream=stream), "max_tokens": 99})
            usage = (events(r.text)[-2] if stream else r.json())["usage"]
        case _:
            method = "streamGenerateContent?alt=sse" if stream else "generateContent"
            r = gate.post(
                f"/v1beta/models/{M}:{method}", {"contents": [{"parts": [{"text": "hello"}]}]}
            )
            usage = (events(r.text)[-1] if stream else r.json())["usageMetadata"]
    assert HELLO[:5] in r.text
    return usage["cost"], r.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ["openai", "responses", "anthropic", "gemini"])
def test_a_reply_tells_what_it_cost_as_the_ledger_does(
    name: str, stream: bool, gateway: Gateway
) -> None:
    cost, id = told(name, gateway, stream)
    row = gateway.get(f"/v1/generations/{id}", authorization=f"Bearer {gateway.key}").json()
    assert row["cost_nano_usd"] > 0
    assert Decimal(str(cost)) * 10**9 == row["cost_nano_usd"]


def test_the_request_tells_which_layer_gave_the_reasoning_back(gateway: Gateway) -> None:
    def warnings(answer: Any) -> list[str]:
        id = answer.headers["x-request-id"]
        row = gateway.get(f"/v1/generations/{id}", authorization=f"Bearer {gateway.key}").json()
        return [w for w in row["warnings"] if w.startswith("reasoning")]

    asked = chat("think now")
    first = gateway.post("/v1/chat/completions", asked)
    said = first.json()["choices"][0]["message"]["content"]
    history = [*asked["messages"], {"role": "assistant", "content": said}]  # type: ignore[misc]
    again = {"model": M, "messages": [*history, {"role": "user", "content": "hello"}]}
    assert warnings(first) == []
    assert warnings(gateway.post("/v1/chat/completions", again)) == ["reasoning (remembered)"]

    opened = {"type": "enabled", "budget_tokens": 1024}
    body = {**chat("think twice"), "max_tokens": 2048, "thinking": opened}
    turn = gateway.post("/v1/messages", body)
    content = turn.json()["content"]
    assert content[0]["signature"]
    body["messages"] = [
        *body["messages"],  # type: ignore[misc]
        {"role": "assistant", "content": content},
        {"role": "user", "content": "hello"},
    ]
    assert warnings(gateway.post("/v1/messages", body)) == ["reasoning (sealed)"]
