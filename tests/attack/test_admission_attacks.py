"""Clients that are refused, or should be, cost next to nothing: before a body is read, by key and by address."""

import contextlib
import socket
from collections import Counter
from collections.abc import Callable

import httpx2
import msgspec

from attacking import Target, metered
from headgate.policy import keys
from headgate.policy.guesses import KEY_BURST, PEER_BURST
from waiting import wait_for

M = "MiniMax-M2"
MB = 1 << 20
CHAT = b'{"model":"MiniMax-M2","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}'


def chat_of(size: int) -> bytes:
    """A body of about `size` bytes, whose text begins with what makes the played upstream answer."""
    text = "hello " + "word " * (size // 5)
    return msgspec.json.encode({"model": M, "messages": [{"role": "user", "content": text}]})


def dense_of(size: int) -> bytes:
    """A body of about `size` bytes of short messages: decoding 1 MB of them takes some 40 ms."""
    one = b'{"role":"user","content":"hi"}'
    many = b",".join([one] * (size // len(one)))
    return b'{"model":"MiniMax-M2","max_tokens":9,"messages":[%b]}' % many


def head_of(path: str, key: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {key}", *more]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


def status_of(conn: socket.socket) -> int:
    """The status of the next answer; nothing of its body is looked for."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = conn.recv(65536)
        assert data, head
        head += data
    return int(head.split(b" ", 2)[1])


def statuses(
    target: Target, key: str, bodies: list[bytes], path: str = "/v1/chat/completions"
) -> Counter[int]:
    found: Counter[int] = Counter()
    with httpx2.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        for body in bodies:
            found[client.post(target.url + path, content=body).status_code] += 1
    return found


def test_a_key_at_its_limit_cannot_make_the_gateway_work_on_bodies(
    target: Callable[..., Target],
) -> None:
    running = target()
    key = running.create_key("slow", "--rpm", "1")
    assert statuses(running, key, [CHAT])[200] == 1
    large = dense_of(MB)
    with metered(running.pid) as meter:
        found = statuses(running, key, [large] * 100)
    assert found[429] >= 97
    assert meter.cpu_s < 1.5  # decoding them would take 4 s


def test_bodies_that_are_wrong_count_against_the_rate(target: Callable[..., Target]) -> None:
    running = target()
    key = running.create_key("slow", "--rpm", "3")
    found = statuses(running, key, [b"{"] * 20)
    assert found[400] <= 4 and found[429] >= 16


def test_a_refusal_comes_before_the_body_is_sent(target: Callable[..., Target]) -> None:
    running = target()
    slow = running.create_key("slow", "--rpm", "1")
    narrow = running.create_key("narrow", "--concurrency", "1")
    assert statuses(running, slow, [CHAT])[200] == 1
    with contextlib.ExitStack() as open_:
        first = open_.enter_context(running.connect())  # sends no body, and holds the only slot
        first.sendall(head_of("/v1/chat/completions", narrow, 1000))
        wait_for(lambda: running.gateway.metric("headgate_in_flight") == 1)
        for key in (slow, narrow):
            conn = open_.enter_context(running.connect())
            conn.sendall(head_of("/v1/messages", key, 30 * MB, "expect: 100-continue"))
            assert status_of(conn) == 429  # and no 100 before it


def test_a_client_that_leaves_in_the_middle_of_its_body_gives_back_all_that_it_held(
    target: Callable[..., Target],
) -> None:
    running = target()
    key = running.create_key("narrow", "--concurrency", "1")
    metric = running.gateway.metric
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"):
        with running.connect() as conn:
            conn.sendall(head_of(path, key, 5 * MB) + b"{" * MB)
            wait_for(lambda: metric("headgate_body_bytes_in_flight") == 5 * MB)
            assert metric("headgate_in_flight") == 1
        wait_for(lambda: metric("headgate_in_flight") == 0)
        assert metric("headgate_body_bytes_in_flight") == 0
        assert statuses(running, key, [CHAT, b"{", chat_of(MB)]) == {200: 2, 400: 1}
    assert metric("headgate_in_flight") == 0


COUNTS = (
    ("/v1/messages/count_tokens", CHAT, b"rate_limit_error"),
    (
        f"/v1beta/models/{M}:countTokens",
        b'{"contents":[{"parts":[{"text":"x"}]}]}',
        b"RESOURCE_EXHAUSTED",
    ),
    ("/v1/responses/input_tokens", b'{"model":"MiniMax-M2","input":"x"}', b"rate_limit_exceeded"),
)


def test_counts_have_a_limit_that_lets_a_burst_of_two_dozen_pass(
    target: Callable[..., Target],
) -> None:
    running = target()
    for path, body, words in COUNTS:
        key = running.create_key("slow", "--rpm", "1")
        found, last = Counter[int](), None
        with httpx2.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            for _ in range(60):
                last = client.post(running.url + path, content=body)
                found[last.status_code] += 1
        assert found[200] >= 24 and found[429] >= 15
        assert last is not None and words in last.content
        assert int(last.headers["retry-after"]) >= 1
        assert statuses(running, key, [CHAT])[200] == 1  # counts took nothing of its other limit


def test_counts_of_large_bodies_beyond_the_limit_are_not_worked_on(
    target: Callable[..., Target],
) -> None:
    running = target()
    key = running.create_key("slow", "--rpm", "1")
    path = "/v1/messages/count_tokens"
    statuses(running, key, [CHAT] * 40, path)
    with metered(running.pid) as meter:
        found = statuses(running, key, [dense_of(MB)] * 100, path)
    assert found[429] >= 85
    assert meter.cpu_s < 2.0  # decoding them would take 4 s


def test_every_count_has_a_line_in_the_log_and_a_metric_also_when_it_fails(
    target: Callable[..., Target],
) -> None:
    running = target()
    path = "/v1/messages/count_tokens"
    found = statuses(
        running,
        running.key,
        [CHAT, b"{", b'{"model":"no-such-model","messages":[],"max_tokens":1}'],
        path,
    )
    assert found[200] == 1 and sum(found.values()) == 3
    metric = running.gateway.metric
    counted = 'headgate_token_counts_total{dialect="anthropic",model="%s",outcome="%s"}'
    assert metric(counted % (M, "counted")) == 1
    assert metric(counted % ("", "invalid")) + metric(counted % ("", "not_found")) == 2
    wait_for(lambda: running.log.count('"event":"count"') == 3)
    lines = [msgspec.json.decode(t) for t in running.log.splitlines() if '"event":"count"' in t]
    key_id = running.key.removeprefix("hg_live_")[:8]
    assert [line["key"] for line in lines] == [key_id] * 3
    assert lines[0]["status"] == 200 and lines[0]["outcome"] == "counted"
    assert lines[1]["status"] == 400 and lines[1]["outcome"] == "invalid"


def test_lists_and_reports_have_a_rate(target: Callable[..., Target]) -> None:
    running = target()
    headers = {"authorization": f"Bearer {running.key}"}
    found: Counter[int] = Counter()
    with httpx2.Client(headers=headers, timeout=60) as client:
        for _ in range(900):
            found[client.get(running.url + "/v1/models/" + M).status_code] += 1
    assert found[429] >= 50
    assert statuses(running, running.key, [CHAT])[200] == 1


def wrong_keys(count: int) -> list[str]:
    """Keys that do not exist, of the form that keys have, each with an id of its own."""
    return [keys.new_text(n.to_bytes(6, "big") * 6 + b"ab")[0] for n in range(count)]


def test_an_address_that_guesses_is_throttled_and_a_right_key_from_it_passes(
    target: Callable[..., Target],
) -> None:
    running = target()
    found: Counter[int] = Counter()
    guesses = wrong_keys(400)
    with httpx2.Client(timeout=60) as client, metered(running.pid) as meter:
        for guess in guesses:
            reply = client.post(
                running.url + "/v1/messages", content=CHAT, headers={"x-api-key": guess}
            )
            found[reply.status_code] += 1
    assert PEER_BURST <= found[401] < 300 and found[429] >= 100
    assert int(reply.headers["retry-after"]) >= 1 and "rate_limit_error" in reply.text
    assert meter.cpu_s < 1.0
    assert statuses(running, running.key, [CHAT])[200] == 1
    assert (
        running.gateway.get("/v1/models", authorization=f"Bearer {running.key}").status_code == 200
    )
    assert running.gateway.metric('headgate_bad_keys_total{answer="throttled"}') >= 100
    with httpx2.Client(timeout=60) as client:  # other paths as well; one a second is let through
        headers = {"x-api-key": "sk-1"}
        lists = [client.get(running.url + "/v1/models", headers=headers) for _ in range(20)]
    assert any(reply.status_code == 429 for reply in lists)


def test_one_key_id_is_guarded_and_its_owner_passes(target: Callable[..., Target]) -> None:
    running = target()
    id = running.key.removeprefix(keys.PREFIX)[: keys.ID_CHARS]
    found: Counter[int] = Counter()
    with httpx2.Client(timeout=60) as client:
        for n in range(2 * KEY_BURST + 10):
            secret = f"{n:043d}"
            text = f"{keys.PREFIX}{id}{secret}{keys._check(id + secret)}"
            headers = {"authorization": f"Bearer {text}"}
            reply = client.post(running.url + "/v1/chat/completions", content=CHAT, headers=headers)
            found[reply.status_code] += 1
    assert found[401] >= KEY_BURST and found[429] >= 10
    assert statuses(running, running.key, [CHAT])[200] == 1


def test_a_revoked_key_is_no_guess(target: Callable[..., Target]) -> None:
    running = target()
    key = running.create_key("gone")
    running.cli("keys", "revoke", key.removeprefix(keys.PREFIX)[: keys.ID_CHARS])
    wait_for(lambda: statuses(running, key, [CHAT])[401] == 1)
    assert statuses(running, key, [CHAT] * (2 * PEER_BURST))[401] == 2 * PEER_BURST


def test_other_credentials_are_throttled_as_well(target: Callable[..., Target]) -> None:
    running = target()
    for path, header, value, status in (
        ("/admin/v1/keys", "authorization", "Bearer hg_admin_nothing", 401),
        ("/internal/upstreams", "x-headgate-internal", "0" * 64, 404),
    ):
        found: Counter[int] = Counter()
        with httpx2.Client(headers={header: value}, timeout=60) as client:
            for _ in range(2 * PEER_BURST):
                reply = client.get(running.url + path)
                found[reply.status_code] += 1
        assert found[status] >= PEER_BURST and found[429] >= PEER_BURST / 2
        assert int(reply.headers["retry-after"]) >= 1


def test_refusals_share_a_line_in_the_log(target: Callable[..., Target]) -> None:
    running = target()
    key = running.create_key("slow", "--rpm", "1")
    assert statuses(running, key, [CHAT] * 200)[429] >= 190
    wait_for(lambda: '"outcome":"rate_limit"' in running.log)
    assert running.log.count('"outcome":"rate_limit"') < 10
