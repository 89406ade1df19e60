"""What is played with each agent, and when it has passed.

The only place that knows the scenarios.  Every one checks as well that the model's reasoning came
back byte for byte in each later turn that answers the same prompt, that no request was left open in the gateway, and that the
agent ended by itself.
"""

import base64
import json
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mcp_server import FOUND
from scripted import MARK, SUB, SUB_ANSWER, Play, Turn, Use
from troupe import Agent

DONE = "All is done: Zürich is sunny 👋."
# Line breaks, quotes, blanks at the ends and signs of several bytes: what is easily lost.
THOUGHTS = (
    'First I look.\n\n  "Then" I — 我想 — write 👩‍💻 `it` \\n <b>&amp;</b>\tnow',
    'Second thought:\n- it\'s “there”\n- {"a": [1, 2.50]}\n',
)
FILES = (
    ("one.txt", 'It\'s "one",\n\tZürich 👋 \\ $HOME `x` %s\n'),
    ("two.txt", "zwei – 二\n"),
)
WAIT_S = 2
FULL = 190_000  # tokens, of a window of 204 800
# Characters of a text that the model generates first.  A token has at least one byte, so a request needs this many
# for the gateway to believe that it has FULL tokens (edge/billing.py); agents send about 40 kB of their own.
LONG = 300_000


@dataclass
class Ran:
    """Holds how the agent ended."""

    code: int | None  # None: it had to be ended
    out: str
    err: str


@dataclass(frozen=True)
class Scene:
    name: str
    make: Callable[[Agent], Play | None]  # None: this agent cannot be asked for it
    passed: Callable[[Play, Ran], str] = lambda play, ran: ""  # what is wrong beyond the usual
    files: int = 0  # how many of FILES must be there afterwards
    model: str = "MiniMax-M2"
    # "run": by `headgate run`; "variables": those of README's table only; "url": as its vendor's own
    how: str = "connect"
    # What lies where it works, and more arguments.
    prepare: Callable[[Agent, Path], tuple[str, ...]] = lambda agent, work: ()
    # What the agent itself is run with before, once it is connected; (): nothing.
    before: Callable[[Agent], tuple[str, ...]] = lambda agent: ()
    may_end: bool = False  # the agent may give up, if it says so
    rounds: int = 1  # how often the user says something, in one conversation


def _block(name: str, content: str) -> str:
    """A new file as aider's models write it."""
    return f"{name}\n```\n<<<<<<< SEARCH\n=======\n{content}>>>>>>> REPLACE\n```\n"


def _writes(agent: Agent, thought: str, *files: tuple[str, str], text: str = "") -> Turn:
    if agent.tools:
        return Turn(text, thought, files)
    return Turn(f"{text}\n\n" + "\n".join(_block(*file) for file in files) + f"\n{DONE}\n", thought)


def _play(agent: Agent, *turns: Turn, **fields: object) -> Play:
    if not agent.tools:  # what it has done it does not tell the model
        turns = tuple(t for t in turns if "SEARCH" in t.text) or turns
    return Play(turns, tools=agent.tools, **fields)  # type: ignore[arg-type]


def _text(agent: Agent) -> Play:
    return _play(agent, Turn(DONE))


def _tool(agent: Agent) -> Play:
    return _play(agent, _writes(agent, "", FILES[0]), Turn(DONE))


def _parallel(agent: Agent) -> Play:
    return _play(agent, _writes(agent, "", *FILES, text="Two at once."), Turn(DONE))


def _thinking(agent: Agent) -> Play | None:
    if not agent.tools:  # a run is one turn, and nothing comes back
        return None
    turns = (_writes(agent, t, file) for t, file in zip(THOUGHTS, FILES, strict=True))
    return _play(agent, *turns, Turn(DONE, "And out."))


def _limited(agent: Agent) -> Play:
    return _play(agent, Turn(DONE), first=Turn(status=429, retry_after_s=WAIT_S))


def _cut(agent: Agent) -> Play:
    return _play(agent, Turn(DONE), first=Turn("This is never output to the end.", cut=True))


def _later(agent: Agent) -> Play | None:
    if not (agent.resume or agent.talk):
        return None
    writes = [_writes(agent, t, file) for t, file in zip(THOUGHTS, FILES, strict=True)]
    return _play(agent, writes[0], Turn(DONE, "And out."), writes[1], Turn(DONE))


