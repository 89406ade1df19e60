"""The pages of keys: what each role may do with which, what is shown once, and what the lines say."""

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import apsw
import httpx2
import pytest
from playwright.sync_api import Page, expect

from browsing import chromium, profile
from consoles import Site, served, signed_in
from fake_upstream import HELLO, FakeUpstream
from gateway import Gateway, start, stop
from headgate.cli import tool, tool_files, tools
from headgate.policy.keys import Key
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.reports import UsageReader
from headgate.web import app
from headgate.web.console import audit_log_page, form_fields, keys_page, snippets
from headgate.web.site import prose
from programs import needs

HOSTILE = "<script>alert(1)</script>"
KEY = "hg_live_" + "a" * 57


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(tmp_path / "data", (*keys_page.RULES, *audit_log_page.RULES)) as site:
        for id in ("acme", "other"):
            site.console_context.store.create_account(id, id.title(), now_s=time.time())
        yield site


def post(client: httpx2.Client, path: str, **fields: object) -> httpx2.Response:
    return client.post(path, data={"csrf": client.csrf, **fields})  # type: ignore[attr-defined]


def a_key(site: Site, account: str = "", name: str = "one", **terms: object) -> Key:
    return site.console_context.store.create_key(
        name, now_s=time.time() - 60, account=account, **terms
    )[0]  # type: ignore[arg-type]


def all_keys(site: Site) -> list[Key]:
    return site.console_context.store.keys()


def found(site: Site, id: str) -> Key:
    return {k.id: k for k in all_keys(site)}[id]


def text_of(page: str) -> str:
    """The key that a page shows; "" when there is none."""
    shown = re.search(r"hg_live_[0-9A-Za-z]{57}", page)
    return shown[0] if shown else ""


def settle(site: Site, *rows: LedgerRow) -> None:
    ledger = Ledger(site.data)

    async def all_of_them() -> None:
        for row in rows:
            await ledger.settle(row)

    asyncio.run(all_of_them())
    ledger.close()


def row(key: Key, n: int) -> LedgerRow:
    return LedgerRow(
        request_id=f"{n:024x}",
        key_id=key.id,
        account=key.account,
        dialect="openai",
        model="MiniMax-M3",
        outcome="stop",
        basis="upstream",
        started_at=time.time(),
        ended_at=time.time(),
        cost_nano_usd=1_250_000_000,
    )


# --- making ---------------------------------------------------------------------------------------


def test_a_new_key_is_shown_in_the_answer_that_made_it_and_never_again(site: Site) -> None:
    client = signed_in(site)
    number = re.findall(r'name="number" value="([^"]+)"', client.get("/api_keys").text)[0]
    fields = {"name": "ci", "number": number, "models_of": "all"}
    made = post(client, "/api_keys", **fields)
    text = text_of(made.text)
    assert site.console_context.store.ring().authenticate(text, time.time()) is not None
    assert made.headers["cache-control"] == "no-store"
    again = post(client, "/api_keys", **fields)  # as a browser does when the answer is loaded anew
    id = text[8:16]
    assert (again.status_code, again.headers["location"]) == (303, f"/api_keys/{id}")
    assert len(site.console_context.store.keys()) == 1
    for path in ("/api_keys", f"/api_keys/{id}", "/changes"):
        page = client.get(path)
        assert page.status_code == 200 and not text_of(page.text) and id in page.text


