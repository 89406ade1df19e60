"""A relay between an agent and the gateway that records what the agent sends.

It passes bytes on as they come and parses copies of them, so it cannot change them.  Headers
that carry a key are recorded by name only.
"""

import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

_BYTES = 1 << 16
_MODEL_IN_PATH = re.compile(r"/models/([^/:?]+)")
_KEYS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


@dataclass
class Asked:
    """One request as the agent sent it, and the status it was answered with."""

    method: str
    path: str  # without a key in its query
    headers: dict[str, str]  # names in lower case; a key's value is its scheme or empty
    model: str  # as the agent named it, in the body or the path; "": none
    body: bytes
    status: int = 0  # 0: no answer was seen


@dataclass
class _Side:
    """The bytes of one direction of one connection, and where the unparsed rest begins."""

    data: bytearray = field(default_factory=bytearray)


def _head(data: bytes) -> tuple[list[str], int] | None:
    end = data.find(b"\r\n\r\n")
    return None if end < 0 else (data[:end].decode("latin-1").split("\r\n"), end + 4)


def _fields(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def requests(data: bytes) -> list[Asked]:
    """Parse what one connection sent; a chunked body ends the parsing, as no agent sends one."""
    found = []
    while head := _head(data):
        (first, *lines), start = head
        method, path, _ = (*first.split(" "), "", "")[:3]
        fields = _fields(lines)
        length = int(fields.get("content-length") or 0)
        body = data[start : start + length]
        model = ""
        with suppress(ValueError, AttributeError):
            model = str(json.loads(body).get("model") or "")
        if not model and (named := _MODEL_IN_PATH.search(path)):
            model = named[1]
        shown = {k: v.split(" ")[0] if " " in v else "" for k, v in fields.items() if k in _KEYS}
        path = re.sub(r"([?&]key=)[^&]*", r"\1", path)
        found.append(Asked(method, path, {**fields, **shown}, model, body))
        if "chunked" in fields.get("transfer-encoding", ""):
            break
        data = data[start + length :]
    return found


def statuses(data: bytes) -> list[int]:
    """Return the statuses of the final answers that one connection received."""
    found = re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", data)
    return [int(status) for status in found if not status.startswith(b"1") or status == b"101"]


class Recorder:
    """`with Recorder(url) as recorder:` listens while inside; agents are pointed at `recorder.url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._connections: list[tuple[_Side, _Side]] = []

    def __enter__(self) -> "Recorder":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def take(self) -> list[Asked]:
        """Return what was recorded since the last call, in the order of the connections."""
        with self._lock:
            connections, self._connections = self._connections, []
        found = []
        for sent, received in connections:
            asked = requests(bytes(sent.data))
            for one, status in zip(asked, statuses(bytes(received.data)), strict=False):
                one.status = status
            found += asked
        return found

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                gate = socket.create_connection(self._to)
                sides = (_Side(), _Side())
                with self._lock:
                    self._connections.append(sides)
                for source, target, side in ((client, gate, sides[0]), (gate, client, sides[1])):
                    threading.Thread(target=_pass, args=(source, target, side), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, side: _Side) -> None:
    with suppress(OSError):
        while data := source.recv(_BYTES):
            side.data += data
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
