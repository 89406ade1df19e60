"""`headgate admin`: where it says people can sign in, and for which accounts."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import headgate.cli as cli
from headgate.cli.admin import console_url
from headgate.config.addresses import base_url

PASSWORD = "four unusual words together"


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "data"))


def run(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(cli._headgate, words, prog_name="headgate", input=typed)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8787"),
        ("0.0.0.0", "http://127.0.0.1:8787"),
        ("::", "http://[::1]:8787"),  # IPv6 only: 127.0.0.1 would be refused
        ("10.0.0.5", "http://10.0.0.5:8787"),
    ],
)
def test_this_machine_reaches_the_gateway_where_it_listens(host: str, url: str) -> None:
    assert base_url(host, 8787) == url


@pytest.mark.parametrize(
    ("public", "url"),
    [
        ("", "base"),
        ("https://gate.example/", "https://gate.example"),
        ("http://localhost:9000", "http://localhost:9000"),
        ("http://gate.example", "base"),  # nobody could sign in there
    ],
)
def test_the_console_is_where_one_can_sign_in(public: str, url: str) -> None:
    assert console_url(public, "base") == url


@pytest.mark.parametrize("account", ["researhc", "*"])
def test_nobody_is_made_for_an_account_that_does_not_exist(account: str) -> None:
    made = run("accounts", "create", "research")
    assert made.exit_code == 0, made.output
    words = ("admin", "create", "ada", "--role", "member", "--password-stdin", "--account")
    refused = run(*words, account, typed=PASSWORD + "\n")
    assert refused.exit_code == 1 and "does not exist" in refused.output
    taken = run(*words, "research", typed=PASSWORD + "\n")
    assert taken.exit_code == 0, taken.output
