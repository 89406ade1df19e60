"""The terms of keys and accounts: what may be changed, and what no key and no account may be."""

import re
from typing import TypedDict

from headgate.policy import budgets, masking, networks, preferences
from headgate.policy.keys import Account, Key, OnDisconnect, Period

MAX_NAME_CHARS = 128
MAX_LIMIT = 10**12  # a minute, or at a time: what is above it is a slip
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


class BudgetTerms(TypedDict, total=False):
    """What may be spent; the fields of Key and of Account."""

    budget_nano: int | None
    budget_period: Period
    budget_zone: str


class Terms(BudgetTerms, total=False):
    """What a key may take, and how it is served; the fields of Key."""

    rpm: int | None
    tpm: int | None
    concurrency: int | None
    on_disconnect: OnDisconnect
    allowed_cidrs: tuple[str, ...]
    effort: str
    routing: str
    mask: str


class Changes(Terms, total=False):
    name: str
    models: tuple[str, ...]
    expires_s: float | None
    account: str


class AccountChanges(BudgetTerms, total=False):
    name: str


def name_fault(whose: str, name: str) -> str:
    """Return what is wrong with a name; "" when nothing is."""
    if name.strip() and len(name) <= MAX_NAME_CHARS and name.isprintable():
        return ""
    return f"{whose}'s name has 1 to {MAX_NAME_CHARS} printable characters."


def account_id_fault(id: str) -> str:
    """Return what is wrong with the id of an account; "" when nothing is."""
    if _SLUG.fullmatch(id):
        return ""
    return "an account's id has 1 to 64 characters of a-z, 0-9 and `-`, which is not at its ends."


def fault_of(what: Key | Account) -> str:
    """Return what no key and no account may be and this one is; "" when nothing is wrong."""
    if fault := name_fault("a key" if isinstance(what, Key) else "an account", what.name):
        return fault
    limits = {"rpm": MAX_LIMIT, "tpm": MAX_LIMIT, "concurrency": MAX_LIMIT}
    most_of = {**(limits if isinstance(what, Key) else {}), "budget_nano": budgets.MAX_NANO}
    for name, most in most_of.items():
        value = getattr(what, name)
        if value is not None and not 0 <= value <= most:
            return f"{name} is {value}; it is a whole number from 0 to {most}."
    try:
        if isinstance(what, Key):
            preferences.parsed(what.routing)
            masking.kinds(what.mask)
        if isinstance(what, Key) and networks.checked(what.allowed_cidrs) != what.allowed_cidrs:
            return "allowed_cidrs has networks that are not in their usual form."
        budgets.zone_of(what.budget_zone)
    except ValueError as error:
        return str(error)
    return ""
