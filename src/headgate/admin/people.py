"""Create, change and close users of the console; create and revoke management keys.

Passwords come here hashed.  A change of a user ends their sessions.
"""

from typing import Literal

from headgate.admin.operator import Operator, Refused, difference, refusals
from headgate.policy.access import ManagementKey, Role, User


def find(operator: Operator, id: str) -> User:
    """Return the user with this id."""
    found = operator.people.user(id)
    if found is None:
        raise Refused("absent", "There is no user `{id}`.", id=id[:64])
    return found


def name_is_free(operator: Operator, name: str) -> None:
    """Refuse a name that a user has, in whatever case."""
    if any(u.name.casefold() == name.casefold() for u in operator.people.users()):
        raise Refused("taken", "There is a user {name} already.", "name", name=name[:128])


def create(
    operator: Operator, name: str, password: str, role: Role, account: str = "", *, now_s: float
) -> User:
    """Create a user, who signs in with this name and password."""
    operator.must_be_open(account, now_s)
    name_is_free(operator, name)
    with refusals("name"):
        user = operator.people.create_user(name, password, role, account, now_s=now_s)
    operator.record("user.create", user.id, user.account, name=user.name, role=user.role)
    return user


def change(
    operator: Operator,
    id: str,
    *,
    role: Role | None = None,
    account: str | None = None,
    password: str | None = None,
    now_s: float,
) -> User:
    """Change what is given of an open user; what is as before is no change, and ends no session."""
    user = open_user(operator, id)
    if password is not None:
        has_password(user)
    given = {"role": role, "account": account}
    changed = difference(user, {n: v for n, v in given.items() if v is not None})
    if "account" in changed:
        operator.must_be_open(account or "", now_s)
    if user.role == "admin" and "role" in changed:
        _must_not_be_last(operator, user)
    if not changed and password is None:
        return user
    with refusals():
        if not operator.people.change_user(
            id,
            role=role if "role" in changed else None,
            account=account if "account" in changed else None,
            password=password,
        ):
            raise Refused("closed", "The user was closed meanwhile.")
    new = find(operator, id)
    if changed:
        operator.record("user.change", id, new.account, **{"name": user.name, **changed})
    if password is not None:
        operator.record("user.password", id, new.account, name=user.name)
    return new


def close(operator: Operator, id: str, *, now_s: float) -> bool:
    """Close a user for good and end their sessions; False when they were closed before."""
    user = find(operator, id)
    if user.closed_s is not None:
        return False
    _must_not_be_last(operator, user)
    with refusals():
        if not operator.people.change_user(id, closed_s=now_s):
            return False
    operator.record("user.close", id, user.account, name=user.name)
    return True


def open_user(operator: Operator, id: str) -> User:
    """Return the user with this id, of whom something can be changed."""
    user = find(operator, id)
    if user.closed_s is not None:
        raise Refused("closed", "The user is closed; nothing of them can be changed.")
    return user


def has_password(user: User) -> None:
    """Refuse a new password for a user of an identity provider, which it would go around."""
    if user.issuer:
        text = "This user signs in by the identity provider, and has no password here."
        raise Refused("conflict", text, "password")


def _must_not_be_last(operator: Operator, user: User) -> None:
    """Refuse it for the last admin; storage refuses it too, under its lock."""
    admins = [u for u in operator.people.users() if u.role == "admin" and u.closed_s is None]
    if [a.id for a in admins] == [user.id]:
        raise Refused("conflict", "This is the last admin; make another one first.")


# --- management keys ------------------------------------------------------------------------------


def find_management_key(operator: Operator, id: str) -> ManagementKey:
    """Return the management key with this id."""
    for key in operator.people.management_keys():
        if key.id == id:
            return key
    raise Refused("absent", "There is no management key `{id}`.", id=id[:64])


def create_management_key(
    operator: Operator,
    name: str,
    role: Literal["admin", "viewer"],
    expires_s: float | None = None,
    *,
    now_s: float,
) -> tuple[ManagementKey, str]:
    """Create a key of the admin API; its text is returned only here, and kept nowhere."""
    with refusals("name"):
        key, text = operator.people.create_management_key(name, role, expires_s, now_s=now_s)
    operator.record(
        "management_key.create", key.id, name=key.name, role=key.role, expires_s=key.expires_s
    )
    return key, text


def revoke_management_key(operator: Operator, id: str, *, now_s: float) -> bool:
    """Revoke a management key for good; False when it was revoked before."""
    key = find_management_key(operator, id)
    if not operator.people.revoke_management_key(id, now_s=now_s):
        return False
    operator.record("management_key.revoke", id, name=key.name)
    return True
