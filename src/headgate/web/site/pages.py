"""The catalog as pages: which there are, and each as bytes, for agents as markdown, for people as HTML of the same text.

The only place that knows their addresses; model_pages.py, docs.py, skill.py, site_maps.py and models_json.py
write them.  They are made of the catalog, the presets, the dialects' own error
tables and `Site`, which is what one deployment adds; the prose is package data in `text/`.  Formats:
front matter as YAML, llms.txt as llmstxt.org, SKILL.md as agentskills.io/specification,
the index of skills as agent-skills discovery 0.2.0 (npm `skills` 1.5 checks the digest over the very
bytes that are served), all read 2026-11.  Site and page are defined in deployment.py, markdown is
put together in prose.py, HTML in hypertext.py.

Note:
- markdown links are whole URLs, for whoever reads a copy elsewhere; in HTML those to this site
  become paths without `.md`, so that one can walk about under any name of the host;
- prices are the catalog's own digits, never a float, never rounded;
- rendering HTML takes some ten milliseconds: `Pages` does it once per page and keeps the bytes.
"""

import re
from html import escape

from headgate.catalog.catalog import Catalog
from headgate.web.site import guides, hypertext
from headgate.web.site.deployment import JSON, Page, Site, body_of
from headgate.web.site.docs import docs_page, guide_page
from headgate.web.site.hypertext import Form, csp, negotiate
from headgate.web.site.model_pages import family_page, model_page, models_page, providers_page
from headgate.web.site.models_json import models_json
from headgate.web.site.site_maps import llms_full_txt, llms_txt, robots_txt, sitemap_page
from headgate.web.site.skill import SKILL, SKILL_INDEXES, skill_index, skill_page

_NAVIGATION = (
    ("/models.md", "Models"),
    ("/models/minimax.md", "MiniMax"),
    ("/providers/minimax.md", "Upstreams"),
    ("/docs.md", "Docs"),
    (SKILL, "Skill"),
    ("/docs/api", "API"),
    ("/usage", "Console"),
)
_MODEL = re.compile(r"/models/(minimax/)?([A-Za-z0-9._:/@+-]{1,128})\.md", re.IGNORECASE)


def page(path: str, site: Site, catalog: Catalog) -> Page | None:
    """Return the page at a path, with `.md` or without; None when there is none.

    Only the id of a model may be in any case, and short as in `/models/minimax/m2.7`.
    """
    name = _name(path, catalog)
    if name is None:
        return None
    made = (
        _PAGES.get(name)
        or _FILES.get(name)
        or (guide_page if name in guides.paths() else model_page)
    )
    return made(name, site, catalog)


def _name(path: str, catalog: Catalog) -> str | None:
    """The path that the page itself goes by."""
    if path in _FILES:
        return path
    name = path.removesuffix(".md") + ".md"
    if name in _PAGES or name in guides.paths():
        return name
    if found := _MODEL.fullmatch(name):
        wanted = f"{'minimax-' if found[1] else ''}{found[2]}".lower()
        return next((f"/models/{m.id}.md" for m in catalog.models if m.id.lower() == wanted), None)
    return None


def html(page: Page, site: Site) -> str:
    """Return the page for people: the same text, no script, nothing loaded from elsewhere."""
    return hypertext.document(
        f"```json\n{page.markdown}```" if page.media_type == JSON else body_of(page),
        title=page.title,
        description=page.description,
        path=page.path,
        base_url=site.base_url,
        version=site.version,
        navigation=_NAVIGATION,
        here="/models/minimax.md" if _is_of_a_model(page.path) else page.path,
    )


def _is_of_a_model(path: str) -> bool:
    return path not in _PAGES and path not in _FILES and path not in guides.paths()


def paths(catalog: Catalog) -> tuple[str, ...]:
    """Every page for readers, each by its own path."""
    return (*_PAGES, *guides.paths(), *(f"/models/{m.id}.md" for m in catalog.models))


class Pages:
    """The pages as bytes, each rendered when it is first asked for."""

    def __init__(self, site: Site, catalog: Catalog) -> None:
        self._site, self._catalog = site, catalog
        self._made: dict[tuple[str, Form], tuple[list[tuple[str, str]], bytes]] = {}

    def answer(self, path: str, accept: str) -> tuple[list[tuple[str, str]], bytes] | None:
        """Headers and body for a GET of `path`, or None when it is no page."""
        name = _name(path, self._catalog)
        if name is None:
            return None
        form = negotiate(path, accept)
        if (name, form) not in self._made:
            found = page(name, self._site, self._catalog)
            assert found is not None
            self._made[name, form] = _answer(found, form, self._site)
        return self._made[name, form]

    def shown(self, path: str, accept: str) -> tuple[str, str] | None:
        """Title and HTML of a page for readers, to be shown in the console; None: it is no such page."""
        name = _name(path, self._catalog)
        if name is None or name in _FILES or negotiate(path, accept) != "html":
            return None
        found = page(name, self._site, self._catalog)
        assert found is not None
        return found.title, hypertext.body(body_of(found), self._site.base_url)


def _answer(page: Page, form: Form, site: Site) -> tuple[list[tuple[str, str]], bytes]:
    # Who is signed in gets the page within the console.
    headers = [("vary", "Accept, Cookie"), ("x-content-type-options", "nosniff")]
    headers.append(("cache-control", "public, max-age=60"))
    if form == "markdown":
        return [("content-type", page.media_type), *headers], page.markdown.encode()
    twin = f'<{site.base_url}{page.path}>; rel="alternate"; type="text/markdown"'
    headers += [("link", twin), ("content-security-policy", csp())]
    return [("content-type", "text/html; charset=utf-8"), *headers], html(page, site).encode()


def _sitemap_xml(path: str, site: Site, catalog: Catalog) -> Page:
    """The pages as sitemaps.org has them (protocol 0.9, read 2026-11)."""
    locations = [p.removesuffix(".md") for p in paths(catalog)]
    urls = "".join(
        f"  <url><loc>{escape(site.base_url + p)}</loc></url>\n" for p in (*locations, "/docs/api")
    )
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n'
    )
    return Page(path, "Sitemap", "The pages, for crawlers.", body, "application/xml")


_PAGES = {
    "/models.md": models_page,
    "/models/minimax.md": family_page,
    "/providers/minimax.md": providers_page,
    "/docs.md": docs_page,
    "/sitemap.md": sitemap_page,
    SKILL: skill_page,
}
# What has an ending of its own, and no place in the map's lists.
_FILES = {
    "/models.json": models_json,
    "/robots.txt": robots_txt,
    "/sitemap.xml": _sitemap_xml,
    "/llms.txt": llms_txt,
    "/llms-full.txt": llms_full_txt,
    **dict.fromkeys(SKILL_INDEXES, skill_index),
}
