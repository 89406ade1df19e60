"""Chunks of a stream that differ in one string only, as nearly all chunks of a reply do.

Around its text, each chunk of a reply has the same bytes: id, model, time, index.  A payload that begins and ends
like one that was read before, and has one whole JSON string in between, is the same chunk with another text:
JSON's grammar does not ask what is inside of a string.  So only that string is decoded.

Note: which string that is, is not guessed.  It is replaced in a payload and read again, and counts only if the text
that was read is the replacement.
"""

import re
from collections.abc import Callable

import msgspec

MOST_BYTES = 2048  # of a payload that is learned; of each open stream so much is kept
MOST_LEARNED = 8  # payloads of one reply, as some upstreams change another field with every chunk

_STRING = rb'"\s*+:\s*+("(?:[^"\\]++|\\.)*+")'
_MARK, _MARK_JSON = "\u2402mark\u2403", "\u2402mark\u2403".encode().join((b'"', b'"'))
_decode = msgspec.json.Decoder(str).decode


class RepeatedChunk:
    """What is around the text of a reply's chunks; `field` is the name that the text has."""

    __slots__ = ("_after", "_before", "_begin", "_end", "_field", "_left", "_text")

    def __init__(self, field: bytes, text: Callable[[bytes], str | None]) -> None:
        """`text` reads a payload: its text, where it has nothing else to report, or None."""
        self._field = field
        self._text = text
        self._left = MOST_LEARNED
        self._before = self._after = b"\0"  # with which no payload begins
        self._begin, self._end = 1, -1  # where the text does, from the beginning and from the end

    def read(self, payload: bytes) -> str | None:
        """Return the text of a payload that differs in nothing else; None: it must be read whole."""
        begin, end = self._begin, self._end
        if payload[:begin] != self._before or payload[end:] != self._after:
            return None
        try:
            return _decode(payload[begin:end])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def learn(self, payload: bytes) -> None:
        """Keep what is around the text of a payload that was read whole, and that has such a text.

        It is read again for that: what is known to have none need not come here.
        """
        if not self._left or len(payload) > MOST_BYTES or not self._text(payload):
            return
        self._left -= 1
        found = re.search(b'"' + self._field + _STRING, payload)
        if found is None:
            return
        before, after = payload[: found.start(1)], payload[found.end(1) :]
        if after and self._text(before + _MARK_JSON + after) == _MARK:
            self._before, self._after = before, after
            self._begin, self._end = len(before), -len(after)
