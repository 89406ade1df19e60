"""Signing in, forms of others, and what every page carries; by HTTP, as a browser would."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx2
import msgspec
import pytest
from starlette.responses import PlainTextResponse, Response

from consoles import Site, served, signed_in
from headgate.config import Oidc
from headgate.web.app import COOKIE, Rule
from headgate.web.auth import passwords
from headgate.web.console import keys_page, playground_page
from headgate.web.context import RequestContext
from idp import CLIENT_ID, SECRET, Idp

HERE = {"x-headgate-host": "127.0.0.1"}
PASSWORD = "correct horse battery"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def told(visit: RequestContext) -> Response:
    return PlainTextResponse(f"{visit.who.name} {visit.form.get('x', '')}")


def fails(visit: RequestContext) -> Response:
    raise RuntimeError("a secret of ours")


RULES = (
    Rule("GET", "/usage", told, "see"),
    Rule("POST", "/do", told, "keys"),
    Rule("POST", "/manage", told, "manage"),
    Rule("GET", "/fails", fails, "see"),
    Rule("GET", "/admin/v1/thing", told, "see", "management"),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(tmp_path / "data", RULES) as site:
        yield site


def user(site: Site, name: str = "ada", role: str = "admin") -> None:
    kept = passwords.hash(PASSWORD)
    site.console_context.people.create_user(name, kept, role, now_s=time.time())  # type: ignore[arg-type]


def sign_in(site: Site, name: str, password: str, **headers: str) -> httpx2.Response:
    return httpx2.post(
        f"{site.url}/sign-in", data={"name": name, "password": password}, headers=HERE | headers
    )


def test_a_stranger_is_led_to_the_sign_in_and_back(site: Site) -> None:
    asked = httpx2.get(f"{site.url}/usage", headers={"accept": "text/html", **HERE})
    assert asked.status_code == 303 and asked.headers["location"] == "/sign-in?next=/usage"
    user(site)
    deep = httpx2.get(f"{site.url}/usage?key=a%26b&by=day", headers={"accept": "text/html", **HERE})
    page = httpx2.get(site.url + deep.headers["location"], headers=HERE)
    assert 'value="/usage?key=a%26b&amp;by=day"' in page.text


def test_the_cookie_is_bound_to_this_host_and_out_of_reach_of_scripts(site: Site) -> None:
    user(site)
    answer = sign_in(site, "ada", PASSWORD)
    assert answer.status_code == 303 and answer.headers["location"] == "/usage"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-")
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= set(cookie.lower().split("; "))
    assert "domain" not in cookie.lower()
    page = httpx2.get(f"{site.url}/usage", headers=HERE | {"cookie": cookie.split(";")[0]})
    assert page.text == "ada "


@pytest.mark.parametrize(
    "next",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "x",
        "/\t/evil.example",
        "//[",
        "/" + "a" * 70_000,
    ],
)
def test_the_sign_in_leads_to_no_other_site(site: Site, next: str) -> None:
    user(site)
    answer = httpx2.post(
        f"{site.url}/sign-in",
        data={"name": "ada", "password": PASSWORD, "next": next},
        headers=HERE,
    )
    assert answer.headers["location"] == "/usage"


def test_unknown_users_and_wrong_passwords_look_the_same(site: Site) -> None:
    user(site)
    wrong, unknown = sign_in(site, "ada", "no"), sign_in(site, "eve", "no")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace("ada", "eve") == unknown.text


def test_guessing_is_slowed_down(site: Site) -> None:
    user(site)
    statuses = [sign_in(site, "ada", f"no {n}").status_code for n in range(7)]
    assert 429 in statuses
    assert sign_in(site, "ada", PASSWORD).status_code == 429


def test_signing_in_ends_the_session_that_was_there(site: Site) -> None:
    """An attacker who planted a session's cookie would otherwise share it."""
    user(site)
    planted = sign_in(site, "ada", PASSWORD).headers["set-cookie"].split(";")[0]
    fresh = sign_in(site, "ada", PASSWORD, cookie=planted).headers["set-cookie"].split(";")[0]
    assert fresh != planted
    assert httpx2.get(f"{site.url}/usage", headers=HERE | {"cookie": planted}).status_code == 303


