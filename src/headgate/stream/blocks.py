"""Blocks of tool calls in text: found, read, and cut out."""

import re
from collections.abc import Mapping

import msgspec

from headgate.chat import Tool
from headgate.stream.arguments import ANY, MAX_DEPTH, Type

NS = "]<]minimax[>["  # one token of M3's vocabulary, 200058

# A file written by a tool is seldom larger.  What is longer is passed on as text.
_MAX_BLOCK = 1 << 18  # characters
# Readings of one text: each costs its length, and more than one is needed only by files about tags.
_MAX_TRIES = 32
_MAX_LOOKS = 1024  # closing tags in one text that are looked at; each may cost a block's length
_MAX_HEAD = 512  # characters from the opening tag to the first parameter

_ns = f"(?:{re.escape(NS)})?"
_name = r"""(?:"([^"<>]{1,256})"|'([^'<>]{1,256})'|([^\s"'<>]{1,256}))"""
_tag = r"[A-Za-z_][\w.-]{0,127}"
_block = r"(?:minimax:|mm:)?tool_call"

_OPENERS = tuple(ns + f"<{p}tool_call>" for p in ("minimax:", "mm:", "") for ns in ("", NS))
_LONGEST = max(map(len, _OPENERS))
_OPEN = re.compile(rf"{_ns}<({_block})>")
# What the search for blocks stops at: code, the end of a line in a code span, and a block.
_MARK = re.compile(rf"`+|~+|{_OPEN.pattern}")
_MARK_IN_CODE = re.compile(r"`+|~+|\n")
_INVOKE = re.compile(rf"\s*{_ns}<invoke\s+name\s*=\s*{_name}\s*>")
_INVOKE_END = re.compile(rf"\s*{_ns}</invoke>")
_PARAMETER = re.compile(rf"\s*{_ns}<parameter\s+name\s*=\s*{_name}\s*>")
_PARAMETER_END = re.compile(
    rf"{_ns}</parameter>(?=\s*{_ns}(?:<parameter\s|</invoke>\s*{_ns}(?:<invoke\s|</{_block}>)))"
)
_TAG = re.compile(rf"\s*{_ns}<({_tag})>")
_HEAD = re.compile(
    rf"{_OPEN.pattern}{_INVOKE.pattern}(?=\s*{_ns}<(?:parameter\s|/invoke>|{_tag}>))"
)


def _begun(*atoms: str) -> str:
    """A pattern for every beginning of what the atoms, one after the other, match."""
    return "".join(f"(?:{a}" for a in atoms) + ")?" * len(atoms)


# The beginnings of _HEAD, with M3's token taken out.
_ATOMS = [*"<invoke", r"\s+", *"name", r"\s*", "=", r"\s*"]
_ATOMS += [rf"(?:{_name}|[\"'][^\"'<>]*|[^\s\"'<>]*)", r"\s*", ">", r"\s*", "<", r"/?[\w.-]*\s?"]
_HEAD_BEGUN = re.compile(rf"<{_block}>\s*" + _begun(*_ATOMS))


def _quoted(match: "re.Match[str]", first: int = 1) -> str:
    return match[first] or match[first + 1] or match[first + 2]


def _string(text: str) -> str:
    return msgspec.json.encode(text).decode()


class Invoke(msgspec.Struct, frozen=True, gc=False):
    name: str
    arguments: str  # JSON


def _read_block(
    text: str, tools: Mapping[str, Tool], types: dict[str, Type]
) -> list[Invoke] | None:
    """The calls of a whole block, or None where it is none; `types` keeps what schemas say."""
    opening = _OPEN.match(text)
    assert opening is not None
    at, out = opening.end(), []
    while (invoke := _INVOKE.match(text, at)) is not None:
        name, at = _quoted(invoke), invoke.end()
        wanted = types.get(name)
        if wanted is None:
            tool = tools.get(name)
            wanted = types[name] = ANY if tool is None else Type(tool.parameters)
        stated: dict[str, str] = {}
        while (end := _INVOKE_END.match(text, at)) is None:
            if (parameter := _PARAMETER.match(text, at)) is not None:
                key = _quoted(parameter)
                closing = _PARAMETER_END.search(text, parameter.end())
                span = None if closing is None else closing.span()
                tagged = False
            elif (parameter := _TAG.match(text, at)) is not None:
                key, tagged = parameter[1], True
                span = _tag_end(text, key, parameter.end())
            else:
                return None
            if span is None:
                return None
            value, at = text[parameter.end() : span[0]], span[1]
            stated[key] = _value(value, wanted.member(key), tagged)
        at = end.end()
        body = ",".join(f"{_string(k)}:{v}" for k, v in stated.items())
        out.append(Invoke(name, f"{{{body}}}"))
    closing = re.compile(rf"\s*{_ns}</{opening[1]}>").match(text, at)
    return out if out and closing is not None and closing.end() == len(text) else None


