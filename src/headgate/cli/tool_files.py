"""What goes into the files and variables of a tool, and where its files are."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from headgate.cli.json_edit import Item, set_json
from headgate.cli.open_tools import OPENCODE_SETTINGS
from headgate.cli.textedit import Block
from headgate.cli.tool import ConnectTarget, File, Overlay, Tool
from headgate.cli.vendor_tools import GEMINI_WINDOW


def filled(text: Any, target: ConnectTarget) -> Any:  # Any: a template of whatever shape
    """Return the template with the target's values in it; parts that need a missing key are None."""
    if text == "#context":
        return target.context
    if text == "#output":
        return target.output
    if text == "#images":
        return target.images
    if text == "#modalities":
        return ["text", "image"] if target.images else ["text"]
    if text == "#compression":
        return int(80 * target.context / GEMINI_WINDOW) / 100  # when four fifths are used
    if isinstance(text, str):
        if "<key>" in text and not target.key:
            return None
        if text == "<opencode>":
            return _opencode(target)
        values = (
            ("url", target.url),
            ("model", target.model),
            ("title", target.title),
            ("home", json.dumps(target.home, ensure_ascii=False)[1:-1]),
        )
        numbers = (("context", str(target.context)), ("output", str(target.output)))
        for name, value in (*values, *numbers, ("run", target.run), ("key", target.key)):
            text = text.replace(f"<{name}>", value)
        return text
    if isinstance(text, dict):
        return {k: filled(v, target) for k, v in text.items()}
    if isinstance(text, Block):
        kept = [x for x in text.lines.split("\n") if target.key or "<key>" not in x]
        return text._replace(lines=filled("\n".join(kept), target))
    if isinstance(text, Item):
        return Item(text.key, filled(text.value, target))
    if isinstance(text, tuple):
        return tuple(filled(part, target) for part in text)
    return text


def changes(file: File | Overlay, target: ConnectTarget) -> list[Any]:
    """What goes into a file, without what needs a key when there is none."""
    return [c for c in filled(file.changes, target) if isinstance(c, Block) or c[1] is not None]


def needs_key(file: File) -> bool:
    """Whether the key itself, not the name of its variable, is written into the file."""
    return "<key>" in repr(file.changes)


def place(file: File, env: Mapping[str, str]) -> Path:
    """Where the file is or will be, links followed: what is edited is what they point to."""
    if file.home_variable and (root := env.get(file.home_variable)):
        directory = Path(root).expanduser() / file.below
    elif file.home.startswith("app:"):
        directory = Path(click.get_app_dir(file.home.removeprefix("app:")))
    else:
        directory = Path(file.home).expanduser()
    paths = [directory / name for name in file.names]
    return Path(os.path.realpath(next((p for p in paths if p.exists()), paths[0])))


def environment(tool: Tool, target: ConnectTarget) -> dict[str, str]:
    """The variables that start the tool pointed here with nothing edited."""
    found = {name: filled(text, target) for name, text in tool.variables.items()}
    return {name: value for name, value in found.items() if value is not None}


def _opencode(target: ConnectTarget) -> str:
    return set_json("{}", filled(OPENCODE_SETTINGS, target))
