"""What the admin API takes and gives, as structs: with admin_figures.py the only place of its JSON.

openapi.py makes the document of them, so a description beside a field is documentation for clients.
Note: each route that writes has a request of its own, in which an unknown field is an
error, so that nothing can be set that was not meant to be; in a PATCH a field that
is left out stays as it is, and `null` takes it away.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from headgate.config import Price, RouteTo, UpstreamPrice
from headgate.dialects.capabilities import Effort
from headgate.policy import keys as policy_keys
from headgate.policy import pricing
from headgate.policy.access import Role, Via
from headgate.policy.key_terms import Term
from headgate.policy.terms import ACCOUNT_TERMS, MAX_LIMIT, MAX_NAME_CHARS, TERMS, USUAL, field_of

DOLLARS = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"  # as policy/budgets.py reads them
MAX_OVERLAP_S = 30 * 86400
MAX_SEQ = 2**63 - 1
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)  # a day before the end, so that every zone has it


class Shape(Struct, frozen=True, kw_only=True):
    """An answer.  None of its fields has a default: all are always there."""


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request's body, or the parameters of an address."""


def usd(nano: int | None) -> str | None:
    return None if nano is None else pricing.usd(nano)


def at(seconds: float) -> datetime:
    """To the millisecond, as JSON has room for it; what is beyond the calendar becomes its end."""
    try:
        return min(datetime.fromtimestamp(round(seconds, 3), UTC), _LATEST)
    except (OverflowError, ValueError, OSError):
        return _LATEST if seconds > 0 else datetime.fromtimestamp(0, UTC)


def at_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else at(seconds)


def seconds_of(moment: datetime) -> float:
    """Unix seconds, inside the calendar that `at` has."""
    latest = _LATEST - timedelta(days=1)
    return min(moment, latest).timestamp() if moment.year < 9999 else latest.timestamp()


# --- kinds of fields ------------------------------------------------------------------------------

Name = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME_CHARS, description="For people; printable.")
]
Dollars = Annotated[
    str,
    Meta(
        description="US dollars, a decimal with up to nine places.",
        extra_json_schema={"pattern": DOLLARS},
    ),
]
Usd = Annotated[str, Meta(description="US dollars, an exact decimal.")]
Nano = Annotated[int, Meta(description="The same in nano-dollars (10^-9 USD), exactly.")]
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339, with a zone.")]
InAccount = Annotated[
    str, Meta(max_length=64, description='The id of an open account; "": of none.')
]
Models = Annotated[
    tuple[Annotated[str, Meta(max_length=256)], ...],
    Meta(max_length=64, description="The only models it may use; empty: all."),
]
Password = Annotated[
    str, Meta(max_length=512, description="At least 12 characters; only a hash of it is kept.")
]
Text = Annotated[str, Meta(max_length=300)]
Size = Annotated[int, Meta(ge=1, le=200, description="How many at most.")]
Next = Annotated[
    str | None, Meta(description="What to send as `after` for what follows; null: that was all.")
]
Before = Annotated[
    int | None, Meta(description="What to send as `before` for what is older; null: that was all.")
]
After = Annotated[Text, Meta(description="`next` of the page before.")]
Older = Annotated[
    int, Meta(ge=1, le=MAX_SEQ, description="`next` of the page before: only what is older.")
]


S = TypeVar("S", bound=Struct)
Network = Annotated[str, Meta(max_length=64)]


def _asked_type(name: str, term: Term) -> Any:  # Any: a type
    """Return what a body may have for a term."""
    match term.kind:
        case "count":
            null = f"{term.help.removesuffix('.')}; null: {term.empty}."
            return Annotated[int, Meta(ge=0, le=MAX_LIMIT, description=null)] | None
        case "money":
            return Dollars | None
        case "networks":
            return Annotated[tuple[Network, ...], Meta(max_length=64, description=term.help)]
        case "choice" | "period":
            return Annotated[Literal[term.choices], Meta(description=term.help)]
        case "zone" | "text":
            return Annotated[str, Meta(max_length=term.max_chars, description=term.help)]


