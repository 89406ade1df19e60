"""A gateway with a configuration file of its own, which tests reload and upgrade, and load that notices."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2

from gateway import COMMAND, Gateway, environment, start
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

    def __init__(self, directory: Path, upstream: PlayedUpstream, **env: str) -> None:
        self.file, self.secret = directory / "headgate.toml", directory / "secret"
        self.url = upstream.url("openai")
        self.secret.write_text("first-secret")
        self.write("")
        self.gate = start(directory / "data", "--config", str(self.file), **env)
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

    def processes(self, name: str) -> list[dict[str, object]]:
        """Those of one kind that run, by `headgate status`."""
        found = json.loads(self.command("status", "--json").stdout)
        return [p for p in found["processes"] if p["name"] == name]

    def generations(self) -> set[int]:
        """Those of the edges that run."""
        return {int(str(p["generation"])) for p in self.processes("edge")}

    @property
    def pid(self) -> int:
        """The supervisor that serves."""
        return int((self.gate.data / "serve.lock").read_text())

    @property
    def log(self) -> str:
        return (self.gate.data.parent / "data.log").read_text()

    def end(self) -> None:
        """End it in good order, whichever supervisor serves; its books must add up."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not lives(pid))
        assert self.gate.process.wait(PATIENCE_S) == 0
        ledger_reports = UsageReader(self.gate.data)
        assert (ledger_reports.audit(), ledger_reports.intents()) == ([], 0)
        ledger_reports.close()


def lives(pid: int) -> bool:
    """Whether a process runs, that may be nobody's child."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def chat(text: str, **more: object) -> dict[str, object]:
    return {"model": "MiniMax-M2", "messages": [{"role": "user", "content": text}], **more}


def ask(gate: Gateway) -> httpx2.Response:
    return gate.post("/v1/chat/completions", chat("hello"))


async def under_load(
    served: Reloadable, steps: Sequence[Callable[[], None]], streams: int, clients: int
) -> None:
    """Take the steps while clients ask all the time, half of them on connections that they keep.

    Streams last from before the first step until after the last one; nothing may be refused or cut.
    """
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

    async def looks() -> None:
        """A balancer, which takes a gateway out that is not ready once."""
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
            while not over.is_set():
                reply = await client.get(f"{gate.url}/readyz", headers={"connection": "close"})
                statuses.append(reply.status_code)
                await pause(0.01, "a balancer that does not ask as fast as it can")

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
    load.append(asyncio.create_task(looks()))
    for step in steps:
        await asyncio.to_thread(step)
    over.set()
    await asyncio.gather(*load)
    for seen in held:
        gate.upstream.release(seen)
    texts = await asyncio.gather(*running)
    assert set(statuses) == {200} and len(statuses) > len(steps)
    assert all(text.rstrip().endswith("data: [DONE]") for text in texts)
    await until(lambda: len(served.generations()) == 1)
