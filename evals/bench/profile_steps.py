"""`make profile`: where the edge's time for a request goes, by step of the pipeline, as a table.

Runs a gateway whose edge and node are under cProfile, on the CPU time of their main threads, sends it
requests of three kinds, and adds up each function's own time by the module that it is in; what is built in
counts for its caller.  Note: the profiler makes calls dearer than they are, so read the shares, not the
times; the thread that decodes large bodies is not seen.
"""

import asyncio
import contextlib
import os
import pstats
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import bodies
import traffic
from targets import ROOT, Gateway, started, targets

PACKAGE = str(ROOT / "src" / "headgate") + os.sep
# Modules by the beginning of their path, the first that fits; by step, in the order of a request.
STEPS = (
    (
        "client's HTTP",
        ("net/server", "net/inbound", "net/heads", "net/guard", "net/chunks", "net/connections"),
    ),
    (
        "credential, place, rate",
        (
            "edge/app",
            "edge/paths",
            "edge/context",
            "edge/overload",
            "policy/key",
            "policy/bucket",
            "policy/limit",
            "policy/fairness",
            "edge/credentials",
            "edge/entry",
        ),
    ),
    (
        "request decoded",
        (
            "dialects/openai/request",
            "dialects/openai/messages",
            "dialects/openai/tools",
            "dialects/anthropic/request",
            "dialects/anthropic/messages",
            "dialects/anthropic/content",
            "dialects/anthropic/tools",
            "dialects/unknown",
            "dialects/unknown_chat",
            "dialects/unknown_items",
            "dialects/unknown_responses",
            "dialects/responses/request",
            "dialects/responses/items",
            "dialects/responses/tools",
            "dialects/gemini/request",
            "dialects/gemini/contents",
            "dialects/gemini/parts",
            "dialects/gemini/tools",
            "dialects/fields",
            "dialects/jsonstrings",
            "jsontext",
            "bounds",
        ),
    ),
    (
        "routes, reasoning, estimate",
        (
            "catalog/",
            "policy/routing",
            "reasoning/",
            "edge/counter",
            "edge/pipeline/prepare",
            "edge/replay",
        ),
    ),
    ("history and fit", ("policy/history", "policy/fit", "policy/structured")),
    (
        "admission, intent, row",
        (
            "edge/record",
            "edge/billing",
            "policy/budgets",
            "policy/reservations",
            "policy/pricing",
            "storage/",
            "node/",
            "edge/pipeline/admit",
            "edge/pipeline/record",
            "money",
        ),
    ),
    (
        "upstream's HTTP, attempts",
        (
            "net/client",
            "net/upstream_connection",
            "net/dial",
            "edge/upstream",
            "edge/pipeline/attempt",
            "edge/pipeline/observe",
            "policy/breaker",
            "policy/cooldown",
            "policy/retry",
        ),
    ),
    (
        "upstream's body encoded, reply decoded",
        (
            "dialects/openai/upstream",
            "dialects/contract",
            "dialects/usage",
            "dialects/vendor_errors",
            "dialects/anthropic/upstream",
            "stream/",
            "chat",
        ),
    ),
    (
        "reply encoded and sent",
        ("dialects/", "edge/responder", "edge/answers", "edge/relay", "edge/pipeline/"),
    ),
    ("metrics, log", ("edge/metrics", "edge/log", "output")),
    ("the rest", ("",)),
)
KINDS = {
    "small request": (bodies.small("whole"), 2000, 16),
    "stream of 3 chunks": (bodies.small("whole", stream=True), 2000, 16),
    "agent request, 400 kB": (bodies.agent("openai", "whole"), 100, 2),
}


def step_of(file: str) -> str:
    module = file.removeprefix(PACKAGE).replace(os.sep, "/")
    return next(name for name, begins in STEPS if module.startswith(begins))


def by_step(stats: pstats.Stats) -> dict[str, tuple[float, float]]:
    """Return the seconds and the calls of each step."""
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, float] = defaultdict(float)
    for (file, _, _), (_, count, own_s, _, callers) in stats.stats.items():  # type: ignore[attr-defined]  # not in typeshed
        if file.startswith(PACKAGE):
            seconds[step_of(file)] += own_s
            calls[step_of(file)] += count
            continue
        for (caller, _, _), (_, called, spent_s, _) in callers.items():
            if caller.startswith(PACKAGE):
                seconds[step_of(caller)] += spent_s
                calls[step_of(caller)] += called
    return {name: (seconds[name], calls[name]) for name, _ in STEPS}


# Python runs this when it starts; it is found by PYTHONPATH.
_HOOK = """
import sys
words = sys.orig_argv
name = "edge" if "headgate.cli" in words and "edge" in words else ""
if "headgate.node" in words or ("headgate.cli" in words and "node" in words):
    name = "node"
if name:
    import atexit, cProfile, time
    profiler = cProfile.Profile(time.thread_time)
    atexit.register(lambda: (profiler.disable(), profiler.dump_stats(f"{place}/{{name}}.{{time.time_ns()}}")))
    profiler.enable()
"""


def profiled(body: bytes, count: int, connections: int, upstream: int) -> dict[str, pstats.Stats]:
    """Return what the profiler saw in the edge and in the node."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "sitecustomize.py").write_text(_HOOK.format(place=place))
        target = targets()["headgate"]
        target.env["PYTHONPATH"] = place

        async def load(gateway: Gateway) -> None:
            each = count // connections
            await asyncio.gather(*(traffic.ask(gateway, body, each) for _ in range(connections)))

        with started("headgate", target, upstream) as gateway:
            uvloop.run(load(gateway))
        found: dict[str, pstats.Stats] = {}
        for name in ("edge", "node"):
            for path in Path(place).glob(f"{name}.*"):
                found[name] = pstats.Stats(str(path))
        return found


def main() -> None:
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "upstream.py")], stdout=subprocess.PIPE
        )
        stack.callback(process.terminate)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for title, (body, count, connections) in KINDS.items():
            found = profiled(body, count, connections, port)
            steps = by_step(found["edge"])
            if "node" in found:
                seconds = [own_s for own_s, _ in by_step(found["node"]).values()]
                steps["node: admission, ledger"] = (sum(seconds), 0)
            total_s = sum(own_s for own_s, _ in steps.values())
            print(f"\n| {title} | us | share | calls |\n|---|---|---|---|")
            for name, (own_s, calls) in steps.items():
                us, share = own_s / count * 1e6, own_s / total_s * 100
                print(f"| {name} | {us:.0f} | {share:.0f} % | {calls / count:.0f} |")


if __name__ == "__main__":
    main()
