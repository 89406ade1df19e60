"""From a gateway without an upstream to one that bills: upstreams added in the console and the admin API.

One gateway for the file; the embedded model stands in until the first upstream is there.
"""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from gateway import Gateway, start, stop
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.reports import UsageReader
from headgate.web import app
from played import HELLO, PlayedUpstream
from programs import embedded_model
from waiting import PATIENCE_S, wait_for

SECRET = "sk-entered-in-the-console"
ASK = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def played() -> Iterator[PlayedUpstream]:
    with PlayedUpstream().running() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(played: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = start(tmp_path_factory.mktemp("own-upstreams") / "data")
    try:
        yield made
    finally:
        stop(made)


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    """An admin who is signed in; `csrf` goes into forms."""
    people, now_s = People(Store(gateway.data), gateway.data), time.time()
    user = people.create_user("ada", "", "admin", "", now_s=now_s)
    token = people.open_session(user.id, now_s=now_s)
    headers = {"cookie": f"{app.COOKIE}={token}", "accept": "text/html"}
    with httpx2.Client(base_url=gateway.url, headers=headers, timeout=PATIENCE_S) as client:
        client.csrf = people.form_token(token)  # type: ignore[attr-defined]
        yield client


@pytest.fixture(scope="module")
def admin(gateway: Gateway) -> dict[str, str]:
    people = People(Store(gateway.data), gateway.data)
    _, text = people.create_management_key("t", "admin", now_s=time.time())
    return {"authorization": f"Bearer {text}"}


def post(client: httpx2.Client, path: str, **form: str) -> httpx2.Response:
    return client.post(path, data={"csrf": client.csrf, **form})  # type: ignore[attr-defined]


def test_an_upstream_of_the_form_is_tested_answers_and_is_billed_without_a_restart(
    gateway: Gateway, client: httpx2.Client, played: PlayedUpstream
) -> None:
    page = client.get("/start").text
    assert "Add an upstream" in page and 'name="key"' in page and "0 of 5" not in page
    assert "SmolLM2" in client.get("/usage").text
    saved = post(
        client,
        "/upstreams",
        known="",
        preset="custom",
        id="mine",
        key=SECRET,
        base_url=played.url("openai"),
        dialect="openai",
        input="1.00",
        output="2.00",
        cache_read="",
    )
    assert saved.status_code == 303, saved.text
    assert saved.headers["location"] == "/upstreams?test=mine&said=changed"
    page = client.get(saved.headers["location"]).text
    assert 'hx-trigger="submit, load"' in page and SECRET not in page
    tested = post(client, "/upstreams/mine/test").text
    assert "passed" in tested and "failed" not in tested, tested
    answer = gateway.post("/v1/chat/completions", ASK)
    assert answer.status_code == 200 and HELLO in answer.text
    assert played.last.headers["authorization"] == f"Bearer {SECRET}"
    reader = UsageReader(gateway.data)
    try:
        wait_for(lambda: reader.generation(answer.headers["x-request-id"]) is not None)
        row = reader.generation(answer.headers["x-request-id"])
    finally:
        reader.close()
    assert row is not None and row.upstream == "mine"
    assert row.cost_nano_usd == row.input_tokens * 1000 + row.output_tokens * 2000
    shown = client.get(f"/requests/{row.request_id}").text
    assert ">1.00<" in shown and "which this catalog does not have" not in shown
    assert "SmolLM2" not in client.get("/usage").text
    page = client.get("/start").text
    assert 'name="key"' not in page and "4 of 5" in page


def test_a_price_of_one_model_holds_from_the_next_request_on_and_the_one_before_is_kept(
    gateway: Gateway, client: httpx2.Client, admin: dict[str, str]
) -> None:
    form = {"model": "MiniMax-M2.5", "input": "5", "output": "$6", "cache_read": "1"}
    assert post(client, "/upstreams/mine/price", **form).status_code == 303
    ask = {**ASK, "model": "MiniMax-M2.5"}

    def dear() -> bool:
        usage = gateway.post("/v1/chat/completions", ask).json()["usage"]
        fresh = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        cached = usage["prompt_tokens"] - fresh
        wanted = (fresh * 5 + cached * 1 + usage["completion_tokens"] * 6) / 10**6
        return abs(usage["cost"] - wanted) < 1e-12

    wait_for(dear)
    today = datetime.now(UTC).date()
    yesterday = str(today - timedelta(days=1))
    model = gateway.get("/v1/models/MiniMax-M2.5", authorization=f"Bearer {gateway.key}").json()
    assert [(s["from"], s["until"]) for s in model["price_history"]] == [
        (None, yesterday),
        (str(today), None),
    ]
    assert model["price_history"][1]["pricing"] == model["pricing"]
    spans = gateway.get("/models.json").json()["headgate"]["models"]["MiniMax-M2.5"]
    assert [s["tiers"][0]["input"] for s in spans["price_history"]] == [1.0, 5.0]
    page = client.get("/models/MiniMax-M2.5", headers={"accept": "text/markdown"}).text
    assert f"| {today} | now | any | $5 | $1 | $5 | $6 |" in page, page
    assert f"| the beginning | {yesterday} | any | $1.00 |" in page
    changes = gateway.get("/admin/v1/changes", **admin)
    assert '"prices": {"from": [' in changes.text.replace('":{', '": {').replace('":[', '": [')
    refused = post(client, "/upstreams/mine/price", **{**form, "output": ""})
    assert refused.status_code == 422 and 'id="refused"' in refused.text
    refused = post(client, "/upstreams/mine/price", **{**form, "input": "1e3"})
    assert refused.status_code == 422 and "aria-invalid" in refused.text


def test_a_mistake_in_the_checklist_stays_in_the_checklist_with_what_was_typed(
    client: httpx2.Client,
) -> None:
    form = {"known": "", "preset": "custom", "id": "typed", "base_url": "", "from": "start"}
    page = post(client, "/upstreams", **form)
    assert page.status_code == 422 and 'id="step-client"' in page.text
    assert 'value="typed"' in page.text and 'name="from" value="start"' in page.text
    (mark,) = re.findall(r'<input ([^>]*aria-invalid="true"[^>]*)>', page.text)
    assert 'name="base_url"' in mark and "autofocus" in mark and "aria-describedby" in mark


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "a b"}, "id"),
        ({"id": "mine"}, "id"),
        ({"base_url": "http://10.0.0.1/v1"}, "base_url"),
        ({"base_url": ""}, "base_url"),
        ({"preset": "nobody"}, "preset"),
        ({"key": "env:HOME"}, "key"),
        ({"input": "1", "output": ""}, "output"),
        ({"input": "x", "output": "1"}, "input"),
    ],
)
def test_a_mistake_is_shown_at_its_field_and_the_key_is_not_repeated(
    client: httpx2.Client, changes: dict[str, str], field: str
) -> None:
    form = {
        "known": "",
        "preset": "custom",
        "id": "second",
        "key": "sk-second",
        "base_url": "https://a.example/v1",
        "input": "",
        "output": "",
        "cache_read": "",
    }
    refused = post(client, "/upstreams", **{**form, **changes})
    assert refused.status_code in (409, 422), refused.status_code
    at = refused.text.index('aria-invalid="true"')
    tag = refused.text[refused.text.rindex("<", 0, at) : at]
    assert f'name="{field}"' in tag, tag
    assert "sk-second" not in refused.text and 'aria-describedby="refused"' in refused.text


