"""A real Redis for tests: Debian's, on a free loopback port, in memory only."""

import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from headgate.net.redis import Replies, Reply, encode
from programs import path_of
from waiting import PATIENCE_S, wait_for

PASSWORD = "secret-of-redis"


class RedisServer:
    """Runs one server; `url` is its address with the password, `tls_url` that of its port with TLS.

    `tls`: its certificate and key.  It knows a user `gate` beside the default one, with the same password.
    """

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self._program = path_of("redis-server")
        self._tls = tls
        self.tls_url = ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if tls is not None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._tls_port = free.getsockname()[1]
            self.tls_url = f"rediss://gate:{PASSWORD}@localhost:{self._tls_port}/1"
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/1"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, empty, and wait until it answers."""
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "save": "",
            "appendonly": "no",
            "requirepass": PASSWORD,
            "maxmemory": "64mb",
            "maxmemory-policy": "allkeys-lru",
        }
        if self._tls is not None:
            cert, key = map(str, self._tls)
            settings |= {"tls-port": str(self._tls_port), "tls-auth-clients": "no"}
            settings |= {"tls-cert-file": cert, "tls-key-file": key, "tls-ca-cert-file": cert}
        user = ("--user", "gate", "on", "~*", "+@all", f">{PASSWORD}")
        options = (o for name, value in settings.items() for o in (f"--{name}", value))
        self._process = subprocess.Popen(
            [self._program, *options, *user],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            return self.ask(b"PING") == b"PONG"
        except OSError:
            return False

    def ask(self, *words: bytes) -> Reply:
        """What the server answers to one command."""
        replies = Replies()
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as sock:
            for command in ([b"AUTH", PASSWORD.encode()], [b"SELECT", b"1"], words):
                sock.sendall(encode(command))
                found: list[object] = []
                while not found:
                    found = list(replies.feed(sock.recv(65536)))
        answer = found[0]
        assert not isinstance(answer, Exception), answer
        return answer  # type: ignore[return-value]

    def everything(self) -> dict[bytes, bytes]:
        """All that the server stores, as bytes, by its names."""
        names = self.ask(b"KEYS", b"*")
        assert isinstance(names, list)
        out = {}
        for name in names:
            assert isinstance(name, bytes)
            kind = self.ask(b"TYPE", name)
            read: Sequence[bytes] = (b"GET", name)
            if kind == b"zset":
                read = (b"ZRANGE", name, b"0", b"-1")
            out[name] = repr(self.ask(*read)).encode()
        return out

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE_S)
            self._process = None
