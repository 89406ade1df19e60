"""People of the console and keys of the admin API: who may come in, as what, and no longer.

The only place of the console that draws a password for somebody, and shows it once.  What will surprise:
a change of a user ends their sessions; the role and the account of who comes by an identity provider
are the provider's again at their next sign-in, and they get no password here, which would go around it.
"""

import secrets
import time
from typing import Literal

from starlette.responses import Response

from headgate.policy.access import ROLES, Role, User
from headgate.storage.errors import StoreError
from headgate.web.app import Rule
from headgate.web.auth import passwords
from headgate.web.console import form_fields as fields
from headgate.web.context import Entry, Problem, RequestContext

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
    desk, now_s = visit.desk, time.time()
    text = visit.query.get("text", "").strip()[:128]
    account = visit.query.get("account", "")
    everybody = desk.people.users()
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
        keys=[(k, k.good(now_s)) for k in reversed(desk.people.management_keys())],
        accounts=[a for a in desk.store.accounts() if a.good(now_s)],
        roles=ROLES,
        key_roles=_KEY_ROLES,
        provider=desk.settings.oidc.issuer,
        refused=refused,
        of=of,
        values=dict(visit.form),
        number=fields.number(),
        soonest=fields.moment_text(now_s + 60),
    )


def make(visit: RequestContext) -> Response:
    number = visit.form.get("number", "")
    people, now_s = visit.desk.people, time.time()
    try:
        fields.only(visit, "number", "name", "role", "account")
        name = fields.name(visit)
        role: Role = fields.choice(visit, "role", ROLES)
        account = fields.open_account(visit, now_s)
        if (led := _taken.before(number)) is not None:
            return visit.redirect(led or "/people")
        if any(u.name.casefold() == name.casefold() for u in people.users()):
            _taken.forget(number)
            raise Problem(409, visit.word("There is a user {name} already.", name=name), "name")
        password = new_password()
        user = people.create_user(name, passwords.hash(password), role, account, now_s=now_s)
    except StoreError as error:
        _taken.forget(number)
        return _list(visit, Problem(422, fields.refused(error)), "user")
    except Problem as refused:
        return _list(visit, refused, "user")
    _taken.leads(number, f"/people/{user.id}")
    visit.record("user.create", user.id, user.account, name=user.name, role=user.role)
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
        accounts=[a for a in visit.desk.store.accounts() if a.good(now_s) or a.id == user.account],
        roles=ROLES,
        refused=refused,
        number=fields.number(),
    )


def _found(visit: RequestContext) -> User:
    user = visit.desk.people.user(visit.path["id"])
    if user is None:
        raise Problem(404, "There is no such thing here.")
    return user


def _open(visit: RequestContext) -> User:
    user = _found(visit)
    if user.closed_s is not None:
        raise Problem(409, "This user is closed for good; nothing of them can be changed.")
    return user


def change(visit: RequestContext) -> Response:
    """Another role or account; what is as before is no change, and ends no session."""
    user = _open(visit)
    try:
        fields.only(visit, "role", "account")
        said: dict[str, object] = {}
        role: Role | None = None
        account: str | None = None
        if "role" in visit.form:
            said["role"] = role = fields.choice(visit, "role", ROLES)
        if "account" in visit.form and visit.form["account"] != user.account:
            said["account"] = account = fields.open_account(visit, time.time())
        changed = fields.difference(user, said)
        if changed and not visit.desk.people.change_user(user.id, role=role, account=account):
            raise Problem(409, visit.word("The user was closed meanwhile."))
    except StoreError as error:
        return _one(visit, user, Problem(409, fields.refused(error)))
    except Problem as refused:
        return _one(visit, user, refused)
    if changed:
        told = user.account if account is None else account
        visit.record("user.change", user.id, told, name=user.name, **changed)
    return visit.redirect(f"/people/{user.id}", "changed")


def reset(visit: RequestContext) -> Response:
    """A new password, drawn here; the old one and all sessions end."""
    user = _open(visit)
    fields.only(visit, "number")
    if user.issuer:
        raise Problem(409, "This user signs in by the identity provider, and has no password here.")
    number = visit.form.get("number", "")
    if (led := _taken.before(number)) is not None:
        return visit.redirect(led or f"/people/{user.id}")
    password = new_password()
    try:
        changed = visit.desk.people.change_user(user.id, password=passwords.hash(password))
    except StoreError:
        _taken.forget(number)
        raise
    if not changed:
        _taken.forget(number)
        raise Problem(409, "The user was closed meanwhile.")
    _taken.leads(number, f"/people/{user.id}")
    visit.record("user.password", user.id, user.account, name=user.name)
    return _password_shown(visit, user, password)


def close(visit: RequestContext) -> Response:
    user = _found(visit)
    fields.only(visit)
    if user.closed_s is None:
        try:
            visit.desk.people.change_user(user.id, closed_s=time.time())
        except StoreError as error:
            return _one(visit, user, Problem(409, fields.refused(error)))
        visit.record("user.close", user.id, user.account, name=user.name)
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
        key, text = visit.desk.people.create_management_key(name, role, expires_s, now_s=now_s)
    except StoreError as error:
        _taken.forget(number)
        return _list(visit, Problem(422, fields.refused(error)), "key")
    except Problem as refused:
        return _list(visit, refused, "key")
    visit.record(
        "management_key.create", key.id, name=key.name, role=key.role, expires_s=key.expires_s
    )
    return visit.render(
        "people_key.html", headers={"cache-control": "no-store"}, key=key, text=text
    )


def revoke_key(visit: RequestContext) -> Response:
    people, id = visit.desk.people, visit.path["id"]
    key = next((k for k in people.management_keys() if k.id == id), None)
    if key is None:
        raise Problem(404, "There is no such thing here.")
    fields.only(visit)
    if people.revoke_management_key(key.id, now_s=time.time()):
        visit.record("management_key.revoke", key.id, name=key.name)
    return visit.redirect("/people", "revoked")


ENTRY = Entry("/people", "People", "manage", "Team")
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
