"""A route that leads to another model than the one asked for: said, billed and shown as it is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import Gateway, start, stop
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import wait_for

ASK = {"messages": [{"role": "user", "content": "hello"}]}
FILE = """
retired_to_successor = true
reply_model = "{reply_model}"

[upstreams.own]
preset = "minimax"
base_url = "{url}"
key = "sk-own"

[models."MiniMax-M2"]
routes = [ {{ upstream = "own", model = "gpt-5", prices = [ {{ input = "9.00", output = "10.00" }} ] }} ]

[models."MiniMax-M2.1"]
routes = [ {{ upstream = "own", model = "prod-m2.1" }} ]
"""


def started(tmp_path: Path, upstream: PlayedUpstream, reply_model: str) -> Gateway:
    file = tmp_path / "headgate.toml"
    file.write_text(FILE.format(url=upstream.url("openai"), reply_model=reply_model))
    return start(tmp_path / "data", "--config", str(file))


@pytest.fixture(scope="module")
def upstream() -> Iterator[PlayedUpstream]:
    with PlayedUpstream().running() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: PlayedUpstream
) -> Iterator[Gateway]:
    made = started(tmp_path_factory.mktemp("other"), upstream, "requested")
    yield made
    stop(made)


@pytest.fixture(scope="module")
def naming(tmp_path_factory: pytest.TempPathFactory, upstream: PlayedUpstream) -> Iterator[Gateway]:
    made = started(tmp_path_factory.mktemp("naming"), upstream, "served")
    yield made
    stop(made)


def row_of(gateway: Gateway, request_id: str) -> LedgerRow:
    reader = UsageReader(gateway.data)
    try:
        wait_for(lambda: reader.generation(request_id) is not None)
        row = reader.generation(request_id)
    finally:
        reader.close()
    assert row is not None
    return row


def ask(gateway: Gateway, model: str, stream: bool = False) -> tuple[str, str, str]:
    """Return the warnings, the body and the request's id."""
    answer = gateway.post("/v1/chat/completions", {**ASK, "model": model, "stream": stream})
    assert answer.status_code == 200, answer.text
    headers = answer.headers
    return headers.get("x-headgate-warnings", ""), answer.text, headers["x-request-id"]


def test_a_retired_model_is_answered_by_its_successor_at_its_price(
    gateway: Gateway, upstream: PlayedUpstream
) -> None:
    warnings, text, id = ask(gateway, "MiniMax-M2.7")
    assert "model (answered by MiniMax-M3.1-Flash)" in warnings
    assert json.loads(upstream.last.body)["model"] == "MiniMax-M3.1-Flash"
    assert json.loads(text)["model"] == "MiniMax-M2.7"
    row = row_of(gateway, id)
    assert (row.model, row.upstream_model) == ("MiniMax-M2.7", "MiniMax-M3.1-Flash")
    assert "model (answered by MiniMax-M3.1-Flash)" in row.warnings
    # 20 fresh tokens at 150 nano-dollars, 100 cached at 15, 35 of output at 600
    assert row.cost_nano_usd == 20 * 150 + 100 * 15 + 35 * 600


def test_a_route_to_another_model_says_so_and_has_prices_of_its_own(gateway: Gateway) -> None:
    warnings, _, id = ask(gateway, "MiniMax-M2")
    assert "model (answered by gpt-5)" in warnings
    row = row_of(gateway, id)
    assert row.cost_nano_usd == 120 * 9000 + 35 * 10_000


def test_a_name_of_ones_own_for_the_same_model_is_no_other_model(gateway: Gateway) -> None:
    warnings, _, _ = ask(gateway, "MiniMax-M2.1")
    assert "answered by" not in warnings


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_has_the_name_of_the_model_that_answers_where_that_is_set(
    naming: Gateway, stream: bool
) -> None:
    _, text, _ = ask(naming, "MiniMax-M2.5", stream)
    assert '"model":"MiniMax-M3.1-Flash"' in text and "MiniMax-M2.5" not in text
    _, text, _ = ask(naming, "MiniMax-M3", stream)
    assert '"model":"MiniMax-M3"' in text


BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {**ASK, "model": "MiniMax-M2.5"},
    "/v1/responses": {"input": "hello", "model": "MiniMax-M2.5"},
    "/v1/messages": {**ASK, "model": "MiniMax-M2.5", "max_tokens": 9},
    "/v1beta/models/MiniMax-M2.5:generateContent": {"contents": [{"parts": [{"text": "hello"}]}]},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_every_protocol_warns_and_names_the_model_as_the_setting_says(
    gateway: Gateway, naming: Gateway, path: str, stream: bool
) -> None:
    body = dict(BODIES[path])
    if "generateContent" in path:
        path = path.replace(":generate", ":streamGenerate") + "?alt=sse" if stream else path
    else:
        body["stream"] = stream
    for gate, named in ((gateway, "MiniMax-M2.5"), (naming, "MiniMax-M3.1-Flash")):
        answer = gate.post(path, body)
        assert answer.status_code == 200, answer.text
        assert "model (answered by MiniMax-M3.1-Flash)" in answer.headers["x-headgate-warnings"]
        names = set(re.findall(r'"(?:model|modelVersion)":"([^"]+)"', answer.text))
        assert names == {named}, answer.text[:500]
