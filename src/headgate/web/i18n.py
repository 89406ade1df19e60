"""The console's words in other languages: English text is the key, zh.toml has the rest.

The only place that chooses a language.  A text that is missing there is shown in English; a test
finds every one that templates use.
"""

import functools
import html
import tomllib
from importlib.resources import files
from typing import Final

from headgate.web.formats import Html

LANGUAGES: Final = {"en": "English", "zh": "中文"}


@functools.cache
def _table(language: str) -> dict[str, str]:
    if language == "en":
        return {}
    file = files("headgate.web").joinpath(f"{language}.toml")
    return {str(k): str(v) for k, v in tomllib.loads(file.read_text("utf-8")).items()}


def language(chosen: str, accept: str) -> str:
    """The visitor's choice if it is one of ours, else the first of their browser's that is."""
    if chosen in LANGUAGES:
        return chosen
    for part in accept.split(","):
        name = part.split(";")[0].strip().split("-")[0].lower()
        if name in LANGUAGES:
            return name
    return "en"


def word(language: str, text: str, /, **values: object) -> str:
    """Return the text in this language; values that are markup stay so, and the others are escaped beside them."""
    found = _table(language).get(text, text)
    if any(isinstance(v, Html) for v in values.values()):
        shown = {k: v if isinstance(v, Html) else html.escape(str(v)) for k, v in values.items()}
        return Html(html.escape(found, quote=False).format(**shown))
    return found.format(**values) if values else found
