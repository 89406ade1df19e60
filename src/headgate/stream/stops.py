"""Stop sequences for upstreams that ignore them: text in, text out, and where it has to end.

The only place that looks for stop sequences.  It answers as an engine with native stops would that
looks after every character: the sequence that is complete first wins, and the longest of those that
are complete at the same character.  So how the text was cut into pieces changes nothing.

Note: "longest" does not wait.  With the stops "ab" and "abc", "abc" ends at "ab";
waiting for the "c" would hold text back that may never be decided.
"""

from collections.abc import Sequence


class StopScanner:
    """Holds back no more than the longest end of the text that may begin a stop sequence."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys(s for s in stops if s))
        self._firsts = frozenset(s[0] for s in self._stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.hit: str | None = None

    def feed(self, text: str) -> tuple[str, str | None]:
        """Text that may be shown now, and the stop sequence that ends it, if one does.

        After a hit nothing more comes out.
        """
        if self.hit is not None:
            return "", self.hit
        text = self._held + text
        found: tuple[int, int, str] | None = None  # end and negative length: the least wins
        for stop in self._stops:
            at = text.find(stop)
            if at >= 0:
                match = (at + len(stop), -len(stop), stop)
                found = match if found is None else min(found, match)
        if found is not None:
            end, minus_length, self.hit = found
            self._held = ""
            return text[: end + minus_length], self.hit
        cut = self._cut(text)
        self._held = text[cut:]
        return text[:cut], None

    def close(self) -> str:
        """What was held back: the text ended, so no stop sequence can follow."""
        rest, self._held = self._held, ""
        return rest

    def _cut(self, text: str) -> int:
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._firsts:
                tail = text[at:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return at
        return len(text)


__all__ = ["StopScanner"]
