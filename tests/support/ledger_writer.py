"""A process that uses the ledger of the directory it is given, until it is killed.

It prints `marked ID` and `settled ID` after the call of that name has returned, a line in one
write, `recovered N` at the start, and `writer PID` whenever it has a new writer.  Run by test_ledger.py.
"""

import asyncio
import os
import sys

from headgate.storage.rows import IntentRecord, LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


writers: list[int | None] = []


def notify_writer(ledger: Ledger) -> None:
    if writers[-1:] != [ledger.writer_pid]:
        writers.append(ledger.writer_pid)
        say(f"writer {ledger.writer_pid}")


async def exchanges(ledger: Ledger, name: str) -> None:
    n = 0
    while True:
        n += 1
        notify_writer(ledger)
        id = f"{name}-{n}"
        key, session, began_s = f"key{n % 3}", f"s{n % 5}", 1.7e9 + n
        await ledger.open(
            IntentRecord(
                request_id=id,
                key_id=key,
                session=session,
                dialect="openai",
                model="m",
                started_at=began_s,
            )
        )
        say(f"marked {id}")
        row = LedgerRow(
            request_id=id,
            key_id=key,
            session=session,
            dialect="openai",
            model="m",
            started_at=began_s,
            ended_at=began_s,
            outcome="stop",
            basis="upstream",
            input_tokens=n,
            output_tokens=1,
            cost_nano_usd=7 * n,
        )
        if n % 4:
            await ledger.settle(row)
            say(f"settled {id}")
        else:
            ledger.settle_soon(row)


async def main(data: str, round: str) -> None:
    Store(data).close()
    ledger = Ledger(data)
    notify_writer(ledger)
    say(f"recovered {ledger.recover()}")
    await asyncio.gather(*(exchanges(ledger, f"{round}-{n}") for n in range(20)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
