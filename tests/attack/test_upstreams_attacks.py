"""Upstreams that are dead, exhausted, flaky, or that answer with nonsense; see raw_upstream.py."""

import json
import random
import socket
from collections.abc import Callable, Iterable
from typing import Any

import httpx2
import pytest

from attacking import Target
from raw_upstream import (
    OK,
    STREAM,
    Heard,
    Play,
    RawUpstream,
    always,
    answer,
    error,
    numbered,
    playing,
)
from waiting import pause_thread, wait_for

M = "MiniMax-M2"
MODELS = ("MiniMax-M2", "MiniMax-M2.1")
Begin = Callable[..., Target]


def tables(*upstreams: RawUpstream, more: str = "", preset: str = "openai") -> str:
    """One `[upstreams.uN]` for each, in this order."""
    more = more or 'key = "env:UP_KEY"'
    return "\n".join(
        f'[upstreams.u{n}]\npreset = "{preset}"\nbase_url = "{up.url}"\n{more}\n'
        for n, up in enumerate(upstreams)
    )


def ask(target: Target, client: httpx2.Client, text: str = "hi", model: str = M) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return client.post(
        f"{target.url}/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {target.key}"},
    )


def ask_in(target: Target, dialect: str) -> httpx2.Response:
    """The same request in each client protocol."""
    words = [{"role": "user", "content": "hi"}]
    match dialect:
        case "openai":
            return target.gateway.post("/v1/chat/completions", {"model": M, "messages": words})
        case "responses":
            return target.gateway.post("/v1/responses", {"model": M, "input": "hi"})
        case "anthropic":
            body = {"model": M, "messages": words, "max_tokens": 99}
            return target.gateway.post("/v1/messages", body)
        case _:
            contents = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
            return target.gateway.post(f"/v1beta/models/{M}:generateContent", contents)


def row(target: Target, reply: httpx2.Response) -> Any:
    id = reply.headers["x-request-id"]
    return target.gateway.get(f"/v1/generations/{id}", authorization=f"Bearer {target.key}").json()


@pytest.fixture
def client() -> Any:
    with httpx2.Client(timeout=30) as made:
        yield made


def some(cases: Iterable[str], *quick: str) -> list[Any]:
    """The cases as parameters, of which only these run with `make test`."""
    return [pytest.param(c, marks=() if c in quick else pytest.mark.long) for c in cases]


# -- cool-downs


REFUSALS = {
    "429": error(429, retry_after="60"),
    "429 with a date": error(429, retry_after="Fri, 31 Dec 2100 23:59:59 GMT"),
    "429 with a reset": error(429, x_ratelimit_reset_requests="6m0s"),
    "429 for ever": error(429, retry_after="1e9"),
    "402": error(402),
    "401": error(401),
    "403": error(403),
    "404": error(404),
    "1008": numbered(1008),
    "2056": numbered(2056),
    "2061": numbered(2061),
    "529": error(529, retry_after="60"),
}


@pytest.mark.parametrize("refusal", some(REFUSALS, "429", "2056"))
def test_an_exhausted_upstream_is_asked_once_in_50_requests(
    target: Begin, client: httpx2.Client, refusal: str
) -> None:
    with playing(always(REFUSALS[refusal]), always(OK)) as (exhausted, good):
        running = target(tables(exhausted, good), UP_KEY="k")
        replies = [ask(running, client) for _ in range(50)]
        assert {r.status_code for r in replies} == {200}
        assert (exhausted.asked(), good.asked()) == (1, 50)
        assert {r.headers["x-headgate-upstream"] for r in replies} == {f"u1/{M}"}
        assert all("fallback (u0/" in r.headers["x-headgate-warnings"] for r in replies)


@pytest.mark.long
def test_a_rate_limit_is_of_one_model_and_a_balance_of_all(
    target: Begin, client: httpx2.Client
) -> None:
    for refusal, asked in ((REFUSALS["429"], 2), (REFUSALS["402"], 1)):
        with playing(always(refusal), always(OK)) as (exhausted, good):
            running = target(tables(exhausted, good), UP_KEY="k")
            for model in MODELS:
                assert ask(running, client, model=model).status_code == 200
            assert exhausted.asked() == asked


