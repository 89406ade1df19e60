"""`headgate status`, completion, and keys that stand in no shell's history."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import COMMAND, Gateway, environment, start, stop
from headgate import __version__
from headgate.diagnostics.upstream_access import plan_lines
from played import PlayedUpstream
from waiting import PATIENCE_S


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("status") / "data", HEADGATE_UPSTREAM_URL=upstream.url("openai")
    )
    yield running
    assert stop(running) == 0


def status(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "status", *options], env=environment(), capture_output=True, text=True
    )


def test_a_gateway_that_takes_requests_is_0_and_shows_its_upstreams(gate: Gateway) -> None:
    done = status("--url", gate.url, "--data", str(gate.data))
    assert done.returncode == 0, done.stderr
    assert f"Headgate {__version__} at {gate.url} takes requests; 0 open streams." in done.stdout
    assert done.stdout.splitlines()[1] == ("upstream\tstate\tpaused for\tlast check\tplan\tmodels")
    assert done.stdout.splitlines()[2].startswith("custom\t")
    found = json.loads(status("--url", gate.url, "--data", str(gate.data), "--json").stdout)
    assert (found["running"], found["ready"], found["version"]) == (True, True, __version__)
    assert [u["name"] for u in found["upstreams"]] == ["custom"]


def test_commands_find_the_gateway_of_a_data_directory_on_whatever_port(gate: Gateway) -> None:
    """Its port is a free one that `serve --port` was given; the configuration has another."""
    data = ("--data", str(gate.data))
    assert f" at {gate.url} takes requests" in status(*data).stdout
    env = {**environment(), "HEADGATE_PORT": "9"}
    for words in (("doctor",), ("env",), ("admin", "link")):
        done = subprocess.run([*COMMAND, *words, *data], env=env, capture_output=True, text=True)
        assert gate.url in done.stdout, (words, done.stdout, done.stderr)


def test_without_the_data_directory_less_is_shown_and_nothing_is_made(
    gate: Gateway, tmp_path: Path
) -> None:
    done = status("--url", gate.url, "--data", str(tmp_path / "none"))
    assert done.returncode == 0 and "takes requests" in done.stdout and "custom" not in done.stdout
    assert not (tmp_path / "none").exists()
    quiet = status("--url", gate.url, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_where_none_answers_it_is_3(tmp_path: Path) -> None:
    done = status("--url", "http://127.0.0.1:9", "--data", str(tmp_path))
    assert done.returncode == 3
    assert "No gateway at http://127.0.0.1:9: nothing listens there." in done.stdout
    assert status("--url", "http://127.0.0.1:9", "--quiet").returncode == 3
    assert status("--url", "gopher://x").returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(shell: str) -> None:
    printed = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True)
    assert printed.returncode == 0 and "_HEADGATE_COMPLETE" in printed.stdout
    asked = {
        "bash": {"COMP_WORDS": "headgate keys cre", "COMP_CWORD": "2"},
        "zsh": {"COMP_WORDS": "headgate keys cre", "COMP_CWORD": "2"},
        "fish": {"COMP_WORDS": "headgate keys cre", "COMP_CWORD": "cre"},
    }[shell]
    done = subprocess.run(
        COMMAND,
        env={**environment(), "_HEADGATE_COMPLETE": f"{shell}_complete", **asked},
        capture_output=True,
        text=True,
    )
    assert "create" in done.stdout and "Traceback" not in done.stderr


def test_a_key_can_come_on_standard_input() -> None:
    done = subprocess.run(
        [*COMMAND, "env", "--key", "-", "--json"],
        input="hg_live_abc\n",
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["OPENAI_API_KEY"] == "hg_live_abc"
    empty = subprocess.run(
        [*COMMAND, "env", "--key", "-"],
        input="\n",
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert empty.returncode == 2 and "no key came" in empty.stderr


def test_a_terminal_is_asked_for_the_key_and_does_not_show_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = "from headgate.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "env", "--key", "-", "--shell", "sh"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(),
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"API key" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"hg_live_secret\n")
    out, _ = process.communicate(timeout=PATIENCE_S)
    os.set_blocking(ours, False)
    with contextlib.suppress(OSError):
        shown += os.read(ours, 4096)
    os.close(ours)
    assert b"export OPENAI_API_KEY='hg_live_secret'" in out
    assert b"hg_live_secret" not in shown


def test_plans_are_told_by_window_and_by_key_where_there_are_several() -> None:
    plan = [
        {"window": "5h", "left": 0.0, "resets_in_s": 5400},
        {"window": "7d", "left": None, "resets_in_s": None},
    ]
    one = {"account": "mm#1", "plan": plan}
    assert plan_lines({"keys": [one]}) == [
        "5 hours: used up, resets in 1.5 h",
        "7 days: not known",
    ]
    both = plan_lines({"keys": [{"account": "mm#2"}, one]})
    assert both[0].startswith("mm#1 5 hours: ") and plan_lines({}) == []
