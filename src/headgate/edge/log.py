"""One line of JSON per exchange, on stderr: the only place that writes a log.

The fields are a closed list, so that keys, prompts and replies have no way in.  Lines are gathered
and written once per turn of the loop's flush, because a write per request costs more than the
request.  `headgate serve` gives it a channel of output.py, so that a flush never waits for a reader.
"""

import sys
import time
import traceback
from functools import lru_cache
from typing import Protocol

import msgspec

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "off": 100}


class LogLine(msgspec.Struct, omit_defaults=True):
    at: str
    level: str
    event: str
    request_id: str = ""
    dialect: str = ""
    model: str = ""
    upstream: str = ""
    key: str = ""  # public id, never the secret
    status: int = 0
    outcome: str = ""
    stream: bool = False
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    first_token_ms: float = 0.0
    total_ms: float = 0.0
    upstream_code: str = ""
    warnings: tuple[str, ...] = ()
    where: str = ""  # of an internal error: type and code places, without values
    client: str = ""  # the client's address, as a trusted proxy reports it
    count: int = 0  # requests that this line stands for; 0: the one that it names


class Stream(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


class Log:
    def __init__(self, level: str = "info", stream: Stream | None = None) -> None:
        self._level = LEVELS[level]
        self._stream: Stream = stream if stream is not None else sys.stderr.buffer
        self._encoder = msgspec.json.Encoder()
        self._lines: list[bytes] = []

    def wants(self, level: str) -> bool:
        return LEVELS[level] >= self._level

    def write(self, line: LogLine) -> None:
        if LEVELS[line.level] >= self._level:
            self._lines.append(self._encoder.encode(line))
            if len(self._lines) >= 256:
                self.flush()

    def report(self, text: str) -> None:
        """Write what went wrong outside of any request."""
        self.write(LogLine(now(), "error", "listener", where=text))

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            try:
                self._stream.write(b"\n".join(lines) + b"\n")
                self._stream.flush()
            except (OSError, ValueError):
                pass  # the log has no reader any more; requests must go on


def now() -> str:
    return _second(int(time.time()))


@lru_cache(maxsize=2)
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + "Z"


def places(error: BaseException) -> str:
    """Type and places of an error without its text, which may quote what a client sent."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return (
        type(error).__name__ + " at " + " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames))
    )
