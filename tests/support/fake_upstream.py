"""MiniMax on loopback as it was observed, in a thread of its own, with an event loop of its own.

Both of its paths: OpenAI chat at /v1/chat/completions and Anthropic messages at
/anthropic/v1/messages, streamed or whole.  Shapes after platform.minimax.io's OpenAI-compatible and
Anthropic-compatible pages and recorded replies (read 2026-11): `base_resp` and the sensitivity
fields in each chunk, ids `call_function_..._1`, thinking as `reasoning_details` or as <think> tags,
error numbers in brackets at the end of the message.  `played.py` beside this plays upstreams with
our own dialects; this file imports nothing of ours, so that the two cannot share a mistake.

The last user's text chooses the answer:

    call one tool, call two tools      call the tools that the request offers, thinking first
    think                              think, then greet
    fail 429                           an error page with that status
    base_resp 1002                     status 200, and that error inside
    break mid stream                   cut the connection after the first piece of text
    stop without finish                end the reply properly, but without saying why
    go on                              text until the client leaves
    anything else, such as say hello   greet

A result of a tool that comes last is answered with RESULT.  Note: every event is
cut into two HTTP chunks, which may be in the middle of a character; nothing may depend on that.
"""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar

from waiting import PATIENCE_S, pause

HELLO = "Hello, Wörld 👋! It's “fine”."
THOUGHT = "The user wants a\nhello — easy."
RESULT = "It is sunny in Zürich."
ARGUMENTS = ('{"city":"Zürich","days":3}', "{}")  # of the first call and of the second
SIGNATURE = "5f" * 32
INPUT, OUTPUT, CACHED, REASONING = 120, 35, 100, 7  # tokens; the input has the cached ones in it
CREATED = 1_700_000_000
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
}
# status: (type, words) of error pages, as seen
ERRORS = {
    400: ("bad_request_error", "invalid params, invalid chat setting (2013)"),
    401: ("authorized_error", "login fail: Please carry the API secret key (1004)"),
    404: ("not_found_error", "404 page not found"),
    429: ("rate_limit_error", "rate limit exceeded(RPM) (1002)"),
    500: ("api_error", "unknown error, 794 (1000)"),
    529: ("overloaded_error", "High traffic detected, please retry later (2064)"),
}
BASE_RESP = {1002: "rate limit", 1008: "insufficient balance", 1027: "output new_sensitive"}
PAUSE_S = 0.01  # between the pieces of an endless reply

Json = dict[str, Any]  # whatever a client sent, and shapes that are written out where they are used


@dataclass
class Seen:
    """One request as it arrived, and what became of its connection."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: Json | None  # None where it was no JSON object
    hung_up: bool = False  # the client left before the answer was complete
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    def wait(self, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until it is answered or given up; False when neither came to be."""
        return self._over.wait(timeout_s)


