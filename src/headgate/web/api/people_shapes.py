"""What the admin API takes and gives of people, management keys and the audit log, as structs."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from headgate.policy.access import Role, Via
from headgate.web.api.shapes import (
    Asked,
    Before,
    InAccount,
    Moment,
    Name,
    Next,
    Older,
    Shape,
    Size,
    Text,
)

Password = Annotated[
    str, Meta(max_length=512, description="At least 12 characters; only a hash of it is kept.")
]


class User(Shape, frozen=True, kw_only=True):
    """Somebody who can sign in to the console."""

    id: str
    name: str
    email: str
    role: Role
    account: Annotated[str, Meta(description="Whose keys and figures they see; an admin sees all.")]
    provider: Annotated[
        str, Meta(description='The identity provider they come by; "": by a password.')
    ]
    state: Literal["open", "closed"]
    created_at: datetime
    closed_at: datetime | None
    seen_at: Annotated[datetime | None, Meta(description="Their last sign-in.")]


class Users(Shape, frozen=True, kw_only=True):
    """Lists users, a page at a time."""

    data: list[User]
    next: Next


class NewUser(Asked, frozen=True, kw_only=True):
    name: Name
    password: Password
    role: Role
    account: InAccount = ""


class UserChanges(Asked, frozen=True, kw_only=True):
    role: Role | UnsetType = UNSET
    account: InAccount | UnsetType = UNSET
    password: Password | UnsetType = UNSET


ManagementRole = Annotated[
    Literal["admin", "viewer"], Meta(description="`viewer` reads, and changes nothing.")
]


class ManagementKey(Shape, frozen=True, kw_only=True):
    """Shows a key of this API, without its secret; it calls no model."""

    id: str
    name: str
    role: ManagementRole
    state: Literal["open", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class MadeManagementKey(ManagementKey, frozen=True, kw_only=True):
    """Shows a new management key with its text, which cannot be read again."""

    key: Annotated[str, Meta(description="The whole key. It is kept nowhere and shown only now.")]


class ManagementKeys(Shape, frozen=True, kw_only=True):
    """Lists management keys, a page at a time."""

    data: list[ManagementKey]
    next: Next


class NewManagementKey(Asked, frozen=True, kw_only=True):
    name: Name
    role: ManagementRole
    expires_at: Moment | None = None


class Me(Shape, frozen=True, kw_only=True):
    """The management key that asks."""

    id: str
    name: str
    role: Role
    may: list[str]
    sees: Annotated[
        str | None, Meta(description="The account it is narrowed to; null: everything.")
    ]


class Change(Shape, frozen=True, kw_only=True):
    """Records who changed what, and when."""

    seq: int
    at: datetime
    actor: str
    via: Via
    action: Annotated[str, Meta(description="For instance `key.create`.")]
    subject: Annotated[str, Meta(description="The id of what was changed.")]
    account: str
    # Any: JSON, as the change was made
    detail: Annotated[dict[str, Any], Meta(description="What was changed; never a secret.")]


class Changes(Shape, frozen=True, kw_only=True):
    """A page of changes."""

    data: list[Change]
    next: Before


class ChangesAsked(Asked, frozen=True, kw_only=True):
    account: Text | UnsetType = UNSET
    before: Older | UnsetType = UNSET
    limit: Size = 50