def test_nobody_signs_in_over_plain_http_from_elsewhere(site: Site) -> None:
    user(site)
    for name, host in (
        ("/sign-in", "gate.example:8787"),
        ("/setup/x", "127.gate.example"),
        ("/sign-in/provider", "127.0.0.1.gate.example"),
        ("/sign-in", "["),
    ):
        answer = httpx2.get(site.url + name, headers={"x-headgate-host": host})
        assert answer.status_code == 403 and "https" in answer.text


def test_a_form_without_its_token_or_from_another_site_is_refused(site: Site) -> None:
    client = signed_in(site)
    csrf: str = client.csrf  # type: ignore[attr-defined]
    assert client.post("/do", data={"x": "1"}).status_code == 403
    assert client.post("/do", data={"x": "1", "csrf": "0" * 64}).status_code == 403
    there = {"origin": "https://evil.example"}
    assert client.post("/do", data={"csrf": csrf}, headers=there).status_code == 403
    assert client.post("/do", data={"csrf": csrf}, headers={"origin": "null"}).status_code == 403
    cross = {"sec-fetch-site": "cross-site"}
    assert client.post("/do", data={"csrf": csrf}, headers=cross).status_code == 403
    ours = {"origin": "http://127.0.0.1"}
    assert client.post("/do", data={"x": "1", "csrf": csrf}, headers=ours).text.endswith(" 1")


@pytest.mark.parametrize(
    ("public", "host", "origin", "status"),
    [
        # A proxy that changes Host, one that keeps it, and how people write an address.
        ("https://gate.example", "127.0.0.1:8787", "https://gate.example", 200),
        ("https://Gate.Example:443/", "127.0.0.1:8787", "https://gate.example", 200),
        ("https://gate.example", "10.0.0.1:8787", "http://10.0.0.1:8787", 200),
        ("http://127.0.0.1:8787", "gate.example", "https://gate.example", 200),
        ("https://gate.example", "gate.example", "http://gate.example", 403),
        ("https://gate.example", "gate.example", "https://gate.example:444", 403),
        ("https://gate.example", "", "null", 403),
        ("https://gate.example", "gate.example", "http://[", 403),
        ("https://gate.example", "[", "https://evil.example", 403),
    ],
)
def test_a_form_is_ours_by_the_public_address_or_by_the_host_that_was_asked(
    site: Site, public: str, host: str, origin: str, status: int
) -> None:
    client = signed_in(site)
    site.console_context.base_url = public
    form = {"csrf": client.csrf}  # type: ignore[attr-defined]
    told = {"x-headgate-host": host, "origin": origin}
    assert client.post("/do", data=form, headers=told).status_code == status


def test_a_token_of_one_session_is_not_good_in_another(site: Site) -> None:
    one, other = signed_in(site), signed_in(site)
    stolen = other.csrf  # type: ignore[attr-defined]
    assert one.post("/do", data={"csrf": stolen}).status_code == 403


@pytest.mark.parametrize(
    ("role", "do", "manage"), [("admin", 200, 200), ("member", 200, 403), ("viewer", 403, 403)]
)
def test_a_role_may_what_it_may(site: Site, role: str, do: int, manage: int) -> None:
    client = signed_in(site, role)  # type: ignore[arg-type]
    form = {"csrf": client.csrf}  # type: ignore[attr-defined]
    assert client.get("/usage").status_code == 200
    assert client.post("/do", data=form).status_code == do
    assert client.post("/manage", data=form).status_code == manage


