"""The shipped upstreams, and the names that agents choose by themselves."""

import fnmatch
import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct

from headgate.catalog.routes import Preset


class DefaultAliases(Struct, frozen=True):
    """The names that agents choose by themselves, and the models that answer each kind of name."""

    kinds: dict[str, tuple[str, ...]]  # by kind: model ids, the preferred one first
    patterns: dict[str, str]  # a pattern in lower case: a kind; the first that fits holds
    prefixes: tuple[str, ...]  # vendors' names that may stand in front
    listed: tuple[str, ...]  # whole names for Anthropic's list of models


class KindOfName:
    """Finds the kind of a name with one regular expression, as it runs for each request."""

    def __init__(self, aliases: DefaultAliases) -> None:
        self._kinds = tuple(aliases.patterns.values())
        prefixes = "|".join(re.escape(p) for p in aliases.prefixes)
        # `translate` makes no groups of its own from Python 3.11 on.
        patterns = "|".join(f"({fnmatch.translate(p)})" for p in aliases.patterns)
        self._match = re.compile(f"(?:{prefixes})?(?:{patterns})").match

    def __call__(self, name: str) -> str | None:
        """Return the kind of a name in lower case, or None for a name that no agent chooses."""
        found = self._match(name)
        return self._kinds[(found.lastindex or 0) - 1] if found else None


@cache
def default_aliases() -> DefaultAliases:
    tree = _data("aliases.toml")
    return msgspec.convert(
        {
            "kinds": tree["kinds"],
            "patterns": tree["patterns"],
            "prefixes": tree["vendors"]["prefixes"],
            "listed": tree["listed"]["names"],
        },
        DefaultAliases,
    )


@cache
def presets() -> dict[str, Preset]:
    return msgspec.convert(_data("upstreams.toml"), dict[str, Preset])


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads(files("headgate.catalog").joinpath(name).read_text("utf-8"))
