"""What is played with each agent, and when it has passed.

The only place that knows the scenarios.  Every one checks as well that the model's reasoning came
back byte for byte in each later turn that answers the same prompt, that no request was left open in the gateway, and that the
agent ended by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from scripted import MARK, Play, Turn
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
    how: str = "connect"  # "run": by `headgate run`; "variables": those of README's table only
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


def _later(agent: Agent) -> Play:
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


# -- Judging ---------------------------------------------------------------------------------------


def _all_turns(play: Play, ran: Ran) -> str:
    return "" if len(play.seen) >= len(play.turns) else f"only {len(play.seen)} requests came"


def _waited(play: Play, ran: Ran) -> str:
    if len(play.seen) < 2:
        return "it did not ask again"
    gap = play.seen[1][0] - play.seen[0][0]
    # Gemini CLI and litellm have waits of their own; too early is what must not be.
    return "" if gap > WAIT_S - 0.1 else f"it asked again after {gap:.1f} s, not {WAIT_S} s"


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
    Scene("a second prompt", _later, files=2, rounds=2),
    Scene("429, `Retry-After`", _limited, _waited),
    Scene("cut mid-stream", _cut, may_end=True),
    Scene("compaction", _compaction, _summed_up, files=1),
)
PROMPT = f"{MARK}: do what the tool calls ask."
SECOND = f"{MARK}, go on: and now the rest."
