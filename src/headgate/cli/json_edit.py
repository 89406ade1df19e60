"""This module edits JSON files as text."""

import json
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

_MAX_DEPTH = 100


class EditError(Exception):
    """Why the text cannot be edited, in words for its owner; holds nothing of the text."""


class Item(Struct, frozen=True):
    """A step of a path: the element of a list whose `key` is `value`, made when there is none."""

    key: str
    value: str


class Default(Struct, frozen=True):
    """A value that is put only where there is none."""

    value: Any  # a JSON value


Step = str | Item
Path = tuple[Step, ...]


class _Node(Struct):
    start: int
    end: int
    value: Any  # the JSON value: whatever the file holds
    names: list[str] = []
    parts: list["_Node"] = []  # members or items
    comma: bool = False  # one follows the last part


class _Reader:
    """JSON to values with their places in the text (RFC 8259, and comments and trailing commas)."""

    _space = re.compile(r"(?:[ \t\r\n\ufeff]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
    _string = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
    _scalar = re.compile(r"-?\d[\d.eE+-]*|true|false|null")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def document(self) -> _Node:
        node = self._value(0)
        self._skip()
        if self.at < len(self.text):
            self._fail()
        return node

    def _skip(self) -> str:
        found = self._space.match(self.text, self.at)
        assert found
        self.at = found.end()
        return self.text[self.at : self.at + 1]

    def _fail(self) -> None:
        before = self.text[: self.at]
        line = before.count("\n") + 1
        raise EditError(f"not valid JSON at line {line}, column {self.at - before.rfind(chr(10))}")

    def _plain(self, pattern: re.Pattern[str]) -> _Node:
        found = pattern.match(self.text, self.at)
        if found is None:
            self._fail()
        assert found
        try:
            value = json.loads(found[0])
        except ValueError:
            self._fail()
        self.at = found.end()
        return _Node(found.start(), found.end(), value)

    def _value(self, depth: int) -> _Node:
        first = self._skip()
        if depth > _MAX_DEPTH:
            raise EditError("nested too deeply")
        if first not in ("{", "["):
            return self._plain(self._string if first == '"' else self._scalar)
        start, close = self.at, "}" if first == "{" else "]"
        names: list[str] = []
        parts: list[_Node] = []
        comma = False
        self.at += 1
        while self._skip() != close:
            if parts and not comma:
                self._fail()
            if close == "}":
                names.append(self._plain(self._string).value)
                if self._skip() != ":":
                    self._fail()
                self.at += 1
            parts.append(self._value(depth + 1))
            comma = self._skip() == ","
            self.at += comma
        self.at += 1
        values = [p.value for p in parts]
        value: Any = dict(zip(names, values, strict=True)) if close == "}" else values
        return _Node(start, self.at, value, names, parts, comma)


def read_json(text: str) -> Any:  # Any: whatever the file holds
    """Return the value of JSON with comments; of nothing but space, `{}`."""
    return _Reader(text).document().value if text.strip("\ufeff \t\r\n") else {}


def set_json(text: str, changes: Sequence[tuple[Path, Any]]) -> str:  # Any: a JSON value
    """The text with each path set to its value; order, indentation and comments stay."""
    if not text.strip("\ufeff \t\r\n"):
        text = "{}\n"
    wanted = read_json(text)
    if not isinstance(wanted, dict):
        raise EditError("not a JSON object")
    for path, value in changes:
        if isinstance(value, Default):
            if _has(wanted, path):
                continue
            value = value.value
        text = _set(text, path, value)
        _put(wanted, path, value)
    if read_json(text) != wanted:  # a guard against ourselves: nobody else would notice
        raise EditError("formatted in a way that cannot be edited safely")
    return text


def set_strict_json(text: str, changes: Sequence[tuple[Path, Any]]) -> str:
    """As set_json, for tools that take a file with comments or trailing commas for a broken one."""
    after = set_json(text, changes)
    try:
        json.loads(text.strip("\ufeff \t\r\n") or "{}")
    except ValueError:
        raise EditError(
            "comments or trailing commas, which the tool itself does not read"
        ) from None
    return after


def _has(tree: Any, path: Path) -> bool:
    for step in path:
        if not isinstance(tree, dict) or step not in tree:
            return False
        tree = tree[step]
    return True


def _put(tree: Any, path: Path, value: Any) -> None:
    """The change on the values, in place."""
    for n, step in enumerate(path):
        last = n == len(path) - 1
        if isinstance(step, Item):
            found = next((i for i, item in enumerate(tree) if _is(item, step)), len(tree))
            if found == len(tree):
                tree.append({})
            if last:
                tree[found] = value
            tree = tree[found]
        elif last:
            tree[step] = value
        else:
            tree = tree.setdefault(step, [] if isinstance(path[n + 1], Item) else {})


def _is(item: Any, step: Item) -> bool:
    return isinstance(item, dict) and item.get(step.key) == step.value


def _set(text: str, path: Path, value: Any) -> str:
    node = _Reader(text).document()
    for n, step in enumerate(path):
        kind = list if isinstance(step, Item) else dict
        if not isinstance(node.value, kind):
            at = ".".join(s if isinstance(s, str) else s.value for s in path[:n])
            raise EditError(f"`{at}` is no {'list' if kind is list else 'object'}")
        found = None
        for i, part in enumerate(node.parts):  # the last of two equal names is the one that holds
            if _is(part.value, step) if isinstance(step, Item) else node.names[i] == step:
                found = part
                if isinstance(step, Item):
                    break
        if found is None:
            for later in reversed(path[n + 1 :]):
                value = [value] if isinstance(later, Item) else {later: value}
            return _insert(text, node, step if isinstance(step, str) else None, value)
        node = found
    if node.value == value and type(node.value) is type(value):
        return text
    indent = indent_of(text, node.start)
    return text[: node.start] + _dump(text, value, indent) + text[node.end :]


def _insert(text: str, node: _Node, name: str | None, value: Any) -> str:
    """With one more part at the end of an object (or, without a name, of a list)."""
    nl = "\r\n" if "\r\n" in text else "\n"
    outer = indent_of(text, node.start)
    label = "" if name is None else f"{json.dumps(name, ensure_ascii=False)}: "
    if not node.parts:
        indent = outer + _unit(text)
        new = f"{nl}{indent}{label}{_dump(text, value, indent)}"
        inner = text[node.start + 1 : node.end - 1].rstrip()  # comments, perhaps
        return f"{text[: node.start + 1]}{inner}{new}{nl}{outer}{text[node.end - 1 :]}"
    last = node.parts[-1]
    if "\n" not in text[node.start : last.start]:  # all on one line: stay there
        new = f"{'' if node.comma else ','} {label}{json.dumps(value, ensure_ascii=False)}"
        at = last.end
        if node.comma:
            at = text.index(",", last.end) + 1
        return text[:at] + new + text[at:]
    indent = indent_of(text, last.start)
    comma = "" if node.comma else ","
    # A comment behind the last part belongs to it, so the new one goes onto the line after.
    rest = re.compile(r"[ \t]*,?[ \t]*(?://[^\n]*|/\*[^\n]*?\*/[ \t\r]*)?(?=\n)").match(
        text, last.end
    )
    end = rest.end() if rest and rest.end() < node.end else last.end
    if node.comma and "," not in text[last.end : end]:
        end = text.index(",", last.end) + 1
    tail = text[last.end : end].rstrip("\r")
    new = f"{nl}{indent}{label}{_dump(text, value, indent)}{',' if node.comma else ''}"
    rest_of_it = text[last.end + len(tail) :]
    return text[: last.end] + comma + tail + new + rest_of_it


def indent_of(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    found = re.search(r"^([ \t]+)\S", text, re.MULTILINE)
    return found[1] if found else "  "


def _dump(text: str, value: Any, indent: str) -> str:
    lines = json.dumps(value, indent=_unit(text), ensure_ascii=False).split("\n")
    return ("\r\n" if "\r\n" in text else "\n").join(
        line if n == 0 else indent + line for n, line in enumerate(lines)
    )
