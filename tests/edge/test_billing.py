"""One row per exchange, whatever happens: the ledger as clients, hang-ups and kills make it."""

import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
from test_gateway import GENERATE, asked, chat, contents, messages, raw

from gateway import Gateway, kill, start, stop
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.reports import UsageReader
from played import USAGE, PlayedUpstream
from waiting import wait_for

# 20 fresh tokens at 0.30, 100 cached at 0.03, 35 out at 1.20 USD a million (models.toml, M2)
COST = 20 * 300 + 100 * 30 + 35 * 1200


@pytest.fixture
def gate(upstream: PlayedUpstream, tmp_path: object) -> Iterator[Gateway]:
    running = start(
        tmp_path / "data",  # type: ignore[operator]
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    running.upstream = upstream
    yield running
    if running.process.poll() is None:
        assert stop(running) == 0
    books = UsageReader(running.data)
    assert books.audit() == []
    books.close()


def rows(gate: Gateway, count: int) -> list[LedgerRow]:
    """The rows so far, once there are as many as expected; never more."""
    books = UsageReader(gate.data)

    def ids() -> list[str]:
        return [r[0] for r in books._all("select request_id from ledger order by seq")]

    wait_for(lambda: len(ids()) >= count and books.intents() == 0)
    found = [books.generation(id) for id in ids()]
    books.close()
    assert len(found) == count
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("tools")),
        ("/v1/responses", {"model": "MiniMax-M2", "input": "tools"}),
        ("/v1/messages", messages("tools")),
        (GENERATE, contents("tools")),
    ],
)
def test_the_end_is_told_only_after_the_row_is_committed(
    gate: Gateway, path: str, body: dict[str, object], stream: bool
) -> None:
    if stream and path == GENERATE:
        path = path.replace("generateContent", "streamGenerateContent?alt=sse")
    elif stream:
        body = {**body, "stream": True}
    reply = gate.post(path, body)
    assert reply.status_code == 200
    (row,) = rows(gate, 1)
    assert row.request_id == reply.headers["x-request-id"]
    assert (row.outcome, row.basis, row.stream) == ("tool_calls", "upstream", stream)
    assert (row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens) == (
        USAGE.input,
        USAGE.cached,
        USAGE.output,
        USAGE.reasoning,
    )
    assert row.cost_nano_usd == COST
    told = gate.get(f"/v1/generations/{row.request_id}", authorization=f"Bearer {gate.key}").json()
    assert (told["cost_nano_usd"], told["cost_usd"]) == (COST, "0.000051")
    mine = gate.get("/v1/key", authorization=f"Bearer {gate.key}").json()
    assert mine["spent_nano"] == COST


def test_another_keys_generation_does_not_exist(gate: Gateway) -> None:
    from headgate.storage.sqlite.database import Store

    store = Store(gate.data)
    _, other = store.create_key("other", now_s=time.time())
    store.close()
    id = gate.post("/v1/chat/completions", chat("hello")).headers["x-request-id"]
    headers = {"authorization": f"Bearer {other}"}
    wait_for(lambda: httpx2.get(f"{gate.url}/v1/key", headers=headers).status_code == 200)
    assert httpx2.get(f"{gate.url}/v1/generations/{id}", headers=headers).status_code == 404


def test_a_session_is_summed(gate: Gateway) -> None:
    for _ in range(3):
        gate.post("/v1/messages", messages("hello"), **{"x-claude-code-session-id": "s-1"})
    told = gate.get("/v1/sessions/s-1", authorization=f"Bearer {gate.key}").json()
    assert (told["requests"], told["output_tokens"]) == (3, 3 * USAGE.output)


@pytest.mark.parametrize(
    ("word", "outcome", "basis", "attempts"),
    [
        ("fail 500", "upstream", "none", 2),
        ("fail 400", "invalid", "none", 1),
        ("break", "upstream", "partial", 1),
        ("cut", "upstream", "partial", 1),
        ("trip", "overloaded", "partial", 1),
    ],
)
def test_a_failure_costs_what_was_relayed_and_nothing_when_nothing_was(
    gate: Gateway, word: str, outcome: str, basis: str, attempts: int
) -> None:
    gate.post("/v1/chat/completions", chat(word, stream=True))
    (row,) = rows(gate, 1)
    assert (row.outcome, row.basis, len(row.attempts)) == (outcome, basis, attempts)
    assert (row.cost_nano_usd == 0) == (basis == "none")
    assert (row.output_tokens == 0) == (basis == "none")


def test_what_is_refused_before_any_upstream_is_asked_is_no_exchange(gate: Gateway) -> None:
    gate.post("/v1/chat/completions", chat("hello", n=2))
    gate.post("/v1/chat/completions", chat("hello", model="none"))
    gate.post("/v1/chat/completions", chat("hello"), authorization="Bearer wrong")
    rows(gate, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("word", "basis"), [("silent 600", "none"), ("held", "partial")])
def test_a_hang_up_is_billed_as_far_as_it_came(
    gate: Gateway, word: str, basis: str, stream: bool
) -> None:
    before = len(gate.upstream.seen)
    sock = raw(gate, "/v1/chat/completions", chat(word, stream=stream))
    seen = asked(gate, before)
    if word == "held":
        wait_for(lambda: seen.held)
        gate.catch_up()
    sock.close()
    (row,) = rows(gate, 1)
    assert (row.outcome, row.basis) == ("client_gone", basis)
    assert (row.output_tokens > 0) == (basis == "partial")


def test_exchanges_of_a_killed_gateway_are_recovered_once(
    gate: Gateway, upstream: PlayedUpstream
) -> None:
    before = len(upstream.seen)
    socks: list[socket.socket] = []
    for i in range(5):
        socks.append(raw(gate, "/v1/chat/completions", chat("held", stream=True)))
        asked(gate, before + i)
    gate.post("/v1/chat/completions", chat("hello"))
    kill(gate)
    again = start(
        gate.data, HEADGATE_UPSTREAM_URL=upstream.url("openai"), HEADGATE_UPSTREAM_KEY="x"
    )
    assert stop(again) == 0
    assert sorted(r.outcome for r in rows(gate, 6)) == ["crashed"] * 5 + ["stop"]
    third = start(
        gate.data, HEADGATE_UPSTREAM_URL=upstream.url("openai"), HEADGATE_UPSTREAM_KEY="x"
    )
    assert stop(third) == 0
    rows(gate, 6)
    for sock in socks:
        sock.close()
