"""What the admin API says of usage and requests, as structs of shapes.py's fields."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, defstruct, structs

from headgate.storage import rows
from headgate.storage.figures import By, Step
from headgate.web.api.shapes import Asked, Before, Nano, Older, Shape, Size, Text, Usd

Since = Annotated[
    datetime, Meta(tz=True, description="RFC 3339 with a zone, or Unix seconds; included.")
]
Until = Annotated[
    datetime, Meta(tz=True, description="RFC 3339 with a zone, or Unix seconds; not included.")
]


class Filters(Asked, frozen=True, kw_only=True):
    account: Annotated[Text, Meta(description='"": the keys of no account.')] | UnsetType = UNSET
    key: Annotated[Text, Meta(description="A key's id.")] | UnsetType = UNSET
    user: Annotated[Text, Meta(description="The end user that the client named.")] | UnsetType = (
        UNSET
    )
    model: Annotated[Text, Meta(description="A model's id in the catalog.")] | UnsetType = UNSET
    upstream: Text | UnsetType = UNSET
    session: Annotated[Text, Meta(description="The client's own id.")] | UnsetType = UNSET
    outcome: (
        Annotated[Text, Meta(description="`stop`, `tool_calls`, or a kind of failure.")] | UnsetType
    ) = UNSET
    node: (
        Annotated[Text, Meta(description="A node's id, where nodes share a database.")] | UnsetType
    ) = UNSET


class UsageAsked(Filters, frozen=True, kw_only=True):
    by: By = "day"
    since: Since | UnsetType = UNSET
    until: Until | UnsetType = UNSET
    step: (
        Annotated[Step, Meta(description="A row for each hour or day (UTC) of each name.")]
        | UnsetType
    ) = UNSET
    after: Annotated[int, Meta(ge=0, le=10**9, description="`next` of the page before.")] = 0
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many rows at most.")] = 200


class UsageRow(Shape, frozen=True, kw_only=True):
    """The sum of a group of exchanges."""

    name: Annotated[str, Meta(description="Of what it is the sum: a day, a key's id, a model.")]
    at: Annotated[datetime | None, Meta(description="With `step`: when the hour or day begins.")]
    requests: int
    unpriced: Annotated[int, Meta(description="Those whose cost nobody knows; not in the cost.")]
    errors: Annotated[
        int | None,
        Meta(description="No answer, and the client did not leave; null: not kept by session."),
    ]
    input_tokens: int
    cached_tokens: Annotated[int, Meta(description="Part of the input.")]
    cache_write_tokens: Annotated[int, Meta(description="Part of the input.")]
    output_tokens: int
    reasoning_tokens: Annotated[int, Meta(description="Part of the output.")]
    cost_usd: Usd
    cost_nano_usd: Nano
    ttft_ms: Annotated[float | None, Meta(description="The mean; null: none, or not kept.")]
    output_tokens_per_s: Annotated[
        float | None, Meta(description="While replies streamed; null: none, or not kept.")
    ]


class Usage(Shape, frozen=True, kw_only=True):
    """A page of sums."""

    by: By
    since: datetime
    until: datetime
    data: Annotated[
        list[UsageRow], Meta(description="Days, hours and steps in order, all else by cost.")
    ]
    next: Annotated[int | None, Meta(description="What to send as `after`; null: that was all.")]


class Attempt(Shape, frozen=True, kw_only=True):
    """Shows one contact with an upstream; the client pays for the last one only."""

    upstream: str
    model: Annotated[str, Meta(description="As the upstream calls it.")]
    outcome: str
    upstream_code: str
    ms: int
    key: Annotated[
        int,
        Meta(description="Its place in the upstream's pool of keys, from 1; 0: it has no pool."),
    ]
    upstream_text: Annotated[
        str, Meta(description="The upstream's own error text: shortened, without secrets.")
    ] = ""
    key_of: Annotated[
        Literal["", "key", "account"],
        Meta(description='Whose own upstream key was used; "": one of the gateway\'s.'),
    ] = ""


_IN_JSON: dict[str, object] = {
    "tags": list[str],
    "attempts": list[Attempt],
    "warnings": list[str],
    **{name: datetime for name in rows.INSTANTS},
}
_ROW = [(f.name, _IN_JSON.get(f.name, f.type)) for f in structs.fields(rows.LedgerRow)]


if TYPE_CHECKING:

    class Exchange(Shape, frozen=True, kw_only=True):
        """One request as it ended: the columns of the ledger, as rows.shown writes them."""

else:
    Exchange = defstruct(
        "Exchange",
        [
            (
                "seq",
                Annotated[
                    int | None, Meta(description="Its place in the log; null where it is alone.")
                ],
            ),
            *_ROW,
            ("cost_usd", Usd | None),
            (
                "node",
                Annotated[
                    str,
                    Meta(description='Which node answered; "": nodes share no database.'),
                ],
            ),
        ],
        bases=(Shape,),
        namespace={"__doc__": "One request as it ended; neither prompt nor reply is kept."},
        module=__name__,
        frozen=True,
        kw_only=True,
    )


class Exchanges(Shape, frozen=True, kw_only=True):
    """A page of requests."""

    data: Annotated[list[Exchange], Meta(description="The last one first.")]
    next: Before


class ExchangesAsked(Filters, frozen=True, kw_only=True):
    since: Since | UnsetType = UNSET
    until: Until | UnsetType = UNSET
    before: Older | UnsetType = UNSET
    limit: Size = 50


class Session(Shape, frozen=True, kw_only=True):
    """Adds up one conversation, by the id that its client gave it."""

    session: str
    total: UsageRow
    data: Annotated[list[Exchange], Meta(description="The last one first.")]
    next: Before


class SessionAsked(Asked, frozen=True, kw_only=True):
    before: Older | UnsetType = UNSET
    limit: Size = 50
