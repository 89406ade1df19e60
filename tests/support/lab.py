"""An upstream on loopback whose abilities a test chooses one by one, in a thread of its own.

For `headgate doctor`: it answers the doctor's questions as a model would that follows what it is
told, and honours only what is in `can`.  It speaks chat completions at /v1, Anthropic's messages at
/anthropic and vLLM's /tokenize, written by our own dialects; `fake_upstream.py` is the one that
shares no code with us.  Every error page repeats the key and the prompt, as bad upstreams do: neither
may come out of the doctor.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import msgspec

from headgate.chat import (
    Delta,
    Event,
    Finish,
    Media,
    PartStart,
    PartStop,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from headgate.dialects.contract import Dialect, ReplyFacts, RequestTarget
from headgate.dialects.registry import ANTHROPIC, OPENAI
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from waiting import PATIENCE_S

KEY = "sk-api-canary-key-0123456789"
THOUGHT = "canary thought: the user wants the weather in Paris, so I call the tool for that city."
REPLY = "canary reply"
ALL = frozenset(
    (
        "tools",
        "think",
        "off",
        "none",
        "required",
        "named",
        "schema",
        "stop",
        "image",
        "cache",
        "count",
        "usage",
    )
)
MINIMAX = frozenset(("tools", "think", "off", "none", "image", "cache", "usage"))
_FIELDS = {
    "details": "reasoning_details",
    "reasoning_content": "reasoning_content",
    "reasoning": "reasoning",
}


class Lab:
    """`reads`: forms of returned thinking that make the input grow; `refuses`: that are a 400."""

    def __init__(
        self,
        can: frozenset[str] = ALL,
        *,
        reads: tuple[str, ...] = ("details", "blocks"),
        refuses: tuple[str, ...] = (),
        native: bool = True,
        fails: dict[str, tuple[int, str]] | None = None,
        step: int = 6,
    ) -> None:
        self.can, self.reads, self.refuses, self.native = can, reads, refuses, native
        self.fails = fails or {}  # words of the prompt, or "*": status and message
        self.step = step  # characters in a piece of a stream
        self.requests = 0
        self.bodies: list[bytes] = []
        self.port = 0
        self._known: set[str] = set()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextlib.contextmanager
    def running(self) -> Iterator["Lab"]:
        thread = threading.Thread(target=asyncio.run, args=(self._main(),), daemon=True)
        thread.start()
        assert self._ready.wait(PATIENCE_S)
        try:
            yield self
        finally:
            assert self._loop is not None and self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(PATIENCE_S)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = Server(self._handle)
        self.port = await server.listen("127.0.0.1", 0)
        self._ready.set()
        await self._stop.wait()
        server.stop_accepting()
        await server.drain(0)

    async def _handle(self, inbound: Inbound) -> None:
        body = await inbound.body()
        self.requests += 1
        self.bodies.append(body)
        dialects: dict[str, Dialect] = {"/v1/chat/completions": OPENAI}
        if self.native:
            dialects["/anthropic/v1/messages"] = ANTHROPIC
        if inbound.headers.get("authorization") != f"Bearer {KEY}":
            self._error(inbound, 401, "login fail (1004)", body)
        elif (
            inbound.path in ("/tokenize", "/anthropic/v1/messages/count_tokens")
            and "count" in self.can
        ):
            page = b'{"count":4}' if inbound.path == "/tokenize" else b'{"input_tokens":4}'
            inbound.respond(200, [("content-type", "application/json")], page)
        elif inbound.path not in dialects:
            self._error(inbound, 404, "page not found", body)
        else:
            await self._answer(inbound, dialects[inbound.path], body)

    def _error(self, inbound: Inbound, status: int, message: str, body: bytes) -> None:
        stated = f"{KEY} {body.decode()[:200]} {message}"
        page = {"type": "error", "error": {"type": "error", "message": stated, "code": KEY}}
        inbound.respond(status, [("content-type", "application/json")], msgspec.json.encode(page))

    async def _answer(self, inbound: Inbound, dialect: Dialect, body: bytes) -> None:
        target = RequestTarget(headers=inbound.headers)
        request = dialect.decode_request(body, target)
        for words, (status, message) in self.fails.items():
            if words == "*" or words.encode() in body:
                self._error(inbound, status, message, body)
                return
        given, forms = _given(body)
        if any(f in self.refuses for f in forms):
            self._error(inbound, 400, "invalid params (2013)", body)
            return
        picture = any(isinstance(p, Media) for m in request.messages for p in m.parts)
        if picture and "image" not in self.can:
            self._error(inbound, 400, "images are not supported (2013)", body)
            return
        read = sum(len(given[f]) for f in forms if f in self.reads)
        system = "".join(m.text for m in request.messages if m.role == "system")
        cached = 600 if system and system in self._known and "cache" in self.can else 0
        self._known.add(system)
        usage = (
            Usage(100 + read // 4 + len(system) // 4, 20, cached) if "usage" in self.can else None
        )
        facts = ReplyFacts("up1", request.model, 1700000000, 0)
        encoder = dialect.encoder(request, facts, target)
        inbound.start(200, [("content-type", dialect.facts.stream_type)])
        for event in self._events(request, picture, usage):
            inbound.write(encoder.feed([event]))
        inbound.end()

    def _events(self, request: Request, picture: bool, usage: Usage | None) -> Iterator[Event]:
        parts = self._parts(request, picture)
        yield Start("up1", request.model)
        for part in parts:
            match part:
                case Text(text):
                    yield PartStart("text")
                case Thinking(text):
                    yield PartStart("thinking")
                case ToolCall():
                    text = part.arguments
                    yield PartStart("tool_call", part.id, part.name)
            for i in range(0, len(text), self.step):
                yield Delta(text[i : i + self.step])
            yield PartStop(part.signature if isinstance(part, Thinking) else "")
        calls = any(isinstance(p, ToolCall) for p in parts)
        yield Finish("tool_calls" if calls else "stop", usage)

    def _parts(self, request: Request, picture: bool) -> list[Text | Thinking | ToolCall]:
        can, last = self.can, request.messages[-1]
        mode = request.choice.mode
        weather = ToolCall("call_function_1", "get_weather", '{"city":"Paris"}')
        think = "think" in can and (request.reasoning.mode == "on" or "off" not in can)
        thoughts: list[Text | Thinking | ToolCall] = [Thinking(THOUGHT, "5f" * 32)] if think else []
        if last.role == "tool":
            return [*thoughts, Text(f"{REPLY}: sunny.")]
        if request.tools:
            if (mode == "none" and "none" in can) or "tools" not in can:
                return [*thoughts, Text(REPLY)]
            if "hello" in last.text:
                return [
                    *thoughts,
                    weather if mode == "required" and "required" in can else Text(REPLY),
                ]
            if mode == "named" and "named" in can:
                return [*thoughts, ToolCall("call_function_2", "get_time", '{"city":"Paris"}')]
            return [*thoughts, weather]
        if request.format is not None:
            schema = '{"city":"Paris","people":2100000}'
            return [*thoughts, Text(schema if "schema" in can else REPLY)]
        if request.sampling.stop:
            return [*thoughts, Text("1, 2, 3, 4, 5, " + ("" if "stop" in can else "6, 7, 8, 9"))]
        if picture:
            return [*thoughts, Text("Red.")]
        return [
            *thoughts,
            Text(f"{REPLY}: one, two, three, four, five, six, seven, eight, nine, ten."),
        ]


def _given(body: bytes) -> tuple[dict[str, str], list[str]]:
    """Return the thinking that came back, by its form."""
    found: dict[str, str] = {}
    for message in msgspec.json.decode(body)["messages"]:
        if message.get("role") != "assistant":
            continue
        for form, field in _FIELDS.items():
            if value := message.get(field):
                found[form] = value if isinstance(value, str) else "".join(d["text"] for d in value)
        content = message.get("content")
        if isinstance(content, str) and content.startswith("<think>"):
            found["tags"] = content
        for block in content if isinstance(content, list) else ():
            if block.get("type") == "thinking":
                found["blocks"] = block["thinking"]
    return found, list(found)
