"""Accounts: teams whose keys share a budget.  Made, changed and closed by who manages.

Note: an account's id never changes and cannot be used again, as the ledger is kept by it;
and one that was closed stays closed.
"""

import time
from collections import Counter

import msgspec
from starlette.responses import Response

from headgate.admin import accounts as operations
from headgate.admin.operator import Refused
from headgate.policy.keys import Account, AccountChanges
from headgate.policy.owner_budget import BudgetStatus
from headgate.policy.terms import ACCOUNT_TERMS, field_of
from headgate.storage.postgres.nodes import Leased
from headgate.web.api import upstream_keys
from headgate.web.app import Rule
from headgate.web.console import form_fields as fields
from headgate.web.console.keys_page import FormTerm, Ring, form_terms
from headgate.web.context import NavigationEntry, Problem, RequestContext


class AccountView(msgspec.Struct, frozen=True):
    account: Account
    open: bool
    standing: BudgetStatus
    keys: int  # that are good
    people: int
    leased: Leased | None = None  # of its budget, to nodes


_BUDGET = tuple(map(field_of, ACCOUNT_TERMS))


class Form(msgspec.Struct, frozen=True):
    values: dict[str, str]
    terms: list[FormTerm]
    zones: tuple[str, ...] = fields.ZONES


def show(visit: RequestContext) -> Response:
    return _list(visit)


def _list(visit: RequestContext, refused: Problem | None = None) -> Response:
    ring = Ring(visit)
    keys = Counter(k.account for k in ring.all if k.good(ring.now_s))
    people = Counter(u.account for u in visit.console_context.people.users() if u.closed_s is None)
    text = visit.query.get("text", "").strip()[:128]
    found = sorted(
        (
            a
            for a in ring.accounts.values()
            if not text or text.casefold() in f"{a.name}\n{a.id}".casefold()
        ),
        key=lambda a: (not a.good(ring.now_s), a.name.casefold()),
    )
    page = fields.list_page(visit, "/accounts", len(found), text=text)
    shown = [
        AccountView(
            a,
            a.good(ring.now_s),
            ring.spending.standing("account", [a.id], a),
            keys[a.id] if a.good(ring.now_s) else 0,
            people[a.id],
            visit.ledger.leased("account", a.id, a),
        )
        for a in found[page.rows]
    ]
    return visit.render(
        "accounts.html",
        200 if refused is None else refused.status,
        accounts=shown,
        total=len(ring.accounts),
        page=page,
        text=text,
        refused=refused,
        form=Form(dict(visit.form), form_terms(ACCOUNT_TERMS)),
    )


def _shown(visit: RequestContext, ring: Ring, account: Account) -> AccountView:
    good = account.good(ring.now_s)
    keys = [k for k in ring.all if k.account == account.id and k.good(ring.now_s)]
    people = [
        u
        for u in visit.console_context.people.users()
        if u.account == account.id and u.closed_s is None
    ]
    standing = ring.spending.standing("account", [account.id], account)
    leased = visit.ledger.leased("account", account.id, account)
    return AccountView(account, good, standing, len(keys) if good else 0, len(people), leased)


def found(visit: RequestContext, ring: Ring) -> Account:
    account = ring.accounts.get(visit.path["id"])
    if account is None:
        raise Problem(404, "Not found.")
    return account


def make(visit: RequestContext) -> Response:
    try:
        fields.only(visit, "id", "name", *_BUDGET)
        id = visit.form.get("id", "")
        name = fields.name(visit) if visit.form.get("name") else id
        account = operations.create(
            visit.operator,
            id,
            name,
            terms=fields.terms(visit, ACCOUNT_TERMS),  # type: ignore[arg-type]  # of BudgetTerms
            now_s=time.time(),
        )
    except Refused as refused:
        return _list(visit, visit.problem(refused))
    except Problem as refused:
        return _list(visit, refused)
    return visit.redirect(f"/accounts/{account.id}", "made")


def show_account(visit: RequestContext) -> Response:
    return _one(visit)


def with_refused_upstream_key(visit: RequestContext, refused: Problem) -> Response:
    """The page of an account for which an upstream key was entered that cannot be kept."""
    return _one(visit, upstream_key=refused)


def _one(
    visit: RequestContext, refused: Problem | None = None, upstream_key: Problem | None = None
) -> Response:
    ring = Ring(visit)
    account = found(visit, ring)
    keys = [k for k in reversed(ring.all) if k.account == account.id]
    requests, unpriced, spent = ring.spending.ever("account", account.id)
    written = {"name": account.name, **fields.terms_text(account, ACCOUNT_TERMS)}
    return visit.render(
        "account.html",
        wrong.status if (wrong := refused or upstream_key) is not None else 200,
        account=account,
        shown=_shown(visit, ring, account),
        keys=ring.shown(keys),
        people=[u for u in visit.console_context.people.users() if u.account == account.id],
        requests=requests,
        unpriced=unpriced,
        spent_nano=spent,
        refused=refused,
        form=Form(dict(visit.form) if refused is not None else written, form_terms(ACCOUNT_TERMS)),
        owned=upstream_keys.panel(
            visit, "account", account.id, f"/accounts/{account.id}", upstream_key
        ),
    )


def change(visit: RequestContext) -> Response:
    account = found(visit, Ring(visit))
    try:
        fields.only(visit, "name", *_BUDGET)
        changes: AccountChanges = fields.terms(visit, ACCOUNT_TERMS)  # type: ignore[assignment]
        if "name" in visit.form:
            changes["name"] = fields.name(visit)
        operations.change(visit.operator, account.id, changes, now_s=time.time())
    except Refused as refused:
        return _one(visit, visit.problem(refused))
    except Problem as refused:
        return _one(visit, refused)
    return visit.redirect(f"/accounts/{account.id}", "changed")


def close(visit: RequestContext) -> Response:
    """For good: its keys open nothing any more."""
    account = found(visit, Ring(visit))
    fields.only(visit)
    operations.close(visit.operator, account.id, now_s=time.time())
    return visit.redirect(f"/accounts/{account.id}", "closed")


ENTRY = NavigationEntry("/accounts", "Accounts", "manage", "Team")
RULES = (
    Rule("GET", "/accounts", show, "manage"),
    Rule("POST", "/accounts", make, "manage"),
    Rule("GET", "/accounts/{id}", show_account, "manage"),
    Rule("POST", "/accounts/{id}", change, "manage"),
    Rule("POST", "/accounts/{id}/close", close, "manage"),
)
