"""A thousand exchanges that end in every way there is, a hundred at a time: afterwards all adds up."""

import asyncio
import contextlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from callers import PROTOCOLS, Answer, Ask, arrived, call
from gateway import Gateway, start, stop
from headgate.policy.keys import Key
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import until, wait_for

COUNT, TOGETHER, SEED = int(os.environ.get("MIXED", "1000")), 100, 20261125
WORST = 100 * 1200 + 200 * 375  # of one: its output, and more input than any has
# What the client does or asks for, how often, and the key that it asks with.
FINISH = ("hello", "think", "tools", "long", "slow 0.002")
# Nothing that pauses the only upstream: what is then refused is tested in tests/attack/test_upstreams_attacks.py.
FAIL = ("fail 400", "fail 408", "fail 413", "fail 422", "fail 500", "cut", "break", "trip")
KINDS = {
    "finish": 30,
    "fail": 20,
    "leave early": 10,
    "leave late": 10,
    "time out": 5,
    "over budget": 8,
    "over rate": 8,
    "over concurrency": 5,
    "invalid": 2,
    "unknown model": 1,
    "no key": 1,
}
KEY = {"over budget": "poor", "over rate": "slow", "over concurrency": "narrow", "no key": "none"}
REFUSED = {
    "over budget": "no_credit",
    "over rate": "rate_limit",
    "over concurrency": "rate_limit",
    "invalid": "invalid",
    "unknown model": "not_found",
    "no key": "unauthenticated",
}


@pytest.fixture
def gate(tmp_path: object) -> Iterator[Gateway]:
    with PlayedUpstream().running() as upstream:  # its own: it counts what it saw
        running = start(
            tmp_path / "data",  # type: ignore[operator]
            HEADGATE_UPSTREAM_URL=upstream.url("openai"),
            HEADGATE_UPSTREAM_KEY="x",
            HEADGATE_TIMEOUTS_FIRST_TOKEN="1",
        )
        running.upstream = upstream
        yield running
        if running.process.poll() is None:
            assert stop(running) == 0


def keys_of(gate: Gateway) -> dict[str, tuple[Key, str]]:
    store, now_s = Store(gate.data), time.time()
    made = {
        "rich": store.create_key("rich", now_s=now_s, budget_nano=10**15, rpm=10**6, tpm=10**9),
        "poor": store.create_key("poor", now_s=now_s, budget_nano=5 * WORST),
        "slow": store.create_key("slow", now_s=now_s, rpm=20, budget_nano=10**15),
        "narrow": store.create_key("narrow", now_s=now_s, concurrency=2, budget_nano=10**15),
    }
    store.close()
    for _, text in made.values():
        headers = {"x-api-key": text}
        wait_for(lambda h=headers: httpx2.get(f"{gate.url}/v1/key", headers=h).status_code == 200)
    return made


async def one(gate: Gateway, kind: str, answer: Answer) -> None:
    """Ask, and leave when it is time to."""
    assert gate.upstream is not None
    task = asyncio.create_task(call(gate.url, answer))
    if kind == "leave early":
        upstream, tag = gate.upstream, answer.ask.tag
        await until(lambda: task.done() or arrived_at(upstream, tag))
    elif kind == "leave late":
        await until(lambda: task.done() or b"\r\n\r\n" in answer.raw)
    else:
        await task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def arrived_at(upstream: PlayedUpstream, tag: str) -> bool:
    mark = f"tag-{tag}!".encode()
    return any(mark in seen.body for seen in upstream.seen[-4 * TOGETHER :])


async def all_of(gate: Gateway, keys: dict[str, tuple[Key, str]]) -> list[tuple[str, Answer]]:
    r = random.Random(SEED)
    kinds = r.choices(list(KINDS), list(KINDS.values()), k=COUNT)
    out = []
    for n, kind in enumerate(kinds):
        text, stream, model, more = r.choice(FINISH), r.random() < 0.6, "MiniMax-M2", {}
        match kind:
            case "fail":
                text = r.choice(FAIL)
            case "leave early":
                text = "silent 9"
            case "leave late":
                text, stream = "slow 0.02", True
            case "time out":
                text = "silent 9"
            case "over concurrency":
                text = "slow 0.002"
            case "invalid":
                more = {"n": 2, "max_tokens": "many", "input": 7, "contents": 7}
            case "unknown model":
                model = "no-such-model"
        text_of_key = keys[name][1] if (name := KEY.get(kind, "rich")) in keys else "wrong"
        ask = Ask(r.choice(PROTOCOLS), text, f"{n}", stream, model, more=more)
        out.append((kind, Answer(ask, text_of_key)))
    room = asyncio.Semaphore(TOGETHER)

    async def in_turn(kind: str, answer: Answer) -> None:
        async with room:
            await one(gate, kind, answer)

    await asyncio.gather(*[in_turn(kind, answer) for kind, answer in out])
    return out


