"""The benchmarks: their tables, and that what is written of them agrees; the figures come from `make bench`."""

import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "evals" / "bench"))

import instructions
import profile_steps
import run
import targets
import upstream

ROOT = Path(__file__).parent.parent


def between(path: Path) -> str:
    return path.read_text().partition(run.BEGIN)[2].partition(run.END)[0]


def test_the_readme_repeats_only_what_the_benchmark_printed() -> None:
    shown = between(ROOT / "README.md")
    assert shown.startswith("- ") and "nginx" in shown
    assert run.linked_from_docs(shown) in between(ROOT / "docs" / "performance.md")


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    row = run.Row("t", "us", 0, {"nginx": [10.0, 20.0, 40.0], "headgate": [30.0, 40.0, 400.0]})
    assert row.times("headgate") == 3.0
    assert row.cell("headgate") == "40 us (3.0 x)" and row.cell("nginx") == "20 us"
    assert row.cell("absent") == "-"
    assert run.table({"a": row}, ["nginx", "headgate"]).endswith("| t | 20 us | 40 us (3.0 x) |\n")


def test_each_target_fills_in_its_places() -> None:
    found = targets.targets()
    assert {"nginx", "headgate", "litellm"} <= set(found)
    for target in found.values():
        for text in (target.config, *target.command, *target.env.values()):
            filled = targets._filled(text, targets._places(port="1", upstream="2", dir="/d"))
            assert not {"{port}", "{upstream}", "{dir}", "{python}", "{root}"} & set(filled.split())
    assert "listen 127.0.0.1:1;" in targets._filled(found["nginx"].config, {"port": "1"})


def test_the_baseline_has_exactly_the_steps_that_are_counted() -> None:
    baseline = tomllib.loads(instructions.BASELINE.read_text())
    assert set(baseline["instructions"]) == set(instructions.scenarios())
    assert baseline["reason"] and baseline["environment"]


def test_each_counted_step_does_its_work() -> None:
    for name, step in instructions.scenarios().items():
        done = step()
        if name.startswith("agent request"):
            assert isinstance(done, bytes) and 300_000 < len(done) < 500_000
            assert done.count(b"module_99.py") == 1


def test_the_benchmarks_upstream_ends_its_streams() -> None:
    plain = instructions._unchunked(upstream.END)
    assert plain.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"stop"' in plain


def test_modules_belong_to_the_first_step_that_fits() -> None:
    root = profile_steps.PACKAGE
    assert profile_steps.step_of(root + "policy/history.py") == "history and fit"
    assert profile_steps.step_of(root + "dialects/openai/reply.py") == "reply encoded and sent"
    assert profile_steps.step_of(root + "config/__init__.py") == "the rest"


def test_each_step_of_the_profile_names_modules_that_exist() -> None:
    package = Path(profile_steps.PACKAGE)
    modules = [path.relative_to(package).as_posix() for path in package.rglob("*.py")]
    begins = [begin for _, begins in profile_steps.STEPS for begin in begins]
    assert [b for b in begins if not any(m.startswith(b) for m in modules)] == []
