"""Upstream keys of owners over the admin API, and the operations that the console shares with it.

Note: a key comes in and never goes out again; what is shown is its last four characters and a fingerprint.
"""

import time

from msgspec import UNSET, Struct

from headgate.policy.upstream_keys import OwnedKey, OwnerKind
from headgate.storage.errors import StoreError, StoreFault
from headgate.web.api import figures, shapes
from headgate.web.api.route import nothing_here
from headgate.web.context import Problem, RequestContext, sentence


def list_upstream_keys(visit: RequestContext) -> shapes.OwnUpstreamKeys:
    """List the upstream keys of owners, without the keys themselves."""
    return shapes.OwnUpstreamKeys(data=[_shown(k) for k in seen(visit)])


def show_upstream_key(visit: RequestContext) -> shapes.OwnUpstreamKey:
    """Show one upstream key of an owner, without the key itself."""
    return _shown(_found(visit))


def set_upstream_key(
    visit: RequestContext, body: shapes.NewOwnUpstreamKey
) -> shapes.OwnUpstreamKey:
    """Keep an upstream key for a gateway key or an account, in place of the one before.

    A running gateway sends that owner's requests with it within a second.
    """
    if (body.key_id is UNSET) == (body.account is UNSET):
        raise Problem(422, "Name the owner: either `key_id` or `account`.", "$.key_id")
    kind: OwnerKind = "account" if body.key_id is UNSET else "key"
    owner = body.account if body.key_id is UNSET else body.key_id
    field = "$.account" if kind == "account" else "$.key_id"
    assert owner is not UNSET
    return _shown(put(visit, kind, owner, body.upstream, body.secret, body.fallback, field, "$."))


def remove_upstream_key(visit: RequestContext) -> figures.Removed:
    """Delete an upstream key of an owner.

    From then on the gateway's own keys are used, unless the upstream takes owners' keys only.
    """
    found = _found(visit)
    remove(visit, found)
    return figures.Removed(id=_id(found))


# --- shared with the console ------------------------------------------------------------------------


def seen(visit: RequestContext) -> list[OwnedKey]:
    """Return those that the visitor may see: of their account, and of its gateway keys."""
    scope, all_ = visit.who.scope, visit.console_context.store.upstream_keys()
    if scope is None:
        return all_
    keys = visit.console_context.store.keys()
    mine = {k.owner for k in keys if k.account == scope}
    return [k for k in all_ if (k.owner in mine if k.kind == "key" else k.owner == scope)]


class Panel(Struct, frozen=True):
    """What a page shows of one owner's upstream keys."""

    path: str  # where its forms go
    keys: list[OwnedKey]
    upstreams: list[str]  # that take owners' keys
    refused: Problem | None
    chosen: str = ""  # the upstream that the refused form had
    fallback: bool = False  # its box


def panel(
    visit: RequestContext, kind: OwnerKind, owner: str, path: str, refused: Problem | None
) -> Panel:
    """Return the panel of one owner."""
    upstreams = visit.console_context.upstreams
    return Panel(
        f"{path}/upstream_keys",
        [k for k in seen(visit) if (k.kind, k.owner) == (kind, owner)],
        [n for n, u in upstreams.items() if u.own_keys != "no" and u.preset != "local"],
        refused,
        visit.form.get("upstream", "") if refused is not None else "",
        refused is not None and bool(visit.form.get("fallback")),
    )


def put(
    visit: RequestContext,
    kind: OwnerKind,
    owner: str,
    upstream: str,
    secret: str,
    fallback: bool,
    owner_field: str,
    root: str = "",
) -> OwnedKey:
    """Store a key; Problem names the field that is wrong."""
    settings = visit.console_context.upstreams.get(upstream)
    if settings is None:
        known = ", ".join(visit.console_context.upstreams)
        text = f"There is no upstream `{upstream[:64]}`. Known: {known}."
        raise Problem(422, text, f"{root}upstream")
    if settings.own_keys == "no":
        text = f'`{upstream}` takes no keys of owners (`own_keys = "no"`).'
        raise Problem(422, text, f"{root}upstream")
    try:
        found = visit.console_context.store.put_upstream_key(
            kind, owner, upstream, secret, fallback=fallback, now_s=time.time()
        )
    except StoreFault:
        raise
    except StoreError as error:
        about_owner = "`" in str(error) or "account" in str(error)
        field = owner_field if about_owner else f"{root}secret"
        raise Problem(422, sentence(error), field) from None
    visit.record(
        "upstream_key.put", _id(found), _account(visit, found), hint=found.hint, fallback=fallback
    )
    return found


def remove(visit: RequestContext, found: OwnedKey) -> None:
    """Delete a key, if it is still there."""
    if visit.console_context.store.remove_upstream_key(found.kind, found.owner, found.upstream):
        visit.record("upstream_key.remove", _id(found), _account(visit, found), hint=found.hint)


def _account(visit: RequestContext, found: OwnedKey) -> str:
    """The account that the entry of the audit log is about."""
    if found.kind == "account":
        return found.owner
    keys = visit.console_context.store.keys()
    return next((k.account for k in keys if k.owner == found.owner), "")


def _found(visit: RequestContext) -> OwnedKey:
    found = next((k for k in seen(visit) if _id(k) == visit.path["id"]), None)
    if found is None:
        raise nothing_here()
    return found


def _id(key: OwnedKey) -> str:
    return f"{key.kind}:{key.owner}:{key.upstream}"


def _shown(key: OwnedKey) -> shapes.OwnUpstreamKey:
    return shapes.OwnUpstreamKey(
        id=_id(key),
        key_id=key.owner if key.kind == "key" else "",
        account=key.owner if key.kind == "account" else "",
        upstream=key.upstream,
        hint=key.hint,
        fingerprint=key.fingerprint,
        fallback=key.fallback,
        changed_at=shapes.at(key.changed_s),
    )
