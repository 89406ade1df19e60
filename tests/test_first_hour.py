"""The printed sample request works when it is pasted: at the first start, and at later ones with one's key."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import httpx2
import pytest

from gateway import COMMAND, Gateway, start, stop
from played import PlayedUpstream
from programs import needs


def pasted(gate: Gateway, **env: str) -> str:
    """What comes of the lines that the start printed, pasted into a shell."""
    needs("curl")
    text = gate.printed
    lines = text[text.index("  export HEADGATE_API_KEY") : text.index("headgate ready")]
    if env:  # the reader has set it already, as the line says
        lines = lines[lines.index("  curl ") :]
    done = subprocess.run(
        ["bash", "-c", lines.replace("curl ", "curl -sS -w '%{http_code}' ", 1)],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
    )
    return done.stdout


def logged(data: Path) -> list[dict[str, object]]:
    """The rows of the log, as the documented command prints them."""
    done = subprocess.run(
        [*COMMAND, "requests", "--json", "--data", str(data)], capture_output=True, text=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def links(gate: Gateway) -> list[str]:
    """Every address that the maps for crawlers and agents name."""
    maps = [gate.get(path).text for path in ("/sitemap.xml", "/llms.txt", "/sitemap.md")]
    found = re.findall(rf"(?:<loc>|\()({re.escape(gate.url)}[^<)]*)", "\n".join(maps))
    assert len(found) > 60 and f"{gate.url}/docs/responses" in found
    return sorted(set(found))


def test_the_sample_request_works_at_the_first_and_at_later_starts(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    settings = {
        "HEADGATE_UPSTREAM_URL": upstream.url("openai"),
        "HEADGATE_UPSTREAM_KEY": "x",
    }
    first = start(data, **settings)
    try:
        assert str(data) in first.printed and "--host 0.0.0.0" in first.printed
        assert pasted(first).endswith("200")
        key = first.key
        assert [row["outcome"] for row in logged(data)] == ["stop"]
        missing = [link for link in links(first) if httpx2.get(link).status_code != 200]
        assert not missing
        shown = subprocess.run(
            [*COMMAND, "status", "--data", str(data)], capture_output=True, text=True
        )
        assert shown.returncode == 0 and first.url in shown.stdout, "it runs at a port of its own"
    finally:
        assert stop(first) == 0
    again = start(data, **settings)
    try:
        assert "hg_live_" not in again.printed
        assert pasted(again, HEADGATE_API_KEY=key).endswith("200")
        assert pasted(again, HEADGATE_API_KEY="hg_live_wrong").endswith("401")
    finally:
        assert stop(again) == 0


@pytest.mark.parametrize("file", ["README.md", "README.zh.md"])
def test_no_document_puts_the_keys_variable_into_single_quotes(file: str) -> None:
    text = (Path(__file__).parents[1] / file).read_text()
    assert not re.search(r"'[^'\n]*\$HEADGATE_API_KEY[^'\n]*'", text)
    assert "$HEADGATE_API_KEY" in text


def test_a_fresh_clone_is_tried_by_readmes_own_commands() -> None:
    """`make first-hour` runs them; here it is seen that it finds them."""
    file = Path(__file__).parents[1] / "evals/first_hour/run.py"
    spec = importlib.util.spec_from_file_location("first_hour", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.documented() == (
        "git clone REPOSITORY headgate && cd headgate",
        "make run",
    )
