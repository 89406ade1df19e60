"""A key's limits over one, two and four edges: what is granted at once is what the limit says, however many there are."""

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from headgate.storage.sqlite.database import Store
from played import PlayedUpstream
from reloading import Reloadable
from waiting import PATIENCE_S, until, wait_for

ASKED = 80
BODY = {
    "model": "MiniMax-M2",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "held"}],
}


@pytest.fixture(scope="module")
def served(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reloadable]:
    running = Reloadable(tmp_path_factory.mktemp("limits"), upstream)
    yield running
    running.end()


def a_key(served: Reloadable, **terms: Any) -> dict[str, str]:
    store = Store(served.gate.data)
    _, text = store.create_key("limited", now_s=time.time(), **terms)
    store.close()
    return {"authorization": f"Bearer {text}"}


async def all_at_once(served: Reloadable, headers: dict[str, str]) -> list[int]:
    """The statuses; each request has a connection of its own, and no reply ends before all are decided."""
    upstream = served.gate.upstream
    assert upstream is not None
    before = len(upstream.seen)
    limits = httpx2.Limits(max_connections=ASKED, max_keepalive_connections=0)
    async with httpx2.AsyncClient(limits=limits, timeout=3 * PATIENCE_S) as client:
        url = f"{served.gate.url}/v1/messages"
        sent = [
            asyncio.create_task(client.post(url, json=BODY, headers=headers)) for _ in range(ASKED)
        ]
        await until(
            lambda: sum(s.done() for s in sent) + len(upstream.seen) - before == ASKED,
            2 * PATIENCE_S,
        )
        for seen in upstream.seen[before:]:
            upstream.release(seen)
        return [reply.status_code for reply in await asyncio.gather(*sent)]


def tokens(served: Reloadable) -> int:
    """What one request takes of a limit of tokens, as the refusal of one that can never pass says it."""
    reply = httpx2.post(
        f"{served.gate.url}/v1/messages",
        json=BODY,
        headers=a_key(served, tpm=1),
        timeout=PATIENCE_S,
    )
    found = re.search(r"may take (\d+) tokens", reply.text)
    assert reply.status_code == 400 and found is not None, reply.text
    return int(found[1])


@pytest.mark.parametrize("edges", [1, 2, 4])
def test_what_is_granted_at_once_is_what_the_limit_says(served: Reloadable, edges: int) -> None:
    served.write("")
    served.file.write_text(served.file.read_text().replace("edges = 2", f"edges = {edges}"))
    done = served.command("reload")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(served.processes("edge")) == edges)
    takes = tokens(served)
    for terms, granted in (
        ({"tpm": 20 * takes - 1}, 19),  # first: edges learn from replies how far estimates are off
        ({"rpm": 31}, 31),
        ({"concurrency": 23}, 23),
    ):
        began_s = time.monotonic()
        statuses = asyncio.run(all_at_once(served, a_key(served, **terms)))
        # What a minute brings back meanwhile may be granted as well.
        more = int((time.monotonic() - began_s) * (granted + 1) / 60) + 1
        most = granted if "concurrency" in terms else granted + more
        assert granted <= statuses.count(200) <= most, (terms, statuses.count(200), more)
        assert statuses.count(200) + statuses.count(429) == ASKED
