"""The first token of a reply, as the ledger has it: the upstream's, however the client gets the reply."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from test_gateway import chat

from gateway import Gateway, start, stop
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import pause_thread, wait_for

HELD_MS = 300


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("first") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0


def row(gate: Gateway, reply: httpx2.Response) -> LedgerRow:
    """The row of the request that was answered so."""
    return row_of(gate.data, reply.headers["x-request-id"])


def row_of(data: Path, id: str) -> LedgerRow:
    books = UsageReader(data)
    found: list[LedgerRow | None] = []

    def there() -> bool:
        found.append(books.generation(id))
        return found[-1] is not None

    wait_for(there)
    books.close()
    assert found[-1] is not None
    return found[-1]


def revive(gate: Gateway) -> None:
    """Let the upstream answer, so that failures do not pause it."""
    for _ in range(4):  # half of twenty within ten seconds would be enough
        assert gate.post("/v1/chat/completions", chat("hello")).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_token_is_the_upstreams_also_of_a_whole_reply(
    gate: Gateway, stream: bool
) -> None:
    upstream = gate.upstream
    assert upstream is not None
    first_tokens = 'headgate_first_token_seconds_count{model="MiniMax-M2",upstream="custom"}'
    before = gate.metric(first_tokens)
    asked = len(upstream.seen)
    replies: list[httpx2.Response] = []
    client = threading.Thread(
        target=lambda: replies.append(
            gate.post("/v1/chat/completions", chat("held", stream=stream))
        )
    )
    client.start()
    wait_for(lambda: len(upstream.seen) > asked and upstream.last.held)
    wait_for(lambda: gate.metric(first_tokens) == before + 1)
    pause_thread(HELD_MS / 1000, "the model thinks after its first token")
    upstream.release(upstream.last)
    client.join()
    found = row(gate, replies[0])
    assert found.ttft_ms is not None
    assert found.ttft_ms + HELD_MS <= found.total_ms


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("word", ["fail 500", "cut", "break", "trip"])
def test_a_reply_that_failed_has_no_first_token(gate: Gateway, word: str, stream: bool) -> None:
    reply = gate.post("/v1/chat/completions", chat(word, stream=stream))
    found = row(gate, reply)
    assert found.outcome not in ("stop", "length", "tool_calls")
    assert found.ttft_ms is None
    revive(gate)


def test_an_attempt_shows_that_its_reply_had_begun(gate: Gateway) -> None:
    begun = row(gate, gate.post("/v1/chat/completions", chat("cut")))
    assert [a.reply_began for a in begun.attempts][-1]
    revive(gate)
    silent = row(gate, gate.post("/v1/chat/completions", chat("fail 500")))
    assert not any(a.reply_began for a in silent.attempts)


def test_the_upstreams_own_words_are_kept_with_the_attempt(gate: Gateway) -> None:
    revive(gate)
    words = "The disk of node 7 is full; key sk-1234567890abcdef was used."
    found = row(gate, gate.post("/v1/chat/completions", chat(f"fail 500 {words}")))
    assert [a.upstream_text for a in found.attempts] == [
        "The disk of node 7 is full; key *** was used."
    ] * len(found.attempts)