@pytest.mark.parametrize("status", [402, pytest.param(429, marks=pytest.mark.long)])
def test_an_exhausted_key_of_a_pool_is_asked_once_and_the_next_one_serves(
    target: Begin, client: httpx2.Client, status: int
) -> None:
    def play(heard: Heard, connection: socket.socket) -> bytes:
        return error(status, retry_after="60") if heard.key == "secret-a" else OK

    keys = 'key = "env:UP_A"\nkeys = ["env:UP_B", "env:UP_C"]'
    with playing(play) as (up,):
        running = target(tables(up, more=keys), UP_A="secret-a", UP_B="secret-b", UP_C="secret-c")
        replies = [ask(running, client, f"conversation {n}") for n in range(60)]
        assert {r.status_code for r in replies} == {200}
        assert up.asked("secret-a") == 1
        assert up.asked("secret-b") > 10 and up.asked("secret-c") > 10
        spilled = next(r for r in replies if "key=1: " in r.headers.get("x-headgate-warnings", ""))
        assert row(running, spilled)["attempts"][0]["key"] == 1
        pages = json.dumps([dict(r.headers) | {"body": r.text} for r in replies])
        assert "secret-" not in pages + running.log


@pytest.mark.long
def test_a_conversation_stays_with_its_key(target: Begin, client: httpx2.Client) -> None:
    keys = 'keys = ["env:UP_A", "env:UP_B", "env:UP_C", "env:UP_D"]'
    with playing(always(OK)) as (up,):
        running = target(tables(up, more=keys), UP_A="a", UP_B="b", UP_C="c", UP_D="d")
        for n in range(12):
            before = len(up.heard)
            for _ in range(4):
                assert ask(running, client, f"conversation {n}").status_code == 200
            assert len({h.key for h in up.heard[before:]}) == 1
        assert len({h.key for h in up.heard}) >= 3


def test_pacing_counts_for_each_key(target: Begin, client: httpx2.Client) -> None:
    keys = 'keys = ["env:UP_A", "env:UP_B"]\nrpm = 5'
    with playing(always(OK)) as (up,):
        running = target(tables(up, more=keys) + "[timeouts]\npace = 0.05\n", UP_A="a", UP_B="b")
        codes = [ask(running, client, "one conversation").status_code for _ in range(12)]
        assert codes == [200] * 10 + [429] * 2
        assert (up.asked("a"), up.asked("b")) == (5, 5)


@pytest.mark.long
def test_two_upstreams_with_the_same_key_share_its_pause(
    target: Begin, client: httpx2.Client
) -> None:
    with playing(always(REFUSALS["402"]), always(OK)) as (exhausted, good):
        running = target(tables(exhausted, exhausted, good), UP_KEY="k")
        assert [ask(running, client).status_code for _ in range(20)] == [200] * 20
        assert exhausted.asked() == 1


def test_a_lone_exhausted_upstream_is_left_alone_for_as_long_as_it_says(
    target: Begin, client: httpx2.Client
) -> None:
    with playing(always(REFUSALS["429"])) as (up,):
        running = target(tables(up), UP_KEY="k")
        replies = [ask(running, client) for _ in range(20)]
        assert {r.status_code for r in replies} == {429}
        assert all(50 <= int(r.headers["retry-after"]) <= 60 for r in replies)
        assert {r.headers["x-should-retry"] for r in replies} == {"true"}
        assert up.asked() == 1


