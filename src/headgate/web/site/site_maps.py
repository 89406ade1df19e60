"""The lists of the pages: for agents, for readers, and what crawlers may read."""

import re
from collections.abc import Iterable

from headgate.catalog.catalog import Catalog
from headgate.web.site import guides, prose
from headgate.web.site.deployment import PLAIN, Page, Site, body_of, head, note
from headgate.web.site.docs import docs_page, guide_page
from headgate.web.site.model_pages import family_page, model_page, models_page, providers_page
from headgate.web.site.skill import SKILL, SKILL_INDEXES, skill_page

# What crawlers have no use for: the console's pages, and the protocols.
_CLOSED = (
    "/v1/",
    "/v1beta/",
    "/admin/",
    "/usage",
    "/requests",
    "/sessions",
    "/api_keys",
    "/playground",
    "/upstreams",
    "/accounts",
    "/people",
    "/changes",
    "/profile",
    "/start",
    "/own_models",
    "/sign-in",
    "/setup",
)


def _map(site: Site, catalog: Catalog) -> list[tuple[str, list[Page]]]:
    """Return the pages for readers under their titles."""
    return [
        ("Start here", [docs_page("/docs.md", site, catalog), skill_page(SKILL, site, catalog)]),
        (
            "Models",
            [
                models_page("/models.md", site, catalog),
                family_page("/models/minimax.md", site, catalog),
                providers_page("/providers/minimax.md", site, catalog),
            ],
        ),
        ("Each model", [model_page(f"/models/{m.id}.md", site, catalog) for m in catalog.models]),
        ("Guides", [guide_page(path, site, catalog) for path in guides.paths()]),
    ]


def _entries(pages: Iterable[Page], site: Site) -> str:
    return prose.bullets(
        f"[{prose.plain(p.title)}]({site.base_url}{p.path}): {prose.plain(p.description)}"
        for p in pages
    )


def _plain_entries(pages: Iterable[Page], site: Site) -> str:
    """As `_entries`, for files that are read as they are: without a backslash before punctuation."""
    return prose.bullets(
        f"[{_flat(p.title)}]({site.base_url}{p.path}): {_flat(p.description)}" for p in pages
    )


def _flat(text: str) -> str:
    """The text without what markdown could take for a link or a tag."""
    return " ".join(re.sub(r"[\[\]<>\\`]", "", text).split())


def llms_txt(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Headgate"
    sections = "\n\n".join(
        f"## {name}\n\n{_plain_entries(pages, site)}" for name, pages in _map(site, catalog)
    )
    body = f"""# {title}

> MiniMax's text models at {site.base_url}, through the OpenAI, Anthropic and Gemini protocols.
{note(site)}
Base URL for OpenAI SDKs: `{site.base_url}/v1`. For Anthropic and Google SDKs: `{site.base_url}`. A key is needed for
requests, not for these pages.

{sections}

## Optional

- [Everything in one file]({site.base_url}/llms-full.txt)
- [API description]({site.base_url}/openapi.json): OpenAPI 3.1 of the protocols and of the admin API
- [API reference]({site.base_url}/docs/api.md)
- [Models as JSON]({site.base_url}/models.json): in the shape of models.dev
- [Sitemap]({site.base_url}/sitemap.md)
- [Index of skills]({site.base_url}{SKILL_INDEXES[0]})
"""
    return Page(path, title, "What this gateway offers, for agents.", body, PLAIN)


def llms_full_txt(path: str, site: Site, catalog: Catalog) -> Page:
    parts = [llms_txt("/llms.txt", site, catalog).markdown]
    for name, pages in _map(site, catalog):
        if name == "Guides":  # for who runs the gateway; each is a page of its own
            continue
        parts += (f"Source: {site.base_url}{p.path}\n\n{body_of(p)}" for p in pages)
    body = "\n---\n\n".join(parts)
    return Page(path, "Headgate, in full", "All pages in one file.", body, PLAIN)


def sitemap_page(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Sitemap"
    sections = "\n\n".join(
        f"## {name}\n\n{_entries(pages, site)}" for name, pages in _map(site, catalog)
    )
    body = f"""{head(path, title, site)}
{sections}

## For agents

- [llms.txt]({site.base_url}/llms.txt)
- [llms-full.txt]({site.base_url}/llms-full.txt)
- [Index of skills]({site.base_url}{SKILL_INDEXES[0]})
"""
    return Page(path, title, "Every page of this gateway.", body)


def robots_txt(path: str, site: Site, catalog: Catalog) -> Page:
    """Crawlers may read the pages; the console and the API are not for them."""
    closed = "".join(f"Disallow: {p}\n" for p in _CLOSED)
    body = f"User-agent: *\n{closed}Allow: /\n\nSitemap: {site.base_url}/sitemap.xml\n"
    return Page(path, "Robots", "What crawlers may read.", body, PLAIN)
