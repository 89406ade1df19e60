"""The guides of docs/, served as they are written: each below /docs/, with its markdown twin.

In the package they are `headgate/docs`, in a checkout the folder beside `src`.  Note: links to files that
are not served become their texts, and images are left out, as a page loads nothing.
"""

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

_HIDDEN = ("releasing.md",)  # for who works on Headgate
_COMMENT = re.compile(r"^<!--.*-->$\n?", re.M)
_LINK = re.compile(r"(!?)\[([^\]]{0,300})\]\((?!https?:)([^)\s]{1,200})\)")


@cache
def names() -> tuple[str, ...]:
    """The files' names in order, the overview first."""
    place = _place()
    if place is None:
        return ()
    found = sorted(f.name for f in place.iterdir() if f.name.endswith(".md"))
    return tuple(sorted((n for n in found if n not in _HIDDEN), key=lambda n: n != "README.md"))


def paths() -> tuple[str, ...]:
    return tuple(map(path_of, names()))


def path_of(name: str) -> str:
    return "/docs/guides.md" if name == "README.md" else f"/docs/{name}"


@cache
def _text(name: str) -> str:
    place = _place()
    assert place is not None
    return str(place.joinpath(name).read_text("utf-8"))


def read(path: str, base_url: str) -> tuple[str, str, str]:
    """Return Title, description and text of the guide at a path, its links made whole."""
    name = next(n for n in names() if path_of(n) == path)
    title, _, rest = _text(name).partition("\n")
    body = _LINK.sub(lambda found: _linked(found, base_url), _COMMENT.sub("", rest).strip())
    return title.removeprefix("# ").strip(), _first_sentence(body), body


def _linked(found: re.Match[str], base_url: str) -> str:
    image, text, target = found[1], found[2], found[3]
    name, _, part = target.partition("#")
    if image:
        return ""
    if name in names():
        place = f"{base_url}{path_of(name)}"
        return f"[{text}]({place}{f'#{part}' if part else ''})"
    return text if name else found[0]


def _first_sentence(body: str) -> str:
    """The first sentence of the first paragraph, without mark-up."""
    for paragraph in body.split("\n\n"):
        if paragraph[:1].isalpha() or paragraph.startswith("**"):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", " ".join(paragraph.split()))
            return re.split(r"(?<=[.:]) ", plain, maxsplit=1)[0][:200].rstrip(":")
    return ""


def _place() -> Any:  # Any: a folder of the package, or of the checkout
    inside = files("headgate").joinpath("docs")
    if inside.is_dir():
        return inside
    beside = Path(__file__).parents[4] / "docs"
    return beside if (beside / "README.md").is_file() else None
