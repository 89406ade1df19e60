"""The page of how to use this gateway, and the guides."""

from headgate.catalog.catalog import Catalog
from headgate.web.site import guides, prose
from headgate.web.site.deployment import Page, Site, head, note


def docs_page(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Using this gateway"
    default = catalog.models[0]
    lasting = [m for m in catalog.models[1:] if not (m.own or m.legacy or m.retirement)]
    agent = next(iter(lasting), default)
    shown = prose.examples(site.base_url, default.id)
    requests = "\n\n".join(
        f"### {name}\n\n" + "\n\n".join(prose.code(e) for e in shown if e.protocol == protocol)
        for protocol, name in prose.PROTOCOLS.items()
    )
    body = prose.fill(
        prose.text("docs.md"),
        base=site.base_url,
        note=note(site),
        examples=requests,
        errors=prose.errors(),
        agent=agent.id,
        agent_context=str(agent.context_window),
    )
    front = prose.front(
        title=title,
        url=site.base_url + path,
        canonical=site.base_url + path.removesuffix(".md"),
        locale="en",
        version=site.version,
    )
    return Page(path, title, "Clients, protocols, examples, errors, headers.", f"{front}\n{body}")


def guide_page(path: str, site: Site, catalog: Catalog) -> Page:
    title, about, body = guides.read(path, site.base_url)
    text = f"{head(path, title, site)}\n{body}\n\n[All guides]({site.base_url}/docs/guides.md)\n"
    return Page(path, title, about, text)
