"""Upstream keys of owners ("bring your own key"): whose requests are sent with which of them.

An owner is a gateway key, with all of its rotations, or an account.  A gateway key's own upstream key comes
before its account's.  Note: the secret is encrypted wherever it is kept; it is opened when the first request
needs it, and no message, log line, page or export has more of it than its last four characters.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from headgate.policy.keys import Key

OwnerKind = Literal["key", "account"]
HINT_CHARS = 4
MIN_CHARS, MAX_CHARS = 16, 512  # a hint of a shorter key would be a good part of it


class OwnedKey(msgspec.Struct, frozen=True):
    """What may be shown of an owner's upstream key."""

    kind: OwnerKind
    owner: str
    upstream: str
    hint: str  # its last characters
    fingerprint: str  # an HMAC, which tells whether two keys are the same
    fallback: bool  # whether the gateway's own keys of that upstream may follow it
    changed_s: float  # Unix seconds


class SealedKey(msgspec.Struct, frozen=True):
    """An owner's upstream key as it is kept."""

    shown: OwnedKey
    sealed: bytes


def fault_of(secret: str) -> str:
    """Return what is wrong with the text of an upstream key; "" when nothing is."""
    if not MIN_CHARS <= len(secret) <= MAX_CHARS:
        return f"an upstream key has {MIN_CHARS} to {MAX_CHARS} characters."
    if any(not "!" <= c <= "~" for c in secret):
        return "the upstream key has characters that no API key has."
    return ""


def hint_of(secret: str) -> str:
    """Return the characters of a key by which its owner knows it again."""
    return secret[-HINT_CHARS:]


class OwnedKeys:
    """Holds the upstream keys of all owners at one moment."""

    def __init__(
        self, rows: Iterable[SealedKey] = (), opened: Callable[[SealedKey], str] = lambda row: ""
    ) -> None:
        """`opened` decrypts a key; it raises ValueError when it cannot."""
        self._rows = {(r.shown.kind, r.shown.owner, r.shown.upstream): r for r in rows}
        self._opened = opened
        self._secrets: dict[SealedKey, str] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def find(self, key: Key, upstream: str) -> SealedKey | None:
        """Return the upstream key for requests of this gateway key; None: the gateway's is used."""
        found = self._rows.get(("key", key.owner, upstream))
        if found is None and key.account:
            found = self._rows.get(("account", key.account, upstream))
        return found

    def secret(self, row: SealedKey) -> str:
        """Return the key itself; ValueError when it cannot be decrypted."""
        secret = self._secrets.get(row)
        if secret is None:
            secret = self._secrets[row] = self._opened(row)
        return secret