class FakeUpstream:
    """`with FakeUpstream() as upstream:` listens while inside.

    `step` is how many characters a piece of a stream has.  `cumulative` repeats in each piece of
    `reasoning_details` what was thought before: both habits have been recorded.
    """

    def __init__(self, *, step: int = 7, cumulative: bool = False) -> None:
        self.step, self.cumulative = step, cumulative
        self.seen: list[Seen] = []
        self.connections: set[_Connection] = set()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._main(),), daemon=True
        )

    @property
    def openai_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/anthropic"

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def __enter__(self) -> "FakeUpstream":
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def connection(self) -> "_Connection":
        """One that was accepted; agents/upstream.py answers in another way."""
        return _Connection(self)

    async def _main(self) -> None:
        server = await self._loop.create_server(self.connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        tasks = [connection.task for connection in self.connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Connection(asyncio.Protocol):
    """HTTP/1.1: one request after another on one connection."""

    transport: asyncio.Transport
    task: asyncio.Task[None]

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.data = b""
        self.more = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.upstream.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.more.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.upstream.connections.discard(self)
        self.task.cancel()

    # reading

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self.data:
            self.more.clear()
            await self.more.wait()
        found, _, self.data = self.data.partition(mark)
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self.data) < size:
            self.more.clear()
            await self.more.wait()
        found, self.data = self.data[:size], self.data[size:]
        return found

    async def _request(self) -> Seen:
        first, *lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(await self._until(b"\r\n"), 16):
                body += (await self._exactly(size + 2))[:-2]
            await self._until(b"\r\n")
        else:
            body = await self._exactly(int(headers.get("content-length", 0)))
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        return Seen(method, path, headers, parsed if isinstance(parsed, dict) else None)

    # answering

    async def _serve(self) -> None:
        try:
            while not self.transport.is_closing():
                seen = await self._request()
                self.upstream.seen.append(seen)
                try:
                    await self._answer(seen)
                except asyncio.CancelledError:
                    seen.hung_up = True
                    raise
                finally:
                    seen._over.set()
                if seen.headers.get("connection", "").lower() == "close":
                    self.transport.close()
        finally:
            self.transport.abort()

    async def _answer(self, seen: Seen) -> None:
        paths: dict[str, type[_OpenAI | _Anthropic]] = {
            "/v1/chat/completions": _OpenAI,
            "/anthropic/v1/messages": _Anthropic,
        }
        kind = paths.get(seen.path.partition("?")[0])
        if kind is None or seen.method != "POST":
            self._page(404, _error(404))
        elif seen.body is None or not isinstance(seen.body.get("messages"), list):
            self._page(400, _error(400))
        elif found := re.fullmatch(r"fail (\d{3})", stated(seen.body)):
            self._page(int(found[1]), _error(int(found[1])))
        else:
            form = kind(seen.body, self.upstream)
            scenario = stated(seen.body)
            if seen.body.get("stream") is True:
                await self._stream(form, scenario)
            elif scenario == "break mid stream":
                whole = json.dumps(form.whole(scenario)).encode()
                self.transport.write(_head(200, f"content-length: {len(whole)}") + whole[:-9])
                self.transport.close()
            else:
                self._page(200, form.whole(scenario))

    def _page(self, status: int, body: Json) -> None:
        page = json.dumps(body, ensure_ascii=False).encode()
        fields = (f"content-length: {len(page)}", "content-type: application/json; charset=utf-8")
        self.transport.write(_head(status, *fields) + page)

    async def _stream(self, form: "_OpenAI | _Anthropic", scenario: str) -> None:
        self.transport.write(
            _head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
        )
        for event in form.events(scenario):
            data = event.encode()
            for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
                self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if scenario == "break mid stream" and form.texts:
                self.transport.close()  # what is written goes out, the last chunk never comes
                return
            await pause(PAUSE_S if scenario == "go on" else 0, "as a model between two tokens")
        self.transport.write(b"0\r\n\r\n")


def _head(status: int, *fields: str) -> bytes:
    """As MiniMax sends it: names for the trace, but neither rate limits nor `retry-after`."""
    trace = "0a" * 16
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}", *fields]
    lines += [f"trace-id: {trace}", f"minimax-request-id: {trace}", "x-session-id: 1", "", ""]
    return "\r\n".join(lines).encode()


def _error(status: int) -> Json:
    type_, words = ERRORS.get(status, ("api_error", f"unknown error, {status} (1000)"))
    error = {"type": type_, "message": words, "http_code": str(status)}
    return {"type": "error", "error": error, "request_id": "0a" * 16}


def stated(body: Json) -> str:
    """What chooses the answer: the last user's text, or "result" when that of a tool comes last."""
    message = body["messages"][-1]
    content = message.get("content")
    if message.get("role") == "tool":
        return "result"
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    texts = [str(block.get("text", "")) for block in blocks if block.get("type") == "text"]
    if texts:
        return texts[-1]
    return "result" if any(block.get("type") == "tool_result" for block in blocks) else ""


def _scene(scenario: str) -> tuple[str, str, int]:
    """(thinking, text, number of calls)."""
    match scenario:
        case "think":
            return THOUGHT, HELLO, 0
        case "call one tool":
            return THOUGHT, "", 1
        case "call two tools":
            return THOUGHT, "Two at once.", 2
        case "result":
            return "", RESULT, 0
        case _:
            return "", HELLO, 0


def _base_error(scenario: str) -> tuple[int, str] | None:
    found = re.fullmatch(r"base_resp (\d{4})", scenario)
    return (int(found[1]), BASE_RESP.get(int(found[1]), "unknown error")) if found else None


