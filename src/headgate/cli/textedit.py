"""Edits to other programs' configuration as text: what we do not mean to change stays as it is.

The only place that knows how a key is set in JSON with comments, and how a marked block of ours is
put into TOML, YAML and dotenv files.  Text in, text out, no files.  Note: there is
no YAML parser here (none is a dependency), so YAML is edited by lines, and what the lines cannot
show (flow style, several documents) is refused rather than guessed.
"""

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

BEGIN, END = "# >>> headgate: put here by `headgate connect` >>>", "# <<< headgate <<<"
_SET_ASIDE = "# set aside by headgate: "
_MAX_DEPTH = 100


class EditError(Exception):
    """Why the text cannot be edited, in words for its owner; holds nothing of the text."""


# -- JSON, with the comments and trailing commas that several tools allow ------------------------


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
    """The value of JSON with comments; of nothing but space, `{}`."""
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
    indent = _indent_of(text, node.start)
    return text[: node.start] + _dump(text, value, indent) + text[node.end :]


def _insert(text: str, node: _Node, name: str | None, value: Any) -> str:
    """With one more part at the end of an object (or, without a name, of a list)."""
    nl = "\r\n" if "\r\n" in text else "\n"
    outer = _indent_of(text, node.start)
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
    indent = _indent_of(text, last.start)
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


def _indent_of(text: str, at: int) -> str:
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


# -- Marked blocks: TOML, YAML, dotenv -----------------------------------------------------------

Where = Literal["top", "bottom"]


class Block(NamedTuple):
    """Lines of ours.  YAML's `under` is the top-level list they belong in ("": the root's own)."""

    where: Where
    lines: str
    under: str | None = None


def _without(text: str) -> str:
    """The text as it was before our blocks, what they set aside put back."""
    if text.count(BEGIN) != text.count(END):
        raise EditError("one of headgate's marks is missing; remove what is between them yourself")
    block = re.compile(rf"[ \t]*{re.escape(BEGIN)}.*?{re.escape(END)}[ \t]*(?:\r?\n|$)", re.DOTALL)
    text = block.sub("", text)
    return re.sub(rf"^([ \t]*){re.escape(_SET_ASIDE)}", r"\1", text, flags=re.MULTILINE)


def _aside(text: str, names: Sequence[str], line: str, until: str = "") -> str:
    """With the lines that set these names commented out; `until` is where to stop looking."""
    end = len(text)
    if until and (found := re.search(until, text, re.MULTILINE)):
        end = found.start()
    pattern = re.compile(line % "|".join(re.escape(n) for n in names), re.MULTILINE)
    return pattern.sub(lambda m: _SET_ASIDE + m[0], text[:end]) + text[end:]


def _joined(text: str, blocks: Sequence[Block], indent: str = "") -> str:
    nl = "\r\n" if "\r\n" in text else "\n"
    for where, lines, _ in blocks:
        made = [BEGIN, *lines.strip("\n").split("\n"), END]
        block = "".join(f"{indent}{line}{nl}" for line in made)
        if where == "top":
            # `#:schema` and `---` mean something only in the first line.
            first = re.match(r"\ufeff?(?:#:schema[^\n]*\n|---[ \t]*\r?\n)?", text)
            at = first.end() if first else 0
            text = text[:at] + block + text[at:]
        else:
            text += (nl if text and not text.endswith("\n") else "") + block
    return text


def set_toml(text: str, blocks: Sequence[Block]) -> str:
    """With our blocks; keys of theirs at the root are set aside, tables of theirs are replaced."""
    _toml(text, "not valid TOML")
    text = _without(text)
    ours: dict[str, Any] = {}
    headers = []
    for block in blocks:
        ours |= tomllib.loads(block.lines)
        headers += re.findall(r"^\[.*\]$", block.lines, re.MULTILINE)
    for header in headers:  # a tool that rewrites its file drops our marks and keeps the table
        text = re.sub(
            rf"^{re.escape(header)}[ \t]*(?:#[^\n]*)?\r?\n(?:(?![ \t]*\[)[^\n]*\n?)*",
            "",
            text,
            flags=re.MULTILINE,
        )
    names = [k for k, v in ours.items() if not isinstance(v, dict)]
    before = _toml(text, "formatted in a way that cannot be edited safely")
    text = _aside(text, names, r"^[ \t]*(?:%s)[ \t]*=[^\n]*", r"^[ \t]*\[")
    text = _joined(text, blocks)
    after = _toml(text, "formatted in a way that cannot be edited safely")
    if after != _merged(before, ours):
        raise EditError("formatted in a way that cannot be edited safely")
    return text


