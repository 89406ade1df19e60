"""HTML of a page's markdown, and which of the two a client wants.

The only place that writes HTML for the catalog.  CommonMark and tables by markdown-it-py 4
(markdown-it-py.readthedocs.io, read 2026-11), with HTML in the text kept as text.  A page is one
file: nothing loaded from anywhere, a policy that allows just its own style sheet and its one script,
which adds the buttons that copy code.

Note:
- the policy forbids `style` attributes too, so the alignment of table cells becomes a class;
- links to this site lose their host and `.md`: HTML leads to HTML, under any name of the host;
- tables and code that are wider than a phone scroll on their own, by keyboard as well.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from headgate.web.site import highlight, prose

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

Form = Literal["markdown", "html"]

# --- which form ------------------------------------------------------------------------------

_RANGE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
# weight = OWS ";" OWS "q=" qvalue (RFC 9110, 12.4.2); what does not fit it is not a range at all.
_Q = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def negotiate(path: str, accept: str) -> Form:
    """Return Markdown at a path with an ending; elsewhere HTML, unless markdown is preferred.

    By the most specific range and its q (RFC 9110, 12.5.1).  At equal q whoever writes
    `text/markdown` at all means it: agents send `text/markdown, text/html, */*`, browsers never.
    """
    if path.endswith((".md", ".txt", ".json", ".xml")):
        return "markdown"
    quality: dict[str, float] = {}
    for each in _RANGE.findall(accept):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        q = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        if _Q.fullmatch(q):
            quality[kind] = max(float(q), quality.get(kind, 0.0))
    wild = quality.get("text/*", quality.get("*/*", 0.0))
    markdown = quality.get("text/markdown", wild)
    as_html = quality.get("text/html", wild)
    if markdown > as_html or (markdown == as_html > 0 and "text/markdown" in quality):
        return "markdown"
    return "html"


# --- HTML ------------------------------------------------------------------------------------


@cache
def _icon() -> str:
    """The console's mark, as a data URL."""
    mark = files("headgate.web").joinpath("static", "mark.svg").read_bytes()
    return f"data:image/svg+xml;base64,{base64.b64encode(mark).decode()}"


def csp() -> str:
    """Of an HTML page: nothing from anywhere, and no style sheet, script or icon but its own."""
    return (
        f"default-src 'none'; style-src '{_digest(prose.text('page.css'))}';"
        f" script-src '{_digest(_script())}'; img-src data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _script() -> str:
    """The script of a page, which the console has as a file."""
    return files("headgate.web").joinpath("static", "code.js").read_text("utf-8")


def document(
    markdown: str,
    *,
    title: str,
    description: str,
    path: str,  # of the markdown
    base_url: str,
    version: str,
    navigation: Sequence[tuple[str, str]],  # path of the markdown, name
    here: str,  # the path of the one that is current
) -> str:
    root = urlsplit(base_url).path
    current = {here: ' aria-current="page"'}
    links = "".join(
        f'<a href="{root}{to.removesuffix(".md")}"{current.get(to, "")}>{name}</a>'
        for to, name in navigation
    )
    text = body(markdown, base_url)
    full_title = title if title == "Headgate" else f"{title} - Headgate"
    icon = _icon()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="{escape(description)}">
<title>{escape(full_title)}</title>
<link rel="canonical" href="{base_url}{path.removesuffix(".md")}">
<link rel="alternate" type="text/markdown" href="{root}{path}">
<link rel="icon" type="image/svg+xml" href="{icon}">
<style>{prose.text("page.css")}</style>
</head>
<body>
<header><a class="brand" href="{root}/models">Headgate</a><nav aria-label="Pages">{links}</nav></header>
<main>
{text}</main>
<footer><a href="{root}{path}">This page as markdown</a><span>Headgate {escape(version)}</span></footer>
<script>{_script()}</script>
</body>
</html>
"""


def body(markdown: str, base_url: str) -> str:
    """Return the markdown as HTML, without a page around it."""
    renderer = _renderer()
    tokens = renderer.parse(markdown)
    _adapt(tokens, base_url)
    return str(renderer.renderer.render(tokens, renderer.options, {}))


@cache
def _renderer() -> "MarkdownIt":
    """Return CommonMark and tables; HTML in the text stays text."""
    from markdown_it import MarkdownIt  # only who wants HTML waits for it

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    rules: Any = getattr(renderer.renderer, "rules")  # noqa: B009  # Any: its protocol omits it
    rules["fence"] = lambda tokens, n, *_: _code(tokens[n].content, tokens[n].info.strip())
    rules["code_block"] = lambda tokens, n, *_: _code(
        tokens[n].content, highlight.guessed(tokens[n].content)
    )
    rules["table_open"] = lambda tokens, n, *_: _table(tokens, n)
    rules["table_close"] = lambda *_: "</table></div>\n"
    return renderer


def _table(tokens: "list[Token]", start: int) -> str:
    """Return the opening of a table, which scrolls by itself; one of two columns fits a phone instead."""
    end = next(n for n in range(start, len(tokens)) if tokens[n].type == "thead_close")
    columns = sum(token.type == "th_open" for token in tokens[start:end])
    facts = " facts" if columns == 2 else ""
    return f'<div class="wide{facts}" tabindex="0" role="group" aria-label="Table"><table>\n'


def _code(text: str, language: str) -> str:
    """A block of code, which is scrolled by keyboard as well."""
    named = f' class="language-{escape(language)}"' if language else ""
    return f'<pre tabindex="0"><code{named}>{highlight.highlighted(text, language)}</code></pre>\n'


def _adapt(tokens: "list[Token]", base_url: str) -> None:
    """Return addresses for headings, classes for styles that the policy forbids, paths for links."""
    seen: set[str] = set()
    for n, token in enumerate(tokens):
        if token.type == "heading_open":
            slug = re.sub(r"[^a-z0-9]+", "-", tokens[n + 1].content.lower()).strip("-")
            if slug and slug not in seen:
                seen.add(slug)
                token.attrSet("id", slug)
        elif token.type in ("th_open", "td_open") and token.attrs.pop("style", ""):
            token.attrSet("class", "number")
        if token.type == "th_open" and not tokens[n + 1].content:
            token.tag = tokens[n + 2].tag = "td"  # the corner of a table is no title
        for child in token.children or ():
            href = child.attrs.get("href") if child.type == "link_open" else None
            if isinstance(href, str) and href.startswith(f"{base_url}/"):
                to = urlsplit(href)
                part = f"#{to.fragment}" if to.fragment else ""
                query = f"?{to.query}" if to.query else ""
                child.attrSet("href", to.path.removesuffix(".md") + query + part)
