"""Keys: a text in, the key it belongs to out, or nothing and no hint why."""

import hmac
import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headgate.policy import key_snapshot
from headgate.policy.key_snapshot import KeySnapshot
from headgate.policy.keys import Account, Key, mac, new_text, parse

PEPPER = bytes(range(32))
TEXT, PARSED = new_text(bytes(range(100, 138)))
OTHER, OTHER_PARSED = new_text(bytes(range(38)))


def ring(**fields: object) -> KeySnapshot:
    key = msgspec.convert({"id": PARSED.id, "name": "n", "created_s": 0.0, **fields}, Key)
    return KeySnapshot(PEPPER, [(key, mac(PEPPER, PARSED.secret))])


@given(st.binary(min_size=38, max_size=38))
@example(bytes(38))
@example(b"\xff" * 38)
def test_a_new_key_has_the_published_form_and_reads_back(random: bytes) -> None:
    text, parsed = new_text(random)
    assert re.fullmatch(r"hg_live_[0-9A-Za-z]{57}", text)
    assert (len(parsed.id), len(parsed.secret)) == (8, 43)
    assert parse(text) == parsed


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_different_secrets_have_different_texts(a: bytes, b: bytes) -> None:
    same = new_text(bytes(6) + a)[1].secret == new_text(bytes(6) + b)[1].secret
    assert same == (a == b)


@given(st.integers(8, len(TEXT) - 1), st.sampled_from("0Az9-é"))
def test_one_wrong_character_is_noticed_without_a_look_up(place: int, wrong: str) -> None:
    changed = TEXT[:place] + wrong + TEXT[place + 1 :]
    assert parse(changed) == (PARSED if changed == TEXT else None)


@pytest.mark.parametrize(
    "text", ["", "hg_live_", TEXT + "\n", " " + TEXT, TEXT[:-1], TEXT.lower(), TEXT + TEXT]
)
def test_what_only_looks_like_a_key_is_none(text: str) -> None:
    assert parse(text) is None
    assert ring().authenticate(text, 0) is None


@given(st.text(st.characters(exclude_categories=()), max_size=80))
@example("\udce9\ud800")
def test_no_text_whatever_opens_anything_or_raises(text: str) -> None:
    assert ring().authenticate(text, 0) is None


def test_what_is_kept_is_the_hmac_of_the_secret_under_the_pepper() -> None:
    assert mac(PEPPER, "s") == hmac.new(PEPPER, b"s", "sha256").digest()
    assert mac(PEPPER, "s") != mac(bytes(32), "s")


def test_a_right_key_is_known_the_first_and_every_later_time() -> None:
    keyring = ring()
    found = [keyring.authenticate(TEXT, 1) for _ in range(3)]
    assert [k.id if k else None for k in found] == [PARSED.id] * 3
    assert len(keyring) == 1


def test_a_well_formed_key_of_another_gateway_is_refused() -> None:
    assert ring().authenticate(OTHER, 1) is None
    assert KeySnapshot(bytes(32), ring()._rows.values()).authenticate(TEXT, 1) is None


def test_the_right_id_with_another_secret_is_refused() -> None:
    forged = new_text(bytes(range(100, 106)) + bytes(32))
    assert forged[1].id == PARSED.id
    keyring = ring()
    assert keyring.authenticate(TEXT, 1) is not None
    assert keyring.authenticate(forged[0], 1) is None


@pytest.mark.parametrize("field", ["expires_s", "revoked_s"])
def test_a_key_that_was_right_before_is_refused_from_its_end_on(field: str) -> None:
    keyring = ring(**{field: 100.0})
    assert keyring.authenticate(TEXT, 99.9) is not None
    assert keyring.authenticate(TEXT, 100.0) is None
    assert keyring.authenticate(TEXT, 1e12) is None


@pytest.mark.parametrize("field", ["expires_s", "revoked_s"])
def test_a_key_that_has_ended_is_known_and_one_with_a_wrong_secret_is_not(field: str) -> None:
    keyring = ring(**{field: 100.0})
    assert keyring.authenticate(TEXT, 200.0) is None
    assert keyring.knows(TEXT)
    assert not keyring.knows(OTHER)
    assert not keyring.knows("garbage")


def test_an_unknown_id_costs_an_hmac_and_a_comparison_like_a_wrong_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(key_snapshot, "mac", lambda p, s: calls.append(s) or mac(p, s))  # type: ignore[func-returns-value]
    forged, parsed = new_text(bytes(range(100, 106)) + bytes(32))
    ring().authenticate(forged, 1)
    ring().authenticate(OTHER, 1)
    ring().authenticate("garbage", 1)
    assert calls == [parsed.secret, OTHER_PARSED.secret, ""]


def test_a_remembered_key_costs_no_hmac_and_a_refused_one_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(key_snapshot, "mac", lambda p, s: calls.append(s) or mac(p, s))  # type: ignore[func-returns-value]
    keyring = ring()
    for text in (TEXT, TEXT, OTHER, OTHER):
        keyring.authenticate(text, 1)
    assert calls == [PARSED.secret, OTHER_PARSED.secret, OTHER_PARSED.secret]


def test_what_is_remembered_is_bounded_and_never_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_snapshot, "REMEMBERED", 2)
    made = [new_text(bytes([n]) * 38) for n in range(5)]
    rows = [(Key(p.id, "n", 0.0), mac(PEPPER, p.secret)) for _, p in made]
    keyring = KeySnapshot(PEPPER, rows)
    for text, parsed in made * 2:
        found = keyring.authenticate(text, 1)
        assert found is not None and found.id == parsed.id
        assert len(keyring._right) <= 2
        assert text.encode() not in keyring._right


def test_a_key_of_an_account_that_is_closed_opens_nothing_from_then_on() -> None:
    text, parsed = new_text(bytes(38))
    key = Key(parsed.id, "a", 0, account="red")
    rows = [(key, mac(PEPPER, parsed.secret))]
    open_, closed = Account("red", "Red", 0), Account("red", "Red", 0, closed_s=5)
    assert KeySnapshot(PEPPER, rows, [open_]).authenticate(text, 9) == key
    ring = KeySnapshot(PEPPER, rows, [Account("blue", "Blue", 0, closed_s=1), closed])
    assert ring.authenticate(text, 4.9) == key
    assert ring.authenticate(text, 5) is None  # though it is remembered
    assert not ring.good(key, 5)
    assert [a.id for a in ring.accounts()] == ["blue", "red"]