# The tags of any parameter: one pattern for all, as patterns of their own cost more than reading.
_ANY_TAG = re.compile(rf"{re.escape(NS)}<(/?)({_tag})>")
# Where the token before it was lost, what follows must look like the next tag.
_BARE_TAG = re.compile(rf"</({_tag})>(?=\s*(?:(?:</invoke>|</{_tag}>\s*\Z|<{_tag}>)|\Z))")
_BARE_TAG_NS = re.compile(rf"</({_tag})>(?=\s*(?:{re.escape(NS)}|\Z))")


def _tag_end(text: str, key: str, at: int) -> tuple[int, int] | None:
    """Where the closing tag of one of M3's parameters is, `at` being behind its opening tag."""
    depth = 0
    for tag in _ANY_TAG.finditer(text, at):
        if tag[2] != key:
            continue
        if not tag[1]:
            depth += 1
        elif depth:
            depth -= 1
        else:
            return tag.span()
    for bare in (_BARE_TAG_NS if NS in text else _BARE_TAG).finditer(text, at):
        if bare[1] == key:
            return bare.span()
    return None


def _value(text: str, wanted: Type, tagged: bool, depth: int = 0) -> str:
    """Return the JSON of a parameter's text, as the schema says; a string as it is where it says nothing."""
    if tagged and depth < MAX_DEPTH:
        nested = _nested(text, wanted, depth)
        if nested is not None:
            return nested
    literal = wanted.literal(text)
    return _string(text) if literal is None else literal


def _nested(text: str, wanted: Type, depth: int) -> str | None:
    """Return an object or array written as tags."""
    types = wanted.types
    if "string" in types or not (types & {"object", "array"} or (not types and NS in text)):
        return None
    if not text.strip():
        return "[]" if "array" in types else "{}"
    at, pairs = 0, []
    while (tag := _TAG.match(text, at)) is not None:
        span = _tag_end(text, tag[1], tag.end())
        if span is None:
            return None
        pairs.append((tag[1], text[tag.end() : span[0]]))
        at = span[1]
    if not pairs or text[at:].strip():
        return None
    if all(key == "item" for key, _ in pairs) and (not types or "array" in types):
        items = wanted.element()
        return "[" + ",".join(_value(v, items, True, depth + 1) for _, v in pairs) + "]"
    values = {k: _value(v, wanted.member(k), True, depth + 1) for k, v in pairs}
    return "{" + ",".join(f"{_string(k)}:{v}" for k, v in values.items()) + "}"


class Written(msgspec.Struct, frozen=True):
    """A whole block of calls, and the text that it was."""

    calls: list[Invoke]
    text: str


