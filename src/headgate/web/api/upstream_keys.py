"""Upstream keys of owners over the admin API, and the panel of them that pages of the console have.

Note: a key comes in and never goes out again; what is shown is its last four characters and a fingerprint.
"""

import time

from msgspec import UNSET, Struct

from headgate.admin import upstream_keys as operations
from headgate.policy.upstream_keys import OwnedKey, OwnerKind
from headgate.web.api import catalog_shapes, shapes, upstream_figures
from headgate.web.api.route import nothing_here
from headgate.web.context import Problem, RequestContext


def list_upstream_keys(visit: RequestContext) -> catalog_shapes.OwnUpstreamKeys:
    """List the upstream keys of owners, without the keys themselves."""
    return catalog_shapes.OwnUpstreamKeys(data=[_shown(k) for k in operations.seen(visit.operator)])


def show_upstream_key(visit: RequestContext) -> catalog_shapes.OwnUpstreamKey:
    """Show one upstream key of an owner, without the key itself."""
    return _shown(_found(visit))


def set_upstream_key(
    visit: RequestContext, body: catalog_shapes.NewOwnUpstreamKey
) -> catalog_shapes.OwnUpstreamKey:
    """Keep an upstream key for a gateway key or an account, in place of the one before.

    A running gateway sends that owner's requests with it within a second.
    """
    if (body.key_id is UNSET) == (body.account is UNSET):
        raise Problem(422, "Name the owner: either `key_id` or `account`.", "$.key_id")
    kind: OwnerKind = "account" if body.key_id is UNSET else "key"
    owner = body.account if body.key_id is UNSET else body.key_id
    assert owner is not UNSET
    found = operations.put(
        visit.operator,
        visit.console_context.upstreams,
        kind,
        owner,
        body.upstream,
        body.secret,
        fallback=body.fallback,
        now_s=time.time(),
    )
    return _shown(found)


def remove_upstream_key(visit: RequestContext) -> upstream_figures.Removed:
    """Delete an upstream key of an owner.

    From then on the gateway's own keys are used, unless the upstream takes owners' keys only.
    """
    found = _found(visit)
    operations.remove(visit.operator, found.kind, found.owner, found.upstream)
    return upstream_figures.Removed(id=_id(found))


# --- the panel of the console ------------------------------------------------------------------------


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
        [k for k in operations.seen(visit.operator) if (k.kind, k.owner) == (kind, owner)],
        [n for n, u in upstreams.items() if u.own_keys != "no" and u.preset != "local"],
        refused,
        visit.form.get("upstream", "") if refused is not None else "",
        refused is not None and bool(visit.form.get("fallback")),
    )


def _found(visit: RequestContext) -> OwnedKey:
    found = next((k for k in operations.seen(visit.operator) if _id(k) == visit.path["id"]), None)
    if found is None:
        raise nothing_here()
    return found


def _id(key: OwnedKey) -> str:
    return operations.identity(key.kind, key.owner, key.upstream)


def _shown(key: OwnedKey) -> catalog_shapes.OwnUpstreamKey:
    return catalog_shapes.OwnUpstreamKey(
        id=_id(key),
        key_id=key.owner if key.kind == "key" else "",
        account=key.owner if key.kind == "account" else "",
        upstream=key.upstream,
        hint=key.hint,
        fingerprint=key.fingerprint,
        fallback=key.fallback,
        changed_at=shapes.at(key.changed_s),
    )
