"""`make suites`: the official SDKs' own tests, unchanged, against a real gateway.

Takes the source distributions of PyPI's `openai` and `anthropic` in the locked versions, puts what
their tests need into .venv-suites, starts `headgate serve` in front of the played upstream, and runs
the parts of their tests that take a base URL (TEST_API_BASE_URL) and are about what the gateway has.
Their hard-coded key is exchanged by a proxy on loopback (recording_proxy.py); their models' names are aliases of
the gateway.  Writes docs/suites.md.  Note: a test counts only when a request of it
reached the gateway, so tests that mock the network or check arguments are left out.

    python suites/run.py [--only openai|anthropic] [--no-write]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "support")]

from judging import REFUSALS, Outcome, judged  # noqa: E402

import gateway  # noqa: E402
from played import PlayedUpstream  # noqa: E402

CACHE = ROOT / ".cache" / "suites"
VENV = ROOT / ".venv-suites"
LIMIT_S = 900  # of one suite; it needs about half a minute
# What the dev groups of both pyproject.toml name, less linters, type checkers and cloud services.
NEEDED = (
    "pytest",
    "pytest-asyncio",
    "pytest-xdist",
    "respx",
    "inline-snapshot",
    "dirty-equals",
    "rich",
    "nest-asyncio",
    "time-machine",
    "trio",
    "hypothesis",
    "importlib-metadata",
    "packaging",
    "http-snapshot[httpx]",
    "opentelemetry-sdk",
    "httpx2",
)


@dataclass(frozen=True)
class Suite:
    package: str
    base: str  # what its SDK wants behind the address
    credentials: tuple[str, ...]  # as its tests send them; `<key>` becomes the real one
    paths: tuple[str, ...]


SUITES = (
    Suite(
        "openai",
        "/v1",
        ("Bearer My API Key",),
        (
            "tests/api_resources/chat/test_completions.py",
            "tests/api_resources/test_responses.py",
            "tests/api_resources/responses",
            "tests/api_resources/test_models.py",
            "tests/test_streaming.py",
        ),
    ),
    Suite(
        "anthropic",
        "",
        ("my-anthropic-api-key", "Bearer my-anthropic-api-key"),
        (
            "tests/api_resources/test_messages.py",
            "tests/api_resources/beta/test_messages.py",
            "tests/api_resources/test_models.py",
            "tests/api_resources/beta/test_models.py",
            "tests/test_streaming.py",
            "tests/lib/streaming",
        ),
    ),
)
CONFIG = """
[upstreams.minimax]
preset = "minimax"
base_url = "{url}"
key = "env:PLAYED_KEY"

[aliases]
"gpt-*" = "MiniMax-M3"
"claude-*" = "MiniMax-M3"
"model_id" = "MiniMax-M3"

