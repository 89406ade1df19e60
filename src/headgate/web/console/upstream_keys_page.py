"""Owners' upstream keys are managed in the console: the panel on the page of a gateway key and of an account.

Note: the form is never filled in again, also after a mistake, so that no page has a key on it.
"""

import time

from starlette.responses import Response

from headgate.admin import upstream_keys as operations
from headgate.admin.operator import Refused
from headgate.policy.keys import KEY_STATES
from headgate.policy.upstream_keys import OwnerKind
from headgate.web.app import Rule
from headgate.web.console import accounts_page, keys_page
from headgate.web.console import form_fields as fields
from headgate.web.context import Problem, RequestContext

_FIELDS = ("upstream", "secret", "fallback")


def put_for_key(visit: RequestContext) -> Response:
    ring = keys_page.Ring(visit)
    key = ring.key(visit)
    if not key.good(ring.now_s):
        state = KEY_STATES[ring.state(key)]
        raise Problem(409, visit.word("The key is {state}; it cannot be changed.", state=state))
    try:
        _put(visit, "key", key.id)
    except Problem as refused:
        return keys_page.with_refused_upstream_key(visit, refused)
    return visit.redirect(f"/api_keys/{key.id}", "changed")


def remove_for_key(visit: RequestContext) -> Response:
    key = keys_page.Ring(visit).key(visit)
    _remove(visit, "key", key.owner)
    return visit.redirect(f"/api_keys/{key.id}", "removed")


def put_for_account(visit: RequestContext) -> Response:
    account = accounts_page.found(visit, keys_page.Ring(visit))
    try:
        _put(visit, "account", account.id)
    except Problem as refused:
        return accounts_page.with_refused_upstream_key(visit, refused)
    return visit.redirect(f"/accounts/{account.id}", "changed")


def remove_for_account(visit: RequestContext) -> Response:
    account = accounts_page.found(visit, keys_page.Ring(visit))
    _remove(visit, "account", account.id)
    return visit.redirect(f"/accounts/{account.id}", "removed")


def _put(visit: RequestContext, kind: OwnerKind, owner: str) -> None:
    fields.only(visit, *_FIELDS)
    form = visit.form
    secret, fallback = form.get("secret", "").strip(), bool(form.get("fallback"))
    try:
        operations.put(
            visit.operator,
            visit.console_context.upstreams,
            kind,
            owner,
            form.get("upstream", ""),
            secret,
            fallback=fallback,
            now_s=time.time(),
        )
    except Refused as refused:
        problem = visit.problem(refused)
        if problem.field == operations.OWNER_FIELDS[kind]:  # the page's own, no field of the form
            problem.field = "upstream"
        raise problem from None


def _remove(visit: RequestContext, kind: OwnerKind, owner: str) -> None:
    fields.only(visit)
    operations.remove(visit.operator, kind, owner, visit.path["upstream"])


RULES = (
    Rule("POST", "/api_keys/{id}/upstream_keys", put_for_key, "keys"),
    Rule("POST", "/api_keys/{id}/upstream_keys/{upstream:path}/remove", remove_for_key, "keys"),
    Rule("POST", "/accounts/{id}/upstream_keys", put_for_account, "manage"),
    Rule(
        "POST",
        "/accounts/{id}/upstream_keys/{upstream:path}/remove",
        remove_for_account,
        "manage",
    ),
)
