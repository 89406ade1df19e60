"""The drill of docs/deployment.md: a backup under load, the machine lost, restored, audited, serving."""

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway import COMMAND, environment, start, stop
from played import PlayedUpstream
from waiting import PATIENCE_S, wait_for

CHAT = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hello"}]}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=environment(), capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def saved(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path, str]]:
    """A backup that was taken under load, the pepper, and a key; the machine is gone."""
    place = tmp_path_factory.mktemp("drill")
    gate = start(place / "data", HEADGATE_UPSTREAM_URL=upstream.url("openai"))
    done: list[int] = []
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():
            done.append(gate.post("/v1/chat/completions", CHAT).status_code)

    loads = [threading.Thread(target=load) for _ in range(3)]
    for thread in loads:
        thread.start()
    try:
        wait_for(lambda: len(done) > 20)
        taken = run("backup", place / "copy.db", "--data", gate.data)
        assert taken.returncode == 0, taken.stderr
        after = len(done)
        wait_for(lambda: len(done) > after)
    finally:
        ending.set()
        for thread in loads:
            thread.join()
    shutil.copy(gate.data / "pepper", place / "pepper")
    gate.process.send_signal(signal.SIGTERM)
    gate.process.wait(PATIENCE_S)
    assert set(done) == {200}
    shutil.rmtree(gate.data)
    yield place / "copy.db", place / "pepper", gate.key


def test_the_drill(saved: tuple[Path, Path, str], upstream: PlayedUpstream, tmp_path: Path) -> None:
    copy, pepper, key = saved
    data = tmp_path / "new machine" / "data"
    restored = run("restore", copy, "--pepper", pepper, "--data", data)
    assert restored.returncode == 0 and "with 1 keys" in restored.stdout, restored.stderr
    assert (data / "pepper").stat().st_mode & 0o777 == 0o600
    audit = run("audit", "--data", data)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    before = spent(data)
    assert before >= 20
    gate = start(data, HEADGATE_UPSTREAM_URL=upstream.url("openai"))
    try:
        again = msgspec.structs.replace(gate, key=key)
        assert again.post("/v1/chat/completions", CHAT).status_code == 200  # the key of before
    finally:
        assert stop(gate) == 0
    assert run("audit", "--data", data).returncode == 0
    assert spent(data) > before


def spent(data: Path) -> int:
    found = json.loads(run("usage", "--by", "key", "--json", "--data", data).stdout)
    rows = found if isinstance(found, list) else found["rows"]
    return sum(int(row["requests"]) for row in rows)


def test_what_cannot_be_restored_leaves_nothing(
    saved: tuple[Path, Path, str], tmp_path: Path
) -> None:
    copy, pepper, _ = saved
    other = tmp_path / "other pepper"
    other.write_bytes(bytes(range(32)))
    short = tmp_path / "short pepper"
    short.write_bytes(b"abc")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(copy.read_bytes()[:8192] + bytes(40_000))
    text = tmp_path / "text.db"
    text.write_text("no database")
    empty = tmp_path / "empty.db"
    empty.write_bytes(b"")
    for file, secret, said in (
        (copy, other, "not the pepper"),
        (copy, short, "damaged"),
        (damaged, pepper, "damaged"),
        (text, pepper, "damaged"),
        (empty, pepper, "damaged"),
    ):
        data = tmp_path / "data"
        done = run("restore", file, "--pepper", secret, "--data", data)
        assert done.returncode == 1 and said in done.stderr, (file, done.stderr)
        assert "Traceback" not in done.stderr
        assert list(data.iterdir()) == []


def test_a_directory_with_data_is_left_alone(saved: tuple[Path, Path, str], tmp_path: Path) -> None:
    copy, pepper, _ = saved
    data = tmp_path / "data"
    assert run("keys", "create", "mine", "--data", data).returncode == 0
    done = run("restore", copy, "--pepper", pepper, "--data", data)
    assert done.returncode == 1 and "holds data already" in done.stderr
    assert "mine" in run("keys", "list", "--data", data).stdout
