"""Each term is declared once, and its text is read in the same way wherever it comes from."""

import msgspec
import pytest

from headgate.policy import terms
from headgate.policy.key_terms import BudgetTerms
from headgate.policy.keys import KEY_STATES, Account, Key, Terms


def test_the_typed_dictionaries_have_the_terms_of_the_structs() -> None:
    assert set(Terms.__annotations__) == set(terms.TERMS)
    assert set(BudgetTerms.__annotations__) == set(terms.ACCOUNT_TERMS)


@pytest.mark.parametrize("name", terms.TERMS)
def test_a_term_has_what_every_surface_shows(name: str) -> None:
    term = terms.TERMS[name]
    assert term.label and term.help.endswith((".", '"": any.', '"": nothing.'))
    assert len(term.choices) == len(term.names)
    assert terms.option_of(name).startswith("--")
    assert terms.fault_of(Key("k", "k", 0.0)) == ""


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rpm", "1,000", 1000),
        ("rpm", "none", None),
        ("rpm", "", None),
        ("budget_nano", "$1,250.5", 1250_500_000_000),
        ("budget_nano", "none", None),
        ("budget_zone", "", "UTC"),
        ("budget_period", "month", "month"),
        ("allowed_cidrs", "10.0.0.0/8, 192.0.2.7", ("10.0.0.0/8", "192.0.2.7/32")),
        ("allowed_cidrs", "any", ()),
        ("effort", "default", ""),
        ("effort", "low", "low"),
        ("on_disconnect", "drain", "drain"),
        ("mask", "email", "email"),
    ],
)
def test_a_text_is_read(name: str, text: str, value: object) -> None:
    assert terms.read(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("rpm", "-1", "`-1` is not a limit"),
        ("rpm", "9" * 14, "is not a limit"),
        ("tpm", "1e3", "is not a limit"),
        ("budget_nano", "lots", "`lots` is not an amount in dollars"),
        ("budget_zone", "Mars/Base", "No time zone `Mars/Base`"),
        ("budget_period", "", "budget_period is one of total, day, month"),
        ("allowed_cidrs", "10.0.0.1/8", "is not a network"),
        ("effort", "huge", "effort is one of"),
        ("on_disconnect", "", "on_disconnect is one of cancel, drain"),
    ],
)
def test_what_no_term_can_be_is_named(name: str, text: str, says: str) -> None:
    with pytest.raises(terms.TermFault, match=says):
        terms.read(name, text)


def test_a_key_is_in_one_state() -> None:
    key, shut = Key("k", "k", 0.0, expires_s=10.0), Account("a", "a", 0.0, closed_s=5.0)
    states = [
        key.state(None, 5.0),
        msgspec.structs.replace(key, revoked_s=7.0).state(None, 5.0),
        key.state(None, 10.0),
        msgspec.structs.replace(key, revoked_s=7.0).state(shut, 20.0),
        key.state(shut, 6.0),
    ]
    assert states == [*KEY_STATES]
