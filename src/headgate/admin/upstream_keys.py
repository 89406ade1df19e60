"""Operations on upstream keys of owners: list, put, remove.

Note: a key comes in and never goes out again; what is shown is its last four characters and a fingerprint.
"""

from collections.abc import Mapping

from headgate import config
from headgate.admin.operator import Operator, Refused
from headgate.policy.upstream_keys import OwnedKey, OwnerKind
from headgate.storage.errors import StoreError, StoreFault

OWNER_FIELDS: dict[OwnerKind, str] = {"key": "key_id", "account": "account"}


def identity(kind: OwnerKind, owner: str, upstream: str) -> str:
    """Return the id of an owner's key, as the admin API and the audit log have it."""
    return f"{kind}:{owner}:{upstream}"


def seen(operator: Operator) -> list[OwnedKey]:
    """Return those that the operator sees: of their account, and of its gateway keys."""
    found = operator.store.upstream_keys()
    if operator.scope is None:
        return found
    keys = operator.store.keys()
    mine = {k.owner for k in keys if k.account == operator.scope}
    return [k for k in found if (k.owner in mine if k.kind == "key" else k.owner == operator.scope)]


def put(
    operator: Operator,
    upstreams: Mapping[str, config.Upstream],
    kind: OwnerKind,
    owner: str,
    upstream: str,
    secret: str,
    *,
    fallback: bool,
    now_s: float,
) -> OwnedKey:
    """Store an owner's key for one of these upstreams, in place of the one before."""
    settings = upstreams.get(upstream)
    if settings is None:
        text, known = "There is no upstream `{upstream}`. Known: {known}.", ", ".join(upstreams)
        raise Refused("invalid", text, "upstream", upstream=upstream[:64], known=known)
    if settings.own_keys == "no":
        text = '`{upstream}` takes no keys of owners (`own_keys = "no"`).'
        raise Refused("invalid", text, "upstream", upstream=upstream)
    try:
        found = operator.store.put_upstream_key(
            kind, owner, upstream, secret, fallback=fallback, now_s=now_s
        )
    except StoreFault:
        raise
    except StoreError as error:
        text = str(error)
        about_owner = "`" in text or "account" in text
        field = OWNER_FIELDS[kind] if about_owner else "secret"
        raise Refused("invalid", "{fault}", field, fault=text[:1].upper() + text[1:]) from None
    _record(operator, "upstream_key.put", found, fallback=fallback)
    return found


def remove(operator: Operator, kind: OwnerKind, owner: str, upstream: str) -> bool:
    """Delete an owner's key for an upstream; False when there is none that the operator sees.

    `owner`: of a gateway key any of its rotations.
    """
    if kind == "key":
        keys = operator.store.keys()
        owner = next((k.owner for k in keys if owner in (k.id, k.owner)), owner)
    place = (kind, owner, upstream)
    found = next((k for k in seen(operator) if (k.kind, k.owner, k.upstream) == place), None)
    if found is None or not operator.store.remove_upstream_key(*place):
        return False
    _record(operator, "upstream_key.remove", found)
    return True


def _record(operator: Operator, action: str, key: OwnedKey, **detail: object) -> None:
    account = key.owner
    if key.kind == "key":
        keys = operator.store.keys()
        account = next((k.account for k in keys if k.owner == key.owner), "")
    subject = identity(key.kind, key.owner, key.upstream)
    operator.record(action, subject, account, hint=key.hint, **detail)
