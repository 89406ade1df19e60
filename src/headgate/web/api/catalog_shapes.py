"""What the admin API takes and gives of the operator's own models and upstreams, and of upstream keys, as structs."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from headgate.config import Price, RouteTo, UpstreamPrice
from headgate.web.api.shapes import Asked, KeyEffort, Shape, Text

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
    capabilities: Capabilities = field(default_factory=dict)
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
    capabilities: Capabilities = field(default_factory=dict)


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
