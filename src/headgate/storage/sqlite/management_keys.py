"""The keys of the admin API, as rows: of each one's secret only an HMAC is kept.

Note: functions that write run in a transaction of their caller.
"""

import secrets
from typing import Any, Literal

import apsw
import msgspec

from headgate.policy import keys
from headgate.policy.access import MANAGEMENT_PREFIX, ManagementKey
from headgate.policy.terms import name_fault
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.statements import insert

_COLUMNS = ", ".join(ManagementKey.__struct_fields__)


def rows(db: apsw.Connection) -> list[ManagementKey]:
    """Return all of them, oldest first."""
    found: Any = db.execute(f"select {_COLUMNS} from management_keys order by created_s, id")
    return [ManagementKey(*columns) for columns in found]  # Any: they are as the schema says


def create(
    db: apsw.Connection,
    hash_key: bytes,
    name: str,
    role: Literal["admin", "viewer"],
    expires_s: float | None,
    now_s: float,
) -> tuple[ManagementKey, str]:
    """Insert a new one, and return it with its text, which is nowhere kept; StoreError for a bad name."""
    if fault := name_fault("a key", name):
        raise StoreError(fault)
    text, parsed = keys.new_text(secrets.token_bytes(38))
    key = ManagementKey(parsed.id, name, role, now_s, expires_s, None)
    mac = keys.mac(hash_key, parsed.secret)
    insert(db, "management_keys", {**msgspec.structs.asdict(key), "mac": mac})
    return key, MANAGEMENT_PREFIX + text.removeprefix(keys.PREFIX)


def revoke(db: apsw.Connection, id: str, now_s: float) -> bool:
    """Close one for good; False when none with this id is open."""
    db.execute(
        "update management_keys set revoked_s = :now_s"
        " where id = :id and (revoked_s is null or revoked_s > :now_s)",
        {"now_s": now_s, "id": id},
    )
    return db.changes() > 0


def presented(db: apsw.Connection, hash_key: bytes, text: str) -> ManagementKey | None:
    """Return the one with this secret, also when it has expired or was revoked."""
    known = text.startswith(MANAGEMENT_PREFIX)
    parsed = keys.parse(keys.PREFIX + text.removeprefix(MANAGEMENT_PREFIX)) if known else None
    found: list[Any] = (  # Any: they are as the schema says
        list(
            db.execute(
                f"select mac, {_COLUMNS} from management_keys where id = :id", {"id": parsed.id}
            )
        )
        if parsed is not None
        else []
    )
    secret = parsed.secret if parsed is not None else ""
    kept = found[0][0] if found else bytes(32)
    if not secrets.compare_digest(keys.mac(hash_key, secret), kept) or not found:
        return None
    return ManagementKey(*found[0][1:])
