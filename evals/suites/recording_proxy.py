"""A proxy on loopback before the gateway, for test suites that bring a credential of their own.

The SDKs' tests hard-code a key, and the gateway has no mode without keys: this puts the real one in
its place, in that one header, and passes all else on as it came, but for the headers that are between
two neighbours.  It notes what was asked and answered.  Standard library only, because it runs in the suites' own environment.
"""

import contextlib
import http.client
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = {"connection", "transfer-encoding", "keep-alive"}  # between two neighbours only
_CREDENTIALS = {"authorization", "x-api-key"}
_LIMIT_S = 30


@dataclass
class Exchange:
    """One request as it passed; `error` is the body of an answer that is an error."""

    method: str
    path: str
    status: int
    error: str


class RecordingProxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, swaps: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gateway_port, self.swaps = port, swaps
        self.passed: list[Exchange] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A test that closes its connection early is no fault of anybody."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RecordingProxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        onward = http.client.HTTPConnection("127.0.0.1", self.server.gateway_port, timeout=_LIMIT_S)
        with contextlib.closing(onward):
            onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() in _CREDENTIALS:
                    value = self.server.swaps.get(value, value)
                if name.lower() not in _HOP:
                    onward.putheader(name, value)
            onward.endheaders(body)
            self._answer(onward.getresponse())

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        kept = b"" if answer.status < 400 else answer.read()
        exchange = Exchange(self.command, self.path, answer.status, kept.decode("utf-8", "replace"))
        self.server.passed.append(exchange)  # before the client can see the answer
        self.send_response_only(answer.status, answer.reason)
        chunked = answer.chunked
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while piece := kept or answer.read1(65536):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if kept:
                break
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = _pass

    def log_message(self, format: str, *args: object) -> None:
        """Not a line for each request."""
