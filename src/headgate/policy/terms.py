"""The terms of keys and accounts: how their text is read, and what no key and no account may be.

Each term is declared once, at its field of `Key` (policy/keys.py).
"""

import re
from collections.abc import Callable
from typing import get_type_hints

from headgate.policy import masking, networks, periods, preferences
from headgate.policy.key_terms import Term
from headgate.policy.keys import Account, Key

MAX_NAME_CHARS = 128
MAX_LIMIT = 10**12  # a minute, or at a time: what is above it is a slip
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
# How the texts of some terms are checked; each raises ValueError.
_TEXTS: dict[str, Callable[[str], object]] = {
    "routing": preferences.parsed,
    "mask": masking.kinds,
}


def _declared(owner: type) -> dict[str, Term]:
    hints = get_type_hints(owner, include_extras=True)
    found = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: term for name, (term, *_) in ((n, m) for n, m in found.items() if m)}


# By the name of the column, in the order of the fields.
TERMS: dict[str, Term] = _declared(Key)
ACCOUNT_TERMS: dict[str, Term] = _declared(Account)


class TermFault(ValueError):
    """What is wrong with the text of a term; `text` has `{names}` of `values`, for translations."""

    def __init__(self, text: str, **values: str) -> None:
        super().__init__(text.format(**values))
        self.text = text
        self.values = values


def field_of(name: str) -> str:
    """Return the name of a term in the API and in forms."""
    return TERMS[name].field or name


def option_of(name: str) -> str:
    """Return the option of a term on the command line."""
    return TERMS[name].option or "--" + name.replace("_", "-")


def read(name: str, text: str) -> object:
    """Return the value that a text stands for; TermFault when it stands for none.

    An empty text, and the word that takes the term away, stand for its absence.
    """
    term = TERMS[name]
    nothing = not text or text == term.unset
    match term.kind:
        case "count":
            return None if nothing else read_count(text)
        case "money":
            return None if nothing else _nano(text.removeprefix("$").replace(",", ""))
        case "networks":
            try:
                return () if nothing else networks.split(text)
            except ValueError as error:
                raise TermFault("{fault}.", fault=str(error)) from None
        case "zone":
            return _zone(text or "UTC")
        case "choice" | "period":
            value = "" if nothing else text
            if value not in term.choices:
                choices = ", ".join(term.choices)
                raise TermFault(
                    "{field} is one of {choices}.", field=field_of(name), choices=choices
                )
            return value
        case "text":
            return text


def read_count(text: str) -> int:
    """Return a whole number that may have commas; TermFault for anything else."""
    text = text.replace(",", "")
    if text.isascii() and text.isdecimal() and len(text) <= 13 and int(text) <= MAX_LIMIT:
        return int(text)
    raise TermFault("`{value}` is not a limit; write a whole number, or none.", value=text[:32])


def _nano(text: str) -> int:
    try:
        return periods.nano_of(text)
    except ValueError:
        raise TermFault(
            "`{value}` is not an amount in dollars; write one like 12.50.", value=text[:32]
        ) from None


def _zone(name: str) -> str:
    try:
        periods.zone_of(name)
    except ValueError:
        raise TermFault(
            "No time zone `{zone}` is known; write UTC or one like Asia/Shanghai.", zone=name[:64]
        ) from None
    return name


def summaries(key: Key) -> list[tuple[str, str]]:
    """Return what a key may do beside its budget: for each term set, its words and its value."""
    out = []
    for name, term in TERMS.items():
        value = getattr(key, name)
        if term.summary and value != USUAL[name]:
            shown = f"{value:,}" if isinstance(value, int) else value
            out.append((term.summary, ", ".join(value) if isinstance(value, tuple) else str(shown)))
    return out


USUAL: dict[str, object] = {name: getattr(Key("", "", 0.0), name) for name in TERMS}


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
    is_key = isinstance(what, Key)
    if fault := name_fault("a key" if is_key else "an account", what.name):
        return fault
    try:
        for name in TERMS if is_key else ACCOUNT_TERMS:
            if fault := _term_fault(name, getattr(what, name)):
                return fault
    except ValueError as error:
        return str(error)
    return ""


def _term_fault(name: str, value: object) -> str:
    """Return what is wrong with the value of a term; ValueError says it as well."""
    kind = TERMS[name].kind
    if kind in ("count", "money"):
        most = MAX_LIMIT if kind == "count" else periods.MAX_NANO
        if value is not None and not (isinstance(value, int) and 0 <= value <= most):
            return f"{name} is {value}; it is a whole number from 0 to {most}."
    elif kind == "zone":
        periods.zone_of(str(value))
    elif isinstance(value, tuple):
        if networks.checked(value) != value:
            return f"{name} has networks that are not in their usual form."
    elif name in _TEXTS:
        _TEXTS[name](str(value))
    return ""
