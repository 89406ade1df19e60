"""The cost of an exchange stands in the usage of its reply, exact, and nobody trips over it."""

import json
from decimal import Decimal

import msgspec
import pytest

from headgate.chat import (
    Finish,
    Message,
    Reply,
    Request,
    Text,
    Thinking,
    ToolCall,
    Usage,
    collect,
    replay,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import Dialect, ReplyFacts, RequestTarget
from headgate.dialects.registry import ANTHROPIC, DIALECTS, GEMINI, RESPONSES
from headgate.errors import Failure
from headgate.money import cost_out, dollars
from headgate.stream.translate import Translator, Whole

TELLING = [ANTHROPIC, GEMINI, RESPONSES]
FACTS = ReplyFacts("1a2b", "MiniMax-M3", 1700000000, 50)
ASK = Request("MiniMax-M3", (Message("user", (Text("hi"),)),), stream=True)
USAGE = Usage(input=120, output=35, cached=100, reasoning=7)
PARTS = (Thinking("Hm.", "sig"), Text("So."), ToolCall("call_1", "get_a", '{"n":1}'))

each = pytest.mark.parametrize("dialect", TELLING, ids=lambda d: d.name)
end = pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])


def costing(nano: int | None, reason: str = "tool_calls") -> Reply:
    finish = Finish(reason, USAGE, cost_nano=nano)  # type: ignore[arg-type]  # a FinishReason
    return Reply(PARTS, finish, "up", "MiniMax-M3")


def whole(dialect: Dialect, reply: Reply) -> str:
    return dialect.encode_reply(reply, ASK, FACTS).decode()


def streamed(dialect: Dialect, reply: Reply, array: bool = False) -> str:
    encoder = dialect.encoder(ASK, FACTS, RequestTarget("MiniMax-M3", True, array))
    return encoder.feed(list(replay(reply))).decode()


def usage_of(body: str) -> dict[str, object]:
    """Of a whole reply, its numbers as they were written."""
    reply = json.loads(body, parse_float=Decimal)
    usage = reply["usageMetadata"] if "usageMetadata" in reply else reply["usage"]
    return dict(usage)


@pytest.mark.parametrize(
    ("nano", "text", "padded"),
    [
        (0, "0", "0.00"),
        (1, "0.000000001", "0.000000001"),
        (54_000, "0.000054", "0.000054"),
        (100_000_000, "0.1", "0.10"),
        (1_500_000_000, "1.5", "1.50"),
        (7_000_000_000, "7", "7.00"),
        (12_345_678_901_234_567_890, "12345678901.23456789", "12345678901.23456789"),
        (-250_000_000, "-0.25", "-0.25"),
    ],
)
def test_dollars_are_exact(nano: int, text: str, padded: str) -> None:
    assert (dollars(nano), dollars(nano, 2)) == (text, padded)
    assert Decimal(text) * 10**9 == nano
    assert msgspec.json.encode(cost_out(nano)) == b'{"cost":%b}' % text.encode()


@each
@end
def test_a_whole_reply_tells_its_cost(dialect: Dialect, reason: str) -> None:
    body = whole(dialect, costing(12_345_678_901_234_567_890, reason))
    assert usage_of(body)["cost"] == Decimal("12345678901.23456789")
    assert body.count('"cost":') == 1


@each
@end
def test_the_end_of_a_stream_tells_its_cost_and_nothing_before_it(
    dialect: Dialect, reason: str
) -> None:
    reply = costing(54_000, reason)
    *before, last = replay(reply)
    encoder = dialect.encoder(ASK, FACTS, RequestTarget("MiniMax-M3", True))
    assert b"cost" not in encoder.feed(before)
    assert encoder.feed([last]).count(b'"cost":0.000054') == 1


def test_an_array_of_gemini_tells_its_cost() -> None:
    *chunks, last = json.loads(streamed(GEMINI, costing(0), array=True))
    assert last["usageMetadata"]["cost"] == 0
    assert not any("usageMetadata" in chunk for chunk in chunks)


@each
def test_a_free_exchange_costs_0(dialect: Dialect) -> None:
    assert usage_of(whole(dialect, costing(0)))["cost"] == 0
    assert streamed(dialect, costing(0)).count('"cost":0}') == 1


@each
def test_an_unknown_cost_is_no_field(dialect: Dialect) -> None:
    assert "cost" not in whole(dialect, costing(None)) + streamed(dialect, costing(None))


@each
def test_a_failed_stream_tells_no_cost(dialect: Dialect) -> None:
    encoder = dialect.encoder(ASK, FACTS, RequestTarget("MiniMax-M3", True))
    encoder.feed(list(replay(costing(54_000)))[:-1])
    assert b"cost" not in b"".join(encoder.fail(Failure("upstream", "It broke.")))


@each
def test_the_cost_changes_no_other_byte(dialect: Dialect) -> None:
    for written in (whole, streamed):
        told, untold = written(dialect, costing(54_000)), written(dialect, costing(None))
        assert told.replace(',"cost":0.000054', "") == untold


@pytest.mark.parametrize("cost", ["1.5", '"1.5"', "null", "{}", "1e999"])
@pytest.mark.parametrize("media", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("name", DIALECTS)
def test_what_an_upstream_says_it_costs_is_passed_over(name: str, media: str, cost: str) -> None:
    dialect = DIALECTS[name]
    if media == "application/json":
        body = whole(dialect, costing(None))
    else:
        body = streamed(dialect, costing(None))
    field = '"usageMetadata":{' if name == "gemini" else '"usage":{'
    assert field in body
    decoder = dialect.decoder(Capabilities(reasoning_form="details"), media, "s")
    events = [*decoder.feed(body.replace(field, f'{field}"cost":{cost},').encode())]
    reply = collect(events + decoder.close())
    assert isinstance(reply, Reply), reply
    assert (reply.usage, reply.cost_nano) == (USAGE, None)


def test_a_reply_keeps_its_cost_when_it_is_collected_and_told_again() -> None:
    reply = costing(54_000)
    assert collect(replay(reply)) == reply
    assert reply.cost_nano == 54_000


@each
def test_a_cost_that_is_known_at_the_end_is_told_in_a_whole_reply(dialect: Dialect) -> None:
    source, sink = streamed(dialect, costing(None)), Whole()
    decoder = dialect.decoder(Capabilities(), "text/event-stream", "s")
    translator = Translator(decoder, [], sink)
    translator.feed(source.encode())
    translator.close()
    assert isinstance(translator.end, Finish)
    sink.feed([msgspec.structs.replace(translator.end, cost_nano=54_000)])
    assert sink.collector.reply is not None
    assert usage_of(whole(dialect, sink.collector.reply))["cost"] == Decimal("0.000054")
