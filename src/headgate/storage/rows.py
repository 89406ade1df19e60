"""The ledger's rows, declared once: their columns, what each means, and how a row is written as JSON.

The SQL that inserts and reads rows, `headgate requests`, CSV files and the admin API's schema are
derived from the fields of `LedgerRow`; a test compares the tables with them.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headgate.csv_export import Cell, Number
from headgate.policy.pricing import usd

Basis = Literal["upstream", "disputed", "partial", "estimated", "none", "recovered"]
MAX_CHARS = 256  # of any text: names, and ids that the client has made up
MAX_WORDS = 64  # warnings and attempts of one row
_LATEST_S = 253402214400.0  # a day before the year 10000, where datetime ends
# Columns that are kept as JSON text, and those that are instants.
JSON_COLUMNS = frozenset(("tags", "attempts", "warnings"))
INSTANTS = frozenset(("started_at", "ended_at"))


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """Records one contact with an upstream; the client pays for the last one only."""

    upstream: str
    model: str  # the upstream's name of it
    outcome: str
    upstream_code: str = ""
    ms: int = 0
    key: int = 0  # its place in the upstream's pool of keys, from 1; 0: there is no pool
    reply_began: bool = False  # it failed after its reply had begun, which may be billed
    upstream_text: str = ""  # of its error, as redaction.py leaves it
    key_of: Literal["", "key", "account"] = ""  # whose own upstream key was used; "": the gateway's


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """Records one exchange as it ended.  The fields are the columns of `ledger`, in their order."""

    request_id: Annotated[str, Meta(description="The id that the client got.")]
    key_id: Annotated[str, Meta(description="The gateway key that was used.")]
    account: Annotated[str, Meta(description='The account of the key; "": none.')] = ""
    session: Annotated[str, Meta(description="The client's own id of the conversation.")] = ""
    user: Annotated[str, Meta(description="The end user that the client named.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="From the header `x-headgate-tags`.")] = ()
    dialect: Annotated[str, Meta(description="The client's protocol.")]
    model: Annotated[str, Meta(description="The model's id in the catalog.")]
    upstream: str = ""
    upstream_model: Annotated[str, Meta(description="As the upstream calls it.")] = ""
    stream: bool = False
    outcome: Annotated[str, Meta(description="Why the reply ended, or a kind of failure.")]
    basis: Annotated[Basis, Meta(description="How it is known what is billed.")]
    status: Annotated[int, Meta(description="The HTTP status; 0: the client was sent none.")] = 0
    started_at: float  # Unix seconds
    ended_at: float
    ttft_ms: Annotated[
        int | None, Meta(description="Time to the first token; null: there was none.")
    ] = None
    input_tokens: Annotated[int, Meta(description="Includes cached and cache writes.")] = 0
    cached_tokens: Annotated[int, Meta(description="Part of the input.")] = 0
    cache_write_tokens: Annotated[int, Meta(description="Part of the input.")] = 0
    output_tokens: Annotated[int, Meta(description="Includes reasoning.")] = 0
    reasoning_tokens: Annotated[int, Meta(description="Part of the output.")] = 0
    cost_nano_usd: Annotated[
        int | None, Meta(description="10^-9 US dollars; null: no price is known.")
    ]
    price_version: Annotated[str, Meta(description="The price that was used.")] = ""
    service_tier: str = ""
    attempts: tuple[AttemptRecord, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def total_ms(self) -> int:
        return round((self.ended_at - self.started_at) * 1000)


COLUMNS: tuple[str, ...] = LedgerRow.__struct_fields__


class IntentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an exchange before its upstream is contacted."""

    request_id: str
    key_id: str
    account: str = ""
    session: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()
    dialect: str
    model: str
    upstream: str = ""
    upstream_model: str = ""
    stream: bool = False
    started_at: float
    # What the row says should the process die now.  To a client that pays nothing is the safe side.
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int | None = 0
    price_version: str = ""
    service_tier: str = ""

    def recovered(self) -> LedgerRow:
        return LedgerRow(
            **{name: getattr(self, name) for name in self.__struct_fields__},
            ended_at=self.started_at,
            outcome="crashed",
            basis="recovered",
        )


def instant(at_s: float) -> datetime:
    """Return Unix seconds as a moment in UTC, to the millisecond; beyond the calendar, its end."""
    return datetime.fromtimestamp(max(0.0, min(round(at_s, 3), _LATEST_S)), UTC)


def shown(row: LedgerRow) -> dict[str, object]:
    """Return a row as the admin API, `headgate requests --json` and clients see it."""
    fields: dict[str, object] = msgspec.to_builtins(row)
    for name in INSTANTS:
        fields[name] = rfc3339(getattr(row, name))
    fields["cost_usd"] = None if row.cost_nano_usd is None else usd(row.cost_nano_usd)
    return fields


def csv_cells(row: LedgerRow) -> tuple[Cell, ...]:
    """Return a row as cells of CSV: the columns in their order, then the cost in dollars."""
    fields = shown(row)
    fields["attempts"] = len(row.attempts)
    fields["tags"], fields["warnings"] = ", ".join(row.tags), "; ".join(row.warnings)
    fields["stream"] = int(row.stream)
    cost = fields["cost_usd"]
    fields["cost_usd"] = None if cost is None else Number(cost)
    return tuple(fields.values())  # type: ignore[arg-type]  # the others are texts and numbers


def rfc3339(at_s: float) -> str:
    return instant(at_s).isoformat(timespec="milliseconds").replace("+00:00", "Z")
