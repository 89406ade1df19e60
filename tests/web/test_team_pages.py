"""Accounts, people, management keys and the record of changes: who may, what is kept, what is told."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from consoles import Site, served, signed_in
from headgate.policy.access import Role, User
from headgate.web.app import Rule
from headgate.web.auth import passwords
from headgate.web.console import accounts_page, audit_log_page, keys_page, people_page

HOSTILE = "<script>alert(1)</script>"
RULES = (*keys_page.RULES, *accounts_page.RULES, *people_page.RULES, *audit_log_page.RULES)
MANAGED = (*accounts_page.RULES, *people_page.RULES)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(tmp_path / "data", RULES) as site:
        site.console_context.store.create_account("acme", "Acme", now_s=time.time() - 60)
        yield site


def post(client: httpx2.Client, path: str, **fields: object) -> httpx2.Response:
    return client.post(path, data={"csrf": client.csrf, **fields})  # type: ignore[attr-defined]


def user(site: Site, name: str = "lin", role: Role = "member", account: str = "acme") -> User:
    return site.console_context.people.create_user(name, "", role, account, now_s=time.time())


def shown(page: str, id: str) -> str:
    """The text of an element."""
    found = re.search(rf'id="{id}">([^<]+)<', page)
    return found[1] if found else ""


@pytest.mark.parametrize("role", ["member", "viewer", ""])
@pytest.mark.parametrize("rule", MANAGED, ids=lambda r: f"{r.method} {r.path}")
def test_only_an_admin_opens_what_is_managed(site: Site, rule: Rule, role: str) -> None:
    client = signed_in(site, role, "acme") if role else site.open()  # type: ignore[arg-type]
    someone = user(site)
    path = rule.path.replace("{id}", "acme" if "accounts" in rule.path else someone.id)
    before = (site.console_context.store.accounts(), site.console_context.people.users())
    data = {"name": "x", "id": "x", "role": "admin", "csrf": getattr(client, "csrf", "")}
    answer = client.request(rule.method, path, data=data if rule.method == "POST" else None)
    assert answer.status_code == (403 if role else 303 if rule.method == "GET" else 401)
    assert (site.console_context.store.accounts(), site.console_context.people.users()) == before
    assert site.console_context.people.management_keys() == []


# --- accounts -------------------------------------------------------------------------------------


def test_an_account_is_made_changed_and_closed_and_each_is_recorded(site: Site) -> None:
    client = signed_in(site)
    made = post(
        client, "/accounts", id="mobile", name="Mobile", budget_usd="10.5", budget_period="day"
    )
    assert made.headers["location"].startswith("/accounts/mobile")
    post(client, "/accounts/mobile", budget_usd="20", budget_period="month")
    post(client, "/accounts/mobile", budget_usd="20")
    post(client, "/accounts/mobile/close")
    account = next(a for a in site.console_context.store.accounts() if a.id == "mobile")
    assert (account.name, account.budget_nano, account.budget_period) == (
        "Mobile",
        20 * 10**9,
        "month",
    )
    assert not account.good(time.time())
    closed, changed, created = site.console_context.people.changes(account="mobile")
    assert [c.action for c in (created, changed, closed)] == [
        "account.create",
        "account.change",
        "account.close",
    ]
    assert created.detail == {
        "name": "Mobile",
        "budget_nano": 10_500_000_000,
        "budget_period": "day",
    }
    assert changed.detail["budget_nano"] == {"from": 10_500_000_000, "to": 20 * 10**9}
    assert post(client, "/accounts/mobile", name="x").status_code == 409
    assert client.get("/accounts/mobile").status_code == 200
    assert client.get("/accounts/nobody").status_code == 404


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": "No Slug"}, "a-z"),
        ({"id": "x", "budget_usd": "lots"}, "not an amount in dollars"),
        ({"id": "x", "closed_s": "1"}, "no field closed_s"),
    ],
)
def test_an_account_that_cannot_be_so_is_not_made(
    site: Site, fields: dict[str, str], said: str
) -> None:
    answer = post(signed_in(site), "/accounts", **fields)
    assert answer.status_code == 422 and said in answer.text
    assert [a.id for a in site.console_context.store.accounts()] == ["acme"]


def test_the_id_of_an_account_cannot_be_used_again(site: Site) -> None:
    answer = post(signed_in(site), "/accounts", id="acme")
    assert (
        answer.status_code == 409
        and "There is an account <code>acme</code> already." in answer.text
    )
    assert [a.id for a in site.console_context.store.accounts()] == ["acme"]


# --- people ---------------------------------------------------------------------------------------


def test_a_new_user_has_a_password_that_is_shown_once_and_opens_the_console(site: Site) -> None:
    client = signed_in(site)
    number = re.findall(r'name="number" value="([^"]+)"', client.get("/people").text)[0]
    fields = {"name": "lin", "role": "member", "account": "acme", "number": number}
    made = post(client, "/people", **fields)
    assert made.status_code == 200 and made.headers["cache-control"] == "no-store"
    password = shown(made.text, "password")
    found = site.console_context.people.sign_in("lin")
    assert found is not None and passwords.matches(found[1], password)
    assert (found[0].role, found[0].account) == ("member", "acme")
    again = post(client, "/people", **fields)
    assert again.headers["location"] == f"/people/{found[0].id}"
    signing = site.open(**{"x-headgate-host": "127.0.0.1"})
    entered = signing.post("/sign-in", data={"name": "lin", "password": password})
    assert entered.status_code == 303
    (change,) = (c for c in site.console_context.people.changes() if c.action == "user.create")
    assert change.detail == {"name": "lin", "role": "member"}
    assert post(client, "/people", name="LIN", role="viewer").status_code == 409


def test_drawn_passwords_are_taken_by_our_own_rules_and_differ() -> None:
    drawn = {people_page.new_password() for _ in range(200)}
    assert len(drawn) == 200 and {passwords.problem(p, "lin") for p in drawn} == {""}


def test_another_role_ends_the_sessions_and_is_recorded_with_the_old_one(site: Site) -> None:
    lin = user(site)
    token = site.console_context.people.open_session(lin.id, now_s=time.time())
    client = signed_in(site)
    post(client, f"/people/{lin.id}", role="member", account="acme")
    assert site.console_context.people.session(token, now_s=time.time()) is not None
    post(client, f"/people/{lin.id}", role="viewer", account="")
    assert site.console_context.people.session(token, now_s=time.time()) is None
    (change,) = site.console_context.people.changes()
    assert change.detail == {
        "name": "lin",
        "role": {"from": "member", "to": "viewer"},
        "account": {"from": "acme", "to": ""},
    }
    assert "Role: member → viewer" in client.get("/changes").text
    for fields in ({"role": "owner"}, {"account": "nobody"}, {"password": "x"}, {"issuer": "x"}):
        assert post(client, f"/people/{lin.id}", **fields).status_code == 422


def test_a_password_is_drawn_anew_and_nobodys_that_a_provider_signs_in(site: Site) -> None:
    lin, client = user(site), signed_in(site)
    password = shown(post(client, f"/people/{lin.id}/password").text, "password")
    found = site.console_context.people.sign_in("lin")
    assert found is not None and passwords.matches(found[1], password)
    chen = site.console_context.people.from_provider(
        "https://id.example", "1", "chen", "c@example.com", "member", "acme", now_s=time.time()
    )
    assert chen is not None
    assert post(client, f"/people/{chen.id}/password").status_code == 409
    page = client.get(f"/people/{chen.id}").text
    assert "https://id.example" in page and f"/people/{chen.id}/password" not in page
    assert [c.action for c in site.console_context.people.changes()] == ["user.password"]
    assert password not in str(site.console_context.people.changes())


def test_the_last_admin_stays(site: Site) -> None:
    client = signed_in(site)
    (me,) = site.console_context.people.users()
    for path, fields in ((f"/people/{me.id}/close", {}), (f"/people/{me.id}", {"role": "viewer"})):
        answer = post(client, path, **fields)
        assert answer.status_code == 409 and "last admin" in answer.text
    lin = user(site)
    assert post(client, f"/people/{lin.id}/close").status_code == 303
    assert post(client, f"/people/{lin.id}", role="viewer").status_code == 409
    assert [c.action for c in site.console_context.people.changes()] == ["user.close"]


def test_a_management_key_is_shown_once_and_can_be_revoked(site: Site) -> None:
    client = signed_in(site)
    fields = {"name": "terraform", "role": "admin", "expires": "2099-01-31T12:00", "number": "n-1"}
    made = post(client, "/people/keys", **fields)
    text = shown(made.text, "key")
    key = site.console_context.people.manager(text, now_s=time.time())
    assert key is not None and (key.role, key.expires_s) == ("admin", 4073544000.0)
    assert post(client, "/people/keys", **fields).status_code == 303
    assert text not in client.get("/people").text and key.id in client.get("/people").text
    assert post(client, f"/people/keys/{key.id}/revoke").status_code == 303
    assert site.console_context.people.manager(text, now_s=time.time()) is None
    assert post(client, "/people/keys", name="x", role="member").status_code == 422
    assert len(site.console_context.people.management_keys()) == 1
    actions = [c.action for c in site.console_context.people.changes()]
    assert actions == ["management_key.revoke", "management_key.create"]


# --- the record -----------------------------------------------------------------------------------


def record(site: Site, action: str, subject: str, account: str = "", **detail: object) -> None:
    site.console_context.people.record(
        "root", "cli", action, subject, account, detail, now_s=time.time()
    )


def test_changes_are_narrowed_to_ones_account(site: Site) -> None:
    record(site, "key.change", "Key00001", "acme")
    record(site, "key.change", "Key00002", "other")
    record(site, "key.change", "Key00003")
    record(site, "management_key.create", "Key00004", name="secret-plans")

    def seen(client: httpx2.Client, query: str = "") -> list[str]:
        return re.findall(
            r"Key0000(\d)",
            "".join(sorted(set(re.findall(r"Key0000\d", client.get(f"/changes{query}").text)))),
        )

    assert seen(signed_in(site)) == ["1", "2", "3", "4"]
    assert seen(signed_in(site), "?account=other") == ["2"]
    assert seen(signed_in(site), "?account=-") == ["3", "4"]
    for role in ("member", "viewer"):
        theirs = signed_in(site, role, "acme")  # type: ignore[arg-type]
        assert seen(theirs) == seen(theirs, "?account=other") == ["1"]
        # What is the deployment's own has no account either, and is nobody's but the admins'.
        assert seen(signed_in(site, role, "")) == ["3"]  # type: ignore[arg-type]


def test_the_record_is_read_page_by_page_with_nothing_twice_or_missing(site: Site) -> None:
    for n in range(120):
        record(site, "key.change", f"k{n:03}")
        record(site, "upstream.test", f"u{n:03}")
    for client, each in ((signed_in(site), 2), (signed_in(site, "member", ""), 1)):
        path, subjects = "/changes", []
        while path:
            page = client.get(path).text
            subjects += re.findall(r"<td>(?:<a[^>]*>)?([ku]\d{3})", page)
            more = re.search(r'href="(/changes\?account=&amp;before=\d+)"', page)
            path = more[1].replace("&amp;", "&") if more else ""
        assert len(subjects) == len(set(subjects)) == 120 * each
        assert subjects == sorted(subjects, key=lambda s: (s[1:], s[0]), reverse=True)


def test_a_detail_is_told_in_words_and_never_as_a_part_of_the_page(site: Site) -> None:
    record(
        site,
        "key.create",
        "Key00001",
        "acme",
        name=HOSTILE,
        models=[],
        budget_nano=12_500_000_000,
        expires_s=4073544000.0,
        rpm=None,
        unknown={"a": HOSTILE},
    )
    record(site, HOSTILE, HOSTILE, "acme")
    page = signed_in(site, "viewer", "acme").get("/changes").text
    assert "<script>alert" not in page
    for line in (
        "Models: all",
        "Budget in US dollars: $12.50",
        "Expires: 2099-01-31 12:00 UTC",
        "Requests a minute: no limit",
    ):
        assert line in page


def test_no_name_of_an_account_or_a_person_becomes_part_of_a_page(site: Site) -> None:
    site.console_context.store.create_account("evil", HOSTILE, now_s=time.time())
    lin, client = user(site, HOSTILE, account="evil"), signed_in(site)
    site.console_context.people.create_management_key(HOSTILE, "viewer", now_s=time.time())
    for path in ("/accounts", "/accounts/evil", "/people", f"/people/{lin.id}", "/api_keys"):
        page = client.get(path).text
        assert "<script>alert" not in page and "&lt;script&gt;" in page
