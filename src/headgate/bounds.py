"""The bounds of what one request or one reply may hold, in one table, each with its reason.

`BOUNDS` below is the only table of them.  A bound is checked before anything is built from what it
counts, so that the work for a body is linear in its bytes and its memory a small multiple of them.

Note: only what a request asks for is refused.  Names and ids that stand in its history were taken
once, so `call_id` and `called_name` shorten them, the same each time, and the session goes on.
"""

import hashlib
from collections.abc import Sequence, Sized
from typing import Annotated

from msgspec import Meta, Struct

from headgate.errors import Failure, Refused, invalid

# --- the table -----------------------------------------------------------------------------------


class Bound(Struct, frozen=True, gc=False):
    """Bounds one countable thing; `unit` completes "at most N ..."."""

    most: int
    unit: str
    reason: str


# Of requests.  A window of 10^6 tokens, the largest of any model, is the measure of most.
MESSAGES = Bound(
    50_000,
    "messages",
    "google-genai keeps each chunk of a streamed reply as a turn; a full window holds some 20,000",
)
PARTS = Bound(100_000, "parts", "twice as many as messages: most have one or two")
TOOLS = Bound(2_048, "tools", "OpenAI takes 128, Gemini 512; agents with many servers have 500")
SCHEMA_VALUES = Bound(
    50_000,
    "values",
    "OpenAI takes 5,000 properties; schemas generated from large APIs have 20,000 values",
)
NAME = Bound(256, "characters", "Gemini takes 128, OpenAI and Anthropic 64; namespaces make longer")
MODEL = Bound(256, "characters", "the longest names have an owner and a variant, some 100")
CALL_ID = Bound(256, "characters", "vendors write 24 to 64; longer ones carry data of a gateway")
STOPS = Bound(16, "sequences", "OpenAI takes 4, Gemini 5, others up to 16")
OPENAI_STOPS = Bound(4, "sequences", '"Up to 4 sequences" (OpenAI\'s reference)')
STOP = Bound(1_024, "characters", "each new piece of a reply is compared with all of it")
LOGIT_BIAS = Bound(4_096, "entries", "OpenAI takes 1,024; the gateway ignores them with a warning")
LABEL = Bound(1_024, "characters", "user, session and cache names; OpenAI takes 64, Anthropic 256")
METADATA = Bound(64, "entries", "OpenAI takes 16; all are repeated in each reply")
METADATA_VALUE = Bound(1_024, "characters", "OpenAI takes 512")
WORDS = Bound(256, "entries", "short lists of fixed words, such as `include` and modalities")
DECODED_BYTES = Bound(32 << 20, "bytes", "of a compressed body: what a body may have without it")
DECODED_RATIO = Bound(
    100,
    "times its size",
    "JSON of agents shrinks to a fifth, with much that repeats to a thirtieth",
)
MASKED = Bound(
    300_000,
    "places where values to mask may begin",
    "each takes some 10 us; a full window of addresses or numbers in groups has 200,000",
)
# Of replies.  The longest output of any model, 524,288 tokens, is 2 MB of text.
REPLY_CHARS = Bound(16 << 20, "characters", "eight times the longest output of any model")
REPLY_PARTS = Bound(20_000, "parts", "a reply has dozens, one whose parts alternate thousands")
REPLY_CALLS = Bound(512, "tool calls", "replies have up to some dozens")
REPLY_NAME = Bound(1_024, "characters", "four times what a declared tool may have")
SIGNATURE = Bound(1 << 20, "characters", "Google's are up to some 100,000")
WHOLE_BYTES = Bound(32 << 20, "bytes", "a reply of REPLY_CHARS with half of it escaped")
USAGE_BYTES = Bound(64 << 10, "bytes", "usage objects have some 500")

BOUNDS: dict[str, Bound] = {
    name: value for name, value in list(globals().items()) if isinstance(value, Bound)
}

RATIO_FREE_BYTES = 1 << 20  # a small body may be anything
MAX_COUNT = 10**9  # tokens; an upstream that reports more is not believed
# Clients that want no bound send the largest int32; a route's own bound is below it.
MAX_TOKENS_BOUND = 2**31 - 1

# JSON values of one body, outside of strings.  A typed value costs up to 150 bytes of memory, so
# that these are 30 MB for any body, and 10 bytes for each byte of a long one.
VALUES_BASE = 200_000
VALUES_BYTES = 16  # one more value for each of these
VALUES_MOST = 1_000_000


# Larger numbers are valid JSON, and no encoder could write them.
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


def refuse(count: int, bound: Bound, param: str) -> Refused:
    """The refusal of a count above its bound: it names the field, the count and the bound."""
    field = f"`{param.removeprefix('$.')}`" if param else "The body"
    return invalid(
        f"{field} has {count} {bound.unit}; at most {bound.most} {bound.unit} are taken.", param
    )


def check(count: int, bound: Bound, param: str) -> None:
    if count > bound.most:
        raise refuse(count, bound, param)


def check_size(value: Sized | None, bound: Bound, param: str) -> None:
    """Refuse a list or text above its bound; None is nothing."""
    if value is not None and len(value) > bound.most:
        raise refuse(len(value), bound, param)


class Tally:
    """The parts of one request so far, over all of its messages."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts = 0

    def add(self, parts: Sized, param: str) -> None:
        self.parts += len(parts)
        if self.parts > PARTS.most:
            raise refuse(self.parts, PARTS, param)


# --- names and ids -------------------------------------------------------------------------------


def call_id(id: str) -> str:
    """The id of a call or of its result: itself, or a short form of it that is the same for both."""
    return id if len(id) <= CALL_ID.most else _short(id, CALL_ID.most)


def called_name(name: str) -> str:
    """The name of a tool that was called once: itself, or a short form of it."""
    return name if len(name) <= NAME.most else _short(name, NAME.most)


def _short(text: str, most: int) -> str:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{text[: most - 17]}_{digest}"


def check_name(name: str, param: str) -> None:
    """Refuse a tool's name that no upstream would take."""
    if len(name) > NAME.most:
        raise refuse(len(name), NAME, param)


# --- the rest ------------------------------------------------------------------------------------


def check_stops(stops: Sequence[str], param: str) -> None:
    """Refuse more stop sequences than a reply can be searched for at each piece, or longer ones."""
    check_size(stops, STOPS, param)
    for stop in stops:
        if not stop:
            raise invalid("A stop sequence is empty; leave it out.", param)
        check_size(stop, STOP, param)


def reply_too_large(bound: Bound) -> Failure:
    """The failure of a reply above a bound; asking again would only bring as much again."""
    return Failure(
        "upstream",
        f"The upstream's reply has more than {bound.most} {bound.unit}.",
        should_retry=False,
    )
