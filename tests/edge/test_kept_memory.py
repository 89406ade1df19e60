"""What an edge does with the memory of large bodies once they are answered."""

import asyncio
import json
import os
from pathlib import Path

import httpx2

from attacking import tree
from gateway import start, stop
from headgate.supervisor.supervise import KEPT_MEMORY
from played import PlayedUpstream
from programs import lacking
from waiting import PATIENCE_S

COUNT, AT_ONCE = 40, 4
MOST_FAULTS = (
    10  # of one request of 400 kB; 55 where the memory of bodies is given back and taken anew
)


def edge_of(pid: int) -> int:
    (found,) = [
        each
        for each in tree(pid)
        if b"\0headgate.cli\0edge\0" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]
    return found


def page_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[7])


def test_the_memory_of_a_large_body_is_used_for_the_next(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        lacking("only glibc is asked to keep memory")
    gate = start(
        tmp_path / "data", HEADGATE_UPSTREAM_URL=upstream.url("openai"), HEADGATE_UPSTREAM_KEY="x"
    )
    try:
        edge = edge_of(gate.process.pid)
        environment = Path(f"/proc/{edge}/environ").read_bytes().split(b"\0")
        for name, value in KEPT_MEMORY.items():
            assert f"{name}={os.environ.get(name, value)}".encode() in environment
        history = [
            {"role": "user" if n % 2 else "assistant", "content": f"✓ {n} " + "word " * 800}
            for n in range(100)
        ]
        messages = [*history, {"role": "user", "content": "hello"}]
        body = json.dumps({"model": "MiniMax-M2", "messages": messages}, ensure_ascii=False)
        assert len(body.encode()) > 400_000
        limits = httpx2.Limits(max_connections=AT_ONCE)
        headers = {"authorization": f"Bearer {gate.key}"}

        async def ask_all() -> None:
            async with httpx2.AsyncClient(
                timeout=PATIENCE_S, limits=limits, headers=headers
            ) as client:
                url = f"{gate.url}/v1/chat/completions"
                asked = [client.post(url, content=body.encode()) for _ in range(COUNT)]
                assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}

        asyncio.run(ask_all())  # until what is kept is enough
        before = page_faults(edge)
        asyncio.run(ask_all())
        assert page_faults(edge) - before < MOST_FAULTS * COUNT
    finally:
        assert stop(gate) == 0