def _created(base: type[S], terms: dict[str, Term], name: str) -> type[S]:
    """Return the body of a creation: `base` and the terms with their usual values."""
    fields = [(field_of(n), _asked_type(n, t), USUAL[n]) for n, t in terms.items()]
    return _struct(base, fields, name)


def _changed(base: type[S], terms: dict[str, Term], name: str) -> type[S]:
    """Return the body of a change: `base` and the terms, all of which may be left out."""
    fields = [(field_of(n), _asked_type(n, t) | UnsetType, UNSET) for n, t in terms.items()]
    return _struct(base, fields, name)


def _answered(base: type[S], terms: dict[str, Term], name: str) -> type[S]:
    """Return an answer: `base` and the terms; an amount in dollars and in nano-dollars."""
    fields: list[tuple[str, Any]] = []  # Any: types
    for n, term in terms.items():
        if term.kind == "money":
            fields += [(field_of(n), Usd | None), (n, Nano | None)]
        elif term.kind == "count":
            fields.append((n, int | None))
        else:
            fields.append((n, list[str] if term.kind == "networks" else _asked_type(n, term)))
    return _struct(base, fields, name)


def _struct(base: type[S], fields: list[Any], name: str) -> type[S]:
    return defstruct(  # type: ignore[return-value]  # it has the base that was given
        name,
        fields,
        bases=(base,),
        namespace={"__doc__": base.__doc__},
        module=__name__,
        frozen=True,
        kw_only=True,
    )


def terms_of(owner: policy_keys.Key | policy_keys.Account) -> dict[str, Any]:
    """Return the terms of a key or account as the fields of an answer."""
    found: dict[str, Any] = {}
    for name, term in (TERMS if isinstance(owner, policy_keys.Key) else ACCOUNT_TERMS).items():
        value = getattr(owner, name)
        found[name] = list(value) if isinstance(value, tuple) else value
        if term.kind == "money":
            found[field_of(name)] = usd(value)
    return found


class Page(Asked, frozen=True, kw_only=True):
    after: After | UnsetType = UNSET
    limit: Size = 50


# --- keys -----------------------------------------------------------------------------------------

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
    Key = _answered(_Key, TERMS, "Key")


class MadeKey(Key, frozen=True, kw_only=True):
    """Shows a new key with its text, which cannot be read again."""

    key: Annotated[str, Meta(description="The whole key. It is kept nowhere and shown only now.")]


class Keys(Shape, frozen=True, kw_only=True):
    """Lists API keys, a page at a time."""

    data: list[Key]
    next: Next


KeyEffort = Annotated[
    Literal["", Effort],
    Meta(
        description='How much models think for requests that name no effort; "": as the model says.'
    ),
]


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
    NewKey = _created(_NewKey, TERMS, "NewKey")
    KeyChanges = _changed(_KeyChanges, TERMS, "KeyChanges")


class Rotation(Asked, frozen=True, kw_only=True):
    overlap_s: Annotated[
        int, Meta(ge=0, le=MAX_OVERLAP_S, description="Seconds for which the old key still works.")
    ] = 0


# --- accounts -------------------------------------------------------------------------------------


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
    Account = _answered(_Account, ACCOUNT_TERMS, "Account")


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
    NewAccount = _created(_NewAccount, ACCOUNT_TERMS, "NewAccount")
    AccountChanges = _changed(_AccountChanges, ACCOUNT_TERMS, "AccountChanges")


# --- people ---------------------------------------------------------------------------------------


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


# --- models of the operator's own -----------------------------------------------------------------

Tokens = Annotated[int, Meta(ge=1, le=1 << 40)]
ModelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$")]
Aliases = tuple[ModelName, ...]
Kinds = tuple[Literal["text", "image", "video"], ...]
Capabilities = Annotated[
    dict[str, Any],  # Any: checked as those of an upstream are
    Meta(description='What its server can do, as {"stop": true, "efforts": ["low", "high"]}.'),
]


class NewModel(Asked, frozen=True, kw_only=True):
    """The fields of `[models.NAME]` in headgate.toml."""

    id: ModelName
    routes: Annotated[tuple[RouteTo, ...], Meta(min_length=1)]
    display_name: Text = ""
    description: Text = ""
    prices: tuple[Price, ...] = ()
    free: bool = False
    context_window: Tokens | None = None
    max_output: Tokens | None = None
    default_max_output: Tokens | None = None
    input: Kinds | None = None
    capabilities: Capabilities = {}
    aliases: Aliases = ()
    effort: KeyEffort = ""
    vendor: Text = ""