WAITS = ("0", "-7", "nan", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT", "x" * 9000)


@pytest.mark.parametrize("wait", some(WAITS, "1e9"))
def test_an_absurd_time_to_wait_is_bounded(target: Begin, client: httpx2.Client, wait: str) -> None:
    with playing(always(error(429, retry_after=wait))) as (up,):
        running = target(tables(up), UP_KEY="k")
        replies = [ask(running, client) for _ in range(10)]
        assert {r.status_code for r in replies} == {429}
        assert all(1 <= int(r.headers.get("retry-after", 1)) <= 120 for r in replies)
        assert up.asked() < 5


# -- what only the operator can repair


HOPELESS = {
    **{name: REFUSALS[name] for name in ("401", "402", "403", "404", "1008", "2056", "2061")},
    "307": answer(307, location="http://127.0.0.1:9/"),
    "a web page": answer(200, b"<html>Welcome</html>", "text/html"),
}


@pytest.mark.parametrize("what", some(HOPELESS, "404", "401"))
def test_what_only_the_operator_can_repair_is_a_424_in_the_callers_words(
    target: Begin, what: str
) -> None:
    with playing(always(HOPELESS[what])) as (up,):
        running = target(tables(up), UP_KEY="secret-key")
        for n in range(2):  # by the upstream's answer, and then without asking it
            for dialect in ("openai", "responses", "anthropic", "gemini"):
                reply = ask_in(running, dialect)
                assert reply.status_code == 424, reply.text
                assert reply.headers["x-should-retry"] == "false"
                assert "retry-after" not in reply.headers
                found = reply.json()["error"]
                assert "u0" in found["message"] and "operator" in found["message"]
                assert M in found["message"]
                assert "secret-key" not in reply.text
                if dialect == "gemini":
                    assert (found["code"], found["status"]) == (424, "FAILED_PRECONDITION")
            assert up.asked() == 1, n


@pytest.mark.parametrize("what", some(HOPELESS, "307", "a web page"))
def test_another_route_answers_before_the_operator_is_named(
    target: Begin, client: httpx2.Client, what: str
) -> None:
    with playing(always(HOPELESS[what]), always(OK)) as (bad, good):
        running = target(tables(bad, good), UP_KEY="k")
        reply = ask(running, client)
        assert reply.status_code == 200
        found = row(running, reply)
        assert [a["outcome"] for a in found["attempts"]][-1] == "stop"
        assert [a["upstream_code"] for a in found["attempts"]][-1] == ""
        lines = [json.loads(x) for x in running.log.splitlines() if x.startswith("{")]
        assert any(x["event"] == "upstream_paused" for x in lines) or not lines
        assert all("upstream_code" not in x for x in lines if x["event"] == "exchange")


# -- circuit breakers and the budget of retries


def test_two_dead_upstreams_get_few_attempts_and_the_answer_says_when_to_come_back(
    target: Begin, client: httpx2.Client
) -> None:
    with playing(always(error(500)), always(error(503))) as (a, b):
        running = target(tables(a, b), UP_KEY="k")
        replies = [ask(running, client) for _ in range(100)]
        assert all(r.status_code in (502, 503) for r in replies)
        assert a.asked() + b.asked() <= 120
        last = replies[-1]
        assert last.status_code == 503
        assert 1 <= int(last.headers["retry-after"]) <= 10
        assert last.headers["x-should-retry"] == "true"


def test_a_healthy_third_upstream_answers_from_the_first_request_on(
    target: Begin, client: httpx2.Client
) -> None:
    with playing(always(error(500)), always(error(502)), always(OK)) as (a, b, good):
        running = target(tables(a, b, good), UP_KEY="k")
        assert [ask(running, client).status_code for _ in range(60)] == [200] * 60
        assert good.asked() == 60
        assert a.asked() + b.asked() <= 12


def test_a_lone_dead_upstream_is_failed_fast_and_serves_again_once_it_is_back(
    target: Begin, client: httpx2.Client
) -> None:
    alive: list[int] = []

    def play(heard: Heard, connection: socket.socket) -> bytes | None:
        return OK if alive else error(500)

    with playing(play) as (up,):
        running = target(tables(up), UP_KEY="k")
        replies = [ask(running, client) for _ in range(60)]
        assert up.asked() <= 10
        assert {r.status_code for r in replies[10:]} == {503}
        assert all(1 <= int(r.headers["retry-after"]) <= 5 for r in replies[10:])
        alive.append(1)
        wait_for(lambda: ask(running, client).status_code == 200)  # the next probe is soon
        assert ask(running, client).status_code == 200


def test_a_refused_connection_counts_once_for_each_attempt(
    target: Begin, client: httpx2.Client
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f'[upstreams.u]\npreset = "vllm"\nbase_url = "http://127.0.0.1:{free.getsockname()[1]}/v1"\n'
    running = target(dead)
    replies = [ask(running, client) for _ in range(30)]
    attempts = [len(row(running, r)["attempts"]) for r in replies[:5] if r.status_code == 502]
    assert sum(attempts) <= 6
    assert {r.status_code for r in replies[6:]} == {503}


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 9))]
)
def test_with_one_healthy_route_every_request_succeeds_and_retries_stay_in_their_budget(
    target: Begin, client: httpx2.Client, seed: int
) -> None:
    drawn = random.Random(seed)

    def flaky(rate: float) -> Play:
        return lambda heard, connection: error(500) if drawn.random() < rate else OK

    rates = [drawn.uniform(0.1, 1.0), drawn.uniform(0.1, 1.0), 0.0]
    drawn.shuffle(rates)
    with playing(*map(flaky, rates)) as ups:
        running = target(tables(*ups), UP_KEY="k")
        codes = [ask(running, client).status_code for _ in range(200)]
        assert codes == [200] * 200
        assert sum(up.asked() for up in ups) <= 1.2 * 200 + 10


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 9))]
)
def test_with_no_healthy_route_attempts_stay_in_their_budget(
    target: Begin, client: httpx2.Client, seed: int
) -> None:
    drawn = random.Random(seed)

    def flaky(rate: float) -> Play:
        return lambda heard, connection: error(500) if drawn.random() < rate else OK

    with playing(*(flaky(drawn.uniform(0.3, 1.0)) for _ in range(3))) as ups:
        running = target(tables(*ups), UP_KEY="k")
        for _ in range(200):
            ask(running, client)
        assert sum(up.asked() for up in ups) <= 1.2 * 200 + 10


