"""Limits and budgets as clients meet them: exact, told in their own protocol, never leaked."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from test_gateway import GENERATE, chat, contents, messages

from gateway import Gateway, start, stop
from headgate.catalog import counting
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import ANTHROPIC
from headgate.storage.figures import Where
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import PATIENCE_S, pause_thread, until, wait_for


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("admission") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0
    books = UsageReader(running.data)
    assert books.audit() == []
    assert books.intents() == 0
    books.close()


def a_key(gate: Gateway, **terms: Any) -> dict[str, str]:
    store = Store(gate.data)
    _, text = store.create_key("limited", now_s=time.time(), **terms)
    store.close()
    headers = {"authorization": f"Bearer {text}"}
    wait_for(lambda: httpx2.get(f"{gate.url}/v1/key", headers=headers).status_code == 200)
    return headers


async def all_at_once(
    gate: Gateway, body: object, headers: list[dict[str, str]]
) -> list[httpx2.Response]:
    """A request with each of the headers; the upstream ends no reply before all were decided on."""
    assert gate.upstream is not None
    upstream, before = gate.upstream, len(gate.upstream.seen)
    limits = httpx2.Limits(max_connections=len(headers))
    async with httpx2.AsyncClient(limits=limits, timeout=3 * PATIENCE_S) as client:
        url = f"{gate.url}/v1/messages"
        sent = [asyncio.create_task(client.post(url, json=body, headers=h)) for h in headers]
        await until(
            lambda: sum(s.done() for s in sent) + len(upstream.seen) - before == len(sent),
            2 * PATIENCE_S,
        )
        for seen in upstream.seen[before:]:
            upstream.release(seen)
        return list(await asyncio.gather(*sent))


def reserved(body: dict[str, object]) -> int:
    """Nano-dollars: the input's upper bound at 0.375 (as if all were written to the cache), 100 out at 1.20."""
    request = ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget())
    return counting.input_bound(request, 204_800) * 375 + 100 * 1200


def test_of_500_parallel_requests_on_a_budget_for_37_exactly_37_are_admitted(
    gate: Gateway,
) -> None:
    body = messages("held", model="MiniMax-M2")
    worst = reserved(body)
    headers = a_key(gate, budget_nano=37 * worst + worst - 1)

    replies = asyncio.run(all_at_once(gate, body, [headers] * 500))
    statuses = [r.status_code for r in replies]
    assert statuses.count(200) == 37
    assert statuses.count(429) == 463  # the money is reserved, and not spent
    mine = httpx2.get(f"{gate.url}/v1/key", headers=headers).json()
    assert mine["budget"]["held_nano"] == 0
    assert mine["budget"]["spent_nano"] == mine["spent_nano"] > 0


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/chat/completions", chat("hello", max_tokens=100), 429, "insufficient_quota"),
        ("/v1/responses", {"model": "MiniMax-M2", "input": "x"}, 429, "insufficient_quota"),
        ("/v1/messages", messages("hello"), 402, "billing_error"),
        (GENERATE, contents("hello"), 429, "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_budget_that_is_too_small_is_told_in_the_callers_protocol(
    gate: Gateway, path: str, body: object, status: int, words: str
) -> None:
    headers = a_key(gate, budget_nano=1000)
    reply = httpx2.post(gate.url + path, json=body, headers=headers)
    assert reply.status_code == status
    assert words in reply.text
    assert "0.000001 USD" in reply.text
    assert reply.headers["x-should-retry"] == "false"


def test_requests_a_minute_are_counted_and_who_waits_passes(gate: Gateway) -> None:
    headers = a_key(gate, rpm=30)  # one comes back every two seconds
    url = f"{gate.url}/v1/chat/completions"
    replies: list[httpx2.Response] = []
    while len(replies) < 300 and (not replies or replies[-1].status_code == 200):
        replies.append(httpx2.post(url, json=chat("hello"), headers=headers))
    refused = [r for r in replies if r.status_code == 429]
    assert refused and len(replies) > 30
    first = replies[0]
    assert first.headers["x-ratelimit-limit-requests"] == "30"
    assert first.headers["x-ratelimit-remaining-requests"] == "29"
    assert refused[-1].json()["error"]["code"] == "rate_limit_exceeded"
    pause_thread(float(refused[-1].headers["retry-after"]), "a client does as it was told")
    again = httpx2.post(f"{gate.url}/v1/messages", json=messages("hello"), headers=headers)
    assert again.status_code == 200
    assert again.headers["anthropic-ratelimit-requests-limit"] == "30"


def test_concurrency_is_released_also_by_hang_ups(gate: Gateway) -> None:
    headers = a_key(gate, concurrency=2)
    url = f"{gate.url}/v1/chat/completions"

    def ask() -> int:
        return httpx2.post(url, json=chat("hello"), headers=headers).status_code

    with httpx2.Client() as client:
        slow = [
            client.stream("POST", url, json=chat("held", stream=True), headers=headers)
            for _ in range(2)
        ]
        for each in slow:
            each.__enter__()
        assert ask() == 429
        for each in slow:
            each.__exit__(None, None, None)
    wait_for(lambda: ask() == 200)


