"""What is fed: recorded requests and streams, changed a little or a lot, and streams made up.

The requests are those below and tests/fixtures; the streams are those of tests/exchanges.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from headgate.dialects.contract import Dialect
from headgate.dialects.registry import DIALECTS
from headgate.dialects.responses.dialect import ResponsesDialect

HERE = Path(__file__).parent
EXCHANGES = HERE.parents[1] / "tests" / "exchanges"
FIXTURES = HERE.parents[1] / "tests" / "fixtures"
ALL: dict[str, Dialect] = {**DIALECTS, "responses": ResponsesDialect()}

REQUESTS: dict[str, list[bytes]] = {
    "openai": [
        b'{"model":"MiniMax-M2","messages":[{"role":"system","content":"Be brief."},{"role":"user",'
        b'"content":[{"type":"text","text":"Hi"},{"type":"image_url","image_url":{"url":'
        b'"data:image/png;base64,aGk="}}]},{"role":"assistant","content":"<think>\\nWhy\\n</think>'
        b'\\n\\nOk","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":'
        b'"{\\"a\\":1}"}}]},{"role":"tool","tool_call_id":"c1","content":"42"}],"tools":[{"type":'
        b'"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type"'
        b':"integer"}}}}}],"tool_choice":"auto","stream":true,"stream_options":{"include_usage":'
        b'true},"temperature":1,"max_tokens":9,"stop":["END"],"response_format":{"type":'
        b'"json_object"},"reasoning_effort":"low","n":1,"thinking":{"type":"adaptive"}}'
    ],
    "anthropic": [
        b'{"model":"MiniMax-M2","max_tokens":99,"system":[{"type":"text","text":"Be brief.",'
        b'"cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"Hi"},{"role":'
        b'"assistant","content":[{"type":"thinking","thinking":"Why","signature":"ab"},{"type":'
        b'"tool_use","id":"t1","name":"f","input":{"a":1}}]},{"role":"user","content":[{"type":'
        b'"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"42"}],"is_error":true},'
        b'{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGk="}}]}],'
        b'"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"any"},'
        b'"thinking":{"type":"enabled","budget_tokens":1024},"stop_sequences":["END"],"top_k":5}'
    ],
    "gemini": [
        b'{"contents":[{"role":"user","parts":[{"text":"Hi"},{"inlineData":{"mimeType":"image/png",'
        b'"data":"aGk="}}]},{"role":"model","parts":[{"text":"Why","thought":true},{"functionCall":{'
        b'"name":"f","args":{"a":1}},"thoughtSignature":"YWI="}]},{"role":"user","parts":[{'
        b'"functionResponse":{"name":"f","response":{"output":"42"}}}]}],"systemInstruction":{"parts"'
        b':[{"text":"Be brief."}]},"tools":[{"functionDeclarations":[{"name":"f","parameters":{'
        b'"type":"OBJECT","properties":{"a":{"type":"INTEGER","nullable":true}}}}]}],"toolConfig":{'
        b'"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}},"generationConfig":{'
        b'"maxOutputTokens":9,"stopSequences":["END"],"thinkingConfig":{"include_thoughts":true}}}'
    ],
    "responses": [
        b'{"model":"MiniMax-M2","instructions":"Be brief.","input":[{"role":"user","content":[{'
        b'"type":"input_text","text":"Hi"}]},{"type":"reasoning","summary":[],"encrypted_content":'
        b'"ab"},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":'
        b'"function_call_output","call_id":"c1","output":"42"}],"tools":[{"type":"function","name":'
        b'"f","parameters":{"type":"object"}}],"reasoning":{"effort":"low"},"store":false,"text":{'
        b'"format":{"type":"text"}},"stream":true}'
    ],
}


def recorded() -> None:
    """Add the requests of tests/fixtures, each to the dialect of its folder."""
    for path in sorted(FIXTURES.rglob("*.json")):
        found = json.loads(path.read_bytes())
        bodies = found if isinstance(found, list) else [found]
        for each in bodies:
            body = each.get("body", each) if isinstance(each, dict) else each
            name = path.relative_to(FIXTURES).parts[0]
            if name in REQUESTS and isinstance(body, dict):
                REQUESTS[name].append(json.dumps(body, ensure_ascii=False).encode()[:20000])


def streams() -> list[bytes]:
    """What upstreams sent in tests/exchanges, and what clients got: upstreams to other gateways."""
    out = []
    for path in sorted(EXCHANGES.glob("*.txt")):
        sections = re.split(rb"^=== .+\n", path.read_bytes(), flags=re.M)[1:]
        out += [section[:-1].replace(b"<echo>", b'"tools":[]') for section in sections]
    return list(dict.fromkeys(out))


_PIECES = [
    b"",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b":",
    b"data: ",
    b"data",
    b"event: error\n",
    b"data: [DONE]\n\n",
    b'"',
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[" * 40,
    b'{"a":' * 200,
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"1" * 400,
    b'"id":null,',
    b'"index":0,',
    b'"index":-7,',
    b'"error":{},',
    b'"error":"x",',
    b"<think>",
    b"</think>",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b'"type":"tool_use",',
    b'"name":"",',
    b"NaN",
]
_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    10**20,
    -(10**20),
    0.5,
    1e308,
    "",
    "x",
    "f",
    "END",
    "\ud800",
    "\x00",
    "data:image/png;base64,!!",
    "error",
    "stop",
    "tool_calls",
    "1002",
    "{",
    "{}",
    [],
    {},
    [[]],
    [None],
    {"a": None},
    ["x", 1],
    {"type": "text"},
    {"type": "text", "text": "x"},
    {"status_code": 1002},
    {"message": 1},
    [{}],
    {"type": "tool_use", "id": "", "name": "", "input": []},
    "x" * 3000,
]


# Words that decide something, for the keys that hold them.
_WORDS: dict[str, list[Any]] = {
    "finish_reason": ["stop", "length", "tool_calls", "error", "abort", "content_filter", "", None],
    "finishReason": ["STOP", "MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL", "OTHER", "", None],
    "stop_reason": ["end_turn", "tool_use", "max_tokens", "refusal", "pause_turn", "", None],
    "type": [
        "text",
        "thinking",
        "tool_use",
        "message_start",
        "message_delta",
        "message_stop",
        "error",
        "content_block_start",
        "content_block_stop",
        "response.completed",
        "response.failed",
        "response.incomplete",
        "response.output_item.added",
        "response.output_item.done",
        "message",
        "function_call",
        "reasoning",
        "custom_tool_call",
        "image",
        "function",
        "tool_result",
    ],
    "status": ["completed", "failed", "incomplete", "in_progress", "cancelled"],
    "role": ["system", "user", "assistant", "tool", "developer", "model", "function"],
    "index": [0, 1, 2, None],
}


def places(value: Any, out: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Collect all (container, key) inside a JSON value, parents first."""
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    for key, inner in items:
        out.append((value, key))
        places(inner, out)
    return out


