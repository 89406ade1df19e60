"""An upstream on loopback, played by our own dialects, in a thread of its own.

It answers at /openai/chat/completions, /responses/responses, /anthropic/v1/messages and /gemini/models/..., streamed or
whole, in a way that the last text of the request chooses by its first word; see `answer`.
"held" writes a first piece and the rest only after `release`: a test decides when the reply goes on.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import uvloop

from headgate.chat import (
    Delta,
    Event,
    Finish,
    PartStart,
    PartStop,
    Reply,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    collect,
)
from headgate.dialects.contract import Dialect, ReplyFacts, RequestTarget
from headgate.dialects.registry import ANTHROPIC, GEMINI, OPENAI, RESPONSES
from headgate.errors import Failure
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from waiting import PATIENCE_S, pause

USAGE = Usage(input=120, output=35, cached=100, reasoning=7)
HELLO = "Hello, Wörld 👋! It's “fine”."
THOUGHT = "The user wants a\nhello — easy."
RAW_CALL = (
    '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="days">3</parameter>\n'
    "</invoke>\n</minimax:tool_call>"
)
CITY = '{"city":"Zürich","days":3}'
_GEMINI = re.compile(r"/gemini/models/([^:]+):(\w+)")


class Seen(msgspec.Struct):
    """One request as it arrived, and what became of its connection."""

    path: str
    headers: dict[str, str]
    body: bytes
    request: Request
    left: bool = False  # the gateway left before the end
    held: bool = False  # "held": half of the text is written, and the rest waits for `release`
    _go_on: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class PlayedUpstream:
    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.written = 0  # bytes of the streams so far
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),), daemon=True)

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def url(self, dialect: str) -> str:
        return f"http://127.0.0.1:{self.port}/{dialect}"

    def release(self, seen: Seen) -> None:
        """Let a reply to "held" go on to its end; called from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(seen._go_on.set)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = Server(self._handle)
        self.port = await server.listen("127.0.0.1", 0)
        self._ready.set()
        await self._stop.wait()
        server.stop_accepting()
        await server.drain(0)

    async def _handle(self, inbound: Inbound) -> None:
        dialect: Dialect
        target = RequestTarget(headers=inbound.headers)
        if inbound.path == "/openai/chat/completions":
            dialect = OPENAI
        elif inbound.path == "/responses/responses":
            dialect = RESPONSES
        elif inbound.path == "/anthropic/v1/messages":
            dialect = ANTHROPIC
        elif found := _GEMINI.fullmatch(inbound.path):
            dialect = GEMINI
            target = RequestTarget(
                found[1], found[2] == "streamGenerateContent", headers=inbound.headers
            )
        else:
            inbound.respond(404, [], b"nothing here")
            return
        body = await inbound.body()
        request = dialect.decode_request(body, target)
        seen = Seen(inbound.path, inbound.headers, body, request)
        self.seen.append(seen)
        try:
            await self._answer(inbound, dialect, target, request, seen)
        except asyncio.CancelledError:
            seen.left = True
            raise

    async def _answer(
        self,
        inbound: Inbound,
        dialect: Dialect,
        target: RequestTarget,
        request: Request,
        seen: Seen,
    ) -> None:
        facts = ReplyFacts("up1", request.model, 1700000000, 9)
        word, _, rest = stated(request).partition(" ")
        if word == "fail":
            status, _, words = rest.partition(" ")
            page = {"error": {"type": "error", "message": words or "It failed."}}
            headers = [("content-type", "application/json"), ("retry-after", "7")]
            inbound.respond(int(status), headers, msgspec.json.encode(page))
        elif word == "silent":
            await pause(float(rest), "the model does not begin to answer")
            inbound.respond(500, [], b"too late")
        elif not request.stream:
            reply = collect([e async for e in answer(request)])
            assert isinstance(reply, Reply)
            body = dialect.encode_reply(reply, request, facts)
            inbound.respond(200, [("content-type", "application/json")], body)
        else:
            encoder = dialect.encoder(request, facts, target)
            inbound.start(200, [("content-type", dialect.facts.stream_type)])
            async for event in answer(request):
                if isinstance(event, Finish) and word == "cut":
                    break
                piece = encoder.feed([event])
                inbound.write(piece)
                self.written += len(piece)
                if inbound.paused:
                    await inbound.drain()
                if isinstance(event, Delta) and word == "held" and not seen.held:
                    seen.held = True
                    await seen._go_on.wait()
                if isinstance(event, Delta) and word == "break":
                    inbound.abort()
                    return
                if isinstance(event, Delta) and word == "trip":
                    failure = Failure("overloaded", "The model is overloaded.")
                    for piece in encoder.fail(failure):
                        inbound.write(piece)
                    break
            inbound.end()

    @contextmanager
    def running(self) -> Iterator["PlayedUpstream"]:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        try:
            yield self
        finally:
            assert self._loop is not None
            assert self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE_S)


