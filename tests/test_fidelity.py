"""What survives between which dialects: found by running the codecs, written to docs/fidelity.md.

`python tests/test_fidelity.py --write` writes the page; the test fails when it is stale.  Requests go
the way of edge/exchange.py: a client's own bytes are decoded, repaired and fitted to a route, encoded
for its upstream, and read by the same dialect in the upstream's part.  Replies come back the same way.
"""

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import efforts
from headgate.catalog import presets
from headgate.chat import (
    Event,
    Finish,
    Media,
    Message,
    Reasoning,
    Reply,
    Request,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    collect,
    replay,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.errors import Refused
from headgate.policy import history
from headgate.policy.fit import fit
from headgate.reasoning import sealing

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "fidelity.md"
MODEL = "MiniMax-M3"
SEALER = sealing.Sealer(b"k" * sealing.SECRET_BYTES)
CLIENTS = ("openai", "responses", "anthropic", "gemini")
NAMES = {
    "openai": "OpenAI chat",
    "responses": "OpenAI Responses",
    "anthropic": "Anthropic Messages",
    "gemini": "Gemini generateContent",
}


def _preset(name: str) -> Capabilities:
    preset = presets.presets()[name]
    return msgspec.convert(preset.capabilities | preset.models.get(MODEL, {}), Capabilities)


def _custom(**own: Any) -> Capabilities:
    preset = presets.presets()["custom"]
    return msgspec.convert(preset.capabilities | preset.models[MODEL] | own, Capabilities)


# Title of the column: dialect and what its route can do, as the catalog says it.
UPSTREAMS: dict[str, tuple[str, Capabilities]] = {
    "openai (MiniMax)": ("openai", _preset("minimax")),
    "openai (vLLM)": ("openai", _preset("vllm")),
    "anthropic (MiniMax)": ("anthropic", _preset("minimax-anthropic")),
    "responses (custom)": ("responses", _custom(reasoning_form="reasoning_content")),
    "gemini (custom)": ("gemini", _custom()),
}

# --- requests, in each client's own bytes --------------------------------------------------------

_J = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
PNG = "iVBORw0KGgo="
SIGNED = "ab" * 32
ARGS = '{"a":"é"}'


def base(client: str) -> _J:
    """Says "hi", and nothing else."""
    if client == "gemini":
        return {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    if client == "responses":
        return {"model": MODEL, "input": [{"role": "user", "content": "hi"}]}
    limit = {"max_tokens": 3000} if client == "anthropic" else {}
    return {"model": MODEL, **limit, "messages": [{"role": "user", "content": "hi"}]}


def tools(client: str, **own: Any) -> list[_J]:
    described = {"name": "f", "description": "F."}
    match client:
        case "openai":
            return [{"type": "function", "function": {**described, "parameters": SCHEMA, **own}}]
        case "responses":
            return [{"type": "function", **described, "parameters": SCHEMA, **own}]
        case "anthropic":
            return [{**described, "input_schema": SCHEMA, **own}]
        case _:
            return [{"functionDeclarations": [{**described, "parametersJsonSchema": SCHEMA}]}]


def asked(client: str, content: list[_J]) -> _J:
    """The user's message with these parts."""
    key = {"gemini": "contents", "responses": "input"}.get(client, "messages")
    return {key: [{"role": "user", "parts" if client == "gemini" else "content": content}]}


def turn(client: str, said: list[tuple[str, ...]], result: Any = "sunny", **flags: Any) -> _J:
    """A history whose assistant `said` these parts; each call has the same result."""
    calls = [f"c{n}" for n, p in enumerate(said) if p[0] == "call"]
    out: list[_J] = [{"role": "user", "content": "hi"}]
    ids = iter(calls)
    if client == "openai":
        message: _J = {"role": "assistant", "content": ""}
        for part in said:
            match part[0]:
                case "think":
                    detail = {"type": "reasoning.text", "text": part[1]}
                    if len(part) > 2:
                        detail["signature"] = sealed(*part[1:])
                    message.setdefault("reasoning_details", []).append(detail)
                case "say":
                    message["content"] += part[1]
                case _:
                    call = {"name": "f", "arguments": ARGS}
                    made = {"id": next(ids), "type": "function", "function": call}
                    message.setdefault("tool_calls", []).append(made)
        out.append(message)
        out += ({"role": "tool", "tool_call_id": id, "content": result} for id in calls)
        return {"messages": out, "tools": tools(client)}
    if client == "responses":
        for part in said:
            match part[0]:
                case "think":
                    content = [{"type": "reasoning_text", "text": part[1]}]
                    item = {"type": "reasoning", "summary": [], "content": content}
                    if len(part) > 2:
                        item["encrypted_content"] = sealed(*part[1:])
                case "say":
                    item = {"role": "assistant", "content": part[1]}
                case _:
                    item = {"type": "function_call", "call_id": next(ids), "name": "f"}
                    item["arguments"] = ARGS
            out.append(item)
        out += ({"type": "function_call_output", "call_id": id, "output": result} for id in calls)
        return {"input": out, "tools": tools(client)}
    blocks: list[_J] = []
    if client == "anthropic":
        for part in said:
            match part[0]:
                case "think":
                    signature = sealed(*part[1:]) if len(part) > 2 else ""
                    blocks.append({"type": "thinking", "thinking": part[1], "signature": signature})
                case "say":
                    blocks.append({"type": "text", "text": part[1]})
                case _:
                    call = {"type": "tool_use", "id": next(ids), "name": "f"}
                    blocks.append({**call, "input": json.loads(ARGS)})
        out.append({"role": "assistant", "content": blocks})
        results = [
            {"type": "tool_result", "tool_use_id": id, "content": result, **flags} for id in calls
        ]
        if results:
            out.append({"role": "user", "content": results})
        return {"messages": out, "tools": tools(client)}
    waiting = ""
    for part in said:
        match part[0]:
            case "think":
                blocks.append({"text": part[1], "thought": True})
                waiting = sealed(*part[1:]) if len(part) > 2 else ""
                continue
            case "say":
                block: _J = {"text": part[1]}
            case _:
                block = {"functionCall": {"id": next(ids), "name": "f", "args": json.loads(ARGS)}}
        if waiting:
            block["thoughtSignature"] = waiting
            waiting = ""
        blocks.append(block)
    answer = result if isinstance(result, dict) else {"output": result}
    told = [
        {"functionResponse": {"id": i, "name": "f", "response": answer, **flags}} for i in calls
    ]
    contents = [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": blocks}]
    if told:
        contents.append({"role": "user", "parts": told})
    return {"contents": contents, "tools": tools(client)}


def sealed(text: str, signature: str) -> str:
    return SEALER.seal(text, signature, "up")


def _each(make: Callable[[str], _J]) -> dict[str, _J]:
    return {client: make(client) for client in CLIENTS}


def _config(**fields: Any) -> _J:
    return {"generationConfig": fields}


def _all(field: str, value: Any, gemini: str = "") -> dict[str, _J]:
    own = {c: {field: value} for c in ("openai", "responses", "anthropic")}
    return own | {"gemini": _config(**{gemini or field: value})}


_LOOP = (("think", "T1"), ("call",))
_IMAGE: dict[str, _J] = {
    "openai": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    "responses": {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
    "anthropic": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
    },
    "gemini": {"inlineData": {"mimeType": "image/png", "data": PNG}},
}
_FORMAT = {"type": "json_schema", "name": "s", "schema": SCHEMA}
_MARK = {"cache_control": {"type": "ephemeral"}}


def _parts(request: Request, kind: type) -> list[Any]:
    inner = [p for m in request.messages for p in m.parts]
    inner += [q for p in inner if isinstance(p, ToolResult) for q in p.parts]
    return [p for p in inner if isinstance(p, kind)]


def _results(request: Request) -> list[ToolResult]:
    return _parts(request, ToolResult)


def _spoken(request: Request) -> list[tuple[str, str]]:
    """The assistant's parts in their order."""
    said = [p for m in request.messages if m.role == "assistant" for p in m.parts]
    return [(type(p).__name__, getattr(p, "text", "")) for p in said]


def _where(request: Request, word: str) -> list[str]:
    return [
        m.role
        for m in request.messages
        if any(word in t.text for t in m.parts if isinstance(t, Text))
    ]


class Feature(msgspec.Struct):
    """`near` sees whether it is there in another way, which counts as emulated."""

    name: str
    bodies: dict[str, _J]  # by client, over `base`; a client without one cannot say it
    look: Callable[[Request], object]
    why: str = ""  # for the cells that lose it
    near: Callable[[Request], bool] | None = None
    raw: bytes = b""  # in the upstream's bytes, where our own reader of that wire has no eye for it


def _tool_choice(openai: Any, responses: Any, anthropic: _J, gemini: _J) -> dict[str, _J]:
    said = {"openai": openai, "responses": responses, "anthropic": anthropic}
    bodies = {c: {"tools": tools(c), "tool_choice": v} for c, v in said.items()}
    config = {"functionCallingConfig": gemini}
    return bodies | {"gemini": {"tools": tools("gemini"), "toolConfig": config}}


def _fields(*names: str) -> Callable[[Request], object]:
    return lambda r: [getattr(r.sampling, n) for n in names]


REQUESTS = [
    Feature("text of the user", _each(lambda c: {}), lambda r: _parts(r, Text)),
    Feature(
        "system text",
        {
            "openai": {
                "messages": [
                    {"role": "system", "content": "SYS"},
                    {"role": "user", "content": "hi"},
                ]
            },
            "responses": {"instructions": "SYS"},
            "anthropic": {"system": "SYS"},
            "gemini": {"systemInstruction": {"parts": [{"text": "SYS"}]}},
        },
        lambda r: _where(r, "SYS"),
    ),
    Feature(
        "system message in mid-conversation",
        {
            **{
                c: {
                    "messages": [
                        {"role": "user", "content": "a"},
                        {"role": "system", "content": "SYS"},
                        {"role": "user", "content": "b"},
                    ]
                }
                for c in ("openai", "anthropic")
            },
            "responses": {
                "input": [
                    {"role": "user", "content": "a"},
                    {"role": "developer", "content": "SYS"},
                    {"role": "user", "content": "b"},
                ]
            },
        },
        lambda r: _where(r, "SYS"),
        near=lambda r: _where(r, "SYS") == ["user"],
    ),
    Feature(
        "image of the user",
        _each(
            lambda c: asked(
                c,
                [
                    {"text": "see"}
                    if c == "gemini"
                    else {"type": "input_text" if c == "responses" else "text", "text": "see"},
                    _IMAGE[c],
                ],
            )
        ),
        lambda r: _parts(r, Media),
    ),
    Feature(
        "image in a tool's result",
        {
            "anthropic": turn(
                "anthropic", [("call",)], [{"type": "text", "text": "see"}, _IMAGE["anthropic"]]
            ),
            "responses": turn(
                "responses",
                [("call",)],
                [{"type": "input_text", "text": "see"}, _IMAGE["responses"]],
            ),
            "gemini": turn("gemini", [("call",)], "see", parts=[_IMAGE["gemini"]]),
        },
        lambda r: [p for result in _results(r) for p in result.parts if isinstance(p, Media)],
        near=lambda r: len(_parts(r, Media)) == 1,
    ),
    Feature(
        "tools and their schemas",
        _each(lambda c: {"tools": tools(c)}),
        lambda r: [(t.name, t.description, json.loads(bytes(t.parameters))) for t in r.tools],
    ),
    Feature(
        "strict tools",
        {c: {"tools": tools(c, strict=True)} for c in ("openai", "responses", "anthropic")},
        lambda r: [t.strict for t in r.tools],
        "this wire has no such mark",
    ),
    Feature(
        "`tool_choice`: none",
        _tool_choice("none", "none", {"type": "none"}, {"mode": "NONE"}),
        lambda r: r.choice.mode,
        near=lambda r: not r.tools,
    ),
    Feature(
        "`tool_choice`: any tool",
        _tool_choice("required", "required", {"type": "any"}, {"mode": "ANY"}),
        lambda r: r.choice.mode,
    ),
    Feature(
        "`tool_choice`: one tool",
        _tool_choice(
            {"type": "function", "function": {"name": "f"}},
            {"type": "function", "name": "f"},
            {"type": "tool", "name": "f"},
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
        lambda r: (r.choice.mode, r.choice.name),
    ),
    Feature(
        "no parallel calls",
        {
            "openai": {"tools": tools("openai"), "parallel_tool_calls": False},
            "responses": {"tools": tools("responses"), "parallel_tool_calls": False},
            "anthropic": {
                "tools": tools("anthropic"),
                "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            },
        },
        lambda r: r.choice.parallel,
        "the upstream has no such switch",
    ),
    Feature(
        "parallel calls in history",
        _each(lambda c: turn(c, [("call",), ("call",)])),
        lambda r: [(p.name, json.loads(p.arguments)) for p in _parts(r, ToolCall)],
    ),
    Feature(
        "results, each with its call",
        _each(lambda c: turn(c, [("call",), ("call",)])),
        lambda r: [[p.id for p in _parts(r, ToolCall)].index(x.call_id) for x in _results(r)],
    ),
    Feature(
        "error in a result",
        {
            "anthropic": turn("anthropic", [("call",)], "no such file", is_error=True),
            "gemini": turn("gemini", [("call",)], {"error": "no such file"}),
        },
        lambda r: [x.is_error for x in _results(r)],
        near=lambda r: all(
            p.text.startswith("Error") for x in _results(r) for p in x.parts if isinstance(p, Text)
        ),
    ),
    Feature(
        "thinking in history",
        _each(lambda c: turn(c, list(_LOOP))),
        lambda r: [p.text for p in _parts(r, Thinking)],
    ),
    Feature(
        "upstream's signature, sealed",
        _each(lambda c: turn(c, [("think", "T1", SIGNED), ("call",)])),
        lambda r: [p.signature for p in _parts(r, Thinking)],
        "this upstream does not sign",
    ),
    Feature(
        "order of thinking and text",
        {
            c: turn(c, [("think", "T1", SIGNED), ("say", "A."), ("think", "T2", SIGNED), ("call",)])
            for c in ("responses", "anthropic", "gemini")
        },
        _spoken,
        "all thinking comes first on this wire",
    ),
    Feature(
        "thinking on",
        {
            "openai": {"reasoning_effort": "high"},
            "responses": {"reasoning": {"effort": "high"}},
            "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            "gemini": _config(thinkingConfig={"thinkingBudget": -1}),
        },
        lambda r: r.reasoning.mode,
        "the model thinks anyway",
        raw=b'"enable_thinking":true',
    ),
    Feature(
        "thinking off",
        {
            "openai": {"thinking": {"type": "disabled"}},
            "responses": {"reasoning": {"effort": "none"}},
            "anthropic": {"thinking": {"type": "disabled"}},
            "gemini": _config(thinkingConfig={"thinkingBudget": 0}),
        },
        lambda r: r.reasoning.mode,
        "no switch is known on this wire",
        raw=b'"enable_thinking":false',
    ),
    Feature(
        "effort of thinking",
        {
            "openai": {"reasoning_effort": "low"},
            "responses": {"reasoning": {"effort": "low"}},
            "anthropic": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            "gemini": _config(thinkingConfig={"thinkingLevel": "LOW"}),
        },
        lambda r: r.reasoning.effort,
        "MiniMax's models have on and off only",
    ),
    Feature(
        "stop sequences",
        {
            "openai": {"stop": ["END"]},
            "anthropic": {"stop_sequences": ["END"]},
            "gemini": _config(stopSequences=["END"]),
        },
        _fields("stop"),
    ),
    Feature(
        "structured output",
        {
            "openai": {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": SCHEMA},
                }
            },
            "responses": {"text": {"format": _FORMAT}},
            "anthropic": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "gemini": _config(responseMimeType="application/json", responseJsonSchema=SCHEMA),
        },
        lambda r: r.format and json.loads(bytes(r.format.schema)),
    ),
    Feature(
        "most tokens of the reply",
        _all("max_tokens", 99, "maxOutputTokens") | {"responses": {"max_output_tokens": 99}},
        _fields("max_tokens"),
    ),
    Feature(
        "`temperature`, `top_p`",
        _each(
            lambda c: (
                _config(temperature=0.5, topP=0.5)
                if c == "gemini"
                else {"temperature": 0.5, "top_p": 0.5}
            )
        ),
        _fields("temperature", "top_p"),
    ),
    Feature(
        "`top_k`",
        {"anthropic": {"top_k": 5}, "gemini": _config(topK=5)},
        _fields("top_k"),
        "the upstream ignores it",
    ),
    Feature(
        "`seed`",
        {"openai": {"seed": 7}, "gemini": _config(seed=7)},
        _fields("seed"),
        "the upstream ignores it",
    ),
    Feature(
        "penalties",
        {
            "openai": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
            "gemini": _config(presencePenalty=0.5, frequencyPenalty=0.5),
        },
        _fields("presence_penalty", "frequency_penalty"),
        "the upstream ignores them",
    ),
    Feature(
        "service tier",
        {c: {"service_tier": "priority"} for c in ("openai", "responses", "anthropic")},
        lambda r: r.service_tier,
        "the route has none",
    ),
    Feature(
        "cache marks",
        {
            "anthropic": {
                "system": [{"type": "text", "text": "S", **_MARK}],
                "tools": tools("anthropic", **_MARK),
                **asked("anthropic", [{"type": "text", "text": "hi", **_MARK}]),
            }
        },
        lambda r: ([t.cache for t in r.tools], [p.cache for p in _parts(r, Text)]),
        "this wire has none; prefixes are cached without",
    ),
]


def request_cell(feature: Feature, client: str, column: str) -> str:
    if client not in feature.bodies:
        return "–"
    down = DIALECTS[client]
    name, capabilities = UPSTREAMS[column]
    up = DIALECTS[name]
    body = msgspec.json.encode(base(client) | feature.bodies[client])
    asked_for = down.decode_request(body, RequestTarget(MODEL, False))
    asked_for, _ = sealing.unseal(asked_for, SEALER, "up")
    try:
        repaired = history.repair(asked_for, capabilities, client)
        fitted = fit(
            repaired,
            capabilities,
            max_output=9999,
            default_max_output=9999,
            client=client,
            wire=name,
        )
    except Refused:
        return "refused"
    sent = up.encode_request(fitted.request, capabilities, MODEL, False)
    arrived = up.decode_request(sent, RequestTarget(MODEL, False))
    notes = [w for w in fitted.request.warnings if w not in asked_for.warnings]
    wanted, got = feature.look(asked_for), feature.look(arrived)
    if wanted == got or (feature.raw and feature.raw in sent):
        return "carried"
    if any("(emulated)" in note for note in notes) or (feature.near and feature.near(arrived)):
        return "emulated"
    told = " (told)" if [n for n in notes if "folded" not in n] else ""
    return f"lost{told}: {feature.why or '?'}"


# --- replies -------------------------------------------------------------------------------------

USAGE = Usage(100, 40, 60, 10, 7)
STOP = Finish("stop", USAGE)
CALLS = Finish("tool_calls", USAGE)


class Answer(msgspec.Struct):
    name: str
    reply: Reply
    look: Callable[[Reply], object]
    why: str = ""


def _finish(reply: Reply) -> object:
    return reply.finish.reason, reply.finish.stop_sequence


def _names(reply: Reply) -> list[tuple[str, str]]:
    return [(type(p).__name__, getattr(p, "text", "")) for p in reply.parts]


_CALL = ToolCall("c1", "f", ARGS)
_OTHER = ToolCall("c2", "f", '{"a": "ü"}')
_A = Text("A.")
REPLIES = [
    Answer("text", Reply((_A,), STOP), lambda r: _names(r)),
    Answer("thinking", Reply((Thinking("T1"), _A), STOP), lambda r: _names(r)[0]),
    Answer(
        "signature, sealed",
        Reply((Thinking("T1", SIGNED), _CALL), CALLS),
        lambda r: [p.signature for p in r.parts if isinstance(p, Thinking)],
        "this wire has no place for it",
    ),
    Answer(
        "order of thinking, text and calls",
        Reply((Thinking("T1", SIGNED), _A, Thinking("T2", SIGNED), _CALL), CALLS),
        _names,
        "not told on this wire; the memory puts it right on the next turn",
    ),
    Answer(
        "parallel calls",
        Reply((_CALL, _OTHER), CALLS),
        lambda r: [(p.name, json.loads(p.arguments)) for p in r.parts if isinstance(p, ToolCall)],
    ),
    Answer(
        "ids of calls",
        Reply((_CALL, _OTHER), CALLS),
        lambda r: [p.id for p in r.parts if isinstance(p, ToolCall)],
    ),
    Answer("end: stop", Reply((_A,), STOP), _finish),
    Answer(
        "end: a stop sequence, and which",
        Reply((_A,), Finish("stop_sequence", USAGE, "END")),
        _finish,
        "reads as an ordinary stop",
    ),
    Answer("end: the limit of tokens", Reply((_A,), Finish("length", USAGE)), _finish),
    Answer(
        "end: the context is full",
        Reply((_A,), Finish("context_full", USAGE)),
        _finish,
        "reads as the limit of tokens",
    ),
    Answer("end: calls", Reply((_CALL,), CALLS), _finish),
    Answer("end: filtered", Reply((_A,), Finish("content_filter", USAGE)), _finish),
    *(
        Answer(
            f"usage: {what}",
            Reply((Thinking("T1"), _A), STOP),
            lambda r, field=field: getattr(r.usage, field),
            "no such number on this wire; part of the whole",
        )
        for field, what in (
            ("input", "input"),
            ("output", "output"),
            ("cached", "read from the cache"),
            ("cache_write", "written to the cache"),
            ("reasoning", "of thinking"),
        )
    ),
]
FACTS = ReplyFacts("1a2b", MODEL, 1700000000, 50)


def _read(dialect: str, data: bytes, media: str) -> Reply:
    capabilities = _custom(reasoning_form="blocks" if dialect == "anthropic" else "details")
    decoder = DIALECTS[dialect].decoder(capabilities, media, "s")
    reply = collect(decoder.feed(data) + decoder.close())
    assert isinstance(reply, Reply), reply
    return reply


def reply_cell(answer: Answer, client: str, upstream: str) -> str:
    """As JSON and as a stream: what either loses is lost."""
    up, down = DIALECTS[upstream], DIALECTS[client]
    asked_for = Request(
        MODEL, (Message("user", (_A,)),), stream=True, reasoning=Reasoning("on"), format=None
    )
    said = _read(upstream, up.encode_reply(answer.reply, asked_for, FACTS), "application/json")
    wanted = answer.look(answer.reply)
    if answer.look(said) != wanted:
        return "–"
    seal = sealing.Seal(SEALER, "up", down.facts.seals == "signed")
    events: list[Event] = seal.feed(list(replay(said)))
    whole = collect(events)
    assert isinstance(whole, Reply)
    streamed = down.encoder(asked_for, FACTS, RequestTarget(MODEL, True)).feed(events)
    got = (
        _read(client, down.encode_reply(whole, asked_for, FACTS), "application/json"),
        _read(client, streamed, "text/event-stream"),
    )
    if all(answer.look(_opened(reply)) == wanted for reply in got):
        return "carried"
    return f"lost: {answer.why or '?'}"


def _opened(reply: Reply) -> Reply:
    """Return the reply with its sealed thinking opened; it replaces the pieces before Gemini's signature."""
    history = Request(MODEL, (Message("assistant", reply.parts),))
    parts = sealing.unseal(history, SEALER, "up")[0].messages[0].parts
    return msgspec.structs.replace(reply, parts=parts)


# --- the page ------------------------------------------------------------------------------------

HEAD = """# What survives between dialects

Written by `python tests/test_fidelity.py --write`, which runs the codecs; do not edit. A test fails
when this page is stale.

*carried*: it arrives as what it was. *emulated*: the upstream's wire or server has no such thing, and
the gateway gives it another form or does it itself. *lost*: it does not arrive; *(told)* when
`x-headgate-warnings` names it. *refused*: a 400 says so. *–*: the protocol has no way to say it.
"""


def page() -> str:
    out = [HEAD, "## Requests\n"]
    out.append(
        f"For {MODEL}. The columns are upstream dialects as the catalog describes their routes; another"
        "\nserver of the same dialect may be able to do more (`capabilities` in headgate.toml).\n"
    )
    for client in CLIENTS:
        out.append(f"### From {NAMES[client]}\n")
        rows = {f.name: [request_cell(f, client, c) for c in UPSTREAMS] for f in REQUESTS}
        out.append(_table("request", list(UPSTREAMS), rows))
    out.append("## Effort\n")
    out.append(
        "What each upstream is sent for each client's knob. *(warned)*: it is not what was asked for, and"
        "\n`x-headgate-warnings` says what it is. A default of the operator's, per key or per model, is for"
        "\nrequests that name no effort.\n"
    )
    columns = efforts.upstreams()
    for client, knobs in efforts.knobs().items():
        out.append(f"### Effort from {NAMES[client]}\n")
        rows = {n: [efforts.cell(client, k, r) for r in columns.values()] for n, k in knobs.items()}
        out.append(_table("knob", list(columns), rows))
    out.append("## Replies\n")
    out.append(
        "Whole and streamed. The columns are the upstream dialects that the reply comes from.\n"
    )
    for client in CLIENTS:
        out.append(f"### To {NAMES[client]}\n")
        columns = list(DIALECTS)
        rows = {a.name: [reply_cell(a, client, u) for u in columns] for a in REPLIES}
        out.append(_table("reply", columns, rows))
    out.append("## Forms that one client needs\n")
    out.append("As the heads of the files in `src/headgate/dialects/` say them.\n")
    out += (f"- `{name}`: {form}" for name, form in stated("Needed by a client:"))
    out.append("")
    out.append("## Known losses\n")
    out.append("As the heads of the files in `src/headgate/dialects/` say them.\n")
    out += (f"- `{name}`: {loss}" for name, loss in known_losses())
    return "\n".join(out) + "\n"


def _table(title: str, columns: list[str], rows: dict[str, list[str]]) -> str:
    """Rows that nobody of this client can say are left out."""
    lines = [f"| {title} | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += (f"| {n} | {' | '.join(cells)} |" for n, cells in rows.items() if set(cells) != {"–"})
    return "\n".join(lines) + "\n"


def known_losses() -> list[tuple[str, str]]:
    return stated("Known losses:")


def stated(title: str) -> list[tuple[str, str]]:
    """The paragraphs with this title in the docstrings of the dialects, by the file's name."""
    found = []
    dialects = ROOT / "src/headgate/dialects"
    for file in sorted(dialects.rglob("*.py")):
        said = ast.get_docstring(ast.parse(file.read_text())) or ""
        for paragraph in said.split("\n\n"):
            if paragraph.startswith(title):
                found.append(
                    (str(file.relative_to(dialects)), " ".join(paragraph.split())[len(title) + 1 :])
                )
    return found


def test_the_page_of_what_survives_is_up_to_date() -> None:
    stale = "docs/fidelity.md is stale: python tests/test_fidelity.py --write"
    assert PAGE.exists() and PAGE.read_text() == page(), stale


def test_nothing_is_lost_without_a_word_why() -> None:
    assert ": ?" not in page()


def test_a_conversation_with_tools_and_thinking_loses_nothing() -> None:
    never_lost = (
        "text of the user",
        "system text",
        "tools and their schemas",
        "parallel calls in history",
        "results, each with its call",
        "thinking in history",
    )
    for feature in REQUESTS:
        if feature.name in never_lost:
            for client in CLIENTS:
                cells = {request_cell(feature, client, column) for column in UPSTREAMS}
                assert cells == {"carried"}, (feature.name, client)


def test_each_dialect_states_its_known_losses() -> None:
    told = {name for name, _ in known_losses()}
    assert {name.partition("/")[0] for name in told} >= {
        "openai",
        "anthropic",
        "gemini",
        "responses",
    }


if __name__ == "__main__" and "--write" in sys.argv:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
