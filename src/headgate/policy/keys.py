"""API keys and accounts: a key's text, what is kept of it, and who a presented one belongs to.

    hg_live_ PUBLICID SECRET CHECK      8 + 43 + 6 characters of base 62 after the prefix

The public id may be shown and logged; of the secret (256 bits) only an HMAC under the pepper is
kept; the check (CRC-32) lets secret scanners and us recognise a mistyped key without a look-up.

Note: a refused key costs the same time whatever is wrong with it, so that the time reveals nothing.
A key that was right is remembered by its digest, as a coding agent sends it a thousand times.

What an operator may set on a key or an account is a field with a `Term`.  The options of the command
line, the fields of the admin API and of the console's form, the checks, the columns of the database and
the words of the audit log all come from it (policy/terms.py).
"""

import hmac
import re
import zlib
from typing import Annotated, Literal

import msgspec

from headgate.dialects.capabilities import EFFORTS
from headgate.policy.key_terms import (
    BudgetNano,
    BudgetPeriod,
    BudgetTerms,
    BudgetZone,
    OnDisconnect,
    Term,
)

PREFIX = "hg_live_"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 8, 43, 6
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT = re.compile(
    rf"{PREFIX}([0-9A-Za-z]{{{ID_CHARS}}})([0-9A-Za-z]{{{SECRET_CHARS}}})([0-9A-Za-z]{{{CHECK_CHARS}}})"
)


KeyState = Literal["open", "ending", "expired", "revoked", "closed"]
# What people read; `ending`: revoked from a moment to come; `closed`: its account is.
KEY_STATES: dict[KeyState, str] = {
    "open": "open",
    "ending": "ends soon",
    "expired": "expired",
    "revoked": "revoked",
    "closed": "account closed",
}


class Key(msgspec.Struct, frozen=True):
    id: str  # public
    name: str
    created_s: float  # Unix seconds, as the others
    expires_s: float | None = None
    revoked_s: float | None = None
    models: tuple[str, ...] = ()  # catalog ids it may use; (): all
    rpm: Annotated[
        int | None,  # None, as in the others: no limit
        Term(
            kind="count",
            label="Requests a minute",
            help="Requests a minute.",
            unset="none",
            empty="no limit",
            summary="{value} requests/min",
        ),
    ] = None
    tpm: Annotated[
        int | None,
        Term(
            kind="count",
            label="Tokens a minute",
            help="Tokens a minute, input and output.",
            unset="none",
            empty="no limit",
            summary="{value} tokens/min",
        ),
    ] = None
    concurrency: Annotated[
        int | None,
        Term(
            kind="count",
            label="Concurrent requests",
            help="Concurrent requests.",
            unset="none",
            empty="no limit",
            summary="{value} concurrent",
        ),
    ] = None
    budget_nano: BudgetNano = None
    budget_period: BudgetPeriod = "total"
    budget_zone: BudgetZone = "UTC"
    on_disconnect: Annotated[
        OnDisconnect,
        Term(
            kind="choice",
            label="On client disconnect",
            help="When a client disconnects: cancel the upstream request (the default), or finish and bill.",
            choices=("cancel", "drain"),
            names=("cancel the upstream request", "finish and bill"),
            summary="finishes and bills on disconnect",
        ),
    ] = "cancel"
    rotation_group: str = ""  # the first key of which this one is a rotation; "": it is a first one
    account: str = ""  # of which it is part; "": of none
    allowed_cidrs: Annotated[
        tuple[str, ...],
        Term(
            kind="networks",
            label="Allowed networks",
            help="The only networks it may be used from, as 10.0.0.0/8,192.0.2.7.",
            option="--allow-from",
            unset="any",
            empty="any address",
            example="10.0.0.0/8, 192.0.2.7",
            summary="only from {value}",
        ),
    ] = ()
    effort: Annotated[
        str,
        Term(
            kind="choice",
            label="Default effort",
            help="How much models think for requests that name no effort.",
            unset="default",
            choices=("", *EFFORTS),
            names=("as the model says", *EFFORTS),
            summary="effort {value}",
        ),
    ] = ""
    routing: Annotated[  # read by policy/preferences.py
        str,
        Term(
            kind="text",
            label="Allowed routes",
            help='The routes that its requests may take, as "sort=price; only=a,b; regions=own"; "": any.',
            empty="any",
            example="sort=price; only=a,b; ignore=c; regions=own",
            summary="{value}",
            max_chars=512,
        ),
    ] = ""
    mask: Annotated[  # read by policy/masking.py
        str,
        Term(
            kind="text",
            label="Mask before sending",
            help='What is masked before it is sent: email,phone,card,iban,key, or all; "": nothing.',
            empty="nothing",
            example="email, phone, card, iban, key; all",
            summary="masks {value}",
        ),
    ] = ""

    @property
    def owner(self) -> str:
        """The owner of these limits and this budget: a key and its rotations share both."""
        return self.rotation_group or self.id

    def good(self, now_s: float) -> bool:
        """Whether it opens anything now."""
        gone = self.revoked_s is not None and self.revoked_s <= now_s
        return not gone and (self.expires_s is None or self.expires_s > now_s)

    def state(self, account: "Account | None", now_s: float) -> KeyState:
        """Return its state; `account` is the one that it is part of."""
        if self.revoked_s is not None and self.revoked_s <= now_s:
            return "revoked"
        if not self.good(now_s):
            return "expired"
        if account is not None and not account.good(now_s):
            return "closed"
        return "open" if self.revoked_s is None else "ending"


class Account(msgspec.Struct, frozen=True):
    """A team: keys that share a budget, whose figures are added up."""

    id: str  # a slug that never changes
    name: str
    created_s: float
    closed_s: float | None = None  # from then on its keys open nothing
    budget_nano: BudgetNano = None
    budget_period: BudgetPeriod = "total"
    budget_zone: BudgetZone = "UTC"

    def good(self, now_s: float) -> bool:
        return self.closed_s is None or self.closed_s > now_s


class Parsed(msgspec.Struct, frozen=True):
    id: str
    secret: str


def new_text(random: bytes) -> tuple[str, Parsed]:
    """Make a key's text and its parts of 38 random bytes."""
    id = _base62(int.from_bytes(random[:6], "big"), ID_CHARS)
    secret = _base62(int.from_bytes(random[6:38], "big"), SECRET_CHARS)
    return f"{PREFIX}{id}{secret}{_check(id + secret)}", Parsed(id, secret)


def parse(text: str) -> Parsed | None:
    """Return the parts of a key; None when it is none of ours or mistyped."""
    found = _TEXT.fullmatch(text)
    if found is None or _check(found[1] + found[2]) != found[3]:
        return None
    return Parsed(found[1], found[2])


def mac(pepper: bytes, secret: str) -> bytes:
    """What is kept of a secret: 32 bytes."""
    return hmac.digest(pepper, secret.encode(), "sha256")


def _base62(number: int, chars: int) -> str:
    out = ""
    while len(out) < chars:
        number, digit = divmod(number, 62)
        out = _DIGITS[digit] + out
    return out


def _check(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECK_CHARS)


class Terms(BudgetTerms, total=False):
    """The fields of Key that have a `Term`."""

    rpm: int | None
    tpm: int | None
    concurrency: int | None
    on_disconnect: OnDisconnect
    allowed_cidrs: tuple[str, ...]
    effort: str
    routing: str
    mask: str


class Changes(Terms, total=False):
    """The fields of Key that an operator may change."""

    name: str
    models: tuple[str, ...]
    expires_s: float | None
    account: str


class AccountChanges(BudgetTerms, total=False):
    """The fields of Account that an operator may change."""

    name: str
