"""What providers say of usage, byte for byte, and the row that is made of it, to the nano-dollar.

Each shape is asked for in four protocols, of a real gateway in front of an upstream that answers
with the bytes below.  Shapes after tests/exchanges (case14_*), the providers' documentation as of
2026-11 and, for what nobody documents, imagination.  Prices: catalog/models.toml, written out in each
sum: nano-dollars a token are thousandths of dollars a million tokens.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest
import uvloop

from callers import Answer, Ask, Protocol, call
from gateway import Gateway, start, stop
from headgate.catalog import counting
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.reports import UsageReader
from waiting import PATIENCE_S, wait_for

# Which preset each model is sent to; those with a dialect are the custom one.
UPSTREAMS = {
    "MiniMax-M2": "openai",
    "MiniMax-M2.1": "minimax-anthropic",
    "MiniMax-M2.5": "minimax",
    "MiniMax-M2.5-highspeed": "gemini",
    "MiniMax-M2.7": "openrouter",
    "MiniMax-M2.7-highspeed": "vllm",
    "MiniMax-M3": "responses",
}
TEXT = "A reply of some forty characters, all told."
CLIENTS: tuple[tuple[Protocol, bool], ...] = (
    ("openai", True),
    ("responses", False),
    ("anthropic", True),
    ("gemini", False),
)
_tags = itertools.count()


class Raw:
    """An upstream that says just the bytes it is told."""

    def __init__(self) -> None:
        self.status, self.media, self.data = 200, "text/event-stream", b""
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),), daemon=True)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = Server(self._handle)
        self.port = await server.listen("127.0.0.1", 0)
        self._ready.set()
        await self._stop.wait()
        await server.drain(0)

    async def _handle(self, inbound: Inbound) -> None:
        await inbound.body()
        inbound.respond(self.status, [("content-type", self.media)], self.data)

    def __enter__(self) -> "Raw":
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)


@pytest.fixture(scope="module")
def raw() -> Iterator[Raw]:
    with Raw() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gate(raw: Raw, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = begin(raw, tmp_path_factory.mktemp("shapes"))
    yield running
    assert stop(running) == 0
    books = UsageReader(running.data)
    assert (books.audit(), books.intents()) == ([], 0)
    books.close()


def begin(raw: Raw, directory: Path) -> Gateway:
    """Start a gateway in front of the raw upstream, in each dialect."""
    lines = []
    for model, name in UPSTREAMS.items():
        dialect = name in ("responses", "gemini")
        lines += [
            f'[upstreams.{name}]\npreset = "{"custom" if dialect else name}"',
            f'base_url = "http://127.0.0.1:{raw.port}/{name}"\nkey = "env:SOME_KEY"',
            f'dialect = "{name}"' if dialect else "",
            f'[models."{model}"]\nroutes = [{{ upstream = "{name}", model = "m" }}]',
        ]
    (directory / "headgate.toml").write_text("\n".join(lines))
    return start(
        directory / "data",
        "--config",
        str(directory / "headgate.toml"),
        SOME_KEY="x",
        HEADGATE_RETRY_ATTEMPTS="1",
    )


def row_of(
    gate: Gateway,
    model: str,
    protocol: Protocol,
    stream: bool,
    text: str = "hello",
    max_tokens: int = 200,
) -> tuple[LedgerRow, Answer]:
    """Ask once; the row, and what the client saw."""
    ask = Ask(protocol, text, f"{next(_tags)}", stream, model, max_tokens)
    answer = Answer(ask, gate.key)
    before = newest(gate)
    asyncio.run(call(gate.url, answer))
    assert answer.whole, answer
    return row_after(gate, before), answer


def newest(gate: Gateway) -> int:
    """The number of the newest row."""
    books = UsageReader(gate.data)
    (before,) = books._all("select coalesce(max(seq), 0) from ledger")[0]
    books.close()
    return int(before)


def row_after(gate: Gateway, before: int) -> LedgerRow:
    """The one row that came after the row of this number."""
    books = UsageReader(gate.data)

    def ids() -> list[str]:
        return [
            id for (id,) in books._all("select request_id from ledger where seq > ?", (before,))
        ]

    wait_for(lambda: ids() and books.intents() == 0)
    (id,) = ids()
    row = books.generation(id)
    books.close()
    assert row is not None
    return row


# how each dialect says it


def sse(*events: str) -> bytes:
    return "".join(f"data: {event}\n\n" for event in events).encode()


def chunk(usage: str = "", text: str = "", reason: str = "") -> str:
    """One of OpenAI's; `usage` is JSON as the provider writes it."""
    delta = {"content": text} if text else {}
    choice = json.dumps([{"index": 0, "delta": delta, "finish_reason": reason or None}])
    told = f',"usage":{usage}' if usage else ""
    return f'{{"id":"c1","object":"chat.completion.chunk","model":"m","choices":{choice}{told}}}'


