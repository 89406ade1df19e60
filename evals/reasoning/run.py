"""`make retention`: how much of a model's reasoning comes back to it, client by client.

Plays a conversation of ten turns through a real `headgate serve` the way each client replays its
history, against the scripted upstream in each of its forms, with the gateway's reasoning memory and
without, prints the table and writes docs/retention.md.  Loopback only; the frameworks are
installed into .cache/retention once, and left out with the reason where no package index answers.

    python retention/run.py [--only WORDS] [--no-write]
"""

import argparse
import datetime
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
CACHE = ROOT / ".cache" / "retention"
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "support")]

from clients import CLIENTS  # noqa: E402
from frameworks import FRAMEWORKS  # noqa: E402
from playing import Play, Row, apart, directly, played, serving  # noqa: E402
from scripted_replies import FORMS, TURNS, Upstream  # noqa: E402

DISTRIBUTIONS = [
    "openai",
    "anthropic",
    "google-genai",
    "langchain-openai",
    "langchain-anthropic",
    "langchain-google-genai",
    "pydantic-ai-slim[openai,anthropic,google]",
    "openai-agents",
]
PACKAGES = [
    "ai",
    "@ai-sdk/openai-compatible",
    "@ai-sdk/openai",
    "@ai-sdk/anthropic",
    "@ai-sdk/google",
]
VERCEL = {
    "compatible": ("AI SDK, openai-compatible", "@ai-sdk/openai-compatible"),
    "chat": ("AI SDK, openai.chat", "@ai-sdk/openai"),
    "responses": ("AI SDK, openai.responses", "@ai-sdk/openai"),
    "anthropic": ("AI SDK, anthropic", "@ai-sdk/anthropic"),
    "google": ("AI SDK, google", "@ai-sdk/google"),
}
INSTALL_S = 900


def installed() -> tuple[str, str]:
    """Install what is missing; why the Python frameworks and the npm packages cannot be played."""
    CACHE.mkdir(parents=True, exist_ok=True)
    python = CACHE / "venv" / "bin" / "python"
    why = ["", ""]
    if not (CACHE / "venv" / ".done").exists():
        why[0] = _run([sys.executable, "-m", "venv", str(CACHE / "venv")]) or _run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                *DISTRIBUTIONS,
            ]
        )
        if not why[0]:
            (CACHE / "venv" / ".done").touch()
    if shutil.which("npm") is None or shutil.which("node") is None:
        why[1] = "Node is not installed"
    elif not (CACHE / "node_modules" / ".done").exists():
        (CACHE / "package.json").write_text('{"private": true, "type": "module"}\n')
        why[1] = _run(["npm", "install", "--no-audit", "--no-fund", "--silent", *PACKAGES])
        if not why[1]:
            (CACHE / "node_modules" / ".done").touch()
    return why[0], why[1]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {type(error).__name__}"
    return f"{Path(command[0]).name} install failed (no package index?)" if done.returncode else ""


def _python_version(distribution: str) -> str:
    code = f"from importlib.metadata import version; print(version('{distribution}'))"
    python = CACHE / "venv" / "bin" / "python"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True).stdout.strip()


def _npm_version(package: str) -> str:
    file = CACHE / "node_modules" / package / "package.json"
    return str(json.loads(file.read_text())["version"]) if file.exists() else ""


def clients() -> tuple[dict[str, tuple[str, Play]], list[str]]:
    """Each client's version and how to play it; and which are left out, with the reason."""
    out: dict[str, tuple[str, Play]] = {}
    for name in CLIENTS:
        sdk = {"Anth": "anthropic", "goog": "google-genai"}.get(name[:4], "openai")
        out[name] = f"{sdk} {version(sdk)}", directly(name)
    no_python, no_npm = installed()
    left: list[str] = []
    python = str(CACHE / "venv" / "bin" / "python")
    for key, (name, distribution) in FRAMEWORKS.items():
        if no_python:
            left.append(f"{name}: {no_python}")
        else:
            label = f"{distribution} {_python_version(distribution)}"
            out[name] = label, apart(python, str(HERE / "frameworks.py"), key)
    if not no_npm:
        shutil.copy(HERE / "vercel.mjs", CACHE / "vercel.mjs")
    for key, (name, package) in VERCEL.items():
        if no_npm:
            left.append(f"{name}: {no_npm}")
        else:
            label = f"ai {_npm_version('ai')}, {package} {_npm_version(package)}"
            out[name] = label, apart("node", str(CACHE / "vercel.mjs"), key)
    return out, left