def test_a_new_address_needs_the_key_again(gateway: Gateway, client: httpx2.Client) -> None:
    """Else whoever may change an upstream could have its key sent to a server of theirs."""
    form = {"known": "mine", "preset": "custom", "id": "mine", "key": "", "dialect": "openai"}
    form |= {
        "base_url": "https://elsewhere.example/v1",
        "input": "",
        "output": "",
        "cache_read": "",
    }
    refused = post(client, "/upstreams", **form)
    assert refused.status_code == 422 and "enter the key again" in refused.text
    assert gateway.post("/v1/chat/completions", ASK).status_code == 200


def test_the_api_shows_changes_and_removes_it_and_never_its_key(
    gateway: Gateway, admin: dict[str, str], played: PlayedUpstream, client: httpx2.Client
) -> None:
    root = f"{gateway.url}/admin/v1/upstreams"
    with httpx2.Client(headers=admin, timeout=PATIENCE_S) as api:
        shown = api.get(f"{root}/mine").json()
        assert shown["has_key"] is True and shown["source"] == "stored"
        body = {"id": "by-api", "preset": "custom", "key": "sk-by-api", "free": True}
        body["base_url"] = played.url("openai")
        made = api.post(root, json=body)
        assert made.status_code == 201 and made.headers["location"] == "/admin/v1/upstreams/by-api"
        assert api.post(root, json=body).status_code == 409
        changed = api.patch(f"{root}/by-api", json={"rpm": 60}).json()
        assert changed["rpm"] == 60 and changed["free"] is True and changed["has_key"] is True
        moved = api.patch(f"{root}/by-api", json={"preset": "openai"})
        assert moved.status_code == 422 and moved.json()["error"]["field"] == "$.key"
        assert api.delete(f"{root}/by-api").json() == {"id": "by-api", "removed": True}
        assert api.get(f"{root}/by-api").status_code == 404
        assert api.delete(f"{root}/by-api").status_code == 404
        log = client.get("/changes").text
        for text in (made.text, json.dumps(shown), json.dumps(changed), log):
            assert "sk-by-api" not in text and SECRET not in text
        assert "Upstream saved" in log and "Upstream removed" in log


