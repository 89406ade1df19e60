"""Models of the operator's own, by file, console, admin API and command line: used, billed, reported, removed."""

import json
import re
import subprocess
import time
from collections.abc import Iterator

import httpx2
import pytest
from anthropic import Anthropic
from google import genai
from google.genai import types
from openai import OpenAI

from gateway import COMMAND, Gateway, environment, start, stop
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.reports import UsageReader
from headgate.web import app
from played import HELLO, PlayedUpstream
from waiting import PATIENCE_S, wait_for

FILE = """
[upstreams.acme]
preset = "openai"
base_url = "{url}"
key = "sk-acme"

[models."acme-coder"]
display_name = "Acme Coder"
routes = [ {{ upstream = "acme", model = "acme-coder-v2" }} ]
prices = [ {{ input = "1.00", output = "2.00", cache_read = "0.10" }} ]
context_window = 200_000
max_output = 32_000
input = ["text", "image"]
aliases = ["coder"]

[models."acme/gift"]
routes = [ {{ upstream = "acme" }} ]
free = true
"""
# What is made in each way: the name, the price of a request of 20 + 100 cached and 35 tokens.
COST = {
    "acme-coder": 20 * 1000 + 100 * 100 + 35 * 2000,
    "acme/gift": 0,
    "by-api": 120 * 3000 + 35 * 4500,
    "by-console": 120 * 500 + 35 * 1500,
    "by-cli": 20 * 1 + 100 * 0 + 35 * 1,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("own")
    with PlayedUpstream().running() as upstream:
        (folder / "headgate.toml").write_text(FILE.format(url=upstream.url("openai")))
        made = start(folder / "data", "--config", str(folder / "headgate.toml"))
        made.upstream = upstream
        try:
            by_api(made)
            by_console(made)
            by_cli(made)
            yield made
        finally:
            stop(made)


def people(gateway: Gateway) -> People:
    return People(Store(gateway.data), gateway.data)


def manager(gateway: Gateway) -> dict[str, str]:
    _, text = people(gateway).create_management_key("t", "admin", now_s=time.time())
    return {"authorization": f"Bearer {text}"}


def by_api(gateway: Gateway) -> None:
    body = {
        "id": "by-api",
        "routes": [{"upstream": "acme", "model": "other-vendor/model-9"}],
        "prices": [{"input": "3.00", "output": "4.50"}],
        "context_window": 64_000,
        "max_output": 8_000,
    }
    made = httpx2.post(
        f"{gateway.url}/admin/v1/models", json=body, headers=manager(gateway), timeout=PATIENCE_S
    )
    assert made.status_code == 201, made.text
    assert made.json()["source"] == "stored" and made.json()["advice"][0:1] != ["no price"]


def session(gateway: Gateway) -> tuple[httpx2.Client, str]:
    found, now_s = people(gateway), time.time()
    user = found.create_user(f"u{time.monotonic_ns()}", "", "admin", "", now_s=now_s)
    token = found.open_session(user.id, now_s=now_s)
    headers = {"cookie": f"{app.COOKIE}={token}", "accept": "text/html"}
    client = httpx2.Client(base_url=gateway.url, headers=headers, timeout=PATIENCE_S)
    return client, found.form_token(token)


def by_console(gateway: Gateway) -> None:
    client, csrf = session(gateway)
    form = {
        "csrf": csrf,
        "id": "by-console",
        "upstream": "acme",
        "model": "",
        "input_price": "0.50",
        "output_price": "1.50",
        "context_window": "32,000",
        "max_output": "4000",
        "effort": "",
        "aliases": "consoled",
        "display_name": "",
    }
    with client:
        saved = client.post("/own_models", data=form)
        assert saved.status_code in (200, 303), saved.text
        page = client.get("/own_models").text
    assert "by-console" in page and "acme-coder" in page and "in headgate.toml" in page


def command(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    config = str(gateway.data.parent / "headgate.toml")
    places = ("--config", config, "--data", str(gateway.data))
    return subprocess.run(
        [*COMMAND, *words, *places], capture_output=True, text=True, env=environment(), check=False
    )


def by_cli(gateway: Gateway) -> None:
    # A ten-millionth of a cent a token: the price of a thousand tokens is below a nano-dollar's rounding.
    made = command(
        gateway,
        "models",
        "add",
        "by-cli",
        "--route",
        "acme/x/y",
        "--price",
        "0.001,0.001,0",
        "--context",
        "1000000",
        "--max-output",
        "1000",
    )
    assert made.returncode == 0, made.stderr


def listed(gateway: Gateway) -> set[str]:
    found = gateway.get("/v1/models", authorization=f"Bearer {gateway.key}").json()["data"]
    return {m["id"] for m in found}


def chat(gateway: Gateway, model: str) -> tuple[str, str, str]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "hello"}]
        )
        reply = raw.parse()
    return reply.model, reply.choices[0].message.content or "", raw.headers["x-request-id"]


