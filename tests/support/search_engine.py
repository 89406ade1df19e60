"""A search engine on loopback that speaks the words of every provider, in a thread of its own."""

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from waiting import pause_thread

PAGES = (
    ("https://weather.example/zurich", "Weather in <b>Zürich</b>", "21 degrees,\n sunny."),
    ("https://news.example/today", "News of today", "It is 21 degrees in Zürich."),
    ("javascript:alert(1)", "No page", "An address that is none."),
    ("https://blocked.example/x", "Another", "Something else."),
)


class SearchEngine:
    """`queries` has what was searched for, `headers` those of the last request."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.headers: dict[str, str] = {}
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                at = urlsplit(self.path)
                engine._answer(self, at.path, parse_qs(at.query)["q"][0])

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                engine._answer(self, self.path, body.get("q") or body["query"])

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["SearchEngine"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, path: str, query: str) -> None:
        self.queries.append(query)
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        status, body = 200, json.dumps(_answer(path)).encode()
        match query.partition(" ")[0]:
            case "redirect":
                status = 302
            case "busy":
                status = 429
            case "broken":
                body = b"<html>"
            case "odd":
                body = b'{"results":{"a":[1]},"web":7}'
            case "deep":
                body = b'{"results":' + b"[" * 100_000
            case "slow":
                _drip(handler)
                return
            case "huge":
                body = b'{"results":[' + b'{"url":"https://a.example"},' * 200_000 + b"{}]}"
        handler.send_response(status)
        if status == 302:
            handler.send_header("location", f"{self.url}/elsewhere?q=followed")
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    """Answer without an end, a byte at a time, until the gateway leaves."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            pause_thread(0.05, "a search engine that never comes to its end")


def _answer(path: str) -> dict[str, Any]:
    if path == "/v1/coding_plan/search":
        rows = [{"title": t, "link": u, "snippet": s, "date": "2026-11-30"} for u, t, s in PAGES]
        return {"base_resp": {"status_code": 0}, "organic": rows, "related_searches": []}
    if path.startswith("/res/v1/web/search"):
        rows = [{"title": t, "url": u, "description": s, "age": "1 day"} for u, t, s in PAGES]
        return {"type": "search", "web": {"results": rows}}
    rows = [{"title": t, "url": u, "content": s, "score": 0.9} for u, t, s in PAGES]
    return {"query": "q", "results": rows}