class Blocks:
    """One text, cut anywhere: text and whole blocks come out, in their order.

    What comes out depends on the text alone, not on the cuts.
    """

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._types: dict[str, Type] = {}
        self._looks = 0  # at closing tags
        self._held: list[str] = []  # the beginning of a tag, or of a block
        self._size = 0  # characters of `_held`
        self._tail = ""  # the end of `_held`
        self._closer = ""  # that ends the block which is held; empty while none surely is
        self._searched = 0  # from the start of the block: no closing tag before it helped
        self._tries = 0
        self._code = ("", 0)  # open code: its mark and how many of it; three or more are a fence
        self._run = ("", 0)  # marks at the very end, of which more may come
        self.calm = True  # nothing is held or unclear: text without any mark passes

    def feed(self, text: str) -> list[str | Written]:
        if self._closer:
            self._held.append(text)
            self._size += len(text)
            found = self._closer in self._tail + text
            self._tail = (self._tail + text)[1 - len(self._closer) :]
            if not found and self._size <= _MAX_BLOCK:
                return []
            return self._scan("".join(self._held), last=False)
        return self._scan("".join((*self._held, text)), last=False)

    def close(self) -> list[str | Written]:
        return self._scan("".join(self._held), last=True)

    def _scan(self, text: str, last: bool) -> list[str | Written]:
        self._held, self._size, self._closer = [], 0, ""
        out: list[str | Written] = []
        reported = at = 0  # passed on; looked at
        if self._run[1]:
            mark, count = self._run
            at = len(text) - len(text.lstrip(mark))
            self._run = (mark, count + at)
            if at < len(text) or last:
                self._mark(*self._run)
        while True:
            in_code = self._code[1] > 0
            found = (_MARK_IN_CODE if in_code else _MARK).search(text, at)
            if found is None:
                break
            start, at = found.span()
            first = text[start]
            if first == "\n":
                if self._code[1] < 3:
                    self._code = ("", 0)
            elif first in "`~":
                if at == len(text) and not last:
                    self._run = (first, at - start)
                else:
                    self._mark(first, at - start)
            else:
                calls, end = self._block(text, start, last)
                if calls is None and end < 0:
                    self._searched = 0
                    at = start + 1
                    continue
                if start > reported:
                    out.append(text[reported:start])
                if calls is None:
                    self._hold(text[start:])
                    return out
                out.append(Written(calls, text[start:end]))
                self._searched = 0
                reported = at = end
        cut = len(text) if last or self._code[1] or self._run[1] else _cut(text, at)
        if cut > reported:
            out.append(text[reported:cut])
        self._hold(text[cut:])
        return out

    def _hold(self, text: str) -> None:
        if text:
            self._held, self._size = [text], len(text)
            self._tail = text[1 - len(self._closer) :] if self._closer else ""
        self.calm = not text and not self._run[1] and self._code[1] not in (1, 2)

    def _mark(self, mark: str, count: int) -> None:
        """A run of back-ticks or tildes is whole: it opens code, closes it, or is part of it."""
        self._run = ("", 0)
        opened, n = self._code
        if not n:
            if mark == "`" or count >= 3:
                self._code = (mark, count)
        elif mark == opened and (count == n or (n >= 3 and count > n)):
            self._code = ("", 0)

    def _block(self, text: str, start: int, last: bool) -> tuple[list[Invoke] | None, int]:
        """The calls of the block that begins here and where it ends.

        None and -1 when it is no block, None and 0 while it may become one.
        """
        no, wait = (None, -1), (None, 0)
        head = _HEAD.match(text, start, start + _MAX_HEAD)
        if head is None:
            begun = text[start : start + _MAX_HEAD + 1]
            if last or len(begun) > _MAX_HEAD:
                return no
            return wait if _HEAD_BEGUN.fullmatch(_without_token(begun)) else no
        if _quoted(head, 2) not in self._tools:
            return no
        closer = f"</{head[1]}>"
        at = max(head.end(), start + self._searched)
        while (at := text.find(closer, at)) >= 0:
            end = at + len(closer)
            self._looks += 1
            if end - start > _MAX_BLOCK or self._tries >= _MAX_TRIES or self._looks > _MAX_LOOKS:
                return no
            before = text[max(start, at - 96) : at].rstrip().removesuffix(NS).rstrip()
            if before.endswith("</invoke>"):
                self._tries += 1
                calls = _read_block(text[start:end], self._tools, self._types)
                if calls is not None:
                    return calls, end
            at = end
        if last or len(text) - start > _MAX_BLOCK:
            return no
        self._closer = closer
        self._searched = max(0, len(text) - start - len(closer) + 1)
        return wait


def _without_token(text: str) -> str:
    """The text without M3's token, and without what may become one at its end."""
    text = text.replace(NS, "")
    for n in range(min(len(NS) - 1, len(text)), 0, -1):
        if NS.startswith(text[-n:]):
            return text[:-n]
    return text


def _cut(text: str, at: int) -> int:
    """Where the longest end of `text` begins that may become the opening of a block."""
    for start in range(max(at, len(text) - _LONGEST + 1), len(text)):
        if text[start] in "<]":
            tail = text[start:]
            if any(opener.startswith(tail) for opener in _OPENERS):
                return start
    return len(text)