def mutate_json(value: Any, r: random.Random) -> Any:
    found = places(value, [])
    if not found:
        return r.choice(_VALUES)
    container, key = r.choice(found)
    deciding = [place for place in found if place[1] in _WORDS]
    if deciding and r.random() < 0.4:
        container, key = r.choice(deciding)
        container[key] = r.choice(_WORDS[key])
        return value
    match r.randrange(5):
        case 0:
            del container[key]
        case 1:
            donor, other = r.choice(found)
            if other in donor if isinstance(donor, dict) else other < len(donor):
                container[key] = json.loads(json.dumps(donor[other]))
        case 2 if isinstance(container, list):
            container[key:key] = [container[key]] * r.choice((1, 2, 30))
        case 3 if isinstance(container, dict):
            container[r.choice(found)[1] if r.random() < 0.5 else "x"] = container.pop(key)
            if any(not isinstance(k, str) for k in container):
                kept = {str(k): v for k, v in container.items()}
                container.clear()
                container.update(kept)
        case _:
            container[key] = r.choice(_VALUES)
    return value


def mutate_bytes(data: bytes, r: random.Random, pieces: list[bytes]) -> bytes:
    at = r.randrange(len(data) + 1)
    to = min(len(data), at + r.choice((0, 1, 1, 2, 8, 40, 400)))
    match r.randrange(5):
        case 0:
            return data[:at] + data[to:]
        case 1:
            return data[:to] + data[at:to] * r.choice((1, 3)) + data[to:]
        case 2 if data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) + data[at + 1 :]
        case 3:
            return data[:at] if r.random() < 0.3 else data
        case _:
            return data[:at] + r.choice(pieces) + data[to:]


def mutate(data: bytes, r: random.Random) -> bytes:
    """A body, or the JSON of one event of a stream, changed a little or a lot."""
    for _ in range(r.choice((0, 1, 1, 2, 3, 8))):
        if r.random() < 0.35:
            data = mutate_bytes(data, r, _PIECES)
            continue
        head, cut, rest = b"", b"", data
        starts = [found.end() for found in re.finditer(rb"^data: ", data, re.M)]
        if starts:
            at = r.choice(starts)
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            head, rest, cut = data[:at], data[at:end], data[end:]
        try:
            changed = json.dumps(mutate_json(json.loads(rest), r), ensure_ascii=r.random() < 0.5)
            data = head + changed.encode("utf-8", "surrogatepass") + cut
        except (ValueError, RecursionError):
            data = mutate_bytes(data, r, _PIECES)
    return data


