"""What the admin API takes and gives of keys and accounts, as structs."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from headgate.policy import keys as policy_keys
from headgate.policy.terms import ACCOUNT_TERMS, TERMS
from headgate.web.api.shapes import (
    Asked,
    InAccount,
    Models,
    Moment,
    Name,
    Nano,
    Next,
    Page,
    Shape,
    Text,
    Usd,
    answered,
    changed,
    created,
)

MAX_OVERLAP_S = 30 * 86400
KeyState = Annotated[
    policy_keys.KeyState,
    Meta(description="`ending`: revoked, from `revoked_at` on; `closed`: its account is."),
]


class _Key(Shape, frozen=True, kw_only=True):
    """Shows an API key, without its secret."""

    id: Annotated[str, Meta(description="Public; it may be shown and logged.")]
    name: str
    account: str
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    models: list[str]
    budget_spent_usd: Annotated[
        str,
        Meta(description="In this period, by the key and its rotations; without a budget: ever."),
    ]
    budget_spent_nano: Nano
    rotation_group: Annotated[
        str,
        Meta(description='The first key of which this one is a rotation; "": it is a first one.'),
    ]
    requests: Annotated[int, Meta(description="Exchanges of this key, ever.")]
    unpriced: Annotated[int, Meta(description="Of these, those whose cost nobody knows.")]
    spent_usd: Usd
    spent_nano: Nano


if TYPE_CHECKING:
    Key = _Key
else:
    Key = answered(_Key, TERMS, "Key")


class MadeKey(Key, frozen=True, kw_only=True):
    """Shows a new key with its text, which cannot be read again."""

    key: Annotated[str, Meta(description="The whole key. It is kept nowhere and shown only now.")]


class Keys(Shape, frozen=True, kw_only=True):
    """Lists API keys, a page at a time."""

    data: list[Key]
    next: Next


class KeysAsked(Page, frozen=True, kw_only=True):
    account: Annotated[Text, Meta(description='Of this account; "": of none.')] | UnsetType = UNSET
    state: KeyState | UnsetType = UNSET


class _NewKey(Asked, frozen=True, kw_only=True):
    name: Name
    account: InAccount = ""
    models: Models = ()
    expires_at: Moment | None = None


class _KeyChanges(Asked, frozen=True, kw_only=True):
    name: Name | UnsetType = UNSET
    account: InAccount | UnsetType = UNSET
    models: Models | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET


if TYPE_CHECKING:
    NewKey = _NewKey
    KeyChanges = _KeyChanges
else:
    NewKey = created(_NewKey, TERMS, "NewKey")
    KeyChanges = changed(_KeyChanges, TERMS, "KeyChanges")


class Rotation(Asked, frozen=True, kw_only=True):
    overlap_s: Annotated[
        int, Meta(ge=0, le=MAX_OVERLAP_S, description="Seconds for which the old key still works.")
    ] = 0


class _Account(Shape, frozen=True, kw_only=True):
    """A team: keys that share a budget."""

    id: str
    name: str
    state: Literal["open", "closed"]
    created_at: datetime
    closed_at: datetime | None
    keys: Annotated[int, Meta(description="How many keys of it are open.")]
    budget_spent_usd: Annotated[str, Meta(description="In this period; without a budget: ever.")]
    budget_spent_nano: Nano
    requests: int
    unpriced: int
    spent_usd: Usd
    spent_nano: Nano


if TYPE_CHECKING:
    Account = _Account
else:
    Account = answered(_Account, ACCOUNT_TERMS, "Account")


class Accounts(Shape, frozen=True, kw_only=True):
    """Lists accounts, a page at a time."""

    data: list[Account]
    next: Next


class _NewAccount(Asked, frozen=True, kw_only=True):
    id: Annotated[
        str,
        Meta(
            max_length=64,
            description="It never changes: a-z, 0-9 and `-`.",
            extra_json_schema={"pattern": "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"},
        ),
    ]
    name: Name


class _AccountChanges(Asked, frozen=True, kw_only=True):
    name: Name | UnsetType = UNSET


if TYPE_CHECKING:
    NewAccount = _NewAccount
    AccountChanges = _AccountChanges
else:
    NewAccount = created(_NewAccount, ACCOUNT_TERMS, "NewAccount")
    AccountChanges = changed(_AccountChanges, ACCOUNT_TERMS, "AccountChanges")
