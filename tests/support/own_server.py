"""A server of one's own on loopback that says what it is as vLLM, SGLang or llama.cpp do, or does not.

The pages are as the servers' documentation and source have them (read 2026-11), shortened; nothing of ours is imported.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MODEL = {"object": "model", "created": 1700000000, "parent": None, "permission": []}


def _list(**fields: Any) -> dict[str, Any]:
    return {"object": "list", "data": [_MODEL | fields]}


PAGES: dict[str, dict[str, Any]] = {
    "vllm": {
        "/v1/models": _list(
            id="prod", owned_by="vllm", root="MiniMaxAI/MiniMax-M2", max_model_len=196608
        ),
        "/version": {"version": "0.11.2"},
    },
    "vllm behind a proxy": {
        "/v1/models": _list(id="MiniMaxAI/MiniMax-M2", owned_by="me", max_model_len=196608),
        "/version": {"version": "0.11.2"},
    },
    "sglang": {
        "/v1/models": _list(id="MiniMaxAI/MiniMax-M2", owned_by="sglang", root="/weights/m2"),
        "/get_server_info": {"model_path": "/weights/m2", "version": "0.5.4", "tp_size": 8},
    },
    "sglang behind a proxy": {
        "/v1/models": _list(id="minimax-m2", owned_by="me"),
        "/get_model_info": {"model_path": "/weights/MiniMax-M2", "is_generation": True},
    },
    "llamacpp": {
        "/v1/models": _list(id="/weights/MiniMax-M2-Q4_K_M.gguf", owned_by="llamacpp"),
        "/props": {"default_generation_settings": {"n_ctx": 65536}, "build_info": "b6900-1a2b3c"},
    },
    "llamacpp behind a proxy": {
        "/props": {"default_generation_settings": {}, "total_slots": 1, "build_info": "b6900"}
    },
    # What is none of them, or cannot be known.
    "nothing": {},
    "another vendor": {
        "/v1/models": _list(id="gpt-x", owned_by="openai"),
        "/version": {"version": "2.0.0"},
    },
    "several owners": {
        "/v1/models": {
            "object": "list",
            "data": [
                _MODEL | {"id": "a", "owned_by": "vllm"},
                _MODEL | {"id": "b", "owned_by": "x"},
            ],
        }
    },
    "no JSON": {"/v1/models": "<html>", "/version": "0.11.2", "/props": [1, 2]},
}


class OwnServer:
    """`kind` may be changed between two questions; `status` is that of all pages but the model's own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.status = 200
        self.asked: list[str] = []  # paths
        self.bodies: list[dict[str, Any]] = []  # of requests to the model
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                page = PAGES[server.kind].get(self.path)
                status = server.status if server.status != 200 or page is not None else 404
                self._send(status, page if isinstance(page, str) else json.dumps(page))

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                server.bodies.append(json.loads(self.rfile.read(length)))
                message = {"role": "assistant", "content": '{"city": "Bern"}'}
                choice = {"index": 0, "delta": message, "finish_reason": "stop"}
                usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
                chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
                data = json.dumps({**chunk, "choices": [choice], "usage": usage})
                self._send(200, f"data: {data}\n\ndata: [DONE]\n\n", "text/event-stream")

            def _send(self, status: int, text: str, kind: str = "application/json") -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator["OwnServer"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
