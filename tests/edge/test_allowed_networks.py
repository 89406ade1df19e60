"""Keys that may be used from some networks only, as clients behind a trusted proxy meet it."""

import json
import re
import socket
from collections.abc import Iterator

import httpx2
import pytest

from gateway import Gateway, start, stop
from headgate.storage.sqlite.database import Store
from played import PlayedUpstream
from waiting import wait_for

M = "MiniMax-M2"
CHAT = {"model": M, "messages": [{"role": "user", "content": "hello"}]}
# One request of each protocol, a count and a look-up; `None` is a GET.
REQUESTS = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"model": M, "input": "hello"},
    "/v1/messages": {**CHAT, "max_tokens": 9},
    "/v1/messages/count_tokens": CHAT,
    f"/v1beta/models/{M}:generateContent": {"contents": [{"parts": [{"text": "hello"}]}]},
    f"/v1beta/models/{M}:streamGenerateContent?alt=sse": {
        "contents": [{"parts": [{"text": "hello"}]}]
    },
    "/v1/models": None,
    "/v1/key": None,
}


HOME = ("192.0.2.0/24", "2001:db8::/32", "127.0.0.2/32")


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("networks") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_TRUSTED_PROXIES="127.0.0.1",
    )
    store = Store(running.data)
    (key,) = store.keys()
    store.change_key(key.id, now_s=0, allowed_cidrs=HOME)
    store.close()
    wait_for(lambda: ask(running, "/v1/key", "203.0.113.9").status_code == 403)
    yield running
    assert stop(running) == 0


def ask(gate: Gateway, path: str, address: str) -> httpx2.Response:
    headers = {"x-forwarded-for": address, "authorization": f"Bearer {gate.key}"}
    body = REQUESTS[path]
    return gate.get(path, **headers) if body is None else gate.post(path, body, **headers)


@pytest.mark.parametrize("path", REQUESTS)
def test_a_key_is_refused_from_other_networks_in_every_protocol(gate: Gateway, path: str) -> None:
    assert ask(gate, path, "192.0.2.7").status_code == 200
    assert ask(gate, path, "2001:db8::7").status_code == 200
    refused = ask(gate, path, "203.0.113.9")
    assert refused.status_code == 403
    assert "This key may not be used from 203.0.113.9." in refused.text
    assert "--allow-from" in refused.text and "192.0.2" not in refused.text
    assert refused.headers["x-should-retry"] == "false"


def test_the_proxys_own_address_is_not_the_clients(gate: Gateway) -> None:
    assert ask(gate, "/v1/key", "192.0.2.7, 203.0.113.9").status_code == 403
    assert ask(gate, "/v1/key", "203.0.113.9, 192.0.2.7").status_code == 200


def test_a_flood_from_elsewhere_does_not_refuse_the_same_request_from_home(gate: Gateway) -> None:
    """A refusal that is repeated is answered by the request's head, which both have in common."""
    body = json.dumps(CHAT)
    request = (
        f"POST /v1/messages/count_tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gate.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    port = int(re.findall(r"\d+", gate.url)[-1])
    with (
        socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.3", 0)) as elsewhere,
        socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) as home,
    ):
        for _ in range(100):
            for sock, status in ((elsewhere, b"403"), (home, b"200")):
                sock.sendall(request)
                assert sock.recv(65536).startswith(b"HTTP/1.1 " + status)
    counted = gate.metric(
        'headgate_requests_total{dialect="anthropic",model="",outcome="forbidden"}'
    )
    assert counted >= 100