def some(r: random.Random, **fields: Callable[[], Any]) -> dict[str, Any]:
    """Return a few of these fields."""
    return {name: make() for name, make in fields.items() if r.random() < 0.4}


def composed(r: random.Random, name: str) -> bytes:
    """A stream of a dialect's well-formed events that make little sense together."""

    def word() -> str:
        return r.choice(
            ("a", "END", " b", "<think>", "</think>", "{", "}", '{"a":1}', "", "\n", "é" * 9)
        )

    def few(make: Callable[[], Any], most: int = 3) -> list[Any]:
        return [make() for _ in range(r.randrange(most + 1))]

    def number() -> Any:
        return r.choice((0, 0, 0, 1, 2, None))

    def call() -> Any:
        function = some(r, name=lambda: r.choice(("f", "g", "")), arguments=word)
        return some(
            r, index=number, id=lambda: r.choice(("c0", "c1", "")), function=lambda: function
        )

    def detail() -> Any:
        return some(r, index=number, text=word, signature=word)

    def openai() -> Any:
        delta = some(
            r,
            content=word,
            reasoning=word,
            reasoning_content=word,
            reasoning_details=lambda: few(detail),
            tool_calls=lambda: few(call),
        )
        choice = {"index": number(), r.choice(("delta", "delta", "message")): delta}
        if r.random() < 0.2:
            choice["finish_reason"] = r.choice(_WORDS["finish_reason"])
        return choice

    def gemini() -> Any:
        made = {"name": r.choice(("f", "")), "args": r.choice(({}, {"a": 1}))}
        part = some(
            r,
            text=word,
            thought=lambda: r.random() < 0.5,
            functionCall=lambda: made,
            thoughtSignature=lambda: "YWI=",
        )
        candidate: Any = {"content": {"parts": [part]}, "index": number()}
        if r.random() < 0.2:
            candidate["finishReason"] = r.choice(_WORDS["finishReason"])
        return candidate

    def anthropic() -> Any:
        kinds = ("text", "thinking", "tool_use", "server_tool_use")
        block = {
            "type": r.choice(kinds),
            "id": "t",
            "name": r.choice(("f", "")),
            **some(r, input=lambda: {"a": 1}, text=word),
        }
        delta = some(
            r,
            text=word,
            thinking=word,
            signature=word,
            partial_json=word,
            stop_reason=lambda: r.choice(_WORDS["stop_reason"]),
        )
        kind = r.choice(
            (
                "message_start",
                "content_block_start",
                "content_block_delta",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
                "ping",
            )
        )
        return {
            "type": kind,
            "index": number(),
            "content_block": block,
            "delta": delta,
            "message": {"id": "m"},
        }

    def item() -> Any:
        content = [{"type": "output_text", "text": word()}]
        kind = r.choice(
            ("message", "reasoning", "function_call", "custom_tool_call", "web_search_call")
        )
        return {
            "type": kind,
            **some(
                r,
                id=lambda: "i1",
                call_id=lambda: "c1",
                name=lambda: "f",
                arguments=word,
                input=word,
                content=lambda: content,
            ),
        }

    def responses() -> Any:
        kind = r.choice(
            (
                "output_text.delta",
                "reasoning_text.delta",
                "reasoning_summary_text.delta",
                "function_call_arguments.delta",
                "output_item.added",
                "output_item.done",
                "created",
                "completed",
                "incomplete",
                "failed",
            )
        )
        status = r.choice(_WORDS["status"])
        return {
            "type": f"response.{kind}",
            "delta": word(),
            "item": item(),
            "response": {"status": status, "output": few(item)},
            **some(r, output_index=number, item_id=lambda: "i1", summary_index=number),
        }

    def event() -> Any:
        out: dict[str, Any]
        match name:
            case "openai":
                out = {"id": "1", "choices": few(openai)}
            case "gemini":
                out = {"candidates": few(gemini)}
            case "anthropic":
                out = anthropic()
            case _:
                out = responses()
        if r.random() < 0.03:
            out["error"] = r.choice(({}, {"message": "x"}, "x", {"code": 400}))
        if r.random() < 0.03:
            out["base_resp"] = {"status_code": r.choice((0, 1002, 1027))}
        return out

    events = [b"data: " + json.dumps(event()).encode() + b"\n\n" for _ in range(r.randrange(1, 12))]
    return b"".join(events) + r.choice((b"", b"data: [DONE]\n\n"))


def pieces_of(data: bytes, r: random.Random) -> list[bytes]:
    count = r.choice((0, 1, 2, 5, 40))
    marks = [0, *sorted(r.randrange(len(data) + 1) for _ in range(count)), len(data)]
    return [data[a:b] for a, b in pairwise(marks)]
