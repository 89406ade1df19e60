"""`headgate skill`: the text of the served page, and where it is put."""

import os
import re
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate import config
from headgate.catalog import catalog, pages
from headgate.cli.skill import command


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in os.environ:
        if re.match(r"HEADGATE|MINIMAX|RUNAPI|OPENROUTER", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_what_is_printed_is_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIMAX_API_KEY", "k-secret")
    offered = catalog.load(config.load(None, os.environ), os.environ)
    site = pages.Site(base_url="https://gate.example.com", on=date(2026, 11, 25))
    served = pages.page(pages.SKILL, site, offered)
    assert served is not None
    done = run("print", "--url", "https://gate.example.com/")
    assert done.exit_code == 0, done.output
    assert done.stdout == served.markdown
    assert "k-secret" not in done.stdout


def test_without_an_address_it_is_that_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text('host = "::"\nport = 9999\n')
    assert "http://127.0.0.1:9999/v1" in run("print", "--config", str(file)).stdout
    file.write_text('host = "::1"\n')
    assert "http://[::1]:8787/v1" in run("print", "--config", str(file)).stdout


def test_a_gateway_with_nothing_but_the_local_model_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "small local model" in run("print").stdout
    monkeypatch.setenv("MINIMAX_API_KEY", "k")
    assert "small local model" not in run("print").stdout


def test_it_is_installed_where_agents_look(home: Path) -> None:
    done = run("install")
    assert done.exit_code == 0, done.output
    file = home / ".agents" / "skills" / "minimax" / "SKILL.md"
    assert done.stdout == f"installed {file}\n"
    assert file.read_text() == run("print").stdout
    assert not (home / ".claude").exists()
    assert [f.name for f in file.parent.iterdir()] == ["SKILL.md"]


def test_claude_codes_own_directory_gets_it_when_there_is_one(home: Path) -> None:
    (home / ".claude").mkdir()
    assert run("install").exit_code == 0
    assert (home / ".claude" / "skills" / "minimax" / "SKILL.md").is_file()
    assert (home / ".agents" / "skills" / "minimax" / "SKILL.md").is_file()


def test_a_directory_that_is_named_is_the_only_one(home: Path, tmp_path: Path) -> None:
    (home / ".claude").mkdir()
    there = tmp_path / "else" / "where"
    assert run("install", "--dir", str(there)).exit_code == 0
    assert (there / "minimax" / "SKILL.md").is_file()
    assert not (home / ".agents").exists()


def test_an_older_copy_is_replaced(tmp_path: Path) -> None:
    assert (
        run("install", "--dir", str(tmp_path / "s"), "--url", "http://old.example").exit_code == 0
    )
    assert (
        run("install", "--dir", str(tmp_path / "s"), "--url", "http://new.example").exit_code == 0
    )
    text = (tmp_path / "s" / "minimax" / "SKILL.md").read_text()
    assert "http://new.example/v1" in text and "old.example" not in text


def test_a_place_that_cannot_be_written_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "minimax").write_text("a file in the way")
    done = run("install", "--dir", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert "SKILL.md" in done.output


def test_an_address_that_a_shell_would_read_is_refused() -> None:
    done = run("print", "--url", "http://x/$(id)")
    assert done.exit_code == 2
    assert "base_url must be" in done.output
