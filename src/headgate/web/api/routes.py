"""The admin API, /admin/v1: the table of its routes, for app.py, openapi.py and the reference.

It does what the console does, for programs.  A management key opens it and calls no model; a key of
models opens nothing here.  Its JSON is in admin_shapes.py and admin_figures.py; admin_route.py says
what a handler is.
"""

from headgate.web.api import keys as keys
from headgate.web.api import nodes, own_models, own_upstreams, upstream_keys
from headgate.web.api import people as people
from headgate.web.api import reports as ledger_reports
from headgate.web.api.route import Endpoint

KEY = '{"name": "ci", "models": ["MiniMax-M3"], "budget_usd": "25.00", "budget_period": "month"}'
MODEL = (
    '{"id": "acme-coder", "routes": [{"upstream": "acme"}], "prices": [{"input": "1.00", "output": "2.00"}],'
    ' "context_window": 200000, "max_output": 32000}'
)

UPSTREAM_KEY = '{"account": "acme", "upstream": "acme", "secret": "sk-cp-0123456789abcdef"}'
UPSTREAM = '{"id": "minimax", "preset": "minimax", "key": "sk-api-..."}'

ENDPOINTS = (
    Endpoint("Keys", "GET", "/keys", keys.list_keys, "see"),
    Endpoint("Keys", "POST", "/keys", keys.make_key, "manage", 201, KEY),
    Endpoint("Keys", "GET", "/keys/{id}", keys.show_key, "see"),
    Endpoint("Keys", "PATCH", "/keys/{id}", keys.change_key, "manage", example='{"rpm": 60}'),
    Endpoint("Keys", "DELETE", "/keys/{id}", keys.revoke_key, "manage"),
    Endpoint(
        "Keys", "POST", "/keys/{id}/rotate", keys.rotate_key, "manage", 201, '{"overlap_s": 3600}'
    ),
    Endpoint("Accounts", "GET", "/accounts", keys.list_accounts, "see"),
    Endpoint(
        "Accounts",
        "POST",
        "/accounts",
        keys.make_account,
        "manage",
        201,
        '{"id": "search", "name": "Search", "budget_usd": "500"}',
    ),
    Endpoint("Accounts", "GET", "/accounts/{id}", keys.show_account, "see"),
    Endpoint(
        "Accounts",
        "PATCH",
        "/accounts/{id}",
        keys.change_account,
        "manage",
        example='{"budget_usd": null}',
    ),
    Endpoint("Accounts", "DELETE", "/accounts/{id}", keys.close_account, "manage"),
    Endpoint("Upstream keys", "GET", "/upstream_keys", upstream_keys.list_upstream_keys, "see"),
    Endpoint(
        "Upstream keys",
        "POST",
        "/upstream_keys",
        upstream_keys.set_upstream_key,
        "manage",
        201,
        UPSTREAM_KEY,
    ),
    Endpoint(
        "Upstream keys", "GET", "/upstream_keys/{id:path}", upstream_keys.show_upstream_key, "see"
    ),
    Endpoint(
        "Upstream keys",
        "DELETE",
        "/upstream_keys/{id:path}",
        upstream_keys.remove_upstream_key,
        "manage",
    ),
    Endpoint("Users", "GET", "/users", people.list_users, "manage"),
    Endpoint(
        "Users",
        "POST",
        "/users",
        people.make_user,
        "manage",
        201,
        '{"name": "ada", "password": "a long sentence of your own", "role": "viewer"}',
    ),
    Endpoint("Users", "GET", "/users/{id}", people.show_user, "manage"),
    Endpoint(
        "Users", "PATCH", "/users/{id}", people.change_user, "manage", example='{"role": "viewer"}'
    ),
    Endpoint("Users", "DELETE", "/users/{id}", people.close_user, "manage"),
    Endpoint("Management keys", "GET", "/management_keys", people.list_management_keys, "manage"),
    Endpoint(
        "Management keys",
        "POST",
        "/management_keys",
        people.make_management_key,
        "manage",
        201,
        '{"name": "dashboard", "role": "viewer"}',
    ),
    Endpoint(
        "Management keys", "GET", "/management_keys/{id}", people.show_management_key, "manage"
    ),
    Endpoint(
        "Management keys", "DELETE", "/management_keys/{id}", people.revoke_management_key, "manage"
    ),
    Endpoint("Management keys", "GET", "/me", people.me, "see"),
    Endpoint("Usage and requests", "GET", "/usage", ledger_reports.show_usage, "see"),
    Endpoint("Usage and requests", "GET", "/requests", ledger_reports.list_requests, "see"),
    Endpoint("Usage and requests", "GET", "/requests/{id}", ledger_reports.show_request, "see"),
    Endpoint(
        "Usage and requests", "GET", "/sessions/{id:path}", ledger_reports.show_session, "see"
    ),
    Endpoint("Usage and requests", "GET", "/nodes", nodes.list_nodes, "see"),
    Endpoint("Usage and requests", "GET", "/changes", people.list_changes, "see"),
    Endpoint("Upstreams and models", "GET", "/upstreams", ledger_reports.list_upstreams, "see"),
    Endpoint(
        "Upstreams and models",
        "POST",
        "/upstreams",
        own_upstreams.make_upstream,
        "manage",
        201,
        UPSTREAM,
    ),
    Endpoint(
        "Upstreams and models", "GET", "/upstreams/{name}", own_upstreams.show_upstream, "manage"
    ),
    Endpoint(
        "Upstreams and models",
        "PATCH",
        "/upstreams/{name}",
        own_upstreams.change_upstream,
        "manage",
        example='{"free": true}',
    ),
    Endpoint(
        "Upstreams and models",
        "DELETE",
        "/upstreams/{name}",
        own_upstreams.remove_upstream,
        "manage",
    ),
    Endpoint(
        "Upstreams and models",
        "POST",
        "/upstreams/{name}/test",
        ledger_reports.check_upstream,
        "manage",
    ),
    Endpoint("Upstreams and models", "GET", "/models", own_models.list_models, "see"),
    Endpoint(
        "Upstreams and models", "POST", "/models", own_models.make_model, "manage", 201, MODEL
    ),
    Endpoint("Upstreams and models", "GET", "/models/{id:path}", own_models.show_model, "see"),
    Endpoint(
        "Upstreams and models",
        "PATCH",
        "/models/{id:path}",
        own_models.change_model,
        "manage",
        example='{"context_window": 200000}',
    ),
    Endpoint(
        "Upstreams and models", "DELETE", "/models/{id:path}", own_models.remove_model, "manage"
    ),
)

RULES = tuple(endpoint.rule() for endpoint in ENDPOINTS)
