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

import hashlib
import hmac
import re
import zlib
from collections.abc import Iterable
from typing import Annotated, Literal, TypedDict

import msgspec

from headgate.dialects.capabilities import EFFORTS

PREFIX = "hg_live_"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 8, 43, 6
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT = re.compile(
    rf"{PREFIX}([0-9A-Za-z]{{{ID_CHARS}}})([0-9A-Za-z]{{{SECRET_CHARS}}})([0-9A-Za-z]{{{CHECK_CHARS}}})"
)
REMEMBERED = 4096  # digests of keys that were right

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


class KeySnapshot:
    """Holds the keys and the accounts of one moment, by id."""

    def __init__(
        self, pepper: bytes, rows: Iterable[tuple[Key, bytes]], accounts: Iterable[Account] = ()
    ) -> None:
        """`rows` has each key with the HMAC of its secret."""
        self._pepper = pepper
        self._rows = {key.id: (key, kept) for key, kept in rows}
        self._accounts = {account.id: account for account in accounts}
        self._closing = {a.id: a for a in self._accounts.values() if a.closed_s is not None}
        self._right: dict[bytes, Key] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> list[Key]:
        return [key for key, _ in self._rows.values()]

    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    def budgeted(self, key: Key) -> bool:
        """Whether the key or its account has a budget."""
        account = self._accounts.get(key.account)
        return key.budget_nano is not None or (
            account is not None and account.budget_nano is not None
        )

    def authenticate(self, text: str, now_s: float) -> Key | None:
        """The key that was presented, if it is right and good now."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        key = self._right.get(digest)
        if key is None:
            key = self._look_up(text)
            if key is None:
                return None
            if len(self._right) >= REMEMBERED:
                self._right.clear()
            self._right[digest] = key
        return key if self.good(key, now_s) else None

    def knows(self, text: str) -> bool:
        """Whether the secret is right, of a key that may have expired or been revoked: no guess."""
        return self._look_up(text) is not None

    def good(self, key: Key, now_s: float) -> bool:
        """Whether the key opens anything now, its account considered."""
        account = self._closing.get(key.account)
        return key.good(now_s) and (account is None or account.good(now_s))

    def _look_up(self, text: str) -> Key | None:
        parsed = parse(text)
        row = self._rows.get(parsed.id) if parsed is not None else None
        # The same work for an unknown id as for a wrong secret.
        secret = parsed.secret if parsed is not None else ""
        kept = row[1] if row is not None else bytes(32)
        same = hmac.compare_digest(mac(self._pepper, secret), kept)
        return row[0] if same and row is not None else None
