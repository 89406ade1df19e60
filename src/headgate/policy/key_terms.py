"""The terms of keys and accounts: each declared once, with its label, its option and its column."""

from typing import Annotated, Literal, TypedDict

import msgspec

Period = Literal["total", "day", "month"]
OnDisconnect = Literal["cancel", "drain"]


TermKind = Literal["count", "money", "period", "zone", "networks", "choice", "text"]


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """What every surface shows and reads of one term."""

    kind: TermKind  # which parser reads it
    label: str  # of the console's form and the audit log; web/zh.toml has its Chinese
    help: str  # for `--help` and the API's document
    option: str = ""  # of the command line; "": the name with dashes
    field: str = ""  # in the API and in forms; "": the name
    unset: str = ""  # the word that takes it away on the command line; "": an empty text
    empty: str = ""  # what the console's form shows while nothing is set
    example: str = ""
    summary: str = ""  # in a list of what a key may do, around `{value}`
    choices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of the choices, for people
    max_chars: int = 64


BudgetNano = Annotated[
    int | None,
    Term(
        kind="money",
        label="Budget in US dollars",
        help="What it may spend, in US dollars, as 12.50.",
        option="--budget-usd",
        field="budget_usd",
        unset="none",
        empty="no budget",
    ),
]
BudgetPeriod = Annotated[
    Period,
    Term(
        kind="period",
        label="Budget period",
        help="The time that the budget is for; total: once and for all.",
        choices=("total", "day", "month"),
        names=("all time", "each day", "each month"),
    ),
]
BudgetZone = Annotated[
    str,
    Term(
        kind="zone",
        label="Budget time zone",
        help="The time zone in which days and months begin: UTC, Europe/Berlin.",
        empty="UTC",
    ),
]


class BudgetTerms(TypedDict, total=False):
    """The fields of Key and of Account that say what may be spent."""

    budget_nano: int | None
    budget_period: Period
    budget_zone: str