class ModelChanges(Asked, frozen=True, kw_only=True):
    routes: Annotated[tuple[RouteTo, ...], Meta(min_length=1)] | UnsetType = UNSET
    display_name: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    prices: tuple[Price, ...] | UnsetType = UNSET
    free: bool | UnsetType = UNSET
    context_window: Tokens | UnsetType | None = UNSET
    max_output: Tokens | UnsetType | None = UNSET
    default_max_output: Tokens | UnsetType | None = UNSET
    input: Kinds | UnsetType | None = UNSET
    capabilities: Capabilities | UnsetType = UNSET
    aliases: Aliases | UnsetType = UNSET
    effort: KeyEffort | UnsetType = UNSET
    vendor: Text | UnsetType = UNSET


# --- upstream keys --------------------------------------------------------------------------------

OwnerId = Annotated[str, Meta(max_length=64)]


class OwnUpstreamKey(Shape, frozen=True, kw_only=True):
    """Shows an upstream key of an owner, without the key itself."""

    id: Annotated[str, Meta(description="`key` or `account`, the owner's id and the upstream.")]
    key_id: Annotated[str, Meta(description='The gateway key that owns it; "": an account does.')]
    account: Annotated[str, Meta(description='The account that owns it; "": a gateway key does.')]
    upstream: str
    hint: Annotated[str, Meta(description="Its last four characters.")]
    fingerprint: Annotated[str, Meta(description="The same for the same key.")]
    fallback: Annotated[
        bool, Meta(description="Whether the gateway's own keys there may follow it.")
    ]
    changed_at: datetime


class OwnUpstreamKeys(Shape, frozen=True, kw_only=True):
    """Lists all upstream keys of owners."""

    data: list[OwnUpstreamKey]


class NewOwnUpstreamKey(Asked, frozen=True, kw_only=True):
    """An upstream key to be kept for its owner: a gateway key or an account."""

    upstream: Annotated[str, Meta(min_length=1, max_length=128)]
    secret: Annotated[
        str,
        Meta(min_length=16, max_length=512, description="Kept encrypted, and never shown again."),
    ]
    key_id: OwnerId | UnsetType = UNSET
    account: OwnerId | UnsetType = UNSET
    fallback: bool = False


# --- upstreams of the operator's own --------------------------------------------------------------

UpstreamName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Pace = Annotated[int, Meta(ge=0, le=1 << 40)]
UpstreamKeyText = Annotated[
    str,
    Meta(max_length=4096, description="The provider's API key. It is encrypted and never shown."),
]
Address = Annotated[str, Meta(max_length=2048, description="Of the API; empty: the preset's.")]
UpstreamDialect = Literal["", "openai", "responses", "anthropic", "gemini"]


class NewUpstream(Asked, frozen=True, kw_only=True):
    """The fields of `[upstreams.NAME]` in headgate.toml, with the key itself."""

    id: UpstreamName
    preset: Text
    base_url: Address = ""
    key: UpstreamKeyText = ""
    dialect: UpstreamDialect = ""
    allow_http: bool = False
    rpm: Pace | None = None
    tpm: Pace | None = None
    only_named: bool = False
    region: Text = ""
    free: bool = False
    prices: tuple[UpstreamPrice, ...] = ()
    capabilities: Capabilities = {}


class UpstreamChanges(Asked, frozen=True, kw_only=True):
    preset: Text | UnsetType = UNSET
    base_url: Address | UnsetType = UNSET
    key: UpstreamKeyText | UnsetType = UNSET
    dialect: UpstreamDialect | UnsetType = UNSET
    allow_http: bool | UnsetType = UNSET
    rpm: Pace | UnsetType | None = UNSET
    tpm: Pace | UnsetType | None = UNSET
    only_named: bool | UnsetType = UNSET
    region: Text | UnsetType = UNSET
    free: bool | UnsetType = UNSET
    prices: tuple[UpstreamPrice, ...] | UnsetType = UNSET
    capabilities: Capabilities | UnsetType = UNSET