def test_what_the_form_says_is_what_the_key_may_and_the_record_says_so(site: Site) -> None:
    client = signed_in(site)
    post(
        client,
        "/api_keys",
        name="ci",
        account="acme",
        models_of="these",
        models=["MiniMax-M2", "MiniMax-M3"],
        budget_usd="$1,000.25",
        budget_period="month",
        budget_zone="Asia/Shanghai",
        rpm="60",
        tpm="1,000",
        concurrency="",
        on_disconnect="drain",
        expires="2099-01-31T12:00",
        allowed_cidrs="10.0.0.0/8 192.0.2.7",
    )
    (key,) = site.console_context.store.keys()
    assert (key.models, key.budget_nano, key.budget_period, key.budget_zone) == (
        ("MiniMax-M2", "MiniMax-M3"),
        1_000_250_000_000,
        "month",
        "Asia/Shanghai",
    )
    assert (key.rpm, key.tpm, key.concurrency, key.on_disconnect) == (60, 1000, None, "drain")
    assert (key.account, key.expires_s) == ("acme", 4073544000.0)
    assert key.allowed_cidrs == ("10.0.0.0/8", "192.0.2.7/32")
    (change,) = site.console_context.people.changes()
    assert (change.action, change.subject, change.account) == ("key.create", key.id, "acme")
    assert change.detail["budget_nano"] == 1_000_250_000_000
    assert change.detail["name"] == "ci" and "concurrency" not in change.detail


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "printable"),
        ({"budget_usd": "1e3"}, "not an amount in dollars"),
        ({"budget_usd": "-1"}, "not an amount in dollars"),
        ({"rpm": "1.5"}, "not a limit"),
        ({"allowed_cidrs": "10.0.0.1/8"}, "is not a network"),
        ({"expires": "2001-01-01T00:00"}, "over already"),
        ({"expires": "soon"}, "no time"),
        ({"budget_zone": "Mars/Base"}, "No time zone"),
        ({"models_of": "these"}, "Choose one model"),
        ({"models": "MiniMax-M3"}, "all models or these"),
        ({"models_of": "these", "models": HOSTILE}, "There is no model"),
        ({"account": "nobody"}, "<code>nobody</code> does not exist"),
        ({"revoked_s": "1"}, "no field revoked_s"),
        ({"rotation_group": "abc"}, "no field rotation_group"),
    ],
)
def test_a_form_that_cannot_be_so_is_shown_again_with_the_reason(
    site: Site, fields: dict[str, str], said: str
) -> None:
    answer = post(signed_in(site), "/api_keys", **{"name": "kept", **fields})
    assert answer.status_code == 422
    assert said in unescape(answer.text) and "<script>alert" not in answer.text
    assert fields.get("name") == "" or 'value="kept"' in answer.text
    assert site.console_context.store.keys() == []


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 200), ("member", 200), ("viewer", 403), ("", 401)]
)
def test_only_who_may_make_keys_makes_one(site: Site, role: str, status: int) -> None:
    client = signed_in(site, role, "acme") if role else site.open()  # type: ignore[arg-type]
    fields = {"name": "x"} if not role else {"name": "x", "csrf": client.csrf}  # type: ignore[attr-defined]
    assert client.post("/api_keys", data=fields).status_code == status
    assert len(site.console_context.store.keys()) == (status == 200)


def test_a_members_key_is_of_their_account_and_no_field_says_otherwise(site: Site) -> None:
    client = signed_in(site, "member", "acme")
    assert 'name="account"' not in client.get("/api_keys").text
    assert post(client, "/api_keys", name="x", account="other").status_code == 422
    key = a_key(site, "acme")
    assert post(client, f"/api_keys/{key.id}", account="other").status_code == 422
    assert post(client, "/api_keys", name="mine").status_code == 200
    assert [k.account for k in all_keys(site)] == ["acme", "acme"]


@pytest.mark.parametrize("role", ["member", "viewer"])
def test_keys_of_others_do_not_exist_for_who_is_no_admin(site: Site, role: str) -> None:
    theirs, nobodys, own = a_key(site, "other"), a_key(site, ""), a_key(site, "acme")
    client = signed_in(site, role, "acme")  # type: ignore[arg-type]
    for query in ("", "?account=other", "?account=-", f"?text={theirs.id}"):
        page = client.get(f"/api_keys{query}").text
        assert theirs.id not in page.replace(f'value="{theirs.id}"', "") and nobodys.id not in page
    assert client.get(f"/api_keys/{own.id}").status_code == 200
    for key in (theirs, nobodys):
        assert client.get(f"/api_keys/{key.id}").status_code == 404
        for action in ("", "/rotate", "/revoke"):
            answer = post(client, f"/api_keys/{key.id}{action}", name="taken", overlap_s="0")
            assert answer.status_code == (404 if role == "member" else 403)
    assert len(site.console_context.store.keys()) == 3
    assert all(k.name == "one" and k.revoked_s is None for k in all_keys(site))


