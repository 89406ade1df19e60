"""What `make suites` rests on: a proxy that changes one header, and a judgement that hides nothing.

The suites themselves (suites/run.py) need a package index and half a minute; docs/suites.md has what
they said.
"""

import http.client
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "evals" / "suites"))

from judging import judged, refused
from recording_proxy import RecordingProxy

BODY = b'{"key": "Bearer My API Key", "n": 1}'
ANSWER = (
    b"HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-type: application/json\r\n"
    b'content-length: 11\r\n\r\n{"error":1}'
)


class Once:
    """A server that keeps the bytes of one request and gives one answer."""

    def __init__(self, answer: bytes) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.answer, self.seen = answer, b""
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self.socket.accept()
        with connection, self.socket:
            while b"\r\n\r\n" not in self.seen or not self.seen.endswith(BODY):
                self.seen += connection.recv(65536)
            connection.sendall(self.answer)


@pytest.fixture
def once() -> Iterator[Once]:
    server = Once(ANSWER)
    yield server
    server.thread.join(60)


def test_the_proxy_changes_the_credential_and_nothing_else(once: Once) -> None:
    proxy = RecordingProxy(once.port, {"Bearer My API Key": "Bearer hg_live_x"})
    client = http.client.HTTPConnection("127.0.0.1", proxy.server_port, timeout=60)
    headers = {
        "Authorization": "Bearer My API Key",
        "X-Other": "Bearer My API Key",
        "User-Agent": "sdk/1",
    }
    client.request("POST", "/v1/x?a=%5B1%5D", BODY, headers)
    answer = client.getresponse()
    assert (answer.status, answer.headers["retry-after"], answer.read()) == (
        429,
        "7",
        b'{"error":1}',
    )
    client.close()
    proxy.shutdown()
    proxy.server_close()
    head, _, body = once.seen.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert body == BODY and lines[0] == "POST /v1/x?a=%5B1%5D HTTP/1.1"
    assert set(lines[1:]) == {
        f"Host: 127.0.0.1:{proxy.server_port}",
        "Accept-Encoding: identity",
        f"Content-Length: {len(BODY)}",
        "Authorization: Bearer hg_live_x",
        "X-Other: Bearer My API Key",
        "User-Agent: sdk/1",
    }
    (passed,) = proxy.passed
    assert (passed.method, passed.status, passed.error) == ("POST", 429, '{"error":1}')


def _asked(status: int, message: str) -> list[dict[str, object]]:
    said = json.dumps({"error": {"message": message}})
    return [{"method": "POST", "path": "/v1/x", "status": status, "error": said}]


def test_only_a_refusal_of_the_table_is_no_failure() -> None:
    known = "`previous_response_id` is not supported by this gateway."
    tests = [
        {"test": "a", "outcome": "passed", "why": "", "asked": _asked(200, "")},
        {"test": "b", "outcome": "failed", "why": "x", "asked": _asked(400, known)},
        {"test": "c", "outcome": "failed", "why": "x", "asked": _asked(502, known)},
        {"test": "d", "outcome": "failed", "why": "x", "asked": _asked(400, "`n` is wrong")},
        {"test": "e", "outcome": "failed", "why": "x", "asked": [{"status": 200, "error": ""}]},
        {"test": "f", "outcome": "passed", "why": "", "asked": []},
    ]
    outcome = judged("openai", "1", tests)
    assert (outcome.passed, outcome.apart) == (1, 1)
    assert outcome.refused == {"`previous_response_id`": ["b"]}
    assert [test for test, _ in outcome.failed] == ["c", "d", "e"]
    assert refused(400, "no JSON") is None
