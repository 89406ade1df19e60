"""The lock of a data directory: one gateway serves it, and a dead one is in nobody's way."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.storage.errors import StoreError
from headgate.storage.sqlite import process_lock
from headgate.storage.sqlite.process_lock import AlreadyServed, ServeLock

HOLDER = """
import subprocess, sys
from headgate.storage.sqlite.process_lock import ServeLock
lock = ServeLock(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
"""


def holder(data: Path) -> subprocess.Popen[str]:
    """A process that holds the lock and has a child that lives on."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_second_gateway_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    first = ServeLock(tmp_path)
    with pytest.raises(AlreadyServed, match=f"process {os.getpid()} already") as found:
        ServeLock(tmp_path)
    assert found.value.pid == os.getpid()
    assert "--data" in str(found.value)
    first.release()
    first.release()
    ServeLock(tmp_path).release()


def test_a_gateway_that_was_killed_is_in_nobodys_way_though_its_child_lives(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(AlreadyServed) as found:
            ServeLock(tmp_path)
        assert found.value.pid == process.pid
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        ServeLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()


def test_a_copied_directory_is_not_locked(tmp_path: Path) -> None:
    first = ServeLock(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    second = ServeLock(tmp_path / "copy")
    first.release()
    second.release()


@pytest.mark.parametrize("text", ["", "nonsense", "12 34"])
def test_a_lock_without_a_number_is_still_a_lock(tmp_path: Path, text: str) -> None:
    lock = ServeLock(tmp_path)
    (tmp_path / "serve.lock").write_text(text)
    with pytest.raises(AlreadyServed, match="another process") as found:
        ServeLock(tmp_path)
    assert found.value.pid == 0
    lock.release()


def test_a_file_system_without_locks_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(file: int) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(process_lock, "_lock", no_locks)
    with pytest.raises(StoreError, match=r"cannot be locked: No locks available.*local disk"):
        ServeLock(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        ServeLock(tmp_path / "file" / "data")
