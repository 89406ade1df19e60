"""The sessions of the console, as rows: of each one's token only an HMAC is kept.

Note: `begin` runs in a transaction of its caller.
"""

from typing import Any

import apsw

from headgate.policy.access import IDLE_S, SESSION_S, User
from headgate.storage.sqlite.statements import insert

_USER = ", ".join(f"users.{c}" for c in User.__struct_fields__)


def begin(db: apsw.Connection, mac: bytes, user: str, now_s: float) -> None:
    """Insert a session, and delete those that have ended."""
    db.execute("delete from sessions where ends_s <= :now_s", {"now_s": now_s})
    session = {
        "mac": mac,
        "user": user,
        "began_s": now_s,
        "seen_s": now_s,
        "ends_s": now_s + SESSION_S,
    }
    insert(db, "sessions", session)
    db.execute("update users set seen_s = :now_s where id = :id", {"now_s": now_s, "id": user})


def user_of(db: apsw.Connection, mac: bytes, now_s: float) -> tuple[User, float] | None:
    """Return whose session this is, and when it was last seen; None once it is over.

    It is over when it has ended, was idle too long, or its user is closed.
    """
    found: Any = db.execute(  # Any: the columns are as the schema says
        f"select sessions.seen_s, {_USER} from sessions join users on users.id = sessions.user"
        " where mac = :mac and ends_s > :now_s and sessions.seen_s > :idle_since_s"
        " and users.closed_s is null",
        {"mac": mac, "now_s": now_s, "idle_since_s": now_s - IDLE_S},
    )
    return next(((User(*columns), float(seen_s)) for seen_s, *columns in found), None)
