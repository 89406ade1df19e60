"""Kills of single processes: an edge, the node or the supervisor of a gateway under 50 parallel clients.

`make soak` runs `python soak/kill_parts.py`: 60 rounds (`--rounds`), or as many as fit (`--seconds`).  In each one
process dies by SIGKILL at a random moment, and then

- another one takes its place; how long that took until it was ready is printed;
- the node's end breaks no reply: who asks meanwhile waits, or gets a 503 when the machine is slow;
- an edge's end breaks the replies of that edge only: others that had begun before go on to their end;
- the supervisor's end breaks no reply that had begun, its processes end by themselves, and another `serve` on
  the same data and address starts beside them;
- the ledger says what those of soak/kill.py say: nothing is missing, doubled, held or overspent.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, get_args

import msgspec
from kill import WORDS, Client, Gateway, Loop, demand

from callers import PROTOCOLS, Answer, Ask, call
from headgate.policy.keys import Key
from headgate.storage.sqlite.reports import UsageReader
from headgate.supervisor.commands import NotServed
from headgate.supervisor.commands import ask as ask_supervisor
from played import PlayedUpstream
from waiting import PATIENCE_S, pause, until, wait_for

Role = Literal["edge", "node", "supervisor"]
ROLES: tuple[Role, ...] = get_args(Role)
EDGES = 2


class Sent(msgspec.Struct):
    answer: Answer
    began_s: float
    ended_s: float = 0.0


class Parts(Loop):
    """The clients and books of soak/kill.py, and a gateway that loses one process after the other."""

    def __init__(self, data: Path, upstream: PlayedUpstream, seed: int) -> None:
        super().__init__(data, upstream, seed)
        self.replaced_s: dict[Role, list[float]] = {role: [] for role in ROLES}
        self.broken: dict[Role, int] = dict.fromkeys(ROLES, 0)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.gateway = self.started()

    def started(self) -> Gateway:
        gateway = Gateway(self.data, self.upstream, "openai", self.port, EDGES)
        gateway.ready()
        return gateway

    def processes(self, role: str) -> dict[int, str]:
        """The state of each process of a kind, by its pid; none while nobody can be asked."""
        try:
            found = ask_supervisor(str(self.data), "processes")["processes"]
        except NotServed:
            return {}
        return {p["pid"]: p["state"] for p in found if p["name"] == role}

    async def asks_on(
        self, client: Client, sent: list[tuple[Key, Sent]], over: asyncio.Event
    ) -> None:
        """Ask one after the other until it is over, and wait for each answer."""
        r = client.random
        while not over.is_set():
            protocol = "gemini" if client.own else r.choice(PROTOCOLS[:3])
            self.tags += 1
            ask = Ask(protocol, r.choice(list(WORDS)), f"{self.tags}", r.random() < 0.75)
            one = Sent(Answer(ask, client.text), time.monotonic())
            sent.append((client.key, one))
            await call(self.gateway.url, one.answer)
            one.ended_s = time.monotonic()
            if one.answer.status != 200:
                await pause(0.02, "refused, or there is no gateway at the moment")

    async def kill_one(self, role: Role, round: int) -> list[tuple[Key, Sent]]:
        sent: list[tuple[Key, Sent]] = []
        over = asyncio.Event()
        clients = self.clients(round)
        tasks = [asyncio.create_task(self.asks_on(c, sent, over)) for c in clients]
        r = random.Random(f"{self.seed} {round} kill")
        await pause(r.uniform(0.1, 1.0), "the kill comes at any moment")
        before = await asyncio.to_thread(self.processes, role)
        victim = self.gateway.process.pid if role == "supervisor" else r.choice(sorted(before))
        os.kill(victim, signal.SIGKILL)
        killed_s = time.monotonic()
        if role == "supervisor":
            await asyncio.to_thread(self.start_beside)
        else:
            wanted = EDGES if role == "edge" else 1

            def back() -> bool:
                now = self.processes(role)
                return victim not in now and list(now.values()).count("ready") == wanted

            await asyncio.to_thread(wait_for, back)
        self.replaced_s[role].append(time.monotonic() - killed_s)
        await pause(0.2, "clients go on with what is there now")
        over.set()
        await asyncio.gather(*tasks)
        self.judge(role, [one for _, one in sent], killed_s)
        return sent

    def start_beside(self) -> None:
        """Start another gateway at once; the processes of the dead one end by themselves."""
        dead = self.gateway
        dead.process.wait()
        self.gateway = self.started()

        def gone() -> bool:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(dead.process.pid, 0)
                return False
            return True

        wait_for(gone)

    def judge(self, role: Role, sent: list[Sent], killed_s: float) -> None:
        """Return what the clients noticed."""
        begun = [s for s in sent if s.answer.raw]
        broken = [s for s in begun if s.answer.status == 200 and not s.answer.finished]
        self.broken[role] += len(broken)
        if role != "edge":
            demand(not broken, "the end of the", role, "broke", broken[:1])
        else:
            late = [s for s in broken if s.began_s > killed_s]
            demand(not late, "a reply broke that began after the kill", late[:1])
        through = [s for s in begun if s.began_s < killed_s < s.ended_s and s.answer.finished]
        demand(through, "no request went on while the", role, "was dead")
        after = [s for s in sent if s.began_s > killed_s and s.answer.finished]
        demand(after, "no request finished after the end of the", role)

    def settled(self) -> bool:
        ledger_reports = UsageReader(self.data)
        found = ledger_reports.intents()
        ledger_reports.close()
        return found == 0

    async def part(self, round: int, role: Role) -> None:
        sent = await self.kill_one(role, round)
        await until(self.settled)
        self.check(self.gateway, [(key, one.answer) for key, one in sent])

    def finish(self) -> None:
        """End it in good order: nothing is left for the next start to recover."""
        self.gateway.process.terminate()
        demand(self.gateway.process.wait(2 * PATIENCE_S) == 0, "the gateway did not end well")
        demand(not list((self.data / "live").iterdir()), "locks of the dead are left")


def order(seed: int, rounds: int) -> list[Role]:
    """Which process dies in each round: each kind as often, in random order."""
    r = random.Random(seed)
    out: list[Role] = []
    while len(out) < rounds:
        out += r.sample(ROLES, len(ROLES))
    return out[:rounds]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--seconds", type=float, help="begin no round after this time")
    options.add_argument("--seed", type=int)
    asked = options.parse_args()
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="headgate-parts-"))
    data = directory / "data"
    end_s = time.monotonic() + (asked.seconds or float("inf"))
    done = 0
    with PlayedUpstream().running() as upstream:
        parts = Parts(data, upstream, seed)
        try:
            for round, role in enumerate(order(seed, asked.rounds)):
                done = round + 1
                asyncio.run(parts.part(round, role))
                if time.monotonic() > end_s:
                    break
            parts.finish()
            audit = [sys.executable, "-m", "headgate.cli", "audit", "--data", str(data)]
            subprocess.run(audit, check=True, stdout=subprocess.DEVNULL)
        except BaseException:
            print(
                f"\nFAILED in round {done}: python soak/kill_parts.py --seed {seed} --rounds {done}"
                f"\nthe data is in {directory}",
                file=sys.stderr,
                flush=True,
            )
            raise
        finally:
            parts.gateway.kill()
    shutil.rmtree(directory)
    for role in ROLES:
        if times := parts.replaced_s[role]:
            print(
                f"{role}: {len(times)} killed, {parts.broken[role]} replies broken, another one ready"
                f" after {sorted(times)[len(times) // 2]:.2f} s (median), {max(times):.2f} s (longest)"
            )
    print(
        f"{done} kills: {parts.rows} rows, {parts.finished} seen to finish, {parts.recovered} recovered;"
        " nothing missing, doubled, held or overspent"
    )


if __name__ == "__main__":
    main()
