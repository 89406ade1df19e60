"""What the admin API gives of upstreams and models, as structs."""

from datetime import date
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from headgate.web.api.shapes import Shape

UpstreamState = Annotated[
    Literal["not_checked", "up", "degraded", "paused"],
    Meta(
        description="`degraded`: some requests fail or some routes are paused; `paused`: all are."
    ),
]


class PlanWindow(Shape, frozen=True, kw_only=True):
    """One window of a plan at an upstream, as it was last heard of."""

    window: Literal["5h", "7d"]
    left: Annotated[float | None, Meta(description="From 0 to 1; null: not known.")]
    resets_in_s: Annotated[float | None, Meta(description="Seconds; null: not known.")]


class UpstreamKey(Shape, frozen=True, kw_only=True):
    """How one key of an upstream stands; never the key itself."""

    account: Annotated[str, Meta(description="The upstream and the key's place in its pool.")]
    paused_s: Annotated[
        float, Meta(description="Seconds until it is asked again; 0: it is active, or half-open.")
    ]
    kind: Annotated[str, Meta(description='Of the failure that paused it; "": it is active.')]
    code: Annotated[str, Meta(description="The upstream's own code of that failure.")]
    models: Annotated[list[str], Meta(description="It is paused for these only; empty: for all.")]
    plan: Annotated[list[PlanWindow], Meta(description="What is known of its plan.")] = field(
        default_factory=list
    )
    plan_check: Annotated[
        str, Meta(description='Why the vendor\'s quota address says nothing; "": it was not asked.')
    ] = ""


class UpstreamPrice(Shape, frozen=True, kw_only=True):
    """Gives US dollars for a million tokens of one model at one upstream, or of every model there."""

    model: Annotated[str, Meta(description="Empty: every model.")]
    valid_from: date
    up_to_input: int | None
    input: str
    output: str
    cache_read: str
    cache_write: str
    priority_factor: str


class Upstream(Shape, frozen=True, kw_only=True):
    """An upstream as it stands now."""

    name: str
    preset: str
    dialect: str
    host: str
    models: list[str]
    state: UpstreamState
    failures: Annotated[int, Meta(description="In a row.")]
    check: Annotated[str, Meta(description="Why the last check failed; empty: it did not.")]
    paused: Annotated[list[str], Meta(description="Models whose route here is not closed.")]
    paused_s: Annotated[float, Meta(description="Seconds of the longest pause to come.")]
    keys: Annotated[list[UpstreamKey], Meta(description="Its pool of keys; one if it has no pool.")]
    rpm: Annotated[
        int | None, Meta(description="Requests a minute that each key takes; null: unknown.")
    ]
    tpm: int | None
    requests: Annotated[int, Meta(description="Of the last 24 hours, as what follows.")]
    error_rate: float | None
    first_token_ms: float | None
    output_tokens_per_s: float | None


class Upstreams(Shape, frozen=True, kw_only=True):
    """Lists all upstreams."""

    data: list[Upstream]


class Finding(Shape, frozen=True, kw_only=True):
    """One thing that was looked at; `fix` says what to do about it."""

    name: str
    state: Literal["ok", "warn", "fail", "skip"]
    text: str
    fix: str


class Checked(Shape, frozen=True, kw_only=True):
    """What one short request to the upstream has shown."""

    steps: list[Finding]


class Price(Shape, frozen=True, kw_only=True):
    """Gives US dollars for a million tokens; the whole request is billed at the tier its input falls into."""

    valid_from: date
    up_to_input: Annotated[int | None, Meta(description="Tokens of input; null: any number.")]
    input: str
    output: str
    cache_read: str
    cache_write: str
    priority_factor: str


Source = Literal["shipped", "file", "stored"]


class Route(Shape, frozen=True, kw_only=True):
    """Where a model's requests go."""

    upstream: str
    model: Annotated[str, Meta(description="The upstream's own name.")]
    answered_by: Annotated[
        str, Meta(description="Another model's name where the route leads there.")
    ]
    free: bool


class Model(Shape, frozen=True, kw_only=True):
    """Shows a model as the catalog has it, with its prices and routes."""

    id: str
    display_name: str
    description: str
    released: date
    context_window: int
    max_output: int
    input: list[str]
    prices: list[Price]
    upstreams: Annotated[list[str], Meta(description="Where its requests go, in this order.")]
    routes: list[Route]
    source: Annotated[
        Source,
        Meta(
            description="`file`: headgate.toml; `stored`: the console, this API or the command line."
        ),
    ]
    aliases: list[str]
    vendor: str
    free: bool
    efforts: Annotated[list[str], Meta(description="Of reasoning, the least first; empty: none.")]
    effort: Annotated[str, Meta(description='Where a request names none; "": nothing is known.')]
    retires: Annotated[date | None, Meta(description="Its end at its vendor's own API.")]
    successor: str | None
    advice: Annotated[list[str], Meta(description="What is missing or should be known.")]


class LeftOut(Shape, frozen=True, kw_only=True):
    """A stored model that does not fit the configuration any more."""

    id: str
    reason: str


class Removed(Shape, frozen=True, kw_only=True):
    """What was removed."""

    id: str
    removed: bool = True


class UpstreamSettings(Shape, frozen=True, kw_only=True):
    """Shows the settings of an upstream, never its key."""

    id: str
    source: Annotated[
        Literal["file", "stored"],
        Meta(
            description="`file`: headgate.toml or the environment; `stored`: the console or this API."
        ),
    ]
    preset: str
    base_url: str
    dialect: str
    has_key: bool
    allow_http: bool
    rpm: int | None
    tpm: int | None
    only_named: bool
    region: str
    free: bool
    prices: list[UpstreamPrice]
    capabilities: dict[str, Any]  # Any: as the settings have them
    left_out: Annotated[str, Meta(description="Why it does not serve; empty: it does.")]


class ModelList(Shape, frozen=True, kw_only=True):
    """Lists all models."""

    data: list[Model]
    left_out: list[LeftOut]
