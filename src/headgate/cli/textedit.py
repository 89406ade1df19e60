"""Edits to other programs' configuration as text: what we do not mean to change stays as it is.

The only place that knows how a key is set in JSON with comments, and how a marked block of ours is
put into TOML, YAML and dotenv files.  Text in, text out, no files.  Note: there is
no YAML parser here (none is a dependency), so YAML is edited by lines, and what the lines cannot
show (flow style, several documents) is refused rather than guessed.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from headgate.cli.json_edit import EditError, indent_of, set_json, set_strict_json

BEGIN, END = "# >>> headgate: put here by `headgate connect` >>>", "# <<< headgate <<<"
_SET_ASIDE = "# set aside by headgate: "


# -- JSON, with the comments and trailing commas that several tools allow ------------------------


# -- Marked blocks: TOML, YAML, dotenv -----------------------------------------------------------

Where = Literal["top", "bottom"]


class Block(NamedTuple):
    """Holds the lines that are ours.  YAML's `under` is the top-level list they belong in ("": the root's own)."""

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
        return _joined(text, blocks, indent_of(body[0], len(body[0])) if body else "")
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
