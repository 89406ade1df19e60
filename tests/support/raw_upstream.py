"""Upstreams on loopback that are written byte by byte, in threads, and count what reaches them."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

CHUNKS = [
    {
        "id": "c1",
        "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello."}}],
    },
    {
        "id": "c1",
        "model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    },
]
STREAM = b"".join(b"data: %b\n\n" % json.dumps(c).encode() for c in CHUNKS) + b"data: [DONE]\n\n"


def answer(status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    """One HTTP answer with a length."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(status: int, message: str = "no", **headers: str) -> bytes:
    page = json.dumps({"error": {"message": message, "type": "error"}}).encode()
    return answer(status, page, **headers)


def numbered(code: int) -> bytes:
    """Return MiniMax's way: status 200, and the error in `base_resp`."""
    return answer(
        200, json.dumps({"base_resp": {"status_code": code, "status_msg": "no"}}).encode()
    )


OK = answer(200, STREAM, "text/event-stream")


class Heard(msgspec.Struct):
    """One request as it arrived."""

    key: str  # of its Authorization header
    body: bytes
    nth: int  # of its connection, from 1


Play = Callable[[Heard, socket.socket], bytes | None]  # None: the connection is closed


class RawUpstream:
    """Answers each request with what `play` says."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.heard: list[Heard] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def asked(self, key: str = "") -> int:
        """How many requests arrived, by this key or by any."""
        return sum(not key or h.key == key for h in self.heard)

    def close(self) -> None:
        self._listener.close()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        nth = 0
        try:
            with connection, connection.makefile("rb") as lines:
                while (heard := _read(lines, nth + 1)) is not None:
                    nth += 1
                    self.heard.append(heard)
                    stated = self.play(heard, connection)
                    if stated is None:
                        return
                    connection.sendall(stated)
        except OSError:
            pass


def _read(lines: Any, nth: int) -> Heard | None:
    key, length, line = "", 0, lines.readline()
    if not line:
        return None
    while (line := lines.readline().strip()) != b"":
        name, _, value = line.decode().partition(": ")
        if name.lower() == "authorization":
            key = value.removeprefix("Bearer ")
        elif name.lower() == "content-length":
            length = int(value)
    return Heard(key, lines.read(length), nth)


def always(stated: bytes | None) -> Play:
    return lambda heard, connection: stated


@contextmanager
def playing(*plays: Play) -> Iterator[tuple[RawUpstream, ...]]:
    made = tuple(RawUpstream(play) for play in plays)
    try:
        yield made
    finally:
        for each in made:
            each.close()
