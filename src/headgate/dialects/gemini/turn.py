"""One turn of a conversation of generateContent while it is read."""

from collections.abc import Sequence

from msgspec import Raw

from headgate.chat import Media, Part, Text, Thinking
from headgate.dialects.gemini.parts import joined_texts


class TurnParts:
    """The parts of one turn.  Streams are often kept as they came: pieces are joined again."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._text: list[str | Raw] = []
        self._thought: list[str | Raw] = []

    def say(self, text: str | Raw) -> None:
        if text:
            if self._thought:
                self._flush()
            self._text.append(text)

    def think(self, text: str | Raw, signature: str) -> None:
        """Pieces are one thinking, up to its signature."""
        if self._text:
            self._flush()
        if text:
            self._thought.append(text)
        if signature:
            self.parts.append(Thinking(self._thoughts(), signature))

    def add(self, part: Part) -> None:
        self._flush()
        self.parts.append(part)

    def lead(self, parts: Sequence[Text | Media]) -> None:
        """Put these before all others."""
        self._flush()
        self.parts[:0] = parts

    def close(self) -> tuple[Part, ...]:
        self._flush()
        return tuple(self.parts)

    def _thoughts(self) -> str:
        text = Text(joined_texts(self._thought)).text
        self._thought.clear()
        return text

    def _flush(self) -> None:
        if self._text:
            self.parts.append(Text(joined_texts(self._text)))
            self._text.clear()
        if self._thought:
            self.parts.append(Thinking(self._thoughts()))
