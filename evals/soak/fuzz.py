"""Fuzzing with a clock: dialects/, net/server.py and net/client.py against bytes that nobody would send.

`make soak` runs `python soak/fuzz.py --seconds 60`: the parts below take turns until the time is up,
each turn with a seed of its own.  A failure prints its part and its seed, and
`python soak/fuzz.py --only PART --seed N` finds the same again.

    wire     recorded, mutated and made-up bodies and streams through every decoder and encoder
    work     inputs that grow: the work must not grow with their square
    server   mutated requests over loopback sockets, cut anywhere
    client   answers of a misbehaving server

What each part demands stands at the head of its file.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))  # for waiting.py

import mutations
import sockets
import wire
import work

EXAMPLES = 150  # a turn's; it takes a second or two

PARTS: dict[str, Callable[[int, int], None]] = {
    "wire": wire.check,
    "work": work.check,
    "server": sockets.server,
    "client": sockets.client,
}
WORK_EVERY = 10  # turns: it looks for the same things each time, but for who the client is


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, help="one turn with this seed")
    options.add_argument("--only", choices=list(PARTS))
    options.add_argument("--examples", type=int, default=EXAMPLES, help="how many a turn has")
    asked = options.parse_args()
    mutations.recorded()
    parts = [asked.only] if asked.only else list(PARTS)
    seed, until = asked.seed or 0, time.monotonic() + asked.seconds
    turns = dict.fromkeys(parts, 0)
    while True:
        for name in parts:
            if name == "work" and seed % WORK_EVERY and asked.seed is None:
                continue
            try:
                PARTS[name](seed, asked.examples)
            except BaseException:
                again = f"--only {name} --seed {seed} --examples {asked.examples}"
                print(f"\nFAILED: python soak/fuzz.py {again}", file=sys.stderr, flush=True)
                raise
            turns[name] += 1
        if asked.seed is not None or time.monotonic() > until:
            break
        seed += 1
    print("nothing found:", ", ".join(f"{n} turns of {name}" for name, n in turns.items()))


if __name__ == "__main__":
    main()
