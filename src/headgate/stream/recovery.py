"""Tool calls that arrived as text made calls again, and arguments of the wrong type made right.

The only place that reads the models' own wire format of calls, and, by `arguments.py`, the only one
that changes the arguments of a call.  Two filters:

`CallRecovery` finds whole blocks of calls in the text of a reply.  M2 to M2.7 write

    <minimax:tool_call>
    <invoke name="f">
    <parameter name="k">v</parameter>
    </invoke>
    </minimax:tool_call>

(MiniMax-M2 tool calling guide; leaks: MiniMax-M2.5#10, pi#368).  M3 names its parameters by the tag
and puts one special token before every tag, which some servers lose (MiniMax-M3#31, mlx-lm#1416):

    ]<]minimax[>[<tool_call>
    ]<]minimax[>[<invoke name="f">]<]minimax[>[<k>v]<]minimax[>[</k>]<]minimax[>[</invoke>
    ]<]minimax[>[</tool_call>

with objects as tags in the value, and arrays as tags named `item`.  All read 2026-11.

`Coerce` mends arguments that the declared schema would refuse, where only one meaning is possible.

Note:
- nothing is escaped in this format.  A value ends at its closing tag only where what follows goes on
  as a call does, so that files which mention the tags can be written (vllm#44060).  A value that
  holds the whole end of a block is cut there: known, and no reader can tell;
- a block must be whole, in no code fence or code span, and its first call must name a declared
  tool.  Everything else is an answer that talks about the format, and stays text to the byte;
- text of nothing but white space beside a block is the format's own, and goes;
- an upstream that sends a call as text and once more as a call makes it twice.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from headgate.chat import Delta, Event, Failed, Finish, PartStart, PartStop, Tool
from headgate.stream.arguments import coerce
from headgate.stream.blocks import Blocks, Written

# --- a block --------------------------------------------------------------------------------------


def _harmless(text: str) -> bool:
    """Whether no opening of a block can be in a text, or begin at a "<" in it: a quick look."""
    return "<m" not in text and "<t" not in text and "<]" not in text and text[-1] != "<"


def is_plain(text: str) -> bool:
    """Whether a calm search for blocks need not see a piece of text."""
    return (
        ("<" not in text or _harmless(text))
        and "`" not in text
        and "~" not in text
        and text[-1:] != "]"
    )


# --- the filters ----------------------------------------------------------------------------------

_TEXT = PartStart("text")
_STOP = PartStop()


class CallRecovery:
    """Calls that the model wrote as text, made calls.

    `seed` makes their ids: unique for the reply, the same each run, and never those of a Framer.
    """

    def __init__(self, tools: Sequence[Tool], seed: str = "") -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._seed = seed
        self._blocks: Blocks | None = None  # of the open text part
        self._shown: Literal["no", "space", "yes"] = "no"  # of the text since the last block
        self._space = ""  # that came before anything else
        self._salvaged = 0
        self._here = 0  # of them in the open part

    @property
    def count(self) -> int:
        """How many calls were recovered so far."""
        return self._salvaged

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            blocks = self._blocks
            if type(event) is Delta:
                if blocks is None:
                    out.append(event)
                    continue
                text = event.text
                if self._shown == "yes" and blocks.calm and is_plain(text):
                    out.append(event)
                    continue
                self._notify(blocks.feed(text), out)
            elif blocks is not None:  # PartStop or Failed
                self._notify(blocks.close(), out)
                self._close(out)
                if type(event) is Failed:
                    if self._shown == "yes":
                        out.pop()  # the part stays open, as it was
                    out.append(event)
                self._blocks = None
            elif type(event) is PartStart and event.kind == "text" and self._tools:
                self._blocks = Blocks(self._tools)
                self._shown, self._space, self._here = "no", "", 0
            elif type(event) is Finish and self._salvaged and event.reason in _STOPPED:
                out.append(msgspec.structs.replace(event, reason="tool_calls", stop_sequence=""))
            else:
                out.append(event)
        return out

    def _notify(self, pieces: list[str | Written], out: list[Event]) -> None:
        for piece in pieces:
            if isinstance(piece, str):
                if self._shown != "yes":
                    piece = self._space + piece
                    if piece.isspace():
                        self._space = piece
                        continue
                    self._space, self._shown = "", "yes"
                    out.append(_TEXT)
                out.append(Delta(piece))
                continue
            if self._shown == "yes":
                out.append(_STOP)
            self._shown, self._space = "no", ""
            self._here += len(piece.calls)
            for call in piece.calls:
                self._salvaged += 1
                out += (
                    PartStart("tool_call", f"call_{self._seed}_x{self._salvaged}", call.name),
                    Delta(call.arguments),
                    _STOP,
                )

    def _close(self, out: list[Event]) -> None:
        """The end of a text part, which is emitted as it came when there was no block in it."""
        if self._shown != "yes" and not self._here:
            self._shown = "yes"
            out.append(_TEXT)
            if self._space:
                out.append(Delta(self._space))
        if self._shown == "yes":
            out.append(_STOP)


_STOPPED = ("stop", "stop_sequence")


class Coerce:
    """Arguments of finished calls as the declared schema wants them, where the meaning is clear.

    It waits for the end of a call, so its arguments no longer stream; those of undeclared tools do.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._tool: Tool | None = None  # of the open call
        self._pieces: list[str] = []
        self.count = 0  # calls whose arguments were changed

    def feed(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            tool = self._tool
            if tool is None:
                if type(event) is PartStart and event.kind == "tool_call":
                    self._tool = self._tools.get(event.name)
                out.append(event)
            elif type(event) is Delta:
                self._pieces.append(event.text)
            else:
                stated = "".join(self._pieces)
                self._tool, self._pieces = None, []
                if type(event) is PartStop:
                    mended = coerce(stated, tool)
                    self.count += mended != stated
                    stated = mended
                if stated:
                    out.append(Delta(stated))
                out.append(event)
        return out
