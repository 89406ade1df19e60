"""Bodies of requests for the benchmarks: a few words, and a coding agent's history of 400 kB.

The history is what coding agents send with every turn: some twenty tools, a long system prompt, a
hundred calls with the files that they read and wrote.  It is made up, and the same in every run.
"""

import json
import random
from collections.abc import Iterator

TURNS = 100
AGENT_BYTES = 400_000
FIXED_BYTES = 45_000  # of them the system prompt and the tools
_WORDS = [
    "def",
    "return",
    "self",
    "import",
    "class",
    "for",
    "in",
    "if",
    "else",
    "None",
    "True",
    "value",
    "=",
    "(",
    ")",
    ":",
    ".",
    ",",
    "[",
    "]",
    "{",
    "}",
    "#",
    "path",
    "data",
    "result",
    "error",
    "test",
]
_SYSTEM = "You are a coding agent. Read before you write, and run the tests.\n" * 230

Turn = tuple[str, str, dict[str, str], str, str]  # id, tool, arguments, result, text


def _code(chosen: random.Random, size: int) -> str:
    lines: list[str] = []
    while size > 0:
        words = " ".join(chosen.choice(_WORDS) for _ in range(chosen.randint(3, 9)))
        line = "    " * chosen.randint(0, 3) + words + chosen.choice(("", "", ' "text"'))
        lines.append(line)
        size -= len(line) + 2
    return "\n".join(lines)


def _turns(size: int) -> Iterator[Turn]:
    chosen = random.Random(7)
    each = (size - FIXED_BYTES) // TURNS
    for n in range(TURNS):
        arguments, result = {"path": f"src/module_{n}.py"}, _code(chosen, each)
        if not n % 3:
            arguments["content"], result = _code(chosen, each * 2 // 3), "Wrote the file."
        if not n % 10:
            result = f"✓ passed — {n} tests\n{result}"  # most histories have such characters
        tool = "read_file" if n % 3 else "write_file"
        text = "I will look at the file." if n % 2 else ""
        yield f"call_{n:02x}f3a9b2c7d", tool, arguments, result, text


_TOOLS = [
    (
        f"tool_{n}",
        "Does something useful to the files below the working directory. " * 8,
        {
            "type": "object",
            "properties": {
                f"p{k}": {"type": "string", "description": "A parameter of it. " * 3}
                for k in range(6)
            },
            "required": ["p0"],
        },
    )
    for n in range(20)
]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def small(content: str, stream: bool = False) -> bytes:
    """A request of Chat Completions of a few words."""
    message = {"role": "user", "content": content}
    return _json({"model": "MiniMax-M2", "stream": stream, "messages": [message]})


def agent(dialect: str, content: str = "Fix the bug.", size: int = AGENT_BYTES) -> bytes:
    """A coding agent's request in a client's protocol; `content` is what its user asked for."""
    body = _MAKERS[dialect](content, size)
    # Gemini's clients ask for a stream in the path; its protocol has no such field.
    return _json(body if dialect == "gemini" else {"stream": True, **body})


def _openai(content: str, size: int) -> dict[str, object]:
    messages: list[object] = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": content},
    ]
    for id, name, arguments, result, text in _turns(size):
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": id, "type": "function", "function": function}
        messages.append({"role": "assistant", "content": text or None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": id, "content": result})
    tools = [
        {"type": "function", "function": {"name": n, "description": d, "parameters": p}}
        for n, d, p in _TOOLS
    ]
    return {"model": "MiniMax-M2", "messages": messages, "tools": tools}


def _anthropic(content: str, size: int) -> dict[str, object]:
    cached = {"type": "ephemeral"}
    messages: list[object] = [{"role": "user", "content": [{"type": "text", "text": content}]}]
    for id, name, arguments, result, text in _turns(size):
        stated: list[object] = [{"type": "text", "text": text}] if text else []
        stated.append({"type": "tool_use", "id": id, "name": name, "input": arguments})
        messages.append({"role": "assistant", "content": stated})
        back = {"type": "tool_result", "tool_use_id": id, "content": result}
        messages.append({"role": "user", "content": [back]})
    return {
        "model": "MiniMax-M2",
        "max_tokens": 32_000,
        "system": [{"type": "text", "text": _SYSTEM, "cache_control": cached}],
        "messages": messages,
        "tools": [{"name": n, "description": d, "input_schema": p} for n, d, p in _TOOLS],
    }


def _responses(content: str, size: int) -> dict[str, object]:
    items: list[object] = [{"type": "message", "role": "user", "content": content}]
    for id, name, arguments, result, text in _turns(size):
        if text:
            stated = [{"type": "output_text", "text": text}]
            items.append({"type": "message", "role": "assistant", "content": stated})
        call = {"call_id": id, "name": name, "arguments": json.dumps(arguments)}
        items.append({"type": "function_call", **call})
        items.append({"type": "function_call_output", "call_id": id, "output": result})
    tools = [
        {"type": "function", "name": n, "description": d, "parameters": p} for n, d, p in _TOOLS
    ]
    return {
        "model": "MiniMax-M2",
        "store": False,
        "instructions": _SYSTEM,
        "input": items,
        "tools": tools,
    }


def _gemini(content: str, size: int) -> dict[str, object]:
    contents: list[object] = [{"role": "user", "parts": [{"text": content}]}]
    for _, name, arguments, result, text in _turns(size):
        stated: list[object] = [{"text": text}] if text else []
        stated.append({"functionCall": {"name": name, "args": arguments}})
        contents.append({"role": "model", "parts": stated})
        back = {"name": name, "response": {"output": result}}
        contents.append({"role": "user", "parts": [{"functionResponse": back}]})
    declared = [{"name": n, "description": d, "parametersJsonSchema": p} for n, d, p in _TOOLS]
    return {
        "systemInstruction": {"parts": [{"text": _SYSTEM}]},
        "contents": contents,
        "tools": [{"functionDeclarations": declared}],
    }


_MAKERS = {
    "openai": _openai,
    "anthropic": _anthropic,
    "responses": _responses,
    "gemini": _gemini,
}
