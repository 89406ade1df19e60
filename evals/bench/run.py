"""`make bench`: Headgate beside nginx as a plain proxy and every other gateway that is installed.

Each gateway runs with its whole process tree on one core; load and upstream share the others.  All
are measured in turns, in rounds, and what counts is the median of the rounds' ratios to nginx: times
say more about the machine than about the code.  Writes the measured part of docs/performance.md, and
the lines of README.md that repeat it.  Loopback only; needs nginx and wrk (Debian's packages).

ROUNDS and SECONDS (of each run of wrk) may be set; ONLY names some gateways, separated by commas.
"""

import contextlib
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import bodies
import traffic
from targets import ROOT, Gateway, Target, installed, memory_mb, started, targets, version_of
from upstream import MANY

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS", "4"))
ONLY = [name for name in os.environ.get("ONLY", "").split(",") if name]
BASE, OWN = "nginx", "headgate"
DOCS, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
BEGIN, END = "<!-- make bench: begin -->\n", "<!-- make bench: end -->\n"


class Row(msgspec.Struct):
    """One measured quantity, by gateway, with a value for each round."""

    title: str
    unit: str
    digits: int
    values: dict[str, list[float]]
    ratio: bool = True  # to the base's value of the same round

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def times(self, name: str) -> float:
        """Return the median of the rounds' ratios to the base."""
        pairs = zip(self.values[name], self.values[BASE], strict=True)
        return statistics.median(value / max(base, 1e-9) for value, base in pairs)

    def cell(self, name: str) -> str:
        if not self.values.get(name):
            return "-"
        text = f"{self.median(name):,.{self.digits}f} {self.unit}"
        if self.ratio and name != BASE and self.values.get(BASE):
            text += f" ({self.times(name):.{1 if self.times(name) >= 0.95 else 2}f} x)"
        return text