def openai(usage: str, before: str = "") -> bytes:
    """Text, the end, then usage in a chunk of its own without choices, as `include_usage` says."""
    last = f'{{"id":"c1","model":"m","choices":[],"usage":{usage}}}'
    return sse(
        chunk(before, TEXT), chunk(before, reason="stop"), *([last] if usage else []), "[DONE]"
    )


def anthropic(first: str, last: str, text: str = TEXT, end: bool = True) -> bytes:
    """`first` in message_start, `last` in message_delta."""
    events = [
        ("message_start", f'"message":{{"id":"m1","model":"m","content":[],"usage":{first}}}'),
        ("content_block_start", '"index":0,"content_block":{"type":"text","text":""}'),
        (
            "content_block_delta",
            f'"index":0,"delta":{{"type":"text_delta","text":{json.dumps(text)}}}',
        ),
    ]
    if end:
        told = f',"usage":{last}' if last else ""
        events += [
            ("content_block_stop", '"index":0'),
            ("message_delta", f'"delta":{{"stop_reason":"end_turn"}}{told}'),
            ("message_stop", '"x":0'),
        ]
    return "".join(f'event: {n}\ndata: {{"type":"{n}",{d}}}\n\n' for n, d in events).encode()


def responses(usage: str, status: str = "completed") -> bytes:
    item = (
        f'{{"type":"message","id":"i1","role":"assistant","status":"completed","content":'
        f'[{{"type":"output_text","text":{json.dumps(TEXT)},"annotations":[]}}]}}'
    )
    head = '"id":"r1","object":"response","model":"m"'
    return sse(
        f'{{"type":"response.created","response":{{{head},"status":"in_progress","output":[]}}}}',
        '{"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"i1","role":"assistant","content":[]}}',
        f'{{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":{json.dumps(TEXT)}}}',
        f'{{"type":"response.output_item.done","output_index":0,"item":{item}}}',
        f'{{"type":"response.{status}","response":{{{head},"status":"{status}","output":[{item}],"usage":{usage}}}}}',
    )


def gemini(*usages: str) -> bytes:
    """One piece for each: usage grows with them, and the last one says the end."""
    out = []
    for n, usage in enumerate(usages):
        end = ',"finishReason":"STOP"' if n == len(usages) - 1 else ""
        said = f'{{"role":"model","parts":[{{"text":{json.dumps(TEXT if not n else ".")}}}]}}'
        out.append(f'{{"candidates":[{{"content":{said}{end}}}],"usageMetadata":{usage}}}')
    return sse(*out)


OPENAI = (
    '{"prompt_tokens":120,"completion_tokens":35,"total_tokens":155,'
    '"prompt_tokens_details":{"cached_tokens":100,"audio_tokens":0},'
    '"completion_tokens_details":{"reasoning_tokens":7,"audio_tokens":0}}'
)
ZEROS = '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
OPENROUTER = (
    '{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":0.95,"is_byok":false,'
    '"prompt_tokens_details":{"cached_tokens":100,"cache_write_tokens":50,"audio_tokens":0},'
    '"cost_details":{"upstream_inference_cost":19},"completion_tokens_details":{"reasoning_tokens":1}}'
)
VLLM = '{"prompt_tokens":17,"total_tokens":60,"completion_tokens":43,"prompt_tokens_details":null}'

