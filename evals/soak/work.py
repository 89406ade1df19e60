"""The part `work`: four times as much input is four times as much work, not sixteen times.

Work is counted, not timed: the calls that the profiler sees, each weighed by the length of the text
or bytes whose method it is.  So the same input costs the same on every machine.  A known weakness:
what is copied by `+` or `join` has no such call and is not seen.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from mutations import ALL
from wire import FACTS, STREAM, routes

from headgate.chat import Message, Request, Text
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import Dialect, RequestTarget
from headgate.errors import Refused
from headgate.policy import fit, history
from headgate.stream import filters
from headgate.stream.translate import Translator

T = TypeVar("T")


def work(run: Callable[[], object]) -> int:
    """How much `run` does: its calls, each weighed by the text it works on, in units of 64."""
    count = 0

    def note(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        if event == "call":
            count += 1
        elif event == "c_call":
            on = getattr(arg, "__self__", None)
            count += 1 + (len(on) >> 6 if isinstance(on, str | bytes) else 0)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def chunk(delta: Any, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "1", "model": "m", "choices": [choice]}).encode() + b"\n\n"


def long_replies(n: int, r: random.Random) -> Iterator[tuple[str, list[bytes]]]:
    """Upstreams that go on and on: each of n pieces."""
    call = {"id": "c0", "index": 0, "function": {"name": "f", "arguments": '{"a":{"b":"'}}
    end = chunk({}, "stop")
    yield "text", [chunk({"content": "word "})] * n + [end]
    yield "blank text", [chunk({"content": " \n"})] * n + [end]
    yield (
        "thinking in tags",
        [chunk({"content": "<think>"}), *[chunk({"content": "a </"})] * n, end],
    )
    for field in ("reasoning_content", "reasoning"):
        yield field, [chunk({field: f"{i} word"}) for i in range(n)] + [end]
    details = [chunk({"reasoning_details": [{"index": 0, "text": f"{i} word"}]}) for i in range(n)]
    yield "details", [*details, end]
    yield (
        "many details",
        [
            *(chunk({"reasoning_details": [{"index": i, "text": "w"}]}) for i in range(n)),
            end,
        ],
    )
    more = [chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x}"}}]})] * n
    yield "one call", [chunk({"tool_calls": [call]}), *more, end]
    other = [chunk({"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "g"}}]})]
    yield (
        "a call behind another",
        [
            chunk({"tool_calls": [call]}),
            *other,
            *more,
            *[chunk({"tool_calls": [{"index": 1, "function": {"arguments": "y"}}]})] * n,
            end,
        ],
    )
    yield (
        "text behind a call",
        [
            chunk({"tool_calls": [call]}),
            *more,
            *[chunk({"content": "word "})] * n,
            end,
        ],
    )
    named = {"function": {"name": "f", "arguments": "x}"}}
    yield (
        "a name in each piece",
        [
            chunk({"tool_calls": [call]}),
            *[chunk({"tool_calls": [named]})] * n,
            end,
        ],
    )
    yield (
        "many calls",
        [
            *(
                chunk(
                    {
                        "tool_calls": [
                            {
                                "index": i,
                                "id": f"c{i}",
                                "function": {"name": "f", "arguments": "{}"},
                            }
                        ]
                    }
                )
                for i in range(n)
            ),
            end,
        ],
    )
    yield "a long event", [b"data: ", *[b"x" * 9] * n, b"\n\n"]
    yield "an event of many lines", [b"data: 1\n"] * n
    yield "comments", [b": ping\n\n"] * n + [chunk({"content": "x"}, "stop")]
    block = b'data: {"type":"content_block_start","index":%d,"content_block":{"type":"text"}}\n\n'
    yield "open blocks", [block % i for i in range(n)]
    item = b'data: {"type":"response.output_item.added","output_index":%d,"item":{"type":"%b"}}\n\n'
    yield "open items", [item % (i, b"message") for i in range(n)]
    yield "open calls", [item % (i, b"function_call") for i in range(n)]
    done = b'data: {"type":"response.output_item.done","output_index":%d,"item":{"type":"message"}}\n\n'
    yield "items", [(item % (i, b"message")) + done % i for i in range(n)]
    part = b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]}}]}\n\n'
    yield "parts", [part] * n


def long_requests(n: int) -> Iterator[tuple[str, str, bytes]]:
    def body(**fields: Any) -> bytes:
        return json.dumps({"model": "m", **fields}).encode()

    user = {"role": "user", "content": "Hi"}
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for i in range(n)
    ]
    results = [
        {"role": "tool", "tool_call_id": f"c{i}", "content": "x"} for i in reversed(range(n))
    ]
    yield "messages", "openai", body(messages=[user] * n)
    yield (
        "calls",
        "openai",
        body(messages=[user, {"role": "assistant", "tool_calls": calls}, *results]),
    )
    yield "systems", "openai", body(messages=[user, {"role": "system", "content": "x"}] * n)
    yield (
        "brackets",
        "openai",
        body(
            messages=[user],
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"a": [[]] * n}}}],
        ),
    )
    yield "keys", "openai", b'{"x":0,' + b'"model":"m",' * n + b'"messages":[]}'
    uses = [{"type": "tool_use", "id": f"c{i}", "name": "f", "input": {}} for i in range(n)]
    results = [{"type": "tool_result", "tool_use_id": f"c{i}"} for i in reversed(range(n))]
    yield (
        "blocks",
        "anthropic",
        body(
            max_tokens=9,
            messages=[
                user,
                {"role": "assistant", "content": uses},
                {"role": "user", "content": results},
            ],
        ),
    )
    yield (
        "tools",
        "anthropic",
        body(
            max_tokens=9,
            messages=[user],
            tools=[{"name": f"f{i}", "input_schema": {}} for i in range(n)],
        ),
    )
    calls = [{"functionCall": {"name": "f"}}] * n
    back = [{"functionResponse": {"name": "f", "response": {}}}] * n
    yield (
        "parts",
        "gemini",
        body(
            contents=[
                {"role": "user", "parts": [{"text": "x"}] * n},
                {"role": "model", "parts": calls},
                {"role": "user", "parts": back},
            ]
        ),
    )
    items = [
        {"type": "function_call", "call_id": f"c{i}", "name": "f", "arguments": "{}"}
        for i in range(n)
    ]
    outs = [{"type": "function_call_output", "call_id": f"c{i}", "output": "x"} for i in range(n)]
    yield "items", "responses", body(input=[*items, *outs])


def check(seed: int, examples: int) -> None:
    """Four times as much input is at most some five times as much work, whatever it is."""
    small, large = 400, 1600
    r, ways = random.Random(seed), routes()
    ask = Request("m", (Message("user", (Text("x"),)),), True)
    for (what, few), (_, many) in zip(long_replies(small, r), long_replies(large, r), strict=True):
        for name, upstream in ALL.items():
            client = r.choice(list(ALL.values()))

            def translate(pieces: list[bytes], u: Dialect = upstream, c: Dialect = client) -> None:
                each = filters.build("inline", ("END", "\n\n\n"), True)
                encoder = c.encoder(ask, FACTS, RequestTarget("m", True))
                t = Translator(u.decoder(Capabilities(), STREAM, "s"), each, encoder)
                for piece in pieces:
                    t.feed(piece)
                t.close()

            linear(f"{name}: {what}", translate, few, many)
    pairs = zip(long_requests(small), long_requests(large), strict=True)
    for (what, name, short), (_, _, long) in pairs:

        def ask_for(body: bytes, d: Dialect = ALL[name]) -> None:
            try:
                request = d.decode_request(body, RequestTarget("m", True))
                for model, dialect, capabilities in ways[:3]:
                    repaired = history.repair(request, capabilities, d.name)
                    fitted = fit.fit(repaired, capabilities, max_output=9999, default_max_output=99)
                    ALL[dialect].encode_request(fitted.request, capabilities, model.id, True)
            except Refused:
                pass

        linear(f"{name} request: {what}", ask_for, short, long)


def linear(what: str, run: Callable[[T], None], few: T, many: T) -> None:
    run(few)  # whatever is made once
    a, b = work(lambda: run(few)), work(lambda: run(many))
    assert b <= 5.5 * a + 500, f"{what}: 4 times the input is {b / a:.1f} times the work"