def test_no_file_of_the_data_directory_has_the_key(gateway: Gateway) -> None:
    for file in gateway.data.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file


def test_without_it_the_model_of_this_machine_answers_again(
    gateway: Gateway, client: httpx2.Client
) -> None:
    assert post(client, "/upstreams/mine/remove").headers["location"].startswith("/upstreams")

    def local() -> bool:
        answer = gateway.post("/v1/chat/completions", {**ASK, "max_tokens": 4})
        return answer.status_code == 200 and HELLO not in answer.text

    wait_for(local)
    assert post(client, "/upstreams/mine/remove").status_code == 404


def test_the_embedded_model_starts_only_when_the_last_stored_upstream_is_removed(
    gateway: Gateway, admin: dict[str, str], played: PlayedUpstream
) -> None:
    body = {"id": "kept", "preset": "custom", "base_url": played.url("openai"), "key": SECRET}
    made = httpx2.post(
        f"{gateway.url}/admin/v1/upstreams", json=body, headers=admin, timeout=PATIENCE_S
    )
    assert made.status_code == 201, made.text
    stop(gateway)
    again = start(gateway.data)
    try:
        assert "upstream   kept" in again.printed and "SmolLM2" not in again.printed
        again.key = gateway.key
        answer = again.post("/v1/chat/completions", ASK)
        assert answer.status_code == 200 and HELLO in answer.text
        embedded_model()
        kept = f"{again.url}/admin/v1/upstreams/kept"
        assert httpx2.delete(kept, headers=admin, timeout=PATIENCE_S).status_code == 200

        def stands_in() -> bool:
            """The embedded model was not started with the gateway, and is now that nothing else is left."""
            answer = again.post("/v1/chat/completions", {**ASK, "max_tokens": 4})
            return (
                answer.status_code == 200
                and answer.headers["x-headgate-upstream"] == "local/smollm2-135m"
            )

        wait_for(stands_in)
        log = (again.data.parent / f"{again.data.name}.log").read_text()
        assert log.count("no upstream is left: SmolLM2-135M") == 1, log
    finally:
        assert stop(again) == 0
