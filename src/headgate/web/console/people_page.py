"""People of the console and keys of the admin API: who may come in, as what, and no longer.

The only place of the console that draws a password for somebody, and shows it once.  Note:
a change of a user ends their sessions; the role and the account of who comes by an identity provider
are the provider's again at their next sign-in, and they get no password here, which would go around it.
"""

import secrets
import time
from typing import Literal

from starlette.responses import Response

from headgate.admin import people as operations
from headgate.admin.operator import Refused
from headgate.policy.access import ROLES, Role, User
from headgate.storage.errors import StoreError
from headgate.web.app import Rule
from headgate.web.auth import passwords
from headgate.web.console import form_fields as fields
from headgate.web.context import NavigationEntry, Problem, RequestContext

_KEY_ROLES: tuple[Literal["admin", "viewer"], ...] = ("viewer", "admin")
# Without those that look alike in print: 31 of them, so that 20 have 99 bits.
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_taken = fields.Taken()


def new_password() -> str:
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))
    return "-".join(groups)


# --- users ----------------------------------------------------------------------------------------


def show(visit: RequestContext) -> Response:
    return _list(visit)


def _list(visit: RequestContext, refused: Problem | None = None, of: str = "") -> Response:
    """`of`: which form was refused."""
    console_context, now_s = visit.console_context, time.time()
    text = visit.query.get("text", "").strip()[:128]
    account = visit.query.get("account", "")
    everybody = console_context.people.users()
    users = [
        u
        for u in sorted(everybody, key=lambda u: (u.closed_s is not None, u.name.casefold()))
        if (not account or u.account == account)
        and (not text or text.casefold() in f"{u.name}\n{u.email}".casefold())
    ]
    page = fields.list_page(visit, "/people", len(users), text=text, account=account)
    return visit.render(
        "people.html",
        200 if refused is None else refused.status,
        users=users[page.rows],
        found=len(users),
        total=len(everybody),
        page=page,
        filters={"text": text, "account": account},
        keys=[(k, k.good(now_s)) for k in reversed(console_context.people.management_keys())],
        accounts=[a for a in console_context.store.accounts() if a.good(now_s)],
        roles=ROLES,
        key_roles=_KEY_ROLES,
        provider=console_context.settings.oidc.issuer,
        refused=refused,
        of=of,
        values=dict(visit.form),
        number=fields.number(),
        soonest=fields.moment_text(now_s + 60),
    )


def make(visit: RequestContext) -> Response:
    number = visit.form.get("number", "")
    operator = visit.operator
    try:
        fields.only(visit, "number", "name", "role", "account")
        name = fields.name(visit)
        role: Role = fields.choice(visit, "role", ROLES)
        if (led := _taken.before(number)) is not None:
            return visit.redirect(led or "/people")
        try:
            operations.name_is_free(operator, name)
            password = new_password()
            user = operations.create(
                operator,
                name,
                passwords.hash(password),
                role,
                visit.form.get("account", ""),
                now_s=time.time(),
            )
        except (Refused, StoreError):
            _taken.forget(number)
            raise
    except Refused as refused:
        return _list(visit, visit.problem(refused), "user")
    except Problem as refused:
        return _list(visit, refused, "user")
    _taken.leads(number, f"/people/{user.id}")
    return _password_shown(visit, user, password)


def _password_shown(visit: RequestContext, user: User, password: str) -> Response:
    return visit.render(
        "people_password.html", headers={"cache-control": "no-store"}, user=user, password=password
    )


def show_user(visit: RequestContext) -> Response:
    return _one(visit, _found(visit))


def _one(visit: RequestContext, user: User, refused: Problem | None = None) -> Response:
    now_s = time.time()
    shown = {"role": user.role, "account": user.account}
    return visit.render(
        "people_one.html",
        200 if refused is None else refused.status,
        user=user,
        values=dict(visit.form) if refused is not None else shown,
        accounts=[
            a
            for a in visit.console_context.store.accounts()
            if a.good(now_s) or a.id == user.account
        ],
        roles=ROLES,
        refused=refused,
        number=fields.number(),
    )


def _found(visit: RequestContext) -> User:
    with visit.problems():
        return operations.find(visit.operator, visit.path["id"])


def change(visit: RequestContext) -> Response:
    """Give a user another role or account; what is as before is no change, and ends no session."""
    user = _found(visit)
    try:
        fields.only(visit, "role", "account")
        role = fields.choice(visit, "role", ROLES) if "role" in visit.form else None
        operations.change(
            visit.operator,
            user.id,
            role=role,
            account=visit.form.get("account"),
            now_s=time.time(),
        )
    except Refused as refused:
        return _one(visit, user, visit.problem(refused))
    except Problem as refused:
        return _one(visit, user, refused)
    return visit.redirect(f"/people/{user.id}", "changed")


def reset(visit: RequestContext) -> Response:
    """Draw a new password; the old one and all sessions end."""
    operator, id = visit.operator, visit.path["id"]
    fields.only(visit, "number")
    number = visit.form.get("number", "")
    with visit.problems():
        operations.has_password(operations.open_user(operator, id))
        if (led := _taken.before(number)) is not None:
            return visit.redirect(led or f"/people/{id}")
        password = new_password()
        try:
            user = operations.change(
                operator, id, password=passwords.hash(password), now_s=time.time()
            )
        except (Refused, StoreError):
            _taken.forget(number)
            raise
    _taken.leads(number, f"/people/{id}")
    return _password_shown(visit, user, password)


def close(visit: RequestContext) -> Response:
    user = _found(visit)
    fields.only(visit)
    try:
        operations.close(visit.operator, user.id, now_s=time.time())
    except Refused as refused:
        return _one(visit, user, visit.problem(refused))
    return visit.redirect(f"/people/{user.id}", "closed")


# --- keys of the admin API ------------------------------------------------------------------------


def make_key(visit: RequestContext) -> Response:
    number = visit.form.get("number", "")
    now_s = time.time()
    try:
        fields.only(visit, "number", "name", "role", "expires")
        name = fields.name(visit)
        role = fields.choice(visit, "role", _KEY_ROLES)
        expires_s = fields.moment(visit, "expires", now_s)
        if _taken.before(number) is not None:
            return visit.redirect("/people#keys")
        try:
            key, text = operations.create_management_key(
                visit.operator, name, role, expires_s, now_s=now_s
            )
        except (Refused, StoreError):
            _taken.forget(number)
            raise
    except Refused as refused:
        return _list(visit, visit.problem(refused), "key")
    except Problem as refused:
        return _list(visit, refused, "key")
    return visit.render(
        "people_key.html", headers={"cache-control": "no-store"}, key=key, text=text
    )


def revoke_key(visit: RequestContext) -> Response:
    with visit.problems():
        key = operations.find_management_key(visit.operator, visit.path["id"])
    fields.only(visit)
    operations.revoke_management_key(visit.operator, key.id, now_s=time.time())
    return visit.redirect("/people", "revoked")


ENTRY = NavigationEntry("/people", "People", "manage", "Team")
RULES = (
    Rule("GET", "/people", show, "manage"),
    Rule("POST", "/people", make, "manage", hashes=True),
    Rule("POST", "/people/keys", make_key, "manage"),
    Rule("POST", "/people/keys/{id}/revoke", revoke_key, "manage"),
    Rule("GET", "/people/{id}", show_user, "manage"),
    Rule("POST", "/people/{id}", change, "manage"),
    Rule("POST", "/people/{id}/password", reset, "manage", hashes=True),
    Rule("POST", "/people/{id}/close", close, "manage"),
)
