"""This is a scripted upstream for the agents, with the shapes of MiniMax's replies.

It decides what an agent is answered.  `tests/support/fake_upstream.py` gives the shapes;
here a `Play` chooses the turns.  Note: agents ask for more than their user does (a
title, a summary, a warm-up), so only a request that carries MARK is taken for the conversation, and
its turn is counted from the calls of ours that it holds, not from how many came before: an agent
may ask for the same turn twice.
"""

import asyncio
import itertools
import json
import re
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

import fake_upstream
from fake_upstream import FakeUpstream, Json, Seen

MARK = "Errand 7f3a"  # in every prompt, so that the conversation differs from an agent's own talk
SUMMARY = "Errand 7f3a in short: the user wanted a file, and it was written (blue heron)."
SUB = "Sub-errand 9c"  # in the prompt of a sub-agent
SUB_ANSWER = "The sub-errand is done: a green heron."
_SUMMARISES = re.compile(r"summar|compact|handoff|snapshot|condense", re.I)


@dataclass(frozen=True)
class Use:
    """A call of a tool that the agent offers, under the first of these names that is there.

    Of the arguments those are sent that the tool's schema has; `<dir>` stands for where the agent works.
    """

    names: tuple[str, ...]
    arguments: tuple[tuple[str, object], ...]
    hidden: str = (
        ""  # the name to call where none is offered: of a tool that the agent has shown in words
    )


@dataclass(frozen=True)
class Turn:
    """One reply of the model, or what comes instead of one."""

    text: str = ""
    thought: str = ""
    files: tuple[tuple[str, str], ...] = ()  # (name, content): each becomes a call
    uses: tuple[Use, ...] = ()  # as does each of these
    status: int = 200
    retry_after_s: int = 0  # with a status that is not 200
    cut: bool = False  # the connection, after the first piece of the text
    input_tokens: int = 0  # what the usage says; 0: the usual


@dataclass
class Play:
    """The turns of one scenario, and what came of them."""

    turns: tuple[Turn, ...]
    first: Turn | None = None  # instead of the first answer; the agent may then ask again
    tools: bool = True  # the agent has tools; what comes without them is its own talk
    compacts: bool = False  # the agent is to sum up and go on
    expects: tuple[str, ...] = ()  # what the conversation must hold in the end
    directory: str = "."  # where it works
    seen: list[tuple[float, Json]] = field(default_factory=list)  # the conversation as it came
    side: int = 0  # requests of the agent's own
    summaries: int = 0
    lost: set[int] = field(default_factory=set)  # turns before the last prompt, without reasoning
    faults: list[str] = field(default_factory=list)

    def turn(self, body: Json) -> Turn:
        """What to answer."""
        if self.compacts and _asks_for_summary(body):
            self.summaries += 1
            return Turn(f"<summary>\n{SUMMARY}\n</summary>")  # Claude Code wants the marks
        held = json.dumps(body["messages"])
        if MARK not in held or (self.tools and not body.get("tools")):
            self.side += 1
            if "complexity_score" in json.dumps(body):  # Gemini CLI's router wants an object
                return Turn('{"complexity_reasoning": "A small errand.", "complexity_score": 10}')
            return Turn(SUB_ANSWER if SUB in held and MARK not in held else "A greeting")
        self.seen.append((time.monotonic(), body))
        if self.first is not None and len(self.seen) == 1:
            return self.first
        if self.compacts and SUMMARY in json.dumps(body["messages"], ensure_ascii=False):
            return self.turns[-1]
        thoughts: list[str] = []
        before = 0  # turns that answered an earlier prompt
        for message in body["messages"]:
            if message.get("role") == "user" and MARK in text_of(message):
                before = len(thoughts)
            elif message.get("role") == "assistant" and self._ours(message):
                thoughts.append(thought_of(message))
        for n, (saw, turn) in enumerate(zip(thoughts, self.turns, strict=False)):
            if turn.thought and not saw and n < before:
                self.lost.add(n + 1)
            elif saw != turn.thought:
                self.faults.append(f"turn {len(thoughts) + 1} saw turn {n + 1} think {saw[:40]!r}")
        return self.turns[min(len(thoughts), len(self.turns) - 1)]

    def _ours(self, message: Json) -> bool:
        """Whether it is one of our turns: by its calls or its text."""
        if "call_function_" in json.dumps(message):
            return True
        content = text_of(message)
        return any(t.text and t.text.strip() in content for t in self.turns)


def text_of(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(b.get("text", "")) for b in content if b.get("type") == "text")
    return str(content or "").rpartition("</think>")[2]


def thought_of(message: Json) -> str:
    """The reasoning that an assistant's message carries, in whichever of MiniMax's forms."""
    if details := message.get("reasoning_details"):
        return "".join(d.get("text", "") for d in details)
    if content := message.get("reasoning_content"):
        return str(content)
    content = message.get("content")
    if isinstance(content, list):
        return "".join(b["thinking"] for b in content if b.get("type") == "thinking")
    found = re.match(r"<think>\n?(.*?)\n?</think>", content or "", re.S)
    return found[1] if found else ""


def _asks_for_summary(body: Json) -> bool:
    """By the first words or the last: agents that compact end the history with an order to sum up.

    opencode and aider give the history as the user's text, and the order as the system's.
    """
    ordered = text_of(body["messages"][0])
    if (
        "summariz" in ordered[:200].lower() or "Only output the structured summary" in ordered
    ):  # Kilo Code's
        return True
    for message in reversed(body["messages"]):
        if message.get("role") == "tool":
            return False
        if message.get("role") != "user":
            continue
        blocks = message.get("content")
        for block in reversed(blocks if isinstance(blocks, list) else [{"text": blocks}]):
            content = str(block.get("text") or "")
            if content and not content.startswith(
                "<system-reminder>"
            ):  # Claude Code's, after the prompt
                return bool(_SUMMARISES.search(content)) and MARK not in content
    return False