def test_a_session_opens_no_admin_api_and_a_management_key_no_page(site: Site) -> None:
    _, key = site.console_context.people.create_management_key("ci", "admin", now_s=time.time())
    bearer = {"authorization": f"Bearer {key}"}
    assert httpx2.get(f"{site.url}/admin/v1/thing", headers=bearer).status_code == 200
    assert signed_in(site).get("/admin/v1/thing").status_code == 401
    assert httpx2.get(f"{site.url}/usage", headers=bearer).status_code in (303, 401)
    _, of_models = site.console_context.store.create_key("m", now_s=time.time())
    wrong = {"authorization": f"Bearer {of_models}"}
    assert httpx2.get(f"{site.url}/admin/v1/thing", headers=wrong).status_code == 401


def test_a_page_that_fails_says_nothing_of_why(site: Site) -> None:
    answer = signed_in(site).get("/fails")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def faulty(page: str) -> str:
    """The field that the page shows an error at: marked, described by it, and in focus."""
    (mark,) = re.findall(r'<input ([^>]*aria-invalid="true"[^>]*)>', page)
    assert 'aria-describedby="refused"' in mark and mark.count("autofocus") == 1
    assert page.count("autofocus") == 1 and page.count('id="refused"') == 1
    found = re.search(r'name="(\w+)"', mark)
    assert found is not None
    return found[1]


def test_the_first_admin_comes_by_the_link_once(site: Site) -> None:
    token = site.console_context.people.setup_link(now_s=time.time())
    link = f"{site.url}/setup/{token}"
    assert httpx2.get(link, headers=HERE).status_code == 200
    weak = httpx2.post(link, data={"name": "ada", "password": "short"}, headers=HERE)
    assert weak.status_code == 422 and 'value="ada"' in weak.text
    assert faulty(weak.text) == "password" and "short" not in weak.text
    nameless = httpx2.post(link, data={"name": "a\tb", "password": PASSWORD}, headers=HERE)
    assert nameless.status_code == 422 and faulty(nameless.text) == "name"
    assert PASSWORD not in nameless.text
    made = httpx2.post(link, data={"name": "ada", "password": PASSWORD}, headers=HERE)
    assert made.status_code == 303 and COOKIE in made.headers["set-cookie"]
    again = httpx2.post(link, data={"name": "eve", "password": PASSWORD}, headers=HERE)
    assert again.status_code == 410
    assert [(u.name, u.role) for u in site.console_context.people.users()] == [("ada", "admin")]


def test_a_new_password_ends_the_other_sessions(site: Site) -> None:
    user(site)
    one, two = (
        sign_in(site, "ada", PASSWORD).headers["set-cookie"].split(";")[0] for _ in range(2)
    )
    token = site.console_context.people.form_token(one.partition("=")[2])
    form = {"old": PASSWORD, "password": "another horse battery", "csrf": token}
    for wrong, field in (({"old": "not it"}, "old"), ({"password": "short"}, "password")):
        refused = httpx2.post(
            f"{site.url}/profile", data=form | wrong, headers=HERE | {"cookie": one}
        )
        assert refused.status_code == 422 and faulty(refused.text) == field
        assert PASSWORD not in refused.text
    changed = httpx2.post(f"{site.url}/profile", data=form, headers=HERE | {"cookie": one})
    assert changed.status_code == 303
    for old in (one, two):
        assert httpx2.get(f"{site.url}/usage", headers=HERE | {"cookie": old}).status_code == 303
    fresh = changed.headers["set-cookie"].split(";")[0]
    assert httpx2.get(f"{site.url}/usage", headers=HERE | {"cookie": fresh}).status_code == 200


def test_a_password_keeps_the_spaces_it_was_made_with(site: Site) -> None:
    spaced = f" {PASSWORD} "  # as the command line and the admin API take it
    site.console_context.people.create_user(
        "ada", passwords.hash(spaced), "admin", now_s=time.time()
    )
    assert sign_in(site, " ada", spaced).status_code == 303
    assert sign_in(site, "ada", PASSWORD).status_code == 401