def drawn(number: int) -> str:
    """Return the middle of a call's id: it looks drawn, as MiniMax's do, and is the same in each run."""
    return hashlib.blake2b(b"%d" % number, digest_size=6).hexdigest()


class _Form:
    """One reply: what both paths share."""

    def __init__(self, body: Json, upstream: FakeUpstream) -> None:
        self.body = body
        self.step, self.cumulative = upstream.step, upstream.cumulative
        self.number = len(upstream.seen)  # ids must differ between replies
        self.texts = 0  # pieces of text so far

    def scene(self, scenario: str) -> tuple[str, str, int]:
        return _scene(scenario)

    def pieces(self, text: str) -> Iterator[str]:
        return (text[i : i + self.step] for i in range(0, len(text), self.step))

    def calls(self, count: int) -> list[tuple[str, str, str]]:
        """(id, name, arguments) of calls to the first tools of the request."""
        tools = self.body.get("tools") or [{"name": "get_weather"}]
        names = [tool.get("function", tool)["name"] for tool in tools]
        return [
            (
                f"call_function_{drawn(self.number)}_{i + 1}",
                names[min(i, len(names) - 1)],
                ARGUMENTS[i],
            )
            for i in range(count)
        ]


class _OpenAI(_Form):
    usage: ClassVar[Json] = {
        "total_tokens": INPUT + OUTPUT,
        "total_characters": 0,
        "prompt_tokens": INPUT,
        "completion_tokens": OUTPUT,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": REASONING},
    }

    def envelope(self, kind: str, choices: list[Json] | None, usage: Json | None) -> Json:
        return {
            "id": f"{self.number:032x}",
            "choices": choices,
            "created": CREATED,
            "model": self.body["model"],
            "object": kind,
            "usage": usage,
            "input_sensitive": False,
            "output_sensitive": False,
            "input_sensitive_type": 0,
            "output_sensitive_type": 0,
            "output_sensitive_int": 0,
            "base_resp": {"status_code": 0, "status_msg": ""},
        }

    def failed(self, kind: str, error: tuple[int, str]) -> Json:
        base = {"status_code": error[0], "status_msg": error[1]}
        return {**self.envelope(kind, None, None), "base_resp": base}

    def details(self, text: str) -> list[Json]:
        return [
            {
                "type": "reasoning.text",
                "id": "reasoning-text-1",
                "format": "MiniMax-response-v1",
                "index": 0,
                "text": text,
            }
        ]

    @property
    def split(self) -> bool:
        return self.body.get("reasoning_split") is True

    def inline(self, thought: str) -> str:
        return f"<think>\n{thought}\n</think>\n\n" if thought and not self.split else ""

    def tool_calls(self, count: int) -> list[Json]:
        return [
            {
                "id": id_,
                "type": "function",
                "index": i,
                "function": {"name": name, "arguments": text},
            }
            for i, (id_, name, text) in enumerate(self.calls(count))
        ]

    def whole(self, scenario: str) -> Json:
        if error := _base_error(scenario):
            return self.failed("chat.completion", error)
        thought, text, count = self.scene(scenario)
        message: Json = {
            "role": "assistant",
            "name": "MiniMax AI",
            "audio_content": "",
            "content": self.inline(thought) + text,
        }
        if thought and self.split:
            message |= {"reasoning_content": thought, "reasoning_details": self.details(thought)}
        if count:
            message["tool_calls"] = self.tool_calls(count)
        reason = None if scenario == "stop without finish" else "tool_calls" if count else "stop"
        choice = {"index": 0, "finish_reason": reason, "message": message}
        return self.envelope("chat.completion", [choice], self.usage)

    def events(self, scenario: str) -> Iterator[str]:
        if error := _base_error(scenario):
            yield _data(self.failed("chat.completion.chunk", error))
            return
        for delta, reason in self.deltas(scenario):
            choice: Json = {
                "index": 0,
                "delta": {"role": "assistant", "name": "MiniMax AI", **delta},
            }
            if reason:
                choice["finish_reason"] = reason
            yield _data(self.envelope("chat.completion.chunk", [choice], None))
        if scenario == "stop without finish":
            return
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield _data(self.envelope("chat.completion.chunk", [], self.usage))
        yield "data: [DONE]\n\n"

    def deltas(self, scenario: str) -> Iterator[tuple[Json, str | None]]:
        """(delta, finish reason) of each chunk; the last one says why the reply ends."""
        thought, text, count = self.scene(scenario)
        so_far = ""
        for piece in self.pieces(thought) if self.split else ():
            so_far += piece
            details = self.details(so_far if self.cumulative else piece)
            yield {"content": "", "reasoning_content": piece, "reasoning_details": details}, None
        for piece in self.pieces(self.inline(thought)):
            yield {"content": piece}, None
        for piece in self.pieces(text):
            self.texts += 1
            yield {"content": piece}, None
        while scenario == "go on":
            yield {"content": "and on "}, None
        for i, call in enumerate(self.tool_calls(count)):
            rest = call["function"].pop("arguments")
            yield {"content": "", "tool_calls": [call]}, None
            for piece in self.pieces(rest):
                more = {"index": i, "function": {"arguments": piece}}
                yield {"tool_calls": [more]}, None
        if scenario != "stop without finish":
            yield {"content": ""}, "tool_calls" if count else "stop"


