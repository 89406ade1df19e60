"""Colours for code on the pages: a few kinds of words in a few languages, found by one pass of a pattern.

Note: it is no parser. A word that it takes for another only has another colour, and every character is
escaped, whatever it is taken for.
"""

import re
from html import escape

_STRING = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
_NUMBER = r"\b[0-9][0-9_.]*\b"
_HASH = r"(?<![^\s])#[^\n]*"
_SHELL = r"\b(?:export|curl|pip|uvx|uv|headgate|git|cd|make|npm|npx|sudo|docker|podman|if|then|else|fi|for|do|done)\b"
_PYTHON = (
    r"\b(?:from|import|as|def|class|return|for|in|if|elif|else|while|with|async|await|try|except|not|and"
    r"|or|is|None|True|False|print)\b"
)
_TYPESCRIPT = r"\b(?:import|from|const|let|new|await|async|for|of|if|else|return|function|export|true|false|null)\b"
_JSON_NAME = r"\"(?:[^\"\\\n]|\\.)*\"(?=\s{0,4}:)"
_TOML_NAME = (
    r"(?m:^\s{0,8}\[{1,2}[^\]\n]{1,200}\]{1,2}|^\s{0,8}[A-Za-z0-9_.\"-]{1,100}(?=\s{0,40}=))"
)


def _pattern(comment: str, string: str, keyword: str) -> re.Pattern[str]:
    return re.compile(f"(?P<c>{comment})|(?P<k>{keyword})|(?P<s>{string})|(?P<n>{_NUMBER})")


_NOTHING = r"(?!)"
_BASH = _pattern(_HASH, r"\"(?:[^\"\\]|\\.)*\"|'[^']*'", _SHELL)
_TS = _pattern(r"(?<![^\s;{}()])//[^\n]*", f"{_STRING}|`[^`]*`", _TYPESCRIPT)
_TOML = _pattern(_HASH, _STRING, _TOML_NAME)
_LANGUAGES = {
    "bash": _BASH,
    "sh": _BASH,
    "shell": _BASH,
    "python": _pattern(_HASH, _STRING, _PYTHON),
    "typescript": _TS,
    "javascript": _TS,
    "json": _pattern(_NOTHING, _STRING, _JSON_NAME),
    "toml": _TOML,
    "dotenv": _TOML,
}


def highlighted(code: str, language: str) -> str:
    """Return the code as HTML, with a class for comments (`c`), words (`k`), texts (`s`) and numbers (`n`)."""
    pattern = _LANGUAGES.get(language)
    if pattern is None:
        return escape(code, quote=False)
    out, at = [], 0
    for found in pattern.finditer(code):
        out.append(escape(code[at : found.start()], quote=False))
        out.append(f'<span class="{found.lastgroup}">{escape(found[0], quote=False)}</span>')
        at = found.end()
    out.append(escape(code[at:], quote=False))
    return "".join(out)


def guessed(code: str) -> str:
    """Return the language of code that has no name, as in the guides' indented blocks."""
    first = code.lstrip().partition("\n")[0]
    if first.startswith(("[", "# headgate.toml")) or re.match(r"[a-z_]{1,40} {0,20}= ", first):
        return "toml"
    if first.startswith("{"):
        return "json"
    if first.startswith(("from ", "import ")):
        return "python"
    return "bash"
