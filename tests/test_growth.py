"""The work for a request and for a reply grows with their size, not with its square.

For each client dialect: decoding, history repair, fitting, counting, putting reasoning back, and
encoding for each upstream, at n, 2n and 4n of each countable thing.  For replies: pieces of text,
pieces of calls, many calls, and events that are split anywhere.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from growth import superlinear
from headgate import bounds
from headgate.catalog import chat_template, counting, presets
from headgate.chat import (
    Delta,
    Event,
    Finish,
    Message,
    PartStart,
    PartStop,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.policy import history
from headgate.policy.fit import fit
from headgate.reasoning import sealing
from headgate.reasoning.cache import ReasoningCache, ReplyCollector
from headgate.stream import filters, sse
from headgate.stream.translate import Translator, Whole

MODEL = "MiniMax-M3"
CLIENTS = ("openai", "responses", "anthropic", "gemini")
TARGET = RequestTarget(MODEL, False)
FACTS = ReplyFacts("id", MODEL, 1_700_000_000)
SEALER = sealing.Sealer(b"k" * sealing.SECRET_BYTES)
_J = dict[str, Any]


def _capabilities(name: str) -> Capabilities:
    preset = presets.presets()[name]
    return msgspec.convert(preset.capabilities | preset.models.get(MODEL, {}), Capabilities)


CHAT, BLOCKS = _capabilities("minimax"), _capabilities("minimax-anthropic")
UPSTREAMS = {"openai": CHAT, "responses": CHAT, "anthropic": BLOCKS, "gemini": CHAT}

# --- bodies of each client with n of one thing ---------------------------------------------------


def body(client: str, turns: list[_J], **more: Any) -> _J:
    key = {"gemini": "contents", "responses": "input"}.get(client, "messages")
    base: _J = {} if client == "gemini" else {"model": MODEL}
    if client == "anthropic":
        base["max_tokens"] = 100
    return base | {key: turns} | more


def user(client: str, *texts: str) -> _J:
    if client == "gemini":
        return {"role": "user", "parts": [{"text": t} for t in texts]}
    kind = "input_text" if client == "responses" else "text"
    return {"role": "user", "content": [{"type": kind, "text": t} for t in texts]}


def assistant(client: str, *texts: str) -> _J:
    if client == "gemini":
        return {"role": "model", "parts": [{"text": t} for t in texts]}
    kind = "output_text" if client == "responses" else "text"
    return {"role": "assistant", "content": [{"type": kind, "text": t} for t in texts]}


def called(client: str, n: int, name: str = "f", same: bool = False) -> list[_J]:
    """One turn with n calls, and their results in the reverse order."""
    ids = ["c0" if same and k == n - 1 else f"c{k}" for k in range(n)]
    if client == "openai":
        calls = [
            {"id": i, "type": "function", "function": {"name": name, "arguments": '{"a":1}'}}
            for i in ids
        ]
        results = [{"role": "tool", "tool_call_id": i, "content": "ok"} for i in reversed(ids)]
        return [{"role": "assistant", "content": "", "tool_calls": calls}, *results]
    if client == "responses":
        made = [
            {"type": "function_call", "call_id": i, "name": name, "arguments": '{"a":1}'}
            for i in ids
        ]
        answers = [
            {"type": "function_call_output", "call_id": i, "output": "ok"} for i in reversed(ids)
        ]
        return made + answers
    if client == "anthropic":
        blocks = [{"type": "tool_use", "id": i, "name": name, "input": {"a": 1}} for i in ids]
        told = [{"type": "tool_result", "tool_use_id": i, "content": "ok"} for i in reversed(ids)]
        return [{"role": "assistant", "content": blocks}, {"role": "user", "content": told}]
    parts = [{"functionCall": {"id": i, "name": name, "args": {"a": 1}}} for i in ids]
    replies = [
        {"functionResponse": {"id": i, "name": name, "response": {"output": "ok"}}}
        for i in reversed(ids)
    ]
    return [{"role": "model", "parts": parts}, {"role": "user", "parts": replies}]


def thinking(client: str, n: int) -> list[_J]:
    """One turn of the assistant whose thinking comes in n pieces, then a text."""
    if client == "openai":
        details = [{"type": "reasoning.text", "text": "a b "} for _ in range(n)]
        return [{"role": "assistant", "content": "x", "reasoning_details": details}]
    if client == "responses":
        pieces = [{"type": "reasoning_text", "text": "a b "} for _ in range(n)]
        return [{"type": "reasoning", "summary": [], "content": pieces}, assistant(client, "x")]
    if client == "anthropic":
        blocks = [{"type": "thinking", "thinking": "a b ", "signature": ""} for _ in range(n)]
        return [{"role": "assistant", "content": [*blocks, {"type": "text", "text": "x"}]}]
    parts = [{"text": "a b ", "thought": True} for _ in range(n)]
    return [{"role": "model", "parts": [*parts, {"text": "x"}]}]


def tools(client: str, n: int, schema: _J | None = None) -> list[_J]:
    schema = schema or {"type": "object", "properties": {"a": {"type": "string"}}}
    names = [f"f{k}" for k in range(n)]
    match client:
        case "openai":
            return [
                {"type": "function", "function": {"name": x, "parameters": schema}} for x in names
            ]
        case "responses":
            return [{"type": "function", "name": x, "parameters": schema} for x in names]
        case "anthropic":
            return [{"name": x, "input_schema": schema} for x in names]
        case _:
            return [{"functionDeclarations": [{"name": x, "parameters": schema} for x in names]}]


def allowed(client: str, n: int) -> _J:
    names = [f"f{k}" for k in range(n)]
    match client:
        case "openai":
            each = [{"type": "function", "function": {"name": x}} for x in names]
            return {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": each}}}
        case "responses":
            chosen = [{"type": "function", "name": x} for x in names]
            return {"tool_choice": {"type": "allowed_tools", "tools": chosen}}
        case "anthropic":
            return {"tool_choice": {"type": "tool", "name": names[-1]}}
        case _:
            config = {"mode": "VALIDATED", "allowedFunctionNames": names}
            return {"toolConfig": {"functionCallingConfig": config}}


def _say(client: str, text: str = "hi") -> list[_J]:
    return [user(client, text)]


def _systems(client: str, n: int) -> _J:
    texts = [f"s{k}" for k in range(n)]
    if client == "anthropic":
        blocks = [{"type": "text", "text": t} for t in texts]
        return body(client, _say(client), system=blocks)
    if client == "gemini":
        parts = [{"text": t} for t in texts]
        return body(client, _say(client), systemInstruction={"parts": parts})
    return body(client, [*({"role": "system", "content": t} for t in texts), *_say(client)])


def _snake(client: str, n: int) -> _J:
    parts = [{"text": "t", "thought_signature": None, "function_call": None}] * n
    return body(client, [{"role": "model", "parts": parts}, *_say(client)])


THINGS: dict[str, tuple[int, Callable[[str, int], _J]]] = {
    "messages": (
        700,
        lambda c, n: body(
            c, [t for _ in range(n) for t in (user(c, "a"), assistant(c, "b"))] + _say(c)
        ),
    ),
    "parts of the user": (1500, lambda c, n: body(c, [user(c, *["word "] * n)])),
    "parts of the assistant": (
        1500,
        lambda c, n: body(c, [*_say(c), assistant(c, *["word "] * n), *_say(c)]),
    ),
    "pieces of an assistant's turn": (
        1500,
        lambda c, n: body(c, [*_say(c), *([assistant(c, " ")] * n), assistant(c, "x"), *_say(c)]),
    ),
    "pieces of thinking": (1500, lambda c, n: body(c, [*_say(c), *thinking(c, n), *_say(c)])),
    "calls of one turn": (600, lambda c, n: body(c, [*_say(c), *called(c, n)])),
    "turns with a call": (
        400,
        lambda c, n: body(c, [*_say(c), *(t for _ in range(n) for t in called(c, 1))]),
    ),
    "one id twice": (700, lambda c, n: body(c, [*_say(c), *called(c, n, same=True)])),
    "tools": (200, lambda c, n: body(c, _say(c), tools=tools(c, n))),
    "allowed tools": (200, lambda c, n: body(c, _say(c), tools=tools(c, n), **allowed(c, n))),
    "values of a schema": (
        12000,
        lambda c, n: body(
            c,
            _say(c),
            tools=tools(
                c,
                1,
                {
                    "type": "object",
                    "properties": {f"p{k}": {"type": "string"} for k in range(n // 2)},
                },
            ),
        ),
    ),
    "values of an enum": (
        4000,
        lambda c, n: body(
            c,
            _say(c),
            tools=tools(
                c,
                1,
                {
                    "type": "object",
                    "properties": {"a": {"type": "string", "enum": [f"e{k}" for k in range(n)]}},
                },
            ),
        ),
    ),
    "characters of a name": (100_000, lambda c, n: body(c, [*_say(c), *called(c, 1, "f" * n)])),
    "characters of one text": (
        200_000,
        lambda c, n: body(c, _say(c, "words and 中文 " * (n // 12))),
    ),
    "system messages": (1500, _systems),
}


def pipeline(client: str, raw: bytes) -> Callable[[], object]:
    """All that is done with a request before it is sent, for each kind of upstream."""
    dialect = DIALECTS[client]
    memory = ReasoningCache()
    first = Request(MODEL, (Message("user", (Text("hi"),)),))
    kept = (Thinking("t"), Text("x"), *(ToolCall(f"c{k}", "f", "{}") for k in range(40)))
    memory.keep("key", first, kept, 0.0)

    def run() -> None:
        try:
            request = dialect.decode_request(raw, TARGET)
        except Exception:  # what is refused was looked at all the same
            return
        request, _ = sealing.unseal(request, SEALER)
        request, _ = memory.recall("key", request, 1.0)
        counting.measure(request)
        chat_template.written(request)
        for upstream, capabilities in UPSTREAMS.items():
            try:
                repaired = history.repair(sealing.unsigned(request), capabilities, client)
                fitted = fit(repaired, capabilities, max_output=9999, default_max_output=9999)
                DIALECTS[upstream].encode_request(fitted.request, capabilities, "m", True)
            except Exception:
                continue

    return run


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_work_for_a_request_grows_with_its_size(client: str, thing: str) -> None:
    n, make = THINGS[thing]
    found = superlinear(lambda m: pipeline(client, json.dumps(make(client, m)).encode()), n)
    assert found is None, found


def test_the_work_for_names_in_snake_case_grows_with_their_number() -> None:
    found = superlinear(
        lambda m: pipeline("gemini", json.dumps(_snake("gemini", m)).encode()), 1500
    )
    assert found is None, found


# --- replies ---------------------------------------------------------------------------------------


def _events(kind: str, n: int) -> list[Event]:
    out: list[Event] = [Start("id", MODEL)]
    if kind == "calls":
        for k in range(n):
            out += [PartStart("tool_call", f"c{k}", "f"), Delta('{"a":1}'), PartStop()]
        return [*out, Finish("tool_calls", Usage(9, 9))]
    if kind == "alternating parts":
        for _ in range(n // 2):
            out += [PartStart("thinking"), Delta("a "), PartStop()]
            out += [PartStart("text"), Delta("b "), PartStop()]
        return [*out, Finish("stop", Usage(9, 9))]
    part = {"text": "text", "thinking": "thinking", "arguments": "tool_call"}[kind]
    pieces = [f"w{k} " for k in range(n)]
    if kind == "arguments":
        out.append(PartStart("tool_call", "c", "f"))
        pieces = ['{"a":"', *pieces, '"}']
    else:
        out.append(PartStart(part))  # type: ignore[arg-type]  # one of the kinds
    out += map(Delta, pieces)
    return [*out, PartStop(), Finish("tool_calls" if kind == "arguments" else "stop", Usage(9, 9))]


SIZES = {"text": 1500, "thinking": 1500, "arguments": 1500, "calls": 60, "alternating parts": 400}
_ASK = Request(MODEL, (Message("user", (Text("hi"),)),))


def translated(client: str, upstream: str, data: bytes, step: int) -> Callable[[], object]:
    """A reply from an upstream's bytes to a client's, streamed and whole, cut into pieces."""
    pieces = [data[at : at + step] for at in range(0, len(data), step)]

    def run() -> None:
        for whole in (False, True):
            encoder = DIALECTS[client].encoder(_ASK, FACTS, RequestTarget(MODEL, True))
            sink = Whole() if whole else encoder
            keepers = lambda: (ReplyCollector(), sealing.Seal(SEALER, "up"))  # noqa: E731
            chain = filters.build("yes", ("never",), False, keepers)
            decoder = DIALECTS[upstream].decoder(CHAT, "text/event-stream", "s")
            translator = Translator(decoder, chain, sink)
            for piece in pieces:
                translator.feed(piece)
            if translator.end is None:
                translator.close()
            assert isinstance(translator.end, Finish), translator.end
            if isinstance(sink, Whole):
                sink.collector.feed([translator.end])
                assert sink.collector.reply is not None
                DIALECTS[client].encode_reply(sink.collector.reply, _ASK, FACTS)

    return run


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("dialect", CLIENTS)
def test_the_work_for_a_reply_grows_with_its_size(dialect: str, kind: str) -> None:
    """Each dialect as the upstream and as the client."""

    def make(n: int) -> Callable[[], object]:
        encoder = DIALECTS[dialect].encoder(_ASK, FACTS, RequestTarget(MODEL, True))
        data = encoder.feed(_events(kind, n))
        return translated(dialect, dialect, data, 16 << 10)

    found = superlinear(make, SIZES[kind])
    assert found is None, found


@pytest.mark.parametrize("step", [1, 7, 100, 1 << 16])
def test_the_work_for_an_event_grows_with_its_size_however_it_is_cut(step: int) -> None:
    def make(n: int) -> Callable[[], object]:
        data = b"".join(sse.encode(b"x" * (n // 4)) for _ in range(4))

        def run() -> None:
            reader = sse.EventReader()
            for at in range(0, len(data), step):
                reader.feed(data[at : at + step])

        return run

    found = superlinear(make, 40_000 * min(step, 8))
    assert found is None, found


def test_the_work_for_pieces_of_many_calls_grows_with_their_number() -> None:
    """By turns, and all of them open at once."""

    def make(n: int) -> Callable[[], object]:
        chunks = [
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {
                            "tool_calls": [
                                {
                                    "index": k % 500,
                                    "id": f"c{k % 500}",
                                    "function": {"name": "f", "arguments": "1"},
                                }
                            ]
                        },
                    }
                ]
            }
            for k in range(n)
        ]
        data = b"".join(sse.encode(json.dumps(c).encode()) for c in chunks)

        def run() -> None:
            decoder = DIALECTS["openai"].decoder(CHAT, "text/event-stream", "s")
            decoder.feed(data)
            decoder.close()

        return run

    found = superlinear(make, 2000)
    assert found is None, found


def test_every_bound_has_a_reason() -> None:
    assert all(len(b.reason) > 10 and b.most > 0 and b.unit for b in bounds.BOUNDS.values())
