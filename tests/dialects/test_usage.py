"""No mistake in what an upstream reports of usage harms the answer, in any dialect."""

import json
from typing import Any

import pytest

from headgate.bounds import MAX_COUNT
from headgate.chat import Finish, Message, Reply, Request, Text, Usage, collect
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.dialects.usage import usage_of
from headgate.stream import sse

ASK = Request("m", (Message("user", (Text("hi"),)),))
FACTS = ReplyFacts("id", "m", 1)
DIALECT_NAMES = ("openai", "responses", "anthropic", "gemini")

# Names of the counts: input, output, cached, and where they stand in a whole reply.
NAMES = {
    "openai": ("prompt_tokens", "completion_tokens"),
    "responses": ("input_tokens", "output_tokens"),
    "anthropic": ("input_tokens", "output_tokens"),
    "gemini": ("promptTokenCount", "candidatesTokenCount"),
}
ODD: dict[str, str] = {
    "a fraction": "12.5",
    "a text": '"many"',
    "a list": "[1,2]",
    "an object": '{"a":1}',
    "true": "true",
    "2**70": str(2**70),
    "thirty digits": str(10**30),
    "five thousand digits": "9" * 5000,
    "negative": "-7",
    "an exponent": "1e400",
    "null": "null",
}


def whole(dialect: str, usage: str) -> bytes:
    """A whole reply that says "hello", with this usage."""
    match dialect:
        case "openai":
            message = '{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}'
            return f'{{"id":"1","choices":[{message}],"usage":{usage}}}'.encode()
        case "responses":
            item = '{"type":"message","content":[{"type":"output_text","text":"hello"}]}'
            return f'{{"id":"1","status":"completed","output":[{item}],"usage":{usage}}}'.encode()
        case "anthropic":
            block = '{"type":"text","text":"hello"}'
            end = '"stop_reason":"end_turn"'
            return f'{{"id":"1","content":[{block}],{end},"usage":{usage}}}'.encode()
        case _:
            part = '{"content":{"parts":[{"text":"hello"}]},"finishReason":"STOP"}'
            return f'{{"candidates":[{part}],"usageMetadata":{usage}}}'.encode()


def streamed(dialect: str, usage: str) -> bytes:
    match dialect:
        case "openai":
            first = b'{"choices":[{"index":0,"delta":{"content":"hello"}}]}'
            last = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
            end = f'{{"choices":[],"usage":{usage}}}'.encode()
            return b"".join(map(sse.encode, (first, last, end, b"[DONE]")))
        case "responses":
            reply = whole(dialect, usage)
            return sse.encode(b'{"type":"response.completed","response":' + reply + b"}")
        case "anthropic":
            events = [
                '{"type":"message_start","message":{"id":"1"}}',
                '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"hello"}}',
                '{"type":"content_block_stop","index":0}',
                f'{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{usage}}}',
                '{"type":"message_stop"}',
            ]
            return b"".join(sse.encode(e.encode()) for e in events)
        case _:
            return sse.encode(whole(dialect, usage))


def read(dialect: str, data: bytes, media: str) -> Reply:
    decoder = DIALECTS[dialect].decoder(Capabilities(), media, "s")
    reply = collect([*decoder.feed(data), *decoder.close()])
    assert isinstance(reply, Reply), reply
    return reply


def both(dialect: str, usage: str) -> list[Reply]:
    return [
        read(dialect, whole(dialect, usage), "application/json"),
        read(dialect, streamed(dialect, usage), "text/event-stream"),
    ]


def sane(usage: Usage) -> bool:
    counts = (usage.input, usage.output, usage.cached, usage.cache_write, usage.reasoning)
    return (
        all(type(n) is int and 0 <= n <= MAX_COUNT for n in counts)
        and usage.cached <= usage.input
        and usage.reasoning <= usage.output
    )


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_an_odd_count_leaves_the_answer_whole(dialect: str, odd: str) -> None:
    first, second = NAMES[dialect]
    for usage in (
        f'{{"{first}":{ODD[odd]},"{second}":3}}',
        f'{{"{first}":3,"{second}":{ODD[odd]}}}',
    ):
        for reply in both(dialect, usage):
            assert reply.parts == (Text("hello"),)
            assert sane(reply.usage)


@pytest.mark.parametrize("odd", ["2**70", "thirty digits", "a list", "a text", "negative"])
@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_an_output_that_nobody_can_read_is_not_reported(dialect: str, odd: str) -> None:
    first, second = NAMES[dialect]
    for reply in both(dialect, f'{{"{first}":3,"{second}":{ODD[odd]}}}'):
        assert reply.finish.usage is None
        assert reply.usage.estimated


DETAILS: dict[str, str] = {
    "openai": '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":%s}',
    "responses": '{"input_tokens":9,"output_tokens":3,"input_tokens_details":%s}',
    "anthropic": '{"input_tokens":9,"output_tokens":3,"output_tokens_details":%s}',
    "gemini": '{"promptTokenCount":9,"candidatesTokenCount":3,"cachedContentTokenCount":%s}',
}


@pytest.mark.parametrize("odd", [*ODD.values(), '{"cached_tokens":1.5}', '{"cached_tokens":[]}'])
@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_odd_details_leave_the_main_counts_as_they_are(dialect: str, odd: str) -> None:
    for reply in both(dialect, DETAILS[dialect] % odd):
        assert reply.parts == (Text("hello"),)
        assert (reply.usage.input, reply.usage.output) == (9, 3)
        assert sane(reply.usage)


@pytest.mark.parametrize("usage", ["12.5", '"none"', "[]", "[1,2]", "true", '{"a":' + "[" * 200])
@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_a_usage_that_is_no_object_is_none(dialect: str, usage: str) -> None:
    if usage.endswith("["):
        usage += "]" * 200 + "}"
    for reply in both(dialect, usage):
        assert reply.parts == (Text("hello"),)
        assert reply.usage.estimated


@pytest.mark.parametrize("client", DIALECT_NAMES)
def test_no_client_is_shown_a_number_of_thirty_digits(client: str) -> None:
    huge = '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":%d}}'
    reply = read("openai", whole("openai", huge % 10**30), "application/json")
    encoder = DIALECTS[client].encoder(ASK, FACTS, RequestTarget("m", True))
    out = encoder.feed([Finish("stop", reply.usage)]) + DIALECTS[client].encode_reply(
        reply, ASK, FACTS
    )
    assert b"0000000000" not in out
    assert json.loads(DIALECTS[client].encode_reply(reply, ASK, FACTS))


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ((9, 3), Usage(9, 3)),
        ((9, 3, 20, 20, 20), Usage(9, 3, 9, 9, 3)),
        ((9, 3, -1, None, -5), Usage(9, 3)),
        ((0, 0), None),
        ((None, None), None),
        ((-1, 3), None),
        ((3, MAX_COUNT + 1), None),
    ],
)
def test_a_part_is_no_larger_than_what_it_is_part_of(counts: Any, usage: Usage | None) -> None:
    assert usage_of(*counts) == usage