Tokens = tuple[int, int, int, int, int]  # input, cached, cache_write, output, reasoning
M2, M21, M25, M25H = "MiniMax-M2", "MiniMax-M2.1", "MiniMax-M2.5", "MiniMax-M2.5-highspeed"
M27, M27H, M3 = "MiniMax-M2.7", "MiniMax-M2.7-highspeed", "MiniMax-M3"
REPORTED: dict[str, tuple[str, bytes, Tokens, int]] = {
    # cached tokens are a part of prompt_tokens
    "openai": (M2, openai(OPENAI), (120, 100, 0, 35, 7), 20 * 300 + 100 * 30 + 35 * 1200),
    "openai, null in every chunk before": (
        M2,
        openai(OPENAI, "null"),
        (120, 100, 0, 35, 7),
        20 * 300 + 100 * 30 + 35 * 1200,
    ),
    "openai, nothing but the two counts": (
        M2,
        openai('{"prompt_tokens":9,"completion_tokens":3}'),
        (9, 0, 0, 3, 0),
        9 * 300 + 3 * 1200,
    ),
    "openai, no output at all": (
        M2,
        openai('{"prompt_tokens":9,"completion_tokens":0}'),
        (9, 0, 0, 0, 0),
        9 * 300,
    ),
    "more cached than read": (
        M2,
        openai(
            '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":50}}'
        ),
        (9, 9, 0, 3, 0),
        9 * 30 + 3 * 1200,
    ),
    "details below zero": (
        M2,
        openai(
            '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":-1},'
            '"completion_tokens_details":{"reasoning_tokens":-1}}'
        ),
        (9, 0, 0, 3, 0),
        9 * 300 + 3 * 1200,
    ),
    "details that no integer holds": (
        M2,
        openai(
            '{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":'
            '{"cached_tokens":9223372036854775807},"completion_tokens_details":'
            '{"reasoning_tokens":9223372036854775807}}'
        ),
        (9, 9, 0, 3, 3),
        9 * 30 + 3 * 1200,
    ),
    # MiniMax: zeros in each chunk, then the truth
    "minimax, zeros and then the truth": (
        M25,
        openai(OPENAI, ZEROS),
        (120, 100, 0, 35, 7),
        20 * 300 + 100 * 30 + 35 * 1200,
    ),
    "minimax, in the chunk that ends": (
        M25,
        sse(
            chunk(ZEROS, TEXT),
            chunk(
                '{"total_tokens":99,"total_characters":0,"prompt_tokens":51,"completion_tokens":48}',
                reason="stop",
            ),
            "[DONE]",
        ),
        (51, 0, 0, 48, 0),
        51 * 300 + 48 * 1200,
    ),
    "minimax, zeros after the truth": (
        M25,
        sse(chunk(OPENAI, TEXT), chunk(ZEROS, reason="stop"), "[DONE]"),
        (120, 100, 0, 35, 7),
        20 * 300 + 100 * 30 + 35 * 1200,
    ),
    # written to the cache without a breakpoint of the client's, at the price of input; the
    # provider's own `cost` is not ours
    "openrouter": (
        M27,
        openai(OPENROUTER),
        (194, 100, 50, 2, 1),
        (44 + 50) * 300 + 100 * 60 + 2 * 1200,
    ),
    "vllm, details null": (M27H, openai(VLLM), (17, 0, 0, 43, 0), 17 * 600 + 43 * 2400),
    "vllm, usage in every chunk": (
        M27H,
        sse(
            chunk('{"prompt_tokens":17,"completion_tokens":1}', TEXT),
            chunk(VLLM, reason="stop"),
            "[DONE]",
        ),
        (17, 0, 0, 43, 0),
        17 * 600 + 43 * 2400,
    ),
    # Anthropic's input_tokens are what is neither read from the cache nor written to it
    "anthropic": (
        M21,
        anthropic(
            '{"input_tokens":20,"cache_creation_input_tokens":30,"cache_read_input_tokens":100,"output_tokens":1}',
            '{"output_tokens":35}',
        ),
        (150, 100, 30, 35, 0),
        (20 + 30) * 300 + 100 * 30 + 35 * 1200,
    ),
    "anthropic, all of it again at the end": (
        M21,
        anthropic(
            '{"input_tokens":20,"cache_creation_input_tokens":0,"cache_read_input_tokens":100,"output_tokens":1}',
            '{"input_tokens":20,"cache_creation_input_tokens":0,"cache_read_input_tokens":100,"output_tokens":35,"output_tokens_details":{"thinking_tokens":7}}',
        ),
        (120, 100, 0, 35, 7),
        20 * 300 + 100 * 30 + 35 * 1200,
    ),
    "minimax on anthropic's path: zeros, then all": (
        M21,
        anthropic(
            '{"input_tokens":0,"output_tokens":0}',
            '{"input_tokens":20,"cache_read_input_tokens":100,"cache_creation_input_tokens":0,"output_tokens":35}',
        ),
        (120, 100, 0, 35, 0),
        20 * 300 + 100 * 30 + 35 * 1200,
    ),
    "responses": (
        M3,
        responses(
            '{"input_tokens":120,"input_tokens_details":{"cached_tokens":100},"output_tokens":35,'
            '"output_tokens_details":{"reasoning_tokens":7},"total_tokens":155}'
        ),
        (120, 100, 0, 35, 7),
        20 * 300 + 100 * 60 + 35 * 1200,
    ),
    # above 512,000 tokens of input the whole request costs double
    "the last token of a tier": (
        M3,
        responses('{"input_tokens":512000,"output_tokens":1}'),
        (512000, 0, 0, 1, 0),
        512000 * 300 + 1200,
    ),
    "the first token of the next": (
        M3,
        responses('{"input_tokens":512001,"output_tokens":1}'),
        (512001, 0, 0, 1, 0),
        512001 * 600 + 2400,
    ),
    # Gemini's thoughts are not part of the candidates' tokens
    "gemini": (
        M25H,
        gemini(
            '{"promptTokenCount":120,"candidatesTokenCount":9,"cachedContentTokenCount":100,"totalTokenCount":129}',
            '{"promptTokenCount":120,"candidatesTokenCount":28,"thoughtsTokenCount":7,"cachedContentTokenCount":100,"totalTokenCount":155}',
        ),
        (120, 100, 0, 35, 7),
        20 * 600 + 100 * 30 + 35 * 2400,
    ),
}
SILENT: dict[str, tuple[str, bytes]] = {
    "openai, none": (M2, openai("")),
    "openai, null": (M2, openai("null")),
    "minimax, zeros to the end": (M25, openai(ZEROS, ZEROS)),
    "more than anybody can use": (
        M2,
        openai('{"prompt_tokens":9,"completion_tokens":99999999999999}'),
    ),
    "less than nothing": (M2, openai('{"prompt_tokens":-9,"completion_tokens":3}')),
    "anthropic, zeros": (
        M21,
        anthropic('{"input_tokens":0,"output_tokens":0}', '{"output_tokens":0}'),
    ),
    "responses, null": (M3, responses("null")),
}


