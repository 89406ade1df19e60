"""The benchmarks: their tables, and that what is written of them agrees; the figures come from `make bench`."""

import json
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "evals" / "bench"))

import bodies
import instructions
import profile_steps
import pytest
import run
import targets
import upstream

from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS

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


def test_one_gateway_alone_has_figures_but_no_ratios() -> None:
    keys = ("rate", "small", "agent", "chunk", "rest", "idle")
    found = {name: t for name, t in targets.targets().items() if name in ("nginx", "headgate")}

    def text(*names: str) -> str:
        rows = {key: run.Row(key, "us", 0, {name: [10.0] for name in names}) for key in keys}
        return run.written(rows, {name: found[name] for name in names})

    assert "| small | 10 us |" in text("headgate") and "| small | 10 us |" in text("nginx")
    assert " x" not in text("headgate").partition("\n\n")[2].partition("\n- ")[0]
    assert "(1.0 x)" in text("nginx", "headgate")


class Sent:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_the_benchmarks_upstream_lists_its_model_when_it_is_asked() -> None:
    server, sent = upstream.Upstream(), Sent()
    server.connection_made(sent)
    for part in (b"GET /v1/models HTTP/1.1\r\nhost: x", b"\r\n\r\n"):
        server.data_received(part)
    head, _, body = sent.data.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    assert [model["id"] for model in json.loads(body)["data"]] == ["MiniMax-M2"]


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


def test_agent_bodies_have_no_field_that_their_protocol_lacks() -> None:
    for name, dialect in DIALECTS.items():
        request = dialect.decode_request(bodies.agent(name), RequestTarget("MiniMax-M2", True))
        assert [w for w in request.warnings if "stream" in w] == []


def test_without_valgrind_instructions_are_skipped_except_in_ci(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda tool: None)
    monkeypatch.setattr(instructions.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "argv", ["instructions.py"])
    monkeypatch.delenv("CI", raising=False)
    assert instructions.main() == 0
    assert "skipped: needs valgrind" in capsys.readouterr().err
    monkeypatch.setenv("CI", "true")
    assert instructions.main() == 1


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
