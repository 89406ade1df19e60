"""A real gateway under 50 parallel clients is killed with SIGKILL again and again, and its ledger is checked.

`make soak` runs `python soak/kill.py`: 200 rounds (`--rounds`), or as many as fit (`--seconds`).
A round starts `headgate serve` in a process group of its own on the data of the round before, lets
the clients ask in four protocols, streamed and not, kills the group at a random moment, and starts
it again; one start in five is killed too, while it recovers.  Then of that round

- whatever a client saw finish, by its own protocol's end, has exactly one row, with the upstream's
  tokens and their cost, and no other row says the same;
- every request that the upstream saw belongs to exactly one row, and every row to one request of a
  client: to none more attempts than the row knows, unless the gateway died in it;
- no mark is open and nothing is held; `/v1/key` says of each budget what the rows add up to, and no
  budget is exceeded; the audit is clean.

A seed gives the same requests and the same times of the kills; where in its work they hit the
gateway is up to the machine.  On a failure the data stays where the last line says.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import msgspec

from headgate.policy import periods

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from callers import PROTOCOLS, Answer, Ask, arrived, call
from headgate.policy.keys import Key
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import USAGE, PlayedUpstream
from waiting import PATIENCE_S, pause, pause_thread

CLIENTS = 50
READY_S = 180.0
# 20 fresh tokens at 0.30, 100 cached at 0.03, 35 out at 1.20 USD a million (models.toml, M2)
COST = 20 * 300 + 100 * 30 + 35 * 1200
# What is asked for, and how its row ends if nothing comes between.
WORDS = {
    "hello": "stop",
    "think": "stop",
    "long": "length",
    "tools": "tool_calls",
    "slow 0.001": "stop",
    "slow 0.004": "stop",
    "slow 0.01": "stop",
}
FAILING = ("cut", "break", "trip", "fail 500", "fail 400", "silent 9")
SMALL = 150 * COST  # a budget that is used up on the way


class Wrong(Exception):
    """What does not hold."""


def demand(true: object, *reported: object) -> None:
    if not true:
        raise Wrong(" ".join(map(str, reported)))


class Client(msgspec.Struct):
    key: Key
    text: str
    random: random.Random
    own: bool  # its key is nobody else's


class Gateway:
    """Represents one life of it."""

    def __init__(
        self, data: Path, upstream: PlayedUpstream, dialect: str, port: int = 0, edges: int = 1
    ) -> None:
        clean = {
            k: v for k, v in os.environ.items() if not re.match(r"HEADGATE|MINIMAX|RUNAPI|OPENR", k)
        }
        clean |= {
            "HEADGATE_UPSTREAM_URL": upstream.url(dialect),
            "HEADGATE_UPSTREAM_DIALECT": dialect,
            "HEADGATE_UPSTREAM_KEY": "x",
            "HEADGATE_PORT": str(port),
            "HEADGATE_EDGES": str(edges),
        }
        with (data.parent / "stderr.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headgate.cli", "serve", "--data", str(data)],
                env=clean,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
                text=True,
            )
        self.url = ""

    def ready(self) -> None:
        assert self.process.stdout is not None
        until = time.monotonic() + READY_S
        for line in self.process.stdout:
            if line.startswith("headgate ready "):
                self.url = line.split()[-1]
                return
            demand(time.monotonic() < until, "not ready in", READY_S, "s")
        raise Wrong("the gateway ended before it was ready; see stderr.log")

    def kill(self) -> None:
        """The whole group: the writer of the ledger dies in the same moment."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def get(self, path: str, key: str) -> dict[str, object]:
        request = urllib.request.Request(self.url + path, headers={"x-api-key": key})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            found: dict[str, object] = json.load(reply)
        return found


