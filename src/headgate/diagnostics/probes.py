"""The questions that a checkup asks an upstream, and what came of one.

Beside `diagnostics/checks.py`, which judges what comes back.  The questions are
requests of the hub, encoded by the route's own dialect and not fitted to its capabilities, so that a
`stop` goes out also where the preset says that it is ignored.
"""

import base64
import struct
import zlib
from typing import Final, Literal

import msgspec
from msgspec import Struct

from headgate.chat import (
    Choice,
    Format,
    Media,
    Message,
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
)
from headgate.diagnostics.raw_reader import Habit
from headgate.dialects.capabilities import ReasoningForm
from headgate.errors import Failure

MAX_TOKENS = 512  # of one reply: M2 thinks before it calls a tool, some 100 to 300 tokens
PREFIX_WORDS = 1500  # MiniMax caches prefixes from 512 tokens on


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
    words = " ".join(f"line {n} of the log is empty;" for n in range(PREFIX_WORDS // 7))
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
