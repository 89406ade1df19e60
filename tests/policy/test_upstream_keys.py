"""Whose upstream key a request is sent with, and what may be one."""

import pytest

from headgate.policy.keys import Key
from headgate.policy.upstream_keys import OwnedKey, OwnedKeys, OwnerKind, SealedKey, fault_of


def row(kind: OwnerKind, owner: str, upstream: str = "up") -> SealedKey:
    return SealedKey(OwnedKey(kind, owner, upstream, "cdef", "f", False, 1.0), owner.encode())


def keys(*rows: SealedKey) -> OwnedKeys:
    return OwnedKeys(rows, lambda r: r.sealed.decode())


def test_a_keys_own_comes_before_its_accounts() -> None:
    owned = keys(row("key", "k1"), row("account", "acme"), row("account", "k1"))
    mine = Key("k1", "n", 0.0, account="acme")
    assert owned.find(mine, "up") == row("key", "k1")
    assert owned.find(Key("k2", "n", 0.0, account="acme"), "up") == row("account", "acme")
    assert owned.find(Key("k3", "n", 0.0, rotation_group="k1"), "up") == row("key", "k1")
    assert owned.find(mine, "other") is None
    assert owned.find(Key("k4", "n", 0.0), "up") is None


def test_a_key_without_an_account_has_nobodys() -> None:
    assert keys(row("account", "")).find(Key("k", "n", 0.0), "up") is None


def test_a_secret_is_decrypted_once_and_a_failure_every_time() -> None:
    opened: list[str] = []

    def open_(found: SealedKey) -> str:
        opened.append(found.shown.owner)
        if found.shown.owner == "bad":
            raise ValueError("no")
        return "secret"

    good, bad = row("key", "good"), row("key", "bad")
    owned = OwnedKeys([good, bad], open_)
    assert (owned.secret(good), owned.secret(good)) == ("secret", "secret")
    for _ in range(2):
        with pytest.raises(ValueError):
            owned.secret(bad)
    assert opened == ["good", "bad", "bad"]


@pytest.mark.parametrize(
    "secret", ["", "short", "x" * 15, "x" * 513, "sk-with space-012345", "sk-ümlaut-0123456789"]
)
def test_what_is_no_key_is_refused(secret: str) -> None:
    fault = fault_of(secret)
    assert fault and (len(secret) < 8 or secret not in fault)
    assert fault_of("sk-0123456789abcdef") == ""
