"""Upgrades of a running gateway to a program that was installed meanwhile: what goes on, and what fails."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import headgate
from gateway import Gateway
from headgate.storage.sqlite.database import Store
from played import PlayedUpstream
from reloading import Reloadable, ask, chat, lives, under_load
from waiting import PATIENCE_S, wait_for


class Installed(Reloadable):
    """A gateway whose program is a copy that tests may change."""

    def __init__(self, directory: Path, upstream: PlayedUpstream) -> None:
        self.package = directory / "installed" / "headgate"
        source = Path(headgate.__file__).parent
        shutil.copytree(source, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        super().__init__(directory, upstream, PYTHONPATH=str(self.package.parent))

    def upgrade(self) -> None:
        done = self.command("upgrade")
        assert done.returncode == 0, done.stderr + self.log

    def reload(self) -> None:
        done = self.command("reload")
        assert done.returncode == 0, done.stderr

    @contextlib.contextmanager
    def changed(self, file: str, old: str, new: str) -> Iterator[None]:
        """Within it, the installed program is another one."""
        path = self.package / file
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))
        try:
            yield
        finally:
            path.write_text(before)


@pytest.fixture(scope="module")
def served(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    running = Installed(tmp_path_factory.mktemp("upgrade"), upstream)
    yield running
    running.end()
    assert not list((running.gate.data / "live").iterdir())


def a_key(gate: Gateway, **terms: int) -> dict[str, str]:
    store = Store(gate.data)
    _, text = store.create_key("k", now_s=0.0, **terms)  # type: ignore[arg-type]
    store.close()
    return {"authorization": f"Bearer {text}"}


def status(gate: Gateway, headers: dict[str, str]) -> int:
    return gate.post("/v1/chat/completions", chat("hello"), **headers).status_code


def test_an_upgrade_under_load_refuses_and_cuts_nothing(served: Installed) -> None:
    first = served.pid
    with served.changed("__init__.py", "__all__ =", "__version__ = '99.1'\n__all__ ="):
        steps = [served.reload, served.upgrade, served.reload]
        asyncio.run(under_load(served, steps, streams=12, clients=6))
    second = served.pid
    assert second != first
    assert "version 99.1" in served.log
    assert served.generations() == {4}
    # The one before ends with its last request.
    assert served.gate.process.wait(PATIENCE_S) == 0
    assert lives(second)
    assert [p["generation"] for p in served.processes("edge")] == [4, 4]


@pytest.mark.long
def test_ten_reloads_and_three_upgrades_under_load_refuse_and_cut_nothing(
    served: Installed,
) -> None:
    steps = [served.reload, served.reload, served.reload, served.upgrade] * 3 + [served.reload]
    asyncio.run(under_load(served, steps, streams=50, clients=20))


def test_counts_and_kept_replies_outlive_an_upgrade(served: Installed) -> None:
    gate = served.gate
    limited = a_key(gate, rpm=4)
    assert [status(gate, limited) for _ in range(3)] == [200] * 3
    sent = {**a_key(gate), "idempotency-key": "of-the-node-before"}
    first = gate.post("/v1/chat/completions", chat("hello"), **sent)
    served.upgrade()
    assert [status(gate, limited) for _ in range(3)].count(200) <= 2
    again = gate.post("/v1/chat/completions", chat("hello"), **sent)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


def stays(served: Installed, pid: int, node: int | None) -> None:
    """The supervisor serves on, with a node."""
    assert served.pid == pid and lives(pid)
    assert ask(served.gate).status_code == 200
    if node is not None:
        assert [p["pid"] for p in served.processes("node")] == [node]


def test_a_program_that_does_not_start_leaves_the_running_one_serving(served: Installed) -> None:
    pid, (node,) = served.pid, served.processes("node")
    with served.changed("supervisor/upgrade.py", "import asyncio", "import no_such_module"):
        done = served.command("upgrade")
    assert done.returncode == 1
    assert "it ended before it was ready; the log says why" in done.stderr
    assert "No module named 'no_such_module'" in served.log
    assert "the upgrade failed, and this process serves on" in served.log
    stays(served, pid, int(str(node["pid"])))


def test_a_configuration_that_is_not_valid_leaves_the_running_one_serving(
    served: Installed,
) -> None:
    pid, (node,) = served.pid, served.processes("node")
    served.write("", before="body_bytes = 1\n")
    os.kill(pid, signal.SIGUSR2)
    wait_for(lambda: re.search("this process serves on: .*Expected `int` >= 1024", served.log))
    served.write("")
    stays(served, pid, int(str(node["pid"])))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("edge/listeners.py", "import asyncio", "import no_such_module"),  # once it has the node
        ("node/process.py", "import asyncio", "import no_such_module"),
    ],
)
def test_children_that_do_not_start_leave_the_running_one_serving(
    served: Installed, file: str, old: str, new: str
) -> None:
    pid = served.pid
    with served.changed(file, old, new):
        done = served.command("upgrade")
        assert done.returncode == 1
        assert "was not ready; the log says why" in done.stderr
    wait_for(lambda: ask(served.gate).status_code == 200)
    stays(served, pid, None)
    wait_for(lambda: len(served.processes("node")) == 1)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def named(pid: int, word: str) -> bool:
    with contextlib.suppress(OSError):
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@pytest.mark.parametrize("then", ["at once", "with its node", "with its edges"])
def test_a_new_supervisor_that_is_killed_leaves_the_running_one_serving(
    served: Installed, then: str
) -> None:
    pid = served.pid
    os.kill(pid, signal.SIGUSR2)

    def coming() -> list[int]:
        return [child for child in children(pid) if named(child, "--take-over-from")]

    seen: list[int] = []

    def comes() -> bool:  # what is seen once may not be seen while it begins another program
        seen[:] = coming()
        return bool(seen)

    wait_for(comes)
    (new,) = seen
    role = {"with its node": "node", "with its edges": "edge"}.get(then)
    if role is not None:
        wait_for(lambda: any(named(child, role) for child in children(new)))
    os.kill(new, signal.SIGKILL)
    wait_for(lambda: not coming())
    wait_for(lambda: ask(served.gate).status_code == 200)
    wait_for(lambda: len(served.processes("node")) == 1)
    stays(served, pid, None)
    if then == "with its edges":
        served.upgrade()
        assert served.pid != pid
    assert ask(served.gate).status_code == 200


def drains(gate: Gateway) -> bool:
    try:
        return gate.get("/readyz").status_code == 503
    except httpx2.TransportError:  # it accepts no connections any more
        return True


@pytest.mark.long
def test_a_second_signal_ends_the_one_before_at_once_too(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    running = Installed(tmp_path, upstream)
    url, headers = f"{running.gate.url}/v1/chat/completions", a_key(running.gate)
    with (
        httpx2.Client(timeout=4 * PATIENCE_S) as client,
        client.stream("POST", url, json=chat("held", stream=True), headers=headers) as reply,
    ):
        before = running.pid
        running.upgrade()
        running.upgrade()  # the first one drains behind the second, and the second behind the third
        after = running.pid
        os.kill(after, signal.SIGTERM)  # the stream has 30 s now
        wait_for(lambda: drains(running.gate))
        os.kill(after, signal.SIGTERM)
        assert b"[DONE]" not in reply.read()
        wait_for(lambda: not lives(before) and not lives(after))


def test_the_end_of_an_upgraded_gateway_ends_the_one_before_too(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    running = Installed(tmp_path, upstream)
    running.write("", before="drain_s = 0.1\n")
    running.reload()
    url, headers = f"{running.gate.url}/v1/chat/completions", a_key(running.gate)
    with (
        httpx2.Client(timeout=4 * PATIENCE_S) as client,
        client.stream("POST", url, json=chat("held", stream=True), headers=headers) as reply,
    ):
        before = running.pid
        running.upgrade()
        states = {(p["generation"], p["state"]) for p in running.processes("edge")}
        assert states == {(2, "ending"), (3, "ready")}
        assert lives(before)
        running.end()
        assert not lives(before)
        body = reply.read()
        assert b'"error"' in body and b"[DONE]" not in body.rpartition(b'"error"')[0]
    assert not list((running.gate.data / "live").iterdir())