def tokens(row: LedgerRow) -> Tokens:
    return (
        row.input_tokens,
        row.cached_tokens,
        row.cache_write_tokens,
        row.output_tokens,
        row.reasoning_tokens,
    )


@pytest.mark.parametrize("shape", REPORTED)
def test_what_a_provider_reports_is_billed_to_the_nano_dollar(
    gate: Gateway, raw: Raw, shape: str
) -> None:
    model, data, counts, cost = REPORTED[shape]
    raw.status, raw.media, raw.data = 200, "text/event-stream", data
    text = "hello " * (counts[0] // 5) if counts[0] > 1000 else "hello"
    for protocol, stream in CLIENTS:
        row, answer = row_of(gate, model, protocol, stream, text)
        assert answer.finished, answer
        assert (row.outcome, row.basis, row.dialect) == ("stop", "upstream", protocol)
        assert (tokens(row), row.cost_nano_usd) == (counts, cost)


@pytest.mark.parametrize("shape", SILENT)
def test_where_nothing_is_reported_the_row_says_that_it_is_an_estimate(
    gate: Gateway, raw: Raw, shape: str
) -> None:
    model, raw.data = SILENT[shape]
    raw.status, raw.media = 200, "text/event-stream"
    for protocol, stream in CLIENTS:
        row, answer = row_of(gate, model, protocol, stream)
        assert answer.finished, answer
        assert (row.outcome, row.basis) == ("stop", "estimated")
        assert row.output_tokens == counting.of_counts(len(TEXT), 0) > 0
        assert 0 < row.input_tokens < 1000  # the counter learns from what it was told before
        assert row.cost_nano_usd == row.input_tokens * 300 + row.output_tokens * 1200


def test_a_body_that_is_not_streamed_says_its_usage_too(gate: Gateway, raw: Raw) -> None:
    message = {"role": "assistant", "content": TEXT}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    reply = {"id": "c1", "object": "chat.completion", "model": "m", "choices": choices}
    reply["usage"] = json.loads(OPENAI)
    raw.status, raw.media, raw.data = 200, "application/json", json.dumps(reply).encode()
    for protocol, stream in CLIENTS:
        row, _ = row_of(gate, M2, protocol, stream)
        assert (row.basis, tokens(row)) == ("upstream", (120, 100, 0, 35, 7))
        assert row.cost_nano_usd == 20 * 300 + 100 * 30 + 35 * 1200


DISPUTED: dict[str, tuple[str, bytes, tuple[int, int]]] = {
    "openai, a million tokens of output": (
        M2,
        openai('{"prompt_tokens":9,"completion_tokens":1000000}'),
        (9, 1_000_000),
    ),
    "openai, a million tokens of input": (
        M2,
        openai('{"prompt_tokens":1000000,"completion_tokens":9}'),
        (1_000_000, 9),
    ),
    "anthropic, both": (
        M21,
        anthropic('{"input_tokens":70000,"output_tokens":1}', '{"output_tokens":90000}'),
        (70_000, 90_000),
    ),
    "responses, written to the cache": (
        M3,
        responses('{"input_tokens":700000,"output_tokens":700}'),
        (700_000, 700),
    ),
    "gemini, thoughts above all": (
        M25H,
        gemini('{"promptTokenCount":12,"candidatesTokenCount":9,"thoughtsTokenCount":80000}'),
        (12, 80_009),
    ),
}


@pytest.mark.parametrize("shape", DISPUTED)
def test_a_report_above_what_the_request_allowed_is_billed_at_what_it_allowed(
    gate: Gateway, raw: Raw, shape: str
) -> None:
    model, raw.data, (input, output) = DISPUTED[shape]
    raw.status, raw.media = 200, "text/event-stream"
    upstream = UPSTREAMS[model]
    before = gate.metric(f'headgate_usage_disputed_total{{upstream="{upstream}"}}')
    for protocol, stream in CLIENTS:
        row, answer = row_of(gate, model, protocol, stream)
        assert answer.finished
        assert (row.outcome, row.basis) == ("stop", "disputed")
        assert row.output_tokens == min(output, 200)
        assert row.input_tokens == input if input < 1000 else row.input_tokens < 2000
        assert row.cost_nano_usd is not None and row.cost_nano_usd < 2000 * 2 * 300 + 200 * 2 * 2400
        (told,) = [w for w in row.warnings if "disputed" in w]
        assert f"reported {input} input and {output} output tokens" in told
    after = gate.metric(f'headgate_usage_disputed_total{{upstream="{upstream}"}}')
    assert after - before == len(CLIENTS)


def test_output_far_below_what_was_passed_on_is_counted_here(gate: Gateway, raw: Raw) -> None:
    raw.status, raw.media = 200, "text/event-stream"
    long = TEXT * 100
    for told in (0, 5):
        end = f'{{"prompt_tokens":9,"completion_tokens":{told}}}'
        raw.data = sse(chunk("", long), chunk(end, reason="stop"), "[DONE]")
        row, _ = row_of(gate, M2, "openai", True, max_tokens=5000)
        assert (row.basis, row.input_tokens) == ("estimated", 9)
        assert row.output_tokens == counting.of_counts(len(long), 0)
        row, _ = row_of(gate, M2, "openai", True, max_tokens=500)
        assert row.output_tokens == 500  # and here too no more than was allowed


FAILED: dict[str, tuple[str, bytes, Tokens, int]] = {
    "openai, usage in the error alone": (
        M2,
        sse(chunk("", TEXT), f'{{"error":{{"message":"Overloaded","code":529}},"usage":{OPENAI}}}'),
        (120, 100, 0, 35, 7),
        20 * 300 + 100 * 30 + 35 * 1200,
    ),
    # message_start says what was read, and of the output nothing: that is what was relayed
    "anthropic, broken off with what it said first": (
        M21,
        anthropic(
            '{"input_tokens":20,"cache_creation_input_tokens":0,"cache_read_input_tokens":100,"output_tokens":0}',
            "",
            TEXT * 10,
            end=False,
        )
        + b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        (120, 100, 0, counting.of_counts(430, 0), 0),
        20 * 300 + 100 * 30 + counting.of_counts(430, 0) * 1200,
    ),
    "responses, failed with usage": (
        M3,
        responses(
            '{"input_tokens":120,"input_tokens_details":{"cached_tokens":100},"output_tokens":35}',
            "failed",
        ),
        (120, 100, 0, 35, 0),
        20 * 300 + 100 * 60 + 35 * 1200,
    ),
}


@pytest.mark.parametrize("shape", FAILED)
def test_a_reply_that_fails_is_billed_what_was_relayed_of_it(
    gate: Gateway, raw: Raw, shape: str
) -> None:
    model, raw.data, counts, cost = FAILED[shape]
    raw.status, raw.media = 200, "text/event-stream"
    row, answer = row_of(gate, model, "openai", True)
    assert not answer.finished
    assert (row.basis, tokens(row), row.cost_nano_usd) == ("partial", counts, cost)
    row, answer = row_of(gate, model, "anthropic", False)  # who sees nothing pays nothing
    assert answer.status >= 400
    assert (row.basis, tokens(row), row.cost_nano_usd) == ("none", (0, 0, 0, 0, 0), 0)


def an_error_page(raw: Raw, status: int) -> None:
    page = {"error": {"type": "x", "message": TEXT * 20}, "usage": json.loads(OPENAI)}
    raw.status, raw.media, raw.data = status, "application/json", json.dumps(page).encode()


def costs_nothing(gate: Gateway, model: str, protocol: Protocol, stream: bool) -> None:
    row, answer = row_of(gate, model, protocol, stream)
    assert not answer.finished
    assert (row.basis, tokens(row), row.cost_nano_usd) == ("none", (0, 0, 0, 0, 0), 0)
    assert len(row.attempts) == 1


@pytest.mark.parametrize("status", [400, 413])
def test_the_usage_of_an_error_page_and_its_text_cost_nothing(
    gate: Gateway, raw: Raw, status: int
) -> None:
    an_error_page(raw, status)
    for model, (protocol, stream) in itertools.product((M2, M21), CLIENTS):
        costs_nothing(gate, model, protocol, stream)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503, 529])
def test_also_of_one_that_pauses_the_upstream(raw: Raw, tmp_path: Path, status: int) -> None:
    an_error_page(raw, status)
    gate = begin(raw, tmp_path)
    costs_nothing(gate, M2, "openai", True)
    assert stop(gate) == 0


def test_what_the_client_is_told_is_what_the_row_says(gate: Gateway, raw: Raw) -> None:
    raw.status, raw.media, raw.data = 200, "text/event-stream", openai(OPENROUTER)
    row, answer = row_of(gate, M27, "openai", False)
    told = json.loads(answer.body)["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (
        row.input_tokens,
        row.output_tokens,
    )
    assert told["prompt_tokens_details"]["cached_tokens"] == row.cached_tokens
    row, answer = row_of(gate, M27, "anthropic", False)
    told = json.loads(answer.body)["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"]) == (44, 100)
    assert told["cache_creation_input_tokens"] == 50
    shown = httpx2.get(
        f"{gate.url}/v1/generations/{row.request_id}", headers={"x-api-key": gate.key}
    )
    assert msgspec.json.decode(shown.content)["cost_nano_usd"] == row.cost_nano_usd
