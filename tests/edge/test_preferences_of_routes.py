"""Preferences among the operator's routes, per request, key and preset: kept, on the row, listed."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from gateway import COMMAND, Gateway, environment, start, stop
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import wait_for

FILE = """
[upstreams.dear]
preset = "openai"
base_url = "{url}"
key = "sk-dear"
region = "us"

[upstreams.cheap]
preset = "openai"
base_url = "{url}"
key = "sk-cheap"

[models."MiniMax-M3"]
routes = [
    {{ upstream = "dear", model = "dear-m3", prices = [ {{ input = "9", output = "9" }} ] }},
    {{ upstream = "cheap", model = "cheap-m3", prices = [ {{ input = "1", output = "1" }} ] }},
]

[presets."thrifty"]
model = "MiniMax-M3"
routing = "sort=price"
effort = "low"
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("preferences")
    with PlayedUpstream().running() as upstream:
        file = folder / "headgate.toml"
        file.write_text(FILE.format(url=upstream.url("openai")))
        made = start(folder / "data", "--config", str(file))
        made.upstream = upstream
        yield made
        stop(made)


def asked(gateway: Gateway, key: str = "", model: str = "MiniMax-M3", **more: object) -> str:
    """Return the upstream's model that was asked, and check that the row has the reason."""
    headers = {str(k): str(v) for k, v in more.pop("headers", {}).items()}  # type: ignore[attr-defined]
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
    if key:
        headers["authorization"] = f"Bearer {key}"
    answer = gateway.post("/v1/chat/completions", body, **headers)
    assert answer.status_code == 200, answer.text
    reader, id = UsageReader(gateway.data), answer.headers["x-request-id"]
    try:
        wait_for(lambda: reader.generation(id) is not None)
        row = reader.generation(id)
    finally:
        reader.close()
    assert row is not None
    reasons = [w for w in row.warnings if w.startswith("route (")]
    return f"{row.upstream_model} {' '.join(reasons)}".strip()


def test_without_preferences_the_operators_order_holds(gateway: Gateway) -> None:
    assert asked(gateway) == "dear-m3"


def test_a_request_prefers_by_header_or_by_body(gateway: Gateway) -> None:
    by_header = {"x-headgate-route": "sort=price"}
    assert asked(gateway, headers=by_header) == "cheap-m3 route (sort=price)"
    assert asked(gateway, provider={"sort": "price"}) == "cheap-m3 route (sort=price)"
    assert asked(gateway, provider={"only": ["Cheap"]}) == "cheap-m3 route (only=cheap)"
    assert asked(gateway, provider={"ignore": ["dear"]}) == "cheap-m3 route (ignore=dear)"
    own = {"x-headgate-route": "regions=own"}
    assert asked(gateway, headers=own) == "cheap-m3 route (regions=own)"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "hello"}),
        ("/v1/messages", {"max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}),
    ],
)
def test_the_other_protocols_take_provider_too(
    gateway: Gateway, path: str, body: dict[str, object]
) -> None:
    assert gateway.upstream is not None
    more = {"model": "MiniMax-M3", "provider": {"only": ["cheap"]}}
    assert gateway.post(path, {**body, **more}).status_code == 200
    assert json.loads(gateway.upstream.last.body)["model"] == "cheap-m3"


def test_gemini_prefers_by_header(gateway: Gateway) -> None:
    assert gateway.upstream is not None
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    path = "/v1beta/models/MiniMax-M3:generateContent"
    answer = gateway.post(path, body, **{"x-headgate-route": "only=cheap"})
    assert answer.status_code == 200
    assert json.loads(gateway.upstream.last.body)["model"] == "cheap-m3"


def test_what_leaves_no_route_is_refused_by_name(gateway: Gateway) -> None:
    ask = {"model": "MiniMax-M3", "messages": [{"role": "user", "content": "hello"}]}
    answer = gateway.post("/v1/chat/completions", {**ask, "provider": {"only": ["nobody"]}})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "only=nobody" in error["message"] and "dear (us)" in error["message"]
    bad = gateway.post("/v1/chat/completions", ask, **{"x-headgate-route": "sort=best"})
    assert bad.status_code == 400 and "x-headgate-route" in bad.json()["error"]["message"]


def test_a_preset_is_listed_and_brings_its_preferences_and_its_effort(gateway: Gateway) -> None:
    found = gateway.get("/v1/models", authorization=f"Bearer {gateway.key}").json()["data"]
    assert "thrifty" in {m["id"] for m in found}
    assert asked(gateway, model="Thrifty") == "cheap-m3 route (sort=price)"
    assert gateway.upstream is not None
    assert json.loads(gateway.upstream.last.body)["reasoning_effort"] == "low"
    one = gateway.get("/v1/models/thrifty", authorization=f"Bearer {gateway.key}")
    assert one.status_code == 200


def test_a_key_is_kept_to_its_routes_whatever_its_requests_prefer(gateway: Gateway) -> None:
    places = ("--data", str(gateway.data), "--json")
    made = subprocess.run(
        [*COMMAND, "keys", "create", "kept", "--routing", "only=cheap", *places],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    key = json.loads(made.stdout)["key"]
    assert asked(gateway, key) == "cheap-m3 route (only=cheap)"
    ask = {"model": "MiniMax-M3", "messages": [{"role": "user", "content": "hello"}]}
    wide = {**ask, "provider": {"only": ["dear"]}}
    answer = gateway.post("/v1/chat/completions", wide, authorization=f"Bearer {key}")
    assert answer.status_code == 400
    bad = subprocess.run(
        [*COMMAND, "keys", "create", "bad", "--routing", "sort=best", *places],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert bad.returncode == 1 and "`sort` is one of" in bad.stderr
