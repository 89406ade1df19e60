"""Owners' upstream keys in the console and the admin API: who may enter them, and that they never come out."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from consoles import Site, served, signed_in
from headgate.web.api import routes
from headgate.web.console import accounts_page, audit_log_page, keys_page, upstream_keys_page

CANARY = "sk-cp-canary-0123456789-tail"
RULES = (
    *keys_page.RULES,
    *accounts_page.RULES,
    *upstream_keys_page.RULES,
    *audit_log_page.RULES,
    *routes.RULES,
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(tmp_path / "data", RULES) as site:
        for id in ("acme", "other"):
            site.console_context.store.create_account(id, id.title(), now_s=1.0)
        yield site


def post(client: httpx2.Client, path: str, **fields: object) -> httpx2.Response:
    return client.post(path, data={"csrf": client.csrf, **fields})  # type: ignore[attr-defined]


def upstream(site: Site) -> str:
    return next(iter(site.console_context.settings.upstreams))


def test_a_member_enters_and_removes_a_key_of_their_accounts_gateway_key_only(site: Site) -> None:
    mine, _ = site.console_context.store.create_key("k", account="acme", now_s=2.0)
    others, _ = site.console_context.store.create_key("k", account="other", now_s=2.0)
    member, up = signed_in(site, "member", "acme"), upstream(site)
    made = post(member, f"/api_keys/{mine.id}/upstream_keys", upstream=up, secret=f" {CANARY} ")
    assert made.status_code == 303, made.text
    page = member.get(f"/api_keys/{mine.id}").text
    assert "…tail" in page and "canary" not in page
    (kept,) = site.console_context.store.upstream_keys()
    assert (kept.kind, kept.owner, kept.upstream, kept.fallback) == ("key", mine.id, up, False)
    for path in (f"/api_keys/{others.id}", "/accounts/acme"):
        refused = post(member, f"{path}/upstream_keys", upstream=up, secret=CANARY)
        assert refused.status_code in (403, 404)
        post(member, f"{path}/upstream_keys/{up}/remove")
    viewer = signed_in(site, "viewer", "acme")
    assert post(viewer, f"/api_keys/{mine.id}/upstream_keys/{up}/remove").status_code == 403
    assert site.console_context.store.upstream_keys() == [kept]
    assert post(member, f"/api_keys/{mine.id}/upstream_keys/{up}/remove").status_code == 303
    assert site.console_context.store.upstream_keys() == []
    record = signed_in(site).get("/changes").text
    assert "Upstream key saved" in record and "Upstream key removed" in record
    assert "canary" not in record


@pytest.mark.parametrize("secret", ["short", CANARY + " ü", CANARY * 30])
def test_a_key_that_cannot_be_one_is_refused_and_is_not_on_the_page(
    site: Site, secret: str
) -> None:
    admin = signed_in(site)
    for path in (
        "/accounts/acme",
        f"/api_keys/{site.console_context.store.create_key('k', now_s=2.0)[0].id}",
    ):
        answer = post(
            admin, f"{path}/upstream_keys", upstream=upstream(site), secret=secret, fallback="on"
        )
        assert answer.status_code == 422
        assert "upstream key" in answer.text and "canary" not in answer.text
        assert f'value="{secret}"' not in answer.text
        wrong = post(admin, f"{path}/upstream_keys", upstream="none", secret=CANARY)
        assert wrong.status_code == 422 and "canary" not in wrong.text
        assert post(admin, f"{path}/upstream_keys", secret=CANARY, other="x").status_code == 422
    assert site.console_context.store.upstream_keys() == []


def test_the_api_keeps_replaces_lists_and_deletes_a_key_of_an_account(site: Site) -> None:
    _, text = site.console_context.people.create_management_key("a", "admin", now_s=2.0)
    api = httpx2.Client(
        base_url=f"{site.url}/admin/v1", headers={"authorization": f"Bearer {text}"}
    )
    up = upstream(site)
    body = {"upstream": up, "secret": CANARY, "account": "acme"}
    first = api.post("/upstream_keys", json=body)
    assert first.status_code == 201, first.text
    second = api.post("/upstream_keys", json={**body, "secret": CANARY + "2", "fallback": True})
    (listed,) = api.get("/upstream_keys").json()["data"]
    assert listed == second.json() == api.get(second.headers["location"].partition("v1")[2]).json()
    assert (listed["hint"], listed["fallback"], listed["account"]) == ("ail2", True, "acme")
    assert listed["fingerprint"] != first.json()["fingerprint"]
    for wrong, field in (
        ({**body, "key_id": "x"}, "$.key_id"),
        ({"upstream": up, "secret": CANARY}, "$.key_id"),
        ({**body, "account": "none"}, "$.account"),
        ({**body, "upstream": "none"}, "$.upstream"),
        ({**body, "secret": CANARY + "\n"}, "$.secret"),
        ({**body, "secret": "short"}, "$.secret"),
    ):
        answer = api.post("/upstream_keys", json=wrong)
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, field), answer.text
        assert "canary" not in answer.text
    gone = api.delete(f"/upstream_keys/{listed['id']}")
    assert gone.json() == {"id": listed["id"], "removed": True}
    assert api.delete(f"/upstream_keys/{listed['id']}").status_code == 404