def responses(gateway: Gateway, model: str) -> tuple[str, str, str]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        raw = client.responses.with_raw_response.create(model=model, input="hello")
        reply = raw.parse()
    return reply.model, reply.output_text, raw.headers["x-request-id"]


def messages(gateway: Gateway, model: str) -> tuple[str, str, str]:
    with Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
        raw = client.messages.with_raw_response.create(
            model=model, max_tokens=100, messages=[{"role": "user", "content": "hello"}]
        )
        reply = raw.parse()
    return reply.model, reply.content[-1].text, raw.headers["request-id"]


def gemini(gateway: Gateway, model: str) -> tuple[str, str, str]:
    options = types.HttpOptions(base_url=gateway.url, api_version="v1beta")
    client = genai.Client(api_key=gateway.key, vertexai=False, http_options=options)
    reply = client.models.generate_content(model=model, contents="hello")
    headers = reply.sdk_http_response.headers
    id = {k.lower(): v for k, v in headers.items()}["x-request-id"]
    return reply.model_version or "", reply.text or "", id


@pytest.mark.parametrize("sdk", [chat, responses, messages, gemini])
@pytest.mark.parametrize("model", COST)
def test_each_sdk_uses_it_under_its_own_name_at_its_own_price(
    gateway: Gateway, model: str, sdk: object
) -> None:
    wait_for(lambda: model in listed(gateway))
    named, text, id = sdk(gateway, model)  # type: ignore[operator]  # one of the four above
    assert named == model and text == HELLO
    reader = UsageReader(gateway.data)
    try:
        wait_for(lambda: reader.generation(id) is not None)
        row = reader.generation(id)
    finally:
        reader.close()
    assert row is not None
    assert (row.model, row.cost_nano_usd) == (model, COST[model])


def test_it_is_in_every_list_page_and_report(gateway: Gateway) -> None:
    wait_for(lambda: set(COST) <= listed(gateway))
    cards = gateway.get("/v1/models", authorization=f"Bearer {gateway.key}").json()["data"]
    card = next(c for c in cards if c["id"] == "acme-coder")
    assert card["owned_by"] == "custom" and card["context_length"] == 200_000
    assert card["pricing"] == {
        "prompt": "0.000001",
        "completion": "0.000002",
        "input_cache_read": "0.0000001",
        "input_cache_write": "0.000001",
    }
    assert card["architecture"]["input_modalities"] == ["text", "image"]
    anthropic = {"x-api-key": gateway.key, "anthropic-version": "2023-06-01"}
    shown = gateway.get("/v1/models?limit=100", **anthropic).json()["data"]
    assert {m["id"]: m["max_tokens"] for m in shown}["acme-coder"] == 32_000
    google = gateway.get("/v1beta/models?pageSize=100", **{"x-goog-api-key": gateway.key}).json()
    assert "models/acme/gift" in {m["name"] for m in google["models"]}
    for path in ("/models.md", "/models/acme-coder.md", "/skills/minimax/SKILL.md"):
        assert "acme-coder" in gateway.get(path).text, path
    assert "$1.00" in gateway.get("/models/acme-coder.md").text
    assert "by-api" in gateway.get("/models.md").text
    assert gateway.get("/models/acme/gift.md").status_code == 200
    listing = command(gateway, "models", "--json")
    assert set(COST) <= {m["id"] for m in json.loads(listing.stdout)}
    chat(gateway, "by-api")
    usage = httpx2.get(
        f"{gateway.url}/admin/v1/usage?by=model", headers=manager(gateway), timeout=PATIENCE_S
    )
    assert "by-api" in usage.text


