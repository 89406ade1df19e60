"""Web search with the real Claude Code and Codex, over a gateway, a scripted model and a search engine.

The model calls the search that it is offered: Claude Code's own `WebSearch`, behind its search for
tools, whose request has Anthropic's server tool; and Codex's `web_search`.  Passed is an agent whose
last text holds what the engine found, for one query, with its cost on the ledger's rows.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from install import install, node

import gateway
from headgate.storage.sqlite.reports import UsageReader
from search_engine import SearchEngine

QUERY = "blue heron"
PROMPT = "Search the web for the blue heron, then tell what you found."
LIMIT_S = 120
_Json = dict[str, Any]


def turn(body: _Json) -> tuple[str, _Json] | str:
    """The model's next turn: the name and arguments of a call, or a text."""
    names = [tool["function"]["name"] for tool in body.get("tools", [])]
    messages = body["messages"]
    called = [c["function"]["name"] for m in messages for c in m.get("tool_calls") or ()]
    results = [str(m["content"]) for m in messages if m["role"] == "tool"]
    if "web_search" in names:
        if "web_search" not in called:
            return "web_search", {"query": QUERY}
        return f"{results[-1][:300]} So it is written in [1]."
    if "WebSearch" in names:
        if "WebSearch" not in called:
            return "WebSearch", {"query": QUERY}
        return results[-1][:300]
    if "ToolSearch" in names and "ToolSearch" not in called:
        return "ToolSearch", {"query": "select:WebSearch", "max_results": 3}
    return "ok"


class _Model(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        stated = turn(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        delta: _Json = {"role": "assistant", "content": stated}
        if not isinstance(stated, str):
            name, arguments = stated
            function = {"name": name, "arguments": json.dumps(arguments)}
            call = {"index": 0, "id": f"call_{uuid.uuid4().hex[:8]}", "type": "function"}
            delta = {
                "role": "assistant",
                "content": "",
                "tool_calls": [call | {"function": function}],
            }
        end = "stop" if isinstance(stated, str) else "tool_calls"
        usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        head: _Json = {
            "id": "x",
            "model": "MiniMax-M2",
            "object": "chat.completion.chunk",
            "created": 1,
        }
        for choice, more in (
            ({"index": 0, "delta": delta}, {}),
            ({"index": 0, "delta": {}, "finish_reason": end}, {"usage": usage}),
        ):
            chunk = head | {"choices": [choice]} | more
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def model() -> Iterator[str]:
    """Return the address of the scripted model."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def environment(gate: gateway.Gateway, home: Path) -> dict[str, str]:
    codex = home / "codex"
    codex.mkdir()
    (codex / "config.toml").write_text(
        'model = "MiniMax-M2"\nmodel_provider = "gateway"\nweb_search = "live"\n'
        f'[model_providers.gateway]\nname = "gateway"\nbase_url = "{gate.url}/v1"\n'
        'env_key = "HEADGATE_API_KEY"\nwire_api = "responses"\n'
    )
    return {
        "PATH": f"{node()}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "CI": "1",
        "IS_SANDBOX": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "ANTHROPIC_BASE_URL": gate.url,
        "ANTHROPIC_AUTH_TOKEN": gate.key,
        "ANTHROPIC_MODEL": "MiniMax-M2",
        "HEADGATE_API_KEY": gate.key,
        "CODEX_HOME": str(codex),
    }


AGENTS = (
    (
        "claude-code",
        "@anthropic-ai/claude-code",
        "claude",
        ("-p", PROMPT, "--dangerously-skip-permissions"),
    ),
    (
        "codex",
        "@openai/codex",
        "codex",
        ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", PROMPT),
    ),
)


def main() -> int:
    failed = 0
    for name, package, program, line in AGENTS:
        binary, version = install(name, package, program, True, upgrade=False)
        home = Path(tempfile.mkdtemp(prefix="headgate-search-"))
        with SearchEngine().running() as engine, model() as address:
            gate = gateway.start(
                home / "data",
                HEADGATE_UPSTREAM_URL=address,
                HEADGATE_UPSTREAM_KEY="x",
                HEADGATE_SEARCH_PROVIDER="searxng",
                HEADGATE_SEARCH_URL=engine.url,
            )
            try:
                done = subprocess.run(
                    [str(binary / program), *line],
                    cwd=home,
                    env=environment(gate, home),
                    capture_output=True,
                    text=True,
                    stdin=subprocess.DEVNULL,
                    timeout=LIMIT_S,
                )
                ledger_reports = UsageReader(gate.data)
                ids = ledger_reports._all("select request_id from ledger")
                rows = [row for (id,) in ids if (row := ledger_reports.generation(id)) is not None]
                ledger_reports.close()
            finally:
                gateway.stop(gate)
            searched = [row for row in rows if "web_search (1 made)" in row.warnings]
            good = (
                "weather.example/zurich" in done.stdout
                and engine.queries == [QUERY]
                and [row.cost_nano_usd for row in searched] == [720_000]
            )
            failed += not good
            print(f"{name} {version}: {'pass' if good else 'FAIL'}", flush=True)
            if not good:
                print(done.stdout[-1000:], done.stderr[-1000:], engine.queries, searched)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
