"""`make coverage`: what of the translation and the pipeline the tests run, by lines and branches.

Runs the tests that are about these packages, and every process that they start, under coverage.py, and fails
when a package is below its bound.  The bounds are on lines and branches together.  Prints what is not covered
of the files that lack most.

    covered.py             run the tests, then judge
    covered.py --judge     judge what was measured before
"""

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
# Percent of lines and branches together.  Of edge/, some modules are run by the tests of the console and the attacks
# (control_proxy, open_pages, management), the end of a process while it counts tokens or answers, and faults of
# the disk and of the node by those of the node; they take too long to be run here.
LEAST = {"dialects": 95.0, "edge": 93.0, "policy": 95.0, "stream": 95.0}
TESTS = (
    "tests/dialects",
    "tests/edge",
    "tests/policy",
    "tests/stream",
    "tests/test_chat.py",
    "tests/test_exchanges.py",
    "tests/test_field_cases.py",
    "tests/test_laws.py",
    "--deselect",
    "tests/edge/test_mixed.py",  # of a load that a gateway under coverage.py does not bear
)
SHOWN = 12  # files
DATA = ROOT / ".coverage-data"


class Summary(msgspec.Struct):
    """The figures of one file, as `coverage json` writes them."""

    num_statements: int
    covered_lines: int
    num_branches: int
    covered_branches: int

    @property
    def all(self) -> int:
        return self.num_statements + self.num_branches

    @property
    def covered(self) -> int:
        return self.covered_lines + self.covered_branches


class File(msgspec.Struct):
    """What of one file was run; a branch is a pair of lines, where a negative one is a way out."""

    summary: Summary
    missing_lines: list[int]
    missing_branches: list[tuple[int, int]]


class Measured(msgspec.Struct):
    """What `coverage json` writes."""

    files: dict[str, File]


def measure() -> int:
    """Run the tests; their exit code."""
    coverage("erase")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "coverage",
            "run",
            "-m",
            "pytest",
            "-n",
            "3",
            "--dist",
            "loadfile",
            *TESTS,
        ],
        cwd=ROOT,
    ).returncode


def coverage(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "coverage", *words], cwd=ROOT, check=True)


def read() -> Measured:
    """Return what all processes have measured together."""
    if any(DATA.parent.glob(f"{DATA.name}.*")):
        coverage("combine", "--quiet")
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "coverage.json"
        coverage("json", "--quiet", "-o", str(out))
        return msgspec.json.decode(out.read_bytes(), type=Measured)


def judge(measured: Measured) -> int:
    """Print the table; 1 when a package is below the bound."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    files = {name.partition("headgate/")[2]: file for name, file in measured.files.items()}
    for name, file in files.items():
        counts = sums[name.partition("/")[0]]
        counts[0] += file.summary.covered
        counts[1] += file.summary.all
    low = []
    for package, least in LEAST.items():
        covered, all_ = sums[package]
        share = 100 * covered / all_ if all_ else 0.0
        low += [package] * (share < least)
        print(
            f"{package:10} {share:6.2f} %  ({all_ - covered} of {all_} lines and branches are not run)"
        )
    lacking = sorted(files.items(), key=lambda each: each[1].summary.covered - each[1].summary.all)
    for name, file in lacking[:SHOWN]:
        ways = [f"{a}->{b if b > 0 else 'out'}" for a, b in file.missing_branches]
        print(f"  {name}: lines {spans(file.missing_lines)}; branches {' '.join(ways)}")
    if low:
        print(f"below the bound: {', '.join(low)}", file=sys.stderr)
    return int(bool(low))


def spans(lines: list[int]) -> str:
    """Return line numbers, those that follow each other as a span."""
    out: list[list[int]] = []
    for line in lines:
        if out and line == out[-1][1] + 1:
            out[-1][1] = line
        else:
            out.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in out) or "-"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--judge", action="store_true", help="do not run the tests again")
    code = 0 if parser.parse_args().judge else measure()
    return code or judge(read())


if __name__ == "__main__":
    sys.exit(main())
