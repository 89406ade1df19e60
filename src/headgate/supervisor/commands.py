"""What the command line asks a running gateway's supervisor: one line of JSON, and one as the answer.

The socket is in the data directory and only its user can reach it.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

MAX_PATH = 100  # bytes; the kernel takes 107
ANSWER_S = 180.0  # longer than a supervisor waits for another one (upgrade.py)
_encode = msgspec.json.encode

Answer = dict[str, Any]  # Any: JSON


class NotServed(Exception):
    """No gateway serves the data directory, or its supervisor cannot be asked."""


def path_of(data: str) -> Path | None:
    """Where the supervisor of a data directory listens; None where the path is too long for a socket."""
    path = Path(data).absolute() / "supervisor.sock"
    return path if len(os.fsencode(path)) <= MAX_PATH else None


async def serve(
    sock: socket.socket, answer: Callable[[str], Awaitable[Answer]]
) -> asyncio.AbstractServer:
    """Answer each command that comes, until the server is closed."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, msgspec.MsgspecError, asyncio.LimitOverrunError):
            asked = msgspec.json.decode(await reader.readline(), type=dict[str, str])
            writer.write(_encode(await answer(asked.get("command", ""))) + b"\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(one, sock=sock)


def ask(data: str, command: str) -> Answer:
    """The supervisor's answer; NotServed."""
    path = path_of(data)
    if path is None:
        raise NotServed(f"the path of {data} is too long for a socket; send SIGHUP instead")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        try:
            sock.connect(str(path))
            sock.sendall(_encode({"command": command}) + b"\n")
            data_in = b""
            while not data_in.endswith(b"\n"):
                piece = sock.recv(65536)
                if not piece:
                    raise NotServed("the gateway ended before it answered")
                data_in += piece
        except TimeoutError:
            raise NotServed("the gateway did not answer in time") from None
        except OSError as error:
            raise NotServed(f"no gateway serves {data} ({error.strerror})") from None
    return msgspec.json.decode(data_in, type=Answer)
