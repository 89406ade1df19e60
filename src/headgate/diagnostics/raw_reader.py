"""What reads a chat stream beside its decoder, to see in which form the thinking came."""

import itertools
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from headgate.dialects.capabilities import ReasoningForm
from headgate.stream import sse

Habit = Literal["", "incremental", "cumulative", "incremental, then all of it again"]


class _DetailIn(Struct):
    text: str | None = None


class _DeltaIn(Struct):
    content: str | None = None
    reasoning_details: list[_DetailIn] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _ChoiceIn(Struct):
    delta: _DeltaIn | None = None


class _ChunkIn(Struct):
    choices: list[_ChoiceIn] | None = None


_chunks = msgspec.json.Decoder(_ChunkIn)


class RawReader:
    """Reads a chat stream beside its decoder, which would make all habits of thinking the same."""

    def __init__(self) -> None:
        self._reader = sse.EventReader()
        self._pieces: dict[ReasoningForm, list[str]] = {}
        self._text = ""

    def feed(self, data: bytes) -> None:
        for payload in self._reader.feed(data):
            try:
                chunk = _chunks.decode(payload)
            except (ValueError, msgspec.MsgspecError):
                continue  # [DONE], or what the decoder will complain of
            for choice in chunk.choices or ():
                if choice.delta is not None:
                    self._delta(choice.delta)

    def _delta(self, delta: _DeltaIn) -> None:
        details = "".join(d.text or "" for d in delta.reasoning_details or ())
        named: tuple[tuple[ReasoningForm, str | None], ...] = (
            ("details", details),
            ("reasoning_content", delta.reasoning_content),
            ("reasoning", delta.reasoning),
        )
        for form, text in named:
            if text:
                self._pieces.setdefault(form, []).append(text)
        if delta.content and len(self._text) < 64:
            self._text += delta.content

    def channels(self) -> tuple[ReasoningForm, ...]:
        tags = self._text.lstrip().startswith(("<think>", "<mm:think>"))
        return (*self._pieces, *(("tags",) if tags else ()))

    def habit(self) -> Habit:
        return habit_of(next(iter(self._pieces.values()), []))


def habit_of(pieces: Sequence[str]) -> Habit:
    """How the pieces of one channel follow each other; "" when there are too few to tell."""
    if len(pieces) < 3:
        return ""
    if all(b.startswith(a) for a, b in itertools.pairwise(pieces)):
        return "cumulative"
    if pieces[-1] == "".join(pieces[:-1]):
        return "incremental, then all of it again"
    return "incremental"
