"""`headgate node`: the process that admits requests and writes the ledger; `serve` starts it."""

import asyncio
import os
import socket
import sys

import click

from headgate import output
from headgate.cli.options import DataUnusable


@click.command("node")
@click.option("--data", required=True, help="Directory for keys and the ledger.")
@click.option("--listen-fd", type=int, required=True, help="The socket at which edges connect.")
@click.option("--requests-days", type=int, default=0, help="As [retention] requests_days.")
def command(data: str, listen_fd: int, requests_days: int) -> None:
    """Admit requests and write the ledger for the edges of this machine."""
    from headgate.storage.errors import StoreError

    try:
        with output.guard():
            lost = _run(data, listen_fd, requests_days, os.environ.get("HEADGATE_DATABASE", ""))
    except StoreError as error:
        raise DataUnusable(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataUnusable(f"{where}{error.strerror or error}.") from None
    sys.exit(1 if lost else 0)


def _run(data: str, listen_fd: int, requests_days: int, database: str) -> int:
    from headgate.node.process import NodeProcess
    from headgate.node.server import new_loop
    from headgate.supervisor.child import Channel

    async def serve() -> int:
        process: NodeProcess | None = None

        def end() -> None:
            assert process is not None
            process.end()

        channel = Channel(lambda stated: process.heard(stated) if process else None, end)
        process = NodeProcess(data, channel.notify)
        await process.run(socket.socket(fileno=listen_fd), requests_days, database)
        return process.lost

    with asyncio.Runner(loop_factory=new_loop()) as runner:
        return runner.run(serve())