def test_who_only_looks_is_not_kept_out_by_a_locked_database(site: Site) -> None:
    people = site.console_context.people
    ada = people.create_user("ada", "", "admin", now_s=time.time())
    token = people.open_session(ada.id, now_s=time.time() - 600)
    seen = HERE | {"cookie": f"{COOKIE}={token}"}
    with contextlib.closing(apsw.Connection(f"{site.data}/headgate.db")) as other:
        other.execute("begin immediate")
        assert httpx2.get(f"{site.url}/usage", headers=seen).status_code == 200


def test_what_the_database_says_of_the_disk_is_not_told(tmp_path: Path) -> None:
    with served(tmp_path / "data", keys_page.RULES) as site:
        client = signed_in(site)
        with contextlib.closing(apsw.Connection(f"{site.data}/headgate.db")) as other:
            other.execute(
                "create trigger full before insert on keys begin select raise(abort, 'full'); end"
            )
        form = {"name": "ci", "csrf": client.csrf}  # type: ignore[attr-defined]
        answer = client.post("/api_keys", data=form)
        assert answer.status_code == 503 and "headgate.db" not in answer.text


def test_a_name_like_the_databases_is_no_fault_of_the_database(tmp_path: Path) -> None:
    with served(tmp_path / "data", playground_page.RULES) as site:
        client = signed_in(site, "member", "headgate.db")
        told = {"x-csrf-token": client.csrf}  # type: ignore[attr-defined]
        assert client.post("/playground/key", headers=told).status_code == 422


def test_the_language_is_the_browsers_unless_one_was_chosen(site: Site) -> None:
    chinese = httpx2.get(
        f"{site.url}/sign-in", headers=HERE | {"accept-language": "zh-CN,en;q=0.5"}
    )
    assert '<html lang="zh">' in chinese.text and "登录" in chinese.text
    chosen = HERE | {"accept-language": "zh-CN", "cookie": "lang=en"}
    assert '<html lang="en">' in httpx2.get(f"{site.url}/sign-in", headers=chosen).text


def test_a_form_that_is_too_large_is_refused(site: Site) -> None:
    client = signed_in(site)
    answer = client.post("/do", content=b"x=" + b"1" * (300 << 10), headers=FORM)
    assert answer.status_code == 413


def test_a_password_never_comes_back_in_a_page(site: Site) -> None:
    user(site)
    answer = sign_in(site, "ada", "my secret guess")
    assert not re.search("my secret guess", answer.text)


def test_a_person_of_the_identity_provider_comes_in_with_the_role_of_their_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Idp().running() as idp, served(tmp_path / "data", RULES) as site:
        monkeypatch.setenv("IDP_SECRET", SECRET)
        own = Oidc(
            idp.url, CLIENT_ID, SECRET, roles={"staff": "member"}, accounts={"staff": "team"}
        )
        site.console_context.settings = msgspec.structs.replace(
            site.console_context.settings, oidc=own
        )
        away = httpx2.get(f"{site.url}/sign-in/provider", headers=HERE)
        assert away.status_code == 303
        flow = away.headers["set-cookie"].split(";")[0]
        assert "samesite=lax" in away.headers["set-cookie"].lower()
        back = httpx2.get(away.headers["location"]).headers["location"]
        assert back.startswith(f"{site.url}/sign-in/callback?")
        foreign = httpx2.get(back, headers=HERE)
        assert foreign.status_code == 400, "a sign-in that began elsewhere"
        landed = httpx2.get(back, headers=HERE | {"cookie": flow, "accept": "text/html"})
        assert landed.status_code == 200, landed.text
        cookie = landed.headers["set-cookie"].split(";")[0]
        assert "samesite=strict" in landed.headers["set-cookie"].lower()
        page = httpx2.get(f"{site.url}/usage", headers=HERE | {"cookie": cookie})
        assert page.text.startswith("Ada L.")
        (person,) = site.console_context.people.users()
        assert (person.role, person.account, person.issuer) == ("member", "team", idp.url)
