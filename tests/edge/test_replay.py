"""Idempotency-Key and hang-ups that drain, as clients meet them: a real process, a played upstream."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from test_gateway import GENERATE, STREAM, asked, chat, contents, messages, refuses

from gateway import Gateway, kill, start, stop
from headgate.edge.replay import free
from headgate.storage.rows import AttemptRecord, LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import PATIENCE_S, wait_for

M = "MiniMax-M2"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


def begin(upstream: PlayedUpstream, data: Path, **env: str) -> Gateway:
    running = start(
        data,
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
        **env,
    )
    running.upstream = upstream
    return running


def audited(gate: Gateway) -> None:
    books = UsageReader(gate.data)
    assert books.audit() == []
    assert books.intents() == 0
    books.close()


@pytest.fixture(scope="module")
def shared(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = begin(upstream, tmp_path_factory.mktemp("replay") / "data")
    yield running
    assert stop(running) == 0
    audited(running)


@pytest.fixture
def gate(shared: Gateway) -> Iterator[Gateway]:
    """With a key of its own, whose Idempotency-Keys are therefore new."""
    yield with_key(shared)


def with_key(gate: Gateway, **terms: Any) -> Gateway:
    store = Store(gate.data)
    _, text = store.create_key("own", now_s=time.time(), **terms)
    store.close()
    mine = msgspec.structs.replace(gate, key=text)
    headers = {"authorization": f"Bearer {text}"}
    wait_for(lambda: mine.get("/v1/key", **headers).status_code == 200)
    return mine


def rows(gate: Gateway, count: int) -> list[LedgerRow]:
    """The rows of this key, once there are as many as expected; never more."""
    id = gate.key.removeprefix("hg_live_")[:8]
    books = UsageReader(gate.data)

    def ids() -> list[str]:
        return [
            r[0]
            for r in books._all(
                "select request_id from ledger where key_id = ? order by seq", (id,)
            )
        ]

    wait_for(lambda: len(ids()) >= count and books.intents() == 0)
    found = [books.generation(id) for id in ids()]
    books.close()
    assert len(found) == count
    return found  # type: ignore[return-value]


def ask(gate: Gateway, path: str, body: object, key: str = "k-1") -> httpx2.Response:
    return gate.post(path, body, **{"idempotency-key": key})


def hang_up_later(gate: Gateway, body: object, key: str | None) -> socket.socket:
    """A request in flight, whose client can leave whenever we like."""
    data = json.dumps(body).encode()
    host, port = gate.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), PATIENCE_S)
    line = f"Idempotency-Key: {key}\r\n" if key else ""
    sock.sendall(
        f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {gate.key}\r\n{line}"
        f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return sock


ALL = [
    (CHAT, chat("think")),
    (CHAT, chat("tools", stream=True, stream_options={"include_usage": True})),
    (MESSAGES, messages("tools")),
    (MESSAGES, messages("think", stream=True)),
    (RESPONSES, {"model": M, "input": "think"}),
    (RESPONSES, {"model": M, "input": "tools", "stream": True}),
    (GENERATE, contents("tools")),
    (STREAM + "?alt=sse", contents("think")),
    (STREAM, contents("tools")),
]


def test_every_protocol_streamed_or_whole_is_replayed_byte_for_byte_at_no_charge(
    gate: Gateway,
) -> None:
    before = len(gate.upstream.seen)
    for n, (path, body) in enumerate(ALL):
        first = ask(gate, path, body, f"k-{n}")
        second = ask(gate, path, body, f"k-{n}")
        assert first.status_code == second.status_code == 200
        assert second.content == first.content
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        for name in ("content-type", "x-request-id", "request-id", "x-headgate-upstream"):
            assert second.headers[name] == first.headers[name]
        assert ("content-length" in first.headers) == ("content-length" in second.headers)
    assert len(gate.upstream.seen) - before == len(ALL)
    found = rows(gate, len(ALL))
    mine = gate.get("/v1/key", authorization=f"Bearer {gate.key}").json()
    assert mine["spent_nano"] == sum(r.cost_nano_usd or 0 for r in found)
    wait_for(lambda: gate.metric("headgate_open_streams") == 0)


def test_of_20_parallel_duplicates_one_reaches_the_upstream(gate: Gateway) -> None:
    before = len(gate.upstream.seen)
    body = chat("slow 0.01", stream=True)
    replies: list[httpx2.Response] = []
    threads = [
        threading.Thread(target=lambda: replies.append(ask(gate, CHAT, body))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [r for r in replies if r.status_code == 409]
    answered = [r for r in replies if r.status_code == 200]
    assert len(answered) + len(refused) == 20 and answered
    assert len({r.content for r in answered}) == 1
    assert {r.headers["retry-after"] for r in refused} <= {"1"}
    assert {r.headers["x-should-retry"] for r in refused} <= {"true"}
    assert len(gate.upstream.seen) - before == 1
    rows(gate, 1)


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        (CHAT, chat("hello"), chat("bye")),
        (MESSAGES, messages("hello"), messages("hello", stream=True)),
        (RESPONSES, {"model": M, "input": "hello"}, {"model": M, "input": "bye"}),
        (GENERATE, contents("hello"), contents("bye")),
    ],
)
def test_another_body_under_the_same_key_is_a_422(
    gate: Gateway, path: str, body: object, other: object
) -> None:
    assert ask(gate, path, body).status_code == 200
    refused = ask(gate, path, other)
    assert refused.status_code == 422
    assert refused.headers["x-should-retry"] == "false"
    assert "Idempotency-Key" in refused.text
    assert ask(gate, path, body).headers["idempotent-replayed"] == "true"
    rows(gate, 1)


def test_what_was_refused_before_the_upstream_leaves_the_key_free(gate: Gateway) -> None:
    assert ask(gate, CHAT, chat("hello", n=2)).status_code == 400
    assert ask(gate, CHAT, chat("hello", model="none")).status_code == 404
    assert ask(gate, CHAT, chat("hello")).status_code == 200
    assert ask(gate, CHAT, chat("hello"), "two words").status_code == 400


@pytest.mark.parametrize(
    ("outcome", "attempts", "is_free"),
    [
        ("shutdown", 0, True),
        ("shutdown", 1, False),
        ("client_gone", 0, False),
        ("upstream", 1, True),
    ],
)
def test_a_key_of_a_request_that_a_shutdown_ended_is_free_if_no_upstream_was_asked(
    outcome: str, attempts: int, is_free: bool
) -> None:
    attempt = AttemptRecord("custom", M, outcome, "", 5)
    row = LedgerRow(
        request_id="a",
        account="",
        key_id="k",
        session="",
        dialect="openai",
        model=M,
        upstream="custom",
        upstream_model=M,
        stream=True,
        outcome=outcome,
        basis="none",
        status=503,
        started_at=1.0,
        ended_at=1.0 + 0.005,
        ttft_ms=None,
        input_tokens=0,
        cached_tokens=0,
        cache_write_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        cost_nano_usd=0,
        price_version="",
        service_tier="",
        attempts=(attempt,) * attempts,
        warnings=(),
    )
    assert free(row) == is_free


def test_a_failure_that_cost_nothing_is_tried_again_and_is_a_row_of_its_own(gate: Gateway) -> None:
    for n in range(10):  # more than are looked up at once
        failed = ask(gate, CHAT, chat("fail 500"))
        assert failed.status_code == 502
        for m in range(3):  # so that the route is well all the same
            assert ask(gate, CHAT, chat("hello"), f"other-{n}-{m}").status_code == 200
        assert "idempotent-replayed" not in failed.headers
    found = [r for r in rows(gate, 40) if r.outcome == "upstream"]
    assert len({r.request_id for r in found}) == 10
    assert {r.cost_nano_usd for r in found} == {0}


@pytest.mark.parametrize(
    ("word", "stream", "status"),
    [("cut", False, 502), ("break", False, 502), ("cut", True, 200)],
)
def test_a_failure_that_may_have_been_billed_is_replayed_and_not_to_be_retried(
    gate: Gateway, word: str, stream: bool, status: int
) -> None:
    before = len(gate.upstream.seen)
    first = ask(gate, CHAT, chat(word, stream=stream))
    again = ask(gate, CHAT, chat(word, stream=stream))
    assert first.status_code == again.status_code == status
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    if not stream:
        assert first.headers["x-should-retry"] == again.headers["x-should-retry"] == "false"
    assert len(gate.upstream.seen) - before == 1


def test_a_timeout_is_replayed_and_not_to_be_retried(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    gate = begin(upstream, tmp_path / "data", HEADGATE_TIMEOUTS_FIRST_TOKEN="0.5")
    before = len(upstream.seen)
    first, again = (ask(gate, CHAT, chat("silent 600")) for _ in range(2))
    assert first.status_code == again.status_code == 504
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert first.headers["x-should-retry"] == again.headers["x-should-retry"] == "false"
    assert len(upstream.seen) - before == 1
    assert stop(gate) == 0
    audited(gate)


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_with_a_key_finds_the_whole_reply(gate: Gateway, stream: bool) -> None:
    before = len(gate.upstream.seen)
    body = chat("held", stream=stream)
    sock = hang_up_later(gate, body, "k-1")
    seen = asked(gate, before)
    sock.close()
    gate.catch_up()
    gate.upstream.release(seen)
    (row,) = rows(gate, 1)
    assert (row.outcome, row.basis, seen.left) == ("stop", "upstream", False)
    again = ask(gate, CHAT, body)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] == row.request_id
    assert again.text.count("x" * 5) >= 80 if stream else "x" * 400 in again.text
    assert len(gate.upstream.seen) - before == 1


@pytest.mark.parametrize(("terms", "outcome"), [("drain", "stop"), ("cancel", "client_gone")])
def test_a_hang_up_drains_or_cancels_as_the_key_says(
    gate: Gateway, terms: str, outcome: str
) -> None:
    gate = with_key(gate, on_disconnect=terms)
    before = len(gate.upstream.seen)
    sock = hang_up_later(gate, chat("held", stream=True), None)
    seen = asked(gate, before)
    sock.recv(1000)
    sock.close()
    if terms == "drain":
        gate.catch_up()
        gate.upstream.release(seen)
    (row,) = rows(gate, 1)
    assert row.outcome == outcome
    wait_for(lambda: seen.left == (terms == "cancel"))


def test_a_key_that_was_running_when_the_gateway_was_killed_is_not_run_twice(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    gate = begin(upstream, tmp_path / "data")
    body = chat("held", stream=True)
    done = ask(gate, CHAT, chat("hello"), "done")
    assert ask(gate, CHAT, chat("fail 500"), "free").status_code == 502
    before = len(gate.upstream.seen)
    sock = hang_up_later(gate, body, "k-1")
    asked(gate, before)
    kill(gate)
    sock.close()
    again = begin(upstream, gate.data)
    again.key = gate.key
    try:
        asked_then = len(gate.upstream.seen)
        for path, same in ((CHAT, body), (CHAT, chat("something else"))):
            refused = ask(again, path, same)
            assert refused.status_code == 409
            assert refused.headers["x-should-retry"] == "false"
            assert refused.json()["error"]["code"] == "indeterminate"
        gone = ask(again, CHAT, chat("hello"), "done")
        assert (gone.status_code, gone.json()["error"]["code"]) == (409, "reply_not_kept")
        assert done.headers["x-request-id"] in gone.text
        assert len(gate.upstream.seen) == asked_then
        assert ask(again, CHAT, chat("hello"), "free").status_code == 200
        assert ask(again, CHAT, chat("hello", stream=True), "k-2").status_code == 200
    finally:
        assert stop(again) == 0
    outcomes = sorted(r.outcome for r in rows(gate, 5))
    assert outcomes == ["crashed", "stop", "stop", "stop", "upstream"]
    audited(gate)


def test_another_keys_idempotency_key_is_its_own(gate: Gateway) -> None:
    mine = ask(gate, CHAT, chat("hello"))
    theirs = ask(with_key(gate), CHAT, chat("bye"))
    assert theirs.status_code == 200
    assert theirs.headers["x-request-id"] != mine.headers["x-request-id"]


def test_a_reply_too_large_to_keep_is_not_run_again(gate: Gateway) -> None:
    before = len(gate.upstream.seen)
    assert ask(gate, CHAT, chat("flood 2", stream=True)).status_code == 200
    again = ask(gate, CHAT, chat("flood 2", stream=True))
    assert (again.status_code, again.json()["error"]["code"]) == (409, "reply_not_kept")
    assert ask(gate, CHAT, chat("flood 3", stream=True)).status_code == 422
    assert len(gate.upstream.seen) - before == 1


def test_a_stopping_gateway_hears_an_exchange_to_its_end_whose_client_left(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    gate = begin(upstream, tmp_path / "data")
    before = len(upstream.seen)
    sock = hang_up_later(gate, chat("held", stream=True), "k-1")
    seen = asked(gate, before)
    sock.close()
    gate.process.terminate()
    wait_for(lambda: refuses(gate))
    upstream.release(seen)
    assert gate.process.wait(PATIENCE_S) == 0
    (row,) = rows(gate, 1)
    assert (row.outcome, row.basis) == ("stop", "upstream")
    audited(gate)