def test_a_form_without_its_token_changes_nothing(site: Site) -> None:
    key, client = a_key(site), signed_in(site)
    for action in ("", "/rotate", "/revoke"):
        assert client.post(f"/api_keys/{key.id}{action}", data={}).status_code == 403
    assert found(site, key.id) == key


# --- changing, rotating, revoking -----------------------------------------------------------------


def test_a_change_keeps_what_was_not_said_and_records_what_was_and_is(site: Site) -> None:
    key = a_key(site, "acme", rpm=5, budget_nano=10**9, expires_s=4073544030.5)
    client = signed_in(site, "member", "acme")
    answer = post(client, f"/api_keys/{key.id}", rpm="7", name="two", expires="2099-01-31T12:00")
    assert answer.status_code == 303
    new = found(site, key.id)
    assert (new.rpm, new.name, new.budget_nano) == (7, "two", 10**9)
    assert new.expires_s == 4073544030.5  # what the form shows has no seconds
    (change,) = site.console_context.people.changes()
    assert change.detail == {"name": {"from": "one", "to": "two"}, "rpm": {"from": 5, "to": 7}}
    assert "Requests a minute: 5 → 7" in client.get("/changes").text
    post(client, f"/api_keys/{key.id}", rpm="7")
    assert len(site.console_context.people.changes()) == 1


def test_a_rotation_shows_the_new_key_and_lets_the_old_one_work_for_a_while(site: Site) -> None:
    key, client = a_key(site, "acme", rpm=5), signed_in(site, "member", "acme")
    number = re.findall(r'name="number" value="([^"]+)"', client.get(f"/api_keys/{key.id}").text)[0]
    made = post(client, f"/api_keys/{key.id}/rotate", overlap_s="3600", number=number)
    text = text_of(made.text)
    new = site.console_context.store.ring().authenticate(text, time.time())
    assert new is not None and (new.rpm, new.rotation_group, new.account) == (5, key.id, "acme")
    ends_s = found(site, key.id).revoked_s
    assert ends_s is not None and 3500 < ends_s - time.time() < 3700
    assert "ends soon" in client.get(f"/api_keys/{key.id}").text
    again = post(client, f"/api_keys/{key.id}/rotate", overlap_s="3600", number=number)
    assert again.headers["location"] == f"/api_keys/{new.id}"
    assert post(client, f"/api_keys/{key.id}/rotate", overlap_s="99999999").status_code == 422
    assert len(site.console_context.store.keys()) == 2


def test_a_revoked_key_opens_nothing_and_has_no_forms(site: Site) -> None:
    key, client = a_key(site), signed_in(site)
    assert post(client, f"/api_keys/{key.id}/revoke").status_code == 303
    assert not found(site, key.id).good(time.time())
    page = client.get(f"/api_keys/{key.id}").text
    assert "revoked" in page and f'action="/api_keys/{key.id}' not in page
    assert post(client, f"/api_keys/{key.id}", name="x").status_code == 409
    assert [c.action for c in site.console_context.people.changes()] == ["key.revoke"]


# --- what is shown --------------------------------------------------------------------------------


