"""Each setting is described once, and schema, page and `config show` have the description."""

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate.catalog import building
from headgate.cli import config as command
from headgate.config import descriptions, explain, loading

sys.path.insert(0, str(Path(__file__).parents[1] / "evals" / "reference"))

import configuration

ROOT = Path(__file__).parents[1]


def test_every_setting_is_described_and_nothing_else_is() -> None:
    shown = explain.schema()["$defs"]
    settings = {(table, n) for table, d in shown.items() for n in d.get("properties", {})}
    described = {
        (table, n) for table, fields in descriptions.descriptions().items() for n in fields
    }
    assert settings == described, "settings.toml describes each setting"
    for table, definition in shown.items():
        for name, setting in definition.get("properties", {}).items():
            assert setting["description"] == descriptions.descriptions()[table][name]
    assert all(descriptions.description(key) for key, _, _ in explain.show(loading.load(None, {})))


def test_the_page_of_the_configuration_is_as_the_code() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == configuration.text(), "run evals/reference/configuration.py --write"


EXAMPLES = re.findall(r"```toml\n(.*?)```", configuration.HEAD, re.S)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_page_are_valid(example: str, tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text(example)
    tomllib.loads(example)
    env = {"MINIMAX_API_KEY": "x"}
    building.load(loading.load(str(file), env), env)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if re.match("HEADGATE|MINIMAX|RUNAPI|OPENROUTER", name):
            monkeypatch.delenv(name)
    return monkeypatch


def notes(file: Path | None = None) -> str:
    result = CliRunner().invoke(
        command.command, ["check", "--json", *(["--config", str(file)] if file else [])]
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_check_names_variables_that_mean_nothing(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HEADGATE_UPSTREAM_URL", "http://127.0.0.1:9/v1")
    environment.setenv("HEADGATE_API_KEY", "hg_live_x")  # a client's, not a setting
    assert "has no effect" not in notes()
    environment.setenv("HEADGATE_PROT", "1")
    environment.setenv("HEADGATE_COLOUR_OF_THE_SKY", "blue")
    shown = notes()
    assert "HEADGATE_PROT is not known and has no effect. Did you mean HEADGATE_PORT?" in shown
    assert "HEADGATE_COLOUR_OF_THE_SKY is not known and has no effect." in shown
    assert "blue" not in shown


@pytest.mark.parametrize(
    ("url", "noted"), [("https://x.example/llm", True), ("https://x.example/", False)]
)
def test_check_notes_a_path_in_public_url(
    environment: pytest.MonkeyPatch, url: str, noted: bool
) -> None:
    environment.setenv("HEADGATE_UPSTREAM_URL", "http://127.0.0.1:9/v1")
    environment.setenv("HEADGATE_PUBLIC_URL", url)
    assert ("`public_url` has a path, /llm" in notes()) == noted


def test_show_says_what_each_setting_means(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HEADGATE_UPSTREAM_URL", "http://127.0.0.1:9/v1")
    shown = CliRunner().invoke(command.command, ["show"]).stdout
    assert descriptions.description("timeouts.stall") in shown
