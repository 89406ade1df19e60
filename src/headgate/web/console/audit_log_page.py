"""The record of changes: who changed what, when, from where.

The only place that puts a recorded detail into words.  Note: it is narrowed to the
visitor's account, and where they have none, to keys of none, as what is the deployment's own is recorded
without an account too; and a detail that is unknown here is shown as it was recorded.
"""

from typing import Any

import msgspec
from starlette.responses import Response

from headgate.policy.access import Change
from headgate.policy.terms import TERMS, field_of
from headgate.web.app import Rule
from headgate.web.context import NavigationEntry, RequestContext
from headgate.web.formats import usd, when

A_PAGE = 50
_MOST_BATCHES = 20  # that are looked through for one page

# action: in words
ACTIONS: dict[str, str] = {
    "key.create": "Key created",
    "key.change": "Key changed",
    "key.rotate": "Key rotated",
    "key.revoke": "Key revoked",
    "account.create": "Account created",
    "account.change": "Account changed",
    "account.close": "Account closed",
    "user.create": "User created",
    "user.change": "User changed",
    "user.password": "Password changed",
    "user.close": "User closed",
    "management_key.create": "Management key created",
    "management_key.revoke": "Management key revoked",
    "session.begin": "Signed in",
    "upstream.test": "Upstream tested",
    "upstream.put": "Upstream saved",
    "upstream.remove": "Upstream removed",
    "model.put": "Model saved",
    "upstream_key.put": "Upstream key saved",
    "upstream_key.remove": "Upstream key removed",
    "model.remove": "Model removed",
}
VIAS: dict[str, str] = {
    "console": "console",
    "api": "API",
    "cli": "command line",
    "setup": "set-up",
    "oidc": "OIDC",
}
LABELS: dict[str, str] = {
    "name": "Name",
    "account": "Account",
    "role": "Role",
    "models": "Models",
    **{name: term.label for name, term in TERMS.items()},
    **{field_of(name): term.label for name, term in TERMS.items()},
    "routes": "Routes",
    "preset": "Preset",
    "host": "Host",
    "key": "Key",
    "expires_s": "Expires",
    "expires_at": "Expires",
    "overlap_s": "The old one works for",
    "new": "New key",
    "password": "Password",
}


class AuditEntryView(msgspec.Struct, frozen=True):
    change: Change
    title: str
    name: str  # of the subject, where it was recorded
    path: str  # to the subject's page; "" where they may not see it, or there is none
    lines: tuple[str, ...]


def show(visit: RequestContext) -> Response:
    who, query = visit.who, visit.query
    account = who.scope
    if account is None and query.get("account"):
        account = "" if query["account"] == "-" else query["account"]
    before = query.get("before", "")
    seq = int(before) if before.isascii() and before.isdecimal() and len(before) < 19 else None
    found, more = _page(visit, account, seq)
    return visit.render(
        "changes.html",
        changes=[_shown(visit, c) for c in found],
        vias=VIAS,
        next=found[-1].seq if found and more else None,
        first=seq is None,
        account=query.get("account", "") if who.scope is None else "",
        accounts=visit.console_context.store.accounts() if who.scope is None else [],
        narrowed=who.scope is not None,
    )


def _page(
    visit: RequestContext, account: str | None, before: int | None
) -> tuple[list[Change], bool]:
    """One page, and whether there may be more."""
    people = visit.console_context.people
    if visit.who.scope != "":
        rows = people.changes(account=account, before=before, most=A_PAGE + 1)
        return rows[:A_PAGE], len(rows) > A_PAGE
    found: list[Change] = []
    for _ in range(_MOST_BATCHES):
        rows = people.changes(account="", before=before, most=A_PAGE)
        found += [c for c in rows if c.action.startswith("key.")]
        if len(rows) < A_PAGE or len(found) > A_PAGE:
            return found[:A_PAGE], len(found) > A_PAGE
        before = rows[-1].seq
    return found, True


def _shown(visit: RequestContext, change: Change) -> AuditEntryView:
    detail = dict(change.detail)
    name = detail.pop("name", "") if isinstance(detail.get("name"), str) else ""
    kind = change.action.partition(".")[0]
    manages = visit.who.may("manage")
    path = ""
    if kind == "key":
        path = f"/api_keys/{change.subject}"
    elif kind == "account" and manages:
        path = f"/accounts/{change.subject}"
    elif kind in ("user", "session") and manages:
        path = f"/people/{change.subject}"
    title = visit.word(ACTIONS.get(change.action, change.action))
    return AuditEntryView(change, title, str(name), path, tuple(reported(visit, detail)))


def reported(visit: RequestContext, detail: dict[str, Any]) -> list[str]:
    """Return a detail as lines of text.  Any: JSON, of whatever was recorded."""
    lines = []
    for field, value in detail.items():
        label = visit.word(LABELS.get(field, field))
        if isinstance(value, dict) and value.keys() == {"from", "to"}:
            old, new = (_value(visit, field, value[end]) for end in ("from", "to"))
            lines.append(f"{label}: {old} → {new}")
        else:
            lines.append(f"{label}: {_value(visit, field, value)}")
    return lines


def _value(visit: RequestContext, field: str, value: Any) -> str:
    if field == "models" and not value:
        return visit.word("all")
    term = TERMS.get(field)
    if term is not None and value in term.choices:
        return visit.word(term.names[term.choices.index(value)])
    if term is not None and term.empty and not value and value != 0:
        return visit.word(term.empty)
    if value is None:
        return visit.word("never") if field.startswith("expires") else visit.word("none")
    if isinstance(value, bool):
        return visit.word("yes") if value else visit.word("no")
    if isinstance(value, (int, float)):
        if field.endswith("_nano"):
            return usd(int(value))
        if field == "overlap_s":
            return visit.word("{seconds} s", seconds=f"{value:,.0f}")
        if field.endswith("_s"):
            return f"{when(value)} UTC"
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_value(visit, field, v) for v in value)
    if value == "" and field == "account":
        return visit.word("none")
    return visit.word(str(value)) if field == "role" else str(value)


ENTRY = NavigationEntry("/changes", "Audit log", "see", "Team")
RULES = (Rule("GET", "/changes", show, "see"),)
