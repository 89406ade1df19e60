"""What a deployment adds to the catalog's pages, what a page is, and how each begins.

`Site` is the only door for what is not package data.  Note: the base URL ends in
commands that people paste into a shell, so a character that no address of ours needs is refused.
"""

import re
from collections.abc import Mapping
from datetime import date

from msgspec import Struct

from headgate.storage.figures import Measured
from headgate.web.site import prose

MARKDOWN = "text/markdown; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"  # for .txt, which browsers show then
JSON = "application/json"
_LOCAL = (
    "\n> **Not MiniMax:** no upstream is set up here, so a small local model (SmolLM2-135M-Instruct)"
    " answers under every name below. Prices, limits and capabilities are those of the real models.\n"
)
SOURCES = (
    "Prices: [MiniMax, pay as you go](https://platform.minimax.io/docs/guides/pricing-paygo), as of"
    " 2026-10.",
    "Rate limits: [MiniMax, rate limits](https://platform.minimax.io/docs/guides/rate-limits), read"
    " 2026-11.",
    "Context and output: [models.dev](https://models.dev), 2026-07-02, and MiniMax's API.",
    "Dates: MiniMax's release notes.",
)
# Enough for every host, port and path; nothing that means anything to a shell, JSON, YAML or HTML.
_BASE_URL = re.compile(
    r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*"
)


SKILL_VERSION = (
    "0.1.0"  # of the skill and its plugin: raised when their text changes, not per release
)


class Site(Struct, frozen=True, kw_only=True):
    """What this deployment adds to the catalog, and may show to anybody."""

    base_url: str  # as clients reach it, without a slash at the end
    on: date  # the day (UTC) whose prices hold
    upstreams: Mapping[str, tuple[str, ...]] = {}  # by model: the names that may be shown
    measured: Mapping[str, Measured] = {}  # by the name of an upstream
    # By model and upstream, "" for all of them together.
    routes: Mapping[tuple[str, str], Measured] = {}
    named: bool = True  # whether names of upstreams may be shown
    errors: bool = (
        True  # whether shares of failures, and how many requests there were, may be shown
    )
    log: Mapping[str, str] = {}  # the time of what is measured, as a query of the log; {}: no links
    local: bool = False  # a small model on this machine answers
    version: str = SKILL_VERSION

    def __post_init__(self) -> None:
        if not _BASE_URL.fullmatch(self.base_url):
            raise ValueError("base_url must be http(s)://host[:port][/path], without a last slash")


class Page(Struct, frozen=True):
    """`markdown` is what is sent, whatever the media type says it is."""

    path: str  # its own, with the ending
    title: str
    description: str
    markdown: str
    media_type: str = MARKDOWN


def head(path: str, title: str, site: Site, **fields: object) -> str:
    url = site.base_url + path
    front = prose.front(
        title=title, url=url, canonical=url.removesuffix(".md"), locale="en", **fields
    )
    return f"{front}\n# {prose.plain(title)}\n{note(site)}"


def note(site: Site) -> str:
    return _LOCAL if site.local else ""


def body_of(page: Page) -> str:
    """Return the page without the front matter, which is for machines."""
    return re.sub(r"\A---\n.*?\n---\n+", "", page.markdown, flags=re.DOTALL)
