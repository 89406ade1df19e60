"""What describes a tool that is pointed here: its files, variables and arguments.

In every text `<url>` (without /v1), `<model>`, `<title>` (the model's display name),
`<context>` and `<output>` (tokens), `<key>`, `<run>` (a directory of ours) and `<home>` (that of the
tool's first file, as a string of TOML) stand for what is filled in; a string that is just `#context`, `#output`, `#compression`, `#images` or `#modalities` becomes a number, a
truth value or a list.  What needs a key (`<key>`) is left out when there is none: the hint then says
which variable to set.
"""

from typing import Any, Literal

from msgspec import Struct

KEY_VARIABLE = "HEADGATE_API_KEY"
Protocol = Literal["Messages", "Responses", "Gemini", "Chat"]


class ConnectTarget(Struct, frozen=True):
    """What a tool is pointed at."""

    url: str  # without a slash at the end, and without /v1
    model: str
    title: str
    context: int  # tokens
    output: int  # tokens
    key: str = ""  # a secret
    run: str = ""  # the directory of the files made for `headgate run`
    images: bool = False  # whether the model sees them
    home: str = ""  # the directory of the tool's first file


class File(Struct, frozen=True):
    """One file of a tool, and what is put into it."""

    kind: Literal["json", "jsonc", "toml", "yaml", "dotenv"]  # jsonc: it reads comments
    home: str  # the directory, unless `home_variable` names another; "app:x": click's
    names: tuple[str, ...]  # the first that exists is edited, else the first is made
    home_variable: str = ""
    below: str = ""  # the directory's name below what `home_variable` holds
    changes: tuple[Any, ...] = ()  # (path, value) for JSON, Blocks for the others


class Overlay(Struct, frozen=True):
    """A file of ours for `headgate run`, which the tool reads beside or instead of its own."""

    kind: Literal["json", "jsonc", "yaml"]
    name: str  # below `<run>`
    changes: tuple[Any, ...]  # as in File
    own: bool = False  # starts from the tool's first file as it is, not from nothing


class Tool(Struct, frozen=True):
    name: str
    title: str
    protocol: Protocol
    program: str
    install: str
    files: tuple[File, ...]
    variables: dict[str, str] = {}  # for `headgate run`
    arguments: tuple[str, ...] = ()  # for `headgate run`, before the user's own
    overlay: Overlay | None = None
    unset: tuple[str, ...] = ()  # variables that would win over ours
    key_in: str = KEY_VARIABLE  # the variable it takes the key from; "": only from its file
    runs: bool = True  # whether it can be started with nothing edited
    hints: tuple[str, ...] = ()
