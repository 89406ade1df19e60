"""Tools that Anthropic defines and the client executes: their schemas, as functions for any model.

A request names such a tool by a dated type only, as Anthropic's models know its input.  The shapes are those of
Anthropic's reference (bash, text editor and memory tool, read 2026-11); the words are ours.  Note: the computer
tool is not here, as its input is meaningless to a model that was not taught to see screens.
"""

import msgspec
from msgspec import Raw

_Json = dict[str, object]
_TEXT: _Json = {"type": "string"}
_FILE: _Json = {
    "path": _TEXT | {"description": "The path of the file or directory."},
    "file_text": _TEXT | {"description": "For `create`: the content of the file."},
    "old_str": _TEXT
    | {"description": "For `str_replace`: the text to replace, which is there once."},
    "new_str": _TEXT | {"description": "For `str_replace`: the text in its place."},
    "insert_line": {
        "type": "integer",
        "description": "For `insert`: the line after which; 0: the first.",
    },
    "insert_text": _TEXT | {"description": "For `insert`: the text to insert."},
    "view_range": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "For `view`: the first and the last line; -1: to the end.",
    },
}


def _schema(properties: _Json, *required: str) -> Raw:
    return Raw(
        msgspec.json.encode(
            {"type": "object", "properties": properties, "required": list(required)}
        )
    )


def _commands(*names: str) -> _Json:
    return _TEXT | {"enum": list(names), "description": "What to do."}


_EDITING = ("view", "create", "str_replace", "insert")
# By the beginning of the type: what the model is shown of it, and its input.
_OWN: dict[str, tuple[str, Raw]] = {
    "bash_": (
        "Runs a command in a shell that keeps its state between calls, and returns its output.",
        _schema(
            {
                "command": _TEXT | {"description": "The command to run; not with `restart`."},
                "restart": {"type": "boolean", "description": "True: starts the shell anew."},
            }
        ),
    ),
    "text_editor_": (
        "Views, creates and edits files.",
        _schema({"command": _commands(*_EDITING), **_FILE}, "command", "path"),
    ),
    "memory_": (
        "Keeps notes as files below /memories, which later conversations can read.",
        _schema(
            {
                "command": _commands(*_EDITING, "delete", "rename"),
                **_FILE,
                "old_path": _TEXT | {"description": "For `rename`: the path now."},
                "new_path": _TEXT | {"description": "For `rename`: the path afterwards."},
            },
            "command",
        ),
    ),
}


def own_tool(kind: str) -> tuple[str, Raw] | None:
    """Return the description and the schema of a tool of this type; None for any other."""
    return next((found for prefix, found in _OWN.items() if kind.startswith(prefix)), None)