def _compaction(agent: Agent) -> Play | None:
    if not agent.compacts:
        return None
    # Numbers that never come again: an agent takes what repeats for a loop.
    numbers = range(1, (agent.compact_characters or LONG) // 9)
    long = " ".join(f"{n * 2654435761 % 2**32:08x}" for n in numbers)
    if agent.compact_characters:  # it counts itself
        turns = (_writes(agent, THOUGHTS[0], FILES[0], text=long), Turn(DONE))
    elif agent.compact_line:  # as its own setting says
        turns = (_writes(agent, THOUGHTS[0], FILES[0]), Turn(DONE))
    else:  # by the usage of a request that is as long as the usage says
        full = replace(_writes(agent, THOUGHTS[1], FILES[1]), input_tokens=FULL)
        turns = (_writes(agent, THOUGHTS[0], FILES[0], text=long), full, Turn(DONE))
    return Play(turns, tools=agent.tools, compacts=True)


# -- A server, a picture, a PDF, a sub-agent --------------------------------------------------------

SERVER = Path(__file__).parent / "mcp_server.py"
# Kimi Code has a tool of its own for pictures; OpenHands' and Copilot's editors show them too.
_READERS = (
    *("ReadMediaFile", "Read", "view_image", "read_file", "read", "read_files", "view"),
    "file_editor",
)


def _mcp(agent: Agent) -> Play | None:
    if not (agent.mcp_line or agent.mcp_file[0] or agent.mcp_add):
        return None
    # An agent may hide a server's tools until its own search has found them, or until its own code calls them.
    name = agent.mcp_tool
    bird = ("bird", "heron")
    more = (
        ("query", f"select:{name}"),
        ("code", f"return await tools.{name}({{bird: 'heron'}})"),
        ("security_risk", "LOW"),
    )
    search = Use(("lookup", "ToolSearch", "tool_search", "codemode"), (bird, *more))
    called = Use(("tool_call",), (("name", name), ("arguments", dict((bird,)))))  # Qwen Code's way
    look = Use(("lookup", "codemode"), (bird, *more[1:]), hidden=name)
    if agent.name == "qwen-code":
        look = called
    turns = (
        Turn("I look for it.", uses=(search,)),
        Turn("I look it up.", uses=(look,)),
        Turn(DONE),
    )
    return _play(agent, *turns, expects=(FOUND,))


def server_line(line: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments with the server's program in their places."""
    parts = (part.replace("<python>", sys.executable) for part in line)
    return tuple(part.replace("<server>", str(SERVER)) for part in parts)


def _with_server(agent: Agent, work: Path) -> tuple[str, ...]:
    """Declare the server in the agent's own way."""
    name, key = agent.mcp_file
    server: dict[str, object] = {"command": sys.executable, "args": [str(SERVER)]}
    if name:
        if key == "mcp":  # opencode's words
            server = {"type": "local", "command": [sys.executable, str(SERVER)], "enabled": True}
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({key: {"probe": server}}))
        if name.endswith(".yaml"):
            head = "name: Mine\nversion: 1.0.0\nschema: v1\n"
            path.write_text(f"{head}{key}:\n  - {json.dumps({'name': 'probe', **server})}\n")
        return ()
    config = work.parent / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"probe": server}}))
    return tuple(part.replace("<config>", str(config)) for part in server_line(agent.mcp_line))


def _reading(name: str) -> Callable[[Agent], Play | None]:
    def make(agent: Agent) -> Play | None:
        if name.rpartition(".")[2] not in agent.reads:
            return None
        path = f"<dir>/{name}"
        names = ("file_path", "absolute_path", "path", "filePath", "filepath")
        more = (("files", [{"path": path}]), ("command", "view"), ("security_risk", "LOW"))
        use = Use(_READERS, (*((n, path) for n in names), *more))
        return _play(agent, Turn("I read it.", uses=(use,)), Turn(DONE))

    return make