def rows_of(gate: Gateway) -> list[LedgerRow]:
    books = UsageReader(gate.data)
    wait_for(lambda: books.intents() == 0)
    assert books.audit() == []
    found = [books.generation(id) for (id,) in books._all("select request_id from ledger")]
    books.close()
    return [row for row in found if row is not None]


def counted(gate: Gateway, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """The values of a metric by some of its labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for told, value in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", gate.get("/metrics").text, re.M):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', told))
        found[tuple(pairs[label] for label in labels)] += round(float(value))
    return found


def test_after_a_thousand_mixed_ends_nothing_is_held_and_every_sum_is_the_same(
    gate: Gateway,
) -> None:
    keys = keys_of(gate)
    before = counted(gate, "headgate_requests_total", "dialect", "outcome")  # while keys got known
    answers = asyncio.run(all_of(gate, keys))
    wait_for(
        lambda: (
            sum(counted(gate, "headgate_requests_total", "outcome").values())
            >= COUNT + before.total()
        )
    )
    rows = rows_of(gate)
    by_id = {row.request_id: row for row in rows}
    assert len(by_id) == len(rows)

    # every kind of end has happened
    assert {row.basis for row in rows} == {"upstream", "partial", "none"}
    outcomes = Counter(row.outcome for row in rows)
    for outcome in (
        "stop",
        "length",
        "tool_calls",
        "client_gone",
        "timeout",
        "upstream",
        "invalid",
    ):
        assert outcomes[outcome], outcomes
    refused = Counter(kind for kind, a in answers if a.id and a.id not in by_id)
    assert set(refused) == set(REFUSED), refused
    assert all(a.id or kind.startswith("leave") for kind, a in answers)

    # the counts of /metrics are the rows, and what was refused
    expected = before + Counter((r.dialect, r.outcome) for r in rows)
    for kind, answer in answers:
        if answer.id and answer.id not in by_id:
            reserved = b"running requests have reserved" in answer.body  # and not spent
            outcome = "rate_limit" if kind == "over budget" and reserved else REFUSED[kind]
            expected[answer.ask.protocol, outcome] += 1
    assert counted(gate, "headgate_requests_total", "dialect", "outcome") == expected
    tokens = counted(gate, "headgate_tokens_total", "kind")
    for kind in ("input", "cached", "output", "reasoning"):
        assert tokens[kind,] == sum(getattr(row, f"{kind}_tokens") for row in rows), kind
    wait_for(lambda: gate.metric("headgate_open_streams") == 0)
    assert not +counted(gate, "headgate_unpriced_total", "model")

    # what reached the upstream is in the rows
    assert gate.upstream is not None
    seen = arrived(gate.upstream)
    by_tag = Counter(row.session for row in rows if row.session)
    assert set(by_tag.values()) == {1}
    for row in rows:
        assert not row.session or seen[row.session] <= len(row.attempts) <= 2
    attempts = sum(len(row.attempts) for row in rows)
    left = outcomes["client_gone"]
    assert attempts - left <= seen.total() <= attempts

    # budgets are the ledger, and nothing is held
    spent: Counter[str] = Counter()
    for row in rows:
        spent[row.key_id] += row.cost_nano_usd or 0
    for key, text in keys.values():
        told = httpx2.get(f"{gate.url}/v1/key", headers={"x-api-key": text}).json()
        assert told["budget"]["held_nano"] == 0, key.name
        assert told["budget"]["spent_nano"] == told["spent_nano"] == spent[key.id] > 0, key.name
        assert key.budget_nano is not None
        assert spent[key.id] <= key.budget_nano

    # both places of the key that has two are free, and there are no more
    assert asyncio.run(at_once(gate, keys["narrow"][1], 5)) == [200, 200, 429, 429, 429]


async def at_once(gate: Gateway, key: str, count: int) -> list[int]:
    assert gate.upstream is not None
    upstream, before = gate.upstream, len(gate.upstream.seen)
    answers = [Answer(Ask("openai", "held", f"last-{n}", True), key) for n in range(count)]
    calls = [asyncio.create_task(call(gate.url, answer)) for answer in answers]
    await until(lambda: sum(c.done() for c in calls) + len(upstream.seen) - before == count)
    for seen in upstream.seen[before:]:
        upstream.release(seen)
    await asyncio.gather(*calls)
    return sorted(answer.status for answer in answers)
