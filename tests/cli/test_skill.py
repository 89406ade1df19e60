"""`headgate skill`: the text of the served page, where it is put, and the plugin made of it."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import Gateway, start, stop
from headgate.catalog import building
from headgate.cli.skill import command
from headgate.config import loading
from headgate.web.site import pages, skill
from headgate.web.site.deployment import SKILL_VERSION, Site
from played import PlayedUpstream
from programs import node_modules


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
    offered = building.load(loading.load(None, os.environ), os.environ)
    site = Site(base_url="https://gate.example.com", on=date(2026, 11, 25))
    served = pages.page(skill.SKILL, site, offered)
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


# -- The plugin ------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
PLUGIN = Path("plugins", "minimax")


def written(directory: Path) -> dict[str, str]:
    return {
        p.relative_to(directory).as_posix(): p.read_text()
        for p in directory.rglob("*")
        if p.is_file()
    }


def test_the_repositorys_own_plugin_is_what_the_command_writes(tmp_path: Path) -> None:
    """If this fails: `.venv/bin/headgate skill plugin .`"""
    made = tmp_path / "made"
    assert run("plugin", str(made)).exit_code == 0
    assert all((ROOT / name).read_text() == text for name, text in written(made).items())
    assert set(written(ROOT / PLUGIN)) == set(written(made / PLUGIN))


def test_a_plugin_names_one_skill_and_one_version_in_every_manifest(tmp_path: Path) -> None:
    assert run("plugin", str(tmp_path / "m"), "--base-url", "https://g.example/").exit_code == 0
    files = written(tmp_path / "m")
    read = {name: json.loads(text) for name, text in files.items() if name.endswith(".json")}
    for name in (
        ".claude-plugin/plugin.json",
        ".codex-plugin/plugin.json",
        "gemini-extension.json",
    ):
        manifest = read[f"plugins/minimax/{name}"]
        assert (manifest["name"], manifest["version"]) == ("minimax", SKILL_VERSION)
    assert read["plugins/minimax/.codex-plugin/plugin.json"]["skills"] == "./skills/"
    (claude,) = read[".claude-plugin/marketplace.json"]["plugins"]
    (codex,) = read[".agents/plugins/marketplace.json"]["plugins"]
    assert claude["source"] == codex["source"]["path"] == "./plugins/minimax"
    skill = files["plugins/minimax/skills/minimax/SKILL.md"]
    assert "https://g.example/v1" in skill and "127.0.0.1" not in skill


def test_a_plugin_is_the_same_whatever_is_set_up_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("plugin", str(tmp_path / "a")).exit_code == 0
    monkeypatch.setenv("MINIMAX_API_KEY", "k-secret")
    monkeypatch.setenv("HEADGATE_PORT", "9999")
    assert run("plugin", str(tmp_path / "b")).exit_code == 0
    assert written(tmp_path / "a") == written(tmp_path / "b")


def test_an_address_for_a_plugin_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    done = run("plugin", str(tmp_path / "m"), "--base-url", "http://x/$(id)")
    assert done.exit_code == 2 and "base_url must be" in done.output
    assert not (tmp_path / "m").exists()


# -- By the tools of others ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """npm's `skills-ref` and `skills` as locked; without npm this is skipped, but not in CI."""
    place = tmp_path_factory.mktemp("skills")
    return node_modules(Path(__file__).parent / "js", place) / ".bin"


@pytest.fixture
def served(tmp_path: Path, upstream: PlayedUpstream) -> Iterator[Gateway]:
    running = start(
        tmp_path / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
        HEADGATE_UPSTREAM_DIALECT="openai",
    )
    yield running
    stop(running)


def by(program: Path, *arguments: str | Path) -> str:
    """What it printed, in a home of its own (the environment has one); it must end well."""
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, "DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        cwd=os.environ["HOME"],
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_skills_ref_finds_the_skill_valid(programs: Path) -> None:
    said = by(programs / "skills-ref", "validate", ROOT / PLUGIN / "skills" / "minimax")
    assert "Valid skill" in said


@pytest.mark.parametrize("place", [".", PLUGIN])
def test_npx_skills_lists_and_installs_it_from_the_repository(
    place: Path | str, programs: Path, home: Path
) -> None:
    assert "minimax" in by(programs / "skills", "add", ROOT / place, "--list")
    by(programs / "skills", "add", ROOT / place, "--skill", "minimax", "--global", "--yes")
    installed = home / ".agents" / "skills" / "minimax" / "SKILL.md"
    assert installed.read_text() == (ROOT / PLUGIN / "skills" / "minimax" / "SKILL.md").read_text()


def test_npx_skills_lists_and_installs_it_from_a_running_gateway(
    programs: Path, home: Path, served: Gateway
) -> None:
    assert "minimax" in by(programs / "skills", "add", served.url, "--list")
    by(programs / "skills", "add", served.url, "--skill", "minimax", "--global", "--yes")
    installed = (home / ".agents" / "skills" / "minimax" / "SKILL.md").read_text()
    assert installed == served.get("/skills/minimax/SKILL.md").text
    assert f"{served.url}/v1" in installed
