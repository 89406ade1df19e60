"""`make bench-console`: a million rows, the console asked without a pause, and streams at the same time.

Prints how long the log and the usage pages take, and the p99 of the time between two chunks of the streams
with and without somebody at the console, in turns, as a ratio.  The chunks come every 20 ms from the
tests' played upstream; what it and this client add is in both.
"""

import asyncio
import json
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apsw
import httpx2

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from gateway import Gateway, start, stop  # noqa: E402
from headgate.storage.sqlite.database import Store  # noqa: E402
from played import PlayedUpstream  # noqa: E402

ROWS = 1_000_000
ROUNDS = 6
STREAMS = 20
PASSWORD = "correct horse battery"
PAGES = (
    "/requests",
    "/requests?outcome=timeout",
    "/requests?model=MiniMax-M2.7&before=500000",
    "/usage?span=24h",
    "/usage?span=7d",
    "/usage?span=30d&by=key",
)
FILL = """
insert into ledger with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1)
select i, printf('%024x', i), 'k' || (i % 40), '', case when i % 3 then '' else 's' || (i / 30) end, '', '[]',
  'openai', case i % 3 when 0 then 'MiniMax-M3' when 1 then 'MiniMax-M2.7' else 'MiniMax-M2' end,
  'main', 'm', 1, case when i % 50 = 0 then 'timeout' else 'stop' end, 'upstream', 200,
  ?2 - (?1 - i) * 2.5, ?2 - (?1 - i) * 2.5 + 1.5, 300, 900, 400, 0, 120, 0, 500000 + i % 1000, 'v', '', '[]', '[]' from n
"""


def fill(data: Path) -> None:
    Store(data).close()
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute("pragma synchronous = off")
    db.execute(FILL, (ROWS, time.time() - 3600))
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()


def sign_in(gate: Gateway) -> str:
    link = re.search(r"http\S+/setup/\S+", gate.printed)
    assert link is not None
    made = httpx2.post(link[0], data={"name": "ada", "password": PASSWORD})
    return str(made.headers["set-cookie"]).split(";")[0]


async def stream(gate: Gateway, client: httpx2.AsyncClient, gaps: list[float]) -> None:
    body = {
        "model": "MiniMax-M2",
        "stream": True,
        "messages": [{"role": "user", "content": "slow 0.02"}],
    }
    headers = {"authorization": f"Bearer {gate.key}"}
    async with client.stream(
        "POST", gate.url + "/v1/chat/completions", json=body, headers=headers
    ) as answer:
        last = 0.0
        async for _ in answer.aiter_raw():
            now = time.perf_counter()
            if last:
                gaps.append(now - last)
            last = now


def visit(url: str, cookie: str) -> None:
    """Ask for the pages until standard input ends; a process of its own, so as not to delay the streams."""
    took: dict[str, list[float]] = {p: [] for p in PAGES}
    headers = {"accept": "text/html", "cookie": cookie}
    with httpx2.Client(base_url=url, timeout=60, headers=headers) as console:
        while not select.select([sys.stdin], [], [], 0)[0]:
            for path in PAGES:
                began = time.perf_counter()
                answer = console.get(path)
                assert answer.status_code == 200, (path, answer.status_code)
                took[path].append(time.perf_counter() - began)
    print(json.dumps(took))


async def measure(gate: Gateway, cookie: str) -> None:
    took: dict[str, list[float]] = {p: [] for p in PAGES}
    p99: dict[bool, list[float]] = {False: [], True: []}
    async with httpx2.AsyncClient(timeout=60) as client:
        for n in range(2 * ROUNDS):
            visitor = None
            if n % 2:
                visitor = subprocess.Popen(
                    [sys.executable, __file__, gate.url, cookie],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            gaps: list[float] = []
            await asyncio.gather(*(stream(gate, client, gaps) for _ in range(STREAMS)))
            p99[visitor is not None].append(statistics.quantiles(gaps, n=100)[98])
            if visitor is not None:
                for path, times in json.loads(visitor.communicate("")[0]).items():
                    took[path] += times
    print(f"{ROWS:,} rows; {STREAMS} streams")
    for path, times in took.items():
        print(f"  {statistics.median(times) * 1000:6.0f} ms  {path}")
    quiet, asked = (statistics.median(p99[k]) for k in (False, True))
    print(
        f"p99 between chunks: {quiet * 1000:.1f} ms alone, {asked * 1000:.1f} ms with the console, {asked / quiet:.2f} x"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as place, PlayedUpstream().running() as upstream:
        data = Path(place) / "data"
        fill(data)
        gate = start(
            data,
            HEADGATE_UPSTREAM_URL=upstream.url("openai"),
            HEADGATE_UPSTREAM_KEY="k",
        )
        try:
            # The data directory has no key yet, so one was printed.
            asyncio.run(measure(gate, sign_in(gate)))
        finally:
            stop(gate)


if __name__ == "__main__":
    visit(*sys.argv[1:]) if len(sys.argv) == 3 else main()
