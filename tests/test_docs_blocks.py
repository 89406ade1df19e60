"""Every block of code in the documents is parsed, and what can run here runs: against one gateway.

Blocks are indented or fenced.  Shell blocks run in bash, with `headgate` as it is in this checkout, the
paths and names of the documents replaced by ones of the test.  What needs another machine is in ELSEWHERE,
and is parsed only.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gateway import Gateway, start, stop
from headgate.catalog import building
from headgate.cli import _headgate as root_command
from headgate.config import loading
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.web.site import prose
from played import HELLO, PlayedUpstream
from programs import needs

ROOT = Path(__file__).parents[1]
FILES = sorted(
    str(p.relative_to(ROOT))
    for p in (*ROOT.glob("README*.md"), ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md"))
)
# Programs of other machines, and those that install or start something.
ELSEWHERE = {
    *(
        "git",
        "cd",
        "docker",
        "make",
        "pip",
        "python3",
        "install",
        "systemctl",
        "pg_dump",
        "pg_restore",
        "kubectl",
        "helm",
        ".venv/bin/python",
    ),
}
# Commands of ours that need what a test's gateway has not: another node, a database, a terminal.
PARSED_ONLY = {
    *("serve", "upgrade", "nodes", "usage --all-nodes", "migrate"),
    *("admin create", "admin password", "upstream-keys"),  # a terminal; an upstream of that name
}
DIAGRAM = re.compile(r"^(at every moment:|headgate serve   |x-headgate-route:|[a-z]+ -> )")


def blocks(name: str) -> Iterator[tuple[str, str]]:
    """Language, or "" where none is named, and text of each block of a file."""
    text = (ROOT / name).read_text("utf-8")
    for language, code in re.findall(r"^ *```([a-z]*)\n(.*?)^ *```", text, re.M | re.S):
        yield language, code
    text = re.sub(r"^ *```[a-z]*\n.*?^ *```", "", text, flags=re.M | re.S)
    for found in re.findall(r"(?:(?<=\n\n)(?: {4,}.*\n|\n(?= {4}))+)", text):
        lines = [line[4:] for line in found.rstrip().splitlines()]
        depth = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
        code = "\n".join(x[depth:] for x in lines) + "\n"
        if not code.lstrip().startswith(("- ", "* ")):  # a list in a list
            yield "", code


def kind(language: str, code: str) -> str:
    if language:
        return language
    if DIAGRAM.match(code) or "<= budget" in code:
        return "text"
    first = next(line for line in code.splitlines() if line and not line.startswith("#"))
    if first.startswith("["):
        return "toml"
    return "json" if first.startswith("{") else "shell"


ALL = [(name, kind(*block), block[1]) for name in FILES for block in blocks(name)]


def of(which: str) -> list[object]:
    found = [(name, code) for name, how, code in ALL if how == which]
    return [pytest.param(*one, id=f"{one[0]}:{n}") for n, one in enumerate(found)]


def test_no_block_is_of_a_kind_that_nothing_here_looks_at() -> None:
    assert {how for _, how, _ in ALL} <= {"toml", "json", "shell", "text"}
    assert len([1 for _, how, _ in ALL if how == "shell"]) > 20
    assert len([1 for _, how, _ in ALL if how == "toml"]) > 10


@pytest.mark.parametrize(("name", "code"), of("toml"))
def test_a_toml_block_is_a_configuration_that_is_taken(
    name: str, code: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-of-the-test")
    text = re.sub(r"(?m)^database = \"(?:file|env):[^\"]+", 'database = "postgresql://x/y', code)
    text = re.sub(r"file:[^\"]+", f"file:{secret}", text)
    tomllib.loads(text)
    (tmp_path / "headgate.toml").write_text(text)
    env = {n: f"sk-{n.lower()}" for n in re.findall(r"env:([A-Z0-9_]+)", text)}
    env["HEADGATE_UPSTREAM_URL"] = "http://127.0.0.1:9/v1"
    settings = loading.load(str(tmp_path / "headgate.toml"), env)
    building.load(settings, env)


@pytest.mark.parametrize(("name", "code"), of("json"))
def test_a_json_block_is_json(name: str, code: str) -> None:
    json.loads(code)


# --- shell ----------------------------------------------------------------------------------------


def commands(code: str) -> list[list[str]]:
    """The words of each command of a block, without comments, continued lines joined."""
    joined = re.sub(r"\\\n", " ", code)
    out = []
    for line in joined.splitlines():
        line = re.sub(r"(^| )#.*", "", line).strip()
        for part in re.split(r" && ", line):
            if part and not part.startswith(("{", "export ")):
                out.append(part.split())
    return out


@pytest.mark.parametrize(("name", "code"), of("shell"))
def test_a_shell_block_is_shell_and_its_commands_exist_with_their_options(
    name: str, code: str
) -> None:
    shell = "\n\n".join(p for p in code.split("\n\n") if not p.startswith("{"))
    done = subprocess.run(["bash", "-n"], input=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for words in commands(shell):
        program = words[0].rpartition("/")[2] if words[0].startswith("/") else words[0]
        if program == "make":
            assert set(words[1:]) <= targets, words
        elif program == "headgate":
            exists(words[1:])
        else:
            assert program in (*ELSEWHERE, "curl", "cp", "pip"), words


def exists(words: list[str]) -> None:
    """Walk from the root to the command of these words; its options must be among its own."""
    command: click.Command = root_command
    context = click.Context(command)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            assert command.invoke_without_command, words
            break
        command, context = found, click.Context(found, parent=context)
        rest.pop(0)
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, words


def runs(code: str) -> bool:
    found = commands(code)
    for words in found:
        line = " ".join(words[1:])
        if words[0] not in ("headgate", "curl", "cp"):
            return False
        if words[0] == "headgate" and line.startswith(tuple(PARSED_ONLY)):
            return False
    return bool(found)


RUN = [
    pytest.param(name, part, id=f"{name}:{n}")
    for n, (name, part) in enumerate(
        (name, part)
        for name, how, code in ALL
        if how == "shell"
        for part in code.split("\n\n")
        if not part.startswith("{") and runs(part)
    )
]


@pytest.fixture(scope="module")
def gateway(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    needs("curl")
    made = start(
        tmp_path_factory.mktemp("blocks") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    yield made
    stop(made)


@pytest.fixture(scope="module")
def place(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `headgate` in it, and what the documents name."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "bin").mkdir()
    script = folder / "bin" / "headgate"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m headgate.cli "$@"\n')
    script.chmod(0o755)
    for name in ("backup", "elsewhere"):
        (folder / name).mkdir()
    (folder / "acme.toml").write_text(
        '[upstreams.acme]\npreset = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nkey = "k"\n'
    )
    return folder


@pytest.mark.parametrize(("name", "code"), RUN)
def test_a_shell_block_runs(name: str, code: str, gateway: Gateway, place: Path) -> None:
    store = Store(gateway.data)
    people, now_s = People(store, gateway.data), time.time()
    key, _ = store.create_key("of the documents", now_s=now_s)
    _, admin = people.create_management_key("of the documents", "admin", now_s=now_s)
    if not any(a.id == "research" for a in store.accounts()):
        store.create_account("research", "Research", now_s=now_s)
    data = gateway.data
    if "headgate restore" in code:
        data = place / "restored"
    name_of_one = "ada" if "admin" in code else "docs"
    text = re.sub(r"\bNAME\b", name_of_one, re.sub(r"\bID\b", key.id, code))
    for there, here in (
        ("http://127.0.0.1:8787", gateway.url),
        ("hg_admin_...", admin),
        ("/var/lib/headgate/pepper", str(gateway.data / "pepper")),
        ("/var/lib/headgate", str(data)),
        ("/backup", str(place / "backup")),
        ("/elsewhere", str(place / "elsewhere")),
        ("2026-11-30", time.strftime("%Y-%m-%d")),
        ("curl ", "curl -fsS "),
    ):
        text = text.replace(there, here)
    env = {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "HEADGATE_DATA": str(data),
        "HEADGATE_API_KEY": gateway.key,
        "HEADGATE_UPSTREAM_URL": f"{gateway.url}/v1",
        "HEADGATE_UPSTREAM_KEY": gateway.key,
        **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
        **({"HEADGATE_CONFIG": str(place / "acme.toml")} if "acme" in text else {}),
    }
    # What the doctor finds of this machine, and what `models check` says, are findings, not failures.
    text = re.sub(
        r"^(headgate (?:doctor|models check|config check).*)$",
        r"\1 || test $? = 1",
        text,
        flags=re.M,
    )
    text = re.sub(r" +#.*(?= \|\| test)", "", text)
    done = subprocess.run(
        ["bash", "-e", "-c", text],
        input="a long sentence of my own\n" * 4,
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr


# --- the examples of the pages --------------------------------------------------------------------


@pytest.mark.parametrize("protocol", list(prose.PROTOCOLS))
@pytest.mark.parametrize("language", ["bash", "python"])
def test_an_example_of_the_pages_runs(
    protocol: str, language: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = next(
        e.text
        for e in prose.examples(gateway.url, "MiniMax-M2")
        if (e.protocol, e.language) == (protocol, language)
    )
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, gateway.key)
    if language == "bash":
        needs("curl")
        done = subprocess.run(
            ["bash", "-e", "-c", text.replace("curl ", "curl -fsS ", 1)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert HELLO[:5] in done.stdout
        return
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, protocol, "exec"), {"__name__": "example"})
    assert HELLO in printed.getvalue()
