"""`make instructions`: the machine instructions of a fixed set of requests, against a recorded baseline.

Times differ from run to run and from machine to machine; how many instructions the same Python needs
for the same bytes hardly does.  Each step runs in one process under Valgrind's callgrind (Debian's
package `valgrind`), which counts between two requests of the program itself.  A count above 1.05 times
the baseline fails; where Python or a library differs from the baseline's, above 1.25 times.  Without
valgrind it is skipped with the reason, except in CI, where that fails.

    instructions.py                    compare with instructions.toml
    instructions.py --record REASON    write a new baseline
"""

import argparse
import ctypes
import gc
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import bodies
from upstream import END, PIECE

BASELINE = Path(__file__).with_suffix(".toml")
MOST, MOST_ELSEWHERE = 1.05, 1.25
CHUNKS = 300

# --- what is counted -----------------------------------------------------------------------------


def scenarios() -> dict[str, Callable[[], object]]:
    """Return the steps by their names; each may run any number of times."""
    from headgate.catalog import counting
    from headgate.chat import Request
    from headgate.dialects.capabilities import Capabilities
    from headgate.dialects.contract import ReplyFacts, RequestTarget
    from headgate.dialects.registry import DIALECTS
    from headgate.policy import fit, history
    from headgate.stream.translate import Translator, Whole

    able = Capabilities()
    target, facts = RequestTarget("MiniMax-M2", True), ReplyFacts("id", "MiniMax-M2", 0)
    openai = DIALECTS["openai"]

    def sent(request: Request, dialect: str) -> bytes:
        """Return the steps between the client's body and the upstream's."""
        counting.measure(request)
        fitted = fit.fit(
            history.repair(request, able, dialect),
            able,
            max_output=64_000,
            default_max_output=32_000,
        )
        return openai.encode_request(fitted.request, able, "m", True)

    def request_of(dialect: str, body: bytes) -> Callable[[], object]:
        return lambda: sent(DIALECTS[dialect].decode_request(body, target), dialect)

    # What the upstream's HTTP carries, without its chunked coding.
    events = [_unchunked(PIECE)] * CHUNKS
    end = _unchunked(END)
    small = openai.decode_request(bodies.small("hi", True), target)

    def streamed(dialect: str) -> Callable[[], object]:
        def run() -> None:
            sink = DIALECTS[dialect].encoder(small, facts, target)
            translator = Translator(openai.decoder(able, "text/event-stream", ""), (), sink)
            for event in (*events, end):
                translator.feed(event)

        return run

    def whole() -> object:
        sink = Whole()
        translator = Translator(openai.decoder(able, "text/event-stream", ""), (), sink)
        for event in (*events, end):
            translator.feed(event)
        assert sink.collector.reply is None  # its end is held back until it is recorded
        return sink.collector.parts

    found: dict[str, Callable[[], object]] = {
        "small request": request_of("openai", bodies.small("hi"))
    }
    for name in DIALECTS:
        found[f"agent request, {name}"] = request_of(name, bodies.agent(name))
        found[f"{CHUNKS} chunks, {name}"] = streamed(name)
    found[f"{CHUNKS} chunks, not streamed"] = whole
    return found


def _unchunked(data: bytes) -> bytes:
    out, rest = b"", data
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        out, rest = out + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return out


# --- how it is counted ---------------------------------------------------------------------------

# Valgrind's client request on x86-64 (valgrind/valgrind.h, 3.19): four rotations that add up to none,
# then an exchange of a register with itself.  Its arguments are six words at the address in rax.
_REQUEST = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
_CALLGRIND = (ord("C") << 24) + (ord("T") << 16)
_ZERO, _DUMP_AT, _START = _CALLGRIND + 1, _CALLGRIND + 3, _CALLGRIND + 4


class _Callgrind:
    """Asks callgrind, which this process runs under, to start, to clear and to write its counts."""

    def __init__(self) -> None:
        self._code = mmap.mmap(
            -1, len(_REQUEST), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
        self._code.write(_REQUEST)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._ask = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)(address)

    def ask(self, request: int, text: bytes = b"") -> None:
        self._text = ctypes.create_string_buffer(text)  # until the next one
        words = (ctypes.c_ulong * 6)(request, ctypes.addressof(self._text), 0, 0, 0, 0)
        self._ask(ctypes.addressof(words))


def run() -> None:
    """Run each step under callgrind: twice to warm up, then once to be counted."""
    callgrind = _Callgrind()
    for name, step in scenarios().items():
        step()
        step()
        gc.collect()
        gc.disable()
        callgrind.ask(_START)
        callgrind.ask(_ZERO)
        step()
        callgrind.ask(_DUMP_AT, name.encode())
        gc.enable()


_DESC = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.M)
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.M)


def missing() -> str:
    """Return what this machine lacks to count instructions; empty if it lacks nothing."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"callgrind is asked in x86-64 code only, and this is {platform.machine()}"
    if shutil.which("valgrind") is None:
        return "needs valgrind (Debian: apt install valgrind)"
    return ""


def counted() -> dict[str, int]:
    """Return the instructions of each step, counted in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={out}",
                "--smc-check=all-non-file",
                sys.executable,
                __file__,
                "--run",
            ],
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
        found: dict[str, int] = {}
        for dump in Path(place).iterdir():
            text = dump.read_text(errors="replace")
            name, total = _DESC.search(text), _TOTAL.search(text)
            if name is not None and total is not None:
                found[name[1]] = int(total[1])
    return {name: found[name] for name in scenarios()}


def environment() -> str:
    """Return what the counts depend on, beside our own code."""
    packages = " ".join(f"{name} {version(name)}" for name in ("msgspec",))
    return f"{platform.python_implementation()} {platform.python_version()} {platform.python_compiler()}, {packages}"


def record(reason: str) -> None:
    now = counted()
    lines = [
        "# What `make instructions` compares with; written by `make instructions-baseline REASON=...`.",
        f'recorded = "{datetime.now(UTC):%Y-%m-%d}"',
        f'reason = "{reason}"',
        f'environment = "{environment()}"',
        "",
        "[instructions]",
        *(f'"{name}" = {count}' for name, count in now.items()),
    ]
    BASELINE.write_text("\n".join(lines) + "\n")
    print(BASELINE.read_text())


def compare() -> int:
    baseline = tomllib.loads(BASELINE.read_text())
    same = baseline["environment"] == environment()
    most = MOST if same else MOST_ELSEWHERE
    if not same:
        print(f"recorded with {baseline['environment']}; this is {environment()}")
    failed = 0
    for name, count in counted().items():
        before = baseline["instructions"].get(name)
        ratio = count / before if before else 1.0
        wrong = before is None or ratio > most
        failed += wrong
        print(
            f"{name:28} {count:>12,}  {ratio:6.3f} x{'  <-- above the baseline' if wrong else ''}"
        )
    if failed:
        print(
            f"{failed} above {most} times the baseline. Make them cheaper, or record why they are"
            ' dearer: make instructions-baseline REASON="..."'
        )
    return int(failed > 0)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", metavar="REASON")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        run()
    elif lacking := missing():
        # CI installs what is missing, so that nothing is skipped there without being noticed.
        fails = asked.record or os.environ.get("CI")
        print(f"make instructions: {'failed' if fails else 'skipped'}: {lacking}", file=sys.stderr)
        return int(bool(fails))
    elif asked.record:
        record(asked.record)
    else:
        return compare()
    return 0


if __name__ == "__main__":
    sys.exit(main())