def test_a_key_shows_what_its_family_spent_of_the_budget_and_its_last_requests(site: Site) -> None:
    key = a_key(site, "acme", budget_nano=4 * 10**9, budget_period="month")
    rotated = site.console_context.store.rotate(key.id, now_s=time.time() - 5, overlap_s=3600)
    assert rotated is not None
    settle(site, row(key, 1), row(rotated[0], 2), row(a_key(site, "other"), 3))
    client = signed_in(site, "viewer", "acme")
    page = client.get(f"/api_keys/{key.id}").text
    assert "$2.50" in page and "$4.00" in page and "resets" in page
    assert f"/requests/{1:024x}" in page and f"/requests/{2:024x}" not in page
    table = client.get("/api_keys").text
    assert table.count('value="2500000000" max="4000000000"') == 2
    assert time.strftime("%Y-%m-%d", time.gmtime()) in table


def test_the_list_is_narrowed_by_state_account_and_text(site: Site) -> None:
    acme, gone = a_key(site, "acme", "alpha"), a_key(site, "", "beta")
    site.console_context.store.revoke(gone.id, now_s=time.time() - 1)
    client = signed_in(site)

    def ids(query: str) -> set[str]:
        page = client.get(f"/api_keys?{query}").text
        return {k.id for k in (acme, gone) if f"/api_keys/{k.id}" in page}

    assert ids("") == {acme.id, gone.id}
    assert ids("state=revoked") == {gone.id} == ids("account=-") == ids("text=BET")
    assert ids("account=acme") == {acme.id} == ids(f"text=hg_live_{acme.id}")
    assert ids("text=%25_%27") == set()


def test_a_thousand_keys_are_shown_a_hundred_at_a_time(site: Site) -> None:
    for n in range(101):
        a_key(site, "", f"key-{n:03}")
    client = signed_in(site)
    first, second = client.get("/api_keys").text, client.get("/api_keys?page=1").text
    assert first.count("<tr>") == 101 and second.count("<tr>") == 2
    assert client.get("/api_keys?page=99").text.count("<tr>") == 2


def test_no_name_becomes_part_of_a_page(site: Site) -> None:
    key, client = a_key(site, "", HOSTILE), signed_in(site)
    post(client, f"/api_keys/{key.id}", name=HOSTILE + "2")
    made = post(client, "/api_keys", name=HOSTILE).text
    for page in (
        made,
        *(client.get(p).text for p in ("/api_keys", f"/api_keys/{key.id}", "/changes")),
    ):
        assert "<script>alert" not in page and "&lt;script&gt;" in page


# --- the lines to copy ----------------------------------------------------------------------------


def test_every_example_has_the_address_the_model_and_the_key_in_place_of_a_variable() -> None:
    tabs = snippets.tabs("https://gate.example", "MiniMax-M2", KEY)
    assert [len(t.snippets) for t in tabs] == [len(prose.LANGUAGES)] * len(prose.PROTOCOLS)
    for snippet in (s for t in tabs for s in t.snippets):
        assert snippet.text.count(KEY) == 1 and "https://gate.example" in snippet.text
        assert "MiniMax-M2" in snippet.text and "API_KEY" not in snippet.text
    for snippet in (s for t in snippets.tabs("https://gate.example", "M") for s in t.snippets):
        assert "API_KEY" in snippet.text and "hg_live" not in snippet.text


def test_every_tool_of_connect_has_its_lines() -> None:
    known = [
        snippets.Agent(
            t.name,
            t.title,
            t.program,
            bool(t.files),
            t.runs,
            t.key_in == tool.KEY_VARIABLE
            and not any(map(tool_files.needs_key, t.files))
            and bool(t.files),
        )
        for t in tools.TOOLS
    ]
    assert list(snippets.AGENTS) == known and snippets.VARIABLE == tool.KEY_VARIABLE
    for snippet in snippets.agents("https://gate.example", "MiniMax-M2", KEY):
        assert snippet.text.startswith("headgate ") and KEY in snippet.text
        assert "https://gate.example" in snippet.text


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with FakeUpstream() as upstream:
        running = start(
            tmp_path_factory.mktemp("keys") / "data",
            HEADGATE_UPSTREAM_URL=upstream.openai_url,
            HEADGATE_UPSTREAM_KEY="sk-none",
        )
        yield running
        stop(running)


