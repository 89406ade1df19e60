"""A key whose requests are masked: nothing of it reaches an upstream, and its reply has it again."""

import json
import subprocess
from collections.abc import Iterator

import httpx2
import pytest

from gateway import COMMAND, Gateway, environment, start, stop
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import PATIENCE_S, wait_for

SECRET = "echo ada@example.com +49 30 1234567 4111 1111 1111 1111"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("masked")
    with PlayedUpstream().running() as upstream:
        made = start(folder / "data", HEADGATE_UPSTREAM_URL=upstream.url("openai"))
        made.upstream = upstream
        created = subprocess.run(
            [*COMMAND, "keys", "create", "masked", "--mask", "all", "--json", "--data", str(made.data)],
            capture_output=True, text=True, env=environment(), check=True,
        )  # fmt: skip
        made.key = json.loads(created.stdout)["key"]
        yield made
        stop(made)


BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": SECRET}]},
    "/v1/responses": {"input": SECRET},
    "/v1/messages": {"max_tokens": 99, "messages": [{"role": "user", "content": SECRET}]},
    "/v1beta/models/MiniMax-M2:generateContent": {"contents": [{"role": "user", "parts": [{"text": SECRET}]}]},
}  # fmt: skip


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_of_it_reaches_the_upstream_and_the_reply_is_whole(
    gateway: Gateway, path: str, stream: bool
) -> None:
    body = dict(BODIES[path])
    if "generateContent" in path:
        path = path.replace(":g", ":streamG") + "?alt=sse" if stream else path
    else:
        body |= {"model": "MiniMax-M2", "stream": stream}
    answer = httpx2.post(
        gateway.url + path, json=body, headers={"x-goog-api-key": gateway.key}
        if "v1beta" in path else {"authorization": f"Bearer {gateway.key}"}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert gateway.upstream is not None
    sent = gateway.upstream.last.body
    for value in (b"ada@", b"1234567", b"4111"):
        assert value not in sent
    for name in (b"EMAIL_", b"PHONE_", b"CARD_"):
        assert name in sent
    assert "EMAIL_" not in answer.text and "CARD_" not in answer.text
    reader, id = UsageReader(gateway.data), answer.headers["x-request-id"]
    try:
        wait_for(lambda: reader.generation(id) is not None)
        row = reader.generation(id)
    finally:
        reader.close()
    assert row is not None and "masked (1 card, 1 email, 1 phone)" in row.warnings


def test_a_long_text_is_masked_beside_the_loop_in_requests_and_counts(gateway: Gateway) -> None:
    """From 8 kB on the thread does it: a megabyte of groups of digits takes two seconds."""
    words = [{"role": "user", "content": f"{'1234 ' * 4_000}{SECRET}"}]
    body = {"model": "MiniMax-M2", "max_tokens": 99, "messages": words}
    assert gateway.upstream is not None
    for path in ("/v1/messages", "/v1/chat/completions"):
        assert gateway.post(path, body).status_code == 200
        sent = gateway.upstream.last.body
        assert b"EMAIL_" in sent and b"ada@" not in sent and b"1234 1234" in sent
    assert gateway.post("/v1/messages/count_tokens", body).status_code == 200