def stated(request: Request) -> str:
    """The last user's text; a tool's result counts as one, a question for JSON stays one."""
    searches = any(tool.name == "web_search" for tool in request.tools)
    for message in reversed(request.messages):
        if message.role == "tool":
            if searches:  # the result may be the gateway's own: what was asked counts
                continue
            return "result"
        if message.role == "user" and message.text.startswith("json "):
            return message.text
        if message.role == "user" and message.text and "JSON" not in message.text:
            return message.text
    return ""


def asked_schema(request: Request) -> Any:
    """The JSON Schema of a structured reply, from the field or from the words that emulate it."""
    if request.format is not None:
        return msgspec.json.decode(request.format.schema)
    for message in request.messages:
        if message.role == "system" and "JSON Schema:\n" in message.text:
            return msgspec.json.decode(message.text.partition("JSON Schema:\n")[2].split("\n\n")[0])
    return None


def instance(schema: Any) -> Any:
    """A small value that fits a plain schema."""
    if not isinstance(schema, dict):  # the SDKs' own tests send a word for a schema
        return "Here"
    if "const" in schema or "enum" in schema:
        return schema.get("const") or schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: instance(s) for name, s in schema.get("properties", {}).items()}
        case "array":
            return [instance(schema.get("items", {"type": "string"}))]
        case "integer" | "number":
            return schema.get("minimum", 7)
        case "boolean":
            return True
    return "Here"


FINDINGS = "It is 21 degrees [1], as another page says too [2]. Not [9]."


def searching(request: Request, rest: str) -> list[Text | Thinking | ToolCall]:
    """Search for `rest` once, then answer from the results; "twice", "ever", "mixed" do more."""
    asked = sum(
        isinstance(p, ToolCall) for m in request.messages[_asked(request) :] for p in m.parts
    )
    kind, _, query = rest.partition(" ")
    most = {"twice": 2, "ever": 1000}.get(kind, 1)
    if asked >= most:
        return [Thinking("They agree."), Text(FINDINGS)]
    query = query if kind in ("twice", "ever", "mixed", "nothing") else rest
    arguments = msgspec.json.encode({} if kind == "nothing" else {"query": query}).decode()
    call = ToolCall(f"call_function_{asked + 1}", "web_search", arguments)
    parts: list[Text | Thinking | ToolCall] = [
        Thinking("I look it up."),
        Text("Let me look."),
        call,
    ]
    if kind == "mixed":
        parts.append(ToolCall("call_function_9", "get_weather", CITY))
    return parts


def _asked(request: Request) -> int:
    """The place of the user's last message."""
    return max(n for n, m in enumerate(request.messages) if m.role == "user")


async def answer(request: Request) -> AsyncIterator[Event]:
    """Events of the reply, in small pieces, with a pause where the word asks for one."""
    word, _, rest = stated(request).partition(" ")
    parts: list[Text | Thinking | ToolCall]
    between_s = 0.0
    reason = "stop"
    match word:
        case "think":
            parts = [Thinking(THOUGHT, "sig-1"), Text(HELLO)]
        case "tool":
            parts = [Thinking(THOUGHT), ToolCall("call_function_1", "get_weather", CITY)]
        case "tools":
            parts = [
                Text("Two at once."),
                ToolCall("call_function_1", "get_weather", CITY),
                ToolCall("call_function_2", "get_time", "{}"),
            ]
        case "result":
            parts = [Text("It is sunny in Zürich.")]
        case "long":
            parts, reason = [Text("and so on")], "length"
        case "slow":
            parts, between_s = [Text("x" * 400)], float(rest or 0.05)
        case "held":
            parts = [Text("x" * 400)]
        case "flood":
            parts = [Text("y" * (int(rest) << 20))]
        case "rawcall":
            parts = [Text(RAW_CALL)]
        case "search" if any(t.name == "web_search" for t in request.tools):
            parts = searching(request, rest)
        case "json":
            again = sum(m.role == "assistant" for m in request.messages)
            texts = {"fenced": '```json\n{"n": 3}\n```', "late": '{"n": 4}' if again else "Sure!"}
            parts = [Text(texts.get(rest, '{"n": "x"}'))]
        case _ if request.tools:  # any other talk with tools at hand: call the first
            tool = next(
                (t for t in request.tools if t.name == request.choice.name), request.tools[0]
            )
            stated_args = msgspec.json.encode(
                instance(msgspec.json.decode(tool.parameters))
            ).decode()
            parts = [ToolCall("call_function_1", tool.name, stated_args)]
        case _ if (schema := asked_schema(request)) is not None:
            parts = [Text(msgspec.json.encode(instance(schema)).decode())]
        case _:
            parts = [Text(HELLO)]
    step = 65536 if word == "flood" else 5
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
        for i in range(0, len(text), step):
            yield Delta(text[i : i + step])
            if between_s:
                await pause(between_s, "a slow model")
        yield PartStop(part.signature if isinstance(part, Thinking) else "")
    calls = any(isinstance(p, ToolCall) for p in parts)
    yield Finish("tool_calls" if calls else reason, USAGE)  # type: ignore[arg-type]
