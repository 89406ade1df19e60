"""More than the gateway can take: bounded requests and bytes in flight, and one key does not crowd out another."""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable

import httpx2
import msgspec
import pytest

from attacking import Target, metered
from load import Flow, fast_upstream, run, share
from waiting import wait_for

M = "MiniMax-M2"
MB = 1 << 20
SMALL = (
    b'{"model":"MiniMax-M2","max_tokens":9,"messages":[{"role":"user","content":"whole hello"}]}'
)
DIALECTS = (
    ("/v1/chat/completions", SMALL, 503, b'"overloaded"'),
    ("/v1/responses", b'{"model":"MiniMax-M2","input":"x"}', 503, b'"overloaded"'),
    ("/v1/messages", SMALL, 529, b'"overloaded_error"'),
    (
        f"/v1beta/models/{M}:generateContent",
        b'{"contents":[{"parts":[{"text":"x"}]}]}',
        503,
        b'"UNAVAILABLE"',
    ),
)


def head_of(path: str, key: str, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {key}", *more, "", ""]
    return "\r\n".join(lines).encode()


def status_of(conn: socket.socket, wait_s: float) -> int:
    """The status of the answer; 0: none has come so far."""
    conn.settimeout(wait_s)
    with contextlib.suppress(TimeoutError):
        data = conn.recv(65536)
        return int(data.split(b" ", 2)[1])
    return 0


def test_above_the_bound_of_requests_in_flight_all_protocols_are_refused_at_once(
    target: Callable[..., Target],
) -> None:
    running = target(config="[overload]\nin_flight = 10\n")
    other, metric = running.create_key("other"), running.gateway.metric
    with contextlib.ExitStack() as open_:
        for _ in range(10):  # which send no body
            conn = open_.enter_context(running.connect())
            conn.sendall(head_of("/v1/messages", running.key, "content-length: 100"))
        wait_for(lambda: metric("headgate_in_flight") == 10)
        for path, body, status, words in DIALECTS:
            reply = running.gateway.post(path, body)
            assert reply.status_code == status, reply.text
            assert words in reply.content.replace(b" ", b"")
            assert reply.headers["retry-after"] == "1"
        assert metric('headgate_shed_total{reason="in_flight"}') == len(DIALECTS)
        for path in ("/livez", "/readyz", "/metrics"):
            assert running.gateway.get(path).status_code == 200
        key, running.gateway.key = running.gateway.key, other
        assert running.gateway.post(*DIALECTS[0][:2]).status_code == 200  # is not crowded out
        running.gateway.key = key
    wait_for(lambda: metric("headgate_in_flight") == 0)
    assert running.gateway.post(*DIALECTS[0][:2]).status_code == 200


@pytest.mark.parametrize("framing", ["content-length: 31457280", "transfer-encoding: chunked"])
def test_the_bytes_of_bodies_in_flight_are_bounded(
    target: Callable[..., Target], framing: str
) -> None:
    """Sixteen clients of one key send 20 MB each and do not end; four of another key as well."""
    running = target(config="[overload]\nbody_bytes_in_flight = 134217728\n")
    other, metric = running.create_key("other"), running.gateway.metric
    piece = b"x" * MB
    if "chunked" in framing:
        piece = b"%x\r\n%b\r\n" % (MB, piece)
    with contextlib.ExitStack() as open_, metered(running.pid) as meter:
        found: Counter[int] = Counter()
        for n in range(20):
            conn = open_.enter_context(running.connect())
            conn.sendall(head_of("/v1/messages", other if n >= 16 else running.key, framing))
            with contextlib.suppress(OSError):  # refused and closed meanwhile
                for _ in range(20):
                    conn.sendall(piece)
            found[status_of(conn, 0.3)] += 1
        assert metric("headgate_body_bytes_in_flight") <= 144 * MB
        assert found[0] <= 6 and found[429] >= 12, found
    assert meter.peak_mb < 200  # 400 MB were sent
    assert metric('headgate_shed_total{reason="key_body_bytes"}') >= 12
    wait_for(lambda: metric("headgate_in_flight") == 0)
    assert metric("headgate_body_bytes_in_flight") == 0
    assert running.gateway.post("/v1/messages", SMALL).status_code == 200


def test_a_client_that_leaves_while_its_large_body_is_worked_on_leaves_nothing_behind(
    target: Callable[..., Target],
) -> None:
    running = target()
    metric = running.gateway.metric
    text = "hello " * (20 * MB // 6)
    body = msgspec.json.encode({"model": M, "messages": [{"role": "user", "content": text}]})
    for _ in range(3):
        with running.connect() as conn:
            conn.sendall(
                head_of("/v1/messages", running.key, f"content-length: {len(body)}") + body
            )
    wait_for(lambda: metric("headgate_in_flight") == 0)
    wait_for(lambda: metric("headgate_body_bytes_in_flight") == 0)
    assert metric("headgate_large_bodies_waiting") == 0
    assert running.gateway.post("/v1/messages", SMALL).status_code == 200


@pytest.mark.long
def test_while_one_body_of_30_mb_is_worked_on_others_are_answered(
    target: Callable[..., Target],
) -> None:
    """The longest time without an answer to others is a fraction of the time that the work takes."""
    running = target()
    text = "word " * (30 * MB // 5)
    body = msgspec.json.encode(
        {"model": M, "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    )
    shares = []
    for _ in range(3):
        with running.connect() as conn, httpx2.Client(timeout=60) as client:
            path = "/v1/messages/count_tokens"
            conn.sendall(head_of(path, running.key, f"content-length: {len(body)}") + body)
            conn.setblocking(False)
            began = last = time.monotonic()
            gaps = []
            while True:
                client.get(running.url + "/livez")
                now = time.monotonic()
                gaps.append(now - last)
                last = now
                with contextlib.suppress(BlockingIOError):
                    assert b" 200 " in conn.recv(65536)
                    break
            shares.append(max(gaps) / (last - began))
    assert min(shares) < 0.5, shares


@pytest.mark.long
def test_at_three_times_the_capacity_four_fifths_of_it_are_served_and_the_rest_refused(
    target: Callable[..., Target],
) -> None:
    """What refusals take of the CPU time cannot be served; other work on the machine does not count.

    Of three requests, one is served and two are refused: its part is 1 / (1 + 2 refusals / served).
    """
    with fast_upstream() as url:
        running = target(HEADGATE_UPSTREAM_URL=url, HEADGATE_UPSTREAM_KEY="x")
        warm, alone = (Flow(running.key, SMALL, at_a_time=64) for _ in range(2))
        run(running.address, [warm], 2)
        with metered(running.pid) as meter:
            run(running.address, [alone], 4)
        served_s = meter.cpu_s / alone.served
        flood = Flow(running.key, SMALL, rate=3 / served_s, max_connections=800)
        with metered(running.pid) as meter:
            run(running.address, [flood], 8)
    refused = flood.count(503)
    assert refused > flood.sent / 10
    assert refused + flood.served >= flood.sent - 800  # what is still on its way
    refusal_s = max(0.0, meter.cpu_s - flood.served * served_s) / refused
    assert 1 / (1 + 2 * refusal_s / served_s) >= 0.8, (refusal_s, served_s)
    assert share(flood.of(503), 0.5) < share(flood.of(200), 0.5)  # a refusal comes first


@pytest.mark.long
def test_a_flooding_key_does_not_crowd_out_a_calm_one(target: Callable[..., Target]) -> None:
    """Before, a calm request waited until some 200 of the other key's had been served.

    The flood's bodies have 100 kB, so that the work on them is what everybody waits for.
    """
    text = "whole " + "word " * 20_000
    large = msgspec.json.encode(
        {"model": M, "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    )
    with fast_upstream() as url:
        running = target(HEADGATE_UPSTREAM_URL=url, HEADGATE_UPSTREAM_KEY="x")
        calm_key = running.create_key("calm")
        flood = Flow(running.key, large, at_a_time=200)
        calm = Flow(calm_key, SMALL, rate=20, rival=flood)
        run(running.address, [flood, calm], 8)
    assert calm.served >= 0.95 * calm.sent
    overtaken = sorted(calm.overtaken)
    assert share(overtaken, 0.5) < 100, overtaken
    assert flood.served > 200


def test_a_key_that_is_refused_floods_at_little_cost(target: Callable[..., Target]) -> None:
    running = target()
    limited = running.create_key("limited", "--rpm", "1")
    flood = Flow(limited, SMALL, at_a_time=20)
    with metered(running.pid) as meter:
        run(running.address, [flood], 2)
    refused = flood.count(429)
    assert refused > 500
    assert meter.cpu_s / refused < 90e-6  # 150 to 190 us each before
