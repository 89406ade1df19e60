"""The admin API: what each route does, who may, and how it refuses."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import msgspec
import pytest

from admins import IDS, PASSWORD, STEPS, Made, running
from consoles import UPSTREAM, served
from gateway import start, stop
from headgate.policy import keys as model_keys
from headgate.web.api import key_shapes, people_shapes, routes
from headgate.web.api.route import Endpoint
from waiting import PATIENCE_S, wait_for

R = "/admin/v1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """For tests that change nothing which others look at."""
    with running(tmp_path_factory.mktemp("admin")) as made:
        yield made


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with running(tmp_path_factory.mktemp("admin")) as one:
        yield one


@pytest.fixture
def api(made: Made) -> Iterator[httpx2.Client]:
    with made.client("admin") as client:
        yield client


@pytest.fixture
def reader(shared: Made) -> Iterator[httpx2.Client]:
    with shared.client("admin") as client:
        yield client


def refused(response: httpx2.Response, status: int, field: str | None = None) -> str:
    """The message of a refusal of this status and place."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    error = response.json()["error"]
    assert error["field"] == field, error
    assert error["message"]
    return str(error["message"])


def ask(client: httpx2.Client, endpoint: Endpoint, made: Made) -> httpx2.Response:
    return client.request(
        endpoint.method, made.address(endpoint), content=endpoint.example.encode()
    )


EVERY = pytest.mark.parametrize("endpoint", routes.ENDPOINTS, ids=lambda e: e.name)


# --- who may --------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("who", ["", "model", "expired", "revoked"])
def test_without_a_good_management_key_nothing_opens(
    endpoint: Endpoint, who: str, shared: Made
) -> None:
    with shared.client(who) as client:
        assert "management key" in refused(ask(client, endpoint, shared), 401)


@EVERY
def test_a_session_of_the_console_opens_nothing_here(endpoint: Endpoint, shared: Made) -> None:
    people = shared.site.console_context.people
    root = next(u for u in people.users() if u.role == "admin")
    token = people.open_session(root.id, now_s=time.time())
    with shared.site.open(cookie=f"__Host-headgate={token}") as client:
        refused(ask(client, endpoint, shared), 401)


@EVERY
def test_a_viewer_changes_nothing(endpoint: Endpoint, shared: Made) -> None:
    before = shared.changes()
    with shared.client("viewer") as client:
        response = ask(client, endpoint, shared)
    if endpoint.action == "manage":
        assert "viewer" in refused(response, 403)
    else:
        assert endpoint.method == "GET"
        assert response.status_code in (200, 404)
    assert shared.changes() == before


@EVERY
def test_an_admin_may_do_everything(endpoint: Endpoint, made: Made, api: httpx2.Client) -> None:
    before = len(made.changes())
    response = ask(api, endpoint, made)
    assert response.status_code == endpoint.status, response.text
    msgspec.json.decode(response.content, type=endpoint.answer)
    assert len(made.changes()) - before == (endpoint.method != "GET")
    assert endpoint.action == ("manage" if endpoint.method != "GET" else endpoint.action)


@pytest.mark.parametrize(
    "endpoint", [e for e in routes.ENDPOINTS if "{" in e.path], ids=lambda e: e.name
)
def test_what_does_not_exist_is_a_404(endpoint: Endpoint, reader: httpx2.Client) -> None:
    path = endpoint.shown_path.replace("{id}", "nobody").replace("{name}", "nobody")
    refused(reader.request(endpoint.method, path, content=endpoint.example.encode()), 404)


def test_nothing_of_it_is_kept_or_read_as_a_page(reader: httpx2.Client) -> None:
    headers = reader.get(R + "/keys", headers={"accept": "text/html"}).headers
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_key_may_come_as_x_api_key(shared: Made) -> None:
    headers = {"x-api-key": shared.keys["viewer"]}
    assert httpx2.get(shared.site.url + R + "/me", headers=headers).json()["role"] == "viewer"