def test_tokens_a_minute_count_what_was_really_used(gate: Gateway) -> None:
    headers = a_key(gate, tpm=10_000)
    url = f"{gate.url}/v1/chat/completions"
    reply = httpx2.post(url, json=chat("hello", max_tokens=2000), headers=headers)
    assert reply.status_code == 200
    # Not the 2000 that were reserved: a whole reply is settled before its headers go.
    assert 9800 < int(reply.headers["x-ratelimit-remaining-tokens"]) < 10_000
    asked = chat("held", max_tokens=2000, stream=True)
    with (
        httpx2.Client() as client,
        client.stream("POST", url, json=asked, headers=headers) as running,
    ):
        assert int(running.headers["x-ratelimit-remaining-tokens"]) < 8000


def test_a_budget_given_to_a_running_key_soon_holds(gate: Gateway) -> None:
    headers = a_key(gate)
    url = f"{gate.url}/v1/messages"
    assert httpx2.post(url, json=messages("hello"), headers=headers).status_code == 200
    store = Store(gate.data)
    id = httpx2.get(f"{gate.url}/v1/key", headers=headers).json()["id"]
    store.change_key(id, budget_nano=1, now_s=time.time())
    store.close()
    wait_for(lambda: httpx2.post(url, json=messages("hello"), headers=headers).status_code == 402)


def an_account(gate: Gateway, id: str, **terms: Any) -> None:
    store = Store(gate.data)
    store.create_account(id, id, now_s=time.time(), **terms)
    store.close()


def test_the_keys_of_an_account_share_its_budget_and_are_told_whose_it_is(gate: Gateway) -> None:
    body = messages("held", model="MiniMax-M2")
    worst = reserved(body)
    an_account(gate, "red", budget_nano=12 * worst + worst - 1)
    keys = [a_key(gate, account="red", budget_nano=8 * worst + 1) for _ in range(2)]

    replies = asyncio.run(all_at_once(gate, body, [keys[0]] * 40 + [keys[1]] * 40))
    assert sum(r.status_code == 200 for r in replies) == 12
    told = " ".join(r.text for r in replies if r.status_code == 429)
    assert "budget of this account" in told
    mine = [httpx2.get(f"{gate.url}/v1/key", headers=headers).json() for headers in keys]
    assert [m["account"] for m in mine] == ["red", "red"]
    assert mine[0]["account_budget"] == mine[1]["account_budget"]
    standing = mine[0]["account_budget"]
    assert (standing["held_nano"], standing["limit_nano"]) == (0, 13 * worst - 1)
    assert standing["spent_nano"] == sum(m["spent_nano"] for m in mine) > 0
    books = UsageReader(gate.data)
    (spent,) = books.usage("account", where=Where(account="red"))
    assert (spent.requests, spent.cost_nano_usd) == (12, standing["spent_nano"])
    books.close()


def test_a_refusal_by_the_keys_own_budget_says_so(gate: Gateway) -> None:
    an_account(gate, "rich", budget_nano=10**12)
    headers = a_key(gate, account="rich", budget_nano=1)
    reply = httpx2.post(f"{gate.url}/v1/messages", json=messages("hello"), headers=headers)
    assert reply.status_code == 402 and "budget of this key" in reply.text
    alone = httpx2.get(f"{gate.url}/v1/key", headers=a_key(gate)).json()
    assert (alone["account"], alone["account_budget"]) == ("", None)


def test_a_budget_given_to_an_account_counts_what_it_has_spent(gate: Gateway) -> None:
    an_account(gate, "later")
    headers = a_key(gate, account="later")
    url = f"{gate.url}/v1/messages"
    assert httpx2.post(url, json=messages("hello"), headers=headers).status_code == 200
    store = Store(gate.data)
    store.change_account("later", budget_nano=10**10, now_s=time.time())
    store.close()

    def standing() -> Any:
        return httpx2.get(f"{gate.url}/v1/key", headers=headers).json()["account_budget"]

    wait_for(lambda: standing()["limit_nano"] == 10**10)
    assert standing()["spent_nano"] > 0


def test_the_keys_of_a_closed_account_are_soon_refused(gate: Gateway) -> None:
    an_account(gate, "gone")
    headers = a_key(gate, account="gone")
    store = Store(gate.data)
    assert store.close_account("gone", now_s=time.time())
    store.close()
    wait_for(lambda: httpx2.get(f"{gate.url}/v1/key", headers=headers).status_code == 401)
    asked = chat("hello")
    reply = httpx2.post(f"{gate.url}/v1/chat/completions", json=asked, headers=headers)
    assert reply.status_code == 401
