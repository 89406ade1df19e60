"""Who may do what in the console and the admin API: the only place that knows roles.

A person has one role, and an account whose keys and figures they see; an admin sees all.  Keys of
models do nothing here, and management keys call no model.
"""

from typing import Literal

import msgspec

SESSION_S = 12 * 3600.0  # the longest a session lives
IDLE_S = 2 * 3600.0  # without a request
SETUP_S = 30 * 60.0
MANAGEMENT_PREFIX = "hg_admin_"
Via = Literal["console", "api", "cli", "setup", "oidc"]
Role = Literal["admin", "member", "viewer"]
# see: own account's figures; use: the playground; keys: make and change keys of the own account;
# manage: everything of the deployment
Action = Literal["see", "use", "keys", "manage"]
ROLES: tuple[Role, ...] = ("admin", "member", "viewer")
EVERYTHING = (
    "*"  # the account of who is narrowed to none, such as a management key; no account's id
)
_MAY: dict[Role, frozenset[Action]] = {
    "admin": frozenset(("see", "use", "keys", "manage")),
    "member": frozenset(("see", "use", "keys")),
    "viewer": frozenset(("see",)),
}


class User(msgspec.Struct, frozen=True):
    id: str
    name: str
    email: str
    issuer: str
    subject: str
    role: Role
    account: str
    created_s: float  # Unix seconds, as the others
    closed_s: float | None
    seen_s: float | None


class ManagementKey(msgspec.Struct, frozen=True):
    id: str
    name: str
    role: Literal["admin", "viewer"]
    created_s: float
    expires_s: float | None
    revoked_s: float | None

    def good(self, now_s: float) -> bool:
        gone = self.revoked_s is not None and self.revoked_s <= now_s
        return not gone and (self.expires_s is None or self.expires_s > now_s)


def may(role: Role, action: Action) -> bool:
    return action in _MAY[role]


def scope(role: Role, account: str) -> str | None:
    """The account to which all that they see is narrowed; None: no narrowing."""
    return None if role == "admin" or account == EVERYTHING else account


class Change(msgspec.Struct, frozen=True):
    seq: int
    at_s: float
    actor: str
    via: Via
    action: str
    subject: str
    account: str
    detail: dict[str, object]