@pytest.mark.parametrize("language", ["curl", "Python"])
@pytest.mark.parametrize("protocol", list(prose.PROTOCOLS))
def test_an_example_gets_an_answer_as_it_was_copied(
    gate: Gateway, protocol: str, language: str
) -> None:
    needs("curl")
    tab = next(t for t in snippets.tabs(gate.url, "MiniMax-M3", gate.key) if t.protocol == protocol)
    text = next(s.text for s in tab.snippets if s.title == language)
    line = ["bash", "-c", text] if language == "curl" else [sys.executable, "-c", text]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and '"error":{' not in done.stdout


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture
def page(gate: Gateway) -> Iterator[Page]:
    """The list of keys, of a new admin; no script may fail, and no policy be broken."""
    store = Store(gate.data)
    people, now_s = People(store, gate.data), time.time()
    user = people.create_user(f"admin-{time.monotonic_ns()}", "", "admin", "", now_s=now_s)
    token = people.open_session(user.id, now_s=now_s)
    store.close()
    with chromium() as browser:
        context = profile(browser)
        secure = gate.url.replace("http:", "https:")  # a loopback address counts as one
        context.add_cookies([{"name": app.COOKIE, "value": token, "url": secure, "secure": True}])
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if "Policy" in m.text else None)
        page.goto(f"{gate.url}/api_keys?new=1")
        yield page
        assert faults == []


def make_in(page: Page) -> None:
    page.fill("#new input[name=name]", "from a browser")
    page.click("#new form button")


def test_a_test_request_with_the_new_key_is_answered_and_in_the_books(
    page: Page, gate: Gateway
) -> None:
    make_in(page)
    key = page.text_content("#key") or ""
    page.click("#send")
    expect(page.locator("#link")).to_be_visible()
    expect(page.locator("#status")).to_have_text("Status 200")
    expect(page.locator("#text")).to_contain_text(HELLO)
    id = (page.get_attribute("#link", "href") or "").removeprefix("/requests/")
    row = UsageReader(gate.data).generation(id)
    assert row is not None and key.startswith(f"hg_live_{row.key_id}")


def test_loading_the_answer_again_leads_to_the_keys_page_and_makes_no_other(
    page: Page, gate: Gateway
) -> None:
    make_in(page)
    id = (page.text_content("#key") or "")[8:16]
    count = len(Store(gate.data).keys())
    page.reload()
    expect(page).to_have_url(f"{gate.url}/api_keys/{id}")
    expect(page.locator("#key")).to_have_count(0)
    assert len(Store(gate.data).keys()) == count


def test_a_tab_shows_its_example_and_a_language_holds_for_all(page: Page) -> None:
    make_in(page)
    expect(page.locator("#openai-bash")).to_be_visible()
    page.click("label[for=t-openai-python]")
    page.click("label[for=t-gemini]")
    expect(page.locator("#gemini-python")).to_be_visible()
    expect(page.locator("pre:visible")).to_have_count(1)
    page.click("label[for=t-agents]")
    expect(page.locator(".agent:visible")).to_have_count(len(snippets.AGENTS))


def test_a_rotation_that_the_disk_refused_can_be_sent_again(site: Site) -> None:
    client, key = signed_in(site), a_key(site)
    fields = {"number": "n" * 16, "overlap_s": "0"}
    with contextlib.closing(apsw.Connection(f"{site.data}/headgate.db")) as other:
        other.execute(
            "create trigger full before insert on keys begin select raise(abort, 'full'); end"
        )
        assert post(client, f"/api_keys/{key.id}/rotate", **fields).status_code == 503
        other.execute("drop trigger full")
    assert text_of(post(client, f"/api_keys/{key.id}/rotate", **fields).text)


def test_a_forms_number_takes_no_more_room_than_ours(site: Site) -> None:
    client = signed_in(site)
    post(client, "/api_keys", name="one", number="9" * 100_000)
    assert max(len(n) for n in keys_page._taken._led) <= form_fields.MAX_NUMBER
