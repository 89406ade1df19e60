"""This module makes thinking plain that comes in odd ways: tags inside text, and snapshots instead of pieces.

Sources: MiniMax-M2 README and chat template (2025-10), vLLM issues 42129 and 46042, MiniMax-M2#95,
can1357/oh-my-pi#2434 (read 2026-11).  Note: only a block at the very start of a reply
is thinking; `<think>` later on is the answer talking about tags.  Exactly one newline is taken off
each end of the block, and put back by `tagged`, so that a replayed turn is the same to the byte.
"""

import re
from typing import Literal

OPEN = ("<think>", "<mm:think>", "<thinking>")
CLOSE = ("</think>", "</mm:think>", "</thinking>")
MAX_BLANK = 256  # characters before a tag; a model in a loop writes blanks without end


def tagged(thinking: str) -> str:
    """Thinking as the open weights write it; the text of the answer follows directly."""
    return f"<think>\n{thinking}\n</think>\n\n"


def _held(text: str, tags: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a tag."""
    at = text.rfind("<", max(0, len(text) - 10))
    if at >= 0 and any(tag.startswith(text[at:]) for tag in tags):
        return len(text) - at
    return 0


_TICKS_OR_TAG = re.compile(r"(`+)|<(/?)(?:mm:think|think|thinking)>")


class _LoneTags:
    """Drops a closing tag that nothing opened and that is a line of its own, outside of code.

    Such a tag is the end of thinking whose beginning the upstream did not mark. A closing tag inside
    of a line, behind its opening tag, or in code is an answer that talks about tags.
    """

    __slots__ = ("_begun", "_ended", "_fenced", "_held", "_opened", "_ticks")

    def __init__(self) -> None:
        self._held = ""  # what may become a closing tag on a line of its own
        self._begun = ""  # the end of what was passed on, which may become an opening tag
        self._opened = False  # there was an opening tag: the answer talks about tags
        self._fenced = False  # inside of a code fence
        self._ticks = 0  # back-ticks at the end of what was passed on
        self._ended = True  # what was passed on ends a line

    def passes(self, piece: str) -> bool:
        """Whether a piece is text as it is; one that passes needs no `feed`."""
        if self._held or self._begun or "<" in piece or "`" in piece:
            return False
        if piece:
            self._ended, self._ticks = piece[-1] == "\n", 0
        return True

    def feed(self, piece: str) -> str:
        if self.passes(piece):
            return piece
        if self._begun:
            joined = self._begun + piece
            self._opened = self._opened or joined.startswith(OPEN)
            self._begun = joined if any(tag.startswith(joined) for tag in OPEN) else ""
        text, self._held = self._held + piece, ""
        out: list[str] = []
        done, cut = 0, len(text)
        for mark in _TICKS_OR_TAG.finditer(text):
            start, end = mark.span()
            if mark[1]:
                before = self._ticks if not start else 0
                self._fenced ^= before < 3 <= before + len(mark[1])
                self._ticks = before + len(mark[1])
            elif not mark[2]:
                self._opened = True
            elif not self._opened and self._line_begins(text, start):
                if end == len(text):
                    cut = start  # what follows decides
                elif text[end] == "\n":
                    out.append(text[done:start])
                    done = end
        begun = _held(text, (*OPEN, *CLOSE))
        at = len(text) - begun
        if begun and cut == len(text):
            if not self._opened and self._line_begins(text, at):
                cut = at
            elif begun > 1 and text[at + 1] == "/":
                pass  # a closing tag that stays, whatever it becomes
            else:
                self._begun = text[at:]
        out.append(text[done:cut])
        self._held = text[cut:]
        if cut:
            self._ended = text[cut - 1] == "\n"
            self._ticks = self._ticks if text[cut - 1] == "`" else 0
        return "".join(out)

    def close(self) -> str:
        rest, self._held = self._held, ""
        return rest

    def _line_begins(self, text: str, at: int) -> bool:
        """Whether a line outside of code begins at `at`."""
        return not self._fenced and (text[at - 1] == "\n" if at else self._ended)


class ClosingTags:
    """Takes a closing tag off the end of thinking that comes in pieces, cut anywhere."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        if not self._held and "<" not in piece:
            return piece
        text = self._held + piece
        body = text.rstrip("\n")
        at = body.rfind("<", max(0, len(body) - 11))
        if at < 0 or not any(tag.startswith(body[at:]) for tag in CLOSE):
            self._held = ""
            return text
        if at and text[at - 1] == "\n":
            at -= 1
        if len(text) - at > MAX_BLANK:
            self._held = ""
            return text
        self._held = text[at:]
        return text[:at]

    def close(self) -> str:
        rest, self._held = self._held, ""
        return "" if rest.strip("\n") in CLOSE else rest


class TagSplitter:
    """Splits text into thinking and text; tags may be cut anywhere.

    `starts_inside` is for upstreams whose prompt already ends in `<think>`; with `lone`, closing tags
    without an opening one are dropped from the text.
    """

    done = False  # all that comes is text
    _state: Literal["before", "inside", "after"] = "before"
    _rest = ""
    _first = True  # inside: the newline after the tag may still come

    def __init__(self, starts_inside: bool = False, lone: bool = True) -> None:
        if starts_inside:
            self._state = "inside"
        self._lone = _LoneTags() if lone else None

    def plain(self, piece: str) -> bool:
        """Whether a piece is text as it is; one that is needs no `feed`."""
        return self.done and (self._lone is None or self._lone.passes(piece))

    def feed(self, piece: str) -> tuple[str, str]:
        if self.done:
            return "", piece if self._lone is None else self._lone.feed(piece)
        self._rest += piece
        thinking = ""
        if self._state == "before":
            self._before()
        if self._state == "inside":
            thinking = self._inside()
        if self._state == "after":
            # The blank line between the block and the answer belongs to neither.
            self._rest = self._rest.lstrip("\n")
            if self._rest:
                self.done = True
        if self.done:
            text, self._rest = self._rest, ""
            return thinking, text if self._lone is None else self._lone.feed(text)
        return thinking, ""

    def close(self) -> tuple[str, str]:
        """What was held back; a block that never closed is thinking to its end."""
        rest, self._rest = self._rest, ""
        if self.done:
            return "", "" if self._lone is None else self._lone.close()
        if self._state == "inside":
            return rest.removesuffix("\n"), ""
        return "", rest if self._state == "before" else ""

    def _before(self) -> None:
        start = self._rest.lstrip()
        if start and start[0] != "<":
            self.done = True
            return
        for tag in (*OPEN, *CLOSE):
            if start.startswith(tag):
                self._rest = start[len(tag) :]
                # A lone closing tag ends a block that the upstream kept for itself (vllm#46042).
                self._state = "inside" if tag in OPEN else "after"
                return
        blank = len(self._rest) - len(start)
        if blank > MAX_BLANK or (start and not any(t.startswith(start) for t in (*OPEN, *CLOSE))):
            self.done = True

    def _inside(self) -> str:
        if self._first and self._rest:
            self._rest = self._rest.removeprefix("\n")
            self._first = False
        found = [(at, tag) for tag in CLOSE if (at := self._rest.find(tag)) >= 0]
        if found:
            at, tag = min(found)
            thinking, self._rest = self._rest[:at], self._rest[at + len(tag) :]
            self._state = "after"
            return thinking.removesuffix("\n")
        keep = _held(self._rest, CLOSE)
        if self._rest[: len(self._rest) - keep].endswith("\n"):
            keep += 1
        cut = len(self._rest) - keep
        thinking, self._rest = self._rest[:cut], self._rest[cut:]
        return thinking


def untagged(text: str) -> tuple[str, str]:
    """A whole text's thinking and the rest of it, as clients replay both in one."""
    splitter = TagSplitter(lone=False)
    (thinking, stated), (late, rest) = splitter.feed(text), splitter.close()
    return thinking + late, stated + rest


class Steps:
    """Snapshots, pieces, or pieces with a last summary: pieces come out.

    Upstreams send `reasoning_details` in all three ways, and do not say which.  A piece that
    repeats all before it is a snapshot, unless so little came before that it may be chance
    (" a", " and"): then the pieces are held until it is clear.  A known weakness: a stream of just
    two short pieces, "a" and "and", reads as snapshots.
    """

    SURE = 8  # characters repeated by chance less than once in 10^8 tokens of prose

    def __init__(self) -> None:
        self._way: Literal["unclear", "pieces", "snapshots"] = "unclear"
        self._stated = ""  # as if snapshots while unclear; all of it otherwise, but for `_more`
        self._more: list[str] = []  # what pieces added: joined only when one is as long as all
        self._size = 0  # characters of both
        self._held: list[str] = []

    def feed(self, piece: str) -> str:
        if not piece:
            return ""
        if self._way == "pieces":
            if len(piece) >= self._size >= self.SURE:
                self._stated += "".join(self._more)
                self._more.clear()
                if piece.startswith(self._stated):
                    rest = piece[self._size :]  # the summary at the end
                    self._stated, self._size = piece, len(piece)
                    return rest
            self._more.append(piece)
            self._size += len(piece)
            return piece
        if self._way == "snapshots":
            if piece.startswith(self._stated):
                rest, self._stated = piece[len(self._stated) :], piece
                return rest
            if self._stated.startswith(piece):
                return ""  # an old snapshot, late
            self._way = "pieces"
            self._more.append(piece)
            self._size = len(self._stated) + len(piece)
            return piece
        if not self._held:
            self._held.append(piece)
            self._stated = piece  # both readings begin with the first piece
            return piece
        last = self._held[-1]
        self._held.append(piece)
        if piece.startswith(last) and (len(piece) > len(last) or len(last) >= self.SURE):
            if len(last) < self.SURE:
                return ""
            self._way = "snapshots"
            return self._settle(piece)
        self._way = "pieces"
        return self._settle("".join(self._held))

    def close(self) -> str:
        """What was still unclear at the end: taken for snapshots."""
        return self._settle(self._held[-1]) if self._way == "unclear" and self._held else ""

    def _settle(self, text: str) -> str:
        rest, self._stated = text[len(self._stated) :], text
        self._size = len(text)
        self._held.clear()
        return rest
