"""A node of one program that writes rows by itself: its socket is standard input.

It ends when the socket does, after it has written what was sent.
"""

import asyncio
import socket
import sys
from pathlib import Path

import msgspec

from headgate.node.server import Server, new_loop
from headgate.node.state import Node
from headgate.storage.sqlite.writer import WriterConfig


def run(sock: socket.socket, orders: WriterConfig) -> None:
    """Serve one socket until it ends."""
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        runner.run(_run(sock, orders))


async def _run(sock: socket.socket, orders: WriterConfig) -> None:
    node = Node(Path(orders.name).parent, orders)
    server = Server(node, orders)
    server.add(sock)
    server.end()
    await server.ended.wait()
    node.close()


def main() -> None:
    """Read the orders, which are the argument."""
    run(socket.socket(fileno=0), msgspec.json.decode(sys.argv[1], type=WriterConfig))


if __name__ == "__main__":
    main()
