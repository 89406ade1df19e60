"""Users of the console, management keys and the record of changes, over the admin API.

Note: a change of a user ends their sessions, as it does everywhere; the role and the
account of somebody who comes by an identity provider are the provider's again at their next sign-in.
"""

import time

from msgspec import UNSET, structs

from headgate.admin import people as operations
from headgate.policy import access
from headgate.policy.access import ManagementKey, User
from headgate.web.api import fields as fields
from headgate.web.api import people_shapes
from headgate.web.api import shapes as shapes
from headgate.web.api.route import given, page
from headgate.web.auth import passwords
from headgate.web.context import Problem, RequestContext

_ACTIONS: tuple[access.Action, ...] = ("see", "use", "keys", "manage")


def me(visit: RequestContext) -> people_shapes.Me:
    """Show the management key that asks."""
    who = visit.who
    return people_shapes.Me(
        id=who.id,
        name=who.name,
        role=who.role,
        may=[a for a in _ACTIONS if who.may(a)],
        sees=who.scope,
    )


# --- users ----------------------------------------------------------------------------------------


def list_users(visit: RequestContext, query: shapes.Page) -> people_shapes.Users:
    """List the users of the console, by name."""
    found, next_ = page(
        visit.console_context.people.users(), query.after, query.limit, lambda u: u.id
    )
    return people_shapes.Users(data=[_user(u) for u in found], next=next_)


def show_user(visit: RequestContext) -> people_shapes.User:
    """Show one user."""
    return _user(operations.find(visit.operator, visit.path["id"]))


def make_user(visit: RequestContext, body: people_shapes.NewUser) -> people_shapes.User:
    """Make a user, who signs in with this name and password."""
    operator, name = visit.operator, fields.name(body.name)
    operations.name_is_free(operator, name)
    kept = _hash(body.password, name)
    return _user(
        operations.create(operator, name, kept, body.role, body.account, now_s=time.time())
    )


def change_user(visit: RequestContext, body: people_shapes.UserChanges) -> people_shapes.User:
    """Change a user's role, account or password; their sessions end."""
    operator, id = visit.operator, visit.path["id"]
    kept = None
    if body.password is not UNSET:
        user = operations.open_user(operator, id)
        operations.has_password(user)
        kept = _hash(body.password, user.name)
    return _user(
        operations.change(
            operator,
            id,
            role=given(body.role),
            account=given(body.account),
            password=kept,
            now_s=time.time(),
        )
    )


def close_user(visit: RequestContext) -> people_shapes.User:
    """Close a user, for good; their sessions end.

    Doing it again changes nothing.
    """
    operations.close(visit.operator, visit.path["id"], now_s=time.time())
    return show_user(visit)


def _hash(password: str, name: str) -> str:
    if problem := passwords.problem(password, name):
        raise Problem(422, problem, "$.password")
    return passwords.hash(password)


def _user(user: User) -> people_shapes.User:
    return people_shapes.User(
        id=user.id,
        name=user.name,
        email=user.email,
        role=user.role,
        account=user.account,
        provider=user.issuer,
        state="open" if user.closed_s is None else "closed",
        created_at=shapes.at(user.created_s),
        closed_at=shapes.at_or_none(user.closed_s),
        seen_at=shapes.at_or_none(user.seen_s),
    )


# --- management keys ------------------------------------------------------------------------------


def list_management_keys(visit: RequestContext, query: shapes.Page) -> people_shapes.ManagementKeys:
    """List the management keys, oldest first."""
    keys = visit.console_context.people.management_keys()
    found, next_ = page(keys, query.after, query.limit, lambda k: k.id)
    return people_shapes.ManagementKeys(data=[_management_key(k) for k in found], next=next_)


def show_management_key(visit: RequestContext) -> people_shapes.ManagementKey:
    """Show one management key."""
    return _management_key(operations.find_management_key(visit.operator, visit.path["id"]))


def make_management_key(
    visit: RequestContext, body: people_shapes.NewManagementKey
) -> people_shapes.MadeManagementKey:
    """Make a key of this API.

    The answer has its text, and nothing has it later.
    """
    now_s = time.time()
    key, text = operations.create_management_key(
        visit.operator,
        fields.name(body.name),
        body.role,
        fields.future(body.expires_at, now_s),
        now_s=now_s,
    )
    return people_shapes.MadeManagementKey(**structs.asdict(_management_key(key)), key=text)


def revoke_management_key(visit: RequestContext) -> people_shapes.ManagementKey:
    """Revoke a management key, for good; it may be the one that asks.

    Doing it again changes nothing.
    """
    operations.revoke_management_key(visit.operator, visit.path["id"], now_s=time.time())
    return show_management_key(visit)


def _management_key(key: ManagementKey) -> people_shapes.ManagementKey:
    revoked = key.revoked_s is not None
    good = key.good(time.time())
    return people_shapes.ManagementKey(
        id=key.id,
        name=key.name,
        role=key.role,
        state="open" if good else "revoked" if revoked else "expired",
        created_at=shapes.at(key.created_s),
        expires_at=shapes.at_or_none(key.expires_s),
        revoked_at=shapes.at_or_none(key.revoked_s),
    )


# --- changes --------------------------------------------------------------------------------------


def list_changes(visit: RequestContext, query: people_shapes.ChangesAsked) -> people_shapes.Changes:
    """List who changed what, the last first."""
    account = given(query.account)
    if account is not None:
        visit.must_see(account)
    elif visit.who.scope is not None:
        account = visit.who.scope
    rows = visit.console_context.people.changes(
        account=account, before=given(query.before), most=query.limit + 1
    )
    shown = rows[: query.limit]
    return people_shapes.Changes(
        data=[
            people_shapes.Change(
                seq=c.seq,
                at=shapes.at(c.at_s),
                actor=c.actor,
                via=c.via,
                action=c.action,
                subject=c.subject,
                account=c.account,
                detail=c.detail,
            )
            for c in shown
        ],
        next=shown[-1].seq if len(rows) > query.limit else None,
    )