def _with_media(agent: Agent, work: Path) -> tuple[str, ...]:
    (work / "red.png").write_bytes(_png())
    (work / "page.pdf").write_bytes(_pdf())
    return ()


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = (b"\0" + b"\xff\0\0" * 64) * 64
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _pdf() -> bytes:
    """Return one page with two words."""
    content = b"BT /F1 24 Tf 72 720 Td (Two words) Tj ET"
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    out, places = b"%PDF-1.4\n", []
    for n, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (n, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%btrailer\n<< /Size 6 /Root 1 0 R >>\n" % table
    return out + end + b"startxref\n%d\n%%%%EOF\n" % len(out)


def _nothing_seen(play: Play, ran: "Ran") -> str:
    """The model of these scenes reads text only: what it must get is a note, never the picture."""
    picture = base64.b64encode(_png()).decode()[:40]
    sent = [json.dumps(body["messages"]) for _, body in play.seen]
    if any("image_url" in text or picture in text for text in sent):
        return "a picture reached a model that reads text only"
    return _all_turns(play, ran)


def _delegating(agent: Agent) -> Play | None:
    if not agent.sub_agent:
        return None
    errand = f"{SUB}: say what you see."
    asked = (
        ("description", "A sub-errand"),
        *((name, errand) for name in ("prompt", "task")),
        *((name, agent.sub_agent) for name in ("subagent_type", "agent_type", "subagent_name")),
        ("systemPrompt", "You look."),
        *(("name", "looker"), ("mode", "sync"), ("await", True), ("security_risk", "LOW")),
    )
    use = Use(("spawn_agent", "Subagent", "Task", "Agent", "task", "agent"), asked)
    return _play(agent, Turn("I delegate.", uses=(use,)), Turn(DONE), expects=(SUB_ANSWER,))


# -- Judging ---------------------------------------------------------------------------------------


def _all_turns(play: Play, ran: Ran) -> str:
    return "" if len(play.seen) >= len(play.turns) else f"only {len(play.seen)} requests came"


def _waited(play: Play, ran: Ran) -> str:
    if len(play.seen) < 2:
        return "it did not ask again"
    gap = play.seen[1][0] - play.seen[0][0]
    # Gemini CLI and litellm have waits of their own; too early is what must not be.
    return "" if gap > WAIT_S - 0.1 else f"it asked again after {gap:.1f} s, not {WAIT_S} s"


def _held(play: Play, ran: Ran) -> str:
    held = json.dumps(play.seen[-1][1]["messages"]) if play.seen else ""
    return "".join(f"the model was not shown {text!r}" for text in play.expects if text not in held)


def _summed_up(play: Play, ran: Ran) -> str:
    return "" if play.summaries else "it did not sum up"


_SORRY = ("error", "fail", "interrupt", "disconnect", "broke", "closed", "incomplete", "terminated")


def verdict(scene: Scene, play: Play, ran: Ran, directory: Path, open_streams: float) -> str:
    """Return "" when it passed, "(...)" when it passed in a way to be named, else what is wrong."""
    if ran.code is None:
        return "it did not end"
    if play.faults:
        return play.faults[0]
    if open_streams:
        return f"{open_streams:.0f} streams were left open"
    if scene.may_end and (DONE not in ran.out or ran.code):
        output = f"{ran.out}\n{ran.err}".lower()
        return "(says so)" if any(w in output for w in _SORRY) else "it ended without a word"
    if ran.code:
        return f"exit code {ran.code}"
    if DONE not in ran.out:
        return "the last text was not printed"
    for name, content in FILES[: scene.files]:
        path = directory / name
        if not path.exists():
            return f"{name} was not written"
        if path.read_bytes() != content.encode():
            return f"{name} holds {path.read_bytes()[:60]!r}"
    if wrong := _all_turns(play, ran) or scene.passed(play, ran):
        return wrong
    if play.lost:
        return f"(without the thoughts of turn {', '.join(map(str, sorted(play.lost)))})"
    return "(asks again)" if scene.may_end else ""


SCENES = (
    Scene("text", _text),
    Scene("text, `headgate run`", lambda agent: _text(agent) if agent.runs else None, how="run"),
    Scene("text, README's variables", _text, how="variables"),
    Scene("a tool writes a file", _tool, files=1),
    Scene("parallel calls", _parallel, files=2),
    Scene("thinking with tools", _thinking, files=2),
    Scene("the same, Anthropic path", _thinking, files=2, model="MiniMax-M2.1"),
    Scene(
        "the same, by a vendor's model name",
        lambda agent: _thinking(agent) if agent.vendors else None,
        prepare=lambda agent, work: agent.vendors,
        files=2,
    ),
    Scene("a second prompt", _later, files=2, rounds=2),
    Scene("429, `Retry-After`", _limited, _waited),
    Scene("cut mid-stream", _cut, may_end=True),
    Scene("compaction", _compaction, _summed_up, files=1),
    Scene(
        "an MCP server",
        _mcp,
        _held,
        prepare=_with_server,
        before=lambda agent: server_line(agent.mcp_add),
    ),
    Scene("a picture is read", _reading("red.png"), _nothing_seen, prepare=_with_media),
    Scene("a PDF is read", _reading("page.pdf"), _nothing_seen, prepare=_with_media),
    Scene("a sub-agent", _delegating, _held),
    Scene("by base URL alone", lambda agent: _text(agent) if agent.by_url else None, how="url"),
)
PROMPT = f"{MARK}: do what the tool calls ask."
SECOND = f"{MARK}, go on: and now the rest."
