"""The escapes of JSON strings as single characters, so that what stands behind one is seen to begin there.

Texts of conversations are JSON, hold JSON (what tools return) or program text.  Each escape becomes lone
halves of surrogate pairs, which no text has that was read as UTF-8 or JSON, and becomes itself again
afterwards.  Escapes of plain ASCII in JSON, such as `\\u0040`, become the character for good, as values
hide behind them.

Note: the text is looked at in slices, so that no call keeps Python's lock for long.
"""

import re
from collections.abc import Iterator

_SLICE = 1 << 16  # characters
_BACKSLASH = "\udc5c"
_SHORT = {f"\\{letter}": chr(0xDC00 + ord(letter)) for letter in 'nrt"/bf'}
_BEGUN, _ENDED = "\udc80", "\udc81"  # around the digits of `\uXXXX`
# What a value may have inside: the others are where it ends.
SPACES = f"{_SHORT[chr(92) + 'n']}{_SHORT[chr(92) + 'r']}{_SHORT[chr(92) + 't']}"
_MEANINGS = {
    mark: {"n": "\n", "r": "\r", "t": "\t"}[e[1]] for e, mark in _SHORT.items() if e[1] in "nrt"
}
_RUN = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
# All of printable ASCII but the quote and the backslash, which are part of the form.
_ASCII = re.compile(r"\\u00(2[013-9a-fA-F]|[346][0-9a-fA-F]|5[0-9abdefABDEF]|7[0-9a-eA-E])")


def marked(text: str, *, json: bool) -> str:
    """Return the text with marks in place of escapes; `json`: the text is JSON, and nothing else."""
    if "\\" not in text:
        return text
    return "".join([_marked(piece, json) for piece in _slices(text)])


def _marked(piece: str, json: bool) -> str:
    piece = piece.replace("\\\\", _BACKSLASH)
    for escape, mark in _SHORT.items():
        piece = piece.replace(escape, mark)
    if json:
        piece = _ASCII.sub(_character, piece)
    return _RUN.sub(_marked_run, piece)


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))


def _marked_run(found: re.Match[str]) -> str:
    return found[0].replace("\\u", _BEGUN) + _ENDED


def _slices(text: str) -> Iterator[str]:
    """Slices of a text, none of which ends within an escape."""
    at, size = 0, len(text)
    while at < size:
        end = at + _SLICE
        if end < size and (last := text.rfind("\\", end - 5, end)) >= 0:
            begun = text[at : last + 1]
            escapes = (len(begun) - len(begun.rstrip("\\"))) % 2  # else it is an escaped one
            end = last if escapes else last + 1
        yield text[at:end]
        at = end


def unmarked(text: str) -> str:
    """Return the text with its escapes, as it was."""
    if text.isascii():
        return text
    for escape, mark in _SHORT.items():
        text = text.replace(mark, escape)
    return text.replace(_BEGUN, "\\u").replace(_ENDED, "").replace(_BACKSLASH, "\\\\")


def meant(value: str) -> str:
    """Return a value without marks, as a program would read it."""
    if value.isascii():
        return value
    for mark, meaning in _MEANINGS.items():
        value = value.replace(mark, meaning)
    return value