[models."MiniMax-M3"]
routes = [{{ upstream = "minimax" }}]
"""


# -- Fetching --------------------------------------------------------------------------------------


def locked(package: str) -> str:
    text = (ROOT / "requirements" / "test.lock").read_text()
    found = re.search(rf"^{package}==([\w.]+)", text, re.M)
    assert found, package
    return found[1]


def _ran(*line: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, line))} failed:\n{done.stdout[-2000:]}")


def source(package: str, version: str) -> Path:
    """Return the directory of the unpacked source distribution."""
    place = CACHE / f"{package}-{version}"
    if not (place / "tests").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        line = ("-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps")
        only = ("--no-binary", package, "-d", CACHE, f"{package}=={version}")
        _ran(sys.executable, *line, *only)
        with tarfile.open(CACHE / f"{package}-{version}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return place


def environment() -> Path:
    """The Python of an environment that has what the tests need."""
    python = VENV / "bin" / "python"
    sdks = [f"{s.package}[aiohttp]=={locked(s.package)}" for s in SUITES]
    mark = VENV / ".made"
    wanted = "\n".join((*sdks, *NEEDED))
    if not mark.exists() or mark.read_text() != wanted:
        print("installing .venv-suites ...", flush=True)
        _ran(sys.executable, "-m", "venv", VENV)
        _ran(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *sdks, *NEEDED)
        mark.write_text(wanted)
    return python


# -- Running ---------------------------------------------------------------------------------------


def run(suite: Suite, python: Path, gate: gateway.Gateway, results: Path) -> Outcome:
    version = locked(suite.package)
    place = source(suite.package, version)
    swaps = {c: re.sub(r"(Bearer )?.*", rf"\g<1>{gate.key}", c, count=1) for c in suite.credentials}
    env = {n: v for n, v in os.environ.items() if not n.startswith(("OPENAI", "ANTHROPIC"))}
    env |= {
        "PYTHONPATH": str(HERE),
        "TEST_API_BASE_URL": f"http://<proxy>{suite.base}",
        "SUITES_PORT": gate.url.rpartition(":")[2],
        "SUITES_SWAPS": json.dumps(swaps),
        "SUITES_RESULTS": str(results),
    }
    paths = [p for p in suite.paths if (place / p).exists()]
    line = [str(python), "-m", "pytest", "-p", "witness", "-n", "0", "-q", "--tb=short", *paths]
    done = subprocess.run(
        line,
        cwd=place,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode not in (0, 1):  # 1: tests failed, which is for `judged` to look at
        raise SystemExit(f"pytest of {suite.package}: {(done.stdout + done.stderr)[-3000:]}")
    return judged(suite.package, version, json.loads(results.read_text()))


# -- Telling ---------------------------------------------------------------------------------------


def page(outcomes: list[Outcome], today: str) -> str:
    rows = [
        f"| PyPI `{o.package}` | {o.version} | {today} | {o.passed} |"
        f" {sum(map(len, o.refused.values()))} | {len(o.failed)} |"
        for o in outcomes
    ]
    out = [
        "# The SDKs' own tests",
        "",
        "<!-- Written by `make suites`; do not edit. -->",
        "",
        "The official SDKs bring tests that take a base URL. These parts of them run here unchanged, from the",
        "source distributions, against a real `headgate serve` in front of an upstream played on loopback. Every",
        "test runs with loose and with strict response validation, and asynchronous ones over aiohttp too. A test",
        "counts when a request of it reached the gateway; tests that mock the network say nothing about it.",
        "",
        "| suite | version | date | passed | refused by name | failed |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "What is run: "
        + "; ".join(
            f"of `{s.package}` " + ", ".join(f"`{p.removeprefix('tests/')}`" for p in s.paths)
            for s in SUITES
        )
        + ".",
        "",
        "## Refused by name",
        "",
        "The generated tests send every parameter of the specification at once, and call paths that need a store.",
        "What the gateway does not do it refuses with an error that names it, and the test then fails there:",
        "",
        "| suite | what | tests | why |",
        "|---|---|---|---|",
    ]
    reasons = {r.name: r.reason for r in REFUSALS}
    for o in outcomes:
        for name, tests in sorted(o.refused.items()):
            out.append(f"| `{o.package}` | {name} | {len(tests)} | {reasons[name]} |")
    out += ["", "By test, each of them counted once for every kind of client:", ""]
    for o in outcomes:
        for name, tests in sorted(o.refused.items()):
            functions = Counter(t.rpartition("::")[2].partition("[")[0] for t in tests)
            listed = ", ".join(f"`{f}`" for f in sorted(functions))
            out.append(f"- `{o.package}`, {name}: {listed}")
    out += [
        "",
        "## Not run",
        "",
        "- Resources that the gateway has none of: embeddings, files, images, audio, batches, assistants,"
        " fine-tuning, realtime and others.",
        "- npm `openai` and `@anthropic-ai/sdk`, `@google/genai`: the published packages contain no tests.",
        "- PyPI `google-genai`: its source distribution has tests, but they replay recorded exchanges with"
        " Google's servers and take no base URL.",
    ]
    return "\n".join(out) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(description="Run the SDKs' own tests through the gateway.")
    options.add_argument("--only", choices=[s.package for s in SUITES])
    options.add_argument("--no-write", action="store_true")
    given = options.parse_args()
    chosen = [s for s in SUITES if given.only in (None, s.package)]
    for suite in chosen:
        source(suite.package, locked(suite.package))
    python = environment()
    outcomes = []
    with PlayedUpstream().running() as upstream, tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "headgate.toml").write_text(CONFIG.format(url=upstream.url("openai")))
        gate = gateway.start(
            root / "data", HEADGATE_CONFIG=str(root / "headgate.toml"), PLAYED_KEY="played"
        )
        try:
            for suite in chosen:
                outcomes.append(run(suite, python, gate, root / f"{suite.package}.json"))
        finally:
            gateway.stop(gate)
    for o in outcomes:
        refusals = sum(map(len, o.refused.values()))
        print(
            f"{o.package} {o.version}: {o.passed} passed, {refusals} refused by name,"
            f" {len(o.failed)} failed; {o.apart} made no request"
        )
        for name, tests in sorted(o.refused.items()):
            print(f"  refused: {name}")
            for test in tests:
                print(f"    {test}")
        for test, why in o.failed:
            print(f"  FAILED {test}\n    {why}")
    if not given.no_write and not given.only:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        (ROOT / "docs" / "suites.md").write_text(page(outcomes, today))
    return 1 if any(o.failed or not o.passed for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
