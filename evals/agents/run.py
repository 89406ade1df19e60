"""`make agents`: real coding agents through a real gateway, and the page that says how it went.

Installs them into .cache/agents, then plays each through agents/scenes.py in a home of its own:
`headgate connect` points it at a `headgate serve`, which has the scripted upstream behind it.
Prints a table and writes docs/clients.md.  Where the machine allows it, everything after the
installation runs in a network namespace that has nothing but loopback: agents that look for news
or a home to report to find none.  Results are kept in .cache/agents/results.json, so that --only
renews one row of the page.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

import plugins
from install import CACHE, install, node
from recorder import Asked, Recorder
from scenes import PROMPT, SCENES, SECOND, Ran, Scene, verdict
from scripted import Play, ScriptedUpstream
from table import README, row_of
from troupe import AGENTS, Agent

import gateway

ROOT = Path(__file__).parents[2]
RESULTS = CACHE / "results.json"
PAGE = ROOT / "docs" / "clients.md"
PLUGIN = "the skill as a plugin"
FIRST = "what it sends first"
LIMIT_S = 240  # of one run of an agent; the slowest needs about 30 s on an idle machine
INSIDE = "HEADGATE_AGENTS_INSIDE"  # we are in the namespace already
HEADGATE = (sys.executable, "-m", "headgate.cli")

CONFIG = """
[upstreams.minimax]
preset = "minimax"
base_url = "{openai}"
key = "env:SCRIPTED_KEY"

[upstreams.minimax-anthropic]
preset = "minimax-anthropic"
base_url = "{anthropic}"
key = "env:SCRIPTED_KEY"

[models."MiniMax-M2"]
routes = [{{ upstream = "minimax" }}]

