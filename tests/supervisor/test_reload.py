"""Reloads of a running gateway: what changes, what stays, and that no request notices."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gateway import COMMAND, Gateway, environment, start, stop
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import PATIENCE_S, pause, until, wait_for

CONFIG = """
edges = 2
[upstreams.custom]
preset = "custom"
base_url = "{url}"
dialect = "openai"
key = "file:{secret}"
allow_http = true
{more}
"""


class Reloadable:
    """A gateway with a file of its own."""

    def __init__(self, directory: Path, upstream: PlayedUpstream) -> None:
        self.file, self.secret = directory / "headgate.toml", directory / "secret"
        self.url = upstream.url("openai")
        self.secret.write_text("first-secret")
        self.write("")
        self.gate = start(directory / "data", "--config", str(self.file))
        self.gate.upstream = upstream

    def write(self, more: str, before: str = "") -> None:
        text = CONFIG.format(url=self.url, secret=self.secret, more=more)
        self.file.write_text(before + text)

    def command(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        data = ("--data", str(self.gate.data), "--config", str(self.file))
        return subprocess.run(
            [*COMMAND, name, *data, *options],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )

    def generations(self) -> set[int]:
        """Those of the edges that run."""
        found = json.loads(self.command("status", "--json").stdout)
        return {p["generation"] for p in found["processes"] if p["name"] == "edge"}


@pytest.fixture(scope="module")
def served(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reloadable]:
    running = Reloadable(tmp_path_factory.mktemp("reload"), upstream)
    yield running
    assert stop(running.gate) == 0
    books = UsageReader(running.gate.data)
    assert (books.audit(), books.intents()) == ([], 0)
    books.close()


def chat(text: str, **more: object) -> dict[str, object]:
    return {"model": "MiniMax-M2", "messages": [{"role": "user", "content": text}], **more}


def ask(gate: Gateway) -> httpx2.Response:
    return gate.post("/v1/chat/completions", chat("hello"))


def test_a_reload_prints_what_has_changed_and_puts_it_in_force(served: Reloadable) -> None:
    served.write("", before="body_bytes = 2048\n")
    done = served.command("reload")
    assert done.returncode == 0, done.stderr
    assert "body_bytes: 33554432 -> 2048" in done.stdout
    assert served.gate.post("/v1/chat/completions", chat("x" * 4000)).status_code == 413
    served.write("")
    assert "body_bytes: 2048 -> 33554432" in served.command("reload").stdout
    assert served.gate.post("/v1/chat/completions", chat("x" * 4000)).status_code == 200
    wait_for(lambda: len(served.generations()) == 1)


def test_a_secret_in_a_file_is_read_anew_and_shown_nowhere(served: Reloadable) -> None:
    upstream = served.gate.upstream
    assert upstream is not None
    served.secret.write_text("second-secret")
    done = served.command("reload")
    assert "upstreams.custom.key: another value" in done.stdout
    assert "secret" not in done.stdout.replace(str(served.secret), "")
    assert ask(served.gate).status_code == 200
    assert upstream.last.headers["authorization"] == "Bearer second-secret"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("body_bytes = 1\n", "Expected `int` >= 1024"),
        ("no_such_key = 1\n", "unknown key `no_such_key`"),
        ("= =\n", "not valid TOML"),
    ],
)
def test_a_file_that_is_not_valid_changes_nothing_and_is_reported(
    served: Reloadable, before: str, words: str
) -> None:
    generations = served.generations()
    text = served.file.read_text()
    served.file.write_text(before + text)
    done = served.command("reload")
    served.file.write_text(text)
    assert done.returncode == 1
    assert words in done.stderr
    assert served.generations() == generations
    assert ask(served.gate).status_code == 200


def test_what_only_an_edge_can_see_is_reported_and_the_old_generation_stays(
    served: Reloadable,
) -> None:
    served.write('[models."MiniMax-M2"]\nroutes = [{ upstream = "nobody" }]\n')
    done = served.command("reload")
    served.write("")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert ask(served.gate).status_code == 200
    wait_for(lambda: len(served.generations()) == 1)


def test_sighup_reloads_and_ends_nothing(served: Reloadable) -> None:
    (before,) = served.generations()
    os.kill(served.gate.process.pid, signal.SIGHUP)
    wait_for(lambda: served.generations() == {before + 1})
    assert served.gate.process.poll() is None
    log = (served.gate.data.parent / "data.log").read_text()
    assert f"generation {before + 1} serves" in log


def test_reloads_under_load_refuse_and_cut_nothing(served: Reloadable) -> None:
    asyncio.run(under_load(served, reloads=2, streams=12, clients=6))


@pytest.mark.long
def test_ten_reloads_under_load_refuse_and_cut_nothing(served: Reloadable) -> None:
    asyncio.run(under_load(served, reloads=10, streams=50, clients=20))


async def under_load(served: Reloadable, reloads: int, streams: int, clients: int) -> None:
    """Clients ask all the time, half of them on connections that they keep; streams last throughout."""
    gate = served.gate
    assert gate.upstream is not None
    before, over = len(gate.upstream.seen), asyncio.Event()
    url = f"{gate.url}/v1/chat/completions"
    headers = {"authorization": f"Bearer {gate.key}"}
    statuses: list[int] = []

    async def asks(n: int) -> None:
        kept = httpx2.Limits(max_keepalive_connections=n % 2)
        async with httpx2.AsyncClient(limits=kept, timeout=PATIENCE_S) as client:
            while not over.is_set():
                reply = await client.post(url, json=chat("hello"), headers=headers)
                statuses.append(reply.status_code)
                await pause(0.02, "a client that does not ask as fast as it can")

    async def streamed(started: list[int]) -> str:
        async with (
            httpx2.AsyncClient(timeout=4 * PATIENCE_S) as client,
            client.stream("POST", url, json=chat("held", stream=True), headers=headers) as reply,
        ):
            started.append(reply.status_code)
            return (await reply.aread()).decode()

    started: list[int] = []
    running = [asyncio.create_task(streamed(started)) for _ in range(streams)]
    await until(lambda: len(started) == streams)
    held = gate.upstream.seen[before:]
    load = [asyncio.create_task(asks(n)) for n in range(clients)]
    for _ in range(reloads):
        done = await asyncio.to_thread(served.command, "reload")
        assert done.returncode == 0, done.stderr
    over.set()
    await asyncio.gather(*load)
    for seen in held:
        gate.upstream.release(seen)
    texts = await asyncio.gather(*running)
    assert set(statuses) == {200} and len(statuses) > reloads
    assert all(text.rstrip().endswith("data: [DONE]") for text in texts)
    await until(lambda: len(served.generations()) == 1)
