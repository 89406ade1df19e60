"""Requests in four protocols over bare sockets, and what came of them: for thousands at a time.

Each request carries a tag of its own: as its session where the protocol has one (Gemini has none),
and in its instructions, so that the upstream sees it too.
"""

import asyncio
import json
import re
from collections import Counter
from typing import Literal

import msgspec

from played import PlayedUpstream

Protocol = Literal["openai", "responses", "anthropic", "gemini"]
PROTOCOLS: tuple[Protocol, ...] = ("openai", "responses", "anthropic", "gemini")
# How a stream says that it is whole.  Gemini's says so in its last piece.
ENDS: dict[Protocol, tuple[bytes, ...]] = {
    "openai": (b"data: [DONE]\n\n",),
    "responses": (b"event: response.completed\n", b"event: response.incomplete\n"),
    "anthropic": (b"event: message_stop\n",),
    "gemini": (b'"finishReason":"STOP"', b'"finishReason":"MAX_TOKENS"'),
}
_TAG = re.compile(rb"tag-([0-9a-z-]+)!")


class Ask(msgspec.Struct, frozen=True):
    protocol: Protocol
    text: str  # its first word says what the played upstream does
    tag: str
    stream: bool
    model: str = "MiniMax-M2"
    max_tokens: int = 100
    more: dict[str, object] = {}

    def written(self, host: str, key: str) -> bytes:
        system, path, extra = f"tag-{self.tag}!", "", ""
        body: dict[str, object] = {"model": self.model, **self.more}
        user = {"role": "user", "content": self.text}
        match self.protocol:
            case "openai":
                path = "/v1/chat/completions"
                body |= {"messages": [{"role": "system", "content": system}, user]}
                body |= {"max_tokens": self.max_tokens, "prompt_cache_key": self.tag}
            case "responses":
                path = "/v1/responses"
                body |= {"instructions": system, "input": self.text}
                body |= {"max_output_tokens": self.max_tokens, "prompt_cache_key": self.tag}
            case "anthropic":
                path, extra = "/v1/messages", f"X-Claude-Code-Session-Id: {self.tag}\r\n"
                body |= {"system": system, "messages": [user], "max_tokens": self.max_tokens}
            case "gemini":
                del body["model"]
                method = "streamGenerateContent?alt=sse" if self.stream else "generateContent"
                path = f"/v1beta/models/{self.model}:{method}"
                body |= {
                    "systemInstruction": {"parts": [{"text": system}]},
                    "contents": [{"role": "user", "parts": [{"text": self.text}]}],
                    "generationConfig": {"maxOutputTokens": self.max_tokens},
                }
        if self.stream and self.protocol != "gemini":
            body["stream"] = True
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n{extra}"
            f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


class Answer(msgspec.Struct):
    """Is as far as it came."""

    ask: Ask
    key: str
    raw: bytearray = msgspec.field(default_factory=bytearray)
    closed: bool = False  # by the gateway, and not broken off

    @property
    def head(self) -> bytes:
        head, found, _ = bytes(self.raw).partition(b"\r\n\r\n")
        return head if found else b""

    @property
    def status(self) -> int:
        return int(self.head[9:12] or 0)

    @property
    def id(self) -> str:
        """Return the id of the exchange; "" when its head never came."""
        found = re.search(rb"(?i)\r\nx-request-id: (\w+)", self.head)
        return found[1].decode() if found else ""

    @property
    def body(self) -> bytes:
        _, _, rest = bytes(self.raw).partition(b"\r\n\r\n")
        if not self._chunked:
            return rest
        out = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size or b"0", 16)
            out, rest = out + rest[:length], rest[length + 2 :]
        return out

    @property
    def _chunked(self) -> bool:
        return b"transfer-encoding: chunked" in self.head.lower()

    @property
    def whole(self) -> bool:
        """Whether HTTP says that nothing is missing."""
        if self._chunked:
            return self.raw.endswith(b"0\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", self.head)
        return found is not None and len(self.body) == int(found[1])

    @property
    def finished(self) -> bool:
        """Whether the client has its reply, by the end that its own protocol gives it."""
        if self.status != 200:
            return False
        if not self.ask.stream:
            return self.whole
        return any(end in self.body for end in ENDS[self.ask.protocol])


async def call(url: str, answer: Answer) -> None:
    """Send the request and read all there is; when this is cancelled, the client disconnects."""
    host, port = url.removeprefix("http://").split(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return
    try:
        writer.write(answer.ask.written(host, answer.key))
        while data := await reader.read(1 << 16):
            answer.raw += data
        answer.closed = True
    except OSError:
        pass
    finally:
        writer.close()


def arrived(upstream: PlayedUpstream) -> Counter[str]:
    """Return how often each tag reached the upstream."""
    found: Counter[str] = Counter()
    for seen in list(upstream.seen):
        tag = _TAG.search(seen.body)
        found[tag[1].decode() if tag else ""] += 1
    return found
