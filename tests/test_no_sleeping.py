"""No test sleeps, and each says in the same way that it lacks a program: read from their code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import DEBIAN

ROOT = Path(__file__).parent.parent
TESTS = [
    path
    for directory in ("tests", "evals/soak")
    for path in sorted((ROOT / directory).rglob("*.py"))
    if path.name not in ("waiting.py", "programs.py", Path(__file__).name)
]

# Calls that wait for a moment, or decide on their own that a test is skipped, and what to use.
INSTEAD = {
    "sleep": "wait_for or until of waiting.py, or pause with its reason (sleep(0) is a turn of the loop)",
    "wait_for_timeout": "Playwright's expect, or wait_for of waiting.py",
    "wait_for_load_state": "a condition: drawn of browsing.py, or expect",
    "which": "needs or path_of of programs.py",
    "skipif": "needs of programs.py",
}


def calls(code: str) -> Iterator[tuple[int, str]]:
    """The line and the name of each call that `INSTEAD` forbids."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
            zero = [a.value for a in node.args if isinstance(a, ast.Constant)] == [0]
            system = any(ast.unparse(a).startswith("sys.platform") for a in node.args)
            if name in INSTEAD and not (
                (name == "sleep" and zero) or (name == "skipif" and system)
            ):
                yield node.lineno, name


@pytest.mark.parametrize("path", TESTS, ids=[str(p.relative_to(ROOT)) for p in TESTS])
def test_no_test_waits_for_a_moment_or_skips_on_its_own(path: Path) -> None:
    found = [f"line {n}: {name}: use {INSTEAD[name]}" for n, name in calls(path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(1)",
        "await asyncio.sleep(0.01)",
        "sleep(x)",
        "page.wait_for_timeout(5)",
        "pytest.mark.skipif(True, reason='')",
        "shutil.which('node')",
        "page.wait_for_load_state()",
    ],
)
def test_the_reader_finds_each_kind(code: str) -> None:
    assert len(list(calls(code))) == 1
    assert not list(calls("await asyncio.sleep(0)"))


def test_ci_installs_every_program_that_a_test_needs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    installed = re.search(r"for tool in ([^;]+);", script)
    assert installed is not None
    assert set(DEBIAN) <= set(installed[1].split())


def test_a_missing_program_is_a_skip_at_home_and_a_failure_in_ci(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from programs import needs

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"not installed: node.*apt install nodejs"):
        needs("node")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must not skip"):
        needs("node")
