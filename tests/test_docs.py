"""What the README promises is run: its requests, its commands, its links."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "evals" / "agents"))

import table

from gateway import Gateway, start, stop
from headgate.cli import env
from headgate.cli.tool import ConnectTarget
from headgate.cli.tools import TOOLS
from headgate.config import VARIABLES
from programs import embedded_model, needs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [
    "\n".join(line[4:] for line in block.splitlines())
    for block in re.findall(r"(?:^    .*\n)+", README, re.M)
]
CURLS = [(BLOCKS[i], BLOCKS[i + 1]) for i, b in enumerate(BLOCKS) if b.startswith("curl ")]
COMMANDS = [
    line.split() for block in BLOCKS for line in block.splitlines() if line.startswith("headgate ")
]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    needs("curl")
    embedded_model()
    running = start(tmp_path_factory.mktemp("docs") / "data")
    yield running
    assert stop(running) == 0


def keys(value: object) -> object:
    """The shape of a value: its keys, without what it says."""
    if isinstance(value, dict):
        return {k: keys(v) for k, v in value.items()}
    if isinstance(value, list):
        return [keys(v) for v in value]
    return type(value).__name__


@pytest.mark.parametrize(("curl", "answer"), CURLS, ids=[c[1][7:15] for c in CURLS])
def test_each_request_of_the_readme_gets_such_an_answer(
    curl: str, answer: str, embedded: Gateway
) -> None:
    assert len(CURLS) == 4
    shown = curl.replace("http://127.0.0.1:8787", embedded.url).replace("curl ", "curl -sS ", 1)
    done = subprocess.run(
        ["bash", "-c", shown],
        env={"HEADGATE_API_KEY": embedded.key, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    got, told = json.loads(done.stdout), json.loads(answer)
    if got.get("object") == "response":  # shown shortened
        got = {k: v for k, v in got.items() if k in told}
        got["usage"] = {k: v for k, v in got["usage"].items() if k in told["usage"]}
    assert keys(got).keys() == keys(told).keys()  # type: ignore[attr-defined]
    assert "Red" in done.stdout or len(done.stdout) > 100


def test_the_table_of_clients_sets_what_headgate_env_prints() -> None:
    """`make agents` runs the table's agents with these variables; here they are only compared."""
    url, key = "http://127.0.0.1:8787", "$HEADGATE_API_KEY"
    target = ConnectTarget(url, "MiniMax-M3", "MiniMax M3", 1_000_000, 524_288)
    printed = env.variables(url, key, target)
    found = table.rows(README)
    assert {client for row in found for client in row.clients} >= {
        *("OpenAI SDKs", "Anthropic SDKs", "Google's SDKs", "Claude Code", "Gemini CLI"),
    }
    for row in found:
        assert len(row.settings) >= 2, row.clients
        assert row.settings.items() <= printed.items(), row.clients
    titles = {tool.title for tool in TOOLS}
    assert {agent for row in found for agent in row.agents} <= titles


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_of_the_readme_exists_with_its_options(command: list[str]) -> None:
    words = [w for w in command[1:] if w.islower() and not w.startswith("-")][:2]
    for depth in (2, 1):
        done = subprocess.run(
            [sys.executable, "-m", "headgate.cli", *words[:depth], "--help"],
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0
    for option in (w for w in command if w.startswith("--")):
        assert option in done.stdout


DOCUMENTS = sorted(
    str(p.relative_to(ROOT)) for p in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_the_documents_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT / name).read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        found = ((ROOT / name).parent / target).exists()
        assert found or target.startswith(("https://", "http://127.0.0.1")), target


MENTIONED = {
    (name, line.strip().split("#")[0].strip())
    for name in ("SECURITY.md", "docs/comparison.md")
    for line in (ROOT / name).read_text().splitlines()
    if line.startswith("    ")
}


@pytest.mark.parametrize(("name", "command"), sorted(MENTIONED))
def test_the_commands_of_the_documents_exist(name: str, command: str) -> None:
    program, word = command.split()[:2]
    if program == "make":
        assert re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.M), command
    else:
        done = subprocess.run(
            [sys.executable, "-m", "headgate.cli", *command.split()[1:], "--help"],
            capture_output=True,
            text=True,
        )
        assert program == "headgate" and done.returncode == 0, command


def test_every_file_that_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|toml|sql))`", text)):
        places = (ROOT / path, ROOT / "src" / "headgate" / path)
        assert any(p.exists() for p in places), path


def test_every_setting_has_its_variable() -> None:
    assert {"HEADGATE_PORT", "HEADGATE_TIMEOUTS_STALL"} <= set(VARIABLES.values())