@pytest.mark.parametrize(
    "path",
    [
        "/keys/{other}",
        "/accounts/other",
        "/requests/" + IDS[2],
        "/requests?account=other",
        "/usage?account=other",
        "/keys?account=other",
        "/changes?account=other",
    ],
)
def test_what_another_account_has_does_not_exist_for_a_narrowed_reader(
    path: str, shared: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Management keys see all today; the routes hold for any scope."""
    monkeypatch.setattr("headgate.policy.access.scope", lambda role, account: "acme")
    path = path.replace("{other}", shared.model_keys["other"])
    with shared.client("viewer") as client:
        refused(client.get(R + path), 404)


def test_lists_and_sums_have_only_the_readers_account(
    shared: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.policy.access.scope", lambda role, account: "acme")
    with shared.client("viewer") as client:
        assert [k["account"] for k in client.get(R + "/keys").json()["data"]] == ["acme"]
        assert [a["id"] for a in client.get(R + "/accounts").json()["data"]] == ["acme"]
        assert {r["account"] for r in client.get(R + "/requests").json()["data"]} == {"acme"}
        assert [r["name"] for r in client.get(R + "/usage?by=account").json()["data"]] == ["acme"]
        session = client.get(R + "/sessions/talk").json()
        assert session["total"]["requests"] == len(session["data"]) == 2
        assert client.get(R + "/me").json()["sees"] == "acme"


# --- what is refused, and how ---------------------------------------------------------------------


@EVERY
def test_an_unknown_parameter_is_named(endpoint: Endpoint, shared: Made) -> None:
    with shared.client("admin") as client:
        response = client.request(
            endpoint.method, shared.address(endpoint) + "?acount=x", content=endpoint.example
        )
    assert "acount" in refused(response, 422, "acount")


STORED = {
    f
    for kind in (
        model_keys.Key,
        model_keys.Account,
        key_shapes.Key,
        people_shapes.User,
        people_shapes.ManagementKey,
        key_shapes.Account,
    )
    for f in kind.__struct_fields__
}


@pytest.mark.parametrize("endpoint", [e for e in routes.ENDPOINTS if e.body], ids=lambda e: e.name)
def test_no_field_can_be_set_that_the_route_does_not_take(endpoint: Endpoint, shared: Made) -> None:
    """promises.md T18: every field that is stored, tried on every route."""
    assert endpoint.body is not None
    before = shared.changes()
    with shared.client("admin") as client:
        for name in STORED - {*endpoint.body.__struct_fields__}:
            body = {**msgspec.json.decode(endpoint.example), name: "admin"}
            response = client.request(endpoint.method, shared.address(endpoint), json=body)
            assert name in refused(response, 422, f"$.{name}")
    assert shared.changes() == before


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"name": "\xff"}', 400, None),
        (b'{"name": "\\ud800"}', 400, None),
        (b"[" * 200_000, 422, "$"),
        (b'{"name": "a"} {}', 400, None),
        (b"x" * (257 << 10), 413, None),
        (b"{}", 422, "$.name"),
        (b'{"name": ""}', 422, "$.name"),
        (b'{"name": "  "}', 422, "$.name"),
        (b'{"name": "a\\u0000"}', 422, "$.name"),
        (b'{"name": 7}', 422, "$.name"),
        (b'{"name": "a", "rpm": "60"}', 422, "$.rpm"),
        (b'{"name": "a", "rpm": -1}', 422, "$.rpm"),
        (b'{"name": "a", "rpm": 1e400}', 422, "$.rpm"),
        (b'{"name": "a", "rpm": 99999999999999999999}', 422, "$.rpm"),
        (b'{"name": "a", "budget_usd": 12.5}', 422, "$.budget_usd"),
        (b'{"name": "a", "budget_usd": "12,50"}', 422, "$.budget_usd"),
        (b'{"name": "a", "budget_usd": "-1"}', 422, "$.budget_usd"),
        (b'{"name": "a", "budget_zone": "../etc"}', 422, "$.budget_zone"),
        (b'{"name": "a", "budget_period": "week"}', 422, "$.budget_period"),
        (b'{"name": "a", "models": ["MiniMax-M3", "gpt"]}', 422, "$.models[1]"),
        (b'{"name": "a", "account": "nobody"}', 422, "$.account"),
        (b'{"name": "a", "expires_at": "2020-01-01T00:00:00Z"}', 422, "$.expires_at"),
        (b'{"name": "a", "expires_at": "2099-01-01T00:00:00"}', 422, "$.expires_at"),
        (b'{"name": "a", "expires_at": "soon"}', 422, "$.expires_at"),
    ],
    ids=range(26),
)
def test_a_bad_body_is_refused_with_its_place(
    body: bytes, status: int, field: str | None, shared: Made
) -> None:
    before = len(shared.site.console_context.store.keys())
    with shared.client("admin") as client:
        response = client.post(R + "/keys", content=body)
    refused(response, status, field)
    assert len(shared.site.console_context.store.keys()) == before


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("before=0", "before"),
        ("since=soon", "since"),
        ("since=1e300", "since"),
        ("until=1&since=2", "until"),
        ("model=a&model=b", "model"),
        ("before=" + "9" * 30, "before"),
    ],
)
def test_a_bad_parameter_is_refused_with_its_name(
    query: str, field: str, reader: httpx2.Client
) -> None:
    refused(reader.get(f"{R}/requests?{query}"), 422, field)


def test_a_method_that_a_path_does_not_have_is_a_405_with_those_it_has(
    reader: httpx2.Client,
) -> None:
    response = reader.put(R + "/keys")
    refused(response, 405)
    assert response.headers["allow"] == "GET, POST"


# --- keys -----------------------------------------------------------------------------------------


def test_a_new_keys_text_is_in_the_answer_opens_the_gateway_and_is_nowhere_else(
    made: Made, api: httpx2.Client
) -> None:
    response = api.post(
        R + "/keys",
        json={
            "name": "ci",
            "account": "acme",
            "models": ["minimax/minimax-m3", "MiniMax-M3"],
            "budget_usd": "12.5",
            "budget_period": "month",
            "budget_zone": "Europe/Berlin",
            "rpm": 60,
            "tpm": 1000,
            "concurrency": 2,
            "on_disconnect": "drain",
            "expires_at": "2099-01-01T01:00:00+01:00",
        },
    )
    key = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{R}/keys/{key['id']}"
    opened = made.site.console_context.store.ring().authenticate(key["key"], time.time())
    assert opened is not None
    assert (opened.id, opened.account, opened.models) == (key["id"], "acme", ("MiniMax-M3",))
    assert (key["budget_usd"], key["budget_nano"]) == ("12.50", 12_500_000_000)
    assert (key["state"], key["expires_at"]) == ("open", "2099-01-01T00:00:00Z")
    text = key.pop("key")
    assert api.get(f"{R}/keys/{key['id']}").json() == key
    assert made.changes()[0] == ("key.create", key["id"], "acme")
    for path in ("/keys", "/changes"):
        assert text not in api.get(R + path).text
    database = b"".join(f.read_bytes() for f in made.site.data.glob("headgate.db*"))
    assert text[-50:].encode() not in database


def test_a_patch_changes_what_it_names_and_null_takes_away(made: Made, api: httpx2.Client) -> None:
    id = made.model_keys["acme"]
    old = api.patch(f"{R}/keys/{id}", json={"rpm": 5, "budget_usd": "1"}).json()
    new = api.patch(f"{R}/keys/{id}", json={"rpm": None, "name": "n", "account": ""}).json()
    assert (old["rpm"], old["budget_usd"]) == (5, "1.00")
    assert new == {**old, "rpm": None, "name": "n", "account": ""}
    assert api.patch(f"{R}/keys/{id}", json={}).json() == new
    assert [c for c in made.changes() if c[1] == id] == [
        ("key.change", id, ""),
        ("key.change", id, "acme"),
    ]
    detail = api.get(R + "/changes").json()["data"][0]["detail"]
    assert detail == {
        "rpm": {"from": 5, "to": None},
        "name": {"from": old["name"], "to": "n"},
        "account": {"from": "acme", "to": ""},
    }


def test_a_key_has_networks_and_a_wrong_one_is_named(made: Made, api: httpx2.Client) -> None:
    path = f"{R}/keys/{made.model_keys['acme']}"
    changed = api.patch(path, json={"allowed_cidrs": ["192.0.2.7", "10.0.0.0/8"]})
    assert changed.json()["allowed_cidrs"] == ["192.0.2.7/32", "10.0.0.0/8"]
    for method, where in (("PATCH", path), ("POST", f"{R}/keys")):
        wrong = api.request(method, where, json={"name": "n", "allowed_cidrs": ["10.0.0.1/8"]})
        assert wrong.status_code == 422
        assert wrong.json()["error"]["field"] == "$.allowed_cidrs"
        assert "`10.0.0.1/8` is not a network" in wrong.json()["error"]["message"]
    assert api.get(path).json() == changed.json()
    assert api.patch(path, json={"allowed_cidrs": []}).json()["allowed_cidrs"] == []


def test_a_revoked_key_stays_revoked(made: Made, api: httpx2.Client) -> None:
    path = f"{R}/keys/{made.model_keys['acme']}"
    first = api.delete(path).json()
    assert first["state"] == "revoked"
    assert api.delete(path).json() == first
    assert [c[0] for c in made.changes()].count("key.revoke") == 1
    refused(api.patch(path, json={"name": "again"}), 409)
    refused(api.post(path + "/rotate"), 409)
    assert [k["id"] for k in api.get(R + "/keys?state=revoked").json()["data"]] == [first["id"]]


def test_a_rotation_has_the_same_budget_and_the_old_one_ends_later(
    made: Made, api: httpx2.Client
) -> None:
    id = made.model_keys["acme"]
    api.patch(f"{R}/keys/{id}", json={"budget_usd": "9"})
    new = api.post(f"{R}/keys/{id}/rotate", json={"overlap_s": 3600}).json()
    old = api.get(f"{R}/keys/{id}").json()
    assert (old["state"], new["rotation_group"], new["budget_usd"]) == ("ending", id, "9.00")
    assert new["budget_spent_nano"] == old["budget_spent_nano"] == 1_500_000_000
    assert (new["spent_nano"], old["spent_nano"]) == (0, 1_500_000_000)
    assert made.site.console_context.store.ring().authenticate(new["key"], time.time()) is not None


def test_pages_of_a_list_have_each_item_once(reader: httpx2.Client, shared: Made) -> None:
    for path in ("/keys", "/accounts", "/users", "/management_keys"):
        whole = [i["id"] for i in reader.get(R + path).json()["data"]]
        seen, after = [], ""
        while after is not None:
            page = reader.get(f"{R}{path}?limit=2{after and '&after=' + after}").json()
            seen += [i["id"] for i in page["data"]]
            after = page["next"]
        assert seen == whole
        assert len(whole) >= 2
        refused(reader.get(f"{R}{path}?after=nobody"), 422, "after")


# --- accounts, people -----------------------------------------------------------------------------


def test_an_account_is_made_changed_and_closed_with_its_keys(
    made: Made, api: httpx2.Client
) -> None:
    body = {"id": "team", "name": "Team", "budget_usd": "0.000000001"}
    account = api.post(R + "/accounts", json=body).json()
    assert (account["budget_usd"], account["budget_nano"]) == ("0.000000001", 1)
    refused(api.post(R + "/accounts", json=body), 409, "$.id")
    for id in ("", "-a", "a-", "A", "a_b", "a" * 65):
        assert api.post(R + "/accounts", json={**body, "id": id}).status_code == 422
    key = api.post(R + "/keys", json={"name": "k", "account": "team"}).json()
    assert api.get(R + "/accounts/team").json()["keys"] == 1
    assert api.patch(R + "/accounts/team", json={"budget_usd": None}).json()["budget_usd"] is None
    assert api.delete(R + "/accounts/team").json()["state"] == "closed"
    assert api.delete(R + "/accounts/team").json()["keys"] == 0
    assert api.get(f"{R}/keys/{key['id']}").json()["state"] == "closed"
    refused(api.patch(R + "/accounts/team", json={"name": "x"}), 409)
    refused(api.post(R + "/keys", json={"name": "k", "account": "team"}), 422, "$.account")
    assert [c[0] for c in made.changes()][:4] == [
        "account.close",
        "account.change",
        "key.create",
        "account.create",
    ]


def test_an_accounts_figures_are_those_of_its_keys(reader: httpx2.Client) -> None:
    account = reader.get(R + "/accounts/acme").json()
    assert (account["requests"], account["unpriced"], account["keys"]) == (2, 1, 1)
    assert (account["spent_usd"], account["budget_spent_usd"]) == ("1.50", "1.50")


def test_a_user_signs_in_with_what_was_said_and_nothing_tells_the_password(
    made: Made, api: httpx2.Client
) -> None:
    from headgate.web.auth import passwords

    body = {"name": "grace", "password": PASSWORD, "role": "member", "account": "acme"}
    response = api.post(R + "/users", json=body)
    user = response.json()
    found = made.site.console_context.people.sign_in("grace")
    assert found is not None
    assert passwords.matches(found[1], PASSWORD)
    assert (user["role"], user["account"], user["state"]) == ("member", "acme", "open")
    changed = api.patch(
        f"{R}/users/{user['id']}", json={"password": PASSWORD + "!", "role": "viewer"}
    )
    assert changed.json()["role"] == "viewer"
    for told in (response, changed, api.get(R + "/users"), api.get(R + "/changes")):
        assert PASSWORD not in told.text
        assert "argon2" not in told.text
    refused(api.post(R + "/users", json={**body, "name": "Grace"}), 409, "$.name")
    refused(
        api.post(R + "/users", json={**body, "name": "g", "password": "short"}), 422, "$.password"
    )
    refused(api.post(R + "/users", json={**body, "name": "g", "account": "no"}), 422, "$.account")
    refused(api.post(R + "/users", json={**body, "name": "g", "role": "root"}), 422, "$.role")


def test_a_change_of_a_user_ends_their_sessions(made: Made, api: httpx2.Client) -> None:
    people = made.site.console_context.people
    token = people.open_session(made.user, now_s=time.time())
    assert people.session(token, now_s=time.time()) is not None
    api.patch(f"{R}/users/{made.user}", json={"role": "viewer"})
    assert people.session(token, now_s=time.time()) is None


def test_the_last_admin_stays(made: Made, api: httpx2.Client) -> None:
    root = next(u for u in made.site.console_context.people.users() if u.role == "admin")
    refused(api.delete(f"{R}/users/{root.id}"), 409)
    refused(api.patch(f"{R}/users/{root.id}", json={"role": "viewer"}), 409)
    assert api.delete(f"{R}/users/{made.user}").json()["state"] == "closed"
    refused(api.patch(f"{R}/users/{made.user}", json={"role": "admin"}), 409)


def test_a_management_key_works_until_it_is_revoked(made: Made, api: httpx2.Client) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    new = api.post(
        R + "/management_keys", json={"name": "n", "role": "admin", "expires_at": ends}
    ).json()
    headers = {"authorization": f"Bearer {new['key']}"}
    with httpx2.Client(base_url=made.site.url, headers=headers) as client:
        assert client.get(R + "/me").json()["id"] == new["id"]
        assert client.delete(f"{R}/management_keys/{new['id']}").json()["state"] == "revoked"
        refused(client.get(R + "/me"), 401)
    assert new["key"] not in api.get(R + "/management_keys").text
    assert made.site.console_context.store.ring().authenticate(new["key"], time.time()) is None
    last = made.site.console_context.people.changes(most=1)[0]
    assert (last.actor, last.via) == (f"n ({new['id']})", "api")


# --- the books ------------------------------------------------------------------------------------


def test_usage_adds_up_whichever_way_it_is_cut(reader: httpx2.Client) -> None:
    for by in ("key", "account", "model", "day", "hour", "session", "upstream"):
        for step in ("", "&step=hour", "&step=day"):
            usage = reader.get(f"{R}/usage?by={by}{step}").json()
            data = usage["data"]
            assert usage["next"] is None
            assert sum(r["requests"] for r in data) == 4
            assert sum(r["cost_nano_usd"] for r in data) == 4_500_000_000
            assert sum(r["output_tokens"] for r in data) == 200
            assert all((r["at"] is not None) == bool(step) for r in data)
            errors = [r["errors"] for r in data]
            assert errors == [None] * len(data) if by == "session" else sum(errors) == 1


def test_a_long_span_is_not_cut_into_hours(reader: httpx2.Client) -> None:
    """All rows are made before a page is cut out: an old ledger would fill the memory."""
    for step, days in (("hour", 62), ("day", 800)):
        until_s = int(time.time())
        for more_s, status in ((0, 200), (1, 422)):
            since_s = until_s - days * 86400 - more_s
            asked = f"{R}/usage?by=session&step={step}&since={since_s}&until={until_s}"
            assert reader.get(asked).status_code == status


def test_usage_is_narrowed_by_every_filter(reader: httpx2.Client, shared: Made) -> None:
    def requests(query: str) -> int:
        data = reader.get(f"{R}/usage?by=account&{query}").json()["data"]
        return sum(r["requests"] for r in data)

    now = int(time.time())
    assert requests("account=acme") == 2
    assert requests("account=") == 1
    assert requests(f"key={shared.model_keys['other']}") == 1
    assert requests("model=MiniMax-M2.7") == 1
    assert requests("upstream=up") == 4
    assert requests("session=talk") == 3
    assert requests("outcome=timeout") == 1
    assert requests(f"until={now - 3600}") == 0
    assert requests(f"since={now - 3600}.5") == 4
    assert requests("since=2020-01-01T00:00:00%2B02:00&until=2020-01-02T00:00:00Z") == 0


def test_usage_comes_in_pages(reader: httpx2.Client, shared: Made) -> None:
    first = reader.get(f"{R}/usage?by=key&limit=2").json()
    rest = reader.get(f"{R}/usage?by=key&limit=2&after={first['next']}").json()
    assert (len(first["data"]), first["next"], len(rest["data"]), rest["next"]) == (2, 2, 1, None)
    (row,) = [r for r in first["data"] + rest["data"] if r["name"] == shared.model_keys["other"]]
    assert row["ttft_ms"] == 100.0
    assert row["output_tokens_per_s"] == 50.0


def test_requests_come_newest_first_and_one_by_one(reader: httpx2.Client) -> None:
    seen, before = [], ""
    while before is not None:
        page = reader.get(f"{R}/requests?limit=1{before and f'&before={before}'}").json()
        seen += page["data"]
        before = page["next"]
    assert [r["request_id"] for r in seen] == [IDS[3], IDS[2], IDS[1], IDS[0]]
    assert (seen[0]["outcome"], seen[2]["cost_usd"], seen[2]["cost_nano_usd"]) == (
        "timeout",
        None,
        None,
    )
    for prefix in ("", "chatcmpl-", "msg_", "resp_"):
        one = reader.get(f"{R}/requests/{prefix}{IDS[0]}").json()
        assert one == {**seen[3], "seq": None}
    assert one["attempts"][0]["upstream"] == "up"
    assert one["cost_usd"] == "1.50"
    assert datetime.fromisoformat(one["started_at"]).tzinfo == UTC


def test_a_session_has_its_sum_and_its_requests(reader: httpx2.Client) -> None:
    session = reader.get(f"{R}/sessions/talk?limit=2").json()
    assert (session["total"]["requests"], session["total"]["cost_usd"]) == (3, "3.00")
    assert [r["request_id"] for r in session["data"]] == [IDS[2], IDS[1]]
    rest = reader.get(f"{R}/sessions/talk?before={session['next']}").json()
    assert [r["request_id"] for r in rest["data"]] == [IDS[0]]
    refused(reader.get(f"{R}/sessions/"), 404)


# --- upstreams, models ----------------------------------------------------------------------------


def test_upstreams_are_as_the_edge_says_with_what_was_measured(
    reader: httpx2.Client, shared: Made
) -> None:
    (upstream,) = reader.get(R + "/upstreams").json()["data"]
    assert (upstream["name"], upstream["state"], upstream["requests"]) == (
        shared.upstream,
        "degraded",
        0,
    )
    assert shared.asked[-1].startswith("GET /internal/upstreams ")


def test_an_upstream_is_tested_by_the_edge(api: httpx2.Client, made: Made) -> None:
    assert api.post(f"{R}/upstreams/{made.upstream}/test").json() == STEPS
    assert made.asked == [made.asked[0]]
    assert made.asked[0].startswith(f"POST /internal/upstreams/{made.upstream}/test ")
    assert made.changes()[0] == ("upstream.test", made.upstream, "")


def test_an_edge_that_is_away_is_a_502(shared: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.site.console_context, "edge_url", "http://127.0.0.1:9")
    with shared.client("admin") as client:
        refused(client.get(R + "/upstreams"), 502)


def test_models_have_their_prices(reader: httpx2.Client, shared: Made) -> None:
    models = {m["id"]: m for m in reader.get(R + "/models").json()["data"]}
    first = models["MiniMax-M3"]["prices"][0]
    assert (first["input"], first["output"], first["cache_write"]) == ("0.30", "1.20", "0.30")
    assert models["MiniMax-M3"]["upstreams"] == [shared.upstream]


def test_a_real_gateway_takes_what_was_made_and_tells_of_its_upstreams(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    gateway = start(tmp_path_factory.mktemp("real") / "data", **UPSTREAM)
    try:
        with served(gateway.data, routes.RULES, gateway.url) as site:
            now_s = time.time()
            _, text = site.console_context.people.create_management_key(
                "real", "admin", now_s=now_s
            )
            headers = {"authorization": f"Bearer {text}"}
            with httpx2.Client(base_url=site.url, headers=headers, timeout=PATIENCE_S) as client:
                (upstream,) = client.get(R + "/upstreams").json()["data"]
                assert (upstream["host"], upstream["state"]) == ("127.0.0.1:9", "not_checked")
                steps = client.post(f"{R}/upstreams/{upstream['name']}/test").json()["steps"]
                assert "fail" in [s["state"] for s in steps]
                (upstream,) = client.get(R + "/upstreams").json()["data"]
                assert (upstream["state"], upstream["check"]) == ("degraded", "upstream")
                key = client.post(R + "/keys", json={"name": "k"}).json()["key"]
                own = {"authorization": f"Bearer {key}"}
                wait_for(lambda: gateway.get("/v1/key", **own).status_code == 200)
            assert gateway.get("/v1/models", **headers).status_code == 401
    finally:
        assert stop(gateway) == 0