def _toml(text: str, wrong: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at .*\)$", str(error))
        raise EditError(f"{wrong} {at[0] if at else ''}".rstrip()) from None


def _merged(tree: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    out = dict(tree)
    for key, value in ours.items():
        there = out.get(key)
        both = isinstance(value, dict) and isinstance(there, dict)
        out[key] = _merged(there, value) if both and isinstance(there, dict) else value
    return out


def set_dotenv(text: str, blocks: Sequence[Block]) -> str:
    """With our variables at the end; other settings of the same are set aside."""
    text = _without(text)
    names = [line.split("=")[0] for b in blocks for line in b.lines.strip().split("\n")]
    several = rf"^[ \t]*(?:export[ \t]+)?({'|'.join(map(re.escape, names))})[ \t]*=[ \t]*([\"'`])(?:(?!\2).)*$"
    if found := re.search(several, text, re.MULTILINE):
        raise EditError(f"`{found[1]}` has a value of several lines")
    text = _aside(text, names, r"^[ \t]*(?:export[ \t]+)?(?:%s)[ \t]*=[^\n]*")
    return _joined(text, blocks)


def set_yaml(text: str, blocks: Sequence[Block]) -> str:
    """With our block: keys at the root, items of the root's list, or first items of a list.

    The lines before `under` in the block are the head that a file without anything needs; what
    follows is indented as the list's first item is.
    """
    text = _without(text)
    bare = [x for x in text.lstrip("\ufeff").splitlines() if x.strip() and x.strip()[0] != "#"]
    if any(re.match(r"[ ]*\t", x) for x in bare):
        raise EditError("not valid YAML: a tab where spaces must be")
    after_head = [x for n, x in enumerate(bare) if n and not bare[n - 1].startswith("%")]
    if any(x.startswith(("---", "...")) for x in after_head):
        raise EditError("several YAML documents in one file")
    body = [x for x in bare if not x.startswith(("---", "%"))]
    if body and body[0].lstrip()[0] in "{[":
        raise EditError("YAML in flow style ({...}, [...]), which is not edited")
    (block,) = blocks
    if block.under is None:
        if body and not re.match(r"[^\s-][^\n]*?:(?:\s|$)", body[0]):
            raise EditError("not a YAML mapping")
        names = re.findall(r"^([^\s#:]+):", block.lines, re.MULTILINE)
        several = rf"^(?:{'|'.join(map(re.escape, names))}):[^\n]*\n(?=[ \t]+[^\s#]|- )"
        if found := re.search(several, text, re.MULTILINE):
            raise EditError(f"`{found[0].split(':')[0]}` has a value of several lines")
        text = _aside(text, names, r"^(?:%s):[ \t]*[^\n]*")
        return _joined(text, blocks)
    if block.under == "":
        if body and not re.match(r" *- ", body[0]):
            raise EditError("not a YAML list")
        return _joined(text, blocks, _indent_of(body[0], len(body[0])) if body else "")
    head, _, items = block.lines.partition(f"{block.under}:\n")
    if not body:
        return _joined(text, [block._replace(lines=f"{head}{block.under}:\n{items}")])
    found = re.search(rf"^{block.under}:[ \t]*(?:#[^\n]*)?\r?$\n?", text, re.MULTILINE)
    if found is None:
        if re.search(rf"^[\"']?{block.under}[\"']?[ \t]*:", text, re.MULTILINE):
            raise EditError(f"`{block.under}` is in flow style ([...]), which is not edited")
        if not re.match(r"[^\s-][^\n]*?:(?:\s|$)", body[0]):
            raise EditError("not a YAML mapping")
        return _joined(text, [block._replace(lines=f"{block.under}:\n{items}")])
    rest = text[found.end() :]
    first = re.match(r"(?:[ \t]*(?:#[^\n]*)?\r?\n)*( *)(- )?", rest)
    indent = first[1] if first and first[2] else "  "
    lines = "\n".join(x.removeprefix("  ") for x in items.strip("\n").split("\n"))
    nl = "\r\n" if "\r\n" in text else "\n"
    above = text[: found.end()]
    above += "" if above.endswith("\n") else nl
    return above + _joined("", [block._replace(lines=lines)], indent).replace("\n", nl) + rest


EDITORS: dict[str, Callable[[str, Sequence[Any]], str]] = {  # Any: changes or blocks
    "json": set_strict_json,
    "jsonc": set_json,
    "toml": set_toml,
    "yaml": set_yaml,
    "dotenv": set_dotenv,
}