def measured(gateways: dict[str, Gateway], direct: Gateway) -> dict[str, Row]:
    """Measure all gateways in turns; each round measures every quantity of every gateway once."""
    agent, many = bodies.agent("openai", "whole"), f"{MANY} and many chunks"
    short = bodies.small("whole", stream=True)

    def whole_us(gateway: Gateway) -> float:
        # Who asks the upstream for one body gets one, as nothing is collected; nginx relays the stream.
        body = bodies.small(many, stream=gateway.name == BASE)
        return uvloop.run(traffic.cpu_of(gateway, body, 60, 4))

    def added_ms(part: int) -> Callable[[Gateway], float]:
        body = bodies.small("whole")

        def latency(gateway: Gateway) -> float:
            uvloop.run(traffic.ask(gateway, body, 20))
            took = uvloop.run(traffic.ask(gateway, body, 30 if gateway.slow else 300))
            return statistics.quantiles(took, n=100)[part - 1] * 1e3

        return lambda gateway: latency(gateway) - latency(direct)

    steps: list[tuple[str, str, str, int, bool, Callable[[Gateway], float]]] = [
        (
            "agent",
            "request of an agent, 400 kB",
            "us CPU",
            0,
            True,
            lambda g: uvloop.run(traffic.cpu_of(g, agent, 40, 2)),
        ),
        (
            "chunk",
            "chunk of a stream",
            "us CPU",
            1,
            True,
            lambda g: uvloop.run(traffic.chunk_us(g)),
        ),
        (
            "open",
            "stream of 3 chunks, from its opening to its end",
            "us CPU",
            0,
            True,
            lambda g: uvloop.run(traffic.cpu_of(g, short, 800, 8)),
        ),
        ("whole", f"whole answer made of {MANY} chunks", "us CPU", 0, True, whole_us),
        (
            "late",
            f"lateness of chunks beside {traffic.AGENT_RATE} agent requests/s, p99",
            "ms",
            1,
            False,
            lambda g: uvloop.run(traffic.late_ms(g)),
        ),
        ("p50", "latency added to one request at a time, p50", "ms", 2, False, added_ms(50)),
        ("p99", "latency added to one request at a time, p99", "ms", 2, False, added_ms(99)),
    ]
    rows = {
        "rate": Row("small requests on one core, 32 connections", "/s", 0, {}),
        "small": Row("small request", "us CPU", 0, {}),
        **{
            key: Row(title, unit, digits, {}, ratio) for key, title, unit, digits, ratio, _ in steps
        },
        "rest": Row(
            "memory at rest", "MB", 1, {n: [memory_mb(g)] for n, g in gateways.items()}, False
        ),
        "start": Row("start", "s", 2, {n: [g.ready_s] for n, g in gateways.items()}, False),
    }

    def note(key: str, gateway: Gateway, value: float) -> None:
        rows[key].values.setdefault(gateway.name, []).append(value)

    for n in range(ROUNDS):
        print(f"round {n + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        for gateway in gateways.values():
            per_s, us = traffic.saturated(gateway, SECONDS)
            note("rate", gateway, per_s)
            note("small", gateway, us)
        for key, *_, measure in steps:
            for gateway in gateways.values():
                note(key, gateway, measure(gateway))
    rows["idle"] = Row(f"memory of one of {traffic.IDLE_STREAMS} idle streams", "KiB", 1, {}, False)
    for gateway in gateways.values():
        note("idle", gateway, uvloop.run(traffic.idle_stream_kib(gateway)))
    return rows


# --- what is written -----------------------------------------------------------------------------


def table(rows: dict[str, Row], names: list[str]) -> str:
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {r.title} | {' | '.join(r.cell(n) for n in names)} |" for r in rows.values()]
    return "\n".join(lines) + "\n"


def summary(rows: dict[str, Row]) -> str:
    """Return the lines that README repeats."""
    text = (
        f"- CPU beside nginx as a plain proxy, with key, limits, ledger and translation, on one core of a"
        f" machine whose load average was {os.getloadavg()[1]:.0f}: a small request"
        f" {rows['small'].times(OWN):.0f} x, an agent's request of 400 kB {rows['agent'].times(OWN):.0f} x, a chunk"
        f" of a stream {rows['chunk'].times(OWN):.1f} x. {rows['rest'].median(OWN):.0f} MB at rest,"
        f" {rows['idle'].median(OWN):.0f} KiB an open stream"
        f" (`make bench`, [docs/performance.md](docs/performance.md))."
    )
    lines, line = [], ""
    for word in text.split(" "):
        if len(line) + len(word) > 105:
            lines.append(line)
            line = " "
        line += (" " if line else "") + word
    return "\n".join([*lines, line]) + "\n"


def linked_from_docs(text: str) -> str:
    """Return README's lines with their links as they are from docs/."""
    return text.replace("](docs/", "](")


def machine() -> str:
    """Return what it ran on."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    load = os.getloadavg()[1]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}, {os.cpu_count()} cores"
        f" ({model[1] if model else platform.machine()}), Linux {platform.release()},"
        f" Python {platform.python_version()}; {ROUNDS} rounds; the load average of the machine was"
        f" {load:.1f}"
    )


def written(rows: dict[str, Row], found: dict[str, Target]) -> str:
    """Return the measured part of docs/performance.md."""
    names = list(found)
    versions = [f"- `{name}`: {version_of(t)}; {t.about}" for name, t in found.items()]
    # Without the base there are no ratios, so there is nothing for README to repeat.
    compared = BASE in found
    repeated = f"{linked_from_docs(summary(rows))}\n" if compared and OWN in found else ""
    ratios = f" In brackets: the median of the rounds' ratios to {BASE}." if compared else ""
    return (
        f"{repeated}Measured on {machine()}.{ratios}\n\n"
        f"{table(rows, names)}\n" + "\n".join(versions) + "\n"
    )


def replaced(path: Path, part: str) -> None:
    """Write `part` between the two marks of a file."""
    head, begin, rest = path.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path.name} lacks the marks {BEGIN!r} and {END!r}")
    path.write_text(f"{head}{BEGIN}{part}{END}{tail}")


def main() -> None:
    cores = set(range(os.cpu_count() or 1))
    os.sched_setaffinity(0, cores - {0} or cores)
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            raise SystemExit(f"make bench needs {tool} (Debian: apt install {tool})")
    known = targets()
    if unknown := set(ONLY) - set(known):
        raise SystemExit(f"ONLY names {sorted(unknown)}; targets.toml has {', '.join(known)}")
    found = {n: t for n, t in known.items() if installed(t) and (not ONLY or n in ONLY)}
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "upstream.py")], stdout=subprocess.PIPE
        )
        stack.callback(process.terminate)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        gateways = {n: stack.enter_context(started(n, t, port)) for n, t in found.items()}
        rows = measured(gateways, Gateway("direct", port, "none", process.pid, 0.0))
    part = written(rows, found)
    print(part)
    if BASE in found and OWN in found and not ONLY:
        replaced(DOCS, part)
        replaced(README, summary(rows))
        print(summary(rows))


if __name__ == "__main__":
    main()