def test_an_alias_is_another_name_of_it(gateway: Gateway) -> None:
    assert chat(gateway, "CODER")[0] == "acme-coder"
    wait_for(lambda: "by-console" in listed(gateway))
    assert chat(gateway, "consoled")[0] == "by-console"


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (
            {"id": "x", "routes": [{"upstream": "nobody"}]},
            "$.routes[0].upstream",
            "no upstream `nobody`",
        ),
        ({"id": "x", "routes": []}, "$.routes", "length"),
        ({"id": "MiniMax-M3", "routes": [{"upstream": "acme"}]}, "$.id", "already"),
        ({"id": "acme-coder", "routes": [{"upstream": "acme"}]}, "$.id", "already"),
        (
            {"id": "x", "routes": [{"upstream": "acme"}], "aliases": ["Coder"]},
            "$.aliases",
            "acme-coder",
        ),
        (
            {
                "id": "x",
                "routes": [{"upstream": "acme"}],
                "prices": [{"input": "1e3", "output": "1"}],
            },
            "$.prices[0].input",
            "matching regex",
        ),
        (
            {
                "id": "x",
                "routes": [{"upstream": "acme"}],
                "prices": [{"input": 1.5, "output": "1"}],
            },
            "$.prices[0].input",
            "`str`",
        ),
        (
            {"id": "x", "routes": [{"upstream": "acme"}], "capabilities": {"stopp": True}},
            "$.capabilities",
            "stopp",
        ),
        ({"id": "a b", "routes": [{"upstream": "acme"}]}, "$.id", "regex"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(
    gateway: Gateway, body: dict[str, object], field: str, words: str
) -> None:
    refused = httpx2.post(
        f"{gateway.url}/admin/v1/models", json=body, headers=manager(gateway), timeout=PATIENCE_S
    )
    assert refused.status_code in (400, 409, 422), refused.text
    error = refused.json()["error"]
    assert error["field"] == field and words in error["message"], error


def test_one_that_is_removed_is_gone_and_its_requests_stay(gateway: Gateway) -> None:
    headers = manager(gateway)
    root = f"{gateway.url}/admin/v1/models"
    body = {"id": "short/lived", "routes": [{"upstream": "acme"}], "free": True}
    assert httpx2.post(root, json=body, headers=headers, timeout=PATIENCE_S).status_code == 201
    wait_for(lambda: "short/lived" in listed(gateway))
    _, _, id = chat(gateway, "short/lived")
    changed = httpx2.patch(
        f"{root}/short/lived", json={"context_window": 5000}, headers=headers, timeout=PATIENCE_S
    )
    assert changed.json()["context_window"] == 5000 and changed.json()["free"] is True
    gone = httpx2.delete(f"{root}/short/lived", headers=headers, timeout=PATIENCE_S)
    assert gone.json() == {"id": "short/lived", "removed": True}
    wait_for(lambda: "short/lived" not in listed(gateway))
    answer = gateway.post("/v1/chat/completions", {"model": "short/lived", "messages": []})
    assert answer.status_code in (400, 404)
    reader = UsageReader(gateway.data)
    try:
        wait_for(lambda: reader.generation(id) is not None)
    finally:
        reader.close()
    assert (
        httpx2.delete(f"{root}/acme-coder", headers=headers, timeout=PATIENCE_S).status_code == 409
    )
    assert httpx2.delete(f"{root}/nobody", headers=headers, timeout=PATIENCE_S).status_code == 404


def test_one_that_is_removed_in_the_console_is_gone_and_its_requests_stay(gateway: Gateway) -> None:
    client, csrf = session(gateway)
    form = {
        "csrf": csrf,
        "id": "team/brief",
        "upstream": "acme",
        "model": "",
        "free": "on",
        "aliases": "brief",
    }
    form |= dict.fromkeys(("input_price", "output_price", "context_window", "max_output"), "")
    with client:
        assert client.post("/own_models", data=form | {"display_name": ""}).status_code in (
            200,
            303,
        )
        wait_for(lambda: "team/brief" in listed(gateway))
        assert chat(gateway, "brief")[0] == "team/brief"
        _, _, id = chat(gateway, "team/brief")
        page = client.get("/own_models").text
        button = re.search(r'action="(/own_models/[^"]*brief[^"]*/remove)"', page)
        assert button is not None, page
        assert client.post(button[1], data={"csrf": "x"}).status_code == 403
        assert "team/brief" in listed(gateway)
        removed = client.post(button[1], data={"csrf": csrf}, follow_redirects=True)
        assert (
            removed.status_code == 200
            and 'action="/own_models/team/brief/remove"' not in removed.text
        )
        again = client.post(button[1], data={"csrf": csrf})
        assert again.status_code == 404 and "no model" in again.text
        fixed = client.post("/own_models/acme-coder/remove", data={"csrf": csrf})
        assert fixed.status_code == 409 and "headgate.toml" in fixed.text
        wait_for(lambda: "team/brief" not in listed(gateway))
        for name in ("team/brief", "brief"):
            asked = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
            assert gateway.post("/v1/chat/completions", asked).status_code == 404
        assert gateway.get("/models/team/brief.md").status_code == 404
        assert id in client.get("/requests").text  # what it answered is still reported


def test_check_says_what_is_missing(gateway: Gateway) -> None:
    made = command(gateway, "models", "add", "unpriced", "--route", "acme")
    assert made.returncode == 0 and "no price that holds today" in made.stderr
    checked = command(gateway, "models", "check", "unpriced")
    assert checked.returncode == 1
    for words in ("no price", "context window", "longest output", "only_named"):
        assert words in checked.stdout, checked.stdout
    assert command(gateway, "models", "remove", "unpriced").returncode == 0
    again = command(gateway, "models", "remove", "unpriced")
    assert again.returncode == 1 and "no stored model" in again.stderr


def test_a_keys_own_effort_is_sent_for_requests_that_name_none(gateway: Gateway) -> None:
    made = command(gateway, "keys", "create", "thrifty", "--effort", "low", "--json")
    key = json.loads(made.stdout)["key"]
    ask = {"model": "acme-coder", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"authorization": f"Bearer {key}"}
    for more, sent in (({}, "low"), ({"reasoning_effort": "high"}, "high")):
        answer = httpx2.post(
            f"{gateway.url}/v1/chat/completions",
            json={**ask, **more},
            headers=headers,
            timeout=PATIENCE_S,
        )
        assert answer.status_code == 200, answer.text
        assert gateway.upstream is not None
        assert json.loads(gateway.upstream.last.body)["reasoning_effort"] == sent