[models."MiniMax-M2.1"]
routes = [{{ upstream = "minimax-anthropic" }}]
"""


# -- Running ---------------------------------------------------------------------------------------


def end(process: subprocess.Popen[str]) -> None:
    """End what we started and what it started: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_left(root: Path) -> None:
    """End what agents left running in the background: programs whose home is below `root`."""
    sign = f"HOME={root}/".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if sign in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def ran(line: list[str], directory: Path, env: dict[str, str], typed: str | None = None) -> Ran:
    process = subprocess.Popen(
        line,
        cwd=directory,
        env=env,
        text=True,
        errors="replace",
        start_new_session=True,
        stdin=subprocess.DEVNULL if typed is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(typed, timeout=LIMIT_S)
        return Ran(process.returncode, out, err)
    except subprocess.TimeoutExpired:
        end(process)
        out, err = process.communicate()
        return Ran(None, out, err)
    finally:
        end(process)


class Stage:
    """Runs one agent through all its scenes, with one gateway and one upstream."""

    def __init__(
        self, agent: Agent, binary: Path, keep: Path | None, scenes: Sequence[Scene] = SCENES
    ) -> None:
        self.scenes = scenes
        self.agent, self.binary, self.keep = agent, binary, keep
        self.first = ""  # what it sends first, with the variables of README's table only

    def play(self) -> dict[str, str]:
        """Scene: "pass", "-" or what went wrong."""
        results = {}
        with tempfile.TemporaryDirectory(prefix="headgate-agents-") as name:
            root = Path(name)
            upstream = ScriptedUpstream()
            with upstream:
                (root / "headgate.toml").write_text(
                    CONFIG.format(openai=upstream.openai_url, anthropic=upstream.anthropic_url)
                )
                gate = gateway.start(
                    root / "data",
                    HEADGATE_CONFIG=str(root / "headgate.toml"),
                    SCRIPTED_KEY="scripted",
                )
                try:
                    for i, scene in enumerate(self.scenes):
                        results[scene.name] = self._scene(scene, root / f"{i}", gate, upstream)
                finally:
                    gateway.stop(gate)
                    end_left(root)
        results[PLUGIN] = self.plugin()
        if self.first:
            results[FIRST] = self.first
        return results

    def _scene(
        self, scene: Scene, root: Path, gate: gateway.Gateway, upstream: ScriptedUpstream
    ) -> str:
        play = scene.make(self.agent)
        if play is None:
            return "-"
        home, work = root / "home", root / "work"
        home.mkdir(parents=True)
        work.mkdir()
        more = scene.prepare(self.agent, work)
        play.directory = str(work)
        upstream.play = play
        if scene.how == "variables":
            row = row_of(self.agent.title, README.read_text())
            if row is None:
                return "-"
        env = self._env(home, gate.key)
        target = ["--url", gate.url, "--key", gate.key, "--model", scene.model]
        data = ["--data", str(root / "client")]
        program = [*HEADGATE, "run", self.agent.name, *target, *data, "--"]
        if scene.how == "connect" and self.agent.connects:
            connected = ran([*HEADGATE, "connect", self.agent.name, *target, *data], work, env)
            if connected.code:
                return f"connect: {connected.err.strip()[-200:]}"
            program = [str(self.binary / self.agent.program)]
        if line := scene.before(self.agent):
            first = ran([str(self.binary / self.agent.program), *line], work, env)
            if first.code:
                return f"{' '.join(line[:2])}: {first.err.strip()[-200:]}"
        began = time.monotonic()
        if scene.how in ("variables", "url"):
            with Recorder(gate.url) as recorder:
                if scene.how == "variables":
                    env |= row.variables(recorder.url, gate.key)
                else:
                    env |= {n: gate.key for n in ("OPENAI_API_KEY", "CODEX_API_KEY")}
                    more = tuple(p.replace("<url>", recorder.url) for p in self.agent.by_url)
                program = [str(self.binary / self.agent.program)]
                done = self._rounds(scene, play, program, work, env, more)
                self.first = first_requests(recorder.take())
        else:
            done = self._rounds(scene, play, program, work, env, more)
        took = time.monotonic() - began
        note = verdict(scene, play, done, work, _left_open(gate))
        result = f"pass {note}".rstrip() if not note or note[0] == "(" else note
        print(
            f"{self.agent.name:12} {scene.name:26} {took:5.1f} s  "
            f"{len(play.seen)}+{play.side}+{play.summaries} requests  {result}",
            flush=True,
        )
        if self.keep is not None:
            place = self.keep / f"{self.agent.name}-{SCENES.index(scene)}"
            place.mkdir(parents=True, exist_ok=True)
            (place / "out").write_text(done.out)
            (place / "err").write_text(done.err)
            for i, seen in enumerate(upstream.seen):
                (place / f"{i}.json").write_text(
                    json.dumps(seen.body, ensure_ascii=False, indent=1)
                )
        upstream.seen.clear()
        return result

    def _rounds(
        self,
        scene: Scene,
        play: Play,
        program: list[str],
        work: Path,
        env: dict[str, str],
        given: tuple[str, ...] = (),
    ) -> Ran:
        """Send every prompt; return how the last run ended."""
        agent = self.agent
        prompts = [PROMPT, SECOND][: agent.compact_rounds if play.compacts else scene.rounds]
        more = (*given, *(agent.compact_line if play.compacts else ()))
        if agent.talk and len(prompts) > 1:
            return ran([*program, *agent.talk, *more], work, env, "\n".join(prompts) + "\n")
        session = ""
        for prompt, line in zip(prompts, (agent.line, agent.resume), strict=False):
            values = (("<model>", scene.model), ("<prompt>", prompt), ("<session>", session))
            parts = list(line)
            for sign, value in values:
                parts = [part.replace(sign, value) for part in parts]
            done = ran([*program, *parts, *more], work, env)
            if done.code != 0:
                break
            found = sorted(Path(env["HOME"]).glob(agent.sessions)) if agent.sessions else []
            session = found[-1].stem if found else ""
        return done

    def plugin(self) -> str:
        """How its own installer takes the skill; "-": it has none."""
        host = next((h for h in plugins.HOSTS if h.name == self.agent.name), None)
        if host is None:
            return "-"
        result = plugins.install(host, self.binary / self.agent.program, self._env(Path(), ""))
        print(f"{self.agent.name:12} {PLUGIN:26} {result}", flush=True)
        return result

    def _env(self, home: Path, key: str) -> dict[str, str]:
        """Nothing of this machine's own but the way to programs and the language."""
        path = os.pathsep.join(
            (str(self.binary), str(node()), "/usr/local/bin", "/usr/bin", "/bin")
        )
        env = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", "CI": "1"}
        if not os.environ.get(INSIDE):  # the next best thing to having no network
            env |= {n: "http://127.0.0.1:9" for n in ("HTTPS_PROXY", "https_proxy")}
            env |= {n: "127.0.0.1,localhost" for n in ("NO_PROXY", "no_proxy")}
        return env | {n: v.replace("<key>", key) for n, v in self.agent.env.items()}


def first_requests(asked: list[Asked]) -> str:
    """Say once what each kind of request was: method, path, model, status."""
    lines = (
        f"`{one.method} {one.path}`"
        + (f" for `{one.model}`" if one.model and one.model not in one.path else "")
        + f" ({one.status or 'cut'})"
        for one in asked
    )
    return ", ".join(dict.fromkeys(lines))


def _left_open(gate: gateway.Gateway) -> float:
    """Streams that the gateway still holds when the agent is gone; it may need a moment."""
    for _ in range(100):
        if not (left := gate.metric("headgate_open_streams")):
            return 0
        time.sleep(0.02)
    return left


# -- Loopback only ---------------------------------------------------------------------------------


def go_inside() -> None:
    """Start again in a network namespace of our own; return where that is not allowed."""
    for options in (("-n",), ("-r", "-n")):
        line = ["unshare", *options]
        if (
            shutil.which("unshare")
            and not subprocess.run([*line, "true"], stderr=subprocess.DEVNULL).returncode
        ):
            os.execvpe(line[0], [*line, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    print("note: no network namespace is to be had; agents that ignore a proxy may look outside.")


def raise_loopback() -> None:
    """A new namespace has its loopback switched off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        flags = fcntl.ioctl(s, 0x8913, struct.pack("16sh14x", b"lo", 0))  # SIOCGIFFLAGS
        up = struct.unpack("16sh14x", flags)[1] | 1  # IFF_UP
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", up))  # SIOCSIFFLAGS


# -- Telling ---------------------------------------------------------------------------------------


def page(results: dict[str, dict[str, str]]) -> str:
    rows = [r for a in AGENTS if (r := results.get(a.name))]
    names = [*(s.name for s in SCENES), PLUGIN]
    firsts = [(r["title"], r[FIRST]) for r in rows if r.get(FIRST, "-") != "-"]
    out = [
        "# Coding agents",
        "",
        "<!-- Written by `make agents`; do not edit. -->",
        "",
        "Each of these was installed from its registry and run without a screen through a real"
        " gateway, in front of",
        "a scripted upstream that answers as MiniMax does.  A row is what the last run of"
        " `make agents` saw.",
        "",
        "| agent | version | date | " + " | ".join(names) + " |",
        "|" + "---|" * (3 + len(names)),
    ]
    for row in rows:
        cells = [row["title"], row["version"], row["date"], *(row.get(n, "-") for n in names)]
        out.append(
            "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
        )
    out += ["", LEGEND.strip(), ""]
    if firsts:
        out += [
            "## What they send first",
            "",
            "With the variables of README's table, or the base URL, only; each model's name is one that the"
            " agent chose:",
            "",
            "| agent | requests, and how they were answered |",
            "|---|---|",
            *(f"| {title} | {first} |" for title, first in firsts),
            "",
        ]
    out += ["## How to point them here", ""]
    out += [
        "`headgate connect TOOL` edits the tool's own configuration and keeps a backup; `--print`"
        " only shows the",
        "change, `--restore` undoes it.  `headgate run TOOL` starts it with the environment set"
        " and nothing edited.",
        "",
    ]
    out += ["| agent | connect | or without editing anything |", "|---|---|---|"]
    for agent in AGENTS:
        line = f"headgate run {agent.name} --key YOUR_KEY" if agent.runs else ""
        connect = f"`headgate connect {agent.name} --key YOUR_KEY`" if agent.connects else "-"
        out.append(f"| {agent.title} | {connect} | {f'`{line}`' if line else '-'} |")
    out += ["", "`headgate connect` without a name lists the other tools that it knows."]
    return "\n".join(out) + "\n"


LEGEND = """
- *text*: the last text is printed, the exit code is 0.  Every scenario asks for that as well.
- *text, README's variables*: nothing but the variables of README's table points it here, so it asks for
  the models that it chooses by itself.
- *a tool writes a file*, *parallel calls*: the model calls the agent's own tool, the file is there
  with the very bytes; aider has no tools and writes by blocks of text.
- *thinking with tools*: three turns with thoughts; in each the upstream sees its earlier thoughts
  again, byte for byte.  On MiniMax's OpenAI path, then on its Anthropic path.
- *the same, by a vendor's model name*: the agent's own option chooses a name that its vendor uses
  (`claude-opus-5-5`, `gpt-5.6-codex`, `gemini-3.8-pro`), the gateway's aliases answer it, and all else is as before.
- *a second prompt*: the conversation is taken up again by a second run of the agent (aider: by its
  second line), and the upstream sees the thoughts of the first one, those of its last text too.
  aider and a resumed Gemini CLI return none and change earlier turns, so the gateway does
  not take their texts for the same conversation.
- *429*: the agent asks again, and not before the `Retry-After` of two seconds is over.
- *cut mid-stream*: the upstream's connection breaks within a text.  *asks again*: the agent repeats
  the request by itself; *says so*: it ends with an error that its user sees.
- *compaction*: the usage comes near the window's end; the agent asks for a summary and goes on
  with it.  Gemini CLI would sum up with a model of Google's name, and at half of a million tokens:
  `headgate connect` and `headgate run` set both to the model's own.
- *an MCP server*: the agent starts a server of the Model Context Protocol, the model calls its tool, and is
  shown what the tool found.
- *a picture is read*, *a PDF is read*: the agent's own tool returns one, the model reads text only, and the
  conversation goes on; the picture never reaches the model.
- *a sub-agent*: the model delegates to the agent's own sub-agent, and is shown what that one answered.
- *by base URL alone*: the gateway's address in place of the vendor's and nothing else, so that the agent
  uses its own provider, model and transport.  Codex asks for a WebSocket first, is answered 426 and goes on
  with POST at once; the run takes as long as one by `headgate connect` (5.7 s beside 5.8 s, 2026-12-01).  The
  transport itself is not served: it would spare the client to repeat the conversation, and nothing behind it.
- *the skill as a plugin*: `headgate skill plugin DIR` makes a marketplace of the skill, and the agent's
  own commands validate it, install it from there and list it.
- pi, Factory Droid, Copilot CLI, Cline and OpenHands are given the MCP server by their own `mcp add`, the others
  by a file.  pi's model calls it from within a script of its `codemode`.  Droid's sub-agents ask for its maker's
  service, and Continue's for a setting that is not finished.
- *-*: the agent has no such thing without a screen, or was not asked for it.

Kilo Code is played in its version 7.7.7, as 7.8.1 asks for a binary that is not on npm; OpenHands needs Python 3.12;
Factory Droid goes on with a conversation only for who has an account there.  Not played: Crush, whose package fetches
its program from github.com, and goose, which no registry of packages has.
"""


def main() -> int:
    options = argparse.ArgumentParser(description="Play real agents through the gateway.")
    options.add_argument("--only", choices=[a.name for a in AGENTS], action="append")
    options.add_argument("--upgrade", action="store_true", help="Install today's versions.")
    options.add_argument("--keep", type=Path, help="Keep the conversations in this directory.")
    options.add_argument("--jobs", type=int, default=1, help="How many agents at a time.")
    options.add_argument("--page", action="store_true", help="Only write the page anew.")
    options.add_argument("--scene", action="append", help="Play only scenes with this in the name.")
    given = options.parse_args()
    if given.page:
        PAGE.write_text(page(json.loads(RESULTS.read_text())))
        return 0
    agents = [a for a in AGENTS if not given.only or a.name in given.only]
    upgrade = given.upgrade and not os.environ.get(INSIDE)
    places = {
        a.name: install(a.name, a.package, a.program, a.npm, a.wants, upgrade=upgrade)
        for a in agents
    }
    if os.environ.get(INSIDE):
        raise_loopback()
    else:
        sys.stdout.flush()
        go_inside()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    wanted = [s for s in SCENES if not given.scene or any(x in s.name for x in given.scene)]
    stages = [Stage(a, places[a.name][0], given.keep, wanted) for a in agents]
    with ThreadPoolExecutor(given.jobs) as pool:
        played = list(pool.map(Stage.play, stages))
    # Read late: another run may have played other agents meanwhile.
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    bad: list[str] = []
    for agent, scenes in zip(agents, played, strict=True):
        head = {"title": agent.title, "version": places[agent.name][1], "date": today}
        results[agent.name] = (results.get(agent.name, {}) if given.scene else {}) | head | scenes
        bad += [
            f"{agent.name}: {n}: {r}"
            for n, r in scenes.items()
            if n != FIRST and r[:4] not in ("pass", "-")
        ]
    RESULTS.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(results))
    total = sum(r != "-" for scenes in played for n, r in scenes.items() if n != FIRST)
    print(f"\n{total - len(bad)} passed, {len(bad)} failed")
    for line in bad:
        print(f"  {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