# -- connections


def test_what_an_upstream_worked_on_before_it_closed_is_not_sent_again(
    target: Begin, client: httpx2.Client
) -> None:
    def play(heard: Heard, connection: socket.socket) -> bytes | None:
        if heard.nth == 1:
            return OK
        pause_thread(1.3, "an upstream that works for longer than a stale connection takes to show")
        return None

    with playing(play) as (up,):
        running = target(tables(up), UP_KEY="k")
        assert ask(running, client).status_code == 200
        reply = ask(running, client)
        assert reply.status_code == 502
        assert reply.headers["x-should-retry"] == "false"
        assert (up.asked(), up.connections) == (2, 1)
        assert [a["upstream_code"] for a in row(running, reply)["attempts"]] == ["broken"]


def test_a_stale_connection_is_replaced_and_counted_as_an_attempt(
    target: Begin, client: httpx2.Client
) -> None:
    def play(heard: Heard, connection: socket.socket) -> bytes | None:
        return OK if heard.nth == 1 else None

    with playing(play) as (up,):
        running = target(tables(up) + "[retry]\nattempts = 1\n", UP_KEY="k")
        assert ask(running, client).status_code == 200
        reply = ask(running, client)
        assert reply.status_code == 200
        attempts = row(running, reply)["attempts"]
        assert [a["upstream_code"] for a in attempts] == ["stale", ""]
        assert (up.asked(), up.connections) == (3, 2)
        assert [ask(running, client).status_code for _ in range(40)] == [200] * 40
        assert up.asked() <= 42 + 10


@pytest.mark.parametrize(
    "excess", [b"\r\n", *(pytest.param(e, marks=pytest.mark.long) for e in (b"\n", OK, b"x"))]
)
def test_a_connection_with_bytes_after_the_reply_is_not_used_again(
    target: Begin, client: httpx2.Client, excess: bytes
) -> None:
    with playing(always(OK + excess)) as (up,):
        running = target(tables(up), UP_KEY="k")
        assert [ask(running, client).status_code for _ in range(10)] == [200] * 10
        assert up.connections == 10


# -- answers that are none


EVENTS = b'data: {"error": {"message": "overloaded", "type": "overloaded_error"}}\n\n'
BEGUN = (
    b'event: message_start\ndata: {"type": "message_start", "message": {"id": "m", "type": "message",'
    b' "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}}\n\n'
    b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
)
NONSENSE = {
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "202": answer(202, b"{}"),
    "empty": answer(200, b"", "text/event-stream"),
    "no JSON": answer(200, b"hello", "application/json"),
    "an error in JSON": answer(200, b'{"error": {"message": "boom", "type": "server_error"}}'),
    "an error event": answer(200, EVENTS, "text/event-stream"),
    "529": error(529),
    "500": error(500, "<html>boom</html>"),
}


@pytest.mark.parametrize("what", some(NONSENSE, "204", "an error in JSON"))
def test_nonsense_is_a_clear_failure_and_another_route_answers(
    target: Begin, client: httpx2.Client, what: str
) -> None:
    with playing(always(NONSENSE[what]), always(OK)) as (bad, good):
        running = target(tables(bad, good), UP_KEY="k")
        assert ask(running, client).status_code == 200
        lone = target(tables(bad), UP_KEY="k")
        reply = ask(lone, client)
        assert reply.status_code in (502, 503)
        assert reply.headers["x-should-retry"] == "true"
        assert len(row(lone, reply)["attempts"]) == 2
        assert "html" not in reply.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_event_before_a_word_of_the_reply_lets_another_route_answer(
    target: Begin, client: httpx2.Client, stream: bool
) -> None:
    with playing(always(answer(200, BEGUN, "text/event-stream")), always(OK)) as (bad, good):
        config = tables(bad, preset="anthropic") + tables(good).replace("u0", "v0")
        running = target(config, UP_KEY="k")
        reply = running.gateway.post(
            "/v1/chat/completions",
            {"model": M, "messages": [{"role": "user", "content": "hi"}], "stream": stream},
        )
        assert reply.status_code == 200 and "Hello." in reply.text
        found = row(running, reply)
        assert [a["outcome"] for a in found["attempts"]] == ["overloaded", "stop"]
        assert STREAM and (bad.asked(), good.asked()) == (1, 1)
