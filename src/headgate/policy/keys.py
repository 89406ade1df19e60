"""API keys and accounts: a key's text, what is kept of it, and who a presented one belongs to.

    hg_live_ PUBLICID SECRET CHECK      8 + 43 + 6 characters of base 62 after the prefix

The public id may be shown and logged; of the secret (256 bits) only an HMAC under the pepper is
kept; the check (CRC-32) lets secret scanners and us tell a mistyped key without a look-up.  What
will surprise: a refused key costs as much whatever is wrong with it, so that the time tells nothing
(promises.md T1, T2), and a key that was right is remembered by its digest, as a coding agent sends
it a thousand times.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Iterable
from typing import Literal

import msgspec

PREFIX = "hg_live_"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 8, 43, 6
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT = re.compile(
    rf"{PREFIX}([0-9A-Za-z]{{{ID_CHARS}}})([0-9A-Za-z]{{{SECRET_CHARS}}})([0-9A-Za-z]{{{CHECK_CHARS}}})"
)
REMEMBERED = 4096  # digests of keys that were right

Period = Literal["total", "day", "month"]
OnDisconnect = Literal["cancel", "drain"]


class Key(msgspec.Struct, frozen=True):
    id: str  # public
    name: str
    created_s: float  # Unix seconds, as the others
    expires_s: float | None = None
    revoked_s: float | None = None
    models: tuple[str, ...] = ()  # catalog ids it may use; (): all
    rpm: int | None = None  # requests a minute; None, as in the others: no limit
    tpm: int | None = None  # tokens a minute
    concurrency: int | None = None
    budget_nano: int | None = None
    budget_period: Period = "total"
    budget_zone: str = "UTC"
    on_disconnect: OnDisconnect = "cancel"  # what becomes of the upstream when the client leaves
    rotation_group: str = ""  # the first key of which this one is a rotation; "": it is a first one
    account: str = ""  # of which it is part; "": of none
    allowed_cidrs: tuple[str, ...] = ()  # networks its requests may come from; (): any
    effort: str = ""  # of reasoning, for requests that name none; "": as the model says
    routing: str = ""  # which routes it may take (policy/preferences.py); "": any
    mask: str = ""  # what is masked before it leaves (policy/masking.py); "": nothing

    @property
    def owner(self) -> str:
        """The owner of these limits and this budget: a key and its rotations share both."""
        return self.rotation_group or self.id

    def good(self, now_s: float) -> bool:
        """Whether it opens anything now."""
        gone = self.revoked_s is not None and self.revoked_s <= now_s
        return not gone and (self.expires_s is None or self.expires_s > now_s)


class Account(msgspec.Struct, frozen=True):
    """A team: keys that share a budget, whose figures are added up."""

    id: str  # a slug, for ever
    name: str
    created_s: float
    closed_s: float | None = None  # from then on its keys open nothing
    budget_nano: int | None = None
    budget_period: Period = "total"
    budget_zone: str = "UTC"

    def good(self, now_s: float) -> bool:
        return self.closed_s is None or self.closed_s > now_s


class Parsed(msgspec.Struct, frozen=True):
    id: str
    secret: str


def new_text(random: bytes) -> tuple[str, Parsed]:
    """A key's text and its parts, of 38 random bytes."""
    id = _base62(int.from_bytes(random[:6], "big"), ID_CHARS)
    secret = _base62(int.from_bytes(random[6:38], "big"), SECRET_CHARS)
    return f"{PREFIX}{id}{secret}{_check(id + secret)}", Parsed(id, secret)


def parse(text: str) -> Parsed | None:
    """The parts of a key; None when it is none of ours or mistyped."""
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
    """The keys and the accounts of one moment, by id."""

    def __init__(
        self, pepper: bytes, rows: Iterable[tuple[Key, bytes]], accounts: Iterable[Account] = ()
    ) -> None:
        """`rows`: each key with the HMAC of its secret."""
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
