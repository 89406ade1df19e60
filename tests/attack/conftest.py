"""Attacks on a real `headgate serve` over loopback: bounded in count, measured in CPU seconds and bytes.

Each test is one attack. The quick ones run with `make test`; those marked `long` run with `make attack`.
Note: limits here are CPU seconds of the process tree, counts and megabytes, never wall time.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attacking import Target, start_target
from gateway import stop
from played import PlayedUpstream


@pytest.fixture
def target(tmp_path: Path, upstream: PlayedUpstream) -> Iterator[Callable[..., Target]]:
    """Start a gateway in front of the played upstream: `target(config="...", NAME="...")`.

    `descriptors` bounds how many files it may open.

    Every gateway that a test starts is stopped when it ends, and must then exit with 0 (unless the
    test ended it itself).
    """
    running: list[Target] = []

    def begin(config: str = "", descriptors: int = 0, **env: str) -> Target:
        directory = tmp_path / f"gateway{len(running)}"
        found = start_target(directory, upstream, config, env, descriptors)
        running.append(found)
        return found

    yield begin
    codes = [stop(t.gateway) for t in running if t.gateway.process.poll() is None]
    assert not any(codes), codes
