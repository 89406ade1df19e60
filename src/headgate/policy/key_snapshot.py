"""Who a presented key belongs to, by a snapshot of all keys."""

import hashlib
import hmac
from collections.abc import Iterable

from headgate.policy.keys import Account, Key, mac, parse

REMEMBERED = 4096  # digests of keys that were right


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
