"""The questions that a checkup asks an upstream, and how they are asked: requests, clock, counting.

Beside `diagnostics/checks.py`, which judges what comes back and is the only user.  The questions are
requests of the hub, encoded by the route's own dialect and not fitted to its capabilities, so that a
`stop` goes out also where the preset says that it is ignored.

Note: a chat stream is read twice, by its decoder and by a `_RawReader`, as the decoder makes
all forms of thinking the same and the checkup wants to know which it was.
"""

import asyncio
import base64
import itertools
import secrets
import struct
import zlib
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Struct, structs

from headgate.catalog.routes import Preset, Route, Upstream
from headgate.chat import (
    Choice,
    Delta,
    Event,
    Format,
    Media,
    Message,
    PartStart,
    Reasoning,
    Reply,
    ReplyPart,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    collect,
)
from headgate.dialects.capabilities import Capabilities, ReasoningForm
from headgate.dialects.registry import FACTS
from headgate.edge import upstream as upstreams
from headgate.errors import Failure, Refused
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.stream import sse

Habit = Literal["", "incremental", "cumulative", "incremental, then all of it again"]

MAX_TOKENS = 512  # of one reply: M2 thinks before it calls a tool, some 100 to 300 tokens
_REPLY_BYTES = 8 << 20  # of one stream; cumulative thinking of MAX_TOKENS is below 1 MiB
_COUNT_BYTES = 1 << 20  # of the answer of a count endpoint, which may list every token
_PREFIX_WORDS = 1500  # MiniMax caches prefixes from 512 tokens on


class Plan(Struct, frozen=True):
    """At most this much will be sent and got."""

    requests: int
    input_tokens: int
    output_tokens: int


class ProbeResult(Struct, frozen=True):
    """One probe and what came of it."""

    reply: Reply | None = None
    failure: Failure | None = None
    reason: str = ""  # of a connection that was not made; of a closed set of words
    first_s: float = 0.0  # request sent -> first piece of thinking, text or call
    total_s: float = 0.0
    pieces: int = 0
    channels: tuple[ReasoningForm, ...] = ()  # where thinking was seen, on the chat wire
    habit: Habit = ""

    @property
    def text(self) -> str:
        return "".join(p.text for p in self.parts if isinstance(p, Text))

    @property
    def parts(self) -> tuple[ReplyPart, ...]:
        return self.reply.parts if self.reply is not None else ()

    @property
    def calls(self) -> list[ToolCall]:
        return [p for p in self.parts if isinstance(p, ToolCall)]

    @property
    def thinking(self) -> Thinking | None:
        return next((p for p in self.parts if isinstance(p, Thinking) and p.text.strip()), None)

    @property
    def cut(self) -> bool:
        return self.reply is not None and self.reply.finish.reason == "length"

    @property
    def usage(self) -> Usage | None:
        return self.reply.finish.usage if self.reply is not None else None


# --- the questions -------------------------------------------------------------------------------

_WEATHER = Tool(
    "get_weather",
    "The weather in a city, now.",
    msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'),
)
_TIME = Tool(
    "get_time",
    "The time of day in a city.",
    msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'),
)
_AUTO = Choice()
_CALL = "What is the weather in Paris? Call get_weather to find out."
SCHEMA = (
    b'{"type":"object","properties":{"city":{"type":"string"},"people":{"type":"integer"}},'
    b'"required":["city","people"],"additionalProperties":false}'
)
THOUGHT = (  # given back where the model itself thought nothing
    "The user asks for the weather in Paris. I have a tool for that, get_weather, which takes the"
    " name of the city. I shall call it with Paris, then report what it says in one sentence."
)
MODES: Final = ("none", "required", "named")


class Place(Struct, forbid_unknown_fields=True):
    city: str
    people: int


class City(Struct):
    city: str


def request(
    *stated: Message,
    max_tokens: int = MAX_TOKENS,
    thinking: Literal["on", "off"] = "off",
    tools: tuple[Tool, ...] = (),
    choice: Choice = _AUTO,
    stop: tuple[str, ...] = (),
    format: Format | None = None,
) -> Request:
    return Request(
        "",
        stated,
        stream=True,
        tools=tools,
        choice=choice,
        sampling=Sampling(max_tokens=max_tokens, stop=stop),
        reasoning=Reasoning(mode=thinking),
        format=format,
    )


def user(text: str, *more: Media) -> Message:
    return Message("user", (*more, Text(text)))


def hello() -> Request:
    return request(user("Count from one to thirty in words, separated by commas."))


