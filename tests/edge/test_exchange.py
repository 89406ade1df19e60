"""What an exchange leaves behind when it ends in the middle: nothing; seen from inside the gate."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from headgate.catalog import building
from headgate.catalog.routes import Route
from headgate.config import loading
from headgate.edge.app import App
from headgate.edge.context import EdgeContext
from headgate.edge.log import Log
from headgate.net.server import Server
from headgate.policy.breaker import IN_A_ROW, OPEN_S
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import PATIENCE_S, until

M = "MiniMax-M2"
Main = Callable[["Inside"], Awaitable[None]]


class Inside:
    """A gateway in this process, in front of the played upstream by two names."""

    def __init__(self, gate: EdgeContext, key: str, port: int) -> None:
        self.gate = gate
        self.client = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {key}"},
            timeout=PATIENCE_S,
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        return self.gate.served.catalog.routes(M)

    def has_paused(self, route: Route) -> None:
        """The route has failed, and its pause is over."""
        for _ in range(IN_A_ROW):
            then_s = time.monotonic() - OPEN_S - 1
            self.gate.outbound.health.breaker.failed(route.id, "upstream", then_s)

    def is_probed(self, route: Route) -> bool:
        pause = self.gate.outbound.health.breaker.pause(route.id)
        return pause is not None and pause.probed_s > 0

    async def ask(self, text: str, **fields: object) -> httpx2.Response:
        body = {"model": M, "messages": [{"role": "user", "content": text}], **fields}
        return await self.client.post("/v1/chat/completions", json=body)


@pytest.fixture
def inside(tmp_path: Path, upstream: PlayedUpstream) -> Iterator[Callable[..., None]]:
    def run(main: Main, more: str = "", **terms: Any) -> None:
        file = tmp_path / "headgate.toml"
        tables = [
            f'[upstreams.{name}]\npreset = "minimax"\nbase_url = "{upstream.url("openai")}"\n'
            f'key = "env:UP_KEY"\n{more}\n'
            for name in ("one", "two")
        ]
        file.write_text("\n".join(tables))
        env = {"UP_KEY": "k"}
        settings = loading.load(str(file), env, data=str(tmp_path / "data"))

        async def bounded() -> None:
            async with asyncio.timeout(3 * PATIENCE_S):
                store = Store(settings.data)
                _, text = store.create_key("test", now_s=time.time(), **terms)
                ledger, books = Ledger(settings.data), UsageReader(settings.data)
                catalog = building.load(settings, env)
                gate = EdgeContext(settings, catalog, store, ledger, books, Log("off"))
                server = Server(App(gate))
                port = await server.listen("127.0.0.1", 0)
                here = Inside(gate, text, port)
                try:
                    await main(here)
                finally:
                    await here.client.aclose()
                    server.stop_accepting()
                    await server.drain(0)
                    await gate.close()
                    books.close()
                    ledger.close()
                    store.close()

        asyncio.run(bounded())

    yield run


@contextlib.asynccontextmanager
async def asking(here: Inside, text: str, **fields: object) -> AsyncIterator[None]:
    """A client that leaves at the end of the block."""
    task = asyncio.create_task(here.ask(text, **fields))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_probe_of_a_paused_route_lasts_no_longer_than_its_request(
    inside: Callable[..., None], upstream: PlayedUpstream
) -> None:
    async def main(here: Inside) -> None:
        first, second = here.routes
        here.has_paused(first)
        here.has_paused(second)
        assert (await here.ask("far too much " * 10000)).status_code >= 400
        assert not here.is_probed(first)
        seen = len(upstream.seen)
        async with asking(here, "silent 600"):
            await until(lambda: len(upstream.seen) > seen)
            assert here.is_probed(first)
        await until(lambda: not here.is_probed(first))
        assert (await here.ask("hello")).headers["x-headgate-upstream"] == f"one/{M}"
        assert not here.is_probed(first) and not here.is_probed(second)
        assert (
            here.gate.outbound.health.breaker.standing(first.id, time.monotonic()).state == "closed"
        )
        assert (
            here.gate.outbound.health.breaker.standing(second.id, time.monotonic()).state
            == "half_open"
        )

    inside(main, tpm=10000)


def test_a_route_with_no_room_gives_its_probe_back(inside: Callable[..., None]) -> None:
    async def main(here: Inside) -> None:
        first = here.routes[0]
        assert (await here.ask("hello")).headers["x-headgate-upstream"] == f"one/{M}"
        here.has_paused(first)
        assert (await here.ask("hello")).headers["x-headgate-upstream"] == f"two/{M}"
        assert not here.is_probed(first)

    inside(main, "rpm = 1")


def test_what_an_upstream_was_sent_counts_though_the_client_left_at_once(
    inside: Callable[..., None], upstream: PlayedUpstream
) -> None:
    async def main(here: Inside) -> None:
        seen, system = len(upstream.seen), {"role": "system", "content": " word" * 300}
        silent, hello = (
            [system, {"role": "user", "content": text}] for text in ("silent 600", "hello")
        )
        async with asking(here, "", messages=silent):
            await until(lambda: len(upstream.seen) > seen)
        await until(lambda: not here.gate.outbound.client.open)
        served = await here.ask("", messages=hello)
        assert served.headers["x-headgate-upstream"] == f"two/{M}"

    inside(main, "tpm = 500")


def test_a_request_that_outlives_its_keys_limits_leaves_none_behind(
    inside: Callable[..., None], upstream: PlayedUpstream
) -> None:
    async def main(here: Inside) -> None:
        seen = len(upstream.seen)
        running = asyncio.create_task(here.ask("held"))
        await until(lambda: len(upstream.seen) > seen and upstream.seen[seen].held)
        (key,) = here.gate.credentials.ring.keys()
        here.gate.storage.store.change_key(key.id, now_s=time.time(), rpm=2)
        await here.gate.refresh()
        upstream.release(upstream.seen[seen])
        assert (await running).status_code == 200
        said = (await here.ask("hello")).headers
        assert said["x-ratelimit-limit-requests"] == "2"

    inside(main, rpm=100)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_client_that_leaves_while_the_end_is_recorded_leaves_no_upstream_behind(
    stream: bool, inside: Callable[..., None], upstream: PlayedUpstream
) -> None:
    async def main(here: Inside) -> None:
        ledger, rows = here.gate.storage.ledger, asyncio.Queue[LedgerRow]()

        async def never(row: LedgerRow) -> None:
            rows.put_nowait(row)
            await asyncio.Event().wait()

        ledger.settle = never  # type: ignore[method-assign]  # a disk that takes its time
        async with asking(here, "slow 0.01", stop="xxxxxxx", stream=stream):
            row = await rows.get()
            assert row.outcome == "stop_sequence"
        await until(lambda: upstream.last.left)
        assert not here.gate.outbound.client.open

    inside(main)


def test_output_above_the_rest_of_the_context_window_is_lowered(
    inside: Callable[..., None], upstream: PlayedUpstream
) -> None:
    async def main(here: Inside) -> None:
        window = here.routes[0].model.context_window
        asked = await here.ask("hello" + " word" * 90_000, max_tokens=131_072)
        assert "lowered to the context window" in asked.headers["x-headgate-warnings"]
        sent = upstream.last.request.sampling.max_tokens
        assert sent is not None and 80_000 < sent < window - 90_000

    inside(main)
