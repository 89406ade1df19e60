"""This module has the users of the console, as rows: found, created, brought up to date, and changed.

Note: functions that write run in a transaction of their caller.
"""

import secrets
from typing import Any

import apsw
import msgspec

from headgate.policy.access import Role, User
from headgate.policy.terms import MAX_NAME_CHARS, name_fault
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.statements import insert

_COLUMNS = ", ".join(User.__struct_fields__)


def _found(db: apsw.Connection, condition: str, **values: str) -> list[User]:
    rows: Any = db.execute(f"select {_COLUMNS} from users {condition}", values)
    return [User(*columns) for columns in rows]  # Any: the columns are as the schema says


def everybody(db: apsw.Connection) -> list[User]:
    """Return all users by name, also those that are closed."""
    return _found(db, "order by name")


def by_id(db: apsw.Connection, id: str) -> User | None:
    return next(iter(_found(db, "where id = :id", id=id)), None)


def anybody(db: apsw.Connection) -> bool:
    """Whether there is a user."""
    return bool(list(db.execute("select 1 from users limit 1")))


def with_password(db: apsw.Connection, name: str) -> tuple[User, str] | None:
    """Return an open user and the hash of their password; "" when they have none."""
    found: Any = db.execute(
        f"select password, {_COLUMNS} from users where name = :name and closed_s is null",
        {"name": name},
    )
    return next(((User(*columns), str(hashed)) for hashed, *columns in found), None)


def create(
    db: apsw.Connection,
    name: str,
    password: str,
    role: Role,
    account: str,
    *,
    now_s: float,
    email: str = "",
    issuer: str = "",
    subject: str = "",
) -> User:
    """Insert a user; StoreError when the name is bad or taken."""
    if fault := name_fault("a user", name):
        raise StoreError(fault)
    user = User(
        secrets.token_hex(8), name, email, issuer, subject, role, account, now_s, None, None
    )
    if _found(db, "where name = :name", name=name):
        raise StoreError(f"there is a user {name} already.")
    insert(db, "users", {**msgspec.structs.asdict(user), "password": password})
    return user


def from_provider(
    db: apsw.Connection,
    issuer: str,
    subject: str,
    name: str,
    email: str,
    role: Role,
    account: str,
    *,
    now_s: float,
) -> User | None:
    """Return who signs in by OIDC, created or brought up to date; None when they were closed here.

    Found by issuer and subject only: a name or an address can change hands.
    """
    found = _found(
        db, "where issuer = :issuer and subject = :subject", issuer=issuer, subject=subject
    )
    if not found:
        taken = _found(db, "where name = :name", name=name)
        shown = f"{name} ({subject})"[:MAX_NAME_CHARS] if taken else name
        return create(
            db, shown, "", role, account, now_s=now_s, email=email, issuer=issuer, subject=subject
        )
    user = found[0]
    if user.closed_s is not None:
        return None
    db.execute(
        "update users set email = :email, role = :role, account = :account where id = :id",
        {"email": email, "role": role, "account": account, "id": user.id},
    )
    return msgspec.structs.replace(user, email=email, role=role, account=account)


def change(
    db: apsw.Connection,
    id: str,
    role: Role | None,
    account: str | None,
    password: str | None,
    closed_s: float | None,
) -> bool:
    """Change what is given, and end the user's sessions; False when no open user has this id.

    StoreError when nobody would be left who can manage.
    """
    user = by_id(db, id)
    if user is None or user.closed_s is not None:
        return False
    loses = closed_s is not None or role not in (None, "admin")
    others = "where role = 'admin' and closed_s is null and id <> :id"
    if user.role == "admin" and loses and not _found(db, others, id=id):
        raise StoreError("this is the last admin; make another one first.")
    changes = {"role": role, "account": account, "password": password, "closed_s": closed_s}
    db.execute(
        "update users set role = coalesce(:role, role), account = coalesce(:account, account),"
        " password = coalesce(:password, password), closed_s = coalesce(:closed_s, closed_s)"
        " where id = :id",
        {**changes, "id": id},
    )
    db.execute("delete from sessions where user = :id", {"id": id})
    return True
