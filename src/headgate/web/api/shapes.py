"""The kinds of fields that the admin API takes and gives, and how a term of a key becomes such fields.

key_shapes.py, people_shapes.py, catalog_shapes.py and figures.py make the structs of them, openapi.py makes the
document of those, so a description beside a field is documentation for clients.
Note: each route that writes has a request of its own, in which an unknown field is an
error, so that nothing can be set that was not meant to be; in a PATCH a field that
is left out stays as it is, and `null` takes it away.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from headgate.dialects.capabilities import Effort
from headgate.policy import keys as policy_keys
from headgate.policy import pricing
from headgate.policy.key_terms import Term
from headgate.policy.terms import ACCOUNT_TERMS, MAX_LIMIT, MAX_NAME_CHARS, TERMS, USUAL, field_of

DOLLARS = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"  # as policy/budgets.py reads them
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


def created(base: type[S], terms: dict[str, Term], name: str) -> type[S]:
    """Return the body of a creation: `base` and the terms with their usual values."""
    fields = [(field_of(n), _asked_type(n, t), USUAL[n]) for n, t in terms.items()]
    return _struct(base, fields, name)


def changed(base: type[S], terms: dict[str, Term], name: str) -> type[S]:
    """Return the body of a change: `base` and the terms, all of which may be left out."""
    fields = [(field_of(n), _asked_type(n, t) | UnsetType, UNSET) for n, t in terms.items()]
    return _struct(base, fields, name)


def answered(base: type[S], terms: dict[str, Term], name: str) -> type[S]:
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


KeyEffort = Annotated[
    Literal["", Effort],
    Meta(
        description='How much models think for requests that name no effort; "": as the model says.'
    ),
]