def prefix(mark: str) -> Request:
    """A long beginning that only this run has sent, so that the first time it is not cached."""
    words = " ".join(f"line {n} of the log is empty;" for n in range(_PREFIX_WORDS // 7))
    return request(
        Message("system", (Text(f"Run {mark}. {words}", cache="5m"),)),
        user("Answer with the word OK."),
    )


def choosing(mode: Literal["none", "required", "named"]) -> Request:
    choice = Choice(mode, "get_time" if mode == "named" else "")
    stated = "Say hello, in one word." if mode == "required" else _CALL
    return request(user(stated), tools=(_WEATHER, _TIME), choice=choice)


def first_turn() -> Request:
    return request(user(_CALL), tools=(_WEATHER,), thinking="on")


def second_turn(turn: ProbeResult, thought: Thinking | None) -> Request:
    """The turn after a tool was called, with or without the thinking that led to the call."""
    call = next(iter(turn.calls), ToolCall("call_doctor_1", "get_weather", '{"city":"Paris"}'))
    stated = (thought, call) if thought is not None else (call,)
    result = ToolResult(call.id, (Text("Sunny, 21 degrees."),), name=call.name)
    return request(
        user(_CALL),
        Message("assistant", stated),
        Message("tool", (result,)),
        thinking="on",
        tools=(_WEATHER,),
    )


def picture() -> Media:
    """Return a red square of 64 x 64 pixels, as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = (b"\0" + b"\xff\x00\x00" * 64) * 64
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return Media("image", media_type="image/png", data=base64.b64encode(png).decode())


# --- the plan ------------------------------------------------------------------------------------


def plan(route: Route, native: Route | None, other_region: bool) -> Plan:
    """What a checkup of this route sends at most."""
    long = 2 * _PREFIX_WORDS
    forms = len(FACTS[route.upstream.dialect].reasoning_forms)
    # hello, two of the prefix, the first turn, the second without and with each form, stop, schema
    asked, tokens = 1 + 2 + 1 + 1 + forms + 2, 2 * long + 300 * (forms + 5)
    if route.capabilities.tools:
        asked, tokens = asked + len(MODES), tokens + 300 * len(MODES)
    if "image" in route.model.input:
        asked, tokens = asked + 1, tokens + 600
    if native is not None:
        asked += 4 + 1 + len(FACTS[native.upstream.dialect].reasoning_forms)
        tokens += 2 * long + 1200
    if other_region:
        asked, tokens = asked + 1, tokens + 50
    others = max(0, len(route.pool) - 1)  # keys, each of which is asked once
    asked, tokens = asked + others, tokens + 50 * others
    return Plan(asked + 1, tokens, asked * MAX_TOKENS)  # and one that only counts


def other_region_url(upstream: Upstream, preset: str, presets: dict[str, Preset]) -> str:
    """Return the same vendor's address in its other region; "" when there is none.

    Only for the vendor's own address: a key must not go where its owner did not mean it to.
    """
    own = presets[preset]
    if upstream.base_url.rstrip("/") != own.base_url or not own.env:
        return ""
    for other in presets.values():
        if other.env == own.env and other.dialect == own.dialect and other is not own:
            return other.base_url
    return ""


def native_of(route: Route, preset: str, presets: dict[str, Preset]) -> Route | None:
    """The same model on the same host over Anthropic's protocol, where the vendor has both."""
    own = presets[preset]
    if route.upstream.dialect != "openai" or not own.env:
        return None
    for name, other in presets.items():
        if other.env != own.env or other.dialect != "anthropic":
            continue
        here, there = urlsplit(route.upstream.base_url), urlsplit(other.base_url)
        url = urlunsplit((here.scheme, here.netloc, there.path, "", ""))
        fields = {**other.capabilities, **other.models.get(route.model.id, {})}
        return Route(
            route.model,
            structs.replace(
                route.upstream,
                name=name,
                label=other.label,
                base_url=url,
                dialect="anthropic",
                auth=other.auth,
                headers=other.headers,
            ),
            other.names.get(route.model.id) or other.prefix + route.model.id,
            msgspec.convert(fields, Capabilities),
            key=route.key,
        )
    return None


# --- asking --------------------------------------------------------------------------------------


class _DetailIn(Struct):
    text: str | None = None


class _DeltaIn(Struct):
    content: str | None = None
    reasoning_details: list[_DetailIn] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _ChoiceIn(Struct):
    delta: _DeltaIn | None = None


class _ChunkIn(Struct):
    choices: list[_ChoiceIn] | None = None


_chunks = msgspec.json.Decoder(_ChunkIn)


class _RawReader:
    """Reads a chat stream beside its decoder, which would make all habits of thinking the same."""

    def __init__(self) -> None:
        self._reader = sse.EventReader()
        self._pieces: dict[ReasoningForm, list[str]] = {}
        self._text = ""

    def feed(self, data: bytes) -> None:
        for payload in self._reader.feed(data):
            try:
                chunk = _chunks.decode(payload)
            except (ValueError, msgspec.MsgspecError):
                continue  # [DONE], or what the decoder will complain of
            for choice in chunk.choices or ():
                if choice.delta is not None:
                    self._delta(choice.delta)

    def _delta(self, delta: _DeltaIn) -> None:
        details = "".join(d.text or "" for d in delta.reasoning_details or ())
        named: tuple[tuple[ReasoningForm, str | None], ...] = (
            ("details", details),
            ("reasoning_content", delta.reasoning_content),
            ("reasoning", delta.reasoning),
        )
        for form, text in named:
            if text:
                self._pieces.setdefault(form, []).append(text)
        if delta.content and len(self._text) < 64:
            self._text += delta.content

    def channels(self) -> tuple[ReasoningForm, ...]:
        tags = self._text.lstrip().startswith(("<think>", "<mm:think>"))
        return (*self._pieces, *(("tags",) if tags else ()))

    def habit(self) -> Habit:
        return habit_of(next(iter(self._pieces.values()), []))


def habit_of(pieces: Sequence[str]) -> Habit:
    """How the pieces of one channel follow each other; "" when there are too few to tell."""
    if len(pieces) < 3:
        return ""
    if all(b.startswith(a) for a, b in itertools.pairwise(pieces)):
        return "cumulative"
    if pieces[-1] == "".join(pieces[:-1]):
        return "incremental, then all of it again"
    return "incremental"


class Run:
    """The requests of one checkup: counted, timed, bounded."""

    def __init__(self, client: Client, timeouts: Timeouts, until: float) -> None:
        self._client = client
        self._timeouts = timeouts
        self._until = until
        self.requests = 0
        self.usage = Usage()

    async def ask(self, route: Route, request: Request) -> ProbeResult:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began > self._until:
            return ProbeResult(failure=Failure("timeout", "", upstream_code="total"))
        self.requests += 1
        try:
            body = upstreams.encoded(route, request)
            # On a new connection: that a kept one had ended is no finding.
            attempt = await upstreams.begin(
                self._client, route, body, self._timeouts, secrets.token_hex(4), fresh=True
            )
        except Refused as refused:
            # `begin` keeps no cause, but the exception it was busy with says what was not reached.
            cause = refused.__context__
            reason = str(cause) if isinstance(cause, NotSent) else ""
            return ProbeResult(failure=refused.failure, reason=reason)
        tap = _RawReader() if route.upstream.dialect == "openai" else None
        events: list[Event] = []
        first, pieces, size = 0.0, 0, 0
        try:
            while data := await attempt.response.read():
                size += len(data)
                if size > _REPLY_BYTES:
                    raise sse.EventTooLarge("a reply larger than it can be")
                if tap is not None:
                    tap.feed(data)
                fresh = attempt.decoder.feed(data)
                events += fresh
                pieces += sum(isinstance(e, Delta) for e in fresh)
                if not first and any(isinstance(e, Delta | PartStart) for e in fresh):
                    first = loop.time() - began
        except (Broken, TimedOut) as error:
            return ProbeResult(failure=upstreams.failure_of(error), total_s=loop.time() - began)
        except sse.EventTooLarge:
            attempt.response.abort()
            return ProbeResult(failure=Failure("upstream", "", upstream_code="too_large"))
        events += attempt.decoder.close()
        outcome = collect(events)
        if not isinstance(outcome, Reply):
            return ProbeResult(failure=outcome.failure, total_s=loop.time() - began)
        if (spent := outcome.finish.usage) is not None:
            self.usage = Usage(
                self.usage.input + spent.input,
                self.usage.output + spent.output,
                self.usage.cached + spent.cached,
                self.usage.cache_write + spent.cache_write,
                self.usage.reasoning + spent.reasoning,
            )
        return ProbeResult(
            outcome,
            first_s=first,
            total_s=loop.time() - began,
            pieces=pieces,
            channels=tap.channels() if tap is not None else (),
            habit=tap.habit() if tap is not None else "",
        )

    async def counts(self, route: Route) -> int | None:
        """How many tokens the upstream itself counts in a word or two; None when it cannot."""
        upstream, name, words = route.upstream, route.name, "Hello, world."
        base = upstream.base_url.rstrip("/")
        body: object
        url = base + FACTS[upstream.dialect].count_path.format(model=name)
        match upstream.dialect:
            case "anthropic":
                body = {"model": name, "messages": [{"role": "user", "content": words}]}
            case "responses":
                body = {"model": name, "input": words}
            case "gemini":
                body = {"contents": [{"role": "user", "parts": [{"text": words}]}]}
            case _:  # vLLM's and SGLang's, which stands beside /v1
                url = f"{base.removesuffix('/v1')}/tokenize"
                body = {"model": name, "prompt": words}
        self.requests += 1
        headers = {**upstreams.headers(route), "accept": "application/json"}
        try:
            response = await self._client.send(
                "POST", url, headers, msgspec.json.encode(body), self._timeouts
            )
            page = await response.read_all(_COUNT_BYTES)
        except (NotSent, Broken, TimedOut):
            return None
        if response.status != 200:
            return None
        try:
            reported = msgspec.json.decode(page, type=_CountIn)
        except (ValueError, msgspec.MsgspecError):
            return None
        return reported.input_tokens or reported.count or reported.total_tokens


class _CountIn(Struct):
    input_tokens: int | None = None
    count: int | None = None
    total_tokens: int | None = msgspec.field(default=None, name="totalTokens")
