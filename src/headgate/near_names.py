"""A name that a mistyped one may have meant: offered only when the two are really near."""

import difflib
from collections.abc import Collection

MAX_CHARS = 128  # of a name that is compared; the work grows with its square
_ALIKE = 0.75  # two letters swapped in a name of eight, one wrong in a name of four


def nearest(name: str, known: Collection[str], most: int = 1) -> list[str]:
    """Return up to `most` of the known names that are near, the nearest first."""
    spelled = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name[:MAX_CHARS].lower(), spelled, most, _ALIKE)
    return [spelled[k] for k in close]


def hint(name: str, known: Collection[str]) -> str:
    """Return a sentence with the near name, or with all known ones, for an error message."""
    near = nearest(name, known)
    return f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(known)}."
