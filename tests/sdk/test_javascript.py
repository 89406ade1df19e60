"""The official JavaScript SDKs against a real gateway; the checks stand in js/check.mjs."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from playwright.sync_api import Page

from browsing import chromium, profile
from gateway import Gateway, start, stop
from headgate.web.site import prose
from played import HELLO, PlayedUpstream
from programs import node_modules

HERE = Path(__file__).parent / "js"
CHECKS = re.findall(r"^  async (\w+)\(", (HERE / "check.mjs").read_text(), re.M)
_results: dict[str, dict[str, str | None]] = {}


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDKs as locked, installed once; without npm this is skipped, but not in CI."""
    place = tmp_path_factory.mktemp("js")
    node_modules(HERE, place)
    return place


@pytest.mark.parametrize("check", CHECKS)
def test_javascript(check: str, gateway: Gateway, modules: Path) -> None:
    if gateway.url not in _results:
        done = subprocess.run(
            ["node", HERE / "check.mjs", gateway.url, gateway.key, modules],
            capture_output=True,
            text=True,
            timeout=300,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        _results[gateway.url] = {line["name"]: line["error"] for line in lines}
        assert done.returncode == 0, done.stderr
    assert check in _results[gateway.url]
    assert _results[gateway.url][check] is None, _results[gateway.url][check]


TYPESCRIPT = [
    e for e in prose.examples("http://127.0.0.1:1", "MiniMax-M2") if e.language == "typescript"
]


@pytest.mark.parametrize("protocol", [e.protocol for e in TYPESCRIPT])
def test_the_pages_typescript_runs_as_it_stands(
    protocol: str, gateway: Gateway, modules: Path
) -> None:
    shown = prose.examples(gateway.url, "MiniMax-M2")
    (text,) = (e.text for e in shown if (e.protocol, e.language) == (protocol, "typescript"))
    file = modules / f"{protocol}.mjs"
    file.write_text(text)
    names = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    done = subprocess.run(
        ["node", file],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": os.environ["PATH"], **dict.fromkeys(names, gateway.key)},
    )
    assert HELLO in done.stdout, done.stderr


def test_compatcanary_finds_nothing(gateway: Gateway, modules: Path) -> None:
    """npm compatcanary: models, chat, streams, a forced call, strict structured output, Responses."""
    command = modules / "node_modules" / ".bin" / "compatcanary"
    done = subprocess.run(
        [
            "node",
            command,
            "scan",
            "--base-url",
            f"{gateway.url}/v1",
            "--model",
            "MiniMax-M3",
            "--fail-on",
            "any",
            "--format",
            "json",
        ],
        env={**os.environ, "OPENAI_API_KEY": gateway.key},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]


# --- in a browser, on a page of another origin ------------------------------------------------------

# What a bundler would do: where a package's name leads, and nothing for what browsers never call.
PAGE = """<!doctype html><meta charset=utf-8><title>page</title>
<script type=importmap>{"imports": {
  "openai": "/node_modules/openai/index.mjs",
  "@anthropic-ai/sdk": "/node_modules/@anthropic-ai/sdk/index.mjs",
  "@google/genai": "/node_modules/@google/genai/dist/web/index.mjs",
  "p-retry": "/p-retry.mjs", "@opentelemetry/api": "/empty.mjs", "ws": "/empty.mjs", "zod/v4": "/empty.mjs",
  "standardwebhooks": "/empty.mjs"
}}</script>
<script type=module src=/page.mjs></script>"""
SCRIPT = """
window.ask = {
  async openai(url, key) {
    const {default: OpenAI} = await import("openai");
    const client = new OpenAI({apiKey: key, baseURL: url + "/v1", dangerouslyAllowBrowser: true, maxRetries: 0});
    const messages = [{role: "user", content: "hello"}];
    let text = "";
    for await (const chunk of await client.chat.completions.create({model: "MiniMax-M2", messages, stream: true}))
      text += chunk.choices[0]?.delta?.content ?? "";
    return text;
  },
  async responses(url, key) {
    const {default: OpenAI} = await import("openai");
    const client = new OpenAI({apiKey: key, baseURL: url + "/v1", dangerouslyAllowBrowser: true, maxRetries: 0});
    const reply = await client.responses.create({model: "MiniMax-M2", input: "hello"});
    return reply.output_text;
  },
  async anthropic(url, key) {
    const {default: Anthropic} = await import("@anthropic-ai/sdk");
    const client = new Anthropic({apiKey: key, baseURL: url, dangerouslyAllowBrowser: true, maxRetries: 0});
    const messages = [{role: "user", content: "hello"}];
    const reply = await client.messages.stream({model: "MiniMax-M2", max_tokens: 50, messages}).finalMessage();
    return reply.content.map(part => part.text ?? "").join("");
  },
  async google(url, key) {
    const {GoogleGenAI} = await import("@google/genai");
    const client = new GoogleGenAI({apiKey: key, httpOptions: {baseUrl: url}});
    const reply = await client.models.generateContent({model: "MiniMax-M2", contents: "hello"});
    return reply.text;
  },
  async fetch(url, key) {
    const reply = await fetch(url + "/v1/key", {headers: {authorization: "Bearer " + key}});
    const refused = await fetch(url + "/v1/key", {headers: {authorization: "Bearer wrong"}});
    return [reply.status, refused.status, !!refused.headers.get("x-request-id")].join(" ");
  },
};
"""


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
    }

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(modules: Path) -> Iterator[int]:
    """The port of a server of pages, which has two origins: by the name and by the address."""
    (modules / "index.html").write_text(PAGE)
    (modules / "page.mjs").write_text(SCRIPT)
    (modules / "empty.mjs").write_text(
        "export default {}; export const Webhook = class {}; export const SpanKind = {}, trace = {},"
        " context = {}, SpanStatusCode = {}, propagation = {}, metrics = {};"
    )
    (modules / "p-retry.mjs").write_text(
        "export default async f => await f(); export class AbortError extends Error {}"
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(modules)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def open_gate(
    upstream: PlayedUpstream, site: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that pages of one of the origins may call."""
    running = start(
        tmp_path_factory.mktemp("cors") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_CORS_ORIGINS=f"http://127.0.0.1:{site}",
    )
    yield running
    assert stop(running) == 0


@pytest.fixture(scope="module")
def pages(site: int) -> Iterator[tuple[Page, Page]]:
    """A page of the origin that is allowed, and one of the other."""
    with chromium() as browser, profile(browser) as context:
        opened = context.new_page(), context.new_page()
        for page, host in zip(opened, ("127.0.0.1", "localhost"), strict=True):
            page.goto(f"http://{host}:{site}")
            page.wait_for_function("window.ask")
        yield opened


@pytest.mark.parametrize("sdk", ["openai", "responses", "anthropic", "google"])
def test_an_sdk_in_a_browser_gets_its_answer_from_an_allowed_page_only(
    sdk: str, pages: tuple[Page, Page], open_gate: Gateway
) -> None:
    ask = f"([url, key]) => window.ask.{sdk}(url, key).catch(error => 'failed: ' + error)"
    allowed, other = (page.evaluate(ask, [open_gate.url, open_gate.key]) for page in pages)
    assert allowed == HELLO
    assert other.startswith("failed: ")


def test_a_page_reads_errors_and_headers(pages: tuple[Page, Page], open_gate: Gateway) -> None:
    ask = "([url, key]) => window.ask.fetch(url, key)"
    assert pages[0].evaluate(ask, [open_gate.url, open_gate.key]) == "200 401 true"
