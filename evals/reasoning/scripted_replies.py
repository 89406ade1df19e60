"""A scripted MiniMax-like upstream that records what came back to it, and imports nothing of Headgate.

It decides what the model of the retention bench thinks, writes and calls, and what counts as kept.  Every reply is chosen by the results that the request holds, so the conversations
of many clients run side by side; each is known by a mark in its first words, "[talk NAME TURNS]".
The wires are written by hand from the vendors' documents (read 2026-11),
so that a mistake of our own dialects is not made twice.

A turn is kept when in every later request its reasoning is there byte for byte (with its signature,
where the upstream signs), in the one form that this upstream reads, before the same text and calls
as when it was thought.  White space of texts may differ, as clients trim; ids of calls may, too.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# path of its base URL: what it is. `blocks` and `items` keep the order of thinking and text.
FORMS = {
    "details": "openai, `reasoning_details`",
    "reasoning_content": "openai, `reasoning_content`",
    "reasoning": "openai, `reasoning`",
    "tags": "openai, `<think>` tags",
    "blocks": "anthropic, signed blocks",
    "items": "responses, reasoning items",
}
AGAIN = "And then?"  # asked after the last turn, so that its reasoning must come back too

# One turn: ("think" | "say", text) and ("call", name, arguments), in the order of the model's words.
Turn = tuple[tuple[Any, ...], ...]
_LONG = "".join(f"{n}. Weigh row {n}: is {n * 7919 % 1000} the larger?\n" for n in range(500))
TURNS: tuple[Turn, ...] = (
    (
        ("think", "The user wants a route.\nFirst: where is Zürich?"),
        ("call", "find", {"place": "Zürich"}),
    ),
    (
        ("think", "Two places now — both at once 👋, “quoted”."),
        ("say", "Let me look at both."),
        ("call", "find", {"place": "Bern"}),
        ("call", "find", {"place": "Chur"}),
    ),
    (
        ("think", 'A fence:\n```json\n{"a": "b\\n\\u00e9"}\n```\n\tand a tab, a \\, <b>&amp;</b>.'),
        ("call", "ping", {}),
    ),
    (
        ("think", "Before the words."),
        ("say", "I have an idea."),
        ("think", "After the words, before the call."),
        ("call", "find", {"place": "Genève"}),
    ),
    (("think", "The same place again, for other reasons."), ("call", "find", {"place": "Zürich"})),
    (("think", _LONG), ("say", "That was long."), ("call", "find", {"place": "Olten"})),
    (("think", "Lines\r\nof all\u2028kinds\u0085and  two  spaces"), ("call", "ping", {})),
    (
        ("think", "Only calls, and three."),
        ("call", "find", {"place": "Bern"}),
        ("call", "ping", {}),
        ("call", "find", {"place": "Thun"}),
    ),
    (
        ("think", "One more.\n"),
        ("say", "  Indented, and a line end.\n"),
        ("call", "find", {"place": "Biel"}),
    ),
    (("think", "Now I know it."), ("say", "**Zürich → Bern**, by train.\n")),
)
_SHORT = (TURNS[0], TURNS[3], TURNS[9])


def script(turns: int) -> tuple[Turn, ...]:
    return TURNS if turns == len(TURNS) else _SHORT


def result(name: str, arguments: dict[str, Any]) -> str:
    """What the tools answer; every client computes the same."""
    return f"{arguments['place']}: found." if name == "find" else "pong"


def as_sent(turn: Turn, form: str) -> Turn:
    """Return the turn as this form can carry it: OpenAI's has all thinking first, in one piece."""
    if form in ("blocks", "items"):
        return turn
    thought = "\n\n".join(p[1] for p in turn if p[0] == "think")
    return (("think", thought), *(p for p in turn if p[0] != "think"))


def _calls(turn: Turn) -> int:
    return sum(p[0] == "call" for p in turn)