def table(rows: dict[str, Row], versions: dict[str, str], turns: int) -> str:
    head = "| client | version | " + " | ".join(FORMS.values()) + " |"
    out = [head, "|---|---|" + "---|" * len(FORMS)]
    for name, row in rows.items():
        cells = (f"{100 * row[f][0] // turns} %" for f in FORMS)
        out.append(f"| {name} | {versions[name]} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def page(
    with_memory: dict[str, Row],
    without: dict[str, Row],
    versions: dict[str, str],
    left: list[str],
) -> str:
    turns = len(TURNS)
    total = sum(c[0] for r in with_memory.values() for c in r.values())
    cells = sum(len(r) for r in with_memory.values())
    skipped = "".join(f"- {line}\n" for line in left)
    return f"""# Reasoning retention

Written by `make retention` on {datetime.date.today():%Y-%m-%d}; do not edit.

MiniMax's models plan while they call tools, and do worse when that thinking does not come back to
them on the next turn. Here every client below goes through a conversation of {turns} turns with tools
(parallel calls, thinking between text and calls, 20 kB of thinking, repeated calls, odd white
space), then asks one thing more, through a real `headgate serve` in front of an upstream that is
scripted in each of the forms MiniMax's models are served in. Where the loop is ours, every second
turn is streamed; the AI SDK streams all of them. A turn counts when its reasoning is in **every** later request byte for
byte, with its signature where the upstream signs, in the form that this upstream reads, and before
the same text and calls.

**{total} of {cells * turns} turns kept** with the default settings, {len(with_memory)} clients by {len(FORMS)} upstream forms:

{table(with_memory, versions, turns)}

## Without the memory

With `memory = false` the gateway keeps nothing: what comes back is what the client itself returns,
as text, or sealed in the field that its protocol makes it return (Anthropic's `signature`, Gemini's
`thoughtSignature`, the `encrypted_content` of Responses). This is also what is left after the
memory's hour, or on another edge. Then this is lost:

- everything, where the client returns neither thinking nor what is sealed: the loops that keep
  content and tool calls, LangChain's `ChatOpenAI`, openai-agents on chat completions, the AI SDK's
  `openai.chat`, Anthropic clients that did not ask for thinking;
- the upstream's signature, where the client returns plain text only (`reasoning_content`, `<think>`
  in text): the text reaches an upstream that signs unsigned;
- the order of thinking and text inside one turn on OpenAI's chat wire, which has no place for it:
  all thinking is then put before the text.

{table(without, versions, turns)}

{"## Left out" + chr(10) * 2 + skipped if left else ""}"""


def losses(title: str, rows: dict[str, Row], turns: int) -> str:
    out = []
    for name, row in rows.items():
        for form, (kept, wrong) in row.items():
            if kept < turns:
                out.append(f"{title}: {name} | {form} | {kept}/{turns} | {wrong}")
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the turns whose reasoning came back.")
    parser.add_argument("--only", default="", help="clients whose name has these words")
    parser.add_argument("--no-write", action="store_true", help="leave docs/retention.md alone")
    options = parser.parse_args()
    known, left = clients()
    chosen = {n: c for n, c in known.items() if options.only.lower() in n.lower()}
    turns = len(TURNS)
    results: list[dict[str, Row]] = []
    with Upstream().running() as upstream:
        for memory in (True, False):
            with serving(upstream, memory) as gateway, ThreadPoolExecutor(4) as pool:
                jobs = {
                    name: pool.submit(played, upstream, gateway, play, turns)
                    for name, (_, play) in chosen.items()
                }
                results.append({name: job.result() for name, job in jobs.items()})
    versions = {n: v for n, (v, _) in chosen.items()}
    print(table(results[0], versions, turns), "\n\nwithout the memory:\n")
    print(table(results[1], versions, turns))
    for line in left:
        print("left out:", line)
    lost = losses("lost", results[0], turns)
    print(lost, losses("without memory", results[1], turns), sep="\n", file=sys.stderr)
    if not options.no_write and not options.only:
        path = ROOT / "docs" / "retention.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(results[0], results[1], versions, left))
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
