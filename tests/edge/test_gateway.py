"""The whole edge as its clients meet it: a real process, raw requests, a played upstream."""

import gzip
import json
import re
import signal
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
import zstandard
from openai.types.responses import ResponseCompactionItem, ResponseUsage

from gateway import Gateway, start, stop
from headgate.storage.sqlite.database import Store
from played import HELLO, PlayedUpstream, Seen
from waiting import PATIENCE_S, wait_for

M = "MiniMax-M2"
PROMPT_CANARY = "prompt-canary-7261"


def chat(text: str, **fields: object) -> dict[str, object]:
    return {"model": M, "messages": [{"role": "user", "content": text}], **fields}


def messages(text: str, **fields: object) -> dict[str, object]:
    return {"max_tokens": 100, **chat(text, **fields)}


def contents(text: str) -> dict[str, object]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


GENERATE = f"/v1beta/models/{M}:generateContent"
STREAM = f"/v1beta/models/{M}:streamGenerateContent"


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("edge") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
        HEADGATE_BODY_BYTES="200000",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0


@pytest.fixture(scope="module")
def impatient(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with short times, for an upstream that is silent; another would often be late."""
    running = start(
        tmp_path_factory.mktemp("impatient") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
        HEADGATE_KEEPALIVE_S="0.3",
        HEADGATE_TIMEOUTS_FIRST_TOKEN="2",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0


def raw(gate: Gateway, path: str, body: object, method: str = "POST") -> socket.socket:
    """A request over a socket of our own, to be read or dropped as we like."""
    data = json.dumps(body).encode()
    host, port = gate.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), PATIENCE_S)
    sock.sendall(
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {gate.key}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return sock


def asked(gate: Gateway, before: int) -> Seen:
    """The next request that reaches the upstream."""
    assert gate.upstream is not None
    wait_for(lambda: len(gate.upstream.seen) > before)
    return gate.upstream.seen[before]


# hang-ups


@pytest.mark.parametrize("word", ["silent 600", "held"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_upstream_is_left_when_the_client_leaves_and_not_before(
    gate: Gateway, word: str, stream: bool
) -> None:
    before = len(gate.upstream.seen)
    sock = raw(gate, "/v1/chat/completions", chat(word, stream=stream))
    seen = asked(gate, before)
    if word == "held" and stream:
        got = b""
        while b"data:" not in got:
            got += sock.recv(65536)
    else:
        assert gate.post("/v1/chat/completions", chat("hello")).status_code == 200
    assert not seen.left
    sock.close()
    wait_for(lambda: seen.left)  # it would say nothing for ever


def test_a_slow_reader_pauses_the_upstream(gate: Gateway) -> None:
    before = gate.upstream.written
    sock = raw(gate, "/v1/chat/completions", chat("flood 64", stream=True))
    sock.recv(1000)
    still, moved = 0, -1
    while (
        still < 20
    ):  # nobody reads, so in the end nothing moves while the gateway does others' work
        assert gate.post("/v1/chat/completions", chat("fail 400")).status_code == 400
        still = still + 1 if gate.upstream.written == moved else 0
        moved = gate.upstream.written
        assert moved - before < 40 << 20
    assert moved - before > 0
    sock.close()


# silence


@pytest.mark.parametrize(
    ("path", "body", "alive"),
    [
        ("/v1/chat/completions", chat("silent 600", stream=True), b": keepalive\n\n"),
        ("/v1/responses", {"model": M, "input": "silent 600", "stream": True}, b": keepalive\n\n"),
        ("/v1/messages", messages("silent 600", stream=True), b"event: ping\n"),
        (f"{STREAM}?alt=sse", contents("silent 600"), b"\n"),
        (STREAM, contents("silent 600"), b"\n"),
    ],
)
def test_a_silent_stream_is_kept_alive_in_its_protocols_own_way(
    impatient: Gateway, path: str, body: object, alive: bytes
) -> None:
    with raw(impatient, path, body) as sock:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        size = b""
        while not size.endswith(b"\r\n"):
            size += sock.recv(1)
        piece = sock.recv(int(size, 16), socket.MSG_WAITALL)
        assert piece.startswith(alive)
        if alive == b"\n":
            assert piece == b"\n"


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_never_begins_is_a_timeout(impatient: Gateway, stream: bool) -> None:
    reply = impatient.post("/v1/chat/completions", chat("silent 600", stream=stream))
    if stream:  # it was kept alive, so the status was sent
        assert json.loads(reply.text.rpartition("data: ")[2])["error"]["code"] == "timeout"
        assert "[DONE]" not in reply.text
    else:
        assert reply.status_code == 504
        assert reply.json()["error"]["code"] == "timeout"


# credentials


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("hello")),
        ("/v1/responses", {"model": M, "input": "hello"}),
        ("/v1/messages", messages("hello")),
        ("/v1/messages/count_tokens", messages("hello")),
        (GENERATE, contents("hello")),
        (f"/v1beta/models/{M}:countTokens", contents("hello")),
    ],
)
def test_every_door_opens_on_every_path_and_none_without_a_key(
    gate: Gateway, path: str, body: object
) -> None:
    def send(query: str = "", **headers: str) -> httpx2.Response:
        return httpx2.post(gate.url + path + query, json=body, headers=headers)

    for header, value in (
        ("authorization", f"Bearer {gate.key}"),
        ("authorization", f"bearer {gate.key}"),
        ("x-api-key", gate.key),
        ("x-goog-api-key", gate.key),
    ):
        assert send(**{header: value}).status_code == 200
    assert send(**{"x-api-key": gate.key, "authorization": f"Bearer {gate.key}"}).status_code == 200
    in_query = send(f"?key={gate.key}").status_code
    assert in_query == (200 if "models/" in path else 401)
    two = send(**{"x-api-key": gate.key, "authorization": "Bearer other"})
    assert two.status_code == 400
    wrong = gate.key[:-1] + ("a" if gate.key[-1] != "a" else "b")
    bodies = set()
    for key in ("", "hg_live_", wrong, "sk-1", gate.key + "x", "ключ"):
        headers = [("x-api-key", key.encode())] if key else []
        reply = httpx2.post(gate.url + path, json=body, headers=headers)
        assert reply.status_code == 401
        bodies.add(reply.text.replace(reply.headers["x-request-id"], ""))
    assert len(bodies) == 1  # nothing tells why


def test_a_key_is_good_the_moment_it_is_made(gate: Gateway) -> None:
    with closing(Store(gate.data)) as store:
        for n in range(5):
            _, text = store.create_key(f"fresh {n}", now_s=time.time())
            answer = gate.get("/v1/models", authorization=f"Bearer {text}")
            assert answer.status_code == 200


def test_a_revoked_key_is_soon_refused(gate: Gateway) -> None:
    store = Store(gate.data)
    key, text = store.create_key("short-lived", now_s=time.time())

    def status() -> int:
        headers = {"authorization": f"Bearer {text}"}
        return httpx2.get(f"{gate.url}/v1/models", headers=headers).status_code

    wait_for(lambda: status() == 200)
    store.revoke(key.id, now_s=time.time())
    wait_for(lambda: status() == 401)
    store.close()


def test_a_key_for_some_models_opens_only_those(gate: Gateway) -> None:
    store = Store(gate.data)
    _, text = store.create_key("narrow", ("MiniMax-M3",), now_s=time.time())
    headers = {"authorization": f"Bearer {text}"}
    wait_for(lambda: httpx2.get(f"{gate.url}/v1/models", headers=headers).status_code == 200)
    reply = httpx2.post(f"{gate.url}/v1/chat/completions", json=chat("hello"), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "model_not_allowed")
    store.close()


# bad input

BAD = {
    "no JSON": (b"{", 400, "JSON"),
    "not an object": (b"[]", 400, "object"),
    "no model": ({"messages": [{"role": "user", "content": "x"}]}, 400, "model"),
    "no role": (chat("x") | {"messages": [{"content": "x"}]}, 400, "role"),
    "a wrong type": (chat("x", max_tokens="many"), 400, "max_tokens"),
    "a boolean number": (chat("x", max_tokens=True), 400, "max_tokens"),
    "fewer tokens than none": (chat("x", max_tokens=-2), 400, "max_tokens"),
    "too hot": (chat("x", temperature=9), 400, "temperature"),
    "a model twice": (
        b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}',
        400,
        "model",
    ),
    "several replies": (chat("x", n=3), 400, "n"),
    "sound": (chat("x", modalities=["text", "audio"]), 400, "modalities"),
    "an unknown model": (chat("x", model="MiniMax-M9"), 404, "MiniMax-M"),
    "nothing said": (chat(""), 400, "empty"),
    "a large body": (chat("x" * 300_000), 413, "200000 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_with_its_place_and_costs_no_call(gate: Gateway, name: str) -> None:
    body, status, words = BAD[name]
    before = len(gate.upstream.seen)
    reply = gate.post("/v1/chat/completions", body)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert words in f"{error['message']} {error['param']}"
    assert reply.headers["x-request-id"] == reply.headers["request-id"]
    assert reply.headers["x-should-retry"] == "false"
    assert len(gate.upstream.seen) == before


def test_what_is_only_a_hint_is_ignored_and_told(gate: Gateway) -> None:
    body = chat("hello", seed=7, logit_bias={"5": 1}, brand_new_field={"a": 1}, stop=["zzz"])
    reply = gate.post("/v1/chat/completions", body)
    assert reply.status_code == 200
    warnings = reply.headers["x-headgate-warnings"].split(", ")
    assert {"seed", "logit_bias", "stop (emulated)"} <= set(warnings)
    assert b"seed" not in gate.upstream.last.body


def test_an_emulated_stop_sequence_ends_the_reply_and_leaves_the_upstream(gate: Gateway) -> None:
    reply = gate.post("/v1/messages", messages("hello", stop_sequences=["Wör"]))
    assert reply.json()["content"][0]["text"] == HELLO.partition("Wör")[0]
    assert (reply.json()["stop_reason"], reply.json()["stop_sequence"]) == ("stop_sequence", "Wör")


# protocols


def test_gemini_streams_an_array_unless_asked_for_events(gate: Gateway) -> None:
    reply = gate.post(STREAM, contents("hello"))
    assert reply.headers["content-type"].startswith("application/json")
    chunks = reply.json()
    parts = [p["text"] for c in chunks for p in c["candidates"][0]["content"].get("parts", [])]
    assert "".join(parts) == HELLO
    events = gate.post(f"{STREAM}?alt=sse", contents("hello"))
    assert events.headers["content-type"].startswith("text/event-stream")
    assert all(not line or line.startswith("data: ") for line in events.text.split("\n"))
    assert "[DONE]" not in events.text


def test_a_broken_gemini_array_ends_as_one_with_an_error(gate: Gateway) -> None:
    reply = gate.post(STREAM, contents("break"))
    assert "error" in reply.json()[-1]


@pytest.mark.parametrize(
    ("path", "headers", "shape"),
    [
        ("/v1/models", {}, "object"),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, "has_more"),
        ("/v1/models", {"x-goog-api-client": "x"}, "models"),
        ("/v1beta/models", {}, "models"),
        ("/v1/models/MiniMax-M3", {}, "object"),
        ("/v1/models/minimax/MiniMax-M3", {}, "object"),
        ("/v1/models/minimax%2FMiniMax-M3", {}, "object"),
        ("/v1/models/minimax-m3", {"anthropic-version": "2023-06-01"}, "display_name"),
        ("/v1beta/models/MiniMax-M3", {}, "inputTokenLimit"),
    ],
)
def test_models_come_in_the_callers_shape(
    gate: Gateway, path: str, headers: dict[str, str], shape: str
) -> None:
    reply = gate.get(path, authorization=f"Bearer {gate.key}", **headers)
    assert reply.status_code == 200
    assert shape in reply.json()


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/..%2f..%2fetc:generateContent",
        "/v1beta/models/a%00:generateContent",
        "/v1beta/models//:generateContent",
        "/v1beta/models/a;b:generateContent",
        "/v1beta/models/%252e:generateContent",
        "//v1beta/models//:generateContent",
        "/v1//chat/completions",
        "/anthropic/../v1/messages",
        "/anthropic/v1/console",
        "/V1/chat/completions",
        "/v1/./chat/completions",
        "/console",
        "/v1",
    ],
)
def test_what_is_not_in_the_table_of_routes_is_nowhere(gate: Gateway, path: str) -> None:
    host, port = gate.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        ask = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {gate.key}\r\n"
        sock.sendall(f"{ask}Content-Length: 2\r\n\r\n{{}}".encode())
        assert sock.recv(65536).startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))


def test_public_pages_need_no_key_and_the_wrong_method_is_told(gate: Gateway) -> None:
    for path in ("/", "/livez", "/readyz", "/metrics", "/api/hello"):
        assert gate.get(path).status_code == 200
        assert httpx2.head(gate.url + path).status_code == 200
    assert gate.get("/v1/chat/completions").status_code == 405
    assert gate.post("/v1/models", {}).status_code == 405


def test_users_who_put_v1_into_the_wrong_place_are_served_or_told(gate: Gateway) -> None:
    for path in ("/v1/v1/messages", "/messages", "/v1/messages/"):
        assert gate.post(path, messages("hello")).json()["type"] == "message"
    for path in ("/chat/completions", "/v1/chat/completions/", "/v1/v1/chat/completions"):
        assert gate.post(path, chat("hello")).json()["object"] == "chat.completion"
    asked = {"model": "MiniMax-M2", "input": "hello"}
    for path in ("/responses", "/v1/responses/", "/responses/"):
        assert gate.post(path, asked).json()["object"] == "response"
    for path in ("/messages/count_tokens", "/v1/messages/count_tokens/"):
        assert gate.post(path, messages("hello")).json()["input_tokens"] > 0
    # A slash too many at the end of a base URL, or the part of another vendor's that stands before /v1.
    for path in ("//v1/messages", "/anthropic/v1/messages", "/anthropic/v1/messages/"):
        assert gate.post(path, messages("hello")).json()["type"] == "message"
    for path in ("/openai/v1/chat/completions", "/api/v1/chat/completions"):
        assert gate.post(path, chat("hello")).json()["object"] == "chat.completion"
    assert "candidates" in gate.post(f"{GENERATE}/", {"contents": "hello"}).json()
    for path in ("//v1/models", "/api/v1/models", "/v1/models/"):
        listed = gate.get(path, authorization=f"Bearer {gate.key}")
        assert listed.json()["object"] == "list"
    lost = gate.post("/api/v2/v1/messages", messages("hello"))
    assert "/v1/messages" in lost.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "place", "word"),
    [
        ("/v1/chat/completions", ("error", "code"), "unsupported_media_type"),
        ("/chat/completions", ("error", "code"), "unsupported_media_type"),
        ("/v1/responses", ("error", "code"), "unsupported_media_type"),
        ("/messages", ("error", "type"), "invalid_request_error"),
        (GENERATE, ("error", "status"), "INVALID_ARGUMENT"),
    ],
)
@pytest.mark.parametrize("coding", ["br", "compress", "gzip, br"])
def test_a_coding_that_is_not_read_is_refused_with_those_that_are(
    gate: Gateway, path: str, place: tuple[str, str], word: str, coding: str
) -> None:
    reply = gate.post(path, b"\x0b\x02\x80{}\x03", **{"content-encoding": coding})
    assert reply.status_code == 415
    assert reply.headers["accept-encoding"] == "deflate, gzip, zstd"
    page = reply.json()
    assert page[place[0]][place[1]] == word
    assert "deflate, gzip, zstd" in page["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/responses", "/responses/", "/v1/chat/completions"])
def test_a_client_that_wants_a_websocket_is_sent_on_to_post(gate: Gateway, path: str) -> None:
    reply = gate.get(
        path,
        upgrade="websocket",
        connection="Upgrade",
        **{"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-version": "13"},
    )
    assert (reply.status_code, reply.headers["upgrade"]) == (426, "HTTP/1.1")
    assert "POST" in reply.json()["error"]["message"]


def test_a_conversation_is_compacted_and_goes_on_from_its_summary(gate: Gateway) -> None:
    items = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hi."}]
    made = gate.post("/v1/responses/compact", {"model": "MiniMax-M2", "input": items})
    assert made.status_code == 200, made.text
    output = made.json()["output"]
    assert [item["type"] for item in output] == ["message", "compaction"]
    assert ResponseCompactionItem.model_validate(output[1]).encrypted_content
    assert ResponseUsage.model_validate(made.json()["usage"]).total_tokens > 0
    assert gate.upstream is not None and b"Summarize" in gate.upstream.last.body
    more = [*made.json()["output"], {"role": "user", "content": "hello"}]
    reply = gate.post("/v1/responses", {"model": "MiniMax-M2", "input": more})
    assert reply.status_code == 200
    assert "x-headgate-warnings" not in reply.headers
    assert b"Summary of the conversation so far" in gate.upstream.last.body


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_compressed_request_is_served(gate: Gateway, coding: str) -> None:
    body = json.dumps(chat("hello")).encode()
    sent = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}[coding](
        body
    )
    reply = gate.post("/v1/chat/completions", sent, **{"content-encoding": coding})
    assert reply.json()["object"] == "chat.completion"


# retries and routes


@pytest.mark.parametrize(
    ("word", "calls"),
    [("fail 500", 2), ("fail 400", 1), ("trip", 1)],
)
def test_only_what_may_pass_is_tried_twice_and_nothing_after_a_byte(
    gate: Gateway, word: str, calls: int
) -> None:
    before = len(gate.upstream.seen)
    gate.post("/v1/chat/completions", chat(word, stream=True))
    assert len(gate.upstream.seen) - before == calls


@pytest.mark.parametrize(
    ("word", "model"), [("fail 529", "MiniMax-M2.1"), ("fail 429", "MiniMax-M2.5")]
)
def test_an_upstream_that_says_for_how_long_is_not_asked_again_before(
    gate: Gateway, word: str, model: str
) -> None:
    """It says seven seconds; other models of it are asked meanwhile."""
    before = len(gate.upstream.seen)
    for _ in range(3):
        refused = gate.post("/v1/chat/completions", chat(word, model=model))
        assert refused.status_code in (429, 503)
        assert 1 <= int(refused.headers["retry-after"]) <= 7
    assert len(gate.upstream.seen) - before == 1
    assert gate.post("/v1/chat/completions", chat("hello")).status_code == 200


def test_another_upstream_answers_when_the_first_cannot_be_reached(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    config = tmp_path / "headgate.toml"
    config.write_text(
        f'[upstreams.down]\npreset = "vllm"\nbase_url = "http://127.0.0.1:{closed}/v1"\n'
        f'[upstreams.up]\npreset = "anthropic"\nbase_url = "{upstream.url("anthropic")}"\n'
        'key = "env:UP_KEY"\n[aliases]\n"claude-sonnet-*" = "MiniMax-M2"\n'
    )
    gate = start(tmp_path / "data", "--config", str(config), UP_KEY="k2")
    try:
        reply = gate.post("/v1/messages", messages("hello", model="claude-sonnet-4-5"))
        assert reply.json()["content"][0]["text"] == HELLO
        assert reply.headers["x-headgate-upstream"] == "up/MiniMax-M2"
        assert upstream.last.headers["x-api-key"] == "k2"
        page = gate.get("/metrics").text
        assert 'headgate_upstream_errors_total{kind="upstream",upstream="down"} 1.0' in page
    finally:
        stop(gate)


def test_the_names_that_agents_choose_by_themselves_are_answered(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    gate = start(  # of its own, as failures in other tests pause models of the shared one
        tmp_path / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
    )
    for path, body in (
        ("/v1/messages", messages("hello", model="claude-opus-5-5")),
        ("/v1/chat/completions", chat("hello", model="gpt-5-mini")),
        ("/v1/responses", {"model": "gpt-6-sol", "input": "hello"}),
        (
            "/v1beta/models/gemini-3.5-flash-lite:generateContent",
            {"contents": [{"parts": [{"text": "hello"}]}]},
        ),
    ):
        reply = gate.post(path, body)
        assert reply.status_code == 200, reply.text
        assert HELLO.split()[0] in reply.text
    unknown = gate.post("/v1/chat/completions", chat("hello", model="llama-4"))
    assert unknown.status_code == 404 and "The models here: MiniMax-M3" in unknown.text
    assert stop(gate) == 0


def test_nothing_of_the_client_but_the_request_reaches_the_upstream(gate: Gateway) -> None:
    gate.post("/v1/chat/completions", chat("hello"), **{"x-evil": "1", "cookie": "c=1"})
    headers = gate.upstream.last.headers
    assert headers["authorization"] == "Bearer upstream-secret"
    assert set(headers) == {
        "host",
        "content-length",
        "accept-encoding",
        "connection",
        "content-type",
        "accept",
        "user-agent",
        "authorization",
    }


# books, signals


def test_the_log_and_the_metrics_tell_of_an_exchange_and_hold_no_secret(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    gate = start(
        tmp_path / "data",
        "--log",
        "debug",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
    )
    gate.post("/v1/chat/completions", chat(f"hello {PROMPT_CANARY}"))
    gate.post("/v1/chat/completions", chat(f"tools {PROMPT_CANARY}", stream=True))
    gate.post("/v1/chat/completions", chat(f"fail 500 {PROMPT_CANARY}"))
    gate.post(f"{GENERATE}?key={gate.key}x", contents(PROMPT_CANARY))
    page = gate.get("/metrics").text
    ended = 'headgate_requests_total{dialect="openai",model="MiniMax-M2",outcome="%s"} 1.0'
    assert ended % "stop" in page
    assert ended % "tool_calls" in page
    none = 'headgate_requests_total{dialect="%s",model="%s",outcome="%s"} 0.0'
    for dialect in ("openai", "responses", "anthropic", "gemini"):
        assert none % (dialect, "MiniMax-M3", "internal") in page
        assert none % (dialect, "", "overloaded") in page
    assert re.search(r'headgate_tokens_total\{kind="output",.*\} 70.0', page)
    assert "headgate_open_streams 0.0" in page
    assert "headgate_loop_lag_seconds" in page
    assert "headgate_first_token_seconds_bucket" in page
    assert "headgate_chunk_gap_seconds_bucket" in page
    stop(gate)
    log = (tmp_path / "data.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    ends = [line for line in lines if line["event"] == "exchange"]
    assert [line["outcome"] for line in ends] == ["stop", "tool_calls", "upstream"]
    assert ends[1]["input_tokens"] == 120
    assert {line["client"] for line in ends} == {"127.0.0.1"}
    for secret in (gate.key, "upstream-secret", PROMPT_CANARY, HELLO[:12], "get_weather"):
        assert secret not in log
        assert secret not in page


def refuses(gate: Gateway) -> bool:
    """Whether the gateway takes no new requests any more: it stops."""
    try:
        return gate.get("/livez").status_code != 200
    except httpx2.HTTPError:
        return True


def test_a_stream_that_runs_when_the_gateway_is_told_to_stop_is_finished(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    gate = start(
        tmp_path / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    got: list[str] = []
    url, headers = f"{gate.url}/v1/chat/completions", {"authorization": f"Bearer {gate.key}"}

    def read() -> None:
        got.append(httpx2.post(url, json=chat("held", stream=True), headers=headers).text)

    before = len(upstream.seen)
    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: len(upstream.seen) > before and upstream.seen[before].held)
    gate.process.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses(gate))
    upstream.release(upstream.seen[before])
    assert gate.process.wait(PATIENCE_S) == 0
    reader.join(PATIENCE_S)
    assert got[0].endswith("data: [DONE]\n\n")
    with pytest.raises(httpx2.ConnectError):
        gate.get("/livez")


# structured output that the upstream does not enforce


def test_a_structured_reply_that_is_not_valid_is_asked_for_again_and_else_marked(
    gate: Gateway,
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    for word, text, warned, calls in (
        ("json fenced", '{"n": 3}', False, 1),
        ("json late", '{"n": 4}', False, 2),
        ("json never", '{"n": "x"}', True, 2),
    ):
        before = len(gate.upstream.seen)
        reply = gate.post("/v1/chat/completions", chat(word, response_format=format))
        assert reply.json()["choices"][0]["message"]["content"] == text
        assert ("response_format (not valid)" in reply.headers["x-headgate-warnings"]) == warned
        assert len(gate.upstream.seen) - before == calls
        usage = reply.json()["usage"]
        assert usage["prompt_tokens"] == 120 * calls


def test_a_schema_that_can_judge_nothing_is_refused_before_any_call(gate: Gateway) -> None:
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "nonsense"}}}
    before = len(gate.upstream.seen)
    reply = gate.post("/v1/chat/completions", chat("hello", response_format=format))
    assert (reply.status_code, len(gate.upstream.seen)) == (400, before)


def test_a_call_that_the_model_wrote_as_text_becomes_one(gate: Gateway) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"days": {"type": "integer"}}},
        },
    }
    for stream in (False, True):
        body = chat("rawcall", tools=[tool], stream=stream)
        reply = gate.post(
            "/v1/messages",
            {
                "max_tokens": 99,
                **body,
                "tools": [{"name": "get_weather", "input_schema": tool["function"]["parameters"]}],
            },
        )
        assert "minimax:tool_call" not in reply.text
        assert "tool_use" in reply.text
        assert '"days":3' in reply.text.replace(" ", "").replace("\\", "")