def sign(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Talk:
    """Records one conversation as it reached the upstream."""

    def __init__(self, form: str, turns: int) -> None:
        self.form = form
        self.script = script(turns)
        self.seen: list[
            list[tuple[Any, ...]]
        ] = []  # of each request: the assistant's parts, in order

    def kept(self) -> list[bool]:
        """For each turn of the script, whether every later request had its reasoning in place."""
        expected = [as_sent(t, self.form) for t in self.script]
        kept = [False] * len(expected)
        finished = max((len(self._cut(s)) for s in self.seen), default=0)
        for n in range(min(finished, len(expected))):
            kept[n] = True
        for seen in self.seen:
            for n, turn in enumerate(self._cut(seen)[: len(expected)]):
                if _plain(turn) != _plain(expected[n]):
                    kept[n] = False
        return kept

    def first_loss(self) -> str:
        """What was sent and what came back, of the first turn that lost something."""
        expected = [as_sent(t, self.form) for t in self.script]
        for seen in self.seen:
            for n, turn in enumerate(self._cut(seen)[: len(expected)]):
                if _plain(turn) != _plain(expected[n]):
                    short = [tuple(str(x)[:70] for x in p) for p in turn]
                    return (
                        f"turn {n + 1}: expected {str(expected[n])[:300]}, got {str(short)[:500]}"
                    )
        return f"{len(self.seen)} requests came"

    def _cut(self, seen: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
        """The parts by turns: a turn ends with its last call, the last of all with the user's words.

        So it does not matter whether a client sends parallel calls in messages of their own.
        """
        out: list[list[tuple[Any, ...]]] = []
        turn: list[tuple[Any, ...]] = []
        for part in seen:
            if part[0] == "user":
                if turn:
                    out.append(turn)
                    turn = []
                continue
            turn.append(part)
            n = len(out)
            wanted = _calls(self.script[n]) if n < len(self.script) else 0
            if wanted and sum(p[0] == "call" for p in turn) == wanted:
                out.append(turn)
                turn = []
        return [*out, turn] if turn else out


def _plain(turn: Any) -> list[tuple[Any, ...]]:
    """Without what may differ: the white space of texts, ids of calls, where texts are parted."""
    out: list[tuple[Any, ...]] = []
    for part in turn:
        if part[0] == "say":
            words = "".join(part[1].split())
            if out and out[-1][0] == "say":
                words = out.pop()[1] + words
            if words:
                out.append(("say", words))
        else:
            out.append((part[0], part[1]) if part[0] == "think" else part[:3])
    return out


class Upstream:
    """Serves the replies; `talks` are by name. Use as `with Upstream().running() as upstream`."""

    def __init__(self) -> None:
        self.talks: dict[str, Talk] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                try:
                    media, answer = outer.answer(self.path, json.loads(body))
                    status = 200
                except Exception as error:  # as_sent to the client, or it would wait for us
                    media, answer = (
                        "application/json",
                        json.dumps({"error": {"message": repr(error)}}),
                    )
                    status = 400
                data = answer.encode()
                self.send_response(status)
                self.send_header("content-type", media)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def url(self, form: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{form}"

    @contextmanager
    def running(self) -> Iterator["Upstream"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join(10)
            self._server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[str, str]:
        form = path.split("/")[1]
        mark = re.search(r"\[talk ([\w.-]+) (\d+)\]", json.dumps(body, ensure_ascii=False))
        if mark is None:
            raise ValueError("no mark in the request")
        kinds: dict[str, Any] = {"blocks": _Blocks, "items": _Items}  # Any: classes of one shape
        wire = kinds.get(form, _Chat)(form, mark[1])
        seen, results = wire.read(body)
        with self._lock:
            talk = self.talks.setdefault(mark[1], Talk(form, int(mark[2])))
            talk.seen.append(seen)
        asked_again = any(p[0] == "user" and AGAIN in p[1] for p in seen)
        turn: Turn = (("think", "Enough."), ("say", "Goodbye."))
        if not asked_again:
            total, n = 0, 0
            while total + _calls(talk.script[n]) <= results and n < len(talk.script) - 1:
                total += _calls(talk.script[n])
                n += 1
            turn = as_sent(talk.script[n], form)
        made = wire.streamed(turn) if body.get("stream") else json.dumps(wire.whole(turn))
        return ("text/event-stream" if body.get("stream") else "application/json"), made


def _ids(turn: Turn, name: str) -> list[str]:
    """Ids as MiniMax makes them, the same for the same turn of a talk: no two turns are alike."""
    random = sign(name + repr(turn))[:16]
    return [f"call_function_{random}_{n + 1}" for n in range(_calls(turn))]


def _pieces(text: str, size: int = 61) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def _sse(events: list[dict[str, Any]], named: bool, done: bool) -> str:
    out = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        out.append(f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n")
    return "".join(out) + ("data: [DONE]\n\n" if done else "")


def _texts(content: Any) -> str:
    if isinstance(content, list):
        return "".join(p.get("text") or "" for p in content)
    return content or ""


class _Chat:
    def __init__(self, form: str, name: str) -> None:
        self.form = form
        self.name = name

    def read(self, body: dict[str, Any]) -> tuple[list[tuple[Any, ...]], int]:
        seen: list[tuple[Any, ...]] = []
        results = 0
        for message in body["messages"]:
            content = _texts(message.get("content"))
            match message["role"]:
                case "user":
                    seen.append(("user", content))
                case "tool":
                    results += 1
                case "assistant":
                    thought, content = self._thought(message, content)
                    if thought:
                        seen.append(("think", thought))
                    if content:
                        seen.append(("say", content))
                    for call in message.get("tool_calls") or ():
                        function = call["function"]
                        seen.append(("call", function["name"], json.loads(function["arguments"])))
        return seen, results

    def _thought(self, message: dict[str, Any], content: str) -> tuple[str, str]:
        if self.form == "tags":
            found = re.match(r"<think>\n(.*?)\n</think>\n*(.*)", content, re.S)
            return (found[1], found[2]) if found else ("", content)
        if self.form == "details":
            return "".join(d["text"] for d in message.get("reasoning_details") or ()), content
        return message.get(self.form) or "", content

    def _message(self, turn: Turn) -> tuple[str, str, list[dict[str, Any]]]:
        thought = turn[0][1]
        text = "".join(p[1] for p in turn if p[0] == "say")
        ids = iter(_ids(turn, self.name))
        calls = [
            {
                "index": n,
                "id": next(ids),
                "type": "function",
                "function": {"name": p[1], "arguments": json.dumps(p[2], ensure_ascii=False)},
            }
            for n, p in enumerate(p for p in turn if p[0] == "call")
        ]
        return thought, text, calls

    def _fields(self, thought: str) -> dict[str, Any]:
        if self.form == "details":
            detail = {
                "type": "reasoning.text",
                "id": "reasoning-text-1",
                "format": "MiniMax-response-v1",
                "index": 0,
                "text": thought,
            }
            return {"reasoning_content": thought, "reasoning_details": [detail]}
        return {self.form: thought}

    def whole(self, turn: Turn) -> dict[str, Any]:
        thought, text, calls = self._message(turn)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.form == "tags":
            message["content"] = f"<think>\n{thought}\n</think>\n\n{text}"
        else:
            message |= self._fields(thought)
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": _reason(calls)}
        return {
            "id": "up",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }

    def streamed(self, turn: Turn) -> str:
        thought, text, calls = self._message(turn)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if self.form == "tags":
            text = f"<think>\n{thought}\n</think>\n\n{text}"
        else:
            deltas += (self._fields(p) for p in _pieces(thought))
        deltas += ({"content": p} for p in _pieces(text))
        for call in calls:
            arguments = call["function"]["arguments"]
            begun = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
            deltas.append({"tool_calls": [begun]})
            for piece in _pieces(arguments, 5):
                more = {"index": call["index"], "function": {"arguments": piece}}
                deltas.append({"tool_calls": [more]})
        head = {"id": "up", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        events = [
            {**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas
        ]
        events[-1]["choices"][0]["finish_reason"] = _reason(calls)
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return _sse([*events, {**head, "choices": [], "usage": usage}], False, True)


def _reason(calls: object) -> str:
    return "tool_calls" if calls else "stop"


class _Blocks:
    def __init__(self, form: str, name: str) -> None:
        self.name = name

    def read(self, body: dict[str, Any]) -> tuple[list[tuple[Any, ...]], int]:
        seen: list[tuple[Any, ...]] = []
        results = 0
        for message in body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for block in blocks:
                match block["type"]:
                    case "text" if message["role"] == "user":
                        seen.append(("user", block["text"]))
                    case "text":
                        seen.append(("say", block["text"]))
                    case "thinking":
                        thought = block["thinking"]
                        if block.get("signature") != sign(thought):
                            thought = f"unsigned: {thought}"
                        seen.append(("think", thought))
                    case "tool_use":
                        seen.append(("call", block["name"], block["input"]))
                    case "tool_result":
                        results += 1
        return seen, results

    def _content(self, turn: Turn) -> list[dict[str, Any]]:
        ids = iter(_ids(turn, self.name))
        out: list[dict[str, Any]] = []
        for part in turn:
            match part[0]:
                case "think":
                    out.append(
                        {"type": "thinking", "thinking": part[1], "signature": sign(part[1])}
                    )
                case "say":
                    out.append({"type": "text", "text": part[1]})
                case _:
                    call = {"type": "tool_use", "id": next(ids), "name": part[1], "input": part[2]}
                    out.append(call)
        return out

    def whole(self, turn: Turn) -> dict[str, Any]:
        return {
            "id": "up",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": self._content(turn),
            "stop_reason": "tool_use" if _calls(turn) else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }

    def streamed(self, turn: Turn) -> str:
        whole = self.whole(turn)
        begun = {**whole, "content": [], "stop_reason": None}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
        for n, block in enumerate(whole["content"]):
            deltas: list[dict[str, Any]]
            match block["type"]:
                case "thinking":
                    empty = {"type": "thinking", "thinking": "", "signature": ""}
                    stated = _pieces(block["thinking"])
                    deltas = [{"type": "thinking_delta", "thinking": p} for p in stated]
                    deltas.append({"type": "signature_delta", "signature": block["signature"]})
                case "text":
                    empty = {"type": "text", "text": ""}
                    deltas = [{"type": "text_delta", "text": p} for p in _pieces(block["text"])]
                case _:
                    empty = {**block, "input": {}}
                    stated = _pieces(json.dumps(block["input"], ensure_ascii=False), 5)
                    deltas = [{"type": "input_json_delta", "partial_json": p} for p in stated]
            events.append({"type": "content_block_start", "index": n, "content_block": empty})
            events += ({"type": "content_block_delta", "index": n, "delta": d} for d in deltas)
            events.append({"type": "content_block_stop", "index": n})
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": end, "usage": whole["usage"]})
        events.append({"type": "message_stop"})
        return _sse(events, True, False)


class _Items:
    def __init__(self, form: str, name: str) -> None:
        self.name = name

    def read(self, body: dict[str, Any]) -> tuple[list[tuple[Any, ...]], int]:
        seen: list[tuple[Any, ...]] = []
        results = 0
        items = body["input"]
        if isinstance(items, str):
            items = [{"role": "user", "content": items}]
        for item in items:
            match item.get("type", "message"):
                case "message" if item["role"] == "assistant":
                    seen.append(("say", _texts(item["content"])))
                case "message" if item["role"] == "user":
                    seen.append(("user", _texts(item["content"])))
                case "reasoning":
                    seen.append(("think", _texts(item.get("content"))))
                case "function_call":
                    seen.append(("call", item["name"], json.loads(item["arguments"])))
                case "function_call_output":
                    results += 1
        return seen, results

    def whole(self, turn: Turn) -> dict[str, Any]:
        ids = iter(_ids(turn, self.name))
        output: list[dict[str, Any]] = []
        for n, part in enumerate(turn):
            match part[0]:
                case "think":
                    content = [{"type": "reasoning_text", "text": part[1]}]
                    item = {"type": "reasoning", "id": f"rs_{n}", "summary": [], "content": content}
                case "say":
                    text = {"type": "output_text", "text": part[1], "annotations": []}
                    item = {
                        "type": "message",
                        "id": f"msg_{n}",
                        "role": "assistant",
                        "status": "completed",
                        "content": [text],
                    }
                case _:
                    item = {
                        "type": "function_call",
                        "id": f"fc_{n}",
                        "call_id": next(ids),
                        "name": part[1],
                        "status": "completed",
                        "arguments": json.dumps(part[2], ensure_ascii=False),
                    }
            output.append(item)
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        return {
            "id": "up",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "status": "completed",
            "output": output,
            "usage": usage,
            "store": False,
        }

    def streamed(self, turn: Turn) -> str:
        whole = self.whole(turn)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
        for n, item in enumerate(whole["output"]):
            at = {"output_index": n, "item_id": item["id"]}
            match item["type"]:
                case "reasoning":
                    empty = {**item, "content": []}
                    kind, stated = (
                        "response.reasoning_text.delta",
                        _pieces(item["content"][0]["text"]),
                    )
                    at["content_index"] = 0
                case "message":
                    empty = {**item, "content": [], "status": "in_progress"}
                    kind, stated = "response.output_text.delta", _pieces(item["content"][0]["text"])
                    at["content_index"] = 0
                case _:
                    empty = {**item, "arguments": "", "status": "in_progress"}
                    kind, stated = (
                        "response.function_call_arguments.delta",
                        _pieces(item["arguments"], 5),
                    )
            events.append({"type": "response.output_item.added", "output_index": n, "item": empty})
            events += ({"type": kind, **at, "delta": p} for p in stated)
            events.append({"type": "response.output_item.done", "output_index": n, "item": item})
        events.append({"type": "response.completed", "response": whole})
        return _sse([{**e, "sequence_number": n} for n, e in enumerate(events)], True, False)