class _Anthropic(_Form):
    usage: ClassVar[Json] = {
        "input_tokens": INPUT - CACHED,
        "output_tokens": OUTPUT,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": CACHED,
    }

    def message(self, content: list[Json], reason: str | None, usage: Json) -> Json:
        return {
            "id": f"{self.number:032x}",
            "type": "message",
            "role": "assistant",
            "model": self.body["model"],
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }

    def blocks(self, scenario: str) -> Iterator[tuple[Json, str, str]]:
        """(the block as it starts, the kind of its deltas, all that they will say)."""
        thought, text, count = self.scene(scenario)
        if thought:
            yield {"type": "thinking", "thinking": "", "signature": ""}, "thinking", thought
        if text:
            yield {"type": "text", "text": ""}, "text", text
        for id_, name, arguments in self.calls(count):
            start = {"type": "tool_use", "id": id_, "name": name, "input": {}}
            yield start, "partial_json", arguments

    def reason(self, scenario: str) -> str | None:
        if scenario == "stop without finish":
            return None
        return "tool_use" if self.scene(scenario)[2] else "end_turn"

    def whole(self, scenario: str) -> Json:
        if error := _base_error(scenario):
            return {"base_resp": {"status_code": error[0], "status_msg": error[1]}}
        content: list[Json] = []
        for block, kind, text in self.blocks(scenario):
            if kind == "partial_json":
                block["input"] = json.loads(text)
            else:
                block[kind] = text
            if kind == "thinking":
                block["signature"] = SIGNATURE
            content.append(block)
        return self.message(content, self.reason(scenario), self.usage)

    def events(self, scenario: str) -> Iterator[str]:
        zeros = {"input_tokens": 0, "output_tokens": 0}  # the true ones come with message_delta
        yield _event({"type": "message_start", "message": self.message([], None, zeros)})
        yield _event({"type": "ping"})
        if error := _base_error(scenario):  # supposed: no recording of this path has one
            reported = {"type": ERRORS[429 if error[0] == 1002 else 500][0]}
            reported["message"] = f"{error[1]} ({error[0]})"
            yield _event({"type": "error", "error": reported, "request_id": "0a" * 16})
            return
        for i, (block, kind, text) in enumerate(self.blocks(scenario)):
            yield _event({"type": "content_block_start", "index": i, "content_block": block})
            name = "input_json_delta" if kind == "partial_json" else f"{kind}_delta"
            for piece in self.pieces(text):
                self.texts += kind == "text"
                yield self.delta(i, {"type": name, kind: piece})
            while scenario == "go on":
                yield self.delta(i, {"type": name, kind: "and on "})
            if kind == "thinking":
                yield self.delta(i, {"type": "signature_delta", "signature": SIGNATURE})
            yield _event({"type": "content_block_stop", "index": i})
        if scenario == "stop without finish":
            return
        end = {"stop_reason": self.reason(scenario), "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": end, "usage": self.usage})
        yield _event({"type": "message_stop"})

    def delta(self, index: int, delta: Json) -> str:
        return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _data(value: Json) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _event(value: Json) -> str:
    return f"event: {value['type']}\n{_data(value)}"