class Loop:
    def __init__(self, data: Path, upstream: PlayedUpstream, seed: int) -> None:
        self.data = data
        self.upstream = upstream
        self.seed = seed
        self.tags = 0
        self.rows = self.finished = self.recovered = self.refused = self.seq = 0
        self.sums: Counter[str] = Counter()  # by key, of all rows
        store = Store(data)
        now_s = self.began_s = time.time()

        def key(name: str, **terms: object) -> tuple[Key, str]:
            return store.create_key(name, now_s=now_s, **terms)  # type: ignore[arg-type]

        shared = [
            key("free"),
            key("daily", budget_nano=10**15, budget_period="day"),
            key("small", budget_nano=SMALL),
            key("busy", budget_nano=10**15, concurrency=20),
        ]
        self.keys = list(shared)
        self._clients: list[tuple[Key, str, bool]] = []
        for n in range(CLIENTS):
            if n % 4 == 3:  # asks as Gemini does, which has no sessions: known by its key
                self.keys.append(key(f"own-{n}", budget_nano=10**15, budget_period="month"))
                self._clients.append((*self.keys[-1], True))
            else:
                self._clients.append((*shared[n // 4 % 4], False))
        store.close()

    def clients(self, round: int) -> list[Client]:
        return [
            Client(key, text, random.Random(f"{self.seed} {round} {n}"), own)
            for n, (key, text, own) in enumerate(self._clients)
        ]

    async def asks(self, client: Client, url: str, out: list[tuple[Key, Answer]]) -> None:
        """One after the other, until it is cancelled."""
        r = client.random
        while True:
            protocol = "gemini" if client.own else r.choice(PROTOCOLS[:3])
            text = r.choice(FAILING if r.random() < 0.1 else list(WORDS))
            self.tags += 1
            ask = Ask(protocol, text, f"{self.tags}", r.random() < 0.75)
            answer = Answer(ask, client.text)
            out.append((client.key, answer))
            leaves_s = r.uniform(0.0, 0.2) if r.random() < 0.1 else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(leaves_s):
                    await call(url, answer)
            if answer.status not in (0, 200) or not answer.raw:
                await pause(0.02, "refused, or there is no gateway any more")

    async def under_load(self, gateway: Gateway, round: int) -> list[tuple[Key, Answer]]:
        """Return what the clients asked until the kill, and what they got of it."""
        sent: list[tuple[Key, Answer]] = []
        tasks = [asyncio.create_task(self.asks(c, gateway.url, sent)) for c in self.clients(round)]
        moment_s = random.Random(f"{self.seed} {round} kill").uniform(0.02, 1.0)
        await pause(moment_s, "the kill comes at any moment")
        gateway.kill()
        await pause(0.02, "the clients read what the kernel still has for them")
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(end, asyncio.CancelledError):
                raise end if isinstance(end, BaseException) else Wrong("a client ended")
        return sent

    def run(self, round: int) -> None:
        r = random.Random(f"{self.seed} {round}")
        dialect = r.choice(PROTOCOLS)
        gateway = Gateway(self.data, self.upstream, dialect)
        try:
            gateway.ready()
            sent = asyncio.run(self.under_load(gateway, round))
            if r.random() < 0.2:
                gateway = Gateway(self.data, self.upstream, dialect)
                pause_thread(r.uniform(0.0, 0.8), "the kill comes at any moment")
                gateway.kill()
            gateway = Gateway(self.data, self.upstream, dialect)
            gateway.ready()
            self.check(gateway, sent)
        finally:
            gateway.kill()

    def end(self) -> None:
        """Once more in good order: nothing is left for the next start to recover."""
        gateway = Gateway(self.data, self.upstream, "openai")
        try:
            gateway.ready()
            self.check(gateway, [])
            demand(gateway.process.poll() is None, "the gateway has ended")
            gateway.process.terminate()
            demand(gateway.process.wait(2 * PATIENCE_S) == 0, "the gateway did not end well")
        finally:
            gateway.kill()
        demand(not list((self.data / "live").iterdir()), "locks of the dead are left")

    def check(self, gateway: Gateway, sent: list[tuple[Key, Answer]]) -> None:
        ledger_reports = UsageReader(self.data)
        found = ledger_reports._all(
            "select seq, request_id from ledger where seq > ? order by seq", (self.seq,)
        )
        rows = [row for _, id in found if (row := ledger_reports.generation(id)) is not None]
        self.seq = max([self.seq, *(seq for seq, _ in found)])
        demand(ledger_reports.intents() == 0, ledger_reports.intents(), "marks are open")
        demand(not (wrong := ledger_reports.audit()), "the ledger does not add up:", wrong)
        ledger_reports.close()
        self.matched(rows, sent)
        for row in rows:
            demand(row.cost_nano_usd is not None, row, "has no price")
            self.sums[row.key_id] += row.cost_nano_usd or 0
        self.budgeted(gateway)
        self.rows += len(rows)
        self.recovered += sum(row.basis == "recovered" for row in rows)

    def matched(self, rows: list[LedgerRow], sent: list[tuple[Key, Answer]]) -> None:
        upstream = arrived(self.upstream)
        self.upstream.seen.clear()
        by_id = {row.request_id: row for row in rows}
        demand(len(by_id) == len(rows), "an id is doubled")
        by_tag: dict[str, list[LedgerRow]] = {}
        for row in rows:
            if row.session:
                by_tag.setdefault(row.session, []).append(row)
        known: set[str] = set()  # rows that have found their request
        unknown: dict[str, list[Answer]] = {}  # by key: whose head never came, without a session
        for key, answer in sent:
            tag = answer.ask.tag
            count = upstream.pop(tag, 0)
            demand(count <= 2, "tag", tag, "reached the upstream", count, "times")
            mine = by_tag.pop(tag, []) if answer.ask.protocol != "gemini" else []
            if answer.ask.protocol == "gemini":
                if answer.id in by_id:
                    mine = [by_id[answer.id]]
                elif not answer.id:
                    unknown.setdefault(key.id, []).append(answer)
                    upstream[tag] = count
                    continue
            demand(len(mine) <= 1, "tag", tag, "has", len(mine), "rows:", mine)
            if not mine:
                demand(not count, "tag", tag, "reached the upstream and has no row", answer)
                demand(not answer.finished, "tag", tag, "finished and has no row", answer)
                self.refused += answer.status in (402, 429)
                continue
            (row,) = mine
            known.add(row.request_id)
            self.fits(row, key, answer, count)
        for key_id, answers in unknown.items():
            at_least = sum(upstream.pop(a.ask.tag, 0) > 0 for a in answers)
            open_rows = [r for r in rows if r.key_id == key_id and r.request_id not in known]
            demand(
                at_least <= len(open_rows) <= len(answers),
                f"{at_least} to {len(answers)} requests of {key_id} have {len(open_rows)} rows",
            )
            known.update(row.request_id for row in open_rows)
        strange = [row for row in rows if row.request_id not in known]
        demand(not strange, "rows of nobody's request:", strange)
        left = {tag: count for tag, count in upstream.items() if count}
        demand(not left, "requests to the upstream that no client sent:", left)

    def fits(self, row: LedgerRow, key: Key, answer: Answer, count: int) -> None:
        """One request, its row, and how often the upstream saw it."""
        demand(row.key_id == key.id, row, "is another key's")
        demand(not answer.id or answer.id == row.request_id, row, "is not", answer.id)
        demand(row.dialect == answer.ask.protocol and row.stream == answer.ask.stream, row, answer)
        if row.basis != "recovered":
            demand(count <= len(row.attempts), row, "but", count, "requests reached the upstream")
        if not (answer.finished and answer.ask.text in WORDS):
            demand(row.basis != "none" or row.cost_nano_usd == 0, row, "costs something")
            return
        self.finished += 1
        demand(count == len(row.attempts) == 1, row, "but", count, "requests reached the upstream")
        demand((row.outcome, row.basis) == (WORDS[answer.ask.text], "upstream"), row)
        tokens = (row.input_tokens, row.cached_tokens, row.cache_write_tokens, row.output_tokens)
        demand(tokens == (USAGE.input, USAGE.cached, 0, USAGE.output), row, "has other tokens")
        demand(row.cost_nano_usd == COST, row, "has another cost")

    def budgeted(self, gateway: Gateway) -> None:
        """What a budget has counted is what the rows say, and no more than it allows."""
        for key, text in self.keys:
            reported = msgspec.convert(gateway.get("/v1/key", text), _Reported)
            demand(reported.spent_nano == self.sums[key.id], key.name, reported, self.sums[key.id])
            demand(reported.budget.held_nano == 0, key.name, "holds", reported)
            budget = periods.written_on(key)
            if budget is not None:
                whole = (
                    budget.period == "total" or periods.begins_s(budget, time.time()) < self.began_s
                )
                demand(
                    not whole or reported.budget.spent_nano == reported.spent_nano,
                    key.name,
                    reported,
                )
                demand(
                    reported.budget.spent_nano <= budget.nano, key.name, "is overspent", reported
                )


class _Standing(msgspec.Struct):
    spent_nano: int
    held_nano: int


class _Reported(msgspec.Struct):
    spent_nano: int
    budget: _Standing


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--seconds", type=float, help="begin no round after this time")
    options.add_argument("--seed", type=int)
    asked = options.parse_args()
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="headgate-kill-"))
    data = directory / "data"
    until = time.monotonic() + (asked.seconds or float("inf"))
    done = 0
    try:
        with PlayedUpstream().running() as upstream:
            loop = Loop(data, upstream, seed)
            for round in range(asked.rounds):
                done = round + 1
                loop.run(round)
                if time.monotonic() > until:
                    break
            loop.end()
        audit = [sys.executable, "-m", "headgate.cli", "audit", "--data", str(data)]
        subprocess.run(audit, check=True, stdout=subprocess.DEVNULL)
    except BaseException:
        print(
            f"\nFAILED in round {done}: python soak/kill.py --seed {seed} --rounds {done}"
            f"\nthe data is in {directory}",
            file=sys.stderr,
            flush=True,
        )
        raise
    shutil.rmtree(directory)
    print(
        f"{done} kills: {loop.rows} rows, {loop.finished} seen to finish, {loop.recovered} recovered,"
        f" {loop.refused} refused; nothing missing, doubled, held or overspent"
    )


if __name__ == "__main__":
    main()
