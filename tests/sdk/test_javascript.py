"""The official JavaScript SDKs against a real gateway; the checks stand in js/check.mjs."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from gateway import Gateway
from headgate.web.site import prose
from played import HELLO
from programs import node_modules

HERE = Path(__file__).parent / "js"
CHECKS = re.findall(r"^  async (\w+)\(", (HERE / "check.mjs").read_text(), re.M)
_results: dict[str, dict[str, str | None]] = {}


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDKs as locked, installed once; without npm this is skipped, but not in CI."""
    place = tmp_path_factory.mktemp("js")
    node_modules(HERE, place)
    return place


@pytest.mark.parametrize("check", CHECKS)
def test_javascript(check: str, gateway: Gateway, modules: Path) -> None:
    if gateway.url not in _results:
        done = subprocess.run(
            ["node", HERE / "check.mjs", gateway.url, gateway.key, modules],
            capture_output=True,
            text=True,
            timeout=300,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        _results[gateway.url] = {line["name"]: line["error"] for line in lines}
        assert done.returncode == 0, done.stderr
    assert check in _results[gateway.url]
    assert _results[gateway.url][check] is None, _results[gateway.url][check]


TYPESCRIPT = [e for e in prose.examples("http://127.0.0.1:1", "MiniMax-M2") if e.language == "typescript"]  # fmt: skip


@pytest.mark.parametrize("protocol", [e.protocol for e in TYPESCRIPT])
def test_the_pages_typescript_runs_as_it_stands(
    protocol: str, gateway: Gateway, modules: Path
) -> None:
    shown = prose.examples(gateway.url, "MiniMax-M2")
    (text,) = (e.text for e in shown if (e.protocol, e.language) == (protocol, "typescript"))
    file = modules / f"{protocol}.mjs"
    file.write_text(text)
    names = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    done = subprocess.run(
        ["node", file], capture_output=True, text=True, timeout=300,
        env={"PATH": os.environ["PATH"], **dict.fromkeys(names, gateway.key)},
    )  # fmt: skip
    assert HELLO in done.stdout, done.stderr


def test_compatcanary_finds_nothing(gateway: Gateway, modules: Path) -> None:
    """npm compatcanary: models, chat, streams, a forced call, strict structured output, Responses."""
    command = modules / "node_modules" / ".bin" / "compatcanary"
    done = subprocess.run(
        ["node", command, "scan", "--base-url", f"{gateway.url}/v1", "--model", "MiniMax-M3",
         "--fail-on", "any", "--format", "json"],
        env={**os.environ, "OPENAI_API_KEY": gateway.key},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