# -- Calls -----------------------------------------------------------------------------------------

_WRITERS = (
    "Write",
    "write_file",
    "write",
    "WriteFile",
    "create",
    "Create",
    "editor",
    "file_editor",
    "Bash",
    "exec_command",
    "shell",
    "bash",
)
_PATH = ("file_path", "filePath", "filepath", "path")
_CONTENT, _COMMAND = ("content", "file_text", "new_text"), ("command", "cmd")


def write_call(tools: list[Json], directory: str, name: str, content: str) -> tuple[str, str]:
    """(tool, arguments) that make the agent write the file, by whichever tool it offers."""
    offered = {}
    for tool in tools:
        tool = tool.get("function", tool)
        offered[tool["name"]] = tool.get("parameters") or tool.get("input_schema") or {}
    for writer in _WRITERS:
        if writer in offered:
            break
    else:
        raise LookupError(f"none of the tools writes: {sorted(offered)}")
    path = str(Path(directory) / name)
    arguments: Json = {}
    for field_, kind in offered[writer].get("properties", {}).items():
        if choices := kind.get("enum"):
            if field_ in offered[writer].get("required", ()):
                arguments[field_] = "create" if "create" in choices else choices[0]
        elif field_ in _PATH:
            arguments[field_] = path
        elif field_ in _CONTENT:
            arguments[field_] = content
        elif field_ in _COMMAND:
            arguments[field_] = f"printf %s {shlex.quote(content)} > {shlex.quote(path)}"
        elif field_ in offered[writer].get("required", ()):
            arguments[field_] = "write a file"
    return writer, json.dumps(arguments, ensure_ascii=False)


def use_call(tools: list[Json], directory: str, use: Use) -> tuple[str, str]:
    """(tool, arguments) of the call; a tool of a server has the server's name in front."""
    offered = {}
    for tool in tools:
        tool = tool.get("function", tool)
        offered[tool["name"]] = tool.get("parameters") or tool.get("input_schema") or {}
    for name in use.names:
        for known, schema in offered.items():
            if known == name or known.endswith((f"__{name}", f"_{name}", f"-{name}")):
                fields = schema.get("properties", {})
                given = {n: v for n, v in use.arguments if n in fields}
                given = json.loads(json.dumps(given).replace("<dir>", directory))
                for field_ in schema.get("required", ()):
                    given.setdefault(field_, "as asked")
                return known, json.dumps(given, ensure_ascii=False)
    if use.hidden:
        return use.hidden, json.dumps(dict(use.arguments), ensure_ascii=False)
    raise LookupError(f"none of {use.names} is offered: {sorted(offered)}")


# -- The server ------------------------------------------------------------------------------------


_REPLIES = itertools.count(1)  # of all scenes, so that no id of a call comes twice


class _Scripted(fake_upstream._Form):
    """Puts a turn of ours into either of the shapes."""

    turn: Turn
    directory: str

    def scene(self, scenario: str) -> tuple[str, str, int]:
        return self.turn.thought, self.turn.text, len(self.turn.files) + len(self.turn.uses)

    def calls(self, count: int) -> list[tuple[str, str, str]]:
        tools = self.body.get("tools") or []
        found = [write_call(tools, self.directory, *file) for file in self.turn.files]
        found += [use_call(tools, self.directory, use) for use in self.turn.uses]
        drawn = fake_upstream.drawn(next(_REPLIES))
        return [(f"call_function_{drawn}_{i + 1}", *c) for i, c in enumerate(found)]


class _Chat(_Scripted, fake_upstream._OpenAI):
    def envelope(self, kind: str, choices: list[Json] | None, usage: Json | None) -> Json:
        if usage and (tokens := self.turn.input_tokens):
            usage = {**usage, "prompt_tokens": tokens, "total_tokens": tokens + 35}
        return super().envelope(kind, choices, usage)


class _Messages(_Scripted, fake_upstream._Anthropic):
    pass


class ScriptedUpstream(FakeUpstream):
    """`play` may be changed between two runs of an agent."""

    def __init__(self) -> None:
        super().__init__()
        self.play = Play(())

    def connection(self) -> "_Connection":
        return _Connection(self)


class _Connection(fake_upstream._Connection):
    upstream: ScriptedUpstream

    async def _answer(self, seen: Seen) -> None:
        kind: Any = {  # Any: a class that is made of two
            "/v1/chat/completions": _Chat,
            "/anthropic/v1/messages": _Messages,
        }.get(seen.path.partition("?")[0])
        play = self.upstream.play
        if kind is None or seen.body is None:
            play.faults.append(f"{seen.method} {seen.path} reached the upstream")
            self._page(404, fake_upstream._error(404))
            return
        turn = play.turn(seen.body)
        if turn.status != 200:
            page = json.dumps(fake_upstream._error(turn.status)).encode()
            fields = (f"content-length: {len(page)}", "content-type: application/json")
            wait = f"retry-after: {turn.retry_after_s}"
            self.transport.write(fake_upstream._head(turn.status, *fields, wait) + page)
            return
        form = kind(seen.body, self.upstream)
        form.turn, form.directory = turn, play.directory
        scenario = "break mid stream" if turn.cut else "say"
        try:
            if seen.body.get("stream") is True:
                await self._stream(form, scenario)
            else:
                self._page(200, form.whole(scenario))
        except LookupError as error:
            play.faults.append(str(error))
            await asyncio.sleep(0)
            self.transport.close()
