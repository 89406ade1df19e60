"""Operations on API keys: create, change, rotate, revoke."""

import msgspec

from headgate.admin.operator import Operator, Refused, difference, refusals
from headgate.policy.keys import KEY_STATES, Changes, Key, Terms
from headgate.policy.terms import TERMS, USUAL

_USUAL: dict[str, object] = {"models": (), "expires_s": None, **USUAL}


def find(operator: Operator, id: str) -> Key:
    """Return the key with this id, if the operator sees it."""
    keys = operator.store.keys()
    for key in keys:
        if key.id == id and operator.sees(key.account):
            return key
    raise Refused("absent", "There is no key `{id}`.", id=id[:64])


def create(
    operator: Operator,
    name: str,
    models: tuple[str, ...] = (),
    expires_s: float | None = None,
    *,
    account: str = "",
    terms: Terms,
    now_s: float,
) -> tuple[Key, str]:
    """Create a key; its text is returned only here, and kept nowhere."""
    operator.must_be_open(account, now_s)
    with refusals():
        key, text = operator.store.create_key(
            name, models, expires_s, now_s=now_s, account=account, **terms
        )
    unusual = {n: v for n, usual in _USUAL.items() if (v := getattr(key, n)) != usual}
    operator.record("key.create", key.id, key.account, name=key.name, **unusual)
    return key, text


def change(operator: Operator, id: str, changes: Changes, *, now_s: float) -> Key:
    """Change fields of an open key; its rotations get the same terms and account.

    What is as before is no change, and leaves no entry in the audit log.
    """
    old = _open(operator, id, now_s)
    changed = difference(old, changes)
    if not changed:
        return old
    if "account" in changed:
        operator.must_be_open(changes["account"], now_s)
    # What is as before is not written, so that it undoes no change that comes at the same time.
    values: Changes = {n: changes[n] for n in changed}  # type: ignore[literal-required, assignment]
    with refusals():
        new = operator.store.change_key(id, now_s=now_s, **values)
    if new is None:
        raise Refused("closed", "The key was closed meanwhile.")
    operator.record("key.change", id, new.account, **{"name": old.name, **changed})
    return new


def rotate(operator: Operator, id: str, *, overlap_s: float, now_s: float) -> tuple[Key, str, Key]:
    """Create a key with the rights of an open one, which ends after `overlap_s` seconds.

    Returns the new key, its text, and the old key as it is now.
    """
    old = _open(operator, id, now_s)
    with refusals():
        made = operator.store.rotate(id, now_s=now_s, overlap_s=overlap_s)
    if made is None:
        raise Refused("closed", "The key was closed meanwhile.")
    new, text = made
    operator.record(
        "key.rotate", id, new.account, name=new.name, new=new.id, overlap_s=int(overlap_s)
    )
    ends_s = now_s + overlap_s
    if old.revoked_s is not None:  # rotated before: what was to end sooner still does
        ends_s = min(ends_s, old.revoked_s)
    return new, text, msgspec.structs.replace(old, revoked_s=ends_s)


def revoke(operator: Operator, id: str, *, now_s: float) -> bool:
    """Revoke a key for good; False when it was revoked before."""
    key = find(operator, id)
    if not operator.store.revoke(id, now_s=now_s):
        return False
    operator.record("key.revoke", id, key.account, name=key.name)
    return True


def split(changes: Changes) -> tuple[str, tuple[str, ...], float | None, str, Terms]:
    """Return name, models, expiry, account and terms of a new key out of its fields."""
    terms: Terms = {n: v for n, v in changes.items() if n in TERMS}  # type: ignore[assignment]
    return (
        changes.get("name", ""),
        changes.get("models", ()),
        changes.get("expires_s"),
        changes.get("account", ""),
        terms,
    )


def _open(operator: Operator, id: str, now_s: float) -> Key:
    key = find(operator, id)
    if not key.good(now_s):
        state = KEY_STATES[key.state(operator.account(key.account), now_s)]
        raise Refused("closed", "The key is {state}; it cannot be changed.", state=state)
    return key
