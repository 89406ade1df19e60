"""Owners' upstream keys are kept on the disk: encrypted under the pepper, and written by these statements only.

A key is kept as a JWE (RFC 7516; direct encryption with AES-256-GCM) whose protected header names its owner and
its upstream.  The key of the encryption is derived from the pepper, so a copy of the database alone opens
nothing, and a row that was moved to another owner or another upstream does not open either.
"""

from collections.abc import Iterable
from typing import Any

import apsw
import msgspec

from headgate.policy import keys as key_rules
from headgate.policy.upstream_keys import OwnedKey, OwnerKind, SealedKey, hint_of

PURPOSE = "upstream keys"
_ALGORITHMS = ["dir", "A256GCM"]
_COLUMNS = "kind, owner, upstream, hint, fingerprint, fallback, changed_s, sealed"


def load() -> None:
    """Import the cipher, which takes 50 ms: where that holds nobody up."""
    from joserfc import jwe  # noqa: F401


def seal(cipher_key: bytes, secret: str, kind: OwnerKind, owner: str, upstream: str) -> bytes:
    """Return the encrypted key."""
    from joserfc import jwe
    from joserfc.jwk import OctKey

    header = {"alg": "dir", "enc": "A256GCM", "kid": _place(kind, owner, upstream)}
    text = jwe.encrypt_compact(
        header, secret, OctKey.import_key(cipher_key), algorithms=_ALGORITHMS
    )
    return text.encode()


def opened(cipher_key: bytes, row: SealedKey) -> str:
    """Return the key; ValueError when it was encrypted under another pepper, or changed since."""
    from joserfc import jwe
    from joserfc.errors import JoseError
    from joserfc.jwk import OctKey

    place = _place(row.shown.kind, row.shown.owner, row.shown.upstream)
    try:
        found = jwe.decrypt_compact(
            row.sealed, OctKey.import_key(cipher_key), algorithms=_ALGORITHMS
        )
        if found.headers().get("kid") != place or found.plaintext is None:
            raise ValueError
        return found.plaintext.decode()
    except (JoseError, ValueError):  # of base64 and UTF-8 too
        raise ValueError("it was encrypted under another pepper, or was changed since") from None


def _place(kind: str, owner: str, upstream: str) -> str:
    return f"{kind}:{owner}:{upstream}"


def rows(db: apsw.Connection) -> list[SealedKey]:
    """Return all of them, as they are kept."""
    found: Iterable[Any] = db.execute(  # Any: they are as the schema says
        f"select {_COLUMNS} from upstream_keys order by kind, owner, upstream"
    )
    return [_row(*columns) for columns in found]


def _row(
    kind: OwnerKind,
    owner: str,
    upstream: str,
    hint: str,
    fingerprint: str,
    fallback: int,
    changed_s: float,
    sealed: bytes,
) -> SealedKey:
    """Return a row of the table; the arguments are in the order of _COLUMNS."""
    shown = OwnedKey(kind, owner, upstream, hint, fingerprint, bool(fallback), changed_s)
    return SealedKey(shown, sealed)


def put(
    db: apsw.Connection,
    cipher_key: bytes,
    secret: str,
    kind: OwnerKind,
    owner: str,
    upstream: str,
    fallback: bool,
    now_s: float,
) -> OwnedKey:
    """Store a key, in place of the one that this owner has for the upstream."""
    print_ = key_rules.mac(cipher_key, f"fingerprint:{secret}").hex()[:16]
    shown = OwnedKey(kind, owner, upstream, hint_of(secret), print_, fallback, now_s)
    sealed = seal(cipher_key, secret, kind, owner, upstream)
    db.execute(
        f"insert into upstream_keys ({_COLUMNS}) values"
        " (:kind, :owner, :upstream, :hint, :fingerprint, :fallback, :changed_s, :sealed)"
        " on conflict (kind, owner, upstream) do update set hint = excluded.hint,"
        " fingerprint = excluded.fingerprint, fallback = excluded.fallback,"
        " changed_s = excluded.changed_s, sealed = excluded.sealed",
        {**msgspec.structs.asdict(shown), "fallback": int(fallback), "sealed": sealed},
    )
    return shown


def remove(db: apsw.Connection, kind: OwnerKind, owner: str, upstream: str) -> bool:
    """Delete a key; False when this owner has none for the upstream."""
    db.execute(
        "delete from upstream_keys where kind = :kind and owner = :owner and upstream = :upstream",
        {"kind": kind, "owner": owner, "upstream": upstream},
    )
    return db.changes() == 1


def forget_unusable(db: apsw.Connection, now_s: float) -> None:
    """Delete the keys of owners that are closed for good: nothing can be sent with them any more."""
    db.execute(
        "delete from upstream_keys where kind = 'key' and not exists (select 1 from keys"
        " where coalesce(nullif(rotation_group, ''), id) = upstream_keys.owner"
        " and (revoked_s is null or revoked_s > ?))",
        (now_s,),
    )
    db.execute(
        "delete from upstream_keys where kind = 'account' and owner in"
        " (select id from accounts where closed_s <= ?)",
        (now_s,),
    )
